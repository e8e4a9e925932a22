/* The replica at work: start, group commit, reads, membership, snapshots, and what it does with
 * nonsense. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "raftstore/base/random.h"
#include "raftstore/wire/frame.h"
#include "tests/unit/test_replica_rig.h"

static struct rig rig;

static const struct rig_stored three = {.term = 1, .n_voters = 3};

/* ---- Start ------------------------------------------------------------------------------- */

static void test_bootstrap(void **state)
{
    struct raft_configuration c;
    struct bytes data = {0};
    (void)state;
    raft_configuration_init(&c);
    assert_int_equal(replica_bootstrap(&c, &data), -EINVAL);
    assert_int_equal(raft_configuration_add(&c, 1, "a", RAFT_VOTER), 0);
    assert_int_equal(replica_bootstrap(&c, &data), 0);
    assert_true(codec_configuration_valid(data));
    free((void *)(uintptr_t)data.data);
    assert_int_equal(raft_configuration_add(&c, 2, "b", RAFT_VOTER), 0);
    assert_int_equal(replica_bootstrap(&c, &data), -EINVAL); /* Even. */
    assert_int_equal(raft_configuration_add(&c, 3, "c", RAFT_VOTER), 0);
    assert_int_equal(replica_bootstrap(&c, &data), 0);
    free((void *)(uintptr_t)data.data);
    raft_configuration_close(&c);
}

static void test_configuration_bounds(void **state)
{
    struct bytes conf = rig_configuration(3, 1);
    uint8_t copy[512];
    struct raft_configuration c;
    (void)state;
    assert_true(conf.size <= sizeof copy);
    for (size_t size = 0; size < conf.size; size++) {
        memcpy(copy, conf.data, size);
        if (codec_configuration_decode(bytes_of(copy, size), &c) == 0)
            fail_msg("a configuration cut to %zu bytes is taken", size);
    }
    for (size_t i = 0; i < conf.size; i++) { /* Any byte may be anything: no crash. */
        memcpy(copy, conf.data, conf.size);
        copy[i] ^= 0xff;
        if (codec_configuration_decode(bytes_of(copy, conf.size), &c) == 0)
            raft_configuration_close(&c);
    }
    free((void *)(uintptr_t)conf.data);
}

static int open_stored(const struct replica_stored *stored)
{
    static const struct replica_io none;
    struct replica_config config = {.id = 1, .address = "a", .io = &none};
    struct replica *r = NULL;
    int rv = replica_new(&config, stored, 1, &r);
    assert_null(r);
    return rv;
}

static void test_contradictions(void **state)
{
    struct bytes conf = rig_configuration(3, 0);
    struct lock_table *table = lock_table_new();
    struct replica_entry e[3] = {
        {1, 1, RAFT_CHANGE, conf}, {2, 2, RAFT_COMMAND, {0}}, {3, 2, RAFT_COMMAND, {0}}};
    struct replica_stored s = {.term = 2, .table = table, .entries = e, .n_entries = 3};
    (void)state;
    s.term = 1;
    assert_int_equal(open_stored(&s), -EINVAL); /* Entries of a term that was never stored. */
    s.term = 2;
    e[2].index = 4;
    assert_int_equal(open_stored(&s), -EINVAL); /* A gap. */
    e[2].index = 3;
    e[2].term = 1;
    assert_int_equal(open_stored(&s), -EINVAL); /* Terms run back. */
    e[2].term = 2;
    e[0].type = RAFT_COMMAND;
    assert_int_equal(open_stored(&s), -EINVAL); /* No bootstrap configuration. */
    e[0].type = RAFT_CHANGE;
    e[0].data.size = 7;
    assert_int_equal(open_stored(&s), -EINVAL); /* A configuration that is none. */
    e[0].data = conf;
    e[1].type = 9;
    assert_int_equal(open_stored(&s), -EINVAL);
    s.image = (struct replica_image){5, 2, 1, conf};
    s.entries = &e[2];
    s.n_entries = 1;
    e[2].index = 7;
    assert_int_equal(open_stored(&s), -EINVAL); /* A gap behind the image. */
    s.image.conf_index = 6;
    s.n_entries = 0;
    assert_int_equal(open_stored(&s), -EINVAL); /* A configuration newer than its image. */
    lock_table_free(table);
    free((void *)(uintptr_t)conf.data);
}

