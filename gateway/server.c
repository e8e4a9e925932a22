#include "gateway/server.h"

#include "gateway/call.h"
#include "gateway/certificate.h"
#include "gateway/conn.h"
#include "gateway/framing.h"
#include "raftstore/base/log.h"
#include "telemetry/http_loop.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define SWEEP_MS 500
#define CONNECTION_MEMORY                                                                          \
    ((size_t)24576)           /* Head and answer of one connection; kept while it is open. */
#define DESCRIPTORS_ASIDE 128 /* For everything but connections. */
#define TLS_PRIORITIES    "SECURE128:-VERS-ALL:+VERS-TLS1.3"

struct server {
    struct gateway *gw;
    struct MHD_Daemon *mhd;
    struct conns conns;
    struct http_loop http;
    uv_timer_t sweep;
    int fd; /* Listens; -1 once it is MHD's or closed. */
    char address[300];
    unsigned n_open; /* Loop and timer, until they are closed. */
    void (*on_closed)(void *arg);
    void *arg;
};

/* ---- What libmicrohttpd tells ---------------------------------------------------------- */

static struct conn *conn_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info != NULL ? info->socket_context : NULL;
}

static void on_connection(void *cls,
                          struct MHD_Connection *mhd,
                          void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct server *s = cls;
    if (what == MHD_CONNECTION_NOTIFY_STARTED)
        *context = conn_open(&s->conns, mhd);
    else if (*context != NULL)
        conn_closed(*context);
}

static void *on_uri(void *cls, const char *uri, struct MHD_Connection *mhd)
{
    struct server *s = cls;
    (void)mhd;
    return call_begin(s->gw, uri);
}

static enum MHD_Result queue(struct call *call)
{
    enum MHD_Result rv = MHD_queue_response(call->mhd, call->status, call->response);
    call->state = CALL_ANSWERED;
    if (call->on_gone == NULL) /* Else it is a stream, which has no end. */
        conn_phase(call->conn, PHASE_ANSWERING);
    return rv;
}

/* Must an answer go out before the body came, since reading that would be a waste? */
static bool refuse_body(struct call *call)
{
    const char *size =
        MHD_lookup_connection_value(call->mhd, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    const char *expect =
        MHD_lookup_connection_value(call->mhd, MHD_HEADER_KIND, MHD_HTTP_HEADER_EXPECT);
    unsigned long long bytes = size != NULL ? strtoull(size, NULL, 10) : 0;
    if (bytes > CALL_BODY_BYTES_MAX && call->response == NULL) {
        call->too_large = true;
        call_problem(call, &PROBLEM_TOO_LARGE, "a body may have %u bytes, not %llu",
                     CALL_BODY_BYTES_MAX, bytes);
    }
    return call->response != NULL && (bytes > CALL_SWALLOW_MAX || (bytes > 0 && expect != NULL));
}

static enum MHD_Result
on_head(struct call *call, struct MHD_Connection *mhd, const char *method, const char *version)
{
    call->mhd = mhd;
    call->conn = conn_of(mhd);
    if (call->conn == NULL)
        return MHD_NO;
    call->conn->call = call;
    conn_phase(call->conn, PHASE_BODY);
    const char *wrong = framing_problem(mhd, call->uri, version);
    call_head(call, method, wrong);
    call->state = CALL_BODY;
    return wrong != NULL || refuse_body(call) ? queue(call) : MHD_YES;
}

static enum MHD_Result on_end(struct call *call)
{
    conn_phase(call->conn, PHASE_WORKING);
    call->state = CALL_RUNNING;
    if (call->response == NULL)
        call_run(call);
    if (call->response != NULL)
        return queue(call);
    call->state = CALL_PARKED;
    conn_suspend(call->conn);
    return MHD_YES;
}

static enum MHD_Result on_request(void *cls,
                                  struct MHD_Connection *mhd,
                                  const char *url,
                                  const char *method,
                                  const char *version,
                                  const char *data,
                                  size_t *size,
                                  void **context)
{
    struct call *call = *context;
    (void)cls;
    (void)url; /* Decoded: a slash in a lock's name can't be told from a separator any more. */
    switch (call->state) {
    case CALL_HEAD:
        return on_head(call, mhd, method, version);
    case CALL_BODY:
        if (*size == 0)
            return on_end(call);
        call_body(call, data, *size);
        *size = 0;
        return call->body_bytes <= CALL_SWALLOW_MAX ? MHD_YES : MHD_NO;
    case CALL_PARKED:
        return call->response != NULL ? queue(call) : MHD_YES;
    default: /* Gone. */
        return MHD_NO;
    }
}

static void on_completed(void *cls,
                         struct MHD_Connection *mhd,
                         void **context,
                         enum MHD_RequestTerminationCode code)
{
    struct call *call = *context;
    (void)cls;
    (void)mhd;
    (void)code;
    *context = NULL;
    if (call == NULL)
        return;
    if (call->conn != NULL) {
        call->conn->call = NULL;
        conn_phase(call->conn, PHASE_IDLE);
    }
    call_gone(call);
    call_free(call);
}

/* The target stays as it came: what is an escaped slash matters. */
static size_t on_unescape(void *cls, struct MHD_Connection *mhd, char *text)
{
    (void)cls;
    (void)mhd;
    return strlen(text);
}

static void on_log(void *cls, const char *format, va_list args)
{
    char line[300];
    (void)cls;
    if (!log_enabled(LOG_LEVEL_DEBUG))
        return;
    (void)vsnprintf(line, sizeof line, format, args);
    line[strcspn(line, "\n")] = '\0';
    LOG_DEBUG("http", "what=%s", log_quote(bytes_str(line)));
}

/* ---- The loop -------------------------------------------------------------------------- */

static void on_work(void *arg)
{
    struct server *s = arg;
    http_loop_due(&s->http);
}

static void on_sweep(uv_timer_t *timer)
{
    struct server *s = timer->data;
    conns_sweep(&s->conns);
    http_loop_due(&s->http); /* Out of descriptors it accepts again only when it is run. */
}

/* ---- Beginning and end ----------------------------------------------------------------- */

/* As many connections as asked for, or as there can be. */
static unsigned connections_max(unsigned wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return wanted;
    rlim_t room = limit.rlim_cur > 2 * DESCRIPTORS_ASIDE ? limit.rlim_cur - DESCRIPTORS_ASIDE
                                                         : limit.rlim_cur / 2;
    return room < wanted ? (unsigned)room : wanted;
}

static int start_mhd(struct server *s, const struct options *o, char **ret_sentence)
{
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_CERT_CALLBACK2, 0, (void *)(uintptr_t)certificate_retrieve},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)TLS_PRIORITIES},
        {MHD_OPTION_END, 0, NULL},
    };
    if (o->tls_cert != NULL)
        flags |= MHD_USE_TLS;
    else
        tls[0].option = MHD_OPTION_END;
    s->mhd = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, on_log, s,
        MHD_OPTION_LISTEN_SOCKET, s->fd, MHD_OPTION_CONNECTION_LIMIT, s->conns.n_max,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY, MHD_OPTION_CONNECTION_TIMEOUT, 0u,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
        s, MHD_OPTION_URI_LOG_CALLBACK, on_uri, s, MHD_OPTION_UNESCAPE_CALLBACK, on_unescape, s,
        MHD_OPTION_STRICT_FOR_CLIENT, 0, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_ARRAY,
        tls, MHD_OPTION_END);
    if (s->mhd != NULL)
        return 0;
    *ret_sentence = xstrdup("libmicrohttpd could not start");
    return -EIO;
}

