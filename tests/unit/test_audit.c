/* Audit lines: nothing that others choose can forge one, the queue is bounded and its losses are
 * told, files are rotated, and the last position is found again. */
#include "telemetry/audit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[64];
static char file[128];

static int setup(void **state)
{
    (void)state;
    (void)snprintf(directory, sizeof directory, "/tmp/test-audit-XXXXXX");
    if (mkdtemp(directory) == NULL)
        return -1;
    (void)snprintf(file, sizeof file, "%s/audit.log", directory);
    return 0;
}

static int teardown(void **state)
{
    char old[140];
    (void)state;
    (void)snprintf(old, sizeof old, "%s.1", file);
    (void)unlink(file);
    (void)unlink(old);
    return rmdir(directory);
}

static struct audit *open_it(struct audit_position *ret_last)
{
    struct audit *a;
    struct audit_position last;
    char *sentence = NULL;
    assert_int_equal(audit_open(file, 0, &a, ret_last != NULL ? ret_last : &last, &sentence), 0);
    return a;
}

static char *content(const char *name)
{
    static char text[1 << 20];
    int fd = open(name, O_RDONLY);
    assert_true(fd >= 0);
    ssize_t n = read(fd, text, sizeof text - 1);
    assert_true(n >= 0);
    text[n] = '\0';
    (void)close(fd);
    return text;
}

/* The line behind its time. */
static const char *behind_ts(const char *line)
{
    assert_memory_equal(line, "ts=20", 5);
    assert_int_equal(line[3 + 23], 'Z');
    return line + 3 + 24 + 1;
}

static void test_quoting(void **state)
{
    (void)state;
    static const struct {
        struct bytes value;
        const char *wanted;
    } table[] = {
        {{"jobs/nightly", 12}, "path=jobs/nightly"},
        {{"a b", 3}, "path=\"a b\""},
        {{"a\nts=1 event=grant", 18}, "path=\"a\\x0ats=1 event=grant\""},
        {{"a\r\x1b[2J\x7f", 7}, "path=\"a\\x0d\\x1b[2J\\x7f\""},
        {{"\" event=break owner=\"root", 25}, "path=\"\\\" event=break owner=\\\"root\""},
        {{"\\", 1}, "path=\"\\\\\""},
        {{"a=b", 3}, "path=\"a=b\""},
        {{"\xff\xfe\0x", 4}, "path=\"\\xff\\xfe\\x00x\""},
        {{"\xc2\x9b"
          "31m",
          5},
         "path=\"\\xc2\\x9b31m\""}, /* C1: terminals obey it. */
        {{"sch\xc3\xb6n", 6}, "path=\"sch\xc3\xb6n\""},
        {{"\xe2\x80\xa8", 3}, "path=\"\xe2\x80\xa8\""},
        {{"", 0}, ""},
    };
    struct audit *a = open_it(NULL);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct buf *line = audit_begin(a, "grant");
        audit_bytes(line, "path", table[i].value);
        audit_u64(line, "none", 0);
        audit_u64(line, "token", UINT64_MAX);
        audit_end(a);
    }
    audit_close(a);
    char *text = content(file), *save;
    size_t i = 0;
    for (char *line = strtok_r(text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save), i++) {
        char wanted[200];
        (void)snprintf(wanted, sizeof wanted, "event=grant%s%s token=18446744073709551615",
                       table[i].wanted[0] != '\0' ? " " : "", table[i].wanted);
        assert_string_equal(behind_ts(line), wanted);
    }
    assert_int_equal(i, sizeof table / sizeof table[0]);
}

static void grant(struct audit *a, const char *path, uint64_t index, uint64_t n)
{
    struct buf *line = audit_begin(a, "grant");
    audit_text(line, "path", path);
    if (index != 0) {
        field_u64(line, "index", index);
        field_u64(line, "n", n);
        field_u64(line, "term", 3);
    }
    audit_end(a);
}

