#include "fs/notifier.h"

#include "raftstore/base/buf.h"
#include "raftstore/base/log.h"
#include "raftstore/base/random.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THREAD_WAKE_FD 3 /* In the thread's table. */

struct notifier {
    uv_loop_t *loop;
    const char *dir;
    char secret[NOTIFIER_SECRET_BYTES + 1];
    void (*on_done)(void *arg, const struct notice *n);
    void *arg;
    bool started; /* There is a thread, and `wake` is to be closed. */
    bool closed;
    int wake_fd;    /* An eventfd; -1 = none. */
    uv_poll_t wake; /* Something is in `finished`, or the thread has ended. */
    pthread_t thread;
    _Atomic pid_t thread_id; /* 0 = does not run. */
    pthread_mutex_t mutex;   /* Of all that follows, but for `stats`. */
    pthread_cond_t more;     /* Something is in `queue`, or `stop`. */
    bool stop;
    bool ended;
    struct notice_list queue;
    unsigned n_queued;
    struct notice_list probes; /* When `queue` is empty. */
    unsigned n_probes;
    struct notice *last_of_path; /* uthash: of those in `queue`, the last of each path. */
    struct notice *current;
    struct notice_list finished;
    struct notifier_stats stats;
};

static void notice_free(struct notice *notice)
{
    free(notice->path);
    free(notice->to);
    free(notice);
}

/* ---- The thread: system calls only.  Nothing may be logged here: its descriptors are not the
 * loop's. ---- */

static int open_directory(int root, const char *path)
{
    struct open_how how = {
        .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
        .resolve = RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH,
    };
    const char *slash = strrchr(path, '/');
    char *directory = slash != NULL ? xmemdup(path, (size_t)(slash - path) + 1) : xstrdup(".");
    if (slash != NULL)
        directory[slash - path] = '\0';
    int fd = (int)syscall(SYS_openat2, root, directory, &how, sizeof how);
    int error = errno;
    free(directory);
    errno = error;
    return fd;
}

static const char *last_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static int change(int directory, int to, const struct notice *n)
{
    const char *name = last_name(n->path);
    struct stat st;
    if (n->type == NOTICE_PROBE)
        return fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT);
    if (n->to != NULL)
        return renameat2(directory, name, to, last_name(n->to), RENAME_NOREPLACE);
    if (n->type == NOTICE_DELETED)
        return unlinkat(directory, name, n->mode == S_IFDIR ? AT_REMOVEDIR : 0);
    if (n->mode == S_IFDIR)
        return mkdirat(directory, name, 0700);
    if (n->mode == S_IFLNK)
        return symlinkat("-", directory, name);
    return mknodat(directory, name, S_IFREG | 0600, 0);
}