/* A log that ends before the image that covers it is dropped, on disk too. */
static void test_log_behind_image(void **state)
{
    static const uint64_t terms[] = {1, 1, 1};
    (void)state;
    rig_open(&rig, &(struct rig_stored){.term = 2,
                                        .image_index = 30,
                                        .image_term = 2,
                                        .n_voters = 3,
                                        .first = 20,
                                        .terms = terms,
                                        .n_entries = 3});
    assert_int_equal(rig.n_writes, 1);
    assert_int_equal(rig.writes[0].w.truncate_from, 20);
    struct replica_view v = replica_view(rig.r);
    assert_int_equal(v.last_index, 30);
    assert_int_equal(v.first_index, 31);
    assert_int_equal(v.applied_index, 30);
    rig_close(&rig);
}

/* ---- Group commit ------------------------------------------------------------------------ */

static enum replica_status submit(uint64_t id)
{
    return replica_submit(rig.r, rig.now_ns, id, REPLICA_ORDINARY,
                          rig_command(LOCK_OP_SESSION_OPEN));
}

static void test_group_commit(void **state)
{
    (void)state;
    rig_open(&rig, &three);
    assert_int_equal(submit(1), REPLICA_NOT_LEADER);
    rig_ready(&rig);
    uint64_t last = replica_view(rig.r).last_index;
    assert_int_equal(submit(1), REPLICA_OK);
    (void)rig_flush(&rig);
    for (uint64_t id = 2; id <= 6; id++)
        assert_int_equal(submit(id), REPLICA_OK);
    (void)rig_flush(&rig);
    assert_int_equal(replica_view(rig.r).last_index, last + 1); /* One is under way. */
    assert_int_equal(replica_view(rig.r).n_queued, 5);
    rig_ack_all(&rig, 2);
    assert_int_equal(rig.n_commands, 1);
    (void)rig_flush(&rig);
    assert_int_equal(replica_view(rig.r).last_index, last + 2); /* Five in the next entry. */
    rig_ack_all(&rig, 3);
    assert_int_equal(rig.n_commands, 6);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(rig.commands[i].id, i + 1);
        assert_int_equal(rig.commands[i].status, REPLICA_OK);
        assert_true(rig.commands[i].has_result);
    }
    rig_close(&rig);
}

static void test_busy(void **state)
{
    unsigned n = 0;
    (void)state;
    rig_open(&rig, &three);
    rig_ready(&rig);
    while (submit(n + 1) == REPLICA_OK)
        n++;
    assert_int_equal(n, 8);
    assert_int_equal(submit(99), REPLICA_BUSY);
    assert_int_equal(replica_submit(rig.r, rig.now_ns, 1, REPLICA_ORDINARY, (struct bytes){0}),
                     REPLICA_BAD);
    rig_close(&rig);
}

/* What keeps or ends holds is refused later than what asks for some, and keepalives last. */
static void test_busy_by_urgency(void **state)
{
    static const unsigned room[] = {
        [REPLICA_ORDINARY] = 8, [REPLICA_UPKEEP] = 10, [REPLICA_KEEPALIVE] = 12};
    unsigned n = 0;
    (void)state;
    rig_open(&rig, &three);
    rig_ready(&rig);
    for (enum replica_urgency u = REPLICA_ORDINARY; u <= REPLICA_KEEPALIVE; u++) {
        while (replica_submit(rig.r, rig.now_ns, n + 1, u, rig_command(LOCK_OP_SESSION_OPEN)) ==
               REPLICA_OK)
            n++;
        assert_int_equal(n, room[u]);
    }
    rig_close(&rig);
}

/* A queue in which the oldest waits for long takes no more, until it moves again. */
static void test_busy_when_late(void **state)
{
    (void)state;
    rig_open(&rig, &three);
    rig_ready(&rig);
    for (unsigned i = 1; i <= 5; i++)
        assert_int_equal(submit(i), REPLICA_OK);
    rig.now_ns += 100 * UINT64_C(1000000);
    assert_int_equal(submit(6), REPLICA_OK); /* Not longer than that yet. */
    rig.now_ns += 1 * UINT64_C(1000000);
    assert_int_equal(submit(7), REPLICA_BUSY);
    assert_int_equal(
        replica_submit(rig.r, rig.now_ns, 8, REPLICA_UPKEEP, rig_command(LOCK_OP_SESSION_OPEN)),
        REPLICA_OK);
    rig_flush(&rig); /* All of them go into an entry. */
    assert_int_equal(submit(9), REPLICA_OK);
    for (unsigned i = 10; i <= 12; i++)
        assert_int_equal(submit(i), REPLICA_OK);
    rig.now_ns += 500 * UINT64_C(1000000);
    assert_int_equal(submit(13), REPLICA_OK); /* Late, but few. */
    assert_int_equal(submit(14), REPLICA_BUSY);
    rig_close(&rig);
}

