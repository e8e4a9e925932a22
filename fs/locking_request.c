/* The steps of a request for a lock: see locking.h. */
#include "fs/locking_internal.h"

#include "fs/errno_table.h"
#include "raftstore/wire/codes.h"

#include <errno.h>

static void on_answer(void *arg, const struct client_result *result);

/* ---- Asking ---- */

void lock_request_ask(struct lock_request *r, enum step step)
{
    struct locker *l = r->locker;
    Hf__Command command;
    ProtobufCBinaryData path;
    bool releases = step == STEP_YIELD || step == STEP_UNLOCK;
    lock_command_fill(&command, &path, l, releases ? WIRE_OP_RELEASE : WIRE_OP_ACQUIRE,
                      r->want.start, r->want.end);
    if (!releases) {
        command.mode = (uint32_t)r->want.mode;
        command.wait_ms = step == STEP_ASK && r->want.sleep ? UINT64_MAX : 0;
        /* A process that sits in fcntl() holds what it holds; one that sits in flock() may be
         * one thread of many, each with its open files: it takes no part (nor on Linux). */
        command.agent = l->kind == LOCKER_FCNTL ? l->kernel_owner : 0;
        command.pid = r->want.pid;
        command.uid = r->op.caller.uid;
        command.gid = r->op.caller.gid;
        command.perm = r->handle->inode->perm & 0777u;
    }
    r->step = step;
    int error = lock_command_send(lock_request_fs(r), &command, on_answer, r, &r->command);
    if (error != 0) {
        lock_request_finish(r, error);
        return;
    }
    r->sent = true;
    if (!releases) /* While the commit is under way. */
        locker_set_process(l, r->op.caller.uid, r->process);
}

struct lock_request *lock_request_new(struct fs *fs)
{
    struct lock_request *r = xcalloc(1, sizeof *r);
    LIST_INSERT_HEAD(&fs->lock_requests, r, in_fs);
    return r;
}

void lock_request_join(struct lock_request *r, struct locker *l)
{
    r->locker = l;
    locker_ref(l);
    TAILQ_INSERT_TAIL(&l->requests, r, link);
}

/* Is what it wants covered by what it leans on, or can lean on, or by a hold of its own that must
 * stay? */
static bool is_covered(struct lock_request *r, bool alone)
{
    struct locker *l = r->locker;
    if (l->leans != NULL || l->leaner != NULL)
        return true;
    if (!alone || l->held.n > 0 || r->want.mode == HELD_NONE)
        return false;
    struct locker *on = locker_support(r->handle, l->kind, r->process);
    if (on == NULL || on->leaner != NULL || !TAILQ_EMPTY(&on->requests) ||
        !client_session_live(lock_request_fs(r)->client))
        return false;
    locker_lean(l, on);
    locker_set_process(l, r->op.caller.uid, r->process);
    return true;
}

void lock_request_begin(struct lock_request *r)
{
    struct locker *l = r->locker;
    const struct lock_want *want = &r->want;
    uint64_t end;
    enum held_mode mode = held_piece(&l->held, want->start, want->end, &end);
    bool alone = TAILQ_FIRST(&l->requests) == r && TAILQ_NEXT(r, link) == NULL;
    if (r->handle->lost || !locker_check(l)) {
        lock_request_finish(r, ESTALE);
    } else if (l->adopted != NULL) {
        held_set(&l->held, want->start, want->end, want->mode);
        lock_request_finish(r, 0);
    } else if (alone && mode == want->mode && end == want->end) {
        lock_request_finish(r, 0); /* It is so already. */
    } else if (is_covered(r, alone)) {
        held_set(&l->held, want->start, want->end, want->mode);
        if (l->leans != NULL && l->held.n == 0)
            locking_unlean(l);
        lock_request_finish(r, 0);
    } else if (want->mode == HELD_NONE) {
        lock_request_ask(r, STEP_UNLOCK);
    } else if (want->kind == LOCKER_FLOCK && mode == HELD_SHARED) {
        lock_request_ask(r, STEP_TRY);
    } else {
        lock_request_ask(r, STEP_ASK);
    }
}

void lock_request_granted(struct lock_request *r)
{
    struct locker *l = r->locker;
    if (lock_request_fs(r)->closed) {
        lock_request_finish(r, EIO); /* It goes with the session. */
    } else if (r->orphan && r->in_place) {
        r->step = STEP_KEPT;
    } else if (r->orphan) {
        lock_request_undo(r);
    } else if (l->lost) {
        locking_send_release(l, r->want.start, r->want.end);
        lock_request_finish(r, ESTALE);
    } else if (!client_session_live(lock_request_fs(r)->client)) {
        r->step = STEP_SESSION;
    } else {
        held_set(&l->held, r->want.start, r->want.end, r->want.mode);
        lock_request_finish(r, 0);
    }
}

