#include "fs/root.h"

#include "fs/attr.h"
#include "fs/show.h"
#include "raftstore/base/buf.h"

#include <errno.h>
#include <stdlib.h>

#define LOOK_MS 500u /* So long an answer may take before we look whether one can be hoped for. */

struct root_getattr {
    struct op op;
    uint64_t asked_mono_ns;
    uint64_t end_mono_ns; /* Of timeout=; the op's own is that of one look. */
};

static void reply(struct root_getattr *g, double timeout_s)
{
    fuse_req_t request = op_take(&g->op);
    struct stat st;
    attr_inode(inode_get(&g->op.fs->inodes, INODE_ROOT), &st);
    if (request != NULL)
        (void)fuse_reply_attr(request, &st, timeout_s);
    free(g);
}

static void fail(struct root_getattr *g, int error)
{
    op_reply_errno(&g->op, error);
    free(g);
}

static void ask(struct root_getattr *g);

static void on_answer(void *arg, const struct client_reply *r)
{
    struct root_getattr *g = arg;
    struct fs *fs = g->op.fs;
    int error;
    const Hf__Node *node = show_node(r, &error);
    if (node != NULL) {
        struct inode *root = inode_get(&fs->inodes, INODE_ROOT);
        attr_update_directory(root, node, g->asked_mono_ns);
        fs->root_stale = false;
        reply(g, attr_timeout_s(fs, root));
    } else if (error == ETIMEDOUT && op_waiting(&g->op)) {
        ask(g);
    } else {
        fail(g, error);
    }
}

static void ask(struct root_getattr *g)
{
    struct fs *fs = g->op.fs;
    uint64_t now = clock_mono_ns(clock_system());
    if (!client_in_touch(fs->client)) {
        fs->root_stale = true;
        reply(g, 0);
        return;
    }
    if (now >= g->end_mono_ns) {
        fail(g, ETIMEDOUT);
        return;
    }
    g->asked_mono_ns = now;
    g->op.until_mono_ns = now + LOOK_MS * NS_PER_MS;
    if (g->op.until_mono_ns > g->end_mono_ns)
        g->op.until_mono_ns = g->end_mono_ns;
    int error = show_path(&g->op, "", on_answer, g);
    if (error != 0)
        fail(g, error);
}

void root_getattr(fuse_req_t req)
{
    struct root_getattr *g = xcalloc(1, sizeof *g);
    op_init(&g->op, req, NULL);
    g->end_mono_ns = g->op.until_mono_ns;
    ask(g);
}

int root_confirm(const struct op *op, client_reply_cb cb, void *arg)
{
    return show_path(op, "", cb, arg);
}

int root_confirmed(struct fs *fs, const struct client_reply *r, uint64_t asked_mono_ns)
{
    struct inode *root = inode_get(&fs->inodes, INODE_ROOT);
    const struct inode told = *root;
    int error;
    const Hf__Node *node = show_node(r, &error);
    if (node == NULL)
        return error;
    attr_update_directory(root, node, asked_mono_ns);
    fs->root_stale = false;
    bool same = root->perm == told.perm && root->uid == told.uid && root->gid == told.gid;
    return same ? 0 : ESTALE;
}
