#include "fs/path.h"

#include "raftstore/base/buf.h"
#include "raftstore/wire/codes.h"

#include <errno.h>
#include <string.h>

#define NAME_BYTES_MAX      255u
#define PATH_COMPONENTS_MAX 16u

static unsigned count_components(const char *path)
{
    unsigned n = path[0] != '\0';
    for (; *path != '\0'; path++)
        n += *path == '/';
    return n;
}

int path_join(const char *parent, const char *name, char **ret_path)
{
    size_t parent_size = strlen(parent), name_size = strlen(name);
    size_t slash = parent_size > 0;
    if (name_size == 0 || strchr(name, '/') != NULL || strcmp(name, ".") == 0 ||
        strcmp(name, "..") == 0)
        return -EINVAL;
    if (strcmp(name, PATH_RESERVED) == 0)
        return -EPERM;
    if (name_size > NAME_BYTES_MAX || parent_size + slash + name_size > WIRE_PATH_BYTES_MAX ||
        count_components(parent) + 1 > PATH_COMPONENTS_MAX)
        return -ENAMETOOLONG;
    char *path = xmalloc(parent_size + slash + name_size + 1);
    memcpy(path, parent, parent_size);
    if (slash)
        path[parent_size] = '/';
    memcpy(path + parent_size + slash, name, name_size + 1);
    *ret_path = path;
    return 0;
}

bool path_names_lock(const char *name)
{
    static const char *const suffixes[] = {".lock", ".lck"};
    size_t size = strlen(name);
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        size_t n = strlen(suffixes[i]);
        if (size > n && memcmp(name + size - n, suffixes[i], n) == 0)
            return true;
    }
    return false;
}

const char *path_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}
