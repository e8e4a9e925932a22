#include "telemetry/audit.h"

#include "raftstore/base/clock.h"
#include "raftstore/base/duration.h"
#include "raftstore/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define GATHER_NS  (5 * NS_PER_MS) /* How long the writer lets lines come together. */
#define CLOSE_NS   (2 * NS_PER_S)
#define TAIL_BYTES ((size_t)65536) /* Of the file, looked at for the last position. */

struct audit {
    char *file;      /* Owned; NULL = standard error. */
    struct buf line; /* The caller's, in the making. */
    size_t queue_bytes_max;
    pthread_t thread;
    pthread_mutex_t mutex; /* Guards all below. */
    pthread_cond_t cond;   /* The writer has work, or has ended. */
    struct buf queue;      /* Whole lines. */
    uint64_t n_queued;     /* Lines in it. */
    uint64_t n_dropped;    /* Since they were told last. */
    struct audit_counts counts;
    bool asleep; /* The writer waits for `cond`. */
    bool reopen;
    bool ending;
    bool ended;
    /* The writer's alone. */
    int fd;
    bool torn;      /* The last write stopped within a line. */
    bool write_bad; /* It has failed, and that was logged. */
};

/* ---- Lines ----------------------------------------------------------------------------- */

static uint64_t wall_ms(void)
{
    return clock_wall_ns(clock_system()) / NS_PER_MS;
}

struct buf *audit_begin(struct audit *a, const char *event)
{
    a->line.size = 0;
    field_time(&a->line, "ts", wall_ms());
    field_text(&a->line, "event", event);
    return &a->line;
}

void audit_end(struct audit *a)
{
    field_end(&a->line);
    (void)pthread_mutex_lock(&a->mutex);
    if (a->line.size > a->queue_bytes_max - a->queue.size) {
        a->n_dropped++;
        a->counts.dropped++;
    } else {
        buf_add(&a->queue, a->line.data, a->line.size);
        a->n_queued++;
    }
    if (a->asleep) {
        a->asleep = false;
        (void)pthread_cond_broadcast(&a->cond);
    }
    (void)pthread_mutex_unlock(&a->mutex);
}

void audit_bytes(struct buf *line, const char *key, struct bytes value)
{
    if (value.size > 0)
        field_bytes(line, key, value);
}

void audit_text(struct buf *line, const char *key, const char *value)
{
    if (value != NULL && value[0] != '\0')
        field_text(line, key, value);
}

void audit_u64(struct buf *line, const char *key, uint64_t value)
{
    if (value != 0)
        field_u64(line, key, value);
}

struct audit_counts audit_counts(struct audit *a)
{
    struct audit_counts counts = {0};
    if (a == NULL)
        return counts;
    (void)pthread_mutex_lock(&a->mutex);
    counts = a->counts;
    (void)pthread_mutex_unlock(&a->mutex);
    return counts;
}

/* ---- The writer ------------------------------------------------------------------------ */

static int open_file(const char *file)
{
    /* Not to hang on a pipe that nobody reads. */
    int fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
    if (fd < 0)
        return -errno;
    (void)fcntl(fd, F_SETFL, O_APPEND); /* Only the writer waits from here on. */
    return fd;
}

static void open_again(struct audit *a)
{
    int fd = a->file != NULL ? open_file(a->file) : -ENOENT;
    if (a->file == NULL)
        return;
    if (fd < 0) {
        LOG_ERROR("the audit file can't be opened again, the old one stays in use",
                  "file=%s why=%s", log_quote(bytes_str(a->file)),
                  log_quote(bytes_str(strerror(-fd))));
        return;
    }
    (void)close(a->fd); /* What was written to it is written. */
    a->fd = fd;
    a->torn = false;
}

/* Return: how many bytes were written. */
static size_t put(int fd, const uint8_t *data, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = write(fd, data + done, size - done);
        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || errno != EINTR)
            break;
    }
    return done;
}

static uint64_t count_lines(const uint8_t *data, size_t size)
{
    uint64_t n = 0;
    for (const uint8_t *p = data, *end = data + size; p < end; n++, p++) {
        p = memchr(p, '\n', (size_t)(end - p));
        if (p == NULL)
            break;
    }
    return n;
}

