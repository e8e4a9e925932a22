#include "fs/report.h"

#include "raftstore/wire/codes.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

void report_time(uint64_t wall_ms, struct buf *out)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    char text[32];
    if (gmtime_r(&seconds, &tm) == NULL ||
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm) == 0) {
        buf_printf(out, "?");
        return;
    }
    buf_printf(out, "%s.%03uZ", text, (unsigned)(wall_ms % 1000));
}

/* One line's value: control bytes and backslashes as \xNN, so that it stays one line. */
static void add_value(struct buf *out, const char *key, ProtobufCBinaryData value)
{
    buf_printf(out, "%s=", key);
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = value.data[i];
        if (c < 0x20 || c == 0x7f || c == '\\')
            buf_printf(out, "\\x%02x", c);
        else
            buf_add(out, &c, 1);
    }
    buf_add(out, "\n", 1);
}

/* A lease outlives the session that told its host; the owner text of a mount begins with it. */
static ProtobufCBinaryData host_of(const Hf__Hold *h)
{
    const uint8_t *slash = h->host.len == 0 && h->kind != WIRE_KIND_API && h->owner.len > 0
                               ? memchr(h->owner.data, '/', h->owner.len)
                               : NULL;
    return slash == NULL ? h->host
                         : (ProtobufCBinaryData){(size_t)(slash - h->owner.data), h->owner.data};
}

static void report_hold(const Hf__Hold *h, const Hf__Node *node, struct buf *out)
{
    uint64_t n_holds = node->holds_total > node->n_holds ? node->holds_total : node->n_holds;
    add_value(out, "owner", h->owner);
    buf_printf(out, "pid=%" PRIu32 "\n", h->pid);
    add_value(out, "host", host_of(h));
    buf_printf(out, "mode=%s\n", wire_hold_mode_name(h->mode, h->limit));
    buf_printf(out, "token=%" PRIu64 "\n", h->token);
    buf_printf(out, "since=");
    report_time(h->since_wall_ms, out);
    buf_printf(out, "\nexpires=");
    report_time(h->expires_wall_ms, out);
    buf_printf(out, "\nremaining_ms=%" PRIu64 "\n", h->remaining_ms);
    buf_printf(out, "ttl_ms=%" PRIu64 "\n", h->ttl_ms);
    if (h->limit != 0)
        buf_printf(out, "limit=%" PRIu32 "\n", h->limit);
    if (h->limit != 0 || n_holds > 1)
        buf_printf(out, "holders=%" PRIu64 "\n", n_holds);
    buf_printf(out, "waiters=%" PRIu64 "\n", node->waiters_total);
    add_value(out, "note", h->note);
}

void report_node(const Hf__Node *node, struct buf *out)
{
    for (size_t i = 0; i < node->n_holds; i++) {
        if (i > 0)
            buf_add(out, "\n", 1);
        report_hold(node->holds[i], node, out);
    }
}
