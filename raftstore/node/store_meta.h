/* Internal: meta.db, what the store knows about itself: identity, the current snapshot, which log
 * files there are, the other nodes' incarnations.
 *
 * Rarely written, so every save rewrites all of it in one transaction, together with a checksum
 * over every row: a flipped bit or a lost row is found at load.  Journal kept (PERSIST),
 * synchronous=FULL.  One thread at a time. */
#ifndef HOLDFAST_NODE_STORE_META_H
#define HOLDFAST_NODE_STORE_META_H

#include "raftstore/base/buf.h"
#include "raftstore/node/replica.h"
#include "raftstore/node/store_sql.h"

#define STORE_FORMAT_VERSION 1
#define STORE_APPLICATION_ID 0x48664c67 /* "HfLg". */

/* A log file that exists. Files are in ascending order of seq, the oldest first. */
struct meta_file {
    uint64_t seq;
    bool sealed;          /* Checkpointed: everything is in the database, its WAL means nothing. */
    bool begun;           /* Sealed: has a head, see store_log.h. */
    uint64_t first_index; /* Sealed and begun. */
    uint64_t last_index;  /* Sealed and begun: of its rows; first_index - 1 = none. */
    uint64_t wal_bytes;   /* Not sealed: its WAL is at least this long. */
};

struct meta_peer {
    uint64_t node_id;
    uint64_t incarnation;
};

struct meta {
    uint64_t incarnation;
    uint64_t cluster_id;
    uint64_t node_id;
    uint64_t base_term; /* Term and vote where no log file has been begun. */
    uint64_t base_voted_for;
    uint64_t next_seq;          /* Of the next log file; no file at or above it was ever begun. */
    struct replica_image image; /* index 0 = none; conf.data is owned. */
    struct meta_file *files;    /* Owned. */
    unsigned n_files;
    struct meta_peer *peers; /* Owned. */
    unsigned n_peers;
};

void meta_deinit(struct meta *m);
void meta_add_file(struct meta *m, struct meta_file f);
void meta_remove_files(struct meta *m, unsigned from, unsigned n);
struct meta_file *meta_file(struct meta *m, uint64_t seq);
void meta_set_image(struct meta *m, const struct replica_image *image);
void meta_set_peer(struct meta *m, uint64_t node_id, uint64_t incarnation);

struct meta_db {
    sqlite3 *db;
    char *path; /* Owned. */
};

/* Make DIRECTORY/meta.db with this content; whole or not at all. */
int meta_create(const char *directory, const struct meta *m, char **ret_sentence);

/* Open and verify it. Return: 0; -EBADMSG damaged; -ENOTSUP of a newer format; negative errno. */
int meta_open(const char *directory,
              struct meta_db *ret_db,
              struct meta *ret_meta,
              char **ret_sentence);
int meta_save(struct meta_db *db, const struct meta *m, char **ret_sentence);
void meta_close(struct meta_db *db);

#endif
