#include "raftstore/base/prometheus.h"

#include "raftstore/base/clock.h"
#include "raftstore/base/utf8.h"

#include <inttypes.h>
#include <stdio.h>

/* Called for each sample of each scrape, on loops that have other things to do: so no printf(). */
static void add_text(struct buf *out, const char *text)
{
    buf_add(out, text, strlen(text));
}

static void add_u64(struct buf *out, uint64_t value, unsigned digits_min)
{
    char text[20];
    size_t at = sizeof text;
    while (value > 0 || sizeof text - at < digits_min) {
        text[--at] = (char)('0' + value % 10);
        value /= 10;
    }
    buf_add(out, text + at, sizeof text - at);
}

struct prometheus
prometheus_begin(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
    return (struct prometheus){.out = out, .name = name};
}

void prometheus_sample(struct prometheus *p, const char *suffix)
{
    add_text(p->out, p->name);
    add_text(p->out, suffix);
    p->labels = false;
}

/* Bytes at the front that are written as they are. */
static size_t plain_run(const uint8_t *in, size_t size)
{
    size_t i = 0;
    while (i < size && in[i] >= ' ' && in[i] < 0x7f && in[i] != '"' && in[i] != '\\')
        i++;
    return i;
}

/* Return: how many bytes of the value this was. */
static size_t add_special(struct buf *out, const uint8_t *in, size_t size)
{
    size_t n = utf8_char(in, size);
    if (*in == '"' || *in == '\\')
        add_text(out, "\\");
    if (*in == '\n')
        add_text(out, "\\n");
    else if (n > 0)
        buf_add(out, in, n);
    else
        add_text(out, "?");
    return n > 0 ? n : 1;
}

void prometheus_label(struct prometheus *p, const char *key, struct bytes value)
{
    const uint8_t *in = value.data;
    add_text(p->out, p->labels ? "," : "{");
    add_text(p->out, key);
    add_text(p->out, "=\"");
    p->labels = true;
    for (size_t i = 0; i < value.size;) {
        size_t n = plain_run(in + i, value.size - i);
        buf_add(p->out, in + i, n);
        i += n;
        if (i < value.size)
            i += add_special(p->out, in + i, value.size - i);
    }
    add_text(p->out, "\"");
}

static void end_labels(struct prometheus *p)
{
    add_text(p->out, p->labels ? "} " : " ");
}

void prometheus_u64(struct prometheus *p, uint64_t value)
{
    end_labels(p);
    add_u64(p->out, value, 1);
    add_text(p->out, "\n");
}

void prometheus_seconds(struct prometheus *p, uint64_t ns)
{
    end_labels(p);
    add_u64(p->out, ns / NS_PER_S, 1);
    add_text(p->out, ".");
    add_u64(p->out, ns % NS_PER_S, 9);
    add_text(p->out, "\n");
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
