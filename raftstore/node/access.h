/* What a client may do, by its certificate.  Pure.
 *
 * | certificate    | reads | locks | break | members, snapshots |
 * |----------------|-------|-------|-------|--------------------|
 * | none (no TLS)  | yes   | yes   | yes   | yes                |
 * | node, client   | yes   | yes   | yes   | yes                |
 * | mount, gateway | yes   | yes   | no    | no                 |
 *
 * A mount's sessions are those of the host that its certificate names. */
#ifndef HOLDFAST_NODE_ACCESS_H
#define HOLDFAST_NODE_ACCESS_H

#include "raftstore/lock/lock.h"
#include "raftstore/tls/identity.h"

/* May it send this command?  Return: NULL it may; else a sentence that says why not (static). */
const char *access_command(const struct identity *identity, const struct lock_command *command);

/* May it send operators' requests?  Return: likewise. */
const char *access_admin(const struct identity *identity);

#endif
