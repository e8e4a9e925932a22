/* `.holdfast/` in the mount's root: files about the mount and its cluster, read-only.
 *
 *     status    this mount and the node that it talks to: key=value lines
 *     metrics   this mount, as Prometheus wants it
 *     events    what happens in the cluster: grows for as long as somebody has it open
 *     sessions  of the cluster, a line each
 *     members   likewise
 *
 * The directory is not listed in the root, so that find, rm -r and backups pass it by; whoever
 * knows the name finds it.  It belongs to this mount alone and nothing of it is replicated.
 *
 * Attempts to change: what changes entries (create, mkdir, unlink, rename, ...) is EPERM, what
 * changes a file (open for writing, chmod, touch, ...) EROFS, locking one ENOLCK.  Requests that
 * concern it are recognised by the inode's number, before anything else looks at them.
 *
 * Without a majority `status`, `metrics` and `members` tell what the mount itself knows; `sessions`
 * is ETIMEDOUT after timeout=. */
#ifndef HOLDFAST_FS_CONTROL_H
#define HOLDFAST_FS_CONTROL_H

#include "fs/fs.h"

struct locker;

struct control *control_new(struct fs *fs);

/* The mount ends; before the client is closed. */
void control_close(struct control *c);
void control_free(struct control *c);

/* libfuse's table of operations: fs_ops, with the directory put in front of them. */
void control_operations(struct fuse_lowlevel_ops *ret_ops);

/* Append what `metrics` shows, but for the figures of the process. */
void control_metrics(struct fs *fs, struct buf *out);

/* ---- What the mount tells of itself, for `events` and `metrics` ---- */

/* What became of its session. */
void control_session(struct fs *fs, enum client_session_event event);

/* A lease was lost, or all that a locker holds. */
void control_lease_lost(struct fs *fs, const struct hold *h);
void control_lock_lost(struct fs *fs, const struct locker *l);

#endif
