/* One alarm on CLOCK_BOOTTIME that wakes a loop: a timerfd on libuv.
 *
 * What boot_timer.h needs of the operating system, apart so that the simulation can put its own
 * in the place of boot_alarm.c.  One thread: the loop's. */
#ifndef HOLDFAST_CLIENT_BOOT_ALARM_H
#define HOLDFAST_CLIENT_BOOT_ALARM_H

#include <stdint.h>
#include <uv.h>

struct boot_alarm {
    uv_poll_t poll; /* On the timerfd. */
    int fd;
    void (*on_alarm)(void *arg); /* From the loop; the alarm is unset then. */
    void (*on_closed)(void *arg);
    void *arg;
};

/* Return: 0; negative errno of timerfd_create() or uv_poll_init(). */
int boot_alarm_init(struct boot_alarm *a, uv_loop_t *loop, void (*on_alarm)(void *arg), void *arg);

/* Go off in `left_ns` of CLOCK_BOOTTIME (at least 1), instead of when it was set to before. */
void boot_alarm_set(struct boot_alarm *a, uint64_t left_ns);

/* Close; `on_closed` comes from the loop, with the argument of boot_alarm_init(). */
void boot_alarm_close(struct boot_alarm *a, void (*on_closed)(void *arg));

#endif
