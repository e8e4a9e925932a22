#include "raftstore/node/store_log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "raftstore/base/buf.h"
#include "raftstore/node/store_files.h"
#include "raftstore/node/store_meta.h"
#include "raftstore/node/store_wal.h"

#define EMPTY_PAGES 3u /* Of the database as it is made: schema, head, entries. */

static uint8_t *put_u64(uint8_t *p, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        *p++ = (uint8_t)(value >> (8 * i));
    return p;
}

/* CRC-32 of index, term, type (8 bytes each, little endian) and data. */
static uint32_t entry_sum(const struct replica_entry *e)
{
    uint8_t fixed[24];
    (void)put_u64(put_u64(put_u64(fixed, e->index), e->term), e->type);
    uint32_t sum = (uint32_t)crc32(0, fixed, sizeof fixed);
    if (e->data.size > 0) /* crc32() starts anew when it is given NULL. */
        sum = (uint32_t)crc32_z(sum, e->data.data, e->data.size);
    return sum;
}

static uint32_t head_sum(const struct log_head *h)
{
    uint8_t b[40];
    uint8_t *p = put_u64(put_u64(put_u64(b, h->seq), h->incarnation), h->first_index);
    (void)put_u64(put_u64(p, h->term), h->voted_for);
    return (uint32_t)crc32(0, b, sizeof b);
}

/* Called by SQLite after each commit with the number of frames in the WAL. That a hook is set keeps
 * SQLite from checkpointing by itself. */
static int on_wal(void *arg, sqlite3 *db, const char *name, int n_frames)
{
    (void)db;
    (void)name;
    struct log_file *f = arg;
    f->frames = (unsigned)n_frames;
    return SQLITE_OK;
}

static struct log_file *
log_new(const char *directory, uint64_t seq, uint64_t incarnation, uint64_t wal_bytes)
{
    struct log_file *f = xcalloc(1, sizeof *f);
    f->path = files_log_path(directory, seq);
    f->head = (struct log_head){.seq = seq, .incarnation = incarnation};
    f->wal_bytes = wal_bytes;
    f->frames_prepared = (unsigned)((wal_bytes - WAL_HEADER_BYTES) / LOG_FRAME_BYTES);
    return f;
}

void log_close(struct log_file *f)
{
    if (f == NULL)
        return;
    sqlite3_stmt *const stmts[] = {f->begin, f->commit, f->insert, f->truncate, f->write_head};
    for (size_t i = 0; i < sizeof stmts / sizeof *stmts; i++)
        (void)sqlite3_finalize(stmts[i]); /* Repeats a reported error. */
    (void)sqlite3_close(f->db);           /* Everything that counts is durable. */
    free(f->path);
    free(f);
}

/* The empty database, durable; in WAL mode, but without a WAL. */
static int make_database(const char *path, char **ret_sentence)
{
    SQL_DB *db = NULL;
    int error = files_remove_database(path, ret_sentence);
    if (error == 0)
        error = sql_open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &db, ret_sentence);
    if (error != 0)
        return error;
    char *sql = xasprintf(
        "PRAGMA locking_mode=EXCLUSIVE; PRAGMA page_size=%u; PRAGMA journal_mode=OFF;"
        "PRAGMA synchronous=FULL; PRAGMA application_id=%d; PRAGMA user_version=%d; BEGIN;"
        "CREATE TABLE head(id INTEGER PRIMARY KEY, seq INTEGER, incarnation INTEGER,"
        " first_index INTEGER, term INTEGER, voted_for INTEGER, crc INTEGER);"
        "CREATE TABLE entry(idx INTEGER PRIMARY KEY, term INTEGER, type INTEGER, crc INTEGER,"
        " data BLOB); COMMIT; PRAGMA journal_mode=WAL;",
        LOG_PAGE_BYTES, STORE_APPLICATION_ID, STORE_FORMAT_VERSION);
    error = sql_exec(db, path, sql, ret_sentence);
    free(sql);
    if (error != 0)
        return error;
    int rc = sqlite3_close(db); /* Removes the empty WAL. */
    db = NULL;
    if (rc != SQLITE_OK)
        return sql_fail(NULL, rc, path, "can't be closed", ret_sentence);
    return 0;
}

