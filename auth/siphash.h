/* SipHash-2-4 (Aumasson, Bernstein 2012): a hash that nobody who lacks the key can find collisions
 * of. */
#ifndef HOLDFAST_AUTH_SIPHASH_H
#define HOLDFAST_AUTH_SIPHASH_H

#include "raftstore/base/bytes.h"

#include <stdint.h>

uint64_t siphash(const uint64_t key[2], struct bytes data);

#endif
