/* The policy file: see holdfast-policy(5).  Strict: what is not known is an error, since a typing
 * error in a deny rule would otherwise allow. */
#include "auth/policy_internal.h"

#include "auth/json.h"
#include "auth/json_line.h"
#include "raftstore/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define DEPTH_MAX 8u /* Below "bindings", "roles": to a rule's path. */

/* Says what is wrong once; later complaints are consequences. */
struct parser {
    struct policy *policy;
    struct bytes text;
    struct json_step at[DEPTH_MAX]; /* What is being looked at. */
    size_t n_at;
    struct buf wrong; /* A sentence; empty = all is well. */
};

static void enter(struct parser *p, const char *key, size_t index)
{
    p->at[p->n_at++] = (struct json_step){key, index};
}

static void leave(struct parser *p)
{
    p->n_at--;
}

static bool complain(struct parser *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static bool complain(struct parser *p, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (p->wrong.size == 0) {
        buf_printf(&p->wrong, "line %u: ", json_line(p->text, p->at, p->n_at));
        buf_vprintf(&p->wrong, format, args);
    }
    va_end(args);
    return false;
}

/* Only these members ("comment", a string, is always fine). */
static bool
check_members(struct parser *p, const json_t *object, const char *where, const char *known)
{
    if (!json_is_object(object))
        return complain(p, "%s is not an object", where);
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        if (strcmp(name, "comment") == 0 && json_is_string(value))
            continue;
        size_t size = strlen(name);
        const char *at = known;
        while (*at != '\0' && !(strcspn(at, " ") == size && memcmp(at, name, size) == 0))
            at += strcspn(at, " ") + (at[strcspn(at, " ")] == ' ');
        if (*at == '\0') {
            enter(p, name, 0);
            return complain(p, "%s has a member %s, which is not known (known are: %s)", where,
                            log_quote(bytes_str(name)), known);
        }
    }
    return true;
}

static const json_t *
need_array(struct parser *p, const json_t *object, const char *name, const char *where)
{
    const json_t *array = json_object_get(object, name);
    if (json_is_array(array) && json_array_size(array) > 0)
        return array;
    complain(p, "%s needs \"%s\", an array with something in it", where, name);
    return NULL;
}

static const char *need_text(struct parser *p, const json_t *value, const char *where)
{
    const char *text = json_string_value(value);
    if (text == NULL || text[0] == '\0')
        complain(p, "%s has something else than a string with something in it", where);
    return text != NULL && text[0] != '\0' ? text : NULL;
}

static bool parse_verbs(struct parser *p, const json_t *rule, const char *where, unsigned *ret)
{
    const json_t *verbs = need_array(p, rule, "verbs", where);
    size_t i;
    const json_t *value;
    enter(p, "verbs", 0);
    json_array_foreach(verbs, i, value)
    {
        enum policy_verb verb;
        enter(p, NULL, i);
        const char *word = need_text(p, value, where);
        if (word == NULL)
            return false;
        if (policy_verb_parse(word, &verb) < 0)
            return complain(p, "%s has the verb %s (read, acquire, break and admin are known)",
                            where, log_quote(bytes_str(word)));
        *ret |= 1u << verb;
        leave(p);
    }
    leave(p);
    return verbs != NULL;
}

/* "/", "jobs", "/jobs", "/jobs/": the path without slashes at its ends; NULL: not a path.  A '*' in
 * a path would be taken for a wildcard by people, so it is refused. */
static char *clean_path(const char *text)
{
    struct bytes path = bytes_str(text);
    if (path.size > 1 && text[path.size - 1] == '/')
        path.size--;
    if (!policy_path_normalize(path, &path) || strchr(text, '*') != NULL)
        return NULL;
    char *copy = xcalloc(1, path.size + 1);
    if (path.size > 0)
        memcpy(copy, path.data, path.size);
    return copy;
}

static bool
parse_paths(struct parser *p, const json_t *rule, const char *where, struct policy_rule *ret)
{
    const json_t *paths = need_array(p, rule, "paths", where);
    if (paths == NULL)
        return false;
    ret->paths = xcalloc(json_array_size(paths), sizeof *ret->paths);
    size_t i;
    const json_t *value;
    enter(p, "paths", 0);
    json_array_foreach(paths, i, value)
    {
        enter(p, NULL, i);
        const char *text = need_text(p, value, where);
        if (text == NULL)
            return false;
        char *path = clean_path(text);
        if (path == NULL)
            return complain(
                p, "%s has the path %s, which is none (\"/\", \"/jobs\", \"/jobs/nightly\")", where,
                log_quote(bytes_str(text)));
        ret->paths[ret->n_paths++] = path;
        leave(p);
    }
    leave(p);
    return true;
}

