/* ACQUIRE and CANCEL: asking for holds, and waiting for them. */
#include "raftstore/lock/table.h"

#include <stdlib.h>

bool owner_valid(struct bytes owner)
{
    return owner.size > 0 && owner.size <= LOCK_OWNER_BYTES_MAX;
}

bool mode_valid(enum lock_mode mode)
{
    return mode == LOCK_SHARED || mode == LOCK_EXCLUSIVE;
}

bool ttl_valid(uint64_t ttl_ms)
{
    return ttl_ms >= LOCK_TTL_MS_MIN && ttl_ms <= LOCK_TTL_MS_MAX;
}

bool limit_valid(
    uint32_t limit, enum lock_mode mode, enum lock_kind kind, uint64_t start, uint64_t end)
{
    return limit == 0 || (limit <= LOCK_SEMAPHORE_MAX && mode == LOCK_EXCLUSIVE &&
                          !kind_is_posix(kind) && start == 0 && end == LOCK_RANGE_END);
}

static bool paths_valid(const struct lock_command *c)
{
    if (c->n_paths < 1 || c->n_paths > LOCK_PATHS_MAX)
        return false;
    for (unsigned i = 0; i < c->n_paths; i++) {
        if (!lock_path_valid(c->paths[i]))
            return false;
        for (unsigned j = 0; j < i; j++) {
            if (bytes_equal(c->paths[i], c->paths[j]) || path_is_below(c->paths[i], c->paths[j]) ||
                path_is_below(c->paths[j], c->paths[i]))
                return false;
        }
    }
    return true;
}

static bool acquire_valid(const struct lock_command *c)
{
    return paths_valid(c) && owner_valid(c->owner) && mode_valid(c->mode) &&
           (unsigned)c->kind <= LOCK_KIND_OFD && c->start <= c->end &&
           limit_valid(c->limit, c->mode, c->kind, c->start, c->end) &&
           (c->ttl_ms == 0 || ttl_valid(c->ttl_ms)) && c->lock_delay_ms <= LOCK_TTL_MS_MAX &&
           c->note.size <= LOCK_NOTE_BYTES_MAX && c->perm <= LOCK_PERM_MAX;
}

static struct request request_of(const struct op *o)
{
    const struct lock_command *c = o->c;
    return (struct request){
        .session = o->s,
        .claim = {c->owner, c->start, c->end, c->mode == LOCK_EXCLUSIVE, c->limit},
        .note = c->note,
        .agent_number = c->agent,
        .seq = c->seq,
        .mtime_ns = c->ttl_ms == 0 ? 0 : c->mtime_ns,
        .ttl_ms = (uint32_t)c->ttl_ms,
        .lock_delay_ms = c->ttl_ms == 0 ? 0 : (uint32_t)c->lock_delay_ms,
        .pid = c->pid,
        .uid = c->uid,
        .gid = c->gid,
        .perm = c->perm,
        .n_paths = c->n_paths,
        .no_less = (c->flags & LOCK_F_NO_LESS) != 0,
        .kind = c->kind,
    };
}

/* Where the paths lead to; an error is that of the first path that has one. */
static enum lock_code find_places(const struct op *o, struct place *places, struct node **nodes)
{
    for (unsigned i = 0; i < o->c->n_paths; i++) {
        bool parents = (o->c->flags & LOCK_F_PARENTS) != 0;
        enum lock_code code = place_find(o->t, o->c->paths[i], parents, &places[i]);
        if (code != LOCK_OK)
            return code;
        nodes[i] = places[i].node;
        if (nodes[i] != NULL && nodes[i]->is_directory)
            return LOCK_IS_DIR;
    }
    return LOCK_OK;
}

static bool stop(void *arg, struct hold *h)
{
    (void)arg;
    (void)h;
    return false; /* One is enough. */
}

/* Whether the owner is known on one of the paths, and what it follows from that. */
static uint32_t standing(const struct request *r, struct node *const *nodes)
{
    uint32_t flags = 0;
    for (unsigned i = 0; i < r->n_paths; i++) {
        const struct node *n = nodes[i];
        if (n == NULL)
            continue;
        struct owner_cursor own = owner_holds(n, r->claim.owner);
        if (owner_next(&own) != NULL || owner_waits(n, r->claim.owner))
            flags |= WAITER_F_KNOWN;
        if (r->n_paths == 1 &&
            !own_visit(n, r->claim.owner, r->claim.start, r->claim.end, stop, NULL))
            flags |= WAITER_F_FRONT;
    }
    return flags;
}

