#include "tests/model/compare.h"

#include <inttypes.h>
#include <stdio.h>

#include "raftstore/lock/restore.h"

/* These return int, not bool: they are joined by & so that every difference is told. */
static int number(const char *what, uint64_t want, uint64_t got)
{
    if (want != got)
        printf("%s: want %" PRIu64 ", got %" PRIu64 "\n", what, want, got);
    return want == got;
}

static int bytes(const char *what, struct bytes want, struct bytes got)
{
    bool same = bytes_equal(want, got);
    if (!same)
        printf("%s: want '%.*s', got '%.*s'\n", what, (int)want.size,
               want.size ? (const char *)want.data : "", (int)got.size,
               got.size ? (const char *)got.data : "");
    return same;
}

static bool compare_result(const struct lock_result *want, const struct lock_result *got)
{
    return number("code", want->code, got->code) & number("stamp", want->stamp_ns, got->stamp_ns) &
           number("session", want->session_id, got->session_id) &
           number("token", want->token, got->token) &
           number("deadline", want->deadline_ns, got->deadline_ns) &
           number("ttl", want->ttl_ms, got->ttl_ms) & bytes("holder", want->holder, got->holder) &
           number("holder deadline", want->holder_deadline_ns, got->holder_deadline_ns) &
           number("repeated", want->repeated, got->repeated);
}

static bool compare_effect(const struct lock_effect *want, const struct lock_effect *got)
{
    return number("type", want->type, got->type) & number("effect code", want->code, got->code) &
           number("waited", want->waited, got->waited) & number("mode", want->mode, got->mode) &
           number("limit", want->limit, got->limit) & number("kind", want->kind, got->kind) &
           number("effect session", want->session_id, got->session_id) &
           number("seq", want->seq, got->seq) & number("effect token", want->token, got->token) &
           number("effect deadline", want->deadline_ns, got->deadline_ns) &
           number("effect ttl", want->ttl_ms, got->ttl_ms) &
           number("start", want->start, got->start) & number("end", want->end, got->end) &
           bytes("path", want->path, got->path) & bytes("path2", want->path2, got->path2) &
           bytes("owner", want->owner, got->owner) & number("pid", want->pid, got->pid) &
           number("uid", want->uid, got->uid);
}

static void print_effect(const char *which, const struct lock_effect *e)
{
    printf("%s: type=%d code=%d mode=%d session=%" PRIu64 " seq=%" PRIu64 " token=%" PRIu64
           " %" PRIu64 "..%" PRIu64 " %.*s %.*s\n",
           which, (int)e->type, (int)e->code, (int)e->mode, e->session_id, e->seq, e->token,
           e->start, e->end, (int)e->path.size, e->path.size ? (const char *)e->path.data : "",
           (int)e->owner.size, e->owner.size ? (const char *)e->owner.data : "");
}

bool compare_step(const struct model *m,
                  const struct lock_result *want,
                  const struct lock_effects *got)
{
    bool same = compare_result(want, &got->result);
    same &= number("number of effects", m->n_effects, got->n);
    for (size_t i = 0; i < got->n && i < m->n_effects; i++) {
        if (!compare_effect(&m->effects[i], &got->list[i])) {
            printf("  (effect %zu)\n", i);
            same = false;
        }
    }
    for (size_t i = 0; i < m->n_effects && !same; i++)
        print_effect("want", &m->effects[i]);
    for (size_t i = 0; i < got->n && !same; i++)
        print_effect("got ", &got->list[i]);
    return same;
}

struct tally {
    struct model *m;
    unsigned n_directories, n_sessions, n_results, n_holds, n_waiters, n_delays, n_infos;
    bool same;
};

