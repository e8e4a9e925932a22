#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void world_trace(const struct world *w, const char *format, ...)
{
    va_list args;
    if (!w->options.trace)
        return;
    printf("%12.6f ", (double)w->now_ns / 1e9);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
}

void world_fail(struct world *w, const char *format, ...)
{
    va_list args;
    if (w->failed)
        return;
    va_start(args, format);
    vsnprintf(w->failure, sizeof w->failure, format, args);
    va_end(args);
    w->failed = true;
    world_trace(w, "FAILED: %s", w->failure);
}

uint64_t world_below(struct world *w, uint64_t bound)
{
    return random_below(&w->random, bound);
}

bool world_chance(struct world *w, unsigned permille)
{
    return world_below(w, 1000) < permille;
}

uint64_t world_between(struct world *w, uint64_t low, uint64_t high)
{
    return low + world_below(w, high - low + 1);
}

uint64_t clock_local_ns(uint64_t now_ns, int64_t ppm, uint64_t offset_ns)
{
    return offset_ns + (uint64_t)((__int128)now_ns * (1000000 + ppm) / 1000000);
}

uint64_t clock_world_ns(uint64_t local_ns, int64_t ppm, uint64_t offset_ns)
{
    if (local_ns < offset_ns)
        return 0;
    return (uint64_t)((__int128)(local_ns - offset_ns) * 1000000 / (1000000 + ppm)) + 2;
}

uint64_t world_now_ns(const struct world *w)
{
    return w->now_ns;
}

bool world_is_healed(const struct world *w)
{
    return w->healed;
}

uint64_t world_healed_ns(const struct world *w)
{
    return w->heal_ns;
}

unsigned world_n_nodes(const struct world *w)
{
    return w->n_nodes;
}

void world_acknowledged(struct world *w, uint64_t index)
{
    if (index > w->acked_index)
        w->acked_index = index;
}

uint64_t world_acked_index(const struct world *w)
{
    return w->acked_index;
}

/* ---- Clocks ------------------------------------------------------------------------------ */

static uint64_t sim_clock_read(const struct clock *clock)
{
    const struct sim_clock *c = (const struct sim_clock *)clock; /* Its first member. */
    return clock_local_ns(c->world->now_ns, c->drift_ppm, c->offset_ns);
}

void sim_clock_init(struct sim_clock *c, const struct world *w, int64_t ppm, uint64_t offset_ns)
{
    *c = (struct sim_clock){.clock = {sim_clock_read, sim_clock_read, sim_clock_read},
                            .world = w,
                            .drift_ppm = ppm,
                            .offset_ns = offset_ns};
}

uint64_t sim_clock_delay_ns(const struct sim_clock *c, uint64_t local_ns)
{
    return clock_world_ns(c->offset_ns + local_ns, c->drift_ppm, c->offset_ns);
}

/* ---- Heap of events ---------------------------------------------------------------------- */

