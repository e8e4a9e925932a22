/* A circuit breaker: is a node worth trying?
 *
 *     CLOSED --failures_max in a row, or breaker_trip()--> OPEN --its pause is over--> HALF_OPEN
 *        ^                                                  ^                              |  |
 *        `--- it answers ----------------------------------- `----- the attempt fails -----'  |
 *        `------------------------------------------------------------- it answers ----------'
 *
 * Closed: it may be tried, after a short pause that doubles with each failure in a row.  Open: not
 * before a pause is over that doubles each time it opens again.  Half-open: one attempt is under
 * way, and no other begins.  Half of each pause is random, so that many clients don't come at one
 * moment.  Whoever has nothing better may cut a pause short (`pause_max_ns` below): a breaker
 * spares attempts that others would have to wait for; it must not be why nothing is tried at all.
 * (The states are those of M. Nygard, "Release It!", 2007; the pauses those of gRPC's connection
 * backoff.)
 *
 * Pure: no clock, no randomness, no memory of its own.  Instants are nanoseconds of one clock that
 * does not run back. */
#ifndef HOLDFAST_CLIENT_BREAKER_H
#define HOLDFAST_CLIENT_BREAKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum breaker_state {
    BREAKER_CLOSED, /* As it begins (all zero). */
    BREAKER_OPEN,
    BREAKER_HALF_OPEN,
    BREAKER_STATES,
};
extern const char *const breaker_state_names[BREAKER_STATES]; /* "closed", ... */

struct breaker_rule {
    unsigned failures_max; /* In a row: so many open it. */
    uint64_t retry_ns;     /* Pause after the first failure of a closed one. */
    uint64_t open_ns;      /* Pause when it opens; doubles each time that it opens again, */
    uint64_t open_max_ns;  /* up to this. */
};

struct breaker {
    enum breaker_state state;
    unsigned failures; /* In a row, while closed. */
    unsigned n_again;  /* Opened so often since it was closed. */
    uint64_t since_ns; /* When the last failure was. */
    uint64_t until_ns; /* End of the pause after it. */
    uint64_t n_opened; /* Since it was made: from closed, or from half-open. */
};

/* May an attempt begin now?  Never while one is under way (half-open).
 *
 * @pause_max_ns: the longest pause that the caller puts up with; UINT64_MAX = any. */
bool breaker_allows(const struct breaker *b, uint64_t now_ns, uint64_t pause_max_ns);

/* When an attempt may begin; UINT64_MAX: one is under way. */
uint64_t breaker_due_ns(const struct breaker *b, uint64_t pause_max_ns);

/* An attempt begins: an open one is half-open from here on.  (The caller may overrule what
 * breaker_allows() says.) */
void breaker_begin(struct breaker *b);

/* The attempt was given up, without an outcome: as open as before. */
void breaker_abandon(struct breaker *b);

/* It answered. */
void breaker_succeed(struct breaker *b);

/* It could not be reached, broke the connection, or did not answer in time.
 *
 * @random: any number, for the pause.
 * Return: true when it has opened by that. */
bool breaker_fail(struct breaker *b,
                  const struct breaker_rule *rule,
                  uint64_t now_ns,
                  uint64_t random);

/* The same, so clear that it opens at once.  Nothing happens when it is open. */
bool breaker_trip(struct breaker *b,
                  const struct breaker_rule *rule,
                  uint64_t now_ns,
                  uint64_t random);

/* Which one to try when none is allowed?  A closed one before others, fewer failures before more,
 * the longest left alone before others; never one with an attempt under way.
 *
 * @list: `n` of them; NULL is skipped.
 * Return: index; `n` = none can be tried. */
size_t breaker_best(const struct breaker *const list[], size_t n);

#endif