static bool parse_rules(struct parser *p,
                        const json_t *role,
                        const char *name,
                        const char *kind,
                        struct policy_rule **ret_rules,
                        size_t *ret_n)
{
    char where[320];
    const json_t *rules = json_object_get(role, kind);
    if (rules == NULL)
        return true;
    enter(p, kind, 0);
    (void)snprintf(where, sizeof where, "\"%s\" of role %s", kind, log_quote(bytes_str(name)));
    if (!json_is_array(rules))
        return complain(p, "%s is not an array", where);
    *ret_rules = xcalloc(json_array_size(rules) + 1, sizeof **ret_rules);
    size_t i;
    const json_t *value;
    json_array_foreach(rules, i, value)
    {
        struct policy_rule *rule = &(*ret_rules)[(*ret_n)++];
        enter(p, NULL, i);
        if (!check_members(p, value, where, "verbs paths") ||
            !parse_verbs(p, value, where, &rule->verbs) || !parse_paths(p, value, where, rule))
            return false;
        leave(p);
    }
    leave(p);
    return true;
}

static int compare_roles(const void *a, const void *b)
{
    return strcmp(((const struct policy_role *)a)->name, ((const struct policy_role *)b)->name);
}

static bool parse_roles(struct parser *p, const json_t *roles)
{
    if (!json_is_object(roles))
        return complain(p, "\"roles\" (an object) is missing");
    enter(p, "roles", 0);
    if (json_object_size(roles) > POLICY_ROLES_MAX)
        return complain(p, "there are more than %d roles", POLICY_ROLES_MAX);
    p->policy->roles = xcalloc(json_object_size(roles) + 1, sizeof *p->policy->roles);
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)roles, name, value)
    {
        char where[320];
        (void)snprintf(where, sizeof where, "role %s", log_quote(bytes_str(name)));
        enter(p, name, 0);
        if (name[0] == '\0')
            return complain(p, "a role has no name");
        struct policy_role *role = &p->policy->roles[p->policy->n_roles++];
        role->name = xstrdup(name);
        if (!check_members(p, value, where, "allow deny") ||
            !parse_rules(p, value, name, "allow", &role->allow, &role->n_allow) ||
            !parse_rules(p, value, name, "deny", &role->deny, &role->n_deny))
            return false;
        leave(p);
    }
    leave(p);
    qsort(p->policy->roles, p->policy->n_roles, sizeof *p->policy->roles, compare_roles);
    return true;
}

bool policy_certificate_valid(const char *name)
{
    static const char *const kinds[] = {"node/", "mount/", "gateway/", "client/"};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        size_t n = strlen(kinds[i]);
        if (strncmp(name, kinds[i], n) == 0)
            return name[n] != '\0' && strchr(name + n, '/') == NULL;
    }
    return false;
}

/* One that could never match is a mistake, and perhaps of somebody who thinks that it denies. */
static bool check_certificate(struct parser *p, const char *pattern)
{
    if (strcmp(pattern, "*") == 0 || policy_certificate_valid(pattern))
        return true;
    return complain(p,
                    "no certificate is named %s: it is KIND/NAME, as in \"mount/web1\" or "
                    "\"mount/*\", with node, mount, gateway or client as the kind",
                    log_quote(bytes_str(pattern)));
}

static bool parse_pattern(struct parser *p, const json_t *value, struct policy_binding *binding)
{
    const json_t *subject = json_object_get(value, "subject");
    const json_t *certificate = json_object_get(value, "certificate");
    if ((subject == NULL) == (certificate == NULL))
        return complain(p, "a binding needs either \"subject\" or \"certificate\"");
    binding->kind = subject != NULL ? POLICY_TOKEN : POLICY_CERTIFICATE;
    enter(p, subject != NULL ? "subject" : "certificate", 0);
    const char *pattern = need_text(p, subject != NULL ? subject : certificate, "a binding's name");
    if (pattern == NULL || (subject == NULL && !check_certificate(p, pattern)))
        return false;
    if (strchr(pattern, '*') != strrchr(pattern, '*'))
        return complain(p, "the pattern %s has more than one *", log_quote(bytes_str(pattern)));
    binding->pattern = xstrdup(pattern);
    leave(p);
    return true;
}

