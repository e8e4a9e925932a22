/* A followed lease: renewal, and its loss at the own deadline. */
#include "client_harness.h"

#include "raftstore/client/lease.h"

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
    client_lease_renewed(l, 1000, deadline + NS_PER_S);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_lost_at_its_own_deadline),
        cmocka_unit_test(kept_it_is_renewed_each_third),
        cmocka_unit_test(what_the_cluster_says_comes_first),
        cmocka_unit_test(freed_while_a_renewal_is_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
