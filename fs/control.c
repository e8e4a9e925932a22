#include "fs/control_internal.h"

#include "fs/attr.h"
#include "fs/op.h"
#include "fs/path.h"
#include "fs/replay.h"
#include "fs/root.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>

/* Numbers of the directory (+ 0) and its files.  Directory ids count up from 1, holds and free
 * locks have bits 63 and 62: none of them is ever among these. */
#define NUMBER_BIT (UINT64_C(1) << 61)
#define NUMBER(f)  (NUMBER_BIT + (uint64_t)(f))

static const char *const names[CONTROL_FILES] = {
    [CONTROL_DIRECTORY] = PATH_RESERVED, [CONTROL_STATUS] = "status",
    [CONTROL_METRICS] = "metrics",       [CONTROL_EVENTS] = "events",
    [CONTROL_SESSIONS] = "sessions",     [CONTROL_MEMBERS] = "members",
};

static bool is_ours(fuse_ino_t number)
{
    return number >= NUMBER(0) && number < NUMBER(CONTROL_FILES);
}

static enum control_file file_of(fuse_ino_t number)
{
    return (enum control_file)(number - NUMBER(0));
}

static struct control_handle *handle_from(const struct fuse_file_info *fi)
{
    return (struct control_handle *)(uintptr_t)fi->fh;
}

/* ---- Attributes and entries ------------------------------------------------------------- */

static void stat_of(const struct control *c, enum control_file file, struct stat *ret_stat)
{
    struct stat st = {.st_ino = NUMBER(file), .st_nlink = 1, .st_blksize = 4096};
    uint64_t ms = file == CONTROL_DIRECTORY ? c->begin_wall_ms
                  : file == CONTROL_EVENTS  ? c->events.time_ms
                                            : control_wall_ms();
    st.st_mode = file == CONTROL_DIRECTORY ? S_IFDIR | 0555 : S_IFREG | 0444;
    if (file == CONTROL_EVENTS)
        st.st_size = (off_t)c->events.log.end; /* tail -f looks at it. */
    st.st_mtim.tv_sec = (time_t)(ms / 1000);
    st.st_mtim.tv_nsec = (long)(ms % 1000 * NS_PER_MS);
    st.st_atim = st.st_ctim = st.st_mtim;
    *ret_stat = st;
}

static void reply_entry(fuse_req_t req, enum control_file file)
{
    struct fuse_entry_param e = {.ino = NUMBER(file)};
    stat_of(op_fs(req)->control, file, &e.attr);
    (void)fuse_reply_entry(req, &e); /* These inodes are always there: lookups are not counted. */
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    if (parent == INODE_ROOT && strcmp(name, PATH_RESERVED) == 0) {
        reply_entry(req, CONTROL_DIRECTORY);
        return;
    }
    if (!is_ours(parent)) {
        fs_ops.lookup(req, parent, name);
        return;
    }
    for (unsigned i = CONTROL_DIRECTORY + 1; i < CONTROL_FILES; i++) {
        if (strcmp(name, names[i]) == 0) {
            reply_entry(req, (enum control_file)i);
            return;
        }
    }
    (void)fuse_reply_err(req, ENOENT);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = op_fs(req);
    struct stat st;
    if (ino == INODE_ROOT && !replay_is(req) &&
        attr_directory_fresh_s(fs, inode_get(&fs->inodes, ino)) == 0) {
        root_getattr(req);
        return;
    }
    if (!is_ours(ino)) {
        fs_ops.getattr(req, ino, fi);
        return;
    }
    stat_of(fs->control, file_of(ino), &st);
    (void)fuse_reply_attr(req, &st, 0);
}

static void on_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (is_ours(ino))
        (void)fuse_reply_open(req, fi);
    else
        fs_ops.opendir(req, ino, fi);
}

