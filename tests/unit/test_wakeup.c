/* Threads wake the loop, and no wake-up is lost. */
#include "raftstore/node/wakeup.h"

#include "raftstore/base/buf.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#define N_THREADS 3u
#define N_SENDS   100000u

struct rig {
    uv_loop_t loop;
    struct wakeup *wakeup;
    atomic_uint added;
    unsigned taken;
    unsigned calls;
    bool threads_run;
    pthread_t threads[N_THREADS];
};

static void *send_many(void *arg)
{
    struct rig *rig = arg;
    for (unsigned i = 0; i < N_SENDS; i++) {
        atomic_fetch_add(&rig->added, 1);
        wakeup_send(rig->wakeup);
    }
    return NULL;
}

static void on_wakeup(void *arg)
{
    struct rig *rig = arg;
    rig->calls++;
    rig->taken += atomic_exchange(&rig->added, 0);
    if (!rig->threads_run || rig->taken < N_THREADS * N_SENDS)
        return;
    for (unsigned i = 0; i < N_THREADS; i++)
        (void)pthread_join(rig->threads[i], NULL); /* The last send may not be over yet. */
    rig->threads_run = false;
    wakeup_free(rig->wakeup); /* Ends the loop. */
}

/* A lost one would leave the loop waiting for ever: the test's time limit tells. */
static void test_none_is_lost(void **state)
{
    struct rig rig = {0};
    (void)state;
    assert_int_equal(uv_loop_init(&rig.loop), 0);
    assert_int_equal(wakeup_new(&rig.loop, on_wakeup, &rig, &rig.wakeup), 0);
    rig.threads_run = true;
    for (unsigned i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&rig.threads[i], NULL, send_many, &rig), 0);
    assert_int_equal(uv_run(&rig.loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(rig.taken, N_THREADS * N_SENDS);
    assert_true(rig.calls >= 1 && rig.calls <= rig.taken);
    assert_int_equal(uv_loop_close(&rig.loop), 0);
}

static void test_sends_gather(void **state)
{
    struct rig rig = {0};
    (void)state;
    assert_int_equal(uv_loop_init(&rig.loop), 0);
    assert_int_equal(wakeup_new(&rig.loop, on_wakeup, &rig, &rig.wakeup), 0);
    for (unsigned i = 0; i < 5; i++)
        wakeup_send(rig.wakeup);
    (void)uv_run(&rig.loop, UV_RUN_NOWAIT);
    assert_int_equal(rig.calls, 1);
    (void)uv_run(&rig.loop, UV_RUN_NOWAIT);
    assert_int_equal(rig.calls, 1);
    wakeup_send(rig.wakeup);
    (void)uv_run(&rig.loop, UV_RUN_NOWAIT);
    assert_int_equal(rig.calls, 2);
    wakeup_send(rig.wakeup);
    wakeup_free(rig.wakeup);
    assert_int_equal(uv_run(&rig.loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(rig.calls, 2);
    assert_int_equal(uv_loop_close(&rig.loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_none_is_lost),
        cmocka_unit_test(test_sends_gather),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
