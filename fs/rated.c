#include "fs/rated.h"

#include "raftstore/base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>

#define UIDS_MAX 4096 /* More than that in one refill's time get more than their share. */

struct rated {
    struct rate_table *table;     /* By uid. */
    struct fuse_lowlevel_ops ops; /* Who is asked once the rate allows it. */
    uint64_t n_refused;
};

static struct rated *rated_of(fuse_req_t req)
{
    const struct fs *fs = fuse_req_userdata(req);
    return fs->rated;
}

/* Take from the caller's bucket.  Return: false: the request was answered. */
static bool allowed(fuse_req_t req, int error)
{
    uid_t uid = fuse_req_ctx(req)->uid;
    if (rate_take(rated_of(req)->table, bytes_of(&uid, sizeof uid), clock_mono_ns(clock_system()),
                  NULL))
        return true;
    rated_of(req)->n_refused++;
    (void)fuse_reply_err(req, error); /* Fails only if the mount is gone. */
    return false;
}

static void rated_create(
    fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    if ((fi->flags & O_EXCL) == 0 || allowed(req, EAGAIN))
        rated_of(req)->ops.create(req, parent, name, mode, fi);
}

static void rated_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    if (allowed(req, EAGAIN))
        rated_of(req)->ops.mkdir(req, parent, name, mode);
}

static void rated_symlink(fuse_req_t req, const char *text, fuse_ino_t parent, const char *name)
{
    if (allowed(req, EAGAIN))
        rated_of(req)->ops.symlink(req, text, parent, name);
}

static void rated_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
    if (allowed(req, EAGAIN))
        rated_of(req)->ops.link(req, ino, new_parent, new_name);
}

static void rated_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
    if ((op & LOCK_UN) != 0 || allowed(req, EBUSY))
        rated_of(req)->ops.flock(req, ino, fi, op);
}

static void rated_setlk(
    fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep)
{
    if (lock->l_type == F_UNLCK || allowed(req, EBUSY))
        rated_of(req)->ops.setlk(req, ino, fi, lock, sleep);
}

void rated_install(struct fs *fs, struct fuse_lowlevel_ops *ops)
{
    if (fs->options->rate.number == 0)
        return;
    fs->rated = xcalloc(1, sizeof *fs->rated);
    fs->rated->table = rate_table_new(&fs->options->rate, UIDS_MAX);
    fs->rated->ops = *ops;
    ops->create = rated_create;
    ops->mkdir = rated_mkdir;
    ops->symlink = rated_symlink;
    ops->link = rated_link;
    ops->flock = rated_flock;
    ops->setlk = rated_setlk;
}

uint64_t rated_n_refused(const struct rated *rated)
{
    return rated != NULL ? rated->n_refused : 0;
}

void rated_free(struct rated *rated)
{
    if (rated == NULL)
        return;
    rate_table_free(rated->table);
    free(rated);
}
