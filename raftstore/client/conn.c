#include "raftstore/client/conn.h"

#include "raftstore/wire/frame.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#define READ_BYTES      (64u * 1024u)
#define USER_TIMEOUT_MS 10000 /* Unacknowledged data: the connection is dead (tcp(7)). */
#define KEEPALIVE_S     5     /* Idle time before the kernel probes. */
#define OUT_KEEP_BYTES  (256u * 1024u)

struct client_conn {
    struct client_conn_config config;
    struct address address;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } u;
    uv_timer_t timer;         /* Connect time-out. */
    uv_prepare_t prepare;     /* Runs only while there is something to write. */
    uv_getaddrinfo_t resolve; /* While resolving. */
    uv_connect_t connect;     /* While connecting. */
    uv_write_t write;         /* While writing. */
    struct addrinfo *found;   /* Owned: what resolving gave. */
    struct addrinfo *next;    /* Next of `found` to try. */
    struct tls_session *tls;  /* NULL: in the clear. */
    struct buf raw;           /* TLS: what is being received. */
    struct buf in;            /* Received, not yet a whole frame. */
    struct buf out;           /* To be sent. */
    struct buf writing;       /* Held by the uv_write() under way. */
    uint64_t heard_mono_ns;
    int error;        /* Of the last address tried. */
    unsigned n_busy;  /* Handles and requests that still refer to us. */
    bool stream_open; /* u is initialised and not being closed. */
    bool write_busy;
    bool ready;
    bool closed; /* client_conn_close() was called, or on_lost given. */
};

static void try_next_address(struct client_conn *k);
static void lose(struct client_conn *k, int error, const char *text);

static void conn_unref(struct client_conn *k)
{
    if (--k->n_busy > 0)
        return;
    if (k->found != NULL)
        uv_freeaddrinfo(k->found);
    tls_session_free(k->tls);
    buf_deinit(&k->raw);
    buf_deinit(&k->in);
    buf_deinit(&k->out);
    buf_deinit(&k->writing);
    k->config.handler->on_freed(k->config.freed_arg);
    free(k);
}

static void on_handle_closed(uv_handle_t *handle)
{
    conn_unref(handle->data);
}

static void close_all(struct client_conn *k)
{
    k->closed = true;
    if (k->stream_open) {
        k->stream_open = false;
        uv_close(&k->u.handle, on_handle_closed);
    }
    uv_close((uv_handle_t *)&k->timer, on_handle_closed);
    uv_close((uv_handle_t *)&k->prepare, on_handle_closed);
    (void)uv_cancel((uv_req_t *)&k->resolve); /* Refused when it isn't pending: fine. */
}

/* What is to go on the wire: plain output, or what it was encrypted to. */
static struct buf *wire_of(struct client_conn *k)
{
    return k->tls != NULL ? tls_wire(k->tls) : &k->out;
}

/* Encrypt what waits, once it can be.  Return: 0, or a negative errno. */
static int encrypt(struct client_conn *k)
{
    if (k->tls == NULL || !tls_session_open(k->tls) || k->out.size == 0)
        return 0;
    int rv = tls_output(k->tls, bytes_of(k->out.data, k->out.size));
    k->out.size = 0;
    if (k->out.size_alloc > OUT_KEEP_BYTES)
        buf_deinit(&k->out);
    return rv;
}

/* As far as the kernel takes them at once. */
static void last_words(struct client_conn *k)
{
    if (k->tls != NULL && encrypt(k) == 0)
        tls_session_close(k->tls);
    struct buf *wire = wire_of(k);
    uv_buf_t b = uv_buf_init((char *)wire->data, (unsigned)wire->size);
    if (wire->size > 0)
        (void)uv_try_write(&k->u.stream, &b, 1);
}

void client_conn_close(struct client_conn *k)
{
    if (k->closed)
        return;
    if (k->stream_open && k->ready && !k->write_busy)
        last_words(k);
    close_all(k);
}

static void lose(struct client_conn *k, int error, const char *text)
{
    if (k->closed)
        return;
    close_all(k);
    k->config.handler->on_lost(k->config.arg, error, text != NULL ? text : uv_strerror(error));
}

/* ---- Out ------------------------------------------------------------------------------- */

