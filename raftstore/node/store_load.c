/* Opening the directory: what is found is verified in full before anything of it is believed, and
 * nothing is changed before that but what a crash left over. */
#include "raftstore/node/store_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "raftstore/base/buf.h"
#include "raftstore/base/random.h"
#include "raftstore/node/store_files.h"
#include "raftstore/node/store_wal.h"

/* The log as it is being put together. */
struct load {
    struct store *s;
    unsigned n, n_alloc;
    char **ret_sentence;
    bool any_ours;      /* A log or snapshot file exists. */
    char foreign[64];   /* Name of one. */
    struct buf garbage; /* Names to be removed, each with its NUL. */
};

static void pop_from(struct load *l, uint64_t from)
{
    while (l->n > 0 && l->s->entries[l->n - 1].index >= from)
        free((void *)(uintptr_t)l->s->entries[--l->n].data.data);
}

static void push(void *arg, const struct replica_entry *e)
{
    struct load *l = arg;
    if (l->n == l->n_alloc) {
        l->n_alloc = l->n_alloc > 0 ? 2 * l->n_alloc : 64;
        l->s->entries = xrealloc(l->s->entries, l->n_alloc * sizeof *l->s->entries);
    }
    l->s->entries[l->n] = *e;
    l->s->entries[l->n++].data.data = e->data.size > 0 ? xmemdup(e->data.data, e->data.size) : NULL;
}

static int visit_first(void *arg, enum files_kind kind, const char *name, uint64_t number)
{
    struct load *l = arg;
    (void)number;
    if (kind == FILES_LOG || kind == FILES_SNAPSHOT || kind == FILES_BESIDE) {
        l->any_ours = true;
        (void)snprintf(l->foreign, sizeof l->foreign, "%.60s", name);
    }
    return 0;
}

/* meta.db: open it, or make it in an empty directory. */
static int load_meta(struct load *l)
{
    struct store *s = l->s;
    char *path = files_path(s->directory, "meta.db");
    int error = 0;
    if (!files_exist(path)) {
        error = files_visit(s->directory, visit_first, l, l->ret_sentence);
        if (error == 0 && l->any_ours)
            error = fail_damaged(l->ret_sentence, path, "the file is missing, but there is %s",
                                 l->foreign);
        struct meta fresh = {.incarnation = random_system(), .next_seq = 1};
        if (error == 0)
            error = meta_create(s->directory, &fresh, l->ret_sentence);
    }
    free(path);
    if (error == 0)
        error = meta_open(s->directory, &s->meta_db, &s->meta, l->ret_sentence);
    if (error == 0)
        s->incarnation = s->meta.incarnation;
    return error;
}

/* Add what one file holds to the log, and take term and vote from its head. */
static int load_file(struct load *l, struct log_file *f, const struct meta_file *sealed)
{
    struct store *s = l->s;
    uint64_t first = f->head.first_index;
    if (first == 0)
        return sealed == NULL ? 0 : fail_damaged(l->ret_sentence, f->path, "it has no beginning");
    pop_from(l, first);
    if (l->n > 0 && s->entries[l->n - 1].index + 1 != first)
        return fail_damaged(l->ret_sentence, f->path,
                            "it starts at entry %" PRIu64
                            ", but the log before it ends at %" PRIu64,
                            first, s->entries[l->n - 1].index);
    int error = log_read(f, push, l, l->ret_sentence);
    if (error == 0 && sealed != NULL &&
        (first != sealed->first_index || f->last_index != sealed->last_index))
        error = fail_damaged(l->ret_sentence, f->path,
                             "it ends at entry %" PRIu64 " and must end at %" PRIu64, f->last_index,
                             sealed->last_index);
    s->term = f->head.term;
    s->voted_for = f->head.voted_for;
    s->next_index = f->last_index + 1;
    return error;
}

/* Read all files, the oldest first. Those that are not sealed become so, or, when nothing was ever
 * written to them, vanish. */
static int load_log(struct load *l)
{
    struct store *s = l->s;
    s->term = s->meta.base_term;
    s->voted_for = s->meta.base_voted_for;
    s->next_index = s->meta.image.index + 1;
    int error = 0;
    for (unsigned i = 0; i < s->meta.n_files && error == 0; i++) {
        const struct meta_file m = s->meta.files[i];
        struct log_file *f = NULL;
        error = m.sealed ? log_open_sealed(s->directory, m.seq, s->incarnation, &f, l->ret_sentence)
                         : log_recover(s->directory, m.seq, s->incarnation, m.wal_bytes, &f,
                                       l->ret_sentence);
        if (error == 0)
            error = load_file(l, f, m.sealed ? &m : NULL);
        if (error == 0 && !m.sealed && f->head.first_index != 0) {
            error = keeper_seal(s, f, l->ret_sentence);
            f = NULL;
        }
        log_close(f);
    }
    return error;
}

