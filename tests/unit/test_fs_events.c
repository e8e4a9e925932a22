/* Unit tests of fs/event_log.c, fs/event_line.c and fs/fields.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/event_line.h"
#include "fs/event_log.h"
#include "raftstore/base/fields.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

static void assert_text(const struct buf *b, const char *expected)
{
    size_t size = strlen(expected);
    assert_int_equal(b->size, size);
    assert_memory_equal(b->data, expected, size);
}

/* ---- Fields ----------------------------------------------------------------------------- */

static void test_fields(void **state)
{
    static const struct {
        struct bytes value;
        const char *text;
    } table[] = {
        {{"plain-word_1./:@+,", 18}, "k=plain-word_1./:@+,\n"},
        {{"", 0}, "k=\"\"\n"},
        {{"two words", 9}, "k=\"two words\"\n"},
        {{"a=b", 3}, "k=\"a=b\"\n"},
        {{"x\ntime=1 event=granted", 22}, "k=\"x\\x0atime=1 event=granted\"\n"},
        {{"q\"b\\", 4}, "k=\"q\\\"b\\\\\"\n"},
        {{"\xc3\xa4", 2}, "k=\"\xc3\xa4\"\n"},
        {{"\xc2\x9b", 2}, "k=\"\\xc2\\x9b\"\n"},          /* A C1 control. */
        {{"\xff\xc3", 2}, "k=\"\\xff\\xc3\"\n"},          /* No UTF-8, cut off. */
        {{"\xed\xa0\x80", 3}, "k=\"\\xed\\xa0\\x80\"\n"}, /* A surrogate. */
        {{"a\0b", 3}, "k=\"a\\x00b\"\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct buf out = BUF_INIT;
        field_bytes(&out, "k", table[i].value);
        field_end(&out);
        assert_text(&out, table[i].text);
        buf_deinit(&out);
    }
    struct buf out = BUF_INIT;
    field_u64(&out, "a", UINT64_MAX);
    field_bool(&out, "b", true);
    field_end(&out);
    field_time(&out, "c", 1);
    field_end(&out);
    assert_text(&out, "a=18446744073709551615 b=yes\nc=1970-01-01T00:00:00.001Z\n");
    buf_deinit(&out);
}

/* ---- Lines ------------------------------------------------------------------------------ */

static void assert_line(const Hf__Event *e, const char *expected)
{
    struct buf out = BUF_INIT;
    event_line(e, &out);
    assert_text(&out, expected);
    buf_deinit(&out);
}

static void test_lines(void **state)
{
    Hf__Event e = HF__EVENT__INIT;
    (void)state;
    e.wall_ms = 1000;
    e.index = 12;
    e.type = WIRE_EFFECT_GRANTED;
    e.path = pack_binary(bytes_str("job"));
    e.owner = pack_binary(bytes_str("db1/x/1.2/3"));
    e.token = 17;
    e.mode = WIRE_MODE_EXCLUSIVE;
    e.kind = WIRE_KIND_EXCL;
    e.ttl_ms = 30000;
    e.session_id = 7;
    e.pid = 42;
    assert_line(&e,
                "time=1970-01-01T00:00:01.000Z event=granted path=job owner=db1/x/1.2/3 token=17 "
                "mode=exclusive kind=excl ttl_ms=30000 session=7 pid=42 uid=0 index=12 "
                "from=cluster\n");
    e.type = WIRE_EFFECT_ENDED;
    e.code = WIRE_CODE_EXPIRED;
    e.kind = WIRE_KIND_POSIX;
    e.start = 5;
    e.end_inverted = UINT64_MAX - 9;
    e.ttl_ms = 0;
    e.path = pack_binary(bytes_str("a\nb"));
    assert_line(&e, "time=1970-01-01T00:00:01.000Z event=expired path=\"a\\x0ab\" "
                    "owner=db1/x/1.2/3 token=17 mode=exclusive kind=posix range=5-9 code=expired "
                    "session=7 pid=42 uid=0 index=12 from=cluster\n");
    e.code = WIRE_CODE_BROKEN;
    e.start = 0;
    e.end_inverted = 0;
    assert_line(&e, "time=1970-01-01T00:00:01.000Z event=ended path=\"a\\x0ab\" "
                    "owner=db1/x/1.2/3 token=17 mode=exclusive kind=posix code=broken "
                    "session=7 pid=42 uid=0 index=12 from=cluster\n");
    e = (Hf__Event)HF__EVENT__INIT;
    e.type = WIRE_EFFECT_SESSION_LAPSED;
    e.session_id = 9;
    assert_line(&e, "time=1970-01-01T00:00:00.000Z event=session-lapsed session=9 index=0 "
                    "from=cluster\n");
    e.type = 4711; /* Of a later version. */
    assert_line(&e, "time=1970-01-01T00:00:00.000Z event=other session=9 index=0 from=cluster\n");
}

/* ---- The log ---------------------------------------------------------------------------- */

#define GAP "time=1970-01-01T00:00:00.007Z event=gap bytes="

/* Line `i`: 100 bytes, so that 655 fit into a chunk. */
static void add(struct event_log *l, unsigned i)
{
    char line[101];
    (void)snprintf(line, sizeof line, "%-98u|\n", i);
    event_log_add(l, bytes_of(line, 100));
}

static void fill(struct event_log *l, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        add(l, i);
}

static struct buf take(const struct event_log *l, struct event_reader *r, uint64_t at, size_t size)
{
    struct buf out = BUF_INIT;
    event_log_read(l, r, at, size, 7, &out);
    assert_true(out.size <= size);
    return out;
}

/* Read on to the end, `size` bytes at a time. */
static struct buf take_all(const struct event_log *l, struct event_reader *r, size_t size)
{
    struct buf all = BUF_INIT;
    for (;;) {
        bool more = event_log_has_more(l, r);
        struct buf part = take(l, r, r->next, size);
        size_t n = part.size;
        buf_add(&all, part.data, n);
        buf_deinit(&part);
        if (n == 0)
            return all;
        assert_true(more);
    }
}

/* The number on the line that begins at `at`. */
static unsigned number_at(const struct buf *b, size_t at)
{
    assert_true(at + 100 <= b->size);
    assert_int_equal(b->data[at + 99], '\n');
    return (unsigned)strtoul((const char *)b->data + at, NULL, 10);
}

static void test_log_grows(void **state)
{
    struct event_log l;
    struct event_reader r = {0}, other = {0};
    (void)state;
    event_log_init(&l);
    assert_false(event_log_has_more(&l, &r));
    struct buf none = take(&l, &r, 0, 100);
    assert_int_equal(none.size, 0);
    fill(&l, 0, 1000);
    assert_int_equal(l.end, 100000);
    assert_true(event_log_has_more(&l, &r));
    struct buf all = take_all(&l, &r, 4096);
    assert_int_equal(all.size, 100000);
    assert_int_equal(number_at(&all, 99900), 999);
    assert_false(event_log_has_more(&l, &r));
    /* What comes now comes alone, also for one who began at the end, as tail -n 0 does. */
    struct buf end = take(&l, &other, 100000, 100);
    assert_int_equal(end.size, 0);
    add(&l, 1000);
    struct buf more = take_all(&l, &r, 7), same = take_all(&l, &other, 1000);
    assert_int_equal(more.size, 100);
    assert_int_equal(number_at(&more, 0), 1000);
    assert_int_equal(number_at(&same, 0), 1000);
    /* Behind the end there is nothing, yet. */
    struct buf beyond = take(&l, &r, 1000000, 100);
    assert_int_equal(beyond.size, 0);
    buf_deinit(&all);
    buf_deinit(&more);
    buf_deinit(&same);
    event_log_clear(&l);
    assert_int_equal(l.end, 0);
}

/* A reader falls behind: it is told, and goes on at a whole line. */
static void test_gap(void **state)
{
    static const size_t sizes[] = {1, 37, 100, 4096, 200000};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct event_log l;
        struct event_reader r = {0};
        event_log_init(&l);
        fill(&l, 0, 10);
        struct buf first = take(&l, &r, 0, 250); /* In the middle of a line. */
        assert_int_equal(first.size, 250);
        fill(&l, 10, 15000);
        assert_true(l.begin > 250);
        struct buf rest = take_all(&l, &r, sizes[i]);
        assert_memory_equal(rest.data, "\n" GAP, strlen("\n" GAP));
        const char *end = memchr(rest.data + 1, '\n', rest.size - 1);
        assert_non_null(end);
        size_t behind = (size_t)(end - (const char *)rest.data) + 1;
        uint64_t lost = strtoull((const char *)rest.data + strlen("\n" GAP), NULL, 10);
        /* The bytes told are those between what was read and what comes. */
        unsigned next = number_at(&rest, behind);
        assert_int_equal(next * 100, 250 + lost);
        assert_true(next * 100 >= l.begin);
        assert_int_equal((rest.size - behind) % 100, 0);
        for (size_t at = behind; at < rest.size; at += 100)
            assert_int_equal(number_at(&rest, at), next++);
        assert_int_equal(next, 15000);
        assert_true(r.next <= l.end); /* tail reads no further than st_size. */
        buf_deinit(&first);
        buf_deinit(&rest);
        event_reader_deinit(&r);
        event_log_clear(&l);
    }
}

