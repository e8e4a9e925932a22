/* The ring of notifications, and the percentiles beside it. */
#include "raftstore/node/events.h"
#include "raftstore/node/histogram.h"

#include "raftstore/wire/pack.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A subscriber that remembers what it was given. */
struct sink {
    struct events_sub sub;
    unsigned n;
    uint64_t first_index, last_index;
    char last_path[64];
};

static void sink_deliver(void *arg, struct bytes field)
{
    struct sink *s = arg;
    struct arena arena;
    arena_init(&arena);
    const Hf__Events *events =
        (const Hf__Events *)pack_parse(&arena, &hf__events__descriptor, field);
    assert_non_null(events);
    assert_int_equal(events->n_events, 1);
    const Hf__Event *e = events->events[0];
    if (s->n++ == 0)
        s->first_index = e->index;
    assert_true(e->index >= s->last_index); /* In order. */
    s->last_index = e->index;
    assert_true(e->path.len < sizeof s->last_path);
    if (e->path.len > 0)
        memcpy(s->last_path, e->path.data, e->path.len);
    s->last_path[e->path.len] = '\0';
    arena_deinit(&arena);
}

static void
subscribe(struct events *e, struct sink *s, uint64_t session_id, const char *prefix, uint64_t after)
{
    Hf__Subscribe request = HF__SUBSCRIBE__INIT;
    ProtobufCBinaryData prefixes[1];
    request.session_id = session_id;
    if (prefix != NULL) {
        prefixes[0] = pack_binary(bytes_str(prefix));
        request.prefixes = prefixes;
        request.n_prefixes = 1;
    }
    s->sub.deliver = sink_deliver;
    s->sub.arg = s;
    assert_int_equal(events_subscribe(e, &s->sub, &request), 0);
    s->sub.after_index = after;
}

static void add(struct events *e, uint64_t index, uint64_t session_id, const char *path)
{
    struct lock_effect effect = {.type = LOCK_EFFECT_ENDED,
                                 .code = LOCK_EXPIRED,
                                 .session_id = session_id,
                                 .path = bytes_str(path),
                                 .owner = bytes_str("owner")};
    struct lock_effects effects = {.list = &effect, .n = 1};
    events_add(e, index, index, &effects, 0);
}

