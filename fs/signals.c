#include "fs/signals.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct signals *s = poll->data;
    struct signalfd_siginfo info;
    (void)status; /* The read tells as well. */
    (void)events;
    if (s->fd >= 0 && read(s->fd, &info, sizeof info) == (ssize_t)sizeof info)
        s->on_signal(s->arg, (int)info.ssi_signo);
}

int signals_open(struct signals *s,
                 uv_loop_t *loop,
                 void (*on_signal)(void *arg, int number),
                 void *arg)
{
    sigset_t set;
    (void)sigemptyset(&set); /* These fail only for numbers that are no signal's. */
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    *s = (struct signals){.fd = -1, .on_signal = on_signal, .arg = arg};
    int r = -pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (r < 0)
        return r;
    s->fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (s->fd < 0)
        return -errno;
    r = uv_poll_init(loop, &s->poll, s->fd);
    if (r < 0) {
        (void)close(s->fd);
        s->fd = -1;
        return r;
    }
    s->poll.data = s;
    return uv_poll_start(&s->poll, UV_READABLE, on_readable); /* Fails only on a closing handle. */
}

void signals_close(struct signals *s)
{
    if (s->fd < 0)
        return;
    uv_close((uv_handle_t *)&s->poll, NULL); /* Stops polling at once; the descriptor is ours. */
    (void)close(s->fd);
    s->fd = -1;
}
