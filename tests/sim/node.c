/* The driver of a simulated node: what node/ does over sockets and SQLite, over events. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftstore/node/replica_impl.h"

uint64_t node_clock_ns(const struct node *n)
{
    return clock_local_ns(n->world->now_ns, n->drift_ppm, n->offset_ns);
}

void node_turn(struct node *n)
{
    if (n->turn_pending || !n->up)
        return;
    n->turn_pending = true;
    world_event(n->world, EVENT_TURN, n->number, world_below(n->world, 30000));
}

/* ---- Replica's outputs ------------------------------------------------------------------- */

/* A crash soon after a vote was asked for, and a slow disk: the worst moment for a promise. */
static void on_persist(void *arg, const struct replica_write *w)
{
    struct node *n = arg;
    if (w->set_vote && !n->world->healed && world_chance(n->world, 40)) {
        n->disk_slow_until_ns = n->world->now_ns + 300 * MS;
        world_event(n->world, EVENT_CRASH, n->number, world_between(n->world, MS, 20 * MS));
    }
    disk_submit(n, DISK_WRITE, w, NULL);
}

static uint64_t network_delay_ns(struct world *w)
{
    if (world_chance(w, w->late_permille))
        return world_between(w, MS, 80 * MS);
    return world_between(w, MS / 20, MS / 2);
}

static void on_send(void *arg, uint64_t to, const Hf__PeerFrame *frame)
{
    struct node *n = arg;
    struct world *w = n->world;
    if (to == 0 || to > w->n_nodes) {
        world_fail(w, "node %u sends to %llu", n->number + 1, (unsigned long long)to);
        return;
    }
    unsigned copies = world_chance(w, w->duplicate_permille) ? 2 : 1;
    if (w->blocked[n->number][to - 1] || world_chance(w, w->loss_permille))
        return;
    for (unsigned i = 0; i < copies; i++) {
        struct node *target = &w->nodes[to - 1];
        struct event *e = world_event(w, EVENT_FRAME, target->number, network_delay_ns(w));
        e->a = n->number;
        pack_add(&e->bytes, &frame->base);
    }
}

static void on_send_image(void *arg, uint64_t to, uint64_t term)
{
    struct node *n = arg;
    struct world *w = n->world;
    w->n_images++;
    world_trace(w, "node %u sends image to %llu", n->number + 1, (unsigned long long)to);
    if (n->disk.image == NULL) {
        world_fail(w, "node %u is to send an image and has none", n->number + 1);
        return;
    }
    struct event *e =
        world_event(w, EVENT_IMAGE, (unsigned)to - 1, world_between(w, 5 * MS, 300 * MS));
    e->a = n->number;
    e->b = term;
    e->c = n->incarnation;
    e->image = sim_image_ref(n->disk.image);
    e->incarnation = w->nodes[to - 1].incarnation;
}

static void on_take_snapshot(void *arg, const struct replica_image *image)
{
    struct node *n = arg;
    n->world->n_snapshots++;
    disk_submit(n, DISK_SNAPSHOT, NULL, sim_image_take(replica_table(n->replica), image));
}

static void on_install_image(void *arg, const struct replica_image *image)
{
    struct node *n = arg;
    if (n->incoming == NULL || n->incoming->ident.index != image->index)
        world_fail(n->world, "node %u installs an image that did not come", n->number + 1);
    else
        disk_submit(n, DISK_INSTALL, NULL, sim_image_ref(n->incoming));
}

static void reply(struct node *n,
                  const struct open_request *o,
                  enum replica_status status,
                  const struct lock_result *result,
                  uint64_t index)
{
    struct world *w = n->world;
    if (world_chance(w, w->healed ? 0 : 20)) /* The answer is lost. */
        return;
    struct event *e = world_event(w, EVENT_REPLY, o->client, network_delay_ns(w));
    e->a = o->serial;
    e->b = index;
    e->c = replica_view(n->replica).leader_id;
    e->status = status;
    if (result != NULL)
        e->result = *result;
    e->result.holder = (struct bytes){0};
}

static struct open_request *open_find(struct node *n, uint64_t id)
{
    for (size_t i = 0; i < n->n_open; i++) {
        if (n->open[i].id == id)
            return &n->open[i];
    }
    return NULL;
}

