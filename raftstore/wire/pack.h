/* Packing and unpacking with protobuf-c, with memory that costs next to nothing.
 *
 * An arena is a bump allocator for unpacked messages: free is a no-op, arena_reset() takes all
 * back at once.  A message unpacked into an arena lives until that reset, and its bytes fields
 * are copies, so the input may go.  One thread at a time. */
#ifndef HOLDFAST_WIRE_PACK_H
#define HOLDFAST_WIRE_PACK_H

#include "raftstore/base/buf.h"
#include "raftstore/base/bytes.h"

#include "holdfast.pb-c.h"

struct arena {
    ProtobufCAllocator allocator; /* To be passed to any protobuf-c unpack function. */
    struct arena_block *blocks;   /* Owned chain; the newest first. */
    uint8_t *next;                /* Where the next allocation goes. */
    uint8_t *end;                 /* End of the newest block. */
};

void arena_init(struct arena *a);
void arena_deinit(struct arena *a);

/* Forget every message unpacked so far; keeps one block for the next. */
void arena_reset(struct arena *a);

/* Plain memory from the arena, aligned for any type, not zeroed. */
void *arena_alloc(struct arena *a, size_t size);

/* Unpack a message of the given descriptor.
 *
 * Return: the message, until arena_reset(); NULL when the bytes are malformed. */
ProtobufCMessage *
pack_parse(struct arena *a, const ProtobufCMessageDescriptor *descriptor, struct bytes in);

/* Append the packed message. */
void pack_add(struct buf *out, const ProtobufCMessage *message);

/* Append the packed message as one frame. */
void pack_add_frame(struct buf *out, const ProtobufCMessage *message);

/* protobuf-c's bytes to ours and back (borrowing). */
static inline struct bytes pack_bytes(ProtobufCBinaryData d)
{
    return (struct bytes){d.data, d.len};
}

static inline ProtobufCBinaryData pack_binary(struct bytes b)
{
    return (ProtobufCBinaryData){b.size, (uint8_t *)(uintptr_t)b.data};
}

#endif
