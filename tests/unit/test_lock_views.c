/* Paths, the reads of the lock table, and what an import refuses. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "raftstore/base/buf.h"
#include "raftstore/lock/restore.h"
#include "raftstore/lock/view.h"
#include "tests/unit/lock_script.h"

static void test_paths(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        bool valid;
    } cases[] = {
        {"a", true},
        {"a/b", true},
        {"...", true},
        {".lock", true},
        {"a b\n\xff", true},
        {"", false},
        {"/", false},
        {"/a", false},
        {"a/", false},
        {"a//b", false},
        {".", false},
        {"a/..", false},
        {"./a", false},
        {".holdfast", false},
        {"a/.holdfast/b", false},
        {".holdfast2", true},
        {"1/2/3/4/5/6/7/8/9/a/b/c/d/e/f/g", true},
        {"1/2/3/4/5/6/7/8/9/a/b/c/d/e/f/g/h", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (lock_path_valid(bytes_str(cases[i].path)) != cases[i].valid)
            fail_msg("%s", cases[i].path);
    }
    char long_path[1025];
    memset(long_path, 'x', sizeof long_path);
    assert_true(lock_path_valid(bytes_of(long_path, 255)));
    assert_false(lock_path_valid(bytes_of(long_path, 256)));
    for (size_t i = 255; i < sizeof long_path; i += 256)
        long_path[i] = '/';
    assert_true(lock_path_valid(bytes_of(long_path, 1023)));
    assert_false(lock_path_valid(bytes_of(long_path, 1025)));
    assert_false(lock_path_valid(bytes_of("a\0b", 3)));
}

struct fixture {
    struct lock_table *t;
    uint64_t index;
};

static struct lock_result step(struct fixture *f, struct lock_command c)
{
    struct lock_effects e;
    c.session_id = c.op == LOCK_OP_SESSION_OPEN ? 0 : 1;
    c.seq = ++f->index;
    c.ack_seq = c.seq - 1;
    if (c.end == 0)
        c.end = LOCK_RANGE_END;
    lock_step(f->t, f->index, &c, &e);
    return e.result;
}

static void begin(struct fixture *f)
{
    *f = (struct fixture){.t = lock_table_new()};
    (void)step(f, (struct lock_command){
                      .op = LOCK_OP_SESSION_OPEN, .ttl_ms = 100000, .host = bytes_str("alpha")});
}

static void acquire(struct fixture *f, const char *path, const char *owner, enum lock_mode mode)
{
    struct lock_result r = step(f, (struct lock_command){.op = LOCK_OP_ACQUIRE,
                                                         .flags = LOCK_F_PARENTS,
                                                         .paths = {bytes_str(path)},
                                                         .n_paths = 1,
                                                         .owner = bytes_str(owner),
                                                         .mode = mode,
                                                         .ttl_ms = 5000,
                                                         .wait_ms = LOCK_WAIT_FOREVER,
                                                         .note = bytes_str("n"),
                                                         .pid = 7});
    assert_true(r.code == LOCK_OK || r.code == LOCK_QUEUED);
}

struct listing {
    struct buf text;
    unsigned n_max;
};

static bool add_name(void *arg, const struct lock_node_view *node)
{
    struct listing *l = arg;
    buf_printf(&l->text, "%.*s%s ", (int)node->path.size, (const char *)node->path.data,
               node->type == LOCK_NODE_DIRECTORY ? "/" : "");
    return --l->n_max > 0;
}

static void expect_prefix(
    struct fixture *f, const char *prefix, const char *after, unsigned n_max, const char *want)
{
    struct listing l = {.n_max = n_max};
    lock_list_prefix(f->t, bytes_str(prefix), bytes_str(after), add_name, NULL, &l);
    buf_add(&l.text, "", 1);
    assert_string_equal(l.text.data, want);
    buf_deinit(&l.text);
}

static void expect_list(struct fixture *f, const char *path, const char *after, const char *want)
{
    struct listing l = {.n_max = 100};
    assert_int_equal(lock_list(f->t, bytes_str(path), bytes_str(after), add_name, &l), LOCK_OK);
    buf_add(&l.text, "", 1);
    assert_string_equal(l.text.data, want);
    buf_deinit(&l.text);
}

static void test_lists(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    (void)step(&f,
               (struct lock_command){.op = LOCK_OP_MKDIR, .paths = {bytes_str("d")}, .n_paths = 1});
    static const char *const paths[] = {"b",     "d/y", "d/x", "e/f/g", "a",
                                        "e/f/h", "e2",  "d-",  "e/z"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        acquire(&f, paths[i], "o", LOCK_EXCLUSIVE);
    expect_list(&f, "", "", "a b d/ d- e/ e2 ");
    expect_list(&f, "", "b", "d/ d- e/ e2 ");
    expect_list(&f, "", "bb", "d/ d- e/ e2 ");
    expect_list(&f, "d", "", "d/x d/y ");
    expect_list(&f, "d", "y", "");
    struct listing l = {.n_max = 9};
    assert_int_equal(lock_list(f.t, bytes_str("a"), bytes_str(""), add_name, &l), LOCK_NOT_DIR);
    assert_int_equal(lock_list(f.t, bytes_str("q"), bytes_str(""), add_name, &l), LOCK_NOT_FOUND);

    expect_prefix(&f, "", "", 99, "a b d/ d/x d/y d- e/f/g e/f/h e/z e2 ");
    expect_prefix(&f, "", "", 3, "a b d/ ");
    expect_prefix(&f, "", "d", 99, "d/x d/y d- e/f/g e/f/h e/z e2 ");
    expect_prefix(&f, "", "d/x", 99, "d/y d- e/f/g e/f/h e/z e2 ");
    expect_prefix(&f, "", "e/f/g", 99, "e/f/h e/z e2 ");
    expect_prefix(&f, "e", "", 99, "e/f/g e/f/h e/z e2 ");
    expect_prefix(&f, "e/", "", 99, "e/f/g e/f/h e/z ");
    expect_prefix(&f, "e/f/", "e/f/g", 99, "e/f/h ");
    expect_prefix(&f, "e/f/", "d", 99, "e/f/g e/f/h ");
    expect_prefix(&f, "e/f/", "f", 99, "");
    expect_prefix(&f, "d", "", 99, "d/ d/x d/y d- ");
    expect_prefix(&f, "d/y", "", 99, "d/y ");
    expect_prefix(&f, "zz", "", 99, "");
    lock_table_free(f.t);
}

static bool count_waiter(void *arg, const struct lock_waiter_view *w)
{
    unsigned *n = arg;
    assert_int_equal(w->session_id, 1);
    return ++*n < 2;
}

static bool count_hold(void *arg, const struct lock_hold_view *h)
{
    unsigned *n = arg;
    assert_true(bytes_equal(h->host, bytes_str("alpha")));
    ++*n;
    return true;
}

static void test_views(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    acquire(&f, "d/a", "o1", LOCK_SHARED);
    acquire(&f, "d/a", "o2", LOCK_SHARED);
    acquire(&f, "d/a", "o3", LOCK_EXCLUSIVE);
    acquire(&f, "d/a", "o4", LOCK_EXCLUSIVE);
    acquire(&f, "d/a", "o5", LOCK_EXCLUSIVE);
    struct lock_node_view n = lock_lookup(f.t, bytes_str("d/a"));
    assert_int_equal(n.type, LOCK_NODE_LOCK);
    assert_int_equal(n.n_holds, 2);
    assert_int_equal(n.n_waiters, 3);
    struct lock_hold_view h;
    assert_true(lock_node_hold(&n, 1, &h));
    assert_true(bytes_equal(h.owner, bytes_str("o2")) && bytes_equal(h.note, bytes_str("n")));
    assert_true(bytes_equal(h.host, bytes_str("alpha")));
    assert_int_equal(h.pid, 7);
    assert_false(lock_node_hold(&n, 2, &h));
    unsigned n_waiters = 0, n_holds = 0;
    lock_node_waiters(f.t, &n, count_waiter, &n_waiters);
    lock_node_holds(f.t, &n, count_hold, &n_holds);
    assert_int_equal(n_waiters, 2); /* It was told to stop. */
    assert_int_equal(n_holds, 2);
    struct bytes path;
    assert_true(lock_find_token(f.t, 2, &h, &path));
    assert_true(bytes_equal(path, bytes_str("d/a")) && bytes_equal(h.owner, bytes_str("o2")));
    assert_false(lock_find_token(f.t, 3, &h, &path));
    n = lock_lookup(f.t, bytes_str("d"));
    assert_int_equal(n.type, LOCK_NODE_DIRECTORY);
    assert_true(n.implicit && n.directory_id == 2 && n.n_children == 1);
    assert_int_equal(lock_lookup(f.t, bytes_str("")).directory_id, 1);
    assert_int_equal(lock_lookup(f.t, bytes_str("x")).type, LOCK_NODE_NONE);
    assert_int_equal(lock_lookup(f.t, bytes_str("/x")).type, LOCK_NODE_NONE);
    struct lock_session_view s;
    assert_true(lock_find_session(f.t, 1, &s));
    assert_true(s.n_holds == 0 && s.n_waiters == 3 && !s.lapsed);
    assert_false(lock_find_session(f.t, 2, &s));
    struct lock_counts c = lock_counts(f.t);
    assert_true(c.locks == 1 && c.holds == 2 && c.waiters == 3 && c.sessions == 1 &&
                c.directories == 1 && c.last_token == 2);
    lock_table_free(f.t);
}

