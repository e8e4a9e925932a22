/* Each rule that keeps the core sound, twice: with it, and without it, where the harm has to
 * show.  A rule that nothing tells from its absence would fail here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/test_replica_rig.h"

#define OFF(rule) (UINT64_C(1) << (rule))

static struct rig rig; /* Too large for a stack; each test opens and closes it. */

/* ---- Votes and terms --------------------------------------------------------------------- */

/* Frames that left before the vote was durable. */
static unsigned vote_first(uint64_t rules_off)
{
    rig_open(&rig, &(struct rig_stored){.term = 1, .n_voters = 3, .rules_off = rules_off});
    rig.hold_writes = true;
    rig_vote_request(&rig, 2, 2, 1, 1);
    unsigned early = rig_count(&rig, HF__PEER_FRAME__BODY_REQUEST_VOTE_RESULT);
    rig_persist(&rig);
    const Hf__PeerFrame *f = rig_last(&rig, 2, HF__PEER_FRAME__BODY_REQUEST_VOTE_RESULT);
    assert_non_null(f);
    assert_true(f->request_vote_result->vote_granted);
    rig_close(&rig);
    return early;
}

static void test_vote_first(void **state)
{
    (void)state;
    assert_int_equal(vote_first(0), 0);
    assert_int_equal(vote_first(OFF(RULE_VOTE_FIRST)), 1);
}

/* Term in which a sole voter leads after a start in term 3. */
static uint64_t sole_term(uint64_t rules_off)
{
    static const uint64_t terms[] = {1, 3};
    rig_open(&rig, &(struct rig_stored){.term = 3,
                                        .voted_for = 1,
                                        .n_voters = 1,
                                        .terms = terms,
                                        .n_entries = 2,
                                        .rules_off = rules_off});
    uint64_t term = replica_view(rig.r).term;
    assert_int_equal(replica_view(rig.r).state, RAFT_LEADER);
    if (term == 4) {
        assert_true(rig.writes[0].w.set_vote);
        assert_int_equal(rig.writes[0].w.term, 4);
    }
    rig_close(&rig);
    return term;
}

static void test_sole_term(void **state)
{
    (void)state;
    assert_int_equal(sole_term(0), 4);
    assert_int_equal(sole_term(OFF(RULE_SOLE_TERM)), 3);
}

/* A sole voter that a standby's higher term has made a follower. */
static void sole_follower(uint64_t rules_off)
{
    rig_open(&rig, &(struct rig_stored){
                       .term = 1, .n_voters = 1, .n_standbys = 1, .rules_off = rules_off});
    rig_persist(&rig);
    (void)rig_flush(&rig);
    rig_append_result(&rig, 2, 9, 0, 1);
    assert_int_equal(replica_view(rig.r).state, RAFT_FOLLOWER);
    assert_int_equal(replica_view(rig.r).term, 9);
}

static uint64_t sole_timeout(uint64_t rules_off)
{
    sole_follower(rules_off);
    rig_pass(&rig, 700);
    assert_int_equal(replica_view(rig.r).state, RAFT_LEADER);
    uint64_t term = replica_view(rig.r).term;
    rig_close(&rig);
    return term;
}

static void test_sole_timeout(void **state)
{
    (void)state;
    assert_int_equal(sole_timeout(0), 10);
    assert_int_equal(sole_timeout(OFF(RULE_SOLE_TIMEOUT)), 9);
}

static enum raft_state sole_timeout_now(uint64_t rules_off)
{
    sole_follower(rules_off | OFF(RULE_SOLE_FOLLOWS));
    struct replica_view v = replica_view(rig.r);
    uint64_t last_term = log_get(&rig.r->log, v.last_index)->term;
    rig_append(&rig, 2, 9, v.last_index, last_term, 0, NULL, 0);
    rig_timeout_now(&rig, 2, 9, v.last_index, last_term);
    v = replica_view(rig.r);
    assert_int_equal(v.term, 9);
    rig_close(&rig);
    return v.state;
}

