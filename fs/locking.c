/* See locking.h for the steps.
 *
 * | event                | no command under way  | command under way                              |
 * |----------------------|-----------------------|------------------------------------------------|
 * | cluster's answer     | -                     | next step, or reply                            |
 * | interrupt of a wait  | EINTR, free           | EINTR, orphan; canceled after LOCKING_PLACE_MS |
 * | other interrupt      | EINTR, free           | EINTR, orphan; canceled                        |
 * | time-out (not waits) | ETIMEDOUT, free       | ETIMEDOUT, orphan; canceled                    |
 * | same call again      | -                     | an orphan in its place takes the new request   |
 * | other call of locker | -                     | orphans are canceled; it waits in LINE         |
 * | close                | starts on a new locker| canceled, then starts on a new locker          |
 *
 * A grant to an orphan is undone against locker.held, which orphans never change upwards: what the
 * program was not told it does not get, what it had before it keeps. */
#include "fs/locking.h"

#include "fs/errno_table.h"
#include "raftstore/base/log.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <errno.h>
#include <stdlib.h>

enum step {
    STEP_LINE,    /* Waits for orphans of its locker. */
    STEP_TRY,     /* flock, from shared to exclusive at once. */
    STEP_YIELD,   /* It could not; gives up what it had. */
    STEP_ASK,     /* Acquires, and waits in the cluster's queue if it may. */
    STEP_RETRY,   /* Refused, but a release of our own was on its way. */
    STEP_SESSION, /* Granted, but whether the session lives is in doubt. */
    STEP_UNLOCK,
    STEP_KEPT, /* An orphan in its place that was granted. */
    STEP_UNDO, /* Gives back what an orphan was granted. */
};

struct lock_request {
    struct op op;
    struct handle *handle; /* With a reference. */
    struct locker *locker; /* Likewise. */
    struct lock_want want;
    enum step step;
    bool sent;                 /* A command is under way: its callback comes. */
    bool orphan;               /* The kernel has its answer. */
    bool in_place;             /* ORPHAN: `timer` runs, nothing is canceled yet. */
    bool restart;              /* Its locker was closed under it. */
    bool retried;              /* It was in RETRY once. */
    unsigned n_undo;           /* UNDO: commands under way. */
    uint64_t command;          /* For client_cancel(). */
    struct process_id process; /* Who asks. */
    bool has_timer;
    uv_timer_t timer;                     /* Time-out; IN_PLACE: end of the place. */
    TAILQ_ENTRY(lock_request) link;       /* Of locker.requests. */
    TAILQ_ENTRY(lock_request) retry_link; /* Of lock_file.retry. */
};

static void request_begin(struct lock_request *r);
static void request_ask(struct lock_request *r, enum step step);
static void request_undo(struct lock_request *r);
static void request_granted(struct lock_request *r);
static void on_answer(void *arg, const struct client_result *result);
static void start_anew(struct lock_request *r);

static struct fs *fs_of(const struct lock_request *r)
{
    return r->locker->file->fs;
}

/* ---- Releases that nobody waits for ---- */

