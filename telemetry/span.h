/* Spans: what took how long in a trace, on their way to a collector (otlp.h).
 *
 * A span is made when something begins and handed over when it ends.  It is recorded if its parent
 * was sampled; without a parent it begins a trace, and a share of those is recorded.  Whoever is
 * not recorded gets NULL, which every function takes and does nothing with: so the caller has no
 * cases, and where no exporter is set up all of it costs a test of a pointer.
 *
 * Ended spans wait in a bounded queue; when it is full they are dropped and counted.  Begin and end
 * on one thread (the random numbers' state); the exporter takes from another. */
#ifndef HOLDFAST_TELEMETRY_SPAN_H
#define HOLDFAST_TELEMETRY_SPAN_H

#include "raftstore/base/trace.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#define SPANS_MAX            4096u /* Waiting. */
#define SPAN_ATTRIBUTES_MAX  12u
#define SPAN_EVENTS_MAX      4u
#define SPAN_TEXT_BYTES_MAX  256u /* Of one value; longer ones are cut. */
#define SPAN_STATUS_TEXT_MAX 120u

/* As OTLP numbers them. */
enum span_kind { SPAN_INTERNAL = 1, SPAN_SERVER = 2, SPAN_CLIENT = 3 };
enum span_status { SPAN_UNSET = 0, SPAN_OK = 1, SPAN_ERROR = 2 };

struct span_attribute {
    const char *key; /* Static. */
    char *text;      /* Owned; NULL: a number. */
    int64_t number;
};

struct span_event {
    const char *name; /* Static. */
    uint64_t wall_ns;
    const char *key; /* Static; NULL: no attribute. */
    int64_t number;
};

struct span {
    TAILQ_ENTRY(span) link; /* In the queue. */
    struct spans *spans;
    struct trace_context context; /* Its own ids. */
    uint8_t parent_id[TRACE_SPAN_ID_BYTES];
    bool has_parent;
    bool parent_is_remote; /* Another process'. */
    enum span_kind kind;
    const char *name; /* Static. */
    uint64_t begin_wall_ns;
    uint64_t begin_mono_ns; /* All times are taken on this clock, and then turned into wall time. */
    uint64_t end_wall_ns;
    enum span_status status;
    char status_text[SPAN_STATUS_TEXT_MAX];
    struct span_attribute attributes[SPAN_ATTRIBUTES_MAX];
    unsigned n_attributes;
    struct span_event events[SPAN_EVENTS_MAX];
    unsigned n_events;
};

TAILQ_HEAD(span_list, span);

struct spans;

/* @ratio: the share of traces that begin here which is recorded: 0 to 1.
 * @max: of those that wait; 0 = SPANS_MAX. */
struct spans *spans_new(double ratio, unsigned max);
/* Those that were begun must have ended.  NULL is accepted. */
void spans_free(struct spans *s);

/* Begin one.
 *
 * @spans: NULL = nothing is recorded.
 * @parent: NULL: it begins a trace.
 * @is_remote: the parent is a span of another process.
 * Return: NULL: not recorded. */
struct span *span_begin(struct spans *spans,
                        const char *name,
                        enum span_kind kind,
                        const struct trace_context *parent,
                        bool is_remote);

/* What a child's parent is: the span, or what was its own parent if it is not recorded (may be NULL
 * then).  Valid until the span ends. */
const struct trace_context *span_context(const struct span *span,
                                         const struct trace_context *parent);

void span_text(struct span *span, const char *key, struct bytes value); /* Empty: left out. */
void span_number(struct span *span, const char *key, int64_t value);
/* Something happened now.  @key: of a number that goes with it; NULL = none. */
void span_event(struct span *span, const char *name, const char *key, int64_t number);
/* @text: for SPAN_ERROR, what went wrong; may be NULL. */
void span_set_status(struct span *span, enum span_status status, const char *text);

/* It ends now, and is given away. */
void span_end(struct span *span);

/* ---- For the exporter ------------------------------------------------------------------ */

/* Take up to `max` of those that wait, oldest first; waits for some up to an instant of the
 * monotonic clock, or until spans_wake().
 *
 * @enough: return as soon as so many are there.
 * Return: how many. */
unsigned spans_take(
    struct spans *s, struct span_list *ret, unsigned max, unsigned enough, uint64_t until_mono_ns);
void spans_wake(struct spans *s);
void span_free(struct span *span);

struct spans_counts {
    uint64_t ended;    /* Recorded. */
    uint64_t exported; /* Taken by the collector. */
    uint64_t dropped;  /* The queue was full, or the collector did not take them. */
    uint64_t waiting;
};
struct spans_counts spans_counts(struct spans *s); /* NULL: zeros. */
void spans_count(struct spans *s, uint64_t exported, uint64_t dropped);

#endif
