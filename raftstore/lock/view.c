/* Reads: lookups, holds, waiters, sessions, totals. */
#include "raftstore/lock/view.h"

#include "raftstore/lock/table.h"

static struct bytes session_host(const struct session *s)
{
    return s == NULL ? bytes_of(NULL, 0) : bytes_of(s->host, s->host_size);
}

static struct lock_hold_view view_hold(const struct lock_table *t, const struct hold *h)
{
    const struct session *bound = hold_session(h);
    const struct session *asker = session_find(t, h->session_id);
    return (struct lock_hold_view){
        .token = h->token,
        .session_id = h->session_id,
        .deadline_ns = bound != NULL ? bound->deadline_ns : hold_deadline(h),
        .ttl_ms = h->ttl_ms,
        .since_ns = h->since_ns,
        .renewed_ns = h->renewed_ns,
        .start = hold_start(h),
        .end = hold_end(h),
        .lock_delay_ms = h->has_extra ? hold_extra(h)->lock_delay_ms : 0,
        .mode = h->exclusive ? LOCK_EXCLUSIVE : LOCK_SHARED,
        .limit = hold_limit(h),
        .kind = (enum lock_kind)h->kind,
        .mtime_ns = hold_mtime(h),
        .file_token = file_token(h),
        .n_links = file_links(t, h),
        .lapsed = bound != NULL && bound->lapsed,
        .pid = h->pid,
        .uid = h->uid,
        .gid = h->gid,
        .perm = h->perm,
        .owner = hold_owner(h),
        .note = hold_note(h),
        .host = session_host(asker),
    };
}

struct lock_node_view view_node(const struct node *n, struct bytes path)
{
    struct lock_node_view v = {.path = path, .name = node_name(n), .opaque = n};
    if (n->is_directory) {
        const struct directory *d = n->directory;
        v.type = LOCK_NODE_DIRECTORY;
        v.directory_id = d->id;
        v.implicit = d->implicit;
        v.uid = d->uid;
        v.gid = d->gid;
        v.perm = d->perm;
        v.changed_ns = d->changed_ns;
        v.n_children = d->n_entries;
        return v;
    }
    if (n->crowd == NULL) {
        v.n_holds = n->holds != NULL;
    } else {
        v.n_holds = n->crowd->n_holds;
        v.n_waiters = n->crowd->n_links;
        v.delay_until_ns = n->crowd->delay_until_ns;
    }
    v.type = v.n_holds + v.n_waiters > 0 ? LOCK_NODE_LOCK : LOCK_NODE_NONE;
    return v;
}

struct lock_node_view lock_lookup(const struct lock_table *t, struct bytes path)
{
    const struct node *n = node_find(t, path);
    return n == NULL ? (struct lock_node_view){.path = path} : view_node(n, path);
}

/* The root knows the table; paths are short. */
static const struct lock_table *table_of(const struct node *n)
{
    while (n->parent != NULL)
        n = n->parent;
    return n->directory->table;
}

bool lock_node_hold(const struct lock_node_view *node,
                    size_t index,
                    struct lock_hold_view *ret_hold)
{
    const struct node *n = node->opaque;
    if (n == NULL || n->is_directory)
        return false;
    const struct hold *h = n->holds;
    while (h != NULL && index-- > 0)
        h = h->next;
    if (h == NULL)
        return false;
    *ret_hold = view_hold(table_of(n), h);
    return true;
}

void lock_node_holds(const struct lock_table *t,
                     const struct lock_node_view *node,
                     bool (*visit)(void *arg, const struct lock_hold_view *h),
                     void *arg)
{
    const struct node *n = node->opaque;
    if (n == NULL || n->is_directory)
        return;
    for (const struct hold *h = n->holds; h != NULL; h = h->next) {
        struct lock_hold_view v = view_hold(t, h);
        if (!visit(arg, &v))
            return;
    }
}

