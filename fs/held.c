#include "fs/held.h"

#include "raftstore/base/buf.h"

#include <stdlib.h>

void held_uncount(struct held *h)
{
    if (h->counter != NULL && h->n > 0)
        --*h->counter;
    h->counter = NULL;
}

void held_deinit(struct held *h)
{
    held_uncount(h);
    free(h->list);
    *h = (struct held){0};
}

/* Add a range behind the last one, or to it. */
static void append(struct held *h, uint64_t start, uint64_t end, enum held_mode mode)
{
    struct held_range *last = h->n > 0 ? &h->list[h->n - 1] : NULL;
    if (mode == HELD_NONE || start > end)
        return;
    if (last != NULL && last->mode == mode && last->end + 1 == start) {
        last->end = end;
        return;
    }
    h->list[h->n++] = (struct held_range){start, end, mode};
}

void held_set(struct held *h, uint64_t start, uint64_t end, enum held_mode mode)
{
    struct held out = {.n_alloc = h->n + 2,
                       .counter = h->counter}; /* One more, and one cut in two. */
    bool placed = false;
    out.list = xmalloc(out.n_alloc * sizeof out.list[0]);
    for (size_t i = 0; i < h->n; i++) {
        struct held_range r = h->list[i];
        if (r.start < start)
            append(&out, r.start, r.end < start ? r.end : start - 1, r.mode);
        if (!placed && r.end >= start) {
            append(&out, start, end, mode);
            placed = true;
        }
        if (r.end > end)
            append(&out, r.start > end ? r.start : end + 1, r.end, r.mode);
    }
    if (!placed)
        append(&out, start, end, mode);
    free(h->list);
    if (h->counter != NULL)
        *h->counter += (uint64_t)(out.n > 0) - (uint64_t)(h->n > 0);
    *h = out;
}

enum held_mode held_piece(const struct held *h, uint64_t start, uint64_t end, uint64_t *ret_end)
{
    *ret_end = end;
    for (size_t i = 0; i < h->n; i++) {
        const struct held_range *r = &h->list[i];
        if (r->end < start)
            continue;
        if (r->start > start) {
            if (r->start <= end)
                *ret_end = r->start - 1;
            return HELD_NONE;
        }
        if (r->end < end)
            *ret_end = r->end;
        return r->mode;
    }
    return HELD_NONE;
}

bool held_all(const struct held *h)
{
    return h->n == 1 && h->list[0].start == 0 && h->list[0].end == HELD_END &&
           h->list[0].mode == HELD_EXCLUSIVE;
}

bool held_any(const struct held *h, uint64_t start, uint64_t end)
{
    for (size_t i = 0; i < h->n; i++)
        if (h->list[i].start <= end && h->list[i].end >= start)
            return true;
    return false;
}
