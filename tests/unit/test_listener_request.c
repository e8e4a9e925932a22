/* What clients ask of a node: commands, queries, events, administration. */
#include "tests/unit/listener_harness.h"

#include "raftstore/base/clock.h"
#include "raftstore/node/request_stats.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static bool one_submitted(void *arg)
{
    const struct listener_test *t = arg;
    return t->n_submitted > 0;
}

static void done(struct listener_test *t, unsigned i, enum lock_code code)
{
    struct lock_result result = {.code = code, .token = 77};
    listener_command_done(t->listener, clock_mono_ns(clock_system()), t->submitted[i], REPLICA_OK,
                          &result, 12);
}

static void test_command(void **state)
{
    struct listener_test t;
    struct raw r;
    (void)state;
    lt_begin(&t);
    lt_greet(&t, &r);
    lt_send_command(&r, 5, LOCK_OP_ACQUIRE);
    assert_true(net_run(&t.net, one_submitted, &t, 2000));
    done(&t, 0, LOCK_CONFLICT);
    done(&t, 0, LOCK_OK); /* A number that is over is ignored. */
    const Hf__NodeFrame *f = lt_receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->id, 5);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_RESULT);
    assert_int_equal(f->result->code, LOCK_CONFLICT);
    assert_int_equal(f->result->token, 77);
    assert_int_equal(f->result->index, 12);
    assert_int_equal(listener_stats(t.listener).requests, 0);
    raw_close(&r);
    lt_end(&t);
}

static void test_command_refused(void **state)
{
    struct listener_test t;
    struct raw r;
    (void)state;
    lt_begin(&t);
    lt_greet(&t, &r);
    t.submit_status = REPLICA_NOT_LEADER;
    lt_send_command(&r, 1, LOCK_OP_ACQUIRE);
    const Hf__NodeFrame *f = lt_receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_FAILURE);
    assert_int_equal(f->failure->code, HF__FAILURE__CODE__NOT_LEADER);
    assert_int_equal(f->failure->leader_id, 7);
    assert_string_equal(f->failure->leader_client_address, "leader.example:7001");
    t.submit_status = REPLICA_BUSY;
    lt_send_command(&r, 2, LOCK_OP_ACQUIRE);
    lt_expect_failure(&t, &r, 2, HF__FAILURE__CODE__BUSY);
    lt_send_command(&r, 3, LOCK_OP_TICK); /* The nodes' own. */
    lt_expect_failure(&t, &r, 3, HF__FAILURE__CODE__BAD_REQUEST);
    lt_send_command(&r, 4, 12345);
    lt_expect_failure(&t, &r, 4, HF__FAILURE__CODE__BAD_REQUEST);
    listener_drain(t.listener);
    lt_send_command(&r, 5, LOCK_OP_ACQUIRE);
    lt_expect_failure(&t, &r, 5, HF__FAILURE__CODE__SHUTTING_DOWN);
    assert_int_equal(listener_stats(t.listener).requests, 0);
    raw_close(&r);
    lt_end(&t);
}

static bool none_connected(void *arg)
{
    const struct listener_test *t = arg;
    return listener_stats(t->listener).connections == 0;
}

static void test_client_goes_before_the_outcome(void **state)
{
    struct listener_test t;
    struct raw r;
    (void)state;
    lt_begin(&t);
    lt_greet(&t, &r);
    lt_send_command(&r, 5, LOCK_OP_ACQUIRE);
    assert_true(net_run(&t.net, one_submitted, &t, 2000));
    raw_close(&r);
    assert_true(net_run(&t.net, none_connected, &t, 2000));
    assert_int_equal(listener_stats(t.listener).requests, 1);
    done(&t, 0, LOCK_OK);
    assert_int_equal(listener_stats(t.listener).requests, 0);
    lt_end(&t);
}

static bool read_asked(void *arg)
{
    const struct listener_test *t = arg;
    return t->read_id != 0;
}

