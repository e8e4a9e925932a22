/* What comes with a later step, and what never will: refused. */
#include "fs/ops.h"

#include <errno.h>

void ops_symlink(fuse_req_t req, const char *text, fuse_ino_t parent, const char *name)
{
    (void)text;
    (void)parent;
    (void)name;
    (void)fuse_reply_err(req, EPERM);
}

void ops_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
    (void)ino;
    (void)new_parent;
    (void)new_name;
    (void)fuse_reply_err(req, EPERM);
}

void ops_rename(fuse_req_t req,
                fuse_ino_t parent,
                const char *name,
                fuse_ino_t new_parent,
                const char *new_name,
                unsigned flags)
{
    (void)parent;
    (void)name;
    (void)new_parent;
    (void)new_name;
    (void)flags;
    (void)fuse_reply_err(req, EPERM);
}

/* Devices, sockets and pipes are no locks.  (Regular files come as CREATE.) */
void ops_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
    (void)parent;
    (void)name;
    (void)mode;
    (void)device;
    (void)fuse_reply_err(req, EPERM);
}
