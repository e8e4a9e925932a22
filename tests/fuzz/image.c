/* Images that lie: SQLite databases of a lock table's form, given to the product's reader.
 *
 * Two kinds.  Bytes: those of a real image with some of them changed.  Values: a sound database
 * whose rows say something else, with every checksum and digest made to fit, as one would have it
 * who wants to be believed; nothing hides behind a checksum then.  What is accepted must be as good
 * as any table (rows.h).
 *
 * Input: a byte for the kind, one for the table to start from, then edits. */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>

#include "raftstore/base/buf.h"
#include "raftstore/node/image.h"
#include "raftstore/node/image_internal.h"
#include "tests/fuzz/rows.h"

#define EDITS_MAX 24u

/* ---- The image to start from ------------------------------------------------------------- */

static const uint8_t conf[] = {1, 2, 3, 4};

/* A copy, which the caller frees. */
static struct bytes image_begin(uint8_t about)
{
    static struct bytes made[256]; /* Kept, as their tables are. */
    struct replica_image ident = {50, 3, 1, bytes_of(conf, sizeof conf)};
    struct bytes *image = &made[about];
    int rv = image->size > 0 ? 0 : image_write_bytes(rows_table(about), &ident, image);
    fuzz_require(rv == 0, "no image: %d", rv);
    return bytes_of(xmemdup(image->data, image->size), image->size);
}

static void image_try(struct bytes image, struct feed *f)
{
    struct lock_table *t = NULL;
    struct replica_image ident;
    if (image_read_bytes(image, &t, &ident) != 0)
        return;
    rows_accepted(t, f);
    lock_table_free(t);
    free((void *)(uintptr_t)ident.conf.data);
}

/* ---- Bytes ------------------------------------------------------------------------------- */

static void edit_bytes(struct bytes image, struct feed *f)
{
    uint8_t *p = (uint8_t *)(uintptr_t)image.data;
    for (unsigned i = 0; i < EDITS_MAX && !feed_is_empty(f); i++) {
        uint32_t at = 0;
        for (unsigned k = 0; k < 3; k++)
            at |= (uint32_t)feed_u8(f) << (8 * k);
        struct bytes now = feed_bytes(f, 8);
        at %= (uint32_t)image.size;
        if (now.size <= image.size - at && now.size > 0)
            memcpy(p + at, now.data, now.size);
    }
    image_try(bytes_of(image.data, image.size), f);
}

/* ---- Values ------------------------------------------------------------------------------ */

static void run(sqlite3 *db, const char *sql)
{
    (void)sqlite3_exec(db, sql, NULL, NULL, NULL); /* What it refuses is no edit. */
}

/* A value of any type, in the place of one of a row's. */
static void edit_value(sqlite3 *db, const struct image_table *t, struct feed *f)
{
    char sql[300];
    sqlite3_stmt *stmt = NULL;
    const uint64_t numbers[] = {0, 1, INT64_MAX, UINT64_MAX, 50, 1000000000};
    unsigned row = 1 + feed_u8(f), column = feed_u8(f);
    uint8_t how = feed_u8(f);
    (void)snprintf(sql, sizeof sql, "SELECT * FROM %s LIMIT 0", t->name);
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK)
        return;
    column %= (unsigned)sqlite3_column_count(stmt);
    (void)snprintf(sql, sizeof sql, "UPDATE %s SET \"%s\" = ?1 WHERE rowid = ?2", t->name,
                   sqlite3_column_name(stmt, (int)column));
    (void)sqlite3_finalize(stmt);
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK)
        return;
    struct bytes text = {0};
    switch (how % 6) {
    case 0:
        (void)sqlite3_bind_null(stmt, 1);
        break;
    case 1:
        text = feed_bytes(f, 200);
        (void)sqlite3_bind_text64(stmt, 1, text.size > 0 ? text.data : "", text.size,
                                  SQLITE_TRANSIENT, SQLITE_UTF8);
        break;
    case 2:
        text = feed_bytes(f, 200);
        (void)sqlite3_bind_blob64(stmt, 1, text.size > 0 ? text.data : "", text.size,
                                  SQLITE_TRANSIENT);
        break;
    case 3:
        (void)sqlite3_bind_double(stmt, 1, (double)feed_u8(f) / 3);
        break;
    default:
        (void)sqlite3_bind_int64(stmt, 1, (int64_t)feed_near(f, numbers, 6));
        break;
    }
    (void)sqlite3_bind_int64(stmt, 2, row);
    (void)sqlite3_step(stmt); /* There may be no such row. */
    (void)sqlite3_finalize(stmt);
}

static void edit_row(sqlite3 *db, const struct image_table *t, uint8_t how, struct feed *f)
{
    char sql[300];
    unsigned row = 1 + feed_u8(f), other = 1 + feed_u8(f);
    static const char *const forms[] = {
        "DELETE FROM %1$s WHERE rowid = %2$u",
        "INSERT INTO %1$s SELECT * FROM %1$s WHERE rowid = %2$u",
        "UPDATE %1$s SET rowid = %3$u + 1000 WHERE rowid = %2$u",
        "DROP TABLE %1$s",
        "ALTER TABLE %1$s ADD COLUMN more",
    };
    (void)snprintf(sql, sizeof sql, forms[how % 5], t->name, row, other);
    run(db, sql);
}

