/* What stat(2) shows, from what the cluster says. */
#ifndef HOLDFAST_FS_ATTR_H
#define HOLDFAST_FS_ATTR_H

#include "fs/fs.h"

#include "holdfast.pb-c.h"

/* How long the kernel may keep a lock file's attributes: just long enough that the stat(2) that
 * looked the name up does not ask again.  (Names are never kept.)  Owner and mode of a hold never
 * change; its time of renewal may be that much late on a descriptor. */
#define ATTR_LOCK_TIMEOUT_S 0.01

/* The hold that stands for the file at a path: its first.  One whose release we have sent is gone
 * for this mount, even if the read ran before the release (release=async).
 *
 * Return: NULL: the lock is free. */
const Hf__Hold *attr_hold(const struct fs *fs, const Hf__Node *node);

/* Fill in an entry for what stands at a path, and find or make its inode.
 *
 * @asked_mono_ns: when the cluster was asked.
 * @ret_inode: with a reference for the caller.
 * Return: 0; -ENOENT nothing stands there. */
int attr_entry(struct fs *fs,
               const char *path,
               const Hf__Node *node,
               uint64_t asked_mono_ns,
               struct fuse_entry_param *ret_entry,
               struct inode **ret_inode);

/* Attributes of an inode as last told. */
void attr_inode(const struct inode *inode, struct stat *ret_stat);

/* Of the file of a lease that has ended, on which a lock was taken since: it is what stands at the
 * path now, and fstat(2) of it has to say so.
 *
 * Return: false: that is not how it is. */
bool attr_inode_locked(struct fs *fs, const struct inode *inode, struct stat *ret_stat);

/* For how long the kernel may keep them. */
double attr_timeout_s(const struct fs *fs, const struct inode *inode);

/* How stat(2) shows a hold of this kind: S_IFREG, S_IFDIR, S_IFLNK. */
mode_t attr_type_of_kind(uint32_t kind);

/* The number that stat(2) shows for a lease's file. */
uint64_t attr_file_number(const Hf__Hold *hold);

/* Take over what the cluster says of a hold or a directory.
 *
 * @asked_mono_ns: when it was asked; an answer to an older question than the last one changes
 * nothing. */
void attr_update_hold(struct inode *inode, const Hf__Hold *hold);
void attr_update_directory(struct inode *inode, const Hf__Node *node, uint64_t asked_mono_ns);

/* For how much longer may what is known of a directory be told without asking the cluster?  In
 * all, `dircache=` from the moment of asking: what is left goes to the kernel's own cache.
 *
 * Return: seconds; 0: it must be asked. */
double attr_directory_fresh_s(const struct fs *fs, const struct inode *inode);

#endif
