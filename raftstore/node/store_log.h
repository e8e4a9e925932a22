/* Internal: one file of the log.
 *
 * Life of a file:
 *   prepared  made by the keeper: schema, a write-ahead log of its final size, and one first
 *             transaction (so that the WAL has a valid, durable header and the audit has something
 *             to hold on to); entered in meta.db before the writer may use it;
 *   begun     the writer's first transaction gave it its head: the index that it starts at, term
 *             and vote;
 *   sealed    everything was checkpointed into the database and made durable, meta.db says so and
 *             knows the first and last index; its WAL is taken away.
 *
 * What makes the log of the files: the head's first_index cuts off what older files hold at and
 * above it.  So dropping a suffix of the log that reaches into older files takes no change to them:
 * the current file's first_index is lowered in the same transaction that writes the new entries and
 * the vote.  A younger file is never removed before an older one (meta.db's list of files is
 * changed first, in one transaction), so what was cut off can't come back; and a file is only
 * removed when all of its entries are cut off or covered by the durable snapshot, so nothing
 * acknowledged is lost.
 *
 * Term and vote are those of the youngest begun file, or meta.db's base where none is.  They are
 * carried over into each new file's head. So one COMMIT covers vote and entries.
 *
 * A file is written by one run of the node only: open seals what it finds, and starts a new file.
 * So no WAL is ever continued behind a torn tail. */
#ifndef HOLDFAST_NODE_STORE_LOG_H
#define HOLDFAST_NODE_STORE_LOG_H

#include "raftstore/node/replica.h"
#include "raftstore/node/store_sql.h"

#define LOG_PAGE_BYTES  4096u
#define LOG_FRAME_BYTES (LOG_PAGE_BYTES + 24u)

struct log_head {
    uint64_t seq;         /* Of the file: a file under another's name is found. */
    uint64_t incarnation; /* Of the directory: likewise. */
    uint64_t first_index; /* 0 = not begun. */
    uint64_t term;
    uint64_t voted_for;
};

struct log_file {
    sqlite3 *db;
    char *path;               /* Owned. */
    struct log_head head;     /* As the next commit leaves it. */
    bool head_dirty;          /* It must be written with the next commit. */
    uint64_t last_index;      /* Of its rows; head.first_index - 1 = none. */
    uint64_t wal_bytes;       /* Size the WAL was made with. */
    unsigned frames;          /* Frames of the WAL in use. */
    unsigned frames_prepared; /* Frames that fit it. */
    sqlite3_stmt *begin, *commit, *insert, *truncate, *write_head;
};

/* Make the file DIRECTORY/log-SEQ.db (one left over is replaced) and everything a prepared file
 * has, durable.  Blocking, tens of milliseconds.
 *
 * @spare: a WAL of an older file to be used again, or NULL. */
int log_prepare(const char *directory,
                uint64_t seq,
                uint64_t incarnation,
                size_t wal_bytes,
                const char *spare,
                struct log_file **ret_file,
                char **ret_sentence);

/* One transaction: begin, any of the others in any order, commit. After a failure the file is good
 * for nothing but log_close(). Commit is durable when it returns. */
int log_begin(struct log_file *f, char **ret_sentence);
int log_insert(struct log_file *f, const struct replica_entry *e, char **ret_sentence);
int log_cut(struct log_file *f, uint64_t from, char **ret_sentence); /* Rows of this file. */
int log_commit(struct log_file *f, char **ret_sentence);

/* Frames that a commit of such an entry takes at most, and what a transaction takes besides. */
unsigned log_frames_of(size_t data_bytes);
#define LOG_FRAMES_BASE 8u

/* Bring all of the WAL into the database, durable. The WAL stays. */
int log_checkpoint(struct log_file *f, char **ret_sentence);

/* Close without a checkpoint; NULL is accepted. */
void log_close(struct log_file *f);

/* Open a file left by an earlier run: audit of the WAL, then SQLite's recovery, then a comparison
 * of the two.  For a file that is not sealed. */
int log_recover(const char *directory,
                uint64_t seq,
                uint64_t incarnation,
                uint64_t wal_bytes,
                struct log_file **ret_file,
                char **ret_sentence);

/* Open a sealed file, to read only. */
int log_open_sealed(const char *directory,
                    uint64_t seq,
                    uint64_t incarnation,
                    struct log_file **ret_file,
                    char **ret_sentence);

/* Read every row: checksums, contiguity from head.first_index; sets f->last_index.
 *
 * @row: entry data is borrowed for the call. */
int log_read(struct log_file *f,
             void (*row)(void *arg, const struct replica_entry *e),
             void *arg,
             char **ret_sentence);

#endif
