/* Rows back into a table.  They come from a file: nothing about them is taken for granted. */
#include "raftstore/lock/restore.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "raftstore/lock/table.h"

/* No table comes so near to the end of its numbers by itself; from there they would begin anew. */
static bool number_valid(uint64_t next)
{
    return next != 0 && next <= UINT64_MAX - (UINT64_C(1) << 40);
}

static int in_meta(struct lock_table *t, const struct lock_row *row)
{
    if (t->importing || t->n_sessions > 0 || t->n_holds > 0 || t->next_token != 1)
        return -EINVAL;
    if (!number_valid(row->meta.next_token) || !number_valid(row->meta.next_queue_number) ||
        !number_valid(row->meta.next_directory_id) || row->meta.next_session_id == 0 ||
        row->meta.next_directory_id <= LOCK_ROOT_ID || row->meta.stamp_ns > LOCK_STAMP_MAX)
        return -EINVAL;
    t->importing = true;
    t->index = row->meta.index;
    t->term = row->meta.term;
    t->stamp_ns = row->meta.stamp_ns;
    t->next_token = row->meta.next_token;
    t->next_session_id = row->meta.next_session_id;
    t->next_directory_id = row->meta.next_directory_id;
    t->next_queue_number = row->meta.next_queue_number;
    t->limits = row->meta.limits;
    t->import_digest = row->meta.digest;
    return 0;
}

static int in_directory(struct lock_table *t, const struct lock_row *row)
{
    struct node *n = t->root;
    bool is_root = row->directory.path.size == 0;
    uint64_t next_id = t->next_directory_id, id = row->directory.directory_id;
    if (row->directory.perm > LOCK_PERM_MAX || id >= next_id || (id == LOCK_ROOT_ID) != is_root ||
        id == 0 || (is_root && row->directory.implicit))
        return -EINVAL;
    if (!is_root) {
        struct place p;
        if (!lock_path_valid(row->directory.path) ||
            place_find(t, row->directory.path, false, &p) != LOCK_OK || p.node != NULL)
            return -EINVAL;
        n = node_new(t, p.parent, p.name, true);
        t->next_directory_id = next_id;
    }
    digest_directory(t, n, false);
    digest_changed(t, n, false);
    *n->directory = (struct directory){
        .id = id,
        .changed_ns = row->directory.changed_ns,
        .n_entries = n->directory->n_entries,
        .table = n->directory->table,
        .uid = row->directory.uid,
        .gid = row->directory.gid,
        .perm = row->directory.perm,
        .implicit = row->directory.implicit,
    };
    digest_directory(t, n, true);
    digest_changed(t, n, true);
    return 0;
}

static int in_session(struct lock_table *t, const struct lock_row *row)
{
    struct session like = {
        .id = row->session.session_id,
        .deadline_ns = row->session.deadline_ns,
        .ttl_ms = row->session.ttl_ms,
        .opened_ns = row->session.opened_ns,
        .ack_seq = row->session.ack_seq,
        .lapsed = row->session.lapsed,
    };
    if (like.id == 0 || session_count(like.id) >= t->next_session_id ||
        session_find(t, like.id) != NULL || !ttl_valid(like.ttl_ms) ||
        like.deadline_ns == LOCK_DEADLINE_NEVER || row->session.host.size > LOCK_HOST_BYTES_MAX)
        return -EINVAL;
    session_add(t, &like, row->session.host);
    return 0;
}

static int in_result(struct lock_table *t, const struct lock_row *row)
{
    struct session *s = session_find(t, row->result.session_id);
    if (s == NULL || row->result.seq <= s->ack_seq || s->n_kept >= LOCK_RESULTS_MAX ||
        (unsigned)row->result.result.code > LOCK_RELEASED ||
        result_find(s, row->result.seq) != NULL)
        return -EINVAL;
    result_keep(t, s, row->result.seq, &row->result.result);
    return 0;
}

/* The lock at a path, made if need be; NULL if it can't stand there. */
static struct node *lock_at(struct lock_table *t, struct bytes path)
{
    struct place p;
    if (!lock_path_valid(path) || place_find(t, path, false, &p) != LOCK_OK)
        return NULL;
    if (p.node == NULL)
        return place_make(t, &p, false);
    return p.node->is_directory ? NULL : p.node;
}

static bool hold_row_valid(const struct lock_table *t, const struct lock_row *row)
{
    const struct session *s = session_find(t, row->hold.session_id);
    uint64_t deadline_ns =
        row->hold.ttl_ms == 0 ? 0 : time_after_ms(row->hold.renewed_ns, row->hold.ttl_ms);
    if (row->hold.session_bound ? s == NULL || row->hold.ttl_ms != 0 || row->hold.lock_delay_ms != 0
                                : !ttl_valid(row->hold.ttl_ms))
        return false;
    return owner_valid(row->hold.owner) && row->hold.note.size <= LOCK_NOTE_BYTES_MAX &&
           row->hold.token != 0 && row->hold.token < t->next_token &&
           session_count(row->hold.session_id) < t->next_session_id &&
           deadline_ns == row->hold.deadline_ns && row->hold.start <= row->hold.end &&
           row->hold.lock_delay_ms <= LOCK_TTL_MS_MAX && mode_valid(row->hold.mode) &&
           (unsigned)row->hold.kind <= LOCK_KIND_OFD && row->hold.perm <= LOCK_PERM_MAX &&
           limit_valid(row->hold.limit, row->hold.mode, row->hold.kind, row->hold.start,
                       row->hold.end);
}

