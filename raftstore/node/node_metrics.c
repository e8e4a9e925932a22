/* The metrics of a node.  Everything is counted where it happens; here it is only written down. */
#include "raftstore/node/node_internal.h"

#include "raftstore/base/clock.h"
#include "raftstore/base/prometheus.h"
#include "raftstore/lock/view.h"

static void counter(struct buf *out, const char *name, const char *help, uint64_t value)
{
    prometheus_single(out, name, "counter", help, value);
}

static void gauge(struct buf *out, const char *name, const char *help, uint64_t value)
{
    prometheus_single(out, name, "gauge", help, value);
}

static void add_raft(const struct replica_view *v, struct buf *out)
{
    gauge(out, "holdfast_node_term", "Raft term.", v->term);
    gauge(out, "holdfast_node_leader_id", "The leader as this node knows it; 0: none.",
          v->leader_id);
    gauge(out, "holdfast_node_is_leader", "Does this node lead?", v->state == RAFT_LEADER);
}

void node_metrics(const struct node *n, struct buf *out)
{
    if (n->replica == NULL)
        return;
    struct replica_view v = replica_view(n->replica);
    add_raft(&v, out);
    counter(out, "holdfast_node_elections_started_total", "Elections that this node began.",
            v.elections);
}
