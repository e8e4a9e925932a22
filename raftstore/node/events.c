#include "raftstore/node/events.h"

#include "raftstore/base/clock.h"
#include "raftstore/node/translate.h"
#include "raftstore/wire/pack.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define CHUNK_BYTES (128u * 1024u)
#define N_BUCKETS   1024u /* A power of two. */

/* One effect: the struct as it was, its bytes behind it. */
struct record {
    uint64_t index;
    uint64_t stamp_ns;
    uint64_t size;             /* Of all of it, a multiple of 8. */
    struct lock_effect effect; /* Its pointers are stale: see record_effect(). */
};

struct chunk {
    TAILQ_ENTRY(chunk) link;
    uint64_t last_ms; /* When it was last added to. */
    size_t room;      /* Bytes. */
    size_t size;      /* Bytes in use. */
    uint64_t n;       /* Records; never 0. */
    uint64_t last_index;
    _Alignas(8) uint8_t data[];
};

TAILQ_HEAD(chunk_list, chunk);
LIST_HEAD(sub_list, events_sub);

struct events {
    struct chunk_list chunks; /* Oldest first. */
    uint64_t n_records;
    uint64_t bytes;
    uint64_t lost_to; /* Effects up to this index may be missing. */
    uint64_t now_ms;
    uint64_t serial; /* Counts effects: a subscriber gets each only once. */
    unsigned n_subs;
    struct events_counts counts;
    struct sub_list by_session[N_BUCKETS];
    struct sub_list with_prefixes;
    struct buf field; /* One encoded event. */
};

struct events *events_new(void)
{
    struct events *e = xcalloc(1, sizeof *e);
    TAILQ_INIT(&e->chunks);
    LIST_INIT(&e->with_prefixes);
    for (unsigned i = 0; i < N_BUCKETS; i++)
        LIST_INIT(&e->by_session[i]);
    return e;
}

/* The ring. -------------------------------------------------------------------------------- */

static struct chunk *take_oldest(struct events *e)
{
    struct chunk *c = TAILQ_FIRST(&e->chunks);
    TAILQ_REMOVE(&e->chunks, c, link);
    e->lost_to = c->last_index;
    e->n_records -= c->n;
    e->bytes -= sizeof *c + c->room;
    return c;
}

static void drop_oldest(struct events *e)
{
    free(take_oldest(e));
}

void events_free(struct events *e)
{
    if (e == NULL)
        return;
    assert(e->n_subs == 0);
    events_lost(e, 0);
    buf_deinit(&e->field);
    free(e);
}

void events_lost(struct events *e, uint64_t index)
{
    while (!TAILQ_EMPTY(&e->chunks))
        drop_oldest(e);
    e->lost_to = index;
}

void events_trim(struct events *e, uint64_t now_ms)
{
    struct chunk *c;
    e->now_ms = now_ms;
    while ((c = TAILQ_FIRST(&e->chunks)) != NULL && now_ms - c->last_ms > EVENTS_AGE_MS)
        drop_oldest(e);
}

/* Room for a new chunk, which a full ring makes by giving up its oldest.
 *
 * Return: the memory of the last one given up, to be used again: fresh pages cost more than all
 * else here. */
static struct chunk *make_room(struct events *e, size_t size)
{
    struct chunk *c = NULL;
    while (!TAILQ_EMPTY(&e->chunks) &&
           (e->bytes + size > EVENTS_BYTES_MAX || e->n_records >= EVENTS_RECORDS_MAX)) {
        free(c);
        c = take_oldest(e);
    }
    return c;
}

static struct chunk *chunk_for(struct events *e, size_t size)
{
    struct chunk *c = TAILQ_LAST(&e->chunks, chunk_list);
    if (c != NULL && c->room - c->size >= size)
        return c;
    size_t room = size > CHUNK_BYTES ? size : CHUNK_BYTES;
    c = make_room(e, sizeof *c + room);
    if (c == NULL || c->room != room) {
        free(c);
        c = xmalloc(sizeof *c + room);
    }
    c->room = room;
    c->size = 0;
    c->n = 0;
    TAILQ_INSERT_TAIL(&e->chunks, c, link);
    e->bytes += sizeof *c + room;
    return c;
}

static uint8_t *put_bytes(uint8_t *out, struct bytes b)
{
    if (b.size > 0)
        memcpy(out, b.data, b.size);
    return out + b.size;
}