static void test_sole_timeout_now(void **state)
{
    (void)state;
    assert_int_equal(sole_timeout_now(0), RAFT_FOLLOWER);
    assert_int_equal(sole_timeout_now(OFF(RULE_SOLE_TIMEOUT_NOW)), RAFT_LEADER);
}

/* ---- Lies -------------------------------------------------------------------------------- */

/* Terms can't be taken back: one false message must not use them up. */
static uint64_t term_jump(uint64_t rules_off)
{
    rig_open(&rig, &(struct rig_stored){.term = 1, .n_voters = 3, .rules_off = rules_off});
    rig_vote_request(&rig, 2, REPLICA_INDEX_MAX, 1, 1);
    uint64_t term = replica_view(rig.r).term;
    rig_vote_request(&rig, 2, term + REPLICA_TERM_JUMP, 1, 1); /* As far as can be. */
    if (rules_off == 0)
        assert_int_equal(replica_view(rig.r).term, 1 + REPLICA_TERM_JUMP);
    rig_close(&rig);
    return term;
}

static void test_term_jump(void **state)
{
    (void)state;
    assert_int_equal(term_jump(0), 1);
    assert_int_equal(term_jump(OFF(RULE_TERM_JUMP)), REPLICA_INDEX_MAX);
}

/* A stranger claims to lead a cluster that is one node. */
static enum raft_state sole_follows(uint64_t rules_off)
{
    rig_open(&rig, &(struct rig_stored){.term = 1, .n_voters = 1, .rules_off = rules_off});
    rig_persist(&rig);
    (void)rig_flush(&rig);
    struct replica_view v = replica_view(rig.r);
    assert_int_equal(v.state, RAFT_LEADER);
    rig_append(&rig, 7, v.term + 5, v.last_index, v.term, v.last_index, NULL, 0);
    v = replica_view(rig.r);
    if (v.state == RAFT_LEADER)
        assert_false(rig_image(&rig, 7, v.term + 5, v.last_index + 9, v.term + 1));
    v = replica_view(rig.r);
    rig_close(&rig);
    return v.state;
}

static void test_sole_follows(void **state)
{
    (void)state;
    assert_int_equal(sole_follows(0), RAFT_LEADER);
    assert_int_equal(sole_follows(OFF(RULE_SOLE_FOLLOWS)), RAFT_FOLLOWER);
}

/* Two nodes claim to lead one term. */
static uint64_t one_leader(uint64_t rules_off)
{
    rig_open(&rig, &(struct rig_stored){.term = 1, .n_voters = 3, .rules_off = rules_off});
    rig_append(&rig, 2, 2, 1, 1, 1, NULL, 0);
    rig_append(&rig, 3, 2, 1, 1, 1, NULL, 0);
    uint64_t leader_id = replica_view(rig.r).leader_id;
    rig_append(&rig, 3, 3, 1, 1, 1, NULL, 0); /* Of the next term it is one. */
    assert_int_equal(replica_view(rig.r).leader_id, 3);
    rig_close(&rig);
    return leader_id;
}

static void test_one_leader(void **state)
{
    (void)state;
    assert_int_equal(one_leader(0), 2);
    assert_int_equal(one_leader(OFF(RULE_ONE_LEADER)), 3);
}

/* A false leader has other entries where some are committed.  Did the node stop? */
static bool committed(uint64_t rules_off, bool prev)
{
    Hf__Entry good[2] = {rig_entry(2), rig_entry(2)}, other = rig_entry(3);
    rig_open(&rig, &(struct rig_stored){.term = 1, .n_voters = 3, .rules_off = rules_off});
    rig_append(&rig, 2, 2, 1, 1, 3, good, 2);
    rig_append(&rig, 2, 2, 3, 2, 3, NULL, 0);
    assert_int_equal(replica_view(rig.r).commit_index, 3);
    if (prev)
        rig_append(&rig, 3, 3, 3, 3, 3, &other, 1);
    else
        rig_append(&rig, 3, 3, 1, 1, 3, &other, 1);
    bool stopped = rig.fatal[0] != '\0';
    if (!stopped) {
        assert_int_equal(replica_view(rig.r).term, 2);
        assert_int_equal(replica_view(rig.r).last_index, 3);
    }
    rig_close(&rig);
    return stopped;
}