static void edit_version(sqlite3 *db, struct feed *f)
{
    char sql[60];
    (void)snprintf(sql, sizeof sql, "PRAGMA user_version = %u", feed_below(f, 6));
    run(db, sql);
}

static int64_t number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *stmt = NULL;
    int64_t n = -1;
    if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW)
        n = sqlite3_column_int64(stmt, 0);
    (void)sqlite3_finalize(stmt);
    return n;
}

/* What the rows of a table sum up to, and themselves into a lock table (NULL: only sums). */
static bool
sum_table(sqlite3 *db, int version, unsigned i, struct image_meta *m, struct lock_table *t)
{
    const struct image_table *table = &image_tables[i];
    struct image_cursor c = {.version = version};
    char sql[100];
    bool good = true;
    (void)snprintf(sql, sizeof sql, "SELECT * FROM %s ORDER BY rowid", table->name);
    if (sqlite3_prepare_v2(db, sql, -1, &c.stmt, NULL) != SQLITE_OK)
        return false;
    while (good && sqlite3_step(c.stmt) == SQLITE_ROW) {
        struct lock_row row = {0};
        image_row(&c, table, &row);
        good = !c.bad && (t == NULL || lock_import_row(t, &row) == 0);
    }
    m->tables[i].n_rows = c.n_rows;
    m->tables[i].sum = c.sum;
    (void)sqlite3_finalize(c.stmt);
    buf_deinit(&c.values);
    return good;
}

static void meta_read(sqlite3 *db, struct image_meta *m)
{
    struct image_meta_value values[IMAGE_META_VALUES];
    image_meta_values(m, values);
    for (unsigned i = 0; i < IMAGE_META_VALUES; i++) {
        char sql[100];
        (void)snprintf(sql, sizeof sql, "SELECT value FROM meta WHERE key = '%.31s'",
                       values[i].key);
        *values[i].value = (uint64_t)number(db, sql);
    }
}

static void meta_write(sqlite3 *db, struct image_meta *m)
{
    struct image_meta_value values[IMAGE_META_VALUES];
    char sql[120];
    image_meta_values(m, values);
    for (unsigned i = 0; i < IMAGE_META_VALUES; i++) {
        (void)snprintf(sql, sizeof sql, "UPDATE meta SET value = %lld WHERE key = '%.31s'",
                       (long long)*values[i].value, values[i].key);
        run(db, sql);
    }
    m->image.conf = bytes_of(conf, sizeof conf);
    (void)snprintf(sql, sizeof sql, "UPDATE meta SET value = %lld WHERE key = 'checksum'",
                   (long long)image_meta_sum(m));
    run(db, sql);
}

static void edit_meta(struct image_meta *m, struct feed *f)
{
    struct image_meta_value values[IMAGE_META_VALUES];
    image_meta_values(m, values);
    struct image_meta_value *v = &values[feed_below(f, IMAGE_META_VALUES)];
    const uint64_t bases[] = {*v->value, 0, UINT64_MAX, UINT64_C(1) << 60};
    *v->value = feed_near(f, bases, 4);
}

/* Make every checksum and the digest fit what the rows say. */
static void fit(sqlite3 *db, struct image_meta *m)
{
    int version = (int)number(db, "PRAGMA user_version");
    if (version < 1 || version > IMAGE_FORMAT_VERSION)
        return;
    struct lock_table *t = lock_table_new();
    m->row.type = LOCK_ROW_META;
    bool good = lock_import_row(t, &m->row) == 0;
    for (unsigned i = 0; i < IMAGE_TABLES; i++)
        good = sum_table(db, version, i, m, good ? t : NULL) && good;
    if (good)
        m->row.meta.digest = lock_digest(t);
    lock_table_free(t);
}

static void edit_values(struct bytes image, struct feed *f)
{
    sqlite3 *db = NULL;
    struct image_meta m = {0};
    sqlite3_int64 size = 0;
    unsigned char *copy = sqlite3_malloc64(image.size);
    memcpy(copy, image.data, image.size);
    int rc = sqlite3_open(":memory:", &db);
    if (rc == SQLITE_OK)
        rc = sqlite3_deserialize(db, "main", copy, (sqlite3_int64)image.size,
                                 (sqlite3_int64)image.size,
                                 SQLITE_DESERIALIZE_FREEONCLOSE | SQLITE_DESERIALIZE_RESIZEABLE);
    fuzz_require(rc == SQLITE_OK, "no database");
    meta_read(db, &m);
    for (unsigned i = 0; i < EDITS_MAX && feed_u8(f) % 8 != 0; i++) {
        uint8_t how = feed_u8(f);
        const struct image_table *t = &image_tables[how % IMAGE_TABLES];
        if (how < 160)
            edit_value(db, t, f);
        else if (how < 220)
            edit_row(db, t, feed_u8(f), f);
        else if (how < 250)
            edit_meta(&m, f);
        else
            edit_version(db, f);
    }
    fit(db, &m);
    meta_write(db, &m);
    unsigned char *edited = sqlite3_serialize(db, "main", &size, 0);
    fuzz_require(edited != NULL, "no image");
    image_try(bytes_of(edited, (size_t)size), f);
    sqlite3_free(edited);
    (void)sqlite3_close(db);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed f = feed_of(data, size);
    bool values = feed_u8(&f) & 1;
    struct bytes image = image_begin(feed_u8(&f));
    if (values)
        edit_values(image, &f);
    else
        edit_bytes(image, &f);
    free((void *)(uintptr_t)image.data);
    return 0;
}
