/* Unit tests of auth/rate.c and auth/siphash.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "auth/rate.h"
#include "auth/siphash.h"
#include "raftstore/base/clock.h"
#include "raftstore/base/random.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void test_parse(void **state)
{
    static const struct {
        const char *text;
        uint64_t number, period_s, burst;
    } good[] = {
        {"50", 50, 1, 50},
        {"50/s", 50, 1, 50},
        {"600/m", 600, 60, 10},
        {"1/h", 1, 3600, 1},
        {"5/s:1", 5, 1, 1},
        {"600/m:100", 600, 60, 100},
        {"10:20", 10, 1, 20},
        {"1000000", 1000000, 1, 1000000},
        {"60000000/m:5", 60000000, 60, 5},
    };
    static const char *const bad[] = {"",           "0",
                                      "-1",         "5/d",
                                      "5/",         "/s",
                                      "5s",         "5/s:",
                                      "5:0",        "5::1",
                                      "5:1/s",      "1.5",
                                      " 5",         "5 ",
                                      "5/ss",       "5:-1",
                                      "0/m",        "5:x",
                                      "1000001",    "5:1000001",
                                      "60000001/m", "99999999999999999999999"};
    struct rate_limit l;
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (rate_limit_parse(good[i].text, &l) < 0)
            fail_msg("%s is refused", good[i].text);
        assert_true(l.number == good[i].number && l.burst == good[i].burst);
        assert_true(l.period_ns == good[i].period_s * NS_PER_S);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (rate_limit_parse(bad[i], &l) != -EINVAL)
            fail_msg("%s is taken", bad[i]);
}

static void
check(const struct rate_state *s, uint64_t remaining, uint64_t reset_s, uint64_t retry_s)
{
    assert_int_equal(s->remaining, remaining);
    assert_int_equal(s->reset_s, reset_s);
    assert_int_equal(s->retry_after_s, retry_s);
}

static void test_bucket(void **state)
{
    struct rate_limit limit = {.number = 2, .period_ns = 10 * NS_PER_S, .burst = 3};
    struct rate_table *t = rate_table_new(&limit, 10);
    struct bytes key = bytes_str("k");
    struct rate_state s;
    uint64_t now = 77 * NS_PER_S;
    (void)state;
    assert_true(rate_take(t, key, now, &s));
    assert_int_equal(s.limit, 3);
    check(&s, 2, 5, 0);
    assert_true(rate_take(t, key, now, &s));
    check(&s, 1, 10, 0);
    assert_true(rate_would_take(t, key, now, NULL));
    assert_true(rate_take(t, key, now, &s));
    check(&s, 0, 15, 0);
    assert_false(rate_would_take(t, key, now, &s));
    check(&s, 0, 15, 5);
    assert_true(rate_would_take(t, bytes_str("nobody"), now, NULL));
    assert_int_equal(rate_table_n_keys(t), 1);
    assert_false(rate_take(t, key, now, &s));
    check(&s, 0, 15, 5);
    /* A refusal takes nothing, and another key has its own. */
    for (int i = 0; i < 100; i++)
        assert_false(rate_take(t, key, now + 1, &s));
    check(&s, 0, 15, 5);
    assert_true(rate_take(t, bytes_str("other"), now, NULL));
    now += 5 * NS_PER_S - 1;
    assert_false(rate_take(t, key, now, &s));
    check(&s, 0, 11, 1);
    now += 1;
    assert_true(rate_take(t, key, now, &s));
    check(&s, 0, 15, 0);
    /* Never more than the burst, however long the pause. */
    now += 1000000 * NS_PER_S;
    for (int i = 0; i < 3; i++)
        assert_true(rate_take(t, key, now, &s));
    assert_false(rate_take(t, key, now, &s));
    rate_table_free(t);
}

