/* mount.holdfast: arguments, and the way into the background. */
#include "fs/daemon.h"
#include "fs/host.h"
#include "fs/options.h"
#include "raftstore/base/log.h"
#include "raftstore/base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXIT_USAGE 1 /* mount(8): incorrect invocation. */

struct program {
    struct options options;
    char *dir;    /* Absolute. */
    char *data;   /* Absolute; NULL unless local. */
    char *tls;    /* Absolute; NULL = none. */
    char *log;    /* Absolute; NULL: standard error stays. */
    int ready_fd; /* To the parent that waits; -1 in the foreground. */
    int error_fd; /* Standard error as it was at the start. */
};

static char *join(const char *a, const char *b)
{
    struct buf text = BUF_INIT;
    buf_printf(&text, "%s/%s", a, b);
    buf_add(&text, "", 1);
    return (char *)text.data;
}

/* The daemon goes to "/", so every path must be absolute. */
static char *absolute(const char *path)
{
    if (path[0] == '/')
        return xstrdup(path);
    char *here = getcwd(NULL, 0);
    if (here == NULL)
        return NULL;
    char *whole = join(here, path);
    free(here);
    return whole;
}

/* Where a daemon in the background logs, unless it was told. */
static char *default_log(const struct program *p, bool is_root)
{
    if (p->data != NULL)
        return join(p->data, "mount.log");
    if (is_root)
        return xstrdup("/var/log/holdfast-mount.log");
    char *state = options_data_default(false, getenv("XDG_STATE_HOME"), getenv("HOME"));
    char *log = state != NULL ? join(state, "mount.log") : NULL;
    free(state);
    return log;
}

static int complain(const char *what, const char *path)
{
    (void)fprintf(stderr, "mount.holdfast: %s: %s: %s\n", path, what, strerror(errno));
    return DAEMON_EXIT_MOUNT;
}

/* Return: 0 or an exit status. */
static int find_paths(struct program *p, bool is_root)
{
    const struct options *o = &p->options;
    p->dir = host_mount_point(o->dir);
    if (p->dir == NULL)
        return complain("no such mount point", o->dir);
    if (o->is_local) {
        char *chosen = o->data != NULL ? xstrdup(o->data)
                                       : options_data_default(is_root, getenv("XDG_STATE_HOME"),
                                                              getenv("HOME"));
        p->data = chosen != NULL ? absolute(chosen) : NULL;
        free(chosen);
        if (p->data == NULL) {
            (void)fprintf(stderr, "mount.holdfast: no home directory: say -o data=DIR\n");
            return EXIT_USAGE;
        }
    }
    if (o->tls != NULL)
        p->tls = absolute(o->tls);
    if (o->log != NULL)
        p->log = absolute(o->log);
    else if (!o->foreground)
        p->log = default_log(p, is_root);
    return 0;
}

/* Parent: wait until the daemon says that the mount is usable, or why not. */
static int wait_for_daemon(int fd, pid_t child)
{
    char text[1024];
    size_t used = 0;
    ssize_t n;
    while (used < sizeof text - 1 &&
           ((n = read(fd, text + used, sizeof text - 1 - used)) > 0 || (n < 0 && errno == EINTR)))
        used += n > 0 ? (size_t)n : 0;
    text[used] = '\0';
    if (used > 0 && text[0] == '+')
        return 0;
    (void)fprintf(stderr, "mount.holdfast: %s\n",
                  used > 1 ? text + 1 : "the daemon died at its start");
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return DAEMON_EXIT_MOUNT;
}

/* "+" for a usable mount; "-" and a sentence.  Then the parent has nothing to wait for. */
static void on_ready(void *arg, const char *sentence)
{
    struct program *p = arg;
    if (p->ready_fd < 0) {
        if (sentence != NULL)
            (void)dprintf(p->error_fd, "mount.holdfast: %s\n", sentence);
        return;
    }
    struct buf text = BUF_INIT;
    buf_printf(&text, "%s%s", sentence != NULL ? "-" : "+", sentence != NULL ? sentence : "");
    ssize_t n = write(p->ready_fd, text.data, text.size);
    (void)n; /* A parent that was killed does not want to know. */
    buf_deinit(&text);
    (void)close(p->ready_fd);
    p->ready_fd = -1;
}

