/* From a file name to the mount it is on, and the lock's name there. */
#include "run.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINKS_MAX 16

char *place_join(const char *directory, const char *name)
{
    struct buf out = BUF_INIT;
    bool up = false;
    if (name[0] != '/')
        buf_printf(&out, "%s", strcmp(directory, "/") == 0 ? "" : directory);
    for (const char *at = name; *at != '\0';) {
        size_t n = strcspn(at, "/");
        up = up || (n == 2 && memcmp(at, "..", 2) == 0);
        if (n > 0 && !(n == 1 && at[0] == '.'))
            buf_printf(&out, "/%.*s", (int)n, at);
        at += n + strspn(at + n, "/");
    }
    buf_add(&out, "", 1);
    if (up) {
        buf_deinit(&out);
        return NULL;
    }
    return (char *)out.data;
}

void place_deinit(struct place *p)
{
    free(p->root);
    free(p->path);
    free(p->cluster);
}

static int fail_mount(const char *directory)
{
    return cli_fail(EXIT_AWAY, "the mount at %s does not answer: %s", directory, strerror(errno));
}

/* An error by which a directory says that it is no mount of ours, or that it isn't there. */
static bool is_no_mount(int error)
{
    return error == ENODATA || error == ENOTSUP || error == ENOENT || error == ENOTDIR ||
           error == EACCES || error == EPERM || error == ELOOP || error == ENAMETOOLONG;
}

/* Is the root of a mount among the directories of an absolute path, or the path itself?  From the
 * top, so that nothing in the mount has to be asked for.
 *
 * Return: EXIT_DONE, also with nothing found; EXIT_AWAY with a sentence printed. */
static int find_root(const char *file, struct place *ret)
{
    for (size_t n = 0; file[n] != '\0';) {
        size_t next = n + 1 + strcspn(file + n + 1, "/");
        char *directory = n == 0 ? xstrdup("/") : xmemdup(file, n + 1);
        directory[n == 0 ? 1 : n] = '\0';
        char *cluster = cli_cluster_of(directory);
        if (cluster != NULL) {
            *ret = (struct place){directory, xstrdup(file + n + 1), cluster};
            return EXIT_DONE;
        }
        int code = is_no_mount(errno) ? EXIT_DONE : fail_mount(directory);
        free(directory);
        if (code != EXIT_DONE)
            return code;
        n = next;
    }
    char *cluster = cli_cluster_of(file);
    if (cluster != NULL)
        *ret = (struct place){xstrdup(file), xstrdup(""), cluster};
    return EXIT_DONE;
}

/* The directory of a file name, resolved, and behind it the name.  NULL with errno set. */
static char *resolve_directory(const char *name)
{
    const char *slash = strrchr(name, '/');
    const char *base = slash == NULL ? name : slash + 1;
    char *directory = slash == NULL   ? xstrdup(".")
                      : slash == name ? xstrdup("/")
                                      : xmemdup(name, (size_t)(slash - name) + 1);
    if (slash != NULL && slash != name)
        directory[slash - name] = '\0';
    char *real = realpath(directory, NULL);
    free(directory);
    char *file = real == NULL ? NULL : place_join(real, base);
    free(real);
    if (real != NULL && file == NULL)
        errno = EISDIR; /* The last component is "..". */
    return file;
}

/* What a symbolic link stands for, seen from its place; NULL: it is none. */
static char *follow_link(const char *file)
{
    char target[PATH_MAX];
    ssize_t n = readlink(file, target, sizeof target - 1);
    if (n <= 0)
        return NULL;
    target[n] = '\0';
    if (target[0] == '/')
        return xstrdup(target);
    struct buf out = BUF_INIT;
    buf_printf(&out, "%.*s/%s", (int)(strrchr(file, '/') - file), file, target);
    buf_add(&out, "", 1);
    return (char *)out.data;
}

static int fail_elsewhere(const char *argument, int error)
{
    return cli_fail(EXIT_NOT_HOLDFAST, "%s is not on a Holdfast mount%s%s: it would lock nothing",
                    argument, error != 0 ? ", " : "", error != 0 ? strerror(error) : "");
}

/* Follow the names until a mount comes by. */
static int search(const char *argument, struct place *ret)
{
    char here[PATH_MAX];
    if (getcwd(here, sizeof here) == NULL)
        return cli_fail(EXIT_NOT_HOLDFAST, "the working directory: %s", strerror(errno));
    char *name = xstrdup(argument), *file = place_join(here, argument);
    int code = EXIT_DONE;
    for (unsigned n_links = 0; code == EXIT_DONE && ret->root == NULL; n_links++) {
        if (file != NULL)
            code = find_root(file, ret);
        if (code != EXIT_DONE || ret->root != NULL)
            break;
        char *real = resolve_directory(name);
        int error = real == NULL ? errno : 0;
        if (real != NULL)
            code = find_root(real, ret);
        char *next = real != NULL && ret->root == NULL ? follow_link(real) : NULL;
        free(real);
        if (code != EXIT_DONE || ret->root != NULL)
            break;
        if (next == NULL || n_links == LINKS_MAX) {
            free(next);
            code = is_no_mount(error) || error == 0 || error == EISDIR
                       ? fail_elsewhere(argument, error)
                       : fail_mount(argument);
            break;
        }
        free(name);
        free(file);
        name = next;
        file = place_join("/", next);
    }
    free(name);
    free(file);
    return code;
}

/* The mount would not let everybody make a lock in each directory, so neither do we. */
static int check_access(const char *argument, const struct place *p)
{
    char *file = place_join(p->root, p->path);
    int error = 0;
    if (file == NULL)
        return EXIT_DONE; /* Its name is refused for that. */
    char *slash = strrchr(file, '/');
    *(slash == file ? slash + 1 : slash) = '\0';
    if (faccessat(AT_FDCWD, file, W_OK | X_OK, AT_EACCESS) < 0)
        error = errno;
    free(file);
    if (error == EACCES || error == EPERM || error == EROFS)
        return cli_fail(EXIT_NOT_ALLOWED, "%s: its directory is not writable for you", argument);
    if (error == ENOENT || error == ENOTDIR)
        return cli_fail(EXIT_REFUSED, "%s: its directory does not exist", argument);
    if (error == 0)
        return EXIT_DONE;
    errno = error;
    return fail_mount(p->root);
}

int place_find(const char *argument, struct place *ret)
{
    struct place p = {0};
    if (argument[0] == '\0')
        return cli_fail(EXIT_USAGE, "an empty path is no lock");
    int code = search(argument, &p);
    assert(code != EXIT_DONE || p.path != NULL);
    if (code == EXIT_DONE && p.path[0] == '\0')
        code = cli_fail(EXIT_USAGE, "%s is the mount itself, which is no lock", argument);
    if (code == EXIT_DONE && (!cli_path_valid(p.path) || argument[strlen(argument) - 1] == '/'))
        code = cli_fail_name(argument);
    if (code == EXIT_DONE)
        code = check_access(argument, &p);
    if (code != EXIT_DONE) {
        place_deinit(&p);
        return code;
    }
    *ret = p;
    return EXIT_DONE;
}
