#include "raftstore/base/prometheus.h"

#include "raftstore/base/clock.h"
#include "raftstore/base/utf8.h"

#include <inttypes.h>
#include <stdio.h>

struct prometheus
prometheus_begin(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
    return (struct prometheus){.out = out, .name = name};
}

void prometheus_sample(struct prometheus *p, const char *suffix)
{
    buf_printf(p->out, "%s%s", p->name, suffix);
    p->labels = false;
}

void prometheus_label(struct prometheus *p, const char *key, struct bytes value)
{
    const uint8_t *in = value.data;
    buf_printf(p->out, "%c%s=\"", p->labels ? ',' : '{', key);
    p->labels = true;
    for (size_t i = 0, n; i < value.size; i += n) {
        n = utf8_char(in + i, value.size - i);
        if (in[i] == '\n')
            buf_add(p->out, "\\n", 2);
        else if (in[i] == '"' || in[i] == '\\')
            buf_printf(p->out, "\\%c", in[i]);
        else if (n > 0)
            buf_add(p->out, in + i, n);
        else
            buf_add(p->out, "?", 1);
        n += n == 0;
    }
    buf_add(p->out, "\"", 1);
}

static void end_labels(struct prometheus *p)
{
    buf_printf(p->out, p->labels ? "} " : " ");
}

void prometheus_u64(struct prometheus *p, uint64_t value)
{
    end_labels(p);
    buf_printf(p->out, "%" PRIu64 "\n", value);
}

void prometheus_seconds(struct prometheus *p, uint64_t ns)
{
    end_labels(p);
    buf_printf(p->out, "%" PRIu64 ".%09" PRIu64 "\n", ns / NS_PER_S, ns % NS_PER_S);
}

static void sample(struct prometheus *p,
                   const char *suffix,
                   const struct prometheus_label *labels,
                   const char *bound)
{
    prometheus_sample(p, suffix);
    for (; labels != NULL && labels->key != NULL; labels++)
        prometheus_label(p, labels->key, bytes_str(labels->value));
    if (bound != NULL)
        prometheus_label(p, "le", bytes_str(bound));
}

void prometheus_histogram(struct prometheus *p,
                          const struct prometheus_label *labels,
                          const uint64_t *counts,
                          unsigned n_bounded,
                          uint64_t first_ns,
                          uint64_t sum_ns)
{
    uint64_t n = 0;
    for (unsigned i = 0; i <= n_bounded; i++) {
        char bound[32] = "+Inf";
        uint64_t us = (first_ns << i) / NS_PER_US;
        if (i < n_bounded)
            (void)snprintf(bound, sizeof bound, "%" PRIu64 ".%06" PRIu64, us / 1000000,
                           us % 1000000);
        n += counts[i];
        sample(p, "_bucket", labels, bound);
        prometheus_u64(p, n);
    }
    sample(p, "_sum", labels, NULL);
    prometheus_seconds(p, sum_ns);
    sample(p, "_count", labels, NULL);
    prometheus_u64(p, n);
}

void prometheus_buckets(struct prometheus *p,
                        const struct prometheus_label *labels,
                        const struct buckets *b)
{
    prometheus_histogram(p, labels, b->counts, BUCKETS_BOUNDED, BUCKETS_FIRST_NS, b->sum_ns);
}

void prometheus_labelled(struct prometheus *p, const char *key, const char *label, uint64_t value)
{
    prometheus_sample(p, "");
    prometheus_label(p, key, bytes_str(label));
    prometheus_u64(p, value);
}

void prometheus_single(
    struct buf *out, const char *name, const char *type, const char *help, uint64_t value)
{
    struct prometheus p = prometheus_begin(out, name, type, help);
    prometheus_sample(&p, "");
    prometheus_u64(&p, value);
}

void prometheus_single_seconds(
    struct buf *out, const char *name, const char *type, const char *help, uint64_t ns)
{
    struct prometheus p = prometheus_begin(out, name, type, help);
    prometheus_sample(&p, "");
    prometheus_seconds(&p, ns);
}
