/* The client's session, its waits and its events, against a scripted node. */
#include "client_harness.h"

#include <errno.h>

static uint64_t now_boot(void)
{
    return clock_boot_ns(clock_system());
}

/* Run the loop until so many keepalives came.
 *
 * @ret_own_ns: how long that took, without the times for which this process did not run.
 * Return: how long it took. */
static uint64_t until_keepalives(struct harness *h, unsigned n, uint64_t *ret_own_ns)
{
    uint64_t start = now_boot(), before = start, stalled = 0;
    while (h->cluster.n_keepalives < n && before - start < 30 * NS_PER_S) {
        harness_run_ms(h, 1);
        uint64_t now = now_boot();
        if (now - before > 20 * NS_PER_MS)
            stalled += now - before;
        before = now;
    }
    assert_true(h->cluster.n_keepalives >= n);
    *ret_own_ns = before - start - stalled;
    return before - start;
}

static void one_keepalive_a_third_of_the_ttl(void **state)
{
    enum { TTL_MS = 2100, N = 4 };
    struct harness h;
    struct outcome o[10];
    uint64_t own_ns;
    (void)state;
    harness_init(&h, 1);
    harness_client(&h, 1, TTL_MS);
    RUN_UNTIL(&h, client_session_live(h.client));
    for (int i = 0; i < 10; i++) /* Whatever hangs on it. */
        harness_acquire(&h, 0, 0, 10000, &o[i]);
    unsigned already = h.cluster.n_keepalives;
    uint64_t took = until_keepalives(&h, already + N, &own_ns);
    assert_true(took > (N - 1) * (TTL_MS / 3) * NS_PER_MS); /* The first may be due already. */
    assert_true(own_ns < N * (TTL_MS * 5 / 12) * NS_PER_MS);
    assert_int_equal(h.cluster.n_opens, 1);
    assert_int_equal(h.n_session_events[CLIENT_SESSION_OPENED], 1);
    assert_int_equal(h.n_session_events[CLIENT_SESSION_LOST], 0);
    harness_deinit(&h);
}

static void a_silent_cluster_means_jeopardy_then_loss_at_the_deadline(void **state)
{
    struct harness h;
    (void)state;
    harness_init(&h, 1);
    harness_client(&h, 1, 1800);
    RUN_UNTIL(&h, h.cluster.n_keepalives == 1);
    harness_run_ms(&h, 20);
    uint64_t deadline = client_info(h.client).session_deadline_boot_ns;
    assert_true(deadline > now_boot());
    h.nodes[0].mute = true;
    RUN_UNTIL(&h, h.n_session_events[CLIENT_SESSION_JEOPARDY] == 1);
    assert_true(client_info(h.client).jeopardy);
    assert_true(now_boot() + 150 * NS_PER_MS < deadline);
    RUN_UNTIL(&h, h.n_session_events[CLIENT_SESSION_LOST] == 1);
    uint64_t at = h.session_event_boot_ns[CLIENT_SESSION_LOST];
    assert_true(at >= deadline && at - deadline < 2000 * NS_PER_MS);
    /* The cluster kept it: courtesy. */
    h.nodes[0].mute = false;
    RUN_UNTIL(&h, h.n_session_events[CLIENT_SESSION_RESUMED] == 1);
    assert_int_equal(h.n_session_events[CLIENT_SESSION_SAFE], 0);
    assert_false(client_info(h.client).jeopardy);
    assert_int_equal(h.cluster.n_opens, 1);
    harness_deinit(&h);
}

static void jeopardy_ends_when_a_keepalive_is_acknowledged(void **state)
{
    struct harness h;
    (void)state;
    harness_init(&h, 1);
    harness_client(&h, 1, 2400);
    RUN_UNTIL(&h, h.n_session_events[CLIENT_SESSION_OPENED] == 1);
    h.nodes[0].mute = true;
    RUN_UNTIL(&h, h.n_session_events[CLIENT_SESSION_JEOPARDY] == 1);
    h.nodes[0].mute = false;
    RUN_UNTIL(&h, h.n_session_events[CLIENT_SESSION_SAFE] == 1);
    assert_int_equal(h.n_session_events[CLIENT_SESSION_LOST], 0);
    harness_deinit(&h);
}

static bool
drop_acquires(struct fake_conn *k, const Hf__ClientFrame *frame, const Hf__Command *command)
{
    (void)k;
    (void)frame;
    return command != NULL && command->op == WIRE_OP_ACQUIRE;
}