static int in_hold(struct lock_table *t, const struct lock_row *row)
{
    if (!hold_row_valid(t, row))
        return -EINVAL;
    struct node *n = lock_at(t, row->hold.path);
    if (n == NULL)
        return -EINVAL;
    struct claim claim = {row->hold.owner, row->hold.start, row->hold.end,
                          row->hold.mode == LOCK_EXCLUSIVE, row->hold.limit};
    const struct hold *twin = tokens_find(&t->tokens, row->hold.token);
    if (node_holds_conflict(n, &claim) || (twin != NULL && twin->node != n))
        return -EINVAL;
    bool whole = claim.start == 0 && claim.end == LOCK_RANGE_END;
    bool extra = !whole || row->hold.session_bound || row->hold.lock_delay_ms != 0 ||
                 row->hold.agent != 0 || row->hold.limit != 0;
    bool file = (row->hold.mtime_ns | row->hold.file_token | row->hold.twin) != 0;
    struct hold *h = hold_alloc(extra, file, claim.owner, row->hold.note);
    h->token = row->hold.token;
    h->since_ns = row->hold.since_ns;
    h->renewed_ns = row->hold.renewed_ns;
    h->session_id = row->hold.session_id;
    h->node = n;
    h->ttl_ms = (uint32_t)row->hold.ttl_ms;
    h->pid = row->hold.pid;
    h->uid = row->hold.uid;
    h->gid = row->hold.gid;
    h->perm = (uint16_t)row->hold.perm;
    h->exclusive = claim.exclusive;
    h->kind = (uint8_t)((unsigned)row->hold.kind & 7u);
    if (file)
        *hold_file(h) =
            (struct hold_file){row->hold.mtime_ns, row->hold.file_token, row->hold.twin};
    if (extra) {
        struct hold_extra *x = hold_extra(h);
        x->start = claim.start;
        x->end = claim.end;
        x->lock_delay_ms = (uint32_t)row->hold.lock_delay_ms;
        x->limit = row->hold.limit;
        x->session = row->hold.session_bound ? session_find(t, row->hold.session_id) : NULL;
        if (row->hold.agent != 0)
            x->agent = agent_need(t, row->hold.session_id, row->hold.agent);
    }
    hold_link(t, h);
    return 0;
}

static bool waiter_row_valid(const struct lock_table *t, const struct lock_row *row)
{
    const struct session *s = session_find(t, row->waiter.session_id);
    const struct waiter *last = TAILQ_LAST(&t->waiters, waiter_list);
    bool front = (row->waiter.flags & WAITER_F_FRONT) != 0;
    return s != NULL && !s->lapsed && row->waiter.seq != 0 &&
           waiter_find(s, row->waiter.seq) == NULL &&
           row->waiter.queue_number < t->next_queue_number &&
           (last == NULL || last->queue_number < row->waiter.queue_number) &&
           row->waiter.n_paths >= 1 && row->waiter.n_paths <= LOCK_PATHS_MAX &&
           (row->waiter.flags & ~(WAITER_F_FRONT | WAITER_F_KNOWN)) == 0 &&
           (!front || row->waiter.n_paths == 1) &&
           (row->waiter.convert_token == 0 || (front && row->waiter.limit == 0)) &&
           owner_valid(row->waiter.owner) && row->waiter.note.size <= LOCK_NOTE_BYTES_MAX &&
           row->waiter.start <= row->waiter.end && row->waiter.lock_delay_ms <= LOCK_TTL_MS_MAX &&
           (row->waiter.ttl_ms == 0 ? row->waiter.lock_delay_ms == 0
                                    : ttl_valid(row->waiter.ttl_ms)) &&
           mode_valid(row->waiter.mode) && (unsigned)row->waiter.kind <= LOCK_KIND_OFD &&
           row->waiter.perm <= LOCK_PERM_MAX &&
           limit_valid(row->waiter.limit, row->waiter.mode, row->waiter.kind, row->waiter.start,
                       row->waiter.end);
}

/* The hold that a queued CONVERT names must be there. */
static bool
convert_row_valid(const struct lock_table *t, const struct lock_row *row, const struct node *n)
{
    const struct hold *h = tokens_find(&t->tokens, row->waiter.convert_token);
    while (h != NULL && h->token == row->waiter.convert_token && hold_start(h) != row->waiter.start)
        h = h->next;
    return h != NULL && h->token == row->waiter.convert_token && h->node == n;
}

