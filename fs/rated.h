/* -o rate=: how often a user of the mount may ask for locks.
 *
 * A token bucket per uid stands before what acquires: open(O_CREAT|O_EXCL), mkdir, symlink, link,
 * flock, and fcntl locks.  What gives back or keeps a lock is never limited: release, unlock,
 * renew. Refusals never reach the cluster: EAGAIN, and EBUSY for flock and fcntl, where EAGAIN
 * means that somebody else holds the lock. */
#ifndef HOLDFAST_FS_RATED_H
#define HOLDFAST_FS_RATED_H

#include "fs/fs.h"

struct rated;

/* Put the limit of fs->options->rate before the operations of a table (what it allows goes to
 * them); fs_deinit() frees what it needs.  Without rate= the table stays as it is. */
void rated_install(struct fs *fs, struct fuse_lowlevel_ops *ops);

/* Requests refused so far; 0 for NULL. */
uint64_t rated_n_refused(const struct rated *rated);

void rated_free(struct rated *rated); /* NULL is fine. */

#endif