static void an_ended_session_answers_its_commands_and_another_is_opened(void **state)
{
    struct harness h;
    struct outcome o, next;
    (void)state;
    harness_init(&h, 1);
    harness_client(&h, 1, 1500);
    h.nodes[0].script = drop_acquires;
    harness_acquire(&h, 0, 0, 5000, &o);
    RUN_UNTIL(&h, h.cluster.n_keepalives == 1);
    h.cluster.session_ended = 1;
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, 0);
    assert_int_equal(o.code, WIRE_CODE_NO_SESSION);
    h.nodes[0].script = NULL;
    harness_acquire(&h, 0, 0, 5000, &next); /* Never sent: for the new session. */
    RUN_UNTIL(&h, next.n == 1);
    assert_int_equal(next.code, WIRE_CODE_OK);
    assert_int_equal(h.n_session_events[CLIENT_SESSION_ENDED], 1);
    assert_int_equal(h.n_session_events[CLIENT_SESSION_OPENED], 2);
    assert_int_equal(h.cluster.n_executed, 1);
    assert_int_equal(h.cluster.executed[0].session_id, 2);
    assert_int_equal(h.cluster.executed[0].seq, 1);
    harness_deinit(&h);
}

static void a_command_may_be_what_tells_of_the_end(void **state)
{
    struct harness h;
    struct outcome o;
    (void)state;
    harness_init(&h, 1);
    harness_client(&h, 1, 30000);
    harness_acquire(&h, 0, 0, 5000, &o);
    RUN_UNTIL(&h, o.n == 1);
    h.cluster.session_ended = 1;
    harness_acquire(&h, 0, 0, 5000, &o);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.code, WIRE_CODE_NO_SESSION);
    RUN_UNTIL(&h, h.n_session_events[CLIENT_SESSION_OPENED] == 2);
    harness_deinit(&h);
}

static bool lapsed; /* The session has run out: a keepalive resumes it. */

static bool
refuse_while_lapsed(struct fake_conn *k, const Hf__ClientFrame *frame, const Hf__Command *command)
{
    if (command == NULL)
        return false;
    if (command->op == WIRE_OP_SESSION_KEEPALIVE)
        lapsed = false;
    if (!lapsed || command->op != WIRE_OP_ACQUIRE)
        return false;
    fake_code(k, frame->id, WIRE_CODE_NO_SESSION);
    return true;
}

/* A lapsed session refuses commands as an ended one does, but it need not be given up. */
static void a_lapsed_session_is_resumed_not_given_up(void **state)
{
    struct harness h;
    struct outcome o;
    (void)state;
    harness_init(&h, 1);
    harness_client(&h, 1, 60000); /* Its next keepalive: after 20 s. */
    RUN_UNTIL(&h, h.n_session_events[CLIENT_SESSION_OPENED] == 1);
    h.nodes[0].script = refuse_while_lapsed;
    lapsed = true;
    harness_acquire(&h, 0, 0, 5000, &o);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.code, WIRE_CODE_OK);
    assert_int_equal(h.n_session_events[CLIENT_SESSION_ENDED], 0);
    assert_int_equal(h.cluster.n_opens, 1);
    harness_deinit(&h);
}

static void closing_ends_the_session_and_fails_the_rest(void **state)
{
    struct harness h;
    struct outcome o, query = {0};
    Hf__Query q = HF__QUERY__INIT;
    (void)state;
    harness_init(&h, 1);
    harness_client(&h, 1, 5000);
    RUN_UNTIL(&h, h.n_session_events[CLIENT_SESSION_OPENED] == 1);
    h.nodes[0].script = drop_acquires;
    harness_acquire(&h, 0, 0, CLIENT_NO_TIMEOUT, &o);
    client_close(h.client, 2000, harness_on_closed, &h);
    assert_int_equal(client_query(h.client, &q, 1, false, harness_on_reply, &query), -ESHUTDOWN);
    RUN_UNTIL(&h, h.client_gone);
    assert_int_equal(o.n, 1);
    assert_int_equal(o.status, -ECANCELED);
    assert_int_equal(h.cluster.n_closes, 1);
    harness_deinit(&h);
}

static void closing_does_not_wait_longer_than_the_grace(void **state)
{
    struct harness h;
    (void)state;
    harness_init(&h, 1);
    harness_client(&h, 1, 60000);
    RUN_UNTIL(&h, h.n_session_events[CLIENT_SESSION_OPENED] == 1);
    h.nodes[0].mute = true;
    uint64_t start = now_boot();
    client_close(h.client, 100, harness_on_closed, &h);
    RUN_UNTIL(&h, h.client_gone);
    assert_true(now_boot() - start >= 99 * NS_PER_MS);
    harness_deinit(&h);
}

