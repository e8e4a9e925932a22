/* The virtual disk: an ordered queue of writes, each durable after its latency.  A crash keeps a
 * prefix of the queue.  Entries' bytes are taken from the replica's memory only when they become
 * durable, which is as long as the replica has to keep them. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

static uint64_t disk_latency_ns(struct node *n)
{
    struct world *w = n->world;
    if (w->now_ns < n->disk_slow_until_ns)
        return world_between(w, 5 * MS, 300 * MS);
    return world_chance(w, 20) ? world_between(w, MS, 20 * MS) : world_between(w, MS / 10, MS);
}

void disk_submit(struct node *n,
                 enum disk_op_type type,
                 const struct replica_write *w,
                 struct sim_image *image)
{
    if (n->n_ops == n->n_ops_alloc) {
        n->n_ops_alloc = n->n_ops_alloc == 0 ? 16 : n->n_ops_alloc * 2;
        n->ops = xrealloc(n->ops, n->n_ops_alloc * sizeof *n->ops);
    }
    struct disk_op *op = &n->ops[n->n_ops];
    *op = (struct disk_op){.type = type, .image = image};
    if (w != NULL) {
        op->write = *w;
        op->entries =
            w->n_entries > 0 ? xmemdup(w->entries, w->n_entries * sizeof *w->entries) : NULL;
    }
    op->done_ns = n->world->now_ns + disk_latency_ns(n);
    if (type != DISK_WRITE)
        op->done_ns += world_between(n->world, MS, 100 * MS);
    if (n->n_ops > 0 && n->ops[n->n_ops - 1].done_ns > op->done_ns)
        op->done_ns = n->ops[n->n_ops - 1].done_ns;
    world_event(n->world, EVENT_DISK, n->number, op->done_ns - n->world->now_ns);
    n->n_ops++;
}

static void disk_entries_drop(struct disk *d, size_t from, size_t n)
{
    for (size_t i = from; i < from + n; i++)
        buf_deinit(&d->entries[i].data);
    memmove(&d->entries[from], &d->entries[from + n], (d->n - from - n) * sizeof *d->entries);
    d->n -= n;
}

static void disk_append(struct node *n, const struct replica_entry *e)
{
    struct disk *d = &n->disk;
    uint64_t last = d->n > 0           ? d->entries[d->n - 1].index
                    : d->image != NULL ? d->image->ident.index
                                       : 0;
    if (e->index != last + 1)
        world_fail(n->world, "node %u writes entry %llu behind %llu", n->number + 1,
                   (unsigned long long)e->index, (unsigned long long)last);
    if (d->n == d->n_alloc) {
        d->n_alloc = d->n_alloc == 0 ? 64 : d->n_alloc * 2;
        d->entries = xrealloc(d->entries, d->n_alloc * sizeof *d->entries);
    }
    struct disk_entry *out = &d->entries[d->n++];
    *out = (struct disk_entry){.index = e->index, .term = e->term, .type = e->type};
    buf_add(&out->data, e->data.data, e->data.size);
}

static void disk_write(struct node *n, const struct disk_op *op)
{
    struct disk *d = &n->disk;
    const struct replica_write *w = &op->write;
    if (w->set_vote) {
        if (w->term < d->term)
            world_fail(n->world, "node %u stores an older term", n->number + 1);
        d->term = w->term;
        d->voted_for = w->voted_for;
    }
    if (w->truncate_from != 0) {
        size_t keep = 0;
        while (keep < d->n && d->entries[keep].index < w->truncate_from)
            keep++;
        disk_entries_drop(d, keep, d->n - keep);
    }
    for (unsigned i = 0; i < w->n_entries; i++)
        disk_append(n, &op->entries[i]);
    if (w->drop_to != 0 && world_chance(n->world, 700)) { /* It may be done lazily. */
        size_t drop = 0;
        while (drop < d->n && d->entries[drop].index <= w->drop_to)
            drop++;
        disk_entries_drop(d, 0, drop);
    }
}

static void disk_image(struct node *n, struct disk_op *op)
{
    struct disk *d = &n->disk;
    sim_image_unref(d->image);
    d->image = op->image;
    op->image = NULL;
    if (op->type == DISK_INSTALL)
        disk_entries_drop(d, 0, d->n);
}

/* Make the first operation durable. */
static void disk_commit(struct node *n, struct disk_op *op)
{
    if (op->type == DISK_WRITE)
        disk_write(n, op);
    else
        disk_image(n, op);
}

static void disk_op_free(struct disk_op *op)
{
    free(op->entries);
    sim_image_unref(op->image);
}

static void disk_report_image(struct node *n, enum disk_op_type type, uint64_t index)
{
    uint64_t now_ns = node_clock_ns(n);
    if (type == DISK_SNAPSHOT) {
        replica_snapshot_taken(n->replica, now_ns, index, true);
        return;
    }
    struct lock_table *t = sim_image_load(n->disk.image);
    if (t == NULL) {
        world_fail(n->world, "an image can't be restored");
        return;
    }
    sim_image_unref(n->incoming);
    n->incoming = NULL;
    replica_image_installed(n->replica, now_ns, t);
    serve_installed(n->serve, replica_view(n->replica).applied_index);
    check_installed(n, index);
}

/* Writes that are done together are reported together. */
void disk_event(struct node *n)
{
    uint64_t ticket = 0;
    while (n->n_ops > 0 && n->ops[0].done_ns <= n->world->now_ns && !n->world->failed) {
        struct disk_op op = n->ops[0];
        memmove(n->ops, n->ops + 1, --n->n_ops * sizeof *n->ops);
        disk_commit(n, &op);
        enum disk_op_type type = op.type;
        if (type == DISK_WRITE)
            ticket = op.write.ticket;
        uint64_t index = type == DISK_WRITE ? 0 : n->disk.image->ident.index;
        disk_op_free(&op);
        if (type == DISK_WRITE)
            continue;
        if (ticket != 0)
            replica_persisted(n->replica, node_clock_ns(n), ticket);
        ticket = 0;
        disk_report_image(n, type, index);
    }
    if (ticket != 0)
        replica_persisted(n->replica, node_clock_ns(n), ticket);
    node_turn(n);
}

/* Some of what was under way got through, in order. */
void disk_crash(struct node *n)
{
    size_t done =
        n->n_ops > 0 && world_chance(n->world, 600) ? world_below(n->world, n->n_ops + 1) : 0;
    for (size_t i = 0; i < n->n_ops; i++) {
        if (i < done)
            disk_commit(n, &n->ops[i]);
        disk_op_free(&n->ops[i]);
    }
    n->n_ops = 0;
}

void disk_free(struct node *n)
{
    for (size_t i = 0; i < n->n_ops; i++)
        disk_op_free(&n->ops[i]);
    free(n->ops);
    disk_entries_drop(&n->disk, 0, n->disk.n);
    free(n->disk.entries);
    sim_image_unref(n->disk.image);
}
