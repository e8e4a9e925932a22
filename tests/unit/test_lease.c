/* A followed lease: renewal, and its loss at the own deadline. */
#include "client_harness.h"

#include "raftstore/client/lease.h"

#include <errno.h>

struct follower {
    unsigned n_lost;
    uint32_t reason;
    uint64_t at_boot_ns;
};

static void on_lost(void *arg, struct client_lease *l, uint32_t reason)
{
    struct follower *f = arg;
    f->n_lost++;
    f->reason = reason;
    f->at_boot_ns = clock_boot_ns(clock_system());
    assert_int_equal(client_lease_deadline_boot_ns(l), 0);
}

static struct client_lease *
granted_lease(struct harness *h, uint64_t ttl_ms, bool keep, struct follower *f)
{
    struct outcome o;
    *f = (struct follower){0};
    harness_init(h, 1);
    harness_client(h, 1, 5000);
    harness_acquire(h, ttl_ms, 0, 2000, &o);
    RUN_UNTIL(h, o.n == 1);
    return client_lease_new(h->client, bytes_str("a/b"), o.token, ttl_ms, o.deadline_boot_ns, keep,
                            on_lost, f);
}

static void it_is_lost_at_its_own_deadline(void **state)
{
    struct harness h;
    struct follower f;
    (void)state;
    struct client_lease *l = granted_lease(&h, 200, false, &f);
    uint64_t deadline = client_lease_deadline_boot_ns(l);
    RUN_UNTIL(&h, f.n_lost == 1);
    assert_int_equal(f.reason, WIRE_CODE_EXPIRED);
    assert_true(f.at_boot_ns >= deadline && f.at_boot_ns - deadline < 100 * NS_PER_MS);
    client_lease_ended(l, WIRE_CODE_BROKEN); /* Too late: told once. */
    client_lease_renewed(l, 0, 1000, deadline + NS_PER_S);
    assert_int_equal(f.n_lost, 1);
    assert_int_equal(client_lease_deadline_boot_ns(l), 0);
    client_lease_free(l);
    harness_deinit(&h);
}

static void kept_it_is_renewed_each_third(void **state)
{
    struct harness h;
    struct follower f;
    (void)state;
    struct client_lease *l = granted_lease(&h, 900, true, &f);
    uint64_t start = clock_boot_ns(clock_system());
    RUN_UNTIL(&h, fake_find(&h.cluster, WIRE_OP_RENEW, 3) != NULL);
    assert_true(clock_boot_ns(clock_system()) - start > 1100 * NS_PER_MS); /* Four thirds. */
    assert_int_equal(f.n_lost, 0);
    const struct fake_executed *renewal = fake_find(&h.cluster, WIRE_OP_RENEW, 3);
    assert_int_equal(renewal->token, 1001);
    client_lease_keep(l, false);
    RUN_UNTIL(&h, f.n_lost == 1);
    client_lease_free(l);
    harness_deinit(&h);
}

static bool
refuse_renewals(struct fake_conn *k, const Hf__ClientFrame *frame, const Hf__Command *command)
{
    if (command == NULL || command->op != WIRE_OP_RENEW)
        return false;
    fake_code(k, frame->id, WIRE_CODE_NOT_HELD);
    return true;
}

static void what_the_cluster_says_comes_first(void **state)
{
    struct harness h;
    struct follower f;
    (void)state;
    struct client_lease *l = granted_lease(&h, 5000, false, &f);
    h.nodes[0].script = refuse_renewals;
    client_lease_keep(l, true); /* At once. */
    RUN_UNTIL(&h, f.n_lost == 1);
    assert_int_equal(f.reason, WIRE_CODE_NOT_HELD);
    client_lease_free(l);
    harness_deinit(&h);
    l = granted_lease(&h, 5000, true, &f);
    client_lease_ended(l, WIRE_CODE_BROKEN);
    assert_int_equal(f.n_lost, 1);
    assert_int_equal(f.reason, WIRE_CODE_BROKEN);
    client_lease_free(l);
    harness_deinit(&h);
}