static void open_remove(struct node *n, struct open_request *o)
{
    *o = n->open[--n->n_open];
}

static void on_command_done(void *arg,
                            uint64_t request_id,
                            enum replica_status status,
                            const struct lock_result *result,
                            uint64_t index)
{
    struct node *n = arg;
    if (request_id >= SERVE_REQUEST_MIN) {
        serve_command_done(n->serve, request_id, status, result, index);
        return;
    }
    struct open_request *o = open_find(n, request_id);
    if (o == NULL) {
        world_fail(n->world, "node %u answers a request twice", n->number + 1);
        return;
    }
    reply(n, o, status, result, index);
    open_remove(n, o);
}

static void on_read_done(void *arg, uint64_t read_id, enum replica_status status)
{
    struct node *n = arg;
    if (read_id >= SERVE_REQUEST_MIN) {
        serve_read_done(n->serve, read_id, status);
        return;
    }
    struct open_request *o = open_find(n, read_id);
    if (o == NULL) {
        world_fail(n->world, "node %u answers a read twice", n->number + 1);
        return;
    }
    if (status == REPLICA_OK)
        check_read(n, o->acked_index);
    reply(n, o, status, NULL, replica_view(n->replica).applied_index);
    open_remove(n, o);
}

static void
on_admin_done(void *arg, uint64_t request_id, enum replica_status status, const char *text)
{
    struct node *n = arg;
    (void)request_id;
    n->world->n_changes += status == REPLICA_OK ? 1 : 0;
    world_trace(n->world, "node %u admin: %d %s", n->number + 1, status, text);
}

static void on_entry_applied(void *arg, uint64_t index, uint64_t term, struct bytes data)
{
    check_applied(arg, index, term, data);
}

static void on_effects(void *arg,
                       uint64_t index,
                       const struct lock_command *command,
                       const struct lock_effects *effects)
{
    struct node *n = arg;
    uint64_t stamp_ns = command->stamp_ns;
    check_effects(n, index, stamp_ns, effects);
    if (n->serve != NULL) /* Not while it starts. */
        serve_effects(n->serve, index, stamp_ns, effects);
}

static void on_state_changed(void *arg)
{
    struct node *n = arg;
    check_state(n);
}

static void on_members_changed(void *arg, const struct raft_configuration *members)
{
    struct node *n = arg;
    world_trace(n->world, "node %u members: %u", n->number + 1, members->n);
}

static void on_fatal(void *arg, const char *reason)
{
    struct node *n = arg;
    world_fail(n->world, "node %u stops: %s", n->number + 1, reason);
}

static void on_log(void *arg, int level, const char *msg, const char *fields)
{
    struct node *n = arg;
    (void)level;
    world_trace(n->world, "node %u log: %s %s", n->number + 1, msg, fields);
}

const struct replica_io node_io = {
    .persist = on_persist,
    .send = on_send,
    .send_image = on_send_image,
    .take_snapshot = on_take_snapshot,
    .install_image = on_install_image,
    .command_done = on_command_done,
    .read_done = on_read_done,
    .admin_done = on_admin_done,
    .entry_applied = on_entry_applied,
    .effects = on_effects,
    .state_changed = on_state_changed,
    .members_changed = on_members_changed,
    .fatal = on_fatal,
    .log = on_log,
};

/* ---- Applications ------------------------------------------------------------------------ */

bool world_is_cut(const struct world *w, unsigned app, unsigned node, enum cable_end from)
{
    return w->app_cut[app][node][from];
}

uint64_t world_app_asleep_ns(const struct world *w, unsigned app)
{
    const struct client *c = &w->clients[app];
    return c->mount != NULL ? mount_asleep_ns(c->mount)
           : c->app != NULL ? app_asleep_ns(c->app)
                            : 0;
}

uint64_t world_node_asleep_ns(const struct world *w, unsigned node)
{
    return w->nodes[node].paused_until_ns;
}

bool world_accept(struct world *w, unsigned node, struct cable *c)
{
    if (w->nodes[node].serve == NULL)
        return false;
    serve_accept(w->nodes[node].serve, c);
    return true;
}

