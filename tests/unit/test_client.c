/* The client library against scripted nodes: finding the leader, repeating, giving up. */
#include "client_harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static void an_acquire_is_answered_with_a_safe_deadline(void **state)
{
    struct harness h;
    struct outcome o;
    (void)state;
    harness_init(&h, 1);
    harness_client(&h, 1, 3000);
    harness_acquire(&h, 10000, 0, 2000, &o);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, 0);
    assert_int_equal(o.code, WIRE_CODE_OK);
    assert_int_equal(o.token, 1001);
    const struct fake_executed *x = fake_find(&h.cluster, WIRE_OP_ACQUIRE, 0);
    /* The cluster's deadline on our clock (the fake's cluster time is our boot time, shifted). */
    uint64_t real = x->result_deadline_ns - NS_PER_S + h.cluster.start_ns;
    assert_true(o.deadline_boot_ns < real);
    assert_true(real - o.deadline_boot_ns < 10000 * NS_PER_MS / 128 + 50 * NS_PER_MS);
    assert_true(client_deadline_boot_ns(h.client, x->result_deadline_ns) <= o.deadline_boot_ns + 1);
    harness_deinit(&h);
}

static void results_are_acknowledged_and_numbers_grow(void **state)
{
    struct harness h;
    struct outcome o[50];
    (void)state;
    harness_init(&h, 1);
    harness_client(&h, 1, 3000);
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < 50; i++)
            harness_acquire(&h, 0, 0, 2000, &o[i]);
        for (unsigned i = 0; i < 50; i++)
            RUN_UNTIL(&h, o[i].n == 1);
    }
    assert_int_equal(h.cluster.n_executed, 250);
    for (unsigned i = 1; i < 250; i++)
        assert_true(h.cluster.executed[i].seq > h.cluster.executed[i - 1].seq);
    assert_true(h.cluster.executed[249].ack_seq >= 200);
    harness_deinit(&h);
}

static void a_follower_names_the_leader(void **state)
{
    struct harness h;
    struct outcome o;
    (void)state;
    harness_init(&h, 3);
    harness_lead(&h, 2);
    harness_client(&h, 1, 3000); /* Knows the follower only. */
    harness_acquire(&h, 0, 0, 2000, &o);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, 0);
    assert_int_equal(client_info(h.client).leader_id, 3);
    assert_string_equal(client_info(h.client).address, h.nodes[2].address);
    harness_deinit(&h);
}

static void a_leader_that_steps_down_is_left(void **state)
{
    struct harness h;
    struct outcome o;
    (void)state;
    harness_init(&h, 3);
    harness_client(&h, 7, 3000);
    harness_acquire(&h, 0, 0, 2000, &o);
    RUN_UNTIL(&h, o.n == 1);
    harness_lead(&h, 1); /* Commands to the first are refused now: NOT_LEADER. */
    for (int i = 0; i < 3; i++) {
        harness_acquire(&h, 0, 0, 2000, &o);
        RUN_UNTIL(&h, o.n == 1);
        assert_int_equal(o.status, 0);
    }
    assert_int_equal(client_info(h.client).leader_id, 2);
    assert_int_equal(h.cluster.n_executed, 4);
    assert_int_equal(h.n_session_events[CLIENT_SESSION_OPENED], 1);
    harness_deinit(&h);
}

/* Executes, then breaks the connection instead of answering: once. */
static bool
execute_and_reset(struct fake_conn *k, const Hf__ClientFrame *frame, const Hf__Command *command)
{
    if (command == NULL || command->op != WIRE_OP_ACQUIRE)
        return false;
    k->node->script = NULL;
    k->node->mute = true;
    fake_execute(k, frame->id, command);
    k->node->mute = false;
    fake_node_reset(k->node);
    return true;
}

static struct {
    uint64_t seq_first, span_max;
    bool busy;
} window;

