/* Log entries and commands as bytes: what the hand-written readers (replica_entry.h, translate.h)
 * make of them is what protobuf-c makes of them, and whatever they say, applying it keeps the lock
 * table whole.  And stores that lie: entries, terms and images that contradict themselves are
 * refused at start, or can be lived with.
 *
 * Input: a byte that chooses, then the bytes of an entry, a command, or a store. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#include "raftstore/node/apply.h"
#include "raftstore/node/replica_impl.h"
#include "raftstore/node/translate.h"
#include "tests/fuzz/quiet_io.h"

/* ---- Entries ----------------------------------------------------------------------------- */

static bool is_plain(struct bytes in)
{
    struct entry_reader reader;
    struct entry_command c;
    int rv = -1;
    if (!entry_open(&reader, in))
        return false;
    while ((rv = entry_next(&reader, &c)) == 1)
        ;
    return rv == 0;
}

/* What is plain is a LogEntry, with the same commands and stamps. */
static void compare_entry(struct arena *a, struct bytes in)
{
    struct entry_reader reader;
    struct entry_command c;
    if (!is_plain(in))
        return;
    const Hf__LogEntry *e =
        (const Hf__LogEntry *)(const void *)pack_parse(a, &hf__log_entry__descriptor, in);
    fuzz_require(e != NULL, "plain, and no LogEntry");
    fuzz_require(entry_open(&reader, in), "plain, and can't be opened");
    uint64_t last = e->stamp_ns;
    for (size_t i = 0; i < e->n_commands; i++) {
        const Hf__EntryCommand *want = e->commands[i];
        fuzz_require(entry_next(&reader, &c) == 1, "a command less");
        fuzz_require(bytes_equal(c.command, pack_bytes(want->command)), "another command");
        fuzz_require(c.stamp_ns == e->stamp_ns + want->stamp_delta_ns, "another stamp");
        last = c.stamp_ns;
    }
    fuzz_require(entry_next(&reader, &c) == 0, "a command more");
    fuzz_require(entry_last_stamp(in) == last, "another last stamp");
}

static void fuzz_entry(struct arena *a, struct bytes in)
{
    struct lock_table *t = lock_table_new();
    compare_entry(a, in);
    (void)entry_last_stamp(in);
    for (uint64_t index = 1; index <= 2; index++)
        (void)apply_log_entry(t, a, index, in, NULL, NULL); /* Any outcome. */
    const char *broken = lock_check(t);
    fuzz_require(broken == NULL, "%s", broken);
    lock_table_free(t);
}

/* ---- Commands ---------------------------------------------------------------------------- */

static void same(const struct lock_command *x, const struct lock_command *y)
{
    const struct {
        uint64_t a, b;
    } numbers[] = {
        {x->op, y->op},
        {x->flags, y->flags},
        {x->session_id, y->session_id},
        {x->seq, y->seq},
        {x->ack_seq, y->ack_seq},
        {x->n_paths, y->n_paths},
        {x->token, y->token},
        {x->mode, y->mode},
        {x->limit, y->limit},
        {x->kind, y->kind},
        {x->start, y->start},
        {x->end, y->end},
        {x->ttl_ms, y->ttl_ms},
        {x->wait_ms, y->wait_ms},
        {x->lock_delay_ms, y->lock_delay_ms},
        {x->agent, y->agent},
        {x->cancel_seq, y->cancel_seq},
        {x->mtime_ns, y->mtime_ns},
        {x->pid, y->pid},
        {x->uid, y->uid},
        {x->gid, y->gid},
        {x->perm, y->perm},
        {x->term, y->term},
        {x->node_id, y->node_id},
        {x->epoch, y->epoch},
        {x->limits.holds_max, y->limits.holds_max},
        {x->limits.waiters_max, y->limits.waiters_max},
    };
    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        fuzz_require(numbers[i].a == numbers[i].b, "number %u differs", i);
    for (unsigned i = 0; i < x->n_paths; i++)
        fuzz_require(bytes_equal(x->paths[i], y->paths[i]), "path %u differs", i);
    fuzz_require(bytes_equal(x->owner, y->owner) && bytes_equal(x->note, y->note) &&
                     bytes_equal(x->host, y->host),
                 "bytes differ");
}