static void test_committed(void **state)
{
    (void)state;
    assert_false(committed(0, false));
    assert_false(committed(0, true));
    assert_true(committed(OFF(RULE_COMMITTED), false));
    assert_true(committed(OFF(RULE_COMMITTED), true));
}

/* One of five tells another digest; the leader's is ours, the others say nothing. */
static bool dispute_leader(uint64_t rules_off)
{
    Hf__Entry entries[51];
    Hf__Digest said = HF__DIGEST__INIT;
    Hf__PeerFrame f = HF__PEER_FRAME__INIT;
    rig_open(&rig, &(struct rig_stored){.term = 1, .n_voters = 5, .rules_off = rules_off});
    for (unsigned i = 0; i < 51; i++)
        entries[i] = rig_entry(2);
    for (uint64_t prev = 1; prev < 256; prev += 51)
        rig_append(&rig, 2, 2, prev, prev == 1 ? 1 : 2, prev + 51, entries, 51);
    rig_append(&rig, 2, 2, 256, 2, 256, NULL, 0);
    assert_int_equal(replica_view(rig.r).applied_index, 256);
    struct lock_digest d = lock_digest(replica_table(rig.r));
    f.body_case = HF__PEER_FRAME__BODY_DIGEST;
    f.digest = &said;
    for (unsigned i = 0; i < 160 && rig.fatal[0] == '\0'; i++) {
        said.index = 256;
        said.hi = d.hi;
        said.lo = d.lo;
        replica_receive(rig.r, rig.now_ns, 2, &f);
        said.lo = d.lo ^ 1;
        replica_receive(rig.r, rig.now_ns, 4, &f);
        rig_pass(&rig, 50);
        rig_append(&rig, 2, 2, 256, 2, 256, NULL, 0);
        rig_forget(&rig);
        rig.n_writes = rig.n_logs = 0;
    }
    bool stopped = rig.fatal[0] != '\0';
    rig_close(&rig);
    return stopped;
}

static void test_dispute_leader(void **state)
{
    (void)state;
    assert_false(dispute_leader(0));
    assert_true(dispute_leader(OFF(RULE_DISPUTE_LEADER)));
}

/* ---- And further ------------------------------------------------------------------------- */

/* A vote result at a follower: the core takes what lies in the union for a candidate's state. */
static uint64_t vote_result(uint64_t rules_off)
{
    rig_open(&rig, &(struct rig_stored){.term = 1, .n_voters = 3, .rules_off = rules_off});
    rig_vote_result(&rig, 2, 7, false, false);
    uint64_t term = replica_view(rig.r).term;
    rig_close(&rig);
    return term;
}

static void test_vote_result(void **state)
{
    (void)state;
    assert_int_equal(vote_result(0), 1);
    assert_int_equal(vote_result(OFF(RULE_VOTE_RESULT)), 7);
}

/* ---- Old terms --------------------------------------------------------------------------- */

static void test_stale_append(void **state)
{
    struct raft_append_entries_result answer;
    const char *why;
    struct raft_message m = {
        .type = RAFT_APPEND_ENTRIES,
        .server_id = 2,
        .append_entries = {.term = 3, .prev_log_index = 1, .prev_log_term = 1},
    };
    (void)state;
    rig_open(&rig, &(struct rig_stored){.term = 5, .n_voters = 3});
    rig_append(&rig, 2, 3, 1, 1, 1, NULL, 0);
    const Hf__PeerFrame *f = rig_last(&rig, 2, HF__PEER_FRAME__BODY_APPEND_ENTRIES_RESULT);
    assert_non_null(f);
    assert_int_equal(f->append_entries_result->term, 5);
    assert_int_equal(f->append_entries_result->rejected, 1);
    assert_int_equal(f->append_entries_result->last_log_index, 0);
    rig_close(&rig);
    /* Without it the message goes to the core, whose answer holds a field that it never set. */
    rig_open(&rig,
             &(struct rig_stored){.term = 5, .n_voters = 3, .rules_off = OFF(RULE_STALE_TERM)});
    assert_int_equal(guard_message(rig.r, &m, &answer, &why), GUARD_PASS);
    rig_close(&rig);
}

