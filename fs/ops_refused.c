/* What never will be: refused. */
#include "fs/ops.h"

#include "fs/replay.h"

#include <errno.h>

/* Devices, sockets and pipes are no locks.  (Regular files come as CREATE.) */
void ops_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
    (void)device;
    if (replay_is(req))
        replay_create(req, parent, name, mode & S_IFMT);
    else
        (void)fuse_reply_err(req, EPERM);
}
