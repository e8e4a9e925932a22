#include "raftstore/node/node_internal.h"

#include "raftstore/base/clock.h"
#include "raftstore/base/log.h"

static void note(struct node *n, uint64_t now_ns, uint64_t busy_ns)
{
    struct node_stall *s = &n->stall;
    if (busy_ns > s->max_ns)
        s->max_ns = busy_ns;
    if (n->snapshot.active && busy_ns > s->snapshot_max_ns)
        s->snapshot_max_ns = busy_ns;
    if (busy_ns > NODE_STALL_LOUD_NS && (s->told_ns == 0 || now_ns - s->told_ns > NS_PER_S)) {
        s->told_ns = now_ns;
        LOG_WARN("the loop was busy for long", "ms=%llu snapshot=%d",
                 (unsigned long long)(busy_ns / NS_PER_MS), n->snapshot.active);
    }
}

void stall_poll_begins(struct node *n, uint64_t now_ns)
{
    struct node_stall *s = &n->stall;
    if (s->turn_from_ns != 0 && now_ns > s->turn_from_ns)
        note(n, now_ns, now_ns - s->turn_from_ns);
    s->poll_from_ns = now_ns;
}

void stall_poll_ended(struct node *n)
{
    /* libuv reads its clock when the poll returns, in whole milliseconds, rounded down; the
     * callbacks of the poll have run since. */
    uint64_t returned_ns = uv_now(n->config.loop) * NS_PER_MS;
    struct node_stall *s = &n->stall;
    s->turn_from_ns = returned_ns > s->poll_from_ns ? returned_ns : s->poll_from_ns;
}
