/* What a client leaves undone for a cluster in trouble: breaker, retry budget and bulkhead by
 * tables, and by random sequences against what must hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "raftstore/base/clock.h"
#include "raftstore/base/random.h"
#include "raftstore/client/breaker.h"
#include "raftstore/client/bulkhead.h"
#include "raftstore/client/retry_budget.h"

#include <string.h>

#define MS NS_PER_MS

/* ---- Breaker ---------------------------------------------------------------------------- */

static const struct breaker_rule rule = {
    .failures_max = 3, .retry_ns = 20 * MS, .open_ns = 500 * MS, .open_max_ns = 4000 * MS};

enum step { FAIL, TRIP, SUCCEED, BEGIN, ABANDON };

/* What each step makes of it; pauses at their longest (random = all ones is not the longest one:
 * ns / 2 + random % (ns / 2 + 1) is, at random = ns / 2). */
static void breaker_steps(void **state)
{
    static const struct {
        uint64_t at_ms;
        enum step step;
        uint64_t random;
        enum breaker_state then;
        uint64_t pause_ms; /* Until it is due; UINT64_MAX = never. */
        bool opened;
    } table[] = {
        {100, FAIL, 10 * MS, BREAKER_CLOSED, 20, false},
        {130, FAIL, 20 * MS, BREAKER_CLOSED, 40, false},
        {140, SUCCEED, 0, BREAKER_CLOSED, 0, false}, /* Not in a row. */
        {150, FAIL, 0, BREAKER_CLOSED, 10, false},   /* Half of it is random. */
        {170, FAIL, 0, BREAKER_CLOSED, 20, false},
        {200, FAIL, 250 * MS, BREAKER_OPEN, 500, true},
        {210, FAIL, 0, BREAKER_OPEN, 490, false}, /* Begun before it opened. */
        {220, TRIP, 0, BREAKER_OPEN, 480, false},
        {700, BEGIN, 0, BREAKER_HALF_OPEN, UINT64_MAX, false},
        {700, ABANDON, 0, BREAKER_OPEN, 0, false},
        {701, BEGIN, 0, BREAKER_HALF_OPEN, UINT64_MAX, false},
        {800, FAIL, 500 * MS, BREAKER_OPEN, 1000, true},
        {1800, BEGIN, 0, BREAKER_HALF_OPEN, UINT64_MAX, false},
        {1900, FAIL, 1000 * MS, BREAKER_OPEN, 2000, true},
        {3900, BEGIN, 0, BREAKER_HALF_OPEN, UINT64_MAX, false},
        {3900, FAIL, 2000 * MS, BREAKER_OPEN, 4000, true},
        {7900, BEGIN, 0, BREAKER_HALF_OPEN, UINT64_MAX, false},
        {7900, FAIL, 2000 * MS, BREAKER_OPEN, 4000, true}, /* No longer than that. */
        {11900, BEGIN, 0, BREAKER_HALF_OPEN, UINT64_MAX, false},
        {11950, SUCCEED, 0, BREAKER_CLOSED, 0, false},
        {12000, TRIP, 250 * MS, BREAKER_OPEN, 500, true}, /* As at first. */
        {12001, SUCCEED, 0, BREAKER_CLOSED, 0, false},    /* It answered after all. */
        {12002, ABANDON, 0, BREAKER_CLOSED, 0, false},
        {12003, BEGIN, 0, BREAKER_CLOSED, 0, false},
    };
    struct breaker b = {0};
    (void)state;
    assert_true(breaker_allows(&b, 0, 0));
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        uint64_t now = table[i].at_ms * MS;
        bool opened = false;
        switch (table[i].step) {
        case FAIL:
            opened = breaker_fail(&b, &rule, now, table[i].random);
            break;
        case TRIP:
            opened = breaker_trip(&b, &rule, now, table[i].random);
            break;
        case SUCCEED:
            breaker_succeed(&b);
            break;
        case BEGIN:
            breaker_begin(&b);
            break;
        case ABANDON:
            breaker_abandon(&b);
            break;
        }
        if (b.state != table[i].then || opened != table[i].opened)
            fail_msg("step %zu: %s", i, breaker_state_names[b.state]);
        uint64_t due = breaker_due_ns(&b, UINT64_MAX);
        if (table[i].pause_ms == UINT64_MAX)
            assert_int_equal(due, UINT64_MAX);
        else if ((due > now ? due - now : 0) != table[i].pause_ms * MS)
            fail_msg("step %zu: due in %.1f ms", i, ((double)due - (double)now) / MS);
    }
    assert_int_equal(b.n_opened, 6);
}

