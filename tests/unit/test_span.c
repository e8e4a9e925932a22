/* Spans: who is recorded, whose child, what the collector is sent, and the bound of the queue. */
#include "raftstore/base/clock.h"
#include "telemetry/otlp.h"
#include "telemetry/span.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <jansson.h>

static struct trace_context parent(const char *text, const char *state)
{
    struct trace_context t;
    assert_true(trace_parse(bytes_str(text), &t));
    assert_true(trace_state_parse(bytes_str(state), t.state));
    return t;
}

#define SAMPLED "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
#define UNNOTED "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"

static void test_who(void **state)
{
    (void)state;
    struct trace_context yes = parent(SAMPLED, ""), no = parent(UNNOTED, "");
    struct spans *none = spans_new(0, 0), *all = spans_new(1, 0);
    assert_null(span_begin(NULL, "a", SPAN_SERVER, &yes, true));
    assert_null(span_begin(none, "a", SPAN_SERVER, NULL, true));
    assert_null(span_begin(none, "a", SPAN_SERVER, &no, true));
    assert_null(span_begin(all, "a", SPAN_SERVER, &no, true)); /* The caller has decided. */
    struct span *s = span_begin(none, "a", SPAN_SERVER, &yes, true);
    assert_non_null(s);
    assert_ptr_equal(span_context(s, &yes), &s->context);
    assert_memory_equal(s->context.trace_id, yes.trace_id, sizeof yes.trace_id);
    assert_memory_equal(s->parent_id, yes.span_id, sizeof yes.span_id);
    assert_memory_not_equal(s->context.span_id, yes.span_id, sizeof yes.span_id);
    span_end(s);
    s = span_begin(all, "root", SPAN_CLIENT, NULL, false);
    assert_non_null(s);
    assert_false(s->has_parent);
    assert_true(trace_is_sampled(&s->context));
    span_end(s);
    /* Nothing is all that nothing does. */
    assert_ptr_equal(span_context(NULL, &no), &no);
    assert_null(span_context(NULL, NULL));
    span_text(NULL, "k", bytes_str("v"));
    span_number(NULL, "k", 1);
    span_event(NULL, "e", NULL, 0);
    span_set_status(NULL, SPAN_ERROR, "x");
    span_end(NULL);
    spans_free(none);
    spans_free(all);
    assert_int_equal(spans_counts(NULL).ended, 0);
}

static void test_queue(void **state)
{
    (void)state;
    struct trace_context yes = parent(SAMPLED, "");
    struct spans *s = spans_new(0, 10);
    struct span_list list;
    for (unsigned i = 0; i < 25; i++) {
        struct span *span = span_begin(s, "a", SPAN_SERVER, &yes, true);
        span_number(span, "i", i);
        span_end(span);
    }
    struct spans_counts counts = spans_counts(s);
    assert_int_equal(counts.ended, 25);
    assert_int_equal(counts.dropped, 15);
    assert_int_equal(counts.waiting, 10);
    assert_int_equal(spans_take(s, &list, 4, 1, 0), 4);
    assert_int_equal(TAILQ_FIRST(&list)->attributes[0].number, 0); /* The newest were dropped. */
    spans_count(s, 3, 1);
    counts = spans_counts(s);
    assert_int_equal(counts.exported, 3);
    assert_int_equal(counts.dropped, 16);
    struct span *span;
    while ((span = TAILQ_FIRST(&list)) != NULL) {
        TAILQ_REMOVE(&list, span, link);
        span_free(span);
    }
    spans_wake(s); /* Does not wait for more. */
    assert_int_equal(spans_take(s, &list, 100, 100, UINT64_MAX / 2), 6);
    while ((span = TAILQ_FIRST(&list)) != NULL) {
        TAILQ_REMOVE(&list, span, link);
        span_free(span);
    }
    assert_int_equal(spans_take(s, &list, 100, 1, clock_mono_ns(clock_system()) + NS_PER_MS), 0);
    spans_free(s);
}

static const char *text_at(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    assert_non_null(text);
    return text;
}