static void freed_while_a_renewal_is_under_way(void **state)
{
    struct harness h;
    struct follower f;
    (void)state;
    struct client_lease *l = granted_lease(&h, 5000, false, &f);
    h.nodes[0].mute = true;
    client_lease_keep(l, true);
    RUN_UNTIL(&h, client_info(h.client).n_pending == 1);
    client_lease_free(l);
    client_lease_free(NULL);
    h.nodes[0].mute = false;
    RUN_UNTIL(&h, client_info(h.client).n_pending == 0);
    assert_int_equal(f.n_lost, 0);
    harness_deinit(&h);
}

/* Answers to two renewals may come in the wrong order: the shorter one was the later. */
static void older_news_does_not_lengthen_it(void **state)
{
    struct harness h;
    struct follower f;
    (void)state;
    struct client_lease *l = granted_lease(&h, 5000, false, &f);
    uint64_t now = clock_boot_ns(clock_system());
    client_lease_renewed(l, 2000, 1000, now + NS_PER_S);
    client_lease_renewed(l, 1000, 90000, now + 90 * NS_PER_S);
    assert_true(client_lease_deadline_boot_ns(l) == now + NS_PER_S);
    client_lease_renewed(l, 2000, 90000, now + 90 * NS_PER_S); /* Nobody knows which was last. */
    assert_true(client_lease_deadline_boot_ns(l) == now + NS_PER_S);
    client_lease_renewed(l, 2000, 1000, now + NS_PER_S + 5); /* The same, told better. */
    assert_true(client_lease_deadline_boot_ns(l) == now + NS_PER_S + 5);
    client_lease_renewed(l, 3000, 90000, now + 90 * NS_PER_S);
    assert_true(client_lease_deadline_boot_ns(l) == now + 90 * NS_PER_S);
    client_lease_free(l);
    harness_deinit(&h);
}

static void a_shorter_renewal_counts_from_when_it_is_sent(void **state)
{
    struct harness h;
    struct follower f;
    (void)state;
    struct client_lease *l = granted_lease(&h, 5000, false, &f);
    uint64_t before = client_lease_deadline_boot_ns(l);
    client_lease_shorten(l, 90000);
    assert_true(client_lease_deadline_boot_ns(l) == before);
    uint64_t now = clock_boot_ns(clock_system());
    client_lease_shorten(l, 200);
    assert_true(client_lease_deadline_boot_ns(l) <= now + 200 * NS_PER_MS);
    RUN_UNTIL(&h, f.n_lost == 1);
    assert_true(f.at_boot_ns - now < 300 * NS_PER_MS);
    client_lease_free(l);
    harness_deinit(&h);
}

/* Of the answer to another renewal nobody knows whether it was done before or after. */
static void news_does_not_outweigh_a_shorter_renewal_under_way(void **state)
{
    struct harness h;
    struct follower f;
    (void)state;
    struct client_lease *l = granted_lease(&h, 5000, false, &f);
    uint64_t now = clock_boot_ns(clock_system());
    client_lease_shorten(l, 1000);
    client_lease_renewed(l, 2000, 90000, now + 90 * NS_PER_S);
    assert_true(client_lease_deadline_boot_ns(l) < now + 2 * NS_PER_S);
    client_lease_shortened(l, CLIENT_LEASE_NOT_RENEWED);
    assert_true(client_lease_deadline_boot_ns(l) == now + 90 * NS_PER_S);
    client_lease_shorten(l, 1000);
    client_lease_shorten(l, 3000);
    client_lease_renewed(l, 3000, 3000, now + 3 * NS_PER_S);
    client_lease_shortened(l, CLIENT_LEASE_RENEWED);
    assert_true(client_lease_deadline_boot_ns(l) < now + 2 * NS_PER_S); /* The other may follow. */
    client_lease_renewed(l, 2500, 1000, now + NS_PER_S);
    client_lease_shortened(l, CLIENT_LEASE_RENEWED);
    assert_true(client_lease_deadline_boot_ns(l) == now + 3 * NS_PER_S);
    client_lease_free(l);
    harness_deinit(&h);
}

