/* A call's place in a trace: W3C Trace Context in and out, and its span. */
#ifndef HOLDFAST_GATEWAY_TRACING_H
#define HOLDFAST_GATEWAY_TRACING_H

#include "gateway/call.h"

/* The head came: take up the caller's trace (traceparent, tracestate), or begin one, and begin the
 * span.  A malformed traceparent, or two of them, count as none. */
void tracing_begin(struct call *call, const char *method, struct bytes path);

/* It is being answered: tell the trace in the answer's headers, and end the span. */
void tracing_answer(struct call *call, unsigned status);

/* Nobody will be answered. */
void tracing_gone(struct call *call);

#endif
