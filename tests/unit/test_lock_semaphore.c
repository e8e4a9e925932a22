/* The lock table, as scripts: semaphores. */
#include "tests/unit/lock_script.h"

#include <stdio.h>

#include "raftstore/lock/restore.h"
#include "raftstore/lock/view.h"

/* K hold it, the next waits, and is granted when a slot is free. */
static void test_slots(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"},
           {"@0 s1 acquire a by=o1 X limit=3 ttl=500", "ok #1 d500 | granted a o1 K3#1"},
           {"@1 s1 acquire a by=o2 X limit=3", "ok #2 | granted a o2 K3#2"},
           {"@1 s1 acquire a by=o3 X limit=3", "ok #3 | granted a o3 K3#3"},
           {"@2 s1 acquire a by=o4 X limit=3", "conflict holder=o1"},
           {"@3 s1 acquire a by=o4 X limit=3 wait=inf",
            "queued | queued a o4 K3; wanted a o1 K3#1; wanted a o2 K3#2; wanted a o3 K3#3"},
           {"@3 s1 acquire a by=o5 X limit=3 wait=inf", "queued | queued a o5 K3"},
           {"@4 s1 release a by=o2",
            "ok | ended a o2 K3#2 released; granted a o4 K3#4 s1/5; wanted a o4 K3#4"},
           {"@5 s1 acquire a by=o3 X limit=3", "ok #3"},
           {"@6 s1 acquire a by=o1 X limit=3 ttl=600", "ok #1 d606 | renewed a o1 K3#1"},
           {"@606 tick", "ok | ended a o1 K3#1 expired; granted a o5 K3#5 s1/6"},
           {"@607 s1 release a by=o3 range=0-5", "invalid"},
           {"@607 s1 release a by=o3", "ok | ended a o3 K3#3 released"},
           {"@608 s1 break a token=4", "ok | ended a o4 K3#4 broken"},
           {"@608 s1 release a by=o5", "ok | ended a o5 K3#5 released"},
           {"@609 s1 release a by=o5", "not_held"});
}

/* Other holds and a semaphore exclude each other; whoever came first goes first. */
static void test_others(void **state)
{
    (void)state;
    SCRIPT(
        {"@0 open ttl=9000", "ok s1 d9000"},
        {"@0 s1 acquire a by=o1 X limit=2", "ok #1 | granted a o1 K2#1"},
        {"@0 s1 acquire a by=o2 S", "conflict holder=o1"},
        {"@0 s1 acquire a by=o2 X range=5-6", "conflict holder=o1"},
        {"@1 s1 acquire a by=o2 X kind=flock wait=inf", "queued | queued a o2 X; wanted a o1 K2#1"},
        {"@2 s1 acquire a by=o3 X limit=2", "conflict"},
        {"@2 s1 acquire a by=o3 X limit=2 wait=inf", "queued | queued a o3 K2"},
        {"@2 s1 acquire a by=o4 X limit=2 wait=inf", "queued | queued a o4 K2"},
        {"@2 s1 acquire a by=o5 S wait=inf", "queued | queued a o5 S"},
        {"@3 s1 release a by=o1",
         "ok | ended a o1 K2#1 released; granted a o2 X#2 s1/4; wanted a o2 X#2"},
        {"@4 s1 release a by=o2", "ok | ended a o2 X#2 released; granted a o3 K2#3 s1/6; granted a "
                                  "o4 K2#4 s1/7; wanted a o3 K2#3; wanted a o4 K2#4"},
        {"@5 s1 release a by=o3", "ok | ended a o3 K2#3 released"},
        {"@6 s1 release a by=o4", "ok | ended a o4 K2#4 released; granted a o5 S#5 s1/8"},
        {"@7 s1 acquire a by=o1 X limit=2", "conflict holder=o5"});
}

/* Of different limits the smallest counts, whoever named it; and a later one with room for itself
 * does not overtake. */
