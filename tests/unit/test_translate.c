/* The decoder of commands by hand agrees with protobuf-c: on whole ones, and on damaged ones. */
#include "raftstore/node/apply.h"
#include "raftstore/node/replica_entry.h"
#include "raftstore/node/translate.h"

#include "raftstore/base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ROUNDS 200000u

struct rig {
    struct random random;
    struct arena arena;
    struct buf packed;
    ProtobufCBinaryData paths[LOCK_PATHS_MAX + 1];
    uint8_t text[512];
    Hf__Limits limits;
};

static int setup(void **state)
{
    struct rig *rig = xcalloc(1, sizeof *rig);
    arena_init(&rig->arena);
    for (unsigned i = 0; i < sizeof rig->text; i++)
        rig->text[i] = (uint8_t)random_next(&rig->random);
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;
    arena_deinit(&rig->arena);
    buf_deinit(&rig->packed);
    free(rig);
    return 0;
}

/* Often 0, often of few bits. */
static uint64_t number(struct rig *rig)
{
    if (random_below(&rig->random, 3) == 0)
        return 0;
    return random_next(&rig->random) >> random_below(&rig->random, 64);
}

static ProtobufCBinaryData bytes(struct rig *rig)
{
    size_t size = random_below(&rig->random, 3) == 0 ? 0 : random_below(&rig->random, 256);
    return (ProtobufCBinaryData){size, rig->text + random_below(&rig->random, 256)};
}

static Hf__Command command(struct rig *rig)
{
    Hf__Command c = HF__COMMAND__INIT;
    c.op = (uint32_t)random_below(&rig->random, 28);
    c.flags = (uint32_t)number(rig);
    c.session_id = number(rig);
    c.seq = number(rig);
    c.ack_seq = number(rig);
    c.n_paths = random_below(&rig->random, 20) == 0 ? random_below(&rig->random, LOCK_PATHS_MAX + 2)
                                                    : random_below(&rig->random, 3);
    c.paths = rig->paths;
    for (size_t i = 0; i < c.n_paths; i++)
        rig->paths[i] = bytes(rig);
    c.owner = bytes(rig);
    c.token = number(rig);
    c.mode = (uint32_t)number(rig);
    c.kind = (uint32_t)number(rig);
    c.start = number(rig);
    c.end_inverted = number(rig);
    c.ttl_ms = number(rig);
    c.wait_ms = number(rig);
    c.lock_delay_ms = number(rig);
    c.agent = number(rig);
    c.cancel_seq = number(rig);
    c.note = bytes(rig);
    c.host = bytes(rig);
    c.pid = (uint32_t)number(rig);
    c.uid = (uint32_t)number(rig);
    c.gid = (uint32_t)number(rig);
    c.perm = (uint32_t)number(rig);
    c.term = number(rig);
    c.node_id = number(rig);
    c.epoch = number(rig);
    c.limit = (uint32_t)number(rig);
    c.mtime_ns = number(rig);
    return c;
}

static void assert_same_bytes(struct bytes a, struct bytes b)
{
    assert_int_equal(a.size, b.size);
    if (a.size > 0)
        assert_memory_equal(a.data, b.data, a.size);
}

static void assert_same(const struct lock_command *a, const struct lock_command *b)
{
    assert_same_bytes(a->owner, b->owner);
    assert_same_bytes(a->note, b->note);
    assert_same_bytes(a->host, b->host);
    assert_int_equal(a->n_paths, b->n_paths);
    for (unsigned i = 0; i < a->n_paths; i++)
        assert_same_bytes(a->paths[i], b->paths[i]);
    struct lock_command x = *a, y = *b;
    x.owner = x.note = x.host = y.owner = y.note = y.host = (struct bytes){0};
    memset(x.paths, 0, sizeof x.paths);
    memset(y.paths, 0, sizeof y.paths);
    assert_int_equal(x.op, y.op);
    assert_memory_equal(&x.limits, &y.limits, sizeof x.limits);
    assert_int_equal(x.flags, y.flags);
    assert_int_equal(x.session_id, y.session_id);
    assert_int_equal(x.seq, y.seq);
    assert_int_equal(x.ack_seq, y.ack_seq);
    assert_int_equal(x.token, y.token);
    assert_int_equal(x.mode, y.mode);
    assert_int_equal(x.kind, y.kind);
    assert_int_equal(x.start, y.start);
    assert_int_equal(x.end, y.end);
    assert_int_equal(x.ttl_ms, y.ttl_ms);
    assert_int_equal(x.wait_ms, y.wait_ms);
    assert_int_equal(x.lock_delay_ms, y.lock_delay_ms);
    assert_int_equal(x.agent, y.agent);
    assert_int_equal(x.cancel_seq, y.cancel_seq);
    assert_int_equal(x.pid, y.pid);
    assert_int_equal(x.uid, y.uid);
    assert_int_equal(x.gid, y.gid);
    assert_int_equal(x.perm, y.perm);
    assert_int_equal(x.term, y.term);
    assert_int_equal(x.node_id, y.node_id);
    assert_int_equal(x.epoch, y.epoch);
    assert_int_equal(x.limit, y.limit);
    assert_int_equal(x.mtime_ns, y.mtime_ns);
}

/* What the bytes say, both ways. Return: is it a command? */
static bool check(struct rig *rig, struct bytes in)
{
    struct lock_command by_hand, by_library;
    arena_reset(&rig->arena);
    int hand = translate_parse(&rig->arena, in, &by_hand);
    const Hf__Command *m =
        (const Hf__Command *)pack_parse(&rig->arena, &hf__command__descriptor, in);
    int library = m == NULL ? -1 : translate_command(m, &by_library);
    assert_int_equal(hand == 0, library == 0);
    if (hand == 0)
        assert_same(&by_hand, &by_library);
    return hand == 0;
}

