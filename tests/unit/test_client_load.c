/* The client library under load, and against nodes that don't answer: what is refused is refused at
 * once, one class of requests does not hold up another, repetitions are bounded, nodes that are
 * silent are left alone and found again. */
#include "client_harness.h"

#include "raftstore/base/buf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Help ------------------------------------------------------------------------------- */

static void ask(struct harness *h, uint64_t timeout_ms, struct outcome *o)
{
    Hf__Query q = HF__QUERY__INIT;
    *o = (struct outcome){.status = 1};
    q.what = HF__QUERY__WHAT__SHOW;
    q.path = pack_binary(bytes_str("a/b"));
    assert_int_equal(client_query(h->client, &q, timeout_ms, false, harness_on_reply, o), 0);
}

/* A command on "a/b" by this owner; a wait_ms makes it one that waits. */
static int give(struct harness *h,
                uint32_t op,
                const char *owner,
                uint64_t wait_ms,
                uint64_t timeout_ms,
                struct outcome *o)
{
    Hf__Command command = HF__COMMAND__INIT;
    ProtobufCBinaryData path = pack_binary(bytes_str("a/b"));
    *o = (struct outcome){.status = 1};
    command.op = op;
    command.paths = &path;
    command.n_paths = 1;
    command.owner = pack_binary(bytes_str(owner));
    command.mode = WIRE_MODE_EXCLUSIVE;
    command.wait_ms = wait_ms;
    return client_command(h->client, &command, timeout_ms, harness_on_result, o, NULL);
}

static struct client_node node_of(const struct harness *h, unsigned i)
{
    struct client_node nodes[8];
    unsigned n = client_nodes(h->client, nodes, 8);
    for (unsigned k = 0; k < n; k++)
        if (strcmp(nodes[k].address, h->nodes[i].address) == 0)
            return nodes[k];
    fail_msg("the client does not know node %u", i);
    return (struct client_node){0};
}

static bool breaker_is(const struct harness *h, unsigned i, const char *state)
{
    return strcmp(node_of(h, i).breaker, state) == 0;
}

/* What the node keeps without an answer, or refuses; and how often it was asked. */
static struct {
    bool queries, acquires, waits;
    bool busy;
    unsigned n_queries, n_acquires, n_waits;
} kept;

static bool keep(struct fake_conn *k, const Hf__ClientFrame *frame, const Hf__Command *command)
{
    bool query = frame->body_case == HF__CLIENT_FRAME__BODY_QUERY;
    bool acquire = command != NULL && command->op == WIRE_OP_ACQUIRE && command->wait_ms == 0;
    bool wait = command != NULL && command->op == WIRE_OP_ACQUIRE && command->wait_ms != 0;
    kept.n_queries += query;
    kept.n_acquires += acquire;
    kept.n_waits += wait;
    if (!((query && kept.queries) || (acquire && kept.acquires) || (wait && kept.waits)))
        return false;
    if (kept.busy)
        fake_failure(k, frame->id, HF__FAILURE__CODE__BUSY);
    return true;
}

static void harness_keep(struct harness *h, unsigned n_nodes, struct client_config config)
{
    memset(&kept, 0, sizeof kept);
    harness_init(h, n_nodes);
    for (unsigned i = 0; i < n_nodes; i++)
        h->nodes[i].script = keep;
    harness_client_with(h, (1u << n_nodes) - 1, config);
    RUN_UNTIL(h, client_session_live(h->client));
}

/* ---- Classes ---------------------------------------------------------------------------- */

static void a_flood_of_reads_holds_up_nothing_else(void **state)
{
    enum { MAX = 16384, FLIGHT = 4096 };
    struct harness h;
    struct outcome *o = calloc(MAX + 1, sizeof *o), w, r;
    Hf__Query q = HF__QUERY__INIT;
    (void)state;
    harness_keep(&h, 1, (struct client_config){.session_ttl_ms = 3000});
    kept.queries = true;
    for (unsigned i = 0; i < MAX; i++)
        ask(&h, 60000, &o[i]);
    q.what = HF__QUERY__WHAT__SHOW;
    assert_int_equal(client_query(h.client, &q, 60000, false, harness_on_reply, &o[MAX]), -EBUSY);
    RUN_UNTIL(&h, kept.n_queries == FLIGHT);
    unsigned keepalives = h.cluster.n_keepalives;
    for (unsigned i = 0; i < 5; i++) {
        harness_acquire(&h, 0, 0, 5000, &w);
        RUN_UNTIL(&h, w.n == 1);
        assert_int_equal(w.status, 0);
        harness_release(&h, w.token, &r);
        RUN_UNTIL(&h, r.n == 1);
    }
    RUN_UNTIL(&h, h.cluster.n_keepalives > keepalives + 1);
    assert_int_equal(h.n_session_events[CLIENT_SESSION_LOST], 0);
    assert_int_equal(kept.n_queries, FLIGHT);
    struct client_stats s = client_stats(h.client);
    assert_int_equal(s.classes[CLIENT_READ].flight, FLIGHT);
    assert_int_equal(s.classes[CLIENT_READ].line, MAX - FLIGHT);
    assert_int_equal(s.classes[CLIENT_READ].refused, 1);
    assert_int_equal(s.classes[CLIENT_WRITE].refused, 0);
    /* They are asked again where they are answered. */
    kept.queries = false;
    fake_node_reset(&h.nodes[0]);
    for (unsigned i = 0; i < MAX; i++)
        RUN_UNTIL(&h, o[i].n == 1);
    s = client_stats(h.client);
    assert_int_equal(s.classes[CLIENT_READ].flight + s.classes[CLIENT_READ].line, 0);
    harness_deinit(&h);
    free(o);
}

