/* Unit test of raftstore/node/stream with TLS: a real hub and real sockets; the other side is a
 * tls_session by hand. */
#include "tests/unit/net_harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "raftstore/base/clock.h"
#include "raftstore/node/bind.h"
#include "raftstore/tls/authority.h"
#include "raftstore/wire/frame.h"

#define CLIENTS_MAX 64
#define FRAME_MAX   4096u
#define PATIENCE_MS 30000u
#define PER_TURN    4 /* Steps of handshakes in one turn of the loop, at most. */

static char base[64];

/* The server's side of one connection. */
struct side {
    struct stream *stream;
    struct buf got; /* Bodies of frames. */
    int ended;      /* 0: not yet. */
    bool pausing;   /* Pause at each frame. */
};

struct server {
    struct net net;
    struct bind_set bind;
    struct side sides[CLIENTS_MAX];
    unsigned n;
    bool pausing;
    const char *first; /* Put out before anything comes. */
};

/* The client's. */
struct client {
    struct raw raw;
    struct tls_session *tls;
    struct buf got;
    int status;
};

static int setup(void **state)
{
    static const char *const uris[] = {"holdfast:node/1", "holdfast:mount/host-a"};
    static const char *const names[] = {"node", "mount"};
    char ca[100], out[100], *sentence = NULL;
    (void)state;
    (void)snprintf(base, sizeof base, "/tmp/holdfast-stream-XXXXXX");
    assert_non_null(mkdtemp(base));
    (void)snprintf(ca, sizeof ca, "%s/ca", base);
    assert_int_equal(authority_create(ca, 10, &sentence), 1);
    for (int i = 0; i < 2; i++) {
        struct identity identity;
        assert_int_equal(identity_parse(bytes_str(uris[i]), &identity), 0);
        (void)snprintf(out, sizeof out, "%s/%s", base, names[i]);
        assert_int_equal(authority_issue(ca, &identity, NULL, 1, out, &sentence), 0);
    }
    return 0;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    (void)snprintf(command, sizeof command, "rm -rf %s", base);
    return system(command);
}

static struct tls_context *load(const char *name)
{
    char dir[100], *sentence = NULL;
    struct tls_context *c = NULL;
    (void)snprintf(dir, sizeof dir, "%s/%s", base, name);
    if (tls_context_load(dir, &c, &sentence) < 0)
        fail_msg("%s", sentence);
    return c;
}

static int on_frame(void *arg, struct bytes body)
{
    struct side *s = arg;
    assert_int_equal(stream_identity(s->stream)->kind, IDENTITY_MOUNT);
    buf_add(&s->got, body.data, body.size);
    frame_add(stream_out(s->stream), body); /* An echo. */
    if (s->pausing)
        stream_pause(s->stream);
    return 0;
}

static void on_ended(void *arg, int status)
{
    struct side *s = arg;
    assert_int_equal(s->ended, 0);
    s->ended = status;
    s->stream = NULL;
}

static const struct stream_ops ops = {.frame = on_frame, .ended = on_ended};

static void on_connection(uv_stream_t *listener, int status)
{
    struct server *v = listener->data;
    struct side *s = &v->sides[v->n++];
    assert_int_equal(status, 0);
    assert_true(v->n <= CLIENTS_MAX);
    *s = (struct side){.stream = stream_new(&v->net.hub, false, TLS_SERVER), .pausing = v->pausing};
    assert_int_equal(uv_accept(listener, stream_handle(s->stream)), 0);
    assert_int_equal(stream_start(s->stream, &ops, s, FRAME_MAX, 0), 0);
    assert_int_equal(stream_identity(s->stream)->kind, IDENTITY_NONE);
    if (v->first != NULL)
        frame_add(stream_out(s->stream), bytes_str(v->first));
}

static void server_begin(struct server *v)
{
    struct address address;
    char *sentence = NULL;
    *v = (struct server){0};
    net_begin(&v->net);
    struct tls_context *c = load("node");
    stream_hub_set_tls(&v->net.hub, c);
    tls_context_unref(c);
    assert_int_equal(address_parse("127.0.0.1:0", &address), 0);
    assert_int_equal(
        bind_listen(&v->bind, &v->net.loop, &address, false, on_connection, v, &sentence), 0);
}

static void closed(void *arg)
{
    (void)arg;
}

static void server_end(struct server *v)
{
    for (unsigned i = 0; i < v->n; i++) {
        stream_close(v->sides[i].stream);
        buf_deinit(&v->sides[i].got);
    }
    bind_close(&v->bind, closed, v);
    net_end(&v->net);
}

