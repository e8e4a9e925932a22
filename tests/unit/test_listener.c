/* Connections of clients: hello, frames, bounds, slow and silent ones. */
#include "tests/unit/listener_harness.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void test_hello_and_ping(void **state)
{
    struct listener_test t;
    struct raw r;
    (void)state;
    lt_begin(&t);
    lt_greet(&t, &r);
    lt_send_ping(&r, 99);
    const Hf__NodeFrame *f = lt_receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->id, 99);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_PONG);
    assert_int_equal(f->pong->leader_id, 7);
    assert_int_equal(listener_stats(t.listener).connections, 1);
    raw_close(&r);
    lt_end(&t);
}

static void test_version_refused(void **state)
{
    struct listener_test t;
    struct raw r;
    (void)state;
    lt_begin(&t);
    raw_connect(&r, listener_port(t.listener));
    lt_send_hello(&r, WIRE_VERSION + 5, WIRE_VERSION + 1);
    lt_expect_failure(&t, &r, 0, HF__FAILURE__CODE__VERSION);
    assert_true(raw_is_closed(&t.net, &r));
    raw_close(&r);
    lt_end(&t);
}

/* What no client of ours would say: the connection is closed, and others do not notice. */
static void test_garbage_closes(void **state)
{
    static const struct {
        const char *data;
        size_t size;
        bool after_hello;
    } cases[] = {
        {"\xff\xff\xff\xff", 4, false},               /* Length far over the bound. */
        {"\0\0\0\0", 4, false},                       /* Length 0. */
        {"\x05\0\0\0\xff\xff\xff\xff\xff", 9, false}, /* No message. */
        {"\x02\0\0\0\x08\x01", 6, false},             /* A request before the hello. */
        {"GET / HTTP/1.1\r\n\r\n", 18, false},        /* Another protocol. */
        {"\x01\0\x01\0", 4, true}, /* 65537: over the bound of a client's frame. */
        {"\x05\0\0\0\xff\xff\xff\xff\xff", 9, true},
        {"\x02\0\0\0\x32\0", 6, true}, /* A ping with id 0. */
    };
    struct listener_test t;
    struct raw good;
    (void)state;
    lt_begin(&t);
    lt_greet(&t, &good);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct raw r;
        if (cases[i].after_hello)
            lt_greet(&t, &r);
        else
            raw_connect(&r, listener_port(t.listener));
        raw_send(&r, cases[i].data, cases[i].size);
        assert_true(raw_is_closed(&t.net, &r));
        raw_close(&r);
        lt_send_ping(&good, i + 1);
        const Hf__NodeFrame *f = lt_receive(&t, &good);
        assert_non_null(f);
        assert_int_equal(f->id, i + 1);
    }
    assert_int_equal(t.n_submitted, 0);
    raw_close(&good);
    lt_end(&t);
}

/* Frames cut anywhere, and many in one segment, are the same frames. */
static void test_split_and_joined_frames(void **state)
{
    struct listener_test t;
    struct raw r;
    struct buf b = BUF_INIT;
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Ping ping = HF__PING__INIT;
    (void)state;
    lt_begin(&t);
    lt_greet(&t, &r);
    frame.body_case = HF__CLIENT_FRAME__BODY_PING;
    frame.ping = &ping;
    for (uint64_t id = 1; id <= 40; id++) {
        frame.id = id;
        pack_add_frame(&b, &frame.base);
    }
    for (size_t at = 0, step = 1; at < b.size; at += step, step++) {
        size_t n = step < b.size - at ? step : b.size - at;
        raw_send(&r, b.data + at, n);
        net_run_for(&t.net, 1);
    }
    for (uint64_t id = 1; id <= 40; id++) {
        const Hf__NodeFrame *f = lt_receive(&t, &r);
        assert_non_null(f);
        assert_int_equal(f->id, id);
    }
    buf_deinit(&b);
    raw_close(&r);
    lt_end(&t);
}

static void test_hello_timeout(void **state)
{
    struct listener_test t;
    struct raw r, good;
    (void)state;
    lt_begin_with(&t, (struct listener_config){.hello_ms = 50});
    lt_greet(&t, &good);
    raw_connect(&r, listener_port(t.listener));
    net_run_for(&t.net, 100);
    listener_sweep(t.listener);
    assert_true(raw_is_closed(&t.net, &r));
    assert_int_equal(listener_stats(t.listener).connections, 1);
    raw_close(&r);
    raw_close(&good);
    lt_end(&t);
}

