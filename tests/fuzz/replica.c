#include "tests/fuzz/replica.h"

#include <stdlib.h>

#include "raftstore/node/translate.h"

#define COMMANDS_MAX 512u /* Of one input. */

/* ---- Turns ------------------------------------------------------------------------------- */

static void pass(struct world *w, uint64_t ms)
{
    w->now_ns += ms * MS;
    for (unsigned i = 0; i < w->n_nodes; i++)
        real_flush(&w->nodes[i]);
}

/* An image on its way, honest or of what a liar made of the node. */
static void deliver_image(struct node *n, bool whole)
{
    struct node *to = world_node(n->world, n->image_to);
    uint64_t id = n->image_to;
    if (id == 0 || n->r == NULL || n->disk.image == NULL)
        return;
    n->image_to = 0;
    struct image *i = image_ref(n->disk.image);
    if (to != NULL && whole)
        real_receive_image(to, n->id, n->image_term, i);
    replica_image_sent(n->r, n->world->now_ns, id, i->ident.index, to != NULL && whole);
    image_drop(i);
}

/* Nothing goes wrong for a while: what is sent arrives, what is written is durable. */
static void calm(struct world *w, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        pass(w, 10);
        for (unsigned k = 0; k < w->n_nodes; k++) {
            real_persist(&w->nodes[k], SIZE_MAX);
            deliver_image(&w->nodes[k], true);
        }
        for (unsigned n = w->n_frames; n > 0; n--)
            world_deliver(w, 0, false);
    }
}

/* ---- Requests ---------------------------------------------------------------------------- */

