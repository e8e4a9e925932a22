/* The lock state machine: the table of locks, sessions, waiters and directories.
 *
 * Pure: no I/O, no clock, no threads, no randomness, no globals.  The same commands in the same
 * order give the same state, results and effects on every node and every build, and after a
 * snapshot and restore too.
 *
 * Calling order: lock_table_new(), then either commands from the first log entry on, or
 * lock_restore_*() (restore.h) and the commands after the snapshot.  lock_step() applies one
 * command: it first expires every deadline up to the command's stamp, then changes the table,
 * and returns the result and the effects.  It performs nothing: the node that holds the client's
 * connection delivers them.  Reads are in view.h; they change nothing.
 *
 * Time: `stamp_ns` is cluster time (the leader's stamp on the command).  It never runs back: a
 * stamp below the last one counts as the last one.  Deadlines are cluster time as well; a
 * deadline d is over at every stamp >= d.
 *
 * Semaphores: an exclusive ACQUIRE with a limit K > 0 shares its path with others that have one, as
 * long as fewer hold it than the smallest K of them all, its own included: so no holder ever has
 * more beside it than it allowed.  It covers the whole range, excludes every hold without a limit,
 * and waits its turn like any other: nobody who comes later gets a slot before it.  It is released
 * whole and can't be converted; its owner changes K, or makes it plain, by acquiring again, which
 * waits and then replaces it (two holders who wait for that at a time are a deadlock to the table,
 * as two who raise a shared hold are: the second is refused).
 *
 * Memory: out of memory ends the process (an out-of-memory answer from one replica would be a
 * divergence).  Every bound below answers LOCK_LIMIT before that. */
#ifndef HOLDFAST_LOCK_LOCK_H
#define HOLDFAST_LOCK_LOCK_H

#include "raftstore/base/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOCK_COMPONENTS_MAX    16                   /* Components of a path. */
#define LOCK_NAME_BYTES_MAX    255                  /* Bytes of one component. */
#define LOCK_PATH_BYTES_MAX    1023                 /* Bytes of a path, slashes included. */
#define LOCK_PATHS_MAX         16                   /* Paths of one acquire. */
#define LOCK_OWNER_BYTES_MAX   128                  /* Bytes of an owner. */
#define LOCK_NOTE_BYTES_MAX    256                  /* Bytes of a note. */
#define LOCK_HOST_BYTES_MAX    64                   /* Bytes of a session's host name. */
#define LOCK_SEMAPHORE_MAX     65535                /* Largest limit of a semaphore. */
#define LOCK_LINKS_MAX         8                    /* Names of one hold's file. */
#define LOCK_RESULTS_MAX       4096                 /* Unacknowledged results a session may have. */
#define LOCK_TTL_MS_MIN        UINT64_C(10)         /* Shortest lease or session. */
#define LOCK_TTL_MS_MAX        UINT64_C(2592000000) /* Longest lease or session: 30 days. */
#define LOCK_WAIT_FOREVER      UINT64_MAX           /* wait_ms: no limit. */
#define LOCK_RANGE_END         UINT64_MAX           /* end: to the end of the range. */
#define LOCK_DEADLINE_NEVER    UINT64_MAX           /* No deadline is pending. */
#define LOCK_STAMP_MAX         (UINT64_C(1) << 62)  /* Cluster time ends there: after 146 years. */
#define LOCK_TOKEN_EPOCH_SHIFT 48                   /* The epoch is a token's top 16 bits. */