/* Many holds: the index of tokens grows, a crowd's owners are indexed, all survive a snapshot. */
static bool stop_hold(void *arg, const struct lock_hold_view *h)
{
    (void)h;
    return ++*(unsigned *)arg < 2;
}

static bool stop_waiter(void *arg, const struct lock_waiter_view *w)
{
    (void)w;
    return ++*(unsigned *)arg < 2;
}

static bool stop_session(void *arg, const struct lock_session_view *s)
{
    (void)s;
    return ++*(unsigned *)arg < 1;
}

static bool stop_path(void *arg, struct bytes path, const struct lock_hold_view *h)
{
    (void)path;
    (void)h;
    return ++*(unsigned *)arg < 2;
}

/* A visitor that has enough is not called again; what is not there has nothing to show. */
static void test_stops(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    for (unsigned i = 0; i < 6; i++) {
        struct lock_command c = {.op = LOCK_OP_ACQUIRE,
                                 .paths = {bytes_str("d/l")},
                                 .n_paths = 1,
                                 .flags = LOCK_F_PARENTS,
                                 .mode = i < 3 ? LOCK_SHARED : LOCK_EXCLUSIVE,
                                 .wait_ms = i < 3 ? 0 : LOCK_WAIT_FOREVER,
                                 .owner = bytes_of(&"abcxyz"[i], 1)};
        assert_int_equal(step(&f, c).code, i < 3 ? LOCK_OK : LOCK_QUEUED);
    }
    struct lock_node_view lock = lock_lookup(f.t, bytes_str("d/l"));
    struct lock_node_view directory = lock_lookup(f.t, bytes_str("d"));
    struct lock_node_view nothing = lock_lookup(f.t, bytes_str("none"));
    unsigned n = 0;
    lock_node_holds(f.t, &lock, stop_hold, &n);
    assert_int_equal(n, 2);
    n = 0;
    lock_node_waiters(f.t, &lock, stop_waiter, &n);
    assert_int_equal(n, 2);
    n = 0;
    lock_session_holds(f.t, 1, stop_path, &n);
    assert_int_equal(n, 2);
    n = 0;
    lock_sessions(f.t, 0, stop_session, &n);
    assert_int_equal(n, 1);
    n = 0;
    struct lock_hold_view hold;
    const struct lock_node_view *const empty[] = {&directory, &nothing};
    for (size_t i = 0; i < 2; i++) {
        assert_false(lock_node_hold(empty[i], 0, &hold));
        lock_node_holds(f.t, empty[i], stop_hold, &n);
        lock_node_waiters(f.t, empty[i], stop_waiter, &n);
    }
    lock_session_holds(f.t, 99, stop_path, &n);
    lock_sessions(f.t, UINT64_MAX, stop_session, &n);
    assert_int_equal(n, 0);
    lock_table_free(f.t);
}