void world_node_turn(struct world *w, unsigned node)
{
    node_turn(&w->nodes[node]);
}

/* ---- Start and crash --------------------------------------------------------------------- */

static struct lock_table *node_table(struct node *n)
{
    if (n->disk.image == NULL)
        return lock_table_new();
    struct lock_table *t = sim_image_load(n->disk.image);
    if (t == NULL)
        world_fail(n->world, "node %u: its image can't be restored", n->number + 1);
    return t;
}

static void node_bootstrap(struct node *n)
{
    struct disk *d = &n->disk;
    d->n_alloc = 64;
    d->entries = xcalloc(d->n_alloc, sizeof *d->entries);
    if (n->number >= n->world->n_voters)
        return; /* A spare node waits to be added. */
    disk_bootstrap(n);
}

void node_start(struct node *n)
{
    struct world *w = n->world;
    struct replica_stored stored = {.term = n->disk.term, .voted_for = n->disk.voted_for};
    char address[32];
    if (n->up || w->failed)
        return;
    if (n->disk.entries == NULL) {
        node_bootstrap(n);
        stored.term = n->disk.term;
    }
    n->refused = !disk_is_sound(n);
    if (n->refused) {
        w->n_refused++;
        world_trace(w, "node %u: its disk is damaged", n->number + 1);
        return;
    }
    struct replica_entry *entries = xcalloc(n->disk.n + 1, sizeof *entries);
    for (size_t i = 0; i < n->disk.n; i++) {
        const struct disk_entry *e = &n->disk.entries[i];
        entries[i] =
            (struct replica_entry){e->index, e->term, e->type, {e->data.data, e->data.size}};
    }
    stored.entries = entries;
    stored.n_entries = (unsigned)n->disk.n;
    if (n->disk.image != NULL)
        stored.image = n->disk.image->ident;
    stored.table = node_table(n);
    snprintf(address, sizeof address, "n%u:1,n%u:2", n->number + 1, n->number + 1);
    struct replica_config config = {
        .id = n->number + 1,
        .address = address,
        .seed = random_next(&w->random),
        .entry_bytes_max = world_chance(w, 300) ? 600 : 0,
        .snapshot_log_entries = (unsigned)world_between(w, 40, 300),
        .trailing_entries = (unsigned)world_between(w, 5, 100),
        .io = &node_io,
        .io_arg = n,
    };
    n->up = true;
    n->applied_seen = 0;
    if (stored.table == NULL || replica_create(&config, &stored, node_clock_ns(n),
                                               w->options.rules_off, &n->replica) != 0) {
        lock_table_free(stored.table);
        n->replica = NULL;
        n->up = false;
        world_fail(w, "node %u can't start from its disk", n->number + 1);
    }
    free(entries);
    if (n->up)
        n->serve = serve_new(w, n->number, n->replica, n->drift_ppm, n->offset_ns,
                             replica_view(n->replica).applied_index);
    world_trace(w, "node %u started, term %llu", n->number + 1, (unsigned long long)n->disk.term);
    node_turn(n);
}

static void node_drop(struct node *n)
{
    if (n->replica != NULL)
        n->world->n_elections += replica_view(n->replica).elections;
    serve_free(n->serve);
    n->serve = NULL;
    replica_free(n->replica);
    n->replica = NULL;
    n->up = false;
    n->turn_pending = false;
    n->n_open = 0;
    sim_image_unref(n->incoming);
    n->incoming = NULL;
}

void node_crash(struct node *n, uint64_t restart_ns)
{
    if (!n->up)
        return;
    world_trace(n->world, "node %u crashes", n->number + 1);
    n->world->n_crashes++;
    disk_crash(n);
    node_drop(n);
    n->incarnation++;
    n->paused_until_ns = 0;
    world_event(n->world, EVENT_START, n->number, restart_ns);
}

void node_stop(struct node *n)
{
    node_drop(n);
    disk_free(n);
    free(n->open);
}

/* ---- Inputs ------------------------------------------------------------------------------ */

