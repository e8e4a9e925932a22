/* Who is in whose way. */
#include "raftstore/lock/table.h"

struct claim hold_claim(const struct hold *h)
{
    return (struct claim){hold_owner(h), hold_start(h), hold_end(h), h->exclusive, hold_limit(h)};
}

struct claim waiter_claim(const struct waiter *w)
{
    return (struct claim){waiter_owner(w), w->start, w->end, w->exclusive, w->limit};
}

/* Can no hold of the node be in the way of this claim, by the counters alone? */
static bool surely_free(const struct node *n, const struct claim *c)
{
    return n->holds == NULL || (n->crowd != NULL && n->crowd->n_exclusive == 0 && !c->exclusive);
}

struct first_conflict {
    const struct claim *claim;
    struct hold *best; /* The first one by (start, token). */
    bool any;          /* Any one will do. */
};

static bool look(void *arg, struct hold *h)
{
    struct first_conflict *f = arg;
    if (bytes_equal(hold_owner(h), f->claim->owner))
        return true;
    if (f->best == NULL || hold_start(h) < hold_start(f->best) ||
        (hold_start(h) == hold_start(f->best) && h->token < f->best->token))
        f->best = h;
    /* Behind this one only others that begin later come: by start with an index, and those from
     * zero on by token without. */
    return !f->any && hold_start(h) != 0 &&
           (h->node->crowd == NULL || h->node->crowd->index == NULL);
}

static struct hold *find_conflict(const struct node *n, const struct claim *c, bool any)
{
    struct first_conflict f = {.claim = c, .any = any};
    if (surely_free(n, c))
        return NULL;
    (void)holds_visit(n, c->start, c->end, !c->exclusive, look, &f); /* Stops when it knows. */
    return f.best;
}

static size_t n_semaphores(const struct node *n)
{
    if (n->crowd != NULL)
        return n->crowd->n_semaphores;
    return n->holds != NULL && hold_limit(n->holds) != 0;
}

static uint32_t smallest_limit(const struct node *n)
{
    if (n->crowd != NULL && n->crowd->index != NULL)
        return n->crowd->index->ranges->limit_min;
    uint32_t limit = UINT32_MAX;
    for (const struct hold *h = n->holds; h != NULL; h = h->next) {
        if (hold_limit(h) != 0 && hold_limit(h) < limit)
            limit = hold_limit(h);
    }
    return limit;
}

struct own_holds {
    size_t n;
    size_t n_slots;
};

static bool count_own(void *arg, struct hold *h)
{
    struct own_holds *own = arg;
    own->n++;
    own->n_slots += hold_limit(h) != 0;
    return true;
}

/* Has a semaphore's claim a slot left, beside what others hold? */
static bool has_room(const struct node *n, const struct claim *c)
{
    size_t n_holds = n->crowd == NULL ? 1 : n->crowd->n_holds;
    struct own_holds own = {0};
    (void)own_visit(n, c->owner, 0, LOCK_RANGE_END, count_own, &own); /* It never stops. */
    size_t n_others = n_semaphores(n) - own.n_slots;
    if (n_holds - own.n > n_others)
        return false; /* Somebody has more here than a slot, and so the only one. */
    /* The owner's own slot may be in `smallest`: fewer others than that have one, or it could not
     * be there. */
    uint32_t smallest = smallest_limit(n);
    return n_others < (c->limit < smallest ? c->limit : smallest);
}

bool node_holds_conflict(const struct node *n, const struct claim *c)
{
    if (c->limit != 0 && n_semaphores(n) > 0)
        return !has_room(n, c);
    return find_conflict(n, c, true) != NULL;
}

/* The one in the way that begins first, by (start, token); NULL: none. */
struct hold *node_first_conflict(const struct node *n, const struct claim *c)
{
    if (c->limit != 0 && !node_holds_conflict(n, c))
        return NULL;
    return find_conflict(n, c, false);
}

static bool blocks(void *arg, struct hold *h)
{
    const struct claim *c = arg;
    return !h->exclusive && !c->exclusive; /* False, to stop, for one in the way. */
}

/* Does a hold of this owner, which is not the claim's, stand in the way of the claim? */
bool node_owner_blocks(const struct node *n, struct bytes owner, const struct claim *c)
{
    struct claim copy = *c;
    return !own_visit(n, owner, c->start, c->end, blocks, &copy);
}

/* Must a request with these flags yield to this waiter?  Not if that one waits for a hold of
 * the request's own owner: then neither could ever go on. */
bool waiter_is_ahead(const struct link *l, const struct claim *c, uint32_t flags)
{
    struct claim ahead = waiter_claim(l->waiter);
    if (!claims_conflict(&ahead, c))
        return false;
    return (flags & WAITER_F_KNOWN) == 0 || !node_owner_blocks(l->node, c->owner, &ahead);
}

/* Whom a waiter has ahead of it: the front before those in line.
 *
 * @before: its own place; NULL: behind all of its sort. */
bool node_waiters_conflict(const struct node *n,
                           const struct claim *c,
                           uint32_t flags,
                           const struct link *before)
{
    if (n->crowd == NULL || n->crowd->n_links == 0)
        return false;
    const struct link *l;
    TAILQ_FOREACH(l, &n->crowd->front, entry)
    {
        if (l == before)
            return false;
        if (waiter_is_ahead(l, c, flags))
            return true;
    }
    if ((flags & WAITER_F_FRONT) != 0)
        return false;
    TAILQ_FOREACH(l, &n->crowd->line, entry)
    {
        if (l == before)
            return false;
        if (waiter_is_ahead(l, c, flags))
            return true;
    }
    return false;
}

/* A lapsed session's hold is wanted by whoever conflicts with it, and by its own owner; a slot by
 * whoever asks for one. */
bool claim_wants(const struct claim *c, const struct hold *h)
{
    if (hold_start(h) > c->end || c->start > hold_end(h))
        return false;
    return h->exclusive || c->exclusive || bytes_equal(hold_owner(h), c->owner);
}
