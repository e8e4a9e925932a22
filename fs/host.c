#include "fs/host.h"

#include "raftstore/base/buf.h"
#include "raftstore/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

extern char **environ;

char *host_mount_point(const char *dir)
{
    char *copy = xstrdup(dir);
    size_t n = strlen(copy);
    while (n > 1 && copy[n - 1] == '/')
        copy[--n] = '\0';
    char *slash = strrchr(copy, '/');
    const char *name = slash != NULL ? slash + 1 : copy;
    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        char *whole = realpath(copy, NULL);
        free(copy);
        return whole;
    }
    if (slash != NULL)
        *slash = '\0';
    const char *parent_text = slash == NULL ? "." : slash == copy ? "/" : copy;
    char *parent = realpath(parent_text, NULL);
    char *path = NULL;
    if (parent != NULL) {
        struct buf text = BUF_INIT;
        buf_printf(&text, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent, name);
        buf_add(&text, "", 1);
        path = (char *)text.data;
    }
    free(parent);
    free(copy);
    return path;
}

/* Is the topmost mount at `dir` one of Holdfast? */
static bool is_holdfast(const char *dir)
{
    FILE *mounts = setmntent("/proc/self/mounts", "re");
    struct mntent entry;
    char text[8192];
    bool found = false;
    if (mounts == NULL)
        return false;
    while (getmntent_r(mounts, &entry, text, sizeof text) != NULL)
        if (strcmp(entry.mnt_dir, dir) == 0)
            found = strcmp(entry.mnt_type, "fuse.holdfast") == 0;
    (void)endmntent(mounts); /* Always 1. */
    return found;
}

static int unmount_lazily(const char *dir)
{
    if (geteuid() == 0)
        return umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW) == 0 ? 0 : -errno;
    char *argv[] = {"fusermount3", "-u", "-q", "-z", "--", (char *)(uintptr_t)dir, NULL};
    pid_t pid;
    int status;
    if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ) != 0)
        return -EIO;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -EIO;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

int host_clear_dead_mount(const char *dir)
{
    for (int i = 0; i < 16 && is_holdfast(dir); i++) {
        /* A living daemon answers this by itself; stat(2) could be answered by the kernel. */
        if (getxattr(dir, "user.holdfast.mount", NULL, 0) >= 0 ||
            (errno != ENOTCONN && errno != ECONNABORTED))
            return -EBUSY;
        LOG_INFO("unmounting what a dead daemon left", "dir=%s", log_quote(bytes_str(dir)));
        if (unmount_lazily(dir) < 0)
            return -EIO;
    }
    return 0;
}

int host_make_directory(const char *path)
{
    char *copy = xstrdup(path);
    int r = 0;
    for (char *p = copy + 1; r == 0 && *p != '\0'; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        if (mkdir(copy, 0755) < 0 && errno != EEXIST)
            r = -errno;
        *p = '/';
    }
    if (r == 0 && mkdir(copy, 0700) < 0 && errno != EEXIST)
        r = -errno;
    free(copy);
    return r;
}

static unsigned long read_sysctl(const char *path)
{
    char text[32];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        (void)close(fd);
    if (n <= 0)
        return 0; /* An older kernel has no such limit. */
    text[n] = '\0';
    return strtoul(text, NULL, 10);
}

void host_check_request_timeout(void)
{
    static const char *const names[] = {"default_request_timeout", "max_request_timeout"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[96];
        (void)snprintf(path, sizeof path, "/proc/sys/fs/fuse/%s", names[i]);
        unsigned long seconds = read_sysctl(path);
        if (seconds != 0)
            LOG_WARN("the kernel aborts the whole mount when one request waits longer than this; "
                     "set it to 0",
                     "sysctl=fs.fuse.%s seconds=%lu", names[i], seconds);
    }
}

void host_raise_limits(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* What we have is enough for most. */
    }
}