/* What was proposed is unknown, what was not is not done. */
static void test_leadership_lost(void **state)
{
    (void)state;
    rig_open(&rig, &three);
    rig_ready(&rig);
    assert_int_equal(submit(1), REPLICA_OK);
    (void)rig_flush(&rig);
    assert_int_equal(submit(2), REPLICA_OK);
    rig_append_result(&rig, 2, replica_view(rig.r).term + 5, 1, 0);
    assert_int_equal(rig.n_commands, 2);
    assert_int_equal(rig.commands[0].id, 1);
    assert_int_equal(rig.commands[0].status, REPLICA_UNKNOWN);
    assert_int_equal(rig.commands[1].id, 2);
    assert_int_equal(rig.commands[1].status, REPLICA_NOT_LEADER);
    rig_close(&rig);
}

/* Cluster time stands still without a leader and goes on from the newest stamp in the log. */
static void test_cluster_time(void **state)
{
    (void)state;
    rig_open(&rig, &three);
    rig_ready(&rig);
    rig.now_ns += 500 * RIG_MS;
    assert_int_equal(submit(1), REPLICA_OK);
    (void)rig_flush(&rig);
    rig_ack_all(&rig, 2);
    uint64_t stamp_ns = rig.commands[0].stamp_ns;
    assert_in_range(stamp_ns, 500 * RIG_MS, 510 * RIG_MS);
    rig_append_result(&rig, 2, replica_view(rig.r).term + 1, 1, 0); /* Deposed. */
    rig.now_ns += 1000000 * RIG_MS;
    assert_in_range(replica_cluster_now_ns(rig.r, rig.now_ns), stamp_ns, stamp_ns + 10 * RIG_MS);
    rig_ready(&rig);
    assert_in_range(replica_cluster_now_ns(rig.r, rig.now_ns), stamp_ns, stamp_ns + 20 * RIG_MS);
    rig_close(&rig);
}

/* A deadline that has passed is expired by a tick, once. */
static void test_tick(void **state)
{
    Hf__Command m = HF__COMMAND__INIT;
    struct buf packed = BUF_INIT;
    (void)state;
    rig_open(&rig, &three);
    rig_ready(&rig);
    m.op = LOCK_OP_SESSION_OPEN;
    m.ttl_ms = 40;
    pack_add(&packed, &m.base);
    assert_int_equal(
        replica_submit(rig.r, rig.now_ns, 1, REPLICA_ORDINARY, bytes_of(packed.data, packed.size)),
        REPLICA_OK);
    buf_deinit(&packed);
    (void)rig_flush(&rig);
    rig_ack_all(&rig, 2);
    uint64_t last = replica_view(rig.r).last_index;
    unsigned effects = rig.n_effects;
    for (unsigned i = 0; i < 100; i++) {
        rig_pass(&rig, 1);
        rig_ack_all(&rig, 2);
    }
    assert_int_equal(replica_view(rig.r).last_index, last + 1);
    assert_true(rig.n_effects > effects);
    assert_int_equal(rig.n_commands, 1); /* Nobody waits for a tick. */
    rig_close(&rig);
}

/* ---- Reads ------------------------------------------------------------------------------- */

static void test_follower_read(void **state)
{
    Hf__Entry entries[2] = {rig_entry(2), rig_entry(2)};
    Hf__PeerFrame f = HF__PEER_FRAME__INIT;
    Hf__ReadIndexResult m = HF__READ_INDEX_RESULT__INIT;
    (void)state;
    rig_open(&rig, &three);
    assert_int_equal(replica_read(rig.r, rig.now_ns, 5, rig.now_ns + 100 * RIG_MS), REPLICA_OK);
    (void)rig_flush(&rig);
    assert_int_equal(rig_count(&rig, HF__PEER_FRAME__BODY_READ_INDEX), 0); /* No leader yet. */
    rig_append(&rig, 2, 2, 1, 1, 1, entries, 2);
    (void)rig_flush(&rig);
    const Hf__PeerFrame *ask = rig_last(&rig, 2, HF__PEER_FRAME__BODY_READ_INDEX);
    assert_non_null(ask);
    f.body_case = HF__PEER_FRAME__BODY_READ_INDEX_RESULT;
    f.read_index_result = &m;
    m.nonce = ask->read_index->nonce;
    m.ok = true;
    m.index = 3;
    replica_receive(rig.r, rig.now_ns, 3, &f); /* Not whom we asked. */
    replica_receive(rig.r, rig.now_ns, 2, &f);
    assert_int_equal(rig.n_reads, 0); /* Not yet applied. */
    rig_append(&rig, 2, 2, 3, 2, 3, NULL, 0);
    assert_int_equal(rig.n_reads, 1);
    assert_int_equal(rig.reads[0].status, REPLICA_OK);
    rig_close(&rig);
}

