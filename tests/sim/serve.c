#include "tests/sim/serve.h"

#include "raftstore/node/node_internal.h"
#include "tests/sim/stream.h"

#include <stdio.h>
#include <stdlib.h>

#define READ_NS (400 * NS_PER_MS) /* As a patient node, but in the time of a run. */

struct serve {
    struct world *world;
    unsigned number;
    struct sim_clock clock;
    uv_loop_t loop; /* Never run; its data is this. */
    /* The part of the product's node that its queries look at: id, clock, replica. */
    struct node node;
    char leader_address[32];
};

static uint64_t now_ns(const struct serve *s)
{
    return clock_mono_ns(&s->clock.clock);
}

/* ---- What the listener asks for ---------------------------------------------------------- */

static struct listener_leader on_leader(void *arg)
{
    struct serve *s = arg;
    uint64_t id = replica_view(s->node.replica).leader_id;
    s->leader_address[0] = '\0';
    if (id != 0)
        (void)snprintf(s->leader_address, sizeof s->leader_address, "n%llu:2",
                       (unsigned long long)id);
    return (struct listener_leader){id, s->leader_address};
}

static void on_members(void *arg, struct arena *arena, Hf__NodeHello *hello)
{
    struct serve *s = arg;
    Hf__QueryReply reply = HF__QUERY_REPLY__INIT;
    query_members(&s->node, arena, &reply);
    hello->members = reply.members;
    hello->n_members = reply.n_members;
}

static enum replica_status on_submit(void *arg,
                                     uint64_t at_ns,
                                     uint64_t request_id,
                                     enum replica_urgency urgency,
                                     struct bytes command)
{
    struct serve *s = arg;
    return replica_submit(s->node.replica, at_ns, request_id, urgency, command);
}

static enum replica_status on_read(void *arg, uint64_t at_ns, uint64_t request_id)
{
    struct serve *s = arg;
    return replica_read(s->node.replica, at_ns, request_id, at_ns + READ_NS);
}

static void on_answer(void *arg,
                      const struct access *access,
                      uint64_t frame_id,
                      const Hf__Query *query,
                      struct arena *arena,
                      struct buf *out)
{
    struct serve *s = arg;
    query_answer(&s->node, access, frame_id, query, arena, out);
}

static enum replica_status on_admin(
    void *arg, uint64_t at_ns, uint64_t request_id, const Hf__Admin *admin, const char **ret_text)
{
    (void)arg;
    (void)at_ns;
    (void)request_id;
    (void)admin;
    *ret_text = "no operators here";
    return REPLICA_REFUSED;
}

static void on_chunk_taken(void *arg, uint64_t request_id, bool gone)
{
    (void)arg;
    (void)request_id;
    (void)gone;
}

static uint64_t on_applied_index(void *arg)
{
    const struct serve *s = arg;
    return replica_view(s->node.replica).applied_index;
}

static int64_t on_wall_offset_ns(void *arg)
{
    (void)arg;
    return 0;
}

/* A status is asked of files and memory, too: applications of the simulation ask for none. */
Hf__Status *status_make(struct node *n, struct arena *arena)
{
    (void)n;
    (void)arena;
    abort();
}

Hf__Counts *status_counts(struct node *n, struct arena *arena)
{
    (void)n;
    (void)arena;
    abort();
}

/* ---- Life -------------------------------------------------------------------------------- */

struct serve *serve_new(struct world *w,
                        unsigned node,
                        struct replica *replica,
                        int64_t drift_ppm,
                        uint64_t offset_ns,
                        uint64_t image_index)
{
    struct serve *s = xcalloc(1, sizeof *s);
    s->world = w;
    s->number = node;
    sim_clock_init(&s->clock, w, drift_ppm, offset_ns);
    s->loop.data = s;
    stream_hub_init(&s->node.hub, &s->loop);
    s->node.config.id = node + 1;
    s->node.clock = &s->clock.clock;
    s->node.replica = replica;
    s->node.events = events_new();
    events_lost(s->node.events, image_index);
    struct listener_config config = {
        .hub = &s->node.hub,
        .clock = &s->clock.clock,
        .node_id = node + 1,
        .events = s->node.events,
        .arg = s,
        .leader = on_leader,
        .members = on_members,
        .submit = on_submit,
        .read = on_read,
        .answer = on_answer,
        .admin = on_admin,
        .chunk_taken = on_chunk_taken,
        .applied_index = on_applied_index,
        .wall_offset_ns = on_wall_offset_ns,
    };
    s->node.listener = listener_new(&config);
    return s;
}

static void on_closed(void *arg)
{
    (void)arg;
}

void serve_free(struct serve *s)
{
    if (s == NULL)
        return;
    listener_close(s->node.listener, on_closed, s);
    stream_hub_deinit(&s->node.hub);
    events_free(s->node.events);
    free(s);
}

void serve_turn(struct serve *s)
{
    world_node_turn(s->world, s->number);
}

void serve_flush(struct serve *s)
{
    stream_hub_flush(&s->node.hub);
}

void serve_accept(struct serve *s, struct cable *c)
{
    listener_adopt(s->node.listener, sim_stream_new(&s->node.hub, c));
}

/* ---- The replica's outputs --------------------------------------------------------------- */

void serve_command_done(struct serve *s,
                        uint64_t request_id,
                        enum replica_status status,
                        const struct lock_result *result,
                        uint64_t index)
{
    listener_command_done(s->node.listener, now_ns(s), request_id, status, result, index);
    serve_turn(s);
}

void serve_read_done(struct serve *s, uint64_t request_id, enum replica_status status)
{
    listener_read_done(s->node.listener, request_id, status);
    serve_turn(s);
}

void serve_effects(struct serve *s,
                   uint64_t index,
                   uint64_t stamp_ns,
                   const struct lock_effects *effects)
{
    events_add(s->node.events, index, stamp_ns, effects, 0);
    serve_turn(s);
}

void serve_installed(struct serve *s, uint64_t index)
{
    events_lost(s->node.events, index);
    listener_drop_subscribers(s->node.listener);
    serve_turn(s);
}

void serve_forget_events(struct serve *s)
{
    events_lost(s->node.events, replica_view(s->node.replica).applied_index);
}
