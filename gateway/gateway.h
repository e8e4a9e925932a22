/* holdfast-gateway: the lock table over HTTP.
 *
 * How it lives.  One thread runs one libuv loop and owns everything.  On that loop live the client
 * library (client.h), libmicrohttpd and the auth layer.  libmicrohttpd has no thread of its own: it
 * runs in its external epoll mode, its epoll descriptor is a uv_poll, MHD_run() is called from the
 * loop (server.h).  A call that waits for the cluster suspends its connection: it costs memory, no
 * thread; while suspended, the gateway itself watches the connection for the client's hang-up.
 *
 * So nothing here may block the loop: no file, no name and no URL is read on it after the start.
 * What the auth layer fetches (a JWKS) it fetches on the loop's thread pool or with libuv I/O, and
 * its functions that a request calls (jwt_verify(), policy_allows(), rate_take()) only compute.
 * A pointer to keys or policy is taken anew for each request and never kept across a return to the
 * loop: a refresh may replace what it points to at any turn.
 *
 * The gateway keeps no state that matters: locks made through it are leases of an owner made from
 * the token's subject and the request's owner_id (owner.h), so that any number of gateways behave
 * as one, and one that dies takes nothing with it. */
#ifndef HOLDFAST_GATEWAY_GATEWAY_H
#define HOLDFAST_GATEWAY_GATEWAY_H

#include "gateway/options.h"
#include "raftstore/client/boot_timer.h"
#include "raftstore/client/client.h"
#include "telemetry/audit.h"
#include "telemetry/otlp.h"

#include <bsd/sys/queue.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct acquire;
struct guard;
struct metrics;
struct server;
struct share;
struct streams;
TAILQ_HEAD(acquire_list, acquire);

/* What was told of a certificate's end. */
struct expiry {
    int64_t told_s; /* When; 0 = nothing yet. */
    bool ended;     /* That it has ended. */
};

struct gateway {
    uv_loop_t *loop;               /* The caller's. */
    const struct options *options; /* Likewise. */
    struct tls_context *tls;       /* For the nodes; NULL = in the clear. */
    struct client *client;         /* Commands and reads; has a session. */
    struct guard *guard;           /* Tokens, policy, rate limits. */
    struct server *server;         /* HTTP. */
    struct streams *streams;       /* Server-sent events. */
    struct metrics *metrics;
    struct share *shares;      /* By subject: calls under way (share.h). */
    uint64_t process_start_ns; /* As it was told first, so that it never moves; 0 = not yet. */
    struct audit *audit;       /* NULL: none. */
    struct spans *spans;       /* NULL: none are made. */
    struct otlp *otlp;         /* Likewise. */
    struct random random;      /* For traces that begin here. */
    struct boot_timers timers;
    struct boot_timer expiry; /* When to look at the certificates' ends again. */
    struct expiry https_expiry, cluster_expiry;
    struct acquire_list acquires;  /* Acquires without an answer of the cluster. */
    bool draining;                 /* No new calls: what was accepted is being finished. */
    unsigned n_commands;           /* Under way at the cluster though their call has ended. */
    void (*on_stopped)(void *arg); /* Behind gateway_stop(), when everything is closed. */
    void *arg;
    uv_timer_t drain; /* While draining: is all finished? */
    uint64_t drain_end_ms;
};

/* Start serving on the loop.
 *
 * @gw: zeroed but for loop, options, on_stopped and arg; all must live until on_stopped().
 * @ret_sentence: owned; set on failure: what went wrong.
 * Return: 0; negative errno, and gateway_stop() cleans up all the same. */
int gateway_start(struct gateway *gw, char **ret_sentence);

/* Accept nothing more, finish what was accepted (what waits for a lock is answered with 503), give
 * back what nobody wants any more, then close everything. */
void gateway_stop(struct gateway *gw);

/* Read what can be read again: certificates, keys, policy; and open the audit file again.  What is
 * bad is logged, and the old one stays. */
void gateway_reload(struct gateway *gw);

#endif
