#include "raftstore/tls/identity.h"

#include <errno.h>
#include <stdio.h>

#define SCHEME "holdfast:"

static const char *const kind_names[] = {
    [IDENTITY_NONE] = "none",       [IDENTITY_NODE] = "node",     [IDENTITY_MOUNT] = "mount",
    [IDENTITY_GATEWAY] = "gateway", [IDENTITY_CLIENT] = "client",
};
#define N_KINDS (sizeof kind_names / sizeof kind_names[0])

const char *identity_kind_name(enum identity_kind kind)
{
    return (size_t)kind < N_KINDS ? kind_names[kind] : kind_names[IDENTITY_NONE];
}

static bool name_valid(const char *p, size_t size)
{
    if (size == 0 || size > IDENTITY_NAME_BYTES_MAX)
        return false;
    for (size_t i = 0; i < size; i++) {
        char c = p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              (c != '\0' && strchr("._-:@", c) != NULL)))
            return false;
    }
    return true;
}

/* A decimal number above 0, without leading zeros. */
static bool parse_id(const char *p, size_t size, uint64_t *ret)
{
    uint64_t id = 0;
    if (size == 0 || size > 18 || p[0] == '0')
        return false;
    for (size_t i = 0; i < size; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        id = id * 10 + (uint64_t)(p[i] - '0');
    }
    *ret = id;
    return true;
}

int identity_parse(struct bytes uri, struct identity *ret)
{
    const char *p = uri.data;
    size_t scheme = strlen(SCHEME);
    *ret = (struct identity){IDENTITY_NONE, 0, ""};
    if (uri.size < scheme || memcmp(p, SCHEME, scheme) != 0)
        return -ENOENT;
    const char *kind = p + scheme;
    const char *slash = memchr(kind, '/', uri.size - scheme);
    if (slash == NULL)
        return -EINVAL;
    const char *name = slash + 1;
    size_t name_size = uri.size - (size_t)(name - p);
    for (size_t k = IDENTITY_NODE; k < N_KINDS; k++) {
        if (!bytes_equal(bytes_of(kind, (size_t)(slash - kind)), bytes_str(kind_names[k])))
            continue;
        if (!name_valid(name, name_size) ||
            (k == IDENTITY_NODE && !parse_id(name, name_size, &ret->node_id)))
            return -EINVAL;
        ret->kind = (enum identity_kind)k;
        memcpy(ret->name, name, name_size);
        ret->name[name_size] = '\0';
        return 0;
    }
    return -EINVAL;
}

char *identity_format(const struct identity *identity, char *out)
{
    (void)snprintf(out, IDENTITY_URI_BYTES_MAX + 1, SCHEME "%s/%s",
                   identity_kind_name(identity->kind), identity->name);
    return out;
}
