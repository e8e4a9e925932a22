/* W3C Trace Context: what is one, what is none, and what is passed on. */
#include "raftstore/base/trace.h"
#include "raftstore/wire/trace.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define ID   "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN "00f067aa0ba902b7"

static const struct {
    const char *text;
    bool valid;
    uint8_t flags;
} parents[] = {
    {"00-" ID "-" SPAN "-01", true, 1},
    {"00-" ID "-" SPAN "-00", true, 0},
    {"00-" ID "-" SPAN "-ff", true, 1}, /* Flags that nobody knows are not passed on. */
    {"00-" ID "-" SPAN "-02", true, 0},
    {" \t00-" ID "-" SPAN "-01 ", true, 1},
    {"01-" ID "-" SPAN "-01", true, 1},      /* Later versions, */
    {"cc-" ID "-" SPAN "-01-more", true, 1}, /* with more behind a '-'. */
    {"fe-" ID "-" SPAN "-01-", true, 1},
    {"cc-" ID "-" SPAN "-01.more", false, 0}, /* Something else follows. */
    {"cc-" ID "-" SPAN "-011", false, 0},
    {"00-" ID "-" SPAN "-01-more", false, 0}, /* Version 00 has no more. */
    {"00-" ID "-" SPAN "-01-", false, 0},
    {"ff-" ID "-" SPAN "-01", false, 0},
    {"00-" ID "-" SPAN "-0", false, 0},
    {"00-" ID "-" SPAN "-", false, 0},
    {"00-" ID "-" SPAN, false, 0},
    {"", false, 0},
    {"00", false, 0},
    {"0-" ID "-" SPAN "-011", false, 0},
    {"00-00000000000000000000000000000000-" SPAN "-01", false, 0},
    {"00-" ID "-0000000000000000-01", false, 0},
    {"00-00000000000000000000000000000001-0000000000000001-01", true, 1},
    {"00-4BF92F3577B34DA6A3CE929D0E0E4736-" SPAN "-01", false, 0},
    {"00-" ID "-00F067AA0BA902B7-01", false, 0},
    {"0A-" ID "-" SPAN "-01", false, 0},
    {"00-" ID "-" SPAN "-0A", false, 0},
    {"00-4bf92f3577b34da6a3ce929d0e0e473g-" SPAN "-01", false, 0},
    {"00_" ID "-" SPAN "-01", false, 0},
    {"00-" ID "_" SPAN "-01", false, 0},
    {"00-" ID "-" SPAN "_01", false, 0},
    {"00 -" ID "-" SPAN "-01", false, 0},
    {"00-" ID "-" SPAN "-01, 00-" ID "-" SPAN "-01", false, 0},
};

static void test_parent(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof parents / sizeof parents[0]; i++) {
        struct trace_context t = {.flags = 77, .state = "k=v"};
        char text[TRACE_PARENT_BYTES + 1];
        bool valid = trace_parse(bytes_str(parents[i].text), &t);
        if (valid != parents[i].valid)
            fail_msg("'%s' is %s", parents[i].text, valid ? "taken" : "refused");
        if (!valid) { /* Untouched. */
            assert_int_equal(t.flags, 77);
            assert_string_equal(t.state, "k=v");
            assert_false(trace_is_set(&t));
            continue;
        }
        assert_int_equal(t.flags, parents[i].flags);
        assert_int_equal(trace_is_sampled(&t), parents[i].flags == 1);
        assert_string_equal(t.state, "");
        assert_true(trace_is_set(&t));
        assert_int_equal(strlen(trace_format(&t, text)), TRACE_PARENT_BYTES);
        assert_memory_equal(text, "00-", 3);
        if (parents[i].text[0] == '0' && parents[i].text[1] == '0' && parents[i].flags == 1 &&
            strstr(parents[i].text, "-01") != NULL)
            assert_string_equal(text, parents[i].text);
    }
}

/* Every byte changed to every other value: either it still is what is printed, or it is refused. */
static void test_parent_bytes(void **state)
{
    (void)state;
    const char *good = "00-" ID "-" SPAN "-01";
    for (size_t i = 0; i < TRACE_PARENT_BYTES; i++) {
        for (unsigned c = 0; c < 256; c++) {
            char text[TRACE_PARENT_BYTES + 1], out[TRACE_PARENT_BYTES + 1];
            struct trace_context t;
            memcpy(text, good, sizeof text);
            text[i] = (char)c;
            bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
            bool dash = i == 2 || i == 35 || i == 52;
            bool valid = trace_parse(bytes_of(text, TRACE_PARENT_BYTES), &t);
            assert_int_equal(valid, dash ? c == '-' : hex);
            if (valid && i > 2 && i < 52)
                assert_memory_equal(trace_format(&t, out), text, 52);
        }
    }
}

#define LONG_KEY "k2345678901234567890123456789012345678901234567890123456789012345678901234567890"
#define V100                                                                                       \
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890"  \
    "123456789"