static void
ring_add(struct events *e, uint64_t index, uint64_t stamp_ns, const struct lock_effect *f)
{
    size_t size = sizeof(struct record) + f->path.size + f->path2.size + f->owner.size;
    size = (size + 7) & ~(size_t)7;
    struct chunk *c = chunk_for(e, size);
    struct record *r = (struct record *)(c->data + c->size);
    r->index = index;
    r->stamp_ns = stamp_ns;
    r->size = size;
    r->effect = *f;
    (void)put_bytes(put_bytes(put_bytes((uint8_t *)(r + 1), f->path), f->path2), f->owner);
    c->size += size;
    c->n++;
    c->last_ms = e->now_ms;
    c->last_index = index;
    e->n_records++;
}

/* The effect of a record, with pointers into the record. */
static struct lock_effect record_effect(const struct record *r)
{
    struct lock_effect f = r->effect;
    const uint8_t *p = (const uint8_t *)(r + 1);
    f.path.data = p;
    f.path2.data = p + f.path.size;
    f.owner.data = p + f.path.size + f.path2.size;
    return f;
}

/* Matching. -------------------------------------------------------------------------------- */

static struct sub_list *bucket(struct events *e, uint64_t session_id)
{
    return &e->by_session[(session_id * UINT64_C(0x9e3779b97f4a7c15)) >> 54 & (N_BUCKETS - 1)];
}

static bool path_below(struct bytes path, struct bytes prefix)
{
    const uint8_t *p = path.data;
    if (prefix.size == 0)
        return true;
    return path.size >= prefix.size && memcmp(p, prefix.data, prefix.size) == 0 &&
           (path.size == prefix.size || p[prefix.size] == '/');
}

static bool sub_wants_path(const struct events_sub *sub, const struct lock_effect *f)
{
    for (unsigned i = 0; i < sub->n_prefixes; i++)
        if (path_below(f->path, sub->prefixes[i]) ||
            (f->path2.size > 0 && path_below(f->path2, sub->prefixes[i])))
            return true;
    return false;
}

static bool sub_wants(const struct events_sub *sub, const struct lock_effect *f)
{
    return (sub->session_id != 0 && sub->session_id == f->session_id) || sub_wants_path(sub, f);
}

/* Encode as one field `events` of the message Events: tag 1, length, the Event. */
static struct bytes encode(struct events *e,
                           uint64_t index,
                           uint64_t stamp_ns,
                           const struct lock_effect *f,
                           int64_t wall_offset_ns)
{
    Hf__Event event = HF__EVENT__INIT;
    translate_effect(f, index, stamp_ns, &event);
    event.wall_ms = (uint64_t)((int64_t)stamp_ns + wall_offset_ns) / NS_PER_MS;
    size_t size = hf__event__get_packed_size(&event);
    e->field.size = 0;
    uint8_t *p = buf_reserve(&e->field, size + 6);
    size_t n = 0;
    p[n++] = 1 << 3 | 2;
    for (size_t left = size; n == 1 || left > 0; left >>= 7)
        p[n++] = (uint8_t)((left & 0x7f) | (left > 0x7f ? 0x80 : 0));
    n += hf__event__pack(&event, p + n);
    return bytes_of(p, n);
}

static void deliver_to(struct events *e,
                       struct events_sub *sub,
                       uint64_t index,
                       uint64_t stamp_ns,
                       const struct lock_effect *f,
                       int64_t wall_offset_ns,
                       struct bytes *field)
{
    struct lock_effect room;
    if (sub->last_serial == e->serial || index <= sub->after_index)
        return;
    sub->last_serial = e->serial;
    const struct lock_effect *told = sub->filter == NULL ? f : sub->filter(sub->arg, f, &room);
    if (told == NULL)
        return;
    if (told != f) {
        e->counts.delivered++;
        sub->deliver(sub->arg, encode(e, index, stamp_ns, told, wall_offset_ns));
        *field = bytes_of(NULL, 0); /* Its bytes were overwritten. */
        return;
    }
    if (field->data == NULL)
        *field = encode(e, index, stamp_ns, f, wall_offset_ns);
    e->counts.delivered++;
    sub->deliver(sub->arg, *field);
}

