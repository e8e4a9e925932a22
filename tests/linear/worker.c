/* Usage: linear_worker MOUNT STYLE LOCKS TTL_MS SEED UID LOG [RATE]      until SIGTERM
 *
 * RATE: so many times a second, at most, it tries to lock; 0 or none: as often as it can.
 * Each worker needs a user id of its own: processes of one user that have a common ancestor may
 * inherit each other's locks (fs/holds.h), and the history would not know.
 * It ends with 0, or with 3 when the mount is gone (its daemon was killed). */
#include "tests/linear/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define TEXT_MAX 65536u
#define OTHER    "-2" /* rename: what the other name of a lock ends in. */

static volatile sig_atomic_t stopping;

static void on_term(int number)
{
    (void)number;
    stopping = 1;
}

static void on_alarm(int number)
{
    (void)number; /* It only interrupts a wait. */
}

uint64_t worker_now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* Can't fail. */
    return (uint64_t)t.tv_sec * 1000 * MS + (uint64_t)t.tv_nsec;
}

/* ---- the history ---- */

/* One line in one write, so that it is there whenever the process is killed. */
static void put(struct worker *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(struct worker *w, const char *format, ...)
{
    char line[2048];
    va_list args;

    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof line || write(w->log, line, (size_t)n) != n)
        _exit(2);
}

static unsigned invoke(struct worker *w, const char *kind, const char *lock, const char *more)
{
    w->n++;
    put(w, "%" PRIu64 " i %s %u %s %s by=%s%s\n", worker_now_ns(), w->name, w->n, kind, lock,
        w->style->name, more);
    return w->n;
}

/* @keys: begins with a blank, or is "". */
static void answer(struct worker *w, unsigned n, uint64_t ns, const char *outcome, const char *keys)
{
    put(w, "%" PRIu64 " r %s %u %s%s\n", ns, w->name, n, outcome, keys);
}

/* What an errno says about the operation.
 *
 * Return: false when it says nothing certain. */
static bool answer_error(struct worker *w, unsigned n, uint64_t ns, int error)
{
    char keys[64];

    switch (error) {
    case ETIMEDOUT:
    case EINTR:
        answer(w, n, ns, "unknown", "");
        return false;
    case ENOTCONN:
    case ECONNABORTED:
    case EIO:
        w->dead = true;
        answer(w, n, ns, "unknown", "");
        return false;
    case EEXIST:
    case EAGAIN:
    case EACCES: /* A lock of the gateway's, which others may not open for writing. */
        answer(w, n, ns, "refused", " why=held");
        return true;
    case ENOENT:
        answer(w, n, ns, "refused", " why=gone");
        return true;
    case ESTALE:
    case EPERM:
        answer(w, n, ns, "refused", " why=lost");
        return true;
    case ECANCELED:
        answer(w, n, ns, "refused", " why=never");
        return true;
    default:
        (void)snprintf(keys, sizeof keys, " error=%d", error);
        answer(w, n, ns, "refused", keys);
        return true;
    }
}

/* ---- reading ---- */

/* The client behind an owner's text: of a mount "HOST/BOOT/PID.START/COUNT", of the gateway
 * "http//NAME", else the text itself. */
static void client_name(const char *owner, char *out, size_t size)
{
    const char *boot = strchr(owner, '/');
    const char *process = boot != NULL ? strchr(boot + 1, '/') : NULL;

    if (process != NULL && process != boot + 1)
        (void)snprintf(out, size, "p%u", (unsigned)strtoul(process + 1, NULL, 10));
    else if (process != NULL)
        (void)snprintf(out, size, "%.*s", (int)size - 1, process + 1);
    else
        (void)snprintf(out, size, "%.*s", (int)size - 1, owner);
}

