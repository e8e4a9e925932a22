/* What a client leaves undone, and why, for those who watch it.  Everything is counted where it
 * happens; here it is only written down. */
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

void client_metrics(const struct client *c, struct buf *out)
{
    const struct client_stats s = client_stats(c);
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
