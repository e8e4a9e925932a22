/* FLOCK, SETLK, GETLK. */
#include "fs/ops.h"

#include "fs/errno_table.h"
#include "fs/locking.h"
#include "fs/show.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>

void ops_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
    struct lock_want want = {
        .kind = LOCKER_FLOCK,
        .mode = (op & LOCK_EX) != 0   ? HELD_EXCLUSIVE
                : (op & LOCK_SH) != 0 ? HELD_SHARED
                                      : HELD_NONE,
        .sleep = (op & LOCK_NB) == 0,
        .end = HELD_END,
    };
    (void)ino;
    locking_start(req, handle_of(fi), fi->lock_owner, &want);
}

/* libfuse has made the range absolute; a length of 0 means: to the end. */
static struct lock_want want_of(const struct flock *lock)
{
    return (struct lock_want){
        .kind = LOCKER_FCNTL,
        .mode = lock->l_type == F_WRLCK   ? HELD_EXCLUSIVE
                : lock->l_type == F_RDLCK ? HELD_SHARED
                                          : HELD_NONE,
        .start = (uint64_t)lock->l_start,
        .end = lock->l_len == 0 ? HELD_END : (uint64_t)lock->l_start + (uint64_t)lock->l_len - 1,
        .pid = lock->l_pid > 0 ? (uint32_t)lock->l_pid : 0,
    };
}

void ops_setlk(
    fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep)
{
    struct lock_want want = want_of(lock);
    (void)ino;
    want.sleep = sleep != 0;
    locking_start(req, handle_of(fi), fi->lock_owner, &want);
}

struct getlk {
    struct op op;
    struct handle *handle; /* With a reference. */
    uint64_t owner;        /* The kernel's. */
    struct lock_want want;
};

/* Is this hold the caller's own? */
static bool is_own(const struct locker *l, const Hf__Hold *h)
{
    if (l == NULL)
        return false;
    if (l->adopted != NULL)
        return l->adopted->token == h->token;
    return bytes_equal(pack_bytes(h->owner), bytes_str(l->text));
}

/* Process ids mean something on one host only: 0 for those of others. */
static pid_t local_pid(const struct fs *fs, const Hf__Hold *h)
{
    struct buf prefix = BUF_INIT;
    buf_printf(&prefix, "%s/%s/", fs->namer.host, fs->namer.boot);
    bool here = h->owner.len > prefix.size && memcmp(h->owner.data, prefix.data, prefix.size) == 0;
    buf_deinit(&prefix);
    return here && h->pid <= INT32_MAX ? (pid_t)h->pid : 0;
}

static const Hf__Hold *find_conflict(const struct getlk *g, const Hf__Node *node)
{
    const struct locker *l = locker_find(g->handle, LOCKER_FCNTL, g->owner);
    /* What the process has locked by flock through this descriptor is not in the way either. */
    const struct locker *support = locker_support(g->handle, LOCKER_FCNTL, op_process(&g->op));
    if (support != NULL && support->leaner != NULL && support->leaner != l)
        support = NULL; /* Another process was first. */
    const Hf__Hold *first = NULL;
    for (size_t i = 0; i < node->n_holds; i++) {
        const Hf__Hold *h = node->holds[i];
        if (h->start > g->want.end || UINT64_MAX - h->end_inverted < g->want.start ||
            (h->mode == WIRE_MODE_SHARED && g->want.mode == HELD_SHARED) || is_own(l, h) ||
            is_own(support, h) ||
            lock_file_releases(g->op.fs, g->handle->inode->path, pack_bytes(h->owner)))
            continue;
        if (first == NULL || h->start < first->start)
            first = h;
    }
    return first;
}

static void on_getlk(void *arg, const struct client_reply *reply)
{
    struct getlk *g = arg;
    struct fs *fs = g->op.fs;
    int error;
    const Hf__Node *node = show_node(reply, &error);
    fuse_req_t request = op_take(&g->op);
    if (request != NULL && node == NULL) {
        (void)fuse_reply_err(request, error);
    } else if (request != NULL) {
        struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
        const Hf__Hold *h = find_conflict(g, node);
        if (h != NULL) {
            uint64_t end = UINT64_MAX - h->end_inverted;
            lock.l_type = h->mode == WIRE_MODE_EXCLUSIVE ? F_WRLCK : F_RDLCK;
            lock.l_start = (off_t)h->start;
            lock.l_len = end >= INT64_MAX ? 0 : (off_t)(end - h->start + 1);
            lock.l_pid = local_pid(fs, h);
        }
        (void)fuse_reply_lock(request, &lock);
    }
    handle_unref(fs, g->handle);
    free(g);
}

static int ask(struct getlk *g)
{
    struct fs *fs = g->op.fs;
    const struct locker *l = locker_find(g->handle, LOCKER_FCNTL, g->owner);
    Hf__Query query = HF__QUERY__INIT;
    query.what = HF__QUERY__WHAT__SHOW;
    query.path = pack_binary(bytes_str(g->handle->inode->path));
    query.brief = true;
    query.against = (uint32_t)g->want.mode;
    query.start = g->want.start;
    query.end_inverted = UINT64_MAX - g->want.end;
    if (l != NULL)
        query.owner = pack_binary(bytes_str(l->text));
    if (fs->failed)
        return EIO;
    return errno_of_status(
        client_query(fs->client, &query, op_timeout_ms(&g->op), false, on_getlk, g));
}

void ops_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
    struct handle *h = handle_of(fi);
    (void)ino;
    if (handle_lost(h)) {
        (void)fuse_reply_err(req, ESTALE);
        return;
    }
    struct getlk *g = xcalloc(1, sizeof *g);
    op_init(&g->op, req, NULL);
    g->handle = h;
    handle_ref(h);
    g->owner = fi->lock_owner;
    g->want = want_of(lock);
    int error = ask(g);
    if (error == 0)
        return;
    op_reply_errno(&g->op, error);
    handle_unref(g->op.fs, h);
    free(g);
}
