#include "telemetry/endpoint.h"

#include "raftstore/base/log.h"
#include "telemetry/http_loop.h"
#include "telemetry/process.h"

#include <bsd/sys/queue.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SWEEP_MS          1000
#define CONNECTION_MEMORY ((size_t)16384) /* A request's head, and that of its answer. */

enum state {
    FRESH,   /* No head yet. */
    BEGUN,   /* The end of the request is to come. */
    WAITING, /* For /metrics: suspended until the process was looked at. */
    LOOKED,  /* It was. */
};

/* One connection, one request. */
struct conn {
    TAILQ_ENTRY(conn) link; /* Oldest first. */
    struct endpoint *endpoint;
    struct MHD_Connection *mhd;
    int fd;
    uint64_t since_ms; /* Loop time of its accept. */
    enum state state;
    bool shut;
};
TAILQ_HEAD(conn_list, conn);

struct endpoint {
    struct endpoint_config config;
    struct MHD_Daemon *mhd;
    struct http_loop http;
    uv_timer_t sweep;
    uv_work_t job;
    bool job_runs;
    struct process_stats looked;  /* The job's. */
    struct process_stats process; /* What it found last. */
    struct conn_list conns;
    unsigned n_conns;
    bool closing;
    unsigned n_open; /* Handles and jobs that are to end before we are freed. */
    char address[300];
    void (*on_closed)(void *arg);
    void *on_closed_arg;
};

/* ---- Connections ----------------------------------------------------------------------- */

/* MHD closes it when it sees the end; a suspended one when it is resumed. */
static void shut(struct conn *c)
{
    if (!c->shut)
        (void)shutdown(c->fd, SHUT_RDWR); /* Fails when the peer was faster. */
    c->shut = true;
}

static void make_room(struct endpoint *e)
{
    struct conn *c;
    unsigned n_shut = 0;
    TAILQ_FOREACH(c, &e->conns, link)
    {
        if (e->n_conns - n_shut < ENDPOINT_CONNECTIONS_MAX - 1)
            return;
        n_shut++;
        shut(c);
    }
}

static void conn_open(struct endpoint *e, struct MHD_Connection *mhd, void **context)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info == NULL)
        return; /* on_request() ends it. */
    make_room(e);
    struct conn *c = xcalloc(1, sizeof *c);
    c->endpoint = e;
    c->mhd = mhd;
    c->fd = info->connect_fd;
    c->since_ms = uv_now(e->config.loop);
    TAILQ_INSERT_TAIL(&e->conns, c, link);
    e->n_conns++;
    *context = c;
}

static void on_connection(void *cls,
                          struct MHD_Connection *mhd,
                          void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct endpoint *e = cls;
    struct conn *c = *context;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        conn_open(e, mhd, context);
    } else if (c != NULL) {
        TAILQ_REMOVE(&e->conns, c, link);
        e->n_conns--;
        free(c);
        http_loop_due(&e->http); /* At its limit it accepts again only when it is run. */
    }
}

static void on_sweep(uv_timer_t *timer)
{
    struct endpoint *e = timer->data;
    struct conn *c;
    uint64_t now = uv_now(e->config.loop);
    TAILQ_FOREACH(c, &e->conns, link)
    {
        if (now - c->since_ms < ENDPOINT_LIFE_MS)
            break;
        shut(c);
    }
    http_loop_due(&e->http); /* Out of descriptors it accepts again only when it is run. */
}

/* ---- Answers --------------------------------------------------------------------------- */

static enum MHD_Result answer(struct conn *c, unsigned status, const char *type, struct buf *text)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(text->size, text->data, MHD_RESPMEM_MUST_FREE);
    if (r == NULL) {
        buf_deinit(text);
        return MHD_NO;
    }
    (void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONNECTION,
                                  "close"); /* All are well formed. */
    (void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    (void)MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        (void)MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    enum MHD_Result rv = MHD_queue_response(c->mhd, status, r);
    MHD_destroy_response(r); /* Our reference. */
    return rv;
}

static enum MHD_Result answer_line(struct conn *c, unsigned status, const char *line)
{
    struct buf text = BUF_INIT;
    buf_printf(&text, "%s\n", line);
    return answer(c, status, "text/plain; charset=utf-8", &text);
}

static enum MHD_Result answer_ready(struct conn *c)
{
    const struct endpoint *e = c->endpoint;
    const char *why = e->config.unready(e->config.arg);
    return why == NULL ? answer_line(c, MHD_HTTP_OK, "ready")
                       : answer_line(c, MHD_HTTP_SERVICE_UNAVAILABLE, why);
}

