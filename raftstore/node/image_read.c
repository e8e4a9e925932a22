#include "raftstore/node/image_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "raftstore/node/store_files.h"

struct reader {
    sqlite3 *db;
    const char *path;
    uint64_t size_bytes; /* Of the file. */
    int version;         /* Of its format. */
    struct lock_table *table;
    struct image_meta meta;
    char *sentence;
};

/* The file says what it is, and SQLite finds its structure whole. */
static int check_file(struct reader *r)
{
    int64_t application = 0, version = 0, n_pages = 0, page_bytes = 0;
    int error = sql_query_int(r->db, r->path, "PRAGMA application_id", &application, &r->sentence);
    if (error == 0)
        error = sql_query_int(r->db, r->path, "PRAGMA user_version", &version, &r->sentence);
    if (error == 0)
        error = sql_query_int(r->db, r->path, "PRAGMA page_count", &n_pages, &r->sentence);
    if (error == 0)
        error = sql_query_int(r->db, r->path, "PRAGMA page_size", &page_bytes, &r->sentence);
    if (error != 0)
        return error;
    if (n_pages < 0 || (uint64_t)n_pages * (uint64_t)page_bytes != r->size_bytes)
        return fail_damaged(&r->sentence, r->path, "it is %llu bytes long and must have %lld",
                            (unsigned long long)r->size_bytes, (long long)n_pages * page_bytes);
    if (application != IMAGE_APPLICATION_ID || version < 1)
        return fail_damaged(&r->sentence, r->path, "it is no image of a lock table");
    if (version > IMAGE_FORMAT_VERSION)
        return fail_damaged(&r->sentence, r->path,
                            "its format is version %lld, this program knows up to %d",
                            (long long)version, IMAGE_FORMAT_VERSION);
    r->version = (int)version;
    SQL_STMT *stmt = NULL;
    error = sql_prepare(r->db, r->path, "PRAGMA quick_check(1)", &stmt, &r->sentence);
    if (error != 0)
        return error;
    int rc = sqlite3_step(stmt);
    if (rc != SQLITE_ROW)
        return sql_fail(r->db, rc, r->path, "can't be read", &r->sentence);
    const char *text = (const char *)sqlite3_column_text(stmt, 0);
    if (text == NULL || strcmp(text, "ok") != 0)
        return fail_damaged(&r->sentence, r->path, "%s", text != NULL ? text : "unreadable");
    return 0;
}

/* The next row of the meta table, which must have this key. */
static int step_meta(struct reader *r, sqlite3_stmt *stmt, const char *key)
{
    int rc = sqlite3_step(stmt);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        return sql_fail(r->db, rc, r->path, "can't be read", &r->sentence);
    const char *found = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(stmt, 0) : NULL;
    if (found == NULL || strcmp(found, key) != 0)
        return fail_damaged(&r->sentence, r->path, "its table meta has no %s", key);
    return 0;
}

static int read_meta(struct reader *r)
{
    SQL_STMT *stmt = NULL;
    int error = sql_prepare(r->db, r->path, "SELECT key, value FROM meta ORDER BY rowid", &stmt,
                            &r->sentence);
    struct image_meta_value values[IMAGE_META_VALUES];
    image_meta_values(&r->meta, values);
    for (unsigned i = 0; i < IMAGE_META_VALUES && error == 0; i++) {
        error = step_meta(r, stmt, values[i].key);
        if (error == 0)
            *values[i].value = sql_u64(stmt, 1);
    }
    if (error == 0)
        error = step_meta(r, stmt, "raft_conf");
    if (error == 0) {
        struct bytes conf = sql_bytes(stmt, 1);
        /* malloc()ed even when it is empty: it becomes the caller's. */
        r->meta.image.conf = bytes_of(xmalloc(conf.size + 1), conf.size);
        if (conf.size > 0)
            memcpy((void *)(uintptr_t)r->meta.image.conf.data, conf.data, conf.size);
        error = step_meta(r, stmt, "checksum");
    }
    if (error == 0 && sql_u64(stmt, 1) != image_meta_sum(&r->meta))
        error = fail_damaged(&r->sentence, r->path, "its table meta does not match its checksum");
    return error;
}

static int import(struct reader *r, const struct lock_row *row, const char *table)
{
    if (lock_import_row(r->table, row) == 0)
        return 0;
    return fail_damaged(&r->sentence, r->path, "a row of its table %s contradicts others", table);
}

