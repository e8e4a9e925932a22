/* Inside of the replica: its state, and what its files offer each other.
 *
 *   replica.c          lifecycle, inputs, the flush at the end of a turn, views
 *   replica_core.c     raft_step(): events in, writes, messages and state changes out
 *   replica_write.c    writes under way, and what may be reported of them
 *   replica_log.c      the recent log in memory
 *   replica_codec.c    raft messages and configurations <-> wire, with every bound
 *   replica_outbox.c   frames that wait for term and vote to be durable
 *   replica_guard.c    what the core must not see (its known defects)
 *   replica_propose.c  cluster time, the queue of commands, group commit
 *   replica_entry.c    the packing of a log entry
 *   replica_apply.c    committed entries into the lock table
 *   replica_read.c     ReadIndex rounds
 *   replica_member.c   membership and transfer
 *   replica_image.c    snapshots: taking, sending, installing
 *   replica_digest.c   the exchange of digests between nodes */
#ifndef HOLDFAST_NODE_REPLICA_IMPL_H
#define HOLDFAST_NODE_REPLICA_IMPL_H

#include "raftstore/base/buf.h"
#include "raftstore/base/log.h"
#include "raftstore/node/replica.h"
#include "raftstore/node/replica_entry.h"
#include "raftstore/node/replica_log.h"
#include "raftstore/node/replica_rule.h"
#include "raftstore/wire/pack.h"

#define REPLICA_MEMBERS_MAX       32u                 /* Servers of a configuration. */
#define REPLICA_ADDRESS_MAX       600u                /* Bytes of a server's address text. */
#define REPLICA_INDEX_MAX         (UINT64_C(1) << 60) /* Indexes and terms beyond are impossible. */
#define REPLICA_TERM_JUMP         (UINT64_C(1) << 32) /* Further ahead of ours: impossible. */
#define REPLICA_BATCH_MAX         4096u               /* Entries of one AppendEntries. */
#define REPLICA_FRAME_BYTES       (1024u * 1024u)     /* Entry bytes after which a frame is sent. */
#define REPLICA_OUTBOX_MAX        4096u               /* Frames that wait; more are lost. */
#define REPLICA_READS_MAX         16384u              /* Reads that wait: 100 ms of them or so. */
#define REPLICA_ENTRY_COMMANDS    8192u               /* Commands of one entry. */
#define REPLICA_DIGEST_EVERY      256u                /* Applied indexes with a digest. */
#define REPLICA_DIGESTS           64u                 /* That are remembered. */
#define REPLICA_DIGEST_NS         (500u * UINT64_C(1000000))
#define REPLICA_DISPUTE_NS        (3 * UINT64_C(1000000000))
#define REPLICA_IMAGE_SEND_NS     (300 * UINT64_C(1000000000)) /* An image on its way. */
#define REPLICA_IMAGE_LOAD_NS     (10 * UINT64_C(1000000000))  /* Delivered, not yet installed. */
#define REPLICA_IMAGE_GRACE_NS    (1 * UINT64_C(1000000000))   /* Delivered, and not taken. */
#define REPLICA_IMAGE_AGAIN_NS    (200 * UINT64_C(1000000))    /* Not delivered: pause. */
#define REPLICA_INFORM_NS         (10 * UINT64_C(1000000000))  /* A new voter's first answer. */
#define REPLICA_SNAPSHOT_RETRY_NS (1000 * UINT64_C(1000000))

/* A write that was handed out and is not yet durable. */
struct pending_write {
    uint64_t ticket;
    uint64_t report_index;   /* The core is told so far; 0 = nothing. */
    struct log_chunk *chunk; /* Keeps the entries' bytes; may be NULL. */
};

/* A frame that must not leave before `ticket` is durable. */
struct outbox_frame {
    uint64_t ticket;
    uint64_t to;
    struct buf packed;
};

/* A command that waits to be proposed. */
struct queued_command {
    uint64_t request_id;
    uint64_t stamp_ns; /* Cluster time of its arrival. */
    size_t size_bytes; /* In queue_bytes, in the same order. */
    bool own;          /* A tick: nobody waits for its result. */
};

/* An entry that was proposed and is not yet applied. */
struct inflight_entry {
    uint64_t index;
    uint64_t term;
    uint64_t *request_ids; /* Owned; one per command. */
    bool *own;             /* Owned (same allocation). */
    unsigned n;
    bool term_start;
    uint64_t proposed_ns; /* r->now_ns of then. */
};