static const struct {
    const char *in;
    const char *out; /* NULL: refused. */
} states[] = {
    {"", ""},
    {"rojo=00f067aa0ba902b7", "rojo=00f067aa0ba902b7"},
    {"rojo=1,congo=t61rcWkgMzE", "rojo=1,congo=t61rcWkgMzE"},
    {" rojo=1 ,\t congo=2 ", "rojo=1,congo=2"},
    {"a=1,,b=2,", "a=1,b=2"},
    {" , ,", ""},
    {"a= x y", "a= x y"},
    {"fw529a3039@dt=FfG", "fw529a3039@dt=FfG"},
    {"0tenant@dt=1", "0tenant@dt=1"},
    {"a_-*/9=1", "a_-*/9=1"},
    {"a=~!\"#$%&'()*+-./:;<>?@[]^_`{|}\\", "a=~!\"#$%&'()*+-./:;<>?@[]^_`{|}\\"},
    {"a=1,a=2", NULL},             /* A key twice. */
    {"A=1", NULL},                 /* Upper case. */
    {"0a=1", NULL},                /* A digit first, without a tenant. */
    {"a", NULL},                   /* No value. */
    {"a=", NULL},                  /* An empty one. */
    {"=1", NULL},                  /* No key. */
    {"a=1=2", NULL},               /* */
    {"a =1", NULL},                /* */
    {"@dt=1", NULL},               /* */
    {"t@=1", NULL},                /* */
    {"t@0dt=1", NULL},             /* */
    {"t@dt@x=1", NULL},            /* */
    {"t@d23456789012345=1", NULL}, /* 15 bytes of a system. */
    {"t@d2345678901234=1", "t@d2345678901234=1"},
    {"a=b\x01", NULL},
    {"a=b\x7f", NULL},
    {"a=\xc3\xa4", NULL},
    {"a=b\tc", NULL},
    {"a=1;b=2\n", NULL},
};

static void test_state(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        char out[TRACE_STATE_BYTES_MAX + 1] = "x";
        bool valid = trace_state_parse(bytes_str(states[i].in), out);
        if (valid != (states[i].out != NULL))
            fail_msg("'%s' is %s", states[i].in, valid ? "taken" : "refused");
        assert_string_equal(out, valid ? states[i].out : "");
    }
}

static void test_state_bounds(void **state)
{
    (void)state;
    char out[TRACE_STATE_BYTES_MAX + 1];
    char text[9000] = "";
    for (unsigned i = 0; i < 32; i++)
        (void)snprintf(text + strlen(text), 16, "%sk%u=1", i > 0 ? "," : "", i);
    assert_true(trace_state_parse(bytes_str(text), out));
    assert_string_equal(out, text);
    (void)snprintf(text + strlen(text), 16, ",k32=1");
    assert_false(trace_state_parse(bytes_str(text), out));
    assert_string_equal(out, "");
    /* Exactly what fits; then the last member goes. */
    (void)snprintf(text, sizeof text, "a=" V100 ",b=" V100 ",c=" V100 ",d=" V100 ",e=%.98s", V100);
    assert_int_equal(strlen(text), 512);
    assert_true(trace_state_parse(bytes_str(text), out));
    assert_string_equal(out, text);
    (void)snprintf(text, sizeof text, "a=" V100 ",b=" V100 ",c=" V100 ",d=" V100 ",e=%.99s", V100);
    assert_true(trace_state_parse(bytes_str(text), out));
    assert_string_equal(out, "a=" V100 ",b=" V100 ",c=" V100 ",d=" V100);
    /* Long members go first, wherever they stand. */
    (void)snprintf(text, sizeof text,
                   "x=" V100 V100 ",a=1,y=" V100 V100 ",b=2,z=" V100 V100 ",c=3");
    assert_true(trace_state_parse(bytes_str(text), out));
    assert_string_equal(out, "x=" V100 V100 ",a=1,y=" V100 V100 ",b=2,c=3");
    (void)snprintf(text, sizeof text, "a=" V100 V100 "%.56s", V100);
    assert_true(trace_state_parse(bytes_str(text), out)); /* A value of 256 bytes. */
    (void)snprintf(text, sizeof text, "a=" V100 V100 "%.57s", V100);
    assert_false(trace_state_parse(bytes_str(text), out));
    (void)snprintf(text, sizeof text, LONG_KEY LONG_KEY LONG_KEY "%.16s=1", "k234567890123456");
    assert_true(trace_state_parse(bytes_str(text), out)); /* A key of 256 bytes. */
    (void)snprintf(text, sizeof text, LONG_KEY LONG_KEY LONG_KEY "%.17s=1", "k2345678901234567");
    assert_false(trace_state_parse(bytes_str(text), out));
}

