/* The simulation: a cluster of real replicas in virtual time, with virtual disks, a virtual
 * network, drifting clocks, clients, faults, and checks after every step.
 *
 * One process, one thread, one seed: the same seed gives the same run.  The replicas are the
 * product's sources, compiled with REPLICA_TEST so that a rule can be switched off to see whether
 * the checks notice. */
#ifndef HOLDFAST_SIM_H
#define HOLDFAST_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "raftstore/base/random.h"
#include "raftstore/lock/restore.h"
#include "raftstore/node/replica.h"
#include "raftstore/wire/pack.h"
#include "tests/sim/app.h"
#include "tests/sim/mount.h"
#include "tests/sim/serve.h"
#include "tests/sim/world.h"

#define NODES_MAX   7
#define CLIENTS_MAX 12
#define PATHS       5
#define MS          UINT64_C(1000000)

/* ---- Events ------------------------------------------------------------------------------ */

enum event_type {
    EVENT_TURN,         /* Node: end of a turn. */
    EVENT_WAKE,         /* Node: the instant that the last flush asked for. */
    EVENT_FRAME,        /* Node: a frame arrives. */
    EVENT_DISK,         /* Node: writes become durable. */
    EVENT_IMAGE,        /* Node: an image arrives. */
    EVENT_IMAGE_SENT,   /* Node: the outcome of an image that was sent. */
    EVENT_REQUEST,      /* Node: a client's request arrives. */
    EVENT_CRASH,        /* Node: crash now. */
    EVENT_START,        /* Node: start it. */
    EVENT_REPLY,        /* Client. */
    EVENT_CLIENT,       /* Client: time to think. */
    EVENT_CLIENT_RETRY, /* Client: no answer to a request. */
    EVENT_FAULT,        /* The next fault. */
    EVENT_CALL,         /* A function of its own. */
};

struct event {
    uint64_t at_ns;
    uint64_t order; /* Among events of the same instant. */
    enum event_type type;
    unsigned to;          /* Node or client. */
    uint64_t incarnation; /* Of the node; other incarnations ignore it. */
    uint64_t a, b, c;     /* By type. */
    struct lock_result result;
    enum replica_status status;
    struct buf bytes;        /* Owned. */
    struct sim_image *image; /* One reference. */
    struct call call;
};

/* ---- Nodes ------------------------------------------------------------------------------- */

/* A snapshot: identity and rows. */
struct sim_image {
    unsigned n_refs;
    struct replica_image ident; /* conf is in the arena. */
    struct lock_row *rows;
    size_t n_rows, n_alloc;
    struct arena arena;
    uint32_t sum; /* Of all of it, as the tables' and the meta's checksums of a real one. */
};

struct disk_entry {
    uint64_t index, term;
    uint32_t type;
    uint32_t sum; /* Of the row, as it was written. */
    struct buf data;
};

/* What would survive a crash. */
struct disk {
    uint64_t term, voted_for;
    uint32_t head_sum; /* Of these two, as they were written. */
    struct disk_entry *entries;
    size_t n, n_alloc;
    struct sim_image *image; /* NULL = none. */
};

enum disk_op_type { DISK_WRITE, DISK_SNAPSHOT, DISK_INSTALL };

struct disk_op {
    enum disk_op_type type;
    bool fails; /* The disk refuses it. */
    uint64_t done_ns;
    struct replica_write write;    /* Entries' data is the replica's until it is reported. */
    struct replica_entry *entries; /* Owned copy of the array. */
    struct sim_image *image;
};

/* A request of a client that the replica works on. */
struct open_request {
    uint64_t id; /* Given to the replica; 0 = free. */
    unsigned client;
    unsigned slot;
    uint64_t serial;      /* The client's. */
    uint64_t acked_index; /* Reads: what was acknowledged when it was asked. */
};