static void test_query(void **state)
{
    struct listener_test t;
    struct raw r;
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Query query = HF__QUERY__INIT;
    (void)state;
    lt_begin(&t);
    lt_greet(&t, &r);
    query.what = HF__QUERY__WHAT__SHOW;
    query.path = pack_binary(bytes_str("a/b/c"));
    frame.id = 8;
    frame.body_case = HF__CLIENT_FRAME__BODY_QUERY;
    frame.query = &query;
    raw_send_message(&r, &frame.base);
    assert_true(net_run(&t.net, read_asked, &t, 2000));
    listener_read_done(t.listener, t.read_id, REPLICA_OK);
    const Hf__NodeFrame *f = lt_receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->id, 8);
    assert_int_equal(f->query->index, 5);
    assert_int_equal(f->query->code, HF__QUERY__WHAT__SHOW);
    t.read_id = 0;
    raw_send_message(&r, &frame.base);
    assert_true(net_run(&t.net, read_asked, &t, 2000));
    listener_read_done(t.listener, t.read_id, REPLICA_NO_QUORUM);
    lt_expect_failure(&t, &r, 8, HF__FAILURE__CODE__NO_QUORUM);
    t.read_id = 0;
    static uint8_t longest[LOCK_PATH_BYTES_MAX + 1];
    query.path = pack_binary(bytes_of(longest, sizeof longest)); /* Would be kept for seconds. */
    raw_send_message(&r, &frame.base);
    lt_expect_failure(&t, &r, 8, HF__FAILURE__CODE__BAD_REQUEST);
    assert_int_equal(t.read_id, 0);
    query.what = HF__QUERY__WHAT__STATUS; /* Needs nobody. */
    raw_send_message(&r, &frame.base);
    f = lt_receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_QUERY);
    assert_int_equal(t.read_id, 0);
    raw_close(&r);
    lt_end(&t);
}

static bool counted(const struct listener_test *t, const char *line)
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
    struct listener_test t;
    struct raw r;
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Query query = HF__QUERY__INIT;
    static const int32_t whats[] = {-1, -20, -21, -1000, 9, 23, 1000, INT32_MIN, INT32_MAX};
    (void)state;
    lt_begin(&t);
    lt_greet(&t, &r);
    frame.id = 8;
    frame.body_case = HF__CLIENT_FRAME__BODY_QUERY;
    frame.query = &query;
    for (unsigned i = 0; i < sizeof whats / sizeof whats[0]; i++) {
        query.what = (Hf__Query__What)whats[i];
        t.read_id = 0;
        raw_send_message(&r, &frame.base);
        assert_true(net_run(&t.net, read_asked, &t, 2000));
        listener_read_done(t.listener, t.read_id, REPLICA_OK);
        assert_non_null(lt_receive(&t, &r));
    }
    assert_true(counted(&t, "holdfast_node_requests_total{kind=\"other\",result=\"ok\"} 9\n"));
    lt_send_command(&r, 4, 12345);
    lt_expect_failure(&t, &r, 4, HF__FAILURE__CODE__BAD_REQUEST);
    assert_true(
        counted(&t, "holdfast_node_requests_total{kind=\"other\",result=\"bad_request\"} 1\n"));
    lt_send_command(&r, 5, LOCK_OP_ACQUIRE);
    assert_true(net_run(&t.net, one_submitted, &t, 2000));
    done(&t, 0, LOCK_CONFLICT);
    assert_non_null(lt_receive(&t, &r));
    t.submit_status = REPLICA_BUSY;
    lt_send_command(&r, 6, LOCK_OP_RELEASE);
    lt_expect_failure(&t, &r, 6, HF__FAILURE__CODE__BUSY);
    assert_true(counted(&t, "{kind=\"acquire\",result=\"conflict\"} 1\n"));
    assert_true(counted(&t, "{kind=\"release\",result=\"busy\"} 1\n"));
    assert_true(counted(&t, "{reason=\"busy\"} 1\n"));
    assert_true(counted(&t, "duration_seconds_count{class=\"acquire\"} 1\n"));
    assert_true(counted(&t, "duration_seconds_count{class=\"release\"} 0\n"));
    raw_close(&r);
    lt_end(&t);
}

/* What a read asks for outlives the frame that it came in: others come before it is answered. */
static void test_query_is_kept(void **state)
{
    struct listener_test t;
    struct raw r;
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Query query = HF__QUERY__INIT;
    (void)state;
    lt_begin(&t);
    lt_greet(&t, &r);
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
    assert_int_equal(lt_receive(&t, &r)->id, 8);
    t.read_id = 0;
    static uint8_t longest[LOCK_OWNER_BYTES_MAX + 1];
    query.owner = pack_binary(bytes_of(longest, sizeof longest));
    raw_send_message(&r, &frame.base);
    lt_expect_failure(&t, &r, 9, HF__FAILURE__CODE__BAD_REQUEST);
    assert_int_equal(t.read_id, 0);
    raw_close(&r);
    lt_end(&t);
}

