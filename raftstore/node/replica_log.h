/* The recent log in memory: a window of entries without gaps.
 *
 * The core keeps only terms; entries that are sent, written or applied come from here.  Entries
 * that came together share one reference-counted chunk of memory, so that a write under way can
 * outlive a truncation. */
#ifndef HOLDFAST_NODE_REPLICA_LOG_H
#define HOLDFAST_NODE_REPLICA_LOG_H

#include "raftstore/base/bytes.h"

#include <stdint.h>

/* Memory of the data of one or more entries. */
struct log_chunk {
    unsigned n_refs;
    size_t size; /* Of data. */
    uint8_t data[];
};

struct log_chunk *log_chunk_new(size_t size); /* With one reference. */
struct log_chunk *log_chunk_ref(struct log_chunk *c);
void log_chunk_unref(struct log_chunk *c); /* NULL is accepted. */

struct log_entry {
    uint64_t term;
    uint32_t type;           /* enum raft_entry_type. */
    struct bytes data;       /* Inside the chunk. */
    struct log_chunk *chunk; /* One reference. */
};

struct replica_log {
    struct log_entry *ring; /* Owned; capacity is a power of two. */
    size_t n_alloc;
    size_t head;    /* Position of the first entry. */
    size_t n;       /* Entries. */
    uint64_t first; /* Index of the first entry, also when there is none. */
    size_t bytes;   /* Sum of the entries' data. */
};

void log_init(struct replica_log *l, uint64_t first);
void log_deinit(struct replica_log *l);

/* Index of the last entry; first - 1 when empty. */
static inline uint64_t log_last(const struct replica_log *l)
{
    return l->first + l->n - 1;
}

/* The entry with this index; NULL when it is not here.  Lives until the next change. */
const struct log_entry *log_get(const struct replica_log *l, uint64_t index);

/* Append one entry; takes a reference of its own to the chunk. */
void log_append(struct replica_log *l,
                uint64_t term,
                uint32_t type,
                struct bytes data,
                struct log_chunk *chunk);

/* Delete the entries with this index and above. */
void log_truncate(struct replica_log *l, uint64_t from);

/* Delete the entries up to this index. */
void log_prune(struct replica_log *l, uint64_t to);

/* Delete all; the next entry has this index. */
void log_reset(struct replica_log *l, uint64_t first);

#endif