static void test_limits(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"},
           {"@0 s1 acquire a by=o1 X limit=5", "ok #1 | granted a o1 K5#1"},
           {"@0 s1 acquire a by=o2 X limit=5", "ok #2 | granted a o2 K5#2"},
           {"@0 s1 acquire a by=o3 X limit=2", "conflict holder=o1"},
           {"@0 s1 acquire a by=o3 X limit=3", "ok #3 | granted a o3 K3#3"},
           {"@1 s1 acquire a by=o4 X limit=5", "conflict holder=o1"},
           {"@1 s1 acquire a by=o4 X limit=3 wait=inf",
            "queued | queued a o4 K3; wanted a o1 K5#1; wanted a o2 K5#2; wanted a o3 K3#3"},
           {"@1 s1 acquire a by=o5 X limit=5 wait=inf", "queued | queued a o5 K5"},
           {"@2 s1 release a by=o3",
            "ok | ended a o3 K3#3 released; granted a o4 K3#4 s1/6; wanted a o4 K3#4"},
           {"@3 s1 release a by=o4", "ok | ended a o4 K3#4 released; granted a o5 K5#5 s1/7"},
           {"@4 s1 acquire a by=o6 X limit=1 wait=inf",
            "queued | queued a o6 K1; wanted a o1 K5#1; wanted a o2 K5#2; wanted a o5 K5#5"},
           {"@5 s1 acquire a by=o7 X limit=5", "conflict"},
           {"@5 s1 release a by=o1", "ok | ended a o1 K5#1 released"},
           {"@5 s1 release a by=o2", "ok | ended a o2 K5#2 released"},
           {"@5 s1 release a by=o5", "ok | ended a o5 K5#5 released; granted a o6 K1#6 s1/10"},
           {"@5 s1 acquire a by=o7 X limit=65535", "conflict holder=o6"},
           {"@6 s1 acquire b by=o7 X limit=65535", "ok #7 | granted b o7 K65535#7"},
           {"@6 s1 acquire c by=o7 X limit=65536", "invalid"},
           {"@6 s1 acquire c by=o7 S limit=2", "invalid"},
           {"@6 s1 acquire c by=o7 X limit=2 range=0-9", "invalid"},
           {"@6 s1 acquire c by=o7 X limit=2 kind=posix", "invalid"},
           {"@6 s1 acquire c by=o7 X limit=2 kind=ofd", "invalid"});
}

/* The owner acquires again with another number, or none: that replaces what it has, when it can. */
static void test_replace(void **state)
{
    (void)state;
    SCRIPT(
        {"@0 open ttl=9000", "ok s1 d9000"},
        {"@0 s1 acquire a by=o1 X limit=2", "ok #1 | granted a o1 K2#1"},
        {"@0 s1 acquire a by=o2 X limit=2", "ok #2 | granted a o2 K2#2"},
        {"@1 s1 convert a by=o1 S", "invalid"},
        {"@1 s1 acquire a by=o1 X limit=4", "ok #3 | ended a o1 K2#1 released; granted a o1 K4#3"},
        {"@2 s1 acquire a by=o1 X", "conflict holder=o2"},
        {"@2 s1 acquire a by=o1 X wait=inf", "queued | queued a o1 X; wanted a o2 K2#2"},
        {"@2 s1 acquire a by=o2 X wait=inf", "deadlock"},
        {"@3 s1 acquire a by=o3 X limit=9 wait=inf", "queued | queued a o3 K9; wanted a o1 K4#3"},
        {"@3 s1 release a by=o2", "ok | ended a o2 K2#2 released; ended a o1 K4#3 released; "
                                  "granted a o1 X#4 s1/6; wanted a o1 X#4"},
        {"@4 s1 acquire a by=o1 X limit=2",
         "ok #5 | ended a o1 X#4 released; granted a o1 K2#5; granted a o3 K9#6 s1/8"},
        {"@5 s1 convert a by=o1 S", "invalid"},
        {"@6 s1 release a by=o1", "ok | ended a o1 K2#5 released"},
        {"@7 s1 release a by=o3", "ok | ended a o3 K9#6 released"},
        {"@8 s1 acquire a by=o1 S", "ok #7 | granted a o1 S#7"},
        {"@9 s1 acquire a by=o1 X limit=3", "ok #8 | ended a o1 S#7 released; granted a o1 K3#8"});
}

