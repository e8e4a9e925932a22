/* raftstore/client/conn.h over virtual cables, in the place of conn.c. */
#include "raftstore/client/conn.h"

#include "raftstore/wire/frame.h"
#include "tests/sim/cable.h"
#include "tests/sim/site.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct client_conn {
    struct client_conn_config config;
    struct site *site;
    struct cable *cable; /* NULL = closed. */
    struct buf in, out;
    bool ready, closed, flushing;
    uint64_t heard_mono_ns;
    unsigned n_refs; /* Itself until it is closed, and calls on their way. */
};

static void on_free(struct call *call)
{
    struct client_conn *k = call->arg;
    if (--k->n_refs > 0)
        return;
    site_enter(k->site);
    buf_deinit(&k->in);
    buf_deinit(&k->out);
    k->config.handler->on_freed(k->config.freed_arg);
    free(k);
}

static void close_all(struct client_conn *k)
{
    k->closed = true;
    if (k->cable != NULL)
        cable_close(k->cable, CABLE_APP);
    k->cable = NULL;
    world_call(k->site->world, 1000, on_free, k);
}

static void lose(struct client_conn *k, int error)
{
    if (k->closed)
        return;
    close_all(k);
    k->config.handler->on_lost(k->config.arg, error, uv_strerror(error));
}

static void flush(struct client_conn *k)
{
    if (k->cable != NULL && k->out.size > 0)
        cable_send(k->cable, CABLE_APP, bytes_of(k->out.data, k->out.size));
    k->out.size = 0;
}

static void on_flush(struct call *call)
{
    struct client_conn *k = call->arg;
    site_enter(k->site);
    k->flushing = false;
    if (!k->closed)
        flush(k);
    on_free(call);
}

struct buf *client_conn_out(struct client_conn *k)
{
    if (!k->closed && !k->flushing) {
        k->flushing = true;
        k->n_refs++;
        world_call(k->site->world, world_below(k->site->world, 20000), on_flush, k);
    }
    return &k->out;
}

static void on_timeout(struct call *call)
{
    struct client_conn *k = call->arg;
    uint64_t asleep_ns = world_app_asleep_ns(k->site->world, k->site->number);
    uint64_t now_ns = world_now_ns(k->site->world);
    if (!k->closed && !k->ready && asleep_ns > now_ns) {
        world_call(k->site->world, asleep_ns - now_ns, on_timeout, k);
        return;
    }
    if (!k->closed && !k->ready) {
        site_enter(k->site);
        k->config.handler->on_wake(k->config.arg);
        lose(k, UV_ETIMEDOUT);
    }
    on_free(call);
}

static void on_connected(void *arg)
{
    struct client_conn *k = arg;
    Hf__ClientHello hello = HF__CLIENT_HELLO__INIT;
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    hello.version = WIRE_VERSION;
    hello.version_min = WIRE_VERSION_MIN;
    hello.agent = (char *)(uintptr_t)k->config.agent;
    hello.host = (char *)(uintptr_t)k->config.host;
    frame.body_case = HF__CLIENT_FRAME__BODY_HELLO;
    frame.hello = &hello;
    pack_add_frame(client_conn_out(k), &frame.base);
}

static void take_frame(struct client_conn *k, const Hf__NodeFrame *frame)
{
    if (k->ready) {
        k->config.handler->on_frame(k->config.arg, frame);
    } else if (frame->body_case == HF__NODE_FRAME__BODY_HELLO) {
        k->ready = true;
        k->config.handler->on_hello(k->config.arg, frame->hello);
    } else {
        lose(k, UV_EPROTO);
    }
}

static void on_bytes(void *arg, struct bytes bytes)
{
    struct client_conn *k = arg;
    struct bytes body;
    size_t at = 0, size;
    int rv = 1;
    site_enter(k->site);
    k->n_refs++; /* Whatever is called may close it. */
    k->config.handler->on_wake(k->config.arg);
    if (!k->closed) {
        k->heard_mono_ns = clock_mono_ns(k->config.clock);
        buf_add(&k->in, bytes.data, bytes.size);
    }
    while (!k->closed && rv == 1) {
        struct bytes rest = bytes_of(k->in.data + at, k->in.size - at);
        rv = frame_parse(rest, FRAME_NODE_BYTES_MAX, &body, &size);
        if (rv != 1)
            break;
        ProtobufCMessage *m = pack_parse(k->config.arena, &hf__node_frame__descriptor, body);
        if (m == NULL)
            rv = -EPROTO;
        else
            take_frame(k, (const Hf__NodeFrame *)m);
        arena_reset(k->config.arena);
        at += size;
    }
    buf_consume(&k->in, at);
    if (rv < 0)
        world_fail(k->site->world, "a node sends what is no message");
    k->n_refs--; /* A closed one is freed by its call. */
}

static void on_cable_lost(void *arg, int error)
{
    struct client_conn *k = arg;
    k->cable = NULL;
    site_enter(k->site);
    k->config.handler->on_wake(k->config.arg);
    lose(k, error);
}

static const struct cable_ops ops = {
    .connected = on_connected, .bytes = on_bytes, .lost = on_cable_lost};

struct client_conn *client_conn_new(const struct client_conn_config *config)
{
    struct client_conn *k = xcalloc(1, sizeof *k);
    k->config = *config;
    k->site = config->loop->data;
    /* Node N is at "nN:2". */
    unsigned long number = strtoul(config->address->host + 1, NULL, 10);
    k->n_refs = 2; /* The time-out. */
    k->cable = cable_connect(k->site->world, k->site->number, (unsigned)number - 1, &ops, k);
    world_call(k->site->world,
               sim_clock_delay_ns(&k->site->clock, config->connect_timeout_ms * NS_PER_MS),
               on_timeout, k);
    return k;
}

void client_conn_close(struct client_conn *k)
{
    if (k->closed)
        return;
    flush(k); /* Last words. */
    close_all(k);
}

bool client_conn_ready(const struct client_conn *k)
{
    return k->ready;
}

size_t client_conn_backlog_bytes(const struct client_conn *k)
{
    return k->out.size;
}

uint64_t client_conn_heard_mono_ns(const struct client_conn *k)
{
    return k->heard_mono_ns;
}
