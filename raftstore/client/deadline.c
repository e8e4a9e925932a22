#include "raftstore/client/deadline.h"

#include "raftstore/base/clock.h"

#define DRIFT_DIVISOR  128u
#define DRIFT_FIXED_NS (5 * NS_PER_MS)

static __int128 promise(uint64_t sent_boot_ns, uint64_t stamp_ns)
{
    return (__int128)sent_boot_ns * DRIFT_DIVISOR - (__int128)stamp_ns * (DRIFT_DIVISOR - 1);
}

void deadline_learn(struct deadline_pair *best, uint64_t sent_boot_ns, uint64_t stamp_ns)
{
    if (stamp_ns == 0 || sent_boot_ns == 0)
        return;
    if (best->stamp_ns == 0 ||
        promise(sent_boot_ns, stamp_ns) > promise(best->sent_boot_ns, best->stamp_ns))
        *best = (struct deadline_pair){sent_boot_ns, stamp_ns};
}

uint64_t deadline_boot_ns(const struct deadline_pair *pair, uint64_t deadline_ns)
{
    if (pair->stamp_ns == 0 || deadline_ns == 0)
        return 0;
    if (deadline_ns <= pair->stamp_ns)
        return 1;
    uint64_t span = deadline_ns - pair->stamp_ns;
    uint64_t drift = span / DRIFT_DIVISOR + 1 + DRIFT_FIXED_NS; /* + 1: rounded up. */
    uint64_t sum;
    if (__builtin_add_overflow(pair->sent_boot_ns, span, &sum))
        sum = UINT64_MAX;
    return sum > drift ? sum - drift : 1;
}
