/* HTTP: libmicrohttpd on the libuv loop, and what protects it from slow and dead clients.
 *
 * libmicrohttpd runs in its external epoll mode: its epoll descriptor is watched by the loop, and
 * MHD_run() is called behind each turn in which something happened.  All of its own time-outs are
 * off; the limits are here:
 *
 *     fresh      from accept to the first head (the TLS handshake included)
 *     idle       from one answer to the next head
 *     body       from a head to the end of its body
 *     working    no limit: the handlers bound themselves
 *     answering  from an answer to its last byte
 *
 * A connection over its limit is shut down.  When nearly as many are open as may be, the oldest
 * fresh or idle one makes room, else the one that is slowest to send its body or to take its
 * answer. A peer that vanished is found by TCP keepalive. */
#ifndef HOLDFAST_GATEWAY_SERVER_H
#define HOLDFAST_GATEWAY_SERVER_H

#include "gateway/gateway.h"

struct call;
struct conn;
struct server;

/* Listen and serve.
 *
 * @ret_sentence: owned; set on failure: what went wrong.
 * Return: 0; negative errno. */
int server_new(struct gateway *gw, struct server **ret, char **ret_sentence);

/* "127.0.0.1:8080": where it listens. */
const char *server_address(const struct server *s);

/* Accept nothing more; close what is idle. */
void server_drain(struct server *s);

/* Open connections. */
unsigned server_n_connections(const struct server *s);

/* Close whatever is left and free it all; `cb` comes from the loop. */
void server_close(struct server *s, void (*cb)(void *arg), void *arg);

/* For call.c and streams.c: leave a connection alone until conn_resume(), and watch it for the
 * client's hang-up meanwhile; that ends in call_gone(). */
void conn_suspend(struct conn *c);
void conn_resume(struct conn *c);

/* Whose it is, for limits: valid as long as it is open. */
struct bytes conn_peer(const struct conn *c);

/* End it now: what it waits for is not worth waiting for. */
void conn_shut(struct conn *c);

#endif
