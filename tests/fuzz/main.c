/* A target without libFuzzer: runs every file it is given, and those in directories.
 *
 *     fuzz_TARGET FILE|FILE.pack|DIRECTORY...
 *
 * Exit status: 0 all ran; 1 one could not be read, or there were none.  An input that breaks the
 * target ends the program with its report, behind a line that names the file. */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "raftstore/base/buf.h"

static unsigned n_run;

static void run_input(const char *name, struct bytes in)
{
    /* Of exactly this size, so that a step beyond it is noticed. */
    uint8_t *exact = xmemdup(in.data, in.size);
    (void)fprintf(stderr, "%s\n", name);
    (void)LLVMFuzzerTestOneInput(exact, in.size);
    free(exact);
    n_run++;
}

/* Many inputs in one file: each behind its size, in four bytes (as frames of the protocol, but an
 * input may be empty). */
static int run_pack(const char *path, struct bytes in)
{
    const uint8_t *p = in.data;
    size_t at = 0;
    for (unsigned i = 0; at < in.size; i++) {
        char name[4200];
        if (in.size - at < 4)
            return -EBADMSG;
        size_t size = (size_t)p[at] | (size_t)p[at + 1] << 8 | (size_t)p[at + 2] << 16 |
                      (size_t)p[at + 3] << 24;
        at += 4;
        if (size > in.size - at)
            return -EBADMSG;
        (void)snprintf(name, sizeof name, "%s:%u", path, i);
        run_input(name, bytes_of(p + at, size));
        at += size;
    }
    return 0;
}

static bool is_pack(const char *path)
{
    size_t n = strlen(path);
    return n > 5 && strcmp(path + n - 5, ".pack") == 0;
}

static int run_file(const char *path)
{
    struct buf in = BUF_INIT;
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    while ((n = read(fd, buf_reserve(&in, 65536), 65536)) > 0)
        in.size += (size_t)n;
    int error = n < 0 ? -errno : 0;
    (void)close(fd); /* Only read from. */
    struct bytes all = bytes_of(in.data, in.size);
    if (error == 0 && is_pack(path))
        error = run_pack(path, all);
    else if (error == 0)
        run_input(path, all);
    buf_deinit(&in);
    return error;
}

static int run_path(const char *path);

static int run_directory(const char *path)
{
    struct dirent **list = NULL;
    int n = scandir(path, &list, NULL, alphasort);
    int error = n < 0 ? -errno : 0;
    for (int i = 0; i < n; i++) {
        char child[4096];
        (void)snprintf(child, sizeof child, "%s/%s", path, list[i]->d_name);
        if (error == 0 && list[i]->d_name[0] != '.')
            error = run_path(child);
        free(list[i]);
    }
    free(list);
    return error;
}

static int run_path(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return -errno;
    return S_ISDIR(st.st_mode) ? run_directory(path) : run_file(path);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        int error = run_path(argv[i]);
        if (error < 0) {
            (void)fprintf(stderr, "fuzz: %s: %s\n", argv[i], strerror(-error));
            return 1;
        }
    }
    (void)fprintf(stderr, "fuzz: %u inputs\n", n_run);
    return n_run == 0;
}
