/* The store when writes fail: it says so once, naming the file, reports nothing more, and what it
 * had reported is there after a restart. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "fault_vfs.h"
#include "store_harness.h"

#define OPS_MAX 120

static struct rig rig;
static struct model model;
static struct op ops[OPS_MAX];
static uint64_t tickets[OPS_MAX]; /* Of each op; 0 = a snapshot. */

static int setup(void **state)
{
    (void)state;
    char *sentence = NULL;
    rig_init(&rig);
    model = (struct model){0};
    assert_int_equal(rig_open(&rig, RIG_FILE_BYTES), 0);
    assert_int_equal(store_initialise(rig.store, 1, 77, NULL, 0, &sentence), 0);
    rig_close(&rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fault_vfs_fail(0, 0, 0);
    rig_deinit(&rig);
    return 0;
}

/* Write ops one by one until all are done or the store fails. Return: how many were given. */
static unsigned run_ops(struct random *rng, unsigned n)
{
    struct model now = model;
    unsigned n_done = 0;
    for (unsigned i = 0; i < n; i++) {
        do
            op_random(&now, rng, &ops[i]);
        while (ops[i].snapshot_index != 0 && !ops[i].install);
        if (ops[i].n_entries > 0)
            ops[i].entry_bytes += 3000; /* So that files change. */
        rig_write(&rig, &now, &ops[i]);
        model_apply(&now, &ops[i]);
        tickets[i] = ops[i].snapshot_index != 0 ? 0 : rig.ticket;
        n_done += ops[i].snapshot_index != 0;
        if (!rig_wait(&rig) || !rig_wait_done(&rig, n_done))
            return i + 1;
    }
    return n;
}

/* After a restart: everything reported, and perhaps the one under way. */
static void check_after(unsigned n, uint64_t persisted)
{
    int error = rig_open(&rig, RIG_FILE_BYTES);
    if (error != 0)
        print_error("%s\n", rig.sentence);
    assert_int_equal(error, 0);
    unsigned i = 0;
    for (; i < n; i++) {
        if (i + 1 == n && (tickets[i] > persisted || tickets[i] == 0))
            break;
        model_apply(&model, &ops[i]);
    }
    const char *difference = model_compare(&model, rig.loaded);
    if (difference != NULL && i < n) {
        model_apply(&model, &ops[i]);
        difference = model_compare(&model, rig.loaded);
    }
    if (difference != NULL)
        print_error("differs: %s\n", difference);
    assert_null(difference);
    rig_close(&rig);
}

/* The count of calls, when what the other thread was at has come to its end. */
static unsigned count_at_rest(void)
{
    unsigned count = fault_vfs_count();
    for (int calm = 0; calm < 5; calm++) {
        (void)usleep(5000);
        unsigned now = fault_vfs_count();
        calm = now == count ? calm : 0;
        count = now;
    }
    return count;
}

static void fail_at(unsigned nth, int write_code, int sync_code, const char *advice)
{
    struct random rng = {nth};
    fault_vfs_fail(nth, write_code, sync_code);
    int error = rig_open(&rig, RIG_FILE_BYTES);
    if (error != 0) { /* It came while opening. */
        assert_true(fault_vfs_failed());
        assert_non_null(strstr(rig.sentence, rig.directory));
        assert_non_null(strstr(rig.sentence, advice));
        fault_vfs_fail(0, 0, 0);
        check_after(0, 0);
        return;
    }
    unsigned n = run_ops(&rng, OPS_MAX);
    uint64_t persisted = rig.persisted;
    if (rig.failure != NULL) {
        assert_non_null(strstr(rig.failure, rig.directory));
        assert_non_null(strstr(rig.failure, advice));
        /* Nothing is written or reported any more. */
        unsigned count = count_at_rest();
        struct replica_write w = {.ticket = ++rig.ticket, .set_vote = true, .term = 99};
        store_write(rig.store, &w);
        (void)usleep(2000);
        (void)uv_run(&rig.loop, UV_RUN_NOWAIT);
        assert_int_equal(rig.persisted, persisted);
        assert_int_equal(rig.n_failures, 1);
        assert_int_equal(fault_vfs_count(), count);
    }
    rig_close(&rig);
    fault_vfs_fail(0, 0, 0);
    check_after(n, persisted);
}

static void test_write_error(void **state)
{
    (void)state;
    for (unsigned nth = 1; nth < 2000; nth += 1 + nth / 4)
        fail_at(nth, SQLITE_IOERR_WRITE, SQLITE_IOERR_FSYNC, "check the disk");
}

static void test_disk_full(void **state)
{
    (void)state;
    for (unsigned nth = 3; nth < 2000; nth += 1 + nth / 3)
        fail_at(nth, SQLITE_FULL, SQLITE_OK, "free space");
}

/* A real full file system. */
static void test_full_tmpfs(void **state)
{
    (void)state;
    if (geteuid() != 0 || mount("holdfast-test", rig.directory, "tmpfs", 0, "size=4m") != 0) {
        print_message("needs root and mount(2)\n");
        skip();
    }
    char *sentence = NULL;
    int error = rig_open(&rig, RIG_FILE_BYTES);
    if (error == 0)
        error = store_initialise(rig.store, 1, 77, NULL, 0, &sentence);
    for (int i = 0; error == 0 && i < 1000 && rig.failure == NULL; i++) {
        ops[0] = (struct op){.term = 1, .n_entries = 4, .entry_bytes = 8000};
        rig_write(&rig, &model, &ops[0]);
        if (rig_wait(&rig))
            model_apply(&model, &ops[0]);
    }
    model.term = 0;
    bool failed = rig.failure != NULL && strstr(rig.failure, "free space") != NULL &&
                  strstr(rig.failure, rig.directory) != NULL;
    if (rig.failure != NULL)
        print_message("%s\n", rig.failure);
    rig_close(&rig);
    /* With space again, everything that was reported is there. */
    int remounted = mount("holdfast-test", rig.directory, "tmpfs", MS_REMOUNT, "size=64m");
    const char *difference = "not opened";
    if (rig_open(&rig, RIG_FILE_BYTES) == 0) {
        difference = model_compare(&model, rig.loaded);
        if (difference != NULL) { /* The one under way may be there. */
            model_apply(&model, &ops[0]);
            model.term = 0;
            difference = model_compare(&model, rig.loaded);
        }
    }
    rig_close(&rig);
    (void)umount(rig.directory);
    assert_int_equal(error, 0);
    assert_true(failed);
    assert_int_equal(remounted, 0);
    assert_null(difference);
}

int main(void)
{
    fault_vfs_install();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_write_error, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_tmpfs, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