/* An image of an old term: the core answers it as a success, with a garbage index. */
static unsigned stale_image(uint64_t rules_off)
{
    rig_open(&rig, &(struct rig_stored){.term = 5, .n_voters = 3, .rules_off = rules_off});
    assert_false(rig_image(&rig, 2, 3, 100, 2));
    unsigned answers = rig_count(&rig, HF__PEER_FRAME__BODY_APPEND_ENTRIES_RESULT);
    if (answers > 0)
        assert_int_equal(rig_last(&rig, 2, HF__PEER_FRAME__BODY_APPEND_ENTRIES_RESULT)
                             ->append_entries_result->rejected,
                         0);
    rig_close(&rig);
    return answers;
}

static void test_stale_image(void **state)
{
    (void)state;
    assert_int_equal(stale_image(0), 0);
    assert_int_equal(stale_image(OFF(RULE_STALE_TERM)), 1);
}

/* Commit index after a result that claims more than the leader's log has. */
static uint64_t result_bound(uint64_t rules_off)
{
    rig_open(&rig, &(struct rig_stored){.term = 1, .n_voters = 3, .rules_off = rules_off});
    rig_elect(&rig);
    (void)rig_flush(&rig);
    rig_append_result(&rig, 2, replica_view(rig.r).term, 0, 1000000);
    uint64_t commit = replica_view(rig.r).commit_index;
    rig_close(&rig);
    return commit;
}

static void test_result_bound(void **state)
{
    (void)state;
    assert_int_equal(result_bound(0), 1);
    assert_int_equal(result_bound(OFF(RULE_RESULT_BOUND)), 2);
}

/* Another leader of our term: without the rule the core would write into the wrong part of a
 * union, so the message is only shown to the guard. */
static enum guard_verdict same_term_leader(uint64_t rules_off)
{
    struct raft_append_entries_result answer;
    const char *why;
    rig_open(&rig, &(struct rig_stored){.term = 1, .n_voters = 3, .rules_off = rules_off});
    rig_ready(&rig);
    struct raft_message m = {
        .type = RAFT_APPEND_ENTRIES,
        .server_id = 2,
        .append_entries = {.term = replica_view(rig.r).term,
                           .prev_log_index = 1,
                           .prev_log_term = 1},
    };
    enum guard_verdict verdict = guard_message(rig.r, &m, &answer, &why);
    rig_close(&rig);
    return verdict;
}

static void test_same_term_leader(void **state)
{
    (void)state;
    assert_int_equal(same_term_leader(0), GUARD_DROP);
    assert_int_equal(same_term_leader(OFF(RULE_SAME_TERM_LEADER)), GUARD_PASS);
    rig_open(&rig, &(struct rig_stored){.term = 1, .n_voters = 3});
    rig_ready(&rig);
    rig_append(&rig, 2, replica_view(rig.r).term, 1, 1, 1, NULL, 0);
    assert_false(rig_image(&rig, 2, replica_view(rig.r).term, 50, 1));
    assert_int_equal(replica_view(rig.r).state, RAFT_LEADER);
    rig_close(&rig);
}

/* ---- Entries ----------------------------------------------------------------------------- */

static const uint64_t terms_2[] = {2, 2, 2, 2, 2, 2, 2, 2, 2, 2};

static void open_compacted(uint64_t rules_off)
{
    rig_open(&rig, &(struct rig_stored){.term = 2,
                                        .image_index = 30,
                                        .image_term = 2,
                                        .n_voters = 3,
                                        .first = 31,
                                        .terms = terms_2,
                                        .n_entries = 10,
                                        .rules_off = rules_off});
}

/* Entries from the beginning at a node whose log begins at 31.  Without the rule the core takes
 * entry 1 for new and reads beyond the array, so there only the guard is asked. */