/* May it be granted at once? LOCK_OK, LOCK_CONFLICT, LOCK_DELAYED. */
static enum lock_code judge(const struct request *r, struct node *const *nodes)
{
    enum lock_code code = LOCK_OK;
    for (unsigned i = 0; i < r->n_paths; i++) {
        const struct node *n = nodes[i];
        if (n == NULL)
            continue;
        if (node_holds_conflict(n, &r->claim) ||
            node_waiters_conflict(n, &r->claim, r->flags, NULL))
            return LOCK_CONFLICT;
        if (n->crowd != NULL && n->crowd->delay_until_ns != 0)
            code = LOCK_DELAYED;
    }
    return code;
}

/* A bound on holds: `bound` if they hang on the session or wait on it. */
bool room_for_holds(const struct lock_table *t, const struct session *s, uint64_t need, bool bound)
{
    if (t->n_holds + t->n_reserved + need > t->limits.holds_max)
        return false;
    return !bound || s->n_holds + s->n_reserved + need <= t->limits.holds_per_session_max;
}

static bool
room_for_directories(const struct lock_table *t, const struct place *places, unsigned n_places)
{
    uint64_t n = t->n_directories;
    for (unsigned i = 0; i < n_places; i++)
        n += places[i].n_missing;
    return n == t->n_directories || n <= t->limits.directories_max;
}

/* Tell the holders that somebody waits for them; those who knew it already aren't told again. */
static void tell_wanted(struct lock_table *t, const struct waiter *w, const struct node *n)
{
    struct claim c = waiter_claim(w);
    if (n->crowd->n_exclusive == 0 && !c.exclusive)
        return;
    /* Behind one who wants everything, only that one's own holds can be unaware. */
    const struct link *first = TAILQ_FIRST(&n->crowd->line);
    t->n_own = 0;
    if (first != NULL && first->waiter != w && first->waiter->exclusive &&
        first->waiter->start == 0 && first->waiter->end == LOCK_RANGE_END)
        (void)own_visit(n, waiter_owner(first->waiter), c.start, c.end, own_add, t);
    else
        (void)holds_visit(n, c.start, c.end, !c.exclusive, own_add, t);
    own_sort(t);
    for (size_t i = 0; i < t->n_own; i++) {
        struct claim held = hold_claim(t->own[i]);
        if (claims_conflict(&held, &c) && !hold_is_wanted(t->own[i], w))
            effect_hold(t, LOCK_EFFECT_WANTED, t->own[i]);
    }
}

/* Let a request wait in line.
 *
 * Return: LOCK_QUEUED; LOCK_LIMIT and LOCK_DEADLOCK: nothing was changed. */
enum lock_code
queue_up(struct op *o, struct request *r, uint64_t convert_token, const struct place *places)
{
    struct lock_table *t = o->t;
    if (t->n_waiters >= t->limits.waiters_max ||
        !room_for_holds(t, o->s, request_need(r->kind, r->n_paths), true) ||
        !room_for_directories(t, places, r->n_paths))
        return LOCK_LIMIT;
    uint64_t deadline_ns = o->c->wait_ms == LOCK_WAIT_FOREVER
                               ? LOCK_DEADLINE_NEVER
                               : time_after_ms(t->stamp_ns, o->c->wait_ms);
    struct node *nodes[LOCK_PATHS_MAX];
    for (unsigned i = 0; i < r->n_paths; i++)
        nodes[i] = places[i].node;
    struct waiter *w = waiter_new(r, convert_token, deadline_ns);
    w->since_ns = t->stamp_ns;
    w->queue_number = t->next_queue_number;
    if (r->agent_number != 0)
        w->agent = agent_need(t, o->s->id, r->agent_number);
    waiter_enqueue(t, w, nodes);
    if (deadlock_raises(w) || deadlock_closes(t, w)) {
        waiter_dequeue(t, w);
        for (unsigned i = 0; i < r->n_paths; i++) {
            if (nodes[i] != NULL)
                node_touch(t, nodes[i], 1, 0);
        }
        free(w);
        return LOCK_DEADLOCK;
    }
    t->next_queue_number++;
    for (unsigned i = 0; i < r->n_paths; i++) {
        if (nodes[i] == NULL)
            waiter_stand(t, w, i, place_make(t, &places[i], false));
    }
    digest_waiter(t, w, true);
    for (unsigned i = 0; i < r->n_paths; i++)
        effect_waiter(t, LOCK_EFFECT_QUEUED, w, w->links[i].node);
    for (unsigned i = 0; i < r->n_paths; i++)
        tell_wanted(t, w, w->links[i].node);
    return LOCK_QUEUED;
}

