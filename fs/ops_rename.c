/* RENAME: hand a lock over to another name, if that is free.
 *
 * What held the old name holds the new one, with its token.  A caller who is not told the outcome
 * (EINTR, ETIMEDOUT) can't know which name is his: the lock is given up then. */
#include "fs/ops.h"

#include "fs/act.h"
#include "fs/ask.h"
#include "fs/moved.h"
#include "fs/replay.h"
#include "raftstore/wire/codes.h"

#include <errno.h>
#include <stdlib.h>

/* Was it done?  0 no, 1 yes, -1 nobody knows. */
static int outcome(const struct act *a)
{
    if (a->result == NULL)
        return 0; /* It was not sent. */
    if (a->result->status != 0)
        return a->result->status == -ETIMEDOUT || a->result->status == -EBUSY ? -1 : 0;
    switch (a->result->result->code) {
    case WIRE_CODE_OK:
        return 1;
    case WIRE_CODE_NO_SESSION:
    case WIRE_CODE_SESSION_ENDED:
        return -1;
    default:
        return 0;
    }
}

/* Is it held still, as far as we may say?  Else somebody else may have got the new name before its
 * caller hears that it is his. */
static bool is_held(const struct act *a)
{
    return a->result->deadline_boot_ns > clock_boot_ns(clock_system()) &&
           (a->hold == NULL || a->hold->state == HOLD_RELEASING || hold_is_live(a->hold));
}

static void on_renamed(struct act *a, int error)
{
    struct fs *fs = a->op.fs;
    int done = outcome(a);
    if (done > 0)
        moved(fs, a->token, bytes_str(a->to), a->result->result->index, false);
    bool late = done > 0 && !is_held(a);
    if (done < 0 || late || (done > 0 && !op_waiting(&a->op)))
        ask_release(fs, a->path, a->token); /* Wherever it stands now. */
    else if (done == 0 && a->given_up)
        holds_not_released(a->hold);
    if (late)
        error = ESTALE;
    op_reply_errno(&a->op, error);
}

void ops_rename(fuse_req_t req,
                fuse_ino_t parent,
                const char *name,
                fuse_ino_t new_parent,
                const char *new_name,
                unsigned flags)
{
    struct fs *fs = op_fs(req);
    struct command command = {.verb = COMMAND_RENAME};
    struct inode *from, *to;
    char *path = NULL, *new_path = NULL;
    if (replay_is(req)) {
        replay_rename(req, parent, name, new_parent, new_name);
        return;
    }
    /* Never over another lock, so NOREPLACE says nothing new; a lock has no content to exchange. */
    int r = (flags & ~(unsigned)RENAME_NOREPLACE) == 0 ? 0 : -EINVAL;
    if (r == 0)
        r = inode_child(&fs->inodes, parent, name, &from, &path);
    if (r == 0)
        r = inode_child(&fs->inodes, new_parent, new_name, &to, &new_path);
    if (r == 0) {
        from->asked_mono_ns = to->asked_mono_ns = 0; /* Their times change. */
        command.to = new_path;
        act_start(req, path, NULL, &command, 0, on_renamed);
    } else {
        (void)fuse_reply_err(req, -r);
    }
    free(path);
    free(new_path);
}
