#include "fs/locker.h"

#include "raftstore/base/buf.h"

#include <inttypes.h>
#include <stdlib.h>

struct lock_file *lock_file_find(const struct fs *fs, const char *path)
{
    struct lock_file *f = NULL;
    if (fs->lock_files != NULL)
        HASH_FIND_STR(fs->lock_files, path, f);
    return f;
}

static struct lock_file *lock_file_get(struct fs *fs, const char *path)
{
    struct lock_file *f = lock_file_find(fs, path);
    if (f != NULL)
        return f;
    f = xcalloc(1, sizeof *f);
    f->path = xstrdup(path);
    f->fs = fs;
    f->inode = inode_free_lock(&fs->inodes, path);
    LIST_INIT(&f->lockers);
    LIST_INIT(&f->fcntl);
    LIST_INIT(&f->releases);
    TAILQ_INIT(&f->retry);
    HASH_ADD_KEYPTR(hh, fs->lock_files, f->path, strlen(f->path), f);
    return f;
}

void lock_file_ref(struct lock_file *f)
{
    f->n_refs++;
}

void lock_file_unref(struct lock_file *f)
{
    if (--f->n_refs > 0)
        return;
    HASH_DEL(f->fs->lock_files, f);
    inode_unref(&f->fs->inodes, f->inode);
    free(f->path);
    free(f);
}

bool lock_file_releases(const struct fs *fs, const char *path, struct bytes owner)
{
    const struct lock_file *f = lock_file_find(fs, path);
    const struct lock_release *release;
    if (f == NULL)
        return false;
    LIST_FOREACH(release, &f->releases, link)
    {
        if (release->text != NULL && bytes_equal(bytes_str(release->text), owner))
            return true;
    }
    return false;
}

static struct locker *
locker_find_fcntl(const struct fs *fs, const char *path, uint64_t kernel_owner)
{
    struct lock_file *f = lock_file_find(fs, path);
    struct locker *l;
    if (f == NULL)
        return NULL;
    LIST_FOREACH(l, &f->fcntl, in_fcntl)
    {
        if (l->kernel_owner == kernel_owner)
            return l;
    }
    return NULL;
}

struct locker *locker_find(const struct handle *h, enum locker_kind kind, uint64_t kernel_owner)
{
    struct locker *l;
    LIST_FOREACH(l, &h->lockers, in_handle)
    {
        /* (The file may have got another name since, which a lock of the session does not.) */
        if (l->kind == kind && (kind == LOCKER_FLOCK || l->kernel_owner == kernel_owner))
            return l;
    }
    return kind == LOCKER_FCNTL ? locker_find_fcntl(h->fs, h->inode->path, kernel_owner) : NULL;
}

static char *make_text(struct fs *fs, enum locker_kind kind)
{
    struct buf text = BUF_INIT;
    buf_printf(&text, "%s/%s/s%08" PRIx32 "/%s/%" PRIx64, fs->namer.host, fs->namer.boot,
               fs->namer.nonce, kind == LOCKER_FLOCK ? "flock" : "fcntl", ++fs->n_lockers_made);
    buf_add(&text, "", 1);
    return (char *)text.data;
}

/* May a new locker of this handle rely on the handle's lease?  One open file is one owner of
 * flock; of several processes that use fcntl, only the first is as good as the lease. */
static bool may_adopt(const struct handle *h, enum locker_kind kind)
{
    const struct locker *l;
    if (h->hold == NULL || !hold_is_live(h->hold))
        return false;
    LIST_FOREACH(l, &h->lockers, in_handle)
    {
        if (l->adopted != NULL && l->kind == kind)
            return false;
    }
    return true;
}

/* Into and out of its file's lists. */
static void file_join(struct locker *l)
{
    LIST_INSERT_HEAD(&l->file->lockers, l, in_file);
    if (l->kind == LOCKER_FCNTL)
        LIST_INSERT_HEAD(&l->file->fcntl, l, in_fcntl);
}

static void file_leave(struct locker *l)
{
    LIST_REMOVE(l, in_file);
    if (l->kind == LOCKER_FCNTL)
        LIST_REMOVE(l, in_fcntl);
}

struct locker *locker_new(struct handle *h, enum locker_kind kind, uint64_t kernel_owner)
{
    struct locker *l = xcalloc(1, sizeof *l);
    l->n_refs = 1;
    l->kind = kind;
    l->kernel_owner = kernel_owner;
    l->file = lock_file_get(h->fs, h->inode->path);
    lock_file_ref(l->file);
    l->handle = h;
    l->text = make_text(h->fs, kind);
    if (may_adopt(h, kind)) {
        l->adopted = h->hold;
        hold_ref(l->adopted);
    } else {
        l->held.counter = &h->fs->n_held[kind];
    }
    TAILQ_INIT(&l->requests);
    file_join(l);
    LIST_INSERT_HEAD(&h->lockers, l, in_handle);
    return l;
}

void locker_through(struct locker *l, struct handle *h)
{
    struct handle *old = l->latest;
    if (h == l->handle || h == old)
        return;
    handle_ref(h);
    l->latest = h;
    if (old != NULL)
        handle_unref(l->file->fs, old);
}

