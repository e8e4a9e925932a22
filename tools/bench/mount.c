/* Load through mounts: a process for each client, client i on mount i modulo their number.
 *
 * cycle and mix acquire with open(O_CREAT|O_EXCL) and release with unlink(); contend uses
 * flock() where the mount has it, else it polls with O_EXCL every millisecond. */
#include "tools/bench/bench.h"

#include "raftstore/base/random.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DRAIN_MS_MAX      15000u
#define POLL_US           1000u
#define MIX_READS_PERCENT 70u

/* What parent and clients share. */
struct shared {
    _Atomic uint64_t begin_ns; /* The window; UINT64_MAX while nobody knows. */
    _Atomic uint64_t end_ns;
    _Atomic unsigned n_ready;       /* Clients that are set up. */
    _Atomic unsigned n_failed;      /* Clients that could not be. */
    _Atomic unsigned holder;        /* CONTEND: client + 1 that believes it holds. */
    _Atomic uint64_t given_back_ns; /* CONTEND: when the last holder began to release. */
    struct bench_figures figures[]; /* One for each client. */
};

struct mount_client {
    const struct bench_options *options;
    struct shared *shared;
    struct bench_figures *figures;
    enum bench_mode mode;
    unsigned number;
    bool use_flock;
    char path[PATH_MAX];
    int fd; /* Of the hold, or of the file to flock; -1 = none. */
    struct random random;
};

static uint64_t now_ns(void)
{
    return clock_mono_ns(clock_system());
}

static void record(struct mount_client *c, enum bench_op op, uint64_t since_ns, bool ok)
{
    uint64_t now = now_ns();

    if (since_ns < atomic_load(&c->shared->begin_ns) || now > atomic_load(&c->shared->end_ns))
        return;
    if (ok)
        histogram_add(&c->figures->ops[op], now - since_ns);
    else
        c->figures->errors[op]++;
}

/* The part of the comma list that belongs to client `number`, and below it the directory. */
static void
client_directory(const struct bench_options *o, unsigned number, unsigned directory, char *out)
{
    unsigned n = 1;
    const char *at = o->mounts;

    for (const char *p = o->mounts; *p != '\0'; p++)
        n += *p == ',';
    for (unsigned i = number % n; i > 0; i--)
        at = strchr(at, ',') + 1;
    (void)snprintf(out, PATH_MAX, "%.*s/bench.%d.%u", (int)strcspn(at, ","), at, (int)getppid(),
                   directory % o->directories);
}

static bool mount_acquire(struct mount_client *c, bool measured)
{
    uint64_t sent_ns = now_ns();

    c->fd = open(c->path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0644);
    if (c->fd < 0 && errno == EEXIST && c->mode == BENCH_CONTEND)
        return false;
    if (measured)
        record(c, BENCH_OP_ACQUIRE, sent_ns, c->fd >= 0);
    return c->fd >= 0;
}

static void mount_release(struct mount_client *c)
{
    uint64_t sent_ns = now_ns();

    (void)close(c->fd); /* Releases nothing: a lease outlives its descriptor. */
    c->fd = -1;
    record(c, BENCH_OP_RELEASE, sent_ns, unlink(c->path) == 0);
}

static void mount_read(struct mount_client *c)
{
    char text[1024];
    uint64_t sent_ns = now_ns();
    int fd = open(c->path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : -1;

    if (fd >= 0)
        (void)close(fd);
    /* In a mix the lock may be free, which is an answer too. */
    record(c, BENCH_OP_READ, sent_ns, n > 0 || (c->fd < 0 && fd < 0 && errno == ENOENT));
}

static void mount_renew(struct mount_client *c)
{
    uint64_t sent_ns = now_ns();

    record(c, BENCH_OP_RENEW, sent_ns, write(c->fd, "renew", 5) == 5);
}

/* One acquisition of the common key and its return. */
static void mount_contend(struct mount_client *c)
{
    struct shared *sh = c->shared;
    uint64_t sent_ns = now_ns();
    unsigned nobody = 0;

    if (c->use_flock) {
        if (flock(c->fd, LOCK_EX) != 0) {
            record(c, BENCH_OP_ACQUIRE, sent_ns, false);
            return;
        }
    } else {
        while (!mount_acquire(c, false)) {
            c->figures->busy++;
            if (errno != EEXIST || now_ns() > atomic_load(&sh->end_ns))
                return;
            (void)usleep(POLL_US); /* Without a blocking wait, polling is the idiom. */
        }
    }
    record(c, BENCH_OP_ACQUIRE, sent_ns, true);
    if (!atomic_compare_exchange_strong(&sh->holder, &nobody, c->number + 1))
        c->figures->overlaps++;
    uint64_t given_back_ns = atomic_load(&sh->given_back_ns);
    if (given_back_ns != 0)
        record(c, BENCH_OP_HANDOFF, given_back_ns, true);
    atomic_store(&sh->given_back_ns, now_ns());
    atomic_store(&sh->holder, 0);
    if (c->use_flock)
        record(c, BENCH_OP_RELEASE, now_ns(), flock(c->fd, LOCK_UN) == 0);
    else
        mount_release(c);
}

static void mount_one(struct mount_client *c)
{
    if (c->mode == BENCH_CONTEND)
        mount_contend(c);
    else if (c->mode == BENCH_READ)
        mount_read(c);
    else if (c->mode == BENCH_RENEW)
        mount_renew(c);
    else if (c->mode == BENCH_MIX && random_below(&c->random, 100) < MIX_READS_PERCENT)
        mount_read(c);
    else if (c->fd < 0)
        (void)mount_acquire(c, true);
    else
        mount_release(c);
}

/* Does the mount have flock()?  The file stays open for it. */
static bool try_flock(struct mount_client *c)
{
    c->fd = open(c->path, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (c->fd < 0)
        return false;
    if (flock(c->fd, LOCK_EX) == 0) {
        (void)flock(c->fd, LOCK_UN);
        return true;
    }
    (void)close(c->fd);
    c->fd = -1;
    return false;
}

static bool mount_set_up(struct mount_client *c)
{
    char directory[PATH_MAX];
    unsigned key = c->mode == BENCH_CONTEND ? 0 : c->number;

    client_directory(c->options, c->number, key, directory);
    if (mkdir(directory, 0755) != 0 && errno != EEXIST) {
        (void)fprintf(stderr, "holdfast-bench: %s: %s\n", directory, strerror(errno));
        return false;
    }
    if ((size_t)snprintf(c->path, sizeof c->path, "%s/%u", directory, key) >= sizeof c->path)
        return false;
    if (c->mode == BENCH_CONTEND) {
        c->use_flock = try_flock(c);
        c->figures->how = c->use_flock ? "flock" : "O_EXCL, polled every millisecond";
        return true;
    }
    if ((c->mode == BENCH_READ || c->mode == BENCH_RENEW) && !mount_acquire(c, false)) {
        (void)fprintf(stderr, "holdfast-bench: %s: %s\n", c->path, strerror(errno));
        return false;
    }
    return true;
}

static _Noreturn void client_main(struct mount_client *c)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!mount_set_up(c)) {
        atomic_fetch_add(&c->shared->n_failed, 1);
        _exit(1);
    }
    atomic_fetch_add(&c->shared->n_ready, 1);
    while (now_ns() < atomic_load(&c->shared->end_ns))
        mount_one(c);
    if (c->fd >= 0 && !c->use_flock)
        mount_release(c);
    _exit(0);
}

