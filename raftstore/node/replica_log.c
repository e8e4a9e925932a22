#include "raftstore/node/replica_log.h"

#include "raftstore/base/buf.h"

#include <assert.h>
#include <stdlib.h>

struct log_chunk *log_chunk_new(size_t size)
{
    struct log_chunk *c = xmalloc(sizeof *c + size);
    c->n_refs = 1;
    c->size = size;
    return c;
}

struct log_chunk *log_chunk_ref(struct log_chunk *c)
{
    c->n_refs++;
    return c;
}

void log_chunk_unref(struct log_chunk *c)
{
    if (c == NULL)
        return;
    assert(c->n_refs > 0);
    if (--c->n_refs == 0)
        free(c);
}

void log_init(struct replica_log *l, uint64_t first)
{
    *l = (struct replica_log){.first = first};
}

void log_deinit(struct replica_log *l)
{
    log_reset(l, 1);
    free(l->ring);
    l->ring = NULL;
    l->n_alloc = 0;
}

static struct log_entry *log_at(const struct replica_log *l, size_t i)
{
    return &l->ring[(l->head + i) & (l->n_alloc - 1)];
}

const struct log_entry *log_get(const struct replica_log *l, uint64_t index)
{
    if (index < l->first || index - l->first >= l->n)
        return NULL;
    return log_at(l, (size_t)(index - l->first));
}

static void log_grow(struct replica_log *l)
{
    size_t n_alloc = l->n_alloc == 0 ? 256 : l->n_alloc * 2;
    struct log_entry *ring = xcalloc(n_alloc, sizeof *ring);
    for (size_t i = 0; i < l->n; i++)
        ring[i] = *log_at(l, i);
    free(l->ring);
    l->ring = ring;
    l->n_alloc = n_alloc;
    l->head = 0;
}

void log_append(
    struct replica_log *l, uint64_t term, uint32_t type, struct bytes data, struct log_chunk *chunk)
{
    if (l->n == l->n_alloc)
        log_grow(l);
    *log_at(l, l->n) = (struct log_entry){
        .term = term,
        .type = type,
        .data = data,
        .chunk = log_chunk_ref(chunk),
    };
    l->n++;
    l->bytes += data.size;
}

static void log_entry_drop(struct replica_log *l, struct log_entry *e)
{
    assert(l->bytes >= e->data.size);
    l->bytes -= e->data.size;
    log_chunk_unref(e->chunk);
    *e = (struct log_entry){0};
}

void log_truncate(struct replica_log *l, uint64_t from)
{
    assert(from >= l->first);
    while (l->n > 0 && log_last(l) >= from) {
        log_entry_drop(l, log_at(l, l->n - 1));
        l->n--;
    }
}

void log_prune(struct replica_log *l, uint64_t to)
{
    while (l->n > 0 && l->first <= to) {
        log_entry_drop(l, log_at(l, 0));
        l->head = (l->head + 1) & (l->n_alloc - 1);
        l->n--;
        l->first++;
    }
}

void log_reset(struct replica_log *l, uint64_t first)
{
    if (l->n > 0)
        log_prune(l, log_last(l));
    l->first = first;
    l->head = 0;
}
