/* Rate limits: a token bucket per key, in bounded memory.
 *
 * A bucket holds `burst` tokens when full and gets one each period/number.  A request takes one;
 * with none left it is refused and takes nothing.  (Kept as one number, the instant at which the
 * bucket will be full again: GCRA, ITU-T I.371.)
 *
 * The table keeps at most keys_max buckets; a new one displaces the one used longest ago, which
 * then starts full again.  So choose keys_max well above the number of keys that one may use within
 * the time that a bucket takes to fill, and bound those who can make up keys by another table: keys
 * "subject, NUL, owner_id" in one, "subject" in the other (never the owner_id alone: anybody could
 * use up somebody else's).  Keys are kept as keyed hashes (SipHash-2-4, a random key per table).
 *
 * One thread.  Never blocks; allocates nothing after rate_table_new(). */
#ifndef HOLDFAST_AUTH_RATE_H
#define HOLDFAST_AUTH_RATE_H

#include "raftstore/base/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RATE_PER_S_MAX UINT64_C(1000000)
#define RATE_BURST_MAX UINT64_C(1000000)

struct rate_limit {
    uint64_t number;    /* So many ... */
    uint64_t period_ns; /* ... in this time; at most RATE_PER_S_MAX a second. */
    uint64_t burst;     /* At once, after a pause: 1 to RATE_BURST_MAX. */
};

struct rate_state {
    uint64_t limit;         /* RateLimit-Limit: the burst. */
    uint64_t remaining;     /* RateLimit-Remaining: requests that would pass now. */
    uint64_t reset_s;       /* RateLimit-Reset: seconds until all of `limit` would, rounded up. */
    uint64_t retry_after_s; /* Retry-After of a refusal, rounded up, 1 or more; 0 when granted. */
};

struct rate_table;

/* Parse "NUMBER[/s|/m|/h][:BURST]": "50", "50/s", "600/m:100".  Without BURST it is what comes in a
 * second, at least 1.
 *
 * Return: 0; -EINVAL for anything else, 0, and what is beyond the bounds. */
int rate_limit_parse(const char *text, struct rate_limit *ret_limit);

/* @keys_max: 1 or more; 32 bytes each, touched as they are used. */
struct rate_table *rate_table_new(const struct rate_limit *limit, size_t keys_max);
void rate_table_free(struct rate_table *table); /* NULL is fine. */

/* Take a token from the key's bucket.
 *
 * @now_ns:    of a clock that never runs back (clock_mono_ns()).
 * @ret_state: always filled; or NULL.
 *
 * Return: true: go on; false: too many. */
bool rate_take(struct rate_table *table, struct bytes key, uint64_t now_ns, struct rate_state *ret);

/* Would rate_take() be granted?  Takes nothing, and a key that is not known stays so.
 *
 * @ret: filled when it is refused; or NULL. */
bool rate_would_take(const struct rate_table *table,
                     struct bytes key,
                     uint64_t now_ns,
                     struct rate_state *ret);

/* The state that binds more, of two buckets that one request took from: the one to tell. */
const struct rate_state *rate_tighter(const struct rate_state *a, const struct rate_state *b);

size_t rate_table_n_keys(const struct rate_table *table);

#endif
