/* Answers to queries, made from the applied state. */
#include "raftstore/node/node_internal.h"

#include "raftstore/base/clock.h"
#include "raftstore/lock/view.h"
#include "raftstore/node/access.h"
#include "raftstore/wire/frame.h"
#include "raftstore/wire/pack.h"

#define ENTRIES_MAX 1024u                             /* Nodes, sessions, holds or waiters. */
#define BYTES_MAX   (FRAME_NODE_BYTES_MAX - 1048576u) /* Stop adding here: one more always fits. */

/* Gathers one answer. */
struct gather {
    const struct lock_table *table;
    const struct access *access; /* Who asks. */
    bool his;                    /* About what is his: paths are told that he may not read, too. */
    struct arena *arena;
    uint64_t now_ns;        /* Cluster time. */
    int64_t wall_offset_ns; /* Wall clock minus cluster time. */
    bool brief;
    const Hf__Query *against; /* Only holds in the way of this; NULL: all. */
    const Hf__Query *own;     /* Only holds of this one's owner; NULL: all. */
    size_t limit;
    size_t bytes; /* Of what was gathered, roughly and not less. */
    bool more;
    Hf__Node **nodes;
    size_t n_nodes;
    Hf__Session **sessions;
    size_t n_sessions;
};

static uint64_t wall_ms(const struct gather *g, uint64_t cluster_ns)
{
    int64_t wall_ns = (int64_t)cluster_ns + g->wall_offset_ns;
    return wall_ns > 0 ? (uint64_t)wall_ns / NS_PER_MS : 0;
}

static uint64_t remaining_ms(const struct gather *g, uint64_t deadline_ns)
{
    return deadline_ns > g->now_ns ? (deadline_ns - g->now_ns) / NS_PER_MS : 0;
}

static Hf__Hold *hold_make(struct gather *g, const struct lock_hold_view *v)
{
    Hf__Hold *h = arena_alloc(g->arena, sizeof *h);
    hf__hold__init(h);
    h->token = v->token;
    h->owner = pack_binary(v->owner);
    h->mode = v->mode;
    h->kind = v->kind;
    h->session_id = v->session_id;
    h->deadline_ns = v->deadline_ns;
    h->remaining_ms = remaining_ms(g, v->deadline_ns);
    h->ttl_ms = v->ttl_ms;
    h->since_wall_ms = wall_ms(g, v->since_ns);
    h->expires_wall_ms = wall_ms(g, v->deadline_ns);
    h->renewed_wall_ms = wall_ms(g, v->renewed_ns);
    h->start = v->start;
    h->end_inverted = UINT64_MAX - v->end;
    h->note = pack_binary(v->note);
    h->host = pack_binary(v->host);
    h->pid = v->pid;
    h->uid = v->uid;
    h->gid = v->gid;
    h->perm = v->perm;
    h->linked = v->n_links > 1;
    h->n_links = v->n_links;
    h->mtime_ns = v->mtime_ns;
    h->file_token = v->file_token;
    h->lapsed = v->lapsed;
    h->session_bound = v->ttl_ms == 0;
    h->limit = v->limit;
    g->bytes += 192 + v->owner.size + v->note.size + v->host.size;
    return h;
}

static Hf__Waiter *waiter_make(struct gather *g, const struct lock_waiter_view *v)
{
    Hf__Waiter *w = arena_alloc(g->arena, sizeof *w);
    hf__waiter__init(w);
    w->owner = pack_binary(v->owner);
    w->mode = v->mode;
    w->kind = v->kind;
    w->session_id = v->session_id;
    w->seq = v->seq;
    w->since_wall_ms = wall_ms(g, v->since_ns);
    w->start = v->start;
    w->end_inverted = UINT64_MAX - v->end;
    w->host = pack_binary(v->host);
    w->pid = v->pid;
    w->uid = v->uid;
    w->limit = v->limit;
    g->bytes += 96 + v->owner.size + v->host.size;
    return w;
}

struct filling {
    struct gather *gather;
    Hf__Node *node;
};

static bool is_in_the_way(const struct lock_hold_view *v, const Hf__Query *of)
{
    return v->start <= UINT64_MAX - of->end_inverted && of->start <= v->end &&
           (v->mode == LOCK_EXCLUSIVE || of->against == LOCK_EXCLUSIVE) &&
           !bytes_equal(v->owner, pack_bytes(of->owner));
}

static bool hold_visit(void *arg, const struct lock_hold_view *v)
{
    struct filling *f = arg;
    if (f->gather->against != NULL && !is_in_the_way(v, f->gather->against))
        return true;
    if (f->gather->own != NULL && !bytes_equal(v->owner, pack_bytes(f->gather->own->owner)))
        return true;
    if (f->node->n_holds >= ENTRIES_MAX)
        return false;
    f->node->holds[f->node->n_holds++] = hold_make(f->gather, v);
    return true;
}

