/* The clock interface: the only door to time.
 *
 * Everything that measures time takes a `const struct clock *`, so that the simulation and the
 * tests can put a virtual one in its place.  An instant's name says whose clock it is:
 * `mono_ns` (CLOCK_MONOTONIC: stands still in suspend), `boot_ns` (CLOCK_BOOTTIME: runs through
 * suspend; leases are judged by it), `wall_ns` (CLOCK_REALTIME: for people only). */
#ifndef HOLDFAST_BASE_CLOCK_H
#define HOLDFAST_BASE_CLOCK_H

#include <stdint.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S  UINT64_C(1000000000)

struct clock {
    uint64_t (*mono_ns)(const struct clock *c); /* Never runs back. */
    uint64_t (*boot_ns)(const struct clock *c); /* Never runs back. */
    uint64_t (*wall_ns)(const struct clock *c); /* May be set by people. */
};

/* The machine's own clocks; never NULL, lives for ever. */
const struct clock *clock_system(void);

static inline uint64_t clock_mono_ns(const struct clock *c)
{
    return c->mono_ns(c);
}

static inline uint64_t clock_boot_ns(const struct clock *c)
{
    return c->boot_ns(c);
}

static inline uint64_t clock_wall_ns(const struct clock *c)
{
    return c->wall_ns(c);
}

#endif
