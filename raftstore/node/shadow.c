#include "raftstore/node/shadow.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "raftstore/base/buf.h"
#include "raftstore/lock/restore.h"
#include "raftstore/node/apply.h"
#include "raftstore/node/image_internal.h"
#include "raftstore/node/store_sql.h"
#include "raftstore/node/wakeup.h"

#define BATCH_BYTES (256u * 1024u) /* Entries that gather before the thread runs. */

enum job_type { JOB_APPLY, JOB_SNAPSHOT, JOB_LOAD };

/* Work for the thread, in order; and, when done, its answer for the loop. */
struct job {
    STAILQ_ENTRY(job) link;
    enum job_type type;
    uint64_t index;
    size_t size;                 /* APPLY: of data. */
    struct replica_image image;  /* SNAPSHOT; conf.data is owned. */
    struct lock_digest expected; /* SNAPSHOT. */
    int64_t wall_offset_ns;      /* SNAPSHOT. */
    char *path;                  /* SNAPSHOT, LOAD; owned. */
    int status;
    char *sentence;           /* Owned. */
    struct lock_table *table; /* LOAD: the copy for the loop. */
    uint8_t data[];           /* APPLY: the entry. */
};
STAILQ_HEAD(jobs, job);

struct shadow {
    struct shadow_config config;
    struct wakeup *wakeup; /* Of the loop, by the thread. */
    pthread_t thread;
    struct lock_table *table; /* The thread's. */
    struct arena arena;       /* The thread's. */
    int broken;               /* The thread's: an entry could not be applied (negative errno). */
    atomic_bool stop;
    _Atomic uint64_t backlog_bytes;
    pthread_mutex_t mutex; /* Of what follows. */
    pthread_cond_t wake;
    bool wanted; /* The thread is to run: nobody needs its state before a snapshot, so entries
                    are left to gather, and a wake-up serves many. */
    struct jobs jobs, answers;
};

static void job_free(struct job *j)
{
    free((void *)(uintptr_t)j->image.conf.data);
    free(j->path);
    free(j->sentence);
    lock_table_free(j->table);
    free(j);
}

static struct job *job_new(enum job_type type, size_t size)
{
    struct job *j = xmalloc(sizeof *j + size);
    *j = (struct job){.type = type, .size = size};
    return j;
}

static void post(struct shadow *s, struct job *j)
{
    uint64_t size = sizeof *j + j->size;
    uint64_t backlog = atomic_fetch_add(&s->backlog_bytes, size) + size;
    pthread_mutex_lock(&s->mutex);
    STAILQ_INSERT_TAIL(&s->jobs, j, link);
    bool wake = !s->wanted && (j->type != JOB_APPLY || backlog >= BATCH_BYTES);
    s->wanted = s->wanted || wake;
    pthread_mutex_unlock(&s->mutex);
    if (wake)
        pthread_cond_signal(&s->wake);
}

static void answer(struct shadow *s, struct job *j)
{
    pthread_mutex_lock(&s->mutex);
    STAILQ_INSERT_TAIL(&s->answers, j, link);
    pthread_mutex_unlock(&s->mutex);
    wakeup_send(s->wakeup);
}

static void do_snapshot(struct shadow *s, struct job *j)
{
    struct lock_digest d = lock_digest(s->table);
    if (s->broken != 0) {
        j->status = s->broken;
        j->sentence = xasprintf(
            "%s: the snapshot is not taken: an entry before it can't be applied", j->path);
    } else if (d.lo != j->expected.lo || d.hi != j->expected.hi) {
        j->status = -EILSEQ;
        j->sentence = xasprintf("%s: the snapshot is not taken: at index %llu the shadow's "
                                "state differs from the node's; replace this node: see "
                                "README, Reseed a node",
                                j->path, (unsigned long long)j->image.index);
    } else {
        j->status = image_write_until(j->path, s->table, &j->image, j->wall_offset_ns, &s->stop,
                                      &j->sentence);
    }
    answer(s, j);
}

static int copy_row(void *arg, const struct lock_row *row)
{
    return lock_import_row(arg, row);
}

/* A second table of the same state; NULL when export and import do not agree. */
static struct lock_table *copy_table(const struct lock_table *t)
{
    struct lock_table *copy = lock_table_new();
    if (lock_export(t, copy_row, copy) == 0 && lock_import_finish(copy) == 0)
        return copy;
    lock_table_free(copy);
    return NULL;
}

/* Read an image into two tables. */
static int load_both(const char *path,
                     struct lock_table **ret_own,
                     struct lock_table **ret_copy,
                     struct replica_image *ret_image,
                     char **ret_sentence)
{
    struct lock_table *own = NULL;
    struct replica_image image;
    int error = image_read(path, &own, &image, ret_sentence);
    if (error != 0)
        return error;
    *ret_copy = copy_table(own);
    if (*ret_copy == NULL) {
        lock_table_free(own);
        free((void *)(uintptr_t)image.conf.data);
        return fail_damaged(ret_sentence, path, "its content can't be copied");
    }
    *ret_own = own;
    *ret_image = image;
    return 0;
}

static void do_load(struct shadow *s, struct job *j)
{
    struct lock_table *own = NULL;
    j->status = load_both(j->path, &own, &j->table, &j->image, &j->sentence);
    if (j->status == 0) {
        lock_table_free(s->table);
        s->table = own;
        s->broken = 0;
    }
    answer(s, j);
}

static void run(struct shadow *s, struct job *j)
{
    (void)atomic_fetch_sub(&s->backlog_bytes, sizeof *j + j->size);
    switch (j->type) {
    case JOB_APPLY:
        if (s->broken == 0)
            s->broken = apply_log_entry(s->table, &s->arena, j->index, bytes_of(j->data, j->size),
                                        NULL, NULL);
        job_free(j);
        break;
    case JOB_SNAPSHOT:
        do_snapshot(s, j);
        break;
    case JOB_LOAD:
        do_load(s, j);
        break;
    }
}

