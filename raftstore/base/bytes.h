/* A borrowed run of bytes.
 *
 * Not owned, not terminated.  Whoever hands one out says how long it lives.  An empty run may
 * have a NULL pointer. */
#ifndef HOLDFAST_BASE_BYTES_H
#define HOLDFAST_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct bytes {
    const void *data; /* First byte; may be NULL when size is 0. */
    size_t size;      /* Length in bytes. */
};

/* The run of a string literal or of any terminated string, without its NUL. */
static inline struct bytes bytes_str(const char *s)
{
    return (struct bytes){s, strlen(s)};
}

static inline struct bytes bytes_of(const void *data, size_t size)
{
    return (struct bytes){data, size};
}

/* Order by unsigned byte values; a prefix sorts before what continues it.
 *
 * Return: below, equal to or above 0, as memcmp(). */
static inline int bytes_compare(struct bytes a, struct bytes b)
{
    size_t n = a.size < b.size ? a.size : b.size;
    int order = n > 0 ? memcmp(a.data, b.data, n) : 0;
    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

static inline bool bytes_equal(struct bytes a, struct bytes b)
{
    return a.size == b.size && bytes_compare(a, b) == 0;
}

#endif
