/* What must be durable before what: a step of the store is held, and nothing that builds on it may
 * be reported, or be found after a crash at this moment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "fault_vfs.h"
#include "store_harness.h"

static struct rig rig;
static struct model model, crashed;
static char live[sizeof rig.directory];

static int setup(void **state)
{
    (void)state;
    char *sentence = NULL;
    rig_init(&rig);
    memcpy(live, rig.directory, sizeof live);
    model = (struct model){0};
    assert_int_equal(rig_open(&rig, RIG_FILE_BYTES), 0);
    assert_int_equal(store_initialise(rig.store, 1, 77, NULL, 0, &sentence), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fault_vfs_hold(NULL);
    memcpy(rig.directory, live, sizeof live);
    rig_deinit(&rig);
    return 0;
}

static void give(struct op op)
{
    rig_write(&rig, &model, &op);
    model_apply(&model, &op);
}

static void append(unsigned n)
{
    give((struct op){.set_vote = true, .term = 1, .n_entries = n, .entry_bytes = 100});
}

/* Does the store, left alone for a while, report all that was written? */
static bool reports_all(void)
{
    for (unsigned turn = 0; turn < 300 && rig.persisted < rig.ticket; turn++) {
        (void)uv_run(&rig.loop, UV_RUN_NOWAIT);
        (void)usleep(1000);
    }
    return rig.persisted == rig.ticket;
}

/* An image replaces the log. What comes behind it waits until it is in place, and not only until
 * the node's own snapshot is, which was on its way before it: else the log would have a hole, or
 * go on where the image's log and the old one differ. */
static void install_behind_snapshot(uint64_t image_index)
{
    append(20);
    give((struct op){.snapshot_index = 5});
    assert_true(rig_wait(&rig));
    assert_true(rig_wait_done(&rig, 1)); /* What the keeper does after a start is over, too. */

    fault_vfs_hold("/meta.db");
    give((struct op){.snapshot_index = 10});
    fault_vfs_await_held();
    crashed = model; /* A crash from here until the image is in place leaves this. */
    give((struct op){.snapshot_index = image_index, .install = true});
    append(3);
    (void)usleep(100000); /* So that the writer waits for the image. */
    fault_vfs_pass();
    fault_vfs_await_held(); /* Now it is the image's turn. */
    bool early = reports_all();
    (void)snprintf(rig.directory, sizeof rig.directory, "%.500s.copy", live);
    copy_tree(live, rig.directory);
    memcpy(rig.directory, live, sizeof live);
    fault_vfs_hold(NULL);
    assert_true(rig_wait(&rig));
    assert_true(rig_wait_done(&rig, 3));
    rig_close(&rig);
    assert_int_equal(rig_open(&rig, RIG_FILE_BYTES), 0);
    const char *difference = model_compare(&model, rig.loaded);
    rig_close(&rig);

    (void)snprintf(rig.directory, sizeof rig.directory, "%.500s.copy", live);
    int error = rig_open(&rig, RIG_FILE_BYTES);
    const char *crash_difference = error == 0 ? model_compare(&crashed, rig.loaded) : rig.sentence;
    if (crash_difference != NULL)
        print_error("after a crash: %s\n", crash_difference);
    rig_close(&rig);
    remove_tree(rig.directory);
    assert_null(difference);
    assert_null(crash_difference);
    assert_false(early);
}

static void test_install_behind_snapshot(void **state)
{
    (void)state;
    install_behind_snapshot(40);
}

/* The image ends within the log. */
static void test_install_into_log(void **state)
{
    (void)state;
    install_behind_snapshot(15);
}

int main(void)
{
    fault_vfs_install();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_install_behind_snapshot, setup, teardown),
        cmocka_unit_test_setup_teardown(test_install_into_log, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
