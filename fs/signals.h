/*
 * The signals that end the mount's daemon, or have it read its certificates again, as events of its
 * loop.
 *
 * They are read from a signalfd(2) and stay blocked for as long as the process lives.  libuv's own
 * handles give a signal back its default action when they are closed; one that came then would kill
 * a daemon that is ending its session.
 */
#ifndef FS_SIGNALS_H
#define FS_SIGNALS_H

#include <uv.h>

struct signals {
    uv_poll_t poll;
    int fd; /* -1 when closed. */
    void (*on_signal)(void *arg, int number);
    void *arg;
};

/* Have on_signal(arg) called for SIGTERM, SIGINT and SIGHUP.  They are blocked in this thread and
 * in those that it starts from now on: call this before there are others.  s must stay in place
 * until it is closed and the loop has run once more.
 * Return: 0, or negative errno (then s is as if closed, and the handle not opened). */
int signals_open(struct signals *s,
                 uv_loop_t *loop,
                 void (*on_signal)(void *arg, int number),
                 void *arg);

/* No more calls; what comes from now on is without effect.  May be called again. */
void signals_close(struct signals *s);

#endif
