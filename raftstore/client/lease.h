/* A lease followed: its own deadline, renewal while wanted, and the news of its loss.
 *
 * The owner of a lease must stop relying on it at its own deadline, without being told.  This
 * object runs the timer, renews at a third of the ttl if asked to, and calls `on_lost` at the
 * deadline or as soon as the cluster says that the hold has ended, whichever comes first: exactly
 * once.  It uses the client: free it before that is gone. */
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

/* A renewal by somebody else succeeded: new ttl and deadline. */
void client_lease_renewed(struct client_lease *l, uint64_t ttl_ms, uint64_t deadline_boot_ns);

/* The cluster said that the hold ended (an Event ENDED with its token). */
void client_lease_ended(struct client_lease *l, uint32_t reason);

/* Own deadline; 0 once lost. */
uint64_t client_lease_deadline_boot_ns(const struct client_lease *l);

#endif
