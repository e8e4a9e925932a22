#include "gateway/lockid.h"

#include "raftstore/wire/codes.h"

#define COMPONENTS_MAX 16u
#define NAME_BYTES_MAX 255u

static bool is(struct bytes name, const char *word)
{
    return bytes_equal(name, bytes_str(word));
}

static const char *name_problem(struct bytes name)
{
    if (name.size == 0)
        return "a lock_id has no slash at its beginning or end, and no two in a row";
    if (name.size > NAME_BYTES_MAX)
        return "a part of a lock_id between slashes has 255 bytes at most";
    if (is(name, ".") || is(name, "..") || is(name, ".holdfast"))
        return "'.', '..' and '.holdfast' are no parts of a lock_id";
    return NULL;
}

/* The rules of the lock table (LOCK_COMPONENTS_MAX and so on), so that a mistake gets a sentence.
 */
const char *lockid_problem(struct bytes id)
{
    const char *p = id.data, *end = p + id.size, *problem = NULL;
    unsigned n = 0;
    if (id.size == 0)
        return "a lock_id must not be empty";
    if (id.size > WIRE_PATH_BYTES_MAX)
        return "a lock_id has 1023 bytes at most";
    if (memchr(p, '\0', id.size) != NULL)
        return "a lock_id has no NUL byte";
    while (problem == NULL) {
        const char *slash = memchr(p, '/', (size_t)(end - p));
        problem = name_problem(bytes_of(p, (size_t)((slash != NULL ? slash : end) - p)));
        if (problem == NULL && ++n > COMPONENTS_MAX)
            problem = "a lock_id has 16 parts between slashes at most";
        if (slash == NULL)
            break;
        p = slash + 1;
    }
    return problem;
}
