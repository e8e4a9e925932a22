/* Metrics and health of a node over HTTP. */
#include "raftstore/node/node_internal.h"
#include "telemetry/endpoint.h"

#include "raftstore/base/log.h"

#include <stdlib.h>

/* A node with more to catch up than this serves reads late. */
#define READY_LAG_MAX 4096u

const char *node_unready(const struct node *n)
{
    if (n->failure != NULL)
        return "this node has failed";
    if (n->stopping || n->closing)
        return "this node stops";
    if (n->replica == NULL)
        return "this node starts";
    if (n->install.installing)
        return "an image of the leader's is being installed";
    struct replica_view v = replica_view(n->replica);
    if (v.leader_id == 0)
        return "no leader is known";
    if (v.state == RAFT_LEADER && !v.ready)
        return "as the leader it has not applied its first entry yet";
    if (v.leader_commit_index > v.applied_index + READY_LAG_MAX)
        return "it has not applied what the leader has committed";
    return NULL;
}

static void on_metrics(void *arg, struct buf *out)
{
    node_metrics(arg, out);
}

static const char *on_unready(void *arg)
{
    return node_unready(arg);
}

int node_http_open(struct node *n, char **ret_sentence)
{
    struct endpoint_config config = {
        .loop = n->config.loop,
        .address = n->config.http,
        .insecure = n->config.insecure || n->config.http_insecure,
        .remedy = "--http-insecure",
        .data = n->data,
        .component = "node",
        .metrics = on_metrics,
        .unready = on_unready,
        .arg = n,
    };
    if (config.address.host[0] == '\0')
        return 0;
    int rv = endpoint_open(&config, &n->endpoint, ret_sentence);
    if (rv < 0)
        return rv;
    n->n_open++;
    LOG_INFO("metrics and health", "http=%s", endpoint_address(n->endpoint));
    return 0;
}

static void on_closed(void *arg)
{
    node_unref(arg);
}

void node_http_close(struct node *n)
{
    if (n->endpoint != NULL)
        endpoint_close(n->endpoint, on_closed, n);
    n->endpoint = NULL;
}
