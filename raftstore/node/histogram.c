#include "raftstore/node/histogram.h"

#include <string.h>

/* Values below 8 have a bucket each; above, eight buckets for each power of two. */
static unsigned bucket_of(uint64_t value)
{
    if (value < 8)
        return (unsigned)value;
    unsigned log2 = 63u - (unsigned)__builtin_clzll(value);
    return (log2 - 2) * 8 + (unsigned)(value >> (log2 - 3) & 7);
}

static uint64_t bucket_end(unsigned bucket)
{
    if (bucket < 8)
        return bucket;
    unsigned log2 = bucket / 8 + 2;
    return ((UINT64_C(8) + bucket % 8 + 1) << (log2 - 3)) - 1;
}

void histogram_add(struct histogram *h, uint64_t now_ns, uint64_t value)
{
    if (now_ns - h->begin_ns > HISTOGRAM_WINDOW_NS) {
        h->current ^= 1;
        memset(h->counts[h->current], 0, sizeof h->counts[0]);
        h->begin_ns = now_ns;
    }
    h->counts[h->current][bucket_of(value)]++;
}

uint64_t histogram_permille(const struct histogram *h, unsigned permille)
{
    uint64_t total = 0, seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        total += (uint64_t)h->counts[0][i] + h->counts[1][i];
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS && total > 0; i++) {
        seen += (uint64_t)h->counts[0][i] + h->counts[1][i];
        if (seen * 1000 >= total * permille)
            return bucket_end(i);
    }
    return 0;
}
