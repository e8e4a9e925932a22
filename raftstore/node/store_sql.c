#include "raftstore/node/store_sql.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftstore/base/buf.h"

static const char *advice(int error)
{
    switch (-error) {
    case ENOSPC:
    case EDQUOT:
        return "free space on its file system and restart this node";
    case EBADMSG:
        return "replace this node: see README, Reseed a node";
    case ENOTSUP:
        return "run the version of Holdfast that wrote it, or a newer one";
    case EBUSY:
        return "stop the other process or use another data directory";
    case EACCES:
    case EPERM:
    case EROFS:
        return "check its owner, its mode and how it is mounted, and restart this node";
    default:
        return "check the disk and restart this node; if it fails again, replace the node: see "
               "README, Reseed a node";
    }
}

static const char *error_text(int error, char *buffer, size_t size)
{
    if (error == -EBADMSG)
        return "damaged";
    return strerror_r(-error, buffer, size);
}

char *sentence_of(int error, const char *path, const char *what)
{
    char text[128];
    return xasprintf("%s: %s: %s; %s", path, what, error_text(error, text, sizeof text),
                     advice(error));
}

int fail_with(int error, const char *path, const char *what, char **ret_sentence)
{
    *ret_sentence = sentence_of(error, path, what);
    return error;
}

int fail_damaged(char **ret_sentence, const char *path, const char *format, ...)
{
    struct buf b = BUF_INIT;
    va_list args;
    va_start(args, format);
    buf_vprintf(&b, format, args);
    va_end(args);
    buf_add(&b, "", 1);
    *ret_sentence = xasprintf("%s: damaged: %s; %s", path, (char *)b.data, advice(-EBADMSG));
    buf_deinit(&b);
    return -EBADMSG;
}

/* SQLite's result as a negative errno, never 0. */
static int sql_errno(sqlite3 *db, int rc)
{
    int system = db != NULL ? sqlite3_system_errno(db) : 0;
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return -ENOSPC;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
    case SQLITE_ERROR: /* Our statements are right: the schema they meet is not. */
    case SQLITE_MISMATCH:
        return -EBADMSG;
    case SQLITE_NOMEM:
        return -ENOMEM;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return -EBUSY;
    case SQLITE_READONLY:
        return -EROFS;
    case SQLITE_IOERR:
        if (rc == SQLITE_IOERR_SHORT_READ)
            return -EBADMSG;
        return system > 0 ? -system : -EIO;
    default:
        return system > 0 ? -system : -EIO;
    }
}

int sql_fail(sqlite3 *db, int rc, const char *path, const char *what, char **ret_sentence)
{
    int error = sql_errno(db, rc);
    const char *detail = db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(rc);
    char text[128];
    *ret_sentence = xasprintf("%s: %s: %s (%s); %s", path, what,
                              error_text(error, text, sizeof text), detail, advice(error));
    return error;
}

static void configure_once(void)
{
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); /* Refused once SQLite is in use: harmless. */
    (void)sqlite3_initialize();
}

void sql_configure(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, configure_once);
}

int sql_open(const char *path, int flags, sqlite3 **ret_db, char **ret_sentence)
{
    sql_configure();
    SQL_DB *db = NULL;
    int rc = sqlite3_open_v2(path, &db, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK)
        return sql_fail(db, rc, path, "can't be opened", ret_sentence);
    (void)sqlite3_extended_result_codes(db, 1);
    *ret_db = db;
    db = NULL;
    return 0;
}

int sql_open_immutable(const char *path, sqlite3 **ret_db, char **ret_sentence)
{
    struct buf uri = BUF_INIT;
    buf_printf(&uri, "file:");
    for (const unsigned char *p = (const unsigned char *)path; *p != '\0'; p++)
        buf_printf(&uri, strchr("?#%", *p) != NULL ? "%%%02x" : "%c", *p);
    buf_add(&uri, "?immutable=1", sizeof "?immutable=1");
    int error = sql_open((const char *)uri.data, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, ret_db,
                         ret_sentence);
    buf_deinit(&uri);
    return error;
}

int sql_exec(sqlite3 *db, const char *path, const char *sql, char **ret_sentence)
{
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : sql_fail(db, rc, path, "can't be used", ret_sentence);
}

int sql_prepare(
    sqlite3 *db, const char *path, const char *sql, sqlite3_stmt **ret_stmt, char **ret_sentence)
{
    int rc = sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, ret_stmt, NULL);
    return rc == SQLITE_OK ? 0 : sql_fail(db, rc, path, "can't be used", ret_sentence);
}

int sql_run(sqlite3_stmt *stmt, const char *path, const char *what, char **ret_sentence)
{
    int rc;
    do
        rc = sqlite3_step(stmt);
    while (rc == SQLITE_ROW);
    int error = 0;
    if (rc != SQLITE_DONE)
        error = sql_fail(sqlite3_db_handle(stmt), rc, path, what, ret_sentence);
    (void)sqlite3_reset(stmt); /* Repeats the error of the step. */
    return error;
}

int sql_query_int(
    sqlite3 *db, const char *path, const char *sql, int64_t *ret_value, char **ret_sentence)
{
    SQL_STMT *stmt = NULL;
    int error = sql_prepare(db, path, sql, &stmt, ret_sentence);
    if (error != 0)
        return error;
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_DONE)
        return fail_damaged(ret_sentence, path, "a row is missing");
    if (rc != SQLITE_ROW)
        return sql_fail(db, rc, path, "can't be read", ret_sentence);
    *ret_value = sqlite3_column_int64(stmt, 0);
    return 0;
}
