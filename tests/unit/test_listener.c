/* The client listener on real sockets, with a scripted node behind it. */
#include "tests/unit/net_harness.h"

#include "raftstore/base/clock.h"
#include "raftstore/node/listener.h"
#include "raftstore/node/request_stats.h"
#include "raftstore/wire/frame.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct test {
    struct net net;
    struct events *events;
    struct listener *listener;
    enum replica_status submit_status;
    uint64_t submitted[64]; /* Request numbers. */
    unsigned n_submitted;
    enum replica_urgency urgency; /* Of the last one. */
    uint64_t read_id;
    char asked[64]; /* The bytes of the last query that was answered. */
    bool closed;
};

static struct listener_leader fake_leader(void *arg)
{
    (void)arg;
    return (struct listener_leader){7, "leader.example:7001"};
}

static void fake_members(void *arg, struct arena *arena, Hf__NodeHello *hello)
{
    (void)arg;
    (void)arena;
    (void)hello;
}

static enum replica_status fake_submit(void *arg,
                                       uint64_t now_ns,
                                       uint64_t request_id,
                                       enum replica_urgency urgency,
                                       struct bytes command)
{
    struct test *t = arg;
    (void)now_ns;
    assert_true(command.size > 0);
    t->urgency = urgency;
    if (t->submit_status == REPLICA_OK)
        t->submitted[t->n_submitted++ % 64] = request_id;
    return t->submit_status;
}

static enum replica_status fake_read(void *arg, uint64_t now_ns, uint64_t request_id)
{
    struct test *t = arg;
    (void)now_ns;
    t->read_id = request_id;
    return REPLICA_OK;
}

static void fake_answer(void *arg,
                        const struct access *access,
                        uint64_t frame_id,
                        const Hf__Query *query,
                        struct arena *arena,
                        struct buf *out)
{
    struct test *t = arg;
    (void)access;
    (void)arena;
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    Hf__QueryReply reply = HF__QUERY_REPLY__INIT;
    (void)snprintf(t->asked, sizeof t->asked, "%.*s|%.*s|%.*s", (int)query->path.len,
                   (const char *)query->path.data, (int)query->after.len,
                   (const char *)query->after.data, (int)query->owner.len,
                   (const char *)query->owner.data);
    reply.index = query->path.len; /* Shows that the query was kept. */
    reply.code = (uint32_t)query->what;
    frame.id = frame_id;
    frame.body_case = HF__NODE_FRAME__BODY_QUERY;
    frame.query = &reply;
    pack_add_frame(out, &frame.base);
}

static enum replica_status fake_admin(
    void *arg, uint64_t now_ns, uint64_t request_id, const Hf__Admin *admin, const char **ret_text)
{
    (void)arg;
    (void)now_ns;
    (void)request_id;
    (void)admin;
    *ret_text = "not today";
    return REPLICA_REFUSED;
}

static void fake_chunk_taken(void *arg, uint64_t request_id, bool gone)
{
    (void)arg;
    (void)request_id;
    (void)gone;
}

static uint64_t fake_applied_index(void *arg)
{
    (void)arg;
    return 10;
}

static int64_t fake_wall_offset_ns(void *arg)
{
    (void)arg;
    return 0;
}

static void begin_with(struct test *t, struct listener_config config)
{
    struct address address = {.host = "127.0.0.1"};
    char *sentence = NULL;
    *t = (struct test){0};
    net_begin(&t->net);
    t->events = events_new();
    config.hub = &t->net.hub;
    config.node_id = 3;
    config.events = t->events;
    config.arg = t;
    config.leader = fake_leader;
    config.members = fake_members;
    config.submit = fake_submit;
    config.read = fake_read;
    config.answer = fake_answer;
    config.admin = fake_admin;
    config.chunk_taken = fake_chunk_taken;
    config.applied_index = fake_applied_index;
    config.wall_offset_ns = fake_wall_offset_ns;
    t->listener = listener_new(&config);
    assert_int_equal(listener_listen(t->listener, &address, false, &sentence), 0);
}

static void begin(struct test *t)
{
    begin_with(t, (struct listener_config){0});
}

static void on_closed(void *arg)
{
    struct test *t = arg;
    t->closed = true;
}

static bool is_closed(void *arg)
{
    const struct test *t = arg;
    return t->closed;
}

