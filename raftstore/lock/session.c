/* Sessions: open, alive, lapsed, ended.
 *
 *     OPEN --> alive --deadline, holds that nobody wants--> lapsed --KEEPALIVE--> alive
 *                |                                             |
 *                |--CLOSE; deadline, no holds or wanted ones   |--CLOSE; wanted; evicted; no holds
 * left v                                             v ended ended */
#include "raftstore/lock/table.h"

#include <stdlib.h>

static int id_order(const struct session *a, const struct session *b)
{
    return (a->id > b->id) - (a->id < b->id);
}

static int lapsed_order(const struct session *a, const struct session *b)
{
    if (a->deadline_ns != b->deadline_ns)
        return a->deadline_ns < b->deadline_ns ? -1 : 1;
    return id_order(a, b);
}

RB_GENERATE(session_tree, session, id_entry, id_order)
RB_GENERATE(lapsed_tree, session, lapsed_entry, lapsed_order)

struct session *session_find(const struct lock_table *t, uint64_t id)
{
    struct session key = {.id = id};
    return RB_FIND(session_tree, (struct session_tree *)(uintptr_t)&t->sessions, &key);
}

struct session *session_after(const struct lock_table *t, uint64_t id)
{
    if (id == UINT64_MAX)
        return NULL;
    struct session key = {.id = id + 1};
    return RB_NFIND(session_tree, (struct session_tree *)(uintptr_t)&t->sessions, &key);
}

/* Add a session as `like` says (without lists), alive or lapsed. */
struct session *session_add(struct lock_table *t, const struct session *like, struct bytes host)
{
    struct session *s = xcalloc(1, sizeof *s + host.size);
    s->id = like->id;
    s->deadline_ns = like->deadline_ns;
    s->ttl_ms = like->ttl_ms;
    s->opened_ns = like->opened_ns;
    s->ack_seq = like->ack_seq;
    s->lapsed = like->lapsed;
    s->host_size = (uint8_t)host.size;
    if (host.size > 0)
        memcpy(s->host, host.data, host.size);
    TAILQ_INIT(&s->waiters);
    RB_INIT(&s->waiters_by_seq);
    RB_INSERT(session_tree, &t->sessions, s);
    t->n_sessions++;
    if (s->lapsed) {
        RB_INSERT(lapsed_tree, &t->lapsed, s);
        t->n_lapsed++;
    } else {
        heap_add(t, HEAP_SESSION, s);
    }
    digest_session(t, s, true);
    digest_ack(t, s, true);
    return s;
}

/* Free a session that has neither holds nor waiters. */
static void session_remove(struct lock_table *t, struct session *s)
{
    for (uint32_t i = 0; i < s->n_kept; i++)
        digest_kept(t, s, &s->kept[s->kept_begin + i], false);
    digest_session(t, s, false);
    digest_ack(t, s, false);
    if (s->lapsed) {
        RB_REMOVE(lapsed_tree, &t->lapsed, s);
        t->n_lapsed--;
    } else {
        heap_remove(t, HEAP_SESSION, s);
    }
    RB_REMOVE(session_tree, &t->sessions, s);
    t->n_sessions--;
    session_free(s);
}

void session_free(struct session *s)
{
    free(s->kept);
    free(s);
}

static void refuse_waiters(struct lock_table *t, struct session *s)
{
    struct waiter *w;
    while ((w = TAILQ_FIRST(&s->waiters)) != NULL)
        waiter_refuse(t, w, LOCK_SESSION_ENDED);
}

/* End it with all that hangs on it. */
void session_end(struct lock_table *t, struct session *s)
{
    refuse_waiters(t, s);
    while (s->holds != NULL)
        hold_finish(t, s->holds, LOCK_SESSION_ENDED);
    effect_add(t, LOCK_EFFECT_SESSION_ENDED)->session_id = s->id;
    session_remove(t, s);
}

static bool list_wants(const struct link_list *list, const struct hold *h)
{
    const struct link *l;
    TAILQ_FOREACH(l, list, entry)
    {
        struct claim c = waiter_claim(l->waiter);
        if (claim_wants(&c, h))
            return true;
    }
    return false;
}