/* Return: 0 or a positive errno; ENOTCONN: what is at the mount point is not our mount. */
static int replay(const struct notifier *t, const struct notice *n)
{
    struct stat st;
    int error = 0, directory = -1, to = -1;
    int root = open(t->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return errno;
    if (fstatat(root, t->secret, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) == 0 ||
        errno != NOTIFIER_YES)
        error = ENOTCONN;
    if (error == 0 && (directory = open_directory(root, n->path)) < 0)
        error = errno;
    if (error == 0 && n->to != NULL && (to = open_directory(root, n->to)) < 0)
        error = errno;
    if (error == 0 && change(directory, to, n) < 0)
        error = errno;
    if (to >= 0)
        (void)close(to);
    if (directory >= 0)
        (void)close(directory);
    (void)close(root);
    return error;
}

static void forget_last(struct notifier *t, struct notice *n)
{
    struct notice *last;
    HASH_FIND_STR(t->last_of_path, n->path, last);
    if (last == n)
        HASH_DEL(t->last_of_path, n);
}

/* Wait for the next one.  Return: NULL: it is over. */
static struct notice *take(struct notifier *t)
{
    (void)pthread_mutex_lock(&t->mutex);
    while (!t->stop && TAILQ_EMPTY(&t->queue) && TAILQ_EMPTY(&t->probes))
        (void)pthread_cond_wait(&t->more, &t->mutex);
    struct notice *n = t->stop ? NULL : TAILQ_FIRST(&t->queue);
    if (n != NULL) {
        TAILQ_REMOVE(&t->queue, n, link);
        t->n_queued--;
        forget_last(t, n);
    } else if (!t->stop) {
        n = TAILQ_FIRST(&t->probes);
        TAILQ_REMOVE(&t->probes, n, link);
        t->n_probes--;
    }
    t->current = n;
    (void)pthread_mutex_unlock(&t->mutex);
    return n;
}

static void finish(struct notifier *t, struct notice *n, int wake_fd)
{
    (void)pthread_mutex_lock(&t->mutex);
    t->current = NULL;
    if (n != NULL)
        TAILQ_INSERT_TAIL(&t->finished, n, link);
    else
        t->ended = true;
    (void)pthread_mutex_unlock(&t->mutex);
    uint64_t one = 1;
    while (write(wake_fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

/* A descriptor table of our own, with nothing in it but what wakes the loop (*ret_wake_fd, always
 * set).  Nothing can block before that is so.
 *
 * Return: 0 or a positive errno, with which nothing may be replayed. */
static int be_alone(const struct notifier *t, int *ret_wake_fd)
{
    *ret_wake_fd = t->wake_fd;
    if (unshare(CLONE_FILES) < 0)
        return errno;
    if (t->wake_fd != THREAD_WAKE_FD && dup3(t->wake_fd, THREAD_WAKE_FD, O_CLOEXEC) < 0)
        return errno;
    *ret_wake_fd = THREAD_WAKE_FD;
    return syscall(SYS_close_range, THREAD_WAKE_FD + 1u, ~0u, 0u) == 0 ? 0 : errno;
}

static void rest(uint64_t us)
{
    struct timespec pause = {.tv_nsec = (long)us * 1000};
    (void)nanosleep(&pause, NULL);
}

static void *run(void *arg)
{
    struct notifier *t = arg;
    struct notice *n;
    int wake_fd, unfit = be_alone(t, &wake_fd);
    t->thread_id = (pid_t)syscall(SYS_gettid);
    for (unsigned i = 1; (n = take(t)) != NULL; i++) {
        bool probe = n->type == NOTICE_PROBE;
        n->error = unfit != 0 ? unfit : replay(t, n);
        finish(t, n, wake_fd);
        if (probe)
            rest(NOTIFIER_PROBE_US);
        else if (i % NOTIFIER_BURST == 0)
            rest(NOTIFIER_PAUSE_MS * 1000);
    }
    t->thread_id = 0;
    finish(t, NULL, wake_fd);
    return NULL;
}

/* ---- The loop ---- */

static void free_list(struct notice_list *list)
{
    struct notice *n;
    while ((n = TAILQ_FIRST(list)) != NULL) {
        TAILQ_REMOVE(list, n, link);
        notice_free(n);
    }
}

void notifier_free(struct notifier *n)
{
    if (n == NULL)
        return;
    HASH_CLEAR(hh, n->last_of_path);
    free_list(&n->queue);
    free_list(&n->probes);
    free_list(&n->finished);
    (void)pthread_mutex_destroy(&n->mutex);
    (void)pthread_cond_destroy(&n->more);
    if (n->wake_fd >= 0)
        (void)close(n->wake_fd);
    free(n);
}

static void on_wake(uv_poll_t *poll, int status, int events)
{
    struct notifier *t = poll->data;
    struct notice_list list;
    struct notice *n;
    uint64_t n_wakes;
    (void)status; /* An eventfd has no errors. */
    (void)events;
    (void)!read(t->wake_fd, &n_wakes, sizeof n_wakes); /* Non-blocking: only resets it. */
    TAILQ_INIT(&list);
    (void)pthread_mutex_lock(&t->mutex);
    TAILQ_CONCAT(&list, &t->finished, link);
    bool ended = t->ended;
    (void)pthread_mutex_unlock(&t->mutex);
    while ((n = TAILQ_FIRST(&list)) != NULL) {
        TAILQ_REMOVE(&list, n, link);
        t->stats.done++;
        LOG_DEBUG("told the kernel", "path=%s type=%d error=%d", log_quote(bytes_str(n->path)),
                  (int)n->type, n->error);
        if (t->on_done != NULL && !t->closed)
            t->on_done(t->arg, n);
        notice_free(n);
    }
    if (!ended)
        return;
    (void)pthread_join(t->thread, NULL);
    uv_close((uv_handle_t *)&t->wake, NULL);
}

struct notifier *notifier_new(uv_loop_t *loop,
                              const char *dir,
                              void (*on_notice_done)(void *arg, const struct notice *n),
                              void *arg)
{
    struct notifier *t = xcalloc(1, sizeof *t);
    t->loop = loop;
    t->dir = dir;
    t->on_done = on_notice_done;
    t->arg = arg;
    t->wake_fd = -1;
    TAILQ_INIT(&t->queue);
    TAILQ_INIT(&t->probes);
    TAILQ_INIT(&t->finished);
    (void)pthread_mutex_init(&t->mutex, NULL); /* Neither fails on Linux. */
    (void)pthread_cond_init(&t->more, NULL);
    (void)snprintf(t->secret, sizeof t->secret, "%016" PRIx64 "%016" PRIx64, random_system(),
                   random_system());
    return t;
}

static bool start(struct notifier *t)
{
    sigset_t all, before;
    if (t->started)
        return true;
    t->closed = true; /* If it does not work, it is not tried again. */
    t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (t->wake_fd < 0 || uv_poll_init(t->loop, &t->wake, t->wake_fd) < 0)
        return false;
    t->wake.data = t;
    if (uv_poll_start(&t->wake, UV_READABLE, on_wake) < 0) {
        uv_close((uv_handle_t *)&t->wake, NULL);
        return false;
    }
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, &before); /* Signals are the loop's. */
    int r = pthread_create(&t->thread, NULL, run, t);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r == 0) {
        t->started = true;
        t->closed = false;
        return true;
    }
    LOG_WARN("no thread for inotify", "error=%d", r);
    uv_close((uv_handle_t *)&t->wake, NULL);
    return false;
}

/* Did the name come in a notice that waits, to go with this one? */
static bool coalesce(struct notifier *t, struct notice *n)
{
    struct notice *last;
    if (t->n_queued < NOTIFIER_COALESCE || n->type != NOTICE_DELETED)
        return false;
    HASH_FIND_STR(t->last_of_path, n->path, last);
    if (last == NULL || last->type != NOTICE_CREATED || last->number != n->number)
        return false;
    HASH_DEL(t->last_of_path, last);
    TAILQ_REMOVE(&t->queue, last, link);
    t->n_queued--;
    notice_free(last);
    return true;
}

/* Takes it over. */
static void add(struct notifier *t, struct notice *n)
{
    struct notice *last;
    if (t->closed || !start(t)) {
        notice_free(n);
        return;
    }
    (void)pthread_mutex_lock(&t->mutex);
    bool over = coalesce(t, n);
    bool full = !over && t->n_queued >= NOTIFIER_QUEUE_MAX;
    if (!over && !full) {
        TAILQ_INSERT_TAIL(&t->queue, n, link);
        t->n_queued++;
        HASH_FIND_STR(t->last_of_path, n->path, last);
        if (last != NULL)
            HASH_DEL(t->last_of_path, last);
        HASH_ADD_KEYPTR(hh, t->last_of_path, n->path, strlen(n->path), n);
        (void)pthread_cond_signal(&t->more);
    }
    (void)pthread_mutex_unlock(&t->mutex);
    t->stats.coalesced += over ? 2 : 0;
    if (full && t->stats.dropped++ % 1024 == 0)
        LOG_WARN("inotify events dropped: more than the kernel takes", "n=%" PRIu64,
                 t->stats.dropped);
    if (over || full)
        notice_free(n);
}

static struct notice *
notice_new(enum notice_type type, const char *path, const char *to, uint64_t number, mode_t mode)
{
    struct notice *n = xcalloc(1, sizeof *n);
    n->type = type;
    n->path = xstrdup(path);
    n->to = to != NULL ? xstrdup(to) : NULL;
    n->number = number;
    n->mode = mode;
    return n;
}

void notifier_created(
    struct notifier *n, const char *path, uint64_t number, mode_t mode, uint32_t uid)
{
    struct notice *notice = notice_new(NOTICE_CREATED, path, NULL, number, mode);
    notice->uid = uid;
    add(n, notice);
}

void notifier_deleted(struct notifier *n, const char *path, uint64_t number, mode_t mode)
{
    add(n, notice_new(NOTICE_DELETED, path, NULL, number, mode));
}

void notifier_renamed(
    struct notifier *n, const char *path, const char *to, uint64_t number, mode_t mode)
{
    add(n, notice_new(NOTICE_RENAMED, path, to, number, mode));
}

bool notifier_probe(struct notifier *n, const char *path, uint64_t number)
{
    if (n->closed || !start(n))
        return true; /* It can't be told, now or later. */
    struct notice *notice = notice_new(NOTICE_PROBE, path, NULL, number, 0);
    (void)pthread_mutex_lock(&n->mutex);
    bool room = n->n_probes < NOTIFIER_PROBES_MAX;
    if (room) {
        TAILQ_INSERT_TAIL(&n->probes, notice, link);
        n->n_probes++;
        (void)pthread_cond_signal(&n->more);
    }
    (void)pthread_mutex_unlock(&n->mutex);
    if (!room)
        notice_free(notice);
    return room;
}

bool notifier_is_caller(const struct notifier *n, pid_t thread_id)
{
    return n != NULL && thread_id != 0 && n->thread_id == thread_id;
}

const struct notice *notifier_current(struct notifier *n)
{
    (void)pthread_mutex_lock(&n->mutex);
    const struct notice *current = n->current;
    (void)pthread_mutex_unlock(&n->mutex);
    return current;
}

const char *notifier_secret(const struct notifier *n)
{
    return n->secret;
}

struct notifier_stats notifier_stats(struct notifier *n)
{
    return n->stats;
}

void notifier_close(struct notifier *n)
{
    n->closed = true;
    if (!n->started)
        return;
    (void)pthread_mutex_lock(&n->mutex);
    n->stop = true;
    (void)pthread_cond_signal(&n->more);
    (void)pthread_mutex_unlock(&n->mutex);
}
