/* Unit tests of gateway/owner.c, lockid.c and metrics.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gateway/lockid.h"
#include "gateway/metrics.h"
#include "gateway/owner.h"
#include "raftstore/base/clock.h"
#include "raftstore/base/random.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static struct bytes bytes_of_buf(const struct buf *b)
{
    return bytes_of(b->data, b->size);
}

static struct buf made(struct bytes subject, struct bytes id)
{
    struct buf b = BUF_INIT;
    owner_make(subject, id, &b);
    assert_true(b.size >= 1 && b.size <= WIRE_OWNER_BYTES_MAX);
    return b;
}

static void test_owner_text(void **state)
{
    static const struct {
        const char *subject, *id, *text;
    } cases[] = {
        {"", "me", "http//me"},
        {"auth0|42", "worker-7:1", "http/auth0|42/worker-7:1"},
        {"a/b", "c d%\n~", "http/a%2Fb/c%20d%25%0A%7E"},
        {"\xc3\xa4", "x", "http/%C3%A4/x"},
        {"", "", "http//"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf b = made(bytes_str(cases[i].subject), bytes_str(cases[i].id)), shown = BUF_INIT;
        assert_int_equal(b.size, strlen(cases[i].text));
        assert_memory_equal(b.data, cases[i].text, b.size);
        owner_show(bytes_of_buf(&b), &shown);
        assert_true(bytes_equal(bytes_of_buf(&shown), bytes_str(cases[i].id)));
        buf_deinit(&b);
        buf_deinit(&shown);
    }
}

/* SHA-256 of so many 'x', by another implementation (python3 hashlib, base64). */
static void test_owner_digest(void **state)
{
    char id[200];
    struct buf b;
    (void)state;
    memset(id, 'x', sizeof id);
    b = made(bytes_str("s"), bytes_of(id, 78)); /* The longest that is not cut. */
    assert_int_equal(b.size, strlen("http/s/") + 78);
    assert_null(memchr(b.data, '~', b.size));
    buf_deinit(&b);
    b = made(bytes_str("s"), bytes_of(id, 200));
    assert_int_equal(b.size, strlen("http/s/") + 78);
    assert_memory_equal(b.data + b.size - 45, "x~", 2);
    assert_memory_equal(b.data + b.size - 43, "qiDCPjIBg0BQZ54diJQbmm_tBVfJpwXLLDFeLmP9SG0", 43);
    buf_deinit(&b);
}

/* Any two pairs that differ have texts that differ, also where both are cut. */
static void test_owner_injective(void **state)
{
    struct random r = {.state = 7};
    (void)state;
    for (unsigned i = 0; i < 20000; i++) {
        char parts[4][300];
        size_t n[4];
        for (unsigned k = 0; k < 4; k++) {
            n[k] = random_below(&r, i % 3 == 0 ? 200 : 4);
            for (size_t j = 0; j < n[k]; j++)
                parts[k][j] = "ab/~%"[random_below(&r, 5)];
        }
        if (i % 5 == 0) { /* Only the last byte differs, or nothing. */
            memcpy(parts[2], parts[0], n[2] = n[0]);
            memcpy(parts[3], parts[1], n[3] = n[1]);
            if (n[3] > 0)
                parts[3][n[3] - 1] ^= (char)random_below(&r, 2);
        }
        struct bytes s1 = bytes_of(parts[0], n[0]), o1 = bytes_of(parts[1], n[1]);
        struct bytes s2 = bytes_of(parts[2], n[2]), o2 = bytes_of(parts[3], n[3]);
        struct buf a = made(s1, o1), b = made(s2, o2);
        bool same = bytes_equal(s1, s2) && bytes_equal(o1, o2);
        assert_int_equal(bytes_equal(bytes_of_buf(&a), bytes_of_buf(&b)), same);
        assert_int_equal(owner_same_id(bytes_of_buf(&a), bytes_of_buf(&b)), bytes_equal(o1, o2));
        buf_deinit(&a);
        buf_deinit(&b);
    }
}

