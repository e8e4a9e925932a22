/* Recent times in logarithmic buckets: percentiles within about 6 %, at 4 KiB.
 *
 * Two windows take turns, so that a percentile covers the last 10 to 20 seconds. */
#ifndef HOLDFAST_NODE_HISTOGRAM_H
#define HOLDFAST_NODE_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BUCKETS   512u
#define HISTOGRAM_WINDOW_NS UINT64_C(10000000000)

struct histogram {
    uint32_t counts[2][HISTOGRAM_BUCKETS];
    unsigned current;
    uint64_t begin_ns; /* Of the current window. */
};

/* Record a value (any unit) at this instant. */
void histogram_add(struct histogram *h, uint64_t now_ns, uint64_t value);

/* The value that `permille` of 1000 recent ones do not exceed; 0 = none recorded. */
uint64_t histogram_permille(const struct histogram *h, unsigned permille);

#endif
