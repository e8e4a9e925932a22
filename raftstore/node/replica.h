/* The replica: Raft, the log in memory, group commit, reads and the lock table, as a pure
 * function of events.
 *
 * No I/O, no clock, no threads: every call carries `now_ns` (a monotonic clock, the same one for
 * the life of the replica), and what must happen leaves through `struct replica_io`, whose
 * functions are called from inside the replica_*() calls and must not call back into the replica.
 * The simulator runs this very code.  It drives raft_step() of libraft 0.22 (docs: engine notes 11,
 * 12) and guards the core's known defects.
 *
 * Order of a driver's turn: deliver everything that has arrived (replica_receive, _persisted,
 * _submit, _read, ...), then call replica_flush() once: it forms log entries out of what was
 * submitted (group commit), sends read rounds, fires time-outs that are due, and returns the next
 * instant it must be called at.  Delivering before flushing matters: a time-out must not overtake a
 * message that is already there. */
#ifndef HOLDFAST_NODE_REPLICA_H
#define HOLDFAST_NODE_REPLICA_H

#include "raftstore/base/buckets.h"
#include "raftstore/base/bytes.h"
#include "raftstore/lock/lock.h"

#include "holdfast.pb-c.h"

#include <raft.h>
#include <stdbool.h>
#include <stdint.h>

struct replica;

/* Why a request was not done. */
enum replica_status {
    REPLICA_OK = 0,
    REPLICA_NOT_LEADER = 1, /* Not done: ask the leader. */
    REPLICA_UNKNOWN = 2,    /* Leadership was lost: it may or may not be done. */
    REPLICA_BUSY = 3,       /* Not done: queues are full. */
    REPLICA_NO_QUORUM = 4,  /* A read: its deadline passed. */
    REPLICA_BAD = 5,        /* Malformed. */
    REPLICA_REFUSED = 6,    /* Membership: the rules forbid it (text says why). */
    REPLICA_STOPPED = 7,
};

/* One log entry as stored. */
struct replica_entry {
    uint64_t index;
    uint64_t term;
    uint32_t type; /* enum raft_entry_type. */
    struct bytes
        data; /* Lives at least until the write is reported durable (or truncated and reported). */
};

/* One thing to make durable, atomically, in the order of the calls. */
struct replica_write {
    uint64_t ticket; /* Increasing; replica_persisted() is told the highest that is durable. */
    bool set_vote;   /* term and voted_for are to be stored. */
    uint64_t term;
    uint64_t voted_for;
    uint64_t truncate_from; /* Not 0: first delete every entry with this index or above. */
    const struct replica_entry *entries; /* The array is the caller's only for the call. */
    unsigned n_entries;
    uint64_t drop_to; /* Not 0: entries up to this index are no longer needed (a snapshot that
                         covers them is durable); may be done lazily. */
};

/* What identifies an image (a snapshot of the lock table plus Raft's part). */
struct replica_image {
    uint64_t index;
    uint64_t term;
    uint64_t conf_index;
    struct bytes conf; /* raft_configuration_encode() format; borrowed for the call. */
};

struct replica_io {
    /* Store this. Answer with replica_persisted(). */
    void (*persist)(void *arg, const struct replica_write *w);
    /* Send to a node; loss is allowed, reordering within a connection is not expected. */
    void (*send)(void *arg, uint64_t to, const Hf__PeerFrame *frame);
    /* Stream the newest durable image to a node, and answer with replica_image_sent(). `term`:
     * ours. */
    void (*send_image)(void *arg, uint64_t to, uint64_t term);
    /* Take a snapshot of the state right now, at this index; replica_snapshot_taken() when durable.
     */
    void (*take_snapshot)(void *arg, const struct replica_image *image);
    /* The core accepted the image last given to replica_receive_image(): make it durable and drop
     * the whole log in one go, load it, then call replica_image_installed(). */
    void (*install_image)(void *arg, const struct replica_image *image);
    /* The outcome of a submitted command. `result` is NULL unless status is REPLICA_OK. */
    void (*command_done)(void *arg,
                         uint64_t request_id,
                         enum replica_status status,
                         const struct lock_result *result,
                         uint64_t index);
    /* A read may be served from replica_table() now, in this very call (or failed). */
    void (*read_done)(void *arg, uint64_t read_id, enum replica_status status);
    /* The outcome of a membership change or transfer. */
    void (*admin_done)(void *arg,
                       uint64_t request_id,
                       enum replica_status status,
                       const char *text);
    /* An entry was applied: bytes of a LogEntry (for the shadow); called for every RAFT_COMMAND
     * entry in order. */
    void (*entry_applied)(void *arg, uint64_t index, uint64_t term, struct bytes data);
    /* What one command of it did; called in order on every node, behind command_done. */
    void (*effects)(void *arg,
                    uint64_t index,
                    const struct lock_command *command,
                    const struct lock_effects *effects);
    /* Role, term or leader changed. */
    void (*state_changed)(void *arg);
    /* The set of nodes changed (also called once at start): connect to these. Borrowed. */
    void (*members_changed)(void *arg, const struct raft_configuration *members);
    /* The replica can't go on (a broken promise of the core or the store, a diverged digest): say
     * so and stop the node. */
    void (*fatal)(void *arg, const char *reason);
    /* A log line (level of base/log.h); kept out of the pure part this way. */
    void (*log)(void *arg, int level, const char *msg, const char *fields);
};

