/* W3C Trace Context (Recommendation of 23 November 2021): which trace a request belongs to.
 *
 *     traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
 *                  version, trace id, id of the caller's span, flags
 *     tracestate:  what tracing systems add for themselves; passed on
 *
 * Pure but for the random numbers, whose generator is the caller's. */
#ifndef HOLDFAST_BASE_TRACE_H
#define HOLDFAST_BASE_TRACE_H

#include "raftstore/base/bytes.h"
#include "raftstore/base/random.h"

#include <stdbool.h>
#include <stdint.h>

#define TRACE_ID_BYTES        16u
#define TRACE_SPAN_ID_BYTES   8u
#define TRACE_ID_HEX          32u  /* Digits of a trace id. */
#define TRACE_SPAN_ID_HEX     16u  /* Digits of a span's id. */
#define TRACE_PARENT_BYTES    55u  /* Of a traceparent of version 00. */
#define TRACE_STATE_BYTES_MAX 512u /* Of a tracestate that is passed on. */

#define TRACE_F_SAMPLED UINT8_C(1) /* The caller may have recorded its span. */

/* A place in a trace: the span that whatever comes next is a child of. */
struct trace_context {
    uint8_t trace_id[TRACE_ID_BYTES];      /* All zero = no trace: see trace_is_set(). */
    uint8_t span_id[TRACE_SPAN_ID_BYTES];  /* Never all zero in a trace. */
    uint8_t flags;                         /* TRACE_F_SAMPLED; other bits are never set. */
    char state[TRACE_STATE_BYTES_MAX + 1]; /* The tracestate; "" = none. */
};

/* Parse the value of a traceparent header; white space around it is allowed, as in HTTP.
 *
 * Version 00 must be exact.  Of a later version (not ff) the first four fields are read as of 00,
 * if they end there or at a '-'.  Digits in upper case, ids of zeros only, all else: no
 * traceparent.
 *
 * @ret: its state is "".
 * Return: true; false: *ret is untouched, and a new trace is to begin. */
bool trace_parse(struct bytes traceparent, struct trace_context *ret);

/* Parse tracestate (several headers: joined by commas, in order) and write what is to be passed on:
 * its members with a comma between.  What is over TRACE_STATE_BYTES_MAX is cut as the
 * Recommendation has it: members of more than 128 bytes first, then from the end.
 *
 * Return: true; false (malformed, a key twice, more than 32 members): *out is "". */
bool trace_state_parse(struct bytes tracestate, char out[TRACE_STATE_BYTES_MAX + 1]);

/* Does it name a trace? */
bool trace_is_set(const struct trace_context *t);

static inline bool trace_is_sampled(const struct trace_context *t)
{
    return (t->flags & TRACE_F_SAMPLED) != 0;
}

/* Copy, without the unused part of state. */
void trace_copy(struct trace_context *to, const struct trace_context *from);

/* A new trace with a first span. */
void trace_begin(struct random *random, bool sampled, struct trace_context *ret);

/* Another span's id in the same trace. */
void trace_new_span_id(struct random *random, uint8_t ret_span_id[TRACE_SPAN_ID_BYTES]);

/* Is a new trace among the share that is recorded?  Decided by the trace id, so that all who ask
 * with the same share agree.
 *
 * @ratio: 0 = none, 1 = all. */
bool trace_is_chosen(const struct trace_context *t, double ratio);

/* A share as people write it: "0.25", "1", ".5".
 *
 * Return: 0; -EINVAL: no number from 0 to 1. */
int trace_ratio_parse(const char *text, double *ret_ratio);

/* "00-...": TRACE_PARENT_BYTES and a NUL.  Return: out. */
char *trace_format(const struct trace_context *t, char out[TRACE_PARENT_BYTES + 1]);

/* `size` bytes as lower case digits and a NUL.  Return: out. */
char *trace_hex(const uint8_t *bytes, unsigned size, char *out);

#endif
