/* MKDIR, RMDIR, SETATTR of directories: replicated name spaces; and locks that look like one.
 *
 * The kernel has checked the modes (default_permissions). */
#include "fs/ops.h"

#include "fs/acquire.h"
#include "fs/act.h"
#include "fs/ask.h"
#include "fs/attr.h"
#include "fs/errno_table.h"
#include "fs/path.h"
#include "fs/replay.h"
#include "fs/show.h"
#include "fs/watchers.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <errno.h>
#include <stdlib.h>

struct dir_op {
    struct op op;
    char *path; /* Owned. */
    enum errno_context context;
    fuse_ino_t number;      /* SETATTR: of the directory; its attributes are the answer, not an
                               entry.  0: not so. */
    uint64_t asked_mono_ns; /* When it was asked what stands there now. */
};

static void rmdir_lock(fuse_req_t req, const char *path);

static void dir_done(struct dir_op *d, int error)
{
    op_reply_errno(&d->op, error);
    free(d->path);
    free(d);
}

static void dir_reply(struct dir_op *d, const struct fuse_entry_param *entry, struct inode *inode)
{
    struct fs *fs = d->op.fs;
    fuse_req_t request = op_take(&d->op);
    if (request != NULL && d->number != 0) {
        (void)fuse_reply_attr(request, &entry->attr, entry->attr_timeout);
    } else if (request != NULL) {
        inode->n_lookups++;
        if (fuse_reply_entry(request, entry) < 0)
            inode_forget(&fs->inodes, inode->number, 1);
    }
}

/* What stands there now is the answer. */
static void on_dir_shown(void *arg, const struct client_reply *reply)
{
    struct dir_op *d = arg;
    struct fs *fs = d->op.fs;
    struct fuse_entry_param entry;
    struct inode *inode;
    int error;
    const Hf__Node *node = show_node(reply, &error);
    if (node == NULL) {
        dir_done(d, error);
        return;
    }
    bool other = node->type != WIRE_NODE_DIRECTORY ||
                 (d->number != 0 && inode_directory_number(node->directory_id) != d->number);
    if (other || attr_entry(fs, d->path, node, d->asked_mono_ns, &entry, &inode) < 0) {
        dir_done(d, ENOENT); /* Removed again meanwhile. */
        return;
    }
    dir_reply(d, &entry, inode);
    inode_unref(&fs->inodes, inode);
    dir_done(d, 0);
}

static void on_dir_changed(void *arg, const struct client_result *r)
{
    struct dir_op *d = arg;
    int error = errno_of_status(r->status);
    if (error == 0)
        error = errno_of_code(d->context, r->result->code);
    if (error == 0 && d->context != ERRNO_RMDIR && op_waiting(&d->op)) {
        d->asked_mono_ns = clock_mono_ns(clock_system());
        error = show_path(&d->op, d->path, on_dir_shown, d);
        if (error == 0)
            return;
    }
    if (error == ENOTDIR && d->context == ERRNO_RMDIR && op_waiting(&d->op) &&
        !path_names_lock(path_name(d->path)))
        rmdir_lock(op_take(&d->op), d->path); /* Asked for the lock first if it has such a name. */
    dir_done(d, error);
}

/* `path`: taken over. */
static void dir_start(
    fuse_req_t req, char *path, Hf__Command *command, enum errno_context context, fuse_ino_t number)
{
    struct dir_op *d = xcalloc(1, sizeof *d);
    ProtobufCBinaryData target = pack_binary(bytes_str(path));
    d->path = path;
    d->context = context;
    d->number = number;
    op_init(&d->op, req, NULL);
    command->paths = &target;
    command->n_paths = 1;
    int error = ask_cluster(d->op.fs, command, op_timeout_ms(&d->op), on_dir_changed, d, NULL);
    if (error != 0)
        dir_done(d, error);
}

