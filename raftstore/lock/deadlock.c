/* Deadlock detection: agents and the search for a cycle of waits.
 *
 * Who waits for a semaphore's slot waits for any of its holders, not for all: a cycle through such
 * a wait is a deadlock only if too many of those holders are stuck themselves. */
#include "raftstore/lock/table.h"

#include <stdlib.h>

static int agents_order(const struct agent *a, const struct agent *b)
{
    if (a->session_id != b->session_id)
        return a->session_id < b->session_id ? -1 : 1;
    return (a->number > b->number) - (a->number < b->number);
}

RB_GENERATE(agent_tree, agent, entry, agents_order)

struct agent *agent_need(struct lock_table *t, uint64_t session_id, uint64_t number)
{
    struct agent key = {.session_id = session_id, .number = number};
    struct agent *a = RB_FIND(agent_tree, &t->agents, &key);
    if (a != NULL)
        return a;
    a = xcalloc(1, sizeof *a);
    a->session_id = session_id;
    a->number = number;
    TAILQ_INIT(&a->waiters);
    RB_INSERT(agent_tree, &t->agents, a);
    return a;
}

/* Free it if it neither holds nor waits. */
void agent_drop(struct lock_table *t, struct agent *a)
{
    if (a->n_holds > 0 || a->n_waiters > 0)
        return;
    RB_REMOVE(agent_tree, &t->agents, a);
    free(a);
}

struct search {
    struct lock_table *t;
    const struct agent *origin;
    size_t edges; /* Looked at so far. */
    bool closed;  /* The origin was reached. */
    bool choice;  /* Somebody came by who waits for any of several. */
};

/* Somebody waits for this agent. Return: false when the search is over. */
static bool reach(struct search *s, struct agent *a)
{
    struct lock_table *t = s->t;
    if (a == NULL)
        return true;
    if (a == s->origin) {
        s->closed = true;
        return s->choice; /* Then the whole picture is needed. */
    }
    if (a->mark == t->search || a->n_waiters == 0)
        return true;
    a->mark = t->search;
    ARRAY_RESERVE(t->found, t->n_found, t->found_alloc);
    t->found[t->n_found++] = a;
    return true;
}

static bool search_list(struct search *s,
                        const struct link_list *list,
                        const struct link *l,
                        const struct claim *c,
                        bool *ret_arrived)
{
    const struct link *ahead;
    TAILQ_FOREACH(ahead, list, entry)
    {
        if (ahead == l) {
            *ret_arrived = true;
            return true;
        }
        if (++s->edges > LOCK_EDGES_MAX)
            return false;
        if (waiter_is_ahead(ahead, c, l->waiter->flags) && !reach(s, ahead->waiter->agent))
            return false;
    }
    return true;
}

/* Whom does a waiter wait for on one of its paths? Return: false when the search is over. */
static bool search_link(struct search *s, const struct link *l)
{
    struct claim c = waiter_claim(l->waiter);
    bool slots_left = c.limit != 0 && !node_holds_conflict(l->node, &c);
    for (const struct hold *h = slots_left ? NULL : l->node->holds; h != NULL; h = h->next) {
        struct claim held = hold_claim(h);
        if (++s->edges > LOCK_EDGES_MAX)
            return false;
        if (!claims_conflict(&held, &c))
            continue;
        s->choice |= held.limit != 0 && c.limit != 0;
        if (!reach(s, hold_agent(h)))
            return false;
    }
    bool arrived = false;
    if (!search_list(s, &l->node->crowd->front, l, &c, &arrived))
        return false;
    return arrived || search_list(s, &l->node->crowd->line, l, &c, &arrived);
}

/* Could an agent not go on even if everybody did who is not marked as stuck? */
static bool is_stuck(const struct search *s, const struct agent *a)
{
    return a != NULL && a->mark == s->t->search;
}