/* tail -n: reads blocks from the end backwards, then on from where it found its lines. */
static void test_backwards(void **state)
{
    struct event_log l;
    struct event_reader r = {0};
    (void)state;
    event_log_init(&l);
    fill(&l, 0, 20000);
    assert_true(l.begin > 0);
    struct buf block = take(&l, &r, l.end - l.end % 8192, 8192);
    assert_int_equal(block.size, l.end % 8192);
    struct buf before = take(&l, &r, l.end - l.end % 8192 - 8192, 8192);
    assert_int_equal(before.size, 8192);
    /* From the beginning, which is kept no more. */
    struct buf head = take(&l, &r, 0, 300);
    assert_memory_equal(head.data, GAP, strlen(GAP));
    struct buf rest = take_all(&l, &r, 65536);
    assert_int_equal(number_at(&rest, rest.size - 100), 19999);
    buf_deinit(&block);
    buf_deinit(&before);
    buf_deinit(&head);
    buf_deinit(&rest);
    event_reader_deinit(&r);
    event_log_clear(&l);
}

/* It falls behind once more while it reads of the gap. */
static void test_gap_after_gap(void **state)
{
    struct event_log l;
    struct event_reader r = {0};
    (void)state;
    event_log_init(&l);
    fill(&l, 0, 15000);
    struct buf part = take(&l, &r, 0, 20);
    fill(&l, 15000, 40000);
    struct buf rest = take_all(&l, &r, 50);
    struct buf all = BUF_INIT;
    buf_add(&all, part.data, part.size);
    buf_add(&all, rest.data, rest.size);
    const char *end = memchr(all.data, '\n', all.size);
    assert_memory_equal(end + 1, GAP, strlen(GAP));
    assert_int_equal(number_at(&all, all.size - 100), 39999);
    buf_deinit(&part);
    buf_deinit(&rest);
    buf_deinit(&all);
    event_reader_deinit(&r);
    event_log_clear(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),    cmocka_unit_test(test_lines),
        cmocka_unit_test(test_log_grows), cmocka_unit_test(test_gap),
        cmocka_unit_test(test_backwards), cmocka_unit_test(test_gap_after_gap),
    };
    return cmocka_run_group_tests_name("fs_events", tests, NULL, NULL);
}
