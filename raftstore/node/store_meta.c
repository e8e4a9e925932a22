#include "raftstore/node/store_meta.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "raftstore/node/store_files.h"

static const char schema[] =
    "CREATE TABLE identity(incarnation INTEGER, cluster_id INTEGER, node_id INTEGER,"
    " base_term INTEGER, base_voted_for INTEGER, next_seq INTEGER);"
    "CREATE TABLE snapshot(idx INTEGER, term INTEGER, conf_index INTEGER, conf BLOB);"
    "CREATE TABLE log_file(seq INTEGER PRIMARY KEY, sealed INTEGER, begun INTEGER,"
    " first_index INTEGER, last_index INTEGER, wal_bytes INTEGER);"
    "CREATE TABLE peer(node_id INTEGER, incarnation INTEGER);"
    "CREATE TABLE checksum(crc INTEGER);";

void meta_deinit(struct meta *m)
{
    free((void *)(uintptr_t)m->image.conf.data);
    free(m->files);
    free(m->peers);
    *m = (struct meta){0};
}

void meta_add_file(struct meta *m, struct meta_file f)
{
    m->files = xrealloc(m->files, (m->n_files + 1) * sizeof *m->files);
    m->files[m->n_files++] = f;
}

void meta_remove_files(struct meta *m, unsigned from, unsigned n)
{
    memmove(m->files + from, m->files + from + n, (m->n_files - from - n) * sizeof *m->files);
    m->n_files -= n;
}

struct meta_file *meta_file(struct meta *m, uint64_t seq)
{
    for (unsigned i = 0; i < m->n_files; i++)
        if (m->files[i].seq == seq)
            return &m->files[i];
    return NULL;
}

void meta_set_image(struct meta *m, const struct replica_image *image)
{
    void *conf = xmemdup(image->conf.data, image->conf.size);
    free((void *)(uintptr_t)m->image.conf.data);
    m->image = *image;
    m->image.conf.data = conf;
}

void meta_set_peer(struct meta *m, uint64_t node_id, uint64_t incarnation)
{
    for (unsigned i = 0; i < m->n_peers; i++) {
        if (m->peers[i].node_id == node_id) {
            m->peers[i].incarnation = incarnation;
            return;
        }
    }
    m->peers = xrealloc(m->peers, (m->n_peers + 1) * sizeof *m->peers);
    m->peers[m->n_peers++] = (struct meta_peer){node_id, incarnation};
}

/* A checksum that takes values one by one. */
static void sum_u64(uint32_t *sum, uint64_t value)
{
    uint8_t le[8];
    for (int i = 0; i < 8; i++)
        le[i] = (uint8_t)(value >> (8 * i));
    *sum = (uint32_t)crc32(*sum, le, sizeof le);
}

static uint32_t meta_sum(const struct meta *m)
{
    uint32_t sum = 0;
    const uint64_t fixed[] = {m->incarnation,     m->cluster_id,     m->node_id,
                              m->base_term,       m->base_voted_for, m->next_seq,
                              m->image.index,     m->image.term,     m->image.conf_index,
                              m->image.conf.size, m->n_files,        m->n_peers};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        sum_u64(&sum, fixed[i]);
    if (m->image.conf.size > 0) /* crc32() starts anew when it is given NULL. */
        sum = (uint32_t)crc32_z(sum, m->image.conf.data, m->image.conf.size);
    for (unsigned i = 0; i < m->n_files; i++) {
        const struct meta_file *f = &m->files[i];
        sum_u64(&sum, f->seq);
        sum_u64(&sum, (uint64_t)f->sealed << 1 | f->begun);
        sum_u64(&sum, f->first_index);
        sum_u64(&sum, f->last_index);
        sum_u64(&sum, f->wal_bytes);
    }
    for (unsigned i = 0; i < m->n_peers; i++) {
        sum_u64(&sum, m->peers[i].node_id);
        sum_u64(&sum, m->peers[i].incarnation);
    }
    return sum;
}

/* Insert one row of numbers; `blob`, if not NULL, is the last column. */
static int insert(sqlite3 *db,
                  const char *path,
                  const char *sql,
                  const uint64_t *values,
                  int n,
                  const struct bytes *blob,
                  char **ret_sentence)
{
    SQL_STMT *stmt = NULL;
    int error = sql_prepare(db, path, sql, &stmt, ret_sentence);
    if (error != 0)
        return error;
    for (int i = 0; i < n; i++)
        (void)sql_bind_u64(stmt, i + 1, values[i]);
    if (blob != NULL)
        (void)sqlite3_bind_blob64(stmt, n + 1, blob->data, blob->size, SQLITE_STATIC);
    return sql_run(stmt, path, "can't be written", ret_sentence);
}

