/* CREATE, OPEN, FLUSH, RELEASE, FSYNC. */
#include "fs/ops.h"

#include "fs/acquire.h"
#include "fs/attr.h"
#include "fs/handle.h"
#include "fs/locking.h"
#include "fs/watchers.h"
#include "raftstore/wire/codes.h"

#include <errno.h>
#include <fcntl.h>

static void set_flags(struct fuse_file_info *fi)
{
    fi->direct_io = 1; /* Nothing is cached, sizes mean nothing. */
    fi->keep_cache = 0;
}

/* Answer CREATE with a new handle. */
static bool reply_create(struct acquire *a, struct inode *inode, struct hold *hold)
{
    struct fs *fs = a->op.fs;
    fuse_req_t request = op_take(&a->op);
    if (request == NULL)
        return false;
    struct fuse_file_info fi = a->fi;
    struct handle *handle = handle_new(fs, inode, hold);
    struct fuse_entry_param entry = {.ino = inode->number};
    attr_inode(inode, &entry.attr);
    entry.attr_timeout = attr_timeout_s(fs, inode);
    fi.fh = (uintptr_t)handle;
    set_flags(&fi);
    inode->n_lookups++;
    if (fuse_reply_create(request, &entry, &fi) == 0)
        return true;
    handle_unref(fs, handle); /* The kernel will not close it. */
    inode_forget(&fs->inodes, inode->number, 1);
    return false;
}

/* A handle on a lock that is free: nothing is replicated until it is locked. */
static void create_free(struct acquire *a)
{
    struct fs *fs = a->op.fs;
    struct inode *inode = inode_free_lock(&fs->inodes, a->path);
    if (inode->n_lookups == 0) {
        inode->uid = a->op.caller.uid;
        inode->gid = a->gid;
        inode->perm = a->perm;
        inode->time_ns = inode->changed_ns = clock_wall_ns(clock_system());
    }
    (void)reply_create(a, inode, NULL); /* Nothing to undo. */
    inode_unref(&fs->inodes, inode);
    acquire_done(a, 0);
}

void ops_create(
    fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    struct acquire *a = acquire_new(req, parent, name, WIRE_KIND_EXCL, mode, reply_create);
    if (a == NULL)
        return;
    a->fi = *fi;
    if ((fi->flags & O_EXCL) != 0)
        acquire_start(a);
    else
        create_free(a);
}

/* The kernel has looked the name up and checked the mode; nothing is left to ask.  O_TRUNC does
 * nothing: what a lock shows is not its content. */
void ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = op_fs(req);
    struct inode *inode = inode_get(&fs->inodes, ino);
    if (inode == NULL) {
        (void)fuse_reply_err(req, ESTALE);
        return;
    }
    struct handle *handle = handle_new(fs, inode, NULL);
    handle->seen = inode->state; /* The kernel has looked it up just now. */
    fi->fh = (uintptr_t)handle;
    set_flags(fi);
    if (fuse_reply_open(req, fi) < 0)
        handle_unref(fs, handle);
}

/* A close() drops the process's fcntl locks on the file, whichever descriptor it was (POSIX).
 * Answered at once: exit() of the caller hangs on it. */
void ops_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    if (op_fs(req)->lock_files != NULL)
        locking_flush(handle_of(fi), fi->lock_owner);
    (void)fuse_reply_err(req, 0);
}

/* The lease outlives the descriptor; its locks don't. */
void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    struct handle *h = handle_of(fi);
    locking_release_handle(h);
    h->inode->n_open--;
    watchers_known(h->fs, h->inode);
    handle_unref(h->fs, h);
    (void)fuse_reply_err(req, 0);
}

void ops_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)ino;
    (void)datasync;
    (void)fuse_reply_err(req, handle_lost(handle_of(fi)) ? ESTALE : 0);
}
