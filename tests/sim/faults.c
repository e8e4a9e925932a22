#include "tests/sim/sim.h"

#include <stdio.h>
#include <string.h>

static struct node *some_node(struct world *w)
{
    return &w->nodes[world_below(w, w->n_nodes)];
}

static struct node *leader_node(struct world *w)
{
    struct node *best = NULL;
    for (unsigned i = 0; i < w->n_nodes; i++) {
        struct node *n = &w->nodes[i];
        if (n->up && replica_view(n->replica).state == RAFT_LEADER &&
            (best == NULL || replica_view(n->replica).term > replica_view(best->replica).term))
            best = n;
    }
    return best != NULL ? best : some_node(w);
}

/* Short restarts matter: a node that has forgotten its leader votes at once. */
static void fault_crash(struct world *w, struct node *n)
{
    node_crash(n, world_chance(w, 500) ? world_between(w, MS, 50 * MS)
                                       : world_between(w, 50 * MS, 2500 * MS));
}

static void network_open(struct world *w)
{
    memset(w->blocked, 0, sizeof w->blocked);
}

/* Cut the nodes in two groups, in both directions or in one. */
static void network_cut(struct world *w)
{
    bool side[NODES_MAX];
    bool one_way = world_chance(w, 250);
    network_open(w);
    for (unsigned i = 0; i < w->n_nodes; i++)
        side[i] = world_chance(w, 400);
    for (unsigned i = 0; i < w->n_nodes; i++) {
        for (unsigned j = 0; j < w->n_nodes; j++) {
            if (side[i] != side[j])
                w->blocked[i][j] = !one_way || side[i];
        }
    }
    world_trace(w, "network cut%s", one_way ? " one way" : "");
}

/* Two groups that only one node joins: each sees a majority with it, and not the other. */
static void network_bridge(struct world *w)
{
    unsigned side[NODES_MAX];
    const struct node *bridge = some_node(w);
    network_open(w);
    for (unsigned i = 0; i < w->n_nodes; i++)
        side[i] = world_chance(w, 500) ? 1 : 2;
    side[bridge->number] = 0;
    for (unsigned i = 0; i < w->n_nodes; i++) {
        for (unsigned j = 0; j < w->n_nodes; j++)
            w->blocked[i][j] = side[i] + side[j] == 3;
    }
    world_trace(w, "network cut but for node %u", bridge->number + 1);
}

static void network_isolate(struct world *w, const struct node *n)
{
    for (unsigned i = 0; i < w->n_nodes; i++) {
        if (i != n->number)
            w->blocked[i][n->number] = w->blocked[n->number][i] = true;
    }
    world_trace(w, "node %u isolated", n->number + 1);
}

/* The leader loses one follower, which then wins with the help of another that restarts. */
static void fault_restart_behind_cut(struct world *w)
{
    struct node *leader = leader_node(w);
    struct node *lost = some_node(w);
    struct node *helper = some_node(w);
    network_open(w);
    w->blocked[leader->number][lost->number] = w->blocked[lost->number][leader->number] = true;
    if (helper != leader && helper != lost)
        node_crash(helper, world_between(w, 200 * MS, 500 * MS));
    world_trace(w, "node %u cut from the leader", lost->number + 1);
}

/* Some applications lose some or all nodes, in both directions or in one. */
static void apps_cut(struct world *w)
{
    bool all = world_chance(w, 400);
    for (unsigned i = 0; i < w->n_clients; i++) {
        if (world_chance(w, 600))
            continue;
        unsigned one_way = (unsigned)world_below(w, 3);
        for (unsigned j = 0; j < w->n_nodes; j++) {
            bool cut = all || world_chance(w, 500);
            w->app_cut[i][j][CABLE_APP] = cut && one_way != 1;
            w->app_cut[i][j][CABLE_NODE] = cut && one_way != 2;
        }
    }
    world_trace(w, "applications cut off");
}

static void network_weather(struct world *w)
{
    w->loss_permille = world_chance(w, 500) ? (unsigned)world_below(w, 100) : 0;
    w->duplicate_permille = world_chance(w, 500) ? (unsigned)world_below(w, 100) : 0;
    w->late_permille = world_chance(w, 500) ? (unsigned)world_below(w, 100) : 0;
}

static void fault_pause(struct world *w, struct node *n)
{
    if (!n->up)
        return;
    n->paused_until_ns = w->now_ns + world_between(w, 10 * MS, 1200 * MS);
    world_trace(w, "node %u paused", n->number + 1);
}

static void fault_transfer(struct world *w)
{
    struct node *n = leader_node(w);
    if (!n->up)
        return;
    uint64_t to = world_chance(w, 500) ? 0 : world_below(w, w->n_nodes) + 1;
    w->n_transfers++;
    (void)replica_transfer(n->replica, node_clock_ns(n), ++w->next_request_id, to);
    node_turn(n);
}