/* What a command asks for.  The numbers are those of the wire's Op, and never change. */
enum lock_op {
    LOCK_OP_SESSION_OPEN = 1,
    LOCK_OP_SESSION_KEEPALIVE = 2,
    LOCK_OP_SESSION_CLOSE = 3,
    LOCK_OP_ACQUIRE = 4,
    LOCK_OP_CANCEL = 5,
    LOCK_OP_RENEW = 6,
    LOCK_OP_RELEASE = 7,
    LOCK_OP_CONVERT = 8,
    LOCK_OP_NOTE = 9,
    LOCK_OP_BREAK = 10,
    LOCK_OP_MKDIR = 11,
    LOCK_OP_RMDIR = 12,
    LOCK_OP_SETATTR = 13, /* chmod and chown of a directory. */
    LOCK_OP_LINK = 14,
    LOCK_OP_RENAME = 15,
    LOCK_OP_TICK = 16,
    LOCK_OP_TERM_START = 17,
    LOCK_OP_NODE_INFO = 18,
    LOCK_OP_EPOCH = 19, /* Raise the token epoch (restore from a backup, forced recovery). */
};

enum lock_mode { LOCK_SHARED = 1, LOCK_EXCLUSIVE = 2 };

/* By what habit a hold was made; the file system shows it accordingly.  It has no part in
 * deciding who gets a lock. */
enum lock_kind {
    LOCK_KIND_API = 0,     /* Native protocol, HTTP, CLI. */
    LOCK_KIND_EXCL = 1,    /* open(O_CREAT|O_EXCL). */
    LOCK_KIND_MKDIR = 2,   /* mkdir NAME.lock. */
    LOCK_KIND_SYMLINK = 3, /* symlink(text, lock); the text is the note. */
    LOCK_KIND_FLOCK = 4,
    LOCK_KIND_POSIX = 5, /* fcntl, owned by the process. */
    LOCK_KIND_OFD = 6,   /* fcntl, owned by the open file description. */
};

/* The answers of the state machine: results of lock_step(), never errors of it. */
enum lock_code {
    LOCK_OK = 0,
    LOCK_QUEUED = 1,         /* Acquire or convert: waits in line; an effect tells the outcome. */
    LOCK_CONFLICT = 2,       /* Held (or waited for earlier) by others, and wait_ms is 0. */
    LOCK_TIMEOUT = 3,        /* The wait limit ran out (final result of a queued request). */
    LOCK_CANCELED = 4,       /* Canceled by LOCK_OP_CANCEL (final result of a queued request). */
    LOCK_DEADLOCK = 5,       /* Waiting would close a cycle of waits. */
    LOCK_NO_SESSION = 6,     /* The session does not exist or has ended. */
    LOCK_NOT_HELD = 7,       /* Renew, release, convert, note, break, ...: no such hold. */
    LOCK_NOT_OWNER = 8,      /* There is a hold, but not of this owner or token. */
    LOCK_LIMIT = 9,          /* A bound is reached; nothing was changed. */
    LOCK_INVALID = 10,       /* The command is malformed (bad path, range, ttl, mode, ...). */
    LOCK_EXISTS = 11,        /* Mkdir, link, rename: the target exists or is held; NO_LESS. */
    LOCK_NOT_FOUND = 12,     /* Rmdir, setattr, cancel: nothing there. */
    LOCK_NOT_DIR = 13,       /* A component of the path is a lock. */
    LOCK_IS_DIR = 14,        /* The path is a directory. */
    LOCK_NOT_EMPTY = 15,     /* Rmdir of a directory with locks or directories in it. */
    LOCK_NO_PARENT = 16,     /* The parent directory does not exist (and LOCK_F_PARENTS unset). */
    LOCK_DELAYED = 17,       /* Free, but inside the lock-delay of a hold that expired. */
    LOCK_STALE_SEQ = 18,     /* The sequence number was acknowledged before: a client's mistake. */
    LOCK_SESSION_ENDED = 19, /* Final result of a request queued by a session that ended. */
    LOCK_BROKEN = 20,        /* (Reason of an ended hold:) removed by an operator's break. */
    LOCK_EXPIRED = 21,       /* (Reason of an ended hold:) its deadline passed. */
    LOCK_RELEASED = 22,      /* (Reason of an ended hold:) released by its owner. */
};

