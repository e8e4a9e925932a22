#include "raftstore/node/node_internal.h"

#include <time.h>

#include "raftstore/base/clock.h"
#include "raftstore/base/log.h"

/* CPU time of the loop's thread: a turn that took long without using any was not run, or waited. */
static uint64_t thread_cpu_ns(void)
{
    struct timespec ts;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts) < 0)
        return 0;
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void note(struct node *n, uint64_t now_ns, uint64_t busy_ns, uint64_t cpu_ns)
{
    struct node_stall *s = &n->stall;
    buckets_add(&s->turns, busy_ns);
    if (cpu_ns > s->cpu_max_ns)
        s->cpu_max_ns = cpu_ns;
    if (busy_ns > s->max_ns)
        s->max_ns = busy_ns;
    if (n->snapshot.active && busy_ns > s->snapshot_max_ns)
        s->snapshot_max_ns = busy_ns;
    if (busy_ns > NODE_STALL_LOUD_NS && (s->told_ns == 0 || now_ns - s->told_ns > NS_PER_S)) {
        s->told_ns = now_ns;
        LOG_WARN("the loop was busy for long", "ms=%llu cpu_ms=%llu snapshot=%d",
                 (unsigned long long)(busy_ns / NS_PER_MS),
                 (unsigned long long)(cpu_ns / NS_PER_MS), n->snapshot.active);
    }
}

void stall_poll_begins(struct node *n, uint64_t now_ns)
{
    struct node_stall *s = &n->stall;
    uint64_t cpu_ns = thread_cpu_ns();
    if (s->turn_from_ns != 0 && now_ns > s->turn_from_ns)
        note(n, now_ns, now_ns - s->turn_from_ns, cpu_ns - s->cpu_ns);
    s->poll_from_ns = now_ns;
    s->cpu_ns = cpu_ns;
}

void stall_poll_ended(struct node *n)
{
    /* libuv reads its clock when the poll returns, in whole milliseconds, rounded down; the
     * callbacks of the poll have run since. */
    uint64_t returned_ns = uv_now(n->config.loop) * NS_PER_MS;
    struct node_stall *s = &n->stall;
    s->turn_from_ns = returned_ns > s->poll_from_ns ? returned_ns : s->poll_from_ns;
}
