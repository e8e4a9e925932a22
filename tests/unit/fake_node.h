/* A scripted node for tests of the client library, in the test's own loop.
 *
 * Left alone it behaves as a leader of a one-node cluster with just enough of the lock table to
 * answer: sessions, and each (session, seq) executed once.  Several nodes can share one cluster.
 * A script sees each frame first and may answer it otherwise, later, or not at all. */
#ifndef HOLDFAST_TESTS_FAKE_NODE_H
#define HOLDFAST_TESTS_FAKE_NODE_H

#include "raftstore/base/buf.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/frame.h"
#include "raftstore/wire/pack.h"

#include <uv.h>

#define FAKE_EXECUTED_MAX 8192

struct fake_executed {
    uint64_t session_id, seq;
    uint32_t op;
    uint64_t token; /* Of the command: what a release names. */
    uint64_t cancel_seq;
    uint64_t ack_seq;
    uint64_t result_token;
    uint64_t ttl_ms;
    uint64_t result_deadline_ns;
};

struct fake_cluster {
    uint64_t session_last;
    uint64_t session_ended; /* Sessions up to this one are over. */
    uint64_t token_last;
    struct fake_executed executed[FAKE_EXECUTED_MAX];
    unsigned n_executed; /* Commands, each counted once. */
    unsigned n_received; /* With repetitions. */
    unsigned n_opens, n_keepalives, n_closes;
    uint64_t start_ns; /* Cluster time is CLOCK_BOOTTIME since then, + 1 s. */
};

struct fake_node;

struct fake_conn {
    struct fake_node *node;
    uv_tcp_t tcp;
    struct buf in;
    struct fake_conn *next;
    unsigned serial; /* First connection of the node: 1. */
    bool closed;
};

struct fake_node {
    uv_loop_t *loop;
    struct fake_cluster *cluster;
    uv_tcp_t listener;
    uint64_t id;
    uint64_t leader_id;
    char leader_address[64]; /* Named in hello and NOT_LEADER; "" = unknown. */
    char address[64];        /* "127.0.0.1:PORT" */
    unsigned version;        /* Of its hello. */
    bool mute;               /* Reads, never answers: as a stopped process. */
    bool down;               /* Accepts and closes at once. */
    unsigned n_connections, n_subscribes, n_pings, n_queries;
    uint64_t subscribed_from; /* Of the last Subscribe. */
    uint64_t subscribed_session;
    char subscribed_prefixes[64]; /* Joined by commas. */
    uint64_t applied_index;       /* In SubscribeReply. */
    bool gap;
    struct fake_conn *conns;
    struct fake_conn *subscriber; /* Connection of the last Subscribe. */
    /* Return: true when the frame is taken care of. */
    bool (*script)(struct fake_conn *k, const Hf__ClientFrame *frame, const Hf__Command *command);
    void *arg;
    struct arena arena;
};

void fake_cluster_init(struct fake_cluster *cluster);
uint64_t fake_stamp_ns(const struct fake_cluster *cluster);
const struct fake_executed *
fake_find(const struct fake_cluster *cluster, uint32_t op, unsigned nth);

/* Listen on a free port of 127.0.0.1. */
void fake_node_start(struct fake_node *n,
                     uv_loop_t *loop,
                     struct fake_cluster *cluster,
                     uint64_t id);

/* Close listener and connections; the loop has to run for it to be done. */
void fake_node_stop(struct fake_node *n);

/* Break all its connections. */
void fake_node_reset(struct fake_node *n);

void fake_send(struct fake_conn *k, Hf__NodeFrame *frame);
void fake_send_bytes(struct fake_conn *k, const void *data, size_t size);
void fake_result(struct fake_conn *k, uint64_t id, const Hf__Result *r);
void fake_code(struct fake_conn *k, uint64_t id, uint32_t code);
void fake_failure(struct fake_conn *k, uint64_t id, Hf__Failure__Code code);
void fake_event(struct fake_conn *k, Hf__Event *e);

/* The default answer to a command. */
void fake_execute(struct fake_conn *k, uint64_t id, const Hf__Command *command);

#endif