static int open_for_writing(struct log_file *f, char **ret_sentence)
{
    int error = sql_open(f->path, SQLITE_OPEN_READWRITE, &f->db, ret_sentence);
    if (error != 0)
        return error;
    (void)sqlite3_db_config(f->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    (void)sqlite3_wal_hook(f->db, on_wal, f);
    /* Exclusive: no shared memory file. No spill: a transaction's frames are written once, by its
     * COMMIT, and the audit relies on that. */
    return sql_exec(f->db, f->path,
                    "PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=FULL;"
                    "PRAGMA cache_size=-256; PRAGMA cache_spill=OFF; PRAGMA temp_store=MEMORY;",
                    ret_sentence);
}

static int prepare_statements(struct log_file *f, char **ret_sentence)
{
    const struct {
        sqlite3_stmt **stmt;
        const char *sql;
    } all[] = {
        {&f->begin, "BEGIN IMMEDIATE"},
        {&f->commit, "COMMIT"},
        {&f->insert, "INSERT INTO entry(idx, term, type, crc, data) VALUES(?,?,?,?,?)"},
        {&f->truncate, "DELETE FROM entry WHERE idx >= ?"},
        {&f->write_head, "INSERT OR REPLACE INTO head VALUES(1,?,?,?,?,?,?)"},
    };
    int error = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all && error == 0; i++)
        error = sql_prepare(f->db, f->path, all[i].sql, all[i].stmt, ret_sentence);
    return error;
}

/* The first transaction: an unbegun head. */
static int write_birth(struct log_file *f, char **ret_sentence)
{
    f->head_dirty = true;
    int error = log_begin(f, ret_sentence);
    return error != 0 ? error : log_commit(f, ret_sentence);
}

int log_prepare(const char *directory,
                uint64_t seq,
                uint64_t incarnation,
                size_t wal_bytes,
                const char *spare,
                struct log_file **ret_file,
                char **ret_sentence)
{
    struct log_file *f = log_new(directory, seq, incarnation, wal_bytes);
    char *wal = xasprintf("%s-wal", f->path);
    int error = make_database(f->path, ret_sentence);
    if (error == 0)
        error = files_make_wal(wal, spare, wal_bytes, ret_sentence);
    if (error == 0)
        error = files_sync(directory, ret_sentence);
    if (error == 0)
        error = open_for_writing(f, ret_sentence);
    if (error == 0)
        error = prepare_statements(f, ret_sentence);
    if (error == 0)
        error = write_birth(f, ret_sentence);
    free(wal);
    if (error != 0) {
        log_close(f);
        return error;
    }
    *ret_file = f;
    return 0;
}

int log_begin(struct log_file *f, char **ret_sentence)
{
    return sql_run(f->begin, f->path, "can't be written", ret_sentence);
}

int log_insert(struct log_file *f, const struct replica_entry *e, char **ret_sentence)
{
    (void)sql_bind_u64(f->insert, 1, e->index);
    (void)sql_bind_u64(f->insert, 2, e->term);
    (void)sql_bind_u64(f->insert, 3, e->type);
    (void)sql_bind_u64(f->insert, 4, entry_sum(e));
    int rc = sqlite3_bind_blob64(f->insert, 5, e->data.size > 0 ? e->data.data : "", e->data.size,
                                 SQLITE_STATIC);
    if (rc != SQLITE_OK)
        return sql_fail(f->db, rc, f->path, "can't be written", ret_sentence);
    int error = sql_run(f->insert, f->path, "can't be written", ret_sentence);
    if (error == 0)
        f->last_index = e->index;
    return error;
}