/* lock_command.flags */
#define LOCK_F_PARENTS UINT32_C(1) /* Make missing parents as implicit directories. */
/* RENEW, RELEASE, CONVERT, NOTE, BREAK, LINK, RENAME with a token: of that hold, wherever it stands
 * now; the path is where it was last seen.  (An access rule must look at where it stands.) */
#define LOCK_F_ANYWHERE UINT32_C(2)
/* Where a hold is named by its token, conditions on it (LOCK_NOT_OWNER if they are not met).
 * UNTOUCHED, of leases: not acquired again, converted or renewed since it was granted (undoes a
 * grant of which nobody was told).  OWNER: it is of `owner`, too. */
#define LOCK_F_UNTOUCHED UINT32_C(4)
#define LOCK_F_OWNER     UINT32_C(8)
/* RENEW, ACQUIRE of a lease that the owner has: takes nothing away that it was promised before. The
 * lease ends no earlier than it would have; an exclusive one stays exclusive though a shared one
 * was asked for; where the limit would change, LOCK_EXISTS.  For owners that ask over several
 * connections, on which a request may be late.  (Leases granted from the queue are so in any case.)
 */
#define LOCK_F_NO_LESS UINT32_C(16)

/* Bounds of a table.  Replicated: they come with LOCK_OP_TERM_START and are in the snapshot. */
struct lock_limits {
    uint64_t holds_max;             /* Holds of the cluster. */
    uint64_t holds_per_session_max; /* Holds on a session and waiters by it. */
    uint64_t waiters_max;           /* Waiters of the cluster. */
    uint64_t sessions_max;          /* Sessions, lapsed ones included. */
    uint64_t directories_max;       /* Directories, implicit ones included. */
};

/* 4 194 304 holds, 131 072 a session, 1 048 576 waiters, 65 536 sessions, 65 536 directories.
 *
 * A session ends in one step with all that hangs on it, at 0.8 us a hold (2 us an expired lease):
 * the bound keeps that step near 100 ms, less than an election time-out. */
struct lock_limits lock_limits_default(void);

/* One command.  A field that an op does not use is ignored.  All bytes are borrowed for the call.
 *
 * Every op but SESSION_OPEN, TICK, TERM_START, NODE_INFO and EPOCH carries a session and a sequence
 * number: the session keeps the result until a later command acknowledges it (ack_seq), and a
 * repetition of (session, seq) returns the kept result and changes nothing.  For a queued acquire
 * the kept result follows the outcome: a repetition after the grant returns the grant, so repeating
 * a request is also the way to resume waiting after a reconnect. */
struct lock_command {
    enum lock_op op;
    uint32_t flags;    /* LOCK_F_... */
    uint64_t stamp_ns; /* Cluster time of the command; above LOCK_STAMP_MAX: that. */

    uint64_t session_id; /* From SESSION_OPEN's result; 0 only where none is needed. */
    uint64_t seq;        /* > 0; unique within the session. */
    uint64_t ack_seq;    /* Results up to this one are no longer needed. */

