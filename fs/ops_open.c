/* CREATE, OPEN, FLUSH, RELEASE, FSYNC.
 *
 * CREATE never waits for a lock: the kernel holds the directory while it is unanswered. */
#include "fs/ops.h"

#include "fs/ask.h"
#include "fs/attr.h"
#include "fs/errno_table.h"
#include "fs/handle.h"
#include "fs/locking.h"
#include "fs/op.h"
#include "fs/path.h"
#include "raftstore/base/log.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>

struct acquire {
    struct op op;
    char *path; /* Owned. */
    fuse_ino_t parent;
    uint32_t perm;
    gid_t gid;
    struct fuse_file_info fi; /* Of the request. */
    struct lineage lineage;   /* Of the caller. */
    struct ask *ask;          /* On its way; NULL once answered. */
};

static void acquire_done(struct acquire *a, int error)
{
    op_reply_errno(&a->op, error);
    free(a->path);
    free(a);
}

static void on_acquire_interrupt(struct op *op)
{
    struct acquire *a = (struct acquire *)op;
    if (a->ask != NULL)
        ask_cancel(a->ask);
}

static void set_flags(struct fuse_file_info *fi)
{
    fi->direct_io = 1; /* Nothing is cached, sizes mean nothing. */
    fi->keep_cache = 0;
}

/* Answer CREATE with a new handle.
 *
 * Return: false when the kernel does not want it any more (and will not close it). */
static bool reply_create(struct op *op,
                         struct inode *inode,
                         struct hold *hold,
                         const struct fuse_file_info *request_fi)
{
    struct fs *fs = op->fs;
    fuse_req_t request = op_take(op);
    if (request == NULL)
        return false;
    struct fuse_file_info fi = *request_fi;
    struct handle *handle = handle_new(fs, inode, hold);
    struct fuse_entry_param entry = {.ino = inode->number};
    attr_inode(inode, &entry.attr);
    entry.attr_timeout = attr_timeout_s(fs, inode);
    fi.fh = (uintptr_t)handle;
    set_flags(&fi);
    inode->n_lookups++;
    if (fuse_reply_create(request, &entry, &fi) == 0)
        return true;
    handle_unref(fs, handle);
    inode_forget(&fs->inodes, inode->number, 1);
    return false;
}

static void acquired(struct acquire *a, const struct client_result *r)
{
    struct fs *fs = a->op.fs;
    uint64_t token = r->result->token;
    /* Too late to be of use: its own deadline has passed, or nobody waits any more. */
    if (!op_waiting(&a->op) || r->deadline_boot_ns <= clock_boot_ns(clock_system())) {
        ask_release(fs, a->path, token);
        acquire_done(a, ETIMEDOUT);
        return;
    }
    struct hold *hold = holds_add(&fs->holds, a->path, token, a->op.caller.uid, &a->lineage,
                                  r->result->ttl_ms, r->deadline_boot_ns);
    struct inode *inode = inode_hold(&fs->inodes, token, a->path);
    inode->uid = a->op.caller.uid;
    inode->gid = a->gid;
    inode->perm = a->perm;
    inode->time_ms = clock_wall_ns(clock_system()) / NS_PER_MS;
    LOG_DEBUG("acquired", "path=%s token=%" PRIu64, log_quote(bytes_str(a->path)), token);
    inode_entries_changed(&fs->inodes, a->parent);
    if (!reply_create(&a->op, inode, hold, &a->fi))
        ask_release(fs, a->path, token);
    inode_unref(&fs->inodes, inode);
    hold_unref(hold);
    acquire_done(a, 0);
}

static void on_acquire(void *arg, const struct client_result *r)
{
    struct acquire *a = arg;
    a->ask = NULL;
    if (r->status != 0)
        acquire_done(a, errno_of_status(r->status));
    else if (r->result->code != WIRE_CODE_OK)
        acquire_done(a, errno_of_code(ERRNO_ACQUIRE, r->result->code));
    else
        acquired(a, r);
}

static void acquire_start(struct acquire *a)
{
    struct fs *fs = a->op.fs;
    struct process_id process = op_process(&a->op);
    struct buf owner = BUF_INIT;
    Hf__Command command = HF__COMMAND__INIT;
    ProtobufCBinaryData path = pack_binary(bytes_str(a->path));
    owner_format(&fs->namer, process, &owner);
    command.op = WIRE_OP_ACQUIRE;
    command.paths = &path;
    command.n_paths = 1;
    command.owner = pack_binary(bytes_of(owner.data, owner.size));
    command.mode = WIRE_MODE_EXCLUSIVE;
    command.kind = WIRE_KIND_EXCL;
    command.ttl_ms = fs->options->ttl_ms;
    command.pid = process.pid != 0 ? process.pid : (uint32_t)a->op.caller.pid;
    command.uid = a->op.caller.uid;
    command.gid = a->gid;
    command.perm = a->perm;
    int error = ask_cluster(fs, &command, op_timeout_ms(&a->op), on_acquire, a, &a->ask);
    buf_deinit(&owner);
    if (error != 0) {
        acquire_done(a, error);
        return;
    }
    /* While the commit is under way: the caller sits in open(), so it can't be gone. */
    (void)process_lineage(fs->processes, process, &a->lineage); /* Unknown: n = 0. */
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
        inode->time_ms = clock_wall_ns(clock_system()) / NS_PER_MS;
    }
    (void)reply_create(&a->op, inode, NULL, &a->fi); /* Nothing to undo. */
    inode_unref(&fs->inodes, inode);
    acquire_done(a, 0);
}

void ops_create(
    fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    struct fs *fs = op_fs(req);
    struct inode *directory = inode_get(&fs->inodes, parent);
    char *path = NULL;
    int r = directory != NULL ? path_join(directory->path, name, &path) : -ESTALE;
    if (r < 0) {
        (void)fuse_reply_err(req, -r);
        return;
    }
    struct acquire *a = xcalloc(1, sizeof *a);
    a->path = path;
    a->parent = parent;
    op_init(&a->op, req, on_acquire_interrupt);
    a->fi = *fi;
    a->perm = (uint32_t)mode & 0777u;
    a->gid = (directory->perm & S_ISGID) != 0 ? directory->gid : a->op.caller.gid;
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
        locking_flush(op_fs(req), handle_of(fi)->inode->path, fi->lock_owner);
    (void)fuse_reply_err(req, 0);
}

/* The lease outlives the descriptor; its locks don't. */
void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    locking_release_handle(handle_of(fi));
    handle_unref(op_fs(req), handle_of(fi));
    (void)fuse_reply_err(req, 0);
}

void ops_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)ino;
    (void)datasync;
    (void)fuse_reply_err(req, handle_lost(handle_of(fi)) ? ESTALE : 0);
}
