/* After a change: grant what became grantable, tell who is wanted, free what nothing keeps.
 *
 * The rule: on the touched locks, as long as there is a waiter that may be granted, the first
 * such one (the front, then the line, each by queue number) is.  How it is kept cheap: only
 * waiters whose range meets the hull of what changed can have become grantable, and behind an
 * exclusive one in line that covers the hull nobody can, unless its owner was known there when
 * it came (all later waiters of the covering one's owner were). */
#include "raftstore/lock/table.h"

#include <stdlib.h>

/* May it be granted now, on all its paths at once? */
bool waiter_grantable(const struct waiter *w)
{
    struct claim c = waiter_claim(w);
    for (unsigned i = 0; i < w->n_paths; i++) {
        const struct node *n = w->links[i].node;
        if (n->crowd->delay_until_ns != 0 || node_holds_conflict(n, &c) ||
            node_waiters_conflict(n, &c, w->flags, &w->links[i]))
            return false;
    }
    return true;
}

/* The hold that it waits to convert. */
static struct hold *convert_target(const struct lock_table *t, const struct waiter *w)
{
    struct hold *h = tokens_find(&t->tokens, w->convert_token);
    while (h != NULL && hold_start(h) != w->start)
        h = h->next; /* A piece of a split hold: they stand beside each other. */
    return h;
}

/* Its owner got a lease of another limit while it waited, which a grant would replace: that may be
 * less than was promised with it. */
static bool is_at_odds(const struct waiter *w)
{
    struct hold *h;
    if (w->convert_token != 0 || w->ttl_ms == 0)
        return false;
    struct request r = waiter_request(w);
    return own_lease(w->links[0].node, &r, &h) == OWN_LEASE_OTHER;
}

static void grant_waiter(struct lock_table *t, struct waiter *w)
{
    struct node *nodes[LOCK_PATHS_MAX] = {NULL};
    for (unsigned i = 0; i < w->n_paths; i++)
        nodes[i] = w->links[i].node;
    digest_waiter(t, w, false);
    struct request r = waiter_request(w);
    if (w->agent != NULL)
        w->agent->n_waiters++; /* So that it lives on if it gets the hold. */
    struct agent *a = w->agent;
    waiter_dequeue(t, w);
    /* The lock may need less now.  And of a semaphore's slots there may be one left for whom this
     * one kept waiting; on the only path the scan goes on by itself. */
    bool more = w->limit != 0 && w->n_paths > 1;
    for (unsigned i = 0; i < w->n_paths; i++)
        node_touch(t, nodes[i], more ? 0 : 1, more ? LOCK_RANGE_END : 0);
    struct lock_result result = {.code = LOCK_OK, .stamp_ns = t->stamp_ns};
    if (w->convert_token != 0)
        grant_convert(t, &r, convert_target(t, w), &result);
    else
        grant(t, &r, nodes, true, &result);
    if (a != NULL) {
        a->n_waiters--;
        agent_drop(t, a);
    }
    result_update(t, w->session, w->seq, &result);
    free(w);
}

/* Grant what the change of a range of this lock made grantable.
 *
 * Return: false when a grant took something away (a POSIX lock replaces what its owner had), or a
 * waiter was refused, so that another one may go first now: the scan begins anew. */
static bool
scan_list(struct lock_table *t, struct crowd *c, bool front, uint64_t start, uint64_t end)
{
    struct link *l, *next;
    TAILQ_FOREACH_SAFE(l, front ? &c->front : &c->line, entry, next)
    {
        struct waiter *w = l->waiter;
        if (w->start > end || w->end < start)
            continue;
        bool covers = w->exclusive && w->start <= start && w->end >= end;
        if (waiter_grantable(w)) {
            covers = covers && w->limit == 0; /* Behind a slot there may be more. */
            uint64_t n_changes = t->n_changes;
            if (is_at_odds(w)) {
                waiter_refuse(t, w, LOCK_EXISTS);
                return false;
            }
            grant_waiter(t, w);
            if (t->n_changes != n_changes)
                return false;
        }
        if (covers && !front && c->n_known == 0)
            break;
    }
    return true;
}

static void scan(struct lock_table *t, struct node *n)
{
    struct crowd *c = n->crowd;
    while (c->dirty_start <= c->dirty_end) {
        uint64_t start = c->dirty_start, end = c->dirty_end;
        c->dirty_start = 1; /* Nothing. */
        c->dirty_end = 0;
        if (c->delay_until_ns != 0 || c->n_links == 0)
            return; /* The end of the delay touches the lock again. */
        if (!scan_list(t, c, true, start, end) || !scan_list(t, c, false, start, end))
            node_touch(t, n, start, end); /* Both ranges, from the head on. */
    }
}

/* Is there a waiter, not the one given, that this hold keeps out? */
bool hold_is_wanted(const struct hold *h, const struct waiter *except)
{
    const struct crowd *c = h->node->crowd;
    struct claim held = hold_claim(h);
    const struct link *l;
    if (c == NULL || c->n_links == 0)
        return false;
    for (int i = 0; i < 2; i++) {
        TAILQ_FOREACH(l, i == 0 ? &c->front : &c->line, entry)
        {
            struct claim wanted = waiter_claim(l->waiter);
            if (l->waiter != except && claims_conflict(&wanted, &held))
                return true;
        }
    }
    return false;
}

void settle(struct lock_table *t)
{
    bool again;
    do {
        again = false;
        for (size_t i = 0; i < t->n_touched; i++) {
            struct node *n = t->touched[i];
            if (n->crowd != NULL && n->crowd->dirty_start <= n->crowd->dirty_end) {
                scan(t, n);
                again = true;
            }
        }
    } while (again);
    for (size_t i = 0; i < t->n_fresh; i++) {
        const struct hold *h = tokens_find(&t->tokens, t->fresh[i]);
        if (h != NULL && hold_is_wanted(h, NULL))
            effect_hold(t, LOCK_EFFECT_WANTED, h);
    }
    t->n_fresh = 0;
    for (size_t i = 0; i < t->n_touched; i++) {
        t->touched[i]->touched = 0;
        node_prune(t, t->touched[i]);
    }
    t->n_touched = 0;
}
