#include "fs/act.h"

#include "fs/ask.h"
#include "fs/attr.h"
#include "fs/errno_table.h"
#include "fs/locking.h"
#include "fs/moved.h"
#include "fs/show.h"
#include "raftstore/base/log.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static void act_done(struct act *a, int error)
{
    a->on_done(a, error);
    op_reply_errno(&a->op, error); /* Does nothing where on_done() has answered. */
    if (a->hold != NULL)
        hold_unref(a->hold);
    if (a->locker != NULL)
        locker_unref(a->locker);
    buf_deinit(&a->note);
    free(a->to);
    free(a->path);
    free(a);
}

/* RENAME and LINK act on two paths, and are not done any more once nobody waits. */
static bool has_two_paths(const struct act *a)
{
    return a->command.verb == COMMAND_RENAME || a->command.verb == COMMAND_LINK;
}

/* Is it this very hold that is meant, though it may be renamed just now?  Who takes a name away
 * means that name. */
static bool wherever(const struct act *a)
{
    bool changes = a->command.verb == COMMAND_RENEW || a->command.verb == COMMAND_KEEP ||
                   a->command.verb == COMMAND_NOTE;
    return a->by_handle || (a->hold != NULL && a->command.token == 0 && changes);
}

static enum errno_context context_of(const struct act *a)
{
    if (a->command.token != 0)
        return ERRNO_BY_TOKEN;
    if (a->by_handle)
        return ERRNO_BY_HANDLE;
    switch (a->command.verb) {
    case COMMAND_RELEASE:
        return ERRNO_RELEASE;
    case COMMAND_RENAME:
        return ERRNO_RENAME;
    case COMMAND_LINK:
        return ERRNO_LINK;
    default:
        return ERRNO_CHANGE;
    }
}

/* Keep: from now on the daemon renews, as long as the process lives that has authority now (by
 * token, and when there is none: the caller). */
static int act_keep(struct act *a)
{
    struct fs *fs = a->op.fs;
    struct process_id process = holds_heir(&fs->holds, a->hold);
    if (process.pid == 0 && a->lineage.n > 0)
        process = a->lineage.ids[0];
    int r = process.pid != 0 ? holds_keep(a->hold, process) : -ESRCH;
    return r == -ESRCH ? EPERM : -r;
}

/* Our record of the hold that is acted on, if there is one. */
static struct hold *act_hold(struct act *a)
{
    if (a->hold != NULL)
        return a->hold;
    struct hold *h = holds_find(&a->op.fs->holds, a->token);
    if (h == NULL ||
        strcmp(h->at->path, a->path) != 0) /* A token of another path proves nothing. */
        return NULL;
    hold_ref(h);
    a->hold = h;
    return h;
}

/* The cluster has renewed it. */
static int act_renewed(struct act *a, const struct client_result *r)
{
    struct fs *fs = a->op.fs;
    uint64_t ttl_ms = r->result->ttl_ms;
    if (a->hold == NULL && a->command.verb == COMMAND_KEEP)
        a->hold = holds_add(&fs->holds, a->path, a->token, a->op.caller.uid, &a->lineage, ttl_ms,
                            r->deadline_boot_ns);
    if (a->hold == NULL) /* Not followed here: made by another daemon. */
        return r->deadline_boot_ns > clock_boot_ns(clock_system()) ? 0 : ESTALE;
    holds_renewed(a->hold, r->result->stamp_ns, ttl_ms, r->deadline_boot_ns);
    if (a->hold->state != HOLD_LIVE) {
        /* We gave it up while the renewal was under way; so nobody may rely on it. */
        if (a->hold->state == HOLD_ENDED)
            ask_release(fs, a->path, a->token);
        return ESTALE;
    }
    if (!hold_is_live(a->hold)) /* The answer took longer than the lease. */
        return ESTALE;
    return a->command.verb == COMMAND_KEEP ? act_keep(a) : 0;
}

/* The release was not confirmed.  Where it may have been done all the same, nobody can rely on the
 * hold, so the release goes on behind the caller's back; else all is as it was. */