/* Who has nothing better puts up with a shorter pause only. */
static void breaker_impatience(void **state)
{
    struct breaker b = {0};
    (void)state;
    (void)breaker_trip(&b, &rule, 1000 * MS, 250 * MS);
    assert_false(breaker_allows(&b, 1499 * MS, UINT64_MAX));
    assert_true(breaker_allows(&b, 1500 * MS, UINT64_MAX));
    assert_false(breaker_allows(&b, 1099 * MS, 100 * MS));
    assert_true(breaker_allows(&b, 1100 * MS, 100 * MS));
    assert_true(breaker_allows(&b, 1000 * MS, 0));
    breaker_begin(&b);
    assert_false(breaker_allows(&b, 9000 * MS, 0)); /* One attempt at a time. */
}

static void breaker_best_one(void **state)
{
    struct breaker a = {0}, b = {0}, c = {0};
    const struct breaker *list[] = {&a, NULL, &b, &c};
    (void)state;
    (void)breaker_trip(&a, &rule, 10, 0);
    (void)breaker_trip(&b, &rule, 5, 0);
    breaker_begin(&c);
    (void)breaker_trip(&c, &rule, 1, 0);
    breaker_begin(&c);
    (void)breaker_fail(&c, &rule, 2, 0);
    assert_int_equal(breaker_best(list, 4), 2); /* Left alone longest of those opened once. */
    breaker_begin(&b);
    assert_int_equal(breaker_best(list, 4), 0);
    breaker_begin(&a);
    assert_int_equal(breaker_best(list, 4), 3);
    breaker_begin(&c);
    assert_int_equal(breaker_best(list, 4), 4); /* Each has its attempt under way. */
    breaker_succeed(&c);
    assert_int_equal(breaker_best(list, 4), 3);
}

/* Random lives: it opens only by failures, never stays shut out for longer than the longest pause,
 * and an answer always closes it. */
static void breaker_random(void **state)
{
    struct random r = {.state = 42};
    struct breaker b = {0};
    uint64_t now = 0;
    unsigned in_row = 0;
    (void)state;
    for (unsigned i = 0; i < 200000; i++) {
        enum breaker_state before = b.state;
        uint64_t opened = b.n_opened;
        now += random_below(&r, 600 * MS);
        unsigned what = (unsigned)random_below(&r, 10);
        if (b.state != BREAKER_HALF_OPEN && breaker_allows(&b, now, UINT64_MAX))
            breaker_begin(&b);
        if (what < 6) {
            in_row++;
            (void)breaker_fail(&b, &rule, now, random_next(&r));
        } else if (what < 7) {
            (void)breaker_trip(&b, &rule, now, random_next(&r));
        } else if (what < 8) {
            breaker_abandon(&b);
        } else {
            in_row = 0;
            breaker_succeed(&b);
            assert_int_equal(b.state, BREAKER_CLOSED);
            assert_true(breaker_allows(&b, now, UINT64_MAX));
        }
        if (before == BREAKER_CLOSED && b.state == BREAKER_OPEN && what < 6)
            assert_true(in_row >= rule.failures_max);
        assert_true(b.n_opened - opened <= 1);
        if (b.state != BREAKER_HALF_OPEN)
            assert_true(breaker_allows(&b, now + rule.open_max_ns, UINT64_MAX));
    }
    assert_true(b.n_opened > 1000);
}

/* ---- Retry budget ----------------------------------------------------------------------- */

static unsigned take_all(struct retry_budget *b, uint64_t now)
{
    unsigned n = 0;
    while (retry_budget_take(b, now))
        n++;
    return n;
}

static void budget_steps(void **state)
{
    struct retry_budget b;
    uint64_t now = 1000 * NS_PER_S;
    (void)state;
    retry_budget_init(&b, 20, 10);
    assert_int_equal(take_all(&b, now), 10); /* The floor. */
    for (unsigned i = 0; i < 100; i++)
        retry_budget_request(&b, now);
    assert_int_equal(take_all(&b, now), 20);
    now += 5 * NS_PER_S;
    for (unsigned i = 0; i < 50; i++)
        retry_budget_request(&b, now);
    assert_int_equal(take_all(&b, now), 10);
    assert_int_equal(retry_budget_left(&b, now), 0);
    now += 5 * NS_PER_S; /* The first hundred are out of the span, with their thirty. */
    assert_int_equal(take_all(&b, now), 10);
    now += 3600 * NS_PER_S;
    assert_int_equal(retry_budget_left(&b, now), 10);
    for (unsigned i = 0; i < 15; i++)
        retry_budget_charge(&b, now);
    assert_false(retry_budget_take(&b, now));
    for (unsigned i = 0; i < 25; i++)
        retry_budget_request(&b, now);
    assert_false(retry_budget_take(&b, now)); /* 10 + 5 are gone. */
    for (unsigned i = 0; i < 5; i++)
        retry_budget_request(&b, now);
    assert_true(retry_budget_take(&b, now));
    assert_true(b.n_refused > 4);
    now -= 1800 * NS_PER_S; /* A clock that ran back counts as one that stands. */
    assert_false(retry_budget_take(&b, now));
}

