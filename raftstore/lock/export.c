/* The table as rows. */
#include "raftstore/lock/restore.h"

#include "raftstore/lock/table.h"

struct out {
    const struct lock_table *t;
    int (*visit)(void *arg, const struct lock_row *row);
    void *arg;
    int (*node)(struct out *o, const struct node *n, struct bytes path); /* For each node. */
    char path[LOCK_PATH_BYTES_MAX];
};

static int out_meta(struct out *o)
{
    const struct lock_table *t = o->t;
    struct lock_row row = {.type = LOCK_ROW_META};
    row.meta.index = t->index;
    row.meta.term = t->term;
    row.meta.stamp_ns = t->stamp_ns;
    row.meta.next_token = t->next_token;
    row.meta.next_session_id = t->next_session_id;
    row.meta.next_directory_id = t->next_directory_id;
    row.meta.next_queue_number = t->next_queue_number;
    row.meta.limits = t->limits;
    row.meta.digest = lock_digest(t);
    return o->visit(o->arg, &row);
}

static int out_directory(struct out *o, const struct node *n, struct bytes path)
{
    if (!n->is_directory)
        return 0;
    const struct directory *d = n->directory;
    struct lock_row row = {.type = LOCK_ROW_DIRECTORY};
    row.directory.path = path;
    row.directory.directory_id = d->id;
    row.directory.implicit = d->implicit;
    row.directory.uid = d->uid;
    row.directory.gid = d->gid;
    row.directory.perm = d->perm;
    row.directory.changed_ns = d->changed_ns;
    return o->visit(o->arg, &row);
}

static int out_session(struct out *o, const struct session *s)
{
    struct lock_row row = {.type = LOCK_ROW_SESSION};
    row.session.session_id = s->id;
    row.session.deadline_ns = s->deadline_ns;
    row.session.ttl_ms = s->ttl_ms;
    row.session.opened_ns = s->opened_ns;
    row.session.ack_seq = s->ack_seq;
    row.session.lapsed = s->lapsed;
    row.session.host = bytes_of(s->host, s->host_size);
    return o->visit(o->arg, &row);
}

static int out_results(struct out *o, const struct session *s)
{
    int r = 0;
    for (uint32_t i = 0; i < s->n_kept && r == 0; i++) {
        const struct kept *k = &s->kept[s->kept_begin + i];
        struct lock_row row = {.type = LOCK_ROW_RESULT};
        row.result.session_id = s->id;
        row.result.seq = k->seq;
        row.result.result.code = k->code;
        row.result.result.stamp_ns = k->stamp_ns;
        row.result.result.token = k->token;
        row.result.result.deadline_ns = k->deadline_ns;
        row.result.result.ttl_ms = k->ttl_ms;
        r = o->visit(o->arg, &row);
    }
    return r;
}

static int out_hold(struct out *o, const struct hold *h, struct bytes path)
{
    struct lock_row row = {.type = LOCK_ROW_HOLD};
    row.hold.path = path;
    row.hold.owner = hold_owner(h);
    row.hold.note = hold_note(h);
    row.hold.token = h->token;
    row.hold.session_id = h->session_id;
    row.hold.deadline_ns = hold_deadline(h);
    row.hold.ttl_ms = h->ttl_ms;
    row.hold.since_ns = h->since_ns;
    row.hold.renewed_ns = h->renewed_ns;
    row.hold.start = hold_start(h);
    row.hold.end = hold_end(h);
    row.hold.lock_delay_ms = h->has_extra ? hold_extra(h)->lock_delay_ms : 0;
    row.hold.agent = hold_agent(h) == NULL ? 0 : hold_agent(h)->number;
    row.hold.mode = h->exclusive ? LOCK_EXCLUSIVE : LOCK_SHARED;
    row.hold.limit = hold_limit(h);
    row.hold.kind = (enum lock_kind)h->kind;
    row.hold.mtime_ns = hold_mtime(h);
    row.hold.file_token = h->has_file ? hold_file(h)->file_token : 0;
    row.hold.twin = hold_twin(h);
    row.hold.session_bound = hold_session(h) != NULL;
    row.hold.pid = h->pid;
    row.hold.uid = h->uid;
    row.hold.gid = h->gid;
    row.hold.perm = h->perm;
    return o->visit(o->arg, &row);
}

static int out_holds(struct out *o, const struct node *n, struct bytes path)
{
    int r = 0;
    if (n->is_directory)
        return 0;
    for (const struct hold *h = n->holds; h != NULL && r == 0; h = h->next)
        r = out_hold(o, h, path);
    return r;
}