/* The first command is refused for load as long as `busy`; measures how far the rest gets. */
static bool
refuse_the_first(struct fake_conn *k, const Hf__ClientFrame *frame, const Hf__Command *command)
{
    if (command == NULL || command->op != WIRE_OP_ACQUIRE)
        return false;
    if (window.seq_first == 0)
        window.seq_first = command->seq;
    if (window.busy && command->seq - window.seq_first > window.span_max)
        window.span_max = command->seq - window.seq_first;
    if (command->seq != window.seq_first || !window.busy)
        return false;
    fake_failure(k, frame->id, HF__FAILURE__CODE__BUSY);
    return true;
}

/* The cluster keeps 4096 results behind the oldest unanswered one, and refuses more.  The last 512
 * numbers are for what keeps or ends holds. */
static void numbers_stay_within_what_the_cluster_keeps(void **state)
{
    enum { N = 5000 };
    struct harness h;
    struct outcome *o = calloc(N, sizeof *o);
    (void)state;
    assert_non_null(o);
    harness_init(&h, 1);
    window.seq_first = window.span_max = 0;
    window.busy = true;
    h.nodes[0].script = refuse_the_first;
    harness_client(&h, 1, 30000);
    for (unsigned i = 0; i < N; i++)
        harness_acquire(&h, 0, 0, 30000, &o[i]);
    RUN_UNTIL(&h, o[3500].n == 1);
    harness_run_ms(&h, 300);
    assert_in_range(window.span_max, 3500, 3583);
    struct outcome r;
    harness_release(&h, 1001, &r);
    RUN_UNTIL(&h, r.n == 1);
    assert_int_equal(r.status, 0);
    window.busy = false;
    for (unsigned i = 0; i < N; i++)
        RUN_UNTIL(&h, o[i].n == 1);
    harness_deinit(&h);
    free(o);
}

static void a_lost_answer_is_asked_for_again_and_executed_once(void **state)
{
    struct harness h;
    struct outcome o;
    (void)state;
    harness_init(&h, 1);
    harness_client(&h, 1, 3000);
    h.nodes[0].script = execute_and_reset;
    harness_acquire(&h, 5000, 0, 2000, &o);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, 0);
    assert_int_equal(o.token, 1001);
    assert_int_equal(h.cluster.n_executed, 1);
    assert_int_equal(h.cluster.n_received, 2);
    assert_true(o.at_boot_ns - o.sent_boot_ns < 1000 * NS_PER_MS);
    assert_int_equal(h.n_session_events[CLIENT_SESSION_OPENED], 1);
    harness_deinit(&h);
}

static void the_next_leader_is_found_at_once_when_one_dies(void **state)
{
    struct harness h;
    struct outcome o;
    (void)state;
    harness_init(&h, 3);
    harness_client(&h, 7, 3000);
    harness_acquire(&h, 0, 0, 2000, &o);
    RUN_UNTIL(&h, o.n == 1);
    h.nodes[0].down = true; /* Killed: and no new leader yet. */
    h.nodes[1].leader_id = h.nodes[2].leader_id = 0;
    h.nodes[1].leader_address[0] = h.nodes[2].leader_address[0] = '\0';
    fake_node_reset(&h.nodes[0]);
    harness_acquire(&h, 0, 0, 5000, &o);
    harness_run_ms(&h, 300);
    assert_int_equal(o.n, 0);
    harness_lead(&h, 2);
    uint64_t elected = clock_boot_ns(clock_system());
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, 0);
    assert_true(o.at_boot_ns - elected < 400 * NS_PER_MS);
    assert_true(h.nodes[1].n_connections < 30);
    harness_deinit(&h);
}

static void a_silent_leader_is_noticed(void **state)
{
    struct harness h;
    struct outcome o;
    (void)state;
    harness_init(&h, 3);
    harness_client(&h, 7, 3000);
    harness_acquire(&h, 0, 0, 2000, &o);
    RUN_UNTIL(&h, o.n == 1);
    h.nodes[0].mute = true; /* As SIGSTOP: the connection stays. */
    harness_acquire(&h, 0, 0, 5000, &o);
    harness_lead(&h, 1);
    uint64_t start = clock_boot_ns(clock_system());
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, 0);
    assert_true(o.at_boot_ns - start < 2000 * NS_PER_MS);
    assert_int_equal(h.cluster.n_executed, 2);
    harness_deinit(&h);
}

