/* The ways in which programs lock by files. */
#include "tests/linear/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static int errno_of(int rc)
{
    return rc < 0 ? errno : 0;
}

static int write_word(int fd, const char *word)
{
    return write(fd, word, strlen(word)) < 0 ? errno : 0;
}

/* An attribute as a number; 0 = none. */
static uint64_t token_of(ssize_t n, char *text)
{
    if (n <= 0)
        return 0;
    text[n] = '\0';
    return strtoull(text, NULL, 10);
}

static void token_by_descriptor(struct worker *w, struct hold *h)
{
    char text[32];

    (void)w;
    h->token = token_of(fgetxattr(h->fd, "user.holdfast.token", text, sizeof text - 1), text);
}

static void token_by_text(struct worker *w, struct hold *h)
{
    (void)worker_read(w, h->path, h->fd, &h->token);
}

/* ---- open(O_CREAT | O_EXCL) ---- */

static int excl_acquire(struct worker *w, struct hold *h, bool wait)
{
    (void)w;
    (void)wait;
    h->fd = open(h->path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
    return errno_of(h->fd);
}

static int excl_renew(struct worker *w, struct hold *h)
{
    if (random_below(&w->random, 3) == 0)
        return errno_of(utimensat(AT_FDCWD, h->path, NULL, 0));
    return write_word(h->fd, "renew");
}

static int descriptor_check(struct worker *w, struct hold *h)
{
    if (random_below(&w->random, 3) == 0)
        return errno_of(fsync(h->fd));
    return worker_read(w, h->path, h->fd, NULL);
}

static int excl_release(struct worker *w, struct hold *h)
{
    if (random_below(&w->random, 3) == 0)
        return write_word(h->fd, "release");
    return errno_of(unlink(h->path));
}

/* ---- mkdir ---- */

static int mkdir_acquire(struct worker *w, struct hold *h, bool wait)
{
    (void)w;
    (void)wait;
    return errno_of(mkdir(h->path, 0777));
}

static uint64_t path_token(const char *path)
{
    char text[32];

    return token_of(getxattr(path, "user.holdfast.token", text, sizeof text - 1), text);
}

/* By the path, where another may hold it by now: the owner must be this process, and stay. */
static void mkdir_token(struct worker *w, struct hold *h)
{
    char owner[512];
    char mine[32];
    uint64_t token = path_token(h->path);
    ssize_t n = getxattr(h->path, "user.holdfast.owner", owner, sizeof owner - 1);

    (void)w;
    if (token == 0 || n <= 0)
        return;
    owner[n] = '\0';
    (void)snprintf(mine, sizeof mine, "/%d.", (int)getpid());
    if (strstr(owner, mine) != NULL && path_token(h->path) == token)
        h->token = token;
}

static int path_renew(struct worker *w, struct hold *h)
{
    (void)w;
    return errno_of(utimensat(AT_FDCWD, h->path, NULL, 0));
}

static int mkdir_release(struct worker *w, struct hold *h)
{
    (void)w;
    return errno_of(rmdir(h->path));
}

/* ---- link(temporary, lock) ---- */

static int link_acquire(struct worker *w, struct hold *h, bool wait)
{
    (void)wait;
    (void)snprintf(h->temporary, sizeof h->temporary, "%.*s.%s-%u", (int)sizeof h->path - 60,
                   h->path, w->name, w->n);
    int fd = open(h->temporary, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
    if (fd < 0) {
        h->temporary[0] = '\0';
        return ECANCELED;
    }
    int error = errno_of(link(h->temporary, h->path));
    (void)close(fd);
    /* The temporary's own lease may have run out. */
    return error == EPERM || error == ENOENT || error == ESTALE ? ECANCELED : error;
}

static void link_token(struct worker *w, struct hold *h)
{
    h->fd = open(h->path, O_RDONLY | O_CLOEXEC);
    if (h->fd >= 0)
        token_by_text(w, h);
}

static int link_release(struct worker *w, struct hold *h)
{
    (void)w;
    return errno_of(unlink(h->path));
}

/* ---- flock ---- */

static int flock_acquire(struct worker *w, struct hold *h, bool wait)
{
    (void)w;
    h->fd = open(h->path, O_CREAT | O_RDWR | O_CLOEXEC, 0666);
    if (h->fd < 0)
        return errno == EINTR || errno == ETIMEDOUT ? ECANCELED : errno;
    return errno_of(flock(h->fd, (h->shared ? LOCK_SH : LOCK_EX) | (wait ? 0 : LOCK_NB)));
}

static int flock_release(struct worker *w, struct hold *h)
{
    (void)w;
    return errno_of(flock(h->fd, LOCK_UN));
}

/* ---- fcntl ---- */

static int range_lock(const struct hold *h, int command, short type)
{
    struct flock l = {.l_type = type,
                      .l_whence = SEEK_SET,
                      .l_start = (off_t)h->lo,
                      .l_len = (off_t)(h->hi - h->lo)};

    return errno_of(fcntl(h->fd, command, &l));
}

static int fcntl_acquire(struct worker *w, struct hold *h, bool wait)
{
    (void)w;
    h->fd = open(h->path, O_CREAT | O_RDWR | O_CLOEXEC, 0666);
    if (h->fd < 0)
        return errno == EINTR || errno == ETIMEDOUT ? ECANCELED : errno;
    return range_lock(h, wait ? F_SETLKW : F_SETLK, h->shared ? F_RDLCK : F_WRLCK);
}

static int fcntl_release(struct worker *w, struct hold *h)
{
    (void)w;
    return range_lock(h, F_SETLK, F_UNLCK);
}

const struct style styles[] = {
    {.name = "oexcl",
     .lease = true,
     .acquire = excl_acquire,
     .token = token_by_descriptor,
     .renew = excl_renew,
     .check = descriptor_check,
     .release = excl_release},
    {.name = "mkdir",
     .lease = true,
     .acquire = mkdir_acquire,
     .token = mkdir_token,
     .renew = path_renew,
     .release = mkdir_release},
    {.name = "link",
     .lease = true,
     .acquire = link_acquire,
     .token = link_token,
     .renew = path_renew,
     .release = link_release},
    {.name = "rename",
     .lease = true,
     .acquire = excl_acquire,
     .token = token_by_descriptor,
     .renew = excl_renew,
     .check = descriptor_check,
     .release = excl_release},
    {.name = "flock",
     .can_wait = true,
     .acquire = flock_acquire,
     .token = token_by_text,
     .check = descriptor_check,
     .release = flock_release},
    {.name = "fcntl",
     .can_wait = true,
     .acquire = fcntl_acquire,
     .token = token_by_text,
     .check = descriptor_check,
     .release = fcntl_release},
    {0},
};