    struct bytes
        paths[LOCK_PATHS_MAX]; /* ACQUIRE: 1..16, distinct; LINK, RENAME: from and to; else 1. */
    unsigned n_paths;
    struct bytes owner;  /* Whose hold: cluster-wide name space, so it must be made unique by its
                            maker (the mount puts its session in). Empty where token != 0. */
    uint64_t token;      /* RENEW, RELEASE, CONVERT, NOTE, LINK, RENAME: act on exactly this hold,
                            whoever asks (0: on the owner's); BREAK: required.  SETATTR: id of
                            the directory (0: whichever stands there). */
    enum lock_mode mode; /* ACQUIRE, CONVERT. */
    uint32_t limit; /* ACQUIRE: 0, or a semaphore's: at most so many hold each path. Then mode is
                       exclusive, the range whole, and kind neither POSIX nor OFD. */
    enum lock_kind kind; /* ACQUIRE, LINK; RELEASE: POSIX and OFD unlock what their like locked. */
    uint64_t start;      /* First byte of the range; whole: 0. */
    uint64_t end;        /* Last byte of the range, inclusive; whole: LOCK_RANGE_END. */
    uint64_t ttl_ms;     /* ACQUIRE: 0 = a session hold, else a lease; SESSION_OPEN: the session's;
                            RENEW: the new ttl, 0 = as before (may be used on leases only). */
    uint64_t wait_ms;    /* ACQUIRE, CONVERT: 0 = answer at once; LOCK_WAIT_FOREVER = no limit. */
    uint64_t lock_delay_ms; /* ACQUIRE of a lease: ungrantable for so long if it ends by expiry. */
    uint64_t agent; /* Deadlock detection: who would sit waiting (within the session); 0 = takes no
                       part. SESSION_OPEN: a random number, 23 bits of which go into the session's
                       id, so that it is not taken for one of a cluster that was made anew. */
    uint64_t cancel_seq; /* CANCEL: the seq of the queued request of the same session. */
    struct bytes note;   /* NOTE, ACQUIRE, LINK: up to LOCK_NOTE_BYTES_MAX (LINK: empty = that of
                            the hold that is linked from). */
    uint64_t mtime_ns;   /* RENEW, ACQUIRE of a lease that need not wait: what stat(2) is to show as
                            the time of the last change, by the caller's wall clock; 0 = the instant
                            of the grant or the last renewal. */
    struct bytes host;   /* SESSION_OPEN, NODE_INFO: for people. */

    uint32_t pid; /* ACQUIRE: for people (0 = unknown). */
    uint32_t uid; /* ACQUIRE, MKDIR: shown as the file's owner; SETATTR: new (UINT32_MAX = keep). */
    uint32_t gid; /* Likewise. */
    uint32_t perm; /* ACQUIRE, MKDIR: permission bits (07777); SETATTR: new (UINT32_MAX = keep). */

    uint64_t term;             /* TERM_START: the leader's term. */
    uint64_t node_id;          /* TERM_START, NODE_INFO: which node speaks. */
    struct lock_limits limits; /* TERM_START: the bounds from now on (all zero = keep). */
    uint64_t epoch;            /* EPOCH: the new one; must be above the present one. */
};

/* The result of one command, to be sent to the client and kept for repetition. */
struct lock_result {
    enum lock_code code;
    uint64_t stamp_ns;   /* Cluster time at which the command took effect first. */
    uint64_t session_id; /* SESSION_OPEN: the new session. */
    uint64_t token;      /* Grants, renew, note: the (first) hold's token; an acquire of n paths has
                            token .. token + n - 1 in the order given. */
    uint64_t
        deadline_ns; /* Cluster time at which lease or session ends; 0 = hangs on the session. */
    uint64_t ttl_ms; /* Its length. */
    struct bytes holder; /* LOCK_CONFLICT: owner of one conflicting hold ("" when only waiters or a
                            delay are in the way); until the next step. Not kept: a repetition shows
                            the present one. */
    uint64_t holder_deadline_ns; /* LOCK_CONFLICT: when it ends by itself; 0 = unknown. */
    bool repeated;               /* This is a kept result; the command changed nothing now. */
};

