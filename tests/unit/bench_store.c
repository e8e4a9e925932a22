/* How long a commit takes (one write at a time, as an uncontended client sees it), how many a
 * second with writes queued, and how long an image takes.
 *
 *     bench_store [DIRECTORY]      default: $TMPDIR or /tmp */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "raftstore/base/buf.h"
#include "raftstore/base/clock.h"
#include "raftstore/node/image.h"
#include "store_harness.h"
#include "table_harness.h"

static struct rig rig;

static uint64_t now_ns(void)
{
    return clock_mono_ns(clock_system());
}

static double cpu_s(void)
{
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec +
           ((double)u.ru_utime.tv_usec + (double)u.ru_stime.tv_usec) / 1e6;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* `depth` writes in flight; the latency is that of one write from store_write() to on_persisted. */
static void commits(uint64_t *index, size_t size, unsigned n, unsigned depth)
{
    uint64_t *began = xcalloc(n, sizeof *began), *took = xcalloc(n, sizeof *took);
    uint8_t *data = xcalloc(1, size);
    uint64_t first = rig.ticket, start = now_ns();
    double cpu = cpu_s();
    unsigned posted = 0, done = 0;
    while (done < n) {
        while (posted < n && posted - done < depth) {
            struct replica_entry e = {++*index, 1, RAFT_COMMAND, bytes_of(data, size)};
            struct replica_write w = {.ticket = ++rig.ticket, .entries = &e, .n_entries = 1};
            began[posted++] = now_ns();
            store_write(rig.store, &w);
        }
        (void)uv_run(&rig.loop, UV_RUN_ONCE);
        if (rig.failure != NULL)
            exit(1);
        for (uint64_t t = now_ns(); first + done < rig.persisted; done++)
            took[done] = t - began[done];
    }
    double seconds = (double)(now_ns() - start) / 1e9;
    cpu = cpu_s() - cpu;
    qsort(took, n, sizeof *took, by_value);
    printf("%6zu bytes, %3u in flight: %8.0f/s  p50 %6.0f us  p99 %6.0f us  p99.9 %6.0f us  "
           "max %6.0f us  cpu %5.1f us\n",
           size, depth, n / seconds, (double)took[n / 2] / 1e3, (double)took[n - n / 100 - 1] / 1e3,
           (double)took[n - n / 1000 - 1] / 1e3, (double)took[n - 1] / 1e3, cpu / n * 1e6);
    free(began);
    free(took);
    free(data);
}

static void images(unsigned n_locks)
{
    char path[600];
    char *sentence = NULL;
    struct replica_image image = {.index = n_locks, .term = 1};
    struct lock_table *t = table_of_leases(n_locks), *back;
    (void)snprintf(path, sizeof path, "%s/image-1.db", rig.directory);
    uint64_t start = now_ns();
    if (image_write(path, t, &image, 0, &sentence) != 0)
        exit(1);
    uint64_t written = now_ns();
    if (image_read(path, &back, &image, &sentence) != 0)
        exit(1);
    uint64_t read = now_ns();
    struct stat st;
    (void)stat(path, &st);
    printf("image of %7u locks: written in %.2f s, read in %.2f s, %.1f MiB\n", n_locks,
           (double)(written - start) / 1e9, (double)(read - written) / 1e9,
           (double)st.st_size / 1048576);
    free((void *)(uintptr_t)image.conf.data);
    lock_table_free(t);
    lock_table_free(back);
}

int main(int argc, char **argv)
{
    rig_init(&rig);
    if (argc > 1) {
        (void)rmdir(rig.directory);
        (void)snprintf(rig.directory, sizeof rig.directory, "%s/bench-store", argv[1]);
    }
    char *sentence = NULL;
    if (rig_open(&rig, 0) != 0 || store_initialise(rig.store, 1, 1, NULL, 0, &sentence) != 0) {
        (void)fprintf(stderr, "%s\n", rig.sentence != NULL ? rig.sentence : sentence);
        return 1;
    }
    uint64_t index = 0;
    commits(&index, 128, 10000, 1);
    commits(&index, 4096, 10000, 1);
    commits(&index, 65536, 3000, 1);
    commits(&index, 128, 100000, 64);
    commits(&index, 65536, 3000, 4);
    images(100000);
    images(1000000);
    rig_deinit(&rig);
    return 0;
}
