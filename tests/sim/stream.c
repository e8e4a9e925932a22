/* raftstore/node/stream.h over virtual cables, in the place of stream.c: what the listener needs.
 *
 * stream_hub.loop's data is a function to be called after frames were delivered: the end of the
 * node's turn is to come. */
#include "tests/sim/stream.h"

#include "raftstore/wire/frame.h"
#include "tests/sim/serve.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct stream {
    TAILQ_ENTRY(stream) link; /* In hub->dirty while `dirty`. */
    struct stream_hub *hub;
    struct cable *cable; /* NULL = closed. */
    const struct stream_ops *ops;
    void *arg;
    size_t frame_bytes_max;
    struct buf in, out;
    bool dirty;
    unsigned n_refs; /* Calls of ours that are under way, and itself while open. */
};

static void stream_unref(struct stream *s)
{
    if (--s->n_refs > 0)
        return;
    if (s->dirty)
        TAILQ_REMOVE(&s->hub->dirty, s, link);
    buf_deinit(&s->in);
    buf_deinit(&s->out);
    s->hub->n_streams--;
    free(s);
}

void stream_hub_init(struct stream_hub *hub, uv_loop_t *loop)
{
    *hub = (struct stream_hub){.loop = loop};
    TAILQ_INIT(&hub->dirty);
}

void stream_hub_deinit(struct stream_hub *hub)
{
    assert(hub->n_streams == 0);
}

static void end(struct stream *s, int status)
{
    if (s->cable == NULL)
        return;
    cable_close(s->cable, CABLE_NODE);
    s->cable = NULL;
    s->ops->ended(s->arg, status);
    stream_unref(s);
}

static void on_bytes(void *arg, struct bytes bytes)
{
    struct stream *s = arg;
    struct bytes body;
    size_t at = 0, size;
    int rv = 0;
    s->n_refs++;
    serve_turn(s->hub->loop->data);
    buf_add(&s->in, bytes.data, bytes.size);
    while (s->cable != NULL && rv == 0) {
        struct bytes rest = bytes_of((const uint8_t *)s->in.data + at, s->in.size - at);
        rv = frame_parse(rest, s->frame_bytes_max, &body, &size);
        if (rv != 1)
            break;
        at += size;
        rv = s->ops->frame(s->arg, body);
    }
    buf_consume(&s->in, at);
    if (rv < 0)
        end(s, rv);
    stream_unref(s);
}

static void on_lost(void *arg, int error)
{
    struct stream *s = arg;
    serve_turn(s->hub->loop->data);
    end(s, error);
}

static const struct cable_ops ops = {.bytes = on_bytes, .lost = on_lost};

struct stream *sim_stream_new(struct stream_hub *hub, struct cable *cable)
{
    struct stream *s = xcalloc(1, sizeof *s);
    s->hub = hub;
    s->cable = cable;
    s->n_refs = 1;
    hub->n_streams++;
    cable_take(cable, &ops, s);
    return s;
}

/* Of sockets: nobody comes that way. */
struct stream *stream_new(struct stream_hub *hub, bool is_unix, enum tls_role role)
{
    (void)hub;
    (void)is_unix;
    (void)role;
    abort();
}

uv_stream_t *stream_handle(struct stream *s)
{
    (void)s;
    abort();
}

int stream_start(struct stream *s,
                 const struct stream_ops *stream_ops,
                 void *arg,
                 size_t frame_bytes_max,
                 unsigned user_timeout_ms)
{
    (void)user_timeout_ms;
    s->ops = stream_ops;
    s->arg = arg;
    s->frame_bytes_max = frame_bytes_max;
    return 0;
}

void stream_share(struct stream *s)
{
    (void)s; /* Turns take no time here. */
}

void stream_set_frame_bytes_max(struct stream *s, size_t frame_bytes_max)
{
    s->frame_bytes_max = frame_bytes_max;
}

struct buf *stream_out(struct stream *s)
{
    if (!s->dirty)
        TAILQ_INSERT_TAIL(&s->hub->dirty, s, link);
    s->dirty = true;
    return &s->out;
}

size_t stream_pending_bytes(const struct stream *s)
{
    return s->out.size;
}

bool stream_is_stuck(const struct stream *s)
{
    (void)s;
    return false; /* A cable takes everything. */
}

static void write_out(struct stream *s)
{
    if (s->cable != NULL)
        cable_send(s->cable, CABLE_NODE, bytes_of(s->out.data, s->out.size));
    s->out.size = 0;
}

void stream_hub_flush(struct stream_hub *hub)
{
    struct stream *s;
    while ((s = TAILQ_FIRST(&hub->dirty)) != NULL) {
        TAILQ_REMOVE(&hub->dirty, s, link);
        s->dirty = false;
        s->n_refs++;
        if (s->cable != NULL && s->ops->flushing != NULL)
            s->ops->flushing(s->arg);
        write_out(s);
        if (s->cable != NULL && s->ops->drained != NULL)
            s->ops->drained(s->arg);
        stream_unref(s);
    }
}

void stream_close(struct stream *s)
{
    if (s == NULL || s->cable == NULL)
        return;
    write_out(s);
    cable_close(s->cable, CABLE_NODE);
    s->cable = NULL;
    stream_unref(s);
}

char *stream_peer_name(const struct stream *s, char *out, size_t size)
{
    (void)s;
    (void)snprintf(out, size, "an application");
    return out;
}

const struct identity *stream_identity(const struct stream *s)
{
    (void)s;
    return NULL; /* In the clear: anybody. */
}
