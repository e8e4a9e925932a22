/* Where product code runs in the simulation that is tied to a loop: an application, or a mount.
 * uv_loop_t.data of its client points to it.
 *
 * libuv's timers and the system's clock, which a mount uses, are put in virtual time here: site.c
 * has functions of those names.  They are the current site's. */
#ifndef HOLDFAST_SIM_SITE_H
#define HOLDFAST_SIM_SITE_H

#include "tests/sim/world.h"

#include <bsd/sys/queue.h>
#include <uv.h>

struct site_timer;

struct site {
    struct world *world;
    unsigned number;
    struct sim_clock clock;
    uv_loop_t loop; /* Never run; its data is this. */
    LIST_HEAD(, site_timer) timers;
};

void site_init(struct site *s, struct world *w, unsigned number);

/* From now on product code runs here.  To be called before any of it is. */
void site_enter(struct site *s);
struct site *site_current(void);

#endif
