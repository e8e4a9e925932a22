/* Unit tests of fs/tally.c and raftstore/base/prometheus.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/fuse.h>
#include <string.h>

#include "fs/tally.h"
#include "raftstore/base/clock.h"
#include "raftstore/base/prometheus.h"

static void test_answers(void **state)
{
    struct tally t = {0};
    (void)state;
    tally_answer(&t, 2, 0, 50000); /* Nobody knows it. */
    tally_begin(&t, FUSE_LOOKUP, 4, 1000);
    tally_answer(&t, 4, ENOENT, 50000);
    tally_end(&t);
    tally_begin(&t, FUSE_FORGET, 6, 1000); /* Never answered. */
    tally_end(&t);
    assert_int_equal(t.n_pending, 0);
    tally_begin(&t, FUSE_SETLKW, 8, 1000);
    tally_end(&t);
    tally_begin(&t, FUSE_INTERRUPT, 9, 1000);
    tally_answer(&t, 8, EINTR, 50000); /* In the middle of another one. */
    tally_end(&t);
    tally_answer(&t, 8, EINTR, 50000); /* Once only. */
    tally_answer(&t, 0, 0, 50000);     /* A notification. */
    assert_int_equal(t.n_pending, 0);
    assert_int_equal(t.kinds[FUSE_LOOKUP]->counts[ENOENT], 1);
    assert_int_equal(t.kinds[FUSE_SETLKW]->counts[EINTR], 1);
    assert_int_equal(t.kinds[FUSE_SETLKW]->counts[0], 0);
    assert_null(t.kinds[FUSE_FORGET]);
    tally_begin(&t, 4711, 10, 1000); /* Of a later kernel. */
    tally_answer(&t, 10, 4711, 50000);
    tally_end(&t);
    assert_int_equal(t.kinds[0]->counts[TALLY_ERRNOS - 1], 1);
    for (uint32_t i = 40; i < 64; i++) { /* TMPFILE, STATX and others without a name are one. */
        tally_begin(&t, i, 12, 1000);
        tally_answer(&t, 12, ENOSYS, 50000);
        tally_end(&t);
        assert_true(t.kinds[i] == NULL || strcmp(tally_name(i), "other") != 0);
    }
    tally_begin(&t, FUSE_LOOKUP, 14, 1000);
    tally_answer(&t, 14, 133, 50000); /* The last with a name. */
    tally_end(&t);
    assert_int_equal(t.kinds[FUSE_LOOKUP]->counts[TALLY_ERRNOS - 1], 0);
    /* 49 us is between 32 and 64. */
    assert_int_equal(t.kinds[FUSE_SETLKW]->took.counts[1], 1);
    assert_int_equal(t.kinds[FUSE_SETLKW]->took.sum_ns, 49000);
    assert_string_equal(tally_name(FUSE_CREATE), "create");
    assert_string_equal(tally_name(0), "other");
    assert_string_equal(tally_name(4711), "other");
    tally_deinit(&t);
}

/* Many at once, answered in an order of their own, with numbers that collide. */
static void test_many(void **state)
{
    struct tally t = {0};
    static uint64_t open[3000];
    uint64_t n_open = 0, unique = 0, random = 1, n_answers = 0;
    (void)state;
    for (unsigned i = 0; i < 200000; i++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
        bool begin =
            n_open == 0 || (n_open < 3000 && (random >> 33) % 100 < (i < 100000 ? 60 : 40));
        if (begin) {
            unique += (random >> 40) % 7 == 0 ? 4096 : 2;
            tally_begin(&t, FUSE_READ, unique, 1000);
            tally_end(&t);
            open[n_open++] = unique;
        } else {
            uint64_t at = (random >> 33) % n_open;
            tally_answer(&t, open[at], 0, 50000);
            open[at] = open[--n_open];
            n_answers++;
        }
        assert_int_equal(t.n_pending, n_open);
        assert_int_equal(t.kinds[FUSE_READ] != NULL ? t.kinds[FUSE_READ]->counts[0] : 0, n_answers);
    }
    while (n_open > 0)
        tally_answer(&t, open[--n_open], EIO, 50000);
    assert_int_equal(t.n_pending, 0);
    assert_true(t.kinds[FUSE_READ]->counts[EIO] > 0);
    tally_deinit(&t);
}

static void test_prometheus(void **state)
{
    struct buf out = BUF_INIT;
    (void)state;
    struct prometheus p = prometheus_begin(&out, "a_total", "counter", "Help.");
    prometheus_sample(&p, "");
    prometheus_label(&p, "x", bytes_str("q\"b\\n\n\xc3\xa4\xff"));
    prometheus_label(&p, "y", bytes_str(""));
    prometheus_u64(&p, UINT64_MAX);
    prometheus_sample(&p, "_sum");
    prometheus_seconds(&p, 3 * NS_PER_S + 5);
    prometheus_single(&out, "b", "gauge", "B.", 0);
    prometheus_single_seconds(&out, "c", "gauge", "C.", NS_PER_MS);
    buf_add(&out, "", 1);
    assert_string_equal((const char *)out.data,
                        "# HELP a_total Help.\n# TYPE a_total counter\n"
                        "a_total{x=\"q\\\"b\\\\n\\n\xc3\xa4?\",y=\"\"} 18446744073709551615\n"
                        "a_total_sum 3.000000005\n"
                        "# HELP b B.\n# TYPE b gauge\nb 0\n"
                        "# HELP c C.\n# TYPE c gauge\nc 0.001000000\n");
    buf_deinit(&out);
}

/* Each bound belongs to the bucket below it, as `le` says. */
static void test_buckets(void **state)
{
    struct buckets b = {0};
    struct buf out = BUF_INIT;
    (void)state;
    for (unsigned i = 0; i < BUCKETS_BOUNDED; i++) {
        uint64_t bound = BUCKETS_FIRST_NS << i;
        buckets_add(&b, bound);
        buckets_add(&b, bound + 1);
        assert_int_equal(b.counts[i], i == 0 ? 1 : 2);
        assert_int_equal(b.counts[i + 1], 1);
    }
    buckets_add(&b, 0);
    buckets_add(&b, UINT64_C(1) << 60);
    assert_int_equal(b.counts[0], 2);
    assert_int_equal(b.counts[BUCKETS_BOUNDED], 2);
    const struct prometheus_label labels[] = {{"a", "x"}, {"b", "y"}, {0}};
    struct prometheus p = prometheus_begin(&out, "h", "histogram", "H.");
    prometheus_buckets(&p, labels, &(struct buckets){.counts = {[1] = 2, [20] = 1}, .sum_ns = 7});
    buf_add(&out, "", 1);
    const char *text = (const char *)out.data;
    assert_non_null(strstr(text, "h_bucket{a=\"x\",b=\"y\",le=\"0.000032\"} 0\n"));
    assert_non_null(strstr(text, "h_bucket{a=\"x\",b=\"y\",le=\"0.000064\"} 2\n"));
    assert_non_null(strstr(text, "le=\"16.777216\"} 2\nh_bucket{a=\"x\",b=\"y\",le=\"+Inf\"} 3\n"));
    assert_non_null(
        strstr(text, "h_sum{a=\"x\",b=\"y\"} 0.000000007\nh_count{a=\"x\",b=\"y\"} 3\n"));
    buf_deinit(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_prometheus),
        cmocka_unit_test(test_buckets),
    };
    return cmocka_run_group_tests_name("fs_tally", tests, NULL, NULL);
}
