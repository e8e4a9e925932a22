/* libmicrohttpd on a libuv loop, without a thread.
 *
 * A daemon in external epoll mode has one epoll descriptor of its own; the loop watches it, and
 * MHD_run() is called behind each turn in which it had events.  It never blocks.
 *
 *     http_listen()  ->  MHD_start_daemon(... MHD_USE_EPOLL, MHD_OPTION_LISTEN_SOCKET ...)
 *     http_loop_start()
 *     http_loop_due() whenever a connection was resumed
 *     http_loop_close()
 *
 * All on the loop's thread. */
#ifndef HOLDFAST_TELEMETRY_HTTP_LOOP_H
#define HOLDFAST_TELEMETRY_HTTP_LOOP_H

#include "raftstore/base/address.h"

#include <microhttpd.h>
#include <uv.h>

struct http_loop {
    struct MHD_Daemon *mhd;
    uv_poll_t poll;   /* On MHD's epoll descriptor. */
    uv_check_t check; /* MHD_run() behind each turn with work for it. */
    uv_idle_t idle;   /* Keeps the loop from sleeping while MHD has more to do. */
    bool due;         /* MHD has work. */
    bool closed;      /* http_loop_close() was called. */
    unsigned n_handles;
    void (*on_closed)(void *arg);
    void *arg;
};

/* A listening socket, not blocking; a name is resolved here and now (at start only).
 *
 * @insecure: other addresses than loopback are allowed.
 * @remedy: the option that allows them, for the sentence.
 * @ret_address: 300 bytes: where it listens, with the port that was found for port 0.
 * @ret_sentence: on failure malloc()ed: what went wrong, and what to do.
 * Return: the descriptor, the caller's; -EPERM not loopback; negative errno. */
int http_listen(const struct address *address,
                bool insecure,
                const char *remedy,
                char *ret_address,
                char **ret_sentence);

/* Serve `mhd` on the loop; hl is zeroed.
 *
 * Return: 0; negative errno: libmicrohttpd has no epoll descriptor. */
int http_loop_start(struct http_loop *hl, uv_loop_t *loop, struct MHD_Daemon *mhd);

/* MHD has something to do: in this turn or the next.  Nothing once it is closed (MHD tells of
 * connections that it ends while it is stopped). */
void http_loop_due(struct http_loop *hl);

/* Do now what is to be done. */
void http_loop_run(struct http_loop *hl);

/* Stop watching; the daemon may be stopped at once.  `cb` comes from the loop. */
void http_loop_close(struct http_loop *hl, void (*cb)(void *arg), void *arg);

#endif