static void end(struct test *t)
{
    listener_close(t->listener, on_closed, t);
    assert_true(net_run(&t->net, is_closed, t, 2000));
    net_end(&t->net);
    events_free(t->events);
}

static void send_hello(struct raw *r, uint32_t version, uint32_t version_min)
{
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__ClientHello hello = HF__CLIENT_HELLO__INIT;
    hello.version = version;
    hello.version_min = version_min;
    frame.body_case = HF__CLIENT_FRAME__BODY_HELLO;
    frame.hello = &hello;
    raw_send_message(r, &frame.base);
}

static const Hf__NodeFrame *receive(struct test *t, struct raw *r)
{
    return (const Hf__NodeFrame *)raw_receive(&t->net, r, &hf__node_frame__descriptor);
}

/* Connect and say hello. */
static void greet(struct test *t, struct raw *r)
{
    raw_connect(r, listener_port(t->listener));
    send_hello(r, WIRE_VERSION, WIRE_VERSION_MIN);
    const Hf__NodeFrame *f = receive(t, r);
    assert_non_null(f);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_HELLO);
    assert_int_equal(f->hello->node_id, 3);
    assert_int_equal(f->hello->leader_id, 7);
    assert_string_equal(f->hello->leader_client_address, "leader.example:7001");
}

static void send_ping(struct raw *r, uint64_t id)
{
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Ping ping = HF__PING__INIT;
    frame.id = id;
    frame.body_case = HF__CLIENT_FRAME__BODY_PING;
    frame.ping = &ping;
    raw_send_message(r, &frame.base);
}

static void send_command(struct raw *r, uint64_t id, uint32_t op)
{
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Command command = HF__COMMAND__INIT;
    struct buf packed = BUF_INIT;
    command.op = op;
    command.session_id = 1;
    pack_add(&packed, &command.base);
    frame.id = id;
    frame.body_case = HF__CLIENT_FRAME__BODY_COMMAND;
    frame.command = pack_binary(bytes_of(packed.data, packed.size));
    raw_send_message(r, &frame.base);
    buf_deinit(&packed);
}

static void send_query(struct raw *r, uint64_t id)
{
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Query query = HF__QUERY__INIT;
    query.what = HF__QUERY__WHAT__SHOW;
    frame.id = id;
    frame.body_case = HF__CLIENT_FRAME__BODY_QUERY;
    frame.query = &query;
    raw_send_message(r, &frame.base);
}

static void expect_failure(struct test *t, struct raw *r, uint64_t id, Hf__Failure__Code code)
{
    const Hf__NodeFrame *f = receive(t, r);
    assert_non_null(f);
    assert_int_equal(f->id, id);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_FAILURE);
    assert_int_equal(f->failure->code, code);
    assert_true(strlen(f->failure->text) > 0);
}

static void test_hello_and_ping(void **state)
{
    struct test t;
    struct raw r;
    (void)state;
    begin(&t);
    greet(&t, &r);
    send_ping(&r, 99);
    const Hf__NodeFrame *f = receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->id, 99);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_PONG);
    assert_int_equal(f->pong->leader_id, 7);
    assert_int_equal(listener_stats(t.listener).connections, 1);
    raw_close(&r);
    end(&t);
}

static void test_version_refused(void **state)
{
    struct test t;
    struct raw r;
    (void)state;
    begin(&t);
    raw_connect(&r, listener_port(t.listener));
    send_hello(&r, WIRE_VERSION + 5, WIRE_VERSION + 1);
    expect_failure(&t, &r, 0, HF__FAILURE__CODE__VERSION);
    assert_true(raw_is_closed(&t.net, &r));
    raw_close(&r);
    end(&t);
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
    struct test t;
    struct raw good;
    (void)state;
    begin(&t);
    greet(&t, &good);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct raw r;
        if (cases[i].after_hello)
            greet(&t, &r);
        else
            raw_connect(&r, listener_port(t.listener));
        raw_send(&r, cases[i].data, cases[i].size);
        assert_true(raw_is_closed(&t.net, &r));
        raw_close(&r);
        send_ping(&good, i + 1);
        const Hf__NodeFrame *f = receive(&t, &good);
        assert_non_null(f);
        assert_int_equal(f->id, i + 1);
    }
    assert_int_equal(t.n_submitted, 0);
    raw_close(&good);
    end(&t);
}

