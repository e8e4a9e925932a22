/* Answers to the notifier's thread: what it is told makes the kernel see the change that it is at.
 *
 * Its requests never reach the cluster, change nothing that is known here, and are answered before
 * the next one is read: a directory that it has locked is unlocked at once. */
#ifndef HOLDFAST_FS_REPLAY_H
#define HOLDFAST_FS_REPLAY_H

#include "fs/fs.h"

/* Does this request come from the thread?  Each operation asks first, and then leaves it to the
 * function below. */
bool replay_is(fuse_req_t req);

void replay_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void replay_getattr(fuse_req_t req, fuse_ino_t ino);

/* MKNOD, MKDIR, SYMLINK. */
void replay_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t type);

/* UNLINK, RMDIR. */
void replay_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void replay_rename(fuse_req_t req,
                   fuse_ino_t parent,
                   const char *name,
                   fuse_ino_t new_parent,
                   const char *new_name);

#endif
