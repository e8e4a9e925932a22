/* A growing byte buffer.
 *
 * Out of memory ends the process: a daemon that can't allocate a few kilobytes can't keep its
 * promises, and stopping is safe (Raft and the leases recover).  One thread at a time. */
#ifndef HOLDFAST_BASE_BUF_H
#define HOLDFAST_BASE_BUF_H

#include "raftstore/base/bytes.h"

#include <stdarg.h>
#include <stdint.h>

struct buf {
    uint8_t *data;     /* Owned; NULL while nothing was added. */
    size_t size;       /* Bytes in use. */
    size_t size_alloc; /* Bytes allocated. */
};

#define BUF_INIT                                                                                   \
    (struct buf)                                                                                   \
    {                                                                                              \
        0                                                                                          \
    }

/* Free what the buffer owns and make it empty; safe on BUF_INIT. */
void buf_deinit(struct buf *b);

/* Make room for `size` more bytes and return where they go; buf.size is not changed. */
uint8_t *buf_reserve(struct buf *b, size_t size);

/* Append bytes. */
void buf_add(struct buf *b, const void *data, size_t size);

/* Append formatted text, without its NUL. */
void buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *b, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));

/* Drop the first `size` bytes (at most buf.size), moving the rest down. */
void buf_consume(struct buf *b, size_t size);

/* malloc(), calloc(), realloc() and strdup() that end the process when memory is out. */
void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *old, size_t size);
char *xstrdup(const char *s);
void *xmemdup(const void *data, size_t size);

/* Formatted text with its NUL, to be freed; out of memory ends the process, too. */
char *xasprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));
char *xvasprintf(const char *format, va_list args) __attribute__((format(printf, 1, 0)));

#endif