static void fuzz_command(struct arena *a, struct bytes in)
{
    struct lock_command by_hand, by_library;
    arena_reset(a);
    bool hand = translate_parse(a, in, &by_hand) == 0;
    const Hf__Command *m =
        (const Hf__Command *)(const void *)pack_parse(a, &hf__command__descriptor, in);
    bool library = m != NULL && translate_command(m, &by_library) == 0;
    fuzz_require(hand == library, "one takes it and one does not");
    if (hand)
        same(&by_hand, &by_library);
}

/* ---- Stores ------------------------------------------------------------------------------ */

static void on_persist(void *arg, const struct replica_write *w)
{
    uint64_t *ticket = arg;
    *ticket = w->ticket;
}

#define STORED_MAX 12u

static uint64_t small(struct feed *f)
{
    uint8_t b = feed_u8(f);
    return b < 250 ? b % 16 : b < 253 ? feed_u64(f) : UINT64_MAX - (b & 1);
}

static struct bytes configuration(struct feed *f, struct buf *out)
{
    struct raft_configuration c;
    uint8_t how = feed_u8(f);
    raft_configuration_init(&c);
    for (unsigned i = 0; i < 1 + how % 3u; i++)
        (void)raft_configuration_add(&c, i + 1,
                                     i == 0   ? "a:1,a:2"
                                     : i == 1 ? "b:1,b:2"
                                              : "c:1,c:2",
                                     how >> 4 & 1u && i > 0 ? RAFT_STANDBY : RAFT_VOTER);
    codec_configuration_encode(&c, out);
    raft_configuration_close(&c);
    if (how & 128 && out->size > 0)
        out->data[feed_u8(f) % out->size] = feed_u8(f);
    return bytes_of(out->data, out->size);
}

static void run_replica(struct replica *r, const uint64_t *ticket)
{
    for (unsigned i = 0; i < 100; i++) {
        (void)replica_flush(r, (uint64_t)(1 + i) * 10000000);
        replica_persisted(r, (uint64_t)(1 + i) * 10000000, *ticket);
    }
    const char *broken = lock_check(replica_table(r));
    fuzz_require(broken == NULL, "%s", broken);
    replica_free(r);
}

static void fuzz_store(struct feed *f)
{
    struct replica_entry entries[STORED_MAX] = {0};
    struct buf confs[STORED_MAX + 1] = {0};
    struct replica_stored s = {.table = lock_table_new(), .entries = entries};
    struct replica *r = NULL;
    uint64_t ticket = 0;
    s.term = small(f);
    s.voted_for = small(f);
    s.image.index = small(f);
    s.image.term = small(f);
    s.image.conf_index = small(f);
    s.image.conf = configuration(f, &confs[STORED_MAX]);
    s.n_entries = feed_u8(f) % (STORED_MAX + 1);
    uint64_t first = small(f), term = small(f);
    for (unsigned i = 0; i < s.n_entries; i++) {
        uint8_t how = feed_u8(f);
        entries[i].index = how & 1 ? small(f) : first + i;
        entries[i].term = term = how & 2 ? small(f) : term;
        entries[i].type = how & 4 ? feed_u8(f) : i == 0 && (how & 8) == 0 ? RAFT_CHANGE : 1;
        entries[i].data =
            entries[i].type == RAFT_CHANGE ? configuration(f, &confs[i]) : feed_bytes(f, 64);
    }
    struct replica_io io = quiet_io();
    io.persist = on_persist;
    struct replica_config config = {
        .id = 1, .address = "a:1,a:2", .seed = 1, .io = &io, .io_arg = &ticket};
    if (replica_new(&config, &s, 1, &r) == 0) {
        fuzz_require(replica_view(r).term >= s.term, "it starts in an older term");
        run_replica(r, &ticket);
    } else {
        lock_table_free(s.table);
    }
    for (unsigned i = 0; i <= STORED_MAX; i++)
        buf_deinit(&confs[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed f = feed_of(data, size);
    struct arena a;
    arena_init(&a);
    switch (feed_below(&f, 3)) {
    case 0:
        fuzz_entry(&a, feed_rest(&f));
        break;
    case 1:
        fuzz_command(&a, feed_rest(&f));
        break;
    default:
        fuzz_store(&f);
        break;
    }
    arena_deinit(&a);
    return 0;
}
