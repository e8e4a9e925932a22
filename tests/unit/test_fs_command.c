/* Unit tests of fs/command.c and fs/duration.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "fs/command.h"
#include "raftstore/base/duration.h"

static void test_commands(void **state)
{
    static const struct {
        const char *text;
        int result;
        enum command_verb verb;
        uint64_t ttl_ms;
        uint64_t token;
    } rows[] = {
        {"renew", 0, COMMAND_RENEW, 0, 0},
        {"renew\n", 0, COMMAND_RENEW, 0, 0},
        {"  renew  \n", 0, COMMAND_RENEW, 0, 0},
        {"renew\r\n", 0, COMMAND_RENEW, 0, 0},
        {"renew 90s\n", 0, COMMAND_RENEW, 90000, 0},
        {"renew 1500ms", 0, COMMAND_RENEW, 1500, 0},
        {"renew 2m", 0, COMMAND_RENEW, 120000, 0},
        {"renew 1h", 0, COMMAND_RENEW, 3600000, 0},
        {"renew 30d", 0, COMMAND_RENEW, UINT64_C(2592000000), 0},
        {"renew 17\n", 0, COMMAND_RENEW, 0, 17},
        {"renew 17 90s\n", 0, COMMAND_RENEW, 90000, 17},
        {"renew 90s 17\n", 0, COMMAND_RENEW, 90000, 17},
        {"renew 18446744073709551615", 0, COMMAND_RENEW, 0, UINT64_MAX},
        {"renew 18446744073709551616", -EINVAL, 0, 0, 0},
        {"renew 90x", -EINVAL, 0, 0, 0},
        {"renew -1s", -EINVAL, 0, 0, 0},
        {"renew 0", -EINVAL, 0, 0, 0},
        {"renew 0s", -EINVAL, 0, 0, 0},
        {"renew 9ms", -EINVAL, 0, 0, 0},
        {"renew 31d", -EINVAL, 0, 0, 0},
        {"renew 1 2", -EINVAL, 0, 0, 0},
        {"renew 1s 2s", -EINVAL, 0, 0, 0},
        {"renew 99999999999999999999d", -EINVAL, 0, 0, 0},
        {"keep", 0, COMMAND_KEEP, 0, 0},
        {"keep 3\n", 0, COMMAND_KEEP, 0, 3},
        {"keep 3s", -EINVAL, 0, 0, 0},
        {"release", 0, COMMAND_RELEASE, 0, 0},
        {"release 4\n", 0, COMMAND_RELEASE, 0, 4},
        {"release 4s", -EINVAL, 0, 0, 0},
        {"release now", -EINVAL, 0, 0, 0},
        {"Renew", 0, COMMAND_NOTE, 0, 0},
        {"renewal of vows", 0, COMMAND_NOTE, 0, 0},
        {"4711\n", 0, COMMAND_NOTE, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct command c = {0};
        print_message("'%s'\n", rows[i].text);
        assert_int_equal(command_parse(bytes_str(rows[i].text), &c), rows[i].result);
        if (rows[i].result < 0)
            continue;
        assert_int_equal(c.verb, rows[i].verb);
        assert_true(c.ttl_ms == rows[i].ttl_ms);
        assert_true(c.token == rows[i].token);
    }
}

static void assert_note(struct bytes text, struct bytes note)
{
    struct command c;
    assert_int_equal(command_parse(text, &c), 0);
    assert_int_equal(c.verb, COMMAND_NOTE);
    assert_true(bytes_equal(c.note, note));
}

static void test_notes(void **state)
{
    char long_text[258];
    struct command c;
    (void)state;
    assert_note(bytes_str(""), bytes_str(""));
    assert_note(bytes_str("\n"), bytes_str(""));
    assert_note(bytes_str("\n\n"), bytes_str("\n"));
    assert_note(bytes_str(" a b \n"), bytes_str(" a b "));
    assert_note(bytes_of("a\0b", 3), bytes_of("a\0b", 3));
    memset(long_text, 'x', sizeof long_text);
    assert_note(bytes_of(long_text, 256), bytes_of(long_text, 256));
    assert_int_equal(command_parse(bytes_of(long_text, 257), &c), -EFBIG);
    long_text[256] = '\n';
    assert_note(bytes_of(long_text, 257), bytes_of(long_text, 256));
}

static void test_duration_bare(void **state)
{
    uint64_t ms = 1;
    (void)state;
    assert_int_equal(duration_parse(bytes_str("30"), true, &ms), 0);
    assert_true(ms == 30000);
    assert_int_equal(duration_parse(bytes_str("30"), false, &ms), -EINVAL);
    assert_int_equal(duration_parse(bytes_str(""), true, &ms), -EINVAL);
    assert_int_equal(duration_parse(bytes_str("s"), true, &ms), -EINVAL);
    assert_int_equal(duration_parse(bytes_str("1.5s"), true, &ms), -EINVAL);
    assert_true(ms == 30000); /* Untouched by failures. */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_notes),
        cmocka_unit_test(test_duration_bare),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
