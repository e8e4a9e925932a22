/* Internal: what store and image share of SQLite, and how their errors become sentences.
 *
 * A function here that fails returns a negative errno and sets *ret_sentence (malloc()ed) to what
 * is wrong with which file and what to do.  One thread at a time per connection. */
#ifndef HOLDFAST_NODE_STORE_SQL_H
#define HOLDFAST_NODE_STORE_SQL_H

#include "raftstore/base/bytes.h"

#include <sqlite3.h>
#include <stdint.h>

/* "PATH: WHAT: text of error; advice for that error", malloc()ed. */
char *sentence_of(int error, const char *path, const char *what);

/* Set *ret_sentence and return `error` (negative errno). */
int fail_with(int error, const char *path, const char *what, char **ret_sentence);

/* A damaged file: -EBADMSG and a sentence that names it and what is wrong (a printf format). */
int fail_damaged(char **ret_sentence, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The outcome of an SQLite call that failed with `rc`. */
int sql_fail(sqlite3 *db, int rc, const char *path, const char *what, char **ret_sentence);

/* Turn off SQLite's global memory statistics (a mutex on every allocation); once, before any
 * connection is opened. */
void sql_configure(void);

/* Open with SQLITE_OPEN_... flags, without SQLite's own mutex: the caller sees to it that one
 * thread at a time uses the connection. */
int sql_open(const char *path, int flags, sqlite3 **ret_db, char **ret_sentence);

/* Open to read only a database that nobody changes: no locks, and no WAL is looked at. */
int sql_open_immutable(const char *path, sqlite3 **ret_db, char **ret_sentence);

int sql_exec(sqlite3 *db, const char *path, const char *sql, char **ret_sentence);
int sql_prepare(
    sqlite3 *db, const char *path, const char *sql, sqlite3_stmt **ret_stmt, char **ret_sentence);

/* Run a statement that returns no rows (rows are skipped), and reset it. */
int sql_run(sqlite3_stmt *stmt, const char *path, const char *what, char **ret_sentence);

/* The first column of the first row of a query, as a number. */
int sql_query_int(
    sqlite3 *db, const char *path, const char *sql, int64_t *ret_value, char **ret_sentence);

/* Bind and read unsigned 64-bit values (kept as signed, two's complement) and bytes. */
static inline int sql_bind_u64(sqlite3_stmt *stmt, int position, uint64_t value)
{
    return sqlite3_bind_int64(stmt, position, (sqlite3_int64)value);
}

static inline uint64_t sql_u64(sqlite3_stmt *stmt, int column)
{
    return (uint64_t)sqlite3_column_int64(stmt, column);
}

static inline struct bytes sql_bytes(sqlite3_stmt *stmt, int column)
{
    const void *data = sqlite3_column_blob(stmt, column);
    return bytes_of(data, (size_t)sqlite3_column_bytes(stmt, column));
}

/* Statements and connections that clean up after themselves. */
static inline void sql_finalize_p(sqlite3_stmt **stmt)
{
    (void)sqlite3_finalize(*stmt); /* Repeats the error of the last step, which was reported. */
}

static inline void sql_close_p(sqlite3 **db)
{
    (void)sqlite3_close(*db);
}

#define SQL_STMT __attribute__((cleanup(sql_finalize_p))) sqlite3_stmt
#define SQL_DB   __attribute__((cleanup(sql_close_p))) sqlite3

#endif
