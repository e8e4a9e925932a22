/* The shadow: the snapshot it writes is the state at the mark, and loads back. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "raftstore/node/apply.h"
#include "raftstore/node/shadow.h"
#include "store_harness.h"
#include "table_harness.h"

struct outcome {
    unsigned n_snapshots, n_loaded;
    uint64_t index;
    int status;
    char path[600];
    char *sentence; /* Owned. */
    struct lock_table *table;
};

static struct rig rig; /* Directory and loop. */
static struct outcome outcome;
static struct shadow *shadow;
static struct lock_table *table; /* The loop's own. */
static struct arena arena;
static struct commands commands;
static struct buf entry;
static uint64_t applied;

static void on_snapshot(void *arg, uint64_t index, const char *path, int status, const char *why)
{
    struct outcome *o = arg;
    o->n_snapshots++;
    o->index = index;
    o->status = status;
    (void)snprintf(o->path, sizeof o->path, "%s", path);
    free(o->sentence);
    o->sentence = why != NULL ? xstrdup(why) : NULL;
}

static void on_loaded(void *arg, struct lock_table *t, int status, const char *why)
{
    struct outcome *o = arg;
    o->n_loaded++;
    o->table = t;
    o->status = status;
    free(o->sentence);
    o->sentence = why != NULL ? xstrdup(why) : NULL;
}

static void start(const char *image_path)
{
    struct shadow_config config = {
        .loop = &rig.loop, .on_snapshot = on_snapshot, .on_loaded = on_loaded, .arg = &outcome};
    struct replica_image image;
    char *sentence = NULL;
    int error = shadow_start(&config, image_path, &shadow, &table, &image, &sentence);
    if (error != 0)
        print_error("%s\n", sentence);
    assert_int_equal(error, 0);
    free((void *)(uintptr_t)image.conf.data);
}

static int setup(void **state)
{
    (void)state;
    rig_init(&rig);
    outcome = (struct outcome){0};
    arena_init(&arena);
    commands_init(&commands, 4);
    applied = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    shadow_stop(shadow);
    shadow = NULL;
    (void)uv_run(&rig.loop, UV_RUN_DEFAULT);
    lock_table_free(table);
    free(outcome.sentence);
    buf_deinit(&entry);
    arena_deinit(&arena);
    rig_deinit(&rig);
    return 0;
}

/* Apply n entries to both, as the node does. */
static void apply(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        commands_entry(&commands, 1 + (unsigned)random_below(&commands.rng, 12), &entry);
        struct bytes b = bytes_of(entry.data, entry.size);
        assert_int_equal(apply_log_entry(table, &arena, ++applied, b, NULL, NULL), 0);
        shadow_apply(shadow, applied, b);
    }
}

static void snapshot(const char *name)
{
    struct replica_image image = {
        .index = applied, .term = 2, .conf_index = 1, .conf = bytes_str("conf")};
    char path[600];
    (void)snprintf(path, sizeof path, "%s/%s", rig.directory, name);
    shadow_snapshot(shadow, &image, path, lock_digest(table), 0);
}

static void wait_snapshots(unsigned n)
{
    while (outcome.n_snapshots < n)
        (void)uv_run(&rig.loop, UV_RUN_ONCE);
}

static void assert_image_is(const char *path, struct lock_digest d, uint64_t index)
{
    struct lock_table *t;
    struct replica_image image;
    char *sentence = NULL;
    assert_int_equal(image_read(path, &t, &image, &sentence), 0);
    struct lock_digest found = lock_digest(t);
    assert_true(found.lo == d.lo && found.hi == d.hi);
    assert_int_equal(image.index, index);
    lock_table_free(t);
    free((void *)(uintptr_t)image.conf.data);
}

static void test_snapshot_is_the_state_at_the_mark(void **state)
{
    (void)state;
    start(NULL);
    for (unsigned round = 1; round <= 5; round++) {
        apply(100);
        struct lock_digest at_mark = lock_digest(table);
        uint64_t index = applied;
        snapshot("image.db");
        apply(100); /* Behind the mark: not in the snapshot. */
        wait_snapshots(round);
        assert_int_equal(outcome.status, 0);
        assert_int_equal(outcome.index, index);
        assert_image_is(outcome.path, at_mark, index);
    }
    apply(1);
    assert_true(shadow_backlog_bytes(shadow) > 0);
}

static void test_restart_and_load(void **state)
{
    (void)state;
    start(NULL);
    apply(200);
    snapshot("image.db");
    wait_snapshots(1);
    struct lock_digest d = lock_digest(table);
    char path[600];
    (void)snprintf(path, sizeof path, "%s", outcome.path);
    shadow_stop(shadow);
    lock_table_free(table);
    start(path);
    assert_true(lock_digest(table).lo == d.lo);
    apply(100);
    snapshot("second.db");
    wait_snapshots(2);
    assert_int_equal(outcome.status, 0);
    /* An image from elsewhere replaces the state. */
    apply(50);
    shadow_load(shadow, path);
    while (outcome.n_loaded == 0)
        (void)uv_run(&rig.loop, UV_RUN_ONCE);
    assert_int_equal(outcome.status, 0);
    lock_table_free(table);
    table = outcome.table;
    assert_true(lock_digest(table).lo == d.lo && lock_digest(table).hi == d.hi);
    apply(100);
    snapshot("third.db");
    wait_snapshots(3);
    assert_int_equal(outcome.status, 0);
    assert_image_is(outcome.path, lock_digest(table), applied);
}

static void test_divergence(void **state)
{
    (void)state;
    start(NULL);
    apply(100);
    struct replica_image image = {.index = applied, .term = 2};
    struct lock_digest wrong = lock_digest(table);
    wrong.hi ^= 1;
    char path[600];
    (void)snprintf(path, sizeof path, "%s/image.db", rig.directory);
    shadow_snapshot(shadow, &image, path, wrong, 0);
    wait_snapshots(1);
    assert_int_equal(outcome.status, -EILSEQ);
    assert_non_null(strstr(outcome.sentence, "differs"));
    assert_int_not_equal(access(path, F_OK), 0);
}

static void test_undecodable_entry(void **state)
{
    (void)state;
    start(NULL);
    apply(10);
    shadow_apply(shadow, ++applied, bytes_str("\xff\xff\xff garbage"));
    snapshot("image.db");
    wait_snapshots(1);
    assert_int_equal(outcome.status, -EBADMSG);
    assert_non_null(outcome.sentence);
}

static void test_bad_image(void **state)
{
    (void)state;
    start(NULL);
    apply(10);
    shadow_load(shadow, "/nonexistent/image.db");
    while (outcome.n_loaded == 0)
        (void)uv_run(&rig.loop, UV_RUN_ONCE);
    assert_int_not_equal(outcome.status, 0);
    assert_null(outcome.table);
    assert_non_null(strstr(outcome.sentence, "/nonexistent/image.db"));
    snapshot("image.db"); /* The old state stays. */
    wait_snapshots(1);
    assert_int_equal(outcome.status, 0);
}

/* Stopping gives up what is queued, and a snapshot under way. */
static void test_stop_at_once(void **state)
{
    (void)state;
    start(NULL);
    apply(300);
    snapshot("image.db");
    snapshot("image2.db");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_snapshot_is_the_state_at_the_mark, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restart_and_load, setup, teardown),
        cmocka_unit_test_setup_teardown(test_divergence, setup, teardown),
        cmocka_unit_test_setup_teardown(test_undecodable_entry, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_image, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_at_once, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