/* At no time have more been granted, within any span, than its requests and the floor allow. */
static void budget_random(void **state)
{
    enum { N = 60000 };
    static uint64_t requests_ns[N], takes_ns[N];
    struct random r = {.state = 7};
    struct retry_budget b;
    unsigned n_requests = 0, n_takes = 0, first_request = 0, first_take = 0;
    uint64_t now = 50 * NS_PER_S;
    (void)state;
    retry_budget_init(&b, 20, 10);
    for (unsigned i = 0; i < N; i++) {
        now += random_below(&r, 1000) == 0 ? random_below(&r, 20 * NS_PER_S)
                                           : random_below(&r, 20 * MS);
        if (random_below(&r, 3) == 0) {
            requests_ns[n_requests++] = now;
            retry_budget_request(&b, now);
            continue;
        }
        /* Slices: what is in the span began at most one slice earlier. */
        uint64_t begin = now / NS_PER_S * NS_PER_S - 9 * NS_PER_S;
        while (first_request < n_requests && requests_ns[first_request] < begin)
            first_request++;
        while (first_take < n_takes && takes_ns[first_take] < begin)
            first_take++;
        uint64_t allowed = (n_requests - first_request) * 20 / 100 + 10;
        bool took = retry_budget_take(&b, now);
        assert_int_equal(took, n_takes - first_take < allowed);
        if (took)
            takes_ns[n_takes++] = now;
    }
    assert_true(n_takes > 1000);
    assert_true(b.n_refused > 1000);
}

/* ---- Bulkhead --------------------------------------------------------------------------- */

static void one_full_class_refuses_no_other(void **state)
{
    struct bulkhead b;
    (void)state;
    bulkhead_init(&b, 2048);
    for (unsigned c = 0; c < CLIENT_CLASSES; c++) {
        unsigned n = 0;
        while (bulkhead_enter(&b, c))
            n++;
        assert_int_equal(n, b.limits[c].all_max);
        assert_int_equal(b.n_refused[c], 1);
        bulkhead_force(&b, c); /* What the client has to do itself always goes. */
        for (unsigned other = c + 1; other < CLIENT_CLASSES; other++) {
            assert_true(bulkhead_enter(&b, other));
            bulkhead_leave(&b, other, BULKHEAD_LINE);
        }
    }
    bulkhead_init(&b, 1);
    for (unsigned c = 0; c < CLIENT_CLASSES; c++)
        assert_true(bulkhead_has_room(&b, c));
}

/* Random moves against a count of our own. */
static void bulkhead_random(void **state)
{
    struct random r = {.state = 3};
    struct bulkhead b;
    unsigned n[CLIENT_CLASSES][BULKHEAD_PLACES] = {{0}};
    (void)state;
    bulkhead_init(&b, 5);
    b.limits[CLIENT_READ] = (struct bulkhead_limit){3, 9};
    b.limits[CLIENT_WRITE].all_max = 12;
    for (unsigned i = 0; i < 100000; i++) {
        unsigned c = (unsigned)random_below(&r, CLIENT_CLASSES);
        unsigned from = (unsigned)random_below(&r, BULKHEAD_PLACES);
        unsigned to = (unsigned)random_below(&r, BULKHEAD_PLACES);
        unsigned all = n[c][0] + n[c][1] + n[c][2];
        switch (random_below(&r, 3)) {
        case 0:
            if (bulkhead_enter(&b, c))
                n[c][BULKHEAD_LINE]++;
            else
                assert_int_equal(all, b.limits[c].all_max);
            break;
        case 1:
            if (n[c][from] == 0 ||
                (to == BULKHEAD_FLIGHT && from != to && !bulkhead_has_room(&b, c)))
                break;
            bulkhead_move(&b, c, from, to);
            n[c][from]--;
            n[c][to]++;
            break;
        default:
            if (n[c][from] == 0)
                break;
            bulkhead_leave(&b, c, from);
            n[c][from]--;
            break;
        }
        assert_memory_equal(n, b.n, sizeof n);
        assert_int_equal(bulkhead_n(&b, c), n[c][0] + n[c][1] + n[c][2]);
        assert_true(bulkhead_n(&b, c) <= b.limits[c].all_max);
        assert_true(n[c][BULKHEAD_FLIGHT] <= b.limits[c].flight_max);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(breaker_steps),
        cmocka_unit_test(breaker_impatience),
        cmocka_unit_test(breaker_best_one),
        cmocka_unit_test(breaker_random),
        cmocka_unit_test(budget_steps),
        cmocka_unit_test(budget_random),
        cmocka_unit_test(one_full_class_refuses_no_other),
        cmocka_unit_test(bulkhead_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
