/* The arithmetic of own deadlines, at its edges too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "raftstore/base/clock.h"
#include "raftstore/base/random.h"
#include "raftstore/client/deadline.h"

static void nothing_known_is_zero(void **state)
{
    (void)state;
    struct deadline_pair p = {0};
    assert_int_equal(deadline_boot_ns(&p, 5), 0);
    deadline_learn(&p, 100, 0); /* No stamp: nothing learned. */
    assert_int_equal(deadline_boot_ns(&p, 5), 0);
    deadline_learn(&p, 100, 7);
    assert_int_equal(deadline_boot_ns(&p, 0), 0);
}

static void allowance_is_a_128th_and_5_ms(void **state)
{
    (void)state;
    struct deadline_pair p = {1000 * NS_PER_S, 50 * NS_PER_S};
    uint64_t span = 128 * NS_PER_S;
    uint64_t d = deadline_boot_ns(&p, p.stamp_ns + span);
    assert_in_range(d, 1127 * NS_PER_S - 5 * NS_PER_MS - 1, 1127 * NS_PER_S - 5 * NS_PER_MS);
}

static void edges_saturate(void **state)
{
    (void)state;
    struct deadline_pair p = {1000, 500};
    assert_int_equal(deadline_boot_ns(&p, 500), 1); /* Over at the stamp. */
    assert_int_equal(deadline_boot_ns(&p, 499), 1);
    assert_int_equal(deadline_boot_ns(&p, 501), 1); /* Less than the allowance. */
    p = (struct deadline_pair){UINT64_MAX - 10, 500};
    assert_true(deadline_boot_ns(&p, UINT64_MAX) <= UINT64_MAX - UINT64_MAX / 256);
}

/* The kept pair is the one that promises most, for any deadline. */
static void best_pair_is_kept(void **state)
{
    (void)state;
    struct random r = {42};
    for (int round = 0; round < 1000; round++) {
        struct deadline_pair best = {0}, all[8];
        for (int i = 0; i < 8; i++) {
            all[i].sent_boot_ns = 1 + random_below(&r, 1000 * NS_PER_S);
            all[i].stamp_ns = 1 + random_below(&r, 1000 * NS_PER_S);
            deadline_learn(&best, all[i].sent_boot_ns, all[i].stamp_ns);
        }
        uint64_t d = 1001 * NS_PER_S + random_below(&r, 10000 * NS_PER_S);
        for (int i = 0; i < 8; i++)
            assert_true(deadline_boot_ns(&best, d) + 2 >= deadline_boot_ns(&all[i], d));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_known_is_zero),
        cmocka_unit_test(allowance_is_a_128th_and_5_ms),
        cmocka_unit_test(edges_saturate),
        cmocka_unit_test(best_pair_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
