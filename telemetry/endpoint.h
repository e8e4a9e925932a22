/* What a daemon tells of itself over HTTP: /metrics, /healthz and /readyz.
 *
 * For daemons whose business is not HTTP (holdfastd, mount.holdfast), on their own libuv loop.
 * GET and HEAD only, no tokens, in the clear: it is for loopback, or for a network that is trusted.
 *
 *     /metrics   200, Prometheus' text format 0.0.4
 *     /healthz   200 as long as the loop turns
 *     /readyz    200, or 503 with the reason as a line of text
 *
 * A connection serves one request and lives for ENDPOINT_LIFE_MS at most; when as many are open as
 * may be, the oldest goes.  What needs files (/proc) is read on the loop's thread pool, so a
 * request costs the loop what config.metrics costs, and some tens of microseconds. */
#ifndef HOLDFAST_TELEMETRY_ENDPOINT_H
#define HOLDFAST_TELEMETRY_ENDPOINT_H

#include "raftstore/base/address.h"
#include "raftstore/base/buf.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define ENDPOINT_CONNECTIONS_MAX 32u
#define ENDPOINT_LIFE_MS         UINT64_C(10000)

struct endpoint;

struct endpoint_config {
    uv_loop_t *loop;
    struct address address; /* Where to listen; port 0: any that is free. */
    bool insecure;          /* Beyond loopback, too. */
    const char *remedy;     /* The option that allows that, for a sentence. */
    const char *data;       /* Tell of the file system that this directory is on; NULL: of none. */
    const char *component;  /* "node", "mount": for holdfast_build_info. */
    /* Append the metrics, but for those of the process. */
    void (*metrics)(void *arg, struct buf *out);
    /* NULL: ready; else why not, in a few words that live until the next turn. */
    const char *(*unready)(void *arg);
    void *arg;
};

/* Listen and serve.
 *
 * @ret_sentence: on failure malloc()ed: what went wrong, and what to do.
 * Return: 0; -EPERM not loopback and not insecure; other negative errno. */
int endpoint_open(const struct endpoint_config *config,
                  struct endpoint **ret_endpoint,
                  char **ret_sentence);

/* "127.0.0.1:9100": where it listens. */
const char *endpoint_address(const struct endpoint *e);

/* Close whatever is open; the config's functions are not called any more.  `cb` (NULL: none) comes
 * from the loop. */
void endpoint_close(struct endpoint *e, void (*cb)(void *arg), void *arg);

#endif
