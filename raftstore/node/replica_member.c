/* Membership changes and leadership transfer, one at a time, by the rules that the core needs:
 * one server a change, order kept, never down to one voter, never the leader itself, and only
 * while a majority of what remains was heard of. */
#include "raftstore/node/replica_impl.h"

#include <stdlib.h>
#include <string.h>

static void admin_end(struct replica *r, enum replica_status status, const char *text)
{
    uint64_t request_id = r->admin.request_id;
    r->admin = (struct admin){0};
    r->io->admin_done(r->io_arg, request_id, status, text);
}

static enum replica_status refuse(struct replica *r, uint64_t request_id, const char *text)
{
    r->io->admin_done(r->io_arg, request_id, REPLICA_REFUSED, text);
    return REPLICA_OK;
}

/* Why nothing can be changed now; NULL when it can. */
static const char *admin_obstacle(const struct replica *r)
{
    if (!r->ready)
        return "the leader has just been elected: try again";
    if (r->admin.kind != ADMIN_NONE)
        return "another membership change or transfer is under way";
    if (r->core.configuration_uncommitted_index != 0)
        return "the last membership change is not yet committed";
    if (raft_transferee(&r->core) != 0)
        return "leadership is being transferred";
    return NULL;
}

/* Was the node heard of within an election time-out? */
static bool member_is_live(const struct replica *r, uint64_t id)
{
    if (id == r->config.id)
        return true;
    for (unsigned i = 0; i < r->n_peers; i++) {
        const struct peer *p = &r->peers[i];
        if (p->id == id && p->heard_ns != 0)
            return r->now_ns - p->heard_ns < (uint64_t)replica_election_ms(r) * 1000000;
    }
    return false;
}

/* Does the node have the newest configuration?  One that was promoted denies its vote until it
 * has the entry that says so. */
static bool member_is_informed(const struct replica *r, uint64_t id)
{
    raft_index match = 0;
    if (id == r->config.id)
        return true;
    return raft_match_index(&r->core, id, &match) == 0 && match >= r->conf_applied_index;
}

static void
members_count(const struct replica *r, uint64_t without, unsigned *ret_voters, unsigned *ret_live)
{
    unsigned voters = 0, live = 0;
    for (unsigned i = 0; i < r->core.configuration.n; i++) {
        const struct raft_server *s = &r->core.configuration.servers[i];
        if (s->role != RAFT_VOTER || s->id == without)
            continue;
        voters++;
        live += member_is_live(r, s->id) && member_is_informed(r, s->id) ? 1 : 0;
    }
    *ret_voters = voters;
    *ret_live = live;
}

/* Would a majority of the voters without `without` answer, and vote? */
static bool members_are_healthy(const struct replica *r, uint64_t without)
{
    unsigned voters, live;
    members_count(r, without, &voters, &live);
    return live > voters / 2;
}

/* Do the voters of now suffice to elect one who knows of one more?  Else nobody could be elected
 * any more if the leader were lost when only it has the entry: the others would deny their votes to
 * those without it, and the new one, which has not heard of it, to everybody.  A sole voter has no
 * choice. */
static bool members_suffice_for_one_more(const struct replica *r)
{
    unsigned voters, live;
    members_count(r, 0, &voters, &live);
    return voters == 1 || live > (voters + 1) / 2;
}

/* Submit a whole configuration as one entry. */
static bool change_submit(struct replica *r, const struct raft_configuration *c)
{
    struct buf encoded = BUF_INIT;
    codec_configuration_encode(c, &encoded);
    struct log_chunk *chunk = log_chunk_new(encoded.size);
    memcpy(chunk->data, encoded.data, encoded.size);
    buf_deinit(&encoded);
    struct raft_entry entry = {
        .term = r->core.current_term,
        .type = RAFT_CHANGE,
        .buf = {.base = chunk->data, .len = chunk->size},
        .batch = chunk,
    };
    struct raft_event event = {.type = RAFT_SUBMIT, .submit = {&entry, 1}};
    r->admin.index = log_last(&r->log) + 1;
    int rv = core_step(r, &event, chunk);
    log_chunk_unref(chunk);
    return rv == 0;
}

