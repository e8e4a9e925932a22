/* Metrics in Prometheus' text format (version 0.0.4), as /metrics pages have it.
 *
 *     struct prometheus p = prometheus_begin(&out, "holdfast_mount_holds", "gauge", "Locks held.");
 *     prometheus_sample(&p, "");
 *     prometheus_label(&p, "kind", bytes_str("flock"));
 *     prometheus_u64(&p, 3);
 *     -> # HELP holdfast_mount_holds Locks held.
 *        # TYPE holdfast_mount_holds gauge
 *        holdfast_mount_holds{kind="flock"} 3
 *
 * Each sample is: prometheus_sample(), any number of labels, one value. */
#ifndef HOLDFAST_BASE_PROMETHEUS_H
#define HOLDFAST_BASE_PROMETHEUS_H

#include "raftstore/base/buckets.h"
#include "raftstore/base/buf.h"

struct prometheus {
    struct buf *out;
    const char *name; /* Of the family. */
    bool labels;      /* The sample has some: a brace is open. */
};

/* Begin a family.  All its samples must follow before the next one.
 *
 * @type: "counter", "gauge" or "histogram".  @help: one line.
 * @name, @out: must live as long as the result. */
struct prometheus
prometheus_begin(struct buf *out, const char *name, const char *type, const char *help);

/* Begin a sample; `suffix` is "" but for parts of a histogram ("_bucket", "_sum", "_count"). */
void prometheus_sample(struct prometheus *p, const char *suffix);

/* Any bytes may be a value; what is no UTF-8 becomes '?'. */
void prometheus_label(struct prometheus *p, const char *key, struct bytes value);

/* The sample's value. */
void prometheus_u64(struct prometheus *p, uint64_t value);
void prometheus_seconds(struct prometheus *p, uint64_t ns);

/* A label of a histogram's series; the last of a list has no key. */
struct prometheus_label {
    const char *key;
    const char *value;
};

/* A histogram's series: its buckets, sum and count, with these labels (NULL: none). */
void prometheus_buckets(struct prometheus *p,
                        const struct prometheus_label *labels,
                        const struct buckets *b);

/* The same for other buckets: `counts[i]` of up to first_ns << i, counts[n_bounded] of the rest. */
void prometheus_histogram(struct prometheus *p,
                          const struct prometheus_label *labels,
                          const uint64_t *counts,
                          unsigned n_bounded,
                          uint64_t first_ns,
                          uint64_t sum_ns);

/* A whole sample with one label. */
void prometheus_labelled(struct prometheus *p, const char *key, const char *label, uint64_t value);

/* A family with one sample and no labels. */
void prometheus_single(
    struct buf *out, const char *name, const char *type, const char *help, uint64_t value);
void prometheus_single_seconds(
    struct buf *out, const char *name, const char *type, const char *help, uint64_t ns);

#endif
