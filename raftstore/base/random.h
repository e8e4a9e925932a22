/* Randomness for jitter and identities (never for anything replicated). */
#ifndef HOLDFAST_BASE_RANDOM_H
#define HOLDFAST_BASE_RANDOM_H

#include <stdint.h>

/* A generator with its state in the open, so that runs repeat from a seed.
 * Algorithm: splitmix64 (Steele, Lea, Flood 2014). */
struct random {
    uint64_t state; /* Any value is a valid seed. */
};

/* The next 64 random bits. */
uint64_t random_next(struct random *r);

/* A number in [0, bound); bound must not be 0. */
uint64_t random_below(struct random *r, uint64_t bound);

/* 64 bits from the operating system; for seeds and identities. */
uint64_t random_system(void);

#endif