/* The log and the snapshot must meet. */
static int check_log(struct load *l)
{
    struct store *s = l->s;
    const struct replica_image *image = &s->meta.image;
    if (image->index != 0) {
        char *path = files_snapshot_path(s->directory, image->index);
        int error =
            files_exist(path) ? 0 : fail_damaged(l->ret_sentence, path, "the file is missing");
        free(path);
        if (error != 0)
            return error;
    }
    if (l->n > 0 && s->entries[0].index > image->index + 1)
        return fail_damaged(l->ret_sentence, s->directory,
                            "the log starts at entry %" PRIu64
                            ", but what is before it is only known up to %" PRIu64,
                            s->entries[0].index, image->index);
    return 0;
}

/* A file that meta.db does not know yet can only be one that was being prepared. If it has been
 * begun, meta.db is not the one that belongs to it. */
static int check_unknown(struct load *l, uint64_t seq)
{
    struct store *s = l->s;
    struct log_file *f = NULL;
    char *sentence = NULL;
    int error = log_recover(s->directory, seq, s->incarnation, 2 * WAL_HEADER_BYTES, &f, &sentence);
    if (error != 0) {
        free(sentence);
        sentence = NULL;
        error = log_open_sealed(s->directory, seq, s->incarnation, &f, &sentence);
    }
    free(sentence); /* Half made: as a crash leaves it. */
    if (error == 0 && f->head.first_index != 0)
        error = fail_damaged(l->ret_sentence, s->directory,
                             "meta.db is older than log file %" PRIu64, seq);
    else
        error = 0;
    log_close(f);
    return error;
}

static int visit_garbage(void *arg, enum files_kind kind, const char *name, uint64_t number)
{
    struct load *l = arg;
    struct meta *m = &l->s->meta;
    bool gone = kind == FILES_TEMPORARY;
    if (kind == FILES_LOG) {
        gone = meta_file(m, number) == NULL;
        int error = number >= m->next_seq ? check_unknown(l, number) : 0;
        if (error != 0)
            return error;
    }
    if (kind == FILES_SNAPSHOT)
        gone = m->image.index == 0 || m->image.index != number;
    if (gone)
        buf_add(&l->garbage, name, strlen(name) + 1);
    return 0;
}

/* Remove what crashes left: temporary files, and what meta.db does not know. */
static int remove_garbage(struct load *l)
{
    int error = files_visit(l->s->directory, visit_garbage, l, l->ret_sentence);
    for (size_t at = 0; at < l->garbage.size && error == 0;) {
        const char *name = (const char *)l->garbage.data + at;
        char *path = files_path(l->s->directory, name);
        error = files_remove_database(path, l->ret_sentence);
        free(path);
        at += strlen(name) + 1;
    }
    buf_deinit(&l->garbage);
    return error;
}

/* Forget files: those never begun; and all of them when the log does not count.
 *
 * @all: term and vote move to the base, in the same transaction. */
static void forget_files(struct store *s, bool all)
{
    if (all) {
        s->meta.base_term = s->term;
        s->meta.base_voted_for = s->voted_for;
        s->meta.n_files = 0;
        return;
    }
    for (unsigned i = s->meta.n_files; i-- > 0;)
        if (!s->meta.files[i].sealed)
            meta_remove_files(&s->meta, i, 1);
}

static void fill_loaded(struct load *l)
{
    struct store *s = l->s;
    if (s->meta.image.index != 0) {
        s->image = s->meta.image;
        s->image.conf.data = xmemdup(s->meta.image.conf.data, s->meta.image.conf.size);
        s->image_path = files_snapshot_path(s->directory, s->image.index);
    }
    s->n_peers = s->meta.n_peers;
    s->peers = s->n_peers > 0 ? xmemdup(s->meta.peers, s->n_peers * sizeof *s->peers) : NULL;
    s->loaded = (struct store_loaded){.fresh = s->meta.node_id == 0,
                                      .incarnation = s->incarnation,
                                      .cluster_id = s->meta.cluster_id,
                                      .node_id = s->meta.node_id,
                                      .term = s->term,
                                      .voted_for = s->voted_for,
                                      .image = s->image,
                                      .image_path = s->image_path,
                                      .entries = s->entries,
                                      .n_entries = l->n};
}

int store_load(struct store *s, char **ret_sentence)
{
    struct load l = {.s = s, .ret_sentence = ret_sentence};
    int error = load_meta(&l);
    if (error == 0)
        error = load_log(&l);
    if (error == 0)
        error = check_log(&l);
    s->loaded.n_entries = l.n; /* For store_loaded_free(), also after a failure. */
    if (error != 0)
        return error;
    /* A log that ends before the snapshot is of no use (engine notes, Restart): what it lacks up to
     * the snapshot was never stored here. And a directory that was not initialised to the end
     * belongs to nobody yet. */
    bool all = s->meta.node_id == 0 || (s->next_index <= s->meta.image.index);
    if (s->meta.node_id == 0)
        s->term = s->voted_for = 0;
    if (all) {
        pop_from(&l, 0);
        s->next_index = s->meta.image.index + 1;
    }
    forget_files(s, all);
    error = meta_save(&s->meta_db, &s->meta, ret_sentence);
    if (error == 0)
        error = remove_garbage(&l);
    if (error == 0)
        error = keeper_prepare(s, &s->current, ret_sentence);
    fill_loaded(&l);
    return error;
}
