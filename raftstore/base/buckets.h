/* A histogram of durations for metrics: cheap to count, cumulative since the start.
 *
 * Bucket i holds what took up to BUCKETS_FIRST_NS << i: 32 us, 64 us, ... 16.8 s; the last one the
 * rest.  prometheus_buckets() writes it down. */
#ifndef HOLDFAST_BASE_BUCKETS_H
#define HOLDFAST_BASE_BUCKETS_H

#include <stdint.h>

#define BUCKETS_BOUNDED  20u
#define BUCKETS_FIRST_NS UINT64_C(32000)

struct buckets {
    uint64_t counts[BUCKETS_BOUNDED + 1]; /* Not cumulative. */
    uint64_t sum_ns;
};

static inline void buckets_add(struct buckets *b, uint64_t ns)
{
    unsigned i = 0;
    if (ns > BUCKETS_FIRST_NS) {
        i = 64u - (unsigned)__builtin_clzll((ns - 1) / BUCKETS_FIRST_NS);
        i = i < BUCKETS_BOUNDED ? i : BUCKETS_BOUNDED;
    }
    b->counts[i]++;
    b->sum_ns += ns;
}

#endif