static void on_prepare(uv_prepare_t *prepare);

static void on_written(uv_write_t *write, int status)
{
    struct client_conn *k = write->data;
    k->write_busy = false;
    k->writing.size = 0;
    if (k->writing.size_alloc > OUT_KEEP_BYTES)
        buf_deinit(&k->writing);
    if (status < 0)
        lose(k, status, NULL);
    else if (!k->closed)
        on_prepare(&k->prepare);
    conn_unref(k);
}

static void write_rest(struct client_conn *k)
{
    struct buf *wire = wire_of(k), b = k->writing;
    k->writing = *wire;
    *wire = b;
    uv_buf_t v = uv_buf_init((char *)k->writing.data, (unsigned)k->writing.size);
    k->write.data = k;
    int rc = uv_write(&k->write, &k->u.stream, &v, 1, on_written);
    if (rc < 0) {
        lose(k, rc, NULL);
        return;
    }
    k->write_busy = true;
    k->n_busy++;
}

static void on_prepare(uv_prepare_t *prepare)
{
    struct client_conn *k = prepare->data;
    (void)uv_prepare_stop(prepare);
    if (k->closed || k->write_busy || !k->stream_open)
        return;
    if (encrypt(k) < 0) {
        lose(k, UV_EPROTO, tls_session_error(k->tls));
        return;
    }
    struct buf *wire = wire_of(k);
    if (wire->size == 0)
        return;
    uv_buf_t v = uv_buf_init((char *)wire->data, (unsigned)wire->size);
    int n = uv_try_write(&k->u.stream, &v, 1);
    if (n < 0 && n != UV_EAGAIN) {
        lose(k, n, NULL);
        return;
    }
    if (n > 0)
        buf_consume(wire, (size_t)n);
    if (wire->size > 0)
        write_rest(k);
    else if (wire->size_alloc > OUT_KEEP_BYTES)
        buf_deinit(wire);
}

struct buf *client_conn_out(struct client_conn *k)
{
    if (!k->closed && !k->write_busy)
        (void)uv_prepare_start(&k->prepare, on_prepare); /* Already started: no harm. */
    return &k->out;
}

/* ---- In -------------------------------------------------------------------------------- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buf)
{
    struct client_conn *k = handle->data;
    (void)suggested;
    struct buf *to = k->tls != NULL ? &k->raw : &k->in;
    uint8_t *p = buf_reserve(to, READ_BYTES);
    *ret_buf = uv_buf_init((char *)p, (unsigned)(to->size_alloc - to->size));
}

static void on_first_frame(struct client_conn *k, const Hf__NodeFrame *frame)
{
    char text[160];
    if (frame->body_case == HF__NODE_FRAME__BODY_FAILURE) {
        (void)snprintf(text, sizeof text, "refused: %.100s", frame->failure->text);
        lose(k, UV_EPROTONOSUPPORT, text);
        return;
    }
    if (frame->body_case != HF__NODE_FRAME__BODY_HELLO) {
        lose(k, UV_EPROTO, "it doesn't speak Holdfast's protocol");
        return;
    }
    if (frame->hello->version < WIRE_VERSION_MIN || frame->hello->version_min > WIRE_VERSION) {
        (void)snprintf(text, sizeof text, "it speaks protocol %u to %u, we %u to %u",
                       frame->hello->version_min, frame->hello->version, WIRE_VERSION_MIN,
                       WIRE_VERSION);
        lose(k, UV_EPROTONOSUPPORT, text);
        return;
    }
    const struct identity *identity = k->tls != NULL ? tls_session_peer(k->tls) : NULL;
    if (identity != NULL &&
        (identity->kind != IDENTITY_NODE || identity->node_id != frame->hello->node_id)) {
        (void)snprintf(text, sizeof text, "its certificate is that of %s/%s, not that of node/%llu",
                       identity_kind_name(identity->kind), identity->name,
                       (unsigned long long)frame->hello->node_id);
        lose(k, UV_EPROTONOSUPPORT, text);
        return;
    }
    k->ready = true;
    (void)uv_timer_stop(&k->timer);
    k->config.handler->on_hello(k->config.arg, frame->hello);
}

static void take_frames(struct client_conn *k)
{
    size_t at = 0;
    while (!k->closed) {
        struct bytes body;
        size_t size;
        struct bytes rest = bytes_of(k->in.data + at, k->in.size - at);
        int rc = frame_parse(rest, FRAME_NODE_BYTES_MAX, &body, &size);
        if (rc == 0)
            break;
        ProtobufCMessage *m =
            rc < 0 ? NULL : pack_parse(k->config.arena, &hf__node_frame__descriptor, body);
        if (m == NULL) {
            lose(k, UV_EPROTO, "it sent what is no Holdfast message");
            break;
        }
        at += size;
        if (!k->ready)
            on_first_frame(k, (const Hf__NodeFrame *)m);
        else
            k->config.handler->on_frame(k->config.arg, (const Hf__NodeFrame *)m);
        arena_reset(k->config.arena);
    }
    buf_consume(&k->in, at);
}

static void tls_read(struct client_conn *k, size_t n)
{
    int rv = tls_input(k->tls, bytes_of(k->raw.data, n), &k->in);
    (void)client_conn_out(k); /* The handshake goes on, or what waited for it can go. */
    take_frames(k);
    if (rv == -EPIPE)
        lose(k, UV_EOF, "it closed the connection");
    else if (rv == -EACCES)
        lose(k, UV_EPROTONOSUPPORT, tls_session_error(k->tls));
    else if (rv < 0)
        lose(k, UV_EPROTO, tls_session_error(k->tls));
}

