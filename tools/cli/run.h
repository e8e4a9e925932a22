/* `holdfast run`: what its files tell each other.
 *
 *     place.c    a file name -> the mount it is on, and the lock's name there
 *     child.c    the command as a process: signals, job control, its descendants
 *     run.c      acquire, run, watch the session, release */
#ifndef HOLDFAST_TOOLS_CLI_RUN_H
#define HOLDFAST_TOOLS_CLI_RUN_H

#include "cli.h"

#include <signal.h>
#include <sys/types.h>

/* ---- place.c ---------------------------------------------------------------------------- */

struct place {
    char *root;    /* The mount's root. */
    char *path;    /* Below it: the lock's name. */
    char *cluster; /* Addresses. */
};

/* Where is this file?  It need not exist.  Symbolic links on the way are followed, up to the mount;
 * in the mount only one that stands in the place of a lock is none.
 *
 * Return: EXIT_DONE; EXIT_NOT_HOLDFAST, EXIT_AWAY, EXIT_NOT_ALLOWED (who may not write to its
 * directory can't lock in it) or EXIT_USAGE with a sentence printed. */
int place_find(const char *argument, struct place *ret);
void place_deinit(struct place *p);

/* `name` as seen from `directory`, without "." and empty components; NULL if it has a ".." (its
 * meaning depends on what exists).  malloc()ed. */
char *place_join(const char *directory, const char *name);

/* ---- child.c ---------------------------------------------------------------------------- */

struct child_callbacks {
    void (*on_signal)(void *arg, int number); /* One to end by, before the command was started. */
    void (*on_continue)(void *arg);           /* We were stopped: what has changed meanwhile? */
    void *arg;
};

/* The command, and the signals of this process: they are blocked and read from a descriptor. */
struct child {
    struct child_callbacks callbacks;
    uv_loop_t *loop;
    uv_poll_t poll;
    int signal_fd;
    sigset_t old_mask;
    struct sigaction old[4]; /* Of what this process changes for itself. */
    pid_t pid;               /* 0: not started yet. */
    int error_fd;            /* Says why it could not be executed. */
    bool ended;
    int status; /* As of waitpid(). */
};

/* Take over the signals.  To be called while there is one thread.
 *
 * @old_pipe: what SIGPIPE did when the program was started.
 * Return: 0; negative errno. */
int child_init(struct child *c,
               uv_loop_t *loop,
               const struct child_callbacks *callbacks,
               const struct sigaction *old_pipe);

/* Start the command in this process group, with the signals as this program found them; it is
 * killed when this process dies first.  Return: 0; negative errno: no process could be made. */
int child_start(struct child *c, char **command);

/* Could it be executed?  After its end.  Return: 0; negative errno. */
int child_exec_error(const struct child *c);

/* Signal it and all its descendants, also those whose parents have ended. */
void child_signal_all(const struct child *c, int number);

/* Close; it must have ended, or not have been started. */
void child_deinit(struct child *c);

/* Exit status for a shell: its own, or 128 + the signal that ended it. */
int child_exit_code(int status);

#endif
