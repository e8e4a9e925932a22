/* Rows of a snapshot that lie, given to the import of the lock table (lock/restore.h).
 *
 * A liar knows the rules: the digest in the meta row is made to fit what the rows say, so that
 * nothing hides behind it.  What is accepted must be as good as any table (rows.h).
 *
 * Input: a byte for the table to start from, then edits of its rows. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#include "raftstore/base/buf.h"
#include "raftstore/lock/restore.h"
#include "tests/fuzz/rows.h"

#define ROWS_MAX  400u
#define EDITS_MAX 32u

struct rows {
    struct lock_row list[ROWS_MAX];
    unsigned n;
    uint8_t *kept[ROWS_MAX * 4]; /* Owned copies of the rows' bytes. */
    unsigned n_kept;
};

static void keep(struct rows *r, struct bytes *b)
{
    if (b->size == 0 || r->n_kept == ROWS_MAX * 4)
        return;
    r->kept[r->n_kept] = xmemdup(b->data, b->size);
    b->data = r->kept[r->n_kept++];
}

/* The bytes of a row; NULL behind the last one. */
static struct bytes *row_bytes(struct lock_row *r, unsigned i)
{
    switch (r->type) {
    case LOCK_ROW_DIRECTORY:
        return i == 0 ? &r->directory.path : NULL;
    case LOCK_ROW_SESSION:
        return i == 0 ? &r->session.host : NULL;
    case LOCK_ROW_HOLD:
        return i == 0 ? &r->hold.path : i == 1 ? &r->hold.owner : i == 2 ? &r->hold.note : NULL;
    case LOCK_ROW_WAITER:
        return i == 0                      ? &r->waiter.owner
               : i == 1                    ? &r->waiter.note
               : i - 2 < r->waiter.n_paths ? &r->waiter.paths[i - 2]
                                           : NULL;
    case LOCK_ROW_DELAY:
        return i == 0 ? &r->delay.path : NULL;
    case LOCK_ROW_NODE:
        return i == 0 ? &r->node.host : NULL;
    default:
        return NULL;
    }
}

static int collect(void *arg, const struct lock_row *row)
{
    struct rows *r = arg;
    struct bytes *b;
    if (r->n == ROWS_MAX)
        return 0;
    struct lock_row *out = &r->list[r->n++];
    *out = *row;
    for (unsigned i = 0; (b = row_bytes(out, i)) != NULL; i++)
        keep(r, b);
    return 0;
}

#define U64(member)                                                                                \
    {                                                                                              \
        offsetof(struct lock_row, member), 8                                                       \
    }
#define U32(member)                                                                                \
    {                                                                                              \
        offsetof(struct lock_row, member), 4                                                       \
    }
#define FLAG(member)                                                                               \
    {                                                                                              \
        offsetof(struct lock_row, member), 1                                                       \
    }

struct number {
    size_t offset;
    unsigned size;
};

static const struct number numbers_meta[] = {
    U64(meta.index),
    U64(meta.term),
    U64(meta.stamp_ns),
    U64(meta.next_token),
    U64(meta.next_session_id),
    U64(meta.next_directory_id),
    U64(meta.next_queue_number),
    U64(meta.limits.holds_max),
    U64(meta.limits.waiters_max),
    U64(meta.limits.sessions_max),
    U64(meta.limits.directories_max),
    U64(meta.limits.holds_per_session_max),
    {0, 0},
};
static const struct number numbers_directory[] = {
    U64(directory.directory_id),
    FLAG(directory.implicit),
    U32(directory.uid),
    U32(directory.gid),
    U32(directory.perm),
    U64(directory.changed_ns),
    {0, 0},
};
static const struct number numbers_session[] = {
    U64(session.session_id),
    U64(session.deadline_ns),
    U64(session.ttl_ms),
    U64(session.opened_ns),
    U64(session.ack_seq),
    FLAG(session.lapsed),
    {0, 0},
};
static const struct number numbers_result[] = {
    U64(result.session_id),    U64(result.seq),
    U32(result.result.code),   U64(result.result.stamp_ns),
    U64(result.result.token),  U64(result.result.deadline_ns),
    U64(result.result.ttl_ms), {0, 0},
};
static const struct number numbers_hold[] = {
    U64(hold.token),         U64(hold.session_id),
    U64(hold.deadline_ns),   U64(hold.ttl_ms),
    U64(hold.since_ns),      U64(hold.renewed_ns),
    U64(hold.start),         U64(hold.end),
    U64(hold.agent),         U64(hold.mtime_ns),
    U64(hold.lock_delay_ms), U64(hold.file_token),
    U64(hold.twin),          U32(hold.mode),
    U32(hold.kind),          FLAG(hold.session_bound),
    U32(hold.pid),           U32(hold.uid),
    U32(hold.gid),           U32(hold.perm),
    U32(hold.limit),         {0, 0},
};
static const struct number numbers_waiter[] = {
    U64(waiter.session_id),  U64(waiter.seq),           U64(waiter.since_ns),
    U64(waiter.deadline_ns), U64(waiter.queue_number),  U64(waiter.ttl_ms),
    U64(waiter.start),       U64(waiter.end),           U64(waiter.lock_delay_ms),
    U64(waiter.agent),       U64(waiter.convert_token), U32(waiter.mode),
    U32(waiter.kind),        U32(waiter.flags),         U32(waiter.pid),
    U32(waiter.perm),        U32(waiter.limit),         {0, 0},
};
static const struct number numbers_delay[] = {U64(delay.until_ns), {0, 0}};
static const struct number numbers_node[] = {U64(node.node_id), {0, 0}};

