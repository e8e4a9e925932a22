/* What a deadline does when it is over. */
#include "raftstore/lock/table.h"

/* A lease ran out: if its holder asked for a delay, nobody gets the lock for so long. */
static void expire_hold(struct lock_table *t, struct hold *h)
{
    struct node *n = h->node;
    uint32_t delay_ms = h->has_extra ? hold_extra(h)->lock_delay_ms : 0;
    uint64_t until_ns = delay_ms == 0 ? 0 : time_after_ms(hold_deadline(h), delay_ms);
    if (delay_ms != 0) {
        struct crowd *c = crowd_need(n);
        if (c->delay_until_ns == 0) {
            c->delay_until_ns = until_ns;
            digest_delay(t, n, true);
            heap_add(t, HEAP_DELAY, n);
            t->n_delays++;
        } else if (until_ns > c->delay_until_ns) {
            digest_delay(t, n, false);
            c->delay_until_ns = until_ns;
            digest_delay(t, n, true);
            heap_moved(t, HEAP_DELAY, n);
        }
    }
    hold_end_now(t, h, LOCK_EXPIRED);
}

static void expire_delay(struct lock_table *t, struct node *n)
{
    digest_delay(t, n, false);
    heap_remove(t, HEAP_DELAY, n);
    n->crowd->delay_until_ns = 0;
    t->n_delays--;
    effect_add(t, LOCK_EFFECT_DELAY_OVER)->path = effects_path(t, n);
    node_touch(t, n, 0, LOCK_RANGE_END);
}

void expire_until(struct lock_table *t, uint64_t stamp_ns)
{
    while (t->n_heap > 0 && heap_deadline(t->heap[1]) <= stamp_ns) {
        uintptr_t item = t->heap[1];
        void *object = (void *)(item & ~(uintptr_t)3);
        switch ((enum heap_type)(item & 3)) {
        case HEAP_HOLD:
            expire_hold(t, object);
            break;
        case HEAP_DELAY:
            expire_delay(t, object);
            break;
        case HEAP_SESSION:
            session_expire(t, object);
            break;
        case HEAP_WAITER:
            waiter_refuse(t, object, LOCK_TIMEOUT);
            break;
        }
        settle(t);
    }
}
