#include "tests/fuzz/rows.h"

#include "raftstore/lock/restore.h"
#include "tests/model/generate.h"

#define COMMANDS 60u

/* ---- Tables to start from ---------------------------------------------------------------- */

/* Commands as the model's generator makes them; the model keeps it informed. */
static uint64_t run(struct lock_table *t, uint64_t about, unsigned n, uint64_t index)
{
    struct generator g;
    struct model *m = model_new();
    generator_init(&g, about);
    for (unsigned i = 0; i < n; i++) {
        struct lock_command c;
        struct lock_result want;
        struct lock_effects got;
        generator_next(&g, m, &c);
        model_step(m, ++index, &c, &want);
        lock_step(t, index, &c, &got);
        generator_result(&g, &c, &got.result);
    }
    model_free(m);
    return index;
}

const struct lock_table *rows_table(uint8_t about)
{
    static struct lock_table *made[256]; /* Kept: making one takes longer than most runs. */
    if (made[about] == NULL) {
        made[about] = lock_table_new();
        (void)run(made[about], about, COMMANDS, 0);
    }
    return made[about];
}

/* ---- What was accepted ------------------------------------------------------------------- */

#define KNOWN_MAX 32u

/* What a table's rows name: commands on these reach something. */
struct known {
    uint64_t sessions[KNOWN_MAX], tokens[KNOWN_MAX], seqs[KNOWN_MAX];
    unsigned n_sessions, n_tokens, n_seqs, n_paths, n_owners;
    char paths[KNOWN_MAX][LOCK_PATH_BYTES_MAX + 1], owners[KNOWN_MAX][LOCK_OWNER_BYTES_MAX + 1];
    size_t path_sizes[KNOWN_MAX], owner_sizes[KNOWN_MAX];
};

static void know_path(struct known *k, struct bytes path)
{
    if (k->n_paths == KNOWN_MAX || path.size == 0)
        return;
    memcpy(k->paths[k->n_paths], path.data, path.size);
    k->path_sizes[k->n_paths++] = path.size;
}

static void know_owner(struct known *k, struct bytes owner)
{
    if (k->n_owners == KNOWN_MAX || owner.size == 0)
        return;
    memcpy(k->owners[k->n_owners], owner.data, owner.size);
    k->owner_sizes[k->n_owners++] = owner.size;
}

static int know(void *arg, const struct lock_row *row)
{
    struct known *k = arg;
    if (row->type == LOCK_ROW_SESSION && k->n_sessions < KNOWN_MAX)
        k->sessions[k->n_sessions++] = row->session.session_id;
    if (row->type == LOCK_ROW_DIRECTORY)
        know_path(k, row->directory.path);
    if (row->type == LOCK_ROW_HOLD) {
        if (k->n_tokens < KNOWN_MAX)
            k->tokens[k->n_tokens++] = row->hold.token;
        know_path(k, row->hold.path);
        know_owner(k, row->hold.owner);
    }
    if (row->type == LOCK_ROW_WAITER) {
        if (k->n_seqs < KNOWN_MAX)
            k->seqs[k->n_seqs++] = row->waiter.seq;
        know_path(k, row->waiter.paths[0]);
        know_owner(k, row->waiter.owner);
    }
    return 0;
}

static uint64_t pick(const uint64_t *list, unsigned n, struct feed *f)
{
    return n == 0 ? 0 : list[feed_u8(f) % n];
}

static struct bytes pick_path(const struct known *k, struct feed *f)
{
    static const char *const others[] = {"fresh", "fresh/deep", "x.lock"};
    uint8_t which = feed_u8(f);
    if (k->n_paths == 0 || which >= 200)
        return bytes_str(others[which % 3]);
    return bytes_of(k->paths[which % k->n_paths], k->path_sizes[which % k->n_paths]);
}

static void command(const struct known *k, struct feed *f, uint64_t seq, struct lock_command *c)
{
    static const uint64_t ttls[] = {0, 100, 30000, LOCK_TTL_MS_MAX};
    uint8_t how = feed_u8(f), more = feed_u8(f);
    *c = (struct lock_command){.op = LOCK_OP_SESSION_OPEN + how % (unsigned)LOCK_OP_EPOCH};
    c->flags = more & 31u;
    c->stamp_ns = (uint64_t)feed_u8(f) << (feed_u8(f) % 64);
    c->session_id = pick(k->sessions, k->n_sessions, f);
    c->seq = seq;
    c->n_paths = more & 32 ? 2 : 1;
    c->paths[0] = pick_path(k, f);
    c->paths[1] = pick_path(k, f);
    unsigned owner = k->n_owners == 0 ? 0 : feed_u8(f) % k->n_owners;
    c->owner =
        k->n_owners == 0 ? bytes_str("o") : bytes_of(k->owners[owner], k->owner_sizes[owner]);
    c->token = more & 64 ? pick(k->tokens, k->n_tokens, f) : 0;
    c->mode = more & 128 ? LOCK_SHARED : LOCK_EXCLUSIVE;
    c->limit = how >= 240 ? 2 : 0;
    c->start = how & 64 ? feed_u8(f) : 0;
    c->end = how & 64 ? c->start + feed_u8(f) : LOCK_RANGE_END;
    c->kind = how & 64 ? LOCK_KIND_POSIX : LOCK_KIND_API;
    c->ttl_ms = ttls[how >> 4 & 3];
    c->wait_ms = how & 128 ? 1000 : 0;
    c->cancel_seq = pick(k->seqs, k->n_seqs, f);
    c->agent = more & 3;
    c->host = bytes_str("h");
    c->node_id = 1;
    c->epoch = how;
    c->perm = 0644;
}

static int import_row(void *arg, const struct lock_row *row)
{
    return lock_import_row(arg, row);
}

static void check(const struct lock_table *t, const char *when)
{
    const char *broken = lock_check(t);
    fuzz_require(broken == NULL, "accepted, and %s: %s", when, broken);
    struct lock_table *copy = lock_table_new();
    fuzz_require(lock_export(t, import_row, copy) == 0 && lock_import_finish(copy) == 0,
                 "accepted, and %s its own export is not", when);
    lock_table_free(copy);
}

void rows_accepted(struct lock_table *t, struct feed *f)
{
    static struct known k; /* Too large for a stack. */
    struct lock_effects effects;
    check(t, "at once");
    memset(&k, 0, sizeof k);
    (void)lock_export(t, know, &k); /* The visitor never stops it. */
    for (unsigned i = 0; i < 40 && !feed_is_empty(f); i++) {
        struct lock_command c;
        command(&k, f, UINT64_C(1000000) + i, &c);
        lock_step(t, 1000 + i, &c, &effects);
    }
    check(t, "in use");
    /* What the clock would bring: everything expires. */
    struct lock_command tick = {.op = LOCK_OP_TICK};
    for (unsigned i = 0; i < 20 && lock_next_deadline_ns(t) != LOCK_DEADLINE_NEVER; i++) {
        tick.stamp_ns = lock_next_deadline_ns(t);
        lock_step(t, 2000 + i, &tick, &effects);
    }
    check(t, "later");
}