static bool parse_binding(struct parser *p, const json_t *value, struct policy_binding *binding)
{
    char where[320];
    if (!check_members(p, value, "a binding", "subject certificate roles") ||
        !parse_pattern(p, value, binding))
        return false;
    (void)snprintf(where, sizeof where, "the binding of %s",
                   log_quote(bytes_str(binding->pattern)));
    const json_t *roles = need_array(p, value, "roles", where);
    if (roles == NULL)
        return false;
    binding->roles = xcalloc(json_array_size(roles), sizeof *binding->roles);
    size_t i;
    const json_t *item;
    enter(p, "roles", 0);
    json_array_foreach(roles, i, item)
    {
        enter(p, NULL, i);
        const char *name = need_text(p, item, where);
        if (name == NULL)
            return false;
        int role = policy_find_role(p->policy, name);
        if (role < 0)
            return complain(p, "%s names the role %s, which is not under \"roles\"", where,
                            log_quote(bytes_str(name)));
        binding->roles[binding->n_roles++] = (uint16_t)role;
        leave(p);
    }
    leave(p);
    return true;
}

static bool parse_bindings(struct parser *p, const json_t *bindings)
{
    if (bindings == NULL)
        return true;
    enter(p, "bindings", 0);
    if (!json_is_array(bindings))
        return complain(p, "\"bindings\" is not an array");
    p->policy->bindings = xcalloc(json_array_size(bindings) + 1, sizeof *p->policy->bindings);
    size_t i;
    const json_t *value;
    json_array_foreach(bindings, i, value)
    {
        enter(p, NULL, i);
        if (!parse_binding(p, value, &p->policy->bindings[p->policy->n_bindings++]))
            return false;
        leave(p);
    }
    return true;
}

static bool parse_root(struct parser *p, const json_t *root)
{
    const json_t *version = json_object_get(root, "version");
    if (!check_members(p, root, "the policy", "version roles bindings"))
        return false;
    if (!json_is_integer(version) || json_integer_value(version) != 1) {
        enter(p, "version", 0);
        return complain(p, "the policy needs \"version\": 1");
    }
    return parse_roles(p, json_object_get(root, "roles")) &&
           parse_bindings(p, json_object_get(root, "bindings"));
}

int policy_parse(struct bytes text, struct policy **ret_policy, char **ret_sentence)
{
    struct parser p = {.policy = xcalloc(1, sizeof *p.policy), .text = text};
    json_error_t error = {.line = -1};
    json_t *root = NULL;
    if (text.size > POLICY_BYTES_MAX)
        buf_printf(&p.wrong, "longer than 1 MiB");
    else if ((root = json_parse_object(text, &error)) == NULL)
        buf_printf(&p.wrong, "line %d, column %d: not JSON: %s", error.line, error.column,
                   error.text);
    bool ok = root != NULL && parse_root(&p, root);
    json_decref(root);
    if (ok) {
        *ret_policy = p.policy;
        return 0;
    }
    buf_add(&p.wrong, "", 1);
    *ret_sentence = (char *)p.wrong.data;
    policy_free(p.policy);
    return -EINVAL;
}

/* Read up to POLICY_BYTES_MAX + 1 bytes: one more tells that it is too long. */
static int read_file(const char *path, struct buf *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = 1;
    while (n > 0 && out->size <= POLICY_BYTES_MAX) {
        uint8_t *to = buf_reserve(out, 65536);
        do
            n = read(fd, to, 65536);
        while (n < 0 && errno == EINTR);
        if (n > 0)
            out->size += (size_t)n;
    }
    int result = n < 0 ? -errno : 0;
    (void)close(fd); /* Only read. */
    return result;
}

int policy_load(const char *path, struct policy **ret_policy, char **ret_sentence)
{
    struct buf text = BUF_INIT;
    int result = read_file(path, &text);
    if (result == 0)
        result = policy_parse(bytes_of(text.data, text.size), ret_policy, ret_sentence);
    else
        *ret_sentence = xstrdup(strerror(-result));
    buf_deinit(&text);
    return result;
}

static void free_rules(struct policy_rule *rules, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < rules[i].n_paths; k++)
            free(rules[i].paths[k]);
        free(rules[i].paths);
    }
    free(rules);
}

void policy_free(struct policy *policy)
{
    if (policy == NULL)
        return;
    for (size_t i = 0; i < policy->n_roles; i++) {
        free_rules(policy->roles[i].allow, policy->roles[i].n_allow);
        free_rules(policy->roles[i].deny, policy->roles[i].n_deny);
        free(policy->roles[i].name);
    }
    for (size_t i = 0; i < policy->n_bindings; i++) {
        free(policy->bindings[i].pattern);
        free(policy->bindings[i].roles);
    }
    free(policy->roles);
    free(policy->bindings);
    free(policy);
}
