/* Durations, numbers and what is printed of bytes that others chose. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tools/cli/cli.h"

#include <errno.h>

static void durations_are_read(void **state)
{
    static const struct {
        const char *text;
        int rc;
        uint64_t ms;
    } cases[] = {
        {"90", 0, 90000},
        {"0", 0, 0},
        {"500ms", 0, 500},
        {"90s", 0, 90000},
        {"5m", 0, 300000},
        {"1h30m", 0, 5400000},
        {"2d", 0, 172800000},
        {"1h1s1ms", 0, 3601001},
        {"", -EINVAL, 0},
        {"-1s", -EINVAL, 0},
        {"1.5s", -EINVAL, 0},
        {"s", -EINVAL, 0},
        {"1", 0, 1000},
        {"1x", -EINVAL, 0},
        {"1s ", -EINVAL, 0},
        {"1s1m", -EINVAL, 0}, /* The wrong way round. */
        {"1s1s", -EINVAL, 0},
        {"1m30", -EINVAL, 0},
        {"18446744073709551615", -EINVAL, 0},
        {"18446744073709551616ms", -EINVAL, 0},
        {"18446744073709551615ms", -EINVAL, 0},
        {"99999999999999999999999999s", -EINVAL, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t ms = 0;
        int rc = text_duration(cases[i].text, &ms);
        if (rc != cases[i].rc || ms != (rc == 0 ? cases[i].ms : ms))
            fail_msg("'%s': %d, %llu ms", cases[i].text, rc, (unsigned long long)ms);
    }
}

static void durations_are_written(void **state)
{
    char out[32];
    (void)state;
    assert_string_equal(text_of_duration(0, out), "0ms");
    assert_string_equal(text_of_duration(999, out), "999ms");
    assert_string_equal(text_of_duration(2500, out), "2.5s");
    assert_string_equal(text_of_duration(59999, out), "59s");
    assert_string_equal(text_of_duration(90000, out), "1m30s");
    assert_string_equal(text_of_duration(5400000, out), "1h30m");
    assert_string_equal(text_of_duration(90000000, out), "1d01h");
    assert_string_equal(text_of_wall(0, out), "-");
    assert_string_equal(text_of_wall(UINT64_C(1795501201123), out), "2026-11-24T06:20:01Z");
}

static void numbers_are_whole_and_fit(void **state)
{
    uint64_t value = 7;
    (void)state;
    assert_int_equal(text_number("18446744073709551615", &value), 0);
    assert_true(value == UINT64_MAX);
    assert_int_equal(text_number("18446744073709551616", &value), -EINVAL);
    assert_int_equal(text_number("", &value), -EINVAL);
    assert_int_equal(text_number("1a", &value), -EINVAL);
    assert_int_equal(text_number("-1", &value), -EINVAL);
    assert_int_equal(text_number(" 1", &value), -EINVAL);
}

/* A lock's name may hold anything; a terminal must not obey it. */
static void strange_bytes_are_escaped(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain", "plain"},
        {"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f"},
        {"\x1b[2J", "\\x1b[2J"},
        {"a\nb", "a\\x0ab"},
        {"back\\slash", "back\\x5cslash"},
        {"\xc2\x9b"
         "31m",
         "\\xc2\\x9b31m"}, /* CSI as one C1 control. */
        {"\xff\xfe", "\\xff\\xfe"},
        {"\xc0\xaf", "\\xc0\\xaf"},          /* Overlong. */
        {"\xed\xa0\x80", "\\xed\\xa0\\x80"}, /* Surrogate. */
        {"\xe2\x82", "\\xe2\\x82"},          /* Cut off. */
        {"\xf0\x9f\x94\x92", "\xf0\x9f\x94\x92"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf out = BUF_INIT;
        text_add(&out, bytes_str(cases[i].in));
        buf_add(&out, "", 1);
        assert_string_equal((const char *)out.data, cases[i].out);
        buf_deinit(&out);
        json_t *json = text_json(bytes_str(cases[i].in));
        assert_non_null(json);
        json_decref(json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_are_read),
        cmocka_unit_test(durations_are_written),
        cmocka_unit_test(numbers_are_whole_and_fit),
        cmocka_unit_test(strange_bytes_are_escaped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
