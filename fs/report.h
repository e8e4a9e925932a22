/* What `cat LOCK` shows: key=value lines, one block per hold.  Pure. */
#ifndef HOLDFAST_FS_REPORT_H
#define HOLDFAST_FS_REPORT_H

#include "raftstore/base/buf.h"

#include "holdfast.pb-c.h"

#include <stdint.h>

/* Append the report of what stands at a path; nothing for a free lock.  Of several holders each
 * has its block, parted by an empty line; "holders=" tells how many there are, and "limit=" how
 * many a semaphore allows. */
void report_node(const Hf__Node *node, struct buf *out);

/* Append an instant of the wall clock: "2026-11-24T06:20:01.123Z". */
void report_time(uint64_t wall_ms, struct buf *out);

#endif
