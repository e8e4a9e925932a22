#include "telemetry/http_loop.h"

#include "raftstore/base/buf.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 1024

/* ---- Listening ------------------------------------------------------------------------- */

static bool is_loopback(const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)sa)->sin_addr.s_addr) >> 24 == 127;
    return sa->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)sa)->sin6_addr);
}

static int listen_at(const struct addrinfo *ai)
{
    int on = 1;
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
        int rv = -errno;
        (void)close(fd); /* Nothing was written to it. */
        return rv;
    }
    return fd;
}

/* The first address of the list that can be listened at; all of them must be allowed. */
static int listen_list(const struct addrinfo *list, bool insecure)
{
    int rv = -EADDRNOTAVAIL;
    for (const struct addrinfo *ai = list; ai != NULL && !insecure; ai = ai->ai_next)
        if (!is_loopback(ai->ai_addr))
            return -EPERM;
    for (const struct addrinfo *ai = list; ai != NULL && rv < 0; ai = ai->ai_next)
        rv = listen_at(ai);
    return rv;
}

static void address_bound(int fd, const struct address *asked, char *ret_address)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } name = {.v6 = {0}};
    struct address bound = *asked;
    socklen_t size = sizeof name;
    if (getsockname(fd, &name.any, &size) == 0)
        bound.port = ntohs(name.any.sa_family == AF_INET6 ? name.v6.sin6_port : name.v4.sin_port);
    (void)address_format(&bound, ret_address, 300);
}

int http_listen(const struct address *address,
                bool insecure,
                const char *remedy,
                char *ret_address,
                char **ret_sentence)
{
    char port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    (void)snprintf(port, sizeof port, "%u", address->port);
    (void)address_format(address, ret_address, 300);
    int rv = getaddrinfo(address->host, port, &hints, &list);
    if (rv != 0) {
        *ret_sentence = xasprintf("%s: %s", ret_address, gai_strerror(rv));
        return -EADDRNOTAVAIL;
    }
    int fd = listen_list(list, insecure);
    freeaddrinfo(list);
    if (fd >= 0)
        address_bound(fd, address, ret_address);
    else if (fd == -EPERM && !insecure)
        *ret_sentence =
            xasprintf("%s is reachable from other machines, and what is said there is not "
                      "encrypted: use a loopback address, or allow it with %s",
                      ret_address, remedy);
    else
        *ret_sentence = xasprintf("can't listen at %s: %s", ret_address, strerror(-fd));
    return fd;
}

/* ---- The loop -------------------------------------------------------------------------- */

static void on_idle(uv_idle_t *idle)
{
    (void)idle; /* Being active is all it is for. */
}

void http_loop_run(struct http_loop *hl)
{
    MHD_UNSIGNED_LONG_LONG ms;
    hl->due = false;
    (void)MHD_run(hl->mhd);
    if (MHD_get_timeout(hl->mhd, &ms) == MHD_YES && ms == 0)
        hl->due = true;
    if (hl->due)
        (void)uv_idle_start(&hl->idle, on_idle);
    else
        (void)uv_idle_stop(&hl->idle);
}

static void on_check(uv_check_t *check)
{
    struct http_loop *hl = check->data;
    if (hl->due)
        http_loop_run(hl);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct http_loop *hl = poll->data;
    (void)status;
    (void)events;
    hl->due = true; /* It is run by on_check(). */
}

void http_loop_due(struct http_loop *hl)
{
    if (hl->closed)
        return;
    hl->due = true;
    (void)uv_idle_start(&hl->idle, on_idle); /* Fails only without a callback. */
}

int http_loop_start(struct http_loop *hl, uv_loop_t *loop, struct MHD_Daemon *mhd)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(mhd, MHD_DAEMON_INFO_EPOLL_FD);
    int rv = info != NULL ? uv_poll_init(loop, &hl->poll, info->epoll_fd) : -ENOTSUP;
    if (rv < 0)
        return rv;
    hl->mhd = mhd;
    (void)uv_check_init(loop, &hl->check); /* These can't fail. */
    (void)uv_idle_init(loop, &hl->idle);
    hl->poll.data = hl->check.data = hl->idle.data = hl;
    hl->n_handles = 3;
    (void)uv_poll_start(&hl->poll, UV_READABLE, on_poll);
    (void)uv_check_start(&hl->check, on_check);
    return 0;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct http_loop *hl = handle->data;
    if (--hl->n_handles == 0)
        hl->on_closed(hl->arg);
}

void http_loop_close(struct http_loop *hl, void (*cb)(void *arg), void *arg)
{
    hl->closed = true;
    hl->on_closed = cb;
    hl->arg = arg;
    uv_close((uv_handle_t *)&hl->poll, on_handle_closed);
    uv_close((uv_handle_t *)&hl->check, on_handle_closed);
    uv_close((uv_handle_t *)&hl->idle, on_handle_closed);
}