static void test_many(void **state)
{
    (void)state;
    struct fixture f;
    char path[32], owner[32];
    begin(&f);
    for (unsigned i = 0; i < 5000; i++) {
        (void)snprintf(path, sizeof path, "dir%u/lock%u", i % 7, i * 7919 % 5000);
        acquire(&f, path, "o", LOCK_EXCLUSIVE);
        (void)snprintf(owner, sizeof owner, "reader-%u", i);
        if (i < 400)
            acquire(&f, "crowd", owner, LOCK_SHARED);
    }
    f.t = script_reimport(f.t);
    assert_null(lock_check(f.t));
    for (unsigned i = 0; i < 5000; i += 2) {
        (void)snprintf(path, sizeof path, "dir%u/lock%u", i % 7, i * 7919 % 5000);
        struct lock_command c = {.op = LOCK_OP_RELEASE,
                                 .paths = {bytes_str(path)},
                                 .n_paths = 1,
                                 .owner = bytes_str("o")};
        assert_int_equal(step(&f, c).code, LOCK_OK);
        (void)snprintf(owner, sizeof owner, "reader-%u", i);
        c.paths[0] = bytes_str("crowd");
        c.owner = bytes_str(owner);
        assert_int_equal(step(&f, c).code, i < 400 ? LOCK_OK : LOCK_NOT_OWNER);
    }
    assert_null(lock_check(f.t));
    f.t = script_reimport(f.t);
    assert_int_equal(lock_counts(f.t).holds, 2500 + 200);
    lock_table_free(f.t);
}

