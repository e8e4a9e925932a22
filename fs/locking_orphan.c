/* The end of a request for a lock; time-outs and interrupts: the kernel has its answer then, and
 * the cluster's is still to come.  See locking.c for the events. */
#include "fs/locking_internal.h"

#include <errno.h>
#include <stdlib.h>

/* ---- The end of a request ---- */

static void on_timer_closed(uv_handle_t *timer)
{
    free(timer->data);
}

static void request_free(struct lock_request *r)
{
    struct locker *l = r->locker;
    struct fs *fs = lock_request_fs(r);
    TAILQ_REMOVE(&l->requests, r, link);
    LIST_REMOVE(r, in_fs);
    if (r->step == STEP_RETRY)
        TAILQ_REMOVE(&l->file->retry, r, retry_link);
    handle_unref(fs, r->handle);
    locker_unref(l);
    if (r->has_timer)
        uv_close((uv_handle_t *)&r->timer, on_timer_closed);
    else
        free(r);
}

void locking_run_line(struct locker *l)
{
    struct lock_request *r, *next;
    if (l->visited)
        return;
    locker_ref(l);
    TAILQ_FOREACH_SAFE(r, &l->requests, link, next)
    {
        if (l->n_orphans > 0)
            break;
        if (r->step == STEP_LINE)
            lock_request_begin(r);
    }
    locker_unref(l);
}

void lock_request_finish(struct lock_request *r, int error)
{
    struct locker *l = r->locker;
    bool was_orphan = r->orphan;
    op_reply_errno(&r->op, error);
    locker_ref(l);
    if (was_orphan)
        l->n_orphans--;
    request_free(r);
    if (was_orphan && l->n_orphans == 0)
        locking_run_line(l);
    locker_unref(l);
}

/* ---- Time-outs and interrupts ---- */

static void on_timer(uv_timer_t *timer);

void lock_request_set_timer(struct lock_request *r, uint64_t ms)
{
    if (!r->has_timer) {
        (void)uv_timer_init(lock_request_fs(r)->loop, &r->timer); /* Never fails. */
        r->timer.data = r;
        r->has_timer = true;
    }
    (void)uv_timer_start(&r->timer, on_timer, ms, 0);
}

static void stop_timer(struct lock_request *r)
{
    if (r->has_timer)
        (void)uv_timer_stop(&r->timer);
}

/* What the program gave up is given up, told or not: that is never canceled. */
static bool gives_back(const struct lock_request *r)
{
    return r->step == STEP_UNLOCK || r->step == STEP_YIELD || r->step == STEP_UNDO;
}

void lock_request_cancel_orphan(struct lock_request *r)
{
    if (r->in_place)
        stop_timer(r);
    r->in_place = false;
    if (r->step == STEP_KEPT)
        lock_request_undo(r);
    else if (r->sent && !gives_back(r))
        client_cancel(lock_request_fs(r)->client, r->command);
}

/* What was asked to become less counts as less, done or not. */
static void give_up(struct lock_request *r)
{
    struct held *held = &r->locker->held;
    uint64_t at = r->want.start, end;
    for (;;) {
        enum held_mode mode = held_piece(held, at, r->want.end, &end);
        if (mode > r->want.mode)
            held_set(held, at, end, r->want.mode);
        if (end == r->want.end)
            return;
        at = end + 1;
    }
}

/* The kernel has its answer; the cluster's is still to come.
 *
 * Return: false: there is nothing to cancel, and the request may be gone. */
static bool become_orphan(struct lock_request *r)
{
    if (r->step != STEP_SESSION && !r->sent) {
        lock_request_finish(r, 0);
        return false;
    }
    if (r->restart)
        return false; /* lock_request_start_anew() sees that nobody waits. */
    r->orphan = true;
    r->locker->n_orphans++;
    if (r->step == STEP_SESSION) {
        lock_request_undo(r);
        return false;
    }
    if (r->step == STEP_UNLOCK || r->step == STEP_ASK)
        give_up(r);
    return true;
}

static void on_timer(uv_timer_t *timer)
{
    struct lock_request *r = timer->data;
    if (r->orphan) {
        lock_request_cancel_orphan(r);
        return;
    }
    op_reply_errno(&r->op, ETIMEDOUT);
    if (become_orphan(r))
        lock_request_cancel_orphan(r);
}

void lock_request_interrupted(struct op *op)
{
    struct lock_request *r = (struct lock_request *)op;
    bool waits = r->want.sleep && r->step == STEP_ASK;
    if (!become_orphan(r))
        return;
    if (waits) {
        r->in_place = true;
        lock_request_set_timer(r, LOCKING_PLACE_MS);
    } else {
        lock_request_cancel_orphan(r);
    }
}

struct lock_request *lock_request_find_place(struct locker *l, const struct lock_want *want)
{
    struct lock_request *r;
    TAILQ_FOREACH(r, &l->requests, link)
    {
        if (r->in_place && r->want.mode == want->mode && r->want.start == want->start &&
            r->want.end == want->end && want->sleep)
            return r;
    }
    return NULL;
}

void lock_request_resume(struct lock_request *r, fuse_req_t req, struct handle *h)
{
    struct locker *l = r->locker;
    stop_timer(r);
    r->in_place = r->orphan = false;
    l->n_orphans--;
    handle_ref(h);
    handle_unref(h->fs, r->handle);
    r->handle = h;
    op_init(&r->op, req, lock_request_interrupted);
    r->process = op_process(&r->op);
    locker_set_process(l, r->op.caller.uid, r->process);
    if (r->step == STEP_KEPT)
        lock_request_granted(r);
}
