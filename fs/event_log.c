#include "fs/event_log.h"

#include "raftstore/base/fields.h"

#include <assert.h>
#include <stdlib.h>

void event_log_init(struct event_log *l)
{
    *l = (struct event_log){0};
    TAILQ_INIT(&l->chunks);
}

static void drop_oldest(struct event_log *l)
{
    struct event_chunk *c = TAILQ_FIRST(&l->chunks);
    TAILQ_REMOVE(&l->chunks, c, link);
    l->n_chunks--;
    l->begin = c->begin + c->size;
    free(c);
}

void event_log_clear(struct event_log *l)
{
    while (!TAILQ_EMPTY(&l->chunks))
        drop_oldest(l);
    l->begin = l->end = 0;
}

void event_log_add(struct event_log *l, struct bytes lines)
{
    struct event_chunk *c = TAILQ_LAST(&l->chunks, event_chunk_list);
    assert(lines.size <= sizeof c->data);
    if (c == NULL || sizeof c->data - c->size < lines.size) {
        if (l->n_chunks == EVENT_LOG_CHUNKS_MAX)
            drop_oldest(l);
        c = xmalloc(sizeof *c);
        c->begin = l->end;
        c->size = 0;
        TAILQ_INSERT_TAIL(&l->chunks, c, link);
        l->n_chunks++;
    }
    memcpy(c->data + c->size, lines.data, lines.size);
    c->size += lines.size;
    l->end += lines.size;
}

/* What is kept from a position on, up to the end of its chunk. */
static struct bytes piece(const struct event_log *l, uint64_t position)
{
    const struct event_chunk *c;
    TAILQ_FOREACH(c, &l->chunks, link)
    {
        if (position >= c->begin && position - c->begin < c->size)
            return bytes_of(c->data + (position - c->begin),
                            c->size - (size_t)(position - c->begin));
    }
    return (struct bytes){0};
}

/* Where the next line begins, at `position` or behind it. */
static uint64_t line_from(const struct event_log *l, uint64_t position)
{
    if (position <= l->begin)
        return l->begin;
    for (uint64_t at = position - 1; at < l->end;) {
        struct bytes kept = piece(l, at);
        assert(kept.size > 0); /* Everything from the log's beginning to its end is kept. */
        const char *end = memchr(kept.data, '\n', kept.size);
        if (end != NULL)
            return at + (uint64_t)(end - (const char *)kept.data) + 1;
        at += kept.size;
    }
    return l->end;
}

/* The reader stands at `position`, which is kept no more.  At least as much is left out as the
 * gap's line is long: an offset never lies behind the end of the stream. */
static void make_gap(const struct event_log *l,
                     struct event_reader *r,
                     uint64_t offset,
                     uint64_t position,
                     uint64_t wall_ms)
{
    uint64_t least = position + EVENT_LOG_GAP_BYTES;
    uint64_t start = line_from(l, least > l->begin ? least : l->begin);
    r->gap.size = 0;
    field_time(&r->gap, "time", wall_ms);
    field_text(&r->gap, "event", "gap");
    field_u64(&r->gap, "bytes", start - position);
    field_text(&r->gap, "from", "mount");
    field_end(&r->gap);
    if (r->mid_line) {
        buf_add(&r->gap, "\n", 1);
        memmove(r->gap.data + 1, r->gap.data, r->gap.size - 1);
        r->gap.data[0] = '\n';
    }
    assert(r->gap.size < EVENT_LOG_GAP_BYTES);
    r->gap_at = offset;
    r->shift = start - (offset + r->gap.size);
}

/* Append the bytes at one place. */
static void add_from(struct bytes from, size_t at, size_t *left, struct buf *out)
{
    size_t n = from.size - at < *left ? from.size - at : *left;
    buf_add(out, (const char *)from.data + at, n);
    *left -= n;
}

void event_log_read(const struct event_log *l,
                    struct event_reader *r,
                    uint64_t offset,
                    size_t size,
                    uint64_t wall_ms,
                    struct buf *out)
{
    size_t before = out->size, left = size;
    if (offset != r->next) {
        r->shift = 0;
        r->gap.size = 0;
        r->mid_line = false;
    }
    bool in_gap = r->gap.size > 0 && offset >= r->gap_at && offset - r->gap_at < r->gap.size;
    if (!in_gap && offset + r->shift < l->begin) {
        make_gap(l, r, offset, offset + r->shift, wall_ms);
        in_gap = true;
    }
    if (in_gap)
        add_from(bytes_of(r->gap.data, r->gap.size), (size_t)(offset - r->gap_at), &left, out);
    while (left > 0) {
        struct bytes kept = piece(l, offset + r->shift + (size - left));
        if (kept.size == 0)
            break;
        add_from(kept, 0, &left, out);
    }
    r->next = offset + (size - left);
    if (out->size > before)
        r->mid_line = out->data[out->size - 1] != '\n';
}

bool event_log_has_more(const struct event_log *l, const struct event_reader *r)
{
    bool in_gap = r->gap.size > 0 && r->next >= r->gap_at && r->next - r->gap_at < r->gap.size;
    return in_gap || r->next + r->shift < l->end;
}

void event_reader_deinit(struct event_reader *r)
{
    buf_deinit(&r->gap);
}