int log_cut(struct log_file *f, uint64_t from, char **ret_sentence)
{
    (void)sql_bind_u64(f->truncate, 1, from);
    int error = sql_run(f->truncate, f->path, "can't be written", ret_sentence);
    if (error == 0 && f->last_index >= from)
        f->last_index = from - 1;
    return error;
}

static int write_head(struct log_file *f, char **ret_sentence)
{
    const struct log_head *h = &f->head;
    const uint64_t values[] = {h->seq,  h->incarnation, h->first_index,
                               h->term, h->voted_for,   head_sum(h)};
    for (int i = 0; i < 6; i++)
        (void)sql_bind_u64(f->write_head, i + 1, values[i]);
    return sql_run(f->write_head, f->path, "can't be written", ret_sentence);
}

int log_commit(struct log_file *f, char **ret_sentence)
{
    int error = f->head_dirty ? write_head(f, ret_sentence) : 0;
    if (error == 0)
        error = sql_run(f->commit, f->path, "can't be made durable", ret_sentence);
    if (error == 0)
        f->head_dirty = false;
    return error;
}

unsigned log_frames_of(size_t data_bytes)
{
    /* Its overflow pages, its share of a leaf, and now and then a page of the tree above. */
    return (unsigned)(data_bytes / (LOG_PAGE_BYTES - 4)) + 3;
}

int log_checkpoint(struct log_file *f, char **ret_sentence)
{
    int n_frames = -1, n_done = -2;
    int rc = sqlite3_wal_checkpoint_v2(f->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &n_frames, &n_done);
    if (rc != SQLITE_OK)
        return sql_fail(f->db, rc, f->path, "can't be checkpointed", ret_sentence);
    if (n_frames != n_done)
        return fail_with(-EIO, f->path, "can't be checkpointed as a whole", ret_sentence);
    return 0;
}

/* Read the head and check that the file is what its name says. */
static int read_head(struct log_file *f, char **ret_sentence)
{
    int64_t version = 0;
    int error = sql_query_int(f->db, f->path, "PRAGMA user_version", &version, ret_sentence);
    if (error != 0)
        return error;
    if (version > STORE_FORMAT_VERSION)
        return fail_with(-ENOTSUP, f->path, "written by a newer version", ret_sentence);
    SQL_STMT *stmt = NULL;
    error = sql_prepare(f->db, f->path,
                        "SELECT seq, incarnation, first_index, term, voted_for, crc FROM head",
                        &stmt, ret_sentence);
    if (error != 0)
        return error;
    int rc = sqlite3_step(stmt);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        return sql_fail(f->db, rc, f->path, "can't be read", ret_sentence);
    if (rc == SQLITE_DONE)
        return fail_damaged(ret_sentence, f->path, "its head is missing");
    struct log_head h = {.seq = sql_u64(stmt, 0),
                         .incarnation = sql_u64(stmt, 1),
                         .first_index = sql_u64(stmt, 2),
                         .term = sql_u64(stmt, 3),
                         .voted_for = sql_u64(stmt, 4)};
    if (head_sum(&h) != sql_u64(stmt, 5))
        return fail_damaged(ret_sentence, f->path, "its head does not match its checksum");
    if (h.seq != f->head.seq || h.incarnation != f->head.incarnation)
        return fail_damaged(ret_sentence, f->path, "it is a file of another place or directory");
    f->head = h;
    f->last_index = h.first_index > 0 ? h.first_index - 1 : 0;
    return 0;
}

/* Is what SQLite found in the WAL what the audit found? */
static int compare_with_audit(struct log_file *f, const struct wal_audit *a, char **ret_sentence)
{
    int n_frames = -1, n_done = -1;
    int rc = sqlite3_wal_checkpoint_v2(f->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &n_frames, &n_done);
    if (rc != SQLITE_OK)
        return sql_fail(f->db, rc, f->path, "can't be checkpointed", ret_sentence);
    if (n_frames < 0 || (uint64_t)n_frames != a->frames_committed)
        return fail_damaged(ret_sentence, f->path,
                            "SQLite finds %d frames in its WAL, the audit %" PRIu64, n_frames,
                            a->frames_committed);
    return 0;
}