static void abandoning_ends_nothing(void **state)
{
    struct harness h;
    (void)state;
    harness_init(&h, 1);
    harness_client(&h, 1, 5000);
    RUN_UNTIL(&h, h.n_session_events[CLIENT_SESSION_OPENED] == 1);
    client_abandon(h.client, harness_on_closed, &h);
    RUN_UNTIL(&h, h.client_gone);
    harness_run_ms(&h, 20);
    assert_int_equal(h.cluster.n_closes, 0);
    harness_deinit(&h);
}

static struct {
    uint64_t id; /* Frame of the open that is not answered yet. */
} slow;

/* Answers the first open only when a second one comes, and that one right after it. */
static bool
answer_opens_late(struct fake_conn *k, const Hf__ClientFrame *frame, const Hf__Command *command)
{
    Hf__Result r = HF__RESULT__INIT;
    if (command == NULL || command->op != WIRE_OP_SESSION_OPEN)
        return false;
    if (slow.id == 0) {
        slow.id = frame->id;
        return true;
    }
    r.ttl_ms = command->ttl_ms;
    r.session_id = ++k->node->cluster->session_last;
    r.stamp_ns = fake_stamp_ns(k->node->cluster) - NS_PER_S; /* It took effect a second ago. */
    r.deadline_ns = r.stamp_ns + r.ttl_ms * NS_PER_MS;
    fake_result(k, slow.id, &r);
    r.session_id = ++k->node->cluster->session_last;
    r.stamp_ns = fake_stamp_ns(k->node->cluster);
    r.deadline_ns = r.stamp_ns + r.ttl_ms * NS_PER_MS;
    fake_result(k, frame->id, &r);
    return true;
}

/* Two opens on their way make two sessions; the deadline is that of the one that we use. */
static void a_second_open_does_not_lengthen_the_first_session(void **state)
{
    struct harness h;
    (void)state;
    harness_init(&h, 1);
    slow.id = 0;
    h.nodes[0].script = answer_opens_late;
    uint64_t start = now_boot();
    harness_client(&h, 1, 30000);
    RUN_UNTIL(&h, h.cluster.session_last == 2);
    harness_run_ms(&h, 20);
    struct client_info info = client_info(h.client);
    assert_int_equal(info.session_id, 1);
    /* No later than 30 s from when the first one was sent. */
    assert_true(info.session_deadline_boot_ns < start + 30 * NS_PER_S + 100 * NS_PER_MS);
    assert_int_equal(h.n_session_events[CLIENT_SESSION_OPENED], 1);
    harness_deinit(&h);
}

/* A cluster that was made anew, or restored, has a time of its own. */
static void deadlines_do_not_mix_the_times_of_two_clusters(void **state)
{
    struct harness h;
    struct outcome o;
    (void)state;
    harness_init(&h, 1);
    harness_client(&h, 1, 1500);
    harness_acquire(&h, 30000, 0, 10000, &o);
    RUN_UNTIL(&h, o.n == 1);
    h.cluster.session_ended = 1;
    h.cluster.start_ns -= 3600 * NS_PER_S; /* Now it is an hour later there. */
    RUN_UNTIL(&h, h.n_session_events[CLIENT_SESSION_OPENED] == 2);
    harness_acquire(&h, 30000, 0, 10000, &o);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.code, WIRE_CODE_OK);
    assert_in_range(o.deadline_boot_ns, now_boot(), now_boot() + 30 * NS_PER_S);
    harness_deinit(&h);
}

static bool refuse_first_subscribe(struct fake_conn *k,
                                   const Hf__ClientFrame *frame,
                                   const Hf__Command *command)
{
    (void)command;
    if (frame->body_case != HF__CLIENT_FRAME__BODY_SUBSCRIBE)
        return false;
    k->node->script = NULL;
    fake_failure(k, frame->id, HF__FAILURE__CODE__BUSY);
    return true;
}

static void a_refused_subscription_is_asked_for_again(void **state)
{
    struct harness h;
    (void)state;
    harness_init(&h, 1);
    h.nodes[0].script = refuse_first_subscribe;
    harness_client_with(&h, 1,
                        (struct client_config){.session_ttl_ms = 300, .events_session = true});
    RUN_UNTIL(&h, h.nodes[0].n_subscribes == 1); /* The refused one isn't counted. */
    assert_int_equal(h.nodes[0].subscribed_session, 1);
    harness_deinit(&h);
}

/* ---- Waiting --------------------------------------------------------------------------- */

