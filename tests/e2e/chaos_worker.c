/* One of many processes that fight for locks through a mount, and check that they never share one.
 *
 * Each acquires with O_EXCL, notes itself in a record that all processes share, sometimes renews,
 * and releases.  It relies on its lease only until its own deadline, counted from before the
 * open() (design, section 4).  Whatever contradicts that is a line "V ..." in its log:
 *
 *     E KEY TOKEN ENTERED DEADLINE    it holds; nanoseconds of CLOCK_BOOTTIME
 *     R KEY TOKEN DEADLINE            renewed: it may rely on it until then
 *     X KEY TOKEN LEFT                it stopped relying on it, before it released
 *     V SENTENCE                      a violation
 *     U SENTENCE                      an errno that nothing explains
 *     S ...                           totals, at the end
 *
 * Usage: chaos_worker init SHARED KEYS
 *        chaos_worker run SHARED KEYS MOUNT ID TTL_MS SEED LOG      until SIGTERM */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "raftstore/base/random.h"

#define KEYS_MAX 256u
#define MS       UINT64_C(1000000)

/* Who believes to hold a key. */
struct record {
    pthread_mutex_t mutex;
    uint32_t owner;       /* Worker's id + 1; 0 = nobody. */
    uint64_t deadline_ns; /* Until then it relies on it. */
    uint64_t token_max;   /* The highest token seen at this key. */
};

struct worker {
    struct record *records;
    unsigned n_keys;
    const char *mount;
    unsigned id;
    uint64_t ttl_ns;
    FILE *log;
    struct random random;
    bool timed_out[KEYS_MAX]; /* An outcome at this key was unknown: what we find may be ours. */
    uint64_t grants, busy, timeouts, renewals, late;
};

/* One hold. */
struct hold {
    unsigned key;
    char path[512];
    int fd;
    uint64_t token;
    uint64_t deadline_ns;
};

static volatile sig_atomic_t stopping;

static void on_term(int number)
{
    (void)number;
    stopping = 1;
}

static uint64_t boot_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_BOOTTIME, &t); /* Can't fail. */
    return (uint64_t)t.tv_sec * 1000 * MS + (uint64_t)t.tv_nsec;
}

static void say(struct worker *w, char what, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void say(struct worker *w, char what, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)fprintf(w->log, "%c ", what);
    (void)vfprintf(w->log, format, args);
    (void)fputc('\n', w->log);
    va_end(args);
}

static void pause_ms(struct worker *w, uint64_t min, uint64_t max)
{
    uint64_t ns = (min + random_below(&w->random, max - min + 1)) * MS;
    struct timespec t = {(time_t)(ns / (1000 * MS)), (long)(ns % (1000 * MS))};

    (void)nanosleep(&t, NULL); /* A signal may cut it short. */
}

static uint64_t deadline_from(const struct worker *w, uint64_t sent_ns)
{
    return sent_ns + w->ttl_ns - w->ttl_ns / 128 - 5 * MS;
}

static struct record *record_lock(struct worker *w, unsigned key)
{
    struct record *r = &w->records[key];

    if (pthread_mutex_lock(&r->mutex) == EOWNERDEAD)
        (void)pthread_mutex_consistent(&r->mutex); /* Its fields are valid at every moment. */
    return r;
}

static void record_unlock(struct record *r)
{
    (void)pthread_mutex_unlock(&r->mutex);
}

/* Begin (or go on) to rely on the hold.  Return: false when its deadline has passed already. */
static bool claim(struct worker *w, struct hold *h, const char *how)
{
    struct record *r = record_lock(w, h->key);
    uint64_t now = boot_ns();
    bool valid = now < h->deadline_ns;

    if (valid && r->owner != 0 && r->owner != w->id + 1 && now < r->deadline_ns)
        say(w, 'V', "two holders of key %u (%s): worker %u until %" PRIu64 ", now %" PRIu64, h->key,
            how, r->owner - 1, r->deadline_ns, now);
    if (valid) {
        r->owner = w->id + 1;
        r->deadline_ns = h->deadline_ns;
    }
    record_unlock(r);
    return valid;
}

