/* The bench's histogram against a sorted array. */
#include "raftstore/base/random.h"
#include "tools/bench/histogram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define N 20000u

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void test_empty(void **state)
{
    struct histogram *h = calloc(1, sizeof *h);

    (void)state;
    assert_non_null(h);
    assert_int_equal(histogram_quantile_ns(h, 0.5), 0);
    free(h);
}

/* Every quantile lies at or above the true one, and at most 1/32 above. */
static void test_quantiles(void **state)
{
    struct histogram *h = calloc(1, sizeof *h);
    uint64_t *values = calloc(N, sizeof *values);
    struct random random = {7};
    static const double parts[] = {0.0001, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0};

    (void)state;
    assert_non_null(h);
    assert_non_null(values);
    for (unsigned i = 0; i < N; i++) {
        values[i] = random_next(&random) >> random_below(&random, 64);
        histogram_add(h, values[i]);
    }
    qsort(values, N, sizeof *values, compare);
    assert_int_equal(h->n, N);
    assert_true(h->max_ns == values[N - 1]);
    for (unsigned i = 0; i < sizeof parts / sizeof *parts; i++) {
        unsigned rank = (unsigned)(parts[i] * N + 0.5);
        uint64_t exact = values[rank > 0 ? rank - 1 : 0];
        uint64_t got = histogram_quantile_ns(h, parts[i]);
        assert_true(got >= exact);
        assert_true(got - exact <= exact / 32);
    }
    free(values);
    free(h);
}

static void test_merge(void **state)
{
    struct histogram *a = calloc(1, sizeof *a);
    struct histogram *b = calloc(1, sizeof *b);

    (void)state;
    assert_non_null(a);
    assert_non_null(b);
    for (unsigned i = 1; i <= 10; i++)
        histogram_add(i <= 5 ? a : b, i);
    histogram_merge(a, b);
    assert_int_equal(a->n, 10);
    assert_int_equal(a->max_ns, 10);
    assert_int_equal(a->sum_ns, 55);
    assert_int_equal(histogram_quantile_ns(a, 0.5), 5);
    assert_int_equal(histogram_quantile_ns(a, 0.51), 6);
    assert_int_equal(histogram_quantile_ns(a, 1.0), 10);
    free(a);
    free(b);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_quantiles),
        cmocka_unit_test(test_merge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