/* Several paths, all or none; whoever waits behind gets the slots that are left. */
static void test_paths(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"},
           {"@0 s1 acquire a by=o1 X", "ok #1 | granted a o1 X#1"},
           {"@1 s1 acquire a,b by=o2 X limit=2", "conflict holder=o1"},
           {"@1 s1 acquire a,b by=o2 X limit=2 wait=inf",
            "queued | queued a o2 K2; queued b o2 K2; wanted a o1 X#1"},
           {"@1 s1 acquire b by=o3 X limit=2 wait=inf", "queued | queued b o3 K2"},
           {"@1 s1 acquire b by=o4 X limit=2 wait=inf", "queued | queued b o4 K2"},
           {"@2 s1 release a by=o1",
            "ok | ended a o1 X#1 released; granted a o2 K2#2 s1/3; granted b o2 K2#3 s1/3; granted "
            "b o3 K2#4 s1/4; wanted b o2 K2#3; wanted b o3 K2#4"},
           {"@3 s1 acquire a,b by=o5 X limit=2", "conflict holder=o2"},
           {"@4 s1 release b by=o2", "ok | ended b o2 K2#3 released; granted b o4 K2#5 s1/5"},
           {"@5 s1 release b by=o3", "ok | ended b o3 K2#4 released"},
           {"@6 s1 acquire a,b by=o5 X limit=2", "ok #6 | granted a o5 K2#6; granted b o5 K2#7"});
}

/* A lease with a lock-delay closes the whole path for its time. */
static void test_delay(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"},
           {"@0 s1 acquire a by=o1 X limit=2 ttl=50 delay=30", "ok #1 d50 | granted a o1 K2#1"},
           {"@0 s1 acquire a by=o2 X limit=2", "ok #2 | granted a o2 K2#2"},
           {"@1 s1 acquire a by=o3 X limit=2 wait=inf",
            "queued | queued a o3 K2; wanted a o1 K2#1; wanted a o2 K2#2"},
           {"@50 tick", "ok | ended a o1 K2#1 expired"},
           {"@60 s1 acquire a by=o4 X limit=2", "conflict"},
           {"@80 tick", "ok | delay-over a; granted a o3 K2#3 s1/3"});
}

/* A session that ran out keeps its slot until somebody asks for one. */
static void test_lapsed(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"}, {"@0 open ttl=100", "ok s2 d100"},
           {"@0 s2 acquire a by=o2 X limit=2", "ok #1 | granted a o2 K2#1"},
           {"@100 tick", "ok | lapsed s2"}, {"@110 s2 keepalive", "ok d210 | resumed s2"},
           {"@210 tick", "ok | lapsed s2"},
           {"@220 s1 acquire a by=o1 X limit=2",
            "ok #2 | ended a o2 K2#1 session_ended; s-ended s2; granted a o1 K2#2"},
           {"@230 s2 keepalive", "no_session"});
}

/* Who waits for a slot waits for any of its holders: a deadlock is only when none can go on. */
static void test_deadlock(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"},
           {"@0 s1 acquire a by=o1 X limit=2 agent=1", "ok #1 | granted a o1 K2#1"},
           {"@0 s1 acquire a by=o2 X limit=2 agent=2", "ok #2 | granted a o2 K2#2"},
           {"@0 s1 acquire b by=o3 X agent=3", "ok #3 | granted b o3 X#3"},
           {"@1 s1 acquire b by=o1 X agent=1 wait=inf", "queued | queued b o1 X; wanted b o3 X#3"},
           {"@2 s1 acquire a by=o3 X limit=2 agent=3 wait=50",
            "queued | queued a o3 K2; wanted a o1 K2#1; wanted a o2 K2#2"},
           {"@60 tick", "ok | refused a o3 K2 timeout"},
           {"@61 s1 acquire b by=o2 X agent=2 wait=inf", "queued | queued b o2 X"},
           {"@62 s1 acquire a by=o3 X limit=2 agent=3 wait=inf", "deadlock"},
           {"@63 s1 acquire a by=o3 X limit=3 agent=3 wait=inf", "deadlock"},
           {"@64 s1 acquire a by=o3 X agent=3 wait=inf", "deadlock"},
           {"@65 s1 release b by=o3",
            "ok | ended b o3 X#3 released; granted b o1 X#4 s1/4; wanted b o1 X#4"});
}

