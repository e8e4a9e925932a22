/* What audit and spans count, in Prometheus' text format. */
#ifndef HOLDFAST_TELEMETRY_OBSERVE_H
#define HOLDFAST_TELEMETRY_OBSERVE_H

#include "telemetry/audit.h"
#include "telemetry/span.h"

/* @component: "node", "gateway", "mount".  @audit, @spans: may be NULL: then nothing is told of it.
 */
void observe_metrics(struct buf *out,
                     const char *component,
                     struct audit *audit,
                     struct spans *spans);

#endif
