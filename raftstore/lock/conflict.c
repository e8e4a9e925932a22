/* Who is in whose way. */
#include "raftstore/lock/table.h"

struct claim hold_claim(const struct hold *h)
{
    return (struct claim){hold_owner(h), hold_start(h), hold_end(h), h->exclusive};
}

struct claim waiter_claim(const struct waiter *w)
{
    return (struct claim){waiter_owner(w), w->start, w->end, w->exclusive};
}

static bool hold_conflicts(const struct hold *h, const struct claim *c)
{
    return (h->exclusive || c->exclusive) && hold_start(h) <= c->end && c->start <= hold_end(h) &&
           !bytes_equal(hold_owner(h), c->owner);
}

/* Can no hold of the node be in the way of this claim, by the counters alone? */
static bool surely_free(const struct node *n, const struct claim *c)
{
    return n->holds == NULL || (n->crowd != NULL && n->crowd->n_exclusive == 0 && !c->exclusive);
}

bool node_holds_conflict(const struct node *n, const struct claim *c)
{
    if (surely_free(n, c))
        return false;
    for (const struct hold *h = n->holds; h != NULL; h = h->next) {
        if (hold_conflicts(h, c))
            return true;
    }
    return false;
}

struct hold *node_first_conflict(const struct node *n, const struct claim *c)
{
    if (surely_free(n, c))
        return NULL;
    struct hold *best = NULL;
    for (struct hold *h = n->holds; h != NULL; h = h->next) {
        if (hold_conflicts(h, c) && (best == NULL || hold_start(h) < hold_start(best))) {
            best = h;
            if (hold_start(h) == 0)
                break;
        }
    }
    return best;
}

/* Does a hold of this owner stand in the way of the claim? */
bool node_owner_blocks(const struct node *n, struct bytes owner, const struct claim *c)
{
    struct owner_cursor own = owner_holds(n, owner);
    const struct hold *h;
    while ((h = owner_next(&own)) != NULL) {
        if (hold_conflicts(h, c))
            return true;
    }
    return false;
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

/* A lapsed session's hold is wanted by whoever conflicts with it, and by its own owner. */
bool claim_wants(const struct claim *c, const struct hold *h)
{
    if (hold_start(h) > c->end || c->start > hold_end(h))
        return false;
    return h->exclusive || c->exclusive || bytes_equal(hold_owner(h), c->owner);
}
