/* The client listener on real sockets, with a scripted node behind it. */
#ifndef TESTS_UNIT_LISTENER_HARNESS_H
#define TESTS_UNIT_LISTENER_HARNESS_H

#include "tests/unit/net_harness.h"

#include "raftstore/node/listener.h"
#include "raftstore/wire/frame.h"

struct listener_test {
    struct net net;
    struct events *events;
    struct listener *listener;
    enum replica_status submit_status;
    uint64_t submitted[64]; /* Request numbers. */
    unsigned n_submitted;
    enum replica_urgency urgency; /* Of the last one. */
    uint64_t read_id;
    char asked[64]; /* The bytes of the last query that was answered. */
    bool closed;
};

/* Listen on a free port of loopback; `config` says only what differs from the defaults. */
void lt_begin_with(struct listener_test *t, struct listener_config config);
void lt_begin(struct listener_test *t);

/* Close it, and see that it does close. */
void lt_end(struct listener_test *t);

/* Connect and say hello. */
void lt_greet(struct listener_test *t, struct raw *r);

void lt_send_hello(struct raw *r, uint32_t version, uint32_t version_min);
void lt_send_ping(struct raw *r, uint64_t id);
void lt_send_command(struct raw *r, uint64_t id, uint32_t op);
void lt_send_query(struct raw *r, uint64_t id);

/* The next frame, good until the one after it; NULL: none came. */
const Hf__NodeFrame *lt_receive(struct listener_test *t, struct raw *r);
void lt_expect_failure(struct listener_test *t, struct raw *r, uint64_t id, Hf__Failure__Code code);

#endif
