#include "raftstore/node/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "raftstore/base/buf.h"
#include "raftstore/node/image_internal.h"
#include "raftstore/node/store_files.h"

static void value(struct image_meta_value **next, uint64_t *number, const char *key)
{
    (void)snprintf((*next)->key, sizeof(*next)->key, "%s", key);
    (*next)->value = number;
    (*next)++;
}

void image_meta_values(struct image_meta *m, struct image_meta_value ret[IMAGE_META_VALUES])
{
    struct image_meta_value *at = ret;
    value(&at, &m->image.index, "raft_index");
    value(&at, &m->image.term, "raft_term");
    value(&at, &m->image.conf_index, "raft_conf_index");
    value(&at, &m->row.meta.index, "index");
    value(&at, &m->row.meta.term, "term");
    value(&at, &m->row.meta.stamp_ns, "stamp_ns");
    value(&at, &m->row.meta.next_token, "next_token");
    value(&at, &m->row.meta.next_session_id, "next_session_id");
    value(&at, &m->row.meta.next_directory_id, "next_directory_id");
    value(&at, &m->row.meta.next_queue_number, "next_queue_number");
    value(&at, &m->row.meta.limits.holds_max, "holds_max");
    value(&at, &m->row.meta.limits.holds_per_session_max, "holds_per_session_max");
    value(&at, &m->row.meta.limits.waiters_max, "waiters_max");
    value(&at, &m->row.meta.limits.sessions_max, "sessions_max");
    value(&at, &m->row.meta.limits.directories_max, "directories_max");
    value(&at, &m->row.meta.digest.lo, "digest_lo");
    value(&at, &m->row.meta.digest.hi, "digest_hi");
    for (unsigned i = 0; i < IMAGE_TABLES; i++) {
        char key[32];
        (void)snprintf(key, sizeof key, "%s_rows", image_tables[i].name);
        value(&at, &m->tables[i].n_rows, key);
        (void)snprintf(key, sizeof key, "%s_checksum", image_tables[i].name);
        value(&at, &m->tables[i].sum, key);
    }
}

uint64_t image_meta_sum(struct image_meta *m)
{
    struct image_meta_value values[IMAGE_META_VALUES];
    image_meta_values(m, values);
    uint32_t sum = 0;
    for (unsigned i = 0; i < IMAGE_META_VALUES; i++) {
        uint8_t le[8];
        for (int j = 0; j < 8; j++)
            le[j] = (uint8_t)(*values[i].value >> (8 * j));
        sum = (uint32_t)crc32(sum, le, sizeof le);
    }
    if (m->image.conf.size > 0) /* crc32() starts anew when it is given NULL. */
        sum = (uint32_t)crc32_z(sum, m->image.conf.data, m->image.conf.size);
    return sum;
}

struct writer {
    sqlite3 *db;
    const char *path;
    const atomic_bool *stop;
    struct image_meta meta;
    struct image_cursor cursors[IMAGE_TABLES];
    char *sentence;
};

static int write_row(void *arg, const struct lock_row *row)
{
    struct writer *w = arg;
    if (row->type == LOCK_ROW_META) {
        w->meta.row = *row;
        return 0;
    }
    if (w->stop != NULL && atomic_load_explicit(w->stop, memory_order_relaxed))
        return fail_with(-ECANCELED, w->path, "given up", &w->sentence);
    unsigned i = 0;
    while (image_tables[i].type != row->type)
        i++;
    /* Describing a row for writing only reads it. */
    image_row(&w->cursors[i], &image_tables[i], (struct lock_row *)(uintptr_t)row);
    return sql_run(w->cursors[i].stmt, w->path, "can't be written", &w->sentence);
}

static int write_meta(struct writer *w)
{
    SQL_STMT *stmt = NULL;
    int error = sql_prepare(w->db, w->path, "INSERT INTO meta(key, value) VALUES(?,?)", &stmt,
                            &w->sentence);
    if (error != 0)
        return error;
    struct image_meta_value values[IMAGE_META_VALUES];
    image_meta_values(&w->meta, values);
    for (unsigned i = 0; i < IMAGE_META_VALUES && error == 0; i++) {
        (void)sqlite3_bind_text(stmt, 1, values[i].key, -1, SQLITE_STATIC);
        (void)sql_bind_u64(stmt, 2, *values[i].value);
        error = sql_run(stmt, w->path, "can't be written", &w->sentence);
    }
    if (error == 0) {
        const struct bytes *conf = &w->meta.image.conf;
        (void)sqlite3_bind_text(stmt, 1, "raft_conf", -1, SQLITE_STATIC);
        (void)sqlite3_bind_blob64(stmt, 2, conf->size > 0 ? conf->data : "", conf->size,
                                  SQLITE_STATIC);
        error = sql_run(stmt, w->path, "can't be written", &w->sentence);
    }
    if (error == 0) {
        (void)sqlite3_bind_text(stmt, 1, "checksum", -1, SQLITE_STATIC);
        (void)sql_bind_u64(stmt, 2, image_meta_sum(&w->meta));
        error = sql_run(stmt, w->path, "can't be written", &w->sentence);
    }
    return error;
}