/* Stop relying on it; before the release is sent. */
static void leave(struct worker *w, struct hold *h)
{
    struct record *r = record_lock(w, h->key);
    uint64_t now = boot_ns();

    if (now < h->deadline_ns && r->owner != w->id + 1)
        say(w, 'V', "key %u was claimed by worker %d while held", h->key, (int)r->owner - 1);
    if (r->owner == w->id + 1)
        r->owner = 0;
    say(w, 'X', "%u %" PRIu64 " %" PRIu64, h->key, h->token,
        now < h->deadline_ns ? now : h->deadline_ns);
    record_unlock(r);
}

static bool is_timeout(int error)
{
    return error == ETIMEDOUT || error == EINTR;
}

/* The daemon refused something on a hold that we still rely on. */
static void refused(struct worker *w, const struct hold *h, const char *what, int error)
{
    uint64_t now = boot_ns();

    if (now < h->deadline_ns)
        say(w, 'V', "%s of key %u token %" PRIu64 ": %s, %" PRIu64 " ms before its deadline", what,
            h->key, h->token, strerror(error), (h->deadline_ns - now) / MS);
}

/* The token, while the hold is valid.  Return: 0 = not known in time. */
static uint64_t token_read(struct worker *w, const struct hold *h)
{
    char text[32];

    while (boot_ns() < h->deadline_ns) {
        ssize_t n = fgetxattr(h->fd, "user.holdfast.token", text, sizeof text - 1);
        if (n > 0) {
            text[n] = '\0';
            return strtoull(text, NULL, 10);
        }
        if (!is_timeout(errno)) {
            refused(w, h, "reading the token", errno);
            return 0;
        }
        w->timeouts++;
    }
    return 0;
}

/* Note the token: it must be above every one seen before at this key. */
static bool token_check(struct worker *w, struct hold *h)
{
    bool valid;

    h->token = token_read(w, h);
    struct record *r = record_lock(w, h->key);
    uint64_t now = boot_ns();
    valid = h->token != 0 && now < h->deadline_ns;
    if (valid && h->token <= r->token_max)
        say(w, 'V', "token of key %u: %" PRIu64 " after %" PRIu64, h->key, h->token, r->token_max);
    if (valid && h->token > r->token_max)
        r->token_max = h->token;
    if (valid)
        say(w, 'E', "%u %" PRIu64 " %" PRIu64 " %" PRIu64, h->key, h->token, now, h->deadline_ns);
    record_unlock(r);
    return valid;
}

static void renew(struct worker *w, struct hold *h)
{
    uint64_t sent_ns = boot_ns();

    if (write(h->fd, "renew", 5) == 5) {
        w->renewals++;
        h->deadline_ns = deadline_from(w, sent_ns);
        if (claim(w, h, "renewal"))
            say(w, 'R', "%u %" PRIu64 " %" PRIu64, h->key, h->token, h->deadline_ns);
        else
            w->late++;
        uint64_t token = token_read(w, h);
        if (token != 0 && token != h->token)
            say(w, 'V', "key %u: token %" PRIu64 " became %" PRIu64, h->key, h->token, token);
    } else if (is_timeout(errno)) {
        w->timeouts++;
        w->timed_out[h->key] = true;
    } else {
        refused(w, h, "renewal", errno);
    }
}

/* Hold for a while: mostly short, sometimes with renewals for longer than the lease. */
static void hold_on(struct worker *w, struct hold *h)
{
    unsigned kind = (unsigned)random_below(&w->random, 40);

    if (kind > 0) {
        pause_ms(w, 0, 20);
        if (kind > 35)
            renew(w, h);
        return;
    }
    unsigned n = 4 + (unsigned)random_below(&w->random, 4);
    for (unsigned i = 0; i < n && !stopping && boot_ns() < h->deadline_ns; i++) {
        pause_ms(w, w->ttl_ns / MS / 5, w->ttl_ns / MS / 4);
        renew(w, h);
    }
}

static void give_back(struct worker *w, struct hold *h)
{
    bool by_write = random_below(&w->random, 4) == 0;
    int error = 0;

    leave(w, h);
    if (by_write ? write(h->fd, "release", 7) != 7 : unlink(h->path) != 0)
        error = errno;
    if (is_timeout(error)) {
        w->timeouts++;
        w->timed_out[h->key] = true;
    } else if (error != 0) {
        refused(w, h, by_write ? "release" : "unlink", error);
    }
}