static void *thread_run(void *arg)
{
    struct shadow *s = arg;
    while (!atomic_load(&s->stop)) {
        struct jobs jobs = STAILQ_HEAD_INITIALIZER(jobs);
        pthread_mutex_lock(&s->mutex);
        while (!s->wanted && !atomic_load(&s->stop))
            pthread_cond_wait(&s->wake, &s->mutex);
        s->wanted = false;
        STAILQ_CONCAT(&jobs, &s->jobs);
        pthread_mutex_unlock(&s->mutex);
        while (!STAILQ_EMPTY(&jobs)) {
            struct job *j = STAILQ_FIRST(&jobs);
            STAILQ_REMOVE_HEAD(&jobs, link);
            if (atomic_load(&s->stop))
                job_free(j);
            else
                run(s, j);
        }
    }
    return NULL;
}

/* On the loop. A callback must not stop the shadow. */
static void on_wakeup(void *arg)
{
    struct shadow *s = arg;
    struct jobs answers = STAILQ_HEAD_INITIALIZER(answers);
    pthread_mutex_lock(&s->mutex);
    STAILQ_CONCAT(&answers, &s->answers);
    pthread_mutex_unlock(&s->mutex);
    while (!STAILQ_EMPTY(&answers)) {
        struct job *j = STAILQ_FIRST(&answers);
        STAILQ_REMOVE_HEAD(&answers, link);
        if (j->type == JOB_SNAPSHOT) {
            s->config.on_snapshot(s->config.arg, j->image.index, j->path, j->status, j->sentence);
        } else {
            struct lock_table *table = j->table;
            j->table = NULL;
            s->config.on_loaded(s->config.arg, table, j->status, j->sentence);
        }
        job_free(j);
    }
}

static void shadow_free(struct shadow *s)
{
    while (!STAILQ_EMPTY(&s->jobs)) {
        struct job *j = STAILQ_FIRST(&s->jobs);
        STAILQ_REMOVE_HEAD(&s->jobs, link);
        job_free(j);
    }
    while (!STAILQ_EMPTY(&s->answers)) {
        struct job *j = STAILQ_FIRST(&s->answers);
        STAILQ_REMOVE_HEAD(&s->answers, link);
        job_free(j);
    }
    wakeup_free(s->wakeup);
    lock_table_free(s->table);
    arena_deinit(&s->arena);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->mutex);
    free(s);
}

static struct shadow *shadow_new(const struct shadow_config *config)
{
    struct shadow *s = xcalloc(1, sizeof *s);
    s->config = *config;
    arena_init(&s->arena);
    STAILQ_INIT(&s->jobs);
    STAILQ_INIT(&s->answers);
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->wake, NULL);
    return s;
}

/* The handle and the thread. */
static int start(struct shadow *s, char **ret_sentence)
{
    int error = wakeup_new(s->config.loop, on_wakeup, s, &s->wakeup);
    if (error == 0)
        error = -pthread_create(&s->thread, NULL, thread_run, s);
    return error == 0 ? 0 : fail_with(error, "snapshots", "can't be started", ret_sentence);
}

int shadow_start(const struct shadow_config *config,
                 const char *image_path,
                 struct shadow **ret_shadow,
                 struct lock_table **ret_table,
                 struct replica_image *ret_image,
                 char **ret_sentence)
{
    struct shadow *s = shadow_new(config);
    struct lock_table *table = NULL;
    struct replica_image image = {0};
    int error = 0;
    if (image_path != NULL) {
        error = load_both(image_path, &s->table, &table, &image, ret_sentence);
    } else {
        s->table = lock_table_new();
        table = lock_table_new();
    }
    if (error == 0)
        error = start(s, ret_sentence);
    if (error != 0) {
        lock_table_free(table);
        free((void *)(uintptr_t)image.conf.data);
        shadow_free(s);
        return error;
    }
    *ret_shadow = s;
    *ret_table = table;
    *ret_image = image;
    return 0;
}

void shadow_apply(struct shadow *s, uint64_t index, struct bytes entry)
{
    struct job *j = job_new(JOB_APPLY, entry.size);
    j->index = index;
    if (entry.size > 0)
        memcpy(j->data, entry.data, entry.size);
    post(s, j);
}

void shadow_snapshot(struct shadow *s,
                     const struct replica_image *image,
                     const char *path,
                     struct lock_digest expected,
                     int64_t wall_offset_ns)
{
    struct job *j = job_new(JOB_SNAPSHOT, 0);
    j->image = *image;
    j->image.conf.data = image->conf.size > 0 ? xmemdup(image->conf.data, image->conf.size) : NULL;
    j->expected = expected;
    j->wall_offset_ns = wall_offset_ns;
    j->path = xstrdup(path);
    post(s, j);
}

void shadow_load(struct shadow *s, const char *image_path)
{
    struct job *j = job_new(JOB_LOAD, 0);
    j->path = xstrdup(image_path);
    post(s, j);
}

uint64_t shadow_backlog_bytes(const struct shadow *s)
{
    return atomic_load(&s->backlog_bytes);
}

void shadow_stop(struct shadow *s)
{
    if (s == NULL)
        return;
    pthread_mutex_lock(&s->mutex);
    atomic_store(&s->stop, true);
    pthread_cond_broadcast(&s->wake);
    pthread_mutex_unlock(&s->mutex);
    (void)pthread_join(s->thread, NULL);
    shadow_free(s);
}