static bool waiter_visit(void *arg, const struct lock_waiter_view *v)
{
    struct filling *f = arg;
    if (f->node->n_waiters >= ENTRIES_MAX)
        return false;
    f->node->waiters[f->node->n_waiters++] = waiter_make(f->gather, v);
    return true;
}

/* A path that was given to a visitor lasts only for the visit. */
static ProtobufCBinaryData keep_path(struct gather *g, struct bytes path)
{
    uint8_t *copy = arena_alloc(g->arena, path.size + 1);
    if (path.size > 0)
        memcpy(copy, path.data, path.size);
    return pack_binary(bytes_of(copy, path.size));
}

static Hf__Node *node_make(struct gather *g, const struct lock_node_view *v)
{
    Hf__Node *out = arena_alloc(g->arena, sizeof *out);
    struct filling filling = {g, out};
    hf__node__init(out);
    out->path = keep_path(g, v->path);
    out->type = v->type;
    out->directory_id = v->directory_id;
    out->implicit = v->implicit;
    out->uid = v->uid;
    out->gid = v->gid;
    out->perm = v->perm;
    out->changed_wall_ms = v->changed_ns != 0 ? wall_ms(g, v->changed_ns) : 0;
    out->n_children = access_reads(g->access, v->path) ? v->n_children : 0;
    out->waiters_total = v->n_waiters;
    out->holds_total = v->n_holds;
    g->bytes += 96 + v->path.size;
    if (v->type != LOCK_NODE_LOCK)
        return out;
    size_t n_holds = v->n_holds < ENTRIES_MAX ? v->n_holds : ENTRIES_MAX;
    out->holds = arena_alloc(g->arena, (n_holds + 1) * sizeof(Hf__Hold *));
    lock_node_holds(g->table, v, hold_visit, &filling);
    if (!g->brief && v->n_waiters > 0) {
        size_t n = v->n_waiters < ENTRIES_MAX ? v->n_waiters : ENTRIES_MAX;
        out->waiters = arena_alloc(g->arena, n * sizeof(Hf__Waiter *));
        lock_node_waiters(g->table, v, waiter_visit, &filling);
    }
    return out;
}

static bool full(struct gather *g, size_t n)
{
    if (n < g->limit && g->bytes < BYTES_MAX)
        return false;
    g->more = true;
    return true;
}

static bool node_visit(void *arg, const struct lock_node_view *v)
{
    struct gather *g = arg;
    if (!access_sees(g->access, v->path, v->type == LOCK_NODE_DIRECTORY))
        return true;
    if (full(g, g->n_nodes))
        return false;
    g->nodes[g->n_nodes++] = node_make(g, v);
    return true;
}

static Hf__Session *session_make(struct gather *g, const struct lock_session_view *v)
{
    Hf__Session *s = arena_alloc(g->arena, sizeof *s);
    hf__session__init(s);
    s->session_id = v->session_id;
    s->host = pack_binary(v->host);
    s->ttl_ms = v->ttl_ms;
    s->deadline_ns = v->deadline_ns;
    s->remaining_ms = remaining_ms(g, v->deadline_ns);
    s->opened_wall_ms = wall_ms(g, v->opened_ns);
    s->lapsed = v->lapsed;
    s->n_holds = v->n_holds;
    s->n_waiters = v->n_waiters;
    g->bytes += 96 + v->host.size;
    return s;
}

static bool session_visit(void *arg, const struct lock_session_view *v)
{
    struct gather *g = arg;
    if (!access_sees_session(g->access, v))
        return true;
    if (full(g, g->n_sessions))
        return false;
    g->sessions[g->n_sessions++] = session_make(g, v);
    return true;
}

/* A hold of a session, as a node with this one hold. */
static bool session_hold_visit(void *arg, struct bytes path, const struct lock_hold_view *h)
{
    struct gather *g = arg;
    if (!g->his && !access_reads(g->access, path))
        return true;
    if (full(g, g->n_nodes))
        return false;
    Hf__Node *out = arena_alloc(g->arena, sizeof *out);
    hf__node__init(out);
    out->path = keep_path(g, path);
    out->type = LOCK_NODE_LOCK;
    out->holds = arena_alloc(g->arena, sizeof(Hf__Hold *));
    out->holds[0] = hold_make(g, h);
    out->n_holds = 1;
    g->nodes[g->n_nodes++] = out;
    g->bytes += 96 + path.size;
    return true;
}

static void answer_show(struct gather *g, const Hf__Query *q)
{
    struct lock_node_view view = lock_lookup(g->table, pack_bytes(q->path));
    if (!access_sees(g->access, view.path, view.type == LOCK_NODE_DIRECTORY))
        view = (struct lock_node_view){.path = view.path};
    g->nodes[g->n_nodes++] = node_make(g, &view);
    g->nodes[0]->path = q->path; /* Of nothing, too. */
}

static void answer_session(struct gather *g, uint64_t session_id, Hf__QueryReply *reply)
{
    struct lock_session_view v;
    if (!lock_find_session(g->table, session_id, &v)) {
        reply->code = LOCK_NO_SESSION;
        return;
    }
    g->sessions[g->n_sessions++] = session_make(g, &v);
    g->his = access_is_own(g->access, &v);
    lock_session_holds(g->table, session_id, session_hold_visit, g);
}