static struct {
    uint64_t seq;
    uint64_t session_id;
    unsigned n;
    unsigned n_cancels;
    uint32_t cancel_code; /* What the target of a cancel becomes, by event; OK: it was granted. */
} waiting;

/* Queues every acquire; cancels are answered, and end the wait. */
static bool
queue_acquires(struct fake_conn *k, const Hf__ClientFrame *frame, const Hf__Command *command)
{
    Hf__Event e = HF__EVENT__INIT;
    if (command == NULL)
        return false;
    if (command->op == WIRE_OP_ACQUIRE) {
        waiting.seq = command->seq;
        waiting.session_id = command->session_id;
        waiting.n++;
        fake_code(k, frame->id, WIRE_CODE_QUEUED);
        return true;
    }
    if (command->op != WIRE_OP_CANCEL)
        return false;
    assert_int_equal(command->cancel_seq, waiting.seq);
    waiting.n_cancels++;
    if (waiting.cancel_code == WIRE_CODE_OK) {
        fake_code(k, frame->id, WIRE_CODE_NOT_FOUND);
        return true;
    }
    fake_execute(k, frame->id, command);
    e.type = WIRE_EFFECT_REFUSED;
    e.waited = true;
    e.index = 50;
    e.code = waiting.cancel_code;
    e.seq = waiting.seq;
    e.session_id = waiting.session_id;
    fake_event(k, &e);
    return true;
}

static void grant_by_event(struct harness *h, uint64_t index, uint64_t token)
{
    Hf__Event e = HF__EVENT__INIT;
    e.type = WIRE_EFFECT_GRANTED;
    e.waited = true;
    e.index = index;
    e.seq = waiting.seq;
    e.session_id = waiting.session_id;
    e.token = token;
    e.stamp_ns = fake_stamp_ns(&h->cluster);
    e.deadline_ns = e.stamp_ns + 10 * NS_PER_S;
    fake_event(h->nodes[0].subscriber, &e);
}

static void a_wait_ends_with_the_event(void **state)
{
    struct harness h;
    struct outcome o;
    (void)state;
    harness_init(&h, 1);
    h.nodes[0].script = queue_acquires;
    waiting.n = 0;
    harness_client(&h, 1, 5000);
    RUN_UNTIL(&h, client_session_live(h.client));
    harness_acquire(&h, 10000, WIRE_WAIT_FOREVER, 500, &o);
    RUN_UNTIL(&h, waiting.n == 1);
    assert_int_equal(h.nodes[0].n_subscribes, 1); /* Before the command. */
    assert_int_equal(h.nodes[0].subscribed_session, 1);
    harness_run_ms(&h, 550); /* timeout_ms counts only until it is queued. */
    assert_int_equal(o.n, 0);
    grant_by_event(&h, 20, 4711);
    uint64_t real = now_boot() + 10 * NS_PER_S;
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.status, 0);
    assert_int_equal(o.code, WIRE_CODE_OK);
    assert_int_equal(o.token, 4711);
    assert_true(o.deadline_boot_ns != 0 && o.deadline_boot_ns <= real);
    assert_true(real - o.deadline_boot_ns < 2000 * NS_PER_MS);
    assert_int_equal(h.n_events, 0); /* The owner asked for none. */
    harness_deinit(&h);
}

static void a_wait_survives_a_reconnect_and_a_gap(void **state)
{
    struct harness h;
    struct outcome o;
    (void)state;
    harness_init(&h, 1);
    h.nodes[0].script = queue_acquires;
    h.nodes[0].applied_index = 7;
    waiting.n = 0;
    harness_client(&h, 1, 5000);
    harness_acquire(&h, 10000, WIRE_WAIT_FOREVER, 5000, &o);
    RUN_UNTIL(&h, waiting.n == 1);
    harness_run_ms(&h, 20);
    fake_node_reset(&h.nodes[0]);
    RUN_UNTIL(&h, h.nodes[0].n_subscribes == 2);
    assert_int_equal(h.nodes[0].subscribed_from, 7);
    harness_run_ms(&h, 50);
    assert_int_equal(waiting.n, 1); /* Resumed: nothing to ask. */
    h.nodes[0].gap = true;
    h.nodes[0].script = NULL; /* Granted meanwhile: the kept result says so. */
    fake_node_reset(&h.nodes[0]);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.code, WIRE_CODE_OK);
    assert_int_equal(h.n_gaps, 1);
    harness_deinit(&h);
}

/* Repetitions are not answered, or by a failure. */
static int refusal; /* -1: none. */

