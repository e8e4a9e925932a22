#include "gateway/call.h"

#include "gateway/access.h"
#include "gateway/handlers.h"
#include "gateway/lockid.h"
#include "gateway/owner.h"
#include "gateway/server.h"
#include "gateway/share.h"
#include "gateway/tracing.h"
#include "raftstore/base/log.h"

#include <assert.h>
#include <stdlib.h>
#include <strings.h>

struct kind {
    const char *method; /* HEAD goes with GET. */
    void (*handle)(struct call *call);
    bool open; /* To everybody, at any time: about the gateway itself. */
};

static const struct kind kinds[CALL_KINDS] = {
    [CALL_KIND_ACQUIRE] = {"POST", handle_acquire},
    [CALL_KIND_RELEASE] = {"POST", handle_release},
    [CALL_KIND_RENEW] = {"POST", handle_renew},
    [CALL_KIND_SHOW] = {"GET", handle_show},
    [CALL_KIND_LIST] = {"GET", handle_list},
    [CALL_KIND_EVENTS] = {"GET", handle_events},
    [CALL_KIND_HEALTH] = {"GET", handle_health, true},
    [CALL_KIND_READY] = {"GET", handle_ready, true},
    [CALL_KIND_METRICS] = {"GET", handle_metrics, true},
    [CALL_KIND_OPENAPI] = {"GET", handle_openapi, true},
};

static const struct {
    const char *path;
    enum call_kind kind;
} paths[] = {
    {"/healthz", CALL_KIND_HEALTH},  {"/readyz", CALL_KIND_READY},
    {"/metrics", CALL_KIND_METRICS}, {"/openapi.json", CALL_KIND_OPENAPI},
    {"/locks", CALL_KIND_LIST},      {"/locks/", CALL_KIND_LIST},
};

/* POST knows these; with GET they are names of locks. */
static const struct {
    const char *path;
    enum call_kind kind;
} posts[] = {
    {"/locks/acquire", CALL_KIND_ACQUIRE},
    {"/locks/release", CALL_KIND_RELEASE},
    {"/locks/renew", CALL_KIND_RENEW},
};

struct call *call_begin(struct gateway *gw, const char *uri)
{
    struct call *call = xcalloc(1, sizeof *call);
    call->gw = gw;
    call->state = CALL_HEAD;
    call->uri = xstrdup(uri);
    return call;
}

void call_free(struct call *call)
{
    if (call->response != NULL)
        MHD_destroy_response(call->response);
    tracing_gone(call);
    buf_deinit(&call->lock_id);
    buf_deinit(&call->body);
    share_give(call);
    guard_caller_unref(call->caller);
    free(call->uri);
    free(call);
}

/* The path of the target, without query, and without the authority of the absolute form
 * (RFC 9112, 3.2.2). */
static struct bytes split_target(struct call *call)
{
    char *path = call->uri;
    if (strncasecmp(path, "http://", 7) == 0 || strncasecmp(path, "https://", 8) == 0) {
        path = strchr(strchr(path, '/') + 2, '/');
        if (path == NULL)
            return bytes_str("/");
    }
    size_t n = strcspn(path, "?");
    call->query = bytes_str(path[n] == '?' ? path + n + 1 : path + n);
    return bytes_of(path, n);
}

/* A lock's path: everything behind "/locks/", or that without "/events" at its end. */
static enum call_kind find_lock(struct call *call, struct bytes path)
{
    static const char events[] = "/events";
    const size_t n_prefix = strlen("/locks/"), n_events = strlen(events);
    struct bytes id = bytes_of((const char *)path.data + n_prefix, path.size - n_prefix);
    enum call_kind kind = CALL_KIND_SHOW;
    if (id.size > n_events &&
        memcmp((const char *)id.data + id.size - n_events, events, n_events) == 0) {
        id.size -= n_events;
        kind = CALL_KIND_EVENTS;
    }
    if (percent_undo(&call->lock_id, id) < 0)
        call_problem(call, &PROBLEM_BAD_LOCK_ID, "a '%%' without two hexadecimal digits behind it");
    else if (lockid_problem(bytes_of(call->lock_id.data, call->lock_id.size)) != NULL)
        call_problem(call, &PROBLEM_BAD_LOCK_ID, "%s",
                     lockid_problem(bytes_of(call->lock_id.data, call->lock_id.size)));
    return kind;
}

static enum call_kind find_kind(struct call *call, struct bytes path, bool post)
{
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        if (bytes_equal(path, bytes_str(paths[i].path)))
            return paths[i].kind;
    for (size_t i = 0; i < sizeof posts / sizeof posts[0] && post; i++)
        if (bytes_equal(path, bytes_str(posts[i].path)))
            return posts[i].kind;
    if (path.size > strlen("/locks/") && memcmp(path.data, "/locks/", strlen("/locks/")) == 0)
        return find_lock(call, path);
    call_problem(call, &PROBLEM_NOT_FOUND, "there is nothing at this path");
    return CALL_KIND_OTHER;
}

/* Is it the path of a POST, by any method? */
static bool is_post(struct bytes path)
{
    for (size_t i = 0; i < sizeof posts / sizeof posts[0]; i++)
        if (bytes_equal(path, bytes_str(posts[i].path)))
            return true;
    return false;
}