static bool same_hold(struct tally *y, const struct lock_row *row)
{
    for (unsigned i = 0; i < y->m->n_holds; i++) {
        const struct m_hold *h = y->m->holds[i];
        if (h->token != row->hold.token || h->c.start != row->hold.start)
            continue;
        return bytes("hold path", text_bytes(&h->path), row->hold.path) &
               bytes("hold owner", text_bytes(&h->c.owner), row->hold.owner) &
               bytes("hold note", text_bytes(&h->note), row->hold.note) &
               number("hold session", h->session_id, row->hold.session_id) &
               number("hold deadline", m_deadline(h), row->hold.deadline_ns) &
               number("hold ttl", h->ttl, row->hold.ttl_ms) &
               number("hold since", h->since, row->hold.since_ns) &
               number("hold renewed", h->renewed, row->hold.renewed_ns) &
               number("hold end", h->c.end, row->hold.end) &
               number("hold delay", h->delay, row->hold.lock_delay_ms) &
               number("hold agent", h->agent, row->hold.agent) &
               number("hold mode", h->c.exclusive ? 2 : 1, row->hold.mode) &
               number("hold limit", h->c.limit, row->hold.limit) &
               number("hold kind", (uint64_t)h->kind, row->hold.kind) &
               number("hold mtime", h->mtime, row->hold.mtime_ns) &
               number("hold file", h->file, row->hold.file_token) &
               number("hold twin", h->twin, row->hold.twin) &
               number("hold bound", h->bound, row->hold.session_bound) &
               number("hold pid", h->pid, row->hold.pid) &
               number("hold uid", h->uid, row->hold.uid) &
               number("hold gid", h->gid, row->hold.gid) &
               number("hold perm", h->perm, row->hold.perm);
    }
    printf("a hold that the model does not have: token %" PRIu64 "\n", row->hold.token);
    return false;
}

static bool same_waiter(struct tally *y, const struct lock_row *row)
{
    const struct m_waiter *w = y->n_waiters < y->m->n_waiters ? y->m->waiters[y->n_waiters] : NULL;
    if (w == NULL)
        return number("waiters", 0, 1);
    int same = number("queue number", w->number, row->waiter.queue_number) &
               number("waiter session", w->session_id, row->waiter.session_id) &
               number("waiter seq", w->seq, row->waiter.seq) &
               number("waiter since", w->since, row->waiter.since_ns) &
               number("waiter deadline", w->deadline, row->waiter.deadline_ns) &
               number("waiter convert", w->convert, row->waiter.convert_token) &
               number("waiter agent", w->agent, row->waiter.agent) &
               number("waiter paths", w->n_paths, row->waiter.n_paths) &
               number("waiter limit", w->c.limit, row->waiter.limit) &
               number("waiter start", w->c.start, row->waiter.start) &
               number("waiter end", w->c.end, row->waiter.end) &
               bytes("waiter owner", text_bytes(&w->c.owner), row->waiter.owner) &
               bytes("waiter note", text_bytes(&w->note), row->waiter.note);
    for (unsigned i = 0; i < w->n_paths && same; i++)
        same = bytes("waiter path", text_bytes(&w->paths[i]), row->waiter.paths[i]);
    return same;
}

static bool same_session(struct tally *y, const struct lock_row *row)
{
    const struct m_session *s = m_session(y->m, row->session.session_id);
    if (s == NULL)
        return number("sessions", 0, row->session.session_id);
    return number("session deadline", s->deadline, row->session.deadline_ns) &
           number("session ttl", s->ttl, row->session.ttl_ms) &
           number("session opened", s->opened, row->session.opened_ns) &
           number("session ack", s->ack, row->session.ack_seq) &
           number("session lapsed", s->lapsed, row->session.lapsed) &
           bytes("session host", text_bytes(&s->host), row->session.host);
}

static bool same_result(struct tally *y, const struct lock_row *row)
{
    const struct m_session *s = m_session(y->m, row->result.session_id);
    for (unsigned i = 0; s != NULL && i < s->n_kept; i++) {
        if (s->kept[i].seq == row->result.seq)
            return number("kept code", s->kept[i].r.code, row->result.result.code) &
                   number("kept token", s->kept[i].r.token, row->result.result.token) &
                   number("kept stamp", s->kept[i].r.stamp_ns, row->result.result.stamp_ns);
    }
    return number("kept seq", 0, row->result.seq);
}