static const struct number *const numbers[] = {
    [LOCK_ROW_META] = numbers_meta,       [LOCK_ROW_DIRECTORY] = numbers_directory,
    [LOCK_ROW_SESSION] = numbers_session, [LOCK_ROW_RESULT] = numbers_result,
    [LOCK_ROW_HOLD] = numbers_hold,       [LOCK_ROW_WAITER] = numbers_waiter,
    [LOCK_ROW_DELAY] = numbers_delay,     [LOCK_ROW_NODE] = numbers_node,
};

static void edit_number(struct lock_row *row, struct feed *f)
{
    const struct number *n = numbers[row->type];
    unsigned count = 0;
    while (n[count].size > 0)
        count++;
    n += feed_below(f, count);
    uint8_t *at = (uint8_t *)row + n->offset;
    uint64_t old = 0;
    memcpy(&old, at, n->size);
    const uint64_t bases[] = {old, 0, 1, UINT64_MAX, UINT32_MAX, UINT64_C(1) << 48};
    uint64_t now = feed_near(f, bases, 6);
    if (n->size == 1) /* A bool has two values. */
        now &= 1;
    memcpy(at, &now, n->size);
}

static void edit_bytes(struct rows *r, struct lock_row *row, struct feed *f)
{
    unsigned n = 0;
    while (row_bytes(row, n) != NULL)
        n++;
    if (n == 0)
        return;
    struct bytes *b = row_bytes(row, feed_below(f, n));
    *b = feed_bytes(f, 255);
    keep(r, b);
}

/* The number, or the text, of another row of its kind. */
static void edit_swap(struct rows *r, unsigned i, struct feed *f)
{
    unsigned j = feed_u8(f) % r->n;
    struct lock_row a = r->list[i];
    r->list[i] = r->list[j];
    r->list[j] = a;
}

static void edit(struct rows *r, struct feed *f)
{
    if (r->n == 0)
        return;
    uint8_t how = feed_u8(f);
    unsigned i = (feed_u8(f) | (how & 0x80u) << 1) % r->n;
    struct lock_row *row = &r->list[i];
    switch (how & 7) {
    case 0:
        edit_bytes(r, row, f);
        break;
    case 1:
        memmove(row, row + 1, (--r->n - i) * sizeof *row);
        break;
    case 2:
        if (r->n == ROWS_MAX)
            break;
        memmove(row + 1, row, (r->n++ - i) * sizeof *row);
        break;
    case 3:
        edit_swap(r, i, f);
        break;
    case 4:
        if (row->type == LOCK_ROW_WAITER) {
            row->waiter.n_paths = feed_below(f, LOCK_PATHS_MAX + 1);
            break;
        }
        /* fall through */
    default:
        edit_number(row, f);
        break;
    }
}

static struct lock_table *import(struct rows *r)
{
    struct lock_table *t = lock_table_new();
    for (unsigned i = 0; i < r->n; i++) {
        if (lock_import_row(t, &r->list[i]) != 0) {
            lock_table_free(t);
            return NULL;
        }
    }
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed f = feed_of(data, size);
    struct rows *r = xcalloc(1, sizeof *r);
    (void)lock_export(rows_table(feed_u8(&f)), collect, r); /* The visitor never stops it. */
    for (unsigned i = 0; i < EDITS_MAX && feed_u8(&f) % 8 != 0; i++)
        edit(r, &f);
    struct lock_table *t = import(r);
    if (t != NULL && r->list[0].type == LOCK_ROW_META) { /* Now with the digest that fits. */
        r->list[0].meta.digest = lock_digest(t);
        lock_table_free(t);
        t = import(r);
        if (lock_import_finish(t) == 0)
            rows_accepted(t, &f);
    }
    lock_table_free(t);
    for (unsigned i = 0; i < r->n_kept; i++)
        free(r->kept[i]);
    free(r);
    return 0;
}
