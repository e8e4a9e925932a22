/* A way for other threads to wake the loop.
 *
 * What uv_async_t is for, without its wait: when the loop comes to a uv_async_t while the sender is
 * between marking it and having written (and the write is what wakes the loop, often on the
 * sender's own CPU), libuv spins, about 50 us, and then yields the CPU, until the sender has run.
 */
#ifndef HOLDFAST_NODE_WAKEUP_H
#define HOLDFAST_NODE_WAKEUP_H

#include <uv.h>

struct wakeup;

/* @cb: called on the loop after one or more wakeup_send(), which happened before it.
 *
 * Return: 0; a negative errno. */
int wakeup_new(uv_loop_t *loop, void (*cb)(void *arg), void *arg, struct wakeup **ret_wakeup);

/* Any thread, until wakeup_free() is called. */
void wakeup_send(struct wakeup *w);

/* On the loop; cb is not called any more. The memory goes when the loop has let go of it. NULL is
 * fine. */
void wakeup_free(struct wakeup *w);

#endif
