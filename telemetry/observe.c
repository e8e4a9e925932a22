#include "telemetry/observe.h"

#include "raftstore/base/prometheus.h"

#include <stdio.h>

static void single(struct buf *out,
                   const char *component,
                   const char *what,
                   const char *type,
                   const char *help,
                   uint64_t value)
{
    char name[96];
    (void)snprintf(name, sizeof name, "holdfast_%s_%s", component, what);
    prometheus_single(out, name, type, help, value);
}

void observe_metrics(struct buf *out,
                     const char *component,
                     struct audit *audit,
                     struct spans *spans)
{
    struct audit_counts a = audit_counts(audit);
    struct spans_counts s = spans_counts(spans);
    if (audit != NULL) {
        single(out, component, "audit_lines_total", "counter", "Audit lines written.", a.lines);
        single(out, component, "audit_dropped_total", "counter",
               "Audit lines lost: they came faster than they could be written.", a.dropped);
    }
    if (spans == NULL)
        return;
    single(out, component, "spans_total", "counter", "Spans recorded.", s.ended);
    single(out, component, "spans_exported_total", "counter", "Spans that the collector took.",
           s.exported);
    single(out, component, "spans_dropped_total", "counter",
           "Spans lost: the collector was away, slow, or refused them.", s.dropped);
    single(out, component, "spans_waiting", "gauge", "Spans that wait to be sent.", s.waiting);
}