static void act_release_failed(struct act *a, const struct client_result *r)
{
    uint32_t code = r->status == 0 ? r->result->code : WIRE_CODE_OK;
    bool unknown = r->status == -ETIMEDOUT || r->status == -EBUSY || code == WIRE_CODE_NO_SESSION ||
                   code == WIRE_CODE_SESSION_ENDED;
    if (a->hold == NULL)
        return;
    if (unknown)
        ask_release(a->op.fs, a->path, a->token);
    else
        holds_not_released(a->hold);
}

/* Its answer has been taken in. */
static void act_shortened(struct act *a, const struct client_result *r)
{
    enum client_lease_outcome outcome = CLIENT_LEASE_NOT_RENEWED;
    if (r->status != 0 || r->result->code == WIRE_CODE_NO_SESSION ||
        r->result->code == WIRE_CODE_SESSION_ENDED)
        outcome = CLIENT_LEASE_UNKNOWN;
    else if (r->result->code == WIRE_CODE_OK)
        outcome = CLIENT_LEASE_RENEWED;
    if (a->shortens)
        holds_shortened(a->hold, outcome);
    a->shortens = false;
}

static void on_result(void *arg, const struct client_result *r)
{
    struct act *a = arg;
    struct hold *h = act_hold(a);
    bool is_release = a->command.verb == COMMAND_RELEASE;
    a->result = r;
    if (r->status != 0) {
        if (is_release)
            act_release_failed(a, r);
        act_shortened(a, r);
        act_done(a, errno_of_status(r->status));
        return;
    }
    uint32_t code = r->result->code;
    int error = errno_of_code(context_of(a), code);
    bool gone = code == WIRE_CODE_NOT_HELD || code == WIRE_CODE_NOT_OWNER;
    if (gone && !wherever(a) && a->hold != NULL && strcmp(a->hold->at->path, a->path) != 0) {
        /* It was renamed meanwhile; and who names a path means that path. */
        holds_not_released(a->hold);
        act_shortened(a, r);
        act_done(a, error);
        return;
    }
    if (error == 0 && is_release && h != NULL)
        holds_ended(h, false);
    else if (is_release && !gone)
        act_release_failed(a, r);
    else if (error == 0 && (a->command.verb == COMMAND_RENEW || a->command.verb == COMMAND_KEEP))
        error = act_renewed(a, r);
    else if (h != NULL && gone)
        holds_ended(h, true);
    act_shortened(a, r);
    if (error == ENOENT && a->command.token != 0 && h != NULL && h->lost)
        error = ESTALE; /* It was ours. */
    act_done(a, error);
}

/* Send what is wanted for exactly the hold with a->token. */
static void act_send(struct act *a)
{
    static const uint32_t ops[] = {
        [COMMAND_NOTE] = WIRE_OP_NOTE,     [COMMAND_RENEW] = WIRE_OP_RENEW,
        [COMMAND_KEEP] = WIRE_OP_RENEW,    [COMMAND_RELEASE] = WIRE_OP_RELEASE,
        [COMMAND_RENAME] = WIRE_OP_RENAME, [COMMAND_LINK] = WIRE_OP_LINK,
    };
    struct fs *fs = a->op.fs;
    Hf__Command command = HF__COMMAND__INIT;
    ProtobufCBinaryData paths[2] = {pack_binary(bytes_str(a->path))};
    if (has_two_paths(a) && !op_waiting(&a->op)) {
        act_done(a, EINTR);
        return;
    }
    if (a->command.only != 0 && a->token != a->command.only) {
        act_done(a, ENOENT); /* Another file than the one that was named. */
        return;
    }
    if (has_two_paths(a))
        paths[1] = pack_binary(bytes_str(a->to));
    command.op = ops[a->command.verb];
    command.paths = paths;
    command.n_paths = has_two_paths(a) ? 2 : 1;
    command.kind = a->command.kind;
    command.flags = wherever(a) ? WIRE_F_ANYWHERE : 0;
    command.token = a->token;
    if (a->locker != NULL && a->token == 0)
        command.owner = pack_binary(bytes_str(a->locker->text));
    command.ttl_ms = a->command.ttl_ms;
    command.mtime_ns = a->command.mtime_ns;
    command.note = pack_binary(bytes_of(a->note.data, a->note.size));
    struct hold *h = act_hold(a);
    if (a->command.verb == COMMAND_RELEASE && fs->options->release_async && h != NULL) {
        ask_release(fs, a->path, a->token);
        act_done(a, 0);
        return;
    }
    if (h != NULL && a->command.verb != COMMAND_RELEASE && a->command.ttl_ms != 0)
        a->shortens = holds_shorten(h, a->command.ttl_ms);
    int error = ask_cluster(fs, &command, op_timeout_ms(&a->op), on_result, a, NULL);
    if (error != 0) {
        if (a->shortens)
            holds_shortened(h, CLIENT_LEASE_NOT_RENEWED);
        a->shortens = false;
        act_done(a, error);
    } else if (h != NULL && a->command.verb == COMMAND_RELEASE) {
        holds_releasing(h);
    }
}

