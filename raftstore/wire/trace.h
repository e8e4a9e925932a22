/* A request's place in a trace, on the wire: the message Trace in ClientFrame.trace. */
#ifndef HOLDFAST_WIRE_TRACE_H
#define HOLDFAST_WIRE_TRACE_H

#include "raftstore/base/buf.h"
#include "raftstore/base/trace.h"

#define WIRE_TRACE_FIELD 8u /* ClientFrame.trace. */

/* Bytes that wire_trace_put() needs at most. */
#define WIRE_TRACE_BYTES_MAX (TRACE_STATE_BYTES_MAX + 48u)

/* Write the field of a ClientFrame, tag and length included.
 *
 * Return: its size. */
size_t wire_trace_put(const struct trace_context *t, uint8_t out[WIRE_TRACE_BYTES_MAX]);

/* Read a packed Trace.  What is malformed there is no reason to refuse the request: it then belongs
 * to no trace.
 *
 * Return: false: it is none; *ret is undefined. */
bool wire_trace_read(struct bytes message, struct trace_context *ret);

#endif