static void test_prefixes(void **state)
{
    static const struct {
        const char *prefix, *path;
        bool matches;
    } cases[] = {
        {"", "a", true},     {"", "", true},           {"a", "a", true},
        {"a", "a/b", true},  {"a", "ab", false},       {"a", "", false},
        {"a/b", "a", false}, {"a/b", "a/b/c/d", true}, {"a/b", "a/bc", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct events *e = events_new();
        struct sink s = {0};
        subscribe(e, &s, 0, cases[i].prefix, 0);
        add(e, 1, 9, cases[i].path);
        assert_int_equal(s.n, cases[i].matches);
        events_unsubscribe(e, &s.sub);
        add(e, 2, 9, cases[i].path);
        assert_int_equal(s.n, cases[i].matches);
        events_free(e);
    }
}

static void test_rename_matches_both_names(void **state)
{
    struct events *e = events_new();
    struct sink s = {0};
    (void)state;
    struct lock_effect effect = {
        .type = LOCK_EFFECT_RENAMED, .path = bytes_str("old"), .path2 = bytes_str("new")};
    struct lock_effects effects = {.list = &effect, .n = 1};
    subscribe(e, &s, 0, "new", 0);
    events_add(e, 1, 1, &effects, 0);
    assert_int_equal(s.n, 1);
    events_unsubscribe(e, &s.sub);
    events_free(e);
}

static void test_subscribing_again_replaces(void **state)
{
    struct events *e = events_new();
    struct sink s = {0};
    (void)state;
    subscribe(e, &s, 7, "x", 0);
    subscribe(e, &s, 8, NULL, 0);
    assert_int_equal(events_n_subs(e), 1);
    add(e, 1, 7, "x");
    assert_int_equal(s.n, 0);
    add(e, 2, 8, "y");
    assert_int_equal(s.n, 1);
    events_unsubscribe(e, &s.sub);
    assert_int_equal(events_n_subs(e), 0);
    events_free(e);
}

static void test_many_sessions(void **state)
{
    struct events *e = events_new();
    struct sink *sinks = calloc(3000, sizeof *sinks);
    (void)state;
    for (uint64_t i = 0; i < 3000; i++)
        subscribe(e, &sinks[i], i + 1, NULL, 0);
    for (uint64_t i = 0; i < 3000; i++)
        add(e, i + 1, i + 1, "p");
    for (uint64_t i = 0; i < 3000; i++) {
        assert_int_equal(sinks[i].n, 1);
        assert_int_equal(sinks[i].last_index, i + 1);
        events_unsubscribe(e, &sinks[i].sub);
    }
    events_free(e);
    free(sinks);
}

/* The ring forgets the oldest, says so, and replays the rest in order. */
static void test_ring_bounds(void **state)
{
    struct events *e = events_new();
    uint64_t n = EVENTS_RECORDS_MAX + 5000;
    (void)state;
    assert_int_equal(events_bytes(e), 0);
    for (uint64_t i = 1; i <= n; i++)
        add(e, i, 5, i % 2 == 0 ? "even" : "odd");
    assert_true(events_bytes(e) <= EVENTS_BYTES_MAX);
    assert_false(events_reach(e, 1));
    assert_true(events_reach(e, n - 30000));
    struct sink s = {0};
    subscribe(e, &s, 0, "even", n - 30000);
    events_replay(e, &s.sub, 0);
    assert_int_equal(s.n, 15000);
    assert_true(s.first_index > n - 30000);
    assert_int_equal(s.last_index, n - n % 2);
    assert_string_equal(s.last_path, "even");
    events_unsubscribe(e, &s.sub);
    events_free(e);
}

static void test_ring_gives_memory_back(void **state)
{
    struct events *e = events_new();
    (void)state;
    events_trim(e, 1000);
    for (uint64_t i = 1; i <= 5000; i++)
        add(e, i, 5, "p");
    assert_true(events_bytes(e) > 0);
    assert_true(events_reach(e, 0));
    events_trim(e, 1000 + EVENTS_AGE_MS);
    assert_true(events_bytes(e) > 0);
    events_trim(e, 1001 + EVENTS_AGE_MS);
    assert_int_equal(events_bytes(e), 0);
    assert_false(events_reach(e, 4999));
    assert_true(events_reach(e, 5000));
    events_lost(e, 6000);
    assert_false(events_reach(e, 5999));
    events_free(e);
}

static void test_too_many_prefixes(void **state)
{
    struct events *e = events_new();
    struct sink s = {0};
    Hf__Subscribe request = HF__SUBSCRIBE__INIT;
    ProtobufCBinaryData prefixes[EVENTS_PREFIXES_MAX + 1];
    (void)state;
    for (size_t i = 0; i <= EVENTS_PREFIXES_MAX; i++)
        prefixes[i] = pack_binary(bytes_str("p"));
    request.prefixes = prefixes;
    request.n_prefixes = EVENTS_PREFIXES_MAX + 1;
    assert_int_equal(events_subscribe(e, &s.sub, &request), -EINVAL);
    assert_int_equal(events_n_subs(e), 0);
    events_free(e);
}

static void test_histogram(void **state)
{
    struct histogram h = {0};
    (void)state;
    assert_int_equal(histogram_permille(&h, 500), 0);
    for (uint64_t v = 1; v <= 1000; v++)
        histogram_add(&h, 1, v);
    assert_in_range(histogram_permille(&h, 500), 500, 570);
    assert_in_range(histogram_permille(&h, 990), 990, 1120);
    histogram_add(&h, 1, UINT64_MAX);
    assert_true(histogram_permille(&h, 1000) > 1000);
    histogram_add(&h, 3 * HISTOGRAM_WINDOW_NS, 3);
    histogram_add(&h, 5 * HISTOGRAM_WINDOW_NS, 3); /* The old ones are out of both windows. */
    assert_int_equal(histogram_permille(&h, 1000), 3);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_rename_matches_both_names),
        cmocka_unit_test(test_subscribing_again_replaces),
        cmocka_unit_test(test_many_sessions),
        cmocka_unit_test(test_ring_bounds),
        cmocka_unit_test(test_ring_gives_memory_back),
        cmocka_unit_test(test_too_many_prefixes),
        cmocka_unit_test(test_histogram),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
