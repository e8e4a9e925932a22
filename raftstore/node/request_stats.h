/* Clients' requests by kind and by what they were answered, and how long that took.
 *
 * Plain counters on the loop's thread.  A kind is an op of enum lock_op, or one of those below. */
#ifndef HOLDFAST_NODE_REQUEST_STATS_H
#define HOLDFAST_NODE_REQUEST_STATS_H

#include "raftstore/base/buckets.h"
#include "raftstore/base/buf.h"

#include <stdint.h>

#define REQUEST_WHAT_OTHER     0u  /* Malformed, or not known. */
#define REQUEST_WHAT_QUERY     20u /* + Hf__Query__What, up to 8. */
#define REQUEST_WHAT_ADMIN     29u
#define REQUEST_WHAT_SUBSCRIBE 30u
#define REQUEST_WHATS          31u
#define REQUEST_CODES          23u /* Results: enum lock_code. */
#define REQUEST_FAILURES       10u /* Behind them: Hf__Failure__Code. */

enum request_class {
    REQUEST_ACQUIRE,
    REQUEST_RENEW,
    REQUEST_RELEASE,
    REQUEST_KEEPALIVE,
    REQUEST_OTHER, /* Commands. */
    REQUEST_READ,  /* Queries; linearizable but for STATUS. */
    REQUEST_OPERATOR,
    REQUEST_CLASSES,
};

struct request_stats {
    uint64_t counts[REQUEST_WHATS][REQUEST_CODES + REQUEST_FAILURES];
    struct buckets took[REQUEST_CLASSES]; /* Arrival to answer, of those that got one. */
};

/* An answer was given: `code` is an enum lock_code. */
void request_stats_count(struct request_stats *s, unsigned what, uint32_t code);

/* The same, with the time that it took. */
void request_stats_done(struct request_stats *s, unsigned what, uint32_t code, uint64_t took_ns);

/* A failure was given: `code` is an Hf__Failure__Code. */
void request_stats_failed(struct request_stats *s, unsigned what, int code);

/* Append holdfast_node_requests_total, _request_failures_total, _request_duration_seconds. */
void request_stats_write(const struct request_stats *s, struct buf *out);

#endif