int log_recover(const char *directory,
                uint64_t seq,
                uint64_t incarnation,
                uint64_t wal_bytes,
                struct log_file **ret_file,
                char **ret_sentence)
{
    struct log_file *f = log_new(directory, seq, incarnation, wal_bytes);
    char *wal = xasprintf("%s-wal", f->path);
    struct wal_audit audit;
    int error = 0;
    if (!files_exist(f->path))
        error = fail_damaged(ret_sentence, f->path, "the file is missing");
    else if (files_size(f->path) < EMPTY_PAGES * LOG_PAGE_BYTES)
        error = fail_damaged(ret_sentence, f->path, "the file is too short");
    if (error == 0)
        error = wal_audit(wal, &audit, ret_sentence);
    if (error == 0 && audit.size_bytes < wal_bytes)
        error =
            fail_damaged(ret_sentence, wal, "it is %" PRIu64 " bytes long and must have %" PRIu64,
                         audit.size_bytes, wal_bytes);
    if (error == 0 && audit.frames_committed == 0)
        error = fail_damaged(ret_sentence, wal, "its first transaction is missing");
    free(wal);
    if (error == 0)
        error = open_for_writing(f, ret_sentence);
    if (error == 0)
        error = read_head(f, ret_sentence);
    if (error == 0)
        error = compare_with_audit(f, &audit, ret_sentence);
    if (error != 0) {
        log_close(f);
        return error;
    }
    *ret_file = f;
    return 0;
}

int log_open_sealed(const char *directory,
                    uint64_t seq,
                    uint64_t incarnation,
                    struct log_file **ret_file,
                    char **ret_sentence)
{
    struct log_file *f = log_new(directory, seq, incarnation, WAL_HEADER_BYTES);
    char *wal = xasprintf("%s-wal", f->path);
    int error = 0;
    if (!files_exist(f->path))
        error = fail_damaged(ret_sentence, f->path, "the file is missing");
    if (error == 0) /* Of a crash between sealing and taking it away; the database has it all. */
        error = files_remove(wal, ret_sentence);
    free(wal);
    if (error == 0)
        error = sql_open_immutable(f->path, &f->db, ret_sentence);
    if (error == 0)
        error = read_head(f, ret_sentence);
    if (error != 0) {
        log_close(f);
        return error;
    }
    *ret_file = f;
    return 0;
}

int log_read(struct log_file *f,
             void (*row)(void *arg, const struct replica_entry *e),
             void *arg,
             char **ret_sentence)
{
    SQL_STMT *stmt = NULL;
    int error =
        sql_prepare(f->db, f->path, "SELECT idx, term, type, data, crc FROM entry ORDER BY idx",
                    &stmt, ret_sentence);
    if (error != 0)
        return error;
    int rc;
    uint64_t next = f->head.first_index;
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        struct replica_entry e = {.index = sql_u64(stmt, 0),
                                  .term = sql_u64(stmt, 1),
                                  .type = (uint32_t)sql_u64(stmt, 2),
                                  .data = sql_bytes(stmt, 3)};
        if (entry_sum(&e) != sql_u64(stmt, 4))
            return fail_damaged(ret_sentence, f->path,
                                "entry %" PRIu64 " does not match its checksum", e.index);
        if (next == 0 || e.index != next)
            return fail_damaged(ret_sentence, f->path, "entry %" PRIu64 " is missing", next);
        row(arg, &e);
        f->last_index = next++;
    }
    if (rc != SQLITE_DONE)
        return sql_fail(f->db, rc, f->path, "can't be read", ret_sentence);
    return 0;
}