/* Frames cut anywhere, and many in one segment, are the same frames. */
static void test_split_and_joined_frames(void **state)
{
    struct test t;
    struct raw r;
    struct buf b = BUF_INIT;
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Ping ping = HF__PING__INIT;
    (void)state;
    begin(&t);
    greet(&t, &r);
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
        const Hf__NodeFrame *f = receive(&t, &r);
        assert_non_null(f);
        assert_int_equal(f->id, id);
    }
    buf_deinit(&b);
    raw_close(&r);
    end(&t);
}

static void test_hello_timeout(void **state)
{
    struct test t;
    struct raw r, good;
    (void)state;
    begin_with(&t, (struct listener_config){.hello_ms = 50});
    greet(&t, &good);
    raw_connect(&r, listener_port(t.listener));
    net_run_for(&t.net, 100);
    listener_sweep(t.listener);
    assert_true(raw_is_closed(&t.net, &r));
    assert_int_equal(listener_stats(t.listener).connections, 1);
    raw_close(&r);
    raw_close(&good);
    end(&t);
}

static void test_connections_max(void **state)
{
    struct test t;
    struct raw a, b, c;
    (void)state;
    begin_with(&t, (struct listener_config){.connections_max = 2});
    greet(&t, &a);
    greet(&t, &b);
    raw_connect(&c, listener_port(t.listener));
    assert_true(raw_is_closed(&t.net, &c));
    raw_close(&a);
    raw_close(&b);
    raw_close(&c);
    end(&t);
}

/* Those that say nothing are in nobody's way, however many. */
static void test_silent_ones_make_room(void **state)
{
    struct test t;
    struct raw a, b, c;
    (void)state;
    begin_with(&t, (struct listener_config){.connections_max = 2, .hello_ms = 60000});
    raw_connect(&a, listener_port(t.listener));
    raw_connect(&b, listener_port(t.listener));
    net_run_for(&t.net, 700);
    greet(&t, &c);
    assert_int_equal(listener_stats(t.listener).connections, 2);
    raw_close(&a);
    raw_close(&b);
    raw_close(&c);
    end(&t);
}

/* A client that asks and does not read is disconnected when its answers pile up. */
static void test_slow_client(void **state)
{
    struct test t;
    struct raw slow, good;
    (void)state;
    begin_with(&t, (struct listener_config){.output_max = 64 * 1024});
    greet(&t, &good);
    greet(&t, &slow);
    for (unsigned i = 0; i < 50000 && listener_stats(t.listener).connections == 2; i++) {
        for (unsigned j = 0; j < 200; j++)
            send_ping(&slow, 1 + j);
        net_run_for(&t.net, 0);
    }
    assert_int_equal(listener_stats(t.listener).dropped_slow, 1);
    assert_int_equal(listener_stats(t.listener).connections, 1);
    send_ping(&good, 5);
    assert_non_null(receive(&t, &good));
    raw_close(&slow);
    raw_close(&good);
    end(&t);
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
    struct test t;
    struct raw r;
    (void)state;
    begin(&t);
    greet(&t, &r);
    for (unsigned i = 0; i < LISTENER_REQUESTS_MAX; i++) {
        send_query(&r, 1 + i);
        if (i % 200 == 0)
            net_run_for(&t.net, 0);
    }
    send_query(&r, 50000);
    expect_failure(&t, &r, 50000, HF__FAILURE__CODE__BUSY);
    for (unsigned i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        unsigned n = t.n_submitted;
        send_command(&r, 60000 + i, ops[i].op);
        while (t.n_submitted == n)
            net_run_for(&t.net, 1);
        assert_int_equal(t.urgency, ops[i].urgency);
    }
    for (unsigned i = t.n_submitted; i < LISTENER_REQUESTS_MAX; i++) {
        send_command(&r, 70000 + i, LOCK_OP_ACQUIRE);
        if (i % 200 == 0)
            net_run_for(&t.net, 0);
    }
    send_command(&r, 100000, LOCK_OP_ACQUIRE);
    expect_failure(&t, &r, 100000, HF__FAILURE__CODE__BUSY);
    unsigned n = t.n_submitted;
    send_command(&r, 100001, LOCK_OP_SESSION_KEEPALIVE);
    while (t.n_submitted == n)
        net_run_for(&t.net, 1);
    assert_int_equal(listener_stats(t.listener).refused_busy, 2);
    raw_close(&r);
    end(&t);
}

