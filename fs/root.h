/* GETATTR of the mount's root, so that a path into `.holdfast/` can be walked without a majority.
 *
 * The kernel checks the root's permissions before it looks anything up in it, so this comes before
 * all else.  The cluster is asked as for every directory.  But while the mount is out of touch with
 * it (no leader, or none that answers), the attributes that were told last are answered instead of
 * nothing.  They may be outdated, and nothing may be granted by them: the next LOOKUP in the root
 * asks the cluster for them again first.  If they were others, it is ESTALE, and the kernel walks
 * the path anew. */
#ifndef HOLDFAST_FS_ROOT_H
#define HOLDFAST_FS_ROOT_H

#include "fs/op.h"

/* Answer. */
void root_getattr(fuse_req_t req);

/* Ask whether what was told of the root still holds (fs->root_stale).
 *
 * Return: 0; positive errno: `cb` does not come. */
int root_confirm(const struct op *op, client_reply_cb cb, void *arg);

/* What the answer says.
 *
 * @asked_mono_ns: when it was asked.
 * Return: 0 it holds; ESTALE it did not; another positive errno. */
int root_confirmed(struct fs *fs, const struct client_reply *r, uint64_t asked_mono_ns);

#endif
