#include "raftstore/wire/codes.h"

#include <stddef.h>

static const char *name_of(const char *const *names, size_t n, uint32_t number)
{
    return number < n && names[number] != NULL ? names[number] : "?";
}

const char *wire_op_name(uint32_t op)
{
    static const char *const names[] = {
        [WIRE_OP_SESSION_OPEN] = "session-open",
        [WIRE_OP_SESSION_KEEPALIVE] = "session-keepalive",
        [WIRE_OP_SESSION_CLOSE] = "session-close",
        [WIRE_OP_ACQUIRE] = "acquire",
        [WIRE_OP_CANCEL] = "cancel",
        [WIRE_OP_RENEW] = "renew",
        [WIRE_OP_RELEASE] = "release",
        [WIRE_OP_CONVERT] = "convert",
        [WIRE_OP_NOTE] = "note",
        [WIRE_OP_BREAK] = "break",
        [WIRE_OP_MKDIR] = "mkdir",
        [WIRE_OP_RMDIR] = "rmdir",
        [WIRE_OP_SETATTR] = "setattr",
        [WIRE_OP_LINK] = "link",
        [WIRE_OP_RENAME] = "rename",
        [WIRE_OP_TICK] = "tick",
        [WIRE_OP_TERM_START] = "term-start",
        [WIRE_OP_NODE_INFO] = "node-info",
        [WIRE_OP_EPOCH] = "epoch",
    };
    return name_of(names, sizeof names / sizeof names[0], op);
}

const char *wire_code_name(uint32_t code)
{
    static const char *const names[] = {
        [WIRE_CODE_OK] = "ok",
        [WIRE_CODE_QUEUED] = "queued",
        [WIRE_CODE_CONFLICT] = "conflict",
        [WIRE_CODE_TIMEOUT] = "timeout",
        [WIRE_CODE_CANCELED] = "canceled",
        [WIRE_CODE_DEADLOCK] = "deadlock",
        [WIRE_CODE_NO_SESSION] = "no_session",
        [WIRE_CODE_NOT_HELD] = "not_held",
        [WIRE_CODE_NOT_OWNER] = "not_owner",
        [WIRE_CODE_LIMIT] = "limit",
        [WIRE_CODE_INVALID] = "invalid",
        [WIRE_CODE_EXISTS] = "exists",
        [WIRE_CODE_NOT_FOUND] = "not_found",
        [WIRE_CODE_NOT_DIR] = "not_dir",
        [WIRE_CODE_IS_DIR] = "is_dir",
        [WIRE_CODE_NOT_EMPTY] = "not_empty",
        [WIRE_CODE_NO_PARENT] = "no_parent",
        [WIRE_CODE_DELAYED] = "delayed",
        [WIRE_CODE_STALE_SEQ] = "stale_seq",
        [WIRE_CODE_SESSION_ENDED] = "session_ended",
        [WIRE_CODE_BROKEN] = "broken",
        [WIRE_CODE_EXPIRED] = "expired",
        [WIRE_CODE_RELEASED] = "released",
    };
    return name_of(names, sizeof names / sizeof names[0], code);
}

const char *wire_mode_name(uint32_t mode)
{
    static const char *const names[] = {
        [WIRE_MODE_SHARED] = "shared",
        [WIRE_MODE_EXCLUSIVE] = "exclusive",
    };
    return name_of(names, sizeof names / sizeof names[0], mode);
}

const char *wire_hold_mode_name(uint32_t mode, uint32_t limit)
{
    return limit != 0 ? "semaphore" : wire_mode_name(mode);
}

const char *wire_kind_name(uint32_t kind)
{
    static const char *const names[] = {
        [WIRE_KIND_API] = "api",         [WIRE_KIND_EXCL] = "excl",   [WIRE_KIND_MKDIR] = "mkdir",
        [WIRE_KIND_SYMLINK] = "symlink", [WIRE_KIND_FLOCK] = "flock", [WIRE_KIND_POSIX] = "posix",
        [WIRE_KIND_OFD] = "ofd",
    };
    return name_of(names, sizeof names / sizeof names[0], kind);
}
