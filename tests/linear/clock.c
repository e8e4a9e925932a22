/* A preload library that makes a program's clocks wrong.
 *
 * CLOCKIO_FILE  a file of two 64-bit numbers, which a test may change at any moment:
 *                   what is added to the wall clock, in ns;
 *                   by how much CLOCK_MONOTONIC and CLOCK_BOOTTIME run too fast (< 0: too slow), in
 *                   millionths.
 *
 * The file is mapped, so that looking at a clock costs no system call.  Steady clocks never go
 * back and never jump: a change of speed goes on from where they are.  Times of timerfd_settime(2)
 * that are instants are translated back. */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS INT64_C(1000000000)

struct control {
    volatile int64_t wall_ns;
    volatile int64_t rate_ppm;
};

static const struct control *control;

/* Found at their first use: constructors of other libraries look at clocks before ours ran. */
static int real_gettime(clockid_t clock, struct timespec *t)
{
    static int (*f)(clockid_t, struct timespec *);

    if (f == NULL)
        f = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    return f(clock, t);
}

/* How far the steady clocks are ahead: what came together before the last change, and since. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int64_t rate_ppm;
static int64_t since_ns;
static int64_t ahead_ns; /* At since_ns. */

static int64_t true_ns(clockid_t clock)
{
    struct timespec t;

    (void)real_gettime(clock, &t);
    return (int64_t)t.tv_sec * SECOND_NS + t.tv_nsec;
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("CLOCKIO_FILE");
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;

    if (fd < 0)
        return;
    void *p = mmap(NULL, sizeof *control, PROT_READ, MAP_SHARED, fd, 0);
    (void)close(fd);
    since_ns = true_ns(CLOCK_MONOTONIC);
    control = p == MAP_FAILED ? NULL : p;
}

static int64_t ahead(int64_t now)
{
    (void)pthread_mutex_lock(&mutex);
    if (control->rate_ppm != rate_ppm) {
        ahead_ns += (now - since_ns) / 1000 * rate_ppm / 1000;
        since_ns = now;
        rate_ppm = control->rate_ppm;
    }
    int64_t ns = ahead_ns + (now - since_ns) / 1000 * rate_ppm / 1000;
    (void)pthread_mutex_unlock(&mutex);
    return ns;
}

static bool is_steady(clockid_t clock)
{
    return clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE ||
           clock == CLOCK_MONOTONIC_RAW || clock == CLOCK_BOOTTIME;
}

static void add(struct timespec *t, int64_t ns)
{
    ns += (int64_t)t->tv_sec * SECOND_NS + t->tv_nsec;
    if (ns < 0)
        ns = 0;
    t->tv_sec = ns / SECOND_NS;
    t->tv_nsec = ns % SECOND_NS;
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
    int rc = real_gettime(clock, t);

    if (rc < 0 || control == NULL)
        return rc;
    if (is_steady(clock))
        add(t, ahead(true_ns(CLOCK_MONOTONIC)));
    else if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
        add(t, control->wall_ns);
    return rc;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec spec;

    (void)zone;
    (void)clock_gettime(CLOCK_REALTIME, &spec);
    t->tv_sec = spec.tv_sec;
    t->tv_usec = spec.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out)
{
    struct timespec spec;

    (void)clock_gettime(CLOCK_REALTIME, &spec);
    if (out != NULL)
        *out = spec.tv_sec;
    return spec.tv_sec;
}

int timerfd_settime(int fd, int flags, const struct itimerspec *wanted, struct itimerspec *old)
{
    struct itimerspec real = *wanted;
    int (*next)(int, int, const struct itimerspec *, struct itimerspec *) =
        (int (*)(int, int, const struct itimerspec *, struct itimerspec *))dlsym(RTLD_NEXT,
                                                                                 "timerfd_settime");

    if (control != NULL && (flags & TFD_TIMER_ABSTIME) != 0 &&
        (real.it_value.tv_sec != 0 || real.it_value.tv_nsec != 0))
        add(&real.it_value, -ahead(true_ns(CLOCK_MONOTONIC)));
    return next(fd, flags, &real, old);
}
