#include "auth/policy.h"

#include "auth/policy_internal.h"
#include "raftstore/base/log.h"

#include <errno.h>

static const char *const verb_names[POLICY_N_VERBS] = {"read", "acquire", "break", "admin"};

static void set_add(struct policy_role_set *set, size_t i)
{
    set->words[i / 64] |= UINT64_C(1) << (i % 64);
}

int policy_verb_parse(const char *word, enum policy_verb *ret_verb)
{
    for (int i = 0; i < POLICY_N_VERBS; i++) {
        if (strcmp(word, verb_names[i]) == 0) {
            *ret_verb = (enum policy_verb)i;
            return 0;
        }
    }
    return -EINVAL;
}

const char *policy_verb_name(enum policy_verb verb)
{
    return verb_names[verb];
}

int policy_find_role(const struct policy *policy, const char *name)
{
    size_t low = 0;
    size_t high = policy->n_roles;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, policy->roles[middle].name);
        if (order == 0)
            return (int)middle;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return -1;
}

static bool pattern_matches(const char *pattern, const char *name)
{
    const char *star = strchr(pattern, '*');
    if (star == NULL)
        return strcmp(pattern, name) == 0;
    size_t n_head = (size_t)(star - pattern);
    size_t n_tail = strlen(star + 1);
    size_t n_name = strlen(name);
    return n_name >= n_head + n_tail && memcmp(name, pattern, n_head) == 0 &&
           memcmp(name + n_name - n_tail, star + 1, n_tail) == 0;
}

void policy_collect_roles(const struct policy *policy,
                          const struct policy_subject *subject,
                          struct policy_role_set *set)
{
    for (size_t i = 0; i < subject->n_roles; i++) {
        int role = policy_find_role(policy, subject->roles[i]);
        if (role >= 0)
            set_add(set, (size_t)role);
    }
    for (size_t i = 0; i < policy->n_bindings; i++) {
        const struct policy_binding *b = &policy->bindings[i];
        if (b->kind != subject->kind || !pattern_matches(b->pattern, subject->name))
            continue;
        for (size_t k = 0; k < b->n_roles; k++)
            set_add(set, b->roles[k]);
    }
}

bool policy_path_normalize(struct bytes path, struct bytes *ret)
{
    const char *c = path.data;
    size_t n = path.size;
    while (n > 0 && *c == '/') {
        c++;
        n--;
    }
    *ret = bytes_of(c, n);
    while (n > 0) {
        const char *slash = memchr(c, '/', n);
        size_t size = slash != NULL ? (size_t)(slash - c) : n;
        if (size == 0 || (size <= 2 && memcmp(c, "..", size) == 0) || memchr(c, '\0', size) != NULL)
            return false;
        if (slash == NULL)
            return true;
        c += size + 1;
        n -= size + 1;
        if (n == 0)
            return false;
    }
    return true;
}

static bool prefix_covers(const char *prefix, struct bytes path)
{
    size_t n = strlen(prefix);
    if (n == 0)
        return true;
    return path.size >= n && memcmp(path.data, prefix, n) == 0 &&
           (path.size == n || ((const char *)path.data)[n] == '/');
}

/* The path of a rule that matches; NULL: none does. */
static const char *
match_rules(const struct policy_rule *rules, size_t n, enum policy_verb verb, struct bytes path)
{
    for (size_t i = 0; i < n; i++) {
        if ((rules[i].verbs & 1u << verb) == 0)
            continue;
        for (size_t k = 0; k < rules[i].n_paths; k++)
            if (prefix_covers(rules[i].paths[k], path))
                return rules[i].paths[k];
    }
    return NULL;
}

/* Append in single quotes, safe in one line: explanations stand in log lines, between double ones.
 */
static void add_quoted(struct buf *out, struct bytes text)
{
    const char *quoted = log_quote(text);
    buf_printf(out, "'%.*s'", (int)strlen(quoted) - 2, quoted + 1);
}