/* Remove the directories that the clients made. */
static void clean_up(const struct bench_options *o)
{
    char directory[PATH_MAX];

    for (unsigned d = 0; d < o->directories; d++) {
        (void)snprintf(directory, sizeof directory, "%.*s/bench.%d.%u",
                       (int)strcspn(o->mounts, ","), o->mounts, (int)getpid(), d);
        if (rmdir(directory) != 0 && errno != ENOENT)
            (void)fprintf(stderr, "holdfast-bench: %s: %s\n", directory, strerror(errno));
    }
}

/* Open the window when all are ready, and sleep through it.  Return: false when one failed. */
static bool run_window(const struct bench_options *o, struct shared *sh, struct bench_figures *f)
{
    uint64_t until = now_ns() + DRAIN_MS_MAX * NS_PER_MS;

    while (atomic_load(&sh->n_ready) < o->clients) {
        if (atomic_load(&sh->n_failed) > 0 || now_ns() > until) {
            atomic_store(&sh->end_ns, 0);
            return false;
        }
        (void)usleep(1000);
    }
    (void)usleep(BENCH_WARMUP_MS * 1000);
    uint64_t cpu_ns = bench_cpu_ns(o->pids, o->n_pids);
    uint64_t begin_ns = now_ns();
    atomic_store(&sh->end_ns, begin_ns + o->seconds * NS_PER_S);
    atomic_store(&sh->begin_ns, begin_ns);
    (void)sleep(o->seconds);
    f->elapsed_ns = o->seconds * NS_PER_S;
    f->cpu_ns = bench_cpu_ns(o->pids, o->n_pids) - cpu_ns;
    return true;
}

/* Wait for the clients; end those that hang. */
static void reap(pid_t *pids, unsigned n)
{
    uint64_t until = now_ns() + DRAIN_MS_MAX * NS_PER_MS;

    for (unsigned i = 0; i < n; i++) {
        while (waitpid(pids[i], NULL, WNOHANG) == 0) {
            if (now_ns() > until)
                (void)kill(pids[i], SIGKILL);
            (void)usleep(1000);
        }
    }
}

int bench_mount_run(const struct bench_options *o, enum bench_mode mode, struct bench_figures *f)
{
    size_t size = sizeof(struct shared) + o->clients * sizeof(struct bench_figures);
    struct shared *sh = bench_shared_alloc(size);
    pid_t *pids = calloc(o->clients, sizeof *pids);
    unsigned n_started = 0;
    bool ok;

    if (pids == NULL)
        return -ENOMEM;
    atomic_store(&sh->begin_ns, UINT64_MAX);
    atomic_store(&sh->end_ns, UINT64_MAX);
    for (unsigned i = 0; i < o->clients; i++) {
        pids[i] = fork();
        if (pids[i] < 0) {
            atomic_fetch_add(&sh->n_failed, 1);
            break;
        }
        if (pids[i] == 0) {
            struct mount_client c = {
                .options = o,
                .shared = sh,
                .figures = &sh->figures[i],
                .mode = mode,
                .number = i,
                .fd = -1,
                .random.state = random_system(),
            };
            client_main(&c);
        }
        n_started++;
    }
    ok = run_window(o, sh, f);
    reap(pids, n_started);
    clean_up(o);
    for (unsigned i = 0; i < n_started && ok; i++) {
        const struct bench_figures *part = &sh->figures[i];
        for (unsigned op = 0; op < BENCH_OP_N; op++) {
            histogram_merge(&f->ops[op], &part->ops[op]);
            f->errors[op] += part->errors[op];
        }
        f->busy += part->busy;
        f->overlaps += part->overlaps;
        f->how = part->how != NULL ? part->how : "through the mount";
    }
    free(pids);
    if (!ok)
        (void)fprintf(stderr, "holdfast-bench: the clients could not be set up\n");
    return ok ? 0 : -EIO;
}
