/* Timers on CLOCK_BOOTTIME, which runs through suspend.
 *
 * libuv's own timers follow CLOCK_MONOTONIC and stand still while the machine sleeps: a lease
 * judged by one would seem to live on after the wake-up.  Here one timerfd per client wakes the
 * loop, and boot_timers_run() is called first thing at every wake-up from anywhere, so that what
 * is over is over before anything else is looked at.  One thread: the loop's. */
#ifndef HOLDFAST_CLIENT_BOOT_TIMER_H
#define HOLDFAST_CLIENT_BOOT_TIMER_H

#include "raftstore/base/clock.h"
#include "raftstore/client/boot_alarm.h"

#include <bsd/sys/tree.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct boot_timer {
    RB_ENTRY(boot_timer) link;        /* In boot_timers.tree while armed. */
    uint64_t due_ns;                  /* On the clock's boot_ns. */
    uint64_t order;                   /* Equal instants fire in the order they were set. */
    bool armed;                       /* Is it in the tree? */
    void (*cb)(struct boot_timer *t); /* Called disarmed; may set or stop any timer. */
    void *arg;                        /* The owner's. */
};
RB_HEAD(boot_timer_tree, boot_timer);

struct boot_timers {
    struct boot_timer_tree tree; /* Armed timers by due instant. */
    const struct clock *clock;   /* Whose boot_ns counts. */
    uint64_t n_set;              /* Source of boot_timer.order. */
    uint64_t next_ns;            /* Due instant of the first timer; UINT64_MAX = none. */
    uint64_t alarm_due_ns;       /* What the alarm is set to; UINT64_MAX = not set. */
    struct boot_alarm alarm;
    bool running;     /* Inside boot_timers_run(). */
    uint64_t seen_ns; /* The clock as boot_timers_run() read it last; 0 = never. */
    void (*on_closed)(void *arg);
    void *arg;
};

/* Return: 0; as boot_alarm_init(). */
int boot_timers_init(struct boot_timers *ts, uv_loop_t *loop, const struct clock *clock);

/* Close; `on_closed` comes from the loop. Timers still armed never fire. */
void boot_timers_close(struct boot_timers *ts, void (*on_closed)(void *arg), void *arg);

/* Fire what is due; cheap when nothing is. */
void boot_timers_run(struct boot_timers *ts);

/* Arm, or move, a timer.  An instant in the past fires at the next turn of the loop. */
void boot_timer_set(struct boot_timers *ts, struct boot_timer *t, uint64_t due_ns);

/* Disarm; nothing happens when it is not armed. */
void boot_timer_stop(struct boot_timers *ts, struct boot_timer *t);

#endif