static void answer_token(struct gather *g, uint64_t token, Hf__QueryReply *reply)
{
    struct lock_hold_view hold;
    struct bytes path;
    g->his = true; /* access_query() has judged it. */
    if (!lock_find_token(g->table, token, &hold, &path))
        reply->code = LOCK_NOT_FOUND;
    else
        (void)session_hold_visit(g, path, &hold); /* The first one always has room. */
}

static Hf__Member *member_make(struct node *n, struct arena *arena, const struct raft_server *s)
{
    Hf__Member *m = arena_alloc(arena, sizeof *m);
    char *raft = arena_alloc(arena, NODE_ADDRESS_BYTES);
    hf__member__init(m);
    node_raft_address(s->address, raft, NODE_ADDRESS_BYTES);
    m->node_id = s->id;
    m->raft_address = raft;
    m->client_address = (char *)(uintptr_t)node_client_address(s->address); /* Only packed. */
    m->role = s->role == RAFT_VOTER     ? HF__MEMBER__ROLE__VOTER
              : s->role == RAFT_STANDBY ? HF__MEMBER__ROLE__STANDBY
                                        : HF__MEMBER__ROLE__SPARE;
    if (!replica_follower(n->replica, clock_mono_ns(n->clock), s->id, &m->match_index,
                          &m->silent_ms) &&
        s->id == n->config.id)
        m->match_index = replica_view(n->replica).last_index;
    return m;
}

void query_members(struct node *n, struct arena *arena, Hf__QueryReply *reply)
{
    const struct raft_configuration *c = replica_members(n->replica);
    reply->members = arena_alloc(arena, (c->n + 1) * sizeof(Hf__Member *));
    for (unsigned i = 0; i < c->n; i++)
        reply->members[reply->n_members++] = member_make(n, arena, &c->servers[i]);
}

static void answer_body(struct node *n, struct gather *g, const Hf__Query *q, Hf__QueryReply *reply)
{
    struct bytes path = pack_bytes(q->path), after = pack_bytes(q->after);
    switch (q->what) {
    case HF__QUERY__WHAT__STATUS:
        reply->status = status_make(n, g->arena);
        query_members(n, g->arena, reply);
        break;
    case HF__QUERY__WHAT__SHOW:
        answer_show(g, q);
        break;
    case HF__QUERY__WHAT__LIST:
        reply->code = access_list(g->access, g->table, path, after, node_visit, g);
        break;
    case HF__QUERY__WHAT__LIST_PREFIX:
        access_list_prefix(g->access, g->table, path, after, node_visit, g);
        break;
    case HF__QUERY__WHAT__SESSIONS:
        lock_sessions(g->table, q->session_id, session_visit, g);
        break;
    case HF__QUERY__WHAT__SESSION:
        answer_session(g, q->session_id, reply);
        break;
    case HF__QUERY__WHAT__MEMBERS:
        query_members(n, g->arena, reply);
        break;
    case HF__QUERY__WHAT__COUNTS:
        reply->counts = status_counts(n, g->arena);
        break;
    case HF__QUERY__WHAT__TOKEN:
        answer_token(g, q->token, reply);
        break;
    default: /* Of a newer version. */
        reply->code = LOCK_INVALID;
        break;
    }
}

void query_answer(void *arg,
                  const struct access *access,
                  uint64_t frame_id,
                  const Hf__Query *q,
                  struct arena *arena,
                  struct buf *out)
{
    struct node *n = arg;
    uint64_t now_ns = clock_mono_ns(n->clock);
    struct gather g = {.table = replica_table(n->replica),
                       .access = access,
                       .arena = arena,
                       .now_ns = replica_cluster_now_ns(n->replica, now_ns),
                       .wall_offset_ns = n->wall_offset_ns,
                       .brief = q->brief,
                       .against = q->against != 0 ? q : NULL,
                       .own = q->own ? q : NULL,
                       .limit = q->limit == 0 || q->limit > ENTRIES_MAX ? ENTRIES_MAX : q->limit};
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    Hf__QueryReply reply = HF__QUERY_REPLY__INIT;
    g.nodes = arena_alloc(arena, g.limit * sizeof(Hf__Node *));
    g.sessions = arena_alloc(arena, g.limit * sizeof(Hf__Session *));
    reply.index = replica_view(n->replica).applied_index;
    reply.stamp_ns = g.now_ns;
    answer_body(n, &g, q, &reply);
    reply.nodes = g.nodes;
    reply.n_nodes = g.n_nodes;
    reply.sessions = g.sessions;
    reply.n_sessions = g.n_sessions;
    reply.more = g.more;
    frame.id = frame_id;
    frame.body_case = HF__NODE_FRAME__BODY_QUERY;
    frame.query = &reply;
    pack_add_frame(out, &frame.base);
}
