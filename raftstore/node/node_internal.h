/* The node's inside, for node*.c, stall.c, query.c, status.c and admin.c. */
#ifndef HOLDFAST_NODE_NODE_INTERNAL_H
#define HOLDFAST_NODE_NODE_INTERNAL_H

#include "raftstore/node/events.h"
#include "raftstore/node/listener.h"
#include "raftstore/node/node.h"
#include "raftstore/node/node_audit.h"
#include "raftstore/node/peers.h"
#include "raftstore/node/replica.h"
#include "raftstore/node/shadow.h"
#include "raftstore/node/store.h"
#include "raftstore/node/stream.h"

#include <limits.h>

#define NODE_READ_NS       UINT64_C(5000000000) /* Server side bound of a read. */
#define NODE_ELECTION_MS   250u                 /* The replica's default. */
#define NODE_STALL_LOUD_NS UINT64_C(10000000)   /* A longer loop turn is logged. */
#define NODE_COMPACT_MS    UINT64_C(120000)     /* An operator's COMPACT waits so long. */
#define NODE_ADDRESS_BYTES 640                  /* "RAFT,CLIENT" of a member. */
#define NODE_COMPACTS_MAX  16
#define NODE_BACKLOG_BYTES_MAX                                                                     \
    (64u * 1024 * 1024)         /* Of the shadow; beyond it clients are refused. */
#define NODE_FILES_RESERVED 400 /* Descriptors kept from clients: nodes (256), store, images. */
#define NODE_STOP_REQUEST   UINT64_C(0xffffffff) /* No number of a request: generation 0. */

/* How long the loop was busy at a stretch: from the return of its poll to the next one.
 * Resolution is a millisecond (libuv's cached time) for turns that began after a sleep. */
struct node_stall {
    uint64_t poll_from_ns; /* When the last poll began. */
    uint64_t turn_from_ns; /* When it returned. */
    uint64_t cpu_ns;       /* CPU time of this thread when the last poll began. */
    struct buckets turns;  /* All of them. */
    uint64_t max_ns;
    uint64_t cpu_max_ns;      /* Most CPU time of one turn: what of a stall is our own doing. */
    uint64_t snapshot_max_ns; /* While a snapshot was being taken. */
    uint64_t told_ns;         /* When the last one was logged. */
};

/* A snapshot of the lock table on its way to disk. */
struct node_snapshot {
    bool active;
    struct replica_image image; /* conf is owned. */
    char path[PATH_MAX];
    uint64_t begin_ns;
    uint64_t failed_ms; /* Not 0: it failed then (uv_now()), and the replica is to be told later. */
    uint64_t last_ms;   /* How long the last one took. */
    uint64_t n;         /* Since start. */
    uint64_t n_failed;  /* Likewise. */
    struct buckets took;
};

/* An image received from the leader, and its installation. */
struct node_install {
    bool received;              /* A file is at `path`, not yet given up. */
    bool installing;            /* The replica took it. */
    struct replica_image image; /* conf is owned. */
    char path[PATH_MAX];
};

/* An operator's snapshot being streamed to a client. */
struct node_export {
    bool active;
    bool writing; /* The shadow is making the file. */
    bool reading; /* The worker pool reads a chunk. */
    uint64_t request_id;
    uint64_t index;
    uint64_t number; /* Makes file names differ. */
    char path[PATH_MAX];
    int fd;
    uint64_t size;
    uint64_t offset;
    uint8_t *chunk; /* Owned. */
    ssize_t chunk_size;
    uv_work_t job;
};

/* To be told to the replica outside of its calls. */
struct node_deferred {
    uint64_t peer;
    uint64_t index; /* 0: a link went up or down; else of the image that was sent. */
    bool good;
};

