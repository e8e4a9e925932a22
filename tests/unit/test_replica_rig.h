/* A replica on a bench: what goes out is written down, what comes in is made by hand, and time is
 * a number. */
#ifndef HOLDFAST_TEST_REPLICA_RIG_H
#define HOLDFAST_TEST_REPLICA_RIG_H

#include "raftstore/node/replica_impl.h"

#define RIG_MAX 4096
#define RIG_MS  UINT64_C(1000000)

struct rig_sent {
    uint64_t to;
    Hf__PeerFrame *frame; /* Unpacked copy. */
};

struct rig_write {
    struct replica_write w; /* entries is NULL. */
    uint64_t first, last;   /* Entries' indexes; 0 = none. */
};

struct rig_done {
    uint64_t id;
    enum replica_status status;
    bool has_result;
    enum lock_code code;
    uint64_t stamp_ns;
};

struct rig {
    struct replica *r;
    uint64_t now_ns;
    uint64_t id;
    bool hold_writes; /* Writes are not reported until rig_persist(). */
    struct rig_sent sent[RIG_MAX];
    unsigned n_sent;
    struct rig_write writes[RIG_MAX];
    unsigned n_writes;
    struct rig_done commands[RIG_MAX], reads[RIG_MAX], admins[RIG_MAX];
    unsigned n_commands, n_reads, n_admins;
    unsigned n_images_sent, n_installs, n_snapshots, n_effects;
    struct replica_image snapshot; /* Asked for; conf not kept. */
    char fatal[512];
    unsigned n_logs;
};

/* A configuration of voters 1..n and standbys behind them, as the bytes of an entry. */
struct bytes rig_configuration(unsigned n_voters, unsigned n_standbys);

struct rig_stored {
    uint64_t term, voted_for;
    uint64_t image_index, image_term; /* 0 = none. */
    unsigned n_voters, n_standbys;
    uint64_t first;        /* First stored entry; 0 = 1. */
    const uint64_t *terms; /* Terms of the entries from `first` on. */
    unsigned n_entries;    /* 0 with image_index 0: only the bootstrap entry. */
    uint64_t rules_off;
};

/* Make a replica with id 1. */
void rig_open(struct rig *g, const struct rig_stored *s);
void rig_close(struct rig *g);

/* End turns and pass time. */
uint64_t rig_flush(struct rig *g);
void rig_pass(struct rig *g, uint64_t ms); /* In steps of one millisecond, flushing. */
void rig_persist(struct rig *g);           /* Everything written so far is durable. */
void rig_forget(struct rig *g);            /* Forget what was sent. */

/* The last frame of a type that was sent; NULL = none. */
const Hf__PeerFrame *rig_last(const struct rig *g, uint64_t to, Hf__PeerFrame__BodyCase type);
unsigned rig_count(const struct rig *g, Hf__PeerFrame__BodyCase type);

/* Frames in. */
void rig_vote_request(struct rig *g, uint64_t from, uint64_t term, uint64_t index, uint64_t iterm);
void rig_vote_result(struct rig *g, uint64_t from, uint64_t term, bool granted, bool pre_vote);
void rig_append(struct rig *g,
                uint64_t from,
                uint64_t term,
                uint64_t prev,
                uint64_t prev_term,
                uint64_t commit,
                const Hf__Entry *entries,
                unsigned n);
void rig_append_result(
    struct rig *g, uint64_t from, uint64_t term, uint64_t rejected, uint64_t last);
void rig_timeout_now(struct rig *g, uint64_t from, uint64_t term, uint64_t index, uint64_t iterm);
Hf__Entry rig_entry(uint64_t term); /* A tick, stamped 0. */
Hf__Entry rig_change(uint64_t term, struct bytes conf);
bool rig_image(struct rig *g, uint64_t from, uint64_t term, uint64_t index, uint64_t iterm);

/* Become leader, with the votes of all others; then ready, with the acknowledgement of node 2 (if
 * there is one). */
void rig_elect(struct rig *g);
void rig_ready(struct rig *g);
void rig_ack_all(struct rig *g, uint64_t from);
struct bytes rig_command(uint32_t op); /* Static bytes of a packed command. */

#endif