static void client_begin(struct client *c, struct server *v)
{
    struct tls_context *context = load("mount");
    *c = (struct client){.tls = tls_session_new(context, TLS_CLIENT)};
    tls_context_unref(context);
    raw_connect(&c->raw, bind_port(&v->bind));
    int on = 1;
    assert_int_equal(setsockopt(c->raw.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
}

static void client_end(struct client *c)
{
    raw_close(&c->raw);
    tls_session_free(c->tls);
    buf_deinit(&c->got);
}

/* Send up to `piece` bytes of what waits. */
static void client_send(struct client *c, size_t piece)
{
    struct buf *wire = tls_wire(c->tls);
    size_t n = wire->size < piece ? wire->size : piece;
    if (n > 0)
        raw_send(&c->raw, wire->data, n);
    buf_consume(wire, n);
}

static void client_receive(struct client *c)
{
    uint8_t bytes[65536];
    ssize_t n = recv(c->raw.fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n > 0 && c->status == 0)
        c->status = tls_input(c->tls, bytes_of(bytes, (size_t)n), &c->got);
}

static void client_say(struct client *c, const char *text)
{
    struct buf frame = BUF_INIT;
    frame_add(&frame, bytes_str(text));
    assert_int_equal(tls_output(c->tls, bytes_of(frame.data, frame.size)), 0);
    buf_deinit(&frame);
}

/* Both sides go on until the handshake is done. */
static void client_open(struct client *c, struct server *v)
{
    for (int i = 0; i < 3000 && (!tls_session_open(c->tls) || tls_wire(c->tls)->size > 0); i++) {
        client_send(c, SIZE_MAX);
        net_run_for(&v->net, 2);
        client_receive(c);
    }
    assert_true(tls_session_open(c->tls));
}

static bool has_ended(void *arg)
{
    return ((struct side *)arg)->ended != 0;
}

/* Every byte on its own, both in the handshake and after it, and the same out of the server. */
static void test_bytes(void **state)
{
    struct server v;
    struct client c;
    (void)state;
    server_begin(&v);
    client_begin(&c, &v);
    bool said = false;
    uint64_t end_ns = clock_mono_ns(clock_system()) + PATIENCE_MS * NS_PER_MS;
    while (c.got.size < 4 + 300 && clock_mono_ns(clock_system()) < end_ns) {
        if (tls_session_open(c.tls) && !said) {
            char text[301];
            memset(text, 'x', 300);
            text[300] = '\0';
            client_say(&c, text);
            said = true;
        }
        client_send(&c, 1);
        (void)uv_run(&v.net.loop, UV_RUN_NOWAIT);
        client_receive(&c);
    }
    assert_int_equal(v.sides[0].got.size, 300);
    assert_int_equal(c.got.size, 4 + 300);
    client_end(&c);
    assert_true(net_run(&v.net, has_ended, &v.sides[0], PATIENCE_MS));
    server_end(&v);
}

/* Frames and the end of the session in one read, and the owner takes them one by one: none is
 * lost, and the end comes last. */
static void test_end_while_paused(void **state)
{
    struct server v;
    struct client c;
    (void)state;
    server_begin(&v);
    v.pausing = true;
    client_begin(&c, &v);
    client_open(&c, &v);
    client_say(&c, "one ");
    client_say(&c, "two ");
    client_say(&c, "three");
    tls_session_close(c.tls);
    client_send(&c, SIZE_MAX);
    struct side *s = &v.sides[0];
    for (int i = 0; i < 3; i++) {
        net_run_for(&v.net, 50);
        assert_int_equal(s->ended, 0);
        stream_resume(s->stream);
    }
    assert_true(net_run(&v.net, has_ended, s, PATIENCE_MS));
    assert_int_equal(s->ended, UV_EOF);
    assert_int_equal(s->got.size, 13);
    assert_memory_equal(s->got.data, "one two three", 13);
    client_end(&c);
    server_end(&v);
}

/* What is put out before the handshake is done waits for it; nothing is ever sent in the clear. */
static void test_nothing_before(void **state)
{
    struct server v;
    struct client c, silent;
    uint8_t bytes[64];
    (void)state;
    server_begin(&v);
    v.first = "the secret";
    client_begin(&silent, &v);
    net_run_for(&v.net, 50);
    client_begin(&c, &v);
    client_open(&c, &v);
    for (int i = 0; i < 3000 && c.got.size == 0; i++) {
        net_run_for(&v.net, 2);
        client_receive(&c);
    }
    assert_int_equal(c.got.size, 14);
    assert_memory_equal((const uint8_t *)c.got.data + 4, "the secret", 10);
    stream_close(v.sides[0].stream);
    v.sides[0].stream = NULL;
    net_run_for(&v.net, 50);
    assert_int_equal(recv(silent.raw.fd, bytes, sizeof bytes, MSG_DONTWAIT), 0); /* The end. */
    client_end(&c);
    client_end(&silent);
    server_end(&v);
}

/* Many that begin at once: a turn of the loop takes a few, and all get there. */
static void test_turns(void **state)
{
    static struct client clients[CLIENTS_MAX];
    struct server v;
    unsigned n_answered = 0, n_before = 0, n_open = 0;
    bool answered[CLIENTS_MAX] = {false};
    (void)state;
    server_begin(&v);
    for (int i = 0; i < CLIENTS_MAX; i++) {
        client_begin(&clients[i], &v);
        client_send(&clients[i], SIZE_MAX);
    }
    client_end(&clients[5]); /* One leaves while it stands in line. */
    uint64_t end_ns = clock_mono_ns(clock_system()) + PATIENCE_MS * NS_PER_MS;
    while (n_answered < CLIENTS_MAX - 1 && clock_mono_ns(clock_system()) < end_ns) {
        (void)uv_run(&v.net.loop, UV_RUN_NOWAIT);
        for (int i = 0; i < CLIENTS_MAX; i++) {
            uint8_t byte;
            if (i == 5 || answered[i] ||
                recv(clients[i].raw.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 1)
                continue;
            answered[i] = true;
            n_answered++;
        }
        assert_true(n_answered - n_before <= PER_TURN);
        n_before = n_answered;
    }
    assert_int_equal(n_answered, CLIENTS_MAX - 1);
    for (int i = 0; i < CLIENTS_MAX; i++) {
        if (i == 5)
            continue;
        client_receive(&clients[i]);
        assert_true(tls_session_open(clients[i].tls));
        client_say(&clients[i], "hello");
        client_send(&clients[i], SIZE_MAX);
    }
    for (int i = 0; i < 3000 && n_open < CLIENTS_MAX - 1; i++) {
        net_run_for(&v.net, 5);
        n_open = 0;
        for (unsigned k = 0; k < v.n; k++)
            n_open += v.sides[k].got.size == 5;
    }
    assert_int_equal(n_open, CLIENTS_MAX - 1);
    for (int i = 0; i < CLIENTS_MAX; i++)
        if (i != 5)
            client_end(&clients[i]);
    server_end(&v);
}

/* Streams may be closed while their handshakes stand in line. */
static void test_close_in_line(void **state)
{
    static struct client clients[CLIENTS_MAX];
    struct server v;
    (void)state;
    server_begin(&v);
    for (int i = 0; i < CLIENTS_MAX; i++) {
        client_begin(&clients[i], &v);
        client_send(&clients[i], SIZE_MAX);
    }
    for (int i = 0; i < 4; i++)
        (void)uv_run(&v.net.loop, UV_RUN_NOWAIT);
    assert_int_equal(v.n, CLIENTS_MAX);
    server_end(&v);
    for (int i = 0; i < CLIENTS_MAX; i++)
        client_end(&clients[i]);
}

/* Certificates are read anew: the authority of one is gone. */
static void test_recheck(void **state)
{
    struct server v;
    struct client c;
    char dir[100], command[400], *sentence = NULL;
    (void)state;
    server_begin(&v);
    client_begin(&c, &v);
    client_open(&c, &v);
    client_say(&c, "one");
    client_send(&c, SIZE_MAX);
    net_run_for(&v.net, 50);
    assert_int_equal(v.sides[0].got.size, 3);
    stream_hub_recheck(&v.net.hub);
    assert_int_equal(v.sides[0].ended, 0);
    (void)snprintf(dir, sizeof dir, "%s/other", base);
    assert_int_equal(authority_create(dir, 10, &sentence), 1);
    (void)snprintf(command, sizeof command, "cd %s && cp -r node node2 && cp other/ca.crt node2",
                   base);
    assert_int_equal(system(command), 0);
    struct tls_context *other = load("node2");
    stream_hub_set_tls(&v.net.hub, other);
    tls_context_unref(other);
    assert_int_equal(v.sides[0].ended, 0); /* By itself that ends nothing. */
    stream_hub_recheck(&v.net.hub);
    assert_int_equal(v.sides[0].ended, -EACCES);
    net_run_for(&v.net, 20);
    client_end(&c);
    server_end(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),          cmocka_unit_test(test_end_while_paused),
        cmocka_unit_test(test_nothing_before), cmocka_unit_test(test_turns),
        cmocka_unit_test(test_close_in_line),  cmocka_unit_test(test_recheck),
    };
    return cmocka_run_group_tests_name("streams with TLS", tests, setup, teardown);
}