/* Somebody holds it: removing it must not work for us. */
static void try_to_steal(struct worker *w, unsigned key, const char *path)
{
    if (w->timed_out[key])
        return;
    if (unlink(path) == 0)
        say(w, 'V', "could remove key %u, which is another worker's", key);
    else if (is_timeout(errno))
        w->timeouts++;
    else if (errno != EPERM && errno != ENOENT && errno != EACCES)
        say(w, 'U', "unlink of another's key %u: %s", key, strerror(errno));
}

static void cycle(struct worker *w)
{
    struct hold h = {0};
    uint64_t sent_ns;

    /* Key 0 is the hot one. */
    if (random_below(&w->random, 4) != 0)
        h.key = 1 + (unsigned)random_below(&w->random, w->n_keys - 1);
    (void)snprintf(h.path, sizeof h.path, "%s/chaos%u/key", w->mount, h.key);
    sent_ns = boot_ns();
    h.fd = open(h.path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0644);
    if (h.fd < 0) {
        if (errno == EEXIST) {
            w->busy++;
            if (random_below(&w->random, 50) == 0)
                try_to_steal(w, h.key, h.path);
        } else if (is_timeout(errno)) {
            w->timeouts++;
            w->timed_out[h.key] = true;
        } else {
            say(w, 'U', "open of key %u: %s", h.key, strerror(errno));
        }
        pause_ms(w, 1, 40);
        return;
    }
    w->grants++;
    h.deadline_ns = deadline_from(w, sent_ns);
    if (claim(w, &h, "grant") && token_check(w, &h)) {
        hold_on(w, &h);
    } else {
        w->late++;
    }
    give_back(w, &h);
    (void)close(h.fd);
}

static struct record *records_open(const char *path, int flags)
{
    size_t size = KEYS_MAX * sizeof(struct record);
    int fd = open(path, O_RDWR | O_CLOEXEC | flags, 0600);

    if (fd < 0 || ((flags & O_CREAT) != 0 && ftruncate(fd, (off_t)size) != 0))
        return NULL;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    return p == MAP_FAILED ? NULL : p;
}

static int init_main(const char *shared)
{
    struct record *records = records_open(shared, O_CREAT);
    pthread_mutexattr_t attributes;

    if (records == NULL)
        return 1;
    (void)pthread_mutexattr_init(&attributes);
    (void)pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    (void)pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    for (unsigned i = 0; i < KEYS_MAX; i++)
        if (pthread_mutex_init(&records[i].mutex, &attributes) != 0)
            return 1;
    return 0;
}

int main(int argc, char **argv)
{
    struct worker w = {0};

    if (argc == 4 && strcmp(argv[1], "init") == 0)
        return init_main(argv[2]);
    if (argc != 9 || strcmp(argv[1], "run") != 0) {
        (void)fprintf(stderr, "usage: see the head of chaos_worker.c\n");
        return 2;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    struct sigaction action = {.sa_handler = on_term};
    (void)sigaction(SIGTERM, &action, NULL);
    w.records = records_open(argv[2], 0);
    w.n_keys = (unsigned)strtoul(argv[3], NULL, 10);
    w.mount = argv[4];
    w.id = (unsigned)strtoul(argv[5], NULL, 10);
    w.ttl_ns = strtoull(argv[6], NULL, 10) * MS;
    w.random.state = strtoull(argv[7], NULL, 10);
    w.log = fopen(argv[8], "ae");
    if (w.records == NULL || w.log == NULL || w.n_keys < 2 || w.n_keys > KEYS_MAX) {
        perror("chaos_worker");
        return 2;
    }
    while (!stopping)
        cycle(&w);
    say(&w, 'S',
        "grants=%" PRIu64 " busy=%" PRIu64 " timeouts=%" PRIu64 " renewals=%" PRIu64
        " late=%" PRIu64,
        w.grants, w.busy, w.timeouts, w.renewals, w.late);
    return fclose(w.log) == 0 ? 0 : 1;
}