/* The present configuration with one server added (role given), changed or left out. */
static bool change_build(const struct replica *r,
                         uint64_t id,
                         const char *address,
                         int role,
                         bool remove,
                         struct raft_configuration *ret)
{
    bool found = false;
    raft_configuration_init(ret);
    for (unsigned i = 0; i < r->core.configuration.n; i++) {
        const struct raft_server *s = &r->core.configuration.servers[i];
        found = found || s->id == id;
        if (s->id == id && remove)
            continue;
        if (raft_configuration_add(ret, s->id, s->address, s->id == id ? role : s->role) != 0)
            goto fail;
    }
    if (found || raft_configuration_add(ret, id, address, role) == 0)
        return true;
fail:
    raft_configuration_close(ret);
    return false;
}

static void change_start(struct replica *r, const struct raft_configuration *c)
{
    r->admin.kind = ADMIN_CHANGE;
    r->admin.since_ns = r->now_ns;
    if (!change_submit(r, c))
        admin_end(r, REPLICA_REFUSED, "the change was refused: try again");
}

static enum replica_status change_begin(
    struct replica *r, uint64_t request_id, uint64_t id, const char *address, int role, bool remove)
{
    struct raft_configuration c;
    if (!change_build(r, id, address, role, remove, &c))
        return refuse(r, request_id, "the address is in use by another node");
    r->admin = (struct admin){.request_id = request_id, .id = id, .term = r->core.current_term};
    change_start(r, &c);
    raft_configuration_close(&c);
    return REPLICA_OK;
}

static enum replica_status admin_enter(struct replica *r, uint64_t now_ns)
{
    replica_enter(r, now_ns);
    if (r->stopped)
        return REPLICA_STOPPED;
    return r->state == RAFT_LEADER ? REPLICA_OK : REPLICA_NOT_LEADER;
}

enum replica_status replica_member_add(
    struct replica *r, uint64_t now_ns, uint64_t request_id, uint64_t id, const char *address)
{
    enum replica_status status = admin_enter(r, now_ns);
    if (status != REPLICA_OK)
        return status;
    if (id == 0 || address == NULL || address[0] == '\0' || strlen(address) > REPLICA_ADDRESS_MAX)
        return REPLICA_BAD;
    if (replica_member(r, id) != NULL)
        return refuse(r, request_id, "a node with this id is a member already");
    if (r->core.configuration.n >= REPLICA_MEMBERS_MAX)
        return refuse(r, request_id, "the cluster has as many members as it can");
    const char *obstacle = admin_obstacle(r);
    if (obstacle != NULL)
        return refuse(r, request_id, obstacle);
    return change_begin(r, request_id, id, address, RAFT_STANDBY, /* remove= */ false);
}

/* A promoted server denies votes until it has the entry that promotes it, so it has to be up to
 * date and answering. */
static enum replica_status promote(struct replica *r, uint64_t request_id, uint64_t id)
{
    raft_index match = 0;
    struct raft_event event = {.type = RAFT_CATCH_UP, .catch_up = {id}};
    if (!member_is_live(r, id) || !members_are_healthy(r, 0))
        return refuse(r, request_id, "the node, or a majority of the voters, does not answer");
    if (!members_suffice_for_one_more(r))
        return refuse(r, request_id, "a voter does not answer: if it is gone, remove it first");
    r->admin = (struct admin){.kind = ADMIN_CATCH_UP,
                              .request_id = request_id,
                              .id = id,
                              .term = r->core.current_term,
                              .since_ns = r->now_ns};
    if (raft_match_index(&r->core, id, &match) == 0 && match == log_last(&r->log))
        return REPLICA_OK;            /* member_flush() goes on: nothing to catch up with. */
    (void)core_step(r, &event, NULL); /* Failure is fatal inside. */
    return REPLICA_OK;
}

