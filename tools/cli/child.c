/* The command of `holdfast run` as a process.
 *
 * It stays in our process group, as under env(1) or flock(1), so that pipelines, the terminal and
 * the shell's job control see no difference: Ctrl-C and Ctrl-Z reach it from the terminal itself.
 * What is sent to us alone is passed on to it.  When it stops for the terminal's sake, we stop, so
 * that the shell sees the job stop; when it is stopped by SIGSTOP we go on keeping its locks. */
#include "run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define PASSES_MAX 16 /* Rounds of signalling descendants, which may make new ones meanwhile. */

/* Those that go on to the command. */
static const int forwarded[] = {SIGTERM, SIGINT,  SIGHUP,  SIGQUIT,
                                SIGUSR1, SIGUSR2, SIGCONT, SIGTSTP};
#define N_FORWARDED (sizeof forwarded / sizeof forwarded[0])

/* Those that this process sets for itself; as in child.old. */
static const int changed[] = {SIGCHLD, SIGPIPE, SIGTTIN, SIGTTOU};
#define N_CHANGED (sizeof changed / sizeof changed[0])

/* ---- Signals of ours -------------------------------------------------------------------- */

/* SIGSTOP comes back when we are continued; SIGCONT is then read like any other signal. */
static void stop_self(void)
{
    (void)raise(SIGSTOP);
}

static bool is_terminal_stop(int number)
{
    return number == SIGTSTP || number == SIGTTIN || number == SIGTTOU;
}

/* Ours, and the descendants that lost their parents. */
static void reap(struct child *c)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0) {
        if (pid != c->pid)
            continue;
        if (WIFSTOPPED(status)) {
            if (is_terminal_stop(WSTOPSIG(status)))
                stop_self();
            continue;
        }
        c->ended = true;
        c->status = status;
    }
}

/* The terminal, and who signals the whole group, have reached the command already. */
static bool must_pass_on(const struct child *c, const struct signalfd_siginfo *info)
{
    bool from_kernel = info->ssi_code > 0;
    if (info->ssi_pid == (uint32_t)c->pid)
        return false; /* It tells us what it knows. */
    return !from_kernel || getpgid(c->pid) != getpgrp();
}

static void on_one(struct child *c, const struct signalfd_siginfo *info)
{
    int number = (int)info->ssi_signo;
    bool runs = c->pid != 0 && !c->ended;
    if (number == SIGCHLD) {
        reap(c);
    } else if (number == SIGCONT) {
        c->callbacks.on_continue(c->callbacks.arg);
        if (runs)
            (void)kill(c->pid, SIGCONT);
    } else if (runs) {
        if (must_pass_on(c, info))
            (void)kill(c->pid, number);
    } else if (number == SIGTSTP) {
        stop_self();
    } else {
        c->callbacks.on_signal(c->callbacks.arg, number);
    }
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct child *c = poll->data;
    struct signalfd_siginfo info;
    (void)status; /* Reading tells. */
    (void)events;
    while (read(c->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
        on_one(c, &info);
    uv_stop(c->loop);
}

int child_init(struct child *c,
               uv_loop_t *loop,
               const struct child_callbacks *callbacks,
               const struct sigaction *old_pipe)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN}, normal = {.sa_handler = SIG_DFL}, old;
    sigset_t set;
    *c = (struct child){.callbacks = *callbacks, .loop = loop, .error_fd = -1};
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD);
    for (size_t i = 0; i < N_FORWARDED; i++) {
        /* What is ignored (nohup, a shell's background) stays so, for the command too. */
        (void)sigaction(forwarded[i], NULL, &old);
        if (old.sa_handler != SIG_IGN)
            (void)sigaddset(&set, forwarded[i]);
    }
    for (size_t i = 0; i < N_CHANGED; i++)
        (void)sigaction(changed[i], changed[i] == SIGCHLD ? &normal : &ignore, &c->old[i]);
    c->old[1] = *old_pipe; /* Ignored since the program's start. */
    if (sigprocmask(SIG_BLOCK, &set, &c->old_mask) < 0)
        return -errno;
    c->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (c->signal_fd < 0)
        return -errno;
    int rc = uv_poll_init(loop, &c->poll, c->signal_fd);
    if (rc < 0) {
        (void)close(c->signal_fd);
        return rc;
    }
    c->poll.data = c;
    uv_unref((uv_handle_t *)&c->poll); /* The loop goes on for the client's sake. */
    return uv_poll_start(&c->poll, UV_READABLE, on_readable);
}

