/* Unit tests of fs/report.c and fs/errno_table.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "fs/errno_table.h"
#include "fs/report.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

static void assert_report(const Hf__Node *node, const char *expected)
{
    struct buf text = BUF_INIT;
    report_node(node, &text);
    buf_add(&text, "", 1);
    assert_string_equal((const char *)text.data, expected);
    buf_deinit(&text);
}

static Hf__Hold example_hold(void)
{
    Hf__Hold h = HF__HOLD__INIT;
    h.owner = pack_binary(bytes_str("db1/5f0c21aa/4242.81733/1"));
    h.pid = 4242;
    h.host = pack_binary(bytes_str("db1"));
    h.mode = WIRE_MODE_EXCLUSIVE;
    h.token = 17;
    h.since_wall_ms = UINT64_C(1793001600120);
    h.expires_wall_ms = UINT64_C(1793001630005);
    h.remaining_ms = 29411;
    h.ttl_ms = 30000;
    h.note = pack_binary(bytes_str("4242"));
    return h;
}

static void test_free_lock(void **state)
{
    Hf__Node node = HF__NODE__INIT;
    (void)state;
    assert_report(&node, "");
    node.waiters_total = 3;
    assert_report(&node, "");
}

#define EXAMPLE                                                                                    \
    "owner=db1/5f0c21aa/4242.81733/1\npid=4242\nhost=db1\nmode=exclusive\ntoken=17\n"              \
    "since=2026-10-26T08:00:00.120Z\nexpires=2026-10-26T08:00:30.005Z\nremaining_ms=29411\n"       \
    "ttl_ms=30000\nwaiters=2\n"

/* The session that made a lease may be gone. */
static void test_host_of_owner(void **state)
{
    Hf__Node node = HF__NODE__INIT;
    Hf__Hold hold = example_hold();
    Hf__Hold *holds[] = {&hold};
    (void)state;
    node.type = WIRE_NODE_LOCK;
    node.holds = holds;
    node.n_holds = 1;
    node.waiters_total = 2;
    hold.host = pack_binary(bytes_of(NULL, 0));
    hold.kind = WIRE_KIND_EXCL;
    assert_report(&node, EXAMPLE "note=4242\n");
}

static void test_one(void **state)
{
    Hf__Node node = HF__NODE__INIT;
    Hf__Hold hold = example_hold();
    Hf__Hold *holds[] = {&hold};
    (void)state;
    node.type = WIRE_NODE_LOCK;
    node.holds = holds;
    node.n_holds = 1;
    node.waiters_total = 2;
    assert_report(&node, EXAMPLE "note=4242\n");
    /* One line whatever the note holds. */
    hold.note = pack_binary(bytes_of("a\nb=\x7f\\\0c\xc3\xa4", 10));
    assert_report(&node, EXAMPLE "note=a\\x0ab=\\x7f\\x5c\\x00c\xc3\xa4\n");
}

/* The same with the lines about several holders. */
static void add_block(struct buf *out, const char *mode, const char *lines)
{
    buf_printf(out,
               "%sowner=db1/5f0c21aa/4242.81733/1\npid=4242\nhost=db1\nmode=%s\ntoken=17\n"
               "since=2026-10-26T08:00:00.120Z\nexpires=2026-10-26T08:00:30.005Z\n"
               "remaining_ms=29411\nttl_ms=30000\n%swaiters=2\nnote=4242\n",
               out->size > 0 ? "\n" : "", mode, lines);
}

static void test_several(void **state)
{
    Hf__Node node = HF__NODE__INIT;
    Hf__Hold hold = example_hold();
    Hf__Hold *holds[] = {&hold, &hold};
    (void)state;
    node.type = WIRE_NODE_LOCK;
    node.holds = holds;
    node.n_holds = 2;
    node.waiters_total = 2;
    struct buf expected = BUF_INIT;
    add_block(&expected, "exclusive", "holders=2\n");
    add_block(&expected, "exclusive", "holders=2\n");
    buf_add(&expected, "", 1);
    assert_report(&node, (const char *)expected.data);
    buf_deinit(&expected);
}

static void test_semaphore(void **state)
{
    Hf__Node node = HF__NODE__INIT;
    Hf__Hold hold = example_hold();
    Hf__Hold *holds[] = {&hold, &hold};
    struct buf expected = BUF_INIT;
    (void)state;
    hold.limit = 5;
    node.type = WIRE_NODE_LOCK;
    node.holds = holds;
    node.n_holds = 1;
    node.waiters_total = 2;
    add_block(&expected, "semaphore", "limit=5\nholders=1\n");
    buf_add(&expected, "", 1);
    assert_report(&node, (const char *)expected.data);
    expected.size = 0;
    node.n_holds = 2;
    node.holds_total = 1500; /* More than are listed. */
    add_block(&expected, "semaphore", "limit=5\nholders=1500\n");
    add_block(&expected, "semaphore", "limit=5\nholders=1500\n");
    buf_add(&expected, "", 1);
    assert_report(&node, (const char *)expected.data);
    buf_deinit(&expected);
}

static void test_errno(void **state)
{
    static const struct {
        enum errno_context context;
        uint32_t code;
        int error;
    } rows[] = {
        {ERRNO_ACQUIRE, WIRE_CODE_OK, 0},
        {ERRNO_ACQUIRE, WIRE_CODE_CONFLICT, EEXIST},
        {ERRNO_ACQUIRE, WIRE_CODE_DELAYED, EEXIST},
        {ERRNO_ACQUIRE, WIRE_CODE_IS_DIR, EEXIST},
        {ERRNO_ACQUIRE, WIRE_CODE_LIMIT, ENOSPC},
        {ERRNO_ACQUIRE, WIRE_CODE_NO_PARENT, ENOENT},
        {ERRNO_ACQUIRE, WIRE_CODE_NOT_DIR, ENOTDIR},
        {ERRNO_CHANGE, WIRE_CODE_NOT_HELD, ESTALE},
        {ERRNO_CHANGE, WIRE_CODE_NOT_OWNER, EPERM},
        {ERRNO_RELEASE, WIRE_CODE_NOT_HELD, ENOENT},
        {ERRNO_RELEASE, WIRE_CODE_NOT_OWNER, EPERM},
        {ERRNO_BY_HANDLE, WIRE_CODE_NOT_HELD, ESTALE},
        {ERRNO_BY_HANDLE, WIRE_CODE_NOT_OWNER, ESTALE},
        {ERRNO_BY_TOKEN, WIRE_CODE_NOT_OWNER, EPERM},
        {ERRNO_MKDIR, WIRE_CODE_EXISTS, EEXIST},
        {ERRNO_RMDIR, WIRE_CODE_NOT_EMPTY, ENOTEMPTY},
        {ERRNO_RMDIR, 4711, EIO},
        {ERRNO_RMDIR, UINT32_MAX, EIO},
        {ERRNO_ACQUIRE, WIRE_CODE_QUEUED, EIO},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(errno_of_code(rows[i].context, rows[i].code), rows[i].error);
    assert_int_equal(errno_of_status(0), 0);
    assert_int_equal(errno_of_status(-ETIMEDOUT), ETIMEDOUT);
    assert_int_equal(errno_of_status(-ECANCELED), EIO);
    assert_int_equal(errno_of_status(-EPERM), EACCES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_free_lock), cmocka_unit_test(test_host_of_owner),
        cmocka_unit_test(test_one),       cmocka_unit_test(test_several),
        cmocka_unit_test(test_semaphore), cmocka_unit_test(test_errno),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