bool locker_move(struct locker *l)
{
    struct handle *h = l->latest;
    if (h == NULL || h->closed)
        return false;
    LIST_REMOVE(l, in_handle);
    LIST_INSERT_HEAD(&h->lockers, l, in_handle);
    l->handle = h;
    l->latest = NULL;
    handle_unref(l->file->fs, h); /* The kernel has one. */
    return true;
}

struct locker *
locker_support(const struct handle *h, enum locker_kind kind, struct process_id process)
{
    struct locker *l;
    LIST_FOREACH(l, &h->lockers, in_handle)
    {
        if (l->kind != kind && l->adopted == NULL && l->leans == NULL && held_all(&l->held) &&
            !l->lost && process.pid != 0 && process_equal(l->process, process))
            return l;
    }
    return NULL;
}

void locker_lean(struct locker *l, struct locker *on)
{
    l->leans = on;
    locker_ref(on);
    on->leaner = l;
    free(l->text);
    l->text = xstrdup(on->text);
    l->token = on->token;
}

void locker_unlean(struct locker *l)
{
    struct locker *on = l->leans;
    if (on == NULL)
        return;
    l->leans = NULL;
    on->leaner = NULL;
    locker_unref(on);
    locker_rename(l);
}

void locker_detach(struct locker *l)
{
    held_uncount(&l->held);
    file_leave(l);
    LIST_REMOVE(l, in_handle);
    l->handle = NULL;
    locker_unref(l);
}

void lockers_forget(struct handle *h)
{
    struct locker *l;
    while ((l = LIST_FIRST(&h->lockers)) != NULL)
        locker_detach(l);
}

void locker_ref(struct locker *l)
{
    l->n_refs++;
}

void locker_unref(struct locker *l)
{
    if (--l->n_refs > 0)
        return;
    if (l->adopted != NULL)
        hold_unref(l->adopted);
    if (l->leans != NULL) {
        l->leans->leaner = NULL;
        locker_unref(l->leans);
    }
    if (l->latest != NULL)
        handle_unref(l->file->fs, l->latest);
    lock_file_unref(l->file);
    held_deinit(&l->held);
    free(l->heirs);
    free(l->text);
    free(l);
}

void locker_rename(struct locker *l)
{
    free(l->text);
    l->text = make_text(l->file->fs, l->kind);
}

void locker_set_process(struct locker *l, uid_t uid, struct process_id process)
{
    struct lineage lineage;
    l->uid = uid;
    if (process_equal(l->process, process))
        return;
    l->process = process;
    free(l->heirs);
    l->heirs = NULL;
    l->n_heirs = 0;
    if (!process_lineage(l->file->fs->processes, process, &lineage) || lineage.n_heirs == 0)
        return;
    l->n_heirs = lineage.n_heirs;
    l->heirs = xmemdup(lineage.ids, lineage.n_heirs * sizeof l->heirs[0]);
}

bool locker_holds(const struct locker *l)
{
    return l->adopted == NULL && l->held.n > 0;
}

bool locker_check(struct locker *l)
{
    if (l->adopted != NULL)
        return hold_is_live(l->adopted);
    if (l->held.n == 0)
        return !l->lost;
    if (!l->lost && client_session_live(l->file->fs->client))
        return true;
    l->told = true;
    return false;
}

struct locker *
locker_find_authorised(struct fs *fs, const char *path, uid_t uid, const struct lineage *caller)
{
    struct lock_file *f = lock_file_find(fs, path);
    struct locker *l;
    if (f == NULL)
        return NULL;
    LIST_FOREACH(l, &f->lockers, in_file)
    {
        if (locker_holds(l) && l->uid == uid &&
            heirs_authorise(fs->processes, l->heirs, l->n_heirs, caller))
            return l;
    }
    return NULL;
}

struct locker *locker_of_handle(const struct handle *h)
{
    struct locker *l;
    LIST_FOREACH(l, &h->lockers, in_handle)
    {
        if (locker_holds(l))
            return l;
    }
    return NULL;
}

void lockers_follow(struct fs *fs, struct hold *h, const char *old)
{
    struct lock_file *f = lock_file_find(fs, old);
    struct locker *l, *next;
    if (f == NULL)
        return;
    lock_file_ref(f);
    LIST_FOREACH_SAFE(l, &f->lockers, in_file, next)
    {
        if (l->adopted != h)
            continue;
        file_leave(l);
        l->file = lock_file_get(fs, h->at->path);
        lock_file_ref(l->file);
        file_join(l);
        lock_file_unref(f);
    }
    lock_file_unref(f);
}

bool lockers_on_inode(const struct fs *fs, const struct inode *inode)
{
    const struct lock_file *f = lock_file_find(fs, inode->path);
    const struct locker *l;
    if (f == NULL)
        return false;
    LIST_FOREACH(l, &f->lockers, in_file)
    {
        if (locker_holds(l) && l->handle->inode == inode)
            return true;
    }
    return false;
}
