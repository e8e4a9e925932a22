/* The store: log, term, vote and snapshots of one node, in SQLite databases in one directory.
 *
 * Layout of the data directory (owner only, mode 0700):
 *   - LOCK: flock()ed by the running node;
 *   - meta.db: incarnation, cluster id, the list of log files, what identifies the current
 *     snapshot, the other nodes' incarnations;
 *   - log-NNNNNNNN.db: the log in several files: an entry per row with its checksum (CRC-32 of
 *     index, term, type, data), and in each file's head term and vote, so that one commit covers
 *     them all (store_log.h);
 *   - snapshot-INDEX.db: the newest image (and, while it is being replaced, the one before);
 *   - spare-wal: a write-ahead log to be used again by the next log file.
 *
 * One writer thread commits everything that waits in one transaction (WAL, synchronous=FULL); a
 * second thread does what is long: checkpoints of finished log files, preparing the next one,
 * unlinking old ones.  Completion is reported on the loop.  Any error is final: `on_failed` is
 * called once with a sentence that names the file, and nothing is written or reported any more.
 *
 * A flipped bit or a truncated file is found at open (every row's checksum, contiguous indexes, and
 * an audit of the WAL's frames, since SQLite itself would silently end a WAL at a damaged frame),
 * named, and never served: store_open() fails with -EBADMSG and a sentence.  What can't be told
 * from a torn write is damage of several bits in the last transaction before a crash: store_wal.h.
 *
 * None of the callbacks may close the store; what was not yet reported when it is closed is not
 * reported. */
#ifndef HOLDFAST_NODE_STORE_H
#define HOLDFAST_NODE_STORE_H

#include "raftstore/node/replica.h"

#include <uv.h>

struct store;

struct store_config {
    uv_loop_t *loop;
    const char *directory; /* Made if missing (0700). */
    size_t log_file_bytes; /* A log file's WAL is made this large beforehand, and the file is
                              finished when it is used up; 0 = 8 MiB. */
    void (*on_persisted)(void *arg, uint64_t ticket);
    void (*on_failed)(void *arg, const char *sentence);
    void *arg;
};

/* What was found. Everything is owned by the store and lives until store_loaded_free() or the first
 * write. */
struct store_loaded {
    bool fresh;           /* An empty directory: bootstrap or join is needed. */
    uint64_t incarnation; /* Random, drawn when the directory was made. */
    uint64_t cluster_id;  /* 0 = not known yet. */
    uint64_t node_id;     /* 0 = fresh. */
    uint64_t term;
    uint64_t voted_for;
    struct replica_image image; /* index 0 = none. */
    const char *image_path;     /* Its file; NULL = none. */
    const struct replica_entry *entries;
    unsigned n_entries;
};

/* Open (blocking; before the loop runs). After a failure, as after store_close(), the loop must run
 * once more to let go of a handle.
 *
 * @ret_sentence: on failure: what is wrong and what to do, malloc()ed, the caller frees it.
 * Return: 0; -EBUSY another process has it; -EBADMSG damaged; -ENOSPC, -EIO, ...: negative errno.
 */
int store_open(const struct store_config *config,
               struct store **ret_store,
               const struct store_loaded **ret_loaded,
               char **ret_sentence);
void store_loaded_free(struct store *s);

/* Set what a fresh directory belongs to, and (n_entries 1) the bootstrap entry; blocking. */
int store_initialise(struct store *s,
                     uint64_t node_id,
                     uint64_t cluster_id,
                     const struct replica_entry *entries,
                     unsigned n_entries,
                     char **ret_sentence);

/* Cluster id learnt later by a joining node; ordered with the writes, not reported. */
void store_set_cluster_id(struct store *s, uint64_t cluster_id);

/* What is known of the other nodes' incarnations; 0 = never seen. Set is ordered with the writes.
 */
uint64_t store_peer_incarnation(const struct store *s, uint64_t node_id);
void store_set_peer_incarnation(struct store *s, uint64_t node_id, uint64_t incarnation);

/* Queue a write (see struct replica_write); on_persisted follows, in order; one call may cover
 * many. */
void store_write(struct store *s, const struct replica_write *w);

/* A file in the directory to write an image into ("incoming-N.db" or so); removed at open if left
 * over. */
void store_image_path(struct store *s, uint64_t index, bool incoming, char *out, size_t size);

/* Make `path` (a finished, closed, fsynced image file made at store_image_path()) the current
 * snapshot. Not blocking; ordered with the writes before it, and, if `drop_log`, with those after
 * it, too (else these may become durable earlier). If `drop_log`: in the same transaction the whole
 * log is dropped (an image was installed). `done` is called on the loop, with
 * status 0; not at all when the store failed. Older images go away afterwards. */
void store_snapshot_commit(struct store *s,
                           const struct replica_image *image,
                           const char *path,
                           bool drop_log,
                           void (*done)(void *arg, int status),
                           void *arg);

/* Path of the current snapshot file and what it is. Return: false = none. Valid until the next
 * commit's `done`. */
bool store_snapshot(const struct store *s, struct replica_image *ret_image, const char **ret_path);

struct store_stats {
    uint64_t transactions, writes, bytes;
    uint64_t commit_p50_us, commit_p99_us, commit_max_us; /* Recent transactions. */
    uint64_t free_bytes;                                  /* Of the file system. */
};
struct store_stats store_stats(struct store *s);

/* The same since the start, without a look at the disk; cheap. */
struct store_figures {
    struct buckets commit; /* One transaction: BEGIN, INSERT, COMMIT with its fdatasync. */
    uint64_t writes, bytes;
};
void store_figures(struct store *s, struct store_figures *ret);

/* Finish queued writes, close everything, join the threads (blocking, bounded by the writes under
 * way). NULL is accepted. */
void store_close(struct store *s);

#endif
