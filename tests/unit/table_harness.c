#include "table_harness.h"

#include <stdio.h>

#include "raftstore/base/clock.h"
#include "raftstore/wire/pack.h"

void commands_init(struct commands *c, uint64_t seed)
{
    *c = (struct commands){.rng = {seed}, .stamp_ns = 1000000};
}

static uint64_t below(struct commands *c, uint64_t bound)
{
    return random_below(&c->rng, bound);
}

static struct bytes random_path(struct commands *c, unsigned slot)
{
    static const char *const parents[] = {"", "a/", "b/", "a/x/", "\xff\xfe/"};
    int n = snprintf(c->path[slot], sizeof c->path[slot], "%slock%u", parents[below(c, 5)],
                     (unsigned)below(c, 60) + 100 * slot);
    return bytes_of(c->path[slot], (size_t)n);
}

static void acquire(struct commands *c, struct lock_command *k)
{
    k->op = LOCK_OP_ACQUIRE;
    k->n_paths = below(c, 8) == 0 ? 3 : 1;
    for (unsigned i = 0; i < k->n_paths; i++)
        k->paths[i] = random_path(c, i);
    (void)snprintf(c->owner, sizeof c->owner, "owner%u", (unsigned)below(c, 9));
    k->owner = below(c, 9) == 0 ? bytes_of("\xc3\x28\x00z", 4) : bytes_str(c->owner);
    k->note = below(c, 2) == 0 ? bytes_of("bin\x00\x01", 5) : bytes_str("caf\xc3\xa9");
    k->mode = below(c, 3) == 0 ? LOCK_SHARED : LOCK_EXCLUSIVE;
    k->kind = (enum lock_kind)below(c, 7);
    k->start = below(c, 3) == 0 ? below(c, 100) : 0;
    k->end = k->start == 0 ? LOCK_RANGE_END : k->start + below(c, 100);
    k->ttl_ms = below(c, 2) == 0 ? 0 : 10 + below(c, 2000);
    k->wait_ms = below(c, 3) == 0 ? 0 : below(c, 2) == 0 ? LOCK_WAIT_FOREVER : below(c, 900);
    k->lock_delay_ms = k->ttl_ms != 0 && below(c, 2) == 0 ? below(c, 3000) : 0;
    k->flags = LOCK_F_PARENTS;
    k->agent = below(c, 4);
    k->pid = (uint32_t)below(c, 70000);
    k->uid = 1000;
    k->perm = 0644;
    k->mtime_ns = c->n % 3 == 0 ? UINT64_MAX - c->n : 0;
    if (below(c, 4) > 0)
        return;
    k->limit = 2 + (uint32_t)below(c, 3);
    k->mode = LOCK_EXCLUSIVE;
    k->kind = (enum lock_kind)below(c, 5);
    k->start = 0;
    k->end = LOCK_RANGE_END;
}

static void other(struct commands *c, struct lock_command *k)
{
    static const enum lock_op ops[] = {LOCK_OP_RELEASE, LOCK_OP_RELEASE, LOCK_OP_RENEW,
                                       LOCK_OP_NOTE,    LOCK_OP_CONVERT, LOCK_OP_SESSION_KEEPALIVE,
                                       LOCK_OP_MKDIR,   LOCK_OP_RMDIR,   LOCK_OP_LINK};
    k->op = ops[below(c, sizeof ops / sizeof *ops)];
    k->n_paths = k->op == LOCK_OP_LINK ? 2 : 1;
    for (unsigned i = 0; i < k->n_paths; i++)
        k->paths[i] = random_path(c, i);
    (void)snprintf(c->owner, sizeof c->owner, "owner%u", (unsigned)below(c, 9));
    k->owner = bytes_str(c->owner);
    k->mode = LOCK_SHARED;
    k->end = LOCK_RANGE_END;
    k->note = bytes_str("a note");
    k->uid = 1000;
    k->gid = 100;
    k->perm = 0750;
    k->mtime_ns = c->n % 2 == 0 ? c->n : 0;
    k->kind = LOCK_KIND_EXCL;
    k->flags = LOCK_F_PARENTS;
}

void commands_next(struct commands *c, struct lock_command *ret)
{
    c->n++;
    c->stamp_ns += below(c, 3 * NS_PER_MS);
    *ret = (struct lock_command){.stamp_ns = c->stamp_ns};
    uint64_t kind = c->n < 10 ? 0 : below(c, 100);
    if (kind < 3) {
        ret->op = LOCK_OP_SESSION_OPEN;
        ret->ttl_ms = 500 + below(c, 5000);
        ret->host = bytes_str("host.example");
        return;
    }
    if (kind == 3) {
        ret->op = below(c, 2) == 0 ? LOCK_OP_NODE_INFO : LOCK_OP_TERM_START;
        ret->node_id = 1 + below(c, 3);
        ret->host = bytes_str("node.example");
        ret->term = 1 + c->n / 100;
        return;
    }
    if (kind < 60)
        acquire(c, ret);
    else
        other(c, ret);
    ret->session_id = 1 + below(c, 12);
    ret->seq = c->n;
    ret->ack_seq = c->n > 300 ? c->n - 300 : 0;
}

