/* A framed byte stream on a libuv socket: bounded frames in, coalesced frames out.
 *
 * What both kinds of connections of a node share: those of clients (listener.h) and those between
 * nodes (peers.h).
 *
 * In: `ops->frame` gets each whole frame.  The length is checked before anything is allocated, and
 * the memory of a frame grows only as its bytes arrive.  An idle stream holds no input buffer: all
 * streams of a hub read into one, and only what is left of a frame is copied.
 *
 * Out: callers append frames to stream_out(), and stream_hub_flush() writes each stream's output
 * with one system call at the end of a loop turn.
 *
 * Turns: what many clients send at once must not make a turn of the loop long, or a leader comes
 * late with its heartbeats.  Of the streams that share (stream_share()) a turn reads so much and no
 * more; the rest of them stand in line for the next one.
 *
 * TLS: with a context in the hub, all but Unix sockets speak TLS; frames are only exchanged once
 * both certificates are verified.  A turn of the loop does a few steps of others' handshakes at
 * most; the rest of them wait in line.
 *
 * End: on end of file, an error, or a frame that is refused, `ops->ended` is called once and the
 * stream is gone for its owner; after stream_close() it is not called.  The memory is freed by the
 * stream itself when libuv lets go of it.  All on the loop's thread. */
#ifndef HOLDFAST_NODE_STREAM_H
#define HOLDFAST_NODE_STREAM_H

#include "raftstore/base/buf.h"
#include "raftstore/base/bytes.h"
#include "raftstore/tls/tls.h"

#include <stdbool.h>
#include <sys/queue.h>
#include <uv.h>

struct audit;
struct stream;

TAILQ_HEAD(stream_list, stream);

struct stream_hub {
    uv_loop_t *loop;
    uint8_t *read_buffer;      /* Owned; shared by all streams. */
    struct tls_context *tls;   /* For new streams, with a reference; NULL = in the clear. */
    struct audit *audit;       /* Where failed handshakes are told; NULL = nowhere. */
    uint64_t tls_untold;       /* Failed handshakes since that were not logged. */
    uint64_t tls_told_ms;      /* When a failed handshake was logged last. */
    struct stream_list dirty;  /* Have output. */
    struct stream_list rested; /* Reading was interrupted to let others have their turn. */
    struct stream_list queued; /* Their handshakes wait for a turn with time for them. */
    LIST_HEAD(, stream) streams;
    unsigned n_handshakes;      /* Steps of handshakes in this turn. */
    size_t turn_bytes;          /* Read in this turn from streams that share. */
    uint64_t n_rests;           /* Streams put off to the next turn, since start. */
    unsigned n_streams;         /* Not yet freed. */
    void (*emptied)(void *arg); /* n_streams became 0; NULL = nobody wants to know. */
    void *arg;
};

struct stream_ops {
    /* One frame. Return: 0, or a negative errno that ends the stream. */
    int (*frame)(void *arg, struct bytes body);
    /* The stream ended: UV_EOF, another libuv error, -EMSGSIZE (length of a frame out of bounds),
     * or what `frame` returned. */
    void (*ended)(void *arg, int status);
    /* Before the output is written: a chance to append what was held back. NULL = none. */
    void (*flushing)(void *arg);
    /* All output was handed to the kernel. NULL = none. */
    void (*drained)(void *arg);
};

void stream_hub_init(struct stream_hub *hub, uv_loop_t *loop);
/* New connections use this from now on (NULL = in the clear); takes a reference. */
void stream_hub_set_tls(struct stream_hub *hub, struct tls_context *tls);
/* After that: end those streams whose other side's certificate the new context does not accept any
 * more (but for its times). */
void stream_hub_recheck(struct stream_hub *hub);
/* Only when n_streams is 0. */
void stream_hub_deinit(struct stream_hub *hub);

/* Write what all streams have put out, and let rested ones read again. */
void stream_hub_flush(struct stream_hub *hub);

/* A stream that is not connected yet: pass stream_handle() to uv_accept() or uv_tcp_connect().
 *
 * @is_unix: a Unix socket instead of TCP.
 * @role: which side of a TLS session it will be.
 * Return: never NULL. */
struct stream *stream_new(struct stream_hub *hub, bool is_unix, enum tls_role role);
uv_stream_t *stream_handle(struct stream *s);

/* The socket is connected: set its options and begin to read.
 *
 * @user_timeout_ms: TCP_USER_TIMEOUT, after which unacknowledged bytes end the connection; 0 = the
 * system's default.
 * Return: 0, or a libuv error (the stream is then only fit for stream_close()). */
int stream_start(struct stream *s,
                 const struct stream_ops *ops,
                 void *arg,
                 size_t frame_bytes_max,
                 unsigned user_timeout_ms);

/* It shares turns with others of its kind: clients, not nodes. */
void stream_share(struct stream *s);

/* Change the bound on frames from the next frame on. */
void stream_set_frame_bytes_max(struct stream *s, size_t frame_bytes_max);

/* Where to append whole frames; call it each time (it marks the stream for the flush). */
struct buf *stream_out(struct stream *s);

/* Bytes of output that the kernel has not taken yet. */
size_t stream_pending_bytes(const struct stream *s);

/* Did the kernel take only part of the last output? */
bool stream_is_stuck(const struct stream *s);

/* Stop and go on with delivering frames (flow control); pausing inside `frame` is allowed. */
void stream_pause(struct stream *s);
void stream_resume(struct stream *s);

/* Close at once. What was put out is written as far as the kernel takes it now. NULL is accepted.
 */
void stream_close(struct stream *s);

/* The other end's address, for logs; `out` of `size` bytes (64 do). */
char *stream_peer_name(const struct stream *s, char *out, size_t size);

/* Whom the other side's certificate names; NULL: the stream is not encrypted, and anybody. */
const struct identity *stream_identity(const struct stream *s);

#endif