/* Is one of the holds there the caller's own, which we gave up ahead of the cluster? */
static bool shows_lost(struct act *a, const Hf__Node *node)
{
    struct fs *fs = a->op.fs;
    for (size_t i = 0; i < node->n_holds; i++) {
        const struct hold *h = holds_find(&fs->holds, node->holds[i]->token);
        if (h != NULL && h->state == HOLD_ENDED && h->lost &&
            holds_authorised(&fs->holds, h, a->op.caller.uid, &a->lineage))
            return true;
    }
    return false;
}

/* The lock is free, or held by somebody else: what does that mean for this caller? */
static int refusal(struct act *a, const Hf__Node *node)
{
    if (attr_hold(a->op.fs, node) != NULL)
        return shows_lost(a, node) ? ESTALE : EPERM;
    if (a->command.verb != COMMAND_RELEASE && !has_two_paths(a) &&
        holds_remembered(&a->op.fs->holds, a->path, a->op.caller.uid, &a->lineage))
        return ESTALE;
    return ENOENT;
}

/* A hold that the daemon does not follow at this path: may this caller act on it all the same?
 * Yes, by its token; or if it has just come here by a rename of another mount and is the caller's;
 * or if it was acquired on this host since it was started, by the caller's process or one of
 * its ancestors; or if it is one that we gave up ahead of the cluster, and it is to be released. */
static bool may_act_on_shown(struct act *a, const Hf__Hold *shown)
{
    struct fs *fs = a->op.fs;
    struct hold *known = holds_find(&fs->holds, shown->token);
    struct process_id process;
    if (known != NULL && a->command.token == 0)
        return (known->state == HOLD_LIVE ||
                (known->state == HOLD_ENDED && a->command.verb == COMMAND_RELEASE)) &&
               holds_authorised(&fs->holds, known, a->op.caller.uid, &a->lineage);
    bool here = owner_parse(&fs->namer, pack_bytes(shown->owner), &process);
    bool allowed = a->command.token != 0 ? shown->token == a->command.token
                                         : here && shown->uid == a->op.caller.uid &&
                                               lineage_contains(&a->lineage, process);
    struct lineage owner;
    if (allowed && here && process_lineage(fs->processes, process, &owner))
        a->lineage = owner; /* Kept for who acquired it, not for an `echo`. */
    return allowed;
}

static void on_shown(void *arg, const struct client_reply *reply)
{
    struct act *a = arg;
    int error;
    const Hf__Node *node = show_node(reply, &error);
    if (node == NULL) {
        act_done(a, error);
        return;
    }
    if (node->type == WIRE_NODE_DIRECTORY) {
        act_done(a, a->command.verb == COMMAND_RENAME ? EPERM : EISDIR);
        return;
    }
    for (size_t i = 0; i < node->n_holds; i++) {
        moved(a->op.fs, node->holds[i]->token, bytes_str(a->path), reply->query->index, false);
        if (may_act_on_shown(a, node->holds[i])) {
            a->token = node->holds[i]->token;
            act_send(a);
            return;
        }
    }
    act_done(a, refusal(a, node));
}

static void act_show(struct act *a)
{
    int error = show_path(&a->op, a->path, on_shown, a);
    if (error != 0)
        act_done(a, error);
}

/* By token: the cluster checks it.  To keep a hold we must know for whom. */
static void act_by_token(struct act *a)
{
    if (a->command.verb != COMMAND_KEEP) {
        act_send(a);
        return;
    }
    op_lineage(&a->op, &a->lineage);
    if (act_hold(a) != NULL)
        act_send(a);
    else
        act_show(a);
}

