/* How fast and how big: the lock table by itself, in one process.
 *
 *     bench_lock [LOCKS] [PAIRS]      (1 000 000 and 2 000 000)
 *
 * Prints acquire + release pairs a second, bytes of memory for each held lock, and what a release
 * costs with many waiters on one lock. */
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "raftstore/lock/view.h"

struct bench {
    struct lock_table *t;
    uint64_t index;
    uint64_t session_id;
    uint64_t seq;
};

static struct lock_effects step(struct bench *b, struct lock_command *c)
{
    struct lock_effects e;
    if (c->end == 0)
        c->end = LOCK_RANGE_END;
    c->session_id = b->session_id;
    c->seq = ++b->seq;
    c->ack_seq = b->seq - 1;
    c->stamp_ns = b->index;
    lock_step(b->t, ++b->index, c, &e);
    return e;
}

static void begin(struct bench *b)
{
    struct lock_effects e;
    struct lock_command c = {.op = LOCK_OP_SESSION_OPEN, .ttl_ms = 1000000};
    *b = (struct bench){.t = lock_table_new()};
    lock_step(b->t, ++b->index, &c, &e);
    b->session_id = e.result.session_id;
}

/* CPU time: other processes on the machine don't count. */
static uint64_t now(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts); /* Can't fail with this clock. */
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void need(const struct lock_effects *e, enum lock_code code)
{
    if (e->result.code == code)
        return;
    fprintf(stderr, "unexpected answer: %s\n", lock_code_name(e->result.code));
    exit(1);
}

static void
acquire(struct bench *b, const char *path, const char *owner, uint64_t wait_ms, enum lock_code want)
{
    struct lock_command c = {.op = LOCK_OP_ACQUIRE,
                             .paths = {bytes_str(path)},
                             .n_paths = 1,
                             .owner = bytes_str(owner),
                             .mode = LOCK_EXCLUSIVE,
                             .ttl_ms = 600000,
                             .wait_ms = wait_ms};
    struct lock_effects e = step(b, &c);
    need(&e, want);
}

static void release(struct bench *b, const char *path, const char *owner)
{
    struct lock_command c = {
        .op = LOCK_OP_RELEASE, .paths = {bytes_str(path)}, .n_paths = 1, .owner = bytes_str(owner)};
    struct lock_effects e = step(b, &c);
    need(&e, LOCK_OK);
}

static void run_pairs(struct bench *b, uint64_t pairs, const char *what)
{
    char path[64];
    uint64_t start = now();
    for (uint64_t i = 0; i < pairs; i++) {
        snprintf(path, sizeof path, "job-%" PRIu64, i % 1000);
        acquire(b, path, "host-1:4711", 0, LOCK_OK);
        release(b, path, "host-1:4711");
    }
    double s = (double)(now() - start) / 1e9;
    printf("%s: %.0f acquire+release pairs/s\n", what, (double)pairs / s);
}

static void run_held(uint64_t locks, uint64_t pairs)
{
    struct bench b;
    char path[64];
    begin(&b);
    run_pairs(&b, pairs, "empty table");
    size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
    uint64_t start = now(), worst = 0;
    for (uint64_t i = 0; i < locks; i++) {
        uint64_t one = now();
        snprintf(path, sizeof path, "lock-%08" PRIu64, i);
        acquire(&b, path, "host-1:4711/1", 0, LOCK_OK);
        one = now() - one;
        worst = one > worst ? one : worst;
    }
    double s = (double)(now() - start) / 1e9;
    size_t after = mallinfo2().uordblks + mallinfo2().hblkhd;
    printf("%" PRIu64 " locks held: %.1f bytes each, acquired at %.0f/s, longest step %.2f ms\n",
           locks, (double)(after - before) / (double)locks, (double)locks / s, (double)worst / 1e6);
    run_pairs(&b, pairs, "full table");
    lock_table_free(b.t);
}

static void run_queue(unsigned waiters)
{
    struct bench b;
    char owner[64];
    begin(&b);
    acquire(&b, "hot", "owner-0", 0, LOCK_OK);
    uint64_t start = now();
    for (unsigned i = 1; i <= waiters; i++) {
        snprintf(owner, sizeof owner, "owner-%u", i);
        acquire(&b, "hot", owner, LOCK_WAIT_FOREVER, LOCK_QUEUED);
    }
    double queued = (double)(now() - start);
    start = now();
    for (unsigned i = 0; i < waiters; i++) {
        snprintf(owner, sizeof owner, "owner-%u", i);
        release(&b, "hot", owner);
    }
    printf("%u waiters on one lock: %.2f us to queue, %.2f us to hand over\n", waiters,
           queued / waiters / 1e3, (double)(now() - start) / waiters / 1e3);
    lock_table_free(b.t);
}

/* Many holds on one lock: shared ones, or ranges of one byte by one or by many owners. */
static void run_crowd(const char *what, unsigned n, bool ranged, bool one_owner)
{
    struct bench b;
    char owner[64];
    begin(&b);
    uint64_t start = now();
    for (unsigned i = 0; i < 2 * n; i++) {
        (void)snprintf(owner, sizeof owner, "owner-%u", one_owner ? 0 : i % n);
        struct lock_command c = {.op = i < n ? LOCK_OP_ACQUIRE : LOCK_OP_RELEASE,
                                 .paths = {bytes_str("file")},
                                 .n_paths = 1,
                                 .owner = bytes_str(owner),
                                 .mode = ranged ? LOCK_EXCLUSIVE : LOCK_SHARED,
                                 .kind = ranged ? LOCK_KIND_POSIX : LOCK_KIND_FLOCK};
        if (ranged)
            c.start = c.end = 1 + (uint64_t)(i % n) * 2;
        struct lock_effects e = step(&b, &c);
        need(&e, LOCK_OK);
    }
    printf("%u %s: %.2f us an acquire or release\n", n, what,
           (double)(now() - start) / (2.0 * n) / 1e3);
    lock_table_free(b.t);
}

int main(int argc, char **argv)
{
    uint64_t locks = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    uint64_t pairs = argc > 2 ? strtoull(argv[2], NULL, 10) : 2000000;
    run_held(locks, pairs);
    run_queue(1000);
    run_queue(100000);
    run_crowd("shared holders of one lock", 100000, false, false);
    run_crowd("ranges of one lock, as many owners", 1000, true, false);
    run_crowd("ranges of one lock, one owner", 1000, true, true);
    run_crowd("ranges of one lock, as many owners", 10000, true, false);
    run_crowd("ranges of one lock, one owner", 10000, true, true);
    return 0;
}
