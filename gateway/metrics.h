/* What the gateway counts, in Prometheus' text format. */
#ifndef HOLDFAST_GATEWAY_METRICS_H
#define HOLDFAST_GATEWAY_METRICS_H

#include "raftstore/base/buf.h"

#include <stdint.h>

enum call_kind {
    CALL_KIND_OTHER = 0, /* No known path or method. */
    CALL_KIND_ACQUIRE,
    CALL_KIND_RELEASE,
    CALL_KIND_RENEW,
    CALL_KIND_SHOW,
    CALL_KIND_LIST,
    CALL_KIND_EVENTS,
    CALL_KIND_HEALTH,
    CALL_KIND_READY,
    CALL_KIND_METRICS,
    CALL_KIND_OPENAPI,
    CALL_KINDS,
};

const char *call_kind_name(enum call_kind kind);

#define METRICS_STATUS_MAX 600u
#define METRICS_BUCKETS    14u

struct metrics {
    uint64_t requests[CALL_KINDS][METRICS_STATUS_MAX];
    uint64_t buckets[CALL_KINDS][METRICS_BUCKETS + 1]; /* The last: longer than all. */
    uint64_t took_ns[CALL_KINDS];
    uint64_t hang_ups;     /* Clients gone before their answer. */
    uint64_t timed_out;    /* Connections closed for slowness. */
    uint64_t evicted;      /* Idle connections closed to make room. */
    uint64_t rate_limited; /* 429. */
    uint64_t denied;       /* 401 and 403. */
    uint64_t undone;       /* Grants given back: nobody waited for them any more. */
    uint64_t in_flight;    /* Now: calls whose head came and that are not answered. */
    uint64_t waiting;      /* Now: of them, waiting for a lock. */
    uint64_t streams;      /* Now: of server-sent events. */
    uint64_t connections;  /* Now. */
};

/* A call was answered. */
void metrics_answered(struct metrics *m, enum call_kind kind, unsigned status, uint64_t took_ns);

void metrics_write(const struct metrics *m, struct buf *out);

#endif
