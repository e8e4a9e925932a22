#include "fs/replay.h"

#include "fs/attr.h"
#include "fs/op.h"
#include "fs/watchers.h"
#include "raftstore/base/buf.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

bool replay_is(fuse_req_t req)
{
    return notifier_is_caller(op_fs(req)->notifier, fuse_req_ctx(req)->pid);
}

/* Is `name` in the directory the path that the change is about? */
static bool names(struct fs *fs, fuse_ino_t parent, const char *name, const char *path)
{
    char *joined = NULL;
    if (path == NULL || inode_child(&fs->inodes, parent, name, NULL, &joined) < 0)
        return false;
    bool same = strcmp(joined, path) == 0;
    free(joined);
    return same;
}

/* The file that the change is about, with a reference. */
static struct inode *subject(struct fs *fs, const struct notice *n)
{
    struct inode *i = inode_get(&fs->inodes, n->number);
    if (i != NULL)
        inode_ref(i);
    else if ((n->number & INODE_HOLD_BIT) != 0)
        i = inode_hold(&fs->inodes, n->number & ~INODE_HOLD_BIT, n->path);
    else
        i = inode_free_lock(&fs->inodes, n->path);
    if (i->n_lookups == 0) { /* Nobody has seen it: until somebody looks it up, this will do. */
        i->type = n->mode;
        i->uid = n->uid;
        i->perm = n->mode == S_IFLNK ? 0777 : 0600;
        i->time_ns = i->changed_ns = clock_wall_ns(clock_system());
    }
    return i;
}

static void reply_entry(fuse_req_t req, struct inode *i, bool as_ours)
{
    struct fs *fs = op_fs(req);
    struct fuse_entry_param e = {.ino = i->number};
    attr_inode(i, &e.attr);
    if (as_ours) { /* The kernel lets us remove it, and then the last of it. */
        e.attr.st_uid = geteuid();
        e.attr.st_nlink = i->type == S_IFDIR ? 2 : 1;
    }
    i->n_lookups++;
    if (fuse_reply_entry(req, &e) < 0)
        inode_forget(&fs->inodes, i->number, 1);
}

/* A directory on the way to it. */
static struct inode *directory_of(struct fs *fs, fuse_ino_t parent, const char *name)
{
    char *path = NULL;
    if (inode_child(&fs->inodes, parent, name, NULL, &path) < 0)
        return NULL;
    struct inode *i = inode_directory_at(&fs->inodes, path);
    free(path);
    return i;
}

void replay_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = op_fs(req);
    const struct notice *n = notifier_current(fs->notifier);
    if (parent == INODE_ROOT && strcmp(name, notifier_secret(fs->notifier)) == 0) {
        (void)fuse_reply_err(req, NOTIFIER_YES);
    } else if (n != NULL && names(fs, parent, name, n->path)) {
        bool gone = n->type == NOTICE_CREATED || n->type == NOTICE_PROBE || watchers_is_over(fs, n);
        struct inode *i = gone ? NULL : subject(fs, n);
        if (i == NULL) {
            (void)fuse_reply_err(req, ENOENT);
            return;
        }
        reply_entry(req, i, n->type == NOTICE_DELETED);
        inode_unref(&fs->inodes, i);
    } else if (n != NULL && names(fs, parent, name, n->to)) {
        (void)fuse_reply_err(req, ENOENT);
    } else {
        struct inode *directory = directory_of(fs, parent, name);
        if (directory != NULL)
            reply_entry(req, directory, false);
        else
            (void)fuse_reply_err(req, ENOENT);
    }
}

void replay_getattr(fuse_req_t req, fuse_ino_t ino)
{
    const struct inode *i = inode_get(&op_fs(req)->inodes, ino);
    struct stat st;
    if (i == NULL) {
        (void)fuse_reply_err(req, ESTALE);
        return;
    }
    attr_inode(i, &st);
    (void)fuse_reply_attr(req, &st, 0);
}

void replay_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t type)
{
    struct fs *fs = op_fs(req);
    const struct notice *n = notifier_current(fs->notifier);
    if (n == NULL || n->type != NOTICE_CREATED || n->mode != type ||
        !names(fs, parent, name, n->path)) {
        (void)fuse_reply_err(req, EIO);
        return;
    }
    struct inode *i = subject(fs, n);
    if (i->type == type)
        reply_entry(req, i, false);
    else
        (void)fuse_reply_err(req, EIO);
    inode_unref(&fs->inodes, i);
}

void replay_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *fs = op_fs(req);
    const struct notice *n = notifier_current(fs->notifier);
    bool is = n != NULL && n->type == NOTICE_DELETED && names(fs, parent, name, n->path);
    if (is) {
        watchers_replayed(fs, n->number);
        inode_entries_changed(&fs->inodes, parent);
    }
    (void)fuse_reply_err(req, is ? 0 : EIO);
}

void replay_rename(fuse_req_t req,
                   fuse_ino_t parent,
                   const char *name,
                   fuse_ino_t new_parent,
                   const char *new_name)
{
    struct fs *fs = op_fs(req);
    const struct notice *n = notifier_current(fs->notifier);
    bool is = n != NULL && n->type == NOTICE_RENAMED && names(fs, parent, name, n->path) &&
              names(fs, new_parent, new_name, n->to);
    if (is) {
        inode_entries_changed(&fs->inodes, parent);
        inode_entries_changed(&fs->inodes, new_parent);
    }
    (void)fuse_reply_err(req, is ? 0 : EIO);
}