void commands_entry(struct commands *c, unsigned n, struct buf *ret_entry)
{
    Hf__LogEntry entry = HF__LOG_ENTRY__INIT;
    Hf__EntryCommand parts[64], *list[64];
    struct buf packed[64] = {0};
    for (unsigned i = 0; i < n; i++) {
        struct lock_command k;
        commands_next(c, &k);
        Hf__Command m = HF__COMMAND__INIT;
        ProtobufCBinaryData paths[LOCK_PATHS_MAX];
        for (unsigned j = 0; j < k.n_paths; j++)
            paths[j] = pack_binary(k.paths[j]);
        m.op = k.op;
        m.flags = k.flags;
        m.session_id = k.session_id;
        m.seq = k.seq;
        m.ack_seq = k.ack_seq;
        m.n_paths = k.n_paths;
        m.paths = paths;
        m.owner = pack_binary(k.owner);
        m.token = k.token;
        m.mode = (uint32_t)k.mode;
        m.kind = (uint32_t)k.kind;
        m.start = k.start;
        m.end_inverted = UINT64_MAX - k.end;
        m.ttl_ms = k.ttl_ms;
        m.wait_ms = k.wait_ms;
        m.lock_delay_ms = k.lock_delay_ms;
        m.agent = k.agent;
        m.note = pack_binary(k.note);
        m.host = pack_binary(k.host);
        m.pid = k.pid;
        m.uid = k.uid;
        m.gid = k.gid;
        m.perm = k.perm;
        m.term = k.term;
        m.node_id = k.node_id;
        m.limit = k.limit;
        m.mtime_ns = k.mtime_ns;
        pack_add(&packed[i], &m.base);
        if (i == 0)
            entry.stamp_ns = k.stamp_ns;
        parts[i] = (Hf__EntryCommand)HF__ENTRY_COMMAND__INIT;
        parts[i].command = pack_binary(bytes_of(packed[i].data, packed[i].size));
        parts[i].stamp_delta_ns = k.stamp_ns - entry.stamp_ns;
        list[i] = &parts[i];
    }
    entry.n_commands = n;
    entry.commands = list;
    ret_entry->size = 0;
    pack_add(ret_entry, &entry.base);
    for (unsigned i = 0; i < n; i++)
        buf_deinit(&packed[i]);
}

struct lock_table *table_of_commands(uint64_t seed, unsigned n)
{
    struct lock_table *t = lock_table_new();
    struct commands c;
    commands_init(&c, seed);
    for (unsigned i = 1; i <= n; i++) {
        struct lock_command k;
        struct lock_effects fx;
        commands_next(&c, &k);
        lock_step(t, i, &k, &fx);
    }
    return t;
}

struct lock_table *table_of_leases(unsigned n)
{
    struct lock_table *t = lock_table_new();
    struct lock_effects fx;
    struct lock_command open = {
        .op = LOCK_OP_SESSION_OPEN, .stamp_ns = 1, .ttl_ms = 3600000, .host = bytes_str("host")};
    lock_step(t, 1, &open, &fx);
    uint64_t session = fx.result.session_id;
    for (unsigned i = 0; i < n; i++) {
        char path[64], owner[32];
        (void)snprintf(path, sizeof path, "jobs/%03u/lock-%07u", i % 512, i);
        (void)snprintf(owner, sizeof owner, "worker-%05u", i % 50000);
        struct lock_command k = {.op = LOCK_OP_ACQUIRE,
                                 .flags = LOCK_F_PARENTS,
                                 .stamp_ns = 2 + i,
                                 .session_id = session,
                                 .seq = 1 + i,
                                 .ack_seq = i,
                                 .paths = {bytes_str(path)},
                                 .n_paths = 1,
                                 .owner = bytes_str(owner),
                                 .mode = LOCK_EXCLUSIVE,
                                 .kind = LOCK_KIND_EXCL,
                                 .end = LOCK_RANGE_END,
                                 .ttl_ms = 3600000,
                                 .pid = i,
                                 .uid = 1000,
                                 .gid = 1000,
                                 .perm = 0644};
        lock_step(t, 2 + i, &k, &fx);
    }
    return t;
}
