#include "raftstore/node/store_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "raftstore/base/buf.h"
#include "raftstore/node/store_files.h"

/* Make the file after the youngest one and enter it in meta.db; only then may it be written to. */
int keeper_prepare(struct store *s, struct log_file **ret_file, char **ret_sentence)
{
    uint64_t seq = s->meta.next_seq;
    struct log_file *f = NULL;
    int error =
        log_prepare(s->directory, seq, s->incarnation, s->wal_bytes, s->spare, &f, ret_sentence);
    if (error != 0)
        return error;
    meta_add_file(&s->meta, (struct meta_file){.seq = seq, .wal_bytes = s->wal_bytes});
    s->meta.next_seq = seq + 1;
    error = meta_save(&s->meta_db, &s->meta, ret_sentence);
    if (error != 0) {
        log_close(f);
        return error;
    }
    *ret_file = f;
    return 0;
}

/* Take a WAL away that means nothing any more: keep it as the spare, or remove it. */
static int put_away_wal(struct store *s, const char *wal, char **ret_sentence)
{
    if (!files_exist(s->spare) && files_size(wal) == s->wal_bytes)
        return files_rename(wal, s->spare, ret_sentence);
    return files_remove(wal, ret_sentence);
}

int keeper_seal(struct store *s, struct log_file *f, char **ret_sentence)
{
    char *wal = xasprintf("%s-wal", f->path);
    int error = log_checkpoint(f, ret_sentence);
    if (error == 0) {
        struct meta_file *m = meta_file(&s->meta, f->head.seq);
        m->sealed = true;
        m->begun = f->head.first_index != 0;
        m->first_index = f->head.first_index;
        m->last_index = f->last_index;
        m->wal_bytes = 0;
        error = meta_save(&s->meta_db, &s->meta, ret_sentence);
    }
    log_close(f);
    if (error == 0)
        error = put_away_wal(s, wal, ret_sentence);
    free(wal);
    return error;
}

/* Remove the n oldest files: from the list first. */
static int remove_oldest(struct store *s, unsigned n, char **ret_sentence)
{
    if (n == 0)
        return 0;
    uint64_t *seqs = xmalloc(n * sizeof *seqs);
    for (unsigned i = 0; i < n; i++)
        seqs[i] = s->meta.files[i].seq;
    meta_remove_files(&s->meta, 0, n);
    int error = meta_save(&s->meta_db, &s->meta, ret_sentence);
    for (unsigned i = 0; i < n && error == 0; i++) {
        char *path = files_log_path(s->directory, seqs[i]);
        error = files_remove_database(path, ret_sentence);
        free(path);
    }
    free(seqs);
    return error;
}

static int do_drop(struct store *s, const struct store_job *job, char **ret_sentence)
{
    unsigned n_sealed = 0;
    while (n_sealed < s->meta.n_files && s->meta.files[n_sealed].sealed)
        n_sealed++;
    /* The youngest begun file has term and vote. */
    unsigned n_may = job->current_begun || n_sealed == 0 ? n_sealed : n_sealed - 1;
    /* Never beyond the snapshot that is durable here, whatever is asked for. */
    uint64_t to = job->number < s->meta.image.index ? job->number : s->meta.image.index;
    uint64_t cut = UINT64_MAX; /* Entries from here on are cut off by a younger file. */
    unsigned n = n_sealed;
    for (; n > 0; n--) { /* An older file ends no later than a younger one. */
        const struct meta_file *f = &s->meta.files[n - 1];
        uint64_t last = f->last_index < cut ? f->last_index : cut - 1;
        if (n <= n_may && last <= to)
            break;
        cut = f->first_index < cut ? f->first_index : cut;
    }
    return remove_oldest(s, n, ret_sentence);
}

/* Rename into place; durable. */
static int place(struct store *s, const struct snapshot_request *r, char *to, char **ret_sentence)
{
    int error = strcmp(r->path, to) == 0 ? 0 : files_rename(r->path, to, ret_sentence);
    return error != 0 ? error : files_sync(s->directory, ret_sentence);
}