static uint64_t prev_compacted(uint64_t rules_off)
{
    struct raft_append_entries_result answer;
    const char *why;
    struct raft_entry entries[2] = {{.term = 1}, {.term = 2}};
    struct raft_message m = {
        .type = RAFT_APPEND_ENTRIES,
        .server_id = 2,
        .append_entries = {.term = 3, .entries = entries, .n_entries = 2},
    };
    open_compacted(rules_off);
    assert_int_equal(guard_message(rig.r, &m, &answer, &why), GUARD_PASS);
    rig_close(&rig);
    return m.append_entries.prev_log_index;
}

static uint64_t last_acknowledged(void)
{
    const Hf__PeerFrame *f = rig_last(&rig, 2, HF__PEER_FRAME__BODY_APPEND_ENTRIES_RESULT);
    assert_non_null(f);
    assert_int_equal(f->append_entries_result->rejected, 0);
    return f->append_entries_result->last_log_index;
}

static void test_prev_compacted(void **state)
{
    Hf__Entry entries[35];
    (void)state;
    assert_int_equal(prev_compacted(0), 30);
    assert_int_equal(prev_compacted(OFF(RULE_PREV_COMPACTED)), 0);
    open_compacted(0);
    for (unsigned i = 0; i < 35; i++)
        entries[i] = rig_entry(i < 5 ? 1 : 2);
    rig_append(&rig, 2, 3, 0, 0, 1, entries, 2);
    assert_int_equal(last_acknowledged(), 30); /* True: what the image covers is committed. */
    rig_append(&rig, 2, 3, 0, 0, 1, entries, 35);
    assert_int_equal(last_acknowledged(), 35); /* What reaches beyond the image counts. */
    assert_int_equal(replica_view(rig.r).last_index, 40);
    assert_string_equal(rig.fatal, "");
    rig_close(&rig);
}

/* Does a late rejection make the leader go back behind what matches? */
static bool late_rejection(uint64_t rules_off)
{
    rig_open(&rig, &(struct rig_stored){.term = 1, .n_voters = 3, .rules_off = rules_off});
    rig_ready(&rig);
    uint64_t last = replica_view(rig.r).last_index;
    for (unsigned i = 0; i < 150; i++) { /* Node 2 falls silent: back to one message a tick. */
        rig_pass(&rig, 1);
        rig_ack_all(&rig, 3);
    }
    rig_forget(&rig);
    rig_append_result(&rig, 2, replica_view(rig.r).term, last, 0);
    const Hf__PeerFrame *f = rig_last(&rig, 2, HF__PEER_FRAME__BODY_APPEND_ENTRIES);
    bool back = f != NULL && f->append_entries->prev_log_index < last;
    rig_close(&rig);
    return back;
}

static void test_late_rejection(void **state)
{
    (void)state;
    assert_false(late_rejection(0));
    assert_true(late_rejection(OFF(RULE_LATE_REJECTION)));
}

/* Index under which the core notes a configuration that came second in its batch. */
static uint64_t change_first(uint64_t rules_off)
{
    struct bytes conf = rig_configuration(3, 1);
    Hf__Entry entries[2] = {rig_entry(2), rig_change(2, conf)};
    rig_open(&rig, &(struct rig_stored){.term = 1, .n_voters = 3, .rules_off = rules_off});
    rig_append(&rig, 2, 2, 1, 1, 3, entries, 2);
    assert_int_equal(replica_view(rig.r).applied_index, 3);
    uint64_t index = rig.r->core.configuration_committed_index;
    assert_int_equal(replica_members(rig.r)->n, 4);
    free((void *)(uintptr_t)conf.data);
    rig_close(&rig);
    return index;
}

static void test_change_first(void **state)
{
    (void)state;
    assert_int_equal(change_first(0), 3);
    assert_int_equal(change_first(OFF(RULE_CHANGE_FIRST)), 1);
}