struct node {
    struct world *world;
    unsigned number; /* 0-based; the Raft id is number + 1. */
    bool up;
    uint64_t incarnation;
    uint64_t paused_until_ns;
    int64_t drift_ppm;
    uint64_t offset_ns;
    struct replica *replica;
    struct serve *serve; /* Its door to applications; NULL while it is down. */
    bool turn_pending;
    uint64_t wake_order; /* Only the newest wake counts. */
    struct disk disk;
    struct disk_op *ops;
    size_t n_ops, n_ops_alloc;
    uint64_t disk_slow_until_ns;
    uint64_t disk_stalls_until_ns; /* Nothing is done before that. */
    bool disk_fails;               /* The next write does. */
    bool refused;                  /* It does not start: its disk is damaged. */
    unsigned heir;                 /* Then: the number of the node that replaces it, + 1. */
    struct sim_image *incoming;    /* Being received or installed. */
    struct open_request *open;
    size_t n_open;
    uint64_t applied_seen;
};

/* ---- Clients ----------------------------------------------------------------------------- */

enum slot { SLOT_OP, SLOT_KEEPALIVE, SLOT_READ, SLOTS };

/* A hold that the client relies on while its own clock is below the deadline. */
struct belief {
    uint64_t token; /* 0 = none. */
    enum lock_mode mode;
    uint32_t limit; /* Of a semaphore; 0 = none. */
    bool session_bound;
    uint64_t deadline_ns; /* Own clock; session_bound: the session's counts. */
};

struct request {
    bool active;
    uint64_t serial;      /* Of the attempt chain: answers to others are ignored. */
    uint64_t first_ns;    /* Own clock, when it was sent first. */
    uint64_t retry_order; /* Only the newest retry timer counts. */
    uint64_t seq;
    uint32_t op; /* 0 = a read. */
    unsigned path;
    enum lock_mode mode;
    uint32_t limit;
    uint64_t ttl_ms;
    unsigned to;          /* RENAME: the path that it leads to. */
    struct belief moving; /* RENAME: relied on nowhere until it is decided. */
    struct buf packed;
    unsigned attempts;
};

struct client {
    unsigned number;
    struct app *app; /* Uses the product's client library; then nothing below counts.  NULL = it is
                        modelled by client.c. */
    struct mount *mount; /* It is this process of a mount; likewise. */
    unsigned process;
    int64_t drift_ppm;
    uint64_t offset_ns;
    unsigned guess; /* Node to ask. */
    uint64_t session_id, session_deadline_ns, session_ttl_ms, keepalive_at_ns;
    uint64_t seq, serial;
    uint64_t pair_sent_ns, pair_stamp_ns; /* Newest pair of own clock and cluster time. */
    struct request requests[SLOTS];
    struct belief beliefs[PATHS];
    uint64_t n_done, n_grants, n_reads, n_waited, n_renamed;
    uint64_t done_after_heal;
};

/* ---- Checks ------------------------------------------------------------------------------ */

/* What was applied at an index, by whoever was first. */
struct history {
    bool set;
    uint64_t term;
    uint64_t hash; /* Of the entry's bytes. */
    struct lock_digest digest;
    unsigned node;
};

struct token_record {
    uint64_t token;
    uint64_t deadline_ns; /* Highest one acknowledged to a client; 0 = none. */
    uint64_t ended_ns;    /* Stamp at which it ended; 0 = not. */
    bool expired;
};

struct term_record {
    uint64_t term;
    unsigned leader; /* Number + 1. */
};

struct options {
    uint64_t seed;
    uint64_t seconds;
    uint64_t rules_off;
    bool trace;
    unsigned nodes; /* 0 = 3 or 5, by seed. */
    bool members;   /* Change the membership, with two spare nodes. */
};

#define SPARES 2

struct heap_slot {
    uint64_t at_ns, order; /* The event's, beside each other: most of a run is comparing them. */
    struct event *event;
};

struct world {
    struct options options;
    struct random random;
    uint64_t now_ns;
    uint64_t order;
    struct heap_slot *heap;
    size_t n_heap, n_heap_alloc;
    struct node nodes[NODES_MAX];
    unsigned n_nodes;  /* Of the first configuration, and spare ones. */
    unsigned n_voters; /* Of the first configuration. */
    bool rots;         /* Disks are damaged; spare nodes are there to replace their nodes. */
    unsigned n_heirs;  /* Spare nodes in use. */
    struct client clients[CLIENTS_MAX];
    unsigned n_clients;
    struct bytes bootstrap;
    uint64_t next_request_id;