struct read {
    uint64_t id;          /* The driver's, or a follower's nonce. */
    uint64_t from;        /* Follower that asks; 0 = the driver. */
    uint64_t deadline_ns; /* Same clock as now_ns. */
    uint64_t index;       /* To be applied first. */
};

struct read_list {
    struct read *list; /* Owned. */
    size_t n;
    size_t n_alloc;
    uint64_t deadline_ns; /* No read of the list ends before this. */
};

struct read_round {
    bool open;
    uint64_t nonce;
    uint64_t term;
    uint64_t index; /* Commit index when it was sent. */
    uint64_t begin_ns;
    uint64_t sent_ns; /* Last (re)transmission. */
    uint64_t acks[REPLICA_MEMBERS_MAX];
    unsigned n_acks;
    struct read_list reads;
};

struct digest_mark {
    uint64_t index;
    struct lock_digest digest;
};

/* What is known of another node. */
struct peer {
    uint64_t id;
    uint64_t heard_ns;           /* As leader: last answer in our term; 0 = never. */
    uint64_t commit_sent;        /* As leader: commit index that was told with AppendEntries. */
    uint64_t image_index;        /* Image on its way there; 0 = none. */
    uint64_t image_until_ns;     /* It counts as lost then. */
    uint64_t image_delivered_ns; /* 0 = not yet. */
    struct digest_mark digest;   /* The last that it told; index 0 = none. */
    bool connected;
};

enum admin_kind {
    ADMIN_NONE,
    ADMIN_CHANGE,   /* A configuration entry is under way. */
    ADMIN_CATCH_UP, /* A standby gets the rest of the log before it is promoted. */
    ADMIN_INFORM,   /* A new voter is to hear of its promotion. */
    ADMIN_TRANSFER,
};

struct admin {
    enum admin_kind kind;
    uint64_t request_id;
    uint64_t id;    /* The node that it is about. */
    bool promotion; /* CHANGE: of a standby to voter. */
    uint64_t index; /* CHANGE: of the entry. */
    uint64_t term;  /* Of its begin. */
    uint64_t since_ns;
};

struct replica {
    struct raft core;
    struct replica_config config; /* address is owned. */
    const struct replica_io *io;
    void *io_arg;
    uint64_t now_ns;    /* Of the present call; never runs back. */
    bool stopped;       /* fatal() was said: nothing happens any more. */
    uint64_t rules_off; /* Tests only: bits of enum replica_rule. */

    /* Log and writes. */
    struct replica_log log;
    uint64_t ticket;         /* Last one given out. */
    uint64_t ticket_durable; /* Highest one reported durable. */
    uint64_t ticket_vote;    /* Last one that carried term or vote. */
    struct pending_write *writes;
    size_t n_writes, n_writes_alloc;
    bool rebuild_wanted; /* The core's configuration is wrong: restart it when all is durable. */

    /* Messages. */
    struct outbox_frame *outbox;
    size_t n_outbox, n_outbox_alloc;
    char rx_address[REPLICA_ADDRESS_MAX + 1]; /* Sender's: the core frees its configuration while
                                                 it still reads the address. */
    struct raft_entry *rx_entries;            /* Scratch of a received AppendEntries. */
    size_t n_rx_alloc;
    Hf__Entry *tx_entries; /* Scratch of a sent one. */
    Hf__Entry **tx_pointers;
    size_t n_tx_alloc;
    struct peer peers[REPLICA_MEMBERS_MAX];
    unsigned n_peers;
    uint64_t nonce;      /* Last one used; begins at random. */
    uint64_t dropped_ns; /* When a dropped message was logged last; 0 = never. */

    /* Roles. */
    enum raft_state state; /* As of the last step. */
    uint64_t term, leader_id;
    bool ready;
    bool term_start_wanted;
    uint64_t timeout_fired_ns;
    uint64_t followed_term, followed_id; /* Who led that term: one a term; 0 = nobody yet. */
    struct buf conf_seen;                /* Encoded configuration that was told to the driver. */

    /* Applying. */
    struct lock_table *table;
    struct arena arena; /* Unpacked commands. */
    uint64_t commit, applied;
    uint64_t leader_commit; /* As the last AppendEntries told it. */
    bool applying;
    uint64_t applied_stamp_ns, applied_at_ns; /* Cluster time seen, and when. */
    struct buf conf_applied;                  /* Newest applied configuration, encoded. */
    uint64_t conf_applied_index;

