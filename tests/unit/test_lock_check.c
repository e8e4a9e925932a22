/* lock_check() finds what is wrong: a table with something of everything, in which one thing after
 * another is spoiled.  (The model and the simulator trust it after each step.) */
#include <stdlib.h>

#include "raftstore/lock/restore.h"
#include "raftstore/lock/table.h"
#include "tests/unit/lock_script.h"

static struct lock_table *t;
static uint64_t step_index, seqs[8];

static struct lock_result step(uint64_t session, struct lock_command c, const char *path)
{
    struct lock_effects e;
    c.stamp_ns = c.stamp_ns * LOCK_NS_PER_MS;
    c.session_id = session;
    c.seq = ++seqs[session];
    if (path != NULL) {
        c.paths[0] = bytes_str(path);
        c.n_paths = 1;
    }
    c.end = c.end == 0 ? LOCK_RANGE_END : c.end;
    lock_step(t, ++step_index, &c, &e);
    assert_null(lock_check(t));
    return e.result;
}

#define STEP(code_, session, path, ...)                                                            \
    assert_int_equal(step(session, (struct lock_command){__VA_ARGS__}, path).code, code_)
#define ACQUIRE(code_, session, path, by, ...)                                                     \
    STEP(code_, session, path, .op = LOCK_OP_ACQUIRE, .owner = bytes_str(by), __VA_ARGS__)

