/* The queue of deadlines: a binary heap with back-indexes.
 *
 * Equal deadlines come up by type and then by what is unique in the state (token and start,
 * path, session id, queue number), so the order is the same after a restore. */
#include "raftstore/lock/table.h"

#include <assert.h>

#define TYPE_MASK ((uintptr_t)3)

static void *object_of(uintptr_t item)
{
    return (void *)(item & ~TYPE_MASK);
}

static enum heap_type type_of(uintptr_t item)
{
    return (enum heap_type)(item & TYPE_MASK);
}

static uintptr_t item_of(enum heap_type type, void *object)
{
    assert(((uintptr_t)object & TYPE_MASK) == 0);
    return (uintptr_t)object | (uintptr_t)type;
}

static uint32_t *index_of(uintptr_t item)
{
    void *object = object_of(item);
    switch (type_of(item)) {
    case HEAP_HOLD:
        return &((struct hold *)object)->heap_index;
    case HEAP_DELAY:
        return &((struct node *)object)->crowd->delay_heap_index;
    case HEAP_SESSION:
        return &((struct session *)object)->heap_index;
    default:
        return &((struct waiter *)object)->heap_index;
    }
}

uint64_t heap_deadline(uintptr_t item)
{
    void *object = object_of(item);
    switch (type_of(item)) {
    case HEAP_HOLD:
        return hold_deadline(object);
    case HEAP_DELAY:
        return ((struct node *)object)->crowd->delay_until_ns;
    case HEAP_SESSION:
        return ((struct session *)object)->deadline_ns;
    default:
        return ((struct waiter *)object)->deadline_ns;
    }
}

static int numbers_order(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int nodes_order(const struct node *a, const struct node *b)
{
    if (a->parent != b->parent)
        return numbers_order(a->parent->directory->id, b->parent->directory->id);
    return bytes_compare(node_name(a), node_name(b));
}

static bool before(uintptr_t a, uintptr_t b)
{
    uint64_t da = heap_deadline(a), db = heap_deadline(b);
    if (da != db)
        return da < db;
    if (type_of(a) != type_of(b))
        return type_of(a) < type_of(b);
    const void *pa = object_of(a), *pb = object_of(b);
    switch (type_of(a)) {
    case HEAP_HOLD:
        return hold_order(pa, pb) < 0;
    case HEAP_DELAY:
        return nodes_order(pa, pb) < 0;
    case HEAP_SESSION:
        return ((const struct session *)pa)->id < ((const struct session *)pb)->id;
    default:
        return ((const struct waiter *)pa)->queue_number <
               ((const struct waiter *)pb)->queue_number;
    }
}

static void put(struct lock_table *t, size_t at, uintptr_t item)
{
    t->heap[at] = item;
    *index_of(item) = (uint32_t)at;
}

static void sift_up(struct lock_table *t, size_t at)
{
    uintptr_t item = t->heap[at];
    while (at > 1 && before(item, t->heap[at / 2])) {
        put(t, at, t->heap[at / 2]);
        at /= 2;
    }
    put(t, at, item);
}

static void sift_down(struct lock_table *t, size_t at)
{
    uintptr_t item = t->heap[at];
    for (;;) {
        size_t child = at * 2;
        if (child > t->n_heap)
            break;
        if (child < t->n_heap && before(t->heap[child + 1], t->heap[child]))
            child++;
        if (!before(t->heap[child], item))
            break;
        put(t, at, t->heap[child]);
        at = child;
    }
    put(t, at, item);
}

void heap_add(struct lock_table *t, enum heap_type type, void *object)
{
    if (t->n_heap + 1 >= t->heap_alloc) {
        t->heap_alloc = t->heap_alloc == 0 ? 64 : t->heap_alloc + t->heap_alloc / 2;
        t->heap = xrealloc(t->heap, t->heap_alloc * sizeof *t->heap);
    }
    t->heap[++t->n_heap] = item_of(type, object);
    sift_up(t, t->n_heap);
}

void heap_remove(struct lock_table *t, enum heap_type type, void *object)
{
    uintptr_t item = item_of(type, object);
    size_t at = *index_of(item);
    assert(at >= 1 && at <= t->n_heap && t->heap[at] == item);
    *index_of(item) = 0;
    uintptr_t last = t->heap[t->n_heap--];
    if (last == item)
        return;
    put(t, at, last);
    sift_up(t, at);
    sift_down(t, *index_of(last));
}

void heap_moved(struct lock_table *t, enum heap_type type, void *object)
{
    uintptr_t item = item_of(type, object);
    sift_up(t, *index_of(item));
    sift_down(t, *index_of(item));
}

uint64_t lock_next_deadline_ns(const struct lock_table *t)
{
    return t->n_heap == 0 ? LOCK_DEADLINE_NEVER : heap_deadline(t->heap[1]);
}

const char *heap_check(const struct lock_table *t)
{
    for (size_t i = 1; i <= t->n_heap; i++) {
        if (*index_of(t->heap[i]) != i)
            return "a deadline does not know its place in the heap";
        if (i > 1 && before(t->heap[i], t->heap[i / 2]))
            return "the heap of deadlines is out of order";
    }
    return NULL;
}
