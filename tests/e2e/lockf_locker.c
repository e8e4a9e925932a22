/* A program that locks with lockf(3), as one would write it for a local disk.
 *
 *     lockf_locker loop PATH COUNT N    N times: lock, add one to the number in the file COUNT,
 * unlock lockf_locker hold PATH            lock, print "locked", keep it until a line comes on
 * stdin lockf_locker attempt PATH         lock without waiting: exit status 0, or 77 if it is held
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { REFUSED = 77 };

static int failed(const char *what)
{
    fprintf(stderr, "lockf_locker: %s: %s\n", what, strerror(errno));
    return 1;
}

static int add_one(const char *path)
{
    FILE *f = fopen(path, "r+");
    if (f == NULL)
        return -1;
    char text[32] = "";
    int result = -1;
    if (fgets(text, sizeof text, f) != NULL && fseek(f, 0, SEEK_SET) == 0 &&
        fprintf(f, "%ld\n", strtol(text, NULL, 10) + 1) > 0)
        result = 0;
    return fclose(f) == 0 ? result : -1;
}

static int loop(int fd, const char *count, long n)
{
    for (long i = 0; i < n; i++) {
        if (lockf(fd, F_LOCK, 0) != 0)
            return failed("F_LOCK");
        if (add_one(count) != 0)
            return failed(count);
        if (lockf(fd, F_ULOCK, 0) != 0)
            return failed("F_ULOCK");
    }
    return 0;
}

static int hold(int fd)
{
    if (lockf(fd, F_LOCK, 0) != 0)
        return failed("F_LOCK");
    puts("locked");
    if (fflush(stdout) != 0)
        return failed("stdout");
    (void)getchar(); /* A line, or the end: both mean "let go". */
    return lockf(fd, F_ULOCK, 0) == 0 ? 0 : failed("F_ULOCK");
}

static int attempt(int fd)
{
    int tested = lockf(fd, F_TEST, 0) == 0 ? 0 : errno;
    int locked = lockf(fd, F_TLOCK, 0) == 0 ? 0 : errno;
    /* Nobody comes or goes while the test attempts: both must say the same. */
    if ((tested == 0) != (locked == 0)) {
        fprintf(stderr, "lockf_locker: F_TEST: %s, F_TLOCK: %s\n", strerror(tested),
                strerror(locked));
        return 1;
    }
    errno = locked;
    if (locked == 0)
        return 0;
    return locked == EACCES || locked == EAGAIN ? REFUSED : failed("F_TLOCK");
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fputs("usage: lockf_locker loop PATH COUNT N | hold PATH | attempt PATH\n", stderr);
        return 2;
    }
    int fd = open(argv[2], O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (fd < 0)
        return failed(argv[2]);
    if (strcmp(argv[1], "loop") == 0 && argc == 5)
        return loop(fd, argv[3], strtol(argv[4], NULL, 10));
    if (strcmp(argv[1], "hold") == 0)
        return hold(fd);
    if (strcmp(argv[1], "attempt") == 0)
        return attempt(fd);
    return 2;
}