static void add_varint(struct buf *b, unsigned field, uint64_t v)
{
    uint8_t *p = buf_reserve(b, 12);
    uint8_t *begin = p;
    *p++ = (uint8_t)(field << 3); /* Fields up to 15. */
    while (v >= 0x80) {
        *p++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    b->size += (size_t)(p - begin);
}

static void make_command(struct feed *f, struct buf *b)
{
    static const uint8_t path[] = {6 << 3 | 2, 1, 'a'}, owner[] = {7 << 3 | 2, 1, 'o'};
    uint8_t op = feed_u8(f);
    if (op >= 0xf0) {
        struct bytes any = feed_bytes(f, 200);
        buf_add(b, any.data, any.size);
        return;
    }
    add_varint(b, 1, LOCK_OP_SESSION_OPEN + op % (LOCK_OP_RENAME - LOCK_OP_SESSION_OPEN + 1));
    add_varint(b, 3, feed_u8(f));
    add_varint(b, 4, feed_u8(f));
    buf_add(b, path, sizeof path);
    buf_add(b, owner, sizeof owner);
    add_varint(b, 9, LOCK_EXCLUSIVE);
    add_varint(b, 13, 1000);
}

/* As the listener does it: what is no client's command never reaches the replica. */
static void submit(struct node *n, struct feed *f)
{
    struct world *w = n->world;
    struct buf b = BUF_INIT;
    struct lock_command checked;
    make_command(f, &b);
    arena_reset(&w->arena);
    struct bytes packed = bytes_of(b.data, b.size);
    if (translate_parse(&w->arena, packed, &checked) == 0 && translate_op_is_client(checked.op) &&
        real_open(n, OPEN_COMMAND) &&
        replica_submit(n->r, w->now_ns, w->next_request, (enum replica_urgency)(checked.op % 3),
                       packed) != REPLICA_OK)
        real_refused(n);
    buf_deinit(&b);
}

static void read_begin(struct node *n, uint64_t patience_ms)
{
    struct world *w = n->world;
    if (real_open(n, OPEN_READ) &&
        replica_read(n->r, w->now_ns, w->next_request, w->now_ns + patience_ms * MS) != REPLICA_OK)
        real_refused(n);
}

static void administer(struct node *n, struct feed *f)
{
    struct world *w = n->world;
    uint8_t what = feed_u8(f);
    uint64_t id = what >> 4;
    enum replica_status status = REPLICA_OK;
    if (w->liars == LIARS_ALONE && what % 6 != 0 && what % 6 != 3)
        return; /* A liar as a second voter is another story. */
    if (!real_open(n, OPEN_ADMIN))
        return;
    switch (what % 6) {
    case 0:
        status = replica_member_add(n->r, w->now_ns, w->next_request, id, "n9:1,n9:2");
        break;
    case 1:
    case 2:
        status = replica_member_role(n->r, w->now_ns, w->next_request, id, what % 6 == 1);
        break;
    case 3:
        status = replica_member_remove(n->r, w->now_ns, w->next_request, id);
        break;
    default:
        status = replica_transfer(n->r, w->now_ns, w->next_request, id % 4);
        break;
    }
    if (status != REPLICA_OK)
        real_refused(n);
}

/* ---- Commands of the input --------------------------------------------------------------- */

static void restart(struct node *n)
{
    if (n->stopped && n->world->liars != LIARS_OUTSIDE)
        return; /* What a false leader made it store need not be startable. */
    real_crash(n);
    real_start(n);
}

static void real_step(struct node *n, uint8_t op, struct feed *f)
{
    struct world *w = n->world;
    if (n->r == NULL || n->stopped)
        return;
    switch (op % 12) {
    case 0:
        real_persist(n, 1 + feed_below(f, 4));
        break;
    case 1:
        real_persist(n, SIZE_MAX);
        break;
    case 2:
        restart(n);
        break;
    case 3:
    case 4:
        submit(n, f);
        break;
    case 5:
        read_begin(n, feed_u8(f));
        break;
    case 6:
        administer(n, f);
        break;
    case 7:
        replica_want_snapshot(n->r);
        break;
    case 8:
        replica_peer_connected(n->r, w->now_ns, 1 + feed_below(f, LIAR_LAST), feed_u8(f) & 1);
        break;
    case 9:
        deliver_image(n, feed_u8(f) & 1);
        break;
    case 10:
        if (n->disk.n_ops == 0 || n->disk.ops[0].type == DISK_WRITE)
            replica_snapshot_taken(n->r, w->now_ns, feed_u8(f), false);
        break;
    default:
        real_flush(n);
        break;
    }
    real_check(n);
}

static void step(struct world *w, struct feed *f)
{
    uint8_t op = feed_u8(f);
    struct node *n = &w->nodes[op % w->n_nodes];
    if (op < 112) {
        lie(w, f);
    } else if (op < 128) {
        pass(w, 1 + feed_u8(f));
    } else if (op < 144) {
        calm(w, 1 + feed_below(f, 64));
    } else if (op < 168) {
        if (w->n_frames > 0) {
            unsigned i = feed_u8(f) % w->n_frames;
            if (op < 160)
                world_deliver(w, i, op < 148);
            else
                world_drop(w, i);
        }
    } else {
        real_step(n, feed_u8(f), f);
    }
}

/* ---- Begin and end ----------------------------------------------------------------------- */

static void disk_entry_add(struct disk *d, uint64_t term, uint32_t type, struct bytes data)
{
    struct disk_entry *e = &d->entries[d->n];
    uint64_t index = d->n > 0 ? d->entries[d->n - 1].index + 1 : 1;
    *e = (struct disk_entry){.index = index, .term = term, .type = type};
    buf_add(&e->data, data.data, data.size);
    d->n++;
}

/* What a node has stored when the input begins: the bootstrap entry, or an image at 50 and some
 * of the log around it. */
static void disk_begin(struct world *w, struct disk *d, uint8_t how)
{
    static const uint8_t tick[] = {0x08, LOCK_OP_TICK};
    uint8_t entry[ENTRY_HEAD_BYTES + 16];
    uint8_t *p = entry_put_command(entry_put_head(entry, 0), bytes_of(tick, sizeof tick), 0);
    struct bytes ticks = bytes_of(entry, (size_t)(p - entry));
    d->n_alloc = 64;
    d->entries = xcalloc(d->n_alloc, sizeof *d->entries);
    d->term = 1;
    disk_entry_add(d, 1, RAFT_CHANGE, w->conf);
    if ((how & 0x80) == 0)
        return;
    struct lock_table *t = lock_table_new();
    struct replica_image ident = {50, 3, 1, w->conf};
    d->image = image_make(t, &ident);
    lock_table_free(t);
    buf_deinit(&d->entries[0].data);
    d->n = 0;
    d->term = 3;
    for (unsigned i = 0; i < (how & 15u); i++) {
        disk_entry_add(d, 3, RAFT_COMMAND, ticks);
        d->entries[i].index = 51 - (how >> 4 & 3) * 2 + i;
    }
    if (d->n > 0 && d->entries[d->n - 1].index < 50) {
        while (d->n > 0)
            buf_deinit(&d->entries[--d->n].data);
    }
}

static void world_begin(struct world *w, struct feed *f)
{
    uint8_t mode = feed_u8(f), how = feed_u8(f);
    w->liars = mode % LIARS_N;
    w->n_nodes = w->liars == LIARS_ALONE || w->liars == LIARS_OTHERS ? 1 : 3;
    w->now_ns = 1000 * MS;
    w->conf = configuration_make(w->liars == LIARS_ALONE ? 1 : 3, w->liars == LIARS_OUTSIDE);
    arena_init(&w->arena);
    for (unsigned i = 0; i < w->n_nodes; i++) {
        struct node *n = &w->nodes[i];
        n->world = w;
        n->id = i + 1;
        disk_begin(w, &n->disk, how);
        real_start(n);
    }
}

/* The lies are over: the cluster must do its work again. */
static void world_heal(struct world *w)
{
    uint64_t acked = w->acked_index;
    /* Ten seconds: some elections in a row may have no winner. */
    for (unsigned i = 0; i < 10000 && w->acked_index == acked; i++) {
        static const uint8_t open[] = {0, 0, 1};
        for (unsigned k = 0; k < w->n_nodes && i % 20 == 19; k++) {
            struct feed f = feed_of(open, sizeof open);
            submit(&w->nodes[k], &f);
        }
        calm(w, 1);
    }
    fuzz_require(w->acked_index > acked, "no command is committed after the lies ended");
}

static void world_end(struct world *w)
{
    for (unsigned i = 0; i < w->n_nodes; i++) {
        const char *broken = lock_check(w->nodes[i].r->table);
        fuzz_require(broken == NULL, "node %u: %s", i + 1, broken);
        real_free(&w->nodes[i]);
    }
    while (w->n_frames > 0)
        world_drop(w, 0);
    arena_deinit(&w->arena);
    free((void *)(uintptr_t)w->conf.data);
    free(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed f = feed_of(data, size);
    struct world *w = xcalloc(1, sizeof *w);
    world_begin(w, &f);
    for (unsigned i = 0; i < COMMANDS_MAX && !feed_is_empty(&f); i++)
        step(w, &f);
    if (w->liars == LIARS_OUTSIDE || w->liars == LIARS_ALONE)
        world_heal(w);
    world_end(w);
    return 0;
}
