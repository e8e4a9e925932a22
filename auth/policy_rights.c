#include "auth/policy_rights.h"

#include "auth/policy_internal.h"

#include <stdlib.h>

/* Paths in tree order, none within another. */
struct path_list {
    struct bytes *paths;
    size_t n;
};

struct policy_rights {
    struct path_list allowed[POLICY_N_VERBS];
    struct path_list denied[POLICY_N_VERBS];
};

bool policy_path_covers(struct bytes prefix, struct bytes path)
{
    const char *p = path.data;
    if (prefix.size == 0)
        return true;
    return path.size >= prefix.size && memcmp(p, prefix.data, prefix.size) == 0 &&
           (path.size == prefix.size || p[prefix.size] == '/');
}

/* Tree order: byte by byte, a slash before all else, so that what is below a path comes directly
 * behind it. */
static int tree_order(struct bytes a, struct bytes b)
{
    const unsigned char *p = a.data, *q = b.data;
    size_t n = a.size < b.size ? a.size : b.size;
    size_t i = 0;
    while (i < n && p[i] == q[i])
        i++;
    if (i == n)
        return (a.size > b.size) - (a.size < b.size);
    int left = p[i] == '/' ? 0 : p[i], right = q[i] == '/' ? 0 : q[i];
    return (left > right) - (left < right);
}

static int compare_paths(const void *a, const void *b)
{
    return tree_order(*(const struct bytes *)a, *(const struct bytes *)b);
}

/* How many come before `path` or are equal to it. */
static size_t position(const struct path_list *list, struct bytes path)
{
    size_t low = 0, high = list->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (tree_order(list->paths[middle], path) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* If one covers the path it is the last one that does not come behind it: everything between the
 * two in tree order is within that one, and the list has no such. */
static bool list_covers(const struct path_list *list, struct bytes path)
{
    size_t i = position(list, path);
    return i > 0 && policy_path_covers(list->paths[i - 1], path);
}

static void list_add(struct path_list *list, size_t *alloc, const char *path)
{
    if (list->n == *alloc) {
        *alloc = *alloc == 0 ? 8 : *alloc * 2;
        list->paths = xrealloc(list->paths, *alloc * sizeof *list->paths);
    }
    list->paths[list->n++] = bytes_str(path);
}

/* Sort, and drop what is within another one, or in one of `without`. */
static void list_tidy(struct path_list *list, const struct path_list *without)
{
    size_t n = 0;
    if (list->n > 0)
        qsort(list->paths, list->n, sizeof *list->paths, compare_paths);
    for (size_t i = 0; i < list->n; i++) {
        bool within = n > 0 && policy_path_covers(list->paths[n - 1], list->paths[i]);
        if (!within && (without == NULL || !list_covers(without, list->paths[i])))
            list->paths[n++] = list->paths[i];
    }
    list->n = n;
}

static void gather(const struct policy *policy,
                   const struct policy_role_set *set,
                   enum policy_verb verb,
                   bool deny,
                   struct path_list *ret)
{
    size_t alloc = 0;
    for (size_t i = 0; i < policy->n_roles; i++) {
        const struct policy_role *r = &policy->roles[i];
        if (!policy_role_set_has(set, i))
            continue;
        const struct policy_rule *rules = deny ? r->deny : r->allow;
        for (size_t k = 0; k < (deny ? r->n_deny : r->n_allow); k++)
            for (size_t m = 0; m < rules[k].n_paths && (rules[k].verbs & 1u << verb) != 0; m++)
                list_add(ret, &alloc, rules[k].paths[m]);
    }
}

struct policy_rights *policy_resolve(const struct policy *policy,
                                     const struct policy_subject *subject)
{
    struct policy_rights *rights = xcalloc(1, sizeof *rights);
    struct policy_role_set set = {0};
    policy_collect_roles(policy, subject, &set);
    for (int verb = 0; verb < POLICY_N_VERBS; verb++) {
        gather(policy, &set, (enum policy_verb)verb, true, &rights->denied[verb]);
        gather(policy, &set, (enum policy_verb)verb, false, &rights->allowed[verb]);
        list_tidy(&rights->denied[verb], NULL);
        list_tidy(&rights->allowed[verb], &rights->denied[verb]);
    }
    return rights;
}

void policy_rights_free(struct policy_rights *rights)
{
    if (rights == NULL)
        return;
    for (int verb = 0; verb < POLICY_N_VERBS; verb++) {
        free(rights->allowed[verb].paths);
        free(rights->denied[verb].paths);
    }
    free(rights);
}

bool policy_rights_allow(const struct policy_rights *rights,
                         enum policy_verb verb,
                         struct bytes path)
{
    return list_covers(&rights->allowed[verb], path) && !list_covers(&rights->denied[verb], path);
}

bool policy_rights_below(const struct policy_rights *rights,
                         enum policy_verb verb,
                         struct bytes path)
{
    const struct path_list *list = &rights->allowed[verb];
    if (list_covers(list, path))
        return !list_covers(&rights->denied[verb], path);
    size_t i = position(list, path);
    return i < list->n && policy_path_covers(path, list->paths[i]);
}

bool policy_rights_any(const struct policy_rights *rights)
{
    for (int verb = 0; verb < POLICY_N_VERBS; verb++)
        if (rights->allowed[verb].n > 0)
            return true;
    return false;
}

size_t policy_rights_paths(const struct policy_rights *rights,
                           enum policy_verb verb,
                           const struct bytes **ret)
{
    *ret = rights->allowed[verb].paths;
    return rights->allowed[verb].n;
}
