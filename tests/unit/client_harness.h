/* What the tests of the client library share: a loop, up to three fake nodes, a client, and
 * waiting for conditions instead of sleeping. */
#ifndef HOLDFAST_TESTS_CLIENT_HARNESS_H
#define HOLDFAST_TESTS_CLIENT_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_node.h"
#include "raftstore/client/client.h"

#define HARNESS_NODES 3

/* Where one command's or request's outcome goes. */
struct outcome {
    int n; /* Callbacks: must end as 1. */
    int status;
    uint32_t code;
    uint64_t token;
    uint64_t deadline_boot_ns;
    uint64_t sent_boot_ns;
    uint64_t at_boot_ns;
    uint64_t index;  /* Of a query reply. */
    unsigned chunks; /* Of a snapshot. */
    char text[100];
};

struct harness {
    uv_loop_t loop;
    struct fake_cluster cluster;
    struct fake_node nodes[HARNESS_NODES];
    unsigned n_nodes;
    struct client *client;
    bool client_gone;
    unsigned n_session_events[8]; /* By enum client_session_event. */
    uint64_t session_event_boot_ns[8];
    unsigned n_events, n_gaps;
    uint64_t event_indices[64];
};

/* A loop and `n_nodes` nodes, of which the first leads. */
void harness_init(struct harness *h, unsigned n_nodes);

/* A client that knows the nodes whose bit is set in `seeds`. */
void harness_client(struct harness *h, unsigned seeds, uint64_t session_ttl_ms);
void harness_client_with(struct harness *h, unsigned seeds, struct client_config config);

/* Let node `leader` (0-based) lead, as all nodes will say. */
void harness_lead(struct harness *h, unsigned leader);

/* Abandon the client unless it is closed; stop the nodes; nothing may be left in the loop. */
void harness_deinit(struct harness *h);

/* Run the loop for so long. */
void harness_run_ms(struct harness *h, uint64_t ms);

/* Run the loop until the condition holds; fails after 10 s. */
#define RUN_UNTIL(h, condition)                                                                    \
    do {                                                                                           \
        uint64_t end_ns = clock_mono_ns(clock_system()) + 10 * NS_PER_S;                           \
        while (!(condition)) {                                                                     \
            if (clock_mono_ns(clock_system()) > end_ns)                                            \
                fail_msg("not within 10 s: %s", #condition);                                       \
            harness_run_ms(h, 1);                                                                  \
        }                                                                                          \
    } while (0)

/* Send an acquire (of "a/b", by "me"). */
uint64_t harness_acquire(
    struct harness *h, uint64_t ttl_ms, uint64_t wait_ms, uint64_t timeout_ms, struct outcome *o);

/* Release "a/b" by this token, without a time-out. */
uint64_t harness_release(struct harness *h, uint64_t token, struct outcome *o);

/* For other requests. */
void harness_on_result(void *arg, const struct client_result *r);
void harness_on_reply(void *arg, const struct client_reply *r);
void harness_on_closed(void *arg);

#endif
