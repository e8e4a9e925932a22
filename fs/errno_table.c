#include "fs/errno_table.h"

#include "raftstore/wire/codes.h"

#include <errno.h>

/* Rows: enum wire_code; columns: enum errno_context.  0: an answer that this request can't get.
 * NO_SESSION and SESSION_ENDED: the session ended each time that it was asked; nothing was done. */
/* clang-format off */
static const int table[][ERRNO_CONTEXTS] = {
    /*                           ACQUIRE  CHANGE   RELEASE  HANDLE   TOKEN    MKDIR    RMDIR      DIRECTORY  LOCK     RENAME   LINK */
    [WIRE_CODE_CONFLICT] =      {EEXIST,  0,       0,       0,       0,       EEXIST,  0,         0,         EAGAIN,   EEXIST,  EEXIST},
    [WIRE_CODE_DELAYED] =       {EEXIST,  0,       0,       0,       0,       EEXIST,  0,         0,         EAGAIN,   EEXIST,  EEXIST},
    [WIRE_CODE_DEADLOCK] =      {0,       0,       0,       0,       0,       0,       0,         0,         EDEADLK,  0,       0},
    [WIRE_CODE_NOT_HELD] =      {0,       ESTALE,  ENOENT,  ESTALE,  ENOENT,  0,       0,         0,         0,        ENOENT,  ENOENT},
    [WIRE_CODE_NOT_OWNER] =     {0,       EPERM,   EPERM,   ESTALE,  EPERM,   0,       0,         0,         0,        EPERM,   EPERM},
    [WIRE_CODE_LIMIT] =         {ENOSPC,  ENOSPC,  ENOSPC,  ENOSPC,  ENOSPC,  ENOSPC,  ENOSPC,    ENOSPC,    ENOLCK,   ENOSPC,  ENOSPC},
    [WIRE_CODE_INVALID] =       {EINVAL,  EINVAL,  EINVAL,  EINVAL,  EINVAL,  EINVAL,  EINVAL,    EINVAL,    EINVAL,   EBUSY,   EPERM},
    [WIRE_CODE_EXISTS] =        {EEXIST,  0,       0,       0,       0,       EEXIST,  0,         0,         0,        EEXIST,  EEXIST},
    [WIRE_CODE_NOT_FOUND] =     {ENOENT,  ENOENT,  ENOENT,  ESTALE,  ENOENT,  ENOENT,  ENOENT,    ENOENT,    ESTALE,   ENOENT,  ENOENT},
    [WIRE_CODE_NOT_DIR] =       {ENOTDIR, ENOTDIR, ENOTDIR, ESTALE,  ENOTDIR, ENOTDIR, ENOTDIR,   ENOTDIR,   ESTALE,   ENOTDIR, ENOTDIR},
    [WIRE_CODE_IS_DIR] =        {EEXIST,  EISDIR,  EISDIR,  ESTALE,  EISDIR,  EEXIST,  0,         0,         ESTALE,   EEXIST,  EEXIST},
    [WIRE_CODE_NOT_EMPTY] =     {0,       0,       0,       0,       0,       0,       ENOTEMPTY, 0,         0,        0,       0},
    [WIRE_CODE_NO_PARENT] =     {ENOENT,  ENOENT,  ENOENT,  ESTALE,  ENOENT,  ENOENT,  ENOENT,    ENOENT,    ESTALE,   ENOENT,  ENOENT},
    [WIRE_CODE_NO_SESSION] =    {EAGAIN,  EAGAIN,  EAGAIN,  EAGAIN,  EAGAIN,  EAGAIN,  EAGAIN,    EAGAIN,    ENOLCK,   EAGAIN,  EAGAIN},
    [WIRE_CODE_SESSION_ENDED] = {EAGAIN,  EAGAIN,  EAGAIN,  EAGAIN,  EAGAIN,  EAGAIN,  EAGAIN,    EAGAIN,    ENOLCK,   EAGAIN,  EAGAIN},
};
/* clang-format on */

int errno_of_code(enum errno_context context, uint32_t code)
{
    if (code == WIRE_CODE_OK)
        return 0;
    if (code >= sizeof table / sizeof table[0] || table[code][context] == 0)
        return EIO;
    return table[code][context];
}

int errno_of_status(int status)
{
    switch (status) {
    case 0:
        return 0;
    case -ETIMEDOUT: /* No majority answered within timeout=. */
        return ETIMEDOUT;
    case -EBUSY: /* Refused for load until the deadline. */
        return EBUSY;
    case -EPERM:  /* The cluster's policy: of a command, */
    case -EACCES: /* and of a query. */
        return EACCES;
    case -EINVAL:
    case -EMSGSIZE:
        return EINVAL;
    default: /* Closing, or failed. */
        return EIO;
    }
}
