/* What a process uses, under the names that Prometheus' own libraries give it. */
#ifndef HOLDFAST_TELEMETRY_PROCESS_H
#define HOLDFAST_TELEMETRY_PROCESS_H

#include "raftstore/base/buf.h"

#include <stdint.h>

struct process_stats {
    uint64_t cpu_ns;         /* User and system time of all threads. */
    uint64_t start_wall_ns;  /* Since 1970. */
    uint64_t resident_bytes; /* 0 = not known; so for those below. */
    uint64_t virtual_bytes;
    uint64_t fds;
    uint64_t fds_max;
    uint64_t disk_free_bytes; /* For those without privileges. */
    uint64_t disk_bytes;      /* 0: no directory was asked about. */
};

/* Ask the kernel.  A disk may be slow, and counting 10 000 open descriptors takes milliseconds on a
 * kernel before 6.2: so not on a loop that must not wait.  From any thread.
 *
 * @ret: zeroed at first, then what it was: the start of the process must not move with the clock.
 * @data: a directory on the file system to be told of; NULL: none. */
void process_stats_read(struct process_stats *ret, const char *data);

/* Append process_* and holdfast_disk_*; what is not known is left out. */
void process_stats_write(const struct process_stats *s, struct buf *out);

/* The certificates that a program shows, for certificates_write(). */
struct certificate_end {
    const char *name;  /* "cluster": to nodes and clients of the cluster; "https". */
    int64_t expires_s; /* Since 1970; 0: it shows none. */
};

/* Append holdfast_certificate_expiry_timestamp_seconds; nothing if there are none. */
void certificates_write(const struct certificate_end *list, unsigned n, struct buf *out);

/* Append holdfast_build_info: which program, which version. */
void build_info_write(const char *component, struct buf *out);

#endif