static void test_position(void **state)
{
    (void)state;
    struct audit_position last = {1, 1, 1};
    struct audit *a = open_it(&last);
    assert_int_equal(last.index, 0);
    grant(a, "a", 7, 0);
    grant(a, "b", 7, 1);
    grant(a, "forged index=99 n=9 term=9", 0, 0);
    grant(a, "forged\" index=99 n=9 term=9", 0, 0);
    grant(a, "forged\\\" index=99 n=9 term=9", 0, 0);
    audit_close(a);
    a = open_it(&last);
    assert_int_equal(last.index, 7);
    assert_int_equal(last.n, 1);
    assert_int_equal(last.term, 3);
    audit_close(a);
    /* A line that a crash has cut off is none, and the next one stands alone. */
    int fd = open(file, O_WRONLY | O_APPEND);
    assert_int_equal(write(fd, "ts=x event=grant index=8 n=0", 28), 28);
    (void)close(fd);
    a = open_it(&last);
    assert_int_equal(last.index, 7);
    grant(a, "c", 9, 0);
    audit_close(a);
    assert_non_null(strstr(content(file), "event=grant index=8 n=0\nts=2"));
    a = open_it(&last);
    assert_int_equal(last.index, 9);
    /* Many lines without one behind it. */
    for (unsigned i = 0; i < 500; i++)
        grant(a, "d", 0, 0);
    audit_close(a);
    a = open_it(&last);
    assert_int_equal(last.index, 9);
    audit_close(a);
}

static void test_rotate(void **state)
{
    (void)state;
    char old[140];
    struct audit *a = open_it(NULL);
    (void)snprintf(old, sizeof old, "%s.1", file);
    grant(a, "before", 0, 0);
    while (audit_counts(a).lines < 1)
        (void)poll(NULL, 0, 1);
    assert_int_equal(rename(file, old), 0);
    audit_reopen(a);
    grant(a, "behind", 0, 0);
    audit_close(a);
    assert_non_null(strstr(content(old), "path=before\n"));
    assert_null(strstr(content(old), "behind"));
    assert_non_null(strstr(content(file), "path=behind\n"));
}

/* A reader that does not read: nobody waits for it, and what was lost is told. */
static void test_bounds(void **state)
{
    (void)state;
    struct audit *a;
    struct audit_position last;
    char *sentence = NULL;
    assert_int_equal(mkfifo(file, 0600), 0);
    assert_int_equal(audit_open(file, 0, &a, &last, &sentence), -ENXIO); /* Nobody would read. */
    assert_non_null(strstr(sentence, "audit.log"));
    free(sentence);
    int fd = open(file, O_RDONLY | O_NONBLOCK);
    assert_true(fd >= 0);
    assert_int_equal(audit_open(file, 2000, &a, &last, &sentence), 0);
    const uint64_t n = 20000;
    for (uint64_t i = 0; i < n; i++) /* 60 bytes each: far more than a pipe holds. */
        grant(a, "jobs/nightly", 0, 0);
    uint64_t dropped = audit_counts(a).dropped;
    assert_true(dropped > 0);
    uint64_t seen = 0, told = 0;
    struct buf all = BUF_INIT;
    while (seen + told < n) {
        char text[4096];
        struct pollfd p = {fd, POLLIN, 0};
        assert_int_equal(poll(&p, 1, 20000), 1);
        ssize_t r = read(fd, text, sizeof text);
        assert_true(r > 0);
        buf_add(&all, text, (size_t)r);
        uint8_t *end;
        while ((end = memchr(all.data, '\n', all.size)) != NULL) {
            *end = '\0';
            const char *what = behind_ts((const char *)all.data);
            if (strncmp(what, "event=dropped dropped=", 22) == 0)
                told += strtoull(what + 22, NULL, 10);
            else
                assert_string_equal(what, "event=grant path=jobs/nightly");
            seen += what[6] == 'g';
            buf_consume(&all, (size_t)(end - all.data) + 1);
        }
    }
    assert_int_equal(seen + told, n);
    assert_int_equal(told, dropped);
    struct audit_counts counts = audit_counts(a);
    assert_int_equal(counts.lines, seen);
    assert_int_equal(counts.dropped, told);
    audit_close(a);
    buf_deinit(&all);
    (void)close(fd);
}

/* A full disk: lines are lost, that is counted, and later told. */
static void test_full(void **state)
{
    (void)state;
    struct audit *a;
    struct audit_position last;
    char *sentence = NULL;
    assert_int_equal(audit_open("/dev/full", 0, &a, &last, &sentence), 0);
    grant(a, "a", 0, 0);
    grant(a, "b", 0, 0);
    while (audit_counts(a).dropped < 2)
        (void)poll(NULL, 0, 1);
    assert_int_equal(audit_counts(a).lines, 0);
    audit_close(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_quoting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_position, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rotate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
        cmocka_unit_test(test_full),
    };
    (void)setenv("TZ", "UTC", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