/* What many send at once is read over several turns, and all of it is answered. */
static void test_turns_are_bounded(void **state)
{
    enum { CLIENTS = 12, PINGS = 4000 };
    struct test t;
    struct raw r[CLIENTS];
    (void)state;
    begin(&t);
    for (unsigned i = 0; i < CLIENTS; i++)
        greet(&t, &r[i]);
    for (unsigned i = 0; i < CLIENTS; i++)
        for (unsigned k = 0; k < PINGS; k++)
            send_ping(&r[i], 1 + k);
    for (unsigned k = 0; k < PINGS; k++) {
        for (unsigned i = 0; i < CLIENTS; i++) {
            const Hf__NodeFrame *f = receive(&t, &r[i]);
            assert_non_null(f);
            assert_int_equal(f->id, 1 + k);
        }
    }
    assert_true(t.net.hub.n_rests > 0);
    for (unsigned i = 0; i < CLIENTS; i++)
        raw_close(&r[i]);
    end(&t);
}

/* All clients' unread output together has a bound as well. */
static void test_slow_clients_together(void **state)
{
    struct test t;
    struct raw slow, good;
    (void)state;
    begin_with(&t, (struct listener_config){.output_total_max = 256 * 1024});
    greet(&t, &good);
    greet(&t, &slow);
    for (unsigned i = 0; i < 50000 && listener_stats(t.listener).connections == 2; i++) {
        for (unsigned j = 0; j < 200; j++)
            send_ping(&slow, 1 + j);
        net_run_for(&t.net, 0);
        send_ping(&good, 5);
        assert_non_null(receive(&t, &good));
    }
    assert_int_equal(listener_stats(t.listener).dropped_slow, 1);
    assert_int_equal(listener_stats(t.listener).output_bytes, 0);
    raw_close(&slow);
    raw_close(&good);
    end(&t);
}

static bool one_submitted(void *arg)
{
    const struct test *t = arg;
    return t->n_submitted > 0;
}

static void done(struct test *t, unsigned i, enum lock_code code)
{
    struct lock_result result = {.code = code, .token = 77};
    listener_command_done(t->listener, clock_mono_ns(clock_system()), t->submitted[i], REPLICA_OK,
                          &result, 12);
}

static void test_command(void **state)
{
    struct test t;
    struct raw r;
    (void)state;
    begin(&t);
    greet(&t, &r);
    send_command(&r, 5, LOCK_OP_ACQUIRE);
    assert_true(net_run(&t.net, one_submitted, &t, 2000));
    done(&t, 0, LOCK_CONFLICT);
    done(&t, 0, LOCK_OK); /* A number that is over is ignored. */
    const Hf__NodeFrame *f = receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->id, 5);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_RESULT);
    assert_int_equal(f->result->code, LOCK_CONFLICT);
    assert_int_equal(f->result->token, 77);
    assert_int_equal(f->result->index, 12);
    assert_int_equal(listener_stats(t.listener).requests, 0);
    raw_close(&r);
    end(&t);
}

static void test_command_refused(void **state)
{
    struct test t;
    struct raw r;
    (void)state;
    begin(&t);
    greet(&t, &r);
    t.submit_status = REPLICA_NOT_LEADER;
    send_command(&r, 1, LOCK_OP_ACQUIRE);
    const Hf__NodeFrame *f = receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_FAILURE);
    assert_int_equal(f->failure->code, HF__FAILURE__CODE__NOT_LEADER);
    assert_int_equal(f->failure->leader_id, 7);
    assert_string_equal(f->failure->leader_client_address, "leader.example:7001");
    t.submit_status = REPLICA_BUSY;
    send_command(&r, 2, LOCK_OP_ACQUIRE);
    expect_failure(&t, &r, 2, HF__FAILURE__CODE__BUSY);
    send_command(&r, 3, LOCK_OP_TICK); /* The nodes' own. */
    expect_failure(&t, &r, 3, HF__FAILURE__CODE__BAD_REQUEST);
    send_command(&r, 4, 12345);
    expect_failure(&t, &r, 4, HF__FAILURE__CODE__BAD_REQUEST);
    listener_drain(t.listener);
    send_command(&r, 5, LOCK_OP_ACQUIRE);
    expect_failure(&t, &r, 5, HF__FAILURE__CODE__SHUTTING_DOWN);
    assert_int_equal(listener_stats(t.listener).requests, 0);
    raw_close(&r);
    end(&t);
}

