/* Listening sockets: resolve an address, bind it, listen.
 *
 * A name may have several addresses: all are bound.  Blocking (names are resolved): used at start
 * only. */
#ifndef HOLDFAST_NODE_BIND_H
#define HOLDFAST_NODE_BIND_H

#include "raftstore/base/address.h"

#include <stdbool.h>
#include <uv.h>

#define BIND_SOCKETS_MAX 4

struct bind_set {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } sockets[BIND_SOCKETS_MAX];
    unsigned n_sockets;
    unsigned n_open;
    char unix_path[ADDRESS_HOST_BYTES_MAX + 1]; /* To be unlinked; "" = none. */
    void (*closed)(void *arg);
    void *arg;
};

/* Listen on an address; `set` must be zeroed.  handle.data of each socket becomes `arg`.
 *
 * @insecure: plain TCP is allowed beyond loopback.
 * @on_connection: libuv's callback; accept with uv_accept(server, ...).
 * @ret_sentence: on failure: malloc()ed.
 * Return: 0; -EPERM not loopback; -EADDRINUSE; ...: negative errno (bind_close() is still needed).
 */
int bind_listen(struct bind_set *set,
                uv_loop_t *loop,
                const struct address *address,
                bool insecure,
                uv_connection_cb on_connection,
                void *arg,
                char **ret_sentence);

/* The port of the first socket (after listening on port 0). */
uint16_t bind_port(const struct bind_set *set);

/* Close all; `closed` is called from the loop, or at once if nothing is open. */
void bind_close(struct bind_set *set, void (*closed)(void *arg), void *arg);

#endif
