/* The lock table, as scripts: sessions, delays, bounds and malformed commands. */
#include <stdio.h>
#include <string.h>

#include "tests/unit/lock_script.h"

/* A session that ran out stays while nobody wants what it has, and can be resumed. */
static void test_lapse(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=100", "ok s1 d100"}, {"@0 open ttl=100000", "ok s2 d100000"},
           {"@1 s1 acquire a by=o1 X", "ok #1 | granted a o1 X#1"},
           {"@1 s1 acquire b by=o1 X ttl=500", "ok #2 d501 | granted b o1 X#2"},
           {"@100 tick", "ok | lapsed s1"}, {"@101 s1 acquire c by=o1 X", "no_session"},
           {"@102 s1 acquire a by=o1 X seq=1", "ok #1 again@1"},
           {"@103 s1 keepalive", "ok d203 | resumed s1"}, {"@203 tick", "ok | lapsed s1"},
           {"@204 s2 acquire a by=o2 X",
            "ok #3 | ended a o1 X#1 session_ended; s-ended s1; granted a o2 X#3"},
           {"@205 s1 keepalive", "no_session"},
           {"@206 s2 acquire b by=o2 X", "conflict holder=o1"});
}

/* It ends at its deadline when somebody waits. */
static void test_lapse_wanted(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=100", "ok s1 d100"}, {"@0 open ttl=100000", "ok s2 d100000"},
           {"@1 s1 acquire a by=o1 X", "ok #1 | granted a o1 X#1"},
           {"@1 s1 acquire b by=o1 X", "ok #2 | granted b o1 X#2"},
           {"@2 s2 acquire a by=o2 X wait=inf", "queued | queued a o2 X; wanted a o1 X#1"},
           {"@3 s1 acquire c by=o1 X", "ok #3 | granted c o1 X#3"},
           {"@4 s2 acquire c by=o2 S wait=inf", "queued | queued c o2 S; wanted c o1 X#3"},
           {"@5 s1 acquire a by=o3 X wait=inf", "queued | queued a o3 X"},
           {"@100 tick", "ok | refused a o3 X session_ended; ended a o1 X#1 session_ended; ended b "
                         "o1 X#2 session_ended; ended c o1 X#3 session_ended; s-ended s1; granted "
                         "a o2 X#4 s2/1; granted c o2 S#5 s2/2"});
}

/* A lapsed session ends with its last hold; close ends at once; leases stay. */
static void test_lapse_last(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=100", "ok s1 d100"}, {"@0 open ttl=100000", "ok s2 d100000"},
           {"@1 s1 acquire a by=o1 X", "ok #1 | granted a o1 X#1"}, {"@100 tick", "ok | lapsed s1"},
           {"@101 s2 break a token=1", "ok | ended a o1 X#1 broken; s-ended s1"},
           {"@102 s1 keepalive", "no_session"},
           {"@103 s2 acquire a by=o2 X", "ok #2 | granted a o2 X#2"},
           {"@103 s2 acquire b by=o2 X ttl=500", "ok #3 d603 | granted b o2 X#3"},
           {"@104 s2 close", "ok | ended a o2 X#2 session_ended; s-ended s2"},
           {"@105 open ttl=100", "ok s3 d205"},
           {"@106 s3 acquire b by=o3 X", "conflict holder=o2"});
}

/* A lock is ungrantable for a while after its holder ran out. */
static void test_delay(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"},
           {"@0 s1 acquire a by=o1 X ttl=50 delay=30", "ok #1 d50 | granted a o1 X#1"},
           {"@10 s1 acquire a by=o2 X ttl=50 wait=inf", "queued | queued a o2 X; wanted a o1 X#1"},
           {"@50 s1 acquire a by=o3 X", "conflict | ended a o1 X#1 expired"},
           {"@51 s1 acquire a by=o3 X wait=10", "queued | queued a o3 X"},
           {"@61 tick", "ok | refused a o3 X timeout"},
           {"@80 tick", "ok | delay-over a; granted a o2 X#2 s1/2"},
           {"@81 s1 release a by=o2", "ok | ended a o2 X#2 released"},
           {"@81 s1 acquire a by=o1 X ttl=50 delay=30", "ok #3 d131 | granted a o1 X#3"},
           {"@82 s1 release a by=o1", "ok | ended a o1 X#3 released"},
           {"@82 s1 acquire a by=o1 X ttl=10 delay=30", "ok #4 d92 | granted a o1 X#4"},
           {"@92 s1 acquire a by=o1 X", "delayed | ended a o1 X#4 expired"},
           {"@92 s1 mkdir a", "delayed"}, {"@93 s1 link a,b by=o1", "not_held"},
           {"@122 s1 acquire a by=o1 X", "ok #5 | delay-over a; granted a o1 X#5"});
}

