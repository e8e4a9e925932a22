#include "gateway/metrics.h"

#include "raftstore/base/clock.h"
#include "raftstore/base/prometheus.h"

#include <stdio.h>

static const double bounds[METRICS_BUCKETS] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                               0.1,    0.25,  0.5,    1,     2.5,  5,     10};

const char *call_kind_name(enum call_kind kind)
{
    static const char *const names[CALL_KINDS] = {
        "other",  "acquire", "release", "renew",   "show",    "list",
        "events", "healthz", "readyz",  "metrics", "openapi",
    };
    return names[kind];
}

void metrics_answered(struct metrics *m, enum call_kind kind, unsigned status, uint64_t took_ns)
{
    double seconds = (double)took_ns / (double)NS_PER_S;
    unsigned i = 0;
    while (i < METRICS_BUCKETS && seconds > bounds[i])
        i++;
    m->requests[kind][status < METRICS_STATUS_MAX ? status : 0]++;
    m->buckets[kind][i]++;
    m->took_ns[kind] += took_ns;
    m->rate_limited += status == 429;
    m->denied += status == 401 || status == 403;
}

static void write_requests(const struct metrics *m, struct buf *out)
{
    struct prometheus p =
        prometheus_begin(out, "holdfast_gateway_requests_total", "counter", "Answered requests.");
    for (unsigned k = 0; k < CALL_KINDS; k++) {
        for (unsigned s = 0; s < METRICS_STATUS_MAX; s++) {
            char status[16];
            if (m->requests[k][s] == 0 && s != 200) /* A rate needs a beginning. */
                continue;
            (void)snprintf(status, sizeof status, "%u", s);
            prometheus_sample(&p, "");
            prometheus_label(&p, "call", bytes_str(call_kind_name((enum call_kind)k)));
            prometheus_label(&p, "status", bytes_str(status));
            prometheus_u64(&p, m->requests[k][s]);
        }
    }
}

static void write_durations(const struct metrics *m, struct buf *out)
{
    struct prometheus p =
        prometheus_begin(out, "holdfast_gateway_request_duration_seconds", "histogram",
                         "From a request's head to its answer; waiting for a lock included.");
    for (unsigned k = 0; k < CALL_KINDS; k++) {
        struct bytes call = bytes_str(call_kind_name((enum call_kind)k));
        uint64_t n = 0;
        for (unsigned i = 0; i <= METRICS_BUCKETS; i++) {
            char bound[16] = "+Inf";
            if (i < METRICS_BUCKETS)
                (void)snprintf(bound, sizeof bound, "%g", bounds[i]);
            n += m->buckets[k][i];
            prometheus_sample(&p, "_bucket");
            prometheus_label(&p, "call", call);
            prometheus_label(&p, "le", bytes_str(bound));
            prometheus_u64(&p, n);
        }
        prometheus_sample(&p, "_sum");
        prometheus_label(&p, "call", call);
        prometheus_seconds(&p, m->took_ns[k]);
        prometheus_sample(&p, "_count");
        prometheus_label(&p, "call", call);
        prometheus_u64(&p, n);
    }
}

void metrics_write(const struct metrics *m, struct buf *out)
{
    write_requests(m, out);
    write_durations(m, out);
    prometheus_single(out, "holdfast_gateway_requests_in_flight", "gauge",
                      "Requests without an answer.", m->in_flight);
    prometheus_single(out, "holdfast_gateway_waiting", "gauge", "Requests waiting for a lock.",
                      m->waiting);
    prometheus_single(out, "holdfast_gateway_event_streams", "gauge",
                      "Open streams of server-sent events.", m->streams);
    prometheus_single(out, "holdfast_gateway_connections", "gauge", "Open connections.",
                      m->connections);
    prometheus_single(out, "holdfast_gateway_hang_ups_total", "counter",
                      "Clients gone before their answer.", m->hang_ups);
    prometheus_single(out, "holdfast_gateway_slow_connections_closed_total", "counter",
                      "Connections closed because a request or answer took too long.",
                      m->timed_out);
    prometheus_single(out, "holdfast_gateway_idle_connections_evicted_total", "counter",
                      "Idle or slow connections closed to make room for others.", m->evicted);
    prometheus_single(out, "holdfast_gateway_rate_limited_total", "counter",
                      "Requests refused for their rate.", m->rate_limited);
    prometheus_single(out, "holdfast_gateway_denied_total", "counter",
                      "Requests without a valid token or a right.", m->denied);
    prometheus_single(out, "holdfast_gateway_grants_undone_total", "counter",
                      "Grants given back because their client was gone.", m->undone);
}