static void test_connections_max(void **state)
{
    struct listener_test t;
    struct raw a, b, c;
    (void)state;
    lt_begin_with(&t, (struct listener_config){.connections_max = 2});
    lt_greet(&t, &a);
    lt_greet(&t, &b);
    raw_connect(&c, listener_port(t.listener));
    assert_true(raw_is_closed(&t.net, &c));
    raw_close(&a);
    raw_close(&b);
    raw_close(&c);
    lt_end(&t);
}

/* Those that say nothing are in nobody's way, however many. */
static void test_silent_ones_make_room(void **state)
{
    struct listener_test t;
    struct raw a, b, c;
    (void)state;
    lt_begin_with(&t, (struct listener_config){.connections_max = 2, .hello_ms = 60000});
    raw_connect(&a, listener_port(t.listener));
    raw_connect(&b, listener_port(t.listener));
    net_run_for(&t.net, 700);
    lt_greet(&t, &c);
    assert_int_equal(listener_stats(t.listener).connections, 2);
    raw_close(&a);
    raw_close(&b);
    raw_close(&c);
    lt_end(&t);
}

/* A client that asks and does not read is disconnected when its answers pile up. */
static void test_slow_client(void **state)
{
    struct listener_test t;
    struct raw slow, good;
    (void)state;
    lt_begin_with(&t, (struct listener_config){.output_max = 64 * 1024});
    lt_greet(&t, &good);
    lt_greet(&t, &slow);
    for (unsigned i = 0; i < 50000 && listener_stats(t.listener).connections == 2; i++) {
        for (unsigned j = 0; j < 200; j++)
            lt_send_ping(&slow, 1 + j);
        net_run_for(&t.net, 0);
    }
    assert_int_equal(listener_stats(t.listener).dropped_slow, 1);
    assert_int_equal(listener_stats(t.listener).connections, 1);
    lt_send_ping(&good, 5);
    assert_non_null(lt_receive(&t, &good));
    raw_close(&slow);
    raw_close(&good);
    lt_end(&t);
}

/* Enough of a client's requests in flight: more are refused, those of another kind are not, and
 * keepalives never. */
static void test_bounds_by_kind(void **state)
{
    static const struct {
        uint32_t op;
        enum replica_urgency urgency;
    } ops[] = {
        {LOCK_OP_ACQUIRE, REPLICA_ORDINARY},        {LOCK_OP_RENEW, REPLICA_UPKEEP},
        {LOCK_OP_RELEASE, REPLICA_UPKEEP},          {LOCK_OP_CANCEL, REPLICA_UPKEEP},
        {LOCK_OP_SESSION_OPEN, REPLICA_ORDINARY},   {LOCK_OP_SESSION_KEEPALIVE, REPLICA_KEEPALIVE},
        {LOCK_OP_SESSION_CLOSE, REPLICA_KEEPALIVE},
    };
    struct listener_test t;
    struct raw r;
    (void)state;
    lt_begin(&t);
    lt_greet(&t, &r);
    for (unsigned i = 0; i < LISTENER_REQUESTS_MAX; i++) {
        lt_send_query(&r, 1 + i);
        if (i % 200 == 0)
            net_run_for(&t.net, 0);
    }
    lt_send_query(&r, 50000);
    lt_expect_failure(&t, &r, 50000, HF__FAILURE__CODE__BUSY);
    for (unsigned i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        unsigned n = t.n_submitted;
        lt_send_command(&r, 60000 + i, ops[i].op);
        while (t.n_submitted == n)
            net_run_for(&t.net, 1);
        assert_int_equal(t.urgency, ops[i].urgency);
    }
    for (unsigned i = t.n_submitted; i < LISTENER_REQUESTS_MAX; i++) {
        lt_send_command(&r, 70000 + i, LOCK_OP_ACQUIRE);
        if (i % 200 == 0)
            net_run_for(&t.net, 0);
    }
    lt_send_command(&r, 100000, LOCK_OP_ACQUIRE);
    lt_expect_failure(&t, &r, 100000, HF__FAILURE__CODE__BUSY);
    unsigned n = t.n_submitted;
    lt_send_command(&r, 100001, LOCK_OP_SESSION_KEEPALIVE);
    while (t.n_submitted == n)
        net_run_for(&t.net, 1);
    assert_int_equal(listener_stats(t.listener).refused_busy, 2);
    raw_close(&r);
    lt_end(&t);
}

