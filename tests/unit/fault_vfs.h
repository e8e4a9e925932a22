/* A layer under SQLite that fails or delays chosen writes and syncs, or forgets what was not
 * synced. */
#ifndef HOLDFAST_TESTS_FAULT_VFS_H
#define HOLDFAST_TESTS_FAULT_VFS_H

#include <stdbool.h>
#include <stdint.h>

/* Become SQLite's default VFS for what is opened from now on; once a process. */
void fault_vfs_install(void);

/* Fail the nth write or sync from now on (1 = the next), and all after it, with this SQLite result
 * code; 0 = none. */
void fault_vfs_fail(unsigned nth, int write_code, int sync_code);
bool fault_vfs_failed(void);    /* Has it come to that? */
unsigned fault_vfs_count(void); /* Writes and syncs since the last fault_vfs_fail(). */

/* From now on every sync of a file whose path ends so waits until it is let through; NULL = none
 * does, and those that wait go on. */
void fault_vfs_hold(const char *suffix);
void fault_vfs_await_held(void); /* Until a sync waits. */
void fault_vfs_pass(void);       /* Let the one that waits through. */

/* From now on remember what each write replaced, until its file is synced. */
void fault_vfs_track(void);

/* The power goes: of each write not synced, every 512-byte sector is kept or undone at random.
 * All writes of other threads wait for ever from here on: end the process. */
void fault_vfs_cut(uint64_t seed);

#endif