/* Offsets: 1 ".", 2 "..", then the files. */
static void
on_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    char out[1024];
    size_t used = 0;
    if (!is_ours(ino)) {
        fs_ops.readdir(req, ino, size, off, fi);
        return;
    }
    size = size < sizeof out ? size : sizeof out;
    for (unsigned i = off > 0 && off < 64 ? (unsigned)off
                      : off > 0           ? 64
                                          : 0;
         i < CONTROL_FILES + 1u; i++) {
        struct stat st = {.st_ino = i == 0   ? NUMBER(0)
                                    : i == 1 ? INODE_ROOT
                                             : NUMBER(i - 1),
                          .st_mode = i < 2 ? S_IFDIR : S_IFREG};
        const char *name = i == 0 ? "." : i == 1 ? ".." : names[i - 1];
        size_t n = fuse_add_direntry(req, out + used, size - used, name, &st, (off_t)i + 1);
        if (n > size - used)
            break;
        used += n;
    }
    (void)fuse_reply_buf(req, out, used);
}

static void on_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (is_ours(ino))
        (void)fuse_reply_err(req, 0);
    else
        fs_ops.releasedir(req, ino, fi);
}

/* ---- Files ------------------------------------------------------------------------------ */

static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (!is_ours(ino))
        fs_ops.open(req, ino, fi);
    else if ((fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC) != 0)
        (void)fuse_reply_err(req, EROFS);
    else
        control_open(req, file_of(ino), fi);
}

static void
on_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    if (is_ours(ino))
        control_read(req, handle_from(fi), size, off);
    else
        fs_ops.read(req, ino, size, off, fi);
}

static void on_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (is_ours(ino))
        (void)fuse_reply_err(req, 0);
    else
        fs_ops.flush(req, ino, fi);
}

static void on_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    if (is_ours(ino))
        (void)fuse_reply_err(req, 0);
    else
        fs_ops.fsync(req, ino, datasync, fi);
}

static void on_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (is_ours(ino))
        control_release(req, handle_from(fi));
    else
        fs_ops.release(req, ino, fi);
}

/* A text never changes under its reader, so it is always ready. */
static void
on_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *poll)
{
    if (!is_ours(ino)) {
        fs_ops.poll(req, ino, fi, poll);
    } else if (file_of(ino) == CONTROL_EVENTS) {
        control_events_poll(req, handle_from(fi), poll);
    } else {
        if (poll != NULL)
            fuse_pollhandle_destroy(poll);
        (void)fuse_reply_poll(req, POLLIN | POLLRDNORM);
    }
}

static void on_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    if (is_ours(ino))
        (void)fuse_reply_err(req, ENODATA);
    else
        fs_ops.getxattr(req, ino, name, size);
}

static void on_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    if (!is_ours(ino))
        fs_ops.listxattr(req, ino, size);
    else if (size == 0)
        (void)fuse_reply_xattr(req, 0);
    else
        (void)fuse_reply_buf(req, NULL, 0);
}

/* ---- What would change something -------------------------------------------------------- */

/* Return: true when it was refused. */
static bool refuse(fuse_req_t req, fuse_ino_t number, int error)
{
    if (is_ours(number))
        (void)fuse_reply_err(req, error);
    return is_ours(number);
}

static void
on_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
    if (!refuse(req, ino, EROFS))
        fs_ops.setattr(req, ino, attr, to_set, fi);
}

static void on_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
    if (!refuse(req, parent, EPERM))
        fs_ops.mknod(req, parent, name, mode, device);
}

static void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    if (!refuse(req, parent, EPERM))
        fs_ops.mkdir(req, parent, name, mode);
}

static void on_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    if (!refuse(req, parent, EPERM))
        fs_ops.unlink(req, parent, name);
}

static void on_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    if (!refuse(req, parent, EPERM))
        fs_ops.rmdir(req, parent, name);
}

static void on_symlink(fuse_req_t req, const char *text, fuse_ino_t parent, const char *name)
{
    if (!refuse(req, parent, EPERM))
        fs_ops.symlink(req, text, parent, name);
}

