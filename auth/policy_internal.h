/* What a parsed policy looks like: shared by its parser and its judge. */
#ifndef HOLDFAST_AUTH_POLICY_INTERNAL_H
#define HOLDFAST_AUTH_POLICY_INTERNAL_H

#include "auth/policy.h"

#include <stdint.h>

#define POLICY_ROLES_MAX 1024 /* So that a set of roles fits on the stack. */

struct policy_rule {
    unsigned verbs; /* Bit 1 << enum policy_verb. */
    char **paths;   /* Owned; without slashes at the ends: "" is everything. */
    size_t n_paths;
};

struct policy_role {
    char *name; /* Owned. */
    struct policy_rule *allow;
    size_t n_allow;
    struct policy_rule *deny;
    size_t n_deny;
};

struct policy_binding {
    enum policy_kind kind;
    char *pattern;   /* Owned; at most one '*', which stands for any run of bytes. */
    uint16_t *roles; /* Owned; positions in policy.roles. */
    size_t n_roles;
};

struct policy {
    struct policy_role *roles; /* By name. */
    size_t n_roles;
    struct policy_binding *bindings;
    size_t n_bindings;
};

struct policy_role_set {
    uint64_t words[POLICY_ROLES_MAX / 64];
};

static inline bool policy_role_set_has(const struct policy_role_set *set, size_t i)
{
    return (set->words[i / 64] >> (i % 64) & 1) != 0;
}

/* The roles that a subject has: its own that the policy knows, and those of the bindings that match
 * it. */
void policy_collect_roles(const struct policy *policy,
                          const struct policy_subject *subject,
                          struct policy_role_set *set);

/* The role's position.  Return: -1: there is none of this name. */
int policy_find_role(const struct policy *policy, const char *name);

/* Drop leading slashes.  Return: false: what is left is no path ("" is one). */
bool policy_path_normalize(struct bytes path, struct bytes *ret);

#endif