static int redirect(int target, const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int r = dup2(fd, target) < 0 ? -errno : 0;
    (void)close(fd);
    return r;
}

static int open_log(struct program *p)
{
    if (p->log == NULL)
        return 0;
    char *slash = strrchr(p->log, '/');
    if (slash != p->log) {
        *slash = '\0';
        int r = host_make_directory(p->log);
        *slash = '/';
        if (r < 0) {
            errno = -r;
            return complain("can't make its directory", p->log);
        }
    }
    int r = redirect(STDERR_FILENO, p->log, O_WRONLY | O_CREAT | O_APPEND);
    if (r < 0) {
        errno = -r;
        return complain("can't be opened for the log", p->log);
    }
    return 0;
}

static int run(struct program *p)
{
    struct daemon_config config = {
        .options = &p->options,
        .dir = p->dir,
        .data = p->data,
        .tls = p->tls,
        .on_ready = on_ready,
        .arg = p,
    };
    if (chdir("/") < 0)
        return complain("can't go there", "/");
    (void)umask(022);
    (void)signal(SIGPIPE, SIG_IGN);
    return daemon_run(&config);
}

/* Close what was inherited: a descriptor of somebody's pipe must not live as long as a mount. */
static void close_inherited(int keep)
{
    if (keep > STDERR_FILENO + 1)
        (void)close_range(STDERR_FILENO + 1, (unsigned)keep - 1, 0);
    (void)close_range((unsigned)keep + 1, ~0u, 0);
}

static int run_in_background(struct program *p)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return complain("failed", "pipe2");
    pid_t child = fork();
    if (child < 0)
        return complain("failed", "fork");
    if (child > 0) {
        (void)close(fds[1]);
        return wait_for_daemon(fds[0], child);
    }
    (void)setsid(); /* A fresh child leads no group, so this can't fail. */
    close_inherited(fds[1]);
    p->ready_fd = fds[1];
    if (p->log == NULL)
        p->log = xstrdup("/dev/null");
    int status = open_log(p);
    if (status != 0) {
        on_ready(p, "the log file can't be opened (say -o log=FILE)");
        return status;
    }
    if (redirect(STDIN_FILENO, "/dev/null", O_RDONLY) < 0 ||
        redirect(STDOUT_FILENO, "/dev/null", O_WRONLY) < 0) {
        on_ready(p, "/dev/null can't be opened");
        return DAEMON_EXIT_MOUNT;
    }
    return run(p);
}

static int run_in_foreground(struct program *p)
{
    p->error_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int status = open_log(p);
    return status != 0 ? status : run(p);
}

int main(int argc, char **argv)
{
    struct program p = {.ready_fd = -1, .error_fd = STDERR_FILENO};
    bool is_root = geteuid() == 0;
    char *sentence = NULL;
    memory_init();
    if (options_parse(argc, argv, is_root, &p.options, &sentence) < 0) {
        (void)fprintf(stderr, "mount.holdfast: %s\n", sentence);
        free(sentence);
        return EXIT_USAGE;
    }
    int status = 0;
    if (p.options.help)
        (void)fputs(options_usage, stdout);
    else if (p.options.version)
        (void)puts("mount.holdfast " HOLDFAST_VERSION);
    else {
        log_set_level(p.options.log_level);
        status = find_paths(&p, is_root);
        if (status == 0)
            status = p.options.foreground ? run_in_foreground(&p) : run_in_background(&p);
    }
    options_deinit(&p.options);
    free(p.dir);
    free(p.data);
    free(p.tls);
    free(p.log);
    return status;
}
