#include "fs/fields.h"

#include "fs/report.h"
#include "raftstore/base/utf8.h"

#include <inttypes.h>

/* A byte that needs no quotes.  '=' does, '"' and '\' do, and so does a blank. */
static bool is_plain(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("_-./:@+,%[]~*", c) != NULL);
}

static void add_key(struct buf *out, const char *key)
{
    bool first = out->size == 0 || out->data[out->size - 1] == '\n';
    buf_printf(out, "%s%s=", first ? "" : " ", key);
}

static void add_quoted(struct buf *out, const uint8_t *in, size_t size)
{
    buf_add(out, "\"", 1);
    for (size_t i = 0, n; i < size; i += n) {
        n = utf8_char(in + i, size - i);
        if (in[i] == '"' || in[i] == '\\')
            buf_printf(out, "\\%c", in[i]);
        else if (n > 0)
            buf_add(out, in + i, n);
        else
            buf_printf(out, "\\x%02x", in[i]);
        n += n == 0;
    }
    buf_add(out, "\"", 1);
}

void field_bytes(struct buf *out, const char *key, struct bytes value)
{
    const uint8_t *in = value.data;
    bool plain = value.size > 0;
    add_key(out, key);
    for (size_t i = 0; i < value.size && plain; i++)
        plain = is_plain(in[i]);
    if (plain)
        buf_add(out, in, value.size);
    else
        add_quoted(out, in, value.size);
}

void field_text(struct buf *out, const char *key, const char *value)
{
    field_bytes(out, key, bytes_str(value));
}

void field_u64(struct buf *out, const char *key, uint64_t value)
{
    add_key(out, key);
    buf_printf(out, "%" PRIu64, value);
}

void field_bool(struct buf *out, const char *key, bool value)
{
    field_text(out, key, value ? "yes" : "no");
}

void field_time(struct buf *out, const char *key, uint64_t wall_ms)
{
    add_key(out, key);
    report_time(wall_ms, out);
}

void field_end(struct buf *out)
{
    buf_add(out, "\n", 1);
}
