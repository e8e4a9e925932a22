/* What never will be: refused. */
#include "fs/ops.h"

#include <errno.h>

/* Devices, sockets and pipes are no locks.  (Regular files come as CREATE.) */
void ops_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
    (void)parent;
    (void)name;
    (void)mode;
    (void)device;
    (void)fuse_reply_err(req, EPERM);
}
