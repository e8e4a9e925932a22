#include "raftstore/base/random.h"

#include <stdlib.h>
#include <sys/random.h>

uint64_t random_next(struct random *r)
{
    uint64_t z = (r->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t random_below(struct random *r, uint64_t bound)
{
    return random_next(r) % bound;
}

uint64_t random_system(void)
{
    uint64_t value;
    if (getrandom(&value, sizeof value, 0) != (ssize_t)sizeof value)
        abort(); /* Eight bytes never come short once the pool is up (getrandom(2)). */
    return value;
}