/* Every bound answers limit and changes nothing. */
static void test_limits(void **state)
{
    (void)state;
    SCRIPT(
        {"@0 open ttl=100", "ok s1 d100"},
        {"@0 term holds=2 waiters=1 sessions=2 dirs=1 persession=2", "ok"},
        {"@0 s1 acquire a by=o1 X", "ok #1 | granted a o1 X#1"},
        {"@0 s1 acquire b by=o1 X", "ok #2 | granted b o1 X#2"},
        {"@0 s1 acquire c by=o1 X ttl=500", "limit"}, {"@0 s1 acquire a by=o2 X wait=inf", "limit"},
        {"@0 s1 release b by=o1", "ok | ended b o1 X#2 released"},
        {"@0 s1 acquire a by=o2 X wait=inf", "queued | queued a o2 X; wanted a o1 X#1"},
        {"@0 open ttl=5000", "ok s2 d5000"}, {"@0 s2 acquire a by=o3 X wait=inf ttl=500", "limit"},
        {"@0 s1 mkdir d", "ok | mkdir d"}, {"@0 s1 mkdir e", "limit"},
        {"@0 s1 acquire d/e/f by=o1 X parents", "limit"}, {"@0 open ttl=5000", "limit"},
        {"@100 s2 keepalive", "ok d5100 | refused a o2 X session_ended; lapsed s1"},
        {"@101 open ttl=5000", "ok s3 d5101 | ended a o1 X#1 session_ended; s-ended s1"},
        {"@102 open ttl=5000", "limit"}, {"@102 open ttl=5", "invalid"});
}

/* Malformed commands are refused. */
static void test_invalid(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=1000", "ok s1 d1000"}, {"@0 s1 acquire a//b by=o1 X", "invalid"},
           {"@0 s1 acquire . by=o1 X", "invalid"},
           {"@0 s1 acquire .holdfast by=o1 X parents", "invalid"}, {"@0 s1 acquire a X", "invalid"},
           {"@0 s1 acquire a by=o1", "invalid"}, {"@0 s1 acquire a by=o1 X ttl=9", "invalid"},
           {"@0 s1 acquire a by=o1 X ttl=2592000001", "invalid"},
           {"@0 s1 acquire a by=o1 X perm=010000", "invalid"}, {"@0 s1 renew a", "invalid"},
           {"@0 s1 convert a by=o1", "invalid"}, {"@0 s1 link a by=o1", "invalid"},
           {"@0 s1 mkdir a perm=010000", "invalid"}, {"@0 epoch epoch=0", "invalid"},
           {"@0 epoch epoch=2", "ok"}, {"@0 epoch epoch=2", "invalid"},
           {"@0 epoch epoch=65536", "invalid"},
           {"@0 s1 acquire a by=o1 X", "ok #562949953421313 | granted a o1 X#562949953421313"});
}

/* Lapsed sessions end in the order of their deadlines, those of one instant by their ids; a bound
 * that was lowered counts at once. */
static void test_lapsed_order(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=100", "ok s1 d100"}, {"@0 open ttl=100", "ok s2 d100"},
           {"@0 open ttl=9000", "ok s3 d9000"},
           {"@0 s1 acquire a by=o1 X", "ok #1 | granted a o1 X#1"},
           {"@0 s2 acquire b by=o1 X", "ok #2 | granted b o1 X#2"},
           {"@100 tick", "ok | lapsed s1; lapsed s2"},
           {"@101 term holds=9 waiters=9 sessions=3 dirs=9 persession=9", "ok"},
           {"@101 open ttl=9000", "ok s4 d9101 | ended a o1 X#1 session_ended; s-ended s1"},
           {"@102 term holds=9 waiters=9 sessions=2 dirs=9 persession=9", "ok"},
           {"@102 open ttl=9000", "limit | ended b o1 X#2 session_ended; s-ended s2"},
           {"@102 open ttl=9000", "limit"});
}