static void waits_and_writes_have_their_own_places(void **state)
{
    struct harness h;
    struct outcome waits[20], writes[20], w, r;
    (void)state;
    harness_keep(&h, 1, (struct client_config){.session_ttl_ms = 3000, .inflight_max = 4});
    kept.waits = true;
    for (unsigned i = 0; i < 20; i++)
        harness_acquire(&h, 0, WIRE_WAIT_FOREVER, 60000, &waits[i]);
    RUN_UNTIL(&h, kept.n_waits == 2);
    harness_acquire(&h, 0, 0, 5000, &w); /* Of the same owner: behind them. */
    assert_int_equal(give(&h, WIRE_OP_ACQUIRE, "other", 0, 5000, &w), 0);
    RUN_UNTIL(&h, w.n == 1);
    assert_int_equal(w.status, 0);
    kept.acquires = true;
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(give(&h, WIRE_OP_ACQUIRE, "another", 0, 60000, &writes[i]), 0);
    RUN_UNTIL(&h, kept.n_acquires == 5); /* Four, and the one before. */
    harness_release(&h, w.token, &r);
    RUN_UNTIL(&h, r.n == 1); /* With all places of both taken. */
    assert_int_equal(r.status, 0);
    assert_int_equal(kept.n_waits, 2);
    assert_int_equal(kept.n_acquires, 5);
    harness_deinit(&h);
}

/* Releases overtake acquires in line, but none of their own owner. */
static void those_of_one_owner_keep_their_order(void **state)
{
    struct harness h;
    struct outcome blocker, acquire, again, mine, other;
    (void)state;
    harness_keep(&h, 1, (struct client_config){.session_ttl_ms = 3000, .inflight_max = 1});
    kept.acquires = true;
    assert_int_equal(give(&h, WIRE_OP_ACQUIRE, "blocker", 0, 60000, &blocker), 0);
    RUN_UNTIL(&h, kept.n_acquires == 1);
    assert_int_equal(give(&h, WIRE_OP_ACQUIRE, "me", 0, 60000, &acquire), 0);
    assert_int_equal(give(&h, WIRE_OP_RELEASE, "me", 0, 60000, &mine), 0);
    assert_int_equal(give(&h, WIRE_OP_ACQUIRE, "me", 0, 60000, &again), 0);
    assert_int_equal(give(&h, WIRE_OP_RELEASE, "you", 0, 60000, &other), 0);
    RUN_UNTIL(&h, other.n == 1);
    harness_run_ms(&h, 50);
    assert_int_equal(mine.n, 0);
    kept.acquires = false;
    fake_node_reset(&h.nodes[0]);
    RUN_UNTIL(&h, again.n == 1 && mine.n == 1 && acquire.n == 1);
    const uint32_t order[] = {WIRE_OP_RELEASE, WIRE_OP_ACQUIRE, WIRE_OP_ACQUIRE, WIRE_OP_RELEASE,
                              WIRE_OP_ACQUIRE};
    assert_int_equal(h.cluster.n_executed, 5);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(h.cluster.executed[i].op, order[i]);
    harness_deinit(&h);
}

