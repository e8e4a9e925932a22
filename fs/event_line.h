/* Lines of the event file, as `.holdfast/events` shows them.  Pure.
 *
 *     time=2026-11-24T06:20:01.123Z event=granted path=job owner=db1/5f0c21aa/4242.81733/1 token=17
 *         mode=exclusive kind=excl ttl_ms=30000 session=7 pid=4242 uid=0 index=12 from=cluster
 *
 * (in one line).  What does not apply is left out. */
#ifndef HOLDFAST_FS_EVENT_LINE_H
#define HOLDFAST_FS_EVENT_LINE_H

#include "raftstore/base/buf.h"

#include "holdfast.pb-c.h"

/* Append the line of what the cluster tells. */
void event_line(const Hf__Event *event, struct buf *out);

#endif
