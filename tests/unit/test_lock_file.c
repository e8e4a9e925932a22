/* How a hold's file is shown: its names, and its time. */
#include <errno.h>

#include "raftstore/lock/restore.h"
#include "raftstore/lock/view.h"
#include "tests/unit/lock_script.h"

static struct lock_hold_view at(const struct lock_table *t, const char *path)
{
    struct lock_hold_view v;
    struct lock_node_view n = lock_lookup(t, bytes_str(path));
    assert_true(lock_node_hold(&n, 0, &v));
    return v;
}

static enum lock_code
step(struct lock_table *t, enum lock_op op, const char *from, const char *to, uint64_t mtime_ns)
{
    static uint64_t seq;
    struct lock_effects e;
    seq++;
    struct lock_command c = {
        .op = op,
        .stamp_ns = 10 * seq,
        .session_id = op == LOCK_OP_SESSION_OPEN ? 0 : 1,
        .seq = seq,
        .ack_seq = seq - 1,
        .paths = {bytes_str(from), bytes_str(to)},
        .n_paths = to[0] == '\0' ? 1 : 2,
        .owner = bytes_str("o"),
        .mode = LOCK_EXCLUSIVE,
        .kind = LOCK_KIND_EXCL,
        .end = LOCK_RANGE_END,
        .ttl_ms = 1000,
        .mtime_ns = mtime_ns,
        .note = bytes_str(op == LOCK_OP_ACQUIRE ? "first" : ""),
    };
    lock_step(t, seq, &c, &e);
    assert_null(lock_check(t));
    return e.result.code;
}

static void assert_file(struct lock_table *t, const char *path, uint64_t file, unsigned n_links)
{
    assert_int_equal(at(t, path).file_token, file);
    assert_int_equal(at(t, path).n_links, n_links);
}

/* Names of one file: they have its number in common, also when others went. */
static void test_links(void **state)
{
    (void)state;
    struct lock_table *t = lock_table_new();
    char name[2] = "b";
    assert_int_equal(step(t, LOCK_OP_SESSION_OPEN, "", "", 0), LOCK_OK);
    assert_int_equal(step(t, LOCK_OP_ACQUIRE, "a", "", 77), LOCK_OK);
    uint64_t file = at(t, "a").token;
    assert_file(t, "a", file, 1);
    for (unsigned i = 2; i <= LOCK_LINKS_MAX; i++, name[0]++) {
        assert_int_equal(step(t, LOCK_OP_LINK, i % 2 == 0 ? "a" : "b", name, 0), LOCK_OK);
        assert_file(t, name, file, i);
        t = script_reimport(t);
    }
    assert_int_equal(step(t, LOCK_OP_LINK, "a", "x", 0), LOCK_LIMIT);
    assert_true(at(t, "h").token != file && at(t, "h").mtime_ns == 77);
    assert_true(bytes_equal(at(t, "h").note, bytes_str("first")));
    assert_int_equal(step(t, LOCK_OP_RELEASE, "a", "", 0), LOCK_OK);
    assert_int_equal(step(t, LOCK_OP_RENAME, "c", "z", 0), LOCK_OK);
    for (name[0] = 'b'; name[0] <= 'h'; name[0]++)
        assert_file(t, name[0] == 'c' ? "z" : name, file, LOCK_LINKS_MAX - 1);
    assert_int_equal(step(t, LOCK_OP_LINK, "b", "a", 0), LOCK_OK);
    for (name[0] = 'c'; name[0] <= 'h'; name[0]++)
        assert_int_equal(step(t, LOCK_OP_RELEASE, name[0] == 'c' ? "z" : name, "", 0), LOCK_OK);
    assert_file(t, "a", file, 2);
    assert_file(t, "b", file, 2);
    assert_int_equal(step(t, LOCK_OP_RELEASE, "a", "", 0), LOCK_OK);
    assert_file(t, "b", file, 1);
    t = script_reimport(t);
    assert_file(t, "b", file, 1);
    lock_table_free(t);
}

/* The time that a file shows is that of the last renewal, unless that named one. */
static void test_mtime(void **state)
{
    (void)state;
    struct lock_table *t = lock_table_new();
    assert_int_equal(step(t, LOCK_OP_SESSION_OPEN, "", "", 0), LOCK_OK);
    assert_int_equal(step(t, LOCK_OP_ACQUIRE, "a", "", 0), LOCK_OK);
    assert_int_equal(at(t, "a").mtime_ns, 0);
    assert_int_equal(step(t, LOCK_OP_RENEW, "a", "", UINT64_MAX), LOCK_OK);
    assert_true(at(t, "a").mtime_ns == UINT64_MAX);
    t = script_reimport(t);
    assert_true(at(t, "a").mtime_ns == UINT64_MAX);
    assert_int_equal(step(t, LOCK_OP_NOTE, "a", "", 0), LOCK_OK);
    assert_true(at(t, "a").mtime_ns == UINT64_MAX);
    assert_int_equal(step(t, LOCK_OP_RENEW, "a", "", 0), LOCK_OK);
    assert_int_equal(at(t, "a").mtime_ns, 0);
    t = script_reimport(t);
    assert_int_equal(step(t, LOCK_OP_ACQUIRE, "a", "", 5), LOCK_OK); /* Again: a renewal. */
    assert_int_equal(at(t, "a").mtime_ns, 5);
    lock_table_free(t);
}

/* A copy in which the first name of a file has other values. */
struct changed {
    struct lock_table *t;
    uint64_t mtime_ns, file_token, twin; /* 0 = as they are. */
};

static int change_row(void *arg, const struct lock_row *row)
{
    struct changed *c = arg;
    struct lock_row copy = *row;
    if (row->type == LOCK_ROW_HOLD && row->hold.twin > row->hold.token) {
        copy.hold.mtime_ns = c->mtime_ns != 0 ? c->mtime_ns : row->hold.mtime_ns;
        copy.hold.file_token = c->file_token != 0 ? c->file_token : row->hold.file_token;
        copy.hold.twin = c->twin != 0 ? c->twin : row->hold.twin;
    }
    return lock_import_row(c->t, &copy);
}

/* The time, the file and the ring are in the digest: nodes that went apart by nothing else notice,
 * and a damaged image is refused. */
static void test_digest(void **state)
{
    static const struct changed changes[] = {
        {.mtime_ns = 77}, {.mtime_ns = 78}, {.file_token = 2}, {.twin = 1}, {.twin = 3}};
    (void)state;
    struct lock_table *t = lock_table_new();
    assert_int_equal(step(t, LOCK_OP_SESSION_OPEN, "", "", 0), LOCK_OK);
    assert_int_equal(step(t, LOCK_OP_ACQUIRE, "a", "", 77), LOCK_OK);
    assert_int_equal(step(t, LOCK_OP_LINK, "a", "b", 0), LOCK_OK);
    assert_int_equal(step(t, LOCK_OP_ACQUIRE, "c", "", 77), LOCK_OK);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        struct changed c = changes[i];
        c.t = lock_table_new();
        assert_int_equal(lock_export(t, change_row, &c), 0);
        struct lock_digest want = lock_digest(t), got = lock_digest(c.t);
        assert_int_equal(want.lo == got.lo && want.hi == got.hi, changes[i].mtime_ns == 77);
        assert_int_equal(lock_import_finish(c.t), changes[i].mtime_ns == 77 ? 0 : -EINVAL);
        lock_table_free(c.t);
    }
    lock_table_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_links),
        cmocka_unit_test(test_mtime),
        cmocka_unit_test(test_digest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