/* The holders in a lock's text (a block of lines each) as " tokens=T/CLIENT,...". */
static void holders(const struct worker *w, char *text, char *out, size_t size, uint64_t *ret_mine)
{
    char client[64] = "?";
    unsigned n_mine = 0;
    size_t used = (size_t)snprintf(out, size, " tokens=");
    const char *comma = "";
    char *save = NULL;

    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        if (strncmp(line, "owner=", 6) == 0) {
            client_name(line + 6, client, sizeof client);
        } else if (strncmp(line, "pid=", 4) == 0 && strcmp(line, "pid=0") != 0) {
            (void)snprintf(client, sizeof client, "p%s", line + 4);
        } else if (strncmp(line, "token=", 6) == 0 && used < size - 100) {
            used += (size_t)snprintf(out + used, size - used, "%s%s/%s", comma, line + 6, client);
            comma = ",";
            if (strcmp(client, w->name) == 0 && ret_mine != NULL) {
                *ret_mine = n_mine++ == 0 ? strtoull(line + 6, NULL, 10) : 0;
            }
        }
    }
}

int worker_read(struct worker *w, const char *lock, int fd, uint64_t *ret_token)
{
    static char text[TEXT_MAX];
    char tokens[1500];
    unsigned n = invoke(w, "read", lock, "");
    ssize_t size = pread(fd, text, sizeof text - 1, 0);
    int error = size < 0 ? errno : 0;
    uint64_t ns = worker_now_ns();

    if (ret_token != NULL)
        *ret_token = 0;
    if (error != 0) {
        (void)answer_error(w, n, ns, error);
        return error;
    }
    text[size] = '\0';
    holders(w, text, tokens, sizeof tokens, ret_token);
    answer(w, n, ns, "ok", tokens);
    return 0;
}

/* Look at a lock from outside. */
static void look(struct worker *w, const struct hold *h)
{
    struct stat st;
    uint64_t ns;

    if (random_below(&w->random, 3) == 0 || strcmp(w->style->name, "mkdir") == 0) {
        unsigned n = invoke(w, "read", h->path, "");
        int error = stat(h->path, &st) < 0 ? errno : 0;
        ns = worker_now_ns();
        if (error == 0)
            answer(w, n, ns, "ok", " some=1");
        else if (error == ENOENT)
            answer(w, n, ns, "ok", " tokens=");
        else
            (void)answer_error(w, n, ns, error);
        return;
    }
    unsigned n = invoke(w, "read", h->path, "");
    int fd = open(h->path, O_RDONLY | O_CLOEXEC);
    int error = fd < 0 ? errno : 0;
    ns = worker_now_ns();
    if (error == ENOENT) {
        answer(w, n, ns, "ok", " tokens=");
        return;
    }
    if (error != 0) {
        (void)answer_error(w, n, ns, error);
        return;
    }
    answer(w, n, ns, "ok", " some=1");
    (void)worker_read(w, h->path, fd, NULL);
    (void)close(fd);
}

/* ---- the work ---- */

static void pause_ns(uint64_t ns)
{
    struct timespec t = {(time_t)(ns / (1000 * MS)), (long)(ns % (1000 * MS))};

    (void)nanosleep(&t, NULL); /* A signal may cut it short. */
}

static void pause_ms(struct worker *w, uint64_t min, uint64_t max)
{
    pause_ns((min + random_below(&w->random, max - min + 1)) * MS);
}

static uint64_t believed_until(const struct worker *w, const struct hold *h)
{
    return w->style->lease ? h->sent_ns + w->ttl_ns - w->ttl_ns / 128 - 5 * MS : UINT64_MAX;
}

static void name_hold(const struct hold *h, char *out, size_t size, const char *more)
{
    char token[40] = "";

    if (h->token != 0)
        (void)snprintf(token, sizeof token, " token=%" PRIu64, h->token);
    (void)snprintf(out, size, " of=%u%s%s", h->n, token, more);
}

/* Choose a lock (0 is the hot one), and how. */
static void choose(struct worker *w, struct hold *h)
{
    unsigned i = 0;

    if (random_below(&w->random, 3) != 0)
        i = (unsigned)random_below(&w->random, w->n_locks);
    const char *key = "key";
    if (strcmp(w->style->name, "mkdir") == 0)
        key = "key.lock";
    else if (strcmp(w->style->name, "rename") == 0 && random_below(&w->random, 3) == 0)
        key = "key" OTHER;
    (void)snprintf(h->path, sizeof h->path, "%s%u/%s", w->style->name, i, key);
    h->shared = w->style->can_wait && random_below(&w->random, 3) == 0;
    h->lo = (unsigned)random_below(&w->random, 6);
    h->hi = h->lo + 1 + (unsigned)random_below(&w->random, 4);
}

