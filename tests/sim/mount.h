/* A simulated mount: the product's file system over the product's client library, called by a
 * kernel and processes of the simulation instead of /dev/fuse and Linux.
 *
 * A process opens locks, creates them with O_EXCL, renews, reads, unlinks, takes flocks, is
 * interrupted and killed; the daemon is killed and started anew, stopped, cut off.  What a process
 * believes is what fsync(2) and its kin would tell it at this instant. */
#ifndef HOLDFAST_SIM_MOUNT_H
#define HOLDFAST_SIM_MOUNT_H

#include "raftstore/lock/view.h"
#include "tests/sim/app.h"

#define MOUNT_PROCESSES 3u

struct mount;

/* @number: of the client that is its first process; the next ones are the others. */
struct mount *mount_new(struct world *w, unsigned number, unsigned n_paths);
void mount_stop(struct mount *m);
void mount_free(struct mount *m);

/* Time for one of its processes to do something. */
void mount_think(struct mount *m, unsigned process);
struct app_belief mount_believes(const struct mount *m, unsigned process, unsigned path);
uint64_t mount_asleep_ns(const struct mount *m);
void mount_check_end(struct mount *m, const struct lock_table *t);

struct mount_counts {
    uint64_t calls, leases, flocks, waits, renewals, interrupts, kills, daemon_kills, stale,
        timeouts, done_after_heal;
};
struct mount_counts mount_counts(const struct mount *m);

#endif
