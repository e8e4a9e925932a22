#include "raftstore/node/listener_internal.h"

#include "raftstore/base/log.h"
#include "raftstore/wire/frame.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define GRACE_MS           500 /* A new connection is not closed to make room for others. */
#define EVENTS_FRAME_BYTES (256u * 1024u) /* Gathered events are sealed at this size. */

static void requests_orphan(struct conn *c)
{
    struct request *r;
    while ((r = LIST_FIRST(&c->requests)) != NULL) {
        LIST_REMOVE(r, link);
        request_keep_asker(r);
        r->owner = NULL; /* Freed when its outcome comes. */
    }
}

void conn_close(struct conn *c)
{
    struct listener *l = c->listener;
    uint64_t chunk_request = c->chunk_request;
    stream_close(c->stream);
    requests_orphan(c);
    if (c->sub != NULL) {
        events_unsubscribe(l->config.events, c->sub);
        free(c->sub);
    }
    TAILQ_REMOVE(c->hello ? &l->conns : &l->fresh, c, link);
    l->n_conns--;
    l->output_bytes -= c->counted;
    access_deinit(&c->access);
    buf_deinit(&c->events);
    free(c);
    if (chunk_request != 0) {
        struct request *r = request_find(&l->requests, chunk_request);
        if (r != NULL) {
            request_audit_admin(l, r, REPLICA_UNKNOWN, "the client hung up");
            request_free(&l->requests, r);
        }
        l->config.chunk_taken(l->config.arg, chunk_request, true);
    }
}

/* Output. ---------------------------------------------------------------------------------- */

static void conn_count(struct conn *c)
{
    size_t bytes = stream_pending_bytes(c->stream) + c->events.size;
    c->listener->output_bytes += bytes - c->counted;
    c->counted = bytes;
}

/* Does it leave too much unread? */
static bool conn_is_slow(struct conn *c)
{
    const struct listener_config *config = &c->listener->config;
    conn_count(c);
    if (c->counted > config->output_max)
        return true;
    return c->counted > LISTENER_OUTPUT_FAIR && stream_is_stuck(c->stream) &&
           c->listener->output_bytes > config->output_total_max;
}

struct buf *conn_out(struct conn *c)
{
    struct buf *out = stream_out(c->stream); /* Marks it for the flush, which closes doomed ones. */
    if (c->doomed)
        return NULL;
    if (conn_is_slow(c)) {
        c->doomed = true;
        return NULL;
    }
    conn_seal_events(c);
    return out;
}

void conn_seal_events(struct conn *c)
{
    if (c->events.size == 0)
        return;
    struct buf *out = stream_out(c->stream);
    size_t mark = frame_begin(out);
    uint8_t head[8];
    size_t n = 0;
    head[n++] = 5 << 3 | 2; /* NodeFrame.events */
    for (size_t left = c->events.size; n == 1 || left > 0; left >>= 7)
        head[n++] = (uint8_t)((left & 0x7f) | (left > 0x7f ? 0x80 : 0));
    buf_add(out, head, n);
    buf_add(out, c->events.data, c->events.size);
    frame_end(out, mark);
    buf_deinit(&c->events);
}

void conn_event(void *arg, struct bytes field)
{
    struct conn *c = arg;
    (void)stream_out(c->stream); /* Marks it. */
    if (c->doomed)
        return;
    if (conn_is_slow(c)) {
        c->doomed = true;
        return;
    }
    buf_add(&c->events, field.data, field.size);
    if (c->events.size > EVENTS_FRAME_BYTES)
        conn_seal_events(c);
}

static void conn_flushing(void *arg)
{
    struct conn *c = arg;
    char name[64];
    if (!c->doomed) {
        conn_seal_events(c);
        conn_count(c);
        return;
    }
    LOG_WARN("client disconnected: it does not read what it asked for", "client=%s bytes=%zu",
             stream_peer_name(c->stream, name, sizeof name), stream_pending_bytes(c->stream));
    c->listener->stats.dropped_slow++;
    conn_close(c);
}

static void conn_drained(void *arg)
{
    struct conn *c = arg;
    uint64_t id = c->chunk_request;
    conn_count(c);
    if (id == 0)
        return;
    c->chunk_request = 0;
    c->listener->config.chunk_taken(c->listener->config.arg, id, false);
}

/* Input and end. --------------------------------------------------------------------------- */

static int conn_on_frame(void *arg, struct bytes body)
{
    return conn_frame(arg, body);
}

static void conn_ended(void *arg, int status)
{
    struct conn *c = arg;
    if (status == -EMSGSIZE || status == -EPROTO)
        LOG_WARN("client disconnected: it breaks the protocol", "why=%s",
                 status == -EMSGSIZE ? "\"a frame is over its bound\"" : "\"malformed frame\"");
    else
        LOG_DEBUG("client gone", "why=%s", log_quote(bytes_str(uv_strerror(status))));
    c->stream = NULL;
    conn_close(c);
}

static const struct stream_ops conn_ops = {.frame = conn_on_frame,
                                           .ended = conn_ended,
                                           .flushing = conn_flushing,
                                           .drained = conn_drained};

static uint64_t now_ms_of(const struct listener *l)
{
    return clock_mono_ns(l->config.clock) / NS_PER_MS;
}

static void refuse_full(struct listener *l)
{
    uint64_t now_ms = now_ms_of(l);
    if (l->told_full_ms != 0 && now_ms - l->told_full_ms < 10000)
        return;
    l->told_full_ms = now_ms;
    LOG_WARN("too many client connections, more are refused", "max=%u", l->config.connections_max);
}

