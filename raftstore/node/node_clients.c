/* What the listener asks the node for. */
#include "raftstore/node/node_internal.h"

#include <sys/resource.h>

#include "raftstore/base/clock.h"

static struct listener_leader clients_leader(void *arg)
{
    const struct node *n = arg;
    return (struct listener_leader){n->leader_id, n->leader_address};
}

static void clients_members(void *arg, struct arena *arena, Hf__NodeHello *hello)
{
    struct node *n = arg;
    if (!node_is_alive(n))
        return;
    Hf__QueryReply reply = HF__QUERY_REPLY__INIT;
    query_members(n, arena, &reply);
    hello->members = reply.members;
    hello->n_members = reply.n_members;
}

static enum replica_status clients_submit(void *arg,
                                          uint64_t now_ns,
                                          uint64_t request_id,
                                          enum replica_urgency urgency,
                                          struct bytes command)
{
    struct node *n = arg;
    if (!node_is_alive(n))
        return REPLICA_STOPPED;
    /* The shadow is behind, as while it writes a large snapshot: what it still has to apply is in
     * memory. */
    if (urgency == REPLICA_ORDINARY && shadow_backlog_bytes(n->shadow) > NODE_BACKLOG_BYTES_MAX)
        return REPLICA_BUSY;
    return replica_submit(n->replica, now_ns, request_id, urgency, command);
}

static enum replica_status clients_read(void *arg, uint64_t now_ns, uint64_t request_id)
{
    struct node *n = arg;
    return node_is_alive(n) ? replica_read(n->replica, now_ns, request_id, now_ns + NODE_READ_NS)
                            : REPLICA_STOPPED;
}

static struct access_state clients_state(void *arg)
{
    const struct node *n = arg;
    struct replica_view v = replica_view(n->replica);
    return (struct access_state){replica_table(n->replica), v.state == RAFT_LEADER,
                                 v.state == RAFT_LEADER && v.ready};
}

static uint64_t clients_applied_index(void *arg)
{
    const struct node *n = arg;
    return replica_view(n->replica).applied_index;
}

static int64_t clients_wall_offset_ns(void *arg)
{
    const struct node *n = arg;
    return n->wall_offset_ns;
}

/* Clients must leave descriptors for the store and the other nodes: a log that can't be opened
 * ends the node. */
static unsigned connections_max(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return LISTENER_CONNECTIONS_MAX;
    rlim_t reserve =
        limit.rlim_cur / 2 < NODE_FILES_RESERVED ? limit.rlim_cur / 2 : NODE_FILES_RESERVED;
    rlim_t max = limit.rlim_cur - reserve;
    return max < LISTENER_CONNECTIONS_MAX ? (unsigned)max : LISTENER_CONNECTIONS_MAX;
}

struct listener_config node_listener_config(struct node *n)
{
    return (struct listener_config){
        .hub = &n->hub,
        .clock = n->clock,
        .node_id = n->config.id,
        .events = n->events,
        .connections_max = connections_max(),
        .audit = n->config.audit,
        .spans = n->config.spans,
        .arg = n,
        .leader = clients_leader,
        .members = clients_members,
        .submit = clients_submit,
        .read = clients_read,
        .state = clients_state,
        .answer = query_answer,
        .admin = admin_begin,
        .chunk_taken = admin_chunk_taken,
        .applied_index = clients_applied_index,
        .wall_offset_ns = clients_wall_offset_ns,
    };
}