enum lock_effect_type {
    LOCK_EFFECT_GRANTED =
        1, /* A hold was made: at once, or for a waiter (seq tells which request). */
    LOCK_EFFECT_QUEUED = 2,  /* A request began to wait. */
    LOCK_EFFECT_REFUSED = 3, /* A waiter gave up: code says why (TIMEOUT, CANCELED, ...). */
    LOCK_EFFECT_RENEWED = 4,
    LOCK_EFFECT_CONVERTED = 5, /* Mode (and perhaps token) of a hold changed. */
    LOCK_EFFECT_ENDED =
        6, /* A hold ended: code says why (RELEASED, EXPIRED, BROKEN, SESSION_ENDED). */
    LOCK_EFFECT_NOTED = 7,
    LOCK_EFFECT_RENAMED = 8, /* path is the old name, path2 the new one. */
    LOCK_EFFECT_WANTED = 9,  /* Somebody waits now for this hold (to its holder's session). */
    LOCK_EFFECT_MKDIR = 10,
    LOCK_EFFECT_RMDIR = 11,
    LOCK_EFFECT_SETATTR = 12,
    LOCK_EFFECT_SESSION_LAPSED = 13, /* Ran out, but resumable: has holds that nobody wants. */
    LOCK_EFFECT_SESSION_ENDED = 14,
    LOCK_EFFECT_SESSION_RESUMED = 15,
    LOCK_EFFECT_DELAY_OVER = 16, /* A lock-delay ended: the path is grantable again. */
};

/* One thing that happened.  Borrowed bytes live until the next lock_step() on the table. */
struct lock_effect {
    enum lock_effect_type type;
    enum lock_code code; /* ENDED, REFUSED: the reason. GRANTED to a waiter: LOCK_OK. */
    bool waited;         /* GRANTED, REFUSED: the outcome of a request that was queued before. */
    enum lock_mode mode;
    uint32_t limit; /* Of a semaphore; 0 = none. */
    enum lock_kind kind;
    uint64_t session_id; /* Session of the request or the hold (leases: the one that asked). */
    uint64_t seq;        /* GRANTED, REFUSED, QUEUED: of the request. Else 0. */
    uint64_t token;
    uint64_t deadline_ns; /* 0 = hangs on the session. */
    uint64_t ttl_ms;
    uint64_t start;
    uint64_t end;
    struct bytes path;
    struct bytes path2;
    struct bytes owner;
    uint32_t pid;
    uint32_t uid;
};

/* What a step did.  The array is owned by the table and lives until its next step. */
struct lock_effects {
    struct lock_result result;
    const struct lock_effect *list;
    size_t n;
};

struct lock_table;

/* An empty table: no locks, the root directory (uid 0, gid 0, 01777), default limits, epoch 0. */
struct lock_table *lock_table_new(void);

/* Free it; NULL is accepted. */
void lock_table_free(struct lock_table *t);

/* Apply one command.
 *
 * @index: log index of the command's entry; never below the last one given.
 * @ret_effects: always filled; result.code is the answer (a malformed command is LOCK_INVALID).
 *
 * Cost: O(log n) plus the size of what is returned.  Never blocks, never fails. */
void lock_step(struct lock_table *t,
               uint64_t index,
               const struct lock_command *command,
               struct lock_effects *ret_effects);

/* The earliest pending deadline (lease, session, wait limit, lock-delay) in cluster time, or
 * LOCK_DEADLINE_NEVER: the leader proposes a tick when it has passed. O(1). */
uint64_t lock_next_deadline_ns(const struct lock_table *t);

/* 128 bits over the whole replicated state, kept up to date with every change: equal on all
 * nodes that applied the same index. O(1). */
struct lock_digest {
    uint64_t lo;
    uint64_t hi;
};
struct lock_digest lock_digest(const struct lock_table *t);

/* Verify every invariant of the table, and the digest against a full recomputation.
 * For tests and the simulator: O(n).
 *
 * Return: NULL if all hold, else a sentence naming the broken one (static storage). */
const char *lock_check(const struct lock_table *t);

/* Is this a path that the table accepts: 1..16 components of 1..255 bytes, at most 1023 bytes in
 * all, no leading, trailing or double slash, no NUL, and none of ".", "..", ".holdfast"? */
bool lock_path_valid(struct bytes path);

/* The code's name in lower case ("conflict"), for logs and the CLI; "?" for an unknown one. */
const char *lock_code_name(enum lock_code code);

#endif