static bool hold_is_awaited(const struct hold *h)
{
    const struct crowd *c = h->node->crowd;
    return c != NULL && (list_wants(&c->front, h) || list_wants(&c->line, h));
}

/* Its deadline is over. */
void session_expire(struct lock_table *t, struct session *s)
{
    refuse_waiters(t, s);
    bool ends = s->holds == NULL;
    for (const struct hold *h = s->holds; h != NULL && !ends; h = hold_extra(h)->session_next)
        ends = hold_is_awaited(h);
    if (ends) {
        session_end(t, s);
        return;
    }
    digest_session(t, s, false);
    heap_remove(t, HEAP_SESSION, s);
    s->lapsed = true;
    RB_INSERT(lapsed_tree, &t->lapsed, s);
    t->n_lapsed++;
    digest_session(t, s, true);
    effect_add(t, LOCK_EFFECT_SESSION_LAPSED)->session_id = s->id;
}

/* End the lapsed sessions whose holds on a node somebody wants now.
 *
 * Return: true when there were any; the caller settles and looks the node up again. */
bool evict_lapsed(struct lock_table *t, struct node *n, const struct claim *c)
{
    bool any = false;
    for (struct hold *h = t->n_lapsed > 0 ? n->holds : NULL; h != NULL;) {
        struct session *s = hold_session(h);
        if (s == NULL || !s->lapsed || !claim_wants(c, h)) {
            h = h->next;
            continue;
        }
        session_end(t, s);
        any = true;
        h = n->holds; /* Several of the list may have gone. */
    }
    return any;
}

enum lock_code op_session_open(struct op *o)
{
    struct lock_table *t = o->t;
    const struct lock_command *c = o->c;
    if (c->ttl_ms < LOCK_TTL_MS_MIN || c->ttl_ms > LOCK_TTL_MS_MAX ||
        c->host.size > LOCK_HOST_BYTES_MAX)
        return LOCK_INVALID;
    if (t->n_sessions >= t->limits.sessions_max) {
        struct session *oldest = RB_MIN(lapsed_tree, &t->lapsed);
        if (oldest == NULL)
            return LOCK_LIMIT;
        session_end(t, oldest);
        if (t->n_sessions >= t->limits.sessions_max) /* The bound was lowered since. */
            return LOCK_LIMIT;
    }
    if (t->next_session_id >> SESSION_COUNT_BITS != 0)
        return LOCK_LIMIT;
    struct session like = {
        .id = (c->agent & SESSION_SALT_MAX) << SESSION_COUNT_BITS | t->next_session_id++,
        .deadline_ns = time_after_ms(t->stamp_ns, c->ttl_ms),
        .ttl_ms = c->ttl_ms,
        .opened_ns = t->stamp_ns,
    };
    session_add(t, &like, c->host);
    o->r->session_id = like.id;
    o->r->deadline_ns = like.deadline_ns;
    o->r->ttl_ms = like.ttl_ms;
    return LOCK_OK;
}

enum lock_code op_session_keepalive(struct op *o)
{
    struct lock_table *t = o->t;
    struct session *s = o->s;
    results_ack(t, s, o->c->ack_seq);
    digest_session(t, s, false);
    bool resumed = s->lapsed;
    if (resumed) {
        RB_REMOVE(lapsed_tree, &t->lapsed, s); /* Keyed by the old deadline. */
        t->n_lapsed--;
        s->lapsed = false;
    }
    s->deadline_ns = time_after_ms(t->stamp_ns, s->ttl_ms);
    if (resumed)
        heap_add(t, HEAP_SESSION, s);
    else
        heap_moved(t, HEAP_SESSION, s);
    digest_session(t, s, true);
    if (resumed)
        effect_add(t, LOCK_EFFECT_SESSION_RESUMED)->session_id = s->id;
    o->r->deadline_ns = s->deadline_ns;
    o->r->ttl_ms = s->ttl_ms;
    return LOCK_OK;
}

enum lock_code op_session_close(struct op *o)
{
    session_end(o->t, o->s);
    o->s = NULL;
    return LOCK_OK;
}
