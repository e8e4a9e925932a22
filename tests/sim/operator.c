/* Who looks after the nodes: one whose disk is damaged does not start any more, and is replaced by
 * a new one, as `holdfast member replace` replaces a dead one: the new one is added, the old one
 * removed, and then the new one gets its vote when it has everything. */
#include "tests/sim/sim.h"

#include <stdio.h>

static const struct raft_server *server_of(const struct node *leader, unsigned number)
{
    const struct raft_configuration *c = replica_members(leader->replica);
    for (unsigned i = 0; i < c->n; i++) {
        if (c->servers[i].id == number + 1)
            return &c->servers[i];
    }
    return NULL;
}

static void replace(struct world *w, struct node *leader, const struct node *old)
{
    unsigned heir = old->heir - 1;
    const struct raft_server *before = server_of(leader, old->number);
    const struct raft_server *after = server_of(leader, heir);
    uint64_t request_id = ++w->next_request_id;
    uint64_t now_ns = node_clock_ns(leader);
    char address[32];
    if (after == NULL) {
        snprintf(address, sizeof address, "n%u:1,n%u:2", heir + 1, heir + 1);
        (void)replica_member_add(leader->replica, now_ns, request_id, heir + 1, address);
    } else if (before != NULL) {
        (void)replica_member_remove(leader->replica, now_ns, request_id, old->number + 1);
    } else if (after->role != RAFT_VOTER) {
        (void)replica_member_role(leader->replica, now_ns, request_id, heir + 1, true);
    } else {
        return;
    }
    node_turn(leader);
}

void operator_step(struct world *w)
{
    struct node *leader = check_leader_ready(w);
    for (unsigned i = 0; i < w->n_nodes && leader != NULL; i++) {
        struct node *n = &w->nodes[i];
        if (!n->refused)
            continue;
        if (n->heir == 0)
            n->heir = w->n_voters + ++w->n_heirs;
        replace(w, leader, n);
    }
}

/* One at a time: the next only when the last one has been replaced, or was written anew. */
void operator_rot(struct world *w)
{
    const struct node *leader = check_leader_ready(w);
    struct node *n = &w->nodes[world_below(w, w->n_nodes)];
    if (!w->rots || leader == NULL || w->n_heirs == SPARES || n->disk.entries == NULL)
        return;
    for (unsigned i = 0; i < w->n_nodes; i++) {
        const struct node *other = &w->nodes[i];
        const struct raft_server *heir =
            other->heir != 0 ? server_of(leader, other->heir - 1) : NULL;
        bool replaced = heir != NULL && heir->role == RAFT_VOTER && server_of(leader, i) == NULL;
        if (other->disk.entries != NULL && !disk_is_sound(other) && !replaced)
            return;
    }
    const struct raft_server *server = server_of(leader, n->number);
    if (!n->refused && server != NULL && server->role == RAFT_VOTER)
        disk_rot(n);
}
