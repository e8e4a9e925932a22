#include "raftstore/wire/trace.h"

enum { VARINT = 0, FIXED64 = 1, DELIMITED = 2, FIXED32 = 5 };

static size_t put_varint(uint8_t *p, uint64_t value)
{
    size_t n = 0;
    for (; value >= 0x80; value >>= 7)
        p[n++] = (uint8_t)(value | 0x80);
    p[n++] = (uint8_t)value;
    return n;
}

static size_t put_bytes(uint8_t *p, unsigned field, const void *data, size_t size)
{
    size_t n = 0;
    p[n++] = (uint8_t)(field << 3 | DELIMITED);
    n += put_varint(p + n, size);
    memcpy(p + n, data, size);
    return n + size;
}

size_t wire_trace_put(const struct trace_context *t, uint8_t out[WIRE_TRACE_BYTES_MAX])
{
    uint8_t message[WIRE_TRACE_BYTES_MAX];
    size_t n = put_bytes(message, 1, t->trace_id, TRACE_ID_BYTES);
    n += put_bytes(message + n, 2, t->span_id, TRACE_SPAN_ID_BYTES);
    if (t->flags != 0) {
        message[n++] = 3 << 3 | VARINT;
        message[n++] = t->flags & 0x7f;
    }
    if (t->state[0] != '\0')
        n += put_bytes(message + n, 4, t->state, strlen(t->state));
    return put_bytes(out, WIRE_TRACE_FIELD, message, n);
}

static bool take_varint(struct bytes *in, uint64_t *ret)
{
    const uint8_t *p = in->data;
    uint64_t value = 0;
    for (size_t i = 0; i < in->size && i < 10; i++) {
        value |= (uint64_t)(p[i] & 0x7f) << (7 * i);
        if (p[i] < 0x80) {
            *in = bytes_of(p + i + 1, in->size - i - 1);
            *ret = value;
            return true;
        }
    }
    return false;
}

static bool take_bytes(struct bytes *in, uint64_t size, struct bytes *ret)
{
    if (size > in->size)
        return false;
    *ret = bytes_of(in->data, (size_t)size);
    *in = bytes_of((const uint8_t *)in->data + size, in->size - (size_t)size);
    return true;
}

struct fields {
    struct bytes trace_id, span_id, state;
    uint64_t flags;
};

static bool take_field(struct bytes *in, struct fields *f)
{
    uint64_t tag, number = 0;
    struct bytes value = {0};
    if (!take_varint(in, &tag))
        return false;
    switch (tag & 7) {
    case VARINT:
        if (!take_varint(in, &number))
            return false;
        break;
    case DELIMITED:
        if (!take_varint(in, &number) || !take_bytes(in, number, &value))
            return false;
        break;
    case FIXED64:
    case FIXED32:
        if (!take_bytes(in, (tag & 7) == FIXED64 ? 8 : 4, &value))
            return false;
        break;
    default:
        return false;
    }
    if (tag == (1 << 3 | DELIMITED))
        f->trace_id = value;
    else if (tag == (2 << 3 | DELIMITED))
        f->span_id = value;
    else if (tag == (3 << 3 | VARINT))
        f->flags = number;
    else if (tag == (4 << 3 | DELIMITED))
        f->state = value;
    return true; /* Else a newer version's. */
}

bool wire_trace_read(struct bytes message, struct trace_context *ret)
{
    static const uint8_t zero[TRACE_ID_BYTES];
    struct fields f = {0};
    while (message.size > 0)
        if (!take_field(&message, &f))
            return false;
    if (f.trace_id.size != TRACE_ID_BYTES || f.span_id.size != TRACE_SPAN_ID_BYTES ||
        memcmp(f.trace_id.data, zero, TRACE_ID_BYTES) == 0 ||
        memcmp(f.span_id.data, zero, TRACE_SPAN_ID_BYTES) == 0)
        return false;
    memcpy(ret->trace_id, f.trace_id.data, TRACE_ID_BYTES);
    memcpy(ret->span_id, f.span_id.data, TRACE_SPAN_ID_BYTES);
    ret->flags = (uint8_t)(f.flags & TRACE_F_SAMPLED);
    (void)trace_state_parse(f.state, ret->state); /* A bad one is left out. */
    return true;
}