/* At one stamp, the shorter one may have been the last. */
static void a_shorter_renewal_counts_against_another_of_its_instant(void **state)
{
    struct harness h;
    struct follower f;
    (void)state;
    struct client_lease *l = granted_lease(&h, 5000, false, &f);
    uint64_t now = clock_boot_ns(clock_system());
    client_lease_shorten(l, 1000);
    client_lease_renewed(l, 2000, 90000, now + 90 * NS_PER_S);
    client_lease_renewed(l, 2000, 1000, now + NS_PER_S);
    client_lease_shortened(l, CLIENT_LEASE_RENEWED);
    assert_true(client_lease_deadline_boot_ns(l) == now + NS_PER_S);
    client_lease_free(l);
    harness_deinit(&h);
}

static void only_a_later_success_ends_the_doubt(void **state)
{
    struct harness h;
    struct follower f;
    (void)state;
    struct client_lease *l = granted_lease(&h, 5000, false, &f);
    uint64_t now = clock_boot_ns(clock_system());
    uint64_t capped = now + 2 * NS_PER_S;
    client_lease_shorten(l, 1000);
    client_lease_shortened(l, CLIENT_LEASE_UNKNOWN);
    client_lease_renewed(l, 2000, 90000, now + 90 * NS_PER_S); /* It may be older. */
    assert_true(client_lease_deadline_boot_ns(l) < capped);
    client_lease_shorten(l, 90000);
    client_lease_shortened(l, CLIENT_LEASE_NOT_RENEWED); /* So all is as it was. */
    assert_true(client_lease_deadline_boot_ns(l) < capped);
    client_lease_shorten(l, 90000);
    client_lease_shorten(l, 91000);
    client_lease_renewed(l, 3000, 91000, now + 91 * NS_PER_S);
    client_lease_shortened(l, CLIENT_LEASE_RENEWED);
    assert_true(client_lease_deadline_boot_ns(l) < capped); /* The other is under way. */
    client_lease_shortened(l, CLIENT_LEASE_NOT_RENEWED);
    client_lease_shorten(l, 92000);
    client_lease_renewed(l, 4000, 92000, now + 92 * NS_PER_S);
    client_lease_shortened(l, CLIENT_LEASE_RENEWED);
    assert_true(client_lease_deadline_boot_ns(l) == now + 92 * NS_PER_S);
    client_lease_free(l);
    harness_deinit(&h);
}

/* Renewals with a ttl of their own are lost on the way. */
static unsigned n_swallowed;

static bool
swallow_shorter(struct fake_conn *k, const Hf__ClientFrame *frame, const Hf__Command *command)
{
    (void)k;
    (void)frame;
    if (command == NULL || command->op != WIRE_OP_RENEW || command->ttl_ms == 0)
        return false;
    n_swallowed++;
    return true;
}

/* Announce and send one that is not answered in time. */
static void shorten_in_vain(struct harness *h, struct client_lease *l, uint64_t ttl_ms)
{
    struct outcome o = {0};
    Hf__Command m = HF__COMMAND__INIT;
    ProtobufCBinaryData path = pack_binary(bytes_str("a/b"));
    m.op = WIRE_OP_RENEW;
    m.paths = &path;
    m.n_paths = 1;
    m.token = 1001;
    m.ttl_ms = ttl_ms;
    n_swallowed = 0;
    h->nodes[0].script = swallow_shorter;
    client_lease_shorten(l, ttl_ms);
    assert_int_equal(client_command(h->client, &m, 50, harness_on_result, &o, NULL), 0);
    RUN_UNTIL(h, o.n == 1);
    assert_int_equal(o.status, -ETIMEDOUT);
    client_lease_shortened(l, CLIENT_LEASE_UNKNOWN);
}

/* It is repeated until its outcome is known; what was renewed before that may be renewed to less.
 */
