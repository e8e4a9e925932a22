#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static struct bytes keep(struct sim_image *i, struct bytes b)
{
    void *copy = arena_alloc(&i->arena, b.size + 1);
    if (b.size > 0)
        memcpy(copy, b.data, b.size);
    return bytes_of(copy, b.size);
}

static int image_visit(void *arg, const struct lock_row *row)
{
    struct sim_image *i = arg;
    if (i->n_rows == i->n_alloc) {
        i->n_alloc = i->n_alloc == 0 ? 64 : i->n_alloc * 2;
        i->rows = xrealloc(i->rows, i->n_alloc * sizeof *i->rows);
    }
    struct lock_row *r = &i->rows[i->n_rows++];
    *r = *row;
    switch (r->type) {
    case LOCK_ROW_DIRECTORY:
        r->directory.path = keep(i, r->directory.path);
        break;
    case LOCK_ROW_SESSION:
        r->session.host = keep(i, r->session.host);
        break;
    case LOCK_ROW_HOLD:
        r->hold.path = keep(i, r->hold.path);
        r->hold.owner = keep(i, r->hold.owner);
        r->hold.note = keep(i, r->hold.note);
        break;
    case LOCK_ROW_WAITER:
        for (unsigned k = 0; k < r->waiter.n_paths; k++)
            r->waiter.paths[k] = keep(i, r->waiter.paths[k]);
        r->waiter.owner = keep(i, r->waiter.owner);
        r->waiter.note = keep(i, r->waiter.note);
        break;
    case LOCK_ROW_DELAY:
        r->delay.path = keep(i, r->delay.path);
        break;
    case LOCK_ROW_NODE:
        r->node.host = keep(i, r->node.host);
        break;
    case LOCK_ROW_META:
    case LOCK_ROW_RESULT:
        break;
    }
    return 0;
}

static uint32_t sum_bytes(uint32_t sum, struct bytes b)
{
    return b.size > 0 ? (uint32_t)crc32_z(sum, b.data, b.size) : sum;
}

/* Rows as they lie in memory, so it is good for this copy of the image only. */
uint32_t sim_image_sum(const struct sim_image *i)
{
    uint32_t sum = (uint32_t)crc32(0, NULL, 0);
    for (size_t k = 0; k < i->n_rows; k++) {
        const struct lock_row *r = &i->rows[k];
        sum = sum_bytes(sum, bytes_of(r, sizeof *r));
        switch (r->type) {
        case LOCK_ROW_DIRECTORY:
            sum = sum_bytes(sum, r->directory.path);
            break;
        case LOCK_ROW_SESSION:
            sum = sum_bytes(sum, r->session.host);
            break;
        case LOCK_ROW_HOLD:
            sum = sum_bytes(sum_bytes(sum, r->hold.path), r->hold.owner);
            break;
        case LOCK_ROW_WAITER:
            sum = sum_bytes(sum, r->waiter.owner);
            break;
        default:
            break;
        }
    }
    return sum_bytes(sum, i->ident.conf);
}

static struct sim_image *image_new(const struct replica_image *ident)
{
    struct sim_image *i = xcalloc(1, sizeof *i);
    i->n_refs = 1;
    arena_init(&i->arena);
    i->ident = *ident;
    i->ident.conf = keep(i, ident->conf);
    return i;
}

struct sim_image *sim_image_copy(const struct sim_image *i)
{
    struct sim_image *copy = image_new(&i->ident);
    for (size_t k = 0; k < i->n_rows; k++)
        (void)image_visit(copy, &i->rows[k]);
    copy->sum = sim_image_sum(copy);
    return copy;
}

struct sim_image *sim_image_take(const struct lock_table *t, const struct replica_image *ident)
{
    struct sim_image *i = image_new(ident);
    (void)lock_export(t, image_visit, i); /* The visitor never fails. */
    i->sum = sim_image_sum(i);
    return i;
}

struct sim_image *sim_image_ref(struct sim_image *i)
{
    i->n_refs++;
    return i;
}

void sim_image_unref(struct sim_image *i)
{
    if (i == NULL || --i->n_refs > 0)
        return;
    arena_deinit(&i->arena);
    free(i->rows);
    free(i);
}

struct lock_table *sim_image_load(const struct sim_image *i)
{
    struct lock_table *t = lock_table_new();
    int rv = 0;
    for (size_t k = 0; k < i->n_rows && rv == 0; k++)
        rv = lock_import_row(t, &i->rows[k]);
    if (rv == 0)
        rv = lock_import_finish(t);
    if (rv == 0)
        return t;
    lock_table_free(t);
    return NULL;
}
