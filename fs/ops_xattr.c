/* GETXATTR, LISTXATTR, SETXATTR, REMOVEXATTR.
 *
 * Names outside user.holdfast. cost the cluster nothing: `ls -l` asks for several a file. */
#include "fs/ops.h"

#include "fs/act.h"
#include "fs/attr.h"
#include "fs/locker.h"
#include "fs/show.h"
#include "raftstore/base/duration.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/xattr.h>

#define PREFIX "user.holdfast."

enum xattr { XATTR_TOKEN, XATTR_OWNER, XATTR_TTL, XATTR_REMAINING, XATTR_MODE, XATTR_COUNT };

static const char *const lock_names[XATTR_COUNT] = {
    [XATTR_TOKEN] = PREFIX "token", [XATTR_OWNER] = PREFIX "owner",
    [XATTR_TTL] = PREFIX "ttl_ms",  [XATTR_REMAINING] = PREFIX "remaining_ms",
    [XATTR_MODE] = PREFIX "mode",
};

/* Of the mount's root: by these the command line tool finds the cluster. */
static const char *const root_names[] = {PREFIX "cluster", PREFIX "mount"};

struct getxattr {
    struct op op;
    struct inode *inode; /* With a reference. */
    enum xattr what;
    size_t size; /* Of the caller's buffer; 0: it asks for the size. */
};

static void reply_value(fuse_req_t req, const void *value, size_t value_size, size_t size)
{
    if (size == 0)
        (void)fuse_reply_xattr(req, value_size);
    else if (size < value_size)
        (void)fuse_reply_err(req, ERANGE);
    else
        (void)fuse_reply_buf(req, value, value_size);
}

static void format_value(const Hf__Hold *h, enum xattr what, struct buf *out)
{
    switch (what) {
    case XATTR_TOKEN:
        buf_printf(out, "%" PRIu64, h->token);
        break;
    case XATTR_OWNER:
        buf_add(out, h->owner.data, h->owner.len);
        break;
    case XATTR_TTL:
        buf_printf(out, "%" PRIu64, h->ttl_ms);
        break;
    case XATTR_REMAINING:
        buf_printf(out, "%" PRIu64, h->remaining_ms);
        break;
    case XATTR_MODE:
        buf_printf(out, "%s", wire_hold_mode_name(h->mode, h->limit));
        break;
    case XATTR_COUNT:
        break;
    }
}

static const Hf__Hold *find_token(const Hf__Node *node, uint64_t token)
{
    for (size_t i = 0; i < node->n_holds; i++)
        if (node->holds[i]->token == token)
            return node->holds[i];
    return NULL;
}

static const Hf__Hold *find_owner(const Hf__Node *node, const char *owner)
{
    for (size_t i = 0; i < node->n_holds; i++)
        if (bytes_equal(pack_bytes(node->holds[i]->owner), bytes_str(owner)))
            return node->holds[i];
    return NULL;
}

/* The hold that is asked for.  The file of flock and fcntl locks stands for all holds at its path:
 * of several the caller wants its own, if it has one. */
static const Hf__Hold *find_hold(struct getxattr *g, const Hf__Node *node)
{
    if (g->inode->kind == INODE_HOLD)
        return find_token(node, g->inode->id);
    struct fs *fs = g->op.fs;
    const Hf__Hold *first = attr_hold(fs, node);
    if (first == NULL || node->n_holds == 1)
        return first;
    struct lineage caller;
    op_lineage(&g->op, &caller);
    const struct locker *l = locker_find_authorised(fs, g->inode->path, g->op.caller.uid, &caller);
    const Hf__Hold *own = l != NULL ? find_owner(node, l->text) : NULL;
    return own != NULL ? own : first;
}

static void getxattr_free(struct getxattr *g)
{
    inode_unref(&g->op.fs->inodes, g->inode);
    free(g);
}