static int insert_all(sqlite3 *db, const char *path, const struct meta *m, char **ret_sentence)
{
    const uint64_t identity[] = {m->incarnation, m->cluster_id,     m->node_id,
                                 m->base_term,   m->base_voted_for, m->next_seq};
    int error = insert(db, path, "INSERT INTO identity VALUES(?,?,?,?,?,?)", identity, 6, NULL,
                       ret_sentence);
    if (error == 0 && m->image.index != 0) {
        const uint64_t image[] = {m->image.index, m->image.term, m->image.conf_index};
        error = insert(db, path, "INSERT INTO snapshot VALUES(?,?,?,?)", image, 3, &m->image.conf,
                       ret_sentence);
    }
    for (unsigned i = 0; i < m->n_files && error == 0; i++) {
        const struct meta_file *f = &m->files[i];
        const uint64_t row[] = {f->seq,         f->sealed,     f->begun,
                                f->first_index, f->last_index, f->wal_bytes};
        error = insert(db, path, "INSERT INTO log_file VALUES(?,?,?,?,?,?)", row, 6, NULL,
                       ret_sentence);
    }
    for (unsigned i = 0; i < m->n_peers && error == 0; i++) {
        const uint64_t row[] = {m->peers[i].node_id, m->peers[i].incarnation};
        error = insert(db, path, "INSERT INTO peer VALUES(?,?)", row, 2, NULL, ret_sentence);
    }
    if (error == 0) {
        const uint64_t sum = meta_sum(m);
        error = insert(db, path, "INSERT INTO checksum VALUES(?)", &sum, 1, NULL, ret_sentence);
    }
    return error;
}

int meta_save(struct meta_db *db, const struct meta *m, char **ret_sentence)
{
    int error = sql_exec(db->db, db->path,
                         "BEGIN IMMEDIATE; DELETE FROM identity; DELETE FROM snapshot;"
                         "DELETE FROM log_file; DELETE FROM peer; DELETE FROM checksum;",
                         ret_sentence);
    if (error == 0)
        error = insert_all(db->db, db->path, m, ret_sentence);
    if (error == 0)
        error = sql_exec(db->db, db->path, "COMMIT", ret_sentence);
    return error;
}

static int connect(const char *path, int flags, sqlite3 **ret_db, char **ret_sentence)
{
    SQL_DB *db = NULL;
    int error = sql_open(path, flags, &db, ret_sentence);
    if (error == 0)
        error = sql_exec(db, path,
                         "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=PERSIST;"
                         "PRAGMA synchronous=FULL; PRAGMA cache_size=-64;",
                         ret_sentence);
    if (error != 0)
        return error;
    *ret_db = db;
    db = NULL;
    return 0;
}

int meta_create(const char *directory, const struct meta *m, char **ret_sentence)
{
    char *temporary = files_path(directory, "meta-new.db");
    char *path = files_path(directory, "meta.db");
    struct meta_db made = {NULL, temporary};
    int error = files_remove_database(temporary, ret_sentence);
    if (error == 0)
        error =
            connect(temporary, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &made.db, ret_sentence);
    if (error == 0)
        error = sql_exec(made.db, temporary, schema, ret_sentence);
    if (error == 0) {
        char *pragma = xasprintf("PRAGMA application_id=%d; PRAGMA user_version=%d;",
                                 STORE_APPLICATION_ID, STORE_FORMAT_VERSION);
        error = sql_exec(made.db, temporary, pragma, ret_sentence);
        free(pragma);
    }
    if (error == 0)
        error = meta_save(&made, m, ret_sentence);
    (void)sqlite3_close(made.db); /* Committed; what a close could still fail at is not needed. */
    if (error == 0)
        error = files_sync(temporary, ret_sentence);
    if (error == 0)
        error = files_rename(temporary, path, ret_sentence);
    if (error == 0)
        error = files_remove_database(temporary, ret_sentence); /* Its journal. */
    if (error == 0)
        error = files_sync(directory, ret_sentence);
    free(temporary);
    free(path);
    return error;
}

/* Step over the rows of a query. */
static int each_row(struct meta_db *db,
                    const char *sql,
                    void (*row)(struct meta *m, sqlite3_stmt *stmt),
                    struct meta *m,
                    unsigned *ret_n,
                    char **ret_sentence)
{
    SQL_STMT *stmt = NULL;
    int error = sql_prepare(db->db, db->path, sql, &stmt, ret_sentence);
    if (error != 0)
        return error;
    int rc;
    for (*ret_n = 0; (rc = sqlite3_step(stmt)) == SQLITE_ROW; (*ret_n)++)
        row(m, stmt);
    return rc == SQLITE_DONE ? 0 : sql_fail(db->db, rc, db->path, "can't be read", ret_sentence);
}

