#include "raftstore/node/stream_internal.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "raftstore/base/log.h"
#include "raftstore/wire/frame.h"
#include "telemetry/audit.h"

#define READ_BUFFER_BYTES (64u * 1024u)
#define READ_AHEAD_MAX    (256u * 1024u) /* Reserved at once for the rest of a known frame. */
#define TLS_TELL_MS       1000
#define TURN_BYTES_MAX    (192u * 1024u) /* Some thousand requests, ten milliseconds or so. */
#define HANDSHAKES_MAX    4u /* Steps of them in one turn: each may take a millisecond or two. */

void stream_hub_init(struct stream_hub *hub, uv_loop_t *loop)
{
    *hub = (struct stream_hub){.loop = loop, .read_buffer = xmalloc(READ_BUFFER_BYTES)};
    TAILQ_INIT(&hub->dirty);
    TAILQ_INIT(&hub->rested);
    TAILQ_INIT(&hub->queued);
    LIST_INIT(&hub->streams);
}

void stream_hub_deinit(struct stream_hub *hub)
{
    assert(hub->n_streams == 0);
    free(hub->read_buffer);
    tls_context_unref(hub->tls);
    hub->read_buffer = NULL;
}

void stream_hub_set_tls(struct stream_hub *hub, struct tls_context *tls)
{
    tls_context_unref(hub->tls);
    hub->tls = tls != NULL ? tls_context_ref(tls) : NULL;
}

struct stream *stream_new(struct stream_hub *hub, bool is_unix, enum tls_role role)
{
    struct stream *s = xcalloc(1, sizeof *s);
    int rv;
    s->hub = hub;
    s->is_unix = is_unix;
    if (is_unix)
        rv = uv_pipe_init(hub->loop, &s->uv.pipe, 0);
    else
        rv = uv_tcp_init(hub->loop, &s->uv.tcp);
    assert(rv == 0); /* Neither makes a socket yet, so neither can fail. */
    s->uv.handle.data = s;
    s->role = role;
    s->secure = !is_unix && hub->tls != NULL;
    LIST_INSERT_HEAD(&hub->streams, s, hub_link);
    hub->n_streams++;
    return s;
}

uv_stream_t *stream_handle(struct stream *s)
{
    return &s->uv.stream;
}

static void stream_closed(uv_handle_t *handle)
{
    struct stream *s = handle->data;
    struct stream_hub *hub = s->hub;
    buf_deinit(&s->in);
    buf_deinit(&s->out);
    buf_deinit(&s->writing);
    tls_session_free(s->tls);
    LIST_REMOVE(s, hub_link);
    free(s);
    if (--hub->n_streams == 0 && hub->emptied != NULL)
        hub->emptied(hub->arg);
}

void stream_close(struct stream *s)
{
    if (s == NULL || s->closing)
        return;
    if (s->ops != NULL && !s->write_busy)
        stream_last_words(s);
    s->closing = true;
    if (s->dirty)
        TAILQ_REMOVE(&s->hub->dirty, s, dirty_link);
    if (s->rested)
        TAILQ_REMOVE(&s->hub->rested, s, rested_link);
    if (s->queued)
        TAILQ_REMOVE(&s->hub->queued, s, queued_link);
    uv_close(&s->uv.handle, stream_closed);
}

static void tls_audit(const struct stream *s)
{
    struct stream_hub *hub = s->hub;
    char name[64];
    struct buf *line = audit_begin(hub->audit, "denied");
    audit_text(line, "by", "node");
    audit_text(line, "what", "connect");
    audit_text(line, "client", stream_peer_name(s, name, sizeof name));
    audit_text(line, "reason", tls_session_error(s->tls));
    audit_u64(line, "untold", hub->tls_untold);
    audit_end(hub->audit);
    hub->tls_untold = 0;
}