static void a_full_class_of_writes_is_refused_at_once(void **state)
{
    enum { MAX = 16384 };
    struct harness h;
    struct outcome *o = calloc(MAX + 1, sizeof *o), r;
    (void)state;
    harness_keep(&h, 1, (struct client_config){.session_ttl_ms = 30000});
    kept.acquires = true;
    for (unsigned i = 0; i < MAX; i++)
        assert_int_equal(give(&h, WIRE_OP_ACQUIRE, "me", 0, 1500, &o[i]), 0);
    assert_int_equal(give(&h, WIRE_OP_ACQUIRE, "me", 0, 1500, &o[MAX]), -EBUSY);
    assert_int_equal(client_stats(h.client).classes[CLIENT_WRITE].refused, 1);
    assert_int_equal(give(&h, WIRE_OP_RELEASE, "you", 0, 5000, &r), 0);
    RUN_UNTIL(&h, r.n == 1);
    for (unsigned i = 0; i < MAX; i++)
        RUN_UNTIL(&h, o[i].n == 1);
    /* Those that were never sent leave nothing; the others' outcome is found out. */
    assert_true(client_stats(h.client).classes[CLIENT_WRITE].line == 0);
    kept.acquires = false;
    fake_node_reset(&h.nodes[0]);
    RUN_UNTIL(&h, client_info(h.client).n_pending == 0);
    harness_deinit(&h);
    free(o);
}

/* ---- Repetitions ------------------------------------------------------------------------ */

static void repetitions_of_commands_are_bounded(void **state)
{
    enum { N = 500 };
    struct harness h;
    struct outcome o[N], r;
    (void)state;
    harness_keep(&h, 1, (struct client_config){.session_ttl_ms = 30000});
    kept.acquires = kept.busy = true;
    for (unsigned i = 0; i < N; i++) {
        char owner[16];
        (void)snprintf(owner, sizeof owner, "owner%u", i);
        assert_int_equal(give(&h, WIRE_OP_ACQUIRE, owner, 0, 3600000, &o[i]), 0);
    }
    for (unsigned i = 0; i < N; i++) {
        RUN_UNTIL(&h, o[i].n == 1); /* Long before its time is up. */
        assert_int_equal(o[i].status, -EBUSY);
    }
    assert_in_range(kept.n_acquires, N + 100, N + N / 5 + 100);
    assert_true(client_stats(h.client).retries_refused >= N);
    harness_release(&h, 7, &r); /* What ends holds is not for the budget. */
    RUN_UNTIL(&h, r.n == 1);
    kept.busy = kept.acquires = false;
    harness_acquire(&h, 0, 0, 5000, &r);
    RUN_UNTIL(&h, r.n == 1);
    assert_int_equal(r.status, 0);
    harness_deinit(&h);
}

static void repetitions_of_queries_are_bounded(void **state)
{
    enum { N = 500 };
    struct harness h;
    struct outcome o[N];
    (void)state;
    harness_keep(&h, 1, (struct client_config){.session_ttl_ms = 30000});
    kept.queries = kept.busy = true;
    for (unsigned i = 0; i < N; i++)
        ask(&h, 3600000, &o[i]);
    for (unsigned i = 0; i < N; i++) {
        RUN_UNTIL(&h, o[i].n == 1);
        assert_int_equal(o[i].status, -EBUSY);
    }
    assert_in_range(kept.n_queries, N + 100, N + N / 5 + 100);
    harness_deinit(&h);
}

/* Each connection breaks once something was asked on it. */
static bool
break_on_query(struct fake_conn *k, const Hf__ClientFrame *frame, const Hf__Command *command)
{
    (void)command;
    if (frame->body_case != HF__CLIENT_FRAME__BODY_QUERY)
        return false;
    kept.n_queries++;
    fake_node_reset(k->node);
    return true;
}

static void broken_connections_make_no_storm(void **state)
{
    enum { N = 200 };
    struct harness h;
    struct outcome o[N];
    (void)state;
    harness_keep(&h, 1, (struct client_config){.session_ttl_ms = 30000});
    h.nodes[0].script = break_on_query;
    for (unsigned i = 0; i < N; i++)
        ask(&h, 1500, &o[i]);
    for (unsigned i = 0; i < N; i++)
        RUN_UNTIL(&h, o[i].n == 1);
    /* At most twice a second everything at once, beside the budget. */
    assert_true(client_stats(h.client).retries <= 4 * N + N / 5 + 100);
    h.nodes[0].script = NULL;
    ask(&h, 8000, &o[0]);
    RUN_UNTIL(&h, o[0].n == 1);
    assert_int_equal(o[0].status, 0);
    harness_deinit(&h);
}

/* ---- Breakers --------------------------------------------------------------------------- */