static void row_identity(struct meta *m, sqlite3_stmt *stmt)
{
    m->incarnation = sql_u64(stmt, 0);
    m->cluster_id = sql_u64(stmt, 1);
    m->node_id = sql_u64(stmt, 2);
    m->base_term = sql_u64(stmt, 3);
    m->base_voted_for = sql_u64(stmt, 4);
    m->next_seq = sql_u64(stmt, 5);
}

static void row_snapshot(struct meta *m, sqlite3_stmt *stmt)
{
    struct replica_image image = {.index = sql_u64(stmt, 0),
                                  .term = sql_u64(stmt, 1),
                                  .conf_index = sql_u64(stmt, 2),
                                  .conf = sql_bytes(stmt, 3)};
    meta_set_image(m, &image);
}

static void row_file(struct meta *m, sqlite3_stmt *stmt)
{
    meta_add_file(m, (struct meta_file){.seq = sql_u64(stmt, 0),
                                        .sealed = sql_u64(stmt, 1) != 0,
                                        .begun = sql_u64(stmt, 2) != 0,
                                        .first_index = sql_u64(stmt, 3),
                                        .last_index = sql_u64(stmt, 4),
                                        .wal_bytes = sql_u64(stmt, 5)});
}

static void row_peer(struct meta *m, sqlite3_stmt *stmt)
{
    meta_set_peer(m, sql_u64(stmt, 0), sql_u64(stmt, 1));
}

static int load(struct meta_db *db, struct meta *m, char **ret_sentence)
{
    int64_t version = 0, sum = 0;
    unsigned identities = 0, snapshots = 0, n = 0;
    int error = sql_query_int(db->db, db->path, "PRAGMA user_version", &version, ret_sentence);
    if (error == 0 && version > STORE_FORMAT_VERSION)
        error = fail_with(-ENOTSUP, db->path, "written by a newer version", ret_sentence);
    if (error == 0 && version < 1)
        error = fail_damaged(ret_sentence, db->path, "it has no format version");
    if (error == 0)
        error = each_row(db, "SELECT * FROM identity", row_identity, m, &identities, ret_sentence);
    if (error == 0)
        error = each_row(db, "SELECT * FROM snapshot", row_snapshot, m, &snapshots, ret_sentence);
    if (error == 0)
        error = each_row(db, "SELECT * FROM log_file ORDER BY seq", row_file, m, &n, ret_sentence);
    if (error == 0)
        error = each_row(db, "SELECT * FROM peer ORDER BY rowid", row_peer, m, &n, ret_sentence);
    if (error == 0)
        error = sql_query_int(db->db, db->path, "SELECT crc FROM checksum", &sum, ret_sentence);
    if (error == 0 && (identities != 1 || snapshots > 1 || sum != (int64_t)meta_sum(m)))
        error = fail_damaged(ret_sentence, db->path, "its rows do not match their checksum");
    return error;
}

/* The structure of the file, unused parts included: it is going to be written to. */
static int check(struct meta_db *db, char **ret_sentence)
{
    SQL_STMT *stmt = NULL;
    int error = sql_prepare(db->db, db->path, "PRAGMA integrity_check(1)", &stmt, ret_sentence);
    if (error != 0)
        return error;
    int rc = sqlite3_step(stmt);
    if (rc != SQLITE_ROW)
        return sql_fail(db->db, rc, db->path, "can't be read", ret_sentence);
    const char *text = (const char *)sqlite3_column_text(stmt, 0);
    if (text == NULL || strcmp(text, "ok") != 0)
        return fail_damaged(ret_sentence, db->path, "%s", text != NULL ? text : "unreadable");
    return 0;
}

int meta_open(const char *directory,
              struct meta_db *ret_db,
              struct meta *ret_meta,
              char **ret_sentence)
{
    struct meta_db db = {.path = files_path(directory, "meta.db")};
    struct meta m = {0};
    int error = connect(db.path, SQLITE_OPEN_READWRITE, &db.db, ret_sentence);
    if (error == 0)
        error = load(&db, &m, ret_sentence);
    if (error == 0)
        error = check(&db, ret_sentence);
    if (error != 0) {
        meta_deinit(&m);
        meta_close(&db);
        return error;
    }
    *ret_db = db;
    *ret_meta = m;
    return 0;
}

void meta_close(struct meta_db *db)
{
    (void)sqlite3_close(db->db); /* Nothing is under way. */
    free(db->path);
    *db = (struct meta_db){0};
}