static bool
refuse_acquires(struct fake_conn *k, const Hf__ClientFrame *frame, const Hf__Command *command)
{
    if (command == NULL || command->op != WIRE_OP_ACQUIRE)
        return false;
    waiting.n++;
    if (refusal >= 0)
        fake_failure(k, frame->id, (Hf__Failure__Code)refusal);
    return true;
}

static void ask_after_a_gap(int failure, bool is_reset)
{
    struct harness h;
    struct outcome o;
    harness_init(&h, 1);
    h.nodes[0].script = queue_acquires;
    h.nodes[0].applied_index = 7;
    waiting.n = 0;
    harness_client(&h, 1, 5000);
    harness_acquire(&h, 10000, WIRE_WAIT_FOREVER, 1000, &o);
    RUN_UNTIL(&h, waiting.n == 1);
    harness_run_ms(&h, 20);
    refusal = failure;
    h.nodes[0].script = refuse_acquires;
    h.nodes[0].gap = true;
    fake_node_reset(&h.nodes[0]);
    RUN_UNTIL(&h, waiting.n >= 2);
    assert_int_equal(o.n, 0);
    h.nodes[0].script = NULL; /* Granted meanwhile. */
    h.nodes[0].gap = false;
    if (is_reset)
        fake_node_reset(&h.nodes[0]);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.code, WIRE_CODE_OK);
    harness_deinit(&h);
}

/* A question after a gap is repeated until it is answered. */
static void a_wait_survives_a_gap_whose_question_is_lost(void **state)
{
    (void)state;
    ask_after_a_gap(-1, true);
    ask_after_a_gap(-1, false);
    ask_after_a_gap(HF__FAILURE__CODE__BUSY, false);
    ask_after_a_gap(HF__FAILURE__CODE__UNKNOWN, false);
    ask_after_a_gap(HF__FAILURE__CODE__SHUTTING_DOWN, true);
}

/* What was subscribed to while it led before is told still: ahead of the new subscription. */
static bool tell_first(struct fake_conn *k, const Hf__ClientFrame *f, const Hf__Command *command)
{
    if (f->body_case == HF__CLIENT_FRAME__BODY_SUBSCRIBE) {
        Hf__Event e = HF__EVENT__INIT;
        e.type = WIRE_EFFECT_WANTED;
        e.index = 30;
        e.session_id = waiting.session_id;
        fake_event(k, &e);
    }
    return queue_acquires(k, f, command);
}

static void a_wait_survives_a_leader_that_comes_back(void **state)
{
    struct harness h;
    struct outcome o, other;
    (void)state;
    harness_init(&h, 1);
    h.nodes[0].script = queue_acquires;
    h.nodes[0].applied_index = 7;
    waiting.n = 0;
    harness_client(&h, 1, 5000);
    harness_acquire(&h, 10000, WIRE_WAIT_FOREVER, 5000, &o);
    RUN_UNTIL(&h, waiting.n == 1);
    RUN_UNTIL(&h, h.nodes[0].n_subscribes == 1);
    uint64_t seq = waiting.seq, id = h.nodes[0].leader_id;
    h.nodes[0].script = NULL;
    h.nodes[0].leader_id = 0; /* It leads no more, nor does anybody. */
    harness_acquire(&h, 0, 0, 5000, &other);
    RUN_UNTIL(&h, client_info(h.client).leader_id == 0);
    h.nodes[0].script = tell_first;
    h.nodes[0].leader_id = id;
    RUN_UNTIL(&h, h.nodes[0].n_subscribes == 2);
    assert_int_equal(h.nodes[0].n_connections, 1); /* The same one. */
    assert_int_equal(h.nodes[0].subscribed_from, 7);
    waiting.seq = seq;            /* The other one was asked again. */
    grant_by_event(&h, 20, 4711); /* Happened before what was told first. */
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.token, 4711);
    harness_deinit(&h);
}