static enum lock_code ask(struct lock_table *t,
                          const char *owner,
                          const char *paths, /* One letter each. */
                          uint32_t limit,
                          uint64_t agent,
                          bool wait)
{
    static uint64_t seq;
    struct lock_effects e;
    seq++;
    struct lock_command c = {.op = LOCK_OP_ACQUIRE,
                             .session_id = 1,
                             .seq = seq,
                             .ack_seq = seq - 1,
                             .owner = bytes_str(owner),
                             .mode = LOCK_EXCLUSIVE,
                             .end = LOCK_RANGE_END,
                             .limit = limit,
                             .agent = agent,
                             .wait_ms = wait ? LOCK_WAIT_FOREVER : 0};
    for (; paths[c.n_paths] != '\0'; c.n_paths++)
        c.paths[c.n_paths] = bytes_of(paths + c.n_paths, 1);
    lock_step(t, seq, &c, &e);
    return e.result.code;
}

/* A semaphore with slots left keeps nobody from going on, however many hold it: they are not
 * looked through.  (The search gives up behind LOCK_EDGES_MAX.) */
static void test_deadlock_beside_many(void **state)
{
    (void)state;
    struct lock_table *t = lock_table_new();
    struct lock_effects e;
    struct lock_command c = {.op = LOCK_OP_SESSION_OPEN, .ttl_ms = 9000};
    char owner[16];
    lock_step(t, 1, &c, &e);
    for (unsigned i = 0; i < 10500; i++) {
        (void)snprintf(owner, sizeof owner, "w%u", i);
        assert_int_equal(ask(t, owner, "w", 20000, 0, false), LOCK_OK);
    }
    assert_int_equal(ask(t, "o1", "b", 0, 1, false), LOCK_OK);
    assert_int_equal(ask(t, "o2", "c", 0, 2, false), LOCK_OK);
    assert_int_equal(ask(t, "o3", "s", 2, 3, false), LOCK_OK);
    assert_int_equal(ask(t, "o4", "s", 2, 0, false), LOCK_OK);
    assert_int_equal(ask(t, "o5", "d", 0, 0, false), LOCK_OK);
    assert_int_equal(ask(t, "o3", "d", 0, 3, true), LOCK_QUEUED);
    assert_int_equal(ask(t, "o1", "wsc", 20000, 1, true), LOCK_QUEUED);
    assert_int_equal(ask(t, "o2", "b", 0, 2, true), LOCK_DEADLOCK);
    lock_table_free(t);
}

/* Another name for a slot, and a second one. */
static void test_move(void **state)
{
    (void)state;
    SCRIPT({"@0 open ttl=9000", "ok s1 d9000"},
           {"@0 s1 acquire a by=o1 X limit=2 ttl=500", "ok #1 d500 | granted a o1 K2#1"},
           {"@0 s1 acquire a by=o2 X limit=2 ttl=500", "ok #2 d500 | granted a o2 K2#2"},
           {"@1 s1 acquire a by=o3 X limit=2 wait=inf",
            "queued | queued a o3 K2; wanted a o1 K2#1; wanted a o2 K2#2"},
           {"@1 s1 rename a,b by=o1", "ok #1 d500 | renamed a->b o1 K2#1; granted a o3 K2#3 s1/3"},
           {"@2 s1 link b,c by=o1 kind=posix", "invalid"},
           {"@2 s1 link b,c by=o1", "ok #4 d502 | granted c o1 K2#4"},
           {"@3 s1 acquire c by=o4 X limit=2", "ok #5 | granted c o4 K2#5"},
           {"@4 s1 acquire c by=o5 X limit=2", "conflict holder=o1"});
}

