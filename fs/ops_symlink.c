/* SYMLINK and READLINK: the Emacs idiom.  The text is the lock's note. */
#include "fs/ops.h"

#include "fs/acquire.h"
#include "fs/replay.h"
#include "fs/show.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <errno.h>
#include <stdlib.h>

void ops_symlink(fuse_req_t req, const char *text, fuse_ino_t parent, const char *name)
{
    struct bytes note = bytes_str(text);
    if (replay_is(req)) {
        replay_create(req, parent, name, S_IFLNK);
        return;
    }
    if (note.size > WIRE_NOTE_BYTES_MAX) {
        (void)fuse_reply_err(req, ENAMETOOLONG);
        return;
    }
    struct acquire *a =
        acquire_new(req, parent, name, WIRE_KIND_SYMLINK, 0777, acquire_reply_entry);
    if (a == NULL)
        return;
    a->note = note;
    acquire_start(a);
}

struct readlink {
    struct op op;
    uint64_t token; /* Of the inode. */
};

static void on_readlink(void *arg, const struct client_reply *reply)
{
    struct readlink *r = arg;
    int error;
    const Hf__Node *node = show_node(reply, &error);
    const Hf__Hold *hold = NULL;
    for (size_t i = 0; node != NULL && i < node->n_holds; i++)
        if (node->holds[i]->token == r->token)
            hold = node->holds[i];
    fuse_req_t request = op_take(&r->op);
    if (request != NULL && hold != NULL) {
        char *text = xmalloc(hold->note.len + 1);
        memcpy(text, hold->note.data, hold->note.len);
        text[hold->note.len] = '\0';
        (void)fuse_reply_readlink(request, text);
        free(text);
    } else if (request != NULL) {
        (void)fuse_reply_err(request, node == NULL ? error : ENOENT);
    }
    free(r);
}

void ops_readlink(fuse_req_t req, fuse_ino_t ino)
{
    struct fs *fs = op_fs(req);
    const struct inode *inode = inode_get(&fs->inodes, ino);
    if (inode == NULL || inode->kind != INODE_HOLD) {
        (void)fuse_reply_err(req, inode == NULL ? ESTALE : EINVAL);
        return;
    }
    struct readlink *r = xcalloc(1, sizeof *r);
    r->token = inode->id;
    op_init(&r->op, req, NULL);
    int error = show_path(&r->op, inode->path, on_readlink, r);
    if (error != 0) {
        op_reply_errno(&r->op, error);
        free(r);
    }
}