static unsigned n_busy;

static bool
busy_thrice(struct fake_conn *k, const Hf__ClientFrame *frame, const Hf__Command *command)
{
    if (command == NULL || command->op != WIRE_OP_ACQUIRE || n_busy == 0)
        return false;
    n_busy--;
    fake_failure(k, frame->id, HF__FAILURE__CODE__BUSY);
    return true;
}

static void busy_is_tried_again_until_the_deadline(void **state)
{
    struct harness h;
    struct outcome o;
    (void)state;
    harness_init(&h, 1);
    h.nodes[0].script = busy_thrice;
    harness_client(&h, 1, 3000);
    n_busy = 3;
    harness_acquire(&h, 0, 0, 2000, &o);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, 0);
    assert_int_equal(n_busy, 0);
    n_busy = 1000000;
    harness_acquire(&h, 0, 0, 200, &o);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, -EBUSY);
    assert_true(1000000 - n_busy < 40);
    n_busy = 0;
    harness_acquire(&h, 0, 0, 2000, &o); /* Refused ones leave nothing behind. */
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(fake_find(&h.cluster, WIRE_OP_ACQUIRE, 1)->ack_seq + 1,
                     fake_find(&h.cluster, WIRE_OP_ACQUIRE, 1)->seq);
    assert_null(fake_find(&h.cluster, WIRE_OP_RELEASE, 0));
    harness_deinit(&h);
}

static struct {
    struct fake_conn *conn;
    uint64_t id;
    uint64_t seq;
    uint64_t session_id;
    unsigned n;
} held;

/* Keeps acquires without an answer. */
static bool
hold_acquires(struct fake_conn *k, const Hf__ClientFrame *frame, const Hf__Command *command)
{
    if (command == NULL || command->op != WIRE_OP_ACQUIRE)
        return false;
    held.conn = k;
    held.id = frame->id;
    held.seq = command->seq;
    held.session_id = command->session_id;
    held.n++;
    return true;
}

static void a_grant_that_nobody_waits_for_is_released(void **state)
{
    struct harness h;
    struct outcome o;
    (void)state;
    harness_init(&h, 1);
    harness_client(&h, 1, 30000);
    h.nodes[0].script = hold_acquires;
    held.n = 0;
    harness_acquire(&h, 60000, 0, 100, &o);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, -ETIMEDOUT);
    h.nodes[0].script = NULL; /* From now on it is executed: by the repetition. */
    RUN_UNTIL(&h, fake_find(&h.cluster, WIRE_OP_RELEASE, 0) != NULL);
    const struct fake_executed *acquire = fake_find(&h.cluster, WIRE_OP_ACQUIRE, 0);
    assert_int_equal(acquire->seq, held.seq);
    assert_int_equal(fake_find(&h.cluster, WIRE_OP_RELEASE, 0)->token, acquire->result_token);
    RUN_UNTIL(&h, client_info(h.client).n_pending == 0);
    assert_int_equal(o.n, 1);
    harness_deinit(&h);
}