/* A handshake failed, or something forged a record. */
static void tls_tell(struct stream *s)
{
    struct stream_hub *hub = s->hub;
    char name[64];
    uint64_t now_ms = uv_now(hub->loop);
    if (hub->tls_told_ms != 0 && now_ms - hub->tls_told_ms < TLS_TELL_MS) {
        hub->tls_untold++;
        return; /* Anybody can cause these; one a second tells enough. */
    }
    hub->tls_told_ms = now_ms;
    if (hub->audit != NULL)
        tls_audit(s);
    LOG_WARN("TLS connection failed", "from=%s why=%s", stream_peer_name(s, name, sizeof name),
             log_quote(bytes_str(tls_session_error(s->tls))));
}

void stream_end(struct stream *s, int status)
{
    if (s->closing)
        return;
    const struct stream_ops *ops = s->ops;
    void *arg = s->arg;
    stream_close(s); /* Writes what was said last, if the other side still listens. */
    ops->ended(arg, status);
}

/* Reading. --------------------------------------------------------------------------------- */

static size_t frame_missing(const struct stream *s)
{
    const uint8_t *p = s->in.data;
    if (s->in.size < FRAME_HEADER_BYTES)
        return FRAME_HEADER_BYTES;
    size_t total = FRAME_HEADER_BYTES +
                   ((size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24);
    return total > s->in.size ? total - s->in.size : FRAME_HEADER_BYTES;
}

/* Handshakes cost much and strangers can ask for them: a turn of the loop does only a few steps
 * of those that others began, and the next ones stand in line.  Otherwise a few hundred clients
 * that come at once would keep a leader from its heartbeats. */
static bool may_shake(struct stream *s)
{
    struct stream_hub *hub = s->hub;
    if (s->role == TLS_CLIENT || (s->tls != NULL && tls_session_open(s->tls)))
        return true;
    if (!s->turn && (hub->n_handshakes >= HANDSHAKES_MAX || !TAILQ_EMPTY(&hub->queued)))
        return false;
    hub->n_handshakes += s->turn ? 0 : 1;
    s->turn = false;
    return true;
}

static void queue(struct stream *s)
{
    (void)uv_read_stop(&s->uv.stream); /* Always 0. */
    s->queued = true;
    TAILQ_INSERT_TAIL(&s->hub->queued, s, queued_link);
}

static void stream_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    struct stream *s = handle->data;
    (void)suggested;
    s->put_off = s->shares && s->hub->turn_bytes >= TURN_BYTES_MAX;
    if (s->put_off || (s->secure && !may_shake(s))) {
        *ret = uv_buf_init(NULL, 0); /* Read later: comes back as UV_ENOBUFS. */
        return;
    }
    if (s->in.size == 0 || s->secure) {
        *ret = uv_buf_init((char *)s->hub->read_buffer, READ_BUFFER_BYTES);
        return;
    }
    size_t want = frame_missing(s);
    want = want < 4096 ? 4096 : want > READ_AHEAD_MAX ? READ_AHEAD_MAX : want;
    uint8_t *p = buf_reserve(&s->in, want);
    *ret = uv_buf_init((char *)p, (unsigned)want);
}

/* Deliver the whole frames at the front of `data`; *ret_used tells how much they were.
 * Return: 0, or why the stream must end. */
static int deliver(struct stream *s, struct bytes data, size_t *ret_used)
{
    size_t used = 0;
    int rv = 0;
    s->in_frames = true;
    while (!s->closing && !s->paused && used < data.size) {
        struct bytes body;
        size_t size;
        rv = frame_parse(bytes_of((const uint8_t *)data.data + used, data.size - used),
                         s->frame_bytes_max, &body, &size);
        if (rv <= 0)
            break;
        rv = s->ops->frame(s->arg, body);
        if (rv < 0)
            break;
        used += size;
        rv = 0;
    }
    s->in_frames = false;
    *ret_used = used;
    return rv;
}

static void rest(struct stream *s)
{
    if (s->rested || s->closing || s->paused)
        return;
    (void)uv_read_stop(&s->uv.stream); /* Always 0. */
    s->rested = true;
    TAILQ_INSERT_TAIL(&s->hub->rested, s, rested_link);
}

