#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

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

struct sim_image *sim_image_take(const struct lock_table *t, const struct replica_image *ident)
{
    struct sim_image *i = xcalloc(1, sizeof *i);
    i->n_refs = 1;
    arena_init(&i->arena);
    i->ident = *ident;
    i->ident.conf = keep(i, ident->conf);
    (void)lock_export(t, image_visit, i); /* The visitor never fails. */
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