static int setup(void **state)
{
    (void)state;
    t = lock_table_new();
    step_index = 0;
    memset(seqs, 0, sizeof seqs);
    for (int i = 0; i < 2; i++)
        STEP(LOCK_OK, 0, NULL, .op = LOCK_OP_SESSION_OPEN, .ttl_ms = 1000000);
    STEP(LOCK_OK, 0, NULL, .op = LOCK_OP_SESSION_OPEN, .ttl_ms = 100);
    STEP(LOCK_OK, 0, NULL, .op = LOCK_OP_NODE_INFO, .node_id = 1, .host = bytes_str("alpha"));
    /* A session's hold, and who waits for it: with an agent, and with a limit. */
    ACQUIRE(LOCK_OK, 1, "busy", "o1", .mode = LOCK_EXCLUSIVE, .agent = 11);
    ACQUIRE(LOCK_QUEUED, 2, "busy", "o2", .mode = LOCK_EXCLUSIVE, .wait_ms = LOCK_WAIT_FOREVER,
            .agent = 12);
    ACQUIRE(LOCK_QUEUED, 1, "busy", "o3", .mode = LOCK_EXCLUSIVE, .wait_ms = 90000);
    /* Leases; a directory, one that nobody made, a delay, a semaphore, what lapsed. */
    ACQUIRE(LOCK_OK, 1, "lease", "o1", .mode = LOCK_EXCLUSIVE, .ttl_ms = 70000);
    ACQUIRE(LOCK_OK, 1, "a/b/c", "o1", .mode = LOCK_EXCLUSIVE, .ttl_ms = 60000,
            .flags = LOCK_F_PARENTS);
    STEP(LOCK_OK, 1, "made", .op = LOCK_OP_MKDIR);
    ACQUIRE(LOCK_OK, 1, "late", "o1", .mode = LOCK_EXCLUSIVE, .ttl_ms = 50, .lock_delay_ms = 80000);
    for (int i = 0; i < 2; i++)
        ACQUIRE(LOCK_OK, 2, "sem", i == 0 ? "o1" : "o2", .mode = LOCK_EXCLUSIVE, .ttl_ms = 60000,
                .limit = 3);
    ACQUIRE(LOCK_OK, 3, "lapsed", "o1", .mode = LOCK_EXCLUSIVE);
    /* Many, so that they are indexed by owner and range. */
    for (unsigned i = 0; i < 20; i++)
        ACQUIRE(LOCK_OK, 2, "many", i % 2 == 0 ? "o1" : "o2", .mode = LOCK_SHARED,
                .kind = LOCK_KIND_POSIX, .start = 10 * i, .end = 10 * i + 4);
    ACQUIRE(LOCK_OK, 2, "pair", "o1", .mode = LOCK_EXCLUSIVE, .kind = LOCK_KIND_POSIX, .end = 4);
    ACQUIRE(LOCK_OK, 2, "pair", "o2", .mode = LOCK_EXCLUSIVE, .kind = LOCK_KIND_POSIX, .start = 6,
            .end = 9);
    STEP(LOCK_OK, 0, NULL, .op = LOCK_OP_TICK, .stamp_ns = 200);
    assert_int_equal(t->n_lapsed, 1);
    assert_int_equal(t->n_delays, 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_null(lock_check(t)); /* All was put back. */
    lock_table_free(t);
    return 0;
}

static struct node *at(const char *path)
{
    struct node *n = node_find(t, bytes_str(path));
    assert_non_null(n);
    return n;
}

static void expect(const char *want)
{
    const char *why = lock_check(t);
    if (why == NULL || strcmp(why, want) != 0)
        fail_msg("\"%s\" instead of \"%s\"", why != NULL ? why : "nothing", want);
}

#define SPOIL(what, value, want)                                                                   \
    do {                                                                                           \
        __typeof__(what) old_ = (what);                                                            \
        (what) = (value);                                                                          \
        expect(want);                                                                              \
        (what) = old_;                                                                             \
    } while (0)

#define FLIP(bit, want)                                                                            \
    do {                                                                                           \
        (bit) = !(bit);                                                                            \
        expect(want);                                                                              \
        (bit) = !(bit);                                                                            \
    } while (0)

static void test_holds(void **state)
{
    (void)state;
    struct node *busy = at("busy");
    struct hold *h = busy->holds, *lease = at("lease")->holds, *many = at("many")->holds;
    SPOIL(h->node, at("lease"), "a hold is not on its node");
    SPOIL(h->token, 0, "a hold's token was never given out");
    SPOIL(h->token, t->next_token, "a hold's token was never given out");
    SPOIL(hold_extra(many->next)->end, 1, "a hold's range is empty");
    SPOIL(h->ttl_ms, 5, "a hold is neither a lease nor a session's, or has no deadline");
    SPOIL(lease->heap_index, 0, "a hold is neither a lease nor a session's, or has no deadline");
    SPOIL(h->session_id, 2, "a hold hangs on a session that is not there");
    SPOIL(many->next->prev, many->next, "the holds of a lock are out of order");
    SPOIL(lease->token, t->next_token - 1,
          "a hold is not found by its token, or two locks share one");
    SPOIL(hold_extra(at("pair")->holds->next)->start, 3, "two holds of a lock conflict");
    struct node *sem = at("sem");
    FLIP(sem->holds->exclusive, "a semaphore is not whole and exclusive");
    SPOIL(hold_extra(sem->holds)->limit, 1, "more hold a semaphore than it allows");
    SPOIL(sem->crowd->n_semaphores, 1, "a lock's count of semaphores is wrong");
}

static void test_crowds(void **state)
{
    (void)state;
    struct node *busy = at("busy"), *many = at("many");
    struct member *m = many->crowd->index->ranges;
    SPOIL(busy->crowd->n_exclusive, 2, "a lock's counts of holds are wrong");
    SPOIL(busy->crowd->n_links, 3, "a lock's count of waiters is wrong");
    SPOIL(m->hold, many->holds, "a hold is not found by its owner");
    SPOIL(m->reach, 0, "a crowd's tree of ranges is wrong");
    SPOIL(m->child[0]->height, 9, "a crowd's tree of ranges is wrong");
    SPOIL(m->child[0], NULL, "a crowd's tree of ranges is wrong");
    SPOIL(busy->crowd->dirty_start, 0, "a lock was touched and not settled");
    SPOIL(at("late")->crowd->delay_until_ns, 1, "a lock-delay is over and still there");
    SPOIL(at("late")->crowd->delay_until_ns, 0, "a lock is called busy and is not");
    struct link *l = TAILQ_FIRST(&busy->crowd->line);
    SPOIL(l->node, many, "a waiter stands in a queue that is not its own");
    SPOIL(l->waiter->queue_number, 100, "a queue is out of order");
    struct session *s = session_find(t, 1);
    FLIP(s->lapsed, "somebody waits for what a lapsed session holds");
    FLIP(busy->holds->exclusive, "a lock's counts of holds are wrong");
    l = TAILQ_NEXT(l, entry);
    SPOIL(l->waiter->queue_number, 0, "a queue is out of order");
    SPOIL(at("lease")->holds, NULL, "a lock stands there that nothing keeps");
    SPOIL(at("pair")->crowd, NULL, "a lock with several holds is not called busy");
    struct member *side = m->child[0];
    SPOIL(side->child[0]->height, 3, "a crowd's tree of ranges is wrong");
    SPOIL(hold_extra(m->hold)->start, 0, "a crowd's tree of ranges is out of order");
    SPOIL(many->crowd->index->ranges, side, "a crowd's tree of ranges lacks a hold");
}

static void test_directories(void **state)
{
    (void)state;
    struct node *a = at("a"), *root = t->root;
    FLIP(a->touched, "a node was touched and not settled");
    SPOIL(a->directory->n_entries, 0, "an implicit directory is empty");
    SPOIL(a->directory->n_entries, 2, "a directory's count of entries is wrong");
    SPOIL(a->directory->id, t->next_directory_id, "a directory's id was never given out");
    SPOIL(a->entries->parent, root, "an entry's parent is not its directory");
    SPOIL(root->entries->height, 1, "a directory's tree is out of balance");
    SPOIL(root->entries->name[0], '~', "a directory's tree is out of order");
    struct node *deep = root->entries->child[0];
    deep = deep->child[0] != NULL ? deep->child[0] : deep->child[1];
    SPOIL(deep->parent, a, "an entry's parent is not its directory");
}

static void test_sessions(void **state)
{
    (void)state;
    struct session *s = session_find(t, 1), *two = session_find(t, 2), *three = session_find(t, 3);
    SPOIL(hold_extra(two->holds)->session_next, NULL, "a session's counts are wrong");
    SPOIL(hold_extra(s->holds)->session_next, three->holds, "a session's holds are out of order");
    SPOIL(TAILQ_FIRST(&s->waiters)->session, two, "a session does not find its waiter");
    SPOIL(s->n_reserved, 7, "a session's counts are wrong");
    SPOIL(s->heap_index, 0, "a session is neither alive nor lapsed");
    SPOIL(three->heap_index, 1, "a session is neither alive nor lapsed");
    SPOIL(s->kept[s->kept_begin + 1].seq, 1, "a session's results are out of order");
    SPOIL(s->kept[s->kept_begin].code, LOCK_QUEUED, "a result says queued, but nobody waits");
}

static void test_waiters(void **state)
{
    (void)state;
    struct waiter *w = TAILQ_FIRST(&t->waiters), *v = TAILQ_NEXT(w, all_entry);
    SPOIL(t->next_queue_number, v->queue_number, "the queue numbers are out of order");
    SPOIL(w->heap_index, 1, "a waiter's limit is not in the heap");
    SPOIL(v->heap_index, 0, "a waiter's limit is not in the heap");
    struct session *s = session_find(t, 2);
    FLIP(s->lapsed, "a session is neither alive nor lapsed");
    SPOIL(v->limit, LOCK_SEMAPHORE_MAX + 1, "somebody waits for a slot that can't be one");
    SPOIL(t->n_waiters, 1, "the counts of waiters are wrong");
    struct agent *a = w->agent;
    SPOIL(a->n_waiters, 0, "an agent neither holds nor waits");
    SPOIL(a->n_waiters, 2, "the agents' counts are wrong");
    SPOIL(a->n_holds, 1, "the agents' counts are wrong");
}

/* All ids are used up, after 2^40 sessions: no further one. */
static void test_ids_used_up(void **state)
{
    (void)state;
    uint64_t next = t->next_session_id;
    t->next_session_id = UINT64_C(1) << SESSION_COUNT_BITS;
    struct lock_effects e;
    lock_step(t, ++step_index, &(struct lock_command){.op = LOCK_OP_SESSION_OPEN, .ttl_ms = 1000},
              &e);
    assert_int_equal(e.result.code, LOCK_LIMIT);
    t->next_session_id = next;
}

static void test_totals(void **state)
{
    (void)state;
    SPOIL(*t->infos[0].host, 'b', "the digest is not that of the state");
    SPOIL(t->n_locks, 0, "the totals are wrong");
    SPOIL(t->n_lapsed, 0, "the totals are wrong");
    SPOIL(t->tokens.n, 0, "the totals are wrong");
    SPOIL(at("lease")->holds->uid, 77, "the digest is not that of the state");
    struct hold *lease = at("lease")->holds;
    SPOIL(lease->heap_index, lease->heap_index + 1,
          "a deadline does not know its place in the heap");
    uint64_t stamp = t->stamp_ns;
    t->stamp_ns = lock_next_deadline_ns(t);
    expect("a deadline is over and nothing happened");
    t->stamp_ns = stamp;
    struct hold *first = at("a/b/c")->holds;
    SPOIL(first->renewed_ns, lease->renewed_ns * 2 + UINT64_C(900000000000),
          "the heap of deadlines is out of order");
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_holds),   CASE(test_crowds), CASE(test_directories), CASE(test_sessions),
        CASE(test_waiters), CASE(test_totals), CASE(test_ids_used_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