enum replica_status replica_member_role(
    struct replica *r, uint64_t now_ns, uint64_t request_id, uint64_t id, bool voter)
{
    enum replica_status status = admin_enter(r, now_ns);
    const struct raft_server *server;
    const char *obstacle;
    if (status != REPLICA_OK)
        return status;
    server = replica_member(r, id);
    if (server == NULL)
        return refuse(r, request_id, "no such node");
    if ((server->role == RAFT_VOTER) == voter) {
        r->io->admin_done(r->io_arg, request_id, REPLICA_OK, "it has this role already");
        return REPLICA_OK;
    }
    obstacle = admin_obstacle(r);
    if (obstacle != NULL)
        return refuse(r, request_id, obstacle);
    if (voter)
        return promote(r, request_id, id);
    if (id == r->config.id)
        return refuse(r, request_id, "the leader can't be demoted: transfer leadership first");
    if (replica_voters(r) <= 2)
        return refuse(r, request_id, "a cluster never goes down to one voter");
    if (!members_are_healthy(r, id))
        return refuse(r, request_id, "too few of the other voters answer");
    return change_begin(r, request_id, id, server->address, RAFT_STANDBY, /* remove= */ false);
}

enum replica_status
replica_member_remove(struct replica *r, uint64_t now_ns, uint64_t request_id, uint64_t id)
{
    enum replica_status status = admin_enter(r, now_ns);
    const struct raft_server *server;
    const char *obstacle;
    if (status != REPLICA_OK)
        return status;
    server = replica_member(r, id);
    if (server == NULL)
        return refuse(r, request_id, "no such node");
    if (id == r->config.id)
        return refuse(r, request_id, "the leader can't be removed: transfer leadership first");
    if (server->role == RAFT_VOTER && replica_voters(r) <= 2)
        return refuse(r, request_id, "a cluster never goes down to one voter");
    if (server->role == RAFT_VOTER && !members_are_healthy(r, id))
        return refuse(r, request_id, "too few of the other voters answer");
    obstacle = admin_obstacle(r);
    if (obstacle != NULL)
        return refuse(r, request_id, obstacle);
    return change_begin(r, request_id, id, server->address, server->role, /* remove= */ true);
}

/* The live voter that has most of the log. */
static uint64_t transfer_choose(const struct replica *r)
{
    uint64_t best = 0, best_match = 0;
    for (unsigned i = 0; i < r->core.configuration.n; i++) {
        const struct raft_server *s = &r->core.configuration.servers[i];
        raft_index match = 0;
        if (s->id == r->config.id || s->role != RAFT_VOTER || !member_is_live(r, s->id) ||
            raft_match_index(&r->core, s->id, &match) != 0)
            continue;
        if (best == 0 || match > best_match) {
            best = s->id;
            best_match = match;
        }
    }
    return best;
}

enum replica_status
replica_transfer(struct replica *r, uint64_t now_ns, uint64_t request_id, uint64_t to)
{
    enum replica_status status = admin_enter(r, now_ns);
    const struct raft_server *server;
    const char *obstacle;
    struct raft_event event = {.type = RAFT_TRANSFER};
    if (status != REPLICA_OK)
        return status;
    if (to == r->config.id) {
        r->io->admin_done(r->io_arg, request_id, REPLICA_OK, "it is the leader already");
        return REPLICA_OK;
    }
    obstacle = admin_obstacle(r);
    if (obstacle != NULL)
        return refuse(r, request_id, obstacle);
    if (to == 0)
        to = transfer_choose(r);
    server = to == 0 ? NULL : replica_member(r, to);
    if (server == NULL || server->role != RAFT_VOTER)
        return refuse(r, request_id, "no such voter, or none that answers");
    if (!member_is_live(r, to))
        return refuse(r, request_id, "the node does not answer");
    event.transfer.server_id = to;
    r->admin = (struct admin){.kind = ADMIN_TRANSFER,
                              .request_id = request_id,
                              .id = to,
                              .term = r->core.current_term,
                              .since_ns = r->now_ns};
    if (core_step(r, &event, NULL) != 0)
        admin_end(r, REPLICA_REFUSED, "the transfer was refused: try again");
    return REPLICA_OK;
}

