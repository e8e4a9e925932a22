/* The fuzz target of the replica: real replicas in one process, with virtual disks, a virtual
 * network, and liars.
 *
 *   replica.c        the input's commands; what must hold at the end
 *   replica_node.c   a node: the replica's driver, its disk, what must hold at each output
 *   replica_lies.c   frames and images that decode well and are not true
 *
 * Who may lie is part of the input (enum liars).  What a lie may achieve, and what it may not, is
 * written in HACKING.md ("What a lying node can do") and checked here:
 *
 *   always           no crash; terms, and the commit index of a running node, never go back; one
 *                    vote a term; what is committed is never truncated; nothing leaves before the
 *                    term or vote that it claims is durable; each request is answered once
 *                    (a node stops only for what a false leader had committed)
 *   LIARS_OUTSIDE    liars are no voters, and none claims to lead: nodes agree on every applied
 *                    entry, reads are linearizable, no node stops, and when the lies end a command
 *                    is committed within ten seconds
 *   LIARS_ALONE      whatever is claimed: the node does not stop, and goes on committing */
#ifndef HOLDFAST_FUZZ_REPLICA_H
#define HOLDFAST_FUZZ_REPLICA_H

#include "raftstore/node/replica_impl.h"
#include "tests/fuzz/fuzz.h"

#define NODES_MAX   3u
#define FRAMES_MAX  256u
#define OPEN_MAX    256u
#define HISTORY_MAX 4096u
#define LIAR_FIRST  2u /* Names that liars use: 2 .. LIAR_LAST; OUTSIDE only the last two. */
#define LIAR_LAST   5u
#define LIAR_MEMBER 4u /* A standby of the first configuration, where OUTSIDE. */
#define MS          UINT64_C(1000000)

enum liars {
    LIARS_ALONE,   /* One node, the only voter. */
    LIARS_OTHERS,  /* One real node of three voters; the others exist only as liars. */
    LIARS_OUTSIDE, /* Three real voters; liars are a standby and a stranger. */
    LIARS_ANYBODY, /* Three real voters; liars speak in anybody's name. */
    LIARS_N,
};

/* A snapshot: the table is a copy of its own. */
struct image {
    struct replica_image ident; /* conf is in `conf`. */
    struct buf conf;
    struct lock_table *table;
    unsigned n_refs;
};

struct disk_entry {
    uint64_t index, term;
    uint32_t type;
    struct buf data;
};

enum disk_op_type { DISK_WRITE, DISK_SNAPSHOT, DISK_INSTALL };

struct disk_op {
    enum disk_op_type type;
    struct replica_write write;
    struct replica_entry *entries; /* Owned; their bytes are the replica's. */
    struct image *image;           /* A reference. */
};

struct disk {
    uint64_t term, voted_for;
    struct disk_entry *entries;
    size_t n, n_alloc;
    struct image *image; /* NULL = none. */
    struct disk_op *ops; /* In order, not yet durable. */
    size_t n_ops, n_ops_alloc;
};

struct world;

/* A request that was taken and not yet answered. */
struct open_request {
    uint64_t id;
    uint64_t acked_index; /* Reads: what was acknowledged when it was asked. */
    enum { OPEN_COMMAND, OPEN_READ, OPEN_ADMIN } kind;
};

struct node {
    struct world *world;
    uint64_t id;
    struct replica *r; /* NULL: not running. */
    bool stopped;      /* It said fatal(). */
    char reason[512];
    struct disk disk;
    struct image *incoming; /* Being installed. */
    uint64_t image_to;      /* An image is to be sent to this node; 0 = none. */
    uint64_t image_term;
    struct open_request open[OPEN_MAX];
    unsigned n_open;
    uint64_t term_seen, commit_seen, applied_seen;
};

struct frame {
    uint64_t from, to;
    struct buf packed;
};

struct applied {
    uint64_t term;
    uint64_t hash;
    struct lock_digest digest;
    bool set;
};

struct world {
    enum liars liars;
    struct node nodes[NODES_MAX];
    unsigned n_nodes;
    uint64_t now_ns;
    struct frame frames[FRAMES_MAX]; /* In flight between real nodes; oldest first. */
    unsigned n_frames;
    struct bytes conf; /* First configuration, encoded; owned. */
    uint64_t next_request, acked_index;
    struct applied history[HISTORY_MAX];
    struct arena arena;
};

/* replica_node.c */
struct bytes configuration_make(unsigned n_voters, bool standby); /* malloc()ed. */
struct image *image_make(const struct lock_table *t, const struct replica_image *ident);
struct image *image_ref(struct image *i);
void image_drop(struct image *i); /* NULL is accepted. */
void real_start(struct node *n);
void real_crash(struct node *n);
void real_free(struct node *n);
void real_check(struct node *n);
void real_flush(struct node *n);
void real_persist(struct node *n, size_t n_ops); /* Make that many operations durable. */
bool real_open(struct node *n, int kind);        /* Room for a request, noted. */
void real_refused(struct node *n);               /* The last one noted was not taken. */
void real_receive(struct node *n, uint64_t from, const Hf__PeerFrame *frame);
void real_receive_image(struct node *n, uint64_t from, uint64_t term, struct image *i);
struct node *world_node(struct world *w, uint64_t id); /* NULL: no real one. */
void world_deliver(struct world *w, unsigned i, bool keep);
void world_drop(struct world *w, unsigned i);

/* replica_lies.c */
void lie(struct world *w, struct feed *f);

#endif
