/* Whose holds and waiters stand at a lock: a list while they are few, else a hash table with
 * open addressing (Knuth, volume 3, 6.4, algorithms L and R).
 *
 * The order in the table depends on history; where order matters, owner_collect() sorts. */
#include "raftstore/lock/table.h"

#include <assert.h>
#include <stdlib.h>

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

static bool item_is_link(uintptr_t item)
{
    return (item & 1) != 0;
}

static struct bytes item_owner(uintptr_t item)
{
    if (item_is_link(item))
        return waiter_owner(((const struct link *)(item - 1))->waiter);
    return hold_owner((const struct hold *)item);
}

static void put(struct crowd *c, uintptr_t item, uint32_t hash)
{
    size_t i = hash & c->owners_mask;
    while (c->owners[i].item != 0)
        i = (i + 1) & c->owners_mask;
    c->owners[i] = (struct owner_slot){item, hash};
}

static void resize(struct crowd *c, size_t n_slots)
{
    struct owner_slot *old = c->owners;
    size_t n_old = old == NULL ? 0 : c->owners_mask + 1;
    c->owners = xcalloc(n_slots, sizeof *c->owners);
    c->owners_mask = n_slots - 1;
    for (size_t i = 0; i < n_old; i++) {
        if (old[i].item != 0)
            put(c, old[i].item, old[i].hash);
    }
    free(old);
}

void owners_add(struct crowd *c, uintptr_t item)
{
    if ((c->n_owners + 1) * 4 > (c->owners_mask + 1) * 3)
        resize(c, (c->owners_mask + 1) * 2);
    put(c, item, owner_hash(item_owner(item)));
    c->n_owners++;
}

void owners_remove(struct crowd *c, uintptr_t item)
{
    size_t mask = c->owners_mask;
    size_t i = owner_hash(item_owner(item)) & mask;
    while (c->owners[i].item != item) {
        assert(c->owners[i].item != 0);
        i = (i + 1) & mask;
    }
    c->n_owners--;
    /* Close the gap: what probed past it moves up. */
    for (size_t j = (i + 1) & mask; c->owners[j].item != 0; j = (j + 1) & mask) {
        size_t home = c->owners[j].hash & mask;
        if (((j - home) & mask) >= ((j - i) & mask)) {
            c->owners[i] = c->owners[j];
            i = j;
        }
    }
    c->owners[i].item = 0;
}

void owners_review(struct node *n)
{
    struct crowd *c = n->crowd;
    size_t count = c->n_holds + c->n_links;
    if (c->owners != NULL && count < LOCK_CROWD_MANY / 2) {
        free(c->owners);
        c->owners = NULL;
        c->n_owners = 0;
    }
    if (c->owners != NULL || count <= LOCK_CROWD_MANY)
        return;
    resize(c, (size_t)LOCK_CROWD_MANY * 4);
    for (struct hold *h = n->holds; h != NULL; h = h->next)
        owners_add(c, (uintptr_t)h);
    struct link *l;
    TAILQ_FOREACH(l, &c->front, entry)
    owners_add(c, (uintptr_t)l + 1);
    TAILQ_FOREACH(l, &c->line, entry)
    owners_add(c, (uintptr_t)l + 1);
}

struct owner_cursor owner_holds(const struct node *n, struct bytes owner)
{
    struct owner_cursor c = {.node = n, .owner = owner, .at = n->holds};
    if (n->crowd != NULL && n->crowd->owners != NULL) {
        c.indexed = true;
        c.hash = owner_hash(owner);
        c.slot = c.hash & n->crowd->owners_mask;
    }
    return c;
}

struct hold *owner_next(struct owner_cursor *c)
{
    if (!c->indexed) {
        while (c->at != NULL) {
            struct hold *h = c->at;
            c->at = h->next;
            if (bytes_equal(hold_owner(h), c->owner))
                return h;
        }
        return NULL;
    }
    const struct crowd *crowd = c->node->crowd;
    for (;;) {
        const struct owner_slot *s = &crowd->owners[c->slot];
        if (s->item == 0)
            return NULL;
        c->slot = (c->slot + 1) & crowd->owners_mask;
        if (s->hash == c->hash && !item_is_link(s->item) &&
            bytes_equal(item_owner(s->item), c->owner))
            return (struct hold *)s->item;
    }
}

bool owner_waits(const struct node *n, struct bytes owner)
{
    const struct crowd *c = n->crowd;
    if (c == NULL || c->n_links == 0)
        return false;
    if (c->owners == NULL) {
        const struct link *l;
        TAILQ_FOREACH(l, &c->front, entry)
        if (bytes_equal(waiter_owner(l->waiter), owner))
            return true;
        TAILQ_FOREACH(l, &c->line, entry)
        if (bytes_equal(waiter_owner(l->waiter), owner))
            return true;
        return false;
    }
    uint32_t hash = owner_hash(owner);
    for (size_t i = hash & c->owners_mask; c->owners[i].item != 0; i = (i + 1) & c->owners_mask) {
        const struct owner_slot *s = &c->owners[i];
        if (s->hash == hash && item_is_link(s->item) && bytes_equal(item_owner(s->item), owner))
            return true;
    }
    return false;
}

static int own_order(const void *a, const void *b)
{
    return hold_order(*(struct hold *const *)a, *(struct hold *const *)b);
}

void owner_collect(struct lock_table *t, const struct node *n, struct bytes owner)
{
    struct owner_cursor c = owner_holds(n, owner);
    struct hold *h;
    t->n_own = 0;
    while ((h = owner_next(&c)) != NULL) {
        ARRAY_RESERVE(t->own, t->n_own, t->own_alloc);
        t->own[t->n_own++] = h;
    }
    if (c.indexed && t->n_own > 1)
        qsort(t->own, t->n_own, sizeof t->own[0], own_order);
}