static bool acquire(struct worker *w, struct hold *h)
{
    char keys[128] = "";
    char ttl[32] = "";
    char range[64] = "";
    bool wait = w->style->can_wait && random_below(&w->random, 3) == 0;
    struct itimerval timer = {.it_value.tv_usec = 50000 + (long)random_below(&w->random, 900000)};
    const struct itimerval none = {0};

    if (w->style->lease)
        (void)snprintf(ttl, sizeof ttl, " ttl_ms=%" PRIu64, w->ttl_ns / MS);
    if (strcmp(w->style->name, "fcntl") == 0)
        (void)snprintf(range, sizeof range, " lo=%u hi=%u", h->lo, h->hi);
    (void)snprintf(keys, sizeof keys, "%s%s%s%s", ttl, range, h->shared ? " mode=s" : "",
                   wait ? " wait=1" : "");
    h->n = invoke(w, "acquire", h->path, keys);
    h->sent_ns = worker_now_ns();
    if (wait)
        (void)setitimer(ITIMER_REAL, &timer, NULL);
    int error = w->style->acquire(w, h, wait);
    uint64_t ns = worker_now_ns();
    if (wait)
        (void)setitimer(ITIMER_REAL, &none, NULL);
    if (error != 0) {
        (void)answer_error(w, h->n, ns, error);
        return false;
    }
    w->style->token(w, h);
    keys[0] = '\0';
    if (h->token != 0)
        (void)snprintf(keys, sizeof keys, " token=%" PRIu64, h->token);
    answer(w, h->n, ns, "ok", keys);
    return true;
}

/* Return: false when the hold is lost. */
static bool renew(struct worker *w, struct hold *h)
{
    char keys[128];
    char ttl[40];

    (void)snprintf(ttl, sizeof ttl, " ttl_ms=%" PRIu64, w->ttl_ns / MS);
    name_hold(h, keys, sizeof keys, ttl);
    unsigned n = invoke(w, "renew", h->path, keys);
    uint64_t sent_ns = worker_now_ns();
    int error = w->style->renew(w, h);
    uint64_t ns = worker_now_ns();
    if (error != 0)
        return !answer_error(w, n, ns, error);
    answer(w, n, ns, "ok", "");
    h->sent_ns = sent_ns;
    return true;
}

/* Return: false when the hold is lost. */
static bool check(struct worker *w, struct hold *h)
{
    char keys[128];

    if (w->style->check == NULL)
        return true;
    name_hold(h, keys, sizeof keys, "");
    unsigned n = invoke(w, "check", h->path, keys);
    int error = w->style->check(w, h);
    uint64_t ns = worker_now_ns();
    if (error != 0)
        return !answer_error(w, n, ns, error);
    answer(w, n, ns, "ok", "");
    return true;
}

/* rename: on to the lock's other name.  Return: false when nothing is certain any more. */
static bool move(struct worker *w, struct hold *h)
{
    char keys[PATH_LEN + 128];
    char to[PATH_LEN];
    char more[PATH_LEN + 8];

    if (strcmp(w->style->name, "rename") != 0 || random_below(&w->random, 2) == 0)
        return true;
    size_t len = strlen(h->path) - strlen(OTHER);
    if (strcmp(h->path + len, OTHER) == 0)
        (void)snprintf(to, sizeof to, "%.*s", (int)len, h->path);
    else
        (void)snprintf(to, sizeof to, "%.*s" OTHER, (int)(sizeof to - sizeof OTHER), h->path);
    (void)snprintf(more, sizeof more, " to=%s", to);
    name_hold(h, keys, sizeof keys, more);
    unsigned n = invoke(w, "rename", h->path, keys);
    int error = rename(h->path, to) < 0 ? errno : 0;
    uint64_t ns = worker_now_ns();
    if (error != 0) {
        (void)answer_error(w, n, ns, error);
        return error == EEXIST;
    }
    answer(w, n, ns, "ok", "");
    (void)snprintf(h->path, sizeof h->path, "%s", to);
    return true;
}