static int make_tables(struct writer *w)
{
    struct buf sql = BUF_INIT;
    buf_printf(&sql,
               "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA locking_mode=EXCLUSIVE;"
               "PRAGMA cache_size=-4096; PRAGMA temp_store=MEMORY; PRAGMA application_id=%d;"
               "PRAGMA user_version=%d; BEGIN; CREATE TABLE meta(key TEXT, value);",
               IMAGE_APPLICATION_ID, IMAGE_FORMAT_VERSION);
    for (unsigned i = 0; i < IMAGE_TABLES; i++)
        buf_printf(&sql, "CREATE TABLE %s(%s);", image_tables[i].name, image_tables[i].columns);
    buf_add(&sql, "", 1);
    int error = sql_exec(w->db, w->path, (const char *)sql.data, &w->sentence);
    for (unsigned i = 0; i < IMAGE_TABLES && error == 0; i++) {
        sql.size = 0;
        buf_printf(&sql, "INSERT INTO %s VALUES(?", image_tables[i].name);
        for (int j = 1; j < image_tables[i].n_columns[IMAGE_FORMAT_VERSION - 1]; j++)
            buf_printf(&sql, ",?");
        buf_add(&sql, ")", 2);
        error =
            sql_prepare(w->db, w->path, (const char *)sql.data, &w->cursors[i].stmt, &w->sentence);
    }
    buf_deinit(&sql);
    return error;
}

/* Everything but opening and closing. */
static int write_database(struct writer *w, const struct lock_table *table, int64_t wall_offset_ns)
{
    for (unsigned i = 0; i < IMAGE_TABLES; i++)
        w->cursors[i] = (struct image_cursor){
            .writing = true, .version = IMAGE_FORMAT_VERSION, .wall_offset_ns = wall_offset_ns};
    int error = make_tables(w);
    if (error == 0)
        error = lock_export(table, write_row, w);
    for (unsigned i = 0; i < IMAGE_TABLES; i++) {
        struct image_cursor *c = &w->cursors[i];
        w->meta.tables[i].n_rows = c->n_rows;
        w->meta.tables[i].sum = c->sum;
        (void)sqlite3_finalize(c->stmt); /* Repeats a reported error. */
        buf_deinit(&c->values);
        buf_deinit(&c->paths);
    }
    if (error == 0)
        error = write_meta(w);
    if (error == 0)
        error = sql_exec(w->db, w->path,
                         "CREATE INDEX lock_expires_at ON lock(expires_at); COMMIT;", &w->sentence);
    return error;
}

int image_write_until(const char *path,
                      const struct lock_table *table,
                      const struct replica_image *image,
                      int64_t wall_offset_ns,
                      const atomic_bool *stop,
                      char **ret_sentence)
{
    struct writer w = {.path = path, .stop = stop, .meta.image = *image};
    int error = files_remove_database(path, &w.sentence);
    if (error == 0)
        error = sql_open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &w.db, &w.sentence);
    if (error == 0)
        error = write_database(&w, table, wall_offset_ns);
    int rc = sqlite3_close(w.db);
    if (error == 0 && rc != SQLITE_OK)
        error = sql_fail(NULL, rc, path, "can't be closed", &w.sentence);
    if (error == 0)
        error = files_sync(path, &w.sentence);
    if (error != 0) {
        char *ignored = NULL; /* The first error is the one to be told. */
        (void)files_remove_database(path, &ignored);
        free(ignored);
        *ret_sentence = w.sentence;
    }
    return error;
}

int image_write(const char *path,
                const struct lock_table *table,
                const struct replica_image *image,
                int64_t wall_offset_ns,
                char **ret_sentence)
{
    return image_write_until(path, table, image, wall_offset_ns, NULL, ret_sentence);
}

int image_write_bytes(const struct lock_table *table,
                      const struct replica_image *image,
                      struct bytes *ret_bytes)
{
    struct writer w = {.path = ":memory:", .meta.image = *image};
    int error = sql_open(w.path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &w.db, &w.sentence);
    if (error == 0)
        error = write_database(&w, table, 0);
    sqlite3_int64 size = 0;
    unsigned char *data = error == 0 ? sqlite3_serialize(w.db, "main", &size, 0) : NULL;
    if (error == 0 && data == NULL)
        error = -ENOMEM;
    if (error == 0)
        *ret_bytes = bytes_of(xmemdup(data, (size_t)size), (size_t)size);
    sqlite3_free(data);
    (void)sqlite3_close(w.db); /* Its content has been copied. */
    free(w.sentence);
    return error;
}
