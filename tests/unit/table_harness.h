/* Lock tables with something of everything in them, and log entries that make them. */
#ifndef HOLDFAST_TESTS_TABLE_HARNESS_H
#define HOLDFAST_TESTS_TABLE_HARNESS_H

#include "raftstore/base/buf.h"
#include "raftstore/base/random.h"
#include "raftstore/lock/lock.h"

/* A stream of commands: sessions, leases, session holds, ranges, semaphores, waiters, several
 * paths, notes, directories, lock-delays, expiries. The same seed gives the same stream. */
struct commands {
    struct random rng;
    uint64_t stamp_ns, n;
    char path[16][48], owner[48], note[48];
};

void commands_init(struct commands *c, uint64_t seed);

/* The next command; valid until the call after. */
void commands_next(struct commands *c, struct lock_command *ret);

/* Pack it as a LogEntry with `n` commands of the stream. */
void commands_entry(struct commands *c, unsigned n, struct buf *ret_entry);

/* A table after n commands; and one with n plain leases, fast. */
struct lock_table *table_of_commands(uint64_t seed, unsigned n);
struct lock_table *table_of_leases(unsigned n);

#endif