/* Deliver what is whole in `in`, and the end of the stream when nothing is left before it. */
static void deliver_in(struct stream *s)
{
    size_t used;
    int rv = deliver(s, bytes_of(s->in.data, s->in.size), &used);
    if (s->closing)
        return;
    if (rv == 0 && !s->paused)
        rv = s->end_status;
    if (rv < 0) {
        stream_end(s, rv);
        return;
    }
    buf_consume(&s->in, used);
    if (s->in.size == 0 && s->in.size_alloc > 0)
        buf_deinit(&s->in);
}

static void tls_read(struct stream *s, struct bytes wire)
{
    if (s->tls == NULL) /* Who says nothing costs nothing. */
        s->tls = tls_session_new(s->hub->tls, s->role);
    int rv = tls_input(s->tls, wire, &s->in);
    if (rv < 0 && rv != -EPIPE)
        tls_tell(s);
    if (stream_has_wire(s))
        (void)stream_out(s); /* Marks it: the handshake goes on, or is done. */
    /* Its own numbers: what the frames do is told apart from that. */
    s->end_status = rv == -EPIPE ? UV_EOF : rv == -EPROTO ? UV_ECONNABORTED : rv;
    deliver_in(s);
    if (!s->closing && wire.size == READ_BUFFER_BYTES)
        rest(s);
}

static void stream_read(uv_stream_t *handle, ssize_t n, const uv_buf_t *buf)
{
    struct stream *s = handle->data;
    size_t used;
    if (n == 0 || s->closing)
        return;
    if (n == UV_ENOBUFS && s->put_off) {
        s->hub->n_rests++;
        rest(s);
        return;
    }
    if (n == UV_ENOBUFS) {
        queue(s);
        return;
    }
    if (n < 0) {
        stream_end(s, (int)n);
        return;
    }
    s->hub->turn_bytes += s->shares ? (size_t)n : 0;
    if (s->secure) {
        tls_read(s, bytes_of(buf->base, (size_t)n));
        return;
    }
    bool shared = (uint8_t *)buf->base == s->hub->read_buffer;
    if (!shared)
        s->in.size += (size_t)n;
    struct bytes data = shared ? bytes_of(buf->base, (size_t)n) : bytes_of(s->in.data, s->in.size);
    int rv = deliver(s, data, &used);
    if (s->closing)
        return;
    if (rv < 0) {
        stream_end(s, rv);
        return;
    }
    if (shared)
        buf_add(&s->in, (const uint8_t *)data.data + used, data.size - used);
    else
        buf_consume(&s->in, used);
    if (s->in.size == 0 && s->in.size_alloc > 0)
        buf_deinit(&s->in);
    if ((size_t)n == buf->len && shared)
        rest(s); /* There is more: a busy client must not keep the others from their turn. */
}

void stream_pause(struct stream *s)
{
    if (s->paused || s->closing)
        return;
    s->paused = true;
    (void)uv_read_stop(&s->uv.stream); /* Always 0. */
    if (s->rested) {
        s->rested = false;
        TAILQ_REMOVE(&s->hub->rested, s, rested_link);
    }
}

void stream_share(struct stream *s)
{
    s->shares = true;
}

void stream_read_on(struct stream *s)
{
    int rv = uv_read_start(&s->uv.stream, stream_alloc, stream_read);
    if (rv < 0 && rv != UV_EALREADY)
        stream_end(s, rv);
}

void stream_resume(struct stream *s)
{
    if (!s->paused || s->closing)
        return;
    s->paused = false;
    if (!s->in_frames) /* Else it was paused and resumed within one frame. */
        deliver_in(s);
    if (!s->paused && !s->closing && s->end_status == 0)
        stream_read_on(s);
}

