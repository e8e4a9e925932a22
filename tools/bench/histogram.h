/* A log-linear histogram of durations: exact below 64, within 1/32 above.
 *
 * Plain memory without pointers, so that it may live in memory shared between processes.  One
 * writer at a time; readers after it has ended. */
#ifndef HOLDFAST_BENCH_HISTOGRAM_H
#define HOLDFAST_BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB_BITS 5u
#define HISTOGRAM_BUCKETS  ((64u - HISTOGRAM_SUB_BITS + 1u) << HISTOGRAM_SUB_BITS)

struct histogram {
    uint64_t n;                          /* Values recorded. */
    uint64_t max_ns;                     /* The largest one. */
    uint64_t sum_ns;                     /* Of all of them. */
    uint64_t buckets[HISTOGRAM_BUCKETS]; /* How many fell into each. */
};

/* Record one value. */
void histogram_add(struct histogram *h, uint64_t value_ns);

/* Add all values of `from`. */
void histogram_merge(struct histogram *h, const struct histogram *from);

/* The smallest value that at least `part` (0..1) of the values do not exceed, rounded up to its
 * bucket's end and never above the maximum; 0 when nothing was recorded. */
uint64_t histogram_quantile_ns(const struct histogram *h, double part);

#endif
