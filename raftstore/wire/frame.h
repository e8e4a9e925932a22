/* Framing: one message is four bytes of length (little endian), then that many bytes.
 *
 * The length is checked against the bound before anything is allocated.  Pure: bytes in, bytes
 * out; sockets are the callers'. */
#ifndef HOLDFAST_WIRE_FRAME_H
#define HOLDFAST_WIRE_FRAME_H

#include "raftstore/base/buf.h"
#include "raftstore/base/bytes.h"

#define WIRE_VERSION     1u /* Protocol version of this build. */
#define WIRE_VERSION_MIN 1u /* Oldest one that it still speaks. */

#define FRAME_HEADER_BYTES     4u
#define FRAME_CLIENT_BYTES_MAX (64u * 1024u)         /* ClientFrame. */
#define FRAME_NODE_BYTES_MAX   (4u * 1024u * 1024u)  /* NodeFrame. */
#define FRAME_PEER_BYTES_MAX   (16u * 1024u * 1024u) /* PeerFrame. */
#define ENTRY_BYTES_MAX        (64u * 1024u)         /* Log entry that a leader aims at. */
#define ENTRY_BYTES_LIMIT      (1024u * 1024u)       /* Log entry that a node accepts. */
#define IMAGE_CHUNK_BYTES      (256u * 1024u)        /* Data of one ImageChunk or SnapshotChunk. */

/* Look for a whole frame at the front of `in`.
 *
 * @size_max: bound of the body.
 * @ret_body: on 1: the body, inside `in`.
 * @ret_size_bytes: on 1: bytes of the whole frame, to be consumed.
 *
 * Return: 1 a frame; 0 more bytes are needed; -EMSGSIZE the length is 0 or over the bound (the
 *         stream can't be trusted any more: close it). */
int frame_parse(struct bytes in, size_t size_max, struct bytes *ret_body, size_t *ret_size_bytes);

/* Append a frame with this body. */
void frame_add(struct buf *out, struct bytes body);

/* Begin a frame whose body is appended to `out` next; returns a mark for frame_end(), which
 * fills in the length. */
size_t frame_begin(struct buf *out);
void frame_end(struct buf *out, size_t mark);

#endif