static void test_json(void **state)
{
    (void)state;
    struct trace_context yes = parent(SAMPLED, "congo=t61");
    struct spans *s = spans_new(0, 0);
    struct span_list list;
    struct span *span = span_begin(s, "acquire", SPAN_SERVER, &yes, true);
    char id[TRACE_SPAN_ID_HEX + 1];
    trace_hex(span->context.span_id, TRACE_SPAN_ID_BYTES, id);
    span_text(span, "holdfast.lock", bytes_str("a\xff\"b\n"));
    span_number(span, "holdfast.token", INT64_MAX);
    span_text(span, "empty", bytes_str(""));
    span_event(span, "committed", "holdfast.index", 12);
    span_set_status(span, SPAN_ERROR, "no majority");
    span_end(span);
    assert_int_equal(spans_take(s, &list, 9, 1, 0), 1);
    struct otlp_config config = {.service = "holdfastd", .instance = "3"};
    char *text = otlp_encode(&config, &list);
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    const json_t *resource = json_array_get(json_object_get(root, "resourceSpans"), 0);
    const json_t *first =
        json_array_get(json_object_get(json_object_get(resource, "resource"), "attributes"), 0);
    assert_string_equal(text_at(first, "key"), "service.name");
    assert_string_equal(text_at(json_object_get(first, "value"), "stringValue"), "holdfastd");
    const json_t *scope = json_array_get(json_object_get(resource, "scopeSpans"), 0);
    assert_string_equal(text_at(json_object_get(scope, "scope"), "name"), "holdfast");
    const json_t *o = json_array_get(json_object_get(scope, "spans"), 0);
    assert_string_equal(text_at(o, "traceId"), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_string_equal(text_at(o, "spanId"), id);
    assert_string_equal(text_at(o, "parentSpanId"), "00f067aa0ba902b7");
    assert_string_equal(text_at(o, "traceState"), "congo=t61");
    assert_int_equal(json_integer_value(json_object_get(o, "flags")), 0x301);
    assert_string_equal(text_at(o, "name"), "acquire");
    assert_int_equal(json_integer_value(json_object_get(o, "kind")), 2);
    uint64_t begin = strtoull(text_at(o, "startTimeUnixNano"), NULL, 10);
    uint64_t end = strtoull(text_at(o, "endTimeUnixNano"), NULL, 10);
    assert_true(begin > UINT64_C(1500000000000000000) && end >= begin);
    const json_t *attributes = json_object_get(o, "attributes");
    assert_int_equal(json_array_size(attributes), 2);
    assert_string_equal(
        text_at(json_object_get(json_array_get(attributes, 0), "value"), "stringValue"),
        "a\\xff\"b\\x0a");
    assert_string_equal(
        text_at(json_object_get(json_array_get(attributes, 1), "value"), "intValue"),
        "9223372036854775807");
    const json_t *event = json_array_get(json_object_get(o, "events"), 0);
    assert_string_equal(text_at(event, "name"), "committed");
    uint64_t at = strtoull(text_at(event, "timeUnixNano"), NULL, 10);
    assert_true(at >= begin && at <= end);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(o, "status"), "code")), 2);
    assert_string_equal(text_at(json_object_get(o, "status"), "message"), "no majority");
    json_decref(root);
    free(text);
    TAILQ_REMOVE(&list, span, link);
    span_free(span);
    spans_free(s);
}

static void test_url(void **state)
{
    (void)state;
    static const struct {
        const char *url;
        bool insecure;
        bool valid;
    } table[] = {
        {"http://localhost:4318", false, true},
        {"http://127.0.0.1:4318/v1/traces", false, true},
        {"http://[::1]:4318/", false, true},
        {"https://collector.example:4318", false, true},
        {"http://collector.example:4318", false, false}, /* In the clear. */
        {"http://collector.example:4318", true, true},
        {"http://127.0.0.1.example:4318", false, false},
        {"ftp://localhost/", true, false},
        {"localhost:4318", true, false},
        {"/tmp/file", true, false},
        {"", true, false},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const char *wrong = NULL;
        int rv = otlp_check_url(table[i].url, table[i].insecure, &wrong);
        if ((rv == 0) != table[i].valid)
            fail_msg("%s: %d", table[i].url, rv);
        assert_int_equal(wrong != NULL, rv < 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who),
        cmocka_unit_test(test_queue),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_url),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