static void release(struct worker *w, struct hold *h)
{
    char keys[128];

    name_hold(h, keys, sizeof keys, "");
    unsigned n = invoke(w, "release", h->path, keys);
    int error = w->style->release(w, h);
    uint64_t ns = worker_now_ns();
    if (error != 0)
        (void)answer_error(w, n, ns, error);
    else
        answer(w, n, ns, "ok", "");
}

/* Hold for a while; now and then past the deadline, to see that it is lost. */
static bool hold_on(struct worker *w, struct hold *h)
{
    unsigned kind = (unsigned)random_below(&w->random, 40);
    unsigned n = kind == 0 ? 4 + (unsigned)random_below(&w->random, 4) : kind < 12 ? 1 : 0;
    uint64_t ttl_ms = w->ttl_ns / MS;

    if (kind == 1 && !stopping) { /* Asleep for longer than its lease. */
        pause_ms(w, ttl_ms, ttl_ms + ttl_ms / 4);
        return check(w, h);
    }
    if (n <= 1)
        pause_ms(w, 0, 20);
    for (unsigned i = 0; i < n && !stopping && !w->dead; i++) {
        if (n > 1)
            pause_ms(w, ttl_ms / 5, ttl_ms / 4);
        bool renews = w->style->renew != NULL && random_below(&w->random, 3) != 0;
        if (worker_now_ns() >= believed_until(w, h) || !(renews ? renew(w, h) : check(w, h)))
            return false;
    }
    return true;
}

static void cycle(struct worker *w)
{
    struct hold h = {.fd = -1};

    choose(w, &h);
    if (random_below(&w->random, 6) == 0)
        look(w, &h);
    if (acquire(w, &h)) {
        if (hold_on(w, &h) && !w->dead && move(w, &h) && !w->dead)
            release(w, &h);
    } else {
        pause_ms(w, 1, 30);
    }
    if (h.fd >= 0)
        (void)close(h.fd);
    if (h.temporary[0] != '\0')
        (void)unlink(h.temporary);
}

int main(int argc, char **argv)
{
    struct worker w = {0};

    if (argc < 8 || argc > 9) {
        (void)fprintf(stderr, "usage: see the head of worker.c\n");
        return 2;
    }
    w.log = open(argv[7], O_CREAT | O_APPEND | O_WRONLY | O_CLOEXEC, 0644);
    uid_t uid = (uid_t)strtoul(argv[6], NULL, 10);
    /* By relative names, so that once the mount is gone nothing means the directory under it. */
    if (w.log < 0 || chdir(argv[1]) < 0 || setresuid(uid, uid, uid) < 0) {
        perror("linear_worker");
        return 2;
    }
    (void)umask(0);                         /* Everybody may open what another one locked. */
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM); /* After the change of user, which would undo it. */
    struct sigaction term = {.sa_handler = on_term};
    struct sigaction alarm_action = {.sa_handler = on_alarm};
    (void)sigaction(SIGTERM, &term, NULL);
    (void)sigaction(SIGALRM, &alarm_action, NULL);
    w.style = styles;
    while (w.style->name != NULL && strcmp(w.style->name, argv[2]) != 0)
        w.style++;
    w.n_locks = (unsigned)strtoul(argv[3], NULL, 10);
    w.ttl_ns = strtoull(argv[4], NULL, 10) * MS;
    w.random.state = strtoull(argv[5], NULL, 10);
    (void)snprintf(w.name, sizeof w.name, "p%d", (int)getpid());
    if (w.style->name == NULL || w.n_locks == 0) {
        (void)fprintf(stderr, "linear_worker: unknown style, or no locks\n");
        return 2;
    }
    double rate = argc == 9 ? strtod(argv[8], NULL) : 0;
    uint64_t due_ns = worker_now_ns();
    while (!stopping && !w.dead) {
        cycle(&w);
        due_ns += rate > 0 ? (uint64_t)(1e9 / rate) : 0;
        uint64_t now_ns = worker_now_ns();
        if (due_ns + 1000 * MS < now_ns)
            due_ns = now_ns; /* It was held up: that is not made up for. */
        else if (rate > 0 && due_ns > now_ns)
            pause_ns(due_ns - now_ns);
    }
    return w.dead ? 3 : 0;
}