    /* Cluster time and proposing (leader). */
    uint64_t base_stamp_ns, elected_at_ns;
    uint64_t last_stamp_ns; /* Highest one given to a command. */
    struct queued_command *queue;
    size_t queue_head, n_queue, n_queue_alloc; /* Ring. */
    struct buf queue_bytes;
    size_t queue_bytes_head;
    struct inflight_entry *inflight;
    size_t inflight_head, n_inflight, n_inflight_alloc; /* Ring. */

    /* Reads. */
    struct read_list reads_new, reads_waiting, reads_asked;
    struct read_round rounds[2];
    uint64_t asked_nonce, asked_leader, asked_ns; /* ReadIndex under way; nonce 0 = none. */
    uint64_t asked_first_ns;                      /* When it was asked first. */
    uint64_t ask_again_ns;

    /* Membership. */
    struct admin admin;

    /* Snapshots. */
    uint64_t snapshot_index, snapshot_term, snapshot_conf_index;
    struct buf snapshot_conf;
    uint64_t taking_index; /* Snapshot under way; 0 = none. */
    uint64_t taking_term, taking_conf_index;
    struct buf taking_conf;
    uint64_t snapshot_retry_ns;
    bool snapshot_wanted;
    uint64_t log_bytes_applied, log_entries_applied; /* Since the last snapshot. */
    bool installing;
    struct raft_snapshot_metadata install;

    /* Digests. */
    struct digest_mark digests[REPLICA_DIGESTS];
    struct digest_mark dispute;                 /* Another node's that differs from ours. */
    uint64_t dispute_since_ns, dispute_told_ns; /* 0 = none. */
    uint64_t digest_newest, digest_sent, digest_sent_ns;

    uint64_t n_entries, n_commands, n_reads, n_rounds, n_elections, n_dropped;
    struct replica_figures figures;
};

static inline bool replica_rule(const struct replica *r, enum replica_rule rule)
{
#ifdef REPLICA_TEST
    return (r->rules_off >> rule & 1) == 0;
#else
    (void)r;
    (void)rule;
    return true;
#endif
}

static inline bool replica_is_leader(const struct replica *r)
{
    return r->core.state == RAFT_LEADER;
}

static inline unsigned replica_election_ms(const struct replica *r)
{
    return r->config.election_timeout_ms;
}

