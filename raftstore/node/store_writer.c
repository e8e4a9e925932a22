#include "raftstore/node/store_internal.h"

#include <assert.h>
#include <stdlib.h>

#include "raftstore/base/buf.h"
#include "raftstore/base/clock.h"

/* Frames of one transaction: beyond, what waits is split into several, so that a long queue is
 * neither one huge transaction in memory nor larger than a log file's WAL. */
#define TRANSACTION_FRAMES_MAX 512u

/* Take the next prepared file as the current one. Return: the old one; NULL when the store failed
 * while waiting. */
static struct log_file *next_file(struct store *s)
{
    pthread_mutex_lock(&s->mutex);
    while (s->prepared == NULL && s->failure == NULL)
        pthread_cond_wait(&s->writer_reply, &s->mutex);
    struct log_file *next = s->failure == NULL ? s->prepared : NULL;
    if (next != NULL)
        s->prepared = NULL;
    pthread_mutex_unlock(&s->mutex);
    if (next == NULL)
        return NULL;
    struct log_file *old = s->current;
    s->current = next;
    return old;
}

/* See to it that the current file has room for so many frames. A file that holds nothing yet takes
 * anything: its WAL then grows beyond what was prepared. */
static bool make_room(struct store *s, unsigned frames)
{
    struct log_file *f = s->current;
    if (f->head.first_index == 0 || f->frames + frames + LOG_FRAMES_BASE <= f->frames_prepared)
        return true;
    struct log_file *old = next_file(s);
    if (old == NULL)
        return false;
    /* Sealing gives a WAL back that the preparation uses again. */
    store_job_post(s, (struct store_job){.type = JOB_SEAL, .file = old});
    store_job_post(s, (struct store_job){.type = JOB_PREPARE});
    return true;
}

/* Give an unbegun file its head: where it starts, and term and vote. */
static void begin_file(struct store *s)
{
    struct log_file *f = s->current;
    if (f->head.first_index != 0)
        return;
    f->head.first_index = s->next_index;
    f->head.term = s->term;
    f->head.voted_for = s->voted_for;
    f->last_index = s->next_index - 1;
    f->head_dirty = true;
}

static int do_truncate(struct store *s, uint64_t from, char **ret_sentence)
{
    struct log_file *f = s->current;
    if (from >= s->next_index)
        return 0;
    s->next_index = from;
    if (from < f->head.first_index) { /* Cuts off the rest in the older files, see store_log.h. */
        f->head.first_index = from;
        f->head_dirty = true;
    }
    return log_cut(f, from, ret_sentence);
}

static int do_write(struct store *s, const struct store_item *item, char **ret_sentence)
{
    struct log_file *f = s->current;
    int error = 0;
    begin_file(s);
    if (item->set_vote) {
        s->term = f->head.term = item->term;
        s->voted_for = f->head.voted_for = item->voted_for;
        f->head_dirty = true;
    }
    if (item->truncate_from != 0)
        error = do_truncate(s, item->truncate_from, ret_sentence);
    for (unsigned i = 0; i < item->n_entries && error == 0; i++) {
        assert(item->entries[i].index == s->next_index); /* The replica never leaves gaps. */
        error = log_insert(f, &item->entries[i], ret_sentence);
        s->next_index++;
    }
    return error;
}

static void publish(struct store *s, uint64_t ticket, unsigned n, uint64_t bytes, uint64_t took_ns)
{
    pthread_mutex_lock(&s->mutex);
    bool wake = false;
    if (s->failure == NULL && ticket > s->ticket_durable) {
        s->ticket_durable = ticket;
        wake = true;
    }
    s->commit_us[s->n_transactions++ % STORE_SAMPLES] = (uint32_t)(took_ns / NS_PER_US);
    buckets_add(&s->commit, took_ns);
    s->n_writes += n;
    s->n_bytes += bytes;
    pthread_mutex_unlock(&s->mutex);
    if (wake)
        wakeup_send(s->wakeup);
}

/* Does this write change anything that is stored at once? */
static bool is_empty(const struct store_item *item)
{
    return !item->set_vote && item->truncate_from == 0 && item->n_entries == 0;
}

/* One transaction of as many writes from the front of the list as fit.
 *
 * Return: false when the store failed. */
