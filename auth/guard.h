/* The guard at the door of a server: who is it, may they, and not too often.
 *
 * Puts the parts of auth/ together for a server on a libuv loop: keys kept fresh (jwks_source.h),
 * tokens checked and remembered (jwt.h, token_cache.h), policy (policy.h), rate limits (rate.h).
 * All functions run on the loop's thread; none but guard_open() blocks.
 *
 * For a request:
 *     guard_look()           with its head, before its body is read: a caller, a refusal, or not
 * yet guard_authenticate()   else, once it is complete: a caller, or wait, or a refusal
 *     guard_take_subject()   429 if it comes too often
 *     guard_take_owner()     likewise, once the owner_id is known (changes only)
 *     guard_allows()         for each verb and path that it needs; 403 if not
 *     guard_sees()           for each entry of a list or event of a prefix: leave out what is not
 * seen guard_caller_unref()
 *
 * Without keys (guard_config.jwks NULL: a server on loopback without tokens) everybody is the
 * caller with the subject "", who may do everything; the rate limits hold all the same. */
#ifndef HOLDFAST_AUTH_GUARD_H
#define HOLDFAST_AUTH_GUARD_H

#include "auth/jwks_source.h"
#include "auth/policy.h"
#include "auth/rate.h"
#include "raftstore/base/clock.h"

struct guard;

struct guard_config {
    const char *jwks;    /* File or URL; NULL: no tokens, no policy. */
    const char *jwks_ca; /* PEM certificates for the URL; NULL = the system's. */
    const char *issuer;
    const char *audience;
    const char *scope;         /* That each token must have; NULL = none. */
    const char *roles_claim;   /* As in jwt.h; NULL = roles come from the policy's bindings only. */
    bool strict_typ;           /* As in jwt.h. */
    uint32_t leeway_s;         /* */
    uint64_t jwks_refresh_ms;  /* 0 = as in jwks_source.h. */
    const char *policy;        /* File. */
    struct rate_limit subject; /* Per subject; number 0 = no limit. */
    struct rate_limit owner;   /* Per subject and owner_id; likewise. */
    struct rate_limit failed;  /* Refused tokens per client's address; likewise. */
    const struct clock *clock;
    /* The policy was read again: `why` is NULL, or says why the old one stays.  May be NULL. */
    void (*on_policy)(void *arg, const char *why);
    void *arg;
}; /* The texts must live as long as the guard. */

/* Somebody who was let in.  Counted references: one for the request, more for what outlives it. */
struct guard_caller;

const char *guard_caller_subject(const struct guard_caller *caller); /* "" without tokens. */

/* When the token ends, in seconds since 1970, leeway included; INT64_MAX without tokens.  For
 * streams: end them then. */
int64_t guard_caller_end_s(const struct guard_caller *caller);

struct guard_caller *guard_caller_ref(struct guard_caller *caller);
void guard_caller_unref(struct guard_caller *caller); /* NULL is fine. */

/* Why not, ready for an answer. */
struct guard_refusal {
    unsigned status;        /* 401, 403, 429 or 503. */
    const char *detail;     /* One sentence without a full stop; lives for ever. */
    char challenge[256];    /* WWW-Authenticate (401 and 403; else ""). */
    uint64_t retry_after_s; /* Retry-After (429 and 503; else 0). */
    char reason[200];       /* For audit lines only: the policy's own; "" = as detail. */
};

/* Start; may block while keys and policy are read for the first time.
 *
 * Return: 0, *ret_guard is the caller's; -EINVAL: *ret_sentence (owned by the caller) says why not.
 */
int guard_open(uv_loop_t *loop,
               const struct guard_config *config,
               struct guard **ret_guard,
               char **ret_sentence);

/* End it: requests that wait for keys are called, callers may be unreferenced later.  `closed` is
 * called once, from the loop. */
void guard_close(struct guard *guard, void (*closed)(void *arg), void *arg);

/* Read keys and policy again (SIGHUP), off the loop.  A bad policy is logged and changes nothing.
 */
void guard_reload(struct guard *guard);

/* Are there keys and a policy (readiness)? */
bool guard_is_ready(const struct guard *guard);

/* Who is it?
 *
 * An address from which too many tokens came that had to be refused gets 429 for those that were
 * not found good before, without a look at them: a signature costs more than all the rest.  (So
 * nobody who shares its address is shut out with a token that he uses already.)
 *
 * @authorization: the header's value; NULL = there is none.
 * @peer:   the client's address, in whatever form; empty = not known: no limit.
 * @waiter: NULL, or one that can wait for newer keys, where a token names an unknown one.
 *
 * Return: 0: *ret_caller is a reference of the caller's.  -EAGAIN: waiter->fn will be called once:
 * ask again, with waiter NULL.  Above 0: *ret_refusal tells. */
int guard_authenticate(struct guard *guard,
                       const char *authorization,
                       struct bytes peer,
                       struct jwks_waiter *waiter,
                       struct guard_caller **ret_caller,
                       struct guard_refusal *ret_refusal);

/* The same when only the request's head is there: so that nobody's body is kept who may not enter.
 *
 * Return: as above; -EAGAIN: newer keys might be needed: ask guard_authenticate() once the request
 * is complete. */
int guard_look(struct guard *guard,
               const char *authorization,
               struct bytes peer,
               struct guard_caller **ret_caller,
               struct guard_refusal *ret_refusal);

/* May they?  A denial is logged, with its reason.
 *
 * Return: true; false: *ret_refusal tells. */
bool guard_allows(struct guard *guard,
                  const struct guard_caller *caller,
                  enum policy_verb verb,
                  struct bytes path,
                  struct guard_refusal *ret_refusal);

/* May they read it?  Logs nothing. */
bool guard_sees(const struct guard *guard, const struct guard_caller *caller, struct bytes path);

/* Take from the subject's bucket; from the bucket of this subject's owner_id.
 *
 * @state: for the RateLimit-* headers: set, or tightened if it was set before (start with {0};
 * limit 0 afterwards: no limit applies, send no headers). Return: true; false: *ret_refusal tells
 * (429). */
bool guard_take_subject(struct guard *guard,
                        const struct guard_caller *caller,
                        struct rate_state *state,
                        struct guard_refusal *ret_refusal);
bool guard_take_owner(struct guard *guard,
                      const struct guard_caller *caller,
                      struct bytes owner_id,
                      struct rate_state *state,
                      struct guard_refusal *ret_refusal);

/* What happened so far; for metrics. */
struct guard_counts {
    uint64_t unauthenticated; /* 401. */
    uint64_t denied;          /* 403 by policy or scope. */
    uint64_t rate_limited;    /* 429. */
    uint64_t no_keys;         /* 503. */
    uint64_t throttled;       /* 429 for the address of too many refused tokens. */
};
struct guard_counts guard_counts(const struct guard *guard);

#endif