/* Return: lines that were written whole. */
static uint64_t write_lines(struct audit *a, const struct buf *b)
{
    if (a->torn && put(a->fd, (const uint8_t *)"\n", 1) == 1)
        a->torn = false;
    size_t done = a->torn ? 0 : put(a->fd, b->data, b->size);
    bool bad = done < b->size;
    if (bad && !a->write_bad)
        LOG_ERROR("the audit can't be written, lines are lost", "file=%s why=%s",
                  log_quote(bytes_str(a->file != NULL ? a->file : "-")),
                  log_quote(bytes_str(strerror(errno))));
    a->write_bad = bad;
    a->torn |= done > 0 && b->data[done - 1] != '\n';
    return count_lines(b->data, done);
}

static void add_dropped(struct buf *out, uint64_t n)
{
    field_time(out, "ts", wall_ms());
    field_text(out, "event", "dropped");
    field_u64(out, "dropped", n);
    field_end(out);
}

/* Take all that waits and write it.  Called, and returns, with the mutex held. */
static void write_queue(struct audit *a, struct buf *taken)
{
    struct buf empty = *taken;
    uint64_t n = a->n_queued, n_dropped = a->n_dropped;
    bool again = a->reopen;
    *taken = a->queue;
    a->queue = empty;
    a->queue.size = 0;
    a->n_queued = a->n_dropped = 0;
    a->reopen = false;
    (void)pthread_mutex_unlock(&a->mutex);
    if (again)
        open_again(a);
    if (n_dropped > 0)
        add_dropped(taken, n_dropped);
    uint64_t written = write_lines(a, taken);
    bool told = n_dropped == 0 || written == n + 1;
    if (written > n)
        written = n; /* The line that tells of dropped ones does not count. */
    (void)pthread_mutex_lock(&a->mutex);
    a->counts.lines += written;
    a->counts.dropped += n - written;
    a->n_dropped += n - written + (told ? 0 : n_dropped);
}

static void wait_a_little(struct audit *a)
{
    uint64_t end_ns = clock_mono_ns(clock_system()) + GATHER_NS;
    struct timespec end = {(time_t)(end_ns / NS_PER_S), (long)(end_ns % NS_PER_S)};
    while (!a->ending && pthread_cond_timedwait(&a->cond, &a->mutex, &end) != ETIMEDOUT)
        ;
}

static bool has_work(const struct audit *a)
{
    return a->queue.size > 0 || a->reopen || (a->n_dropped > 0 && !a->write_bad);
}

static void *writer(void *arg)
{
    struct audit *a = arg;
    struct buf taken = BUF_INIT;
    (void)pthread_mutex_lock(&a->mutex);
    for (;;) {
        while (!has_work(a) && !a->ending) {
            a->asleep = true;
            (void)pthread_cond_wait(&a->cond, &a->mutex);
            a->asleep = false;
        }
        if (!has_work(a))
            break;
        wait_a_little(a);
        write_queue(a, &taken);
    }
    a->ended = true;
    (void)pthread_cond_broadcast(&a->cond);
    (void)pthread_mutex_unlock(&a->mutex);
    buf_deinit(&taken);
    return NULL;
}

/* ---- The last position ----------------------------------------------------------------- */

/* Take the pair at the beginning of *rest.  Return: false: there is none. */
static bool take_pair(struct bytes *rest, struct bytes *ret_key, struct bytes *ret_value)
{
    const char *p = rest->data, *end = p + rest->size;
    while (p < end && *p == ' ')
        p++;
    const char *equals = p < end ? memchr(p, '=', (size_t)(end - p)) : NULL;
    if (equals == NULL)
        return false;
    const char *value = equals + 1, *stop = value;
    if (stop < end && *stop == '"')
        for (stop++; stop < end && *stop != '"'; stop++)
            stop += *stop == '\\';
    while (stop < end && *stop != ' ')
        stop++;
    if (stop > end)
        return false;
    *ret_key = bytes_of(p, (size_t)(equals - p));
    *ret_value = bytes_of(value, (size_t)(stop - value));
    *rest = bytes_of(stop, (size_t)(end - stop));
    return true;
}

/* Quoted values are skipped: what others chose can't be taken for a position. */
static bool position_of(struct bytes line, struct audit_position *ret)
{
    struct audit_position found = {0};
    struct bytes key, value;
    unsigned n = 0;
    while (take_pair(&line, &key, &value)) {
        if (bytes_equal(key, bytes_str("index")))
            n += number_parse(value, &found.index) == 0;
        else if (bytes_equal(key, bytes_str("n")))
            n += number_parse(value, &found.n) == 0;
        else if (bytes_equal(key, bytes_str("term")))
            (void)number_parse(value, &found.term); /* Else 0: unknown. */
    }
    if (n == 2)
        *ret = found;
    return n == 2;
}

