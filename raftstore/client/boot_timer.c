#include "raftstore/client/boot_timer.h"

static int boot_timer_compare(struct boot_timer *a, struct boot_timer *b)
{
    if (a->due_ns != b->due_ns)
        return a->due_ns < b->due_ns ? -1 : 1;
    return (a->order > b->order) - (a->order < b->order);
}

RB_PROTOTYPE(boot_timer_tree, boot_timer, link, boot_timer_compare);
RB_GENERATE(boot_timer_tree, boot_timer, link, boot_timer_compare)

/* Set the alarm for the first timer, unless it goes off early enough already: an early wake-up
 * costs less than a system call at each change. */
static void arm(struct boot_timers *ts)
{
    struct boot_timer *first = RB_MIN(boot_timer_tree, &ts->tree);
    ts->next_ns = first != NULL ? first->due_ns : UINT64_MAX;
    if (ts->running || ts->next_ns >= ts->alarm_due_ns)
        return;
    uint64_t now = clock_boot_ns(ts->clock);
    boot_alarm_set(&ts->alarm, ts->next_ns > now ? ts->next_ns - now : 1);
    ts->alarm_due_ns = ts->next_ns;
}

static void on_alarm(void *arg)
{
    struct boot_timers *ts = arg;
    ts->alarm_due_ns = UINT64_MAX;
    boot_timers_run(ts);
    arm(ts);
}

int boot_timers_init(struct boot_timers *ts, uv_loop_t *loop, const struct clock *clock)
{
    *ts = (struct boot_timers){.clock = clock, .next_ns = UINT64_MAX, .alarm_due_ns = UINT64_MAX};
    RB_INIT(&ts->tree);
    return boot_alarm_init(&ts->alarm, loop, on_alarm, ts);
}

static void on_alarm_closed(void *arg)
{
    struct boot_timers *ts = arg;
    ts->on_closed(ts->arg);
}

void boot_timers_close(struct boot_timers *ts, void (*on_closed)(void *arg), void *arg)
{
    ts->on_closed = on_closed;
    ts->arg = arg;
    boot_alarm_close(&ts->alarm, on_alarm_closed);
}

void boot_timers_run(struct boot_timers *ts)
{
    struct boot_timer *t;
    if (ts->running || ts->next_ns == UINT64_MAX)
        return;
    uint64_t now = clock_boot_ns(ts->clock);
    ts->seen_ns = now;
    if (now < ts->next_ns)
        return;
    ts->running = true;
    uint64_t order_end = ts->n_set; /* What is set meanwhile waits for the next turn. */
    while ((t = RB_MIN(boot_timer_tree, &ts->tree)) != NULL && t->due_ns <= now) {
        if (t->order >= order_end)
            break;
        boot_timer_stop(ts, t);
        t->cb(t);
    }
    ts->running = false;
    arm(ts);
}

void boot_timer_set(struct boot_timers *ts, struct boot_timer *t, uint64_t due_ns)
{
    if (t->armed)
        RB_REMOVE(boot_timer_tree, &ts->tree, t);
    t->due_ns = due_ns;
    t->order = ts->n_set++;
    t->armed = true;
    RB_INSERT(boot_timer_tree, &ts->tree, t);
    if (due_ns < ts->next_ns)
        arm(ts);
}

void boot_timer_stop(struct boot_timers *ts, struct boot_timer *t)
{
    if (!t->armed)
        return;
    RB_REMOVE(boot_timer_tree, &ts->tree, t);
    t->armed = false;
    /* next_ns may now be too early; that costs one look at the clock, no more. */
}
