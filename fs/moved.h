/* A lease got another name: what of the daemon's own state follows. */
#ifndef HOLDFAST_FS_MOVED_H
#define HOLDFAST_FS_MOVED_H

#include "fs/fs.h"

/* The hold with this token stands at `path` now: its record, its file, and the locks that rely on
 * it.  Nothing happens where it is not known.
 *
 * @index, @event: as of holds_moved(). */
void moved(struct fs *fs, uint64_t token, struct bytes path, uint64_t index, bool event);

#endif