static void fault_snapshot(struct world *w)
{
    struct node *n = some_node(w);
    if (!n->up)
        return;
    replica_want_snapshot(n->replica);
    node_turn(n);
}

static void fault_disk(struct world *w, struct node *n)
{
    switch (world_below(w, 4)) {
    case 0:
        n->disk_fails = n->up;
        break;
    case 1:
        n->disk_stalls_until_ns = w->now_ns + world_between(w, 100 * MS, 3000 * MS);
        break;
    default:
        n->disk_slow_until_ns = w->now_ns + world_between(w, 100 * MS, 1500 * MS);
        break;
    }
}

/* Clients that were away have missed something then, wherever they come back.  Sometimes their next
 * node is soon gone as well, with what they have asked it. */
static void fault_events(struct world *w)
{
    if (world_chance(w, 300)) {
        fault_crash(w, leader_node(w));
        for (unsigned i = 0; i < w->n_voters; i++)
            world_event(w, EVENT_CRASH, i, world_between(w, 250 * MS, 700 * MS));
    }
    for (unsigned i = 0; i < w->n_nodes; i++) {
        if (w->nodes[i].up && w->nodes[i].serve != NULL)
            serve_forget_events(w->nodes[i].serve);
    }
    world_trace(w, "events forgotten");
}

/* Any change of any node; the replica refuses what its rules forbid. */
static void fault_member(struct world *w)
{
    struct node *n = leader_node(w);
    uint64_t id = world_below(w, w->n_nodes) + 1;
    uint64_t request_id = ++w->next_request_id;
    char address[32];
    if (!w->options.members || !n->up)
        return;
    snprintf(address, sizeof address, "n%u:1,n%u:2", (unsigned)id, (unsigned)id);
    switch (world_below(w, 4)) {
    case 0:
        (void)replica_member_add(n->replica, node_clock_ns(n), request_id, id, address);
        break;
    case 1:
        (void)replica_member_role(n->replica, node_clock_ns(n), request_id, id, true);
        break;
    case 2:
        (void)replica_member_role(n->replica, node_clock_ns(n), request_id, id, false);
        break;
    case 3:
        (void)replica_member_remove(n->replica, node_clock_ns(n), request_id, id);
        break;
    }
    node_turn(n);
}

void fault_next(struct world *w)
{
    if (w->healed) {
        operator_step(w);
        world_event(w, EVENT_FAULT, 0, 200 * MS);
        if (w->now_ns >= w->heal_ns + 4000 * MS && w->now_ns < w->heal_ns + 4200 * MS)
            check_ready(w);
        return;
    }
    for (unsigned i = 0; i < 3; i++)
        fault_member(w);
    world_event(w, EVENT_FAULT, 0, world_between(w, 20 * MS, 900 * MS));
    operator_step(w);
    switch (world_below(w, 19)) {
    case 0:
        fault_crash(w, some_node(w));
        break;
    case 1:
        fault_crash(w, leader_node(w));
        break;
    case 2:
        network_cut(w);
        break;
    case 3:
        network_isolate(w, leader_node(w));
        break;
    case 4:
    case 5:
        network_open(w);
        world_trace(w, "network open");
        break;
    case 6:
        fault_pause(w, some_node(w));
        break;
    case 7:
        fault_pause(w, leader_node(w));
        break;
    case 8:
        fault_disk(w, some_node(w));
        break;
    case 9:
        network_weather(w);
        break;
    case 10:
        fault_transfer(w);
        break;
    case 11:
        fault_snapshot(w);
        break;
    case 12:
        fault_restart_behind_cut(w);
        break;
    case 14:
        apps_cut(w);
        break;
    case 15:
        memset(w->app_cut, 0, sizeof w->app_cut);
        break;
    case 16:
        fault_events(w);
        break;
    case 17:
        network_bridge(w);
        break;
    case 18:
        operator_rot(w);
        break;
    case 13:
        if (world_chance(w, 200)) {
            for (unsigned i = 0; i < w->n_nodes; i++)
                fault_crash(w, &w->nodes[i]);
        }
        break;
    }
}

void fault_heal(struct world *w)
{
    w->healed = true;
    w->heal_ns = w->now_ns;
    network_open(w);
    memset(w->app_cut, 0, sizeof w->app_cut);
    w->loss_permille = w->duplicate_permille = w->late_permille = 0;
    for (unsigned i = 0; i < w->n_nodes; i++) {
        struct node *n = &w->nodes[i];
        n->disk_slow_until_ns = n->disk_stalls_until_ns = 0;
        n->disk_fails = false;
        if (!n->up)
            node_start(n);
    }
    world_trace(w, "healed");
}