static void a_canceled_wait_is_answered_once(void **state)
{
    struct harness h;
    struct outcome o;
    (void)state;
    harness_init(&h, 1);
    h.nodes[0].script = queue_acquires;
    waiting.n = waiting.n_cancels = 0;
    waiting.cancel_code = WIRE_CODE_CANCELED;
    harness_client(&h, 1, 5000);
    uint64_t handle = harness_acquire(&h, 0, WIRE_WAIT_FOREVER, 5000, &o);
    RUN_UNTIL(&h, waiting.n == 1);
    harness_run_ms(&h, 10);
    client_cancel(h.client, handle);
    client_cancel(h.client, handle);
    assert_int_equal(o.n, 0);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.code, WIRE_CODE_CANCELED);
    RUN_UNTIL(&h, client_info(h.client).n_pending == 0);
    /* A grant that raced in, and the event of it lost: the repetition tells. */
    waiting.cancel_code = WIRE_CODE_OK;
    handle = harness_acquire(&h, 0, WIRE_WAIT_FOREVER, 5000, &o);
    RUN_UNTIL(&h, waiting.n == 2);
    harness_run_ms(&h, 10);
    client_cancel(h.client, handle);
    RUN_UNTIL(&h, waiting.n_cancels == 2);
    h.nodes[0].script = NULL;
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.code, WIRE_CODE_OK);
    /* Before it was sent: by itself. */
    h.nodes[0].down = true;
    fake_node_reset(&h.nodes[0]);
    RUN_UNTIL(&h, !client_info(h.client).connected);
    handle = harness_acquire(&h, 0, WIRE_WAIT_FOREVER, 5000, &o);
    client_cancel(h.client, handle);
    assert_int_equal(o.n, 0);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.code, WIRE_CODE_CANCELED);
    harness_deinit(&h);
}

static void an_old_command_waits_and_new_ones_go_on(void **state)
{
    struct harness h;
    struct outcome o, other;
    (void)state;
    harness_init(&h, 1);
    h.nodes[0].script = queue_acquires;
    waiting.n = 0;
    harness_client_with(&h, 1, (struct client_config){.session_ttl_ms = 5000, .inflight_max = 1});
    harness_acquire(&h, 0, WIRE_WAIT_FOREVER, 5000, &o);
    RUN_UNTIL(&h, waiting.n == 1);
    uint64_t seq = waiting.seq;
    h.nodes[0].script = NULL;
    for (int i = 0; i < 5; i++) {
        harness_acquire(&h, 0, 0, 5000, &other);
        RUN_UNTIL(&h, other.n == 1);
    }
    /* What is still unanswered is never acknowledged. */
    assert_true(fake_find(&h.cluster, WIRE_OP_ACQUIRE, 4)->ack_seq < seq);
    waiting.seq = seq;
    grant_by_event(&h, 3, 9);
    RUN_UNTIL(&h, o.n == 1);
    harness_deinit(&h);
}

/* One that waits for long is acknowledged all the same, or the session's results would pile up. */
static void a_long_wait_does_not_hold_up_results(void **state)
{
    struct harness h;
    struct outcome o, other;
    (void)state;
    harness_init(&h, 1);
    h.nodes[0].script = queue_acquires;
    waiting.n = 0;
    harness_client(&h, 1, 60000);
    harness_acquire(&h, 0, WIRE_WAIT_FOREVER, 5000, &o);
    RUN_UNTIL(&h, waiting.n == 1);
    uint64_t seq = waiting.seq;
    h.nodes[0].script = NULL;
    for (int i = 0; i < 1500; i++) {
        harness_acquire(&h, 0, 0, 5000, &other);
        while (other.n == 0)
            (void)uv_run(&h.loop, UV_RUN_ONCE);
    }
    assert_true(fake_find(&h.cluster, WIRE_OP_ACQUIRE, 1499)->ack_seq > seq);
    /* Its outcome still comes by event. */
    waiting.seq = seq;
    grant_by_event(&h, 3, 9);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.token, 9);
    harness_deinit(&h);
}

/* And when events were missed, it is canceled and asked for anew. */
static void a_parked_wait_survives_a_gap(void **state)
{
    struct harness h;
    struct outcome o, other;
    (void)state;
    harness_init(&h, 1);
    h.nodes[0].script = queue_acquires;
    waiting.n = 0;
    harness_client(&h, 1, 60000);
    harness_acquire(&h, 0, WIRE_WAIT_FOREVER, 5000, &o);
    RUN_UNTIL(&h, waiting.n == 1);
    uint64_t seq = waiting.seq;
    h.nodes[0].script = NULL;
    for (int i = 0; i < 1100; i++) {
        harness_acquire(&h, 0, 0, 5000, &other);
        while (other.n == 0)
            (void)uv_run(&h.loop, UV_RUN_ONCE);
    }
    h.nodes[0].gap = true;
    fake_node_reset(&h.nodes[0]);
    RUN_UNTIL(&h, o.n == 1);
    assert_int_equal(o.code, WIRE_CODE_OK);
    const struct fake_executed *cancel = fake_find(&h.cluster, WIRE_OP_CANCEL, 0);
    const struct fake_executed *again = fake_find(&h.cluster, WIRE_OP_ACQUIRE, 1100);
    assert_non_null(cancel);
    assert_non_null(again);
    assert_int_equal(cancel->cancel_seq, seq);
    assert_true(again->seq > cancel->seq);
    RUN_UNTIL(&h, client_info(h.client).n_pending == 0);
    harness_deinit(&h);
}

