/* The store without accidents: what is written is there after a reopen. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "store_harness.h"

static struct rig rig;
static struct model model;

static int setup(void **state)
{
    (void)state;
    model = (struct model){0};
    rig_init(&rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_deinit(&rig);
    return 0;
}

static void open_ok(size_t log_file_bytes)
{
    int error = rig_open(&rig, log_file_bytes);
    if (error != 0)
        print_error("%s\n", rig.sentence);
    assert_int_equal(error, 0);
}

static void open_fresh(size_t log_file_bytes)
{
    char *sentence = NULL;
    open_ok(log_file_bytes);
    assert_true(rig.loaded->fresh);
    assert_int_equal(store_initialise(rig.store, 1, 77, NULL, 0, &sentence), 0);
}

static void run(const struct op *op)
{
    rig_write(&rig, &model, op);
    model_apply(&model, op);
}

static void reopen_and_compare(void)
{
    rig_close(&rig);
    open_ok(RIG_FILE_BYTES);
    const char *difference = model_compare(&model, rig.loaded);
    if (difference != NULL)
        print_error("differs: %s\n", difference);
    assert_null(difference);
}

static void test_fresh(void **state)
{
    (void)state;
    char *sentence = NULL;
    open_ok(0);
    assert_true(rig.loaded->fresh);
    assert_int_equal(rig.loaded->n_entries, 0);
    uint64_t incarnation = rig.loaded->incarnation;
    assert_int_not_equal(incarnation, 0);
    rig_close(&rig);
    open_ok(0); /* Not initialised: still fresh, the same incarnation. */
    assert_true(rig.loaded->fresh);
    assert_int_equal(rig.loaded->incarnation, incarnation);
    struct replica_entry first = {1, 1, RAFT_CHANGE, bytes_str("members")};
    assert_int_equal(store_initialise(rig.store, 3, 77, &first, 1, &sentence), 0);
    rig_close(&rig);
    open_ok(0);
    assert_false(rig.loaded->fresh);
    assert_int_equal(rig.loaded->node_id, 3);
    assert_int_equal(rig.loaded->cluster_id, 77);
    assert_int_equal(rig.loaded->n_entries, 1);
    assert_int_equal(rig.loaded->entries[0].type, RAFT_CHANGE);
    assert_true(bytes_equal(rig.loaded->entries[0].data, bytes_str("members")));
}

static void test_directory_is_locked(void **state)
{
    (void)state;
    open_fresh(0);
    struct rig second = {0};
    (void)snprintf(second.directory, sizeof second.directory, "%s", rig.directory);
    assert_int_equal(uv_loop_init(&second.loop), 0);
    assert_int_equal(rig_open(&second, 0), -EBUSY);
    assert_non_null(strstr(second.sentence, rig.directory));
    free(second.sentence);
    (void)uv_loop_close(&second.loop);
}

