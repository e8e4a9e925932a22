/* The numbers in the messages, for those who speak the protocol and don't see the lock table.
 *
 * They are those of raftstore/lock/lock.h, where each is explained, and never change (a unit test
 * compares the two; wire and lock include nothing of each other). */
#ifndef HOLDFAST_WIRE_CODES_H
#define HOLDFAST_WIRE_CODES_H

#include <stdint.h>

/* Command.op: enum lock_op. */
enum wire_op {
    WIRE_OP_SESSION_OPEN = 1,
    WIRE_OP_SESSION_KEEPALIVE = 2,
    WIRE_OP_SESSION_CLOSE = 3,
    WIRE_OP_ACQUIRE = 4,
    WIRE_OP_CANCEL = 5,
    WIRE_OP_RENEW = 6,
    WIRE_OP_RELEASE = 7,
    WIRE_OP_CONVERT = 8,
    WIRE_OP_NOTE = 9,
    WIRE_OP_BREAK = 10,
    WIRE_OP_MKDIR = 11,
    WIRE_OP_RMDIR = 12,
    WIRE_OP_SETATTR = 13,
    WIRE_OP_LINK = 14,
    WIRE_OP_RENAME = 15,
    WIRE_OP_TICK = 16,
    WIRE_OP_TERM_START = 17,
    WIRE_OP_NODE_INFO = 18,
    WIRE_OP_EPOCH = 19,
};

/* Command.mode, Hold.mode, ...: enum lock_mode. */
enum wire_mode { WIRE_MODE_SHARED = 1, WIRE_MODE_EXCLUSIVE = 2 };

/* Command.kind, Hold.kind, ...: enum lock_kind. */
enum wire_kind {
    WIRE_KIND_API = 0,
    WIRE_KIND_EXCL = 1,
    WIRE_KIND_MKDIR = 2,
    WIRE_KIND_SYMLINK = 3,
    WIRE_KIND_FLOCK = 4,
    WIRE_KIND_POSIX = 5,
    WIRE_KIND_OFD = 6,
};

/* Result.code, Event.code, QueryReply.code: enum lock_code. */
enum wire_code {
    WIRE_CODE_OK = 0,
    WIRE_CODE_QUEUED = 1,
    WIRE_CODE_CONFLICT = 2,
    WIRE_CODE_TIMEOUT = 3,
    WIRE_CODE_CANCELED = 4,
    WIRE_CODE_DEADLOCK = 5,
    WIRE_CODE_NO_SESSION = 6,
    WIRE_CODE_NOT_HELD = 7,
    WIRE_CODE_NOT_OWNER = 8,
    WIRE_CODE_LIMIT = 9,
    WIRE_CODE_INVALID = 10,
    WIRE_CODE_EXISTS = 11,
    WIRE_CODE_NOT_FOUND = 12,
    WIRE_CODE_NOT_DIR = 13,
    WIRE_CODE_IS_DIR = 14,
    WIRE_CODE_NOT_EMPTY = 15,
    WIRE_CODE_NO_PARENT = 16,
    WIRE_CODE_DELAYED = 17,
    WIRE_CODE_STALE_SEQ = 18,
    WIRE_CODE_SESSION_ENDED = 19,
    WIRE_CODE_BROKEN = 20,
    WIRE_CODE_EXPIRED = 21,
    WIRE_CODE_RELEASED = 22,
};

/* Event.type: enum lock_effect_type. */
enum wire_effect {
    WIRE_EFFECT_GRANTED = 1,
    WIRE_EFFECT_QUEUED = 2,
    WIRE_EFFECT_REFUSED = 3,
    WIRE_EFFECT_RENEWED = 4,
    WIRE_EFFECT_CONVERTED = 5,
    WIRE_EFFECT_ENDED = 6,
    WIRE_EFFECT_NOTED = 7,
    WIRE_EFFECT_RENAMED = 8,
    WIRE_EFFECT_WANTED = 9,
    WIRE_EFFECT_MKDIR = 10,
    WIRE_EFFECT_RMDIR = 11,
    WIRE_EFFECT_SETATTR = 12,
    WIRE_EFFECT_SESSION_LAPSED = 13,
    WIRE_EFFECT_SESSION_ENDED = 14,
    WIRE_EFFECT_SESSION_RESUMED = 15,
    WIRE_EFFECT_DELAY_OVER = 16,
};

/* Node.type: enum lock_node_type. */
enum wire_node_type { WIRE_NODE_NONE = 0, WIRE_NODE_LOCK = 1, WIRE_NODE_DIRECTORY = 2 };

#define WIRE_F_PARENTS       UINT32_C(1)  /* Command.flags: LOCK_F_PARENTS. */
#define WIRE_F_ANYWHERE      UINT32_C(2)  /* LOCK_F_ANYWHERE. */
#define WIRE_F_UNTOUCHED     UINT32_C(4)  /* LOCK_F_UNTOUCHED. */
#define WIRE_F_OWNER         UINT32_C(8)  /* LOCK_F_OWNER. */
#define WIRE_F_NO_LESS       UINT32_C(16) /* LOCK_F_NO_LESS. */
#define WIRE_LINKS_MAX       8u           /* LOCK_LINKS_MAX. */
#define WIRE_WAIT_FOREVER    UINT64_MAX   /* Command.wait_ms: LOCK_WAIT_FOREVER. */
#define WIRE_TTL_MS_MIN      UINT64_C(10)
#define WIRE_TTL_MS_MAX      UINT64_C(2592000000)
#define WIRE_SEMAPHORE_MAX   65535u /* Command.limit: LOCK_SEMAPHORE_MAX. */
#define WIRE_PATHS_MAX       16u    /* Paths of one command: LOCK_PATHS_MAX. */
#define WIRE_PATH_BYTES_MAX  1023u  /* LOCK_PATH_BYTES_MAX. */
#define WIRE_OWNER_BYTES_MAX 128u   /* LOCK_OWNER_BYTES_MAX. */
#define WIRE_NOTE_BYTES_MAX  256u   /* LOCK_NOTE_BYTES_MAX. */
#define WIRE_HOST_BYTES_MAX  64u    /* LOCK_HOST_BYTES_MAX. */

/* "acquire", "session-open", ...: for logs and people; "?" for an unknown one. */
const char *wire_op_name(uint32_t op);

/* The code's name in lower case ("conflict"), for logs and people; "?" for an unknown one. */
const char *wire_code_name(uint32_t code);

/* Likewise "shared"/"exclusive", and the kind ("api", "excl", "mkdir", ...). */
const char *wire_mode_name(uint32_t mode);
/* The mode of a hold or a waiter with this limit: "semaphore" if it has one. */
const char *wire_hold_mode_name(uint32_t mode, uint32_t limit);
const char *wire_kind_name(uint32_t kind);

#endif
