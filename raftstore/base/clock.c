#include "raftstore/base/clock.h"

#include <time.h>

static uint64_t read_ns(clockid_t id)
{
    struct timespec t;
    (void)clock_gettime(id, &t); /* Can't fail for the clocks that Linux always has. */
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static uint64_t system_mono_ns(const struct clock *c)
{
    (void)c;
    return read_ns(CLOCK_MONOTONIC);
}

static uint64_t system_boot_ns(const struct clock *c)
{
    (void)c;
    return read_ns(CLOCK_BOOTTIME);
}

static uint64_t system_wall_ns(const struct clock *c)
{
    (void)c;
    return read_ns(CLOCK_REALTIME);
}

const struct clock *clock_system(void)
{
    static const struct clock the_clock = {system_mono_ns, system_boot_ns, system_wall_ns};
    return &the_clock;
}