static void test_directory_mode(void **state)
{
    (void)state;
    char path[600];
    (void)snprintf(path, sizeof path, "%s", rig.directory);
    assert_int_equal(rmdir(path), 0);
    open_ok(0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
}

static void test_write_and_reopen(void **state)
{
    (void)state;
    open_fresh(RIG_FILE_BYTES);
    run(&(struct op){.set_vote = true, .term = 1, .voted_for = 1});
    for (int i = 0; i < 500; i++)
        run(&(struct op){.term = 1, .n_entries = 2, .entry_bytes = (size_t)i * 10});
    assert_true(rig_wait(&rig));
    reopen_and_compare();
    reopen_and_compare();
}

static void test_group_commit(void **state)
{
    (void)state;
    open_fresh(0);
    for (int i = 0; i < 2000; i++)
        run(&(struct op){.term = 1, .n_entries = 1, .entry_bytes = 100});
    assert_true(rig_wait(&rig));
    struct store_stats stats = store_stats(rig.store);
    assert_int_equal(stats.writes, 2000);
    assert_true(stats.transactions < 500); /* They waited while the first ones were stored. */
    assert_true(stats.bytes == 200000 && stats.free_bytes > 0 && stats.commit_p50_us > 0);
    assert_true(stats.commit_p50_us <= stats.commit_p99_us &&
                stats.commit_p99_us <= stats.commit_max_us);
    model.term = 0;
    reopen_and_compare();
}

static void test_truncate_into_older_files(void **state)
{
    (void)state;
    open_fresh(RIG_FILE_BYTES);
    for (int i = 0; i < 200; i++)
        run(&(struct op){.term = 1, .n_entries = 1, .entry_bytes = 5000});
    assert_true(rig_wait(&rig));
    run(&(struct op){.set_vote = true, .term = 2, .truncate_from = 10, .n_entries = 3});
    assert_true(rig_wait(&rig));
    reopen_and_compare();
    for (int i = 0; i < 200; i++)
        run(&(struct op){.term = 2, .n_entries = 1, .entry_bytes = 5000});
    run(&(struct op){.set_vote = true, .term = 3, .truncate_from = 5, .n_entries = 1});
    assert_true(rig_wait(&rig));
    reopen_and_compare();
}

static unsigned count_files(const char *word)
{
    char command[700];
    (void)snprintf(command, sizeof command, "ls %s | grep -c '%s'", rig.directory, word);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    char line[32] = "";
    assert_non_null(fgets(line, sizeof line, p));
    (void)pclose(p);
    return (unsigned)strtoul(line, NULL, 10);
}

static void test_snapshot_and_drop(void **state)
{
    (void)state;
    open_fresh(RIG_FILE_BYTES);
    for (int i = 0; i < 300; i++)
        run(&(struct op){.term = 1, .n_entries = 1, .entry_bytes = 5000});
    assert_true(rig_wait(&rig));
    unsigned before = count_files("^log-.*db$");
    run(&(struct op){.snapshot_index = 290});
    assert_true(rig_wait_done(&rig, 1));
    struct replica_image image;
    const char *path;
    assert_true(store_snapshot(rig.store, &image, &path));
    assert_int_equal(image.index, 290);
    assert_true(bytes_equal(image.conf, bytes_str("conf")));
    assert_int_equal(access(path, R_OK), 0);
    run(&(struct op){.drop_to = 280});
    assert_true(rig_wait(&rig));
    reopen_and_compare();
    assert_true(count_files("^log-.*db$") < before / 2);
    assert_true(rig.loaded->n_entries < 100);
    assert_int_equal(rig.loaded->image.index, 290);
    run(&(struct op){.snapshot_index = 295});
    assert_true(rig_wait_done(&rig, 1));
    reopen_and_compare();
    assert_int_equal(count_files("^snapshot-"), 1);
}

/* Dropping never goes beyond what a durable snapshot covers. */
static void test_drop_is_bounded_by_snapshot(void **state)
{
    (void)state;
    open_fresh(RIG_FILE_BYTES);
    for (int i = 0; i < 300; i++)
        run(&(struct op){.term = 1, .n_entries = 1, .entry_bytes = 5000});
    run(&(struct op){.drop_to = 250});
    assert_true(rig_wait(&rig));
    reopen_and_compare();
    assert_int_equal(rig.loaded->n_entries, 300);
}

static void test_install(void **state)
{
    (void)state;
    open_fresh(RIG_FILE_BYTES);
    run(&(struct op){.set_vote = true, .term = 4, .voted_for = 2, .n_entries = 20});
    run(&(struct op){.snapshot_index = 1000, .install = true});
    assert_true(rig_wait_done(&rig, 1));
    reopen_and_compare();
    assert_int_equal(rig.loaded->n_entries, 0);
    assert_int_equal(rig.loaded->term, 4);
    assert_int_equal(rig.loaded->voted_for, 2);
    run(&(struct op){.term = 4, .n_entries = 5});
    assert_true(rig_wait(&rig));
    run(&(struct op){.snapshot_index = 2000, .install = true});
    run(&(struct op){.term = 4, .n_entries = 5});
    assert_true(rig_wait(&rig));
    assert_true(rig_wait_done(&rig, 1));
    reopen_and_compare();
}

/* A log that ends before the snapshot is dropped, and does not come back. */
static void test_log_ends_before_snapshot(void **state)
{
    (void)state;
    open_fresh(RIG_FILE_BYTES);
    run(&(struct op){.set_vote = true, .term = 4, .voted_for = 2, .n_entries = 20});
    run(&(struct op){.snapshot_index = 30});
    assert_true(rig_wait_done(&rig, 1));
    model.last = 30;
    reopen_and_compare();
    assert_int_equal(rig.loaded->n_entries, 0);
    run(&(struct op){.term = 4, .n_entries = 5});
    assert_true(rig_wait(&rig));
    reopen_and_compare();
    assert_int_equal(rig.loaded->entries[0].index, 31);
}

static void test_identity(void **state)
{
    (void)state;
    open_fresh(0);
    store_set_cluster_id(rig.store, 99);
    store_set_peer_incarnation(rig.store, 2, 1234);
    store_set_peer_incarnation(rig.store, 3, 5678);
    store_set_peer_incarnation(rig.store, 2, 4321);
    assert_int_equal(store_peer_incarnation(rig.store, 2), 4321);
    reopen_and_compare();
    assert_int_equal(rig.loaded->cluster_id, 99);
    assert_int_equal(store_peer_incarnation(rig.store, 2), 4321);
    assert_int_equal(store_peer_incarnation(rig.store, 3), 5678);
    assert_int_equal(store_peer_incarnation(rig.store, 4), 0);
}

/* An entry larger than a whole file's prepared WAL. */
static void test_oversize_entry(void **state)
{
    (void)state;
    open_fresh(RIG_FILE_BYTES);
    run(&(struct op){.term = 0, .n_entries = 1, .entry_bytes = 100});
    run(&(struct op){.term = 0, .n_entries = 20, .entry_bytes = 60000});
    run(&(struct op){.term = 0, .n_entries = 1, .entry_bytes = 100});
    assert_true(rig_wait(&rig));
    reopen_and_compare();
}

static void test_random(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct random rng = {seed};
        (void)teardown(NULL);
        (void)setup(NULL);
        open_fresh(RIG_FILE_BYTES);
        for (int round = 0; round < 6; round++) {
            unsigned n_done = 0;
            for (int i = 0; i < 200; i++) {
                struct op op;
                op_random(&model, &rng, &op);
                run(&op);
                n_done += op.snapshot_index != 0;
                if (random_below(&rng, 10) == 0)
                    assert_true(rig_wait(&rig));
            }
            assert_true(rig_wait(&rig) && rig_wait_done(&rig, n_done));
            reopen_and_compare();
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_fresh, setup, teardown),
        cmocka_unit_test_setup_teardown(test_directory_is_locked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_directory_mode, setup, teardown),
        cmocka_unit_test_setup_teardown(test_write_and_reopen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_group_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_truncate_into_older_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_snapshot_and_drop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drop_is_bounded_by_snapshot, setup, teardown),
        cmocka_unit_test_setup_teardown(test_install, setup, teardown),
        cmocka_unit_test_setup_teardown(test_log_ends_before_snapshot, setup, teardown),
        cmocka_unit_test_setup_teardown(test_identity, setup, teardown),
        cmocka_unit_test_setup_teardown(test_oversize_entry, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