/* The way to the leader is cut; the others still say that he leads. */
static void queries_leave_a_leader_that_is_silent(void **state)
{
    struct harness h;
    struct outcome o, w;
    (void)state;
    harness_keep(&h, 3, (struct client_config){.session_ttl_ms = 30000});
    ask(&h, 5000, &o);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.index, h.nodes[0].id);
    h.nodes[0].mute = true;
    ask(&h, 8000, &o);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, 0);
    assert_int_not_equal(o.index, h.nodes[0].id);
    assert_false(breaker_is(&h, 0, "closed"));
    assert_int_equal(node_of(&h, 0).n_opened, 1);
    uint64_t start = clock_boot_ns(clock_system());
    for (unsigned i = 0; i < 200; i++) { /* None of them pays for it again. */
        ask(&h, 8000, &o);
        RUN_UNTIL(&h, o.n == 1);
        assert_int_not_equal(o.index, h.nodes[0].id);
    }
    assert_true(clock_boot_ns(clock_system()) - start < 5 * NS_PER_S);
    h.nodes[0].mute = false;
    harness_acquire(&h, 0, 0, 9000, &w);
    RUN_UNTIL(&h, w.n == 1);
    assert_int_equal(w.status, 0);
    assert_true(breaker_is(&h, 0, "closed"));
    harness_deinit(&h);
}

/* With a leader, a node that is down is looked after now and then, and closes when it is back. */
static void a_node_that_is_back_is_noticed(void **state)
{
    struct harness h;
    struct outcome o;
    (void)state;
    harness_keep(&h, 3, (struct client_config){.session_ttl_ms = 30000});
    h.nodes[0].mute = true;
    harness_lead(&h, 1);
    ask(&h, 8000, &o);
    RUN_UNTIL(&h, o.n == 1 && client_info(h.client).leader_id == h.nodes[1].id);
    RUN_UNTIL(&h, node_of(&h, 0).n_opened > 1); /* Tried, and found silent. */
    unsigned before = h.nodes[0].n_connections;
    h.nodes[0].mute = false;
    RUN_UNTIL(&h, breaker_is(&h, 0, "closed"));
    RUN_UNTIL(&h, !node_of(&h, 0).connected); /* It was only looked at. */
    assert_true(h.nodes[0].n_connections <= before + 2);
    assert_true(node_of(&h, 1).leads);
    harness_deinit(&h);
}

static void all_open_keeps_nobody_from_trying(void **state)
{
    struct harness h;
    struct outcome o;
    (void)state;
    harness_keep(&h, 3, (struct client_config){.session_ttl_ms = 30000});
    for (unsigned i = 0; i < 3; i++) {
        h.nodes[i].down = true;
        fake_node_reset(&h.nodes[i]);
    }
    for (unsigned i = 0; i < 3; i++)
        RUN_UNTIL(&h, node_of(&h, i).n_opened >= 3);
    unsigned n = h.nodes[0].n_connections + h.nodes[1].n_connections + h.nodes[2].n_connections;
    harness_run_ms(&h, 1000);
    n = h.nodes[0].n_connections + h.nodes[1].n_connections + h.nodes[2].n_connections - n;
    assert_in_range(n, 2, 25); /* One each 100 ms at most, beside each one's own pauses. */
    for (unsigned i = 0; i < 3; i++)
        h.nodes[i].down = false;
    harness_acquire(&h, 0, 0, 9000, &o);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, 0);
    harness_deinit(&h);
}

/* ---- Figures ---------------------------------------------------------------------------- */

static void metrics_tell_it(void **state)
{
    struct harness h;
    struct outcome o;
    struct buf out = BUF_INIT;
    char line[160];
    (void)state;
    harness_keep(&h, 1, (struct client_config){.session_ttl_ms = 30000});
    kept.waits = true;
    assert_int_equal(give(&h, WIRE_OP_ACQUIRE, "me", 5000, 5000, &o), 0);
    RUN_UNTIL(&h, kept.n_waits == 1);
    client_metrics(h.client, &out);
    buf_add(&out, "", 1);
    (void)snprintf(line, sizeof line,
                   "holdfast_client_breaker_state{node=\"%s\",state=\"closed\"} 1",
                   h.nodes[0].address);
    assert_non_null(strstr((char *)out.data, line));
    assert_non_null(strstr((char *)out.data, "holdfast_client_in_flight{class=\"wait\"} 1"));
    assert_non_null(strstr((char *)out.data, "holdfast_client_in_flight{class=\"read\"} 0"));
    assert_non_null(strstr((char *)out.data, "holdfast_client_retries_total 0"));
    buf_deinit(&out);
    harness_deinit(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flood_of_reads_holds_up_nothing_else),
        cmocka_unit_test(waits_and_writes_have_their_own_places),
        cmocka_unit_test(those_of_one_owner_keep_their_order),
        cmocka_unit_test(a_full_class_of_writes_is_refused_at_once),
        cmocka_unit_test(repetitions_of_commands_are_bounded),
        cmocka_unit_test(repetitions_of_queries_are_bounded),
        cmocka_unit_test(broken_connections_make_no_storm),
        cmocka_unit_test(queries_leave_a_leader_that_is_silent),
        cmocka_unit_test(a_node_that_is_back_is_noticed),
        cmocka_unit_test(all_open_keeps_nobody_from_trying),
        cmocka_unit_test(metrics_tell_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