/* However many they are: a hold on the session that nobody knows of would stay as long as that. */
static void no_orphan_is_forgotten(void **state)
{
    enum { ORPHANS = 1030 };
    struct harness h;
    static struct outcome o[ORPHANS];
    Hf__Command command = HF__COMMAND__INIT;
    ProtobufCBinaryData path = pack_binary(bytes_str("a/b"));
    unsigned n_answered = 0, n_released = 0;
    (void)state;
    harness_init(&h, 1);
    harness_client(&h, 1, 30000);
    h.nodes[0].script = hold_acquires;
    command.op = WIRE_OP_ACQUIRE;
    command.paths = &path;
    command.n_paths = 1;
    command.mode = WIRE_MODE_EXCLUSIVE;
    held.n = 0;
    for (unsigned i = 0; i < ORPHANS; i++) {
        char owner[16];
        (void)snprintf(owner, sizeof owner, "owner%u", i);
        command.owner = pack_binary(bytes_str(owner));
        o[i] = (struct outcome){.status = 1};
        assert_int_equal(client_command(h.client, &command, 1000, harness_on_result, &o[i], NULL),
                         0);
    }
    RUN_UNTIL(&h, o[0].n == 1 && o[ORPHANS - 1].n == 1);
    for (unsigned i = 0; i < ORPHANS; i++)
        n_answered += o[i].n == 1 && o[i].status == -ETIMEDOUT;
    assert_int_equal(n_answered, ORPHANS);
    h.nodes[0].script = NULL;
    /* They are asked for a few at a time, not all at once. */
    for (int i = 0; i < 600 && client_info(h.client).n_pending > 0; i++)
        harness_run_ms(&h, 100);
    while (fake_find(&h.cluster, WIRE_OP_RELEASE, n_released) != NULL)
        n_released++;
    assert_int_equal(n_released, ORPHANS);
    harness_deinit(&h);
}

/* The owner asks again before the fate of its first request is known.  It must not be given the
 * orphan's hold, which is about to be released. */
static void the_owner_of_an_orphan_waits_for_its_end(void **state)
{
    struct harness h;
    struct outcome o, again;
    (void)state;
    harness_init(&h, 1);
    harness_client(&h, 1, 30000);
    h.nodes[0].script = hold_acquires;
    held.n = 0;
    harness_acquire(&h, 60000, 0, 100, &o);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, -ETIMEDOUT);
    harness_acquire(&h, 60000, 0, 8000, &again);
    harness_run_ms(&h, 50);
    assert_int_equal(held.n, 1);
    h.nodes[0].script = NULL;
    RUN_UNTIL(&h, again.n == 1);
    assert_int_equal(again.code, WIRE_CODE_OK);
    assert_int_equal(h.cluster.n_executed, 3);
    assert_int_equal(h.cluster.executed[0].op, WIRE_OP_ACQUIRE);
    assert_int_equal(h.cluster.executed[1].op, WIRE_OP_RELEASE);
    assert_int_equal(h.cluster.executed[1].token, h.cluster.executed[0].result_token);
    assert_int_equal(h.cluster.executed[2].op, WIRE_OP_ACQUIRE);
    assert_int_equal(again.token, h.cluster.executed[2].result_token);
    harness_deinit(&h);
}

/* Nobody answers at all: no node, then no session. */
static void without_a_node_time_runs_out(void **state)
{
    struct harness h;
    struct outcome o;
    (void)state;
    harness_init(&h, 1);
    h.nodes[0].down = true;
    harness_client(&h, 1, 3000);
    harness_acquire(&h, 0, 0, 150, &o);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, -ETIMEDOUT);
    assert_true(h.nodes[0].n_connections >= 2 && h.nodes[0].n_connections < 15);
    assert_true(client_info(h.client).error[0] != '\0');
    assert_int_equal(client_info(h.client).n_pending, 0);
    h.nodes[0].down = false;
    harness_acquire(&h, 0, 0, 5000, &o);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, 0);
    harness_deinit(&h);
}

static bool
send_garbage(struct fake_conn *k, const Hf__ClientFrame *frame, const Hf__Command *command)
{
    static const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff, 1, 2, 3};
    static const uint8_t bad[] = {3, 0, 0, 0, 0xff, 0xff, 0xff};
    (void)frame;
    if (command == NULL || command->op != WIRE_OP_ACQUIRE || k->serial > 2)
        return false;
    fake_send_bytes(k, k->serial == 1 ? huge : bad, k->serial == 1 ? sizeof huge : sizeof bad);
    return true;
}

