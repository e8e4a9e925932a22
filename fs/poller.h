/* poll(2), select(2), epoll(7) on open lock files.
 *
 *     POLLIN          the lock changed since this descriptor last read it (or was opened): it was
 *                     granted, ended, converted, noted or renamed, by whomever but this descriptor;
 *                     or somebody waits for what this descriptor holds.  Renewals and waiters are
 *                     no change.
 *     POLLOUT         always: a write never waits for a lock.
 *     POLLPRI         jeopardy: for half the ttl no renewal of what this descriptor holds was
 *                     acknowledged (a lease's own, or the session's).
 *     POLLERR POLLHUP what this descriptor held is lost: it answers ESTALE for ever.
 *
 * A descriptor that was never polled costs nothing.  From its first poll on the mount follows its
 * path and looks once at how things are; what happened since it was opened counts. */
#ifndef HOLDFAST_FS_POLLER_H
#define HOLDFAST_FS_POLLER_H

#include "fs/handle.h"

#include "holdfast.pb-c.h"

/* What counts as the state of a lock: who holds it, in which mode.
 *
 * @h: its own holds are left out; NULL: none are. */
uint64_t poll_state(const struct handle *h, const Hf__Node *node);

/* The descriptor has read: what it was shown, at which log index. */
void poll_on_read(struct handle *h, const Hf__Node *node, uint64_t index);

/* What it holds is lost, or in jeopardy, or not any more. */
void poll_wake(struct handle *h);

/* The same for all that hold a lease. */
void poll_wake_lease(struct fs *fs, const struct hold *hold);

/* Our session's state has changed: for all that hold something on it. */
void poll_wake_session(struct fs *fs);

/* The mount ends: no timer may be left, with whatever is open. */
void poll_close(struct fs *fs);

/* The open file is gone. */
void poll_free(struct handle *h);

#endif
