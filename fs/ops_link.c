/* LINK: the dot-lock idiom.  The new name becomes a lock of its own, of who holds the old one: with
 * a lease, a token and an end of its own; only what stat(2) shows is one file. */
#include "fs/ops.h"

#include "fs/act.h"
#include "fs/ask.h"
#include "fs/attr.h"
#include "raftstore/base/log.h"
#include "raftstore/wire/codes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* Who acquired what is linked from. */
static struct lineage owner_of(const struct act *a)
{
    struct lineage lineage = {0};
    if (a->hold == NULL)
        return a->lineage;
    lineage.n = lineage.n_heirs = a->hold->n_heirs;
    for (unsigned i = 0; i < a->hold->n_heirs; i++)
        lineage.ids[i] = a->hold->heirs[i];
    return lineage;
}

/* Return: false when the kernel does not want it any more. */
static bool reply_link(struct act *a, struct inode *inode)
{
    struct fs *fs = a->op.fs;
    struct fuse_entry_param entry = {.ino = inode->number};
    attr_inode(inode, &entry.attr);
    inode->n_lookups++;
    if (fuse_reply_entry(op_take(&a->op), &entry) == 0)
        return true;
    inode_forget(&fs->inodes, inode->number, 1);
    return false;
}

static void linked(struct act *a)
{
    struct fs *fs = a->op.fs;
    const Hf__Result *result = a->result->result;
    struct lineage owner = owner_of(a);
    struct inode *from = inode_hold(&fs->inodes, a->token, a->path);
    struct inode *inode = inode_hold(&fs->inodes, result->token, a->to);
    struct hold *hold = holds_add(&fs->holds, a->to, result->token, a->op.caller.uid, &owner,
                                  result->ttl_ms, a->result->deadline_boot_ns);
    inode->uid = from->uid;
    inode->gid = from->gid;
    inode->perm = from->perm;
    inode->type = from->type;
    inode->size = from->size;
    inode->file = from->file;
    inode->time_ns = inode->changed_ns = clock_wall_ns(clock_system());
    from->n_links++;
    inode->n_links = from->n_links;
    /* The kernel must not show the old count of links for a moment more. */
    (void)fuse_lowlevel_notify_inval_inode(fs->session, from->number, -1, 0);
    LOG_DEBUG("linked", "path=%s to=%s token=%" PRIu64, log_quote(bytes_str(a->path)),
              log_quote(bytes_str(a->to)), result->token);
    inode_entries_changed(&fs->inodes, a->context);
    if (!reply_link(a, inode))
        ask_release(fs, a->to, result->token);
    inode_unref(&fs->inodes, from);
    inode_unref(&fs->inodes, inode);
    hold_unref(hold);
}

static void on_linked(struct act *a, int error)
{
    if (error != 0)
        return; /* Answered by our caller. */
    /* Too late to be of use, as with an acquire. */
    if (!op_waiting(&a->op) || a->result->deadline_boot_ns <= clock_boot_ns(clock_system())) {
        ask_release(a->op.fs, a->to, a->result->result->token);
        op_reply_errno(&a->op, ETIMEDOUT);
        return;
    }
    linked(a);
}

void ops_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
    struct fs *fs = op_fs(req);
    struct inode *inode = inode_get(&fs->inodes, ino);
    struct command command = {.verb = COMMAND_LINK};
    char *path = NULL;
    int r = inode == NULL ? -ESTALE : inode->kind != INODE_HOLD ? -EPERM : 0;
    if (r == 0 && inode->n_links >= WIRE_LINKS_MAX)
        r = -EMLINK;
    if (r == 0)
        r = inode_child(&fs->inodes, new_parent, new_name, NULL, &path);
    if (r < 0) {
        (void)fuse_reply_err(req, -r);
        return;
    }
    command.to = path;
    command.only = inode->id;
    command.kind = inode->type == S_IFLNK ? WIRE_KIND_SYMLINK : WIRE_KIND_EXCL;
    act_start(req, inode->path, NULL, &command, new_parent, on_linked);
    free(path);
}
