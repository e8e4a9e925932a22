/* The owner text of a hold made by a mount: "HOST/BOOT/PID.START/NONCE-COUNTER".  Pure.
 *
 * It is unique in the cluster (the nonce is drawn by each daemon), tells people who holds the
 * lock, and lets a daemon that was started anew recognise the holds of processes of its own host:
 * host, boot, process id and start time of the process are in it. */
#ifndef HOLDFAST_FS_OWNER_H
#define HOLDFAST_FS_OWNER_H

#include "fs/process.h"
#include "raftstore/base/buf.h"
#include "raftstore/base/bytes.h"

#include <stdint.h>

#define OWNER_HOST_BYTES_MAX 64u
#define OWNER_BOOT_BYTES     8u /* First digits of the kernel's boot id (in a container: mixed). */

/* What the texts of one daemon have in common. */
struct owner_namer {
    char host[OWNER_HOST_BYTES_MAX + 1]; /* No slashes. */
    char boot[OWNER_BOOT_BYTES + 1];     /* Of this boot of the host. */
    uint32_t nonce;                      /* Drawn at the daemon's start. */
    uint64_t counter;                    /* Of the last text made. */
};

/* Fill in the machine's boot id and a nonce.
 *
 * @host: cut to its bound; slashes become underscores. */
void owner_namer_init(struct owner_namer *n, const char *host);

/* Append the text for a new hold of `process` ({0, 0}: unknown). */
void owner_format(struct owner_namer *n, struct process_id process, struct buf *out);

/* Is this text from this host and boot (by whatever daemon)?
 *
 * @ret_process: set if so. */
bool owner_parse(const struct owner_namer *n, struct bytes text, struct process_id *ret_process);

/* Is this text of this very daemon? */
bool owner_is_of(const struct owner_namer *n, struct bytes text);

#endif