/* ---- Events ---------------------------------------------------------------------------- */

static void push_at(struct harness *h, uint64_t index, const char *path)
{
    Hf__Event e = HF__EVENT__INIT;
    e.type = WIRE_EFFECT_ENDED;
    e.index = index;
    e.path = pack_binary(bytes_str(path));
    fake_event(h->nodes[0].subscriber, &e);
}

static void push(struct harness *h, uint64_t index)
{
    push_at(h, index, "a/b");
}

static void events_resume_without_loss_or_repetition(void **state)
{
    struct harness h;
    const char *const prefixes[] = {"a", NULL};
    (void)state;
    harness_init(&h, 1);
    h.nodes[0].applied_index = 10;
    harness_client_with(&h, 1, (struct client_config){.event_prefixes = prefixes});
    RUN_UNTIL(&h, h.nodes[0].n_subscribes == 1);
    assert_int_equal(h.nodes[0].subscribed_from, 0);
    harness_run_ms(&h, 10);
    push(&h, 11);
    push(&h, 12);
    push(&h, 12); /* And a third of index 12 that the break swallows. */
    RUN_UNTIL(&h, h.n_events == 3);
    fake_node_reset(&h.nodes[0]);
    RUN_UNTIL(&h, h.nodes[0].n_subscribes == 2);
    assert_int_equal(h.nodes[0].subscribed_from, 11);
    harness_run_ms(&h, 10);
    push(&h, 12);
    push(&h, 12);
    push(&h, 12);
    push(&h, 13);
    RUN_UNTIL(&h, h.n_events == 5);
    assert_int_equal(h.event_indices[3], 12);
    assert_int_equal(h.event_indices[4], 13);
    assert_int_equal(h.n_gaps, 0);
    harness_deinit(&h);
}

static struct {
    unsigned n;
    uint64_t version, index;
} watching;

static void on_watch(void *arg, uint64_t version, uint64_t index)
{
    (void)arg;
    watching.n++;
    watching.version = version;
    watching.index = index;
}

static void prefixes_are_replaced_without_loss_or_repetition(void **state)
{
    struct harness h;
    const char *const first[] = {"a"}, *const second[] = {"a", "b/c"};
    (void)state;
    harness_init(&h, 1);
    h.nodes[0].applied_index = 10;
    watching.n = 0;
    harness_client_with(&h, 1, (struct client_config){.on_watch = on_watch});
    harness_run_ms(&h, 20);
    assert_int_equal(h.nodes[0].n_subscribes, 0); /* Nothing is wanted. */
    assert_int_equal(client_watch(h.client, first, 1), 1);
    RUN_UNTIL(&h, watching.n == 1);
    assert_int_equal(watching.version, 1);
    assert_int_equal(watching.index, 10);
    push_at(&h, 11, "a");
    push_at(&h, 12, "a/x");
    RUN_UNTIL(&h, h.n_events == 2);
    h.nodes[0].applied_index = 13;
    assert_int_equal(client_watch(h.client, second, 2), 2);
    push_at(&h, 13, "a"); /* Told before the node reads the new ones. */
    RUN_UNTIL(&h, watching.n == 2);
    assert_string_equal(h.nodes[0].subscribed_prefixes, "a,b/c");
    assert_int_equal(h.nodes[0].subscribed_from, 0);
    assert_int_equal(watching.version, 2);
    assert_int_equal(watching.index, 13);
    assert_int_equal(h.n_events, 3);
    push_at(&h, 14, "b/cc"); /* Not below. */
    push_at(&h, 14, "b/c/d");
    RUN_UNTIL(&h, h.n_events == 4);
    assert_int_equal(client_watch(h.client, NULL, 0), 3);
    push_at(&h, 15, "a"); /* On its way: not wanted any more. */
    h.nodes[0].applied_index = 15;
    RUN_UNTIL(&h, watching.n == 3);
    assert_int_equal(h.n_events, 4);
    assert_int_equal(h.n_gaps, 0);
    harness_deinit(&h);
}

static bool
lose_subscribe(struct fake_conn *k, const Hf__ClientFrame *frame, const Hf__Command *command)
{
    (void)k;
    (void)command;
    return frame->body_case == HF__CLIENT_FRAME__BODY_SUBSCRIBE;
}