/* What many send at once is read over several turns, and all of it is answered. */
static void test_turns_are_bounded(void **state)
{
    enum { CLIENTS = 12, PINGS = 4000 };
    struct listener_test t;
    struct raw r[CLIENTS];
    (void)state;
    lt_begin(&t);
    for (unsigned i = 0; i < CLIENTS; i++)
        lt_greet(&t, &r[i]);
    for (unsigned i = 0; i < CLIENTS; i++)
        for (unsigned k = 0; k < PINGS; k++)
            lt_send_ping(&r[i], 1 + k);
    for (unsigned k = 0; k < PINGS; k++) {
        for (unsigned i = 0; i < CLIENTS; i++) {
            const Hf__NodeFrame *f = lt_receive(&t, &r[i]);
            assert_non_null(f);
            assert_int_equal(f->id, 1 + k);
        }
    }
    assert_true(t.net.hub.n_rests > 0);
    for (unsigned i = 0; i < CLIENTS; i++)
        raw_close(&r[i]);
    lt_end(&t);
}

/* All clients' unread output together has a bound as well. */
static void test_slow_clients_together(void **state)
{
    struct listener_test t;
    struct raw slow, good;
    (void)state;
    lt_begin_with(&t, (struct listener_config){.output_total_max = 256 * 1024});
    lt_greet(&t, &good);
    lt_greet(&t, &slow);
    for (unsigned i = 0; i < 50000 && listener_stats(t.listener).connections == 2; i++) {
        for (unsigned j = 0; j < 200; j++)
            lt_send_ping(&slow, 1 + j);
        net_run_for(&t.net, 0);
        lt_send_ping(&good, 5);
        assert_non_null(lt_receive(&t, &good));
    }
    assert_int_equal(listener_stats(t.listener).dropped_slow, 1);
    assert_int_equal(listener_stats(t.listener).output_bytes, 0);
    raw_close(&slow);
    raw_close(&good);
    lt_end(&t);
}

static void test_unix_socket(void **state)
{
    struct listener_test t;
    struct raw r;
    struct address address = {.is_unix = true};
    char directory[] = "/tmp/holdfast-test-XXXXXX";
    char *sentence = NULL;
    (void)state;
    assert_non_null(mkdtemp(directory));
    (void)snprintf(address.host, sizeof address.host, "%s/s", directory);
    lt_begin(&t);
    assert_int_equal(listener_listen(t.listener, &address, false, &sentence), 0);
    raw_connect_unix(&r, address.host);
    lt_send_hello(&r, WIRE_VERSION, WIRE_VERSION_MIN);
    assert_non_null(lt_receive(&t, &r));
    raw_close(&r);
    lt_end(&t);
    assert_int_equal(access(address.host, F_OK), -1);
    assert_int_equal(rmdir(directory), 0);
}

static void test_plain_tcp_beyond_loopback_is_refused(void **state)
{
    static const char *const hosts[] = {"0.0.0.0", "::"};
    struct listener_test t;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct address address = {0};
        char *sentence = NULL;
        (void)snprintf(address.host, sizeof address.host, "%s", hosts[i]);
        lt_begin(&t);
        assert_int_equal(listener_listen(t.listener, &address, false, &sentence), -EPERM);
        assert_non_null(strstr(sentence, "--insecure"));
        free(sentence);
        lt_end(&t);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello_and_ping),
        cmocka_unit_test(test_version_refused),
        cmocka_unit_test(test_garbage_closes),
        cmocka_unit_test(test_split_and_joined_frames),
        cmocka_unit_test(test_hello_timeout),
        cmocka_unit_test(test_connections_max),
        cmocka_unit_test(test_silent_ones_make_room),
        cmocka_unit_test(test_slow_client),
        cmocka_unit_test(test_bounds_by_kind),
        cmocka_unit_test(test_turns_are_bounded),
        cmocka_unit_test(test_slow_clients_together),
        cmocka_unit_test(test_unix_socket),
        cmocka_unit_test(test_plain_tcp_beyond_loopback_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