static int read_rows(struct reader *r, const struct image_table *t, struct image_cursor *c)
{
    struct lock_row row;
    int rc;
    while ((rc = sqlite3_step(c->stmt)) == SQLITE_ROW) {
        memset(&row, 0, sizeof row);
        image_row(c, t, &row);
        if (c->bad)
            return fail_damaged(&r->sentence, r->path, "a row of its table %s is not valid",
                                t->name);
        int error = import(r, &row, t->name);
        if (error != 0)
            return error;
    }
    if (rc != SQLITE_DONE)
        return sql_fail(r->db, rc, r->path, "can't be read", &r->sentence);
    return 0;
}

static int read_table(struct reader *r, unsigned i)
{
    const struct image_table *t = &image_tables[i];
    struct image_cursor c = {.version = r->version};
    int n_columns = t->n_columns[r->version - 1];
    char *sql = xasprintf("SELECT * FROM %s ORDER BY rowid", t->name);
    int error = sql_prepare(r->db, r->path, sql, &c.stmt, &r->sentence);
    free(sql);
    if (error == 0 && sqlite3_column_count(c.stmt) != n_columns)
        error = fail_damaged(&r->sentence, r->path, "its table %s has other columns", t->name);
    if (error == 0)
        error = read_rows(r, t, &c);
    if (error == 0 && (c.n_rows != r->meta.tables[i].n_rows || c.sum != r->meta.tables[i].sum))
        error = fail_damaged(&r->sentence, r->path, "its table %s does not match its checksum",
                             t->name);
    (void)sqlite3_finalize(c.stmt); /* Repeats a reported error. */
    buf_deinit(&c.values);
    return error;
}

static int read_all(struct reader *r)
{
    int error = check_file(r);
    if (error == 0)
        error = read_meta(r);
    if (error != 0)
        return error;
    r->table = lock_table_new();
    r->meta.row.type = LOCK_ROW_META;
    error = import(r, &r->meta.row, "meta");
    for (unsigned i = 0; i < IMAGE_TABLES && error == 0; i++)
        error = read_table(r, i);
    if (error == 0 && lock_import_finish(r->table) != 0)
        error = fail_damaged(&r->sentence, r->path, "its content does not match its digest");
    return error;
}

static int
read_database(struct reader *r, struct lock_table **ret_table, struct replica_image *ret_image)
{
    int error = read_all(r);
    (void)sqlite3_close(r->db); /* Only read from. */
    if (error != 0) {
        lock_table_free(r->table);
        free((void *)(uintptr_t)r->meta.image.conf.data);
        return error;
    }
    *ret_table = r->table;
    *ret_image = r->meta.image;
    return 0;
}

int image_read(const char *path,
               struct lock_table **ret_table,
               struct replica_image *ret_image,
               char **ret_sentence)
{
    struct reader r = {.path = path, .size_bytes = files_size(path)};
    int error = sql_open_immutable(path, &r.db, &r.sentence);
    if (error == 0)
        error = read_database(&r, ret_table, ret_image);
    if (error != 0)
        *ret_sentence = r.sentence;
    return error;
}

int image_check(const char *path, const struct replica_image *told, char **ret_sentence)
{
    struct lock_table *table;
    struct replica_image image;
    int rv = image_read(path, &table, &image, ret_sentence);
    if (rv < 0)
        return rv;
    bool same = image.index == told->index && image.term == told->term &&
                image.conf_index == told->conf_index && bytes_equal(image.conf, told->conf);
    lock_table_free(table);
    free((void *)(uintptr_t)image.conf.data);
    if (same)
        return 0;
    *ret_sentence = xstrdup("the image is not the one that was announced");
    return -EBADMSG;
}

int image_read_bytes(struct bytes in,
                     struct lock_table **ret_table,
                     struct replica_image *ret_image)
{
    struct reader r = {.path = "image in memory", .size_bytes = in.size};
    int error =
        sql_open(":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &r.db, &r.sentence);
    if (error == 0) {
        int rc = sqlite3_deserialize(r.db, "main", (unsigned char *)(uintptr_t)in.data,
                                     (sqlite3_int64)in.size, (sqlite3_int64)in.size,
                                     SQLITE_DESERIALIZE_READONLY);
        if (rc != SQLITE_OK) {
            error = sql_fail(r.db, rc, r.path, "can't be read", &r.sentence);
            (void)sqlite3_close(r.db); /* Nothing in it. */
        } else {
            error = read_database(&r, ret_table, ret_image);
        }
    }
    free(r.sentence);
    return error;
}
