/* Applying one stored log entry to a lock table: the one way that the replica and the shadow share,
 * so that both come to the same state. */
#ifndef HOLDFAST_NODE_APPLY_H
#define HOLDFAST_NODE_APPLY_H

#include "raftstore/lock/lock.h"
#include "raftstore/wire/pack.h"

/* Unpack a LogEntry (the data of a RAFT_COMMAND entry) and apply its commands in order.
 *
 * @a:    scratch memory; reset first, so nothing unpacked into it earlier survives the call.
 * @each: called after each command with its position in the entry, the command, with its stamp, and
 *        what it did; both live until `each` returns. NULL = nobody wants to know.
 *
 * Return: 0; -EBADMSG when the bytes are no log entry, or a command in it is none: a replicated
 *         entry that can't be applied is fatal, the table may have taken the commands before. */
int apply_log_entry(struct lock_table *t,
                    struct arena *a,
                    uint64_t index,
                    struct bytes entry,
                    void (*each)(void *arg,
                                 unsigned position,
                                 const struct lock_command *command,
                                 const struct lock_effects *effects),
                    void *arg);

#endif