static int out_waiter(struct out *o, const struct waiter *w)
{
    char paths[LOCK_PATHS_MAX][LOCK_PATH_BYTES_MAX];
    struct lock_row row = {.type = LOCK_ROW_WAITER};
    for (unsigned i = 0; i < w->n_paths; i++) {
        node_path_write(w->links[i].node, paths[i]);
        row.waiter.paths[i] = bytes_of(paths[i], node_path_size(w->links[i].node));
    }
    row.waiter.n_paths = w->n_paths;
    row.waiter.owner = waiter_owner(w);
    row.waiter.note = waiter_note(w);
    row.waiter.session_id = w->session->id;
    row.waiter.seq = w->seq;
    row.waiter.since_ns = w->since_ns;
    row.waiter.deadline_ns = w->deadline_ns;
    row.waiter.queue_number = w->queue_number;
    row.waiter.ttl_ms = w->ttl_ms;
    row.waiter.start = w->start;
    row.waiter.end = w->end;
    row.waiter.lock_delay_ms = w->lock_delay_ms;
    row.waiter.agent = w->agent == NULL ? 0 : w->agent->number;
    row.waiter.convert_token = w->convert_token;
    row.waiter.mode = w->exclusive ? LOCK_EXCLUSIVE : LOCK_SHARED;
    row.waiter.limit = w->limit;
    row.waiter.kind = w->kind;
    row.waiter.flags = w->flags;
    row.waiter.pid = w->pid;
    row.waiter.uid = w->uid;
    row.waiter.gid = w->gid;
    row.waiter.perm = w->perm;
    return o->visit(o->arg, &row);
}

static int out_delay(struct out *o, const struct node *n, struct bytes path)
{
    if (n->is_directory || n->crowd == NULL || n->crowd->delay_until_ns == 0)
        return 0;
    struct lock_row row = {.type = LOCK_ROW_DELAY};
    row.delay.path = path;
    row.delay.until_ns = n->crowd->delay_until_ns;
    return o->visit(o->arg, &row);
}

static int out_info(struct out *o, const struct node_info *i)
{
    struct lock_row row = {.type = LOCK_ROW_NODE};
    row.node.node_id = i->node_id;
    row.node.host = bytes_of(i->host, i->host_size);
    return o->visit(o->arg, &row);
}

static int out_subtree(struct out *o, const struct node *n, size_t size);

/* A node, then what is below it; `size`: bytes of its directory's path, with the slash. */
static int out_node(struct out *o, const struct node *n, size_t size)
{
    memcpy(o->path + size, n->name, n->name_size);
    size += n->name_size;
    int r = o->node(o, n, bytes_of(o->path, size));
    if (r != 0 || !n->is_directory || n->entries == NULL)
        return r;
    if (size > 0)
        o->path[size++] = '/';
    return out_subtree(o, n->entries, size);
}

/* In order; as deep as a balanced tree, times the components of a path. */
static int out_subtree(struct out *o, const struct node *n, size_t size)
{
    int r = n->child[0] == NULL ? 0 : out_subtree(o, n->child[0], size);
    if (r == 0)
        r = out_node(o, n, size);
    if (r == 0 && n->child[1] != NULL)
        r = out_subtree(o, n->child[1], size);
    return r;
}

static int out_all_nodes(struct out *o,
                         int (*node)(struct out *, const struct node *, struct bytes))
{
    o->node = node;
    return out_node(o, o->t->root, 0);
}

static int out_all_sessions(struct out *o, int (*each)(struct out *, const struct session *))
{
    int r = 0;
    struct session *s;
    RB_FOREACH(s, session_tree, (struct session_tree *)(uintptr_t)&o->t->sessions)
    {
        r = each(o, s);
        if (r != 0)
            break;
    }
    return r;
}

static int out_all_waiters(struct out *o)
{
    int r = 0;
    const struct waiter *w;
    TAILQ_FOREACH(w, &o->t->waiters, all_entry)
    {
        r = out_waiter(o, w);
        if (r != 0)
            break;
    }
    return r;
}

int lock_export(const struct lock_table *t,
                int (*visit)(void *arg, const struct lock_row *row),
                void *arg)
{
    struct out o = {.t = t, .visit = visit, .arg = arg};
    int r = out_meta(&o);
    if (r == 0)
        r = out_all_nodes(&o, out_directory);
    if (r == 0)
        r = out_all_sessions(&o, out_session);
    if (r == 0)
        r = out_all_sessions(&o, out_results);
    if (r == 0)
        r = out_all_nodes(&o, out_holds);
    if (r == 0)
        r = out_all_waiters(&o);
    if (r == 0)
        r = out_all_nodes(&o, out_delay);
    for (size_t i = 0; i < t->n_infos && r == 0; i++)
        r = out_info(&o, &t->infos[i]);
    return r;
}