static void garbage_ends_the_connection_only(void **state)
{
    struct harness h;
    struct outcome o;
    (void)state;
    harness_init(&h, 1);
    h.nodes[0].script = send_garbage;
    harness_client(&h, 1, 3000);
    harness_acquire(&h, 0, 0, 5000, &o);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, 0);
    assert_int_equal(h.nodes[0].n_connections, 3);
    harness_deinit(&h);
}

static void another_protocol_version_is_said(void **state)
{
    struct harness h;
    struct outcome o = {0};
    Hf__Query query = HF__QUERY__INIT;
    (void)state;
    harness_init(&h, 1);
    h.nodes[0].version = 99;
    harness_client(&h, 1, 0);
    assert_int_equal(client_query(h.client, &query, 300, false, harness_on_reply, &o), 0);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, -ETIMEDOUT);
    assert_non_null(strstr(o.text, "protocol"));
    harness_deinit(&h);
}

static bool
no_quorum_twice(struct fake_conn *k, const Hf__ClientFrame *frame, const Hf__Command *command)
{
    (void)command;
    if (frame->body_case != HF__CLIENT_FRAME__BODY_QUERY || n_busy == 0)
        return false;
    n_busy--;
    fake_failure(k, frame->id, HF__FAILURE__CODE__NO_QUORUM);
    return true;
}

static void a_query_is_asked_again(void **state)
{
    struct harness h;
    struct outcome o = {0};
    Hf__Query query = HF__QUERY__INIT;
    (void)state;
    harness_init(&h, 2);
    h.nodes[0].script = no_quorum_twice;
    n_busy = 2;
    harness_client(&h, 3, 0);
    assert_int_equal(client_query(h.client, &query, 2000, false, harness_on_reply, &o), 0);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, 0);
    assert_int_equal(n_busy, 0);
    n_busy = 1000000;
    o.n = 0;
    assert_int_equal(client_query(h.client, &query, 200, false, harness_on_reply, &o), 0);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, -ETIMEDOUT);
    assert_string_equal(o.text, "as the script says");
    harness_deinit(&h);
}

/* A pinned client asks that very node, whoever leads; a follower answers queries. */
static void a_pinned_client_stays(void **state)
{
    struct harness h;
    struct outcome o = {0};
    Hf__Query query = HF__QUERY__INIT;
    (void)state;
    harness_init(&h, 3);
    harness_client_with(&h, 2, (struct client_config){.pinned = true});
    assert_int_equal(client_query(h.client, &query, 2000, false, harness_on_reply, &o), 0);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.index, 2);
    assert_int_equal(h.nodes[0].n_connections + h.nodes[2].n_connections, 0);
    harness_deinit(&h);
}

static bool snapshot(struct fake_conn *k, const Hf__ClientFrame *frame, const Hf__Command *command)
{
    Hf__SnapshotChunk chunk = HF__SNAPSHOT_CHUNK__INIT;
    Hf__NodeFrame out = HF__NODE_FRAME__INIT;
    (void)command;
    if (frame->body_case != HF__CLIENT_FRAME__BODY_ADMIN)
        return false;
    if (frame->admin->what != HF__ADMIN__WHAT__SNAPSHOT) {
        fake_node_reset(k->node);
        return true;
    }
    out.id = frame->id;
    out.body_case = HF__NODE_FRAME__BODY_CHUNK;
    out.chunk = &chunk;
    for (unsigned i = 0; i < 3; i++) {
        chunk.last = i == 2;
        fake_send(k, &out);
    }
    return true;
}

static void admin_requests_are_not_repeated_when_they_may_be_done(void **state)
{
    struct harness h;
    struct outcome o = {0};
    Hf__Admin admin = HF__ADMIN__INIT;
    (void)state;
    harness_init(&h, 1);
    h.nodes[0].script = snapshot;
    harness_client(&h, 1, 0);
    admin.what = HF__ADMIN__WHAT__SNAPSHOT;
    assert_int_equal(client_admin(h.client, &admin, 2000, harness_on_reply, &o), 0);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, 0);
    assert_int_equal(o.chunks, 3);
    admin.what = HF__ADMIN__WHAT__MEMBER_REMOVE;
    o = (struct outcome){0};
    assert_int_equal(client_admin(h.client, &admin, 2000, harness_on_reply, &o), 0);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, -ECONNRESET);
    harness_deinit(&h);
}