static struct bytes packed(const struct rig *rig)
{
    return bytes_of(rig->packed.data, rig->packed.size);
}

static void test_whole(void **state)
{
    struct rig *rig = *state;
    struct lock_command ignored;
    unsigned good = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        Hf__Command c = command(rig);
        rig->packed.size = 0;
        pack_add(&rig->packed, &c.base);
        bool ok = check(rig, packed(rig));
        good += ok ? 1 : 0;
        assert_int_equal(translate_parse_plain(packed(rig), &ignored), ok); /* No detour. */
    }
    assert_true(good > ROUNDS / 2 && good < ROUNDS);
}

static void test_unusual(void **state)
{
    static const uint8_t unknown[] = {0xfa, 0x07, 0x02, 'h', 'i'}; /* Field 127. */
    struct rig *rig = *state;
    struct lock_command ignored;
    for (unsigned i = 0; i < ROUNDS / 10; i++) {
        Hf__Command c = command(rig);
        c.op = LOCK_OP_TERM_START;
        c.n_paths = 1;
        hf__limits__init(&rig->limits);
        rig->limits.holds_max = number(rig);
        rig->limits.waiters_max = number(rig);
        c.limits = i % 2 == 0 ? &rig->limits : NULL;
        rig->packed.size = 0;
        pack_add(&rig->packed, &c.base);
        if (i % 2 != 0)
            buf_add(&rig->packed, unknown, sizeof unknown);
        assert_true(check(rig, packed(rig)));
        assert_false(translate_parse_plain(packed(rig), &ignored));
    }
}

static void test_damaged(void **state)
{
    struct rig *rig = *state;
    unsigned good = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        Hf__Command c = command(rig);
        if (i % 2 == 0) /* Short ones are more often still commands when they are damaged. */
            c.owner.len = c.note.len = c.host.len = c.n_paths = 0;
        rig->packed.size = 0;
        pack_add(&rig->packed, &c.base);
        if (rig->packed.size == 0)
            continue;
        for (uint64_t n = random_below(&rig->random, 4); n > 0; n--)
            rig->packed.data[random_below(&rig->random, rig->packed.size)] =
                (uint8_t)random_next(&rig->random);
        if (random_below(&rig->random, 4) == 0)
            rig->packed.size = random_below(&rig->random, rig->packed.size + 1);
        good += check(rig, packed(rig)) ? 1 : 0;
    }
    assert_true(good > ROUNDS / 20 && good < ROUNDS);
}

/* ---- Log entries ------------------------------------------------------------------------- */

static void count_stamps(void *arg,
                         unsigned n,
                         const struct lock_command *command,
                         const struct lock_effects *e)
{
    uint64_t *seen = arg;
    (void)e;
    assert_int_equal(command->stamp_ns, n == 0 ? 1000 : 1007);
    ++*seen;
}

/* As protobuf-c packs it, as we do, and with a field of a newer version. */
static void test_entry(void **state)
{
    struct rig *rig = *state;
    uint8_t tick[] = {0x08, LOCK_OP_TICK};
    static const uint8_t unknown[] = {0x98, 0x06, 0x05}; /* Field 99. */
    Hf__EntryCommand commands[2] = {HF__ENTRY_COMMAND__INIT, HF__ENTRY_COMMAND__INIT};
    Hf__EntryCommand *list[2] = {&commands[0], &commands[1]};
    Hf__LogEntry entry = HF__LOG_ENTRY__INIT;
    commands[0].command = commands[1].command = (ProtobufCBinaryData){sizeof tick, tick};
    commands[1].stamp_delta_ns = 7;
    entry.stamp_ns = 1000;
    entry.commands = list;
    entry.n_commands = 2;
    pack_add(&rig->packed, &entry.base);
    uint8_t own[64], *p = entry_put_head(own, 1000);
    p = entry_put_command(p, bytes_of(tick, sizeof tick), 0);
    p = entry_put_command(p, bytes_of(tick, sizeof tick), 7);
    assert_same_bytes(bytes_of(own, (size_t)(p - own)), packed(rig));
    struct lock_table *t = lock_table_new();
    uint64_t seen = 0;
    assert_int_equal(apply_log_entry(t, &rig->arena, 1, packed(rig), count_stamps, &seen), 0);
    buf_add(&rig->packed, unknown, sizeof unknown);
    assert_int_equal(apply_log_entry(t, &rig->arena, 2, packed(rig), count_stamps, &seen), 0);
    assert_int_equal(seen, 4);
    /* The stamp behind the commands: legal, if not what we write. */
    struct buf turned = BUF_INIT;
    buf_add(&turned, own + ENTRY_HEAD_BYTES, (size_t)(p - own) - ENTRY_HEAD_BYTES);
    buf_add(&turned, own, ENTRY_HEAD_BYTES);
    assert_int_equal(
        apply_log_entry(t, &rig->arena, 3, bytes_of(turned.data, turned.size), count_stamps, &seen),
        0);
    assert_int_equal(seen, 6);
    /* Cut off: nothing of it is applied. */
    assert_int_not_equal(apply_log_entry(t, &rig->arena, 4, bytes_of(own, (size_t)(p - own) - 1),
                                         count_stamps, &seen),
                         0);
    assert_int_equal(seen, 6);
    buf_deinit(&turned);
    lock_table_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unusual, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_entry, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
