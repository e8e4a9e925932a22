#include "raftstore/base/prometheus.h"

#include "raftstore/base/clock.h"
#include "raftstore/base/utf8.h"

#include <inttypes.h>

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
