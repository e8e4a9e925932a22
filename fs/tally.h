/* How many requests of the kernel were answered how, and after what time.  Counted where they all
 * pass: at what is read from and written to /dev/fuse.
 *
 * What was not answered while it was processed is remembered in a small table, by its number,
 * until it is.  One thread; notifications, which other threads may write, have no number and are
 * not looked at.  Pure. */
#ifndef HOLDFAST_FS_TALLY_H
#define HOLDFAST_FS_TALLY_H

#include "raftstore/base/buckets.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TALLY_OPCODES 64u  /* Kinds of requests; those without a name count as 0. */
#define TALLY_ERRNOS  135u /* Those without a name count as the last. */

struct tally_slot {
    uint64_t unique; /* 0 = empty. */
    uint32_t opcode;
    uint64_t begin_ns;
};

struct tally_kind {
    uint64_t counts[TALLY_ERRNOS]; /* By errno; 0: success. */
    struct buckets took;           /* All of them. */
};

struct tally {
    struct tally_kind *kinds[TALLY_OPCODES]; /* NULL: none came. Owned. */
    struct tally_slot *slots;                /* Unanswered requests: linear probing; owned. */
    size_t n_slots;                          /* A power of two, or 0. */
    size_t n_pending;
    struct tally_slot now; /* The request at hand. */
};

/* Zeroed memory is an empty tally. */
void tally_deinit(struct tally *t);

/* A request is going to be processed, or was.  now_ns: of a clock that never runs back. */
void tally_begin(struct tally *t, uint32_t opcode, uint64_t unique, uint64_t now_ns);
void tally_end(struct tally *t);

/* A request was answered.
 *
 * @unique: 0, or one that is not known: ignored.
 * @error: 0 or a positive errno. */
void tally_answer(struct tally *t, uint64_t unique, uint32_t error, uint64_t now_ns);

/* The kind's name; "other" for one without. */
const char *tally_name(uint32_t opcode);

#endif