/* Members after the second of two uncommitted configurations was truncated. */
static unsigned conf_rollback(uint64_t rules_off)
{
    struct bytes four = rig_configuration(3, 1), five = rig_configuration(3, 2);
    Hf__Entry entries[2] = {rig_change(2, four), rig_change(2, five)};
    Hf__Entry other = rig_entry(3);
    rig_open(&rig, &(struct rig_stored){.term = 1, .n_voters = 3, .rules_off = rules_off});
    rig_append(&rig, 2, 2, 1, 1, 1, entries, 2);
    assert_int_equal(replica_members(rig.r)->n, 5);
    rig_append(&rig, 3, 3, 2, 2, 1, &other, 1);
    unsigned n = replica_members(rig.r)->n;
    assert_int_equal(replica_view(rig.r).last_index, 3);
    free((void *)(uintptr_t)four.data);
    free((void *)(uintptr_t)five.data);
    rig_close(&rig);
    return n;
}

static void test_conf_rollback(void **state)
{
    (void)state;
    assert_int_equal(conf_rollback(0), 4);
    assert_int_equal(conf_rollback(OFF(RULE_CONF_ROLLBACK)), 3);
}

/* What is acknowledged when a write ends whose second entry was replaced meanwhile. */
static uint64_t cap_writes(uint64_t rules_off)
{
    Hf__Entry entries[2] = {rig_entry(2), rig_entry(2)};
    Hf__Entry other = rig_entry(3);
    rig_open(&rig, &(struct rig_stored){.term = 1, .n_voters = 3, .rules_off = rules_off});
    rig.hold_writes = true;
    rig_append(&rig, 2, 2, 1, 1, 1, entries, 2);
    uint64_t first = rig.writes[rig.n_writes - 1].w.ticket;
    assert_int_equal(rig.writes[rig.n_writes - 1].last, 3);
    replica_persisted(rig.r, rig.now_ns, first - 1); /* The term. */
    rig_append(&rig, 3, 3, 2, 2, 1, &other, 1);
    assert_int_equal(rig.writes[rig.n_writes - 1].w.truncate_from, 3);
    uint64_t stored = 0;
    replica_persisted(rig.r, rig.now_ns, first);
    stored = rig.r->core.last_stored;
    rig_close(&rig);
    return stored;
}

static void test_cap_writes(void **state)
{
    (void)state;
    assert_int_equal(cap_writes(0), 2);
    assert_int_equal(cap_writes(OFF(RULE_CAP_WRITES)), 3);
}

static uint64_t commit_max(uint64_t rules_off)
{
    Hf__Entry entries[4] = {rig_entry(2), rig_entry(2), rig_entry(2), rig_entry(2)};
    rig_open(&rig, &(struct rig_stored){.term = 1, .n_voters = 3, .rules_off = rules_off});
    rig_append(&rig, 2, 2, 1, 1, 5, entries, 4);
    assert_int_equal(replica_view(rig.r).commit_index, 5);
    rig_append(&rig, 2, 2, 3, 2, 6, NULL, 0); /* Delayed: knows of 6, matches 3. */
    uint64_t commit = replica_view(rig.r).commit_index;
    rig_close(&rig);
    return commit;
}

static void test_commit_max(void **state)
{
    (void)state;
    assert_int_equal(commit_max(0), 5);
    assert_int_equal(commit_max(OFF(RULE_COMMIT_MAX)), 3);
}

/* ---- Images ------------------------------------------------------------------------------ */

/* Images sent to a follower that needs one, while heartbeats overtake it. */
static unsigned images_sent(uint64_t rules_off)
{
    rig_open(&rig, &(struct rig_stored){.term = 2,
                                        .image_index = 30,
                                        .image_term = 2,
                                        .n_voters = 3,
                                        .first = 31,
                                        .terms = terms_2,
                                        .n_entries = 10,
                                        .rules_off = rules_off});
    rig_elect(&rig);
    (void)rig_flush(&rig);
    uint64_t term = replica_view(rig.r).term;
    rig_append_result(&rig, 3, term, 0, replica_view(rig.r).last_index);
    rig_append_result(&rig, 2, term, 40, 0); /* It has nothing. */
    for (unsigned i = 0; i < 10; i++) {
        rig_append_result(&rig, 2, term, 30, 0); /* A heartbeat anchored at the image. */
        rig_pass(&rig, 10);
        rig_ack_all(&rig, 3);
    }
    unsigned n = rig.n_images_sent;
    rig_close(&rig);
    return n;
}

