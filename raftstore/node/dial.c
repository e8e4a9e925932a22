#include "raftstore/node/dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define ADDRESSES_MAX 8

struct attempt {
    uv_connect_t connect;
    struct dial *dial; /* NULL: nobody waits for it any more. */
    struct stream *stream;
};

struct dial {
    uv_getaddrinfo_t resolve;
    uv_timer_t timer;
    struct stream_hub *hub;
    struct address address;
    struct sockaddr_storage found[ADDRESSES_MAX];
    unsigned n_found;
    unsigned next;
    unsigned timeout_ms;
    int status; /* Of the last attempt. */
    struct attempt *attempt;
    bool resolving; /* libuv has `resolve`. */
    bool over;      /* Only to be freed when libuv lets go. */
    bool timer_closed;
    void (*cb)(void *arg, int status, struct stream *s);
    void *arg;
};

static void dial_next(struct dial *d);

bool dial_literal(const struct address *address, struct sockaddr_storage *ret)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(address->port)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(address->port)};
    *ret = (struct sockaddr_storage){0};
    if (inet_pton(AF_INET, address->host, &in.sin_addr) == 1) {
        memcpy(ret, &in, sizeof in);
        return true;
    }
    if (inet_pton(AF_INET6, address->host, &in6.sin6_addr) == 1) {
        memcpy(ret, &in6, sizeof in6);
        return true;
    }
    return false;
}

static void dial_unref(struct dial *d)
{
    if (d->over && !d->resolving && d->timer_closed)
        free(d);
}

static void timer_closed(uv_handle_t *handle)
{
    struct dial *d = handle->data;
    d->timer_closed = true;
    dial_unref(d);
}

static void dial_over(struct dial *d)
{
    d->over = true;
    if (d->attempt != NULL) {
        d->attempt->dial = NULL; /* Its callback frees it. */
        stream_close(d->attempt->stream);
        d->attempt = NULL;
    }
    if (d->resolving)
        (void)uv_cancel((uv_req_t *)&d->resolve); /* If it runs already, its callback comes. */
    uv_close((uv_handle_t *)&d->timer, timer_closed);
}

static void dial_report(struct dial *d, int status, struct stream *s)
{
    d->attempt = NULL;
    dial_over(d);
    d->cb(d->arg, status, s);
}

static void connected(uv_connect_t *req, int status)
{
    struct attempt *a = req->data;
    struct dial *d = a->dial;
    struct stream *s = a->stream;
    free(a);
    if (d == NULL)
        return;
    d->attempt = NULL;
    if (status == 0) {
        dial_report(d, 0, s);
        return;
    }
    stream_close(s);
    d->status = status;
    dial_next(d);
}

static void timed_out(uv_timer_t *timer)
{
    struct dial *d = timer->data;
    if (d->attempt == NULL)
        return;
    d->attempt->dial = NULL;
    stream_close(d->attempt->stream);
    d->attempt = NULL;
    d->status = UV_ETIMEDOUT;
    dial_next(d);
}

static struct attempt *attempt_new(struct dial *d)
{
    struct attempt *a = xcalloc(1, sizeof *a);
    a->connect.data = a;
    a->dial = d;
    a->stream = stream_new(d->hub, d->address.is_unix, TLS_CLIENT);
    d->attempt = a;
    (void)uv_timer_start(&d->timer, timed_out, d->timeout_ms, 0);
    return a;
}

static void dial_next(struct dial *d)
{
    while (d->next < d->n_found) {
        struct attempt *a = attempt_new(d);
        int rv = uv_tcp_connect(&a->connect, (uv_tcp_t *)stream_handle(a->stream),
                                (const struct sockaddr *)&d->found[d->next++], connected);
        if (rv == 0)
            return;
        stream_close(a->stream);
        free(a);
        d->attempt = NULL;
        d->status = rv;
    }
    dial_report(d, d->status, NULL);
}

static void resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
    struct dial *d = req->data;
    d->resolving = false;
    if (d->over) {
        uv_freeaddrinfo(list);
        dial_unref(d);
        return;
    }
    d->status = status < 0 ? status : UV_EAI_NODATA;
    for (struct addrinfo *i = list; i != NULL && d->n_found < ADDRESSES_MAX; i = i->ai_next)
        if (i->ai_addrlen <= sizeof d->found[0])
            memcpy(&d->found[d->n_found++], i->ai_addr, i->ai_addrlen);
    uv_freeaddrinfo(list);
    dial_next(d);
}

static void literal_ready(uv_timer_t *timer)
{
    dial_next(timer->data);
}

static void dial_unix(uv_timer_t *timer)
{
    struct dial *d = timer->data;
    struct attempt *a = attempt_new(d);
    uv_pipe_connect(&a->connect, (uv_pipe_t *)stream_handle(a->stream), d->address.host, connected);
}

static void dial_name(struct dial *d)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    char port[8];
    (void)snprintf(port, sizeof port, "%u", d->address.port);
    d->resolve.data = d;
    int rv = uv_getaddrinfo(d->hub->loop, &d->resolve, resolved, d->address.host, port, &hints);
    if (rv == 0) {
        d->resolving = true;
        return;
    }
    d->status = rv;
    (void)uv_timer_start(&d->timer, literal_ready, 0, 0); /* Reports it from the loop. */
}

struct dial *dial_start(struct stream_hub *hub,
                        const struct address *address,
                        unsigned timeout_ms,
                        void (*cb)(void *arg, int status, struct stream *s),
                        void *arg)
{
    struct dial *d = xcalloc(1, sizeof *d);
    d->hub = hub;
    d->address = *address;
    d->timeout_ms = timeout_ms;
    d->cb = cb;
    d->arg = arg;
    (void)uv_timer_init(hub->loop, &d->timer); /* Always 0. */
    d->timer.data = d;
    if (address->is_unix) {
        (void)uv_timer_start(&d->timer, dial_unix, 0, 0);
    } else if (dial_literal(address, &d->found[0])) {
        d->n_found = 1;
        (void)uv_timer_start(&d->timer, literal_ready, 0, 0);
    } else {
        dial_name(d);
    }
    return d;
}

void dial_cancel(struct dial *d)
{
    if (d != NULL)
        dial_over(d);
}