static int do_snapshot(struct store *s, struct store_job *job, char **ret_sentence)
{
    struct snapshot_request *r = job->snapshot;
    struct store_done *done = xcalloc(1, sizeof *done);
    done->path = files_snapshot_path(s->directory, r->image.index);
    uint64_t old_index = s->meta.image.index;
    int error = place(s, r, done->path, ret_sentence);
    if (error == 0) {
        unsigned n_before = 0;
        if (job->type == JOB_INSTALL) {
            s->meta.base_term = job->term;
            s->meta.base_voted_for = job->voted_for;
            while (n_before < s->meta.n_files && s->meta.files[n_before].seq < job->number)
                n_before++;
        }
        meta_set_image(&s->meta, &r->image);
        if (n_before > 0)
            error = remove_oldest(s, n_before, ret_sentence); /* Saves the image as well. */
        else
            error = meta_save(&s->meta_db, &s->meta, ret_sentence);
    }
    log_close(job->file);
    job->file = NULL;
    if (error == 0 && old_index != 0 && old_index != r->image.index) {
        char *old = files_snapshot_path(s->directory, old_index);
        error = files_remove_database(old, ret_sentence);
        free(old);
    }
    if (error != 0) {
        free(done->path);
        free(done);
        return error;
    }
    done->snapshot = r;
    job->snapshot = NULL;
    pthread_mutex_lock(&s->mutex);
    STAILQ_INSERT_TAIL(&s->dones, done, link);
    /* The writer may be waiting for an image already that is queued behind a plain snapshot. Were
     * it let go by that, its new file would count beside the log that the image replaces. */
    if (job->type == JOB_INSTALL) {
        s->installed = true;
        pthread_cond_broadcast(&s->writer_reply);
    }
    pthread_mutex_unlock(&s->mutex);
    wakeup_send(s->wakeup);
    return 0;
}

static int do_prepare(struct store *s, char **ret_sentence)
{
    struct log_file *f;
    int error = keeper_prepare(s, &f, ret_sentence);
    if (error != 0)
        return error;
    pthread_mutex_lock(&s->mutex);
    s->prepared = f;
    pthread_cond_broadcast(&s->writer_reply);
    pthread_mutex_unlock(&s->mutex);
    return 0;
}

static int run_job(struct store *s, struct store_job *job, char **ret_sentence)
{
    struct log_file *f = job->file;
    switch (job->type) {
    case JOB_PREPARE:
        return do_prepare(s, ret_sentence);
    case JOB_SEAL:
        job->file = NULL;
        return keeper_seal(s, f, ret_sentence);
    case JOB_DROP:
        return do_drop(s, job, ret_sentence);
    case JOB_SNAPSHOT:
    case JOB_INSTALL:
        return do_snapshot(s, job, ret_sentence);
    case JOB_CLUSTER:
        s->meta.cluster_id = job->value;
        return meta_save(&s->meta_db, &s->meta, ret_sentence);
    case JOB_PEER:
        meta_set_peer(&s->meta, job->number, job->value);
        return meta_save(&s->meta_db, &s->meta, ret_sentence);
    }
    return 0;
}

void store_job_post(struct store *s, struct store_job job)
{
    struct store_job *copy = xmemdup(&job, sizeof job);
    pthread_mutex_lock(&s->mutex);
    STAILQ_INSERT_TAIL(&s->jobs, copy, link);
    pthread_mutex_unlock(&s->mutex);
    pthread_cond_signal(&s->keeper_wake);
}

void *store_keeper_run(void *arg)
{
    struct store *s = arg;
    for (;;) {
        pthread_mutex_lock(&s->mutex);
        while (STAILQ_EMPTY(&s->jobs) && !s->keeper_stop)
            pthread_cond_wait(&s->keeper_wake, &s->mutex);
        struct store_job *job = STAILQ_FIRST(&s->jobs);
        if (job != NULL)
            STAILQ_REMOVE_HEAD(&s->jobs, link);
        bool ok = s->failure == NULL;
        pthread_mutex_unlock(&s->mutex);
        if (job == NULL)
            return NULL;
        char *sentence = NULL;
        if (ok && run_job(s, job, &sentence) != 0)
            store_fail(s, sentence);
        log_close(job->file);
        snapshot_request_free(job->snapshot);
        free(job);
    }
}
