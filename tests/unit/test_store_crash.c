/* The store when its process is killed: everything acknowledged is there, and nothing that was
 * never asked for.
 *
 * A child writes random operations in small batches.  Before each batch it notes, in memory shared
 * with the parent, the state that is acknowledged and the operations under way.  After the kill the
 * directory must hold the acknowledged state, plus the effect of the first n of those operations
 * for some n. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fault_vfs.h"
#include "store_harness.h"

#define BATCH_MAX 8

struct shared {
    struct model acknowledged;
    struct op ops[BATCH_MAX];
    unsigned n_ops;
    unsigned n_batches;
    bool ready; /* The child has opened the store. */
};

static struct rig rig;
static struct shared *shared;
static struct model candidate;
static pthread_mutex_t acknowledge = PTHREAD_MUTEX_INITIALIZER; /* The child's: not in between. */

/* The child: never returns. Exit codes say what went wrong. */
static void child(uint64_t seed)
{
    struct random rng = {seed};
    if (rig_open(&rig, RIG_FILE_BYTES) != 0) {
        (void)fprintf(stderr, "child: %s\n", rig.sentence);
        _exit(2);
    }
    store_loaded_free(rig.store);
    unsigned n_done = 0;
    __atomic_store_n(&shared->ready, true, __ATOMIC_SEQ_CST);
    for (;;) {
        struct model now = shared->acknowledged;
        unsigned n = 1 + (unsigned)random_below(&rng, BATCH_MAX);
        for (unsigned i = 0; i < n; i++) {
            op_random(&now, &rng, &shared->ops[i]);
            model_apply(&now, &shared->ops[i]);
        }
        __atomic_store_n(&shared->n_ops, n, __ATOMIC_SEQ_CST);
        struct model before = shared->acknowledged;
        for (unsigned i = 0; i < n; i++) {
            rig_write(&rig, &before, &shared->ops[i]);
            model_apply(&before, &shared->ops[i]);
            n_done += shared->ops[i].snapshot_index != 0;
        }
        if (!rig_wait(&rig) || !rig_wait_done(&rig, n_done))
            _exit(3);
        pthread_mutex_lock(&acknowledge);
        /* From here the batch is acknowledged; a kill in between leaves n_ops applied twice, which
         * the parent must not take for the truth: so acknowledged is replaced in two steps. */
        __atomic_store_n(&shared->n_batches, shared->n_batches + 1, __ATOMIC_SEQ_CST);
        shared->acknowledged = before;
        __atomic_store_n(&shared->n_ops, 0, __ATOMIC_SEQ_CST);
        __atomic_store_n(&shared->n_batches, shared->n_batches + 1, __ATOMIC_SEQ_CST);
        pthread_mutex_unlock(&acknowledge);
    }
}

/* In the child: after a while, the power goes. */
static void *cut(void *arg)
{
    struct random rng = {*(uint64_t *)arg};
    if (random_below(&rng, 3) != 0) /* Else while the store is being opened. */
        while (!__atomic_load_n(&shared->ready, __ATOMIC_SEQ_CST))
            (void)usleep(500);
    (void)usleep((useconds_t)random_below(&rng, 60000));
    pthread_mutex_lock(&acknowledge);
    fault_vfs_cut(random_next(&rng));
    _exit(0);
}

/* Open what is in the directory and find which of the allowed states it is. */
static void check(void)
{
    int error = rig_open(&rig, RIG_FILE_BYTES);
    if (error != 0)
        print_error("%s\n", rig.sentence);
    assert_int_equal(error, 0);
    candidate = shared->acknowledged;
    uint64_t installed = 0; /* A snapshot without drop_log may become durable after later writes. */
    const char *first = model_compare(&candidate, rig.loaded);
    const char *difference = first;
    for (unsigned n = 0; difference != NULL && n < shared->n_ops; n++) {
        model_apply(&candidate, &shared->ops[n]);
        installed = shared->ops[n].install ? shared->ops[n].snapshot_index : installed;
        uint64_t newest = candidate.snapshot_index;
        for (unsigned m = 0; difference != NULL && m <= n + 1; m++) {
            candidate.snapshot_index =
                m == 0 ? shared->acknowledged.snapshot_index : shared->ops[m - 1].snapshot_index;
            if ((m > 0 && candidate.snapshot_index == 0) || candidate.snapshot_index < installed)
                continue;
            difference = model_compare(&candidate, rig.loaded);
        }
        if (difference != NULL)
            candidate.snapshot_index = newest;
    }
    if (difference != NULL)
        print_error("differs from acknowledged: %s; with all ops: %s\n", first, difference);
    assert_null(difference);
    rig_close(&rig);
    shared->acknowledged = candidate;
    shared->n_ops = 0;
}

