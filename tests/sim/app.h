/* Applications: they use the product's own client library, over virtual cables and time.
 *
 * What an application believes is what the library told it, judged by its own clock.  They take
 * the same locks as the clients that client.c models. */
#ifndef HOLDFAST_SIM_APP_H
#define HOLDFAST_SIM_APP_H

#include "raftstore/lock/view.h"
#include "tests/sim/world.h"

struct app;

struct app *app_new(struct world *w, unsigned number, unsigned n_paths);
/* The run is over: end its client, by calls of the world; then free it. */
void app_stop(struct app *a);
void app_free(struct app *a);

/* Time to do something. */
void app_think(struct app *a);

/* What it believes of a path at this instant. */
struct app_belief {
    uint64_t token; /* 0 = it relies on nothing. */
    enum lock_mode mode;
    uint32_t limit;
};
struct app_belief app_believes(const struct app *a, unsigned path);

uint64_t app_asleep_ns(const struct app *a);

/* In the end: everything is answered, and the cluster holds nothing for it that it doesn't know. */
void app_check_end(struct app *a, const struct lock_table *t);

struct app_counts {
    uint64_t done, grants, reads, waited, canceled, timeouts, lost, sessions_lost, resumed, crashes;
    uint64_t done_after_heal;
};
struct app_counts app_counts(const struct app *a);

/* ---- The world's: to be checked ---- */

/* A belief begins or is prolonged. */
void world_believed(struct world *w, unsigned number, unsigned path);
/* The cluster has promised a hold until this cluster time. */
void world_promised(struct world *w, uint64_t token, uint64_t deadline_ns);
/* A renewal was sent that may shorten it: the promise is void. */
void world_unpromised(struct world *w, uint64_t token);

#endif
