#include "raftstore/node/store_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "raftstore/base/buf.h"
#include "raftstore/node/store_sql.h"
#include "raftstore/node/store_wal.h"

char *files_path(const char *directory, const char *name)
{
    return xasprintf("%s/%s", directory, name);
}

char *files_log_path(const char *directory, uint64_t seq)
{
    return xasprintf("%s/log-%08" PRIu64 ".db", directory, seq);
}

char *files_snapshot_path(const char *directory, uint64_t index)
{
    return xasprintf("%s/snapshot-%" PRIu64 ".db", directory, index);
}

int files_lock_directory(const char *directory, int *ret_fd, char **ret_sentence)
{
    if (mkdir(directory, 0700) != 0 && errno != EEXIST)
        return fail_with(-errno, directory, "the data directory can't be made", ret_sentence);
    char *path = files_path(directory, "LOCK");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int error = 0;
    if (fd < 0)
        error = fail_with(-errno, path, "can't be opened", ret_sentence);
    else if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        error = fail_with(errno == EWOULDBLOCK ? -EBUSY : -errno, path,
                          "the data directory is in use by another process", ret_sentence);
    free(path);
    if (error != 0) {
        if (fd >= 0)
            (void)close(fd);
        return error;
    }
    *ret_fd = fd;
    return 0;
}

int files_sync(const char *path, char **ret_sentence)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_with(-errno, path, "can't be opened", ret_sentence);
    int error = fsync(fd) != 0 ? -errno : 0;
    (void)close(fd); /* Nothing was written through this descriptor. */
    return error == 0 ? 0 : fail_with(error, path, "can't be made durable", ret_sentence);
}

int files_rename(const char *from, const char *to, char **ret_sentence)
{
    if (rename(from, to) != 0)
        return fail_with(-errno, from, "can't be renamed", ret_sentence);
    return 0;
}

int files_remove(const char *path, char **ret_sentence)
{
    if (unlink(path) != 0 && errno != ENOENT)
        return fail_with(-errno, path, "can't be removed", ret_sentence);
    return 0;
}

int files_remove_database(const char *path, char **ret_sentence)
{
    static const char *const suffixes[] = {"-wal", "-shm", "-journal", ""};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        char *name = xasprintf("%s%s", path, suffixes[i]);
        int error = files_remove(name, ret_sentence);
        free(name);
        if (error != 0)
            return error;
    }
    return 0;
}

static int write_zeros(int fd, size_t size)
{
    static const uint8_t zeros[64 * 1024];
    for (size_t done = 0; done < size;) {
        size_t chunk = size - done < sizeof zeros ? size - done : sizeof zeros;
        ssize_t n = pwrite(fd, zeros, chunk, (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        done += (size_t)n;
    }
    return fdatasync(fd) != 0 ? -errno : 0;
}

/* Is there a spare file of this size to be used again? */
static bool spare_fits(const char *spare, size_t size)
{
    struct stat st;
    return spare != NULL && lstat(spare, &st) == 0 && S_ISREG(st.st_mode) &&
           (size_t)st.st_size == size;
}

int files_make_wal(const char *path, const char *spare, size_t size_bytes, char **ret_sentence)
{
    bool reuse = spare_fits(spare, size_bytes);
    const char *made = reuse ? spare : path;
    int fd =
        open(made, reuse ? O_WRONLY | O_CLOEXEC : O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail_with(-errno, made, "can't be opened", ret_sentence);
    /* Without its header SQLite takes a WAL for empty. It must be gone for good before the file
     * stands beside another database, or its old pages would be replayed into that one. */
    int error = write_zeros(fd, reuse ? WAL_HEADER_BYTES : size_bytes);
    if (close(fd) != 0 && error == 0)
        error = -errno;
    if (error != 0)
        return fail_with(error, made, "can't be written", ret_sentence);
    return reuse ? files_rename(spare, path, ret_sentence) : 0;
}

bool files_exist(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

uint64_t files_size(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* PREFIX, a number, SUFFIX: then the number, and what stands behind the suffix. */
static const char *
match(const char *name, const char *prefix, const char *suffix, uint64_t *ret_number)
{
    size_t n = strlen(prefix);
    if (strncmp(name, prefix, n) != 0 || name[n] < '0' || name[n] > '9')
        return NULL;
    char *end;
    errno = 0;
    uint64_t number = strtoull(name + n, &end, 10);
    if (errno != 0 || strncmp(end, suffix, strlen(suffix)) != 0)
        return NULL;
    *ret_number = number;
    return end + strlen(suffix);
}

static enum files_kind kind_of(const char *name, uint64_t *ret_number)
{
    *ret_number = 0;
    const char *rest;
    if (strcmp(name, "meta.db") == 0)
        return FILES_META;
    if (strncmp(name, "meta-new.db", 11) == 0)
        return FILES_TEMPORARY;
    if ((rest = match(name, "log-", ".db", ret_number)) != NULL)
        return *rest == '\0' ? FILES_LOG : *rest == '-' ? FILES_BESIDE : FILES_OTHER;
    if ((rest = match(name, "snapshot-", ".db", ret_number)) != NULL)
        return *rest == '\0' ? FILES_SNAPSHOT : *rest == '-' ? FILES_BESIDE : FILES_OTHER;
    if (match(name, "incoming-", ".db", ret_number) != NULL ||
        match(name, "image-", ".db", ret_number) != NULL)
        return FILES_TEMPORARY;
    return FILES_OTHER;
}

int files_visit(const char *directory,
                int (*visit)(void *arg, enum files_kind kind, const char *name, uint64_t number),
                void *arg,
                char **ret_sentence)
{
    DIR *d = opendir(directory);
    if (d == NULL)
        return fail_with(-errno, directory, "can't be read", ret_sentence);
    int error = 0;
    for (;;) {
        errno = 0;
        struct dirent *e = readdir(d);
        if (e == NULL) {
            if (errno != 0)
                error = fail_with(-errno, directory, "can't be read", ret_sentence);
            break;
        }
        uint64_t number;
        enum files_kind kind = kind_of(e->d_name, &number);
        error = visit(arg, kind, e->d_name, number);
        if (error != 0)
            break;
    }
    (void)closedir(d); /* Only read from. */
    return error;
}