/* The mkdir idiom: a lease that looks like an empty directory. */
static void mkdir_lock(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct acquire *a = acquire_new(req, parent, name, WIRE_KIND_MKDIR, mode, acquire_reply_entry);
    if (a == NULL)
        return;
    a->mtime_ns = clock_wall_ns(clock_system());
    acquire_start(a);
}

void ops_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct inode *directory;
    const struct fuse_ctx *caller = fuse_req_ctx(req);
    Hf__Command command = HF__COMMAND__INIT;
    char *path;
    if (replay_is(req)) {
        replay_create(req, parent, name, S_IFDIR);
        return;
    }
    if (path_names_lock(name)) {
        mkdir_lock(req, parent, name, mode);
        return;
    }
    int r = inode_child(&op_fs(req)->inodes, parent, name, &directory, &path);
    if (r < 0) {
        (void)fuse_reply_err(req, -r);
        return;
    }
    directory->asked_mono_ns = 0; /* Its times change. */
    bool inherits = (directory->perm & S_ISGID) != 0;
    command.op = WIRE_OP_MKDIR;
    command.uid = caller->uid;
    command.gid = inherits ? directory->gid : caller->gid;
    command.perm = ((uint32_t)mode & 07777u) | (inherits ? (uint32_t)S_ISGID : 0);
    dir_start(req, path, &command, ERRNO_MKDIR, 0);
}

static void rmdir_directory(fuse_req_t req, const char *path)
{
    Hf__Command command = HF__COMMAND__INIT;
    command.op = WIRE_OP_RMDIR;
    dir_start(req, xstrdup(path), &command, ERRNO_RMDIR, 0);
}

static void on_lock_removed(struct act *a, int error)
{
    /* A directory by that name: made by other means than mkdir(2) on a mount. */
    if (error == EISDIR && op_waiting(&a->op))
        rmdir_directory(op_take(&a->op), a->path);
    else if (error == 0 && op_waiting(&a->op))
        watchers_unlinked(a->op.fs, inode_hold_number(a->token));
    op_reply_errno(&a->op, error);
}

static void rmdir_lock(fuse_req_t req, const char *path)
{
    struct command command = {.verb = COMMAND_RELEASE};
    act_start(req, path, NULL, &command, 0, on_lock_removed);
}

/* The name tells what it most likely is.  (A lock may have been renamed.) */
void ops_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct inode *directory;
    char *path;
    if (replay_is(req)) {
        replay_unlink(req, parent, name);
        return;
    }
    int r = inode_child(&op_fs(req)->inodes, parent, name, &directory, &path);
    if (r < 0) {
        (void)fuse_reply_err(req, -r);
        return;
    }
    directory->asked_mono_ns = 0; /* Its times change. */
    if (path_names_lock(name))
        rmdir_lock(req, path);
    else
        rmdir_directory(req, path);
    free(path);
}

void ops_setattr_dir(fuse_req_t req, struct inode *inode, const struct stat *attr, int to_set)
{
    const int ours = FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID;
    const int times = FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME;
    Hf__Command command = HF__COMMAND__INIT;
    if ((to_set & ours) == 0 && (to_set & times) != 0) {
        (void)fuse_reply_err(req, EPERM); /* The cluster keeps no times of directories to be set. */
        return;
    }
    command.op = WIRE_OP_SETATTR;
    command.token = inode->id; /* That the kernel judged, not its successor of the same name. */
    command.uid = (to_set & FUSE_SET_ATTR_UID) != 0 ? attr->st_uid : UINT32_MAX;
    command.gid = (to_set & FUSE_SET_ATTR_GID) != 0 ? attr->st_gid : UINT32_MAX;
    command.perm = (to_set & FUSE_SET_ATTR_MODE) != 0 ? attr->st_mode & 07777u : UINT32_MAX;
    dir_start(req, xstrdup(inode->path), &command, ERRNO_DIRECTORY, inode->number);
}
