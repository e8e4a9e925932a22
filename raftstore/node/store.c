#include "raftstore/node/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "raftstore/base/buf.h"
#include "raftstore/node/store_files.h"
#include "raftstore/node/store_internal.h"

#define LOG_FILE_BYTES_DEFAULT (8u * 1024u * 1024u)
#define LOG_FILE_BYTES_MIN     (256u * 1024u)

void snapshot_request_free(struct snapshot_request *r)
{
    if (r == NULL)
        return;
    free((void *)(uintptr_t)r->image.conf.data);
    free(r->path);
    free(r);
}

void store_item_free(struct store_item *item)
{
    snapshot_request_free(item->snapshot);
    free(item);
}

void store_fail(struct store *s, char *sentence)
{
    pthread_mutex_lock(&s->mutex);
    bool first = s->failure == NULL;
    if (first)
        s->failure = sentence;
    pthread_cond_broadcast(&s->writer_reply);
    pthread_mutex_unlock(&s->mutex);
    if (first)
        wakeup_send(s->wakeup);
    else
        free(sentence);
}

/* On the loop: a snapshot is in place. */
static void take_done(struct store *s, struct store_done *d)
{
    struct snapshot_request *r = d->snapshot;
    free((void *)(uintptr_t)s->image.conf.data);
    free(s->image_path);
    s->image = r->image;
    s->image_path = d->path;
    r->image.conf = (struct bytes){0};
    free(d);
    if (r->done != NULL)
        r->done(r->arg, 0);
    snapshot_request_free(r);
}

/* On the loop: deliver what the threads have reported. A callback must not close the store; it may
 * do anything else. */
static void on_wakeup(void *arg)
{
    struct store *s = arg;
    if (s->failure_reported)
        return;
    struct store_dones dones = STAILQ_HEAD_INITIALIZER(dones);
    pthread_mutex_lock(&s->mutex);
    uint64_t ticket = s->ticket_durable;
    const char *failure = s->failure; /* Never changes again once set. */
    STAILQ_CONCAT(&dones, &s->dones);
    pthread_mutex_unlock(&s->mutex);
    if (ticket > s->ticket_reported) {
        s->ticket_reported = ticket;
        s->config.on_persisted(s->config.arg, ticket);
    }
    while (!STAILQ_EMPTY(&dones)) {
        struct store_done *d = STAILQ_FIRST(&dones);
        STAILQ_REMOVE_HEAD(&dones, link);
        take_done(s, d);
    }
    if (failure != NULL) {
        s->failure_reported = true;
        s->config.on_failed(s->config.arg, failure);
    }
}

static struct store *store_new(const struct store_config *config)
{
    struct store *s = xcalloc(1, sizeof *s);
    s->config = *config;
    s->directory = xstrdup(config->directory);
    s->config.directory = s->directory;
    s->spare = files_path(s->directory, "spare-wal");
    s->lock_fd = -1;
    size_t bytes = config->log_file_bytes != 0 ? config->log_file_bytes : LOG_FILE_BYTES_DEFAULT;
    s->wal_bytes = bytes > LOG_FILE_BYTES_MIN ? bytes : LOG_FILE_BYTES_MIN;
    STAILQ_INIT(&s->items);
    STAILQ_INIT(&s->jobs);
    STAILQ_INIT(&s->dones);
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->writer_wake, NULL);
    pthread_cond_init(&s->keeper_wake, NULL);
    pthread_cond_init(&s->writer_reply, NULL);
    return s;
}

/* Free everything; the threads are gone. */
static void store_free(struct store *s)
{
    store_loaded_free(s);
    log_close(s->current);
    log_close(s->prepared);
    meta_close(&s->meta_db);
    meta_deinit(&s->meta);
    while (!STAILQ_EMPTY(&s->dones)) {
        struct store_done *d = STAILQ_FIRST(&s->dones);
        STAILQ_REMOVE_HEAD(&s->dones, link);
        snapshot_request_free(d->snapshot);
        free(d->path);
        free(d);
    }
    free((void *)(uintptr_t)s->image.conf.data);
    free(s->image_path);
    free(s->peers);
    free(s->failure);
    wakeup_free(s->wakeup);
    if (s->lock_fd >= 0)
        (void)close(s->lock_fd); /* Gives the lock up. */
    pthread_cond_destroy(&s->writer_reply);
    pthread_cond_destroy(&s->keeper_wake);
    pthread_cond_destroy(&s->writer_wake);
    pthread_mutex_destroy(&s->mutex);
    free(s->spare);
    free(s->directory);
    free(s);
}

