/* LOOKUP, FORGET, GETATTR. */
#include "fs/ops.h"

#include "fs/attr.h"
#include "fs/replay.h"
#include "fs/root.h"
#include "fs/show.h"
#include "fs/watchers.h"
#include "raftstore/base/buf.h"

#include <errno.h>
#include <stdlib.h>

struct lookup {
    struct op op;
    char *path; /* Owned. */
    uint64_t asked_mono_ns;
};

static void lookup_done(struct lookup *l, int error)
{
    op_reply_errno(&l->op, error);
    free(l->path);
    free(l);
}

static void on_lookup(void *arg, const struct client_reply *reply)
{
    struct lookup *l = arg;
    struct fs *fs = l->op.fs;
    struct fuse_entry_param entry;
    struct inode *inode;
    int error;
    const Hf__Node *node = show_node(reply, &error);
    if (node == NULL) {
        lookup_done(l, error);
        return;
    }
    fuse_req_t request = NULL;
    if (attr_entry(fs, l->path, node, l->asked_mono_ns, &entry, &inode) < 0) {
        lookup_done(l, ENOENT);
        return;
    }
    request = op_take(&l->op);
    if (request != NULL) {
        inode->n_lookups++;
        if (fuse_reply_entry(request, &entry) < 0)
            inode_forget(&fs->inodes, inode->number, 1);
        else
            watchers_known(fs, inode);
    }
    inode_unref(&fs->inodes, inode);
    lookup_done(l, 0);
}

static void lookup_ask(struct lookup *l)
{
    l->asked_mono_ns = clock_mono_ns(clock_system());
    int r = show_path(&l->op, l->path, on_lookup, l);
    if (r != 0)
        lookup_done(l, r);
}

/* The way here was allowed by old attributes of the root. */
static void on_root(void *arg, const struct client_reply *reply)
{
    struct lookup *l = arg;
    int error = root_confirmed(l->op.fs, reply, l->asked_mono_ns);
    if (error != 0)
        lookup_done(l, error);
    else
        lookup_ask(l);
}

void ops_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = op_fs(req);
    char *path = NULL;
    if (replay_is(req)) {
        replay_lookup(req, parent, name);
        return;
    }
    int r = inode_child(&fs->inodes, parent, name, NULL, &path);
    if (r < 0) {
        /* Below the root the reserved name is nothing, nor is anything in a lock that is a
         * directory. */
        (void)fuse_reply_err(req, r == -EPERM ? ENOENT : -r);
        return;
    }
    struct lookup *l = xcalloc(1, sizeof *l);
    l->path = path;
    op_init(&l->op, req, NULL);
    if (parent != INODE_ROOT || !fs->root_stale) {
        lookup_ask(l);
        return;
    }
    l->asked_mono_ns = clock_mono_ns(clock_system());
    r = root_confirm(&l->op, on_root, l);
    if (r != 0)
        lookup_done(l, r);
}

void ops_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n_lookups)
{
    inode_forget(&op_fs(req)->inodes, ino, n_lookups);
    fuse_reply_none(req);
}

void ops_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        inode_forget(&op_fs(req)->inodes, forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

struct getattr {
    struct op op;
    struct inode *inode; /* With a reference. */
    uint64_t asked_mono_ns;
};

static void getattr_done(struct getattr *g, int error, nlink_t n_links)
{
    fuse_req_t request = op_take(&g->op);
    struct stat st;
    if (request != NULL && error != 0) {
        (void)fuse_reply_err(request, error);
    } else if (request != NULL && n_links == 0 && attr_inode_locked(g->op.fs, g->inode, &st)) {
        (void)fuse_reply_attr(request, &st, 0);
    } else if (request != NULL) {
        attr_inode(g->inode, &st);
        st.st_nlink = n_links;
        (void)fuse_reply_attr(request, &st, n_links > 0 ? attr_timeout_s(g->op.fs, g->inode) : 0);
    }
    inode_unref(&g->op.fs->inodes, g->inode);
    free(g);
}

/* A file whose hold has ended is like one that was unlinked: attributes remain, without links. */
static void on_getattr(void *arg, const struct client_reply *reply)
{
    struct getattr *g = arg;
    int error;
    const Hf__Node *node = show_node(reply, &error);
    if (node == NULL) {
        getattr_done(g, error, 0);
        return;
    }
    if (g->inode->kind == INODE_DIRECTORY) {
        if (node->directory_id != g->inode->id) {
            getattr_done(g, ENOENT, 0);
            return;
        }
        attr_update_directory(g->inode, node, g->asked_mono_ns);
        getattr_done(g, 0, 1);
        return;
    }
    for (size_t i = 0; i < node->n_holds; i++) {
        if (node->holds[i]->token == g->inode->id) {
            attr_update_hold(g->inode, node->holds[i]);
            getattr_done(g, 0, g->inode->n_links);
            return;
        }
    }
    getattr_done(g, 0, 0);
}

void ops_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = op_fs(req);
    struct inode *inode = inode_get(&fs->inodes, ino);
    (void)fi; /* The inode knows. */
    if (replay_is(req)) {
        replay_getattr(req, ino);
        return;
    }
    if (inode == NULL) {
        (void)fuse_reply_err(req, ESTALE);
        return;
    }
    if (inode->kind == INODE_DIRECTORY && attr_directory_fresh_s(fs, inode) > 0) {
        /* The kernel forgets a directory's attributes at each change of its own, long before
         * dircache= is over: without this each O_EXCL open would cost a read round more. */
        struct stat st;
        attr_inode(inode, &st);
        (void)fuse_reply_attr(req, &st, attr_directory_fresh_s(fs, inode));
        return;
    }
    struct getattr *g = xcalloc(1, sizeof *g);
    g->inode = inode;
    inode_ref(inode);
    op_init(&g->op, req, NULL);
    if (inode->kind == INODE_FREE) {
        getattr_done(g, 0, 1);
        return;
    }
    g->asked_mono_ns = clock_mono_ns(clock_system());
    int r = show_path(&g->op, inode->path, on_getattr, g);
    if (r != 0)
        getattr_done(g, r, 0);
}