static struct lock_waiter_view view_waiter(const struct waiter *w)
{
    return (struct lock_waiter_view){
        .session_id = w->session->id,
        .seq = w->seq,
        .since_ns = w->since_ns,
        .deadline_ns = w->deadline_ns,
        .ttl_ms = w->ttl_ms,
        .start = w->start,
        .end = w->end,
        .mode = w->exclusive ? LOCK_EXCLUSIVE : LOCK_SHARED,
        .limit = w->limit,
        .kind = w->kind,
        .pid = w->pid,
        .uid = w->uid,
        .owner = waiter_owner(w),
        .host = session_host(w->session),
    };
}

void lock_node_waiters(const struct lock_table *t,
                       const struct lock_node_view *node,
                       bool (*visit)(void *arg, const struct lock_waiter_view *w),
                       void *arg)
{
    (void)t; /* The node knows its waiters. */
    const struct node *n = node->opaque;
    if (n == NULL || n->is_directory || n->crowd == NULL)
        return;
    for (int i = 0; i < 2; i++) {
        const struct link *l;
        TAILQ_FOREACH(l, i == 0 ? &n->crowd->front : &n->crowd->line, entry)
        {
            struct lock_waiter_view v = view_waiter(l->waiter);
            if (!visit(arg, &v))
                return;
        }
    }
}

bool lock_find_token(const struct lock_table *t,
                     uint64_t token,
                     struct lock_hold_view *ret_hold,
                     struct bytes *ret_path)
{
    const struct hold *h = tokens_find(&t->tokens, token);
    if (h == NULL)
        return false;
    *ret_hold = view_hold(t, h);
    node_path_write(h->node, t->scratch);
    *ret_path = bytes_of(t->scratch, node_path_size(h->node));
    return true;
}

static struct lock_session_view view_session(const struct session *s)
{
    return (struct lock_session_view){
        .session_id = s->id,
        .deadline_ns = s->deadline_ns,
        .ttl_ms = s->ttl_ms,
        .opened_ns = s->opened_ns,
        .lapsed = s->lapsed,
        .n_holds = s->n_holds,
        .n_waiters = s->n_waiters,
        .n_results = s->n_kept,
        .host = session_host(s),
    };
}

bool lock_find_session(const struct lock_table *t,
                       uint64_t session_id,
                       struct lock_session_view *ret)
{
    const struct session *s = session_find(t, session_id);
    if (s == NULL)
        return false;
    *ret = view_session(s);
    return true;
}

void lock_sessions(const struct lock_table *t,
                   uint64_t after,
                   bool (*visit)(void *arg, const struct lock_session_view *s),
                   void *arg)
{
    struct session *s = session_after(t, after);
    for (; s != NULL; s = RB_NEXT(session_tree, &t->sessions, s)) {
        struct lock_session_view v = view_session(s);
        if (!visit(arg, &v))
            return;
    }
}

void lock_session_holds(const struct lock_table *t,
                        uint64_t session_id,
                        bool (*visit)(void *arg, struct bytes path, const struct lock_hold_view *h),
                        void *arg)
{
    char path[LOCK_PATH_BYTES_MAX];
    const struct session *s = session_find(t, session_id);
    if (s == NULL)
        return;
    for (const struct hold *h = s->holds; h != NULL; h = hold_extra(h)->session_next) {
        struct lock_hold_view v = view_hold(t, h);
        node_path_write(h->node, path);
        if (!visit(arg, bytes_of(path, node_path_size(h->node)), &v))
            return;
    }
}

struct lock_counts lock_counts(const struct lock_table *t)
{
    return (struct lock_counts){
        .locks = t->n_locks,
        .holds = t->n_holds,
        .waiters = t->n_waiters,
        .sessions = t->n_sessions,
        .lapsed = t->n_lapsed,
        .directories = t->n_directories,
        .delays = t->n_delays,
        .last_token = t->next_token - 1,
        .stamp_ns = t->stamp_ns,
        .index = t->index,
        .term = t->term,
        .limits = t->limits,
    };
}
