/* Export and import of the whole table, row by row: what a snapshot is made of.
 *
 * The table neither knows nor cares how rows are stored (the node writes them to SQLite).  Export
 * followed by import gives a table with the same digest, the same answers and the same effects
 * from then on.  Rows come, and must be given back, in this order: meta, directories (parents
 * first), sessions, results, locks' holds, waiters, delays, nodes. */
#ifndef HOLDFAST_LOCK_RESTORE_H
#define HOLDFAST_LOCK_RESTORE_H

#include "raftstore/lock/lock.h"

enum lock_row_type {
    LOCK_ROW_META = 1,
    LOCK_ROW_DIRECTORY = 2,
    LOCK_ROW_SESSION = 3,
    LOCK_ROW_RESULT = 4,
    LOCK_ROW_HOLD = 5,
    LOCK_ROW_WAITER = 6,
    LOCK_ROW_DELAY = 7,
    LOCK_ROW_NODE = 8,
};

/* One row.  Only the member named by `type` is valid.  Bytes are borrowed for the call. */
struct lock_row {
    enum lock_row_type type;
    union {
        struct {
            uint64_t index, term, stamp_ns;
            uint64_t next_token, next_session_id, next_directory_id, next_queue_number;
            struct lock_limits limits;
            struct lock_digest digest; /* Of the whole table: import verifies it at the end. */
        } meta;
        struct {
            struct bytes path; /* "" = the root. */
            uint64_t directory_id;
            bool implicit;
            uint32_t uid, gid, perm;
            uint64_t changed_ns;
        } directory;
        struct {
            uint64_t session_id, deadline_ns, ttl_ms, opened_ns, ack_seq;
            bool lapsed;
            struct bytes host;
        } session;
        struct {
            uint64_t session_id, seq;
            struct lock_result result; /* Without holder. */
        } result;
        struct {
            struct bytes path, owner, note;
            uint64_t token, session_id, deadline_ns, ttl_ms, since_ns, renewed_ns;
            uint64_t start, end, lock_delay_ms, agent;
            uint64_t mtime_ns, file_token, twin; /* 0 = by renewed_ns, by token, not linked. */
            enum lock_mode mode;
            enum lock_kind kind;
            bool session_bound;
            uint32_t pid, uid, gid, perm, limit;
        } hold;
        struct {
            struct bytes paths[LOCK_PATHS_MAX];
            unsigned n_paths;
            struct bytes owner, note;
            uint64_t session_id, seq, since_ns, deadline_ns, queue_number;
            uint64_t ttl_ms, start, end, lock_delay_ms, agent;
            uint64_t convert_token; /* Not 0: a queued CONVERT of that hold. */
            enum lock_mode mode;
            enum lock_kind kind;
            uint32_t flags, pid, uid, gid, perm, limit;
        } waiter;
        struct {
            struct bytes path;
            uint64_t until_ns;
        } delay;
        struct {
            uint64_t node_id;
            struct bytes host;
        } node;
    };
};

/* Visit every row of the table in import order.
 *
 * @visit: returns 0 to go on; anything else stops and is passed on.
 * Return: 0, or what the visitor returned. */
int lock_export(const struct lock_table *t,
                int (*visit)(void *arg, const struct lock_row *row),
                void *arg);

/* Add one row to a table fresh from lock_table_new().
 *
 * Return: 0; -EINVAL when the row contradicts itself or what came before (the table is then fit
 *         only for lock_table_free()). */
int lock_import_row(struct lock_table *t, const struct lock_row *row);

/* End the import: checks the digest and the invariants that a damaged image could break.
 *
 * Return: 0; -EINVAL when they do not hold (fit only for lock_table_free()). */
int lock_import_finish(struct lock_table *t);

#endif