static bool none_connected(void *arg)
{
    const struct test *t = arg;
    return listener_stats(t->listener).connections == 0;
}

static void test_client_goes_before_the_outcome(void **state)
{
    struct test t;
    struct raw r;
    (void)state;
    begin(&t);
    greet(&t, &r);
    send_command(&r, 5, LOCK_OP_ACQUIRE);
    assert_true(net_run(&t.net, one_submitted, &t, 2000));
    raw_close(&r);
    assert_true(net_run(&t.net, none_connected, &t, 2000));
    assert_int_equal(listener_stats(t.listener).requests, 1);
    done(&t, 0, LOCK_OK);
    assert_int_equal(listener_stats(t.listener).requests, 0);
    end(&t);
}

static bool read_asked(void *arg)
{
    const struct test *t = arg;
    return t->read_id != 0;
}

static void test_query(void **state)
{
    struct test t;
    struct raw r;
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Query query = HF__QUERY__INIT;
    (void)state;
    begin(&t);
    greet(&t, &r);
    query.what = HF__QUERY__WHAT__SHOW;
    query.path = pack_binary(bytes_str("a/b/c"));
    frame.id = 8;
    frame.body_case = HF__CLIENT_FRAME__BODY_QUERY;
    frame.query = &query;
    raw_send_message(&r, &frame.base);
    assert_true(net_run(&t.net, read_asked, &t, 2000));
    listener_read_done(t.listener, t.read_id, REPLICA_OK);
    const Hf__NodeFrame *f = receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->id, 8);
    assert_int_equal(f->query->index, 5);
    assert_int_equal(f->query->code, HF__QUERY__WHAT__SHOW);
    t.read_id = 0;
    raw_send_message(&r, &frame.base);
    assert_true(net_run(&t.net, read_asked, &t, 2000));
    listener_read_done(t.listener, t.read_id, REPLICA_NO_QUORUM);
    expect_failure(&t, &r, 8, HF__FAILURE__CODE__NO_QUORUM);
    t.read_id = 0;
    static uint8_t longest[LOCK_PATH_BYTES_MAX + 1];
    query.path = pack_binary(bytes_of(longest, sizeof longest)); /* Would be kept for seconds. */
    raw_send_message(&r, &frame.base);
    expect_failure(&t, &r, 8, HF__FAILURE__CODE__BAD_REQUEST);
    assert_int_equal(t.read_id, 0);
    query.what = HF__QUERY__WHAT__STATUS; /* Needs nobody. */
    raw_send_message(&r, &frame.base);
    f = receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_QUERY);
    assert_int_equal(t.read_id, 0);
    raw_close(&r);
    end(&t);
}

static bool counted(const struct test *t, const char *line)
{
    struct buf out = BUF_INIT;
    request_stats_write(listener_counts(t->listener), &out);
    buf_add(&out, "", 1);
    bool found = strstr((const char *)out.data, line) != NULL;
    buf_deinit(&out);
    return found;
}

/* Whatever a client calls its request, it is counted as something. */
static void test_counts(void **state)
{
    struct test t;
    struct raw r;
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Query query = HF__QUERY__INIT;
    static const int32_t whats[] = {-1, -20, -21, -1000, 9, 23, 1000, INT32_MIN, INT32_MAX};
    (void)state;
    begin(&t);
    greet(&t, &r);
    frame.id = 8;
    frame.body_case = HF__CLIENT_FRAME__BODY_QUERY;
    frame.query = &query;
    for (unsigned i = 0; i < sizeof whats / sizeof whats[0]; i++) {
        query.what = (Hf__Query__What)whats[i];
        t.read_id = 0;
        raw_send_message(&r, &frame.base);
        assert_true(net_run(&t.net, read_asked, &t, 2000));
        listener_read_done(t.listener, t.read_id, REPLICA_OK);
        assert_non_null(receive(&t, &r));
    }
    assert_true(counted(&t, "holdfast_node_requests_total{kind=\"other\",result=\"ok\"} 9\n"));
    send_command(&r, 4, 12345);
    expect_failure(&t, &r, 4, HF__FAILURE__CODE__BAD_REQUEST);
    assert_true(
        counted(&t, "holdfast_node_requests_total{kind=\"other\",result=\"bad_request\"} 1\n"));
    send_command(&r, 5, LOCK_OP_ACQUIRE);
    assert_true(net_run(&t.net, one_submitted, &t, 2000));
    done(&t, 0, LOCK_CONFLICT);
    assert_non_null(receive(&t, &r));
    t.submit_status = REPLICA_BUSY;
    send_command(&r, 6, LOCK_OP_RELEASE);
    expect_failure(&t, &r, 6, HF__FAILURE__CODE__BUSY);
    assert_true(counted(&t, "{kind=\"acquire\",result=\"conflict\"} 1\n"));
    assert_true(counted(&t, "{kind=\"release\",result=\"busy\"} 1\n"));
    assert_true(counted(&t, "{reason=\"busy\"} 1\n"));
    assert_true(counted(&t, "duration_seconds_count{class=\"acquire\"} 1\n"));
    assert_true(counted(&t, "duration_seconds_count{class=\"release\"} 0\n"));
    raw_close(&r);
    end(&t);
}

