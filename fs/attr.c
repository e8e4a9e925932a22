#include "fs/attr.h"

#include "fs/locker.h"
#include "fs/poller.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <errno.h>

static bool is_releasing(const struct fs *fs, const Hf__Node *node, const Hf__Hold *hold)
{
    char path[WIRE_PATH_BYTES_MAX + 1];
    if (fs->lock_files == NULL || !hold->session_bound || node->path.len >= sizeof path)
        return false;
    memcpy(path, node->path.data, node->path.len);
    path[node->path.len] = '\0';
    return lock_file_releases(fs, path, pack_bytes(hold->owner));
}

const Hf__Hold *attr_hold(const struct fs *fs, const Hf__Node *node)
{
    if (node->type != WIRE_NODE_LOCK)
        return NULL;
    for (size_t i = 0; i < node->n_holds; i++) {
        const Hf__Hold *shown = node->holds[i];
        const struct hold *h = holds_find(&fs->holds, shown->token);
        if (h != NULL ? h->state != HOLD_RELEASING : !is_releasing(fs, node, shown))
            return shown;
    }
    return NULL;
}

mode_t attr_type_of_kind(uint32_t kind)
{
    return kind == WIRE_KIND_MKDIR ? S_IFDIR : kind == WIRE_KIND_SYMLINK ? S_IFLNK : S_IFREG;
}

uint64_t attr_file_number(const Hf__Hold *hold)
{
    return inode_hold_number(hold->file_token != 0 ? hold->file_token : hold->token);
}

void attr_update_hold(struct inode *inode, const Hf__Hold *hold)
{
    inode->uid = hold->uid;
    inode->gid = hold->gid;
    inode->perm = hold->perm & 0777u; /* A lock is never setuid, setgid or sticky. */
    inode->changed_ns = hold->renewed_wall_ms * NS_PER_MS;
    inode->time_ns = hold->mtime_ns != 0 ? hold->mtime_ns : inode->changed_ns;
    if (inode->kind != INODE_HOLD)
        return;
    inode->type = attr_type_of_kind(hold->kind);
    inode->file = attr_file_number(hold);
    inode->n_links = inode->type == S_IFDIR ? 2 : hold->n_links > 1 ? hold->n_links : 1;
    inode->size = inode->type == S_IFLNK ? (off_t)hold->note.len : 0;
}

void attr_update_directory(struct inode *inode, const Hf__Node *node, uint64_t asked_mono_ns)
{
    if (asked_mono_ns < inode->asked_mono_ns)
        return;
    inode->asked_mono_ns = asked_mono_ns;
    inode->uid = node->uid;
    inode->gid = node->gid;
    inode->perm = node->perm & 07777u;
    inode->time_ns = inode->changed_ns = node->changed_wall_ms * NS_PER_MS;
}

void attr_inode(const struct inode *inode, struct stat *ret_stat)
{
    struct stat st = {0};
    st.st_ino = inode->file;
    st.st_mode = inode->perm | inode->type;
    st.st_nlink = inode->n_links;
    st.st_uid = inode->uid;
    st.st_gid = inode->gid;
    st.st_blksize = 4096;
    st.st_size = inode->size;
    st.st_mtim.tv_sec = (time_t)(inode->time_ns / NS_PER_S);
    st.st_mtim.tv_nsec = (long)(inode->time_ns % NS_PER_S);
    st.st_atim = st.st_mtim;
    st.st_ctim.tv_sec = (time_t)(inode->changed_ns / NS_PER_S);
    st.st_ctim.tv_nsec = (long)(inode->changed_ns % NS_PER_S);
    *ret_stat = st;
}

bool attr_inode_locked(struct fs *fs, const struct inode *inode, struct stat *ret_stat)
{
    if (inode->kind != INODE_HOLD || !lockers_on_inode(fs, inode))
        return false;
    attr_inode(lock_file_find(fs, inode->path)->inode, ret_stat);
    return true;
}

double attr_directory_fresh_s(const struct fs *fs, const struct inode *inode)
{
    uint64_t until = inode->asked_mono_ns + fs->options->dircache_ms * NS_PER_MS;
    uint64_t now = clock_mono_ns(clock_system());
    return inode->asked_mono_ns != 0 && now < until ? (double)(until - now) / NS_PER_S : 0;
}

double attr_timeout_s(const struct fs *fs, const struct inode *inode)
{
    if (inode->kind == INODE_DIRECTORY)
        return attr_directory_fresh_s(fs, inode);
    return ATTR_LOCK_TIMEOUT_S;
}

int attr_entry(struct fs *fs,
               const char *path,
               const Hf__Node *node,
               uint64_t asked_mono_ns,
               struct fuse_entry_param *ret_entry,
               struct inode **ret_inode)
{
    struct inode *inode;
    const Hf__Hold *hold = attr_hold(fs, node);
    if (node->type == WIRE_NODE_DIRECTORY) {
        inode = inode_directory(&fs->inodes, node->directory_id, path);
        attr_update_directory(inode, node, asked_mono_ns);
    } else if (hold != NULL) {
        inode = hold->session_bound ? inode_free_lock(&fs->inodes, path)
                                    : inode_hold(&fs->inodes, hold->token, path);
        const struct hold *own = holds_find(&fs->holds, hold->token);
        if (!hold->session_bound) /* What we know ourselves may be newer than this answer. */
            inode_moved(&fs->inodes, inode, own != NULL ? own->at->path : path);
        attr_update_hold(inode, hold);
    } else {
        return -ENOENT;
    }
    inode->state = poll_state(NULL, node);
    struct fuse_entry_param e = {.ino = inode->number};
    attr_inode(inode, &e.attr);
    e.attr_timeout = attr_timeout_s(fs, inode);
    *ret_entry = e;
    *ret_inode = inode;
    return 0;
}
