/* Change, move or release a hold for a caller: the one way in for write, unlink, utimes, xattrs,
 * rename and link.
 *
 * Whose authority counts: that of the token, if one is given; else that of the descriptor, if it
 * acquired; else that of the process.  A hold of this host that the daemon does not know (it was
 * started anew) is recognised by its owner text. */
#ifndef HOLDFAST_FS_ACT_H
#define HOLDFAST_FS_ACT_H

#include "fs/command.h"
#include "fs/handle.h"
#include "fs/locker.h"
#include "fs/op.h"

struct act {
    struct op op;
    char *path; /* Owned. */
    struct command command;
    struct buf note;        /* The command's note, copied. */
    char *to;               /* The command's other path, copied; or NULL. */
    struct locker *locker;  /* That is acted on, with a reference: a flock or fcntl lock of ours. */
    struct hold *hold;      /* That is acted on, with a reference; NULL: not known here (yet). */
    uint64_t token;         /* Of the hold that is acted on. */
    bool by_handle;         /* By the descriptor that acquired. */
    bool shortens;          /* holds_shortened() is to follow. */
    bool given_up;          /* RENAME, interrupted: nobody relies on the hold till it is known. */
    struct lineage lineage; /* Of the calling process; KEEP of a hold that is not known here: of
                               the one that acquired. */
    /* Done: 0 or a positive errno.  Answers the request unless op_waiting() is false; act_free()
     * comes after it. */
    void (*on_done)(struct act *a, int error);
    const struct client_result *result; /* For on_done: the cluster's answer; NULL: none. */
    uint64_t context; /* For on_done. WRITE: bytes written; UNLINK: the directory's inode number. */
};

/* Begin.
 *
 * @path: copied.  @handle: NULL for operations on a name.
 * @command: its note and other path are copied.
 * `on_done` comes exactly once, perhaps before this returns. */
void act_start(fuse_req_t req,
               const char *path,
               const struct handle *handle,
               const struct command *command,
               uint64_t context,
               void (*on_done)(struct act *a, int error));

#endif