static struct lock_digest digest_with(uint32_t held, uint32_t waiting)
{
    struct lock_table *t = lock_table_new();
    struct lock_effects e;
    struct lock_command c = {.op = LOCK_OP_SESSION_OPEN, .stamp_ns = 1, .ttl_ms = 9000};
    lock_step(t, 1, &c, &e);
    uint64_t session_id = e.result.session_id;
    for (uint64_t i = 1; i <= 3; i++) {
        c = (struct lock_command){.op = LOCK_OP_ACQUIRE,
                                  .stamp_ns = 1,
                                  .session_id = session_id,
                                  .seq = i,
                                  .paths = {bytes_str("a")},
                                  .n_paths = 1,
                                  .owner = bytes_str(i == 1   ? "o1"
                                                     : i == 2 ? "o2"
                                                              : "o3"),
                                  .mode = LOCK_EXCLUSIVE,
                                  .end = LOCK_RANGE_END,
                                  .limit = i < 3 ? held : waiting,
                                  .wait_ms = LOCK_WAIT_FOREVER};
        lock_step(t, 1 + i, &c, &e);
    }
    struct lock_digest d = lock_digest(t);
    assert_null(lock_check(t));
    lock_table_free(t);
    return d;
}

/* The limits are in the digest: nodes that went apart by nothing else notice. */
static void test_digest(void **state)
{
    (void)state;
    struct lock_digest a = digest_with(2, 2), b = digest_with(2, 2);
    assert_true(a.lo == b.lo && a.hi == b.hi);
    b = digest_with(2, 1);
    assert_true(a.lo != b.lo && a.hi != b.hi);
    a = digest_with(3, 3);
    b = digest_with(4, 3);
    assert_true(a.lo != b.lo && a.hi != b.hi);
}

/* Many slots, many waiters: the index of a crowd knows the smallest limit. */
static void test_many(void **state)
{
    (void)state;
    struct lock_table *t = lock_table_new();
    struct lock_effects e;
    struct lock_command c = {.op = LOCK_OP_SESSION_OPEN, .stamp_ns = 1, .ttl_ms = 9000};
    lock_step(t, 1, &c, &e);
    uint64_t session_id = e.result.session_id, n_granted = 0;
    char owner[16];
    for (uint64_t i = 1; i <= 200; i++) {
        (void)snprintf(owner, sizeof owner, "o%03u", (unsigned)i);
        c = (struct lock_command){.op = LOCK_OP_ACQUIRE,
                                  .stamp_ns = 1,
                                  .session_id = session_id,
                                  .seq = i,
                                  .paths = {bytes_str("a")},
                                  .n_paths = 1,
                                  .owner = bytes_str(owner),
                                  .mode = LOCK_EXCLUSIVE,
                                  .end = LOCK_RANGE_END,
                                  .limit = i == 20 ? 60 : 100,
                                  .wait_ms = LOCK_WAIT_FOREVER};
        lock_step(t, 1 + i, &c, &e);
        n_granted += e.result.code == LOCK_OK;
        assert_null(lock_check(t));
    }
    assert_int_equal(n_granted, 60);
    c = (struct lock_command){.op = LOCK_OP_RELEASE,
                              .stamp_ns = 2,
                              .session_id = session_id,
                              .seq = 201,
                              .paths = {bytes_str("a")},
                              .n_paths = 1,
                              .owner = bytes_str("o020"),
                              .end = LOCK_RANGE_END};
    lock_step(t, 300, &c, &e);
    assert_int_equal(e.result.code, LOCK_OK);
    assert_int_equal(lock_counts(t).holds, 100);
    assert_null(lock_check(t));
    t = script_reimport(t);
    assert_null(lock_check(t));
    lock_table_free(t);
}

struct twisted {
    struct lock_table *t;
    uint32_t limit;
    enum lock_mode mode;
    int refused;
};

/* Every hold's row with these in it. */
static int twist_row(void *arg, const struct lock_row *row)
{
    struct twisted *w = arg;
    struct lock_row copy = *row;
    if (row->type == LOCK_ROW_HOLD) {
        copy.hold.limit = w->limit;
        copy.hold.mode = w->mode;
    }
    w->refused = lock_import_row(w->t, &copy);
    return w->refused;
}

