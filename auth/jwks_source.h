/* The current set of keys, kept fresh on a libuv loop from a file or a URL.
 *
 * All functions run on the loop's thread and none blocks (but jwks_source_open()): fetching runs on
 * libuv's thread pool.  Lines about fetched, changed and failed sets go to the log.
 *
 *   - Each refresh_ms the document is fetched; a good one replaces the set, so that keys which the
 *     server took out stop working.  A bad one, or none, changes nothing: the last good set stays,
 *     and the next try is after refetch_min_ms.
 *   - A token by an unknown key may mean that the server has a new one: jwks_source_refetch()
 *     fetches at once, but at most once in refetch_min_ms, so that made-up key ids can't make us
 * flood the server.
 *   - Fail-closed: a set that could not be confirmed for stale_max_ms is no longer given out. */
#ifndef HOLDFAST_AUTH_JWKS_SOURCE_H
#define HOLDFAST_AUTH_JWKS_SOURCE_H

#include "auth/jwks.h"
#include "raftstore/base/clock.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <uv.h>

struct jwks_source;

struct jwks_source_config {
    const char *location;    /* File or URL; kept. */
    const char *ca_file;     /* For a URL: PEM certificates to trust; NULL = the system's.  Kept. */
    uint64_t refresh_ms;     /* 0 = 5 min for a URL, 10 s for a file. */
    uint64_t refetch_min_ms; /* 0 = 10 s for a URL, 1 s for a file. */
    uint64_t stale_max_ms;   /* 0 = 24 h. */
    uint64_t timeout_ms;     /* Of one fetch; 0 = 10 s. */
    const struct clock *clock;
};

/* Somebody who waits for a fetch to end.  Owned by the caller, who fills `fn`. */
struct jwks_waiter {
    void (*fn)(
        struct jwks_waiter *waiter); /* Called once, from the loop: look at the keys again. */
    LIST_ENTRY(jwks_waiter) entry;   /* The source's. */
    bool waits;                      /* The source's: true between refetch and fn. */
};

/* Make a source and fetch once, before it returns: this one call may block, up to timeout_ms.
 *
 * Return: 0, *ret_source is the caller's; from a URL also if that first fetch failed (the server
 * may come later: until then there are no keys).  -EINVAL: the location is no good, or the file
 * can't be read or has no proper set; *ret_sentence (owned by the caller) says so. */
int jwks_source_open(uv_loop_t *loop,
                     const struct jwks_source_config *config,
                     struct jwks_source **ret_source,
                     char **ret_sentence);

/* End it: waiters are called, a running fetch is cut off.  `closed` is called once, from the loop,
 * when the memory is free. */
void jwks_source_close(struct jwks_source *source, void (*closed)(void *arg), void *arg);

/* The keys now.  Don't keep the pointer across a return to the loop.
 *
 * Return: NULL: none could be had, or the last are too old: answer 503. */
const struct jwks *jwks_source_keys(const struct jwks_source *source);

/* A number that changes with each change of what jwks_source_keys() returns. */
uint64_t jwks_source_generation(const struct jwks_source *source);

/* A token names a key that is not there (JWT_NO_KEY): fetch, if it is time, and wait for it.
 *
 * Return: true: waiter->fn will be called, once; check the token again there, and take its answer
 * for final.  False: the keys are fresh enough, the token is refused. */
bool jwks_source_refetch(struct jwks_source *source, struct jwks_waiter *waiter);

/* Would jwks_source_refetch() fetch, or wait for a fetch that is under way? */
bool jwks_source_may_refetch(const struct jwks_source *source);

/* Stop waiting: fn is not called any more.  Fine if it does not wait. */
void jwks_waiter_cancel(struct jwks_waiter *waiter);

/* Fetch now, whatever the intervals say (SIGHUP). */
void jwks_source_reload(struct jwks_source *source);

#endif
