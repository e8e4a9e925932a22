#include "raftstore/node/wakeup.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "raftstore/base/buf.h"

struct wakeup {
    uv_poll_t poll;
    int fd;
    atomic_bool sent; /* And the loop has not begun to deal with it. */
    void (*cb)(void *arg);
    void *arg;
};

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct wakeup *w = handle->data;
    uint64_t n;
    (void)status; /* An eventfd has no error states. */
    (void)events;
    if (read(w->fd, &n, sizeof n) < 0)
        return; /* EAGAIN, EINTR: the poll will tell again. */
    /* Before the callback looks at what there is: who adds to it from here on writes anew. */
    (void)atomic_exchange(&w->sent, false); /* Sees what was done before the last send. */
    w->cb(w->arg);
}

int wakeup_new(uv_loop_t *loop, void (*cb)(void *arg), void *arg, struct wakeup **ret_wakeup)
{
    struct wakeup *w = xcalloc(1, sizeof *w);
    w->cb = cb;
    w->arg = arg;
    w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rv = w->fd < 0 ? -errno : uv_poll_init(loop, &w->poll, w->fd);
    if (rv < 0) {
        if (w->fd >= 0)
            (void)close(w->fd);
        free(w);
        return rv;
    }
    w->poll.data = w;
    rv = uv_poll_start(&w->poll, UV_READABLE, on_poll);
    assert(rv == 0); /* Fails only for a handle that is being closed. */
    *ret_wakeup = w;
    return 0;
}

void wakeup_send(struct wakeup *w)
{
    static const uint64_t one = 1;
    if (atomic_exchange(&w->sent, true))
        return;
    ssize_t n = write(w->fd, &one, sizeof one);
    assert(n == sizeof one); /* It can't be full: one is written for each that was read. */
}

static void on_closed(uv_handle_t *handle)
{
    struct wakeup *w = handle->data;
    (void)close(w->fd);
    free(w);
}

void wakeup_free(struct wakeup *w)
{
    if (w != NULL)
        uv_close((uv_handle_t *)&w->poll, on_closed);
}
