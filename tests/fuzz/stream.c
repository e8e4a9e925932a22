#include "tests/fuzz/stream.h"

#include <stdio.h>
#include <stdlib.h>

#include "raftstore/wire/frame.h"
#include "tests/fuzz/fuzz.h"

struct stream {
    TAILQ_ENTRY(stream) link; /* In hub->queued, which nothing else uses here. */
    struct stream_hub *hub;
    uv_tcp_t tcp; /* For uv_accept(); never opened. */
    const struct stream_ops *ops;
    void *arg;
    size_t frame_bytes_max;
    struct buf in, out;
    struct buf heard; /* All that came. */
    struct identity identity;
    bool closed, paused, in_frames;
    unsigned n_refs; /* Calls of ours that are under way, and itself while open. */
};

static const ProtobufCMessageDescriptor *expected;
static size_t expected_max;

void fuzz_stream_expect(const ProtobufCMessageDescriptor *descriptor, size_t bytes_max)
{
    expected = descriptor;
    expected_max = bytes_max;
}

static void (*watching)(struct stream *s, struct bytes out);

void fuzz_stream_watch(void (*watch)(struct stream *s, struct bytes out))
{
    watching = watch;
}

void fuzz_stream_identify(struct stream *s, const struct identity *identity)
{
    s->identity = *identity;
}

bool fuzz_stream_said(const struct stream *s, struct bytes what)
{
    return s->heard.size > 0 && memmem(s->heard.data, s->heard.size, what.data, what.size) != NULL;
}

static void stream_unref(struct stream *s)
{
    if (--s->n_refs > 0)
        return;
    buf_deinit(&s->in);
    buf_deinit(&s->out);
    buf_deinit(&s->heard);
    free(s);
}

void stream_hub_init(struct stream_hub *hub, uv_loop_t *loop)
{
    *hub = (struct stream_hub){.loop = loop};
    TAILQ_INIT(&hub->queued);
}

void stream_hub_deinit(struct stream_hub *hub)
{
    fuzz_require(hub->n_streams == 0, "%u streams are left", hub->n_streams);
}

struct stream *stream_new(struct stream_hub *hub, bool is_unix, enum tls_role role)
{
    struct stream *s = xcalloc(1, sizeof *s);
    (void)is_unix;
    (void)role;
    s->hub = hub;
    s->n_refs = 1;
    TAILQ_INSERT_TAIL(&hub->queued, s, link);
    hub->n_streams++;
    return s;
}

uv_stream_t *stream_handle(struct stream *s)
{
    return (uv_stream_t *)&s->tcp;
}

int stream_start(struct stream *s,
                 const struct stream_ops *ops,
                 void *arg,
                 size_t frame_bytes_max,
                 unsigned user_timeout_ms)
{
    (void)user_timeout_ms;
    s->ops = ops;
    s->arg = arg;
    s->frame_bytes_max = frame_bytes_max;
    return 0;
}

void stream_share(struct stream *s)
{
    (void)s;
}

void stream_set_frame_bytes_max(struct stream *s, size_t frame_bytes_max)
{
    s->frame_bytes_max = frame_bytes_max;
}

struct buf *stream_out(struct stream *s)
{
    return &s->out;
}

size_t stream_pending_bytes(const struct stream *s)
{
    return s->out.size;
}

bool stream_is_stuck(const struct stream *s)
{
    (void)s;
    return false;
}

/* What goes out: whole frames, each a message. */
static void look(struct stream *s)
{
    struct bytes body;
    size_t size, at = 0;
    struct arena a;
    arena_init(&a);
    while (at < s->out.size) {
        int rv =
            frame_parse(bytes_of(s->out.data + at, s->out.size - at), expected_max, &body, &size);
        fuzz_require(rv == 1, "what goes out is no frame");
        fuzz_require(pack_parse(&a, expected, body) != NULL, "what goes out is no message");
        arena_reset(&a);
        at += size;
    }
    arena_deinit(&a);
    s->out.size = 0;
}

void stream_hub_flush(struct stream_hub *hub)
{
    struct stream *s, *next;
    for (s = TAILQ_FIRST(&hub->queued); s != NULL; s = next) {
        s->n_refs++;
        if (!s->closed && s->ops != NULL && s->ops->flushing != NULL)
            s->ops->flushing(s->arg);
        look(s);
        if (!s->closed && s->ops != NULL && s->ops->drained != NULL)
            s->ops->drained(s->arg);
        next = s->closed ? TAILQ_FIRST(&hub->queued) : TAILQ_NEXT(s, link);
        stream_unref(s);
    }
}

static void detach(struct stream *s)
{
    s->closed = true;
    TAILQ_REMOVE(&s->hub->queued, s, link);
    s->hub->n_streams--;
}

void stream_close(struct stream *s)
{
    if (s == NULL || s->closed)
        return;
    look(s);
    detach(s);
    stream_unref(s);
}

void fuzz_stream_end(struct stream *s, int status)
{
    if (s->closed)
        return;
    look(s);
    detach(s);
    s->ops->ended(s->arg, status);
    stream_unref(s);
}

static void deliver(struct stream *s)
{
    struct bytes body;
    size_t at = 0, size;
    int rv = 0;
    if (s->in_frames)
        return;
    s->in_frames = true;
    s->n_refs++;
    while (!s->closed && !s->paused && rv == 0) {
        rv = frame_parse(bytes_of(s->in.data + at, s->in.size - at), s->frame_bytes_max, &body,
                         &size);
        if (rv != 1)
            break;
        at += size;
        /* Memory of exactly its size. */
        uint8_t *exact = xmemdup(body.data, body.size);
        rv = s->ops->frame(s->arg, bytes_of(exact, body.size));
        free(exact);
    }
    buf_consume(&s->in, at);
    s->in_frames = false;
    if (rv < 0)
        fuzz_stream_end(s, rv);
    stream_unref(s);
}

void fuzz_stream_feed(struct stream *s, struct bytes bytes)
{
    if (s->closed || s->ops == NULL)
        return;
    buf_add(&s->in, bytes.data, bytes.size);
    buf_add(&s->heard, bytes.data, bytes.size);
    deliver(s);
}

void stream_pause(struct stream *s)
{
    s->paused = true;
}

void stream_resume(struct stream *s)
{
    s->paused = false;
    if (!s->closed)
        deliver(s);
}

char *stream_peer_name(const struct stream *s, char *out, size_t size)
{
    (void)s;
    (void)snprintf(out, size, "fuzz");
    return out;
}

const struct identity *stream_identity(const struct stream *s)
{
    return s->identity.kind == IDENTITY_NONE ? NULL : &s->identity; /* NULL: in the clear. */
}

unsigned fuzz_stream_count(const struct stream_hub *hub)
{
    return hub->n_streams;
}

struct stream *fuzz_stream(struct stream_hub *hub, unsigned i)
{
    struct stream *s = TAILQ_FIRST(&hub->queued);
    while (s != NULL && i-- > 0)
        s = TAILQ_NEXT(s, link);
    return s;
}