/* By the descriptor that acquired. */
static void act_by_handle(struct act *a, struct hold *h)
{
    a->by_handle = true;
    if (!hold_is_live(h)) {
        act_done(a, ESTALE);
        return;
    }
    a->hold = h;
    hold_ref(h);
    a->token = h->token;
    if (a->command.verb == COMMAND_KEEP)
        op_lineage(&a->op, &a->lineage);
    act_send(a);
}

/* As unlink(2) of a local file does: the name is free, whoever has the old one open. */
static void act_release_locker(struct act *a)
{
    struct locker *other, *l = a->locker, *stake = l->leans != NULL ? l->leans : l;
    uid_t uid = a->op.caller.uid;
    locker_ref(stake);
    locker_ref(stake);
    a->locker = stake;
    held_set(&stake->held, 0, HELD_END, HELD_NONE);
    locking_stand_alone(stake);
    locker_unref(l);
    while ((other = locker_find_authorised(a->op.fs, a->path, uid, &a->lineage)) != NULL)
        locking_release(other);
    act_send(a); /* For its answer; may end it. */
    locking_release(stake);
    locker_unref(stake);
}

/* A flock or fcntl lock of this mount.  It needs no renewal: the session keeps it. */
static void act_by_locker(struct act *a, struct locker *l)
{
    a->locker = l;
    locker_ref(l);
    if (!locker_check(l)) {
        act_done(a, ESTALE);
    } else if (has_two_paths(a)) {
        /* The name is what was locked; and only a lease can have two. */
        act_done(a, a->command.verb == COMMAND_RENAME ? EBUSY : EPERM);
    } else if (a->command.verb == COMMAND_NOTE) {
        a->by_handle = true;
        a->token = l->token;
        act_send(a);
    } else if (a->command.verb != COMMAND_RELEASE) {
        act_done(a, 0);
    } else {
        act_release_locker(a);
    }
}

/* By the process: on the hold that stands at the path now. */
static void act_by_process(struct act *a)
{
    struct fs *fs = a->op.fs;
    struct hold *h = holds_find_live(&fs->holds, a->path);
    op_lineage(&a->op, &a->lineage);
    struct locker *l =
        h == NULL ? locker_find_authorised(fs, a->path, a->op.caller.uid, &a->lineage) : NULL;
    if (l != NULL) {
        act_by_locker(a, l);
        return;
    }
    if (h == NULL) {
        act_show(a);
        return;
    }
    if (!holds_authorised(&fs->holds, h, a->op.caller.uid, &a->lineage)) {
        act_done(a, EPERM);
        return;
    }
    a->hold = h;
    hold_ref(h);
    a->token = h->token;
    act_send(a);
}

/* The caller is told EINTR and not whether it has its lock under the old name still. */
static void on_rename_interrupt(struct op *op)
{
    struct act *a = (struct act *)op;
    if (a->hold == NULL || a->hold->state != HOLD_LIVE)
        return;
    holds_releasing(a->hold);
    a->given_up = true;
}

void act_start(fuse_req_t req,
               const char *path,
               const struct handle *handle,
               const struct command *command,
               uint64_t context,
               void (*on_done)(struct act *a, int error))
{
    struct act *a = xcalloc(1, sizeof *a);
    op_init(&a->op, req, command->verb == COMMAND_RENAME ? on_rename_interrupt : NULL);
    a->path = xstrdup(path);
    a->to = command->to != NULL ? xstrdup(command->to) : NULL;
    a->command = *command;
    buf_add(&a->note, command->note.data, command->note.size);
    a->command.note = bytes_of(a->note.data, a->note.size);
    a->on_done = on_done;
    a->context = context;
    if (a->command.token != 0) {
        a->token = a->command.token;
        act_by_token(a);
    } else if (handle != NULL && handle->hold != NULL) {
        act_by_handle(a, handle->hold);
    } else if (handle != NULL && locker_of_handle(handle) != NULL) {
        op_lineage(&a->op, &a->lineage);
        act_by_locker(a, locker_of_handle(handle));
    } else {
        act_by_process(a);
    }
}