/* The last whole line with a position among the last TAIL_BYTES; a line that was cut off by a crash
 * does not count, and is ended. */
static int find_last(const char *file, struct audit_position *ret_last, bool *ret_torn)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    off_t end = lseek(fd, 0, SEEK_END);
    off_t from = end > (off_t)TAIL_BYTES ? end - (off_t)TAIL_BYTES : 0;
    char *text = xmalloc(TAIL_BYTES);
    ssize_t n = end > 0 ? pread(fd, text, TAIL_BYTES, from) : 0; /* A pipe has no end. */
    (void)close(fd);                                             /* Only read from. */
    size_t size = n > 0 ? (size_t)n : 0;
    *ret_torn = size > 0 && text[size - 1] != '\n';
    while (size > 0) {
        const char *newline = memrchr(text, '\n', size);
        if (newline == NULL)
            break;
        size = (size_t)(newline - text);
        const char *before = memrchr(text, '\n', size);
        size_t start = before != NULL ? (size_t)(before - text) + 1 : 0;
        if (position_of(bytes_of(text + start, size - start), ret_last))
            break;
    }
    free(text);
    return 0;
}

/* ---- Life ------------------------------------------------------------------------------ */

static void audit_free(struct audit *a)
{
    if (a->file != NULL && a->fd >= 0)
        (void)close(a->fd);
    buf_deinit(&a->line);
    buf_deinit(&a->queue);
    (void)pthread_cond_destroy(&a->cond);
    (void)pthread_mutex_destroy(&a->mutex);
    free(a->file);
    free(a);
}

static int fail(struct audit *a, int rv, const char *file, char **ret_sentence)
{
    *ret_sentence = xasprintf("audit file %s: %s", file, strerror(-rv));
    audit_free(a);
    return rv;
}

static void cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(cond, &attributes);
    (void)pthread_condattr_destroy(&attributes);
}

int audit_open(const char *file,
               size_t queue_bytes_max,
               struct audit **ret,
               struct audit_position *ret_last,
               char **ret_sentence)
{
    struct audit *a = xcalloc(1, sizeof *a);
    sigset_t all, old;
    bool is_stderr = strcmp(file, "-") == 0;
    int rv = 0;
    *ret_last = (struct audit_position){0};
    a->queue_bytes_max = queue_bytes_max != 0 ? queue_bytes_max : AUDIT_QUEUE_BYTES_MAX;
    a->fd = STDERR_FILENO;
    a->file = is_stderr ? NULL : xstrdup(file);
    (void)pthread_mutex_init(&a->mutex, NULL);
    cond_init(&a->cond);
    if (!is_stderr) {
        a->fd = -1;
        rv = find_last(file, ret_last, &a->torn);
        if (rv == 0)
            rv = a->fd = open_file(file);
    }
    (void)sigfillset(&all); /* Signals are for the caller's thread. */
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    if (rv >= 0)
        rv = -pthread_create(&a->thread, NULL, writer, a);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rv < 0)
        return fail(a, rv, file, ret_sentence);
    *ret = a;
    return 0;
}

void audit_reopen(struct audit *a)
{
    (void)pthread_mutex_lock(&a->mutex);
    a->reopen = true;
    (void)pthread_cond_broadcast(&a->cond);
    (void)pthread_mutex_unlock(&a->mutex);
}

void audit_close(struct audit *a)
{
    if (a == NULL)
        return;
    uint64_t end_ns = clock_mono_ns(clock_system()) + CLOSE_NS;
    struct timespec end = {(time_t)(end_ns / NS_PER_S), (long)(end_ns % NS_PER_S)};
    (void)pthread_mutex_lock(&a->mutex);
    a->ending = true;
    (void)pthread_cond_broadcast(&a->cond);
    while (!a->ended && pthread_cond_timedwait(&a->cond, &a->mutex, &end) != ETIMEDOUT)
        ;
    bool ended = a->ended;
    (void)pthread_mutex_unlock(&a->mutex);
    if (!ended) { /* Who reads our standard error does not: the process ends all the same. */
        (void)pthread_detach(a->thread);
        return;
    }
    (void)pthread_join(a->thread, NULL);
    audit_free(a);
}