static void
add_event(struct listener_test *t, uint64_t index, uint64_t session_id, const char *path)
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

static void expect_subscribed(struct listener_test *t, struct raw *r, uint64_t index, bool gap)
{
    const Hf__NodeFrame *f = lt_receive(t, r);
    assert_non_null(f);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_SUBSCRIBED);
    assert_int_equal(f->subscribed->index, index);
    assert_int_equal(f->subscribed->gap, gap);
}

/* Events and results leave in the order in which they happened. */
static void test_events_keep_their_order(void **state)
{
    struct listener_test t;
    struct raw r;
    (void)state;
    lt_begin(&t);
    lt_greet(&t, &r);
    send_subscribe(&r, 5, "watched", 0);
    expect_subscribed(&t, &r, 10, false);
    lt_send_command(&r, 6, LOCK_OP_ACQUIRE);
    assert_true(net_run(&t.net, one_submitted, &t, 2000));
    add_event(&t, 11, 5, "mine");
    add_event(&t, 11, 6, "other");
    add_event(&t, 11, 6, "watched/below");
    add_event(&t, 11, 6, "watchedtoo");
    add_event(&t, 11, 5, "watched"); /* Matches twice, comes once. */
    done(&t, 0, LOCK_OK);
    add_event(&t, 12, 5, "mine");
    const Hf__NodeFrame *f = lt_receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_EVENTS);
    assert_int_equal(f->events->n_events, 3);
    assert_memory_equal(f->events->events[0]->path.data, "mine", 4);
    assert_memory_equal(f->events->events[1]->path.data, "watched/below", 13);
    assert_int_equal(f->events->events[2]->path.len, 7);
    f = lt_receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_RESULT);
    f = lt_receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_EVENTS);
    assert_int_equal(f->events->events[0]->index, 12);
    raw_close(&r);
    lt_end(&t);
}

static void test_events_resume(void **state)
{
    struct listener_test t;
    struct raw r, s;
    (void)state;
    lt_begin(&t);
    events_lost(t.events, 4);
    for (uint64_t i = 5; i <= 10; i++)
        add_event(&t, i, 5, "mine");
    lt_greet(&t, &r);
    send_subscribe(&r, 5, NULL, 7);
    expect_subscribed(&t, &r, 7, false);
    const Hf__NodeFrame *f = lt_receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->events->n_events, 3);
    assert_int_equal(f->events->events[0]->index, 8);
    lt_greet(&t, &s);
    send_subscribe(&s, 5, NULL, 3); /* Too old. */
    expect_subscribed(&t, &s, 10, true);
    listener_drop_subscribers(t.listener);
    assert_true(raw_is_closed(&t.net, &r));
    assert_true(raw_is_closed(&t.net, &s));
    raw_close(&r);
    raw_close(&s);
    lt_end(&t);
}

static void test_admin_refusal_tells_why(void **state)
{
    struct listener_test t;
    struct raw r;
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Admin admin = HF__ADMIN__INIT;
    (void)state;
    lt_begin(&t);
    lt_greet(&t, &r);
    frame.id = 4;
    frame.body_case = HF__CLIENT_FRAME__BODY_ADMIN;
    frame.admin = &admin;
    raw_send_message(&r, &frame.base);
    const Hf__NodeFrame *f = lt_receive(&t, &r);
    assert_non_null(f);
    assert_int_equal(f->failure->code, HF__FAILURE__CODE__REFUSED);
    assert_string_equal(f->failure->text, "not today");
    raw_close(&r);
    lt_end(&t);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_command),
        cmocka_unit_test(test_command_refused),
        cmocka_unit_test(test_client_goes_before_the_outcome),
        cmocka_unit_test(test_query),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_query_is_kept),
        cmocka_unit_test(test_events_keep_their_order),
        cmocka_unit_test(test_events_resume),
        cmocka_unit_test(test_admin_refusal_tells_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