static int start_threads(struct store *s, char **ret_sentence)
{
    int rc = pthread_create(&s->keeper, NULL, store_keeper_run, s);
    if (rc == 0) {
        rc = pthread_create(&s->writer, NULL, store_writer_run, s);
        if (rc != 0) {
            pthread_mutex_lock(&s->mutex);
            s->keeper_stop = true;
            pthread_cond_broadcast(&s->keeper_wake);
            pthread_mutex_unlock(&s->mutex);
            (void)pthread_join(s->keeper, NULL);
        }
    }
    if (rc != 0)
        return fail_with(-rc, s->directory, "a thread can't be started", ret_sentence);
    s->threads_run = true;
    if (s->prepared == NULL)
        store_job_post(s, (struct store_job){.type = JOB_PREPARE});
    return 0;
}

int store_open(const struct store_config *config,
               struct store **ret_store,
               const struct store_loaded **ret_loaded,
               char **ret_sentence)
{
    sql_configure();
    struct store *s = store_new(config);
    int error = wakeup_new(config->loop, on_wakeup, s, &s->wakeup);
    if (error != 0)
        error = fail_with(error, s->directory, "can't be opened", ret_sentence);
    if (error == 0)
        error = files_lock_directory(s->directory, &s->lock_fd, ret_sentence);
    if (error == 0)
        error = store_load(s, ret_sentence);
    if (error == 0)
        error = start_threads(s, ret_sentence);
    if (error != 0) {
        store_free(s);
        return error;
    }
    *ret_store = s;
    *ret_loaded = &s->loaded;
    return 0;
}

void store_loaded_free(struct store *s)
{
    for (unsigned i = 0; i < s->loaded.n_entries; i++)
        free((void *)(uintptr_t)s->entries[i].data.data);
    free(s->entries);
    s->entries = NULL;
    s->loaded.entries = NULL;
    s->loaded.n_entries = 0;
}

static void post_item(struct store *s, struct store_item *item)
{
    pthread_mutex_lock(&s->mutex);
    bool wake = STAILQ_EMPTY(&s->items); /* Else the writer is awake, and takes all it finds. */
    STAILQ_INSERT_TAIL(&s->items, item, link);
    pthread_mutex_unlock(&s->mutex);
    if (wake) /* Not under the mutex, or it would wake only to wait for that. */
        pthread_cond_signal(&s->writer_wake);
}

void store_write(struct store *s, const struct replica_write *w)
{
    size_t data_bytes = 0;
    for (unsigned i = 0; i < w->n_entries; i++)
        data_bytes += w->entries[i].data.size;
    struct store_item *item =
        xmalloc(sizeof *item + w->n_entries * sizeof *item->entries + data_bytes);
    *item = (struct store_item){.type = ITEM_WRITE,
                                .ticket = w->ticket,
                                .set_vote = w->set_vote,
                                .term = w->term,
                                .voted_for = w->voted_for,
                                .truncate_from = w->truncate_from,
                                .drop_to = w->drop_to,
                                .n_entries = w->n_entries};
    uint8_t *at = (uint8_t *)(item->entries + w->n_entries);
    for (unsigned i = 0; i < w->n_entries; i++) {
        struct replica_entry *e = &item->entries[i];
        *e = w->entries[i];
        e->data.data = at;
        if (e->data.size > 0)
            memcpy(at, w->entries[i].data.data, e->data.size);
        at += e->data.size;
        item->frames += log_frames_of(e->data.size);
    }
    post_item(s, item);
}

static void post_number(struct store *s, enum item_type type, uint64_t number, uint64_t value)
{
    struct store_item *item = xcalloc(1, sizeof *item);
    item->type = type;
    item->number = number;
    item->value = value;
    post_item(s, item);
}

void store_set_cluster_id(struct store *s, uint64_t cluster_id)
{
    s->loaded.cluster_id = cluster_id;
    post_number(s, ITEM_CLUSTER, 0, cluster_id);
}

uint64_t store_peer_incarnation(const struct store *s, uint64_t node_id)
{
    for (unsigned i = 0; i < s->n_peers; i++)
        if (s->peers[i].node_id == node_id)
            return s->peers[i].incarnation;
    return 0;
}

void store_set_peer_incarnation(struct store *s, uint64_t node_id, uint64_t incarnation)
{
    unsigned i = 0;
    while (i < s->n_peers && s->peers[i].node_id != node_id)
        i++;
    if (i == s->n_peers) {
        s->peers = xrealloc(s->peers, (s->n_peers + 1) * sizeof *s->peers);
        s->n_peers++;
    }
    s->peers[i] = (struct meta_peer){node_id, incarnation};
    post_number(s, ITEM_PEER, node_id, incarnation);
}

