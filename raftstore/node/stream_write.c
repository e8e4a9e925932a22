/* The way out of a stream: encrypting, writing, and what the kernel would not take at once. */
#include "raftstore/node/stream_internal.h"

#include <errno.h>

/* What is to go on the wire: plain output, or what it was encrypted to; NULL: nothing can. */
static struct buf *wire_of(struct stream *s)
{
    if (s->secure)
        return s->tls != NULL ? tls_wire(s->tls) : NULL;
    return &s->out;
}

bool stream_has_wire(const struct stream *s)
{
    if (!s->secure)
        return s->out.size > 0;
    return s->tls != NULL &&
           (tls_wire(s->tls)->size > 0 || (s->out.size > 0 && tls_session_open(s->tls)));
}

/* Encrypt what waits, once it can be.  Return: 0, or a negative errno. */
static int encrypt(struct stream *s)
{
    if (s->tls == NULL || !tls_session_open(s->tls) || s->out.size == 0)
        return 0;
    int rv = tls_output(s->tls, bytes_of(s->out.data, s->out.size));
    s->out.size = 0;
    if (s->out.size_alloc > STREAM_KEEP_BYTES)
        buf_deinit(&s->out);
    return rv;
}

void stream_last_words(struct stream *s)
{
    if (s->tls != NULL && encrypt(s) == 0)
        tls_session_close(s->tls);
    struct buf *wire = wire_of(s);
    if (wire != NULL && wire->size > 0)
        (void)uv_try_write(&s->uv.stream, &(uv_buf_t){(char *)wire->data, wire->size}, 1);
}

struct buf *stream_out(struct stream *s)
{
    if (!s->dirty && !s->closing) {
        s->dirty = true;
        TAILQ_INSERT_TAIL(&s->hub->dirty, s, dirty_link);
    }
    return &s->out;
}

size_t stream_pending_bytes(const struct stream *s)
{
    size_t encrypted = s->tls != NULL ? tls_wire(s->tls)->size : 0;
    return s->out.size + encrypted + s->writing.size - s->writing_from;
}

bool stream_is_stuck(const struct stream *s)
{
    return s->write_busy;
}

static void stream_written(uv_write_t *req, int status)
{
    struct stream *s = req->data;
    s->write_busy = false;
    s->writing_from = 0;
    buf_deinit(&s->writing);
    if (s->closing)
        return;
    if (status < 0) {
        stream_end(s, status);
        return;
    }
    if (stream_has_wire(s))
        (void)stream_out(s); /* Written by the flush at the end of this turn. */
    else if (s->out.size == 0 && s->ops->drained != NULL)
        s->ops->drained(s->arg);
}

static void write_now(struct stream *s)
{
    if (s->ops->flushing != NULL)
        s->ops->flushing(s->arg);
    if (s->closing || s->write_busy)
        return;
    if (encrypt(s) < 0) {
        stream_end(s, -EPROTO);
        return;
    }
    struct buf *wire = wire_of(s);
    if (wire == NULL || wire->size == 0)
        return;
    int n = uv_try_write(&s->uv.stream, &(uv_buf_t){(char *)wire->data, wire->size}, 1);
    if (n == UV_EAGAIN)
        n = 0;
    if (n < 0) {
        stream_end(s, n);
        return;
    }
    if ((size_t)n == wire->size) {
        wire->size = 0;
        if (wire->size_alloc > STREAM_KEEP_BYTES)
            buf_deinit(wire);
        if (s->out.size == 0 && s->ops->drained != NULL)
            s->ops->drained(s->arg);
        return;
    }
    s->writing = *wire;
    s->writing_from = (size_t)n;
    *wire = BUF_INIT;
    s->write_busy = true;
    s->write.data = s;
    uv_buf_t rest_of_it =
        uv_buf_init((char *)s->writing.data + n, (unsigned)(s->writing.size - (size_t)n));
    int rv = uv_write(&s->write, &s->uv.stream, &rest_of_it, 1, stream_written);
    if (rv < 0) {
        s->write_busy = false;
        stream_end(s, rv);
    }
}

void stream_hub_write(struct stream_hub *hub)
{
    struct stream *s;
    while ((s = TAILQ_FIRST(&hub->dirty)) != NULL) {
        TAILQ_REMOVE(&hub->dirty, s, dirty_link);
        s->dirty = false;
        write_now(s);
    }
}
