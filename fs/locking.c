/* Beginning, session and end.  See locking.h for the steps.
 *
 * | event                | no command under way  | command under way                              |
 * |----------------------|-----------------------|------------------------------------------------|
 * | cluster's answer     | -                     | next step, or reply                            |
 * | interrupt of a wait  | EINTR, free           | EINTR, orphan; canceled after LOCKING_PLACE_MS |
 * | other interrupt      | EINTR, free           | EINTR, orphan; canceled, if it wants more      |
 * | time-out (not waits) | ETIMEDOUT, free       | ETIMEDOUT, orphan; canceled, if it wants more  |
 * | same call again      | -                     | an orphan in its place takes the new request   |
 * | other call of locker | -                     | orphans are canceled; it waits in LINE         |
 * | close                | starts on a new locker| canceled, then starts on a new locker          |
 *
 * A grant to an orphan is undone against locker.held, which orphans never change upwards: what the
 * program was not told it does not get, what it had before it keeps. */
#include "fs/locking_internal.h"

#include <errno.h>
#include <stdlib.h>

struct fs *lock_request_fs(const struct lock_request *r)
{
    return r->locker->file->fs;
}

/* ---- Beginning ---- */

static struct locker *locker_get(struct handle *h, enum locker_kind kind, uint64_t owner)
{
    struct locker *l = locker_find(h, kind, owner);
    return l != NULL ? l : locker_new(h, kind, owner);
}

void lock_request_start_anew(struct lock_request *r)
{
    struct locker *old = r->locker;
    if (!op_waiting(&r->op)) {
        lock_request_finish(r, 0);
        return;
    }
    if (r->step == STEP_RETRY)
        TAILQ_REMOVE(&old->file->retry, r, retry_link);
    r->step = STEP_LINE;
    r->restart = false;
    TAILQ_REMOVE(&old->requests, r, link);
    lock_request_join(r, locker_get(r->handle, r->want.kind, old->kernel_owner));
    locker_unref(old);
    if (r->locker->n_orphans == 0)
        lock_request_begin(r);
}

/* The program goes on to something else: nothing keeps its place. */
static void cancel_places(struct locker *l)
{
    struct lock_request *r;
    do {
        TAILQ_FOREACH(r, &l->requests, link)
        {
            if (r->in_place)
                break;
        }
        if (r != NULL)
            lock_request_cancel_orphan(r); /* May free it. */
    } while (r != NULL);
}

void locking_start(fuse_req_t req, struct handle *h, uint64_t owner, const struct lock_want *want)
{
    if (handle_lost(h)) {
        (void)fuse_reply_err(req, ESTALE);
        return;
    }
    struct locker *l = locker_find(h, want->kind, owner);
    if (l != NULL)
        locker_through(l, h);
    struct lock_request *r =
        l != NULL && want->mode != HELD_NONE ? lock_request_find_place(l, want) : NULL;
    if (r != NULL) {
        lock_request_resume(r, req, h);
        return;
    }
    if (l == NULL && want->mode == HELD_NONE) {
        (void)fuse_reply_err(req, 0); /* Nothing is locked. */
        return;
    }
    r = lock_request_new(h->fs);
    op_init(&r->op, req, lock_request_interrupted);
    r->handle = h;
    handle_ref(h);
    r->want = *want;
    r->process = op_process(&r->op);
    if (r->want.pid == 0)
        r->want.pid = r->process.pid;
    if (l != NULL)
        cancel_places(l);
    lock_request_join(r, l != NULL ? l : locker_new(h, want->kind, owner));
    if (!want->sleep || want->mode == HELD_NONE)
        lock_request_set_timer(r, op_timeout_ms(&r->op));
    if (r->locker->n_orphans == 0)
        lock_request_begin(r);
}

/* ---- Session and end ---- */

/* All requests of the mount, one after the other; `visit` may free the one that it is given. */
static void visit_all(struct fs *fs, void (*visit)(struct lock_request *r))
{
    struct lock_file *f, *next_file;
    struct locker *l, *next_locker;
    struct lock_request *r, *next;
    HASH_ITER(hh, fs->lock_files, f, next_file)
    {
        lock_file_ref(f);
        LIST_FOREACH_SAFE(l, &f->lockers, in_file, next_locker)
        {
            locker_ref(l);
            l->visited = true;
            TAILQ_FOREACH_SAFE(r, &l->requests, link, next)
            {
                visit(r);
            }
            l->visited = false;
            if (l->n_orphans == 0)
                locking_run_line(l);
            locker_unref(l);
        }
        lock_file_unref(f);
    }
}

static void on_kept(struct lock_request *r)
{
    if (r->step == STEP_SESSION)
        lock_request_granted(r);
}

static void on_ended(struct lock_request *r)
{
    if (r->step == STEP_SESSION && r->locker->lost)
        lock_request_finish(r, ESTALE);
    else if (r->step == STEP_SESSION)
        lock_request_ask(r, STEP_ASK);
    else if (r->step == STEP_KEPT)
        lock_request_finish(r, 0);
}

void locking_session_kept(struct fs *fs)
{
    visit_all(fs, on_kept);
}

void locking_session_ended(struct fs *fs)
{
    visit_all(fs, on_ended);
}

uint64_t locking_n_waiting(const struct fs *fs)
{
    const struct lock_request *r;
    uint64_t n = 0;
    LIST_FOREACH(r, &fs->lock_requests, in_fs)
    n += !r->orphan && r->want.sleep && r->want.mode != HELD_NONE;
    return n;
}

static void on_close(struct lock_request *r)
{
    if (!r->sent && r->step != STEP_UNDO)
        lock_request_finish(r, EIO);
}

void locking_close(struct fs *fs)
{
    visit_all(fs, on_close);
}