/* A damaged image: one number of one row is changed, or the row left out. */
struct damage {
    struct lock_table *to;
    unsigned at; /* Row. */
    unsigned how;
    unsigned row;
    enum lock_row_type type;
};

static void spoil(struct lock_row *row, unsigned how)
{
    uint64_t *const numbers[][2] = {
        [LOCK_ROW_META] = {&row->meta.next_token, &row->meta.stamp_ns},
        [LOCK_ROW_DIRECTORY] = {&row->directory.directory_id, &row->directory.changed_ns},
        [LOCK_ROW_SESSION] = {&row->session.session_id, &row->session.deadline_ns},
        [LOCK_ROW_RESULT] = {&row->result.session_id, &row->result.seq},
        [LOCK_ROW_HOLD] = {&row->hold.token, &row->hold.deadline_ns},
        [LOCK_ROW_WAITER] = {&row->waiter.queue_number, &row->waiter.session_id},
        [LOCK_ROW_DELAY] = {&row->delay.until_ns, &row->delay.until_ns},
        [LOCK_ROW_NODE] = {&row->node.node_id, &row->node.node_id},
    };
    uint64_t *n = numbers[row->type][how & 1];
    *n = (how & 2) != 0 ? *n + 1 : UINT64_MAX;
}

static int import_damaged(void *arg, const struct lock_row *row)
{
    struct damage *d = arg;
    struct lock_row spoilt = *row;
    if (d->row++ != d->at)
        return lock_import_row(d->to, row);
    d->type = row->type;
    if (d->how == 4)
        return 0;
    spoil(&spoilt, d->how);
    return lock_import_row(d->to, &spoilt);
}

static int count_row(void *arg, const struct lock_row *row)
{
    (void)row;
    ++*(unsigned *)arg;
    return 0;
}

static void test_damaged(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    (void)step(
        &f, (struct lock_command){.op = LOCK_OP_NODE_INFO, .node_id = 3, .host = bytes_str("h")});
    (void)step(&f, (struct lock_command){.op = LOCK_OP_ACQUIRE,
                                         .paths = {bytes_str("z")},
                                         .n_paths = 1,
                                         .owner = bytes_str("o"),
                                         .mode = LOCK_EXCLUSIVE,
                                         .ttl_ms = 10,
                                         .lock_delay_ms = 60000});
    (void)step(&f, (struct lock_command){.op = LOCK_OP_TICK, .stamp_ns = 20000000});
    acquire(&f, "d/a", "o1", LOCK_SHARED);
    acquire(&f, "d/b", "o1", LOCK_EXCLUSIVE);
    acquire(&f, "d/a", "o2", LOCK_EXCLUSIVE);
    unsigned seen = 0, n_rows = 0;
    (void)lock_export(f.t, count_row, &n_rows); /* The visitor never stops it. */
    for (unsigned at = 0; at < n_rows; at++) {
        for (unsigned how = 0; how < 5; how++) {
            struct damage d = {.to = lock_table_new(), .at = at, .how = how};
            int r = lock_export(f.t, import_damaged, &d);
            if (r == 0)
                r = lock_import_finish(d.to);
            if (r != -EINVAL)
                fail_msg("row %u (type %d), damage %u: %d", at, (int)d.type, how, r);
            seen |= 1u << d.type;
            lock_table_free(d.to);
        }
    }
    assert_int_equal(seen, 0x1fe); /* Every type of row was there. */
    lock_table_free(f.t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths), cmocka_unit_test(test_lists),   cmocka_unit_test(test_views),
        cmocka_unit_test(test_many),  cmocka_unit_test(test_damaged), cmocka_unit_test(test_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
