/* Unit test of fs/held.c: against a naive array of bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "fs/held.h"

#define BYTES 24u

static void compare(const struct held *h, const enum held_mode *bytes)
{
    for (size_t i = 0; i + 1 < h->n; i++) {
        assert_true(h->list[i].start <= h->list[i].end);
        assert_true(h->list[i].end < h->list[i + 1].start);
        assert_true(h->list[i].mode != h->list[i + 1].mode ||
                    h->list[i].end + 1 < h->list[i + 1].start); /* Neighbours are one. */
    }
    for (uint64_t at = 0; at < BYTES; at++) {
        uint64_t end, naive = at;
        while (naive + 1 < BYTES && bytes[naive + 1] == bytes[at])
            naive++;
        assert_int_equal(held_piece(h, at, BYTES - 1, &end), bytes[at]);
        assert_int_equal(end, naive);
        assert_int_equal(held_any(h, at, at), bytes[at] != HELD_NONE);
    }
}

static void test_random(void **state)
{
    uint64_t x = 12345;
    (void)state;
    for (int round = 0; round < 200; round++) {
        uint64_t n_holders = 1;
        struct held h = {.counter = &n_holders};
        enum held_mode bytes[BYTES] = {0};
        for (int i = 0; i < 40; i++) {
            x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            uint64_t start = (x >> 33) % BYTES;
            uint64_t end = start + (x >> 45) % (BYTES - start);
            enum held_mode mode = (enum held_mode)((x >> 57) % 3);
            held_set(&h, start, end, mode);
            for (uint64_t at = start; at <= end; at++)
                bytes[at] = mode;
            compare(&h, bytes);
            assert_int_equal(n_holders, 1 + (h.n > 0)); /* One is counted besides. */
        }
        if (round % 2 == 0)
            held_uncount(&h);
        held_deinit(&h);
        assert_int_equal(n_holders, 1);
    }
}

static void test_end(void **state)
{
    struct held h = {0};
    uint64_t end;
    (void)state;
    held_set(&h, 0, HELD_END, HELD_EXCLUSIVE);
    assert_int_equal(h.n, 1);
    held_set(&h, 10, HELD_END, HELD_SHARED);
    assert_int_equal(h.n, 2);
    assert_int_equal(held_piece(&h, 0, HELD_END, &end), HELD_EXCLUSIVE);
    assert_int_equal(end, 9);
    assert_int_equal(held_piece(&h, 10, HELD_END, &end), HELD_SHARED);
    assert_true(end == HELD_END);
    held_set(&h, 0, HELD_END, HELD_NONE);
    assert_int_equal(h.n, 0);
    assert_int_equal(held_piece(&h, 5, HELD_END, &end), HELD_NONE);
    assert_true(end == HELD_END);
    held_set(&h, HELD_END, HELD_END, HELD_SHARED);
    assert_true(held_any(&h, 0, HELD_END));
    assert_false(held_any(&h, 0, HELD_END - 1));
    held_deinit(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
