#include "raftstore/base/buf.h"

#include <stdio.h>
#include <stdlib.h>

static void out_of_memory(void)
{
    static const char text[] = "level=error msg=\"out of memory; stopping\"\n";
    (void)fwrite(text, 1, sizeof text - 1, stderr); /* Nothing else is left to try. */
    abort();
}

void *xmalloc(size_t size)
{
    void *p = malloc(size > 0 ? size : 1);
    if (p == NULL)
        out_of_memory();
    return p;
}

void *xcalloc(size_t count, size_t size)
{
    void *p = calloc(count > 0 ? count : 1, size > 0 ? size : 1);
    if (p == NULL)
        out_of_memory();
    return p;
}

void *xrealloc(void *old, size_t size)
{
    void *p = realloc(old, size > 0 ? size : 1);
    if (p == NULL)
        out_of_memory();
    return p;
}

void *xmemdup(const void *data, size_t size)
{
    void *p = xmalloc(size);
    if (size > 0)
        memcpy(p, data, size);
    return p;
}

char *xstrdup(const char *s)
{
    return xmemdup(s, strlen(s) + 1);
}

void buf_deinit(struct buf *b)
{
    free(b->data);
    *b = BUF_INIT;
}

uint8_t *buf_reserve(struct buf *b, size_t size)
{
    if (b->size_alloc - b->size < size) {
        size_t want = b->size + size;
        size_t grown = b->size_alloc < 64 ? 64 : b->size_alloc * 2;
        b->size_alloc = want > grown ? want : grown;
        b->data = xrealloc(b->data, b->size_alloc);
    }
    return b->data + b->size;
}

void buf_add(struct buf *b, const void *data, size_t size)
{
    if (size == 0)
        return;
    memcpy(buf_reserve(b, size), data, size);
    b->size += size;
}

void buf_vprintf(struct buf *b, const char *format, va_list args)
{
    size_t room = 128; /* Enough for nearly every line. */
    va_list again;
    va_copy(again, args);
    int size = vsnprintf((char *)buf_reserve(b, room), room, format, again);
    va_end(again);
    if (size <= 0)
        return;
    if ((size_t)size >= room) {
        room = (size_t)size + 1;
        (void)vsnprintf((char *)buf_reserve(b, room), room, format, args);
    }
    b->size += (size_t)size;
}

void buf_printf(struct buf *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    buf_vprintf(b, format, args);
    va_end(args);
}

void buf_consume(struct buf *b, size_t size)
{
    if (size >= b->size) {
        b->size = 0;
        return;
    }
    memmove(b->data, b->data + size, b->size - size);
    b->size -= size;
}

char *xvasprintf(const char *format, va_list args)
{
    struct buf text = BUF_INIT;
    buf_vprintf(&text, format, args);
    buf_add(&text, "", 1);
    return (char *)text.data;
}

char *xasprintf(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = xvasprintf(format, args);
    va_end(args);
    return text;
}