static void on_getxattr(void *arg, const struct client_reply *reply)
{
    struct getxattr *g = arg;
    int error;
    const Hf__Node *node = show_node(reply, &error);
    const Hf__Hold *hold = node != NULL ? find_hold(g, node) : NULL;
    fuse_req_t request = op_take(&g->op);
    if (request != NULL && node == NULL) {
        (void)fuse_reply_err(request, error);
    } else if (request != NULL && hold == NULL) {
        (void)fuse_reply_err(request, ENODATA); /* It has ended. */
    } else if (request != NULL) {
        struct buf value = BUF_INIT;
        format_value(hold, g->what, &value);
        reply_value(request, value.data, value.size, g->size);
        buf_deinit(&value);
    }
    getxattr_free(g);
}

static void getxattr_root(fuse_req_t req, const char *name, size_t size)
{
    struct fs *fs = op_fs(req);
    if (strcmp(name, root_names[0]) == 0)
        reply_value(req, fs->cluster, strlen(fs->cluster), size);
    else if (strcmp(name, root_names[1]) == 0)
        reply_value(req, HOLDFAST_VERSION, strlen(HOLDFAST_VERSION), size);
    else
        (void)fuse_reply_err(req, ENODATA);
}

static int find_name(const char *name, enum xattr *ret)
{
    for (unsigned i = 0; i < XATTR_COUNT; i++) {
        if (strcmp(name, lock_names[i]) == 0) {
            *ret = (enum xattr)i;
            return 0;
        }
    }
    return -ENODATA;
}

void ops_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    struct inode *inode = inode_get(&op_fs(req)->inodes, ino);
    enum xattr what;
    if (ino == INODE_ROOT) {
        getxattr_root(req, name, size);
        return;
    }
    if (inode == NULL || inode->kind == INODE_DIRECTORY || find_name(name, &what) < 0) {
        (void)fuse_reply_err(req, ENODATA);
        return;
    }
    struct getxattr *g = xcalloc(1, sizeof *g);
    g->inode = inode;
    inode_ref(inode);
    g->what = what;
    g->size = size;
    op_init(&g->op, req, NULL);
    int error = show_path(&g->op, inode->path, on_getxattr, g);
    if (error != 0) {
        op_reply_errno(&g->op, error);
        getxattr_free(g);
    }
}

static void add_names(struct buf *out, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        buf_add(out, names[i], strlen(names[i]) + 1);
}

void ops_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    const struct inode *inode = inode_get(&op_fs(req)->inodes, ino);
    struct buf names = BUF_INIT;
    if (ino == INODE_ROOT)
        add_names(&names, root_names, sizeof root_names / sizeof root_names[0]);
    else if (inode != NULL && inode->kind != INODE_DIRECTORY)
        add_names(&names, lock_names, XATTR_COUNT);
    reply_value(req, names.data, names.size, size);
    buf_deinit(&names);
}

static void on_ttl_set(struct act *a, int error)
{
    op_reply_errno(&a->op, error);
}

/* Setting the ttl renews with it. */
void ops_setxattr(
    fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
    const struct inode *inode = inode_get(&op_fs(req)->inodes, ino);
    struct command renew = {.verb = COMMAND_RENEW};
    enum xattr what;
    int error = 0;
    if (strncmp(name, PREFIX, strlen(PREFIX)) != 0 || inode == NULL || inode->kind != INODE_HOLD ||
        find_name(name, &what) < 0)
        error = EOPNOTSUPP;
    else if (what != XATTR_TTL)
        error = EPERM;
    else if (number_parse(bytes_of(value, size), &renew.ttl_ms) < 0 ||
             renew.ttl_ms < WIRE_TTL_MS_MIN || renew.ttl_ms > WIRE_TTL_MS_MAX)
        error = EINVAL;
    else if ((flags & XATTR_CREATE) != 0)
        error = EEXIST;
    if (error != 0)
        (void)fuse_reply_err(req, error);
    else {
        if (inode->type == S_IFDIR)
            renew.mtime_ns = inode->time_ns; /* Of a directory a new attribute is no change. */
        act_start(req, inode->path, NULL, &renew, 0, on_ttl_set);
    }
}

void ops_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    (void)ino;
    bool ours = strncmp(name, PREFIX, strlen(PREFIX)) == 0;
    (void)fuse_reply_err(req, ours ? EPERM : ENODATA);
}
