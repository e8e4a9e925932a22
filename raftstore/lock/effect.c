/* What a step did: the list of effects and the bytes that they point to. */
#include "raftstore/lock/table.h"

#include <stdlib.h>

#define CHUNK_BYTES 16384

/* Forget the last step's; one chunk is kept for the next. */
void effects_begin(struct lock_table *t)
{
    t->n_effects = 0;
    struct arena_chunk *c = t->arena;
    while (c != NULL && c->next != NULL) {
        t->arena = c->next;
        free(c);
        c = t->arena;
    }
    if (c != NULL)
        c->used = 0;
    if (t->effects_alloc > 4096) { /* After a burst. */
        free(t->effects);
        t->effects = NULL;
        t->effects_alloc = 0;
    }
}

void *effects_alloc(struct lock_table *t, size_t size)
{
    struct arena_chunk *c = t->arena;
    if (c == NULL || c->size - c->used < size) {
        size_t room = size > CHUNK_BYTES ? size : CHUNK_BYTES;
        c = xmalloc(sizeof *c + room);
        *c = (struct arena_chunk){.next = t->arena, .size = room};
        t->arena = c;
    }
    char *p = c->data + c->used;
    c->used += size;
    return p;
}

struct bytes effects_keep(struct lock_table *t, struct bytes b)
{
    if (b.size == 0)
        return bytes_of(NULL, 0);
    char *p = effects_alloc(t, b.size);
    memcpy(p, b.data, b.size);
    return bytes_of(p, b.size);
}

struct bytes effects_path(struct lock_table *t, const struct node *n)
{
    size_t size = node_path_size(n);
    char *p = effects_alloc(t, size);
    node_path_write(n, p);
    return bytes_of(p, size);
}

/* A new effect, all zero but for its type; valid until the next one is added. */
struct lock_effect *effect_add(struct lock_table *t, enum lock_effect_type type)
{
    ARRAY_RESERVE(t->effects, t->n_effects, t->effects_alloc);
    struct lock_effect *e = &t->effects[t->n_effects++];
    *e = (struct lock_effect){.type = type};
    return e;
}

struct lock_effect *
effect_hold(struct lock_table *t, enum lock_effect_type type, const struct hold *h)
{
    struct lock_effect *e = effect_add(t, type);
    e->mode = h->exclusive ? LOCK_EXCLUSIVE : LOCK_SHARED;
    e->limit = hold_limit(h);
    e->kind = (enum lock_kind)h->kind;
    e->session_id = h->session_id;
    e->token = h->token;
    e->deadline_ns = hold_deadline(h);
    e->ttl_ms = h->ttl_ms;
    e->start = hold_start(h);
    e->end = hold_end(h);
    e->path = effects_path(t, h->node);
    e->owner = effects_keep(t, hold_owner(h));
    e->pid = h->pid;
    e->uid = h->uid;
    return e;
}

struct lock_effect *effect_waiter(struct lock_table *t,
                                  enum lock_effect_type type,
                                  const struct waiter *w,
                                  const struct node *n)
{
    struct lock_effect *e = effect_add(t, type);
    e->mode = w->exclusive ? LOCK_EXCLUSIVE : LOCK_SHARED;
    e->limit = w->limit;
    e->kind = w->kind;
    e->session_id = w->session->id;
    e->seq = w->seq;
    e->ttl_ms = w->ttl_ms;
    e->start = w->start;
    e->end = w->end;
    e->path = effects_path(t, n);
    e->owner = effects_keep(t, waiter_owner(w));
    e->pid = w->pid;
    e->uid = w->uid;
    return e;
}
