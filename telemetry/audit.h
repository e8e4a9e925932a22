/* The audit: one line for each thing that somebody may have to answer for.
 *
 *     ts=2026-11-24T08:00:00.120Z event=grant path=job owner=db1/5f0c21aa/4242.81733/1 token=17 ...
 *
 * Lines of key=value pairs as in base/fields.h: no value can begin a line or a pair.  They go into
 * a file of their own, which is appended to, or to standard error.
 *
 * Nothing here blocks the caller: a line is put into a bounded queue in memory, a thread writes it
 * some milliseconds later.  What does not fit, or can't be written, is counted, and told in the
 * file as soon as that is possible:
 *
 *     ts=... event=dropped dropped=3
 *
 * Lines survive the end of the process by kill -9 only once they are written.  So that a node can
 * write again what it had not written (raftstore/node/node_audit.c), a line may carry a position,
 * index= and n=, and the last position found in the file is told when it is opened. */
#ifndef HOLDFAST_TELEMETRY_AUDIT_H
#define HOLDFAST_TELEMETRY_AUDIT_H

#include "raftstore/base/buf.h"
#include "raftstore/base/fields.h"

#include <stdbool.h>
#include <stdint.h>

#define AUDIT_QUEUE_BYTES_MAX ((size_t)4 * 1024 * 1024)

struct audit;

/* Which line of the cluster's history: the n-th effect of log entry `index`. */
struct audit_position {
    uint64_t index; /* 0 = none. */
    uint64_t n;
    uint64_t term; /* Of the entry; 0 = unknown. */
};

/* Open the file, or make it (mode 0640), and start the thread.
 *
 * @file: "-" = standard error.
 * @queue_bytes_max: 0 = AUDIT_QUEUE_BYTES_MAX.
 * @ret_last: the position of the last line in the file that has one; index 0: there is none.
 * Return: 0; negative errno, and *ret_sentence (owned by the caller) says why. */
int audit_open(const char *file,
               size_t queue_bytes_max,
               struct audit **ret,
               struct audit_position *ret_last,
               char **ret_sentence);

/* Open the file by its name again before the next line, as logrotate wants it; if that fails, the
 * old one stays in use, and the log says so. */
void audit_reopen(struct audit *a);

/* Write what waits, for two seconds at most, and end.  NULL is accepted. */
void audit_close(struct audit *a);

/* A line: audit_begin(), then pairs are added to the buffer with field_*() of base/fields.h, then
 * audit_end().  One thread at a time has a line in the making; the buffer is the audit's.
 *
 * @event: a word.
 * Return: the buffer, which has ts= and event= in it. */
struct buf *audit_begin(struct audit *a, const char *event);
void audit_end(struct audit *a);

/* Pairs with an empty value, or 0, are left out. */
void audit_bytes(struct buf *line, const char *key, struct bytes value);
void audit_text(struct buf *line, const char *key, const char *value);
void audit_u64(struct buf *line, const char *key, uint64_t value);

struct audit_counts {
    uint64_t lines;   /* Written. */
    uint64_t dropped; /* Not. */
};
struct audit_counts audit_counts(struct audit *a); /* NULL: zeros. */

#endif
