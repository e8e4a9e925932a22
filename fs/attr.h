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
 * @ret_inode: with a reference for the caller.
 * Return: 0; -ENOENT nothing stands there. */
int attr_entry(struct fs *fs,
               const char *path,
               const Hf__Node *node,
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

/* Take over what the cluster says of a hold or a directory. */
void attr_update_hold(struct inode *inode, const Hf__Hold *hold);
void attr_update_directory(struct inode *inode, const Hf__Node *node);

#endif