/* An answer that takes longer than the question's repetition is still the answer. */
static void test_follower_read_from_far(void **state)
{
    Hf__Entry entries[1] = {rig_entry(2)};
    Hf__PeerFrame f = HF__PEER_FRAME__INIT;
    Hf__ReadIndexResult m = HF__READ_INDEX_RESULT__INIT;
    (void)state;
    rig_open(&rig, &three);
    assert_int_equal(replica_read(rig.r, rig.now_ns, 5, rig.now_ns + 400 * RIG_MS), REPLICA_OK);
    rig_append(&rig, 2, 2, 1, 1, 1, entries, 1);
    (void)rig_flush(&rig);
    const Hf__PeerFrame *ask = rig_last(&rig, 2, HF__PEER_FRAME__BODY_READ_INDEX);
    assert_non_null(ask);
    m.nonce = ask->read_index->nonce;
    rig_pass(&rig, 130);
    assert_true(rig_count(&rig, HF__PEER_FRAME__BODY_READ_INDEX) > 1); /* It may have been lost. */
    f.body_case = HF__PEER_FRAME__BODY_READ_INDEX_RESULT;
    f.read_index_result = &m;
    m.ok = true;
    m.index = 1;
    replica_receive(rig.r, rig.now_ns, 2, &f);
    assert_int_equal(rig.n_reads, 1);
    assert_int_equal(rig.reads[0].status, REPLICA_OK);
    rig_close(&rig);
}

static void test_read_deadline(void **state)
{
    (void)state;
    rig_open(&rig, &three);
    assert_int_equal(replica_read(rig.r, rig.now_ns, 5, rig.now_ns + 100 * RIG_MS), REPLICA_OK);
    rig_pass(&rig, 99);
    assert_int_equal(rig.n_reads, 0);
    rig_pass(&rig, 2);
    assert_int_equal(rig.n_reads, 1);
    assert_int_equal(rig.reads[0].status, REPLICA_NO_QUORUM);
    rig_close(&rig);
}

/* ---- Snapshots --------------------------------------------------------------------------- */

static void test_snapshot(void **state)
{
    (void)state;
    rig_open(&rig, &three);
    rig_ready(&rig);
    for (uint64_t id = 1; id <= 40; id++) {
        assert_int_equal(submit(id), REPLICA_OK);
        (void)rig_flush(&rig);
        rig_ack_all(&rig, 2);
    }
    rig.r->config.trailing_entries = 10;
    replica_want_snapshot(rig.r);
    (void)rig_flush(&rig);
    assert_int_equal(rig.n_snapshots, 1);
    uint64_t index = rig.snapshot.index;
    assert_int_equal(index, replica_view(rig.r).applied_index);
    assert_int_equal(rig.snapshot.conf_index, 1);
    assert_int_equal(replica_view(rig.r).first_index, 1);
    replica_snapshot_taken(rig.r, rig.now_ns, index, true);
    assert_int_equal(replica_view(rig.r).snapshot_index, index);
    assert_int_equal(replica_view(rig.r).first_index, index - 10 + 1);
    assert_int_equal(rig.writes[rig.n_writes - 1].w.drop_to, index - 10);
    rig_close(&rig);
}

static void test_install(void **state)
{
    (void)state;
    rig_open(&rig, &three);
    (void)rig_flush(&rig);
    assert_true(rig_image(&rig, 2, 5, 100, 4));
    rig_append(&rig, 2, 5, 100, 4, 100, NULL, 0);
    assert_int_equal(replica_view(rig.r).applied_index, 1); /* Nothing is applied meanwhile. */
    replica_image_installed(rig.r, rig.now_ns, lock_table_new());
    struct replica_view v = replica_view(rig.r);
    assert_int_equal(v.applied_index, 100);
    assert_int_equal(v.first_index, 101);
    assert_int_equal(v.snapshot_index, 100);
    Hf__Entry e = rig_entry(5);
    rig_append(&rig, 2, 5, 100, 4, 101, &e, 1);
    assert_int_equal(replica_view(rig.r).applied_index, 101);
    assert_false(rig_image(&rig, 2, 5, 90, 4)); /* Older: it has that already. */
    assert_string_equal(rig.fatal, "");
    rig_close(&rig);
}

/* ---- Membership -------------------------------------------------------------------------- */

static enum replica_status admin_last(void)
{
    assert_true(rig.n_admins > 0);
    return rig.admins[rig.n_admins - 1].status;
}

static void ack_voters(void)
{
    (void)rig_flush(&rig);
    rig_ack_all(&rig, 2);
    rig_ack_all(&rig, 3);
    (void)rig_flush(&rig);
}

