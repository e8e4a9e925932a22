/* What every part of the simulation may ask of the world, without seeing into it: virtual time,
 * chances from the seed, a trace, and calls at later instants.
 *
 * Apart from sim.h because the product's own headers, which the parts around its client library
 * and its listener need, have names of their own for nodes, clients and requests. */
#ifndef HOLDFAST_SIM_WORLD_H
#define HOLDFAST_SIM_WORLD_H

#include "raftstore/base/buf.h"
#include "raftstore/base/clock.h"

#include <stdbool.h>
#include <stdint.h>

struct world;

#define QUIET_NS                                                                                   \
    (7 * NS_PER_S) /* So long after healing nothing new is begun, and all is given back. */

/* A function to be called at a later instant. */
struct call {
    void (*fn)(struct call *c); /* Its memory goes after the return. */
    void *arg;
    uint64_t a;
    uint64_t order; /* Unique in a run: tells calls apart. */
};

uint64_t world_now_ns(const struct world *w);
bool world_is_healed(const struct world *w);
uint64_t world_healed_ns(const struct world *w);
unsigned world_n_nodes(const struct world *w);
struct call *world_call(struct world *w, uint64_t delay_ns, void (*fn)(struct call *c), void *arg);

void world_trace(const struct world *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void world_fail(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t world_below(struct world *w, uint64_t bound);
bool world_chance(struct world *w, unsigned permille);
uint64_t world_between(struct world *w, uint64_t low, uint64_t high);

/* The newest log index whose effect was acknowledged to anybody. */
void world_acknowledged(struct world *w, uint64_t index);
uint64_t world_acked_index(const struct world *w);

/* A machine's clock: drifts, and begins anywhere. */
struct sim_clock {
    struct clock clock; /* For the product; all three of its clocks are this one. */
    const struct world *world;
    int64_t drift_ppm;
    uint64_t offset_ns;
};
void sim_clock_init(struct sim_clock *c, const struct world *w, int64_t ppm, uint64_t offset_ns);
/* So much of the world's time until the clock has gone on by `local_ns`, and not less. */
uint64_t sim_clock_delay_ns(const struct sim_clock *c, uint64_t local_ns);

uint64_t clock_local_ns(uint64_t now_ns, int64_t ppm, uint64_t offset_ns);
uint64_t clock_world_ns(uint64_t local_ns, int64_t ppm, uint64_t offset_ns);

#endif
