/* What one subject may do, worked out of a policy once, so that each decision is cheap.
 *
 * policy_allows() looks through bindings, roles and rules each time, and can explain itself; here
 * all of that is done beforehand: for each verb there are two lists of paths, allowed and denied,
 * in tree order (byte order of the components), none within another, and no allowed one within a
 * denied one.  A decision is a binary search in each.  Both decide alike (a unit test compares
 * them), but for what is no path: here a path is taken byte by byte as the lock table takes it, and
 * there nothing stands at "a//b" or "a/..".
 *
 * Pure. */
#ifndef HOLDFAST_AUTH_POLICY_RIGHTS_H
#define HOLDFAST_AUTH_POLICY_RIGHTS_H

#include "auth/policy.h"

struct policy_rights;

/* Work it out.  The rights borrow from the policy, which must live longer.
 *
 * Return: owned by the caller. */
struct policy_rights *policy_resolve(const struct policy *policy,
                                     const struct policy_subject *subject);

void policy_rights_free(struct policy_rights *rights); /* NULL is fine. */

/* May it?  `path` as in the lock table, without a leading slash; empty = the root. */
bool policy_rights_allow(const struct policy_rights *rights,
                         enum policy_verb verb,
                         struct bytes path);

/* Can there be something below `path` (not path itself) for which that is allowed? */
bool policy_rights_below(const struct policy_rights *rights,
                         enum policy_verb verb,
                         struct bytes path);

/* Is there anything at all that it may do? */
bool policy_rights_any(const struct policy_rights *rights);

/* The allowed paths of a verb, in tree order; what is denied may lie below them.
 *
 * @ret: an array that lives as long as the rights.
 * Return: how many. */
size_t policy_rights_paths(const struct policy_rights *rights,
                           enum policy_verb verb,
                           const struct bytes **ret);

/* Does `prefix` cover this path: is it equal, or above it? */
bool policy_path_covers(struct bytes prefix, struct bytes path);

#endif