static enum MHD_Result answer_metrics(struct conn *c)
{
    const struct endpoint *e = c->endpoint;
    struct buf text = BUF_INIT;
    build_info_write(e->config.component, &text);
    e->config.metrics(e->config.arg, &text);
    process_stats_write(&e->process, &text);
    return answer(c, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", &text);
}

/* ---- The process: looked at anew for each scrape, beside the loop ------------------------ */

static void unref(struct endpoint *e)
{
    if (--e->n_open > 0)
        return;
    void (*cb)(void *arg) = e->on_closed;
    void *arg = e->on_closed_arg;
    free(e);
    if (cb != NULL)
        cb(arg);
}

static void on_look(uv_work_t *job)
{
    struct endpoint *e = job->data;
    process_stats_read(&e->looked, e->config.data);
}

static void resume_all(struct endpoint *e)
{
    struct conn *c;
    TAILQ_FOREACH(c, &e->conns, link)
    {
        if (c->state != WAITING)
            continue;
        c->state = LOOKED;
        MHD_resume_connection(c->mhd);
    }
}

static void on_looked(uv_work_t *job, int status)
{
    struct endpoint *e = job->data;
    (void)status; /* It is never cancelled. */
    e->job_runs = false;
    e->process = e->looked;
    if (!e->closing) {
        resume_all(e);
        http_loop_due(&e->http);
    }
    unref(e);
}

static bool look(struct endpoint *e)
{
    if (e->job_runs)
        return true; /* What it finds is of this moment. */
    e->job.data = e;
    if (uv_queue_work(e->config.loop, &e->job, on_look, on_looked) < 0)
        return false;
    e->job_runs = true;
    e->n_open++;
    return true;
}

static enum MHD_Result metrics(struct conn *c)
{
    if (c->state == LOOKED || !look(c->endpoint))
        return answer_metrics(c);
    c->state = WAITING;
    MHD_suspend_connection(c->mhd);
    return MHD_YES;
}

/* ---- Requests -------------------------------------------------------------------------- */

static bool has_body(struct MHD_Connection *mhd)
{
    const char *size =
        MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return (size != NULL && strcmp(size, "0") != 0) ||
           MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, MHD_HTTP_HEADER_TRANSFER_ENCODING) !=
               NULL;
}

/* The head: refuse what is to be refused before a body comes. */
static enum MHD_Result begin(struct conn *c, const char *url, const char *method)
{
    c->state = BEGUN;
    if (strcmp(url, "/metrics") != 0 && strcmp(url, "/healthz") != 0 && strcmp(url, "/readyz") != 0)
        return answer_line(c, MHD_HTTP_NOT_FOUND,
                           "not found: there are /metrics, /healthz and /readyz");
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return answer_line(c, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD are allowed");
    if (has_body(c->mhd))
        return answer_line(c, MHD_HTTP_CONTENT_TOO_LARGE, "a request here has no body");
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
    const struct endpoint *e = cls;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct conn *c = info != NULL ? info->socket_context : NULL;
    (void)version;
    (void)data;
    (void)context;
    if (c == NULL || e->closing || *size > 0)
        return MHD_NO; /* Closed. */
    if (c->state == FRESH)
        return begin(c, url, method);
    if (strcmp(url, "/metrics") == 0)
        return metrics(c);
    return strcmp(url, "/readyz") == 0 ? answer_ready(c) : answer_line(c, MHD_HTTP_OK, "ok");
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

/* ---- Beginning and end ----------------------------------------------------------------- */

static int start(struct endpoint *e, int fd)
{
    e->mhd = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, e,
        MHD_OPTION_EXTERNAL_LOGGER, on_log, e, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, ENDPOINT_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        CONNECTION_MEMORY, MHD_OPTION_CONNECTION_TIMEOUT, 0u, MHD_OPTION_NOTIFY_CONNECTION,
        on_connection, e, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
        MHD_OPTION_END);
    if (e->mhd == NULL) {
        (void)close(fd); /* Nothing was written to it. */
        return -EIO;
    }
    int rv = http_loop_start(&e->http, e->config.loop, e->mhd);
    if (rv < 0) {
        MHD_stop_daemon(e->mhd); /* Closes the socket, too. */
        return rv;
    }
    e->n_open = 2;
    (void)uv_timer_init(e->config.loop, &e->sweep); /* These can't fail. */
    e->sweep.data = e;
    (void)uv_timer_start(&e->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
    return 0;
}

int endpoint_open(const struct endpoint_config *config,
                  struct endpoint **ret_endpoint,
                  char **ret_sentence)
{
    struct endpoint *e = xcalloc(1, sizeof *e);
    e->config = *config;
    TAILQ_INIT(&e->conns);
    int fd =
        http_listen(&config->address, config->insecure, config->remedy, e->address, ret_sentence);
    if (fd < 0) {
        free(e);
        return fd;
    }
    int rv = start(e, fd);
    if (rv < 0) {
        *ret_sentence = xasprintf("libmicrohttpd could not start: %s", uv_strerror(rv));
        free(e);
        return rv;
    }
    *ret_endpoint = e;
    return 0;
}

const char *endpoint_address(const struct endpoint *e)
{
    return e->address;
}

static void on_http_closed(void *arg)
{
    unref(arg);
}

static void on_sweep_closed(uv_handle_t *handle)
{
    unref(handle->data);
}

void endpoint_close(struct endpoint *e, void (*cb)(void *arg), void *arg)
{
    e->closing = true;
    e->on_closed = cb;
    e->on_closed_arg = arg;
    resume_all(e);         /* Nothing may be suspended when it is stopped. */
    (void)MHD_run(e->mhd); /* It does what it can; they are closed in either case. */
    uv_close((uv_handle_t *)&e->sweep, on_sweep_closed);
    http_loop_close(&e->http, on_http_closed, e);
    MHD_stop_daemon(e->mhd);
}