static int start_handles(struct server *s, char **ret_sentence)
{
    uv_loop_t *loop = s->gw->loop;
    int rv = http_loop_start(&s->http, loop, s->mhd);
    if (rv < 0) {
        *ret_sentence = xasprintf("libmicrohttpd has no epoll: %s", uv_strerror(rv));
        return rv;
    }
    (void)uv_timer_init(loop, &s->sweep); /* These can't fail. */
    s->sweep.data = s;
    (void)uv_timer_start(&s->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
    return 0;
}

int server_new(struct gateway *gw, struct server **ret, char **ret_sentence)
{
    const struct options *o = gw->options;
    struct server *s = xcalloc(1, sizeof *s);
    s->gw = gw;
    s->fd = -1;
    conns_init(&s->conns, gw->loop, gw->metrics, connections_max(o->connections_max));
    s->conns.on_work = on_work;
    s->conns.arg = s;
    /* What may be beyond loopback was decided with the options. */
    s->fd = http_listen(&o->listen, true, "--insecure", s->address, ret_sentence);
    int rv = s->fd < 0 ? s->fd : 0;
    if (rv == 0)
        rv = start_mhd(s, o, ret_sentence);
    if (rv == 0)
        rv = start_handles(s, ret_sentence);
    if (rv < 0) {
        if (s->mhd != NULL)
            MHD_stop_daemon(s->mhd); /* Closes the socket, too. */
        else if (s->fd >= 0)
            (void)close(s->fd);
        free(s);
        return rv;
    }
    *ret = s;
    return 0;
}

const char *server_address(const struct server *s)
{
    return s->address;
}

unsigned server_n_connections(const struct server *s)
{
    return s->conns.n;
}

void server_drain(struct server *s)
{
    MHD_socket fd = MHD_quiesce_daemon(s->mhd);
    if (fd != MHD_INVALID_SOCKET)
        (void)close(fd);
    http_loop_run(&s->http); /* What came is taken before the idle ones are closed. */
    s->conns.draining = true;
    conns_shut(&s->conns, PHASE_FRESH);
    conns_shut(&s->conns, PHASE_IDLE);
}

static void unref(struct server *s)
{
    if (--s->n_open > 0)
        return;
    void (*cb)(void *arg) = s->on_closed;
    void *arg = s->arg;
    free(s);
    cb(arg);
}

static void on_http_closed(void *arg)
{
    unref(arg);
}

static void on_sweep_closed(uv_handle_t *handle)
{
    unref(handle->data);
}

void server_close(struct server *s, void (*cb)(void *arg), void *arg)
{
    s->on_closed = cb;
    s->arg = arg;
    for (unsigned i = 0; i < PHASES; i++) {
        struct conn *c;
        TAILQ_FOREACH(c, &s->conns.by_phase[i], link)
        {
            conn_shut(c);
            if (!c->suspended)
                continue;
            call_gone(c->call);
            if (c->suspended)
                conn_resume(c);
        }
    }
    (void)MHD_run(s->mhd); /* Nothing may be suspended when it is stopped. */
    s->n_open = 2;
    http_loop_close(&s->http, on_http_closed, s);
    uv_close((uv_handle_t *)&s->sweep, on_sweep_closed);
    MHD_stop_daemon(s->mhd);
}