/* What a read asks for outlives the frame that it came in: others come before it is answered. */
static void test_query_is_kept(void **state)
{
    struct test t;
    struct raw r;
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Query query = HF__QUERY__INIT;
    (void)state;
    begin(&t);
    greet(&t, &r);
    query.what = HF__QUERY__WHAT__SHOW;
    query.path = pack_binary(bytes_str("a/path"));
    query.after = pack_binary(bytes_str("behind"));
    query.owner = pack_binary(bytes_str("somebody"));
    frame.id = 8;
    frame.body_case = HF__CLIENT_FRAME__BODY_QUERY;
    frame.query = &query;
    raw_send_message(&r, &frame.base);
    assert_true(net_run(&t.net, read_asked, &t, 2000));
    uint64_t first = t.read_id;
    t.read_id = 0;
    frame.id = 9;
    query.path = query.after = query.owner = pack_binary(bytes_str("OTHER OTHER"));
    raw_send_message(&r, &frame.base);
    assert_true(net_run(&t.net, read_asked, &t, 2000));
    listener_read_done(t.listener, first, REPLICA_OK);
    assert_string_equal(t.asked, "a/path|behind|somebody");
    assert_int_equal(receive(&t, &r)->id, 8);
    t.read_id = 0;
    static uint8_t longest[LOCK_OWNER_BYTES_MAX + 1];
    query.owner = pack_binary(bytes_of(longest, sizeof longest));
    raw_send_message(&r, &frame.base);
    expect_failure(&t, &r, 9, HF__FAILURE__CODE__BAD_REQUEST);
    assert_int_equal(t.read_id, 0);
    raw_close(&r);
    end(&t);
}

static void add_event(struct test *t, uint64_t index, uint64_t session_id, const char *path)
{
    struct lock_effect effect = {.type = LOCK_EFFECT_GRANTED,
                                 .session_id = session_id,
                                 .token = index,
                                 .path = bytes_str(path)};
    struct lock_effects effects = {.list = &effect, .n = 1};
    events_add(t->events, index, index, &effects, 0);
}

static void send_subscribe(struct raw *r, uint64_t session_id, const char *prefix, uint64_t from)
{
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Subscribe subscribe = HF__SUBSCRIBE__INIT;
    ProtobufCBinaryData prefixes[1];
    subscribe.session_id = session_id;
    subscribe.from_index = from;
    if (prefix != NULL) {
        prefixes[0] = pack_binary(bytes_str(prefix));
        subscribe.prefixes = prefixes;
        subscribe.n_prefixes = 1;
    }
    frame.id = 1;
    frame.body_case = HF__CLIENT_FRAME__BODY_SUBSCRIBE;
    frame.subscribe = &subscribe;
    raw_send_message(r, &frame.base);
}

static void expect_subscribed(struct test *t, struct raw *r, uint64_t index, bool gap)
{
    const Hf__NodeFrame *f = receive(t, r);
    assert_non_null(f);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_SUBSCRIBED);
    assert_int_equal(f->subscribed->index, index);
    assert_int_equal(f->subscribed->gap, gap);
}

