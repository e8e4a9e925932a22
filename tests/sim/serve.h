/* A simulated node's door to applications: the product's own listener, queries and notifications,
 * over virtual streams. */
#ifndef HOLDFAST_SIM_SERVE_H
#define HOLDFAST_SIM_SERVE_H

#include "raftstore/node/replica.h"
#include "tests/sim/cable.h"

struct serve;

/* A node began to run.
 *
 * @image_index: what happened up to there it does not know. */
struct serve *serve_new(struct world *w,
                        unsigned node,
                        struct replica *replica,
                        int64_t drift_ppm,
                        uint64_t offset_ns,
                        uint64_t image_index);
/* It crashed. NULL is accepted. */
void serve_free(struct serve *s);

/* Something came: the node's turn is to end some time. */
void serve_turn(struct serve *s);
/* The end of a turn: write. */
void serve_flush(struct serve *s);
void serve_accept(struct serve *s, struct cable *c);

/* The replica's outputs. Ids of requests from here are 2^32 and above. */
#define SERVE_REQUEST_MIN (UINT64_C(1) << 32)
void serve_command_done(struct serve *s,
                        uint64_t request_id,
                        enum replica_status status,
                        const struct lock_result *result,
                        uint64_t index);
void serve_read_done(struct serve *s, uint64_t request_id, enum replica_status status);
void serve_effects(struct serve *s,
                   uint64_t index,
                   uint64_t stamp_ns,
                   const struct lock_effects *effects);
void serve_installed(struct serve *s, uint64_t index);
/* Fault: it forgets its events, as when there were too many of them. */
void serve_forget_events(struct serve *s);

/* The world's: ask for the end of the node's turn. */
void world_node_turn(struct world *w, unsigned node);

#endif