static void test_new(void **state)
{
    (void)state;
    struct random random = {7};
    struct trace_context a, b, copy;
    char text[TRACE_PARENT_BYTES + 1];
    trace_begin(&random, true, &a);
    trace_begin(&random, false, &b);
    assert_memory_not_equal(a.trace_id, b.trace_id, sizeof a.trace_id);
    assert_true(trace_is_sampled(&a));
    assert_false(trace_is_sampled(&b));
    assert_true(trace_parse(bytes_str(trace_format(&a, text)), &copy));
    assert_memory_equal(a.trace_id, copy.trace_id, sizeof a.trace_id);
    assert_memory_equal(a.span_id, copy.span_id, sizeof a.span_id);
    trace_new_span_id(&random, copy.span_id);
    assert_memory_not_equal(a.span_id, copy.span_id, sizeof a.span_id);
}

static void test_ratio(void **state)
{
    (void)state;
    struct random random = {1};
    unsigned n = 0;
    for (unsigned i = 0; i < 10000; i++) {
        struct trace_context t;
        trace_begin(&random, false, &t);
        assert_true(trace_is_chosen(&t, 1));
        assert_false(trace_is_chosen(&t, 0));
        bool tenth = trace_is_chosen(&t, 0.1);
        n += tenth;
        assert_true(!tenth || trace_is_chosen(&t, 0.5)); /* A larger share has the smaller in it. */
    }
    assert_in_range(n, 850, 1150); /* The seed is fixed. */
}

static void test_ratio_text(void **state)
{
    (void)state;
    static const char *const bad[] = {"",    ".",  "1.1",  "2",   "-1",  "+1", "1e-1",
                                      "0,5", " 1", "0.5x", "nan", "inf", "0x1"};
    double ratio = 7;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(trace_ratio_parse(bad[i], &ratio), -EINVAL);
    assert_true(ratio == 7);
    assert_int_equal(trace_ratio_parse("0", &ratio), 0);
    assert_true(ratio == 0);
    assert_int_equal(trace_ratio_parse("1.000", &ratio), 0);
    assert_true(ratio == 1);
    assert_int_equal(trace_ratio_parse(".25", &ratio), 0);
    assert_true(ratio > 0.2499 && ratio < 0.2501);
}

/* On the wire and back; what is malformed there is no trace. */
static void test_wire(void **state)
{
    (void)state;
    struct trace_context t, back;
    uint8_t packed[WIRE_TRACE_BYTES_MAX];
    assert_true(trace_parse(bytes_str("00-" ID "-" SPAN "-01"), &t));
    for (unsigned i = 0; i < 3; i++) {
        memset(t.state, 'a', sizeof t.state);
        memcpy(t.state, "k=", 2);
        t.state[i == 0 ? 0 : i == 1 ? 20 : 200] = '\0';
        t.flags = i == 1 ? 0 : 1;
        size_t size = wire_trace_put(&t, packed);
        assert_int_equal(packed[0], WIRE_TRACE_FIELD << 3 | 2);
        size_t head = packed[1] < 0x80 ? 2 : 3;
        struct bytes message = bytes_of(packed + head, size - head);
        assert_true(wire_trace_read(message, &back));
        assert_memory_equal(back.trace_id, t.trace_id, sizeof t.trace_id);
        assert_memory_equal(back.span_id, t.span_id, sizeof t.span_id);
        assert_int_equal(back.flags, t.flags);
        assert_string_equal(back.state, t.state);
        for (size_t cut = 0; cut < message.size; cut++) {
            bool whole = cut == 28 || (cut == 30 && i != 1); /* Without state; and flags. */
            assert_int_equal(wire_trace_read(bytes_of(message.data, cut), &back), whole);
        }
    }
    /* Fields of a newer version are skipped; a bad state is left out. */
    uint8_t more[200] = {9 << 3 | 0, 0xff, 1,          10 << 3 | 1, 1,   2,   3,   4, 5,
                         6,          7,    8,          11 << 3 | 5, 1,   2,   3,   4, 12 << 3 | 2,
                         1,          'x',  4 << 3 | 2, 3,           'a', '=', '\n'};
    t.state[0] = '\0';
    size_t size = wire_trace_put(&t, packed);
    memcpy(more + 25, packed + 2, size - 2);
    assert_true(wire_trace_read(bytes_of(more, 25 + size - 2), &back));
    assert_string_equal(back.state, "");
    assert_memory_equal(back.trace_id, t.trace_id, sizeof t.trace_id);
    memset(more + 25 + 2, 0, TRACE_ID_BYTES);
    assert_false(wire_trace_read(bytes_of(more, 25 + size - 2), &back));
    assert_false(wire_trace_read(bytes_of(NULL, 0), &back));
    assert_false(
        wire_trace_read(bytes_of("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11), &back));
    assert_false(wire_trace_read(bytes_of("\x0b", 1), &back)); /* A group. */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parent), cmocka_unit_test(test_parent_bytes),
        cmocka_unit_test(test_state),  cmocka_unit_test(test_state_bounds),
        cmocka_unit_test(test_new),    cmocka_unit_test(test_ratio),
        cmocka_unit_test(test_wire),   cmocka_unit_test(test_ratio_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