static bool commit_some(struct store *s, struct store_items *items)
{
    struct store_item *first = STAILQ_FIRST(items);
    if (!make_room(s, first->frames))
        return false;
    uint64_t started_ns = clock_mono_ns(clock_system());
    unsigned room = s->current->frames_prepared - s->current->frames;
    unsigned limit = room < TRANSACTION_FRAMES_MAX ? room : TRANSACTION_FRAMES_MAX;
    unsigned frames = LOG_FRAMES_BASE, n = 0;
    uint64_t ticket = 0, bytes = 0, drop_to = 0;
    bool changed = false;
    char *sentence = NULL;
    int error = 0;
    struct store_item *item;
    while (error == 0 && (item = STAILQ_FIRST(items)) != NULL && item->type == ITEM_WRITE &&
           (n == 0 || frames + item->frames <= limit)) {
        if (!is_empty(item)) {
            if (!changed)
                error = log_begin(s->current, &sentence);
            changed = true;
            if (error == 0)
                error = do_write(s, item, &sentence);
        }
        frames += item->frames;
        n++;
        ticket = item->ticket;
        drop_to = item->drop_to > drop_to ? item->drop_to : drop_to;
        for (unsigned i = 0; i < item->n_entries; i++)
            bytes += item->entries[i].data.size;
        STAILQ_REMOVE_HEAD(items, link);
        store_item_free(item);
    }
    if (error == 0 && changed)
        error = log_commit(s->current, &sentence);
    if (error != 0) {
        store_fail(s, sentence);
        return false;
    }
    publish(s, ticket, n, bytes, clock_mono_ns(clock_system()) - started_ns);
    if (drop_to != 0)
        store_job_post(s, (struct store_job){.type = JOB_DROP,
                                             .number = drop_to,
                                             .current_begun = s->current->head.first_index != 0});
    return true;
}

/* An image replaces the log: begin a new file, and let the keeper make image, list of files and
 * base one transaction of meta.db. Before it, the old log counts and the new file has no head;
 * after it, the old files do not exist for anybody. */
static bool install(struct store *s, struct snapshot_request *r)
{
    struct log_file *old = NULL;
    bool switched = s->current->head.first_index != 0;
    if (switched && (old = next_file(s)) == NULL) {
        snapshot_request_free(r);
        return false;
    }
    s->next_index = r->image.index + 1;
    pthread_mutex_lock(&s->mutex);
    s->installed = false;
    pthread_mutex_unlock(&s->mutex);
    store_job_post(s, (struct store_job){.type = JOB_INSTALL,
                                         .file = old,
                                         .snapshot = r,
                                         .number = s->current->head.seq,
                                         .term = s->term,
                                         .voted_for = s->voted_for});
    if (switched)
        store_job_post(s, (struct store_job){.type = JOB_PREPARE});
    pthread_mutex_lock(&s->mutex);
    while (!s->installed && s->failure == NULL)
        pthread_cond_wait(&s->writer_reply, &s->mutex);
    bool ok = s->failure == NULL;
    pthread_mutex_unlock(&s->mutex);
    return ok;
}

static bool pass_on(struct store *s, struct store_item *item)
{
    bool ok = true;
    struct snapshot_request *r = item->snapshot;
    item->snapshot = NULL;
    if (item->type == ITEM_SNAPSHOT && r->drop_log)
        ok = install(s, r);
    else if (item->type == ITEM_SNAPSHOT)
        store_job_post(s, (struct store_job){.type = JOB_SNAPSHOT, .snapshot = r});
    else
        store_job_post(s,
                       (struct store_job){.type = item->type == ITEM_PEER ? JOB_PEER : JOB_CLUSTER,
                                          .number = item->number,
                                          .value = item->value});
    store_item_free(item);
    return ok;
}

void *store_writer_run(void *arg)
{
    struct store *s = arg;
    bool ok = true, stop = false;
    while (!stop) {
        struct store_items items = STAILQ_HEAD_INITIALIZER(items);
        pthread_mutex_lock(&s->mutex);
        while (STAILQ_EMPTY(&s->items) && !s->writer_stop)
            pthread_cond_wait(&s->writer_wake, &s->mutex);
        STAILQ_CONCAT(&items, &s->items);
        ok = s->failure == NULL;
        stop = STAILQ_EMPTY(&items);
        pthread_mutex_unlock(&s->mutex);
        while (!STAILQ_EMPTY(&items)) {
            struct store_item *item = STAILQ_FIRST(&items);
            if (ok && item->type == ITEM_WRITE) {
                ok = commit_some(s, &items);
                continue;
            }
            STAILQ_REMOVE_HEAD(&items, link);
            if (ok)
                ok = pass_on(s, item);
            else
                store_item_free(item);
        }
    }
    return NULL;
}
