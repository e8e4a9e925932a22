#include "raftstore/wire/frame.h"

#include <assert.h>
#include <errno.h>

static void put_size(uint8_t *p, size_t size)
{
    for (unsigned i = 0; i < FRAME_HEADER_BYTES; i++)
        p[i] = (uint8_t)(size >> (8 * i));
}

int frame_parse(struct bytes in, size_t size_max, struct bytes *ret_body, size_t *ret_size_bytes)
{
    const uint8_t *p = in.data;
    size_t size = 0;
    if (in.size < FRAME_HEADER_BYTES)
        return 0;
    for (unsigned i = 0; i < FRAME_HEADER_BYTES; i++)
        size |= (size_t)p[i] << (8 * i);
    if (size == 0 || size > size_max)
        return -EMSGSIZE;
    if (in.size - FRAME_HEADER_BYTES < size)
        return 0;
    *ret_body = bytes_of(p + FRAME_HEADER_BYTES, size);
    *ret_size_bytes = FRAME_HEADER_BYTES + size;
    return 1;
}

void frame_add(struct buf *out, struct bytes body)
{
    size_t mark = frame_begin(out);
    buf_add(out, body.data, body.size);
    frame_end(out, mark);
}

size_t frame_begin(struct buf *out)
{
    size_t mark = out->size;
    (void)buf_reserve(out, FRAME_HEADER_BYTES);
    out->size += FRAME_HEADER_BYTES;
    return mark;
}

void frame_end(struct buf *out, size_t mark)
{
    size_t size = out->size - mark - FRAME_HEADER_BYTES;
    assert(size <= UINT32_MAX);
    put_size(out->data + mark, size);
}