static void test_membership_refusals(void **state)
{
    (void)state;
    rig_open(&rig, &three);
    assert_int_equal(replica_member_remove(rig.r, rig.now_ns, 1, 2), REPLICA_NOT_LEADER);
    rig_ready(&rig);
    ack_voters();
    assert_int_equal(replica_member_remove(rig.r, rig.now_ns, 1, 1), REPLICA_OK);
    assert_int_equal(admin_last(), REPLICA_REFUSED); /* The leader. */
    assert_int_equal(replica_member_role(rig.r, rig.now_ns, 2, 1, false), REPLICA_OK);
    assert_int_equal(admin_last(), REPLICA_REFUSED);
    assert_int_equal(replica_member_add(rig.r, rig.now_ns, 3, 2, "x"), REPLICA_OK);
    assert_int_equal(admin_last(), REPLICA_REFUSED); /* Taken. */
    assert_int_equal(replica_member_remove(rig.r, rig.now_ns, 4, 9), REPLICA_OK);
    assert_int_equal(admin_last(), REPLICA_REFUSED); /* Unknown. */
    assert_int_equal(replica_member_remove(rig.r, rig.now_ns, 5, 3), REPLICA_OK);
    ack_voters();
    assert_int_equal(admin_last(), REPLICA_OK);
    assert_int_equal(replica_members(rig.r)->n, 2);
    assert_int_equal(replica_member_remove(rig.r, rig.now_ns, 6, 2), REPLICA_OK);
    assert_int_equal(admin_last(), REPLICA_REFUSED); /* Never down to one voter. */
    assert_int_equal(replica_member_role(rig.r, rig.now_ns, 7, 2, false), REPLICA_OK);
    assert_int_equal(admin_last(), REPLICA_REFUSED);
    assert_int_equal(rig.n_admins, 7);
    rig_close(&rig);
}

static void test_add_and_promote(void **state)
{
    (void)state;
    rig_open(&rig, &three);
    rig_ready(&rig);
    ack_voters();
    assert_int_equal(replica_member_add(rig.r, rig.now_ns, 1, 4, "n4:1,n4:2"), REPLICA_OK);
    assert_int_equal(rig.n_admins, 0);
    assert_int_equal(replica_member_add(rig.r, rig.now_ns, 2, 5, "n5"), REPLICA_OK);
    assert_int_equal(admin_last(), REPLICA_REFUSED); /* One at a time. */
    ack_voters();
    assert_int_equal(admin_last(), REPLICA_OK);
    assert_int_equal(replica_member(rig.r, 4)->role, RAFT_STANDBY);
    assert_int_equal(replica_member_role(rig.r, rig.now_ns, 3, 4, true), REPLICA_OK);
    assert_int_equal(admin_last(), REPLICA_REFUSED); /* It was not heard of. */
    rig_append_result(&rig, 4, replica_view(rig.r).term, 1, 0);
    assert_int_equal(replica_member_role(rig.r, rig.now_ns, 4, 4, true), REPLICA_OK);
    for (unsigned i = 0; i < 5; i++) {
        rig_pass(&rig, 10);
        ack_voters();
        rig_ack_all(&rig, 4);
    }
    assert_int_equal(admin_last(), REPLICA_OK);
    assert_int_equal(rig.admins[rig.n_admins - 1].id, 4);
    assert_int_equal(replica_voters(rig.r), 4);
    rig_close(&rig);
}

static void pass_without_voter_3(void)
{
    for (unsigned i = 0; i < 100; i++) {
        rig_pass(&rig, 10);
        rig_ack_all(&rig, 2);
        rig_ack_all(&rig, 4);
    }
}

/* With one of three voters gone, a fourth would make the leader the only one who can be elected, by
 * all of them, and the fourth denies its vote until it has heard of its promotion. */
static void test_no_promotion_beside_a_dead_voter(void **state)
{
    (void)state;
    rig_open(&rig, &three);
    rig_ready(&rig);
    ack_voters();
    assert_int_equal(replica_member_add(rig.r, rig.now_ns, 1, 4, "n4:1,n4:2"), REPLICA_OK);
    ack_voters();
    assert_int_equal(admin_last(), REPLICA_OK);
    pass_without_voter_3();
    assert_int_equal(replica_member_role(rig.r, rig.now_ns, 2, 4, true), REPLICA_OK);
    pass_without_voter_3();
    assert_int_equal(admin_last(), REPLICA_REFUSED);
    assert_int_equal(replica_voters(rig.r), 3);
    assert_int_equal(replica_member_remove(rig.r, rig.now_ns, 3, 3), REPLICA_OK);
    pass_without_voter_3();
    assert_int_equal(admin_last(), REPLICA_OK);
    assert_int_equal(replica_member_role(rig.r, rig.now_ns, 4, 4, true), REPLICA_OK);
    pass_without_voter_3();
    assert_int_equal(admin_last(), REPLICA_OK);
    assert_int_equal(replica_voters(rig.r), 3);
    rig_close(&rig);
}

