/* One connection to one node: resolve, connect, exchange hellos, frames in and out.
 *
 * No policy: which node, when to try again and what to send is decided above (route.h and
 * further).  Frames are collected and written once per turn of the loop.  Threading: the loop's. */
#ifndef HOLDFAST_CLIENT_CONN_H
#define HOLDFAST_CLIENT_CONN_H

#include "raftstore/base/address.h"
#include "raftstore/base/buf.h"
#include "raftstore/base/clock.h"
#include "raftstore/tls/tls.h"
#include "raftstore/wire/pack.h"

#include <uv.h>

struct client_conn;

/* All called from the loop, never from inside a function below. */
struct client_conn_handler {
    void (*on_wake)(void *arg); /* Before anything else of a wake-up is looked at. */
    /* The node's hello came: it is ready for requests. */
    void (*on_hello)(void *arg, const Hf__NodeHello *hello);
    /* A message, until return. client_conn_close() may be called from within. */
    void (*on_frame)(void *arg, const Hf__NodeFrame *frame);
    /* The connection is over and frees itself: drop the pointer.  `text`: why, for people. Not
     * called after client_conn_close(). */
    void (*on_lost)(void *arg, int error, const char *text);
    /* Its memory is gone; comes last, always, with client_conn_config.freed_arg. */
    void (*on_freed)(void *arg);
};

struct client_conn_config {
    uv_loop_t *loop;
    const struct clock *clock;
    const struct address *address; /* Copied. */
    const char *agent;             /* Lives as long as the connection. */
    const char *host;              /* Likewise. */
    uint64_t connect_timeout_ms;   /* For resolving, connecting and the hello together. */
    struct tls_context *tls;       /* NULL = in the clear; else a reference is taken. */
    struct arena *arena;           /* For messages while they are looked at. */
    const struct client_conn_handler *handler;
    void *arg;
    void *freed_arg;
};

/* Start connecting.  Always succeeds: what goes wrong comes as on_lost. */
struct client_conn *client_conn_new(const struct client_conn_config *config);

/* Close; no callback but on_freed follows. */
void client_conn_close(struct client_conn *k);

/* Where frames are to be appended (frame_begin() ...); they are written before the loop waits the
 * next time. */
struct buf *client_conn_out(struct client_conn *k);

/* Has the node's hello come? */
bool client_conn_ready(const struct client_conn *k);

/* Is anything of what was appended not yet given to the kernel? */
size_t client_conn_backlog_bytes(const struct client_conn *k);

/* When something was last received (connected: the hello); mono_ns. */
uint64_t client_conn_heard_mono_ns(const struct client_conn *k);

#endif