/* Events and results leave in the order in which they happened. */
static void test_events_keep_their_order(void **state)
{
    struct test t;
    struct raw r;
    (void)state;
    begin(&t);
    greet(&t, &r);
    send_subscribe(&r, 5, "watched", 0);
    expect_subscribed(&t, &r, 10, false);
    send_command(&r, 6, LOCK_OP_ACQUIRE);
    assert_true(net_run(&t.net, one_submitted, &t, 2000));
    add_event(&t, 11, 5, "mine");
    add_event(&t, 11, 6, "other");
    add_event(&t, 11, 6, "watched/below");
    add_event(&t, 11, 6, "watchedtoo");
    add_event(&t, 11, 5, "watched"); /* Matches twice, comes once. */
    done(&t, 0, LOCK_OK);
    add_event(&t, 12, 5, "mine");
    const Hf__NodeFrame *f = receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_EVENTS);
    assert_int_equal(f->events->n_events, 3);
    assert_memory_equal(f->events->events[0]->path.data, "mine", 4);
    assert_memory_equal(f->events->events[1]->path.data, "watched/below", 13);
    assert_int_equal(f->events->events[2]->path.len, 7);
    f = receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_RESULT);
    f = receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_EVENTS);
    assert_int_equal(f->events->events[0]->index, 12);
    raw_close(&r);
    end(&t);
}

static void test_events_resume(void **state)
{
    struct test t;
    struct raw r, s;
    (void)state;
    begin(&t);
    events_lost(t.events, 4);
    for (uint64_t i = 5; i <= 10; i++)
        add_event(&t, i, 5, "mine");
    greet(&t, &r);
    send_subscribe(&r, 5, NULL, 7);
    expect_subscribed(&t, &r, 7, false);
    const Hf__NodeFrame *f = receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->events->n_events, 3);
    assert_int_equal(f->events->events[0]->index, 8);
    greet(&t, &s);
    send_subscribe(&s, 5, NULL, 3); /* Too old. */
    expect_subscribed(&t, &s, 10, true);
    listener_drop_subscribers(t.listener);
    assert_true(raw_is_closed(&t.net, &r));
    assert_true(raw_is_closed(&t.net, &s));
    raw_close(&r);
    raw_close(&s);
    end(&t);
}

static void test_admin_refusal_tells_why(void **state)
{
    struct test t;
    struct raw r;
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Admin admin = HF__ADMIN__INIT;
    (void)state;
    begin(&t);
    greet(&t, &r);
    frame.id = 4;
    frame.body_case = HF__CLIENT_FRAME__BODY_ADMIN;
    frame.admin = &admin;
    raw_send_message(&r, &frame.base);
    const Hf__NodeFrame *f = receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->failure->code, HF__FAILURE__CODE__REFUSED);
    assert_string_equal(f->failure->text, "not today");
    raw_close(&r);
    end(&t);
}

static void test_unix_socket(void **state)
{
    struct test t;
    struct raw r;
    struct address address = {.is_unix = true};
    char directory[] = "/tmp/holdfast-test-XXXXXX";
    char *sentence = NULL;
    (void)state;
    assert_non_null(mkdtemp(directory));
    (void)snprintf(address.host, sizeof address.host, "%s/s", directory);
    begin(&t);
    assert_int_equal(listener_listen(t.listener, &address, false, &sentence), 0);
    raw_connect_unix(&r, address.host);
    send_hello(&r, WIRE_VERSION, WIRE_VERSION_MIN);
    assert_non_null(receive(&t, &r));
    raw_close(&r);
    end(&t);
    assert_int_equal(access(address.host, F_OK), -1);
    assert_int_equal(rmdir(directory), 0);
}

static void test_plain_tcp_beyond_loopback_is_refused(void **state)
{
    static const char *const hosts[] = {"0.0.0.0", "::"};
    struct test t;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct address address = {0};
        char *sentence = NULL;
        (void)snprintf(address.host, sizeof address.host, "%s", hosts[i]);
        begin(&t);
        assert_int_equal(listener_listen(t.listener, &address, false, &sentence), -EPERM);
        assert_non_null(strstr(sentence, "--insecure"));
        free(sentence);
        end(&t);
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
        cmocka_unit_test(test_slow_clients_together),
        cmocka_unit_test(test_command),
        cmocka_unit_test(test_command_refused),
        cmocka_unit_test(test_client_goes_before_the_outcome),
        cmocka_unit_test(test_query),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_query_is_kept),
        cmocka_unit_test(test_events_keep_their_order),
        cmocka_unit_test(test_events_resume),
        cmocka_unit_test(test_admin_refusal_tells_why),
        cmocka_unit_test(test_bounds_by_kind),
        cmocka_unit_test(test_turns_are_bounded),
        cmocka_unit_test(test_unix_socket),
        cmocka_unit_test(test_plain_tcp_beyond_loopback_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
