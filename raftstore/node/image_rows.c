#include "raftstore/node/image_rows.h"

#include <string.h>
#include <zlib.h>

#include "raftstore/base/clock.h"

static void add_sum_u64(struct image_cursor *c, uint64_t value)
{
    uint8_t *p = buf_reserve(&c->values, 8);
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(value >> (8 * i));
    c->values.size += 8;
}

static void add_sum_bytes(struct image_cursor *c, struct bytes b)
{
    add_sum_u64(c, b.size);
    if (b.size > 0)
        buf_add(&c->values, b.data, b.size);
}

static void u64(struct image_cursor *c, uint64_t *value)
{
    if (c->writing)
        (void)sql_bind_u64(c->stmt, c->column + 1, *value);
    else
        *value = sql_u64(c->stmt, c->column);
    c->column++;
    add_sum_u64(c, *value);
}

static void u32(struct image_cursor *c, uint32_t *value)
{
    uint64_t wide = *value;
    u64(c, &wide);
    if (c->writing)
        return;
    *value = (uint32_t)wide;
    c->bad = c->bad || *value != wide;
}

static void flag(struct image_cursor *c, bool *value)
{
    uint64_t wide = *value;
    u64(c, &wide);
    if (c->writing)
        return;
    *value = wide != 0;
    c->bad = c->bad || wide > 1;
}