void call_head(struct call *call, const char *method, const char *malformed)
{
    call->boot_ns = clock_boot_ns(clock_system());
    call->gw->metrics->in_flight++;
    call->head_only = strcmp(method, "HEAD") == 0;
    if (malformed != NULL) {
        call_header(call, "Connection", "close");
        call_problem(call, &PROBLEM_BAD_REQUEST, "%s", malformed);
        return;
    }
    struct bytes path = split_target(call);
    tracing_begin(call, method, path);
    call->kind = find_kind(call, path, strcmp(method, "POST") == 0);
    const char *wanted = kinds[call->kind].method;
    if (call->response != NULL)
        return; /* There is something wrong with the path. */
    if (strcmp(method, wanted) != 0 && !(call->head_only && strcmp(wanted, "GET") == 0)) {
        const char *allowed = is_post(path) ? "GET, HEAD, POST" : "GET, HEAD";
        call_header(call, "Allow", "%s", allowed);
        call_problem(call, &PROBLEM_METHOD, "this path knows %s only", allowed);
    } else if (!kinds[call->kind].open) {
        access_look(call);
    }
}

void call_body(struct call *call, const void *data, size_t size)
{
    call->body_bytes += size;
    if (call->body_bytes > CALL_BODY_BYTES_MAX)
        call->too_large = true;
    if (call->too_large || call->response != NULL)
        buf_deinit(&call->body);
    else
        buf_add(&call->body, data, size);
}

static void handle(struct call *call)
{
    kinds[call->kind].handle(call);
    buf_deinit(&call->body);
    call->body = BUF_INIT;
}

void call_run(struct call *call)
{
    if (call->too_large)
        call_problem(call, &PROBLEM_TOO_LARGE, "a body may have %u bytes", CALL_BODY_BYTES_MAX);
    else if (kinds[call->kind].open)
        handle(call);
    else if (call->gw->draining)
        call_problem(call, &PROBLEM_STOPPING, "this gateway stops; ask another one");
    else
        access_enter(call, handle);
}

void call_gone(struct call *call)
{
    if (call->response == NULL && call->state != CALL_GONE && call->mhd != NULL)
        call->gw->metrics->in_flight--;
    call->state = CALL_GONE;
    void (*on_gone)(struct call *) = call->on_gone;
    call->on_gone = NULL;
    if (on_gone != NULL)
        on_gone(call);
}

/* ---- Answers --------------------------------------------------------------------------- */

void call_header(struct call *call, const char *name, const char *format, ...)
{
    assert(call->n_headers < sizeof call->headers / sizeof call->headers[0]);
    struct call_header *h = &call->headers[call->n_headers++];
    va_list args;
    h->name = name;
    va_start(args, format);
    (void)vsnprintf(h->value, sizeof h->value, format, args);
    va_end(args);
}

static void add_rate(struct call *call)
{
    const struct rate_state *r = &call->rate;
    if (r->limit == 0)
        return;
    call_header(call, "RateLimit-Limit", "%llu", (unsigned long long)r->limit);
    call_header(call, "RateLimit-Remaining", "%llu", (unsigned long long)r->remaining);
    call_header(call, "RateLimit-Reset", "%llu", (unsigned long long)r->reset_s);
}

/* The answer is there: libmicrohttpd gets it now, or with its next question. */
static void answer(struct call *call, unsigned status, const char *type, struct MHD_Response *r)
{
    assert(call->response == NULL && r != NULL);
    struct gateway *gw = call->gw;
    call->status = status;
    call->response = r;
    (void)MHD_add_response_header(r, "Content-Type", type);
    (void)MHD_add_response_header(r, "Cache-Control", "no-store");
    add_rate(call);
    for (unsigned i = 0; i < call->n_headers; i++)
        (void)MHD_add_response_header(r, call->headers[i].name, call->headers[i].value);
    tracing_answer(call, status);
    if (gw->draining)
        (void)MHD_add_response_header(r, "Connection", "close");
    gw->metrics->in_flight--;
    metrics_answered(gw->metrics, call->kind, status,
                     clock_boot_ns(clock_system()) - call->boot_ns);
    char id[TRACE_ID_HEX + 1];
    LOG_DEBUG("answered", "call=%s status=%u trace_id=%s", call_kind_name(call->kind), status,
              trace_hex(call->trace.trace_id, TRACE_ID_BYTES, id));
    if (call->state == CALL_PARKED)
        conn_resume(call->conn);
}

static void done(struct call *call)
{
    call->on_gone = NULL;
    call->op = NULL;
}

void call_answer_json(struct call *call, unsigned status, json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT);
    json_decref(value);
    assert(text != NULL); /* Every string in it is UTF-8. */
    done(call);
    answer(call, status, "application/json",
           MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE));
}

void call_answer_text(struct call *call, unsigned status, const char *type, struct buf *text)
{
    struct buf taken = *text;
    *text = BUF_INIT;
    done(call);
    answer(call, status, type,
           MHD_create_response_from_buffer(taken.size, taken.data, MHD_RESPMEM_MUST_FREE));
}

void call_answer_static(struct call *call, const char *type, struct bytes text)
{
    done(call);
    answer(call, 200, type,
           MHD_create_response_from_buffer(text.size, (void *)(uintptr_t)text.data,
                                           MHD_RESPMEM_PERSISTENT));
}

void call_answer_stream(struct call *call,
                        const char *type,
                        MHD_ContentReaderCallback reader,
                        void *arg,
                        MHD_ContentReaderFreeCallback end)
{
    answer(call, 200, type,
           MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 4096, reader, arg, end));
}
