#include "tests/sim/cable.h"

#include <errno.h>
#include <stdlib.h>
#include <uv.h>

#define RETRY_NS  (100 * NS_PER_MS) /* A retransmission's pace. */
#define PATIENCE  (8 * NS_PER_S)    /* As TCP_USER_TIMEOUT. */
#define PIECE_MAX 64u               /* Bytes of a piece, where one segment comes in several. */

struct end {
    const struct cable_ops *ops; /* NULL = closed, or not yet there. */
    void *arg;
    struct buf on_way; /* From here to the other end. */
    bool moving;       /* A call is on its way for it. */
    bool fin;          /* Closed: the other end is to be told behind the last byte. */
    int error;         /* What it is to be told. */
    uint64_t stuck_ns; /* Since when nothing gets through; 0 = it does. */
};

struct cable {
    struct world *world;
    unsigned app, node;
    struct end ends[2];
    unsigned n_refs; /* Calls on their way, and open ends. */
};

static void cable_unref(struct cable *c)
{
    if (--c->n_refs > 0)
        return;
    buf_deinit(&c->ends[0].on_way);
    buf_deinit(&c->ends[1].on_way);
    free(c);
}

static uint64_t delay_ns(struct world *w)
{
    return world_chance(w, world_is_healed(w) ? 0 : 30)
               ? world_between(w, NS_PER_MS, 60 * NS_PER_MS)
               : world_between(w, 50 * NS_PER_US, 400 * NS_PER_US);
}

static void move(struct cable *c, enum cable_end from, uint64_t in_ns);

static void lose(struct cable *c, enum cable_end end, int error)
{
    struct end *e = &c->ends[end];
    const struct cable_ops *ops = e->ops;
    void *arg = e->arg;
    if (ops == NULL)
        return;
    cable_close(c, end);
    ops->lost(arg, error);
}

/* Deliver what is on its way from this end. */
static void arrive(struct cable *c, enum cable_end from)
{
    struct end *e = &c->ends[from], *to = &c->ends[!from];
    struct world *w = c->world;
    uint64_t now_ns = world_now_ns(w);
    uint64_t awake_ns =
        from == CABLE_NODE ? world_app_asleep_ns(w, c->app) : world_node_asleep_ns(w, c->node);
    if (to->ops == NULL) {
        buf_deinit(&e->on_way);
        return;
    }
    if (awake_ns > now_ns) {
        move(c, from, awake_ns - now_ns);
        return;
    }
    if (world_is_cut(w, c->app, c->node, from)) {
        if (e->stuck_ns == 0)
            e->stuck_ns = now_ns;
        if (now_ns - e->stuck_ns > PATIENCE) {
            buf_deinit(&e->on_way);
            lose(c, from, UV_ETIMEDOUT);
            lose(c, !from, UV_ETIMEDOUT); /* Its own patience is as long. */
        } else {
            move(c, from, RETRY_NS / 2 + world_below(w, RETRY_NS));
        }
        return;
    }
    e->stuck_ns = 0;
    if (e->on_way.size > 0) {
        size_t n = e->on_way.size;
        if (world_chance(w, 50))
            n = 1 + world_below(w, n < PIECE_MAX ? n : PIECE_MAX);
        struct buf piece = BUF_INIT;
        buf_add(&piece, e->on_way.data, n);
        buf_consume(&e->on_way, n);
        to->ops->bytes(to->arg, bytes_of(piece.data, piece.size));
        buf_deinit(&piece);
    }
    if (e->on_way.size > 0)
        move(c, from, delay_ns(w));
    else if (e->fin)
        lose(c, !from, e->error);
}

static void on_move(struct call *call)
{
    struct cable *c = call->arg;
    enum cable_end from = (enum cable_end)call->a;
    c->ends[from].moving = false;
    arrive(c, from);
    cable_unref(c);
}

static void move(struct cable *c, enum cable_end from, uint64_t in_ns)
{
    if (c->ends[from].moving)
        return;
    c->ends[from].moving = true;
    c->n_refs++;
    world_call(c->world, in_ns, on_move, c)->a = from;
}

/* The node's side is reached: by the first segment, or again after a cut. */
static void on_syn(struct call *call)
{
    struct cable *c = call->arg;
    struct world *w = c->world;
    if (c->ends[CABLE_APP].ops == NULL) {
        cable_unref(c);
    } else if (world_is_cut(w, c->app, c->node, CABLE_APP) ||
               world_is_cut(w, c->app, c->node, CABLE_NODE) ||
               world_app_asleep_ns(w, c->app) > world_now_ns(w)) {
        world_call(w, RETRY_NS, on_syn, c); /* The reference goes on. */
    } else {
        c->n_refs++;
        if (world_accept(w, c->node, c)) {
            c->ends[CABLE_APP].ops->connected(c->ends[CABLE_APP].arg);
        } else {
            c->n_refs--;
            lose(c, CABLE_APP, UV_ECONNREFUSED);
        }
        cable_unref(c);
    }
}

struct cable *
cable_connect(struct world *w, unsigned app, unsigned node, const struct cable_ops *ops, void *arg)
{
    struct cable *c = xcalloc(1, sizeof *c);
    c->world = w;
    c->app = app;
    c->node = node;
    c->ends[CABLE_APP].ops = ops;
    c->ends[CABLE_APP].arg = arg;
    c->n_refs = 2; /* The application's end, and the call. */
    world_call(w, delay_ns(w), on_syn, c);
    return c;
}

void cable_take(struct cable *c, const struct cable_ops *ops, void *arg)
{
    c->ends[CABLE_NODE].ops = ops;
    c->ends[CABLE_NODE].arg = arg;
}

void cable_send(struct cable *c, enum cable_end from, struct bytes bytes)
{
    struct end *e = &c->ends[from];
    if (e->ops == NULL || bytes.size == 0)
        return;
    buf_add(&e->on_way, bytes.data, bytes.size);
    move(c, from, delay_ns(c->world));
}

void cable_close(struct cable *c, enum cable_end end)
{
    struct end *e = &c->ends[end];
    if (e->ops == NULL)
        return;
    e->ops = NULL;
    e->fin = true;
    e->error = UV_EOF;
    if (c->ends[!end].ops != NULL)
        move(c, end, delay_ns(c->world));
    cable_unref(c);
}