/* How the subject came by the role, for people. */
static void explain_source(const struct policy *policy,
                           const struct policy_subject *subject,
                           size_t role,
                           struct buf *out)
{
    for (size_t i = 0; i < subject->n_roles; i++) {
        if (strcmp(subject->roles[i], policy->roles[role].name) == 0) {
            buf_printf(out, "that came with the subject");
            return;
        }
    }
    for (size_t i = 0; i < policy->n_bindings; i++) {
        const struct policy_binding *b = &policy->bindings[i];
        if (b->kind != subject->kind || !pattern_matches(b->pattern, subject->name))
            continue;
        for (size_t k = 0; k < b->n_roles; k++) {
            if (b->roles[k] == role) {
                buf_printf(out, "bound to ");
                add_quoted(out, bytes_str(b->pattern));
                return;
            }
        }
    }
}

static void explain_rule(const struct policy *policy,
                         const struct policy_subject *subject,
                         enum policy_verb verb,
                         size_t role,
                         const char *prefix,
                         bool allowed,
                         struct buf *out)
{
    buf_printf(out, "%s: role ", allowed ? "allowed" : "denied");
    add_quoted(out, bytes_str(policy->roles[role].name));
    buf_printf(out, " (");
    explain_source(policy, subject, role, out);
    buf_printf(out, ") %s %s on ", allowed ? "allows" : "denies", verb_names[verb]);
    if (prefix[0] != '\0')
        add_quoted(out, bytes_str(prefix));
    else
        buf_printf(out, "everything");
}

static void explain_nothing(const struct policy *policy,
                            const struct policy_subject *subject,
                            enum policy_verb verb,
                            struct bytes path,
                            const struct policy_role_set *set,
                            struct buf *out)
{
    bool any = false;
    buf_printf(out, "denied: nothing allows ");
    add_quoted(out, bytes_str(subject->name));
    buf_printf(out, " to %s ", verb_names[verb]);
    add_quoted(out, path);
    buf_printf(out, " (");
    for (size_t i = 0; i < policy->n_roles; i++) {
        if (!policy_role_set_has(set, i))
            continue;
        buf_printf(out, any ? ", " : "roles: ");
        add_quoted(out, bytes_str(policy->roles[i].name));
        any = true;
    }
    buf_printf(out, any ? ")" : "it has no role that the policy knows)");
}

/* Look for a deny (or allow) rule of the roles in the set.
 *
 * Return: true: *ret_role and *ret_prefix say which. */
static bool search(const struct policy *policy,
                   const struct policy_role_set *set,
                   bool deny,
                   enum policy_verb verb,
                   struct bytes path,
                   size_t *ret_role,
                   const char **ret_prefix)
{
    for (size_t i = 0; i < policy->n_roles; i++) {
        const struct policy_role *r = &policy->roles[i];
        if (!policy_role_set_has(set, i))
            continue;
        const char *prefix = deny ? match_rules(r->deny, r->n_deny, verb, path)
                                  : match_rules(r->allow, r->n_allow, verb, path);
        if (prefix != NULL) {
            *ret_role = i;
            *ret_prefix = prefix;
            return true;
        }
    }
    return false;
}

bool policy_allows(const struct policy *policy,
                   const struct policy_subject *subject,
                   enum policy_verb verb,
                   struct bytes path,
                   struct buf *explanation)
{
    struct policy_role_set set = {0};
    struct bytes clean;
    size_t role = 0;
    const char *prefix = NULL;
    if (!policy_path_normalize(path, &clean)) {
        if (explanation != NULL) {
            buf_printf(explanation, "denied: ");
            add_quoted(explanation, path);
            buf_printf(explanation, " is not a path");
        }
        return false;
    }
    policy_collect_roles(policy, subject, &set);
    bool denied = search(policy, &set, true, verb, clean, &role, &prefix);
    bool allowed = !denied && search(policy, &set, false, verb, clean, &role, &prefix);
    if (explanation == NULL)
        return allowed;
    if (denied || allowed)
        explain_rule(policy, subject, verb, role, prefix, allowed, explanation);
    else
        explain_nothing(policy, subject, verb, clean, &set, explanation);
    return allowed;
}
