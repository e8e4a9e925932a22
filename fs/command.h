/* What a program writes to a lock file.  Pure.
 *
 *     renew [DURATION] [TOKEN]   keep [TOKEN]   release [TOKEN]
 *
 * DURATION has a unit ("90s"); TOKEN is a number without one.  A first word that is no command
 * makes the whole text a note; a command word with something wrong behind it is an error, so that
 * a slip of the pen never turns into a note. */
#ifndef HOLDFAST_FS_COMMAND_H
#define HOLDFAST_FS_COMMAND_H

#include "raftstore/base/bytes.h"

#include <stdint.h>

enum command_verb {
    COMMAND_NOTE,
    COMMAND_RENEW,
    COMMAND_KEEP,
    COMMAND_RELEASE,
    COMMAND_RENAME, /* rename(2): nothing that is written. */
    COMMAND_LINK,   /* link(2): likewise. */
};

struct command {
    enum command_verb verb;
    uint64_t ttl_ms;   /* RENEW: the new ttl; 0 = as before. */
    uint64_t token;    /* 0 = none given. */
    struct bytes note; /* NOTE: inside the text that was parsed. */
    uint64_t mtime_ns; /* RENEW: what stat(2) is to show as mtime; 0 = the time of the renewal. */
    const char *to;    /* RENAME, LINK: the other path. */
    uint32_t kind;     /* LINK: of the new hold (enum wire_kind). */
    uint64_t only;     /* LINK: nothing but the hold with this token; 0: whichever it is. */
};

/* Parse one write.  One trailing newline does not count.
 *
 * Return: 0; -EINVAL a command with wrong arguments; -EFBIG a note above its bound. */
int command_parse(struct bytes text, struct command *ret_command);

#endif
