/* UNLINK and SETATTR of locks. */
#include "fs/ops.h"

#include "fs/act.h"
#include "fs/attr.h"
#include "fs/locker.h"
#include "fs/replay.h"
#include "fs/watchers.h"

#include <errno.h>
#include <stdlib.h>

static void on_unlinked(struct act *a, int error)
{
    if (error == 0) {
        inode_entries_changed(&a->op.fs->inodes, a->context);
        if (op_waiting(&a->op)) /* Else the kernel takes it for undone. */
            watchers_unlinked(a->op.fs, inode_hold_number(a->token));
    }
    op_reply_errno(&a->op, error);
}

void ops_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = op_fs(req);
    struct command command = {.verb = COMMAND_RELEASE};
    char *path;
    if (replay_is(req)) {
        replay_unlink(req, parent, name);
        return;
    }
    int r = inode_child(&fs->inodes, parent, name, NULL, &path);
    if (r < 0) {
        (void)fuse_reply_err(req, -r);
        return;
    }
    act_start(req, path, NULL, &command, parent, on_unlinked);
    free(path);
}

static void reply_attr(fuse_req_t req, const struct inode *inode)
{
    struct stat st;
    attr_inode(inode, &st);
    (void)fuse_reply_attr(req, &st, 0);
}

static void on_touched(struct act *a, int error)
{
    struct fs *fs = a->op.fs;
    fuse_req_t request = error == 0 ? op_take(&a->op) : NULL;
    if (request == NULL)
        return;
    struct inode *inode = inode_get(&fs->inodes, a->context);
    if (inode == NULL || (inode->kind == INODE_HOLD && inode->id != a->token)) {
        (void)fuse_reply_err(request, ESTALE); /* Another file than the one that was touched. */
        return;
    }
    inode->changed_ns = clock_wall_ns(clock_system()); /* Till the cluster is asked. */
    inode->time_ns = a->command.mtime_ns != 0 ? a->command.mtime_ns : inode->changed_ns;
    reply_attr(request, inode);
}

/* truncate(2) and O_TRUNC: there is no content, so the owner may, and nothing happens. */
static int truncate_error(fuse_req_t req, const struct inode *inode, const struct handle *handle)
{
    struct fs *fs = op_fs(req);
    const struct fuse_ctx *caller = fuse_req_ctx(req);
    struct lineage lineage;
    if (handle != NULL && handle->hold != NULL)
        return handle_lost(handle) ? ESTALE : 0;
    if (handle != NULL && handle_lost(handle))
        return ESTALE;
    if (inode->kind == INODE_FREE || (handle != NULL && locker_of_handle(handle) != NULL))
        return 0;
    const struct hold *h = holds_find(&fs->holds, inode->id);
    struct process_id process = process_of_thread(fs->processes, (uint32_t)caller->pid);
    (void)process_lineage(fs->processes, process, &lineage); /* Unknown: n = 0. */
    bool allowed = h != NULL && holds_authorised(&fs->holds, h, caller->uid, &lineage);
    return !allowed ? EPERM : h->state == HOLD_ENDED ? ESTALE : 0;
}

/* What stat(2) is to show of a lock that is touched.  A time that the caller names is shown as it
 * is; and since programs that lock by mkdir(2) compare, such a lock always has one. */
static uint64_t mtime_of(const struct inode *inode, const struct stat *attr, int to_set)
{
    bool named = (to_set & FUSE_SET_ATTR_MTIME) != 0 && (to_set & FUSE_SET_ATTR_MTIME_NOW) == 0;
    int64_t s = attr->st_mtim.tv_sec;
    if ((to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)) == 0 && inode->type == S_IFDIR)
        return inode->time_ns; /* Only the time of access. */
    if (!named)
        return inode->type == S_IFDIR ? clock_wall_ns(clock_system()) : 0;
    if (s < 0 || s > INT64_MAX / (int64_t)NS_PER_S - 1) /* Cut, as file systems do. */
        return s < 0 ? 1 : (uint64_t)INT64_MAX;
    uint64_t ns = (uint64_t)s * NS_PER_S + (uint64_t)attr->st_mtim.tv_nsec;
    return ns > 0 ? ns : 1;
}

void ops_setattr(
    fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
    const int times = FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW |
                      FUSE_SET_ATTR_MTIME_NOW;
    struct inode *inode = inode_get(&op_fs(req)->inodes, ino);
    struct handle *handle = handle_of(fi);
    struct command renew = {.verb = COMMAND_RENEW};
    int error = 0;
    if (inode == NULL) {
        (void)fuse_reply_err(req, ESTALE);
        return;
    }
    if (inode->kind == INODE_DIRECTORY) {
        ops_setattr_dir(req, inode, attr, to_set);
        return;
    }
    if ((to_set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0)
        error = EPERM; /* A lock's owner is its holder. */
    else if ((to_set & FUSE_SET_ATTR_SIZE) != 0)
        error = truncate_error(req, inode, handle);
    else if ((to_set & times) != 0) {
        renew.mtime_ns = mtime_of(inode, attr, to_set);
        act_start(req, inode->path, handle, &renew, ino, on_touched);
        return;
    }
    if (error != 0)
        (void)fuse_reply_err(req, error);
    else
        reply_attr(req, inode);
}