/* Who says nothing must not keep clients out: the oldest of them goes, if it had its time. */
static void make_room(struct listener *l)
{
    struct conn *oldest = TAILQ_FIRST(&l->fresh);
    if (oldest != NULL && now_ms_of(l) - oldest->begin_ms > GRACE_MS)
        conn_close(oldest);
}

void listener_adopt(struct listener *l, struct stream *s)
{
    if (l->draining) {
        stream_close(s);
        return;
    }
    if (l->n_conns >= l->config.connections_max)
        make_room(l);
    if (l->n_conns >= l->config.connections_max) {
        refuse_full(l);
        stream_close(s);
        return;
    }
    struct conn *c = xcalloc(1, sizeof *c);
    c->listener = l;
    c->stream = s;
    c->begin_ms = now_ms_of(l);
    LIST_INIT(&c->requests);
    TAILQ_INSERT_TAIL(&l->fresh, c, link);
    l->n_conns++;
    l->stats.accepted++;
    stream_share(s);
    if (stream_start(s, &conn_ops, c, HELLO_BYTES_MAX, 0) < 0)
        conn_close(c);
}

static void listener_connection(uv_stream_t *server, int status)
{
    struct listener *l = server->data;
    if (status < 0) {
        LOG_WARN("accepting a client failed", "why=%s", log_quote(bytes_str(uv_strerror(status))));
        return;
    }
    struct stream *s = stream_new(l->config.hub, server->type == UV_NAMED_PIPE, TLS_SERVER);
    if (uv_accept(server, stream_handle(s)) < 0)
        stream_close(s);
    else
        listener_adopt(l, s);
}

void listener_sweep(struct listener *l)
{
    struct conn *c;
    uint64_t now_ms = now_ms_of(l);
    while ((c = TAILQ_FIRST(&l->fresh)) != NULL && now_ms - c->begin_ms > l->config.hello_ms)
        conn_close(c);
}

void listener_drop_subscribers(struct listener *l)
{
    struct conn *c, *next;
    for (c = TAILQ_FIRST(&l->conns); c != NULL; c = next) {
        next = TAILQ_NEXT(c, link);
        if (c->sub != NULL && c->sub->active)
            conn_close(c);
    }
}

/* The object. ------------------------------------------------------------------------------ */

struct listener *listener_new(const struct listener_config *config)
{
    struct listener *l = xcalloc(1, sizeof *l);
    l->config = *config;
    if (l->config.clock == NULL)
        l->config.clock = clock_system();
    if (l->config.connections_max == 0)
        l->config.connections_max = LISTENER_CONNECTIONS_MAX;
    if (l->config.output_max == 0)
        l->config.output_max = LISTENER_OUTPUT_MAX;
    if (l->config.output_total_max == 0)
        l->config.output_total_max = LISTENER_OUTPUT_TOTAL;
    if (l->config.hello_ms == 0)
        l->config.hello_ms = LISTENER_HELLO_MS;
    TAILQ_INIT(&l->fresh);
    TAILQ_INIT(&l->conns);
    arena_init(&l->arena);
    arena_init(&l->answer_arena);
    return l;
}

int listener_listen(struct listener *l,
                    const struct address *address,
                    bool insecure,
                    char **ret_sentence)
{
    assert(l->n_binds < LISTENER_BINDS_MAX);
    return bind_listen(&l->binds[l->n_binds++], l->config.hub->loop, address, insecure,
                       listener_connection, l, ret_sentence);
}

uint16_t listener_port(const struct listener *l)
{
    return bind_port(&l->binds[0]);
}

void listener_drain(struct listener *l)
{
    l->draining = true;
}

struct listener_stats listener_figures(const struct listener *l)
{
    struct listener_stats s = l->stats;
    s.connections = l->n_conns;
    s.requests = l->requests.n_used;
    s.output_bytes = l->output_bytes;
    s.subscribers = events_n_subs(l->config.events);
    s.denied = l->denials.denied;
    return s;
}

struct listener_stats listener_stats(const struct listener *l)
{
    struct listener_stats s = listener_figures(l);
    s.command_p50_us = histogram_permille(&l->command_us, 500);
    s.command_p99_us = histogram_permille(&l->command_us, 990);
    return s;
}

unsigned listener_connections_max(const struct listener *l)
{
    return l->config.connections_max;
}

const struct request_stats *listener_counts(const struct listener *l)
{
    return &l->counts;
}

static void listener_unref(void *arg)
{
    struct listener *l = arg;
    if (--l->n_binds_open > 0)
        return;
    void (*closed)(void *arg) = l->closed;
    void *closed_arg = l->closed_arg;
    requests_deinit(&l->requests);
    access_policy_unref(l->policy);
    buf_deinit(&l->changed);
    arena_deinit(&l->arena);
    arena_deinit(&l->answer_arena);
    free(l);
    closed(closed_arg);
}

void listener_close(struct listener *l, void (*closed)(void *arg), void *arg)
{
    struct conn *c;
    l->draining = true;
    l->closed = closed;
    l->closed_arg = arg;
    while ((c = TAILQ_FIRST(&l->fresh)) != NULL || (c = TAILQ_FIRST(&l->conns)) != NULL)
        conn_close(c);
    l->n_binds_open = l->n_binds + 1;
    for (unsigned i = 0; i < l->n_binds; i++)
        bind_close(&l->binds[i], listener_unref, l);
    listener_unref(l);
}