static void retry_all(struct lock_file *f)
{
    struct lock_request *r;
    while (LIST_EMPTY(&f->releases) && (r = TAILQ_FIRST(&f->retry)) != NULL) {
        TAILQ_REMOVE(&f->retry, r, retry_link);
        request_ask(r, STEP_ASK);
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

static void fill_command(Hf__Command *command,
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

static int send_command(
    struct fs *fs, const Hf__Command *command, client_result_cb cb, void *arg, uint64_t *ret_handle)
{
    if (fs->failed || fs->closed)
        return EIO;
    int r = client_command(fs->client, command, CLIENT_NO_TIMEOUT, cb, arg, ret_handle);
    return r < 0 ? errno_of_status(r) : 0;
}

static void send_release(const struct locker *l, uint64_t start, uint64_t end)
{
    Hf__Command command;
    ProtobufCBinaryData path;
    struct lock_file *f = l->file;
    struct lock_release *release = xcalloc(1, sizeof *release);
    fill_command(&command, &path, l, WIRE_OP_RELEASE, start, end);
    int error = send_command(f->fs, &command, on_released, release, NULL);
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

/* ---- The end of a request ---- */

static void on_timer_closed(uv_handle_t *timer)
{
    free(timer->data);
}

static void request_free(struct lock_request *r)
{
    struct locker *l = r->locker;
    struct fs *fs = fs_of(r);
    TAILQ_REMOVE(&l->requests, r, link);
    if (r->step == STEP_RETRY)
        TAILQ_REMOVE(&l->file->retry, r, retry_link);
    handle_unref(fs, r->handle);
    locker_unref(l);
    if (r->has_timer)
        uv_close((uv_handle_t *)&r->timer, on_timer_closed);
    else
        free(r);
}

/* No orphan is left: whoever waited for that goes on. */
static void run_line(struct locker *l)
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
            request_begin(r);
    }
    locker_unref(l);
}

/* Over, with an errno (0: success); an orphan has had its answer. */
static void finish(struct lock_request *r, int error)
{
    struct locker *l = r->locker;
    bool was_orphan = r->orphan;
    op_reply_errno(&r->op, error);
    locker_ref(l);
    if (was_orphan)
        l->n_orphans--;
    request_free(r);
    if (was_orphan && l->n_orphans == 0)
        run_line(l);
    locker_unref(l);
}

/* ---- Time-outs and interrupts ---- */

static void on_timer(uv_timer_t *timer);

static void set_timer(struct lock_request *r, uint64_t ms)
{
    if (!r->has_timer) {
        (void)uv_timer_init(fs_of(r)->loop, &r->timer); /* Never fails. */
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

/* An orphan loses its place. */
static void orphan_cancel(struct lock_request *r)
{
    if (r->in_place)
        stop_timer(r);
    r->in_place = false;
    if (r->step == STEP_KEPT)
        request_undo(r);
    else if (r->sent && r->step != STEP_UNDO)
        client_cancel(fs_of(r)->client, r->command);
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
        finish(r, 0);
        return false;
    }
    if (r->restart)
        return false; /* start_anew() sees that nobody waits. */
    r->orphan = true;
    r->locker->n_orphans++;
    if (r->step == STEP_SESSION) {
        request_undo(r);
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
        orphan_cancel(r);
        return;
    }
    op_reply_errno(&r->op, ETIMEDOUT);
    if (become_orphan(r))
        orphan_cancel(r);
}

/* EINTR was answered. */
static void on_interrupt(struct op *op)
{
    struct lock_request *r = (struct lock_request *)op;
    bool waits = r->want.sleep && r->step == STEP_ASK;
    if (!become_orphan(r))
        return;
    if (waits) {
        r->in_place = true;
        set_timer(r, LOCKING_PLACE_MS);
    } else {
        orphan_cancel(r);
    }
}

/* Does the same call come again, in whose place an orphan stands? */
static struct lock_request *find_place(struct locker *l, const struct lock_want *want)
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

/* By a process and a handle that need not be the same. */
static void resume_place(struct lock_request *r, fuse_req_t req, struct handle *h)
{
    struct locker *l = r->locker;
    stop_timer(r);
    r->in_place = r->orphan = false;
    l->n_orphans--;
    handle_ref(h);
    handle_unref(h->fs, r->handle);
    r->handle = h;
    op_init(&r->op, req, on_interrupt);
    r->process = op_process(&r->op);
    locker_set_process(l, r->op.caller.uid, r->process);
    if (r->step == STEP_KEPT)
        request_granted(r);
}

/* ---- Asking ---- */

static void request_ask(struct lock_request *r, enum step step)
{
    struct locker *l = r->locker;
    Hf__Command command;
    ProtobufCBinaryData path;
    bool releases = step == STEP_YIELD || step == STEP_UNLOCK;
    fill_command(&command, &path, l, releases ? WIRE_OP_RELEASE : WIRE_OP_ACQUIRE, r->want.start,
                 r->want.end);
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
    int error = send_command(fs_of(r), &command, on_answer, r, &r->command);
    if (error != 0) {
        finish(r, error);
        return;
    }
    r->sent = true;
    if (!releases) /* While the commit is under way. */
        locker_set_process(l, r->op.caller.uid, r->process);
}

static void request_join(struct lock_request *r, struct locker *l)
{
    r->locker = l;
    locker_ref(l);
    TAILQ_INSERT_TAIL(&l->requests, r, link);
}

/* ---- Lockers that lean ---- */

/* Nobody leans on it any more: the cluster is told how little it holds meanwhile. */
static void reconcile(struct locker *l)
{
    if (held_all(&l->held))
        return;
    if (l->held.n == 0) {
        send_release(l, 0, HELD_END);
        locker_rename(l);
        return;
    }
    struct lock_request *r = xcalloc(1, sizeof *r);
    r->op.fs = l->file->fs;
    r->handle = l->handle;
    handle_ref(r->handle);
    r->want = (struct lock_want){.kind = l->kind, .mode = HELD_EXCLUSIVE, .end = HELD_END};
    r->orphan = true;
    l->n_orphans++;
    request_join(r, l);
    request_undo(r);
}

static void unlean(struct locker *l)
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
        !client_session_live(fs_of(r)->client))
        return false;
    locker_lean(l, on);
    locker_set_process(l, r->op.caller.uid, r->process);
    return true;
}

/* The locker is free to ask. */
static void request_begin(struct lock_request *r)
{
    struct locker *l = r->locker;
    const struct lock_want *want = &r->want;
    uint64_t end;
    enum held_mode mode = held_piece(&l->held, want->start, want->end, &end);
    bool alone = TAILQ_FIRST(&l->requests) == r && TAILQ_NEXT(r, link) == NULL;
    if (r->handle->lost || !locker_check(l)) {
        finish(r, ESTALE);
    } else if (l->adopted != NULL) {
        held_set(&l->held, want->start, want->end, want->mode);
        finish(r, 0);
    } else if (alone && mode == want->mode && end == want->end) {
        finish(r, 0); /* It is so already. */
    } else if (is_covered(r, alone)) {
        held_set(&l->held, want->start, want->end, want->mode);
        if (l->leans != NULL && l->held.n == 0)
            unlean(l);
        finish(r, 0);
    } else if (want->mode == HELD_NONE) {
        request_ask(r, STEP_UNLOCK);
    } else if (want->kind == LOCKER_FLOCK && mode == HELD_SHARED) {
        request_ask(r, STEP_TRY);
    } else {
        request_ask(r, STEP_ASK);
    }
}

/* The lock is there. */
static void request_granted(struct lock_request *r)
{
    struct locker *l = r->locker;
    if (fs_of(r)->closed) {
        finish(r, EIO); /* It goes with the session. */
    } else if (r->orphan && r->in_place) {
        r->step = STEP_KEPT;
    } else if (r->orphan) {
        request_undo(r);
    } else if (l->lost) {
        send_release(l, r->want.start, r->want.end);
        finish(r, ESTALE);
    } else if (!client_session_live(fs_of(r)->client)) {
        r->step = STEP_SESSION;
    } else {
        held_set(&l->held, r->want.start, r->want.end, r->want.mode);
        finish(r, 0);
    }
}

static void on_undone(void *arg, const struct client_result *result)
{
    struct lock_request *r = arg;
    (void)result; /* Whatever it is, there is nothing better to do. */
    if (--r->n_undo == 0)
        finish(r, 0);
}

/* Give back what the program was not told it has; what it had before it keeps. */
static void request_undo(struct lock_request *r)
{
    struct locker *l = r->locker;
    uint64_t at = r->want.start, end;
    r->step = STEP_UNDO;
    r->n_undo = 1;
    for (;; at = end + 1) {
        enum held_mode mode = held_piece(&l->held, at, r->want.end, &end);
        Hf__Command command;
        ProtobufCBinaryData path;
        fill_command(&command, &path, l, mode == HELD_NONE ? WIRE_OP_RELEASE : WIRE_OP_ACQUIRE, at,
                     end);
        command.mode = (uint32_t)mode;
        if (mode != r->want.mode && mode != HELD_EXCLUSIVE &&
            send_command(fs_of(r), &command, on_undone, r, NULL) == 0)
            r->n_undo++;
        if (end == r->want.end)
            break;
    }
    if (--r->n_undo == 0)
        finish(r, 0);
}

/* ---- Answers ---- */

/* Refused because somebody holds it. */
static void request_conflict(struct lock_request *r)
{
    struct lock_file *f = r->locker->file;
    if (r->orphan) {
        finish(r, 0);
    } else if (!LIST_EMPTY(&f->releases) && !r->retried) {
        /* A close that came first may be answered last, and must not be in the way. */
        r->retried = true;
        r->step = STEP_RETRY;
        TAILQ_INSERT_TAIL(&f->retry, r, retry_link);
    } else {
        finish(r, EAGAIN);
    }
}

static void answer_try(struct lock_request *r, uint32_t code)
{
    if (code != WIRE_CODE_CONFLICT && code != WIRE_CODE_DELAYED) {
        finish(r, errno_of_code(ERRNO_LOCK, code));
    } else if (r->orphan) {
        finish(r, 0);
    } else { /* Linux drops the old lock before it looks for a new one: flock(2). */
        held_set(&r->locker->held, r->want.start, r->want.end, HELD_NONE);
        request_ask(r, STEP_YIELD);
    }
}

static void answer_yield(struct lock_request *r)
{
    if (r->orphan)
        finish(r, 0);
    else if (!r->want.sleep)
        finish(r, EAGAIN);
    else
        request_ask(r, STEP_ASK);
}

/* The session ended, and all that hung on it. */
static void answer_no_session(struct lock_request *r)
{
    if (r->orphan)
        finish(r, 0);
    else if (r->step == STEP_UNLOCK)
        finish(r, r->locker->lost ? ESTALE : 0);
    else if (r->locker->lost || r->step == STEP_TRY)
        finish(r, ESTALE);
    else if (r->step == STEP_YIELD)
        answer_yield(r);
    else
        request_ask(r, STEP_ASK);
}

static void on_answer(void *arg, const struct client_result *result)
{
    struct lock_request *r = arg;
    uint32_t code = result->status == 0 ? result->result->code : WIRE_CODE_INVALID;
    bool locks = r->step == STEP_TRY || r->step == STEP_ASK;
    r->sent = false;
    if (r->restart) {
        if (locks && code == WIRE_CODE_OK)
            send_release(r->locker, r->want.start, r->want.end);
        start_anew(r);
    } else if (result->status != 0) {
        finish(r, errno_of_status(result->status));
    } else if (code == WIRE_CODE_NO_SESSION || code == WIRE_CODE_SESSION_ENDED) {
        answer_no_session(r);
    } else if (locks && code == WIRE_CODE_OK) {
        r->locker->token = result->result->token;
        request_granted(r);
    } else if (r->step == STEP_TRY) {
        answer_try(r, code);
    } else if (r->step == STEP_YIELD) {
        answer_yield(r);
    } else if (r->step == STEP_UNLOCK) {
        bool gone = code == WIRE_CODE_NOT_HELD || code == WIRE_CODE_NOT_OWNER;
        held_set(&r->locker->held, r->want.start, r->want.end, HELD_NONE);
        finish(r, gone ? 0 : errno_of_code(ERRNO_LOCK, code));
    } else if (code == WIRE_CODE_CONFLICT || code == WIRE_CODE_DELAYED) {
        request_conflict(r);
    } else {
        finish(r, errno_of_code(ERRNO_LOCK, code));
    }
}

/* ---- Beginning and close ---- */

static struct locker *locker_get(struct handle *h, enum locker_kind kind, uint64_t owner)
{
    struct locker *l = locker_find(h, kind, owner);
    return l != NULL ? l : locker_new(h, kind, owner);
}

/* Its locker was closed under it (fcntl: by another thread): the request is a new locker's. */
static void start_anew(struct lock_request *r)
{
    struct locker *old = r->locker;
    if (!op_waiting(&r->op)) {
        finish(r, 0);
        return;
    }
    if (r->step == STEP_RETRY)
        TAILQ_REMOVE(&old->file->retry, r, retry_link);
    r->step = STEP_LINE;
    r->restart = false;
    TAILQ_REMOVE(&old->requests, r, link);
    request_join(r, locker_get(r->handle, r->want.kind, old->kernel_owner));
    locker_unref(old);
    if (r->locker->n_orphans == 0)
        request_begin(r);
}

static void drop(struct locker *l)
{
    struct lock_request *r, *next;
    bool any = l->adopted == NULL && (l->held.n > 0 || !TAILQ_EMPTY(&l->requests));
    locker_ref(l);
    locker_detach(l);
    if (l->held.n > 0)
        held_set(&l->held, 0, HELD_END, HELD_NONE);
    if (l->leans != NULL)
        unlean(l);
    else if (any && l->leaner == NULL) /* Else it goes with that one. */
        send_release(l, 0, HELD_END);
    TAILQ_FOREACH_SAFE(r, &l->requests, link, next)
    {
        if (!r->orphan && !r->sent) {
            start_anew(r);
        } else if (!r->orphan) {
            r->restart = true;
            client_cancel(fs_of(r)->client, r->command);
        }
    }
    TAILQ_FOREACH_SAFE(r, &l->requests, link, next)
    {
        if (r->orphan)
            orphan_cancel(r);
    }
    locker_unref(l);
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
            orphan_cancel(r); /* May free it. */
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
    struct lock_request *r = l != NULL && want->mode != HELD_NONE ? find_place(l, want) : NULL;
    if (r != NULL) {
        resume_place(r, req, h);
        return;
    }
    if (l == NULL && want->mode == HELD_NONE) {
        (void)fuse_reply_err(req, 0); /* Nothing is locked. */
        return;
    }
    r = xcalloc(1, sizeof *r);
    op_init(&r->op, req, on_interrupt);
    r->handle = h;
    handle_ref(h);
    r->want = *want;
    r->process = op_process(&r->op);
    if (r->want.pid == 0)
        r->want.pid = r->process.pid;
    if (l != NULL)
        cancel_places(l);
    request_join(r, l != NULL ? l : locker_new(h, want->kind, owner));
    if (!want->sleep || want->mode == HELD_NONE)
        set_timer(r, op_timeout_ms(&r->op));
    if (r->locker->n_orphans == 0)
        request_begin(r);
}

void locking_flush(struct fs *fs, const char *path, uint64_t owner)
{
    struct locker *l = locker_find_fcntl(fs, path, owner);
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
        unlean(l);
        return;
    }
    locking_stand_alone(l);
    if (!TAILQ_EMPTY(&l->requests)) {
        drop(l); /* What is under way must not be met by the release. */
        return;
    }
    send_release(l, 0, HELD_END);
    locker_rename(l);
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
                run_line(l);
            locker_unref(l);
        }
        lock_file_unref(f);
    }
}

static void on_kept(struct lock_request *r)
{
    if (r->step == STEP_SESSION)
        request_granted(r);
}

static void on_ended(struct lock_request *r)
{
    if (r->step == STEP_SESSION && r->locker->lost)
        finish(r, ESTALE);
    else if (r->step == STEP_SESSION)
        request_ask(r, STEP_ASK);
    else if (r->step == STEP_KEPT)
        finish(r, 0);
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
    const struct lock_file *f;
    const struct locker *l;
    const struct lock_request *r;
    uint64_t n = 0;
    for (f = fs->lock_files; f != NULL; f = f->hh.next)
        LIST_FOREACH(l, &f->lockers, in_file)
    TAILQ_FOREACH(r, &l->requests, link)
    n += !r->orphan && r->want.sleep && r->want.mode != HELD_NONE;
    return n;
}

static void on_close(struct lock_request *r)
{
    if (!r->sent && r->step != STEP_UNDO)
        finish(r, EIO);
}

void locking_close(struct fs *fs)
{
    visit_all(fs, on_close);
}
