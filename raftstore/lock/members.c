/* Whose holds and waiters stand at a lock, and where: lists while they are few, else an index
 * of owners (open addressing: Knuth, volume 3, 6.4, algorithms L and R) and one of ranges.
 *
 * The order in the indexes depends on history; where order matters, the callers sort. */
#include "raftstore/lock/table.h"

#include <assert.h>
#include <stdlib.h>

#define OWN_FEW 8 /* Holds of one owner that are looked through one by one. */

static uint32_t owner_hash(struct bytes owner)
{
    uint64_t h = owner.size + UINT64_C(0x9e3779b97f4a7c15);
    const unsigned char *p = owner.data;
    for (size_t left = owner.size; left > 0;) {
        uint64_t w = 0;
        size_t size = left < sizeof w ? left : sizeof w;
        memcpy(&w, p, size);
        h = digest_fold(h ^ w, UINT64_C(0x8bb84b93962eacc9));
        p += size;
        left -= size;
    }
    return (uint32_t)(h ^ h >> 32);
}

static struct bytes owner_name(const struct owner *o)
{
    return bytes_of(o->name, o->name_size);
}

static struct owner *find(const struct index *x, struct bytes name)
{
    uint32_t hash = owner_hash(name);
    for (size_t i = hash & x->mask; x->slots[i] != NULL; i = (i + 1) & x->mask) {
        if (x->slots[i]->hash == hash && bytes_equal(owner_name(x->slots[i]), name))
            return x->slots[i];
    }
    return NULL;
}

static void put(struct index *x, struct owner *o)
{
    size_t i = o->hash & x->mask;
    while (x->slots[i] != NULL)
        i = (i + 1) & x->mask;
    x->slots[i] = o;
}

static void resize(struct index *x, size_t n_slots)
{
    struct owner **old = x->slots;
    size_t n_old = old == NULL ? 0 : x->mask + 1;
    x->slots = xcalloc(n_slots, sizeof(struct owner *));
    x->mask = n_slots - 1;
    for (size_t i = 0; i < n_old; i++) {
        if (old[i] != NULL)
            put(x, old[i]);
    }
    free(old);
}

static struct owner *need(struct index *x, struct bytes name)
{
    struct owner *o = find(x, name);
    if (o != NULL)
        return o;
    if ((x->n_owners + 1) * 4 > (x->mask + 1) * 3)
        resize(x, (x->mask + 1) * 2);
    o = xcalloc(1, sizeof *o + name.size);
    o->hash = owner_hash(name);
    o->name_size = (uint8_t)name.size;
    memcpy(o->name, name.data, name.size);
    put(x, o);
    x->n_owners++;
    return o;
}

/* Free an owner that has nothing here any more, and close its gap: what probed past it moves up. */
static void drop(struct index *x, struct owner *o)
{
    if (o->n_holds > 0 || o->n_links > 0)
        return;
    size_t i = o->hash & x->mask;
    while (x->slots[i] != o)
        i = (i + 1) & x->mask;
    for (size_t j = (i + 1) & x->mask; x->slots[j] != NULL; j = (j + 1) & x->mask) {
        size_t home = x->slots[j]->hash & x->mask;
        if (((j - home) & x->mask) >= ((j - i) & x->mask)) {
            x->slots[i] = x->slots[j];
            i = j;
        }
    }
    x->slots[i] = NULL;
    x->n_owners--;
    free(o);
}

void members_add_hold(struct crowd *c, struct hold *h)
{
    struct index *x = c->index;
    if (x == NULL)
        return;
    struct owner *o = need(x, hold_owner(h));
    struct member *m = xcalloc(1, sizeof *m);
    m->hold = h;
    m->owner = o;
    m->own_next = o->members;
    if (o->members != NULL)
        o->members->own_prev = m;
    o->members = m;
    o->n_holds++;
    x->ranges = ranges_add(x->ranges, m);
}

void members_remove_hold(struct crowd *c, const struct hold *h)
{
    struct index *x = c->index;
    struct member *m;
    if (x == NULL)
        return;
    x->ranges = ranges_remove(x->ranges, h, &m);
    if (m->own_next != NULL)
        m->own_next->own_prev = m->own_prev;
    if (m->own_prev != NULL)
        m->own_prev->own_next = m->own_next;
    else
        m->owner->members = m->own_next;
    m->owner->n_holds--;
    drop(x, m->owner);
    free(m);
}

void members_add_link(struct crowd *c, const struct link *l)
{
    if (c->index != NULL)
        need(c->index, waiter_owner(l->waiter))->n_links++;
}

void members_remove_link(struct crowd *c, const struct link *l)
{
    if (c->index == NULL)
        return;
    struct owner *o = find(c->index, waiter_owner(l->waiter));
    o->n_links--;
    drop(c->index, o);
}

static void free_ranges(struct member *m)
{
    if (m == NULL)
        return;
    free_ranges(m->child[0]);
    free_ranges(m->child[1]);
    free(m);
}

void members_free(struct crowd *c)
{
    struct index *x = c->index;
    if (x == NULL)
        return;
    for (size_t i = 0; i <= x->mask; i++)
        free(x->slots[i]);
    free_ranges(x->ranges);
    free(x->slots);
    free(x);
    c->index = NULL;
}