/* A node that speaks TLS answers our hello in the clear with an alert (RFC 8446, 5.1), which looks
 * like the beginning of a long frame, and closes.  Return: NULL: that's not how it is. */
static const char *wants_tls(const struct client_conn *k)
{
    bool alert =
        !k->ready && k->tls == NULL && k->in.size >= 2 && k->in.data[0] == 21 && k->in.data[1] == 3;
    return alert ? "it speaks TLS: certificates are needed (tls=DIR of a mount, --tls DIR)" : NULL;
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct client_conn *k = stream->data;
    (void)buf;
    if (k->closed || n == 0)
        return;
    k->config.handler->on_wake(k->config.arg);
    if (k->closed)
        return;
    if (n < 0) {
        const char *why = wants_tls(k);
        lose(k, (int)n, why != NULL ? why : n == UV_EOF ? "it closed the connection" : NULL);
        return;
    }
    k->heard_mono_ns = clock_mono_ns(k->config.clock);
    if (k->tls != NULL) {
        tls_read(k, (size_t)n);
        return;
    }
    k->in.size += (size_t)n;
    take_frames(k);
}

/* ---- Connecting ------------------------------------------------------------------------ */

static void set_options(struct client_conn *k)
{
    uv_os_fd_t fd;
    int ms = USER_TIMEOUT_MS;
    if (k->address.is_unix || uv_fileno(&k->u.handle, &fd) < 0)
        return;
    /* Refinements: where the kernel refuses one, pings and time-outs of our own still work. */
    (void)uv_tcp_nodelay(&k->u.tcp, 1);
    (void)uv_tcp_keepalive(&k->u.tcp, 1, KEEPALIVE_S);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
}

static void say_hello(struct client_conn *k)
{
    Hf__ClientHello hello = HF__CLIENT_HELLO__INIT;
    hello.version = WIRE_VERSION;
    hello.version_min = WIRE_VERSION_MIN;
    hello.agent = (char *)(uintptr_t)k->config.agent;
    hello.host = (char *)(uintptr_t)k->config.host;
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    frame.body_case = HF__CLIENT_FRAME__BODY_HELLO;
    frame.hello = &hello;
    pack_add_frame(client_conn_out(k), &frame.base);
}

static void on_connected(uv_connect_t *connect, int status)
{
    struct client_conn *k = connect->data;
    if (!k->closed) {
        if (status == 0)
            status = uv_read_start(&k->u.stream, on_alloc, on_read);
        if (status == 0) {
            set_options(k);
            say_hello(k);
        } else {
            k->error = status;
            try_next_address(k);
        }
    }
    conn_unref(k);
}

static void on_stream_closed(uv_handle_t *handle)
{
    struct client_conn *k = handle->data;
    if (!k->closed)
        try_next_address(k);
    conn_unref(k);
}

