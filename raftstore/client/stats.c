/* Figures for metrics.  No look at a clock of their own: an answer is dated by the wake-up of the
 * loop that brought it. */
#include "raftstore/client/internal.h"

#include <errno.h>

enum failure { TIMEOUT, BUSY, CANCELED, REFUSED, BROKEN, OTHER };

const char *const client_failure_names[CLIENT_FAILURE_REASONS] = {
    [TIMEOUT] = "timeout", [BUSY] = "busy",     [CANCELED] = "canceled",
    [REFUSED] = "refused", [BROKEN] = "broken", [OTHER] = "other",
};

/* The bucket with the smallest bound that is not below. */
static unsigned bucket_of(uint64_t ns)
{
    uint64_t first_ns = CLIENT_LATENCY_FIRST_US * NS_PER_US;
    if (ns <= first_ns)
        return 0;
    unsigned i = 64u - (unsigned)__builtin_clzll((ns - 1) / first_ns);
    return i < CLIENT_LATENCY_BUCKETS ? i : CLIENT_LATENCY_BUCKETS;
}

void stats_answered(struct client *c, struct client_latency *l, uint64_t sent_boot_ns)
{
    uint64_t now = c->timers.seen_ns;
    if (sent_boot_ns == 0)
        return;
    uint64_t ns = now > sent_boot_ns ? now - sent_boot_ns : 0;
    l->buckets[bucket_of(ns)]++;
    l->sum_ns += ns;
    l->n++;
}

static enum failure failure_of(int status)
{
    switch (status) {
    case -ETIMEDOUT:
        return TIMEOUT;
    case -EBUSY:
        return BUSY;
    case -ECANCELED:
        return CANCELED;
    case -EPERM:
    case -EACCES:
    case -EINVAL:
    case -ENOENT:
        return REFUSED;
    case -ECONNRESET:
        return BROKEN;
    default:
        return OTHER;
    }
}

void stats_failed(struct client_latency *l, int status)
{
    l->failures[failure_of(status)]++;
}

struct client_stats client_stats(const struct client *c)
{
    struct client_stats s = c->stats;
    s.retries = c->n_retries;
    s.retries_refused = c->budget.n_refused;
    for (unsigned i = 0; i < CLIENT_CLASSES; i++) {
        const unsigned *n = c->bulkhead.n[i];
        s.classes[i] = (struct client_class_stats){
            .line = n[BULKHEAD_LINE],
            .flight = n[BULKHEAD_FLIGHT],
            .settled = n[BULKHEAD_SETTLED],
            .refused = c->bulkhead.n_refused[i],
        };
    }
    return s;
}
