/* The policy of a node: what it gives to each certificate, worked out once and shared by the
 * connections of that certificate.  Pure; on the loop's thread. */
#ifndef HOLDFAST_NODE_ACCESS_POLICY_H
#define HOLDFAST_NODE_ACCESS_POLICY_H

#include "auth/policy_rights.h"
#include "raftstore/lock/lock.h"
#include "raftstore/tls/identity.h"

#include <bsd/sys/tree.h>

struct access_policy;

/* What one certificate may do by one policy. */
struct access_rights {
    RB_ENTRY(access_rights) link;
    struct access_policy *policy; /* Counts as a reference. */
    struct policy_rights *rules;  /* Owned. */
    struct identity identity;
    char host[LOCK_HOST_BYTES_MAX + 1]; /* access_host() of it. */
    unsigned n_refs;
};

/* Take over a policy. Return: with one reference, the caller's. */
struct access_policy *access_policy_new(struct policy *policy);
struct access_policy *access_policy_ref(struct access_policy *policy); /* NULL is fine. */
void access_policy_unref(struct access_policy *policy);                /* NULL is fine. */

/* The rights of a certificate, shared.  access_rights_put() gives them back; the policy lives as
 * long as rights of it do. */
struct access_rights *access_rights_get(struct access_policy *policy,
                                        const struct identity *identity);
void access_rights_put(struct access_rights *rights); /* NULL is fine. */

/* The host text of a certificate's sessions, by which they are known to be its own: a mount's host,
 * which has no slash in it; of the others "KIND/NAME".
 *
 * @out: room for LOCK_HOST_BYTES_MAX + 1; "" if it would be longer (then it can't have any). */
void access_host(const struct identity *identity, char *out);

#endif