void store_image_path(struct store *s, uint64_t index, bool incoming, char *out, size_t size)
{
    (void)snprintf(out, size, "%s/%s-%llu.db", s->directory, incoming ? "incoming" : "image",
                   (unsigned long long)index);
}

void store_snapshot_commit(struct store *s,
                           const struct replica_image *image,
                           const char *path,
                           bool drop_log,
                           void (*done)(void *arg, int status),
                           void *arg)
{
    struct snapshot_request *r = xcalloc(1, sizeof *r);
    r->image = *image;
    r->image.conf.data = image->conf.size > 0 ? xmemdup(image->conf.data, image->conf.size) : NULL;
    r->path = xstrdup(path);
    r->drop_log = drop_log;
    r->done = done;
    r->arg = arg;
    struct store_item *item = xcalloc(1, sizeof *item);
    item->type = ITEM_SNAPSHOT;
    item->snapshot = r;
    post_item(s, item);
}

bool store_snapshot(const struct store *s, struct replica_image *ret_image, const char **ret_path)
{
    if (s->image.index == 0)
        return false;
    *ret_image = s->image;
    *ret_path = s->image_path;
    return true;
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

struct store_stats store_stats(struct store *s)
{
    uint32_t us[STORE_SAMPLES];
    pthread_mutex_lock(&s->mutex);
    struct store_stats stats = {
        .transactions = s->n_transactions, .writes = s->n_writes, .bytes = s->n_bytes};
    memcpy(us, s->commit_us, sizeof us);
    pthread_mutex_unlock(&s->mutex);
    size_t n = stats.transactions < STORE_SAMPLES ? (size_t)stats.transactions : STORE_SAMPLES;
    if (n > 0) {
        qsort(us, n, sizeof *us, compare_u32);
        stats.commit_p50_us = us[n / 2];
        stats.commit_p99_us = us[n * 99 / 100];
        stats.commit_max_us = us[n - 1];
    }
    struct statvfs fs;
    if (statvfs(s->directory, &fs) == 0)
        stats.free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    return stats;
}

void store_figures(struct store *s, struct store_figures *ret)
{
    pthread_mutex_lock(&s->mutex);
    *ret = (struct store_figures){.commit = s->commit, .writes = s->n_writes, .bytes = s->n_bytes};
    pthread_mutex_unlock(&s->mutex);
}

/* Let both threads finish what is queued, the writer first: it makes work for the keeper. */
static void stop_threads(struct store *s)
{
    pthread_mutex_lock(&s->mutex);
    s->writer_stop = true;
    pthread_cond_broadcast(&s->writer_wake);
    pthread_mutex_unlock(&s->mutex);
    (void)pthread_join(s->writer, NULL);
    pthread_mutex_lock(&s->mutex);
    s->keeper_stop = true;
    pthread_cond_broadcast(&s->keeper_wake);
    pthread_mutex_unlock(&s->mutex);
    (void)pthread_join(s->keeper, NULL);
}

int store_initialise(struct store *s,
                     uint64_t node_id,
                     uint64_t cluster_id,
                     const struct replica_entry *entries,
                     unsigned n_entries,
                     char **ret_sentence)
{
    /* The threads are started anew, so that this one may use what is theirs. */
    stop_threads(s);
    s->threads_run = s->writer_stop = s->keeper_stop = false;
    int error = 0;
    if (s->failure != NULL) {
        *ret_sentence = xstrdup(s->failure);
        return -EIO;
    }
    if (n_entries > 0) {
        struct log_file *f = s->current;
        f->head.first_index = entries[0].index;
        f->head_dirty = true;
        error = log_begin(f, ret_sentence);
        for (unsigned i = 0; i < n_entries && error == 0; i++)
            error = log_insert(f, &entries[i], ret_sentence);
        if (error == 0)
            error = log_commit(f, ret_sentence);
        s->next_index = f->last_index + 1;
    }
    /* Only now does the directory belong to somebody: a crash before this begins again. */
    s->meta.node_id = s->loaded.node_id = node_id;
    s->meta.cluster_id = s->loaded.cluster_id = cluster_id;
    if (error == 0)
        error = meta_save(&s->meta_db, &s->meta, ret_sentence);
    if (error == 0)
        error = start_threads(s, ret_sentence);
    return error;
}

void store_close(struct store *s)
{
    if (s == NULL)
        return;
    if (s->threads_run)
        stop_threads(s);
    /* A sealed file has nothing that could be mistaken for a torn write. */
    if (s->failure == NULL && s->current != NULL && s->current->head.first_index != 0) {
        struct log_file *f = s->current;
        char *sentence = NULL;
        s->current = NULL;
        (void)keeper_seal(s, f, &sentence); /* What is not sealed is recovered at open. */
        free(sentence);
    }
    store_free(s);
}