/* At any pace, what passes in a while is at most burst + rate * while. */
static void test_never_more(void **state)
{
    struct rate_limit limit = {.number = 7, .period_ns = NS_PER_S, .burst = 4};
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct rate_table *t = rate_table_new(&limit, 1);
        struct random r = {seed};
        uint64_t start = 5 * NS_PER_S, now = start, n = 0;
        for (int i = 0; i < 5000; i++) {
            now += random_below(&r, seed * 20 * NS_PER_MS);
            n += rate_take(t, bytes_str("a"), now, NULL);
            assert_true(n <= 4 + (now - start) * 7 / NS_PER_S + 1);
        }
        if (seed < 5) /* Asked much more often than granted: all that is due is granted. */
            assert_true(n >= (now - start) * 7 / NS_PER_S);
        rate_table_free(t);
    }
}

static struct bytes name_of(int i, char name[16])
{
    (void)snprintf(name, 16, "key-%d", i);
    return bytes_str(name);
}

static void test_bounded(void **state)
{
    struct rate_limit limit = {.number = 1, .period_ns = 3600 * NS_PER_S, .burst = 1};
    struct rate_table *t = rate_table_new(&limit, 1000);
    char name[16];
    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_true(rate_take(t, name_of(i, name), (uint64_t)i, NULL));
    assert_int_equal(rate_table_n_keys(t), 1000);
    for (int i = 0; i < 1000; i++)
        assert_false(rate_take(t, name_of(i, name), 1000, NULL));
    /* 0 was just used; 500 others push out the 500 used longest ago, which are then full again. */
    assert_false(rate_take(t, name_of(0, name), 1000, NULL));
    for (int i = 1000; i < 1500; i++)
        assert_true(rate_take(t, name_of(i, name), 1000, NULL));
    assert_int_equal(rate_table_n_keys(t), 1000);
    assert_false(rate_take(t, name_of(0, name), 1000, NULL));
    for (int i = 501; i < 1500; i++)
        assert_false(rate_take(t, name_of(i, name), 1000, NULL));
    for (int i = 1; i <= 500; i++)
        assert_true(rate_take(t, name_of(i, name), 1000, NULL));
    rate_table_free(t);
    /* One that knows one key. */
    t = rate_table_new(&limit, 1);
    for (int i = 0; i < 100; i++) {
        assert_true(rate_take(t, name_of(i, name), 1, NULL));
        assert_false(rate_take(t, name_of(i, name), 1, NULL));
    }
    assert_int_equal(rate_table_n_keys(t), 1);
    rate_table_free(t);
}

static void test_tighter(void **state)
{
    struct rate_state roomy = {10, 9, 1, 0}, near = {5, 1, 4, 0}, out = {5, 0, 9, 2};
    struct rate_state longer = {10, 0, 30, 20};
    (void)state;
    assert_ptr_equal(rate_tighter(&roomy, &near), &near);
    assert_ptr_equal(rate_tighter(&near, &roomy), &near);
    assert_ptr_equal(rate_tighter(&out, &near), &out);
    assert_ptr_equal(rate_tighter(&out, &longer), &longer);
}

/* The first and last vectors of the authors' reference implementation: key 00 01 .. 0f, messages
 * "", 00, 00 01, ..., 00 .. 3e. */
static void test_siphash(void **state)
{
    uint64_t key[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
    uint8_t message[63];
    (void)state;
    for (uint8_t i = 0; i < 63; i++)
        message[i] = i;
    assert_true(siphash(key, bytes_of(message, 0)) == 0x726fdb47dd0e0e31);
    assert_true(siphash(key, bytes_of(message, 1)) == 0x74f839c593dc67fd);
    assert_true(siphash(key, bytes_of(message, 8)) == 0x93f5f5799a932462);
    assert_true(siphash(key, bytes_of(message, 15)) == 0xa129ca6149be45e5);
    assert_true(siphash(key, bytes_of(message, 63)) == 0x958a324ceb064572);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),      cmocka_unit_test(test_bucket),
        cmocka_unit_test(test_never_more), cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_tighter),    cmocka_unit_test(test_siphash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