static void mistakes_are_refused_at_once(void **state)
{
    struct harness h;
    Hf__Command command = HF__COMMAND__INIT;
    static uint8_t big[FRAME_CLIENT_BYTES_MAX];
    struct client *c;
    (void)state;
    harness_init(&h, 1);
    harness_client(&h, 1, 3000);
    command.op = WIRE_OP_SESSION_OPEN;
    assert_int_equal(client_command(h.client, &command, 1, harness_on_result, NULL, NULL), -EINVAL);
    command.op = WIRE_OP_TICK;
    assert_int_equal(client_command(h.client, &command, 1, harness_on_result, NULL, NULL), -EINVAL);
    command.op = WIRE_OP_NOTE;
    command.note = (ProtobufCBinaryData){sizeof big, big};
    assert_int_equal(client_command(h.client, &command, 1, harness_on_result, NULL, NULL),
                     -EMSGSIZE);
    struct client_config config = {.loop = &h.loop, .addresses = "127.0.0.1"};
    assert_int_equal(client_new(&config, &c), -EINVAL);
    config.addresses = "";
    assert_int_equal(client_new(&config, &c), -EINVAL);
    config.addresses = "127.0.0.1:1";
    config.session_ttl_ms = 1;
    assert_int_equal(client_new(&config, &c), -EINVAL);
    harness_deinit(&h);
}

static void few_on_the_wire_the_rest_in_line(void **state)
{
    struct harness h;
    struct outcome o[20];
    (void)state;
    harness_init(&h, 1);
    h.nodes[0].script = hold_acquires;
    held.n = 0;
    harness_client_with(&h, 1, (struct client_config){.session_ttl_ms = 30000, .inflight_max = 4});
    for (unsigned i = 0; i < 20; i++)
        harness_acquire(&h, 0, 0, 8000, &o[i]);
    RUN_UNTIL(&h, held.n == 4);
    harness_run_ms(&h, 50);
    assert_int_equal(held.n, 4);
    client_cancel(h.client, 0); /* Unknown: ignored. */
    h.nodes[0].script = NULL;
    fake_node_reset(&h.nodes[0]);
    for (unsigned i = 0; i < 20; i++)
        RUN_UNTIL(&h, o[i].n == 1 && o[i].status == 0);
    assert_int_equal(h.cluster.n_executed, 20);
    harness_deinit(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_acquire_is_answered_with_a_safe_deadline),
        cmocka_unit_test(results_are_acknowledged_and_numbers_grow),
        cmocka_unit_test(a_follower_names_the_leader),
        cmocka_unit_test(a_leader_that_steps_down_is_left),
        cmocka_unit_test(numbers_stay_within_what_the_cluster_keeps),
        cmocka_unit_test(a_lost_answer_is_asked_for_again_and_executed_once),
        cmocka_unit_test(the_next_leader_is_found_at_once_when_one_dies),
        cmocka_unit_test(a_silent_leader_is_noticed),
        cmocka_unit_test(busy_is_tried_again_until_the_deadline),
        cmocka_unit_test(a_grant_that_nobody_waits_for_is_released),
        cmocka_unit_test(no_orphan_is_forgotten),
        cmocka_unit_test(the_owner_of_an_orphan_waits_for_its_end),
        cmocka_unit_test(without_a_node_time_runs_out),
        cmocka_unit_test(garbage_ends_the_connection_only),
        cmocka_unit_test(another_protocol_version_is_said),
        cmocka_unit_test(a_query_is_asked_again),
        cmocka_unit_test(a_pinned_client_stays),
        cmocka_unit_test(admin_requests_are_not_repeated_when_they_may_be_done),
        cmocka_unit_test(mistakes_are_refused_at_once),
        cmocka_unit_test(few_on_the_wire_the_rest_in_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