static void test_malformed(void **state)
{
    (void)state;
    char note[300], host[100];
    memset(note, 'n', sizeof note);
    memset(host, 'h', sizeof host);
    const struct {
        struct lock_command c;
        enum lock_code want;
    } cases[] = {
        {{.op = LOCK_OP_ACQUIRE, .owner = bytes_str("o")}, LOCK_INVALID}, /* No path. */
        {{.op = LOCK_OP_ACQUIRE, .owner = bytes_str("o"), .n_paths = LOCK_PATHS_MAX + 1},
         LOCK_INVALID},
        {{.op = (enum lock_op)999}, LOCK_INVALID},
        {{.op = LOCK_OP_NOTE,
          .paths = {bytes_str("a")},
          .n_paths = 1,
          .owner = bytes_str("o"),
          .note = bytes_of(note, sizeof note)},
         LOCK_INVALID},
        {{.op = LOCK_OP_NODE_INFO, .node_id = 1, .host = bytes_of(host, sizeof host)},
         LOCK_INVALID},
    };
    struct lock_table *t = lock_table_new();
    struct lock_effects e;
    lock_step(t, 1, &(struct lock_command){.op = LOCK_OP_SESSION_OPEN, .ttl_ms = 9000}, &e);
    assert_int_equal(e.result.session_id, 1);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lock_command c = cases[i].c;
        c.session_id = 1;
        c.seq = i + 1;
        c.end = LOCK_RANGE_END;
        lock_step(t, i + 2, &c, &e);
        assert_int_equal(e.result.code, cases[i].want);
        assert_int_equal(e.n, 0);
    }
    assert_null(lock_check(t));
    lock_table_free(t);
}

/* A session that acknowledges nothing gets no more answers kept than there is room for; nodes, of
 * which there may be 64. */
static void test_unacknowledged(void **state)
{
    (void)state;
    struct lock_table *t = lock_table_new();
    struct lock_effects e;
    lock_step(t, 1, &(struct lock_command){.op = LOCK_OP_SESSION_OPEN, .ttl_ms = 9000}, &e);
    struct lock_command c = {.op = LOCK_OP_RENEW,
                             .session_id = 1,
                             .owner = bytes_str("o"),
                             .paths = {bytes_str("a")},
                             .n_paths = 1,
                             .end = LOCK_RANGE_END};
    for (c.seq = 1; c.seq <= LOCK_RESULTS_MAX; c.seq++) {
        lock_step(t, c.seq + 1, &c, &e);
        assert_int_equal(e.result.code, LOCK_NOT_HELD);
    }
    lock_step(t, c.seq + 1, &c, &e);
    assert_int_equal(e.result.code, LOCK_LIMIT);
    c.ack_seq = 1;
    lock_step(t, c.seq + 2, &c, &e);
    assert_int_equal(e.result.code, LOCK_NOT_HELD);
    for (uint64_t id = 1; id <= 65; id++) {
        lock_step(
            t, c.seq + 2 + id,
            &(struct lock_command){.op = LOCK_OP_NODE_INFO, .node_id = id, .host = bytes_str("h")},
            &e);
        assert_int_equal(e.result.code, id <= 64 ? LOCK_OK : LOCK_LIMIT);
    }
    assert_null(lock_check(t));
    lock_table_free(t);
}

/* A search for a deadlock that would look at more than 10 000 ends with "no". */
static void test_long_search(void **state)
{
    (void)state;
    for (unsigned many = 0; many < 2; many++) {
        struct lock_table *t = lock_table_new();
        struct lock_effects e;
        uint64_t index = 0;
        lock_step(t, ++index, &(struct lock_command){.op = LOCK_OP_SESSION_OPEN, .ttl_ms = 9000},
                  &e);
        struct lock_command c = {.op = LOCK_OP_ACQUIRE,
                                 .session_id = 1,
                                 .n_paths = 1,
                                 .mode = LOCK_EXCLUSIVE,
                                 .end = LOCK_RANGE_END};
        char owner[16];
        unsigned n = many ? 10010 : 100;
        /* Somebody holds y and a crowd waits for it, then `last`, then `first`, who holds x; that
         * `last` waits for x too closes the cycle. */
        for (unsigned i = 0; i < n + 5; i++) {
            bool first = i == 1 || i == n + 3, last = i == n + 2 || i == n + 4;
            (void)snprintf(owner, sizeof owner, "o%u", first ? 1 : last ? 2 : i + 3);
            c.owner = bytes_str(owner);
            c.agent = first ? 1 : last ? 2 : i + 3;
            c.paths[0] = bytes_str(i == 1 || i == n + 4 ? "x" : "y");
            c.wait_ms = i < 2 ? 0 : LOCK_WAIT_FOREVER;
            c.seq = ++index;
            c.ack_seq = c.seq - 1;
            lock_step(t, index, &c, &e);
            enum lock_code closed = many ? LOCK_QUEUED : LOCK_DEADLOCK;
            assert_int_equal(e.result.code, i < 2 ? LOCK_OK : i < n + 4 ? LOCK_QUEUED : closed);
        }
        lock_table_free(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lapse),          cmocka_unit_test(test_lapse_wanted),
        cmocka_unit_test(test_lapse_last),     cmocka_unit_test(test_delay),
        cmocka_unit_test(test_limits),         cmocka_unit_test(test_invalid),
        cmocka_unit_test(test_lapsed_order),   cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_unacknowledged), cmocka_unit_test(test_long_search),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