static void test_transfer(void **state)
{
    (void)state;
    rig_open(&rig, &three);
    rig_ready(&rig);
    ack_voters();
    assert_int_equal(replica_transfer(rig.r, rig.now_ns, 1, 3), REPLICA_OK);
    assert_non_null(rig_last(&rig, 3, HF__PEER_FRAME__BODY_TIMEOUT_NOW));
    assert_int_equal(submit(1), REPLICA_OK); /* Waits. */
    (void)rig_flush(&rig);
    assert_int_equal(replica_view(rig.r).n_queued, 1);
    uint64_t term = replica_view(rig.r).term + 1;
    struct replica_view v = replica_view(rig.r);
    rig_append(&rig, 3, term, v.last_index, v.term, v.commit_index, NULL, 0);
    (void)rig_flush(&rig);
    assert_int_equal(admin_last(), REPLICA_OK);
    assert_int_equal(rig.commands[0].status, REPLICA_NOT_LEADER);
    rig_close(&rig);
}

static void test_transfer_given_up(void **state)
{
    (void)state;
    rig_open(&rig, &three);
    rig_ready(&rig);
    ack_voters();
    assert_int_equal(replica_transfer(rig.r, rig.now_ns, 1, 2), REPLICA_OK);
    assert_int_equal(submit(1), REPLICA_OK);
    for (unsigned i = 0; i < 400; i++) {
        rig_pass(&rig, 1);
        rig_ack_all(&rig, 2);
        rig_ack_all(&rig, 3);
    }
    assert_int_equal(admin_last(), REPLICA_REFUSED);
    assert_int_equal(rig.commands[0].status, REPLICA_OK); /* This leader did it after all. */
    rig_close(&rig);
}

/* ---- Digests ----------------------------------------------------------------------------- */

static void tell_digest(uint64_t from, Hf__Digest *m)
{
    Hf__PeerFrame f = HF__PEER_FRAME__INIT;
    f.body_case = HF__PEER_FRAME__BODY_DIGEST;
    f.digest = m;
    replica_receive(rig.r, rig.now_ns, from, &f);
}

static void test_digest(void **state)
{
    Hf__Digest m = HF__DIGEST__INIT;
    (void)state;
    rig_open(&rig, &three);
    rig_ready(&rig);
    for (uint64_t id = 1; replica_view(rig.r).applied_index < 256; id++) {
        assert_int_equal(submit(id), REPLICA_OK);
        (void)rig_flush(&rig);
        rig_ack_all(&rig, 2);
    }
    rig_pass(&rig, 1);
    const Hf__PeerFrame *sent = rig_last(&rig, 3, HF__PEER_FRAME__BODY_DIGEST);
    assert_non_null(sent);
    m = *sent->digest;
    tell_digest(3, &m);
    assert_string_equal(rig.fatal, "");
    m.lo ^= 1;
    tell_digest(3, &m); /* One of three is wrong, and it is not known which. */
    rig_pass(&rig, 10);
    tell_digest(3, &m);
    assert_string_equal(rig.fatal, "");
    tell_digest(2, &m); /* Two agree: the leader is. */
    assert_string_not_equal(rig.fatal, "");
    assert_int_equal(submit(1000), REPLICA_STOPPED);
    assert_true(rig_flush(&rig) == UINT64_MAX);
    rig_close(&rig);
}

/* A follower at index 256 of a leader, node 2, that keeps in touch. */
static struct lock_digest follow_to_256(void)
{
    Hf__Entry entries[51];
    rig_open(&rig, &three);
    for (unsigned i = 0; i < 51; i++)
        entries[i] = rig_entry(2);
    for (uint64_t prev = 1; prev < 256; prev += 51)
        rig_append(&rig, 2, 2, prev, prev == 1 ? 1 : 2, prev + 51, entries, 51);
    rig_append(&rig, 2, 2, 256, 2, 256, NULL, 0);
    assert_int_equal(replica_view(rig.r).applied_index, 256);
    return lock_digest(replica_table(rig.r));
}

static void hear_leader(unsigned ms)
{
    for (unsigned i = 0; i < ms; i += 50) {
        rig_pass(&rig, 50);
        if (rig.fatal[0] == '\0')
            rig_append(&rig, 2, 2, 256, 2, 256, NULL, 0);
    }
}