/* ---- Following up ------------------------------------------------------------------------ */

void member_applied(struct replica *r, uint64_t index)
{
    if (r->admin.kind != ADMIN_CHANGE || r->admin.index != index || r->state != RAFT_LEADER)
        return;
    if (r->admin.promotion)
        r->admin.kind = ADMIN_INFORM;
    else
        admin_end(r, REPLICA_OK, "done");
}

/* A promotion is done when the new voter knows of it. */
static void inform_flush(struct replica *r)
{
    if (member_is_informed(r, r->admin.id))
        admin_end(r, REPLICA_OK, "done");
    else if (r->now_ns > r->admin.since_ns + REPLICA_INFORM_NS)
        admin_end(r, REPLICA_OK, "done, but the new voter does not answer");
}

static void promote_finish(struct replica *r)
{
    struct raft_configuration c;
    if (!change_build(r, r->admin.id, "", RAFT_VOTER, /* remove= */ false, &c)) {
        admin_end(r, REPLICA_REFUSED, "the node is no member any more");
        return;
    }
    if (!members_suffice_for_one_more(r)) {
        raft_configuration_close(&c);
        admin_end(r, REPLICA_REFUSED, "a voter does not answer: if it is gone, remove it first");
        return;
    }
    r->admin.promotion = true;
    change_start(r, &c);
    raft_configuration_close(&c);
}

static void catch_up_flush(struct replica *r)
{
    int status = 0;
    raft_index match = 0;
    if (replica_member(r, r->admin.id) == NULL ||
        raft_catch_up(&r->core, r->admin.id, &status) != 0 ||
        raft_match_index(&r->core, r->admin.id, &match) != 0) {
        admin_end(r, REPLICA_REFUSED, "the node is no member any more");
        return;
    }
    if (status == RAFT_CATCH_UP_ABORTED) {
        admin_end(r, REPLICA_REFUSED, "the node is too slow or does not answer");
        return;
    }
    if (status == RAFT_CATCH_UP_RUNNING)
        return;
    if (propose_possible(r))
        promote_finish(r);
}

static void transfer_flush(struct replica *r)
{
    uint64_t patience_ns = 4 * (uint64_t)replica_election_ms(r) * 1000000;
    if (r->state == RAFT_LEADER && r->term == r->admin.term) {
        if (raft_transferee(&r->core) == 0)
            admin_end(r, REPLICA_REFUSED, "the node did not take over in time");
    } else if (r->leader_id != 0 && r->leader_id != r->config.id) {
        bool taken = r->leader_id == r->admin.id;
        admin_end(r, taken ? REPLICA_OK : REPLICA_REFUSED,
                  taken ? "done" : "another node became leader");
    } else if (r->now_ns > r->admin.since_ns + patience_ns) {
        admin_end(r, REPLICA_UNKNOWN, "no leader is known");
    }
}

void member_flush(struct replica *r)
{
    if (r->admin.kind == ADMIN_CATCH_UP)
        catch_up_flush(r);
    else if (r->admin.kind == ADMIN_TRANSFER)
        transfer_flush(r);
    else if (r->admin.kind == ADMIN_INFORM)
        inform_flush(r);
}

void member_role_changed(struct replica *r)
{
    bool same = r->state == RAFT_LEADER && r->term == r->admin.term;
    if (r->admin.kind == ADMIN_CHANGE && !same)
        admin_end(r, REPLICA_UNKNOWN, "leadership was lost: the change may or may not be done");
    else if (r->admin.kind == ADMIN_INFORM && !same)
        admin_end(r, REPLICA_OK, "done");
    else if (r->admin.kind == ADMIN_CATCH_UP && !same)
        admin_end(r, REPLICA_NOT_LEADER, "leadership was lost");
}

uint64_t member_wake_ns(const struct replica *r)
{
    if (r->admin.kind == ADMIN_NONE || r->admin.kind == ADMIN_CHANGE)
        return UINT64_MAX;
    return r->now_ns + (uint64_t)r->config.heartbeat_ms * 1000000;
}
