#include "fs/acquire.h"

#include "fs/ask.h"
#include "fs/attr.h"
#include "fs/errno_table.h"
#include "raftstore/base/log.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

void acquire_done(struct acquire *a, int error)
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

struct acquire *acquire_new(fuse_req_t req,
                            fuse_ino_t parent,
                            const char *name,
                            uint32_t kind,
                            mode_t mode,
                            bool (*reply)(struct acquire *, struct inode *, struct hold *))
{
    struct inode *directory;
    char *path;
    int r = inode_child(&op_fs(req)->inodes, parent, name, &directory, &path);
    if (r < 0) {
        (void)fuse_reply_err(req, -r);
        return NULL;
    }
    struct acquire *a = xcalloc(1, sizeof *a);
    op_init(&a->op, req, on_acquire_interrupt);
    a->path = path;
    a->parent = parent;
    a->kind = kind;
    a->perm = (uint32_t)mode & 0777u;
    a->gid = (directory->perm & S_ISGID) != 0 ? directory->gid : a->op.caller.gid;
    a->reply = reply;
    return a;
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
    inode->type = attr_type_of_kind(a->kind);
    inode->n_links = inode->type == S_IFDIR ? 2 : 1;
    inode->uid = a->op.caller.uid;
    inode->gid = a->gid;
    inode->perm = a->perm;
    inode->changed_ns = clock_wall_ns(clock_system());
    inode->time_ns = a->mtime_ns != 0 ? a->mtime_ns : inode->changed_ns;
    inode->size = a->kind == WIRE_KIND_SYMLINK ? (off_t)a->note.size : 0;
    LOG_DEBUG("acquired", "path=%s kind=%s token=%" PRIu64, log_quote(bytes_str(a->path)),
              wire_kind_name(a->kind), token);
    inode_entries_changed(&fs->inodes, a->parent);
    if (!a->reply(a, inode, hold))
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

void acquire_start(struct acquire *a)
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
    command.kind = a->kind;
    command.ttl_ms = fs->options->ttl_ms;
    command.note = pack_binary(a->note);
    command.mtime_ns = a->mtime_ns;
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
    a->note.data = NULL; /* Its size is still of use. */
    /* While the commit is under way: the caller sits in open(), so it can't be gone. */
    (void)process_lineage(fs->processes, process, &a->lineage); /* Unknown: n = 0. */
}

bool acquire_reply_entry(struct acquire *a, struct inode *inode, struct hold *hold)
{
    struct fs *fs = a->op.fs;
    fuse_req_t request = op_take(&a->op);
    struct fuse_entry_param entry = {.ino = inode->number};
    (void)hold;
    if (request == NULL)
        return false;
    attr_inode(inode, &entry.attr);
    entry.attr_timeout = attr_timeout_s(fs, inode);
    inode->n_lookups++;
    if (fuse_reply_entry(request, &entry) == 0)
        return true;
    inode_forget(&fs->inodes, inode->number, 1);
    return false;
}