static void test_digest_of_a_follower(void **state)
{
    Hf__Digest right = HF__DIGEST__INIT, wrong = HF__DIGEST__INIT;
    (void)state;
    struct lock_digest d = follow_to_256();
    right.index = wrong.index = 256;
    right.lo = d.lo;
    right.hi = wrong.hi = d.hi;
    wrong.lo = d.lo ^ 1;
    tell_digest(2, &wrong);
    assert_int_equal(rig_count(&rig, HF__PEER_FRAME__BODY_DIGEST), 2); /* To all. */
    tell_digest(3, &right);                                            /* The leader is wrong. */
    hear_leader(4000);
    assert_string_equal(rig.fatal, "");
    rig_close(&rig);

    (void)follow_to_256();
    tell_digest(2, &wrong);
    assert_string_equal(rig.fatal, "");
    tell_digest(3, &wrong);
    assert_string_not_equal(rig.fatal, "");
    rig_close(&rig);

    (void)follow_to_256();
    tell_digest(2, &wrong); /* And node 3 is away. */
    hear_leader(2900);
    assert_string_equal(rig.fatal, "");
    hear_leader(200);
    assert_string_not_equal(rig.fatal, "");
    rig_close(&rig);
}

/* ---- Nonsense ---------------------------------------------------------------------------- */

static void test_impossible_messages(void **state)
{
    Hf__Entry e = rig_entry(2);
    Hf__PeerFrame f = HF__PEER_FRAME__INIT;
    Hf__RequestVote vote = HF__REQUEST_VOTE__INIT;
    (void)state;
    rig_open(&rig, &three);
    rig_append(&rig, 2, 0, 0, 0, 0, NULL, 0); /* Term 0. */
    rig_append(&rig, 2, UINT64_MAX, 1, 1, 1, NULL, 0);
    rig_append(&rig, 2, 2, UINT64_MAX - 1, 1, 1, &e, 1);
    rig_append(&rig, 2, 2, 1, 3, 1, NULL, 0); /* A term beyond the leader's. */
    rig_append(&rig, 2, 2, 1, 0, 1, NULL, 0); /* An index without term. */
    e.type = 7;
    rig_append(&rig, 2, 2, 1, 1, 1, &e, 1);
    e = rig_entry(3); /* An entry of a later term than its leader's. */
    rig_append(&rig, 2, 2, 1, 1, 1, &e, 1);
    e = rig_change(2, bytes_of("\1\377\377\377\377\377\377\377\377\0\0\0\0\0\0\0", 16));
    rig_append(&rig, 2, 2, 1, 1, 1, &e, 1); /* 2^64 servers. */
    f.body_case = HF__PEER_FRAME__BODY_REQUEST_VOTE;
    f.request_vote = &vote;
    vote.term = 9;
    vote.candidate_id = 3;
    replica_receive(rig.r, rig.now_ns, 2, &f); /* On behalf of another. */
    rig_vote_request(&rig, 1, 9, 1, 1);        /* From ourselves. */
    rig_append_result(&rig, 9, 50, 0, 1);      /* From a stranger. */
    assert_false(rig_image(&rig, 2, 3, 0, 0));
    assert_false(rig_image(&rig, 2, 3, 10, 4));
    assert_int_equal(replica_view(rig.r).term, 1);
    assert_int_equal(replica_view(rig.r).last_index, 1);
    assert_int_equal(rig.n_writes, 0);
    assert_int_equal(rig.n_sent, 0);
    assert_int_equal(replica_view(rig.r).dropped, 11);
    assert_int_equal(rig.n_logs, 3); /* One line for those, and one an image. */
    rig_close(&rig);
}

/* Random frames, half of them nearly right, at a follower and at a leader: no crash, and no state
 * that the replica itself calls broken. */
static void mutate(struct random *random, struct buf *packed)
{
    for (uint64_t i = random_below(random, 4); i > 0 && packed->size > 0; i--)
        packed->data[random_below(random, packed->size)] = (uint8_t)random_next(random);
    if (random_below(random, 8) == 0)
        packed->size = random_below(random, packed->size + 1);
}

static uint64_t small(struct random *random)
{
    return random_below(random, 16) == 0 ? random_next(random) : random_below(random, 8);
}

