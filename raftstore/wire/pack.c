#include "raftstore/wire/pack.h"

#include "raftstore/wire/frame.h"

#include <stdlib.h>

#define ARENA_BLOCK_BYTES (64u * 1024u)

struct arena_block {
    struct arena_block *next; /* The older one. */
    size_t size;              /* Bytes behind this header. */
};

static void *arena_pb_alloc(void *arena, size_t size)
{
    return arena_alloc(arena, size);
}

static void arena_pb_free(void *arena, void *pointer)
{
    (void)arena;
    (void)pointer; /* arena_reset() takes everything back. */
}

void arena_init(struct arena *a)
{
    *a = (struct arena){.allocator = {arena_pb_alloc, arena_pb_free, a}};
}

void arena_deinit(struct arena *a)
{
    for (struct arena_block *b = a->blocks, *next; b != NULL; b = next) {
        next = b->next;
        free(b);
    }
    *a = (struct arena){0};
}

static void arena_use(struct arena *a, struct arena_block *b)
{
    a->next = (uint8_t *)(b + 1);
    a->end = a->next + b->size;
}

void arena_reset(struct arena *a)
{
    struct arena_block *kept = a->blocks;
    if (kept == NULL)
        return;
    for (struct arena_block *b = kept->next, *next; b != NULL; b = next) {
        next = b->next;
        free(b);
    }
    kept->next = NULL;
    if (kept->size > 4 * ARENA_BLOCK_BYTES) { /* One huge message must not hold its memory. */
        free(kept);
        a->blocks = NULL;
        a->next = a->end = NULL;
        return;
    }
    arena_use(a, kept);
}

void *arena_alloc(struct arena *a, size_t size)
{
    size_t rounded = (size + 15) & ~(size_t)15;
    if ((size_t)(a->end - a->next) < rounded) {
        size_t block_size = rounded > ARENA_BLOCK_BYTES ? rounded : ARENA_BLOCK_BYTES;
        struct arena_block *b = xmalloc(sizeof *b + block_size);
        _Static_assert(sizeof *b % 16 == 0, "blocks keep the alignment of malloc");
        b->next = a->blocks;
        b->size = block_size;
        a->blocks = b;
        arena_use(a, b);
    }
    void *p = a->next;
    a->next += rounded;
    return p;
}

ProtobufCMessage *
pack_parse(struct arena *a, const ProtobufCMessageDescriptor *descriptor, struct bytes in)
{
    return protobuf_c_message_unpack(descriptor, &a->allocator, in.size, in.data);
}

void pack_add(struct buf *out, const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    (void)protobuf_c_message_pack(message, buf_reserve(out, size));
    out->size += size;
}

void pack_add_frame(struct buf *out, const ProtobufCMessage *message)
{
    size_t mark = frame_begin(out);
    pack_add(out, message);
    frame_end(out, mark);
}