static bool same_directory(struct tally *y, const struct lock_row *row)
{
    struct text path = text_of(row->directory.path);
    const struct m_node *n = m_node(y->m, &path);
    if (n == NULL || !n->directory)
        return bytes("directory", bytes_str(""), row->directory.path);
    return number("directory id", n->id, row->directory.directory_id) &
           number("directory implicit", n->implicit, row->directory.implicit) &
           number("directory uid", n->uid, row->directory.uid) &
           number("directory gid", n->gid, row->directory.gid) &
           number("directory perm", n->perm, row->directory.perm) &
           number("directory changed", n->changed, row->directory.changed_ns);
}

static bool same_delay(struct tally *y, const struct lock_row *row)
{
    struct text path = text_of(row->delay.path);
    const struct m_node *n = m_node(y->m, &path);
    return number("delay", n == NULL ? 0 : n->delay_until, row->delay.until_ns);
}

static bool same_meta(struct tally *y, const struct lock_row *row)
{
    const struct model *m = y->m;
    return number("index", m->index, row->meta.index) & number("term", m->term, row->meta.term) &
           number("stamp", m->stamp, row->meta.stamp_ns) &
           number("next token", m->next_token, row->meta.next_token) &
           number("next session", m->next_session, row->meta.next_session_id) &
           number("next directory", m->next_directory, row->meta.next_directory_id) &
           number("next queue number", m->next_number, row->meta.next_queue_number);
}

static int visit_row(void *arg, const struct lock_row *row)
{
    struct tally *y = arg;
    switch (row->type) {
    case LOCK_ROW_META:
        y->same &= same_meta(y, row);
        break;
    case LOCK_ROW_DIRECTORY:
        y->same &= same_directory(y, row);
        y->n_directories++;
        break;
    case LOCK_ROW_SESSION:
        y->same &= same_session(y, row);
        y->n_sessions++;
        break;
    case LOCK_ROW_RESULT:
        y->same &= same_result(y, row);
        y->n_results++;
        break;
    case LOCK_ROW_HOLD:
        y->same &= same_hold(y, row);
        y->n_holds++;
        break;
    case LOCK_ROW_WAITER:
        y->same &= same_waiter(y, row);
        y->n_waiters++;
        break;
    case LOCK_ROW_DELAY:
        y->same &= same_delay(y, row);
        y->n_delays++;
        break;
    case LOCK_ROW_NODE:
        y->n_infos++;
        break;
    }
    return 0;
}

bool compare_state(struct model *m, const struct lock_table *t)
{
    struct tally y = {.m = m, .same = true};
    unsigned directories = 0, delays = 0, results = 0;
    (void)lock_export(t, visit_row, &y); /* The visitor never stops it. */
    for (unsigned i = 0; i < m->n_nodes; i++) {
        directories += m->nodes[i].directory;
        delays += m->nodes[i].delay_until != 0;
    }
    for (unsigned i = 0; i < m->n_sessions; i++)
        results += m->sessions[i]->n_kept;
    return y.same & number("n directories", directories, y.n_directories) &
           number("n sessions", m->n_sessions, y.n_sessions) &
           number("n results", results, y.n_results) & number("n holds", m->n_holds, y.n_holds) &
           number("n waiters", m->n_waiters, y.n_waiters) & number("n delays", delays, y.n_delays) &
           number("n infos", m->n_infos, y.n_infos);
}

void print_command(const struct lock_command *c)
{
    printf("op=%d flags=%u stamp=%" PRIu64 " session=%" PRIu64 " seq=%" PRIu64 " ack=%" PRIu64
           " owner=%.*s token=%" PRIu64 " mode=%d kind=%d range=%" PRIu64 "..%" PRIu64
           " ttl=%" PRIu64 " wait=%" PRIu64 " delay=%" PRIu64 " agent=%" PRIu64 " cancel=%" PRIu64
           " limit=%u",
           (int)c->op, c->flags, c->stamp_ns, c->session_id, c->seq, c->ack_seq, (int)c->owner.size,
           c->owner.size ? (const char *)c->owner.data : "", c->token, (int)c->mode, (int)c->kind,
           c->start, c->end, c->ttl_ms, c->wait_ms, c->lock_delay_ms, c->agent, c->cancel_seq,
           c->limit);
    for (unsigned i = 0; i < c->n_paths; i++)
        printf(" %.*s", (int)c->paths[i].size,
               c->paths[i].size ? (const char *)c->paths[i].data : "");
    printf("\n");
}
