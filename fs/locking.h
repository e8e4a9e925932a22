/* Requests for flock and fcntl locks: asking the cluster, waiting in its queue, giving back.
 *
 * One request goes through these steps (see locking.c for what happens at an interrupt):
 *
 *     flock, holds the other mode, wants more: TRY --conflict--> YIELD --> ASK   (as Linux does it)
 *     everything else that locks:              ASK
 *     unlock:                                  UNLOCK
 *     granted while the session is in doubt:   SESSION --resumed--> done; --ended--> ASK
 *
 * The kernel's request is answered once; a request that was answered before the cluster did
 * (EINTR, ETIMEDOUT) becomes an orphan.  It is canceled, and what it was granted all the same is
 * given back; until that is settled its locker asks for nothing else.  An interrupted wait keeps
 * its place in the queue for a moment: the kernel restarts the call after a handled signal. */
#ifndef HOLDFAST_FS_LOCKING_H
#define HOLDFAST_FS_LOCKING_H

#include "fs/locker.h"
#include "fs/op.h"

#define LOCKING_PLACE_MS 40u /* An interrupted wait keeps its place for so long. */

/* What the kernel asks for. */
struct lock_want {
    enum locker_kind kind;
    enum held_mode mode; /* HELD_NONE: unlock. */
    bool sleep;
    uint64_t start; /* Whole range for flock. */
    uint64_t end;
    uint32_t pid; /* 0: to be looked up. */
};

/* Begin; answers the request. */
void locking_start(fuse_req_t req, struct handle *h, uint64_t owner, const struct lock_want *want);

/* A process closed a descriptor: its fcntl locks on that file go, answered by nobody. */
void locking_flush(const struct handle *h, uint64_t owner);

/* The open file is gone, with its locks. */
void locking_release_handle(struct handle *h);

/* Give back all that a locker holds, with what leans on it, by the will of somebody who may.  Its
 * requests start anew, on another locker: this one may be gone. */
void locking_release(struct locker *l);

/* What leans on this locker has nothing from now on.  The caller has a reference to it. */
void locking_stand_alone(struct locker *l);

/* The session was resumed, or ended: who waits for that goes on. */
void locking_session_kept(struct fs *fs);
void locking_session_ended(struct fs *fs);

/* Calls that wait for a lock, as the kernel sees it. */
uint64_t locking_n_waiting(const struct fs *fs);

/* The mount ends: what has no command under way is answered now, the others when the client is
 * closed.  From now on nothing waits for a timer: the client may be gone before it fires. */
void locking_close(struct fs *fs);

#endif
