#include "tests/unit/net_harness.h"

#include "raftstore/base/clock.h"
#include "raftstore/wire/frame.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

/* Well above every bound of the node's that a test waits for (5 s for a read or a hello), so that
 * the node and not the test gives up first, on a busy machine too. */
#define PATIENCE_MS 30000u

static void on_check(uv_check_t *check)
{
    stream_hub_flush(check->data);
}

void net_begin(struct net *n)
{
    (void)signal(SIGPIPE, SIG_IGN); /* As every program that has a node in it does. */
    assert_int_equal(uv_loop_init(&n->loop), 0);
    stream_hub_init(&n->hub, &n->loop);
    assert_int_equal(uv_check_init(&n->loop, &n->check), 0);
    n->check.data = &n->hub;
    assert_int_equal(uv_check_start(&n->check, on_check), 0);
    uv_unref((uv_handle_t *)&n->check);
    arena_init(&n->arena);
}

void net_end(struct net *n)
{
    uv_close((uv_handle_t *)&n->check, NULL);
    assert_int_equal(uv_run(&n->loop, UV_RUN_DEFAULT), 0);
    stream_hub_deinit(&n->hub);
    assert_int_equal(uv_loop_close(&n->loop), 0);
    arena_deinit(&n->arena);
}

static uint64_t now_ms(void)
{
    return clock_mono_ns(clock_system()) / NS_PER_MS;
}

/* One turn of the loop; sleeps until it, or `fd` (-1 = none), has something, at most `max_ms`. */
static void turn(struct net *n, int fd, int max_ms)
{
    struct pollfd fds[2] = {{.fd = uv_backend_fd(&n->loop), .events = POLLIN},
                            {.fd = fd, .events = POLLIN}};
    int timeout = uv_backend_timeout(&n->loop);
    (void)poll(fds, 2, timeout < 0 || timeout > max_ms ? max_ms : timeout); /* The loop looks */
    (void)uv_run(&n->loop, UV_RUN_NOWAIT); /* itself whether more is to come. */
}

bool net_run(struct net *n, bool (*until)(void *arg), void *arg, unsigned ms)
{
    uint64_t end_ms = now_ms() + ms;
    while (!until(arg)) {
        if (now_ms() > end_ms)
            return false;
        turn(n, -1, ms < 20 ? (int)ms : 20);
    }
    return true;
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

void net_run_for(struct net *n, unsigned ms)
{
    (void)net_run(n, never, NULL, ms); /* Always runs out. */
}

static void raw_open(struct raw *r, const struct sockaddr *sa, socklen_t size)
{
    *r = (struct raw){.fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    assert_true(r->fd >= 0);
    assert_int_equal(connect(r->fd, sa, size), 0);
    assert_int_equal(fcntl(r->fd, F_SETFL, O_NONBLOCK), 0);
}

void raw_connect(struct raw *r, uint16_t port)
{
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    raw_open(r, (const struct sockaddr *)&in, sizeof in);
}

void raw_connect_unix(struct raw *r, const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    assert_true(strlen(path) < sizeof un.sun_path);
    memcpy(un.sun_path, path, strlen(path));
    raw_open(r, (const struct sockaddr *)&un, sizeof un);
}

void raw_close(struct raw *r)
{
    if (r->fd >= 0)
        assert_int_equal(close(r->fd), 0);
    r->fd = -1;
    buf_deinit(&r->in);
}

void raw_send(struct raw *r, const void *data, size_t size)
{
    ssize_t n = send(r->fd, data, size, MSG_NOSIGNAL);
    assert_true(n < 0 || (size_t)n == size);
    if (n < 0) /* Closed already, or full: the test looks at what comes back. */
        assert_true(errno == EPIPE || errno == ECONNRESET || errno == EAGAIN);
}

void raw_send_message(struct raw *r, const ProtobufCMessage *m)
{
    struct buf b = BUF_INIT;
    pack_add_frame(&b, m);
    raw_send(r, b.data, b.size);
    buf_deinit(&b);
}

/* Return: 1 something was read, 0 nothing yet, -1 closed. */
static int raw_read(struct raw *r)
{
    ssize_t n = recv(r->fd, buf_reserve(&r->in, 65536), 65536, 0);
    if (n > 0) {
        r->in.size += (size_t)n;
        return 1;
    }
    return n < 0 && errno == EAGAIN ? 0 : -1;
}

ProtobufCMessage *
raw_receive(struct net *n, struct raw *r, const ProtobufCMessageDescriptor *descriptor)
{
    uint64_t end_ms = now_ms() + PATIENCE_MS;
    bool closed = false;
    for (;;) {
        struct bytes body;
        size_t size;
        int rv = frame_parse(bytes_of(r->in.data, r->in.size), FRAME_PEER_BYTES_MAX, &body, &size);
        assert_true(rv >= 0);
        if (rv == 1) {
            ProtobufCMessage *m = pack_parse(&n->arena, descriptor, body);
            assert_non_null(m);
            buf_consume(&r->in, size);
            return m;
        }
        if (closed)
            return NULL;
        assert_true(now_ms() < end_ms);
        turn(n, r->fd, 20);
        closed = raw_read(r) < 0;
    }
}

bool raw_is_closed(struct net *n, struct raw *r)
{
    uint64_t end_ms = now_ms() + PATIENCE_MS;
    while (now_ms() < end_ms) {
        if (raw_read(r) < 0)
            return true;
        turn(n, r->fd, 20);
    }
    return false;
}
