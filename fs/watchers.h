/* What inotify watchers on this mount hear of, and when.
 *
 * On a lock file.  IN_DELETE_SELF when its hold ends, wherever and however that happens.  The
 * kernel does not say what is watched.  But a file that it still knows WATCHERS_AGE_MS after it was
 * looked up or closed last, that nobody has open, and that it does not forget when it is made to
 * (notifier_probe()), is one that a watcher keeps.  The path of such a one, if it is not our own
 * hold, is followed, as long as that is so; files that were only looked at cost the cluster
 * nothing.  Of a file that is open the watchers hear after the last close, as on a local disk.
 *
 * On a directory, with `-o dirwatch`.  Everything is followed ("").  IN_CREATE, IN_DELETE and
 * IN_MOVED_* for locks of other mounts, of other programs, and for what ends here without an
 * unlink; but only for directories that the kernel knows, in others there can be no watcher.  Of
 * what is done by system calls in this mount the kernel tells itself: never twice.
 *
 * Told by the notifier.  Not told: directories made or removed elsewhere; what happened while
 * events were lost (a gap), but for files that are watched. */
#ifndef HOLDFAST_FS_WATCHERS_H
#define HOLDFAST_FS_WATCHERS_H

#include "fs/fs.h"
#include "fs/notifier.h"

#define WATCHERS_AGE_MS   50u
#define WATCHERS_PROBE_MS 10000u /* A followed file is probed again. */

struct watchers;

struct watchers *watchers_new(struct fs *fs);
void watchers_start(struct fs *fs); /* The mount is there. */
void watchers_close(struct watchers *w);
void watchers_free(struct watchers *w);

/* The kernel was told of this file, or has closed it: somebody may watch it from now on. */
void watchers_known(struct fs *fs, struct inode *inode);

/* An event of our own session. */
void watchers_on_own_event(struct fs *fs, const Hf__Event *event);

/* The kernel has removed the name of this hold's file (inode number): for a program that asked for
 * it, or since the notifier replayed it. */
void watchers_unlinked(struct fs *fs, uint64_t number);
void watchers_replayed(struct fs *fs, uint64_t number);

/* A notice was given. */
void watchers_on_done(void *fs, const struct notice *n);

/* Has the kernel, by now, seen by itself what this notice tells? */
bool watchers_is_over(struct fs *fs, const struct notice *n);

#endif