static void a_shorter_renewal_without_an_answer_is_settled(void **state)
{
    struct harness h;
    struct follower f;
    (void)state;
    struct client_lease *l = granted_lease(&h, 30000, false, &f);
    shorten_in_vain(&h, l, 8000);
    uint64_t capped = client_lease_deadline_boot_ns(l);
    client_lease_shorten(l, 60000);
    client_lease_renewed(l, fake_stamp_ns(&h.cluster), 60000, capped + 50 * NS_PER_S);
    client_lease_shortened(l, CLIENT_LEASE_RENEWED);
    assert_true(client_lease_deadline_boot_ns(l) == capped);
    client_lease_keep(l, true);
    RUN_UNTIL(&h, fake_find(&h.cluster, WIRE_OP_RENEW, 0) != NULL);
    harness_run_ms(&h, 50);
    assert_true(client_lease_deadline_boot_ns(l) == capped);
    h.nodes[0].script = NULL;
    fake_node_reset(&h.nodes[0]);
    RUN_UNTIL(&h, client_lease_deadline_boot_ns(l) > capped);
    assert_int_equal(f.n_lost, 0);
    client_lease_free(l);
    RUN_UNTIL(&h, client_info(h.client).n_pending == 0);
    harness_deinit(&h);
}

/* Lost meanwhile, the hold is nobody's: it must not live on by that renewal. */
static void a_lease_that_is_lost_in_doubt_is_given_back(void **state)
{
    struct harness h;
    struct follower f;
    (void)state;
    struct client_lease *l = granted_lease(&h, 30000, false, &f);
    shorten_in_vain(&h, l, 200);
    RUN_UNTIL(&h, f.n_lost == 1);
    client_lease_free(l);
    RUN_UNTIL(&h, fake_find(&h.cluster, WIRE_OP_RELEASE, 0) != NULL);
    assert_int_equal(fake_find(&h.cluster, WIRE_OP_RELEASE, 0)->token, 1001);
    h.nodes[0].script = NULL;
    fake_node_reset(&h.nodes[0]);
    RUN_UNTIL(&h, client_info(h.client).n_pending == 0);
    harness_deinit(&h);
}

static struct fake_conn *held_conn;
static uint64_t held_id;

static bool
hold_renewals(struct fake_conn *k, const Hf__ClientFrame *frame, const Hf__Command *command)
{
    if (command == NULL || command->op != WIRE_OP_RENEW)
        return false;
    held_conn = k;
    held_id = frame->id;
    return true;
}

static void a_renewal_that_succeeds_too_late_is_taken_back(void **state)
{
    struct harness h;
    struct follower f;
    Hf__Result r = HF__RESULT__INIT;
    (void)state;
    struct client_lease *l = granted_lease(&h, 300, false, &f);
    h.nodes[0].script = hold_renewals;
    held_id = 0;
    /* Its own time-out must not come first. */
    client_lease_renewed(l, 0, 30000, client_lease_deadline_boot_ns(l));
    client_lease_keep(l, true);
    RUN_UNTIL(&h, held_id != 0);
    RUN_UNTIL(&h, f.n_lost == 1);
    client_lease_free(l);
    r.stamp_ns = fake_stamp_ns(&h.cluster);
    r.ttl_ms = 30000;
    r.deadline_ns = r.stamp_ns + 30 * NS_PER_S;
    fake_result(held_conn, held_id, &r);
    RUN_UNTIL(&h, fake_find(&h.cluster, WIRE_OP_RELEASE, 0) != NULL);
    assert_int_equal(fake_find(&h.cluster, WIRE_OP_RELEASE, 0)->token, 1001);
    harness_deinit(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_lost_at_its_own_deadline),
        cmocka_unit_test(kept_it_is_renewed_each_third),
        cmocka_unit_test(what_the_cluster_says_comes_first),
        cmocka_unit_test(freed_while_a_renewal_is_under_way),
        cmocka_unit_test(older_news_does_not_lengthen_it),
        cmocka_unit_test(a_shorter_renewal_counts_from_when_it_is_sent),
        cmocka_unit_test(news_does_not_outweigh_a_shorter_renewal_under_way),
        cmocka_unit_test(a_shorter_renewal_counts_against_another_of_its_instant),
        cmocka_unit_test(only_a_later_success_ends_the_doubt),
        cmocka_unit_test(a_shorter_renewal_without_an_answer_is_settled),
        cmocka_unit_test(a_lease_that_is_lost_in_doubt_is_given_back),
        cmocka_unit_test(a_renewal_that_succeeds_too_late_is_taken_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