/* The connection breaks with the replacement under way: the old one is resumed, then replaced. */
static void a_replacement_survives_a_reconnect(void **state)
{
    struct harness h;
    const char *const first[] = {"a"}, *const second[] = {"b"}, *const third[] = {"b", "c"};
    (void)state;
    harness_init(&h, 1);
    h.nodes[0].applied_index = 10;
    watching.n = 0;
    harness_client_with(&h, 1, (struct client_config){.on_watch = on_watch});
    (void)client_watch(h.client, first, 1);
    RUN_UNTIL(&h, watching.n == 1);
    push_at(&h, 11, "a");
    RUN_UNTIL(&h, h.n_events == 1);
    h.nodes[0].script = lose_subscribe;
    (void)client_watch(h.client, second, 1);
    (void)client_watch(h.client, third, 2);
    harness_run_ms(&h, 20);
    assert_int_equal(h.nodes[0].n_subscribes, 1);
    h.nodes[0].script = NULL;
    h.nodes[0].applied_index = 11;
    fake_node_reset(&h.nodes[0]);
    RUN_UNTIL(&h, watching.n == 2);
    assert_int_equal(h.nodes[0].n_subscribes, 3);
    assert_string_equal(h.nodes[0].subscribed_prefixes, "b,c");
    assert_int_equal(watching.version, 3);
    assert_int_equal(watching.index, 11);
    assert_int_equal(h.n_gaps, 0);
    /* A leader that has not yet applied what we have heard of. */
    push_at(&h, 20, "b");
    RUN_UNTIL(&h, h.n_events == 2);
    h.nodes[0].script = lose_subscribe;
    (void)client_watch(h.client, first, 1);
    harness_run_ms(&h, 20);
    h.nodes[0].script = NULL;
    fake_node_reset(&h.nodes[0]);
    RUN_UNTIL(&h, watching.n == 3);
    assert_int_equal(h.n_gaps, 1);
    push_at(&h, 20, "a"); /* Told of by the gap. */
    push_at(&h, 21, "a");
    RUN_UNTIL(&h, h.n_events == 3);
    assert_int_equal(h.event_indices[2], 21);
    harness_deinit(&h);
}

static void too_many_prefixes_change_nothing(void **state)
{
    struct harness h;
    const char *many[CLIENT_PREFIXES_MAX + 1];
    (void)state;
    harness_init(&h, 1);
    watching.n = 0;
    harness_client_with(&h, 1, (struct client_config){.on_watch = on_watch});
    for (size_t i = 0; i <= CLIENT_PREFIXES_MAX; i++)
        many[i] = "a";
    assert_int_equal(client_watch(h.client, many, CLIENT_PREFIXES_MAX + 1), 0);
    assert_int_equal(client_watch(h.client, many, CLIENT_PREFIXES_MAX), 1);
    RUN_UNTIL(&h, watching.n == 1);
    assert_int_equal(watching.version, 1);
    harness_deinit(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_keepalive_a_third_of_the_ttl),
        cmocka_unit_test(a_silent_cluster_means_jeopardy_then_loss_at_the_deadline),
        cmocka_unit_test(jeopardy_ends_when_a_keepalive_is_acknowledged),
        cmocka_unit_test(an_ended_session_answers_its_commands_and_another_is_opened),
        cmocka_unit_test(a_command_may_be_what_tells_of_the_end),
        cmocka_unit_test(a_lapsed_session_is_resumed_not_given_up),
        cmocka_unit_test(closing_ends_the_session_and_fails_the_rest),
        cmocka_unit_test(closing_does_not_wait_longer_than_the_grace),
        cmocka_unit_test(abandoning_ends_nothing),
        cmocka_unit_test(a_second_open_does_not_lengthen_the_first_session),
        cmocka_unit_test(a_refused_subscription_is_asked_for_again),
        cmocka_unit_test(deadlines_do_not_mix_the_times_of_two_clusters),
        cmocka_unit_test(a_wait_ends_with_the_event),
        cmocka_unit_test(a_wait_survives_a_reconnect_and_a_gap),
        cmocka_unit_test(a_wait_survives_a_gap_whose_question_is_lost),
        cmocka_unit_test(a_wait_survives_a_leader_that_comes_back),
        cmocka_unit_test(a_canceled_wait_is_answered_once),
        cmocka_unit_test(an_old_command_waits_and_new_ones_go_on),
        cmocka_unit_test(a_long_wait_does_not_hold_up_results),
        cmocka_unit_test(a_parked_wait_survives_a_gap),
        cmocka_unit_test(events_resume_without_loss_or_repetition),
        cmocka_unit_test(prefixes_are_replaced_without_loss_or_repetition),
        cmocka_unit_test(a_replacement_survives_a_reconnect),
        cmocka_unit_test(too_many_prefixes_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