struct replica_config {
    uint64_t id;
    const char *address; /* Text of this node in the Raft configuration: "RAFT,CLIENT" addresses. */
    uint64_t seed;       /* Of election jitter. */
    unsigned election_timeout_ms;  /* 0 = 250. */
    unsigned heartbeat_ms;         /* 0 = 10. */
    size_t entry_bytes_max;        /* Group commit stops here; 0 = ENTRY_BYTES_MAX. */
    unsigned entries_inflight_max; /* Entries proposed and not yet committed; 0 = 2. */
    size_t queue_bytes_max;        /* Commands waiting to be proposed; beyond: BUSY. 0 = 16 MiB. */
    unsigned queue_commands_max;   /* 0 = 65536. */
    unsigned queue_ms_max; /* Nor more than queue_commands_late while the oldest has waited */
    unsigned queue_commands_late;  /* longer than this. 0 = 100 ms, 0 = 1024. */
    size_t snapshot_log_bytes;     /* Log bytes after which a snapshot is taken; 0 = 32 MiB. */
    unsigned snapshot_log_entries; /* Likewise, entries; 0 = 100 000. */
    unsigned trailing_entries;     /* Kept behind a snapshot for slow followers; 0 = 10 000. */
    struct lock_limits limits;     /* All zero = keep what the table has. */
    const struct replica_io *io;
    void *io_arg;
};

/* What was found in the store at start. */
struct replica_stored {
    uint64_t term;
    uint64_t voted_for;
    struct replica_image image; /* index 0 = none. */
    struct lock_table
        *table; /* Restored from the image, or a new one. Ownership passes on success. */
    const struct replica_entry *entries; /* From image.index + 1 or below, without gaps; copied. */
    unsigned n_entries;
};

/* Make and start a replica.
 *
 * @ret_replica: set before the first of io's functions is called (writes, members and state may be
 *               told from inside this call; a sole voter leads at once); as before on failure.
 *
 * Return: 0; negative errno (-EINVAL: what is stored contradicts itself). */
int replica_new(const struct replica_config *config,
                const struct replica_stored *stored,
                uint64_t now_ns,
                struct replica **ret_replica);
void replica_free(struct replica *r);

/* The bootstrap configuration as entry 1 (term 1, RAFT_CHANGE): what every first node stores
 * before its first start.
 *
 * @ret_data: malloc()ed bytes of the entry; the caller frees ret_data->data.
 * Return: 0; -EINVAL for duplicate ids or addresses or an even or empty set (1, 3, 5, 7 voters). */
int replica_bootstrap(const struct raft_configuration *members, struct bytes *ret_data);

/* Inputs. ---------------------------------------------------------------------------------- */

/* A frame from a node (not ImageChunk).  Anything malformed or out of bounds is dropped with a log
 * line. */
void replica_receive(struct replica *r, uint64_t now_ns, uint64_t from, const Hf__PeerFrame *frame);

/* All writes up to this ticket are durable. */
void replica_persisted(struct replica *r, uint64_t now_ns, uint64_t ticket);

/* A whole image has arrived (its bytes are with the driver). If the core takes it,
 * io->install_image is called.
 *
 * Return: true if it is being installed; else the driver may throw it away. */
bool replica_receive_image(struct replica *r,
                           uint64_t now_ns,
                           uint64_t from,
                           uint64_t leader_term,
                           const struct replica_image *image);
void replica_image_installed(struct replica *r, uint64_t now_ns, struct lock_table *table);

