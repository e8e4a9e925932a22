/* A preload library that makes a write or a sync fail, for tests of a failing disk.
 *
 * FAILIO_DIR    only files below this directory count
 * FAILIO_CALL   "write" (write, pwrite, pwritev) or "sync" (fsync, fdatasync)
 * FAILIO_AFTER  so many calls succeed, then each one fails with EIO
 * FAILIO_FILE   while this file does not exist, nothing counts (so a test chooses the moment)
 * FAILIO_HANG   set: instead of failing, such a call waits until that file is gone */
/* Both names of each function are wanted, not one for the other. */
#undef _FILE_OFFSET_BITS

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset);

static bool below_directory(int fd)
{
    const char *directory = getenv("FAILIO_DIR");
    char link[64];
    char path[PATH_MAX];

    if (directory == NULL)
        return false;
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return false;
    path[n] = '\0';
    return strncmp(path, directory, strlen(directory)) == 0;
}

static bool must_fail(const char *call, int fd)
{
    static _Atomic long n_calls;
    const char *wanted = getenv("FAILIO_CALL");
    const char *after = getenv("FAILIO_AFTER");
    const char *file = getenv("FAILIO_FILE");
    int saved = errno;

    bool fail = wanted != NULL && strcmp(wanted, call) == 0 &&
                (file == NULL || access(file, F_OK) == 0) && below_directory(fd) &&
                atomic_fetch_add(&n_calls, 1) >= (after != NULL ? strtol(after, NULL, 10) : 0);
    while (fail && file != NULL && getenv("FAILIO_HANG") != NULL) {
        fail = access(file, F_OK) == 0;
        (void)usleep(5000);
    }
    errno = fail ? EIO : saved;
    return fail;
}

/* The function behind ours; a program without it could not have called us. */
static void *next(const char *name)
{
    void *f = dlsym(RTLD_NEXT, name);
    if (f == NULL)
        abort();
    return f;
}

ssize_t write(int fd, const void *data, size_t size)
{
    ssize_t (*real)(int, const void *, size_t) = next("write");
    return must_fail("write", fd) ? -1 : real(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    ssize_t (*real)(int, const void *, size_t, off_t) = next("pwrite");
    return must_fail("write", fd) ? -1 : real(fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    ssize_t (*real)(int, const void *, size_t, off64_t) = next("pwrite64");
    return must_fail("write", fd) ? -1 : real(fd, data, size, offset);
}

ssize_t pwritev(int fd, const struct iovec *parts, int n, off_t offset)
{
    ssize_t (*real)(int, const struct iovec *, int, off_t) = next("pwritev");
    return must_fail("write", fd) ? -1 : real(fd, parts, n, offset);
}

int fsync(int fd)
{
    int (*real)(int) = next("fsync");
    return must_fail("sync", fd) ? -1 : real(fd);
}

int fdatasync(int fd)
{
    int (*real)(int) = next("fdatasync");
    return must_fail("sync", fd) ? -1 : real(fd);
}