/* End the lapsed sessions in the way. Return: were there any? */
static bool evict_all(struct op *o, const struct request *r, struct node *const *nodes)
{
    bool any = false;
    if (o->t->n_lapsed == 0)
        return false;
    for (unsigned i = 0; i < r->n_paths; i++) {
        if (nodes[i] != NULL)
            any |= evict_lapsed(o->t, nodes[i], &r->claim);
    }
    if (any)
        settle(o->t);
    return any;
}

static enum lock_code
grant_now(struct op *o, struct request *r, const struct place *places, struct node **nodes)
{
    uint64_t need = request_need(r->kind, r->n_paths);
    if (!room_for_holds(o->t, o->s, need, r->ttl_ms == 0) ||
        !room_for_directories(o->t, places, r->n_paths))
        return LOCK_LIMIT;
    for (unsigned i = 0; i < r->n_paths; i++) {
        if (nodes[i] == NULL)
            nodes[i] = place_make(o->t, &places[i], false);
    }
    grant(o->t, r, nodes, false, o->r);
    return LOCK_OK;
}

enum lock_code op_acquire(struct op *o)
{
    struct place places[LOCK_PATHS_MAX];
    struct node *nodes[LOCK_PATHS_MAX];
    if (!acquire_valid(o->c))
        return LOCK_INVALID;
    struct request r = request_of(o);
    enum lock_code code = find_places(o, places, nodes);
    if (code == LOCK_OK && evict_all(o, &r, nodes))
        code = find_places(o, places, nodes);
    if (code != LOCK_OK)
        return code;
    struct hold *lease;
    enum own_lease own = r.no_less ? own_lease(nodes[0], &r, &lease) : OWN_LEASE_NONE;
    if (own == OWN_LEASE_OTHER)
        return LOCK_EXISTS;
    if (own == OWN_LEASE_COVERS || own_all_exact(&r, nodes)) {
        grant(o->t, &r, nodes, false, o->r);
        return LOCK_OK;
    }
    if (r.n_paths == 1 && !kind_is_posix(r.kind)) {
        struct hold *h = own_exact(nodes[0], &r, true);
        if (h != NULL && hold_limit(h) == 0 && r.claim.limit == 0)
            return convert_hold(o, h, r.claim.exclusive);
    }
    r.flags = standing(&r, nodes);
    code = judge(&r, nodes);
    if (code == LOCK_OK)
        return grant_now(o, &r, places, nodes);
    if (o->c->wait_ms != 0)
        return queue_up(o, &r, 0, places);
    if (code == LOCK_CONFLICT)
        conflict_show(o);
    return code;
}

/* Show who is in the way on a lock. Return: is there anybody? */
static bool conflict_show_at(struct op *o, const struct node *n, const struct claim *claim)
{
    const struct hold *h = n == NULL || n->is_directory ? NULL : node_first_conflict(n, claim);
    if (h == NULL)
        return false;
    o->r->holder = effects_keep(o->t, hold_owner(h));
    o->r->holder_deadline_ns = hold_deadline(h);
    return true;
}

/* Fill in who is in the way of an acquire or a convert, as things stand now. */
void conflict_show(struct op *o)
{
    const struct lock_command *c = o->c;
    struct claim claim = {c->owner, c->start, c->end, c->mode == LOCK_EXCLUSIVE, c->limit};
    if (c->op == LOCK_OP_CONVERT) {
        struct hold *own;
        if (find_own(o, &own) != LOCK_OK)
            return;
        claim = hold_claim(own);
        claim.exclusive = true;
        (void)conflict_show_at(o, own->node, &claim); /* Perhaps only waiters are. */
        return;
    }
    bool shown = false;
    for (unsigned i = 0; i < c->n_paths && i < LOCK_PATHS_MAX && !shown; i++)
        shown = c->paths[i].size > 0 && conflict_show_at(o, node_find(o->t, c->paths[i]), &claim);
}

enum lock_code op_cancel(struct op *o)
{
    struct waiter *w = waiter_find(o->s, o->c->cancel_seq);
    if (w == NULL)
        return LOCK_NOT_FOUND;
    waiter_refuse(o->t, w, LOCK_CANCELED);
    return LOCK_OK;
}
