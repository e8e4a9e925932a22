/* What a lock has only while several hold it, somebody waits for it, or a delay runs. */
#include "raftstore/lock/table.h"

#include <stdlib.h>

static void count_hold(struct crowd *c, const struct hold *h, size_t step)
{
    c->n_holds += step;
    c->n_exclusive += h->exclusive ? step : 0;
    c->n_semaphores += hold_limit(h) != 0 ? step : 0;
    c->n_ranged += hold_is_whole(h) ? 0 : step;
}

struct crowd *crowd_need(struct node *n)
{
    if (n->crowd != NULL)
        return n->crowd;
    struct crowd *c = xcalloc(1, sizeof *c);
    TAILQ_INIT(&c->front);
    TAILQ_INIT(&c->line);
    c->dirty_start = 1; /* Nothing. */
    for (const struct hold *h = n->holds; h != NULL; h = h->next)
        count_hold(c, h, 1);
    n->crowd = c;
    return c;
}

void crowd_drop(struct node *n)
{
    struct crowd *c = n->crowd;
    if (c == NULL || c->n_holds > 1 || c->n_links > 0 || c->delay_until_ns != 0)
        return;
    members_free(c);
    free(c);
    n->crowd = NULL;
}

/* Before the hold is in the node's list. */
void crowd_add_hold(struct node *n, struct hold *h)
{
    if (n->crowd == NULL && n->holds == NULL)
        return;
    struct crowd *c = crowd_need(n);
    count_hold(c, h, 1);
    members_add_hold(c, h);
}

/* After the hold left the node's list. */
void crowd_remove_hold(struct node *n, struct hold *h)
{
    if (n->crowd == NULL)
        return;
    count_hold(n->crowd, h, (size_t)-1);
    members_remove_hold(n->crowd, h);
    members_review(n);
}

void crowd_add_link(struct node *n, struct link *l)
{
    struct crowd *c = crowd_need(n);
    bool front = (l->waiter->flags & WAITER_F_FRONT) != 0;
    TAILQ_INSERT_TAIL(front ? &c->front : &c->line, l, entry);
    c->n_links++;
    c->n_known += !front && (l->waiter->flags & WAITER_F_KNOWN) != 0;
    members_add_link(c, l);
    members_review(n);
}

void crowd_remove_link(struct node *n, struct link *l)
{
    struct crowd *c = n->crowd;
    bool front = (l->waiter->flags & WAITER_F_FRONT) != 0;
    TAILQ_REMOVE(front ? &c->front : &c->line, l, entry);
    c->n_links--;
    c->n_known -= !front && (l->waiter->flags & WAITER_F_KNOWN) != 0;
    members_remove_link(c, l);
    members_review(n);
}
