#include "tools/bench/histogram.h"

#include <math.h>

#define SUB (1u << HISTOGRAM_SUB_BITS)

/* Values below 2 * SUB have a bucket each; above, each power of two has SUB of them. */
static unsigned bucket_of(uint64_t value_ns)
{
    if (value_ns < SUB)
        return (unsigned)value_ns;
    unsigned exponent = 63u - (unsigned)__builtin_clzll(value_ns);
    unsigned shift = exponent - HISTOGRAM_SUB_BITS;
    return ((shift + 1u) << HISTOGRAM_SUB_BITS) + (unsigned)((value_ns >> shift) - SUB);
}

static uint64_t bucket_end(unsigned bucket)
{
    if (bucket < SUB)
        return bucket;
    unsigned shift = (bucket >> HISTOGRAM_SUB_BITS) - 1u;
    uint64_t mantissa = SUB + (bucket & (SUB - 1u));
    return ((mantissa + 1u) << shift) - 1u;
}

void histogram_add(struct histogram *h, uint64_t value_ns)
{
    h->n++;
    h->sum_ns += value_ns;
    if (value_ns > h->max_ns)
        h->max_ns = value_ns;
    h->buckets[bucket_of(value_ns)]++;
}

void histogram_merge(struct histogram *h, const struct histogram *from)
{
    h->n += from->n;
    h->sum_ns += from->sum_ns;
    if (from->max_ns > h->max_ns)
        h->max_ns = from->max_ns;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        h->buckets[i] += from->buckets[i];
}

uint64_t histogram_quantile_ns(const struct histogram *h, double part)
{
    uint64_t wanted = (uint64_t)ceil(part * (double)h->n);
    uint64_t seen = 0;

    if (h->n == 0)
        return 0;
    if (wanted == 0)
        wanted = 1;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen >= wanted)
            return bucket_end(i) < h->max_ns ? bucket_end(i) : h->max_ns;
    }
    return h->max_ns;
}
