/* TCP connections between applications and nodes, in virtual time.
 *
 * Bytes arrive in order, whole or in pieces; while the way is cut nothing arrives, and when it is
 * cut for too long both ends lose the connection, each for itself.  A node that crashes takes its
 * ends with it: the other side is told, once the way is open. */
#ifndef HOLDFAST_SIM_CABLE_H
#define HOLDFAST_SIM_CABLE_H

#include "tests/sim/world.h"

struct cable;
enum cable_end { CABLE_APP, CABLE_NODE };

struct cable_ops {
    void (*connected)(void *arg);                 /* The application's end only. */
    void (*bytes)(void *arg, struct bytes bytes); /* May close. */
    void (*lost)(void *arg, int error);           /* The end is closed by it. */
};

/* Connect to a node.  What comes of it is told later: connected() or lost(). */
struct cable *
cable_connect(struct world *w, unsigned app, unsigned node, const struct cable_ops *ops, void *arg);
/* Take the node's end of a connection that was accepted. */
void cable_take(struct cable *c, const struct cable_ops *ops, void *arg);
void cable_send(struct cable *c, enum cable_end from, struct bytes bytes);
/* No call comes to this end any more. */
void cable_close(struct cable *c, enum cable_end end);

/* ---- The world's ---- */

/* Is the way from this end cut? */
bool world_is_cut(const struct world *w, unsigned app, unsigned node, enum cable_end from);
/* Until when is it stopped?  0: it runs. */
uint64_t world_app_asleep_ns(const struct world *w, unsigned app);
uint64_t world_node_asleep_ns(const struct world *w, unsigned node);
/* Give a new connection to the node. Return: false: it is down. */
bool world_accept(struct world *w, unsigned node, struct cable *c);

#endif
