/* A lease followed: its own deadline, renewal while wanted, and the news of its loss.
 *
 * The owner of a lease must stop relying on it at its own deadline, without being told.  This
 * object runs the timer, renews at a third of the ttl if asked to, and calls `on_lost` at the
 * deadline or as soon as the cluster says that the hold has ended, whichever comes first: exactly
 * once.  What a renewal may do after that is taken back: nobody relies on the hold any more.  It
 * uses the client: free it before that is gone. */
#ifndef HOLDFAST_CLIENT_LEASE_H
#define HOLDFAST_CLIENT_LEASE_H

#include "raftstore/client/client.h"

struct client_lease;

/* Follow a lease that was granted.
 *
 * @path: copied. @token, @ttl_ms, @deadline_boot_ns: from the grant's result.
 * @keep: renew by itself.
 * @on_lost: reason is LOCK_EXPIRED (own deadline), or what the cluster said (LOCK_BROKEN,
 * LOCK_NOT_HELD, ...). */
struct client_lease *
client_lease_new(struct client *c,
                 struct bytes path,
                 uint64_t token,
                 uint64_t ttl_ms,
                 uint64_t deadline_boot_ns,
                 bool keep,
                 void (*on_lost)(void *arg, struct client_lease *l, uint32_t reason),
                 void *arg);

/* Stop following; does not release. NULL is accepted. */
void client_lease_free(struct client_lease *l);

/* Begin or end renewing by itself. */
void client_lease_keep(struct client_lease *l, bool keep);

/* A renewal by somebody else succeeded: new ttl and deadline.
 *
 * @stamp_ns: cluster time at which it did; what is older than the newest news is ignored, since
 *            answers to several renewals may come in any order.  0: it is the present state.
 * Ignored when the lease is lost, or the deadline is 0 (unknown). */
void client_lease_renewed(struct client_lease *l,
                          uint64_t stamp_ns,
                          uint64_t ttl_ms,
                          uint64_t deadline_boot_ns);

/* A renewal with this ttl is going to be sent.  Until its answer comes the lease may end as early
 * as that would let it, whatever the answers to other renewals say meanwhile: they may have been
 * done before it.  client_lease_shortened() follows, unless the lease is freed. */
void client_lease_shorten(struct client_lease *l, uint64_t ttl_ms);

enum client_lease_outcome {
    CLIENT_LEASE_RENEWED,     /* client_lease_renewed() was called with its answer. */
    CLIENT_LEASE_NOT_RENEWED, /* It was refused, or surely never sent. */
    CLIENT_LEASE_UNKNOWN,     /* It may have been done, or may be done yet. */
};

/* The renewal that was announced is over.  After an unknown outcome the lease ends by it, until a
 * renewal succeeds that was surely done later. */
void client_lease_shortened(struct client_lease *l, enum client_lease_outcome outcome);

/* The hold was renamed: from now on it is renewed there. */
void client_lease_moved(struct client_lease *l, struct bytes path);

/* Cluster time of the newest news of it; 0 = none since it was granted. */
uint64_t client_lease_stamp_ns(const struct client_lease *l);

/* The cluster said that the hold ended (an Event ENDED with its token). */
void client_lease_ended(struct client_lease *l, uint32_t reason);

/* From when on it is in jeopardy: half its ttl before its own deadline. */
uint64_t client_lease_jeopardy_boot_ns(const struct client_lease *l);

/* Own deadline; 0 once lost. */
uint64_t client_lease_deadline_boot_ns(const struct client_lease *l);

#endif