static int connect_tcp(struct client_conn *k, const struct sockaddr *sa)
{
    int rc = uv_tcp_init(k->config.loop, &k->u.tcp);
    if (rc < 0)
        return rc;
    k->u.handle.data = k;
    k->stream_open = true;
    k->n_busy++;
    rc = uv_tcp_connect(&k->connect, &k->u.tcp, sa, on_connected);
    k->n_busy += rc == 0;
    return rc;
}

/* Try one address after the other; a stream that failed has to be closed before the next. */
static void try_next_address(struct client_conn *k)
{
    if (k->stream_open) {
        k->stream_open = false;
        uv_close(&k->u.handle, on_stream_closed);
        return;
    }
    if (k->next == NULL) {
        lose(k, k->error != 0 ? k->error : UV_EAI_NONAME, NULL);
        return;
    }
    const struct addrinfo *ai = k->next;
    k->next = ai->ai_next;
    int rc = connect_tcp(k, ai->ai_addr);
    if (rc < 0) {
        k->error = rc;
        try_next_address(k);
    }
}

static void on_resolved(uv_getaddrinfo_t *resolve, int status, struct addrinfo *found)
{
    struct client_conn *k = resolve->data;
    if (status == 0) {
        k->found = found;
        k->next = found;
    }
    if (!k->closed) {
        k->error = status;
        try_next_address(k);
    }
    conn_unref(k);
}

static void on_timeout(uv_timer_t *timer)
{
    lose(timer->data, UV_ETIMEDOUT, "no answer to the connection attempt");
}

static int connect_unix(struct client_conn *k)
{
    int rc = uv_pipe_init(k->config.loop, &k->u.pipe, 0);
    if (rc < 0)
        return rc;
    k->u.handle.data = k;
    k->stream_open = true;
    k->n_busy += 2;
    uv_pipe_connect(&k->connect, &k->u.pipe, k->address.host, on_connected);
    return 0;
}

static int resolve_start(struct client_conn *k)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    char port[8];
    (void)snprintf(port, sizeof port, "%u", k->address.port);
    k->resolve.data = k;
    int rc =
        uv_getaddrinfo(k->config.loop, &k->resolve, on_resolved, k->address.host, port, &hints);
    k->n_busy += rc == 0;
    return rc;
}

static int start(struct client_conn *k)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } sa;
    if (k->address.is_unix)
        return connect_unix(k);
    /* Numbers need no thread of the pool. */
    if (uv_ip4_addr(k->address.host, k->address.port, &sa.v4) == 0 ||
        uv_ip6_addr(k->address.host, k->address.port, &sa.v6) == 0)
        return connect_tcp(k, &sa.any);
    return resolve_start(k);
}

/* What failed at once is told from the loop, by way of the timer. */
static void on_failed_early(uv_timer_t *timer)
{
    struct client_conn *k = timer->data;
    lose(k, k->error, NULL);
}

struct client_conn *client_conn_new(const struct client_conn_config *config)
{
    struct client_conn *k = xcalloc(1, sizeof *k);
    k->config = *config;
    k->address = *config->address;
    k->connect.data = k;
    k->n_busy = 2;
    k->heard_mono_ns = clock_mono_ns(config->clock);
    (void)uv_timer_init(config->loop, &k->timer); /* These two always succeed. */
    (void)uv_prepare_init(config->loop, &k->prepare);
    k->timer.data = k;
    k->prepare.data = k;
    uv_update_time(config->loop);
    if (config->tls != NULL && !config->address->is_unix)
        k->tls = tls_session_new(config->tls, TLS_CLIENT);
    k->error = start(k);
    if (k->error < 0)
        (void)uv_timer_start(&k->timer, on_failed_early, 0, 0);
    else
        (void)uv_timer_start(&k->timer, on_timeout, config->connect_timeout_ms, 0);
    return k;
}

bool client_conn_ready(const struct client_conn *k)
{
    return k->ready && !k->closed;
}

size_t client_conn_backlog_bytes(const struct client_conn *k)
{
    return k->out.size + (k->tls != NULL ? tls_wire(k->tls)->size : 0) + k->writing.size;
}

uint64_t client_conn_heard_mono_ns(const struct client_conn *k)
{
    return k->heard_mono_ns;
}