static void node_flush(struct node *n)
{
    uint64_t wake = replica_flush(n->replica, node_clock_ns(n));
    n->wake_order = UINT64_MAX;
    serve_flush(n->serve);
    if (wake == UINT64_MAX || n->world->failed)
        return;
    uint64_t at = clock_world_ns(wake, n->drift_ppm, n->offset_ns);
    uint64_t delay = at > n->world->now_ns ? at - n->world->now_ns : 1000;
    n->wake_order =
        world_event(n->world, EVENT_WAKE, n->number, delay + world_below(n->world, MS / 2))->order;
}

static void node_frame(struct node *n, const struct event *e)
{
    Hf__PeerFrame *frame = (Hf__PeerFrame *)protobuf_c_message_unpack(
        &hf__peer_frame__descriptor, NULL, e->bytes.size, e->bytes.data);
    if (frame == NULL) {
        world_fail(n->world, "a frame can't be unpacked");
        return;
    }
    replica_receive(n->replica, node_clock_ns(n), e->a + 1, frame);
    protobuf_c_message_free_unpacked(&frame->base, NULL);
}

static void node_image(struct node *n, struct event *e)
{
    struct world *w = n->world;
    bool delivered = !w->blocked[e->a][n->number] && !world_chance(w, w->healed ? 0 : 150);
    if (delivered && sim_image_sum(e->image) != e->image->sum) {
        w->n_refused_images++;
        delivered = false;
    }
    if (delivered && n->incoming == NULL) {
        n->incoming = sim_image_ref(e->image);
        if (!replica_receive_image(n->replica, node_clock_ns(n), e->a + 1, e->b,
                                   &e->image->ident)) {
            sim_image_unref(n->incoming);
            n->incoming = NULL;
        }
    }
    struct event *sent = world_event(w, EVENT_IMAGE_SENT, (unsigned)e->a, MS);
    sent->incarnation = e->c;
    sent->a = n->number;
    sent->b = e->image->ident.index;
    sent->c = delivered;
}

static void node_request(struct node *n, const struct event *e)
{
    struct world *w = n->world;
    uint64_t now_ns = node_clock_ns(n);
    struct open_request o = {
        .id = ++w->next_request_id,
        .client = (unsigned)e->b,
        .serial = e->a,
        .acked_index = w->acked_index,
    };
    enum replica_status status;
    n->open = xrealloc(n->open, (n->n_open + 1) * sizeof *n->open);
    n->open[n->n_open++] = o;
    if (e->bytes.size == 0)
        status = replica_read(n->replica, now_ns, o.id, now_ns + 400 * MS);
    else
        status = replica_submit(n->replica, now_ns, o.id, REPLICA_ORDINARY,
                                bytes_of(e->bytes.data, e->bytes.size));
    if (status == REPLICA_OK)
        return;
    struct open_request *again = open_find(n, o.id);
    if (again != NULL)
        open_remove(n, again);
    reply(n, &o, status, NULL, 0);
}

void node_event(struct node *n, struct event *e)
{
    if (e->type == EVENT_START) {
        if (e->incarnation == n->incarnation)
            node_start(n);
        return;
    }
    if (e->type == EVENT_IMAGE && (!n->up || e->incarnation != n->incarnation)) {
        struct event *sent = world_event(n->world, EVENT_IMAGE_SENT, (unsigned)e->a, MS);
        sent->incarnation = e->c;
        sent->a = n->number;
        sent->b = e->image->ident.index;
        return;
    }
    /* What is on the wire survives a restart of the receiver; what was internal does not. */
    if (!n->up || (e->incarnation != n->incarnation && e->type != EVENT_FRAME))
        return;
    switch (e->type) {
    case EVENT_CRASH:
        node_crash(n, world_between(n->world, MS, 50 * MS));
        return;
    case EVENT_TURN:
        n->turn_pending = false;
        node_flush(n);
        return;
    case EVENT_WAKE:
        if (e->order == n->wake_order)
            node_flush(n);
        return;
    case EVENT_FRAME:
        node_frame(n, e);
        break;
    case EVENT_DISK:
        disk_event(n);
        break;
    case EVENT_IMAGE:
        node_image(n, e);
        break;
    case EVENT_IMAGE_SENT:
        replica_image_sent(n->replica, node_clock_ns(n), e->a + 1, e->b, e->c != 0);
        break;
    case EVENT_REQUEST:
        node_request(n, e);
        break;
    default:
        break;
    }
    node_turn(n);
}