void child_deinit(struct child *c)
{
    uv_close((uv_handle_t *)&c->poll, NULL);
    (void)uv_run(c->loop, UV_RUN_NOWAIT);
    (void)close(c->signal_fd);
    if (c->error_fd >= 0)
        (void)close(c->error_fd);
}

/* ---- The command ------------------------------------------------------------------------ */

/* After fork(): only what may be done between it and exec. */
static void become(const struct child *c, char **command, pid_t parent, int error_fd)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
        _exit(EXIT_OS);
    for (size_t i = 0; i < N_CHANGED; i++)
        (void)sigaction(changed[i], &c->old[i], NULL);
    (void)sigprocmask(SIG_SETMASK, &c->old_mask, NULL);
    (void)execvp(command[0], command);
    int error = errno;
    (void)!write(error_fd, &error, sizeof error); /* Else the exit code has to do. */
    _exit(error == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE);
}

int child_start(struct child *c, char **command)
{
    int fds[2];
    pid_t parent = getpid();
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 || pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid < 0) {
        int error = errno;
        (void)close(fds[0]);
        (void)close(fds[1]);
        return -error;
    }
    if (pid == 0)
        become(c, command, parent, fds[1]);
    (void)close(fds[1]);
    c->error_fd = fds[0];
    c->pid = pid;
    return 0;
}

int child_exec_error(const struct child *c)
{
    int error;
    return read(c->error_fd, &error, sizeof error) == (ssize_t)sizeof error ? -error : 0;
}

int child_exit_code(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* ---- Its descendants -------------------------------------------------------------------- */

struct process {
    pid_t pid;
    pid_t parent;
    bool below; /* Descends from us. */
};

struct processes {
    struct process *list; /* Owned. */
    size_t n;
};

static pid_t parent_of(pid_t pid)
{
    char name[64], text[512];
    (void)snprintf(name, sizeof name, "/proc/%ld/stat", (long)pid);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        (void)close(fd);
    if (n <= 0)
        return -1;
    text[n] = '\0';
    const char *behind = strrchr(text, ')'); /* A program's name may hold anything. */
    int parent;
    return behind != NULL && sscanf(behind + 1, " %*c %d", &parent) == 1 ? parent : -1;
}

static void list_processes(struct processes *all)
{
    DIR *proc = opendir("/proc");
    const struct dirent *e;
    size_t n_alloc = 0;
    uint64_t pid;
    *all = (struct processes){0};
    while (proc != NULL && (e = readdir(proc)) != NULL) {
        if (text_number(e->d_name, &pid) < 0 || pid > INT32_MAX)
            continue;
        if (all->n == n_alloc) {
            n_alloc = n_alloc == 0 ? 256 : 2 * n_alloc;
            all->list = xrealloc(all->list, n_alloc * sizeof *all->list);
        }
        all->list[all->n++] = (struct process){(pid_t)pid, parent_of((pid_t)pid), false};
    }
    if (proc != NULL)
        (void)closedir(proc);
}

static int by_pid(const void *a, const void *b)
{
    const struct process *x = a, *y = b;
    return (x->pid > y->pid) - (x->pid < y->pid);
}

static bool is_below(const struct processes *all, pid_t pid)
{
    const struct process key = {.pid = pid};
    const struct process *p =
        all->n == 0 ? NULL : bsearch(&key, all->list, all->n, sizeof key, by_pid);
    return p != NULL && p->below;
}

/* Mark those that descend from this process. */
static void mark_below(struct processes *all)
{
    bool again = all->n > 0;
    if (again)
        qsort(all->list, all->n, sizeof *all->list, by_pid);
    while (again) {
        again = false;
        for (size_t i = 0; i < all->n; i++) {
            struct process *p = &all->list[i];
            bool below = p->pid != getpid() &&
                         (p->parent == getpid() || (!p->below && is_below(all, p->parent)));
            again |= below && !p->below;
            p->below |= below;
        }
    }
}

/* Round by round, until there are none that were not there before. */
void child_signal_all(const struct child *c, int number)
{
    struct processes told = {0};
    bool again = true;
    if (!c->ended)
        (void)kill(c->pid, number);
    for (unsigned i = 0; again && i < PASSES_MAX; i++) {
        struct processes now;
        again = false;
        list_processes(&now);
        mark_below(&now);
        for (size_t k = 0; k < now.n; k++) {
            const struct process *p = &now.list[k];
            if (!p->below || p->pid == c->pid || is_below(&told, p->pid))
                continue;
            (void)kill(p->pid, number);
            again = true;
        }
        free(told.list);
        told = now;
    }
    free(told.list);
}
