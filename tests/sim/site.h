/* Where an application runs in the simulation: what uv_loop_t.data of its client points to. */
#ifndef HOLDFAST_SIM_SITE_H
#define HOLDFAST_SIM_SITE_H

#include "tests/sim/world.h"

struct site {
    struct world *world;
    unsigned number;
    struct sim_clock clock;
};

#endif