/* Is it text that SQLite's shell and any program can show: UTF-8 without NUL? */
static bool is_text(struct bytes b)
{
    const uint8_t *p = b.data;
    for (size_t i = 0; i < b.size;) {
        uint8_t first = p[i++];
        unsigned n_more = first < 0x80   ? 0
                          : first < 0xc2 ? 9
                          : first < 0xe0 ? 1
                          : first < 0xf0 ? 2
                                         : 3;
        if (first == 0 || first > 0xf4 || n_more > b.size - i)
            return false;
        uint32_t code = n_more == 0 ? first : first & (0x3fu >> n_more);
        for (; n_more > 0; n_more--) {
            if ((p[i] & 0xc0) != 0x80)
                return false;
            code = code << 6 | (p[i++] & 0x3fu);
        }
        bool overlong = (first == 0xe0 && code < 0x800) || (first == 0xf0 && code < 0x10000);
        if (overlong || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
            return false;
    }
    return true;
}

static void bytes(struct image_cursor *c, struct bytes *b)
{
    if (!c->writing)
        *b = sql_bytes(c->stmt, c->column);
    else if (is_text(*b))
        (void)sqlite3_bind_text64(c->stmt, c->column + 1, b->size > 0 ? b->data : "", b->size,
                                  SQLITE_STATIC, SQLITE_UTF8);
    else
        (void)sqlite3_bind_blob64(c->stmt, c->column + 1, b->data, b->size, SQLITE_STATIC);
    c->column++;
    add_sum_bytes(c, *b);
}

/* A number that is kept as a word; `words` ends with NULL, word i stands for first + i. */
static unsigned
word(struct image_cursor *c, const char *const *words, unsigned first, unsigned value)
{
    struct bytes b = {0};
    unsigned n = 0;
    while (words[n] != NULL)
        n++;
    if (c->writing) /* A number without a word is not made by the table. */
        b = bytes_str(value >= first && value - first < n ? words[value - first] : "?");
    bytes(c, &b);
    if (c->writing)
        return value;
    for (unsigned i = 0; i < n; i++)
        if (bytes_equal(b, bytes_str(words[i])))
            return first + i;
    c->bad = true;
    return first;
}

static void mode(struct image_cursor *c, enum lock_mode *value)
{
    static const char *const words[] = {"shared", "exclusive", NULL};
    *value = (enum lock_mode)word(c, words, LOCK_SHARED, *value);
}

static void kind(struct image_cursor *c, enum lock_kind *value)
{
    static const char *const words[] = {"api",   "excl",  "mkdir", "symlink",
                                        "flock", "posix", "ofd",   NULL};
    *value = (enum lock_kind)word(c, words, LOCK_KIND_API, *value);
}

/* For people: wall clock in milliseconds of an instant of cluster time; NULL for none. */
static void wall(struct image_cursor *c, uint64_t cluster_ns)
{
    bool none = cluster_ns == 0 || cluster_ns == LOCK_DEADLINE_NEVER;
    int64_t ms = 0;
    if (c->writing) {
        if (!none) {
            ms = ((int64_t)cluster_ns + c->wall_offset_ns) / (int64_t)NS_PER_MS;
            (void)sqlite3_bind_int64(c->stmt, c->column + 1, ms);
        } else {
            (void)sqlite3_bind_null(c->stmt, c->column + 1);
        }
    } else {
        none = sqlite3_column_type(c->stmt, c->column) == SQLITE_NULL;
        ms = sqlite3_column_int64(c->stmt, c->column);
    }
    c->column++;
    add_sum_u64(c, none);
    add_sum_u64(c, (uint64_t)ms);
}

static void row_directory(struct image_cursor *c, struct lock_row *r)
{
    bytes(c, &r->directory.path);
    u64(c, &r->directory.directory_id);
    flag(c, &r->directory.implicit);
    u32(c, &r->directory.uid);
    u32(c, &r->directory.gid);
    u32(c, &r->directory.perm);
    u64(c, &r->directory.changed_ns);
    wall(c, r->directory.changed_ns);
}

static void row_session(struct image_cursor *c, struct lock_row *r)
{
    u64(c, &r->session.session_id);
    bytes(c, &r->session.host);
    wall(c, r->session.deadline_ns);
    u64(c, &r->session.deadline_ns);
    u64(c, &r->session.ttl_ms);
    u64(c, &r->session.opened_ns);
    u64(c, &r->session.ack_seq);
    flag(c, &r->session.lapsed);
}

static void row_result(struct image_cursor *c, struct lock_row *r)
{
    struct lock_result *result = &r->result.result;
    uint32_t code = (uint32_t)result->code;
    u64(c, &r->result.session_id);
    u64(c, &r->result.seq);
    u32(c, &code);
    result->code = (enum lock_code)code;
    u64(c, &result->stamp_ns);
    u64(c, &result->session_id);
    u64(c, &result->token);
    u64(c, &result->deadline_ns);
    u64(c, &result->ttl_ms);
    u64(c, &result->holder_deadline_ns);
}

static void row_hold(struct image_cursor *c, struct lock_row *r)
{
    bytes(c, &r->hold.path);
    bytes(c, &r->hold.owner);
    wall(c, r->hold.deadline_ns);
    u64(c, &r->hold.token);
    mode(c, &r->hold.mode);
    kind(c, &r->hold.kind);
    bytes(c, &r->hold.note);
    u64(c, &r->hold.session_id);
    flag(c, &r->hold.session_bound);
    bool linked = r->hold.twin != 0; /* For people. */
    flag(c, &linked);
    u64(c, &r->hold.deadline_ns);
    u64(c, &r->hold.ttl_ms);
    wall(c, r->hold.since_ns);
    u64(c, &r->hold.since_ns);
    wall(c, r->hold.renewed_ns);
    u64(c, &r->hold.renewed_ns);
    u64(c, &r->hold.start);
    u64(c, &r->hold.end);
    u64(c, &r->hold.lock_delay_ms);
    u64(c, &r->hold.agent);
    u32(c, &r->hold.pid);
    u32(c, &r->hold.uid);
    u32(c, &r->hold.gid);
    u32(c, &r->hold.perm);
    if (c->version >= 2)
        u32(c, &r->hold.limit);
    if (c->version >= 3) {
        u64(c, &r->hold.mtime_ns);
        u64(c, &r->hold.file_token);
        u64(c, &r->hold.twin);
    }
    c->bad = c->bad || linked != (r->hold.twin != 0);
}

/* The first path is lock_id; the others stand in one column, parted by "//", which no path has. */
static void waiter_paths(struct image_cursor *c, struct lock_row *r)
{
    bytes(c, &r->waiter.paths[0]);
    struct bytes rest = {0};
    if (c->writing) {
        c->paths.size = 0;
        for (unsigned i = 1; i < r->waiter.n_paths; i++) {
            if (i > 1)
                buf_add(&c->paths, "//", 2);
            buf_add(&c->paths, r->waiter.paths[i].data, r->waiter.paths[i].size);
        }
        rest = bytes_of(c->paths.data, c->paths.size);
        bytes(c, &rest);
        return;
    }
    bytes(c, &rest);
    r->waiter.n_paths = 1;
    const char *at = rest.data, *end = at != NULL ? at + rest.size : NULL;
    while (at != NULL) {
        const char *slashes = memmem(at, (size_t)(end - at), "//", 2);
        if (r->waiter.n_paths == LOCK_PATHS_MAX) {
            c->bad = true;
            return;
        }
        r->waiter.paths[r->waiter.n_paths++] =
            bytes_of(at, (size_t)((slashes != NULL ? slashes : end) - at));
        at = slashes != NULL ? slashes + 2 : NULL;
    }
}

static void row_waiter(struct image_cursor *c, struct lock_row *r)
{
    waiter_paths(c, r);
    bytes(c, &r->waiter.owner);
    mode(c, &r->waiter.mode);
    kind(c, &r->waiter.kind);
    bytes(c, &r->waiter.note);
    u64(c, &r->waiter.session_id);
    u64(c, &r->waiter.seq);
    u64(c, &r->waiter.queue_number);
    wall(c, r->waiter.since_ns);
    u64(c, &r->waiter.since_ns);
    u64(c, &r->waiter.deadline_ns);
    u64(c, &r->waiter.ttl_ms);
    u64(c, &r->waiter.start);
    u64(c, &r->waiter.end);
    u64(c, &r->waiter.lock_delay_ms);
    u64(c, &r->waiter.agent);
    u64(c, &r->waiter.convert_token);
    u32(c, &r->waiter.flags);
    u32(c, &r->waiter.pid);
    u32(c, &r->waiter.uid);
    u32(c, &r->waiter.gid);
    u32(c, &r->waiter.perm);
    if (c->version >= 2)
        u32(c, &r->waiter.limit);
}

static void row_delay(struct image_cursor *c, struct lock_row *r)
{
    bytes(c, &r->delay.path);
    wall(c, r->delay.until_ns);
    u64(c, &r->delay.until_ns);
}

static void row_node(struct image_cursor *c, struct lock_row *r)
{
    u64(c, &r->node.node_id);
    bytes(c, &r->node.host);
}

/* Untyped columns keep text as text and blobs as blobs. */
const struct image_table image_tables[IMAGE_TABLES] = {
    {LOCK_ROW_DIRECTORY,
     "directory",
     "path, directory_id INTEGER, implicit INTEGER, uid INTEGER, gid INTEGER, perm INTEGER,"
     " changed_ns INTEGER, changed INTEGER",
     {8, 8, 8},
     row_directory},
    {LOCK_ROW_SESSION,
     "session",
     "session_id INTEGER, host, expires_at INTEGER, deadline_ns INTEGER, ttl_ms INTEGER,"
     " opened_ns INTEGER, ack_seq INTEGER, lapsed INTEGER",
     {8, 8, 8},
     row_session},
    {LOCK_ROW_RESULT,
     "result",
     "session_id INTEGER, seq INTEGER, code INTEGER, stamp_ns INTEGER, new_session_id INTEGER,"
     " token INTEGER, deadline_ns INTEGER, ttl_ms INTEGER, holder_deadline_ns INTEGER",
     {9, 9, 9},
     row_result},
    {LOCK_ROW_HOLD,
     "lock",
     "lock_id, owner_id, expires_at INTEGER, version INTEGER, mode TEXT, kind TEXT, note,"
     " session_id INTEGER, session_bound INTEGER, linked INTEGER, deadline_ns INTEGER,"
     " ttl_ms INTEGER, since INTEGER, since_ns INTEGER, renewed INTEGER, renewed_ns INTEGER,"
     " range_start INTEGER, range_end INTEGER, lock_delay_ms INTEGER, agent INTEGER,"
     " pid INTEGER, uid INTEGER, gid INTEGER, perm INTEGER, sem_limit INTEGER,"
     " mtime_ns INTEGER, file_token INTEGER, twin INTEGER",
     {24, 25, 28},
     row_hold},
    {LOCK_ROW_WAITER,
     "waiter",
     "lock_id, more_lock_ids, owner_id, mode TEXT, kind TEXT, note, session_id INTEGER,"
     " seq INTEGER, queue_number INTEGER, since INTEGER, since_ns INTEGER, deadline_ns INTEGER,"
     " ttl_ms INTEGER, range_start INTEGER, range_end INTEGER, lock_delay_ms INTEGER,"
     " agent INTEGER, convert_token INTEGER, flags INTEGER, pid INTEGER, uid INTEGER,"
     " gid INTEGER, perm INTEGER, sem_limit INTEGER",
     {23, 24, 24},
     row_waiter},
    {LOCK_ROW_DELAY, "delay", "lock_id, until INTEGER, until_ns INTEGER", {3, 3, 3}, row_delay},
    {LOCK_ROW_NODE, "node", "node_id INTEGER, host", {2, 2, 2}, row_node},
};

void image_row(struct image_cursor *c, const struct image_table *t, struct lock_row *row)
{
    c->column = 0;
    c->values.size = 0;
    row->type = t->type;
    t->describe(c, row);
    c->sum = (uint32_t)crc32_z(c->sum, c->values.data, c->values.size);
    c->n_rows++;
}
