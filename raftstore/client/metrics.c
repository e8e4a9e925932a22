/* What a client does, leaves undone, and why, for those who watch it.  Everything is counted where
 * it happens; here it is only written down. */
#include "raftstore/client/internal.h"

#include "raftstore/base/prometheus.h"

static void add_classes(
    struct buf *out, const struct client_stats *s, size_t at, const char *name, const char *help)
{
    struct prometheus p = prometheus_begin(out, name, "gauge", help);
    for (unsigned i = 0; i < CLIENT_CLASSES; i++) {
        unsigned value;
        memcpy(&value, (const char *)&s->classes[i] + at, sizeof value);
        prometheus_sample(&p, "");
        prometheus_label(&p, "class", bytes_str(bulkhead_class_names[i]));
        prometheus_u64(&p, value);
    }
}

static void add_refused(struct buf *out, const struct client_stats *s)
{
    struct prometheus p = prometheus_begin(
        out, "holdfast_client_refused_total", "counter",
        "Requests refused at once: as many of their class as may be were under way.");
    for (unsigned i = 0; i < CLIENT_CLASSES; i++) {
        prometheus_sample(&p, "");
        prometheus_label(&p, "class", bytes_str(bulkhead_class_names[i]));
        prometheus_u64(&p, s->classes[i].refused);
    }
}

static void add_nodes(struct buf *out, const struct route *r)
{
    struct prometheus p = prometheus_begin(out, "holdfast_client_breaker_state", "gauge",
                                           "1 for the state of the node's circuit breaker.");
    for (unsigned i = 0; i < r->n_peers; i++) {
        for (unsigned state = 0; state < BREAKER_STATES; state++) {
            prometheus_sample(&p, "");
            prometheus_label(&p, "node", bytes_str(r->peers[i]->text));
            prometheus_label(&p, "state", bytes_str(breaker_state_names[state]));
            prometheus_u64(&p, r->peers[i]->breaker.state == state);
        }
    }
    p = prometheus_begin(out, "holdfast_client_breaker_opened_total", "counter",
                         "Circuit breakers opened: the node did not answer.");
    for (unsigned i = 0; i < r->n_peers; i++) {
        prometheus_sample(&p, "");
        prometheus_label(&p, "node", bytes_str(r->peers[i]->text));
        prometheus_u64(&p, r->peers[i]->breaker.n_opened);
    }
}

static void add_latency(struct prometheus *p, const char *kind, const struct client_latency *l)
{
    const struct prometheus_label labels[] = {{"kind", kind}, {0}};
    prometheus_histogram(p, labels, l->buckets, CLIENT_LATENCY_BUCKETS,
                         CLIENT_LATENCY_FIRST_US * NS_PER_US, l->sum_ns);
}

static void add_failures(struct prometheus *p, const char *kind, const struct client_latency *l)
{
    for (unsigned i = 0; i < CLIENT_FAILURE_REASONS; i++) {
        prometheus_sample(p, "");
        prometheus_label(p, "kind", bytes_str(kind));
        prometheus_label(p, "reason", bytes_str(client_failure_names[i]));
        prometheus_u64(p, l->failures[i]);
    }
}

static void add_requests(const struct client_stats *s, struct buf *out)
{
    struct prometheus p = prometheus_begin(
        out, "holdfast_client_request_duration_seconds", "histogram",
        "Requests to the cluster that it answered, from being sent first to the answer.");
    add_latency(&p, "command", &s->commands);
    add_latency(&p, "query", &s->queries);
    p = prometheus_begin(out, "holdfast_client_request_failures_total", "counter",
                         "Requests that the cluster did not answer in time, or refused.");
    add_failures(&p, "command", &s->commands);
    add_failures(&p, "query", &s->queries);
}

static void add_link(const struct client *c, struct buf *out)
{
    struct client_info info = client_info(c);
    prometheus_single(out, "holdfast_client_connected", "gauge", "Is a node connected?",
                      info.connected);
    prometheus_single(out, "holdfast_client_in_touch", "gauge",
                      "Is there a leader that answers, as far as is known?", client_in_touch(c));
    prometheus_single(out, "holdfast_client_session_live", "gauge",
                      "Can locks of the session be relied on?", client_session_live(c));
    prometheus_single(out, "holdfast_client_leader_id", "gauge",
                      "The cluster's leader; 0: unknown.", info.leader_id);
    prometheus_single(out, "holdfast_client_reconnects_total", "counter",
                      "Connections to nodes that broke.", info.n_reconnects);
    prometheus_single(out, "holdfast_client_keepalives_total", "counter",
                      "Keepalives sent for the session.", info.n_keepalives);
    prometheus_single(out, "holdfast_client_commands_pending", "gauge",
                      "Commands without a final answer.", info.n_pending);
}

void client_metrics(const struct client *c, struct buf *out)
{
    const struct client_stats s = client_stats(c);
    add_link(c, out);
    add_requests(&s, out);
    add_classes(out, &s, offsetof(struct client_class_stats, line), "holdfast_client_queued",
                "Requests that wait to be sent.");
    add_classes(out, &s, offsetof(struct client_class_stats, flight), "holdfast_client_in_flight",
                "Requests sent and not answered.");
    add_classes(out, &s, offsetof(struct client_class_stats, settled), "holdfast_client_waiting",
                "Requests that wait in the cluster's queue.");
    add_refused(out, &s);
    prometheus_single(out, "holdfast_client_retries_total", "counter", "Requests sent once more.",
                      s.retries);
    prometheus_single(out, "holdfast_client_retries_refused_total", "counter",
                      "Repetitions that the retry budget did not allow.", s.retries_refused);
    add_nodes(out, &c->route);
}