/* The transfer that io->send_image began ended: the image with this index was (not) delivered. */
void replica_image_sent(
    struct replica *r, uint64_t now_ns, uint64_t to, uint64_t index, bool delivered);

/* The snapshot asked for by io->take_snapshot is durable (or was given up: ok false). */
void replica_snapshot_taken(struct replica *r, uint64_t now_ns, uint64_t index, bool ok);

/* A connection to this node came up or went down: hints for retransmission and transfer. */
void replica_peer_connected(struct replica *r, uint64_t now_ns, uint64_t id, bool up);

/* Under load, what is refused first, and last. */
enum replica_urgency {
    REPLICA_ORDINARY,  /* Asks for something. */
    REPLICA_UPKEEP,    /* Keeps or ends a hold: renew, release, cancel.  A quarter more of them. */
    REPLICA_KEEPALIVE, /* Keeps or ends a session, and all that hangs on it.  Half more of them. */
};

/* A client's command (bytes of a packed Command, already checked with translate_command(): one that
 * can't be applied would stop every node).  Its stamp is cluster time at this call.  While
 * leadership is being transferred commands are queued, for the time that the transfer fails.
 *
 * Return: REPLICA_OK: io->command_done will come with this id; else it won't (NOT_LEADER, BUSY). */
enum replica_status replica_submit(struct replica *r,
                                   uint64_t now_ns,
                                   uint64_t request_id,
                                   enum replica_urgency urgency,
                                   struct bytes command);

/* A linearizable read: io->read_done will come with this id, at `deadline_ns` at the latest. Works
 * on followers too. */
enum replica_status
replica_read(struct replica *r, uint64_t now_ns, uint64_t read_id, uint64_t deadline_ns);

/* Membership and leadership; io->admin_done comes unless the answer is not REPLICA_OK. */
enum replica_status replica_member_add(
    struct replica *r, uint64_t now_ns, uint64_t request_id, uint64_t id, const char *address);
enum replica_status replica_member_role(
    struct replica *r, uint64_t now_ns, uint64_t request_id, uint64_t id, bool voter);
enum replica_status
replica_member_remove(struct replica *r, uint64_t now_ns, uint64_t request_id, uint64_t id);
enum replica_status
replica_transfer(struct replica *r, uint64_t now_ns, uint64_t request_id, uint64_t to);

/* Ask for a snapshot at the next flush, whatever the thresholds say. */
void replica_want_snapshot(struct replica *r);

/* End of a turn. Return: the instant (same clock) at which to call again at the latest. */
uint64_t replica_flush(struct replica *r, uint64_t now_ns);

/* Views. ----------------------------------------------------------------------------------- */

const struct lock_table *
replica_table(const struct replica *r); /* Applied state; changes in every input. */
uint64_t replica_cluster_now_ns(const struct replica *r,
                                uint64_t now_ns); /* Exact on the leader, an estimate elsewhere. */
const struct raft_configuration *replica_members(const struct replica *r);

struct replica_view {
    enum raft_state state;
    bool ready; /* Leader that has applied an entry of its own term. */
    uint64_t term, leader_id, commit_index, applied_index, last_index, first_index, snapshot_index;
    uint64_t n_queued;   /* Commands not yet proposed. */
    uint64_t n_inflight; /* Entries proposed and not yet applied. */
    uint64_t entries, commands, reads, read_rounds, elections; /* Counters since start. */
    uint64_t leader_commit_index; /* As the leader told last; never below ours. */
    uint64_t dropped; /* Messages of nodes that were impossible, out of place or a stranger's. */
};
struct replica_view replica_view(const struct replica *r);

/* Figures for metrics, since the start of the replica. */
struct replica_figures {
    struct buckets commit;     /* As leader: an entry from being proposed to a durable majority. */
    struct buckets read_round; /* From the question to the index that reads may be served at. */
    uint64_t elections_won;
};
const struct replica_figures *replica_figures(const struct replica *r);

struct replica_queues {
    uint64_t reads;        /* Reads that wait, followers' included. */
    uint64_t writes;       /* Writes handed to the store, not yet durable. */
    uint64_t log_bytes;    /* Data of the entries in memory. */
    uint64_t queued_bytes; /* Of commands not yet proposed. */
};
struct replica_queues replica_queues(const struct replica *r);

/* Leader: what is known of a follower. Return: false if not leader or no such node. */
bool replica_follower(const struct replica *r,
                      uint64_t now_ns,
                      uint64_t id,
                      uint64_t *ret_match_index,
                      uint64_t *ret_silent_ms);

#endif