static void random_frame(struct random *random, struct buf *packed)
{
    Hf__PeerFrame f = HF__PEER_FRAME__INIT;
    Hf__AppendEntries append = HF__APPEND_ENTRIES__INIT;
    Hf__AppendEntriesResult result = HF__APPEND_ENTRIES_RESULT__INIT;
    Hf__RequestVote vote = HF__REQUEST_VOTE__INIT;
    Hf__RequestVoteResult vote_result = HF__REQUEST_VOTE_RESULT__INIT;
    Hf__TimeoutNow timeout = HF__TIMEOUT_NOW__INIT;
    Hf__Entry entries[3];
    Hf__Entry *pointers[3];
    static const Hf__PeerFrame__BodyCase cases[] = {
        HF__PEER_FRAME__BODY_APPEND_ENTRIES, HF__PEER_FRAME__BODY_APPEND_ENTRIES_RESULT,
        HF__PEER_FRAME__BODY_REQUEST_VOTE,   HF__PEER_FRAME__BODY_REQUEST_VOTE_RESULT,
        HF__PEER_FRAME__BODY_TIMEOUT_NOW,
    };
    for (unsigned i = 0; i < 3; i++) {
        entries[i] = rig_entry(small(random));
        pointers[i] = &entries[i];
    }
    append.term = result.term = vote.term = vote_result.term = timeout.term = small(random);
    append.prev_log_index = vote.last_log_index = timeout.last_log_index = small(random);
    append.prev_log_term = vote.last_log_term = timeout.last_log_term = small(random);
    append.entries = pointers;
    append.n_entries = random_below(random, 4);
    result.rejected = small(random);
    result.last_log_index = small(random);
    vote.candidate_id = 2 + random_below(random, 2);
    vote.pre_vote = vote_result.pre_vote = random_below(random, 2) != 0;
    vote_result.vote_granted = random_below(random, 2) != 0;
    f.body_case = cases[random_below(random, 5)];
    switch (f.body_case) {
    case HF__PEER_FRAME__BODY_APPEND_ENTRIES:
        f.append_entries = &append;
        break;
    case HF__PEER_FRAME__BODY_APPEND_ENTRIES_RESULT:
        f.append_entries_result = &result;
        break;
    case HF__PEER_FRAME__BODY_REQUEST_VOTE:
        f.request_vote = &vote;
        break;
    case HF__PEER_FRAME__BODY_REQUEST_VOTE_RESULT:
        f.request_vote_result = &vote_result;
        break;
    default:
        f.timeout_now = &timeout;
        break;
    }
    packed->size = 0;
    pack_add(packed, &f.base);
}

static void test_fuzz(void **state)
{
    struct random random = {7};
    struct buf packed = BUF_INIT;
    (void)state;
    for (unsigned round = 0; round < 200; round++) {
        rig_open(&rig, &three);
        if (round % 2 == 0)
            rig_ready(&rig);
        for (unsigned i = 0; i < 200 && rig.fatal[0] == '\0'; i++) {
            random_frame(&random, &packed);
            if (random_below(&random, 2) == 0)
                mutate(&random, &packed);
            Hf__PeerFrame *f = hf__peer_frame__unpack(NULL, packed.size, packed.data);
            if (f != NULL && f->body_case != HF__PEER_FRAME__BODY_IMAGE_CHUNK)
                replica_receive(rig.r, rig.now_ns, 2 + random_below(&random, 2), f);
            if (f != NULL)
                hf__peer_frame__free_unpacked(f, NULL);
            rig_persist(&rig);
            if (random_below(&random, 4) == 0)
                rig_pass(&rig, random_below(&random, 20));
            if (rig.n_sent > RIG_MAX / 2)
                rig_forget(&rig);
        }
        assert_null(lock_check(replica_table(rig.r)));
        rig_close(&rig);
    }
    buf_deinit(&packed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bootstrap),
        cmocka_unit_test(test_configuration_bounds),
        cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_log_behind_image),
        cmocka_unit_test(test_group_commit),
        cmocka_unit_test(test_busy),
        cmocka_unit_test(test_busy_by_urgency),
        cmocka_unit_test(test_busy_when_late),
        cmocka_unit_test(test_leadership_lost),
        cmocka_unit_test(test_cluster_time),
        cmocka_unit_test(test_tick),
        cmocka_unit_test(test_follower_read),
        cmocka_unit_test(test_follower_read_from_far),
        cmocka_unit_test(test_read_deadline),
        cmocka_unit_test(test_snapshot),
        cmocka_unit_test(test_install),
        cmocka_unit_test(test_membership_refusals),
        cmocka_unit_test(test_add_and_promote),
        cmocka_unit_test(test_no_promotion_beside_a_dead_voter),
        cmocka_unit_test(test_transfer),
        cmocka_unit_test(test_transfer_given_up),
        cmocka_unit_test(test_digest),
        cmocka_unit_test(test_digest_of_a_follower),
        cmocka_unit_test(test_impossible_messages),
        cmocka_unit_test(test_fuzz),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
