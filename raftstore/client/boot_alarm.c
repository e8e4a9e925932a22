#include "raftstore/client/boot_alarm.h"

#include "raftstore/base/clock.h"

#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

static void on_fd(uv_poll_t *poll, int status, int events)
{
    struct boot_alarm *a = poll->data;
    uint64_t n;
    (void)status;
    (void)events;
    if (read(a->fd, &n, sizeof n) == (ssize_t)sizeof n) /* Else EAGAIN: moved meanwhile. */
        a->on_alarm(a->arg);
}

int boot_alarm_init(struct boot_alarm *a, uv_loop_t *loop, void (*on_alarm)(void *arg), void *arg)
{
    *a = (struct boot_alarm){.fd = -1, .on_alarm = on_alarm, .arg = arg};
    int fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = uv_poll_init(loop, &a->poll, fd);
    if (rc < 0) {
        (void)close(fd);
        return rc;
    }
    a->fd = fd;
    a->poll.data = a;
    (void)uv_poll_start(&a->poll, UV_READABLE, on_fd); /* A fresh, open handle. */
    return 0;
}

void boot_alarm_set(struct boot_alarm *a, uint64_t left_ns)
{
    if (left_ns == 0)
        left_ns = 1; /* 0 would disarm it. */
    struct itimerspec spec = {.it_value = {.tv_sec = (time_t)(left_ns / NS_PER_S),
                                           .tv_nsec = (long)(left_ns % NS_PER_S)}};
    if (left_ns / NS_PER_S > UINT32_MAX)
        spec.it_value.tv_sec = UINT32_MAX;
    (void)timerfd_settime(a->fd, 0, &spec, NULL); /* Fails only for bad arguments. */
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct boot_alarm *a = handle->data;
    (void)close(a->fd);
    a->on_closed(a->arg);
}

void boot_alarm_close(struct boot_alarm *a, void (*on_closed)(void *arg))
{
    a->on_closed = on_closed;
    uv_close((uv_handle_t *)&a->poll, on_poll_closed);
}