static void test_one_image(void **state)
{
    (void)state;
    assert_int_equal(images_sent(0), 1);
    assert_int_equal(images_sent(OFF(RULE_IMAGE_REJECTION)), 1);
    assert_true(images_sent(OFF(RULE_IMAGE_REJECTION) | OFF(RULE_ONE_IMAGE)) > 1);
}

static void test_image_rejection(void **state)
{
    (void)state;
    assert_int_equal(images_sent(OFF(RULE_ONE_IMAGE)), 1);
    assert_true(images_sent(OFF(RULE_ONE_IMAGE) | OFF(RULE_IMAGE_REJECTION)) > 1);
}

/* A second image while one is being installed; the core would leak it. */
static bool installing(uint64_t rules_off)
{
    rig_open(&rig, &(struct rig_stored){.term = 1, .n_voters = 3, .rules_off = rules_off});
    assert_true(rig_image(&rig, 2, 5, 100, 4));
    assert_int_equal(rig.n_installs, 1);
    struct raft_append_entries_result answer;
    const char *why;
    struct replica_image second = {.index = 200, .term = 4, .conf_index = 1};
    bool dropped = guard_image(rig.r, 2, 5, &second, &answer, &why) == GUARD_DROP;
    if (dropped)
        assert_false(rig_image(&rig, 2, 5, 200, 4));
    assert_int_equal(rig.n_installs, 1);
    rig_close(&rig);
    return dropped;
}

static void test_installing(void **state)
{
    (void)state;
    assert_true(installing(0));
    assert_false(installing(OFF(RULE_INSTALLING)));
}

/* ---- Time and reads ---------------------------------------------------------------------- */

/* How often a leader ticks in 100 ms when one of its members is never sent to. */
static unsigned heartbeat_rate(uint64_t rules_off)
{
    rig_open(&rig, &(struct rig_stored){
                       .term = 1, .n_voters = 3, .n_standbys = 1, .rules_off = rules_off});
    rig_ready(&rig);
    rig_pass(&rig, 20);
    /* Make node 4 a spare, which the core stops sending to, keeping its last_send. */
    struct raft_configuration c;
    struct buf encoded = BUF_INIT;
    assert_int_equal(
        codec_configuration_decode(bytes_of(rig.r->conf_seen.data, rig.r->conf_seen.size), &c), 0);
    c.servers[3].role = RAFT_SPARE;
    codec_configuration_encode(&c, &encoded);
    raft_configuration_close(&c);
    struct log_chunk *chunk = log_chunk_new(encoded.size);
    memcpy(chunk->data, encoded.data, encoded.size);
    buf_deinit(&encoded);
    struct raft_entry entry = {
        replica_view(rig.r).term, RAFT_CHANGE, {chunk->data, chunk->size}, chunk};
    struct raft_event event = {.type = RAFT_SUBMIT, .submit = {&entry, 1}};
    assert_int_equal(core_step(rig.r, &event, chunk), 0);
    log_chunk_unref(chunk);
    unsigned turns = 0;
    uint64_t end_ns = rig.now_ns + 100 * RIG_MS;
    while (rig.now_ns < end_ns && turns < 1000) { /* As a driver does: at the instant told. */
        uint64_t wake = rig_flush(&rig);
        rig_ack_all(&rig, 2);
        rig_ack_all(&rig, 3);
        rig.now_ns = wake > rig.now_ns ? wake : rig.now_ns + 1000;
        turns++;
    }
    rig_close(&rig);
    return turns;
}

static void test_heartbeat_rate(void **state)
{
    (void)state;
    assert_in_range(heartbeat_rate(0), 5, 40);
    assert_in_range(heartbeat_rate(OFF(RULE_HEARTBEAT_RATE)), 500, 1000);
}

