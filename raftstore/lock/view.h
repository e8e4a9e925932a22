/* Reads of the lock table: what a status query, `ls`, `stat` and the notifications need.
 *
 * Nothing here changes the table.  Every view borrows from it and lives until its next step;
 * but a path that a visitor is given lives during the visit, and that of lock_find_token() until
 * the next call of it. */
#ifndef HOLDFAST_LOCK_VIEW_H
#define HOLDFAST_LOCK_VIEW_H

#include "raftstore/lock/lock.h"

/* A grant. */
struct lock_hold_view {
    uint64_t token;
    uint64_t session_id;  /* Session that it hangs on; for a lease the one that asked for it. */
    uint64_t deadline_ns; /* Lease: its own; session hold: its session's. */
    uint64_t ttl_ms;      /* Lease: its own; 0 = session hold. */
    uint64_t since_ns;    /* Cluster time of the grant. */
    uint64_t renewed_ns;  /* Cluster time of the last renewal (the grant counts). */
    uint64_t start;
    uint64_t end;
    uint64_t lock_delay_ms;
    enum lock_mode mode;
    enum lock_kind kind;
    uint64_t mtime_ns;   /* As lock_command.mtime_ns; 0 = renewed_ns. */
    uint64_t file_token; /* Names its file: by LINK several holds have one in common, which each
                            keeps when the others end; else its own token. */
    unsigned n_links;    /* Holds that have that file, itself included. */
    bool lapsed;         /* Its session ran out; it stays until somebody wants it. */
    uint32_t limit;      /* Semaphore: holders that it allows; 0 = none. */
    uint32_t pid;
    uint32_t uid;
    uint32_t gid;
    uint32_t perm;
    struct bytes owner;
    struct bytes note;
    struct bytes host; /* Of the session that asked ("" when that has ended). */
};

/* A queued request. */
struct lock_waiter_view {
    uint64_t session_id;
    uint64_t seq;
    uint64_t since_ns;    /* Cluster time at which it began to wait. */
    uint64_t deadline_ns; /* End of its wait limit; LOCK_DEADLINE_NEVER = no limit. */
    uint64_t ttl_ms;
    uint64_t start;
    uint64_t end;
    enum lock_mode mode;
    enum lock_kind kind;
    uint32_t limit;
    uint32_t pid;
    uint32_t uid;
    struct bytes owner;
    struct bytes host;
};

enum lock_node_type { LOCK_NODE_NONE = 0, LOCK_NODE_LOCK = 1, LOCK_NODE_DIRECTORY = 2 };

/* What stands at a path. */
struct lock_node_view {
    enum lock_node_type type; /* NONE: nothing (delay_until_ns may still be set). */
    struct bytes path;        /* Whole path. */
    struct bytes name;        /* Last component. */
    uint64_t directory_id;    /* DIRECTORY: stable, never reused; the root has 1. */
    bool implicit;            /* DIRECTORY: made by LOCK_F_PARENTS, goes with its last child. */
    uint32_t uid, gid, perm;  /* DIRECTORY. */
    uint64_t changed_ns; /* DIRECTORY: cluster time of its last change of entries or attributes. */
    size_t n_children;   /* DIRECTORY. */
    size_t n_holds;      /* LOCK. */
    size_t n_waiters;    /* LOCK. */
    uint64_t delay_until_ns; /* End of a lock-delay, or 0. */
    const void *opaque;      /* For lock_node_hold() and lock_node_waiter(). */
};

/* Look a path up; the empty path is the root directory.  An invalid path is NONE. */
struct lock_node_view lock_lookup(const struct lock_table *t, struct bytes path);

/* The i-th hold or waiter of a lock node, in grant or queue order.
 * Return: false when there is none of that number. Walking them all in order is O(n) in total for
 * the usual few; use the callbacks below for long lists. */
bool lock_node_hold(const struct lock_node_view *node,
                    size_t index,
                    struct lock_hold_view *ret_hold);
void lock_node_holds(const struct lock_table *t,
                     const struct lock_node_view *node,
                     bool (*visit)(void *arg, const struct lock_hold_view *h), /* false: stop. */
                     void *arg);
void lock_node_waiters(const struct lock_table *t,
                       const struct lock_node_view *node,
                       bool (*visit)(void *arg,
                                     const struct lock_waiter_view *w), /* false: stop. */
                       void *arg);

/* The hold with this token; O(log n).
 * Return: false when no hold has it. @ret_path: its path. */
bool lock_find_token(const struct lock_table *t,
                     uint64_t token,
                     struct lock_hold_view *ret_hold,
                     struct bytes *ret_path);

/* Visit the entries of a directory by name, in byte order.
 *
 * @after: start behind this name ("" = from the first).
 * Return: LOCK_OK; LOCK_NOT_FOUND or LOCK_NOT_DIR when it is no directory. */
enum lock_code lock_list(const struct lock_table *t,
                         struct bytes directory,
                         struct bytes after,
                         bool (*visit)(void *arg, const struct lock_node_view *node),
                         void *arg);

/* Visit all locks and explicit directories whose path begins with `prefix`, in tree order (byte
 * order of the components), starting behind the path `after` ("" = from the first).
 *
 * @visit: false: stop.
 * @enter: asked before what is below a directory is visited (explicit or not, but for those that
 * the prefix names whole); false: it is left out.  NULL: none is. */
void lock_list_prefix(const struct lock_table *t,
                      struct bytes prefix,
                      struct bytes after,
                      bool (*visit)(void *arg, const struct lock_node_view *node),
                      bool (*enter)(void *arg, struct bytes path),
                      void *arg);

struct lock_session_view {
    uint64_t session_id;
    uint64_t deadline_ns;
    uint64_t ttl_ms;
    uint64_t opened_ns;
    bool lapsed;
    size_t n_holds; /* Session holds. */
    size_t n_waiters;
    size_t n_results; /* Kept results. */
    struct bytes host;
};

/* Return: false when there is no such session. */
bool lock_find_session(const struct lock_table *t,
                       uint64_t session_id,
                       struct lock_session_view *ret);

/* Visit sessions by id, starting behind `after` (0 = from the first). */
void lock_sessions(const struct lock_table *t,
                   uint64_t after,
                   bool (*visit)(void *arg, const struct lock_session_view *s),
                   void *arg);

/* Visit the session holds of one session (not its leases), in grant order. */
void lock_session_holds(const struct lock_table *t,
                        uint64_t session_id,
                        bool (*visit)(void *arg, struct bytes path, const struct lock_hold_view *h),
                        void *arg);

/* Totals. */
struct lock_counts {
    uint64_t locks; /* Paths with a hold or a waiter. */
    uint64_t holds;
    uint64_t waiters;
    uint64_t sessions;    /* Lapsed ones included. */
    uint64_t lapsed;      /* Sessions that ran out and are resumable. */
    uint64_t directories; /* Without the root. */
    uint64_t delays;      /* Running lock-delays. */
    uint64_t last_token;
    uint64_t stamp_ns; /* Cluster time of the last step. */
    uint64_t index;    /* Log index of the last step. */
    uint64_t term;     /* Of the last TERM_START. */
    struct lock_limits limits;
};
struct lock_counts lock_counts(const struct lock_table *t);

#endif
