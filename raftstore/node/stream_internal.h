/* What stream.c (setup, end, reading) and stream_write.c share. */
#ifndef HOLDFAST_NODE_STREAM_INTERNAL_H
#define HOLDFAST_NODE_STREAM_INTERNAL_H

#include "raftstore/node/stream.h"

#define STREAM_KEEP_BYTES 1024u /* Output memory that an idle stream may keep. */

struct stream {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } uv;
    struct stream_hub *hub;
    const struct stream_ops *ops; /* NULL until started. */
    void *arg;
    size_t frame_bytes_max;
    struct buf in;      /* Front part of a frame. */
    struct buf out;     /* Frames to be written at the next flush. */
    struct buf writing; /* Being written by libuv. */
    size_t writing_from;
    uv_write_t write;
    struct tls_session *tls; /* NULL: in the clear; or `secure`, and nothing has come yet. */
    int end_status;          /* Not 0: it ended so while it was paused, to be told when resumed. */
    LIST_ENTRY(stream) hub_link;
    TAILQ_ENTRY(stream) dirty_link;
    TAILQ_ENTRY(stream) rested_link;
    TAILQ_ENTRY(stream) queued_link;
    enum tls_role role;
    bool secure; /* Speaks TLS, and nothing else. */
    bool is_unix;
    bool write_busy; /* `writing` is libuv's. */
    bool dirty;
    bool rested;
    bool queued;  /* Its handshake waits for a turn. */
    bool turn;    /* Its handshake may go on with the next read. */
    bool shares;  /* stream_share(). */
    bool put_off; /* Found the turn used up: to be read in the next one. */
    bool paused;
    bool in_frames; /* ops->frame is being called: no recursion. */
    bool closing;
};

/* Close it and tell its owner. */
void stream_end(struct stream *s, int status);

/* Before it is closed: what was put out, as far as the kernel takes it. */
void stream_last_words(struct stream *s);

/* Begin to read again, after a rest or a pause. */
void stream_read_on(struct stream *s);

/* Write the output of all streams that have some. */
void stream_hub_write(struct stream_hub *hub);

/* Is there anything that can be put on the wire now? */
bool stream_has_wire(const struct stream *s);

#endif