static int setup(void **state)
{
    (void)state;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    rig_init(&rig);
    char *sentence = NULL;
    assert_int_equal(rig_open(&rig, RIG_FILE_BYTES), 0);
    assert_int_equal(store_initialise(rig.store, 1, 77, NULL, 0, &sentence), 0);
    rig_close(&rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_deinit(&rig);
    (void)munmap(shared, sizeof *shared);
    return 0;
}

/* Is the child between the two steps of acknowledging? Then the moment says nothing. */
static bool acknowledging(void)
{
    return __atomic_load_n(&shared->n_batches, __ATOMIC_SEQ_CST) % 2 != 0;
}

static void test_kill(void **state)
{
    (void)state;
    struct random rng = {42};
    const char *rounds = getenv("HOLDFAST_CRASH_ROUNDS");
    int n = rounds != NULL ? (int)strtol(rounds, NULL, 10) : 40;
    for (int round = 0; round < n; round++) {
        uint64_t seed = random_next(&rng);
        shared->ready = false;
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            child(seed);
        /* Every third round kills while the store is being opened. */
        if (round % 3 != 0)
            while (!*(volatile bool *)&shared->ready && waitpid(pid, NULL, WNOHANG) == 0)
                (void)usleep(500);
        (void)usleep((useconds_t)random_below(&rng, 60000));
        assert_int_equal(kill(pid, SIGSTOP), 0);
        int status;
        assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
        assert_true(WIFSTOPPED(status)); /* Else the child ended by itself. */
        while (acknowledging()) {
            assert_int_equal(kill(pid, SIGCONT), 0);
            (void)usleep(1000);
            assert_int_equal(kill(pid, SIGSTOP), 0);
            assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
        }
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        check();
    }
    assert_true(shared->n_batches > 0);
}

/* The same with the threads stopped at many points and the directory copied: what a machine that
 * loses nothing but its processes leaves; the child goes on. */
static void test_copies(void **state)
{
    (void)state;
    struct random rng = {43};
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        child(7);
    char live[sizeof rig.directory];
    memcpy(live, rig.directory, sizeof live);
    for (int round = 0; round < 25; round++) {
        int status;
        (void)usleep((useconds_t)random_below(&rng, 30000));
        do {
            (void)usleep(500);
            assert_int_equal(kill(pid, SIGSTOP), 0);
            assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
            assert_true(WIFSTOPPED(status));
            if (!acknowledging())
                break;
            assert_int_equal(kill(pid, SIGCONT), 0);
        } while (true);
        struct shared kept = *shared;
        (void)snprintf(rig.directory, sizeof rig.directory, "%.500s.copy", live);
        copy_tree(live, rig.directory);
        check();
        remove_tree(rig.directory);
        memcpy(rig.directory, live, sizeof live);
        *shared = kept;
        assert_int_equal(kill(pid, SIGCONT), 0);
    }
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* Power loss: what was not synced is there, or not, sector by sector. */
static void test_power_loss(void **state)
{
    (void)state;
    struct random rng = {44};
    const char *rounds = getenv("HOLDFAST_CRASH_ROUNDS");
    int n = rounds != NULL ? (int)strtol(rounds, NULL, 10) : 40;
    for (int round = 0; round < n; round++) {
        uint64_t seed = random_next(&rng);
        shared->ready = false;
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            pthread_t thread;
            fault_vfs_install();
            fault_vfs_track();
            if (pthread_create(&thread, NULL, cut, &seed) != 0)
                _exit(4);
            child(seed);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        check();
    }
    assert_true(shared->n_batches > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_kill, setup, teardown),
        cmocka_unit_test_setup_teardown(test_copies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_power_loss, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
