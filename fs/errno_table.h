/* Which errno the application sees: the one place that knows.  Pure. */
#ifndef HOLDFAST_FS_ERRNO_TABLE_H
#define HOLDFAST_FS_ERRNO_TABLE_H

#include <stdint.h>

/* What was asked of the cluster. */
enum errno_context {
    ERRNO_ACQUIRE,   /* open(O_CREAT|O_EXCL). */
    ERRNO_CHANGE,    /* Renew, keep, note: by a process with authority. */
    ERRNO_RELEASE,   /* unlink, "release": likewise. */
    ERRNO_BY_HANDLE, /* Any of them on the descriptor that acquired. */
    ERRNO_BY_TOKEN,  /* Any of them by token. */
    ERRNO_MKDIR,
    ERRNO_RMDIR,
    ERRNO_DIRECTORY, /* Attributes and entries of directories. */
    ERRNO_LOCK,      /* flock, fcntl. */
    ERRNO_RENAME,    /* rename, by a process with authority. */
    ERRNO_LINK,      /* link: likewise. */
    ERRNO_CONTEXTS,
};

/* Of an answer of the lock table (enum wire_code).  Return: positive errno, or 0 for OK. */
int errno_of_code(enum errno_context context, uint32_t code);

/* Of a request that was not answered (client_result.status, client_reply.status). */
int errno_of_status(int status);

#endif
