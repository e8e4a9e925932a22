#include "raftstore/node/bind.h"

#include "raftstore/base/buf.h"
#include "raftstore/node/dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 1024

static int fail(char **ret_sentence, int rv, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int fail(char **ret_sentence, int rv, const char *format, ...)
{
    struct buf b = BUF_INIT;
    va_list args;
    va_start(args, format);
    buf_vprintf(&b, format, args);
    va_end(args);
    buf_add(&b, "", 1);
    *ret_sentence = (char *)b.data;
    return rv;
}

static bool is_loopback(const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)sa)->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)sa)->sin6_addr);
}

/* Is a live process listening there?  A socket file without one is a leftover. */
static bool unix_is_live(const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    if (strlen(path) >= sizeof sun.sun_path) {
        (void)close(fd); /* Nothing was written to it. */
        return false;
    }
    memcpy(sun.sun_path, path, strlen(path));
    bool live = connect(fd, (const struct sockaddr *)&sun, sizeof sun) == 0;
    (void)close(fd); /* Nothing was written to it. */
    return live;
}

static int unlink_stale(const char *path, char **ret_sentence)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return fail(ret_sentence, -EEXIST, "%s exists and is not a socket: remove it first", path);
    if (unix_is_live(path))
        return fail(ret_sentence, -EADDRINUSE, "another process is listening on the socket %s",
                    path);
    if (unlink(path) < 0)
        return fail(ret_sentence, -errno, "cannot remove the stale socket %s", path);
    return 0;
}

static int listen_unix(struct bind_set *set,
                       uv_loop_t *loop,
                       const struct address *address,
                       uv_connection_cb on_connection,
                       void *arg,
                       char **ret_sentence)
{
    uv_pipe_t *pipe = &set->sockets[0].pipe;
    int rv = unlink_stale(address->host, ret_sentence);
    if (rv < 0)
        return rv;
    (void)uv_pipe_init(loop, pipe, 0); /* Always 0. */
    pipe->data = arg;
    set->n_sockets = set->n_open = 1;
    mode_t mask = umask(0177); /* The owner's alone, from the first instant on. */
    rv = uv_pipe_bind(pipe, address->host);
    (void)umask(mask);
    if (rv == 0) {
        (void)snprintf(set->unix_path, sizeof set->unix_path, "%s", address->host);
        rv = uv_listen((uv_stream_t *)pipe, BACKLOG, on_connection);
    }
    if (rv < 0)
        return fail(ret_sentence, rv, "cannot listen on the socket %s: %s", address->host,
                    uv_strerror(rv));
    return 0;
}

/* Bind and listen on one address that the name has. */
static int listen_one(struct bind_set *set,
                      uv_loop_t *loop,
                      const struct sockaddr *sa,
                      bool v6_only,
                      uv_connection_cb on_connection,
                      void *arg)
{
    uv_tcp_t *tcp = &set->sockets[set->n_sockets].tcp;
    (void)uv_tcp_init(loop, tcp); /* Always 0 for this form. */
    tcp->data = arg;
    set->n_sockets++;
    set->n_open++;
    unsigned flags = v6_only && sa->sa_family == AF_INET6 ? UV_TCP_IPV6ONLY : 0;
    int rv = uv_tcp_bind(tcp, sa, flags);
    if (rv == 0)
        rv = uv_listen((uv_stream_t *)tcp, BACKLOG, on_connection);
    return rv;
}

static int listen_list(struct bind_set *set,
                       uv_loop_t *loop,
                       const struct address *address,
                       const struct addrinfo *list,
                       bool insecure,
                       uv_connection_cb on_connection,
                       void *arg,
                       char **ret_sentence)
{
    unsigned n_good = 0;
    int last = UV_EADDRNOTAVAIL;
    char text[300];
    (void)address_format(address, text, sizeof text);
    for (const struct addrinfo *i = list; i != NULL && set->n_sockets < BIND_SOCKETS_MAX;
         i = i->ai_next) {
        if (i->ai_family != AF_INET && i->ai_family != AF_INET6)
            continue;
        if (!insecure && !is_loopback(i->ai_addr))
            return fail(ret_sentence, -EPERM,
                        "%s is reachable from other machines and connections are not encrypted: "
                        "give certificates with --tls ('holdfast cert' makes them), use a loopback "
                        "address, or allow plain TCP with --insecure",
                        text);
        int rv = listen_one(set, loop, i->ai_addr, strchr(address->host, ':') == NULL,
                            on_connection, arg);
        if (rv == 0)
            n_good++;
        else if (rv != UV_EADDRNOTAVAIL && rv != UV_EAFNOSUPPORT) /* IPv6 may be switched off. */
            return fail(ret_sentence, rv, "cannot listen on %s: %s", text, uv_strerror(rv));
        else
            last = rv;
        if (n_good > 0 && address->port == 0)
            break; /* Each further one would get another port. */
    }
    if (n_good == 0)
        return fail(ret_sentence, last,
                    "cannot listen on %s: %s (is it an address of this machine?)", text,
                    uv_strerror(last));
    return 0;
}

int bind_listen(struct bind_set *set,
                uv_loop_t *loop,
                const struct address *address,
                bool insecure,
                uv_connection_cb on_connection,
                void *arg,
                char **ret_sentence)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *list = NULL;
    char port[8];
    if (address->is_unix)
        return listen_unix(set, loop, address, on_connection, arg, ret_sentence);
    (void)snprintf(port, sizeof port, "%u", address->port);
    int rv = getaddrinfo(address->host, port, &hints, &list);
    if (rv != 0)
        return fail(ret_sentence, -EADDRNOTAVAIL, "cannot resolve the name %s to listen on it: %s",
                    address->host, gai_strerror(rv));
    rv = listen_list(set, loop, address, list, insecure, on_connection, arg, ret_sentence);
    freeaddrinfo(list);
    return rv;
}

uint16_t bind_port(const struct bind_set *set)
{
    struct sockaddr_storage ss = {0};
    int size = sizeof ss;
    if (set->n_sockets == 0 || set->unix_path[0] != '\0' ||
        uv_tcp_getsockname(&set->sockets[0].tcp, (struct sockaddr *)&ss, &size) < 0)
        return 0;
    return ss.ss_family == AF_INET6 ? ntohs(((const struct sockaddr_in6 *)&ss)->sin6_port)
                                    : ntohs(((const struct sockaddr_in *)&ss)->sin_port);
}

static void socket_closed(uv_handle_t *handle)
{
    struct bind_set *set = handle->data;
    if (--set->n_open == 0)
        set->closed(set->arg);
}

void bind_close(struct bind_set *set, void (*closed)(void *arg), void *arg)
{
    set->closed = closed;
    set->arg = arg;
    if (set->unix_path[0] != '\0')
        (void)unlink(set->unix_path); /* A leftover is recognised at the next start. */
    set->unix_path[0] = '\0';
    if (set->n_open == 0) {
        closed(arg);
        return;
    }
    for (unsigned i = 0; i < set->n_sockets; i++) {
        set->sockets[i].handle.data = set;
        uv_close(&set->sockets[i].handle, socket_closed);
    }
}