static void hub_read_on(struct stream_hub *hub)
{
    struct stream *s;
    hub->n_handshakes = 0;
    hub->turn_bytes = 0;
    while ((s = TAILQ_FIRST(&hub->rested)) != NULL) {
        TAILQ_REMOVE(&hub->rested, s, rested_link);
        s->rested = false;
        stream_read_on(s);
    }
    while (hub->n_handshakes < HANDSHAKES_MAX && (s = TAILQ_FIRST(&hub->queued)) != NULL) {
        TAILQ_REMOVE(&hub->queued, s, queued_link);
        s->queued = false;
        s->turn = true;
        hub->n_handshakes++;
        stream_read_on(s); /* The next poll returns at once: its bytes are there. */
    }
}

void stream_hub_flush(struct stream_hub *hub)
{
    hub_read_on(hub);
    stream_hub_write(hub);
}

void stream_hub_recheck(struct stream_hub *hub)
{
    struct stream *s;
    char name[64];
    char *why = NULL;
    LIST_FOREACH(s, &hub->streams, hub_link)
    {
        if (s->closing || s->ops == NULL || s->tls == NULL ||
            tls_session_recheck(s->tls, hub->tls, &why) == 0)
            continue;
        const struct identity *peer = tls_session_peer(s->tls);
        LOG_WARN("connection closed: its certificate is not accepted any more",
                 "from=%s certificate=%s/%s why=%s", stream_peer_name(s, name, sizeof name),
                 identity_kind_name(peer->kind), peer->name, log_quote(bytes_str(why)));
        free(why);
        stream_end(s, -EACCES);
    }
}

/* Setup. ----------------------------------------------------------------------------------- */

static void set_tcp_options(struct stream *s, unsigned user_timeout_ms)
{
    /* None of these failing is worth refusing the connection: they bound how long a dead peer goes
     * unnoticed, and every protocol above has a time-out of its own. */
    uv_os_fd_t fd;
    int idle_s = 5, interval_s = 2, count = 3;
    (void)uv_tcp_nodelay(&s->uv.tcp, 1);
    (void)uv_tcp_keepalive(&s->uv.tcp, 1, (unsigned)idle_s);
    if (uv_fileno(&s->uv.handle, &fd) < 0)
        return;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    if (user_timeout_ms > 0)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms,
                         sizeof user_timeout_ms);
}

int stream_start(struct stream *s,
                 const struct stream_ops *ops,
                 void *arg,
                 size_t frame_bytes_max,
                 unsigned user_timeout_ms)
{
    assert(s->ops == NULL);
    s->ops = ops;
    s->arg = arg;
    s->frame_bytes_max = frame_bytes_max;
    if (!s->is_unix)
        set_tcp_options(s, user_timeout_ms);
    if (s->secure && s->role == TLS_CLIENT) {
        s->tls = tls_session_new(s->hub->tls, s->role);
        (void)stream_out(s); /* Marks it: a client speaks first. */
    }
    return uv_read_start(&s->uv.stream, stream_alloc, stream_read);
}

void stream_set_frame_bytes_max(struct stream *s, size_t frame_bytes_max)
{
    s->frame_bytes_max = frame_bytes_max;
}

char *stream_peer_name(const struct stream *s, char *out, size_t size)
{
    struct sockaddr_storage ss = {0};
    int ss_size = sizeof ss;
    char ip[INET6_ADDRSTRLEN] = "?";
    if (s->is_unix) {
        (void)snprintf(out, size, "unix");
        return out;
    }
    if (uv_tcp_getpeername(&s->uv.tcp, (struct sockaddr *)&ss, &ss_size) < 0) {
        (void)snprintf(out, size, "?");
        return out;
    }
    if (ss.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&ss;
        (void)uv_ip6_name(in6, ip, sizeof ip);
        (void)snprintf(out, size, "[%s]:%u", ip, ntohs(in6->sin6_port));
    } else {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&ss;
        (void)uv_ip4_name(in, ip, sizeof ip);
        (void)snprintf(out, size, "%s:%u", ip, ntohs(in->sin_port));
    }
    return out;
}

const struct identity *stream_identity(const struct stream *s)
{
    static const struct identity nobody = {IDENTITY_NONE, 0, ""};
    if (!s->secure)
        return NULL;
    return s->tls != NULL ? tls_session_peer(s->tls) : &nobody;
}