static void on_rename(fuse_req_t req,
                      fuse_ino_t parent,
                      const char *name,
                      fuse_ino_t new_parent,
                      const char *new_name,
                      unsigned flags)
{
    if (!refuse(req, parent, EPERM) && !refuse(req, new_parent, EPERM))
        fs_ops.rename(req, parent, name, new_parent, new_name, flags);
}

static void on_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
    if (!refuse(req, ino, EPERM) && !refuse(req, new_parent, EPERM))
        fs_ops.link(req, ino, new_parent, new_name);
}

static void on_create(
    fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    if (!refuse(req, parent, EPERM))
        fs_ops.create(req, parent, name, mode, fi);
}

static void on_setxattr(
    fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
    if (!refuse(req, ino, EROFS))
        fs_ops.setxattr(req, ino, name, value, size, flags);
}

static void on_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    if (!refuse(req, ino, EROFS))
        fs_ops.removexattr(req, ino, name);
}

static void on_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
    if (!refuse(req, ino, ENOLCK))
        fs_ops.flock(req, ino, fi, op);
}

static void on_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
    if (!refuse(req, ino, ENOLCK))
        fs_ops.getlk(req, ino, fi, lock);
}

static void
on_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep)
{
    if (!refuse(req, ino, ENOLCK))
        fs_ops.setlk(req, ino, fi, lock, sleep);
}

/* What is not here names no inode of ours, or does the same for all. */
void control_operations(struct fuse_lowlevel_ops *ret_ops)
{
    *ret_ops = fs_ops;
    ret_ops->lookup = on_lookup;
    ret_ops->getattr = on_getattr;
    ret_ops->setattr = on_setattr;
    ret_ops->mknod = on_mknod;
    ret_ops->mkdir = on_mkdir;
    ret_ops->unlink = on_unlink;
    ret_ops->rmdir = on_rmdir;
    ret_ops->symlink = on_symlink;
    ret_ops->rename = on_rename;
    ret_ops->link = on_link;
    ret_ops->create = on_create;
    ret_ops->open = on_open;
    ret_ops->read = on_read;
    ret_ops->flush = on_flush;
    ret_ops->fsync = on_fsync;
    ret_ops->release = on_release;
    ret_ops->poll = on_poll;
    ret_ops->opendir = on_opendir;
    ret_ops->readdir = on_readdir;
    ret_ops->releasedir = on_releasedir;
    ret_ops->getxattr = on_getxattr;
    ret_ops->listxattr = on_listxattr;
    ret_ops->setxattr = on_setxattr;
    ret_ops->removexattr = on_removexattr;
    ret_ops->flock = on_flock;
    ret_ops->getlk = on_getlk;
    ret_ops->setlk = on_setlk;
}

/* ---- The mount as a whole --------------------------------------------------------------- */

uint64_t control_wall_ms(void)
{
    return clock_wall_ns(clock_system()) / NS_PER_MS;
}

uint64_t control_left_ns(uint64_t deadline_boot_ns)
{
    uint64_t now = clock_boot_ns(clock_system());
    return deadline_boot_ns > now ? deadline_boot_ns - now : 0;
}

const char *const control_session_states[4] = {"none", "open", "jeopardy", "lost"};

unsigned control_session_state(const struct client_info *info)
{
    if (info->session_id == 0)
        return 0;
    return info->session_lost || control_left_ns(info->session_deadline_boot_ns) == 0 ? 3
           : info->jeopardy                                                           ? 2
                                                                                      : 1;
}

struct control *control_new(struct fs *fs)
{
    struct control *c = xcalloc(1, sizeof *c);
    c->fs = fs;
    c->begin_boot_ns = clock_boot_ns(clock_system());
    c->begin_wall_ms = control_wall_ms();
    LIST_INIT(&c->handles);
    control_events_init(c);
    return c;
}

void control_close(struct control *c)
{
    c->closed = true;
    control_events_close(c);
}

void control_free(struct control *c)
{
    struct control_handle *h;
    while ((h = LIST_FIRST(&c->handles)) != NULL)
        control_handle_unref(h); /* Requests are all answered: the kernel's is the last. */
    event_log_clear(&c->events.log);
    free(c);
}