/* A damaged image never gives more holders than a semaphore allows. */
static void test_import(void **state)
{
    static const struct {
        uint32_t limit;
        enum lock_mode mode;
        bool rows_fit; /* Then the digest tells. */
    } rows[] = {{3, LOCK_EXCLUSIVE, true},      {4, LOCK_EXCLUSIVE, true},
                {2, LOCK_EXCLUSIVE, false},     {0, LOCK_EXCLUSIVE, false},
                {3, LOCK_SHARED, false},        {65536, LOCK_EXCLUSIVE, false},
                {UINT32_MAX, LOCK_EXCLUSIVE, 0}};
    (void)state;
    struct lock_table *t = lock_table_new();
    struct lock_effects e;
    struct lock_command c = {.op = LOCK_OP_SESSION_OPEN, .stamp_ns = 1, .ttl_ms = 9000};
    lock_step(t, 1, &c, &e);
    c = (struct lock_command){.op = LOCK_OP_ACQUIRE,
                              .stamp_ns = 1,
                              .session_id = e.result.session_id,
                              .paths = {bytes_str("a")},
                              .n_paths = 1,
                              .mode = LOCK_EXCLUSIVE,
                              .end = LOCK_RANGE_END,
                              .limit = 3};
    static const char *const owners[] = {"o1", "o2", "o3"};
    for (unsigned i = 0; i < 3; i++) {
        c.seq = 1 + i;
        c.owner = bytes_str(owners[i]);
        lock_step(t, 2 + i, &c, &e);
        assert_int_equal(e.result.code, LOCK_OK);
    }
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct twisted w = {.t = lock_table_new(), .limit = rows[i].limit, .mode = rows[i].mode};
        assert_int_equal(lock_export(t, twist_row, &w) == 0, rows[i].rows_fit);
        if (rows[i].rows_fit)
            assert_int_equal(lock_import_finish(w.t) == 0, i == 0);
        lock_table_free(w.t);
    }
    lock_table_free(t);
}

static int twist_waiter(void *arg, const struct lock_row *row)
{
    struct twisted *w = arg;
    struct lock_row copy = *row;
    if (row->type == LOCK_ROW_WAITER)
        copy.waiter.limit = w->limit;
    w->refused = lock_import_row(w->t, &copy);
    return w->refused;
}

/* Nobody waits to convert a slot. */
static void test_import_waiter(void **state)
{
    (void)state;
    struct lock_table *t = lock_table_new();
    struct lock_effects e;
    struct lock_command c = {.op = LOCK_OP_SESSION_OPEN, .stamp_ns = 1, .ttl_ms = 9000};
    lock_step(t, 1, &c, &e);
    c = (struct lock_command){.op = LOCK_OP_ACQUIRE,
                              .stamp_ns = 1,
                              .session_id = e.result.session_id,
                              .paths = {bytes_str("a")},
                              .n_paths = 1,
                              .end = LOCK_RANGE_END,
                              .wait_ms = LOCK_WAIT_FOREVER};
    for (unsigned i = 0; i < 3; i++) {
        c.op = i < 2 ? LOCK_OP_ACQUIRE : LOCK_OP_CONVERT;
        c.mode = i < 2 ? LOCK_SHARED : LOCK_EXCLUSIVE;
        c.owner = bytes_str(i == 1 ? "o1" : "o2");
        c.seq = 1 + i;
        lock_step(t, 2 + i, &c, &e);
        assert_int_equal(e.result.code, i < 2 ? LOCK_OK : LOCK_QUEUED);
    }
    for (uint32_t limit = 0; limit < 3; limit++) {
        struct twisted w = {.t = lock_table_new(), .limit = limit};
        assert_int_equal(lock_export(t, twist_waiter, &w) == 0, limit == 0);
        lock_table_free(w.t);
    }
    lock_table_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_others),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_replace),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_delay),
        cmocka_unit_test(test_lapsed),
        cmocka_unit_test(test_deadlock),
        cmocka_unit_test(test_deadlock_beside_many),
        cmocka_unit_test(test_import_waiter),
        cmocka_unit_test(test_move),
        cmocka_unit_test(test_digest),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_import),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