static int in_waiter(struct lock_table *t, const struct lock_row *row)
{
    struct node *nodes[LOCK_PATHS_MAX];
    if (!waiter_row_valid(t, row))
        return -EINVAL;
    for (unsigned i = 0; i < row->waiter.n_paths; i++) {
        nodes[i] = lock_at(t, row->waiter.paths[i]);
        if (nodes[i] == NULL)
            return -EINVAL;
        for (unsigned j = 0; j < i; j++) {
            if (nodes[i] == nodes[j])
                return -EINVAL;
        }
    }
    if (row->waiter.convert_token != 0 && !convert_row_valid(t, row, nodes[0]))
        return -EINVAL;
    struct request r = {
        .session = session_find(t, row->waiter.session_id),
        .claim = {row->waiter.owner, row->waiter.start, row->waiter.end,
                  row->waiter.mode == LOCK_EXCLUSIVE, row->waiter.limit},
        .note = row->waiter.note,
        .seq = row->waiter.seq,
        .ttl_ms = (uint32_t)row->waiter.ttl_ms,
        .lock_delay_ms = (uint32_t)row->waiter.lock_delay_ms,
        .pid = row->waiter.pid,
        .uid = row->waiter.uid,
        .gid = row->waiter.gid,
        .perm = row->waiter.perm,
        .flags = row->waiter.flags,
        .n_paths = row->waiter.n_paths,
        .kind = row->waiter.kind,
    };
    struct waiter *w = waiter_new(&r, row->waiter.convert_token, row->waiter.deadline_ns);
    w->since_ns = row->waiter.since_ns;
    w->queue_number = row->waiter.queue_number;
    if (row->waiter.agent != 0)
        w->agent = agent_need(t, r.session->id, row->waiter.agent);
    waiter_enqueue(t, w, nodes);
    digest_waiter(t, w, true);
    return 0;
}

static int in_delay(struct lock_table *t, const struct lock_row *row)
{
    struct node *n = lock_at(t, row->delay.path);
    if (n == NULL || row->delay.until_ns <= t->stamp_ns ||
        row->delay.until_ns == LOCK_DEADLINE_NEVER)
        return -EINVAL;
    struct crowd *c = crowd_need(n);
    if (c->delay_until_ns != 0)
        return -EINVAL;
    c->delay_until_ns = row->delay.until_ns;
    heap_add(t, HEAP_DELAY, n);
    digest_delay(t, n, true);
    t->n_delays++;
    return 0;
}

static int in_info(struct lock_table *t, const struct lock_row *row)
{
    struct node_info *last = t->n_infos == 0 ? NULL : &t->infos[t->n_infos - 1];
    if (t->n_infos == LOCK_NODES_MAX || row->node.host.size > LOCK_HOST_BYTES_MAX ||
        (last != NULL && last->node_id >= row->node.node_id))
        return -EINVAL;
    assert(t->infos != NULL);
    struct node_info *i = &t->infos[t->n_infos++];
    i->node_id = row->node.node_id;
    i->host_size = (uint8_t)row->node.host.size;
    if (row->node.host.size > 0)
        memcpy(i->host, row->node.host.data, row->node.host.size);
    digest_info(t, i, true);
    return 0;
}

int lock_import_row(struct lock_table *t, const struct lock_row *row)
{
    static int (*const in[])(struct lock_table *, const struct lock_row *) = {
        [LOCK_ROW_META] = in_meta,       [LOCK_ROW_DIRECTORY] = in_directory,
        [LOCK_ROW_SESSION] = in_session, [LOCK_ROW_RESULT] = in_result,
        [LOCK_ROW_HOLD] = in_hold,       [LOCK_ROW_WAITER] = in_waiter,
        [LOCK_ROW_DELAY] = in_delay,     [LOCK_ROW_NODE] = in_info,
    };
    unsigned type = (unsigned)row->type;
    if (type < LOCK_ROW_META || type > LOCK_ROW_NODE || type < t->import_type ||
        (type != LOCK_ROW_META && !t->importing))
        return -EINVAL;
    t->import_type = type;
    return in[type](t, row);
}

static int holds_order(const void *a, const void *b)
{
    return hold_order(*(struct hold *const *)a, *(struct hold *const *)b);
}

/* Rows come by path: put a session's holds in the order of their tokens. */
static void sort_session_holds(struct session *s)
{
    size_t n = 0;
    if (s->n_holds < 2)
        return;
    struct hold **all = xmalloc(s->n_holds * sizeof(struct hold *));
    for (struct hold *h = s->holds; h != NULL; h = hold_extra(h)->session_next)
        all[n++] = h;
    qsort(all, n, sizeof(struct hold *), holds_order);
    for (size_t i = 0; i < n; i++) {
        hold_extra(all[i])->session_next = i + 1 < n ? all[i + 1] : NULL;
        hold_extra(all[i])->session_prev = all[i > 0 ? i - 1 : n - 1];
    }
    s->holds = all[0];
    free(all);
}

int lock_import_finish(struct lock_table *t)
{
    if (!t->importing)
        return -EINVAL;
    struct session *s;
    RB_FOREACH(s, session_tree, &t->sessions)
    sort_session_holds(s);
    struct lock_digest d = lock_digest(t);
    if (d.lo != t->import_digest.lo || d.hi != t->import_digest.hi)
        return -EINVAL;
    t->importing = false;
    effects_begin(t);
    return check_imported(t) == NULL ? 0 : -EINVAL;
}
