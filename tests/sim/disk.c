/* The virtual disk: what node/store.h promises, without SQLite.
 *
 * An ordered queue of writes, each a transaction that is durable after its latency.  A crash keeps
 * a prefix of the queue, and may tear the next one: parts of it are on the disk, but its last frame
 * is not, or does not verify, so what opens the store drops all of it (store_wal.h).  A write that
 * fails is the node's end (its next start is a recovery), and what waited behind it is lost.  Bits
 * that change later are found by the checksums when the node starts, and when another is to install
 * the image.
 *
 * What holds these promises in the product is tested for real: test_store_crash (power cut at every
 * sector), test_store_damage, test_store_fault; case_damage, case_disk_full, case_failing_disk.
 *
 * Entries' bytes are taken from the replica's memory only when they become durable, which is as
 * long as the replica has to keep them. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

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
    op->fails = n->disk_fails && type == DISK_WRITE;
    n->disk_fails = n->disk_fails && !op->fails;
    op->done_ns = n->world->now_ns + disk_latency_ns(n);
    if (op->done_ns < n->disk_stalls_until_ns)
        op->done_ns = n->disk_stalls_until_ns;
    if (type != DISK_WRITE)
        op->done_ns += world_between(n->world, MS, 100 * MS);
    if (n->n_ops > 0 && n->ops[n->n_ops - 1].done_ns > op->done_ns)
        op->done_ns = n->ops[n->n_ops - 1].done_ns;
    world_event(n->world, EVENT_DISK, n->number, op->done_ns - n->world->now_ns);
    n->n_ops++;
}

static uint32_t entry_sum(const struct disk_entry *e)
{
    const uint64_t fixed[] = {e->index, e->term, e->type};
    uint32_t sum = (uint32_t)crc32(0, (const void *)fixed, sizeof fixed);
    return e->data.size > 0 ? (uint32_t)crc32_z(sum, e->data.data, e->data.size) : sum;
}

static uint32_t head_sum(const struct disk *d)
{
    const uint64_t fixed[] = {d->term, d->voted_for};
    return (uint32_t)crc32(0, (const void *)fixed, sizeof fixed);
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
    out->sum = entry_sum(out);
}

void disk_bootstrap(struct node *n)
{
    struct replica_entry e = {
        .index = 1, .term = 1, .type = RAFT_CHANGE, .data = n->world->bootstrap};
    disk_append(n, &e);
    n->disk.term = 1;
    n->disk.head_sum = head_sum(&n->disk);
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
        d->head_sum = head_sum(d);
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

/* A write failed: the node goes no further, until somebody has seen to its disk. */
static void disk_failed(struct node *n)
{
    n->world->n_failed_writes++;
    world_trace(n->world, "node %u: a write failed", n->number + 1);
    node_crash(n, world_between(n->world, 50 * MS, 2500 * MS));
}

/* Writes that are done together are reported together. */
void disk_event(struct node *n)
{
    uint64_t ticket = 0;
    while (n->n_ops > 0 && n->ops[0].done_ns <= n->world->now_ns && !n->world->failed) {
        struct disk_op op = n->ops[0];
        if (op.fails) {
            if (ticket != 0)
                replica_persisted(n->replica, node_clock_ns(n), ticket);
            disk_failed(n);
            return;
        }
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

/* Parts of it are on the disk, and it is as if it had never been begun. */
static void disk_tear(struct node *n, struct disk_op *op)
{
    n->world->n_torn += op->write.n_entries > 0 || op->write.set_vote;
}

/* Some of what was under way got through, in order. */
void disk_crash(struct node *n)
{
    size_t limit = 0;
    while (limit < n->n_ops && !n->ops[limit].fails)
        limit++;
    size_t done = limit > 0 && world_chance(n->world, 600) ? world_below(n->world, limit + 1) : 0;
    for (size_t i = 0; i < n->n_ops; i++) {
        if (i < done)
            disk_commit(n, &n->ops[i]);
        else if (i == done && n->ops[i].type == DISK_WRITE)
            disk_tear(n, &n->ops[i]);
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

/* ---- Damage ------------------------------------------------------------------------------ */

bool disk_is_sound(const struct node *n)
{
    const struct disk *d = &n->disk;
    if (d->head_sum != 0 && head_sum(d) != d->head_sum)
        return false;
    for (size_t i = 0; i < d->n; i++) {
        if (entry_sum(&d->entries[i]) != d->entries[i].sum)
            return false;
    }
    return d->image == NULL || sim_image_sum(d->image) == d->image->sum;
}

static void rot_bytes(struct world *w, void *data, size_t size)
{
    if (size > 0)
        ((uint8_t *)data)[world_below(w, size)] ^= (uint8_t)(1u << world_below(w, 8));
}

/* A field of which something depends. */
static void rot_row(struct world *w, struct lock_row *r)
{
    switch (r->type) {
    case LOCK_ROW_META:
        rot_bytes(w, &r->meta.next_token, sizeof r->meta.next_token);
        break;
    case LOCK_ROW_DIRECTORY:
        rot_bytes(w, &r->directory.perm, sizeof r->directory.perm);
        break;
    case LOCK_ROW_SESSION:
        rot_bytes(w, &r->session.deadline_ns, sizeof r->session.deadline_ns);
        break;
    case LOCK_ROW_RESULT:
        rot_bytes(w, &r->result.result.token, sizeof r->result.result.token);
        break;
    case LOCK_ROW_HOLD:
        if (world_chance(w, 500))
            rot_bytes(w, &r->hold.deadline_ns, sizeof r->hold.deadline_ns);
        else
            rot_bytes(w, (void *)(uintptr_t)r->hold.owner.data, r->hold.owner.size);
        break;
    case LOCK_ROW_WAITER:
        rot_bytes(w, &r->waiter.queue_number, sizeof r->waiter.queue_number);
        break;
    case LOCK_ROW_DELAY:
        rot_bytes(w, &r->delay.until_ns, sizeof r->delay.until_ns);
        break;
    case LOCK_ROW_NODE:
        rot_bytes(w, &r->node.node_id, sizeof r->node.node_id);
        break;
    }
}

void disk_rot(struct node *n)
{
    struct world *w = n->world;
    struct disk *d = &n->disk;
    w->n_rotten++;
    world_trace(w, "node %u: its disk rots", n->number + 1);
    if (d->image != NULL && world_chance(w, 400)) {
        struct sim_image *copy = sim_image_copy(d->image); /* Others have theirs. */
        sim_image_unref(d->image);
        d->image = copy;
        rot_row(w, &copy->rows[world_below(w, copy->n_rows)]);
    } else if (d->n > 0 && world_chance(w, 900)) {
        struct disk_entry *e = &d->entries[world_below(w, d->n)];
        if (world_chance(w, 200))
            rot_bytes(w, &e->term, sizeof e->term);
        else
            rot_bytes(w, e->data.data, e->data.size);
    } else if (d->head_sum != 0) {
        rot_bytes(w, &d->voted_for, sizeof d->voted_for);
    }
}