/* replica.c */
void replica_log_line(const struct replica *r, int level, const char *msg, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* A message is dropped; may a line be written about it?  One a second, whatever is sent. */
bool replica_may_log_drop(struct replica *r);
void replica_fatal(struct replica *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
struct peer *replica_peer(struct replica *r, uint64_t id); /* NULL when there is no room. */
const struct raft_server *replica_member(const struct replica *r, uint64_t id);
unsigned replica_voters(const struct replica *r);
bool replica_is_sole_voter(const struct replica *r);
void replica_enter(struct replica *r, uint64_t now_ns);
/* replica_new() with rules switched off (bits of enum replica_rule; only under REPLICA_TEST). */
int replica_create(const struct replica_config *config,
                   const struct replica_stored *stored,
                   uint64_t now_ns,
                   uint64_t rules_off,
                   struct replica **ret_replica);

/* replica_core.c */

/* Drive the core with one event, and do all that follows but applying.
 *
 * @chunk: memory of the submitted entries (SUBMIT), else NULL.
 * Return: what raft_step() said. Errors other than the expected ones of SUBMIT and TRANSFER end
 * the replica. */
int core_step(struct replica *r, struct raft_event *event, struct log_chunk *chunk);

/* Start (or restart) the core from the log in memory, which must be durable as far as the core
 * may believe. */
int core_start(struct replica *r, uint64_t term, uint64_t voted_for);
void core_rebuild(struct replica *r, uint64_t term, uint64_t voted_for);
void core_timeouts(struct replica *r);
uint64_t core_timeout_ns(const struct replica *r);
void core_members_check(struct replica *r);

/* replica_write.c */
void write_persist(struct replica *r,
                   struct replica_write *w,
                   uint64_t report_index,
                   struct log_chunk *chunk);
void write_cap(struct replica *r, uint64_t index); /* Report nothing above. */
uint64_t write_complete(struct replica *r,
                        uint64_t ticket); /* Return: highest index to report, or 0. */
void write_free(struct replica *r);

/* replica_codec.c */
bool codec_configuration_valid(struct bytes encoded);
int codec_configuration_decode(struct bytes encoded, struct raft_configuration *ret);
/* Address text of a member, "?" for others; a copy that lives until the next call. */
const char *codec_address(struct replica *r, uint64_t id);
void codec_configuration_encode(const struct raft_configuration *c, struct buf *ret);

/* Frame to message.  Entries point into the frame, their array is the replica's scratch.
 *
 * Return: true; false: malformed or over a bound (*ret_why says what). */
bool codec_parse(struct replica *r,
                 uint64_t from,
                 const Hf__PeerFrame *frame,
                 struct raft_message *ret,
                 const char **ret_why);

/* Is it a term that another node can have?  Terms can't be taken back: one false message must not
 * use them all up, after which nobody could be elected any more.  A node that knows nothing yet
 * takes what it is told. */
bool codec_term_valid(const struct replica *r, uint64_t term);

/* Send a message of the core: fills in entries, splits what is too large. */
void codec_send(struct replica *r, const struct raft_message *m);

/* replica_outbox.c */
void outbox_send(struct replica *r, uint64_t to, const Hf__PeerFrame *frame);
void outbox_release(struct replica *r);
void outbox_free(struct replica *r);

/* replica_guard.c */
enum guard_verdict {
    GUARD_PASS,   /* To the core, perhaps rewritten. */
    GUARD_DROP,   /* Not to the core. */
    GUARD_ANSWER, /* Not to the core; send the answer. */
};
enum guard_verdict guard_message(struct replica *r,
                                 struct raft_message *m,
                                 struct raft_append_entries_result *ret_answer,
                                 const char **ret_why);
enum guard_verdict guard_image(struct replica *r,
                               uint64_t from,
                               uint64_t leader_term,
                               const struct replica_image *image,
                               struct raft_append_entries_result *ret_answer,
                               const char **ret_why);
/* Is the core's configuration the one that the log says? */
bool guard_configuration(struct replica *r);

/* replica_propose.c */
uint64_t propose_cluster_now_ns(const struct replica *r, uint64_t now_ns);
void propose_leader_begin(struct replica *r);
void propose_leader_end(struct replica *r);
void propose_flush(struct replica *r);
uint64_t propose_wake_ns(const struct replica *r);
bool propose_possible(const struct replica *r);
/* The in-flight record of an entry that is being applied, if it is ours; popped by the caller. */
struct inflight_entry *propose_inflight_front(struct replica *r, uint64_t index, uint64_t term);
void propose_inflight_pop(struct replica *r);
void propose_free(struct replica *r);

/* replica_apply.c */
void apply_committed(struct replica *r);

/* replica_read.c */
size_t read_total(const struct replica *r); /* Reads that wait. */
void read_role_changed(struct replica *r);
void read_applied(struct replica *r);
void read_flush(struct replica *r);
uint64_t read_wake_ns(const struct replica *r);
void read_probe(struct replica *r, uint64_t from, const Hf__ReadProbe *m);
void read_probe_result(struct replica *r, uint64_t from, const Hf__ReadProbeResult *m);
void read_index(struct replica *r, uint64_t from, const Hf__ReadIndex *m);
void read_index_result(struct replica *r, uint64_t from, const Hf__ReadIndexResult *m);
void read_free(struct replica *r);

/* replica_member.c */
void member_flush(struct replica *r);
uint64_t member_wake_ns(const struct replica *r);
void member_applied(struct replica *r, uint64_t index);
void member_role_changed(struct replica *r);

/* replica_image.c */
void image_send(struct replica *r, const struct raft_message *m);
void image_accepted(struct replica *r, const struct raft_update *u);
void image_flush(struct replica *r);
uint64_t image_wake_ns(const struct replica *r);
/* An answer of a follower, in our term. */
void image_result(struct replica *r, uint64_t from, const struct raft_append_entries_result *m);
void image_leader_begin(struct replica *r);
bool image_is_inflight(struct replica *r, uint64_t to);
void image_free(struct replica *r);

/* replica_digest.c */
void digest_applied(struct replica *r);
void digest_flush(struct replica *r);
void digest_heard(struct replica *r, uint64_t from, const Hf__Digest *m);

#endif
