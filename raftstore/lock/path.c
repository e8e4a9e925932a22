/* Paths, instants, and the names of the codes. */
#include "raftstore/lock/table.h"

bool path_next(struct bytes *rest, struct bytes *ret_name)
{
    if (rest->size == 0)
        return false;
    const char *p = rest->data;
    const char *slash = memchr(p, '/', rest->size);
    size_t size = slash != NULL ? (size_t)(slash - p) : rest->size;
    *ret_name = bytes_of(p, size);
    size_t taken = slash != NULL ? size + 1 : size;
    *rest = bytes_of(p + taken, rest->size - taken);
    return true;
}

static bool name_valid(struct bytes name)
{
    if (name.size == 0 || name.size > LOCK_NAME_BYTES_MAX)
        return false;
    if (memchr(name.data, '\0', name.size) != NULL)
        return false;
    return !bytes_equal(name, bytes_str(".")) && !bytes_equal(name, bytes_str("..")) &&
           !bytes_equal(name, bytes_str(".holdfast"));
}

bool lock_path_valid(struct bytes path)
{
    if (path.size == 0 || path.size > LOCK_PATH_BYTES_MAX)
        return false;
    if (((const char *)path.data)[path.size - 1] == '/')
        return false;
    struct bytes rest = path, name;
    unsigned n = 0;
    while (path_next(&rest, &name)) {
        if (!name_valid(name) || ++n > LOCK_COMPONENTS_MAX)
            return false;
    }
    return true;
}

bool path_is_below(struct bytes path, struct bytes ancestor)
{
    return path.size > ancestor.size && ((const char *)path.data)[ancestor.size] == '/' &&
           memcmp(path.data, ancestor.data, ancestor.size) == 0;
}

uint64_t time_after_ms(uint64_t from_ns, uint64_t ms)
{
    uint64_t last = LOCK_DEADLINE_NEVER - 1;
    if (from_ns >= last || ms > (last - from_ns) / LOCK_NS_PER_MS)
        return last;
    return from_ns + ms * LOCK_NS_PER_MS;
}

const char *lock_code_name(enum lock_code code)
{
    static const char *const names[] = {
        "ok",         "queued",        "conflict",  "timeout",   "canceled",  "deadlock",
        "no_session", "not_held",      "not_owner", "limit",     "invalid",   "exists",
        "not_found",  "not_dir",       "is_dir",    "not_empty", "no_parent", "delayed",
        "stale_seq",  "session_ended", "broken",    "expired",   "released",
    };
    return (unsigned)code < sizeof names / sizeof names[0] ? names[code] : "?";
}