/* By what is held on one path. */
static bool holds_block(struct search *s, const struct link *l, const struct claim *c)
{
    uint64_t n_stuck = 0;
    uint32_t limit = c->limit;
    if (limit != 0 && !node_holds_conflict(l->node, c))
        return false;
    for (const struct hold *h = l->node->holds; h != NULL; h = h->next) {
        struct claim held = hold_claim(h);
        s->edges++;
        if (!claims_conflict(&held, c) || !is_stuck(s, hold_agent(h)))
            continue;
        if (c->limit == 0 || held.limit == 0)
            return true;
        n_stuck++;
        limit = held.limit < limit ? held.limit : limit;
    }
    return n_stuck > 0 && n_stuck >= limit;
}

/* And by who stands there before it. */
static bool link_blocks(struct search *s, const struct link *l)
{
    struct claim c = waiter_claim(l->waiter);
    if (holds_block(s, l, &c))
        return true;
    for (int i = 0; i < 2; i++) {
        const struct link *ahead;
        TAILQ_FOREACH(ahead, i == 0 ? &l->node->crowd->front : &l->node->crowd->line, entry)
        {
            if (ahead == l)
                return false;
            s->edges++;
            if (is_stuck(s, ahead->waiter->agent) && waiter_is_ahead(ahead, &c, l->waiter->flags))
                return true;
        }
    }
    return false;
}

static bool agent_blocked(struct search *s, const struct agent *a)
{
    const struct waiter *v;
    TAILQ_FOREACH(v, &a->waiters, agent_entry)
    {
        for (unsigned p = 0; p < v->n_paths; p++) {
            if (v->links[p].node != NULL && link_blocks(s, &v->links[p]))
                return true;
        }
    }
    return false;
}

/* Of those found, take the mark from one after another who could go on.  Is the origin left? */
static bool origin_is_stuck(struct search *s)
{
    struct lock_table *t = s->t;
    bool again = true;
    while (again) {
        again = false;
        for (size_t i = 0; i < t->n_found; i++) {
            struct agent *a = t->found[i];
            if (s->edges > LOCK_EDGES_MAX)
                return false;
            if (!is_stuck(s, a) || agent_blocked(s, a))
                continue;
            a->mark = 0;
            again = true;
        }
    }
    return is_stuck(s, s->origin);
}

/* Follow all waits from the origin on.  Return: false when the search is over before its end. */
static bool search_all(struct search *s)
{
    const struct lock_table *t = s->t;
    for (size_t i = 0; i < t->n_found; i++) {
        const struct waiter *v;
        TAILQ_FOREACH(v, &t->found[i]->waiters, agent_entry)
        {
            for (unsigned p = 0; p < v->n_paths; p++) {
                if (v->links[p].node != NULL && !search_link(s, &v->links[p]))
                    return false;
            }
        }
    }
    return true;
}

/* Does this waiter, which stands in its queues already, close a cycle of waits?
 *
 * Breadth first over agents, in an order that the state fixes.  A search that would look at more
 * than LOCK_EDGES_MAX holds and waiters ends with "no": then the wait limits have to help. */
bool deadlock_closes(struct lock_table *t, const struct waiter *w)
{
    struct agent *origin = w->agent;
    if (origin == NULL)
        return false;
    /* Nobody can wait for one who holds nothing and stands before nobody. */
    if (origin->n_holds == 0 && origin->n_waiters == 1 && (w->flags & WAITER_F_FRONT) == 0)
        return false;
    struct search s = {.t = t, .origin = origin};
    origin->mark = ++t->search;
    t->n_found = 0;
    ARRAY_RESERVE(t->found, t->n_found, t->found_alloc);
    t->found[t->n_found++] = origin;
    bool whole = search_all(&s);
    if (!s.choice || !s.closed)
        return s.closed;
    return whole && origin_is_stuck(&s);
}

/* Two holders who both wait to raise what they hold, each in the other's way, can never go on:
 * is there such another one? */
bool deadlock_raises(const struct waiter *w)
{
    if ((w->flags & WAITER_F_FRONT) == 0)
        return false;
    const struct link *l = &w->links[0], *other;
    struct claim c = waiter_claim(w);
    TAILQ_FOREACH(other, &l->node->crowd->front, entry)
    {
        if (other == l)
            return false;
        struct claim o = waiter_claim(other->waiter);
        if (claims_conflict(&o, &c) && node_owner_blocks(l->node, c.owner, &o) &&
            node_owner_blocks(l->node, o.owner, &c))
            return true;
    }
    return false;
}