    /* Network. */
    bool blocked[NODES_MAX][NODES_MAX]; /* From, to. */
    unsigned loss_permille, duplicate_permille, late_permille;
    bool app_cut[CLIENTS_MAX][NODES_MAX][2]; /* By the end that sends. */
    bool healed;
    uint64_t heal_ns;

    /* Checks. */
    struct history *history;
    size_t n_history;
    uint64_t last_token, history_index, acked_index;
    struct token_record *tokens; /* Increasing tokens. */
    size_t n_tokens, n_tokens_alloc;
    struct term_record *terms;
    size_t n_terms, n_terms_alloc;
    uint64_t session_acked[65536]; /* By session id (small in a run): acknowledged deadline. */
    bool failed;
    char failure[512];

    /* What happened. */
    uint64_t n_shared_slots; /* Beliefs in a slot beside another's. */
    uint64_t n_events, n_crashes, n_elections, n_images, n_snapshots, n_transfers, n_entries,
        n_changes;
    uint64_t n_torn, n_failed_writes, n_rotten, n_refused, n_refused_images, n_replaced;
};

/* world.c */
struct event *world_event(struct world *w, enum event_type type, unsigned to, uint64_t delay_ns);
void world_requeue(struct world *w, struct event *e, uint64_t at_ns);
void event_free(struct event *e);
bool world_run(struct world *w, const struct options *o); /* True: no check failed. */
void world_free(struct world *w);

/* image.c */
struct sim_image *sim_image_take(const struct lock_table *t, const struct replica_image *ident);
struct sim_image *sim_image_copy(const struct sim_image *i);
uint32_t sim_image_sum(const struct sim_image *i);
struct sim_image *sim_image_ref(struct sim_image *i);
void sim_image_unref(struct sim_image *i);
struct lock_table *sim_image_load(const struct sim_image *i); /* NULL: it can't be restored. */

/* disk.c */
void disk_submit(struct node *n,
                 enum disk_op_type type,
                 const struct replica_write *w,
                 struct sim_image *image);
void disk_event(struct node *n);
void disk_crash(struct node *n);
void disk_bootstrap(struct node *n);
/* What opening the store finds: is everything as it was written, and whole? */
bool disk_is_sound(const struct node *n);
/* One bit of what is stored changes. */
void disk_rot(struct node *n);
void disk_free(struct node *n);

/* node.c */
void node_start(struct node *n);
void node_crash(struct node *n, uint64_t restart_ns);
void node_event(struct node *n, struct event *e);
void node_stop(struct node *n);
uint64_t node_clock_ns(const struct node *n);
void node_turn(struct node *n); /* Ask for the end of the turn. */
extern const struct replica_io node_io;

/* client.c */
/* The kinds: all modelled; or some applications; or some mounts, too. */
void client_start(struct client *c, struct world *w, unsigned kinds);
void client_think(struct world *w, struct client *c);
void client_reply(struct world *w, struct client *c, const struct event *e);
void client_retry(struct world *w, struct client *c, const struct event *e);
void client_stop(struct client *c);
void client_free(struct client *c);
uint64_t client_clock_ns(const struct world *w, const struct client *c);

/* faults.c */
void fault_next(struct world *w);
void fault_heal(struct world *w);

/* operator.c */
/* Damage a disk, if the cluster can spare its node. */
void operator_rot(struct world *w);
/* The next steps of replacing nodes that do not start any more. */
void operator_step(struct world *w);

/* check.c */
void check_applied(struct node *n, uint64_t index, uint64_t term, struct bytes data);
void check_installed(struct node *n, uint64_t index);
void check_effects(struct node *n, uint64_t index, uint64_t stamp_ns, const struct lock_effects *e);
void check_state(struct node *n);
void check_read(struct node *n, uint64_t acked_index);
void check_belief(struct world *w, const struct client *c, unsigned path);
void check_acked_hold(struct world *w, uint64_t token, uint64_t deadline_ns);
void check_acked_session(struct world *w, uint64_t session_id, uint64_t deadline_ns);
void check_ready(struct world *w);
struct node *check_leader_ready(struct world *w); /* NULL: none. */
void check_end(struct world *w);
void check_free(struct world *w);

#endif