static void publish(struct events *e,
                    uint64_t index,
                    uint64_t stamp_ns,
                    const struct lock_effect *f,
                    int64_t wall_offset_ns)
{
    struct bytes field = {0};
    struct events_sub *sub;
    e->serial++;
    if (f->session_id != 0) {
        LIST_FOREACH(sub, bucket(e, f->session_id), session_link)
        if (sub->session_id == f->session_id)
            deliver_to(e, sub, index, stamp_ns, f, wall_offset_ns, &field);
    }
    LIST_FOREACH(sub, &e->with_prefixes, prefix_link)
    if (sub_wants_path(sub, f))
        deliver_to(e, sub, index, stamp_ns, f, wall_offset_ns, &field);
}

static void count(struct events_counts *n, const struct lock_effect *f)
{
    switch (f->type) {
    case LOCK_EFFECT_GRANTED:
    case LOCK_EFFECT_CONVERTED:
        n->grants++;
        break;
    case LOCK_EFFECT_QUEUED:
        n->waits++;
        break;
    case LOCK_EFFECT_REFUSED:
        n->refusals++;
        break;
    case LOCK_EFFECT_RENEWED:
        n->renewals++;
        break;
    case LOCK_EFFECT_ENDED:
        n->releases += f->code == LOCK_RELEASED;
        n->expiries += f->code == LOCK_EXPIRED;
        n->other_ends += f->code != LOCK_RELEASED && f->code != LOCK_EXPIRED;
        break;
    case LOCK_EFFECT_SESSION_ENDED:
        n->sessions_ended++;
        break;
    default:
        break;
    }
}

void events_add(struct events *e,
                uint64_t index,
                uint64_t stamp_ns,
                const struct lock_effects *effects,
                int64_t wall_offset_ns)
{
    for (size_t i = 0; i < effects->n; i++) {
        ring_add(e, index, stamp_ns, &effects->list[i]);
        count(&e->counts, &effects->list[i]);
        if (e->n_subs > 0)
            publish(e, index, stamp_ns, &effects->list[i], wall_offset_ns);
    }
}

/* Subscribers. ----------------------------------------------------------------------------- */

int events_subscribe(struct events *e, struct events_sub *sub, const Hf__Subscribe *request)
{
    if (request->n_prefixes > EVENTS_PREFIXES_MAX)
        return -EINVAL;
    events_unsubscribe(e, sub);
    sub->session_id = request->session_id;
    sub->n_prefixes = (unsigned)request->n_prefixes;
    sub->prefixes = sub->n_prefixes > 0 ? xcalloc(sub->n_prefixes, sizeof *sub->prefixes) : NULL;
    for (unsigned i = 0; i < sub->n_prefixes; i++) {
        struct bytes b = pack_bytes(request->prefixes[i]);
        sub->prefixes[i] = bytes_of(xmemdup(b.data, b.size), b.size);
    }
    if (sub->session_id != 0)
        LIST_INSERT_HEAD(bucket(e, sub->session_id), sub, session_link);
    if (sub->n_prefixes > 0)
        LIST_INSERT_HEAD(&e->with_prefixes, sub, prefix_link);
    sub->active = true;
    e->n_subs++;
    return 0;
}

void events_unsubscribe(struct events *e, struct events_sub *sub)
{
    if (!sub->active)
        return;
    if (sub->session_id != 0)
        LIST_REMOVE(sub, session_link);
    if (sub->n_prefixes > 0)
        LIST_REMOVE(sub, prefix_link);
    for (unsigned i = 0; i < sub->n_prefixes; i++)
        free((void *)(uintptr_t)sub->prefixes[i].data);
    free(sub->prefixes);
    sub->prefixes = NULL;
    sub->n_prefixes = 0;
    sub->active = false;
    e->n_subs--;
}

bool events_reach(const struct events *e, uint64_t from_index)
{
    return from_index >= e->lost_to;
}

void events_replay(struct events *e, struct events_sub *sub, int64_t wall_offset_ns)
{
    const struct chunk *c;
    TAILQ_FOREACH(c, &e->chunks, link)
    {
        if (c->last_index <= sub->after_index)
            continue;
        for (size_t at = 0; at < c->size && sub->active;) {
            const struct record *r = (const struct record *)(c->data + at);
            const struct lock_effect f = record_effect(r);
            struct bytes field = {0};
            e->serial++;
            if (r->index > sub->after_index && sub_wants(sub, &f))
                deliver_to(e, sub, r->index, r->stamp_ns, &f, wall_offset_ns, &field);
            at += r->size;
        }
    }
}

unsigned events_n_subs(const struct events *e)
{
    return e->n_subs;
}

struct events_counts events_counts(const struct events *e)
{
    return e->counts;
}

uint64_t events_bytes(const struct events *e)
{
    return e->bytes;
}