/* Build or drop the index as the crowd grows or shrinks. */
void members_review(struct node *n)
{
    struct crowd *c = n->crowd;
    size_t count = c->n_holds + c->n_links;
    struct link *l;
    if (c->index != NULL && count < LOCK_CROWD_MANY / 2)
        members_free(c);
    if (c->index != NULL || count <= LOCK_CROWD_MANY)
        return;
    c->index = xcalloc(1, sizeof *c->index);
    resize(c->index, (size_t)LOCK_CROWD_MANY * 2);
    for (struct hold *h = n->holds; h != NULL; h = h->next)
        members_add_hold(c, h);
    for (int i = 0; i < 2; i++) {
        TAILQ_FOREACH(l, i == 0 ? &c->front : &c->line, entry)
        members_add_link(c, l);
    }
}

static const struct index *index_of(const struct node *n)
{
    return n->crowd == NULL ? NULL : n->crowd->index;
}

/* A cursor over the holds of one owner, in no certain order. */
struct owner_cursor owner_holds(const struct node *n, struct bytes owner)
{
    const struct index *x = index_of(n);
    if (x == NULL)
        return (struct owner_cursor){.owner = owner, .at = n->holds};
    const struct owner *o = find(x, owner);
    return (struct owner_cursor){.member = o == NULL ? NULL : o->members};
}

struct hold *owner_next(struct owner_cursor *c)
{
    struct hold *h = NULL;
    if (c->member != NULL) {
        h = c->member->hold;
        c->member = c->member->own_next;
        return h;
    }
    while (c->at != NULL && h == NULL) {
        if (bytes_equal(hold_owner(c->at), c->owner))
            h = c->at;
        c->at = c->at->next;
    }
    return h;
}

bool owner_waits(const struct node *n, struct bytes owner)
{
    const struct index *x = index_of(n);
    const struct link *l;
    if (n->crowd == NULL || n->crowd->n_links == 0)
        return false;
    if (x != NULL) {
        const struct owner *o = find(x, owner);
        return o != NULL && o->n_links > 0;
    }
    for (int i = 0; i < 2; i++) {
        TAILQ_FOREACH(l, i == 0 ? &n->crowd->front : &n->crowd->line, entry)
        if (bytes_equal(waiter_owner(l->waiter), owner))
            return true;
    }
    return false;
}

/* Visit the holds that meet a range, in no certain order without an index, else by start. */
bool holds_visit(const struct node *n,
                 uint64_t start,
                 uint64_t end,
                 bool exclusive_only,
                 bool (*visit)(void *arg, struct hold *h),
                 void *arg)
{
    const struct index *x = index_of(n);
    if (x != NULL)
        return ranges_visit(x->ranges, start, end, exclusive_only, visit, arg);
    for (struct hold *h = n->holds; h != NULL; h = h->next) {
        if (hold_start(h) <= end && start <= hold_end(h) && (!exclusive_only || h->exclusive) &&
            !visit(arg, h))
            return false;
    }
    return true;
}

struct own_visit {
    struct bytes owner;
    bool (*visit)(void *arg, struct hold *h);
    void *arg;
};

static bool visit_if_own(void *arg, struct hold *h)
{
    const struct own_visit *v = arg;
    return !bytes_equal(hold_owner(h), v->owner) || v->visit(v->arg, h);
}

/* As holds_visit(), of one owner only: by the owner when it has few, by the range else. */
bool own_visit(const struct node *n,
               struct bytes owner,
               uint64_t start,
               uint64_t end,
               bool (*visit)(void *arg, struct hold *h),
               void *arg)
{
    const struct index *x = index_of(n);
    struct own_visit v = {owner, visit, arg};
    const struct owner *o = x == NULL ? NULL : find(x, owner);
    if (x == NULL || (o != NULL && o->n_holds > OWN_FEW))
        return holds_visit(n, start, end, false, visit_if_own, &v);
    for (struct member *m = o == NULL ? NULL : o->members; m != NULL; m = m->own_next) {
        if (hold_start(m->hold) <= end && start <= hold_end(m->hold) && !visit(arg, m->hold))
            return false;
    }
    return true;
}

static int own_order(const void *a, const void *b)
{
    return hold_order(*(struct hold *const *)a, *(struct hold *const *)b);
}

bool own_add(void *arg, struct hold *h)
{
    struct lock_table *t = arg;
    ARRAY_RESERVE(t->own, t->n_own, t->own_alloc);
    t->own[t->n_own++] = h;
    return true;
}

void own_sort(struct lock_table *t)
{
    if (t->n_own > 1)
        qsort(t->own, t->n_own, sizeof t->own[0], own_order);
}

/* Collect in t->own, by (token, start), an owner's holds that meet a range. */
void own_collect(
    struct lock_table *t, const struct node *n, struct bytes owner, uint64_t start, uint64_t end)
{
    t->n_own = 0;
    (void)own_visit(n, owner, start, end, own_add, t); /* The visitor never stops it. */
    own_sort(t);
}
