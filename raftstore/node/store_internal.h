/* Internal: the parts of struct store and who owns them.
 *
 * Three threads: the loop calls the functions of store.h; the writer owns the current log file and
 * commits; the keeper owns meta.db and does what is long (prepares, seals and removes log files,
 * puts snapshots into place).  They hand work over in two queues, loop -> writer -> keeper, under
 * one mutex that is never held across I/O. */
#ifndef HOLDFAST_NODE_STORE_INTERNAL_H
#define HOLDFAST_NODE_STORE_INTERNAL_H

#include "raftstore/node/store.h"
#include "raftstore/node/store_log.h"
#include "raftstore/node/store_meta.h"
#include "raftstore/node/wakeup.h"

#include <pthread.h>
#include <sys/queue.h>

/* Work for the writer, in order. */
enum item_type { ITEM_WRITE, ITEM_SNAPSHOT, ITEM_CLUSTER, ITEM_PEER };

struct snapshot_request {
    struct replica_image image; /* conf.data is owned. */
    char *path;                 /* Owned. */
    bool drop_log;
    void (*done)(void *arg, int status);
    void *arg;
};

struct store_item {
    STAILQ_ENTRY(store_item) link;
    enum item_type type;
    uint64_t ticket;
    bool set_vote;
    uint64_t term;
    uint64_t voted_for;
    uint64_t truncate_from;
    uint64_t drop_to;
    struct snapshot_request *snapshot; /* ITEM_SNAPSHOT: owned. */
    uint64_t number, value; /* ITEM_CLUSTER: value; ITEM_PEER: number is the node's id. */
    unsigned frames;        /* WAL frames that it needs at most. */
    unsigned n_entries;
    struct replica_entry entries[]; /* Their data stands behind the array. */
};
STAILQ_HEAD(store_items, store_item);

/* Work for the keeper, in order. */
enum job_type {
    JOB_PREPARE,  /* The next log file. */
    JOB_SEAL,     /* `file`, which is owned. */
    JOB_DROP,     /* Remove files whose entries are at or below `number`. */
    JOB_SNAPSHOT, /* Put it into place. */
    JOB_INSTALL,  /* The same, and drop all log files before seq `number`; the writer waits. */
    JOB_CLUSTER,
    JOB_PEER,
};

struct store_job {
    STAILQ_ENTRY(store_job) link;
    enum job_type type;
    struct log_file *file; /* JOB_SEAL; JOB_INSTALL: to be thrown away, or NULL. */
    struct snapshot_request *snapshot;
    uint64_t number, value;
    bool current_begun;       /* JOB_DROP: younger than all sealed files is a begun one. */
    uint64_t term, voted_for; /* JOB_INSTALL: the new base. */
};
STAILQ_HEAD(store_jobs, store_job);

/* A snapshot that is in place, on its way to the loop. */
struct store_done {
    STAILQ_ENTRY(store_done) link;
    struct snapshot_request *snapshot;
    char *path; /* Where it is now; owned. */
};
STAILQ_HEAD(store_dones, store_done);

#define STORE_SAMPLES 1024

struct store {
    /* Fixed after open. */
    struct store_config config;
    char *directory; /* Owned; config.directory is this. */
    char *spare;     /* Path of the spare WAL; owned. */
    int lock_fd;
    uint64_t incarnation;
    size_t wal_bytes;
    struct wakeup *wakeup; /* Of the loop, by the threads. */

    /* The loop's. */
    struct store_loaded loaded;
    struct replica_entry *entries; /* Of loaded; owned, with their data. */
    struct replica_image image;    /* The current snapshot; conf.data is owned. */
    char *image_path;              /* NULL = none; owned. */
    struct meta_peer *peers;       /* Owned. */
    unsigned n_peers;
    uint64_t ticket_reported;
    bool failure_reported;

    /* The writer's. */
    pthread_t writer;
    struct log_file *current;
    uint64_t next_index; /* Of the next entry. */
    uint64_t term, voted_for;

    /* The keeper's (the loop's before the threads run). */
    pthread_t keeper;
    struct meta_db meta_db;
    struct meta meta;

    /* All below: under `mutex`. */
    pthread_mutex_t mutex;
    pthread_cond_t writer_wake;  /* Items, or stopping. */
    pthread_cond_t keeper_wake;  /* Jobs, or stopping. */
    pthread_cond_t writer_reply; /* `prepared` or `installed` is set, or failed. */
    bool threads_run;
    bool writer_stop, keeper_stop;
    struct store_items items;
    struct store_jobs jobs;
    struct store_dones dones;
    struct log_file *prepared; /* The next file. */
    bool installed;            /* The JOB_INSTALL that the writer waits for is done. */
    uint64_t ticket_durable;
    char *failure; /* Not NULL: failed; owned. */
    uint64_t n_transactions, n_writes, n_bytes;
    struct buckets commit;
    uint32_t commit_us[STORE_SAMPLES]; /* Ring of the latest. */
};

/* Record a failure (takes ownership of the sentence), wake everybody; only the first one counts. */
void store_fail(struct store *s, char *sentence);

void store_item_free(struct store_item *item);
void snapshot_request_free(struct snapshot_request *r);

void *store_writer_run(void *arg); /* Thread bodies; arg is the store. */
void *store_keeper_run(void *arg);
void store_job_post(struct store *s, struct store_job job);

/* Parts of the keeper's work that open and close do too. */
int keeper_prepare(struct store *s, struct log_file **ret_file, char **ret_sentence);
int keeper_seal(struct store *s, struct log_file *f, char **ret_sentence); /* Closes f. */

/* Everything between the lock file and the threads: load, verify, clean up, start a new log file.
 * Fills s->meta, loaded, current, ... */
int store_load(struct store *s, char **ret_sentence);

#endif
