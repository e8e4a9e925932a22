/* Dial an address: resolve the name (each time: addresses change), try each address in turn.
 *
 * IPv4, IPv6 and Unix sockets; names are resolved in the worker pool.  On the loop's thread. */
#ifndef HOLDFAST_NODE_DIAL_H
#define HOLDFAST_NODE_DIAL_H

#include "raftstore/base/address.h"
#include "raftstore/node/stream.h"

struct dial;

/* Start.
 *
 * @timeout_ms: for each address that the name has.
 * @cb: called once, from the loop: status 0 and a connected stream that is the callee's to start
 *      and close; or a libuv error of the last address tried, and NULL.
 * Return: never NULL; valid until cb is called or dial_cancel(). */
struct dial *dial_start(struct stream_hub *hub,
                        const struct address *address,
                        unsigned timeout_ms,
                        void (*cb)(void *arg, int status, struct stream *s),
                        void *arg);

/* Give up; cb is not called. NULL is accepted. */
void dial_cancel(struct dial *d);

/* Resolve a literal without asking anybody.
 *
 * Return: true and *ret filled when `address` is an IPv4 or IPv6 literal. */
bool dial_literal(const struct address *address, struct sockaddr_storage *ret);

#endif