static bool slot_before(const struct heap_slot *a, const struct heap_slot *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void heap_push(struct world *w, struct event *e)
{
    if (w->n_heap == w->n_heap_alloc) {
        w->n_heap_alloc = w->n_heap_alloc == 0 ? 1024 : w->n_heap_alloc * 2;
        w->heap = xrealloc(w->heap, w->n_heap_alloc * sizeof *w->heap);
    }
    const struct heap_slot slot = {e->at_ns, e->order, e};
    size_t i = w->n_heap++;
    while (i > 0 && slot_before(&slot, &w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = slot;
}

static struct event *heap_pop(struct world *w)
{
    struct event *top = w->heap[0].event;
    const struct heap_slot last = w->heap[--w->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= w->n_heap)
            break;
        if (child + 1 < w->n_heap && slot_before(&w->heap[child + 1], &w->heap[child]))
            child++;
        if (!slot_before(&w->heap[child], &last))
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    if (w->n_heap > 0)
        w->heap[i] = last;
    return top;
}

struct event *world_event(struct world *w, enum event_type type, unsigned to, uint64_t delay_ns)
{
    struct event *e = xcalloc(1, sizeof *e);
    e->at_ns = w->now_ns + delay_ns;
    e->order = ++w->order;
    e->type = type;
    e->to = to;
    if (type <= EVENT_START)
        e->incarnation = w->nodes[to].incarnation;
    heap_push(w, e);
    return e;
}

struct call *world_call(struct world *w, uint64_t delay_ns, void (*fn)(struct call *c), void *arg)
{
    struct event *e = world_event(w, EVENT_CALL, 0, delay_ns);
    e->call = (struct call){.fn = fn, .arg = arg, .order = e->order};
    return &e->call;
}

void world_requeue(struct world *w, struct event *e, uint64_t at_ns)
{
    e->at_ns = at_ns;
    heap_push(w, e);
}

void event_free(struct event *e)
{
    buf_deinit(&e->bytes);
    sim_image_unref(e->image);
    free(e);
}

/* ---- Run --------------------------------------------------------------------------------- */

static void world_members(struct world *w)
{
    struct raft_configuration c;
    raft_configuration_init(&c);
    for (unsigned i = 0; i < w->n_voters; i++) {
        char address[32];
        snprintf(address, sizeof address, "n%u:1,n%u:2", i + 1, i + 1);
        if (raft_configuration_add(&c, i + 1, address, RAFT_VOTER) != 0)
            abort();
    }
    if (replica_bootstrap(&c, &w->bootstrap) != 0)
        abort();
    raft_configuration_close(&c);
}

static void world_init(struct world *w, const struct options *o)
{
    memset(w, 0, sizeof *w);
    w->options = *o;
    w->random.state = o->seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    w->now_ns = 1000 * MS;
    w->n_voters = o->nodes != 0 ? o->nodes : world_chance(w, 700) ? 3 : 5;
    w->rots = !o->members && w->n_voters >= 3 && world_chance(w, 300);
    w->n_nodes = w->n_voters + (o->members || w->rots ? SPARES : 0);
    w->n_clients = (unsigned)world_between(w, 4, CLIENTS_MAX);
    world_members(w);
    unsigned kinds = (unsigned)world_below(w, 3);
    for (unsigned i = 0; i < w->n_nodes; i++) {
        struct node *n = &w->nodes[i];
        n->world = w;
        n->number = i;
        n->drift_ppm = (int64_t)world_below(w, 6001) - 3000;
        n->offset_ns = world_below(w, 1000000) * MS;
        world_event(w, EVENT_START, i, world_below(w, 200 * MS));
    }
    for (unsigned i = 0; i < w->n_clients; i++) {
        w->clients[i].number = i;
        client_start(&w->clients[i], w, kinds);
    }
    world_event(w, EVENT_FAULT, 0, 1500 * MS);
}

static void world_dispatch(struct world *w, struct event *e)
{
    w->n_events++;
    switch (e->type) {
    case EVENT_REPLY:
        client_reply(w, &w->clients[e->to], e);
        break;
    case EVENT_CLIENT:
        client_think(w, &w->clients[e->to]);
        break;
    case EVENT_CLIENT_RETRY:
        client_retry(w, &w->clients[e->to], e);
        break;
    case EVENT_FAULT:
        fault_next(w);
        break;
    case EVENT_CALL:
        e->call.fn(&e->call);
        break;
    default: {
        struct node *n = &w->nodes[e->to];
        if (w->now_ns < n->paused_until_ns && e->type != EVENT_START) {
            world_requeue(w, e, n->paused_until_ns);
            return;
        }
        node_event(n, e);
    }
    }
    event_free(e);
}

bool world_run(struct world *w, const struct options *o)
{
    uint64_t heal_ns, end_ns;
    world_init(w, o);
    heal_ns = w->now_ns + o->seconds * 1000 * MS;
    end_ns = heal_ns + 12500 * MS;
    while (!w->failed && w->n_heap > 0 && w->heap[0].at_ns < end_ns) {
        struct event *e = heap_pop(w);
        if (!w->healed && e->at_ns >= heal_ns) {
            w->now_ns = heal_ns;
            fault_heal(w);
        }
        w->now_ns = e->at_ns;
        world_dispatch(w, e);
    }
    if (!w->failed)
        check_end(w);
    return !w->failed;
}

/* What the product's code has in memory goes by calls of its own. */
static void world_run_out(struct world *w)
{
    while (w->n_heap > 0) {
        struct event *e = heap_pop(w);
        w->now_ns = e->at_ns;
        if (e->type == EVENT_CALL)
            e->call.fn(&e->call);
        event_free(e);
    }
}

void world_free(struct world *w)
{
    w->failed = true; /* What is said from here on is no finding. */
    w->options.trace = false;
    for (unsigned i = 0; i < w->n_nodes; i++)
        node_stop(&w->nodes[i]);
    for (unsigned i = 0; i < w->n_clients; i++)
        client_stop(&w->clients[i]);
    world_run_out(w);
    for (unsigned i = 0; i < w->n_clients; i++)
        client_free(&w->clients[i]);
    free(w->heap);
    check_free(w);
    free((void *)(uintptr_t)w->bootstrap.data);
}