static void on_undone(void *arg, const struct client_result *result)
{
    struct lock_request *r = arg;
    (void)result; /* Whatever it is, there is nothing better to do. */
    if (--r->n_undo == 0)
        lock_request_finish(r, 0);
}

void lock_request_undo(struct lock_request *r)
{
    struct locker *l = r->locker;
    uint64_t at = r->want.start, end;
    r->step = STEP_UNDO;
    r->n_undo = 1;
    for (;; at = end + 1) {
        enum held_mode mode = held_piece(&l->held, at, r->want.end, &end);
        Hf__Command command;
        ProtobufCBinaryData path;
        lock_command_fill(&command, &path, l, mode == HELD_NONE ? WIRE_OP_RELEASE : WIRE_OP_ACQUIRE,
                          at, end);
        command.mode = (uint32_t)mode;
        if (mode != r->want.mode && mode != HELD_EXCLUSIVE &&
            lock_command_give_back(lock_request_fs(r), &command, on_undone, r) == 0)
            r->n_undo++;
        if (end == r->want.end)
            break;
    }
    if (--r->n_undo == 0)
        lock_request_finish(r, 0);
}

/* ---- Answers ---- */

/* Refused because somebody holds it. */
static void request_conflict(struct lock_request *r)
{
    struct lock_file *f = r->locker->file;
    if (r->orphan) {
        lock_request_finish(r, 0);
    } else if (!LIST_EMPTY(&f->releases) && !r->retried) {
        /* A close that came first may be answered last, and must not be in the way. */
        r->retried = true;
        r->step = STEP_RETRY;
        TAILQ_INSERT_TAIL(&f->retry, r, retry_link);
    } else {
        lock_request_finish(r, EAGAIN);
    }
}

static void answer_try(struct lock_request *r, uint32_t code)
{
    if (code != WIRE_CODE_CONFLICT && code != WIRE_CODE_DELAYED) {
        lock_request_finish(r, errno_of_code(ERRNO_LOCK, code));
    } else if (r->orphan) {
        lock_request_finish(r, 0);
    } else { /* Linux drops the old lock before it looks for a new one: flock(2). */
        held_set(&r->locker->held, r->want.start, r->want.end, HELD_NONE);
        lock_request_ask(r, STEP_YIELD);
    }
}

static void answer_yield(struct lock_request *r)
{
    if (r->orphan)
        lock_request_finish(r, 0);
    else if (!r->want.sleep)
        lock_request_finish(r, EAGAIN);
    else
        lock_request_ask(r, STEP_ASK);
}

/* The session ended, and all that hung on it. */
static void answer_no_session(struct lock_request *r)
{
    if (r->orphan)
        lock_request_finish(r, 0);
    else if (r->step == STEP_UNLOCK)
        lock_request_finish(r, r->locker->lost ? ESTALE : 0);
    else if (r->locker->lost || r->step == STEP_TRY)
        lock_request_finish(r, ESTALE);
    else if (r->step == STEP_YIELD)
        answer_yield(r);
    else
        lock_request_ask(r, STEP_ASK);
}

static void on_answer(void *arg, const struct client_result *result)
{
    struct lock_request *r = arg;
    uint32_t code = result->status == 0 ? result->result->code : WIRE_CODE_INVALID;
    bool locks = r->step == STEP_TRY || r->step == STEP_ASK;
    r->sent = false;
    if (r->restart) {
        if (locks && code == WIRE_CODE_OK)
            locking_send_release(r->locker, r->want.start, r->want.end);
        lock_request_start_anew(r);
    } else if (result->status != 0) {
        lock_request_finish(r, errno_of_status(result->status));
    } else if (code == WIRE_CODE_NO_SESSION || code == WIRE_CODE_SESSION_ENDED) {
        answer_no_session(r);
    } else if (locks && code == WIRE_CODE_OK) {
        r->locker->token = result->result->token;
        lock_request_granted(r);
    } else if (r->step == STEP_TRY) {
        answer_try(r, code);
    } else if (r->step == STEP_YIELD) {
        answer_yield(r);
    } else if (r->step == STEP_UNLOCK) {
        bool gone = code == WIRE_CODE_NOT_HELD || code == WIRE_CODE_NOT_OWNER;
        held_set(&r->locker->held, r->want.start, r->want.end, HELD_NONE);
        lock_request_finish(r, gone ? 0 : errno_of_code(ERRNO_LOCK, code));
    } else if (code == WIRE_CODE_CONFLICT || code == WIRE_CODE_DELAYED) {
        request_conflict(r);
    } else {
        lock_request_finish(r, errno_of_code(ERRNO_LOCK, code));
    }
}
