/* What the mount does when holds are lost: by its own deadline, before the cluster can grant anew.
 *
 * The session was lost (no keepalive acknowledged in its ttl): every lock that hangs on it is in
 * doubt.  Handles answer ESTALE; `lost=SIGNAL` tells the process that locked, `lost=freeze` stops
 * it.  When the session is resumed, the cluster has kept all its holds: locks whose program was
 * not told are as good as before, and frozen processes go on; the others' are given back.  When it
 * ended, all is lost for ever; frozen processes are killed. */
#ifndef HOLDFAST_FS_LOSS_H
#define HOLDFAST_FS_LOSS_H

#include "fs/fs.h"

void loss_session(struct fs *fs, enum client_session_event event);

/* An operator broke a hold, or it ended with its session. */
void loss_event(struct fs *fs, const Hf__Event *event);

/* Events were missed: ask for what we think we hold. */
void loss_gap(struct fs *fs);

/* A lease was lost. */
void loss_lease(struct fs *fs, struct hold *h);

/* The mount ends: nobody will ever wake those who are frozen. */
void loss_close(struct fs *fs);

#endif