/* Reads served before any other node was asked. */
static unsigned read_round(uint64_t rules_off)
{
    rig_open(&rig, &(struct rig_stored){.term = 1, .n_voters = 3, .rules_off = rules_off});
    rig_ready(&rig);
    assert_int_equal(replica_read(rig.r, rig.now_ns, 77, rig.now_ns + 1000 * RIG_MS), REPLICA_OK);
    (void)rig_flush(&rig);
    unsigned early = rig.n_reads;
    const Hf__PeerFrame *probe = rig_last(&rig, 2, HF__PEER_FRAME__BODY_READ_PROBE);
    if (probe != NULL) {
        Hf__PeerFrame f = HF__PEER_FRAME__INIT;
        Hf__ReadProbeResult m = HF__READ_PROBE_RESULT__INIT;
        f.body_case = HF__PEER_FRAME__BODY_READ_PROBE_RESULT;
        f.read_probe_result = &m;
        m.term = probe->read_probe->term;
        m.nonce = probe->read_probe->nonce + 1; /* Of another round. */
        replica_receive(rig.r, rig.now_ns, 2, &f);
        m.nonce--;
        m.term--; /* Of another term. */
        replica_receive(rig.r, rig.now_ns, 2, &f);
        assert_int_equal(rig.n_reads, 0);
        m.term++;
        replica_receive(rig.r, rig.now_ns, 2, &f);
    }
    assert_int_equal(rig.n_reads, 1);
    assert_int_equal(rig.reads[0].id, 77);
    assert_int_equal(rig.reads[0].status, REPLICA_OK);
    rig_close(&rig);
    return early;
}

static void test_read_round(void **state)
{
    (void)state;
    assert_int_equal(read_round(0), 0);
    assert_int_equal(read_round(OFF(RULE_READ_ROUND)), 1);
}

/* Difference of the stamps of two commands that arrived 50 ms apart and share an entry. */
static uint64_t own_stamp(uint64_t rules_off)
{
    rig_open(&rig, &(struct rig_stored){.term = 1, .n_voters = 3, .rules_off = rules_off});
    rig_ready(&rig);
    for (uint64_t id = 1; id <= 3; id++) {
        assert_int_equal(replica_submit(rig.r, rig.now_ns, id, REPLICA_ORDINARY,
                                        rig_command(LOCK_OP_SESSION_OPEN)),
                         REPLICA_OK);
        (void)rig_flush(&rig); /* The first one goes, the others wait for it. */
        rig.now_ns += 50 * RIG_MS;
    }
    for (unsigned i = 0; i < 3; i++) {
        rig_ack_all(&rig, 2);
        (void)rig_flush(&rig);
    }
    assert_int_equal(rig.n_commands, 3);
    assert_int_equal(replica_view(rig.r).entries, 3); /* Term start, and two. */
    uint64_t apart = rig.commands[2].stamp_ns - rig.commands[1].stamp_ns;
    rig_close(&rig);
    return apart;
}

static void test_own_stamp(void **state)
{
    (void)state;
    assert_int_equal(own_stamp(0), 50 * RIG_MS);
    assert_int_equal(own_stamp(OFF(RULE_OWN_STAMP)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vote_first),       cmocka_unit_test(test_sole_term),
        cmocka_unit_test(test_sole_timeout),     cmocka_unit_test(test_sole_timeout_now),
        cmocka_unit_test(test_vote_result),      cmocka_unit_test(test_stale_append),
        cmocka_unit_test(test_stale_image),      cmocka_unit_test(test_result_bound),
        cmocka_unit_test(test_same_term_leader), cmocka_unit_test(test_prev_compacted),
        cmocka_unit_test(test_late_rejection),   cmocka_unit_test(test_change_first),
        cmocka_unit_test(test_conf_rollback),    cmocka_unit_test(test_cap_writes),
        cmocka_unit_test(test_commit_max),       cmocka_unit_test(test_one_image),
        cmocka_unit_test(test_image_rejection),  cmocka_unit_test(test_installing),
        cmocka_unit_test(test_heartbeat_rate),   cmocka_unit_test(test_read_round),
        cmocka_unit_test(test_own_stamp),        cmocka_unit_test(test_term_jump),
        cmocka_unit_test(test_sole_follows),     cmocka_unit_test(test_one_leader),
        cmocka_unit_test(test_committed),        cmocka_unit_test(test_dispute_leader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
