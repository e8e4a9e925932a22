/* For tests of the node's network parts: a loop with a hub, and raw clients beside it. */
#ifndef HOLDFAST_TESTS_NET_HARNESS_H
#define HOLDFAST_TESTS_NET_HARNESS_H

#include "raftstore/node/stream.h"
#include "raftstore/wire/pack.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct net {
    uv_loop_t loop;
    struct stream_hub hub;
    uv_check_t check; /* Flushes the hub after each poll, as the node does. */
    struct arena arena;
};

void net_begin(struct net *n);
/* Everything on the loop must be closing already. */
void net_end(struct net *n);

/* Run the loop until `until` says true. Return: false after `ms`. */
bool net_run(struct net *n, bool (*until)(void *arg), void *arg, unsigned ms);
/* Run it for a while. */
void net_run_for(struct net *n, unsigned ms);

/* A client that says what the test wants, right or wrong. */
struct raw {
    int fd;
    struct buf in;
};

void raw_connect(struct raw *r, uint16_t port);
void raw_connect_unix(struct raw *r, const char *path);
void raw_close(struct raw *r);
void raw_send(struct raw *r, const void *data, size_t size);
void raw_send_message(struct raw *r, const ProtobufCMessage *m); /* As one frame. */

/* The next frame's body as a message, in n->arena; NULL when the other side closed instead.
 * Fails the test after thirty seconds. */
ProtobufCMessage *
raw_receive(struct net *n, struct raw *r, const ProtobufCMessageDescriptor *descriptor);

/* Does the other side close the connection (whatever it says before) within thirty seconds? */
bool raw_is_closed(struct net *n, struct raw *r);

#endif