/* Owners of others are shown as they are, and are nobody's owner_id. */
static void test_owner_foreign(void **state)
{
    static const char *const foreign[] = {"db1/5f0c21aa/4242.81733/1",
                                          "http",
                                          "http/",
                                          "http/x",
                                          "http/a/b/c",
                                          "http/a/%zz",
                                          "https//me",
                                          ""};
    (void)state;
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        struct buf shown = BUF_INIT, mine = made(bytes_str("a"), bytes_str("b/c"));
        owner_show(bytes_str(foreign[i]), &shown);
        assert_true(bytes_equal(bytes_of_buf(&shown), bytes_str(foreign[i])));
        assert_false(owner_same_id(bytes_str(foreign[i]), bytes_of_buf(&mine)));
        buf_deinit(&shown);
        buf_deinit(&mine);
    }
}

static void test_percent(void **state)
{
    static const char *const bad[] = {"%", "%2", "a%", "%g0", "%0g", "%%41", "ab%4"};
    struct buf b = BUF_INIT;
    (void)state;
    assert_int_equal(percent_undo(&b, bytes_str("a%2Fb%41%00+")), 0);
    assert_int_equal(b.size, 6);
    assert_memory_equal(b.data, "a/bA\0+", 6);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(percent_undo(&b, bytes_str(bad[i])), -EINVAL);
    buf_deinit(&b);
}

static void test_lockid(void **state)
{
    char text[1100];
    (void)state;
    assert_null(lockid_problem(bytes_str("a")));
    assert_null(lockid_problem(bytes_str("a/b.c/..d/.holdfast2")));
    assert_null(lockid_problem(bytes_str("1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16")));
    assert_non_null(lockid_problem(bytes_str("1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17")));
    static const char *const bad[] = {"",   "/",    "/a",  "a/",        "a//b",         ".",
                                      "..", "a/..", "./a", ".holdfast", "a/.holdfast/b"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_non_null(lockid_problem(bytes_str(bad[i])));
    assert_non_null(lockid_problem(bytes_of("a\0b", 3)));
    memset(text, 'x', sizeof text);
    assert_null(lockid_problem(bytes_of(text, 255)));
    assert_non_null(lockid_problem(bytes_of(text, 256)));
    for (size_t i = 200; i < sizeof text; i += 201)
        text[i] = '/';
    assert_null(lockid_problem(bytes_of(text, 1023)));
    assert_non_null(lockid_problem(bytes_of(text, 1024)));
}

static bool has(const struct buf *b, const char *line)
{
    return memmem(b->data, b->size, line, strlen(line)) != NULL;
}

static void test_metrics(void **state)
{
    struct metrics *m = calloc(1, sizeof *m);
    struct buf out = BUF_INIT;
    (void)state;
    assert_non_null(m);
    metrics_answered(m, CALL_KIND_ACQUIRE, 200, 2 * NS_PER_MS);
    metrics_answered(m, CALL_KIND_ACQUIRE, 200, 30 * NS_PER_S);
    metrics_answered(m, CALL_KIND_ACQUIRE, 429, 0);
    metrics_answered(m, CALL_KIND_SHOW, 403, NS_PER_MS);
    metrics_write(m, &out);
    assert_true(
        has(&out, "\nholdfast_gateway_requests_total{call=\"acquire\",status=\"200\"} 2\n"));
    static const char bucket[] = "\nholdfast_gateway_request_duration_seconds_bucket";
    char line[200];
    (void)snprintf(line, sizeof line, "%s{call=\"acquire\",le=\"0.001\"} 1\n", bucket);
    assert_true(has(&out, line));
    (void)snprintf(line, sizeof line, "%s{call=\"acquire\",le=\"0.0025\"} 2\n", bucket);
    assert_true(has(&out, line));
    (void)snprintf(line, sizeof line, "%s{call=\"acquire\",le=\"10\"} 2\n", bucket);
    assert_true(has(&out, line));
    (void)snprintf(line, sizeof line, "%s{call=\"acquire\",le=\"+Inf\"} 3\n", bucket);
    assert_true(has(&out, line));
    assert_true(has(&out, "\nholdfast_gateway_rate_limited_total 1\n"));
    assert_true(has(&out, "\nholdfast_gateway_denied_total 1\n"));
    buf_deinit(&out);
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_owner_text),      cmocka_unit_test(test_owner_digest),
        cmocka_unit_test(test_owner_injective), cmocka_unit_test(test_owner_foreign),
        cmocka_unit_test(test_percent),         cmocka_unit_test(test_lockid),
        cmocka_unit_test(test_metrics),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