struct node {
    struct node_config config;
    const struct clock *clock;
    char *data;                       /* Owned copy of config.data. */
    char address[NODE_ADDRESS_BYTES]; /* This node in the Raft configuration. */
    char raft_address[300];
    char client_address[300];
    struct stream_hub hub;
    struct store *store;
    struct shadow *shadow;
    struct replica *replica;
    struct peers *peers; /* NULL: embedded, no other nodes. */
    struct listener *listener;
    struct events *events;
    struct node_audit audit;
    struct endpoint *endpoint; /* NULL: none. */
    uv_check_t check;
    uv_prepare_t prepare;
    uv_timer_t timer; /* Wakes the loop for replica_flush(). */
    uv_timer_t sweep; /* Once a second. */
    uv_idle_t awake;  /* Keeps the next poll from sleeping. */
    uv_timer_t stop_timer;
    uint64_t begin_ns;
    int64_t tls_told_s;           /* When the end of our certificate was logged; wall clock. */
    int64_t wall_offset_ns;       /* Wall clock minus cluster time, as of the last turn. */
    struct access_policy *policy; /* NULL: none. */
    uv_work_t policy_work;        /* Reading it again. */
    bool policy_reading, policy_again;
    struct policy *policy_read; /* The worker's: what it read, or why not. */
    char *policy_sentence;
    char leader_address[300];
    uint64_t leader_id;
    uint64_t n_leader_changes; /* How often another leader became known. */
    uint64_t led_by;           /* The last leader that was known. */
    uint64_t n_images_sent, n_images_failed, n_images_installed;
    enum raft_state state;
    struct node_stall stall;
    struct node_snapshot snapshot;
    struct node_install install;
    struct node_export export;
    struct {
        uint64_t request_id;
        uint64_t begin_ms;
    } compacts[NODE_COMPACTS_MAX];
    unsigned n_compacts;
    struct node_deferred *deferred; /* Owned. */
    unsigned n_deferred, deferred_alloc;
    bool started; /* The handles above are initialised. */
    bool transferring;
    bool stopping;  /* node_stop() was called. */
    bool stop_late; /* Its patience is over. */
    bool closing;   /* Parts are being closed. */
    char *failure;  /* Not NULL: can't go on; why. */
    bool failure_told;
    unsigned n_open; /* Parts that are not closed yet. */
    void (*stopped)(void *arg);
    void *stopped_arg;
};

/* The node can't go on; the first sentence counts. Acts at the end of the turn. */
void node_fail(struct node *n, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Can the replica still be called? */
static inline bool node_is_alive(const struct node *n)
{
    return n->replica != NULL && n->failure == NULL && !n->closing;
}

/* Client address of a member out of its configuration text "RAFT,CLIENT"; "" if malformed. */
const char *node_client_address(const char *text);
/* Copy its Raft part. */
void node_raft_address(const char *text, char *out, size_t size);

/* Leader or role may be another. */
void node_state_changed(struct node *n);
/* The transfer that node_stop() asked for is over. */
void node_transferred(struct node *n);
/* Let the next poll not sleep. */
void node_wake(struct node *n);

/* node_io.c */
void node_io_deinit(struct node *n);

/* node_tls.c: load the certificates, if there are to be some (as node_reload_tls()); once a second:
 * tell before they end. */
int node_load_tls(struct node *n, char **ret_sentence);
void node_tls_sweep(struct node *n);

/* node_policy.c: load the policy, if there is to be one. */
int node_load_policy(struct node *n, char **ret_sentence);
void node_policy_deinit(struct node *n);

void node_tell_deferred(struct node *n);
void node_snapshot_sweep(struct node *n);
extern const struct replica_io node_replica_io;
struct peers_config node_peers_config(struct node *n, uint64_t incarnation, uint64_t cluster_id);
void node_on_persisted(void *arg, uint64_t ticket);
void node_on_store_failed(void *arg, const char *sentence);
void node_on_snapshot(
    void *arg, uint64_t index, const char *path, int status, const char *sentence);
void node_on_loaded(void *arg, struct lock_table *table, int status, const char *sentence);

/* node_clients.c */
struct listener_config node_listener_config(struct node *n);

/* query.c */
void query_answer(void *arg,
                  const struct access *access,
                  uint64_t frame_id,
                  const Hf__Query *query,
                  struct arena *arena,
                  struct buf *out);

void query_members(struct node *n, struct arena *arena, Hf__QueryReply *reply);

/* status.c */
Hf__Status *status_make(struct node *n, struct arena *arena);
Hf__Counts *status_counts(struct node *n, struct arena *arena);

/* admin.c */
enum replica_status admin_begin(
    void *arg, uint64_t now_ns, uint64_t request_id, const Hf__Admin *admin, const char **ret_text);
void admin_chunk_taken(void *arg, uint64_t request_id, bool gone);
/* A read that admin_begin() asked for may be served. Return: false: not one of ours. */
bool admin_read_done(struct node *n, uint64_t request_id, enum replica_status status);
/* A file made by the shadow. Return: false: not one of ours. */
bool admin_snapshot_written(struct node *n, const char *path, int status, const char *sentence);
void admin_compacted(struct node *n, uint64_t index);
void admin_sweep(struct node *n);
/* Give up what runs. Return: false: a job is still to end (it calls node_unref()). */
void admin_close(struct node *n);

/* node_http.c: serve metrics and health, if config.http says where; from node_start() and
 * node_close(). */
int node_http_open(struct node *n, char **ret_sentence);
void node_http_close(struct node *n);

/* stall.c */
void stall_poll_begins(struct node *n, uint64_t now_ns);
void stall_poll_ended(struct node *n);

/* One part less is open. */
void node_unref(struct node *n);

#endif
