/* What is given back: releases that nobody waits for, and at the close of a file. */
#include "fs/locking_internal.h"

#include "fs/errno_table.h"
#include "raftstore/base/log.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <errno.h>
#include <stdlib.h>

static void retry_all(struct lock_file *f)
{
    struct lock_request *r;
    while (LIST_EMPTY(&f->releases) && (r = TAILQ_FIRST(&f->retry)) != NULL) {
        TAILQ_REMOVE(&f->retry, r, retry_link);
        lock_request_ask(r, STEP_ASK);
    }
}

static void on_released(void *arg, const struct client_result *result)
{
    struct lock_release *release = arg;
    struct lock_file *f = release->file;
    if (result->status != 0 && result->status != -ECANCELED)
        LOG_WARN("release not confirmed", "path=%s status=%d", log_quote(bytes_str(f->path)),
                 result->status);
    LIST_REMOVE(release, link);
    free(release->text);
    free(release);
    retry_all(f);
    lock_file_unref(f);
}

void lock_command_fill(Hf__Command *command,
                       ProtobufCBinaryData *path,
                       const struct locker *l,
                       uint32_t op,
                       uint64_t start,
                       uint64_t end)
{
    hf__command__init(command);
    *path = pack_binary(bytes_str(l->file->path));
    command->op = op;
    command->paths = path;
    command->n_paths = 1;
    command->owner = pack_binary(bytes_str(l->text));
    command->kind = l->kind == LOCKER_FLOCK ? WIRE_KIND_FLOCK : WIRE_KIND_POSIX;
    command->start = start;
    command->end_inverted = UINT64_MAX - end;
}

int lock_command_send(
    struct fs *fs, const Hf__Command *command, client_result_cb cb, void *arg, uint64_t *ret_handle)
{
    if (fs->failed || fs->closed)
        return EIO;
    int r = client_command(fs->client, command, CLIENT_NO_TIMEOUT, cb, arg, ret_handle);
    return r < 0 ? errno_of_status(r) : 0;
}

int lock_command_give_back(struct fs *fs,
                           const Hf__Command *command,
                           client_result_cb cb,
                           void *arg)
{
    if (fs->failed || fs->closed)
        return EIO;
    int r = client_upkeep(fs->client, command, CLIENT_NO_TIMEOUT, cb, arg, NULL);
    return r < 0 ? errno_of_status(r) : 0;
}

void locking_send_release(const struct locker *l, uint64_t start, uint64_t end)
{
    Hf__Command command;
    ProtobufCBinaryData path;
    struct lock_file *f = l->file;
    struct lock_release *release = xcalloc(1, sizeof *release);
    lock_command_fill(&command, &path, l, WIRE_OP_RELEASE, start, end);
    int error = lock_command_give_back(f->fs, &command, on_released, release);
    if (error != 0) {
        free(release);
        LOG_WARN("release not sent", "path=%s error=%d", log_quote(bytes_str(f->path)), error);
        return; /* It goes with the session. */
    }
    release->file = f;
    release->text = start == 0 && end == HELD_END ? xstrdup(l->text) : NULL;
    LIST_INSERT_HEAD(&f->releases, release, link);
    lock_file_ref(f);
}

/* ---- Lockers that lean ---- */

/* Nobody leans on it any more: the cluster is told how little it holds meanwhile. */
static void reconcile(struct locker *l)
{
    if (held_all(&l->held))
        return;
    if (l->held.n == 0) {
        locking_send_release(l, 0, HELD_END);
        locker_rename(l);
        return;
    }
    struct lock_request *r = lock_request_new(l->file->fs);
    r->op.fs = l->file->fs;
    r->handle = l->handle;
    handle_ref(r->handle);
    r->want = (struct lock_want){.kind = l->kind, .mode = HELD_EXCLUSIVE, .end = HELD_END};
    r->orphan = true;
    l->n_orphans++;
    lock_request_join(r, l);
    lock_request_undo(r);
}

void locking_unlean(struct locker *l)
{
    struct locker *on = l->leans;
    locker_ref(on);
    locker_unlean(l);
    reconcile(on);
    locker_unref(on);
}

void locking_stand_alone(struct locker *l)
{
    struct locker *leaner = l->leaner;
    if (leaner == NULL)
        return;
    held_set(&leaner->held, 0, HELD_END, HELD_NONE);
    locker_unlean(leaner);
}

/* ---- Close ---- */

static void drop(struct locker *l)
{
    struct lock_request *r, *next;
    bool any = l->adopted == NULL && (l->held.n > 0 || !TAILQ_EMPTY(&l->requests));
    locker_ref(l);
    locker_detach(l);
    if (l->held.n > 0)
        held_set(&l->held, 0, HELD_END, HELD_NONE);
    if (l->leans != NULL)
        locking_unlean(l);
    else if (any && l->leaner == NULL) /* Else it goes with that one. */
        locking_send_release(l, 0, HELD_END);
    TAILQ_FOREACH_SAFE(r, &l->requests, link, next)
    {
        if (!r->orphan && !r->sent) {
            lock_request_start_anew(r);
        } else if (!r->orphan) {
            r->restart = true;
            client_cancel(lock_request_fs(r)->client, r->command);
        }
    }
    TAILQ_FOREACH_SAFE(r, &l->requests, link, next)
    {
        if (r->orphan)
            lock_request_cancel_orphan(r);
    }
    locker_unref(l);
}

void locking_flush(const struct handle *h, uint64_t owner)
{
    struct locker *l = locker_find(h, LOCKER_FCNTL, owner);
    if (l != NULL)
        drop(l);
}

void locking_release_handle(struct handle *h)
{
    struct locker *l, *next;
    h->closed = true;
    LIST_FOREACH_SAFE(l, &h->lockers, in_handle, next)
    {
        (void)locker_move(l); /* If it can't be, it goes below. */
    }
    while ((l = LIST_FIRST(&h->lockers)) != NULL)
        drop(l);
}

void locking_release(struct locker *l)
{
    held_set(&l->held, 0, HELD_END, HELD_NONE);
    if (l->leans != NULL) {
        locking_unlean(l);
        return;
    }
    locking_stand_alone(l);
    if (!TAILQ_EMPTY(&l->requests)) {
        drop(l); /* What is under way must not be met by the release. */
        return;
    }
    locking_send_release(l, 0, HELD_END);
    locker_rename(l);
}
