/* The replica's outputs, and what store, shadow and peers report: the glue between the parts.
 *
 * The functions of node_replica_io run inside calls of the replica and must not call back into it.
 * What peers report may come from inside one of those (a member that is dropped closes its link),
 * so it is noted and told to the replica at the end of the turn, by node_tell_deferred(). */
#include "raftstore/node/node_internal.h"

#include "raftstore/base/clock.h"
#include "raftstore/base/log.h"
#include "raftstore/node/image.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static uint64_t now(void)
{
    return clock_mono_ns(clock_system());
}

static void image_set(struct replica_image *to, const struct replica_image *from)
{
    free((void *)(uintptr_t)to->conf.data);
    *to = *from;
    to->conf = bytes_of(xmemdup(from->conf.data, from->conf.size), from->conf.size);
}

static void image_clear(struct replica_image *i)
{
    free((void *)(uintptr_t)i->conf.data);
    *i = (struct replica_image){0};
}

void node_io_deinit(struct node *n)
{
    image_clear(&n->snapshot.image);
    image_clear(&n->install.image);
    free(n->deferred);
    n->deferred = NULL;
}

/* Store and network. ----------------------------------------------------------------------- */

static void defer(struct node *n, struct node_deferred d)
{
    if (n->n_deferred == n->deferred_alloc) {
        n->deferred_alloc = n->deferred_alloc == 0 ? 8 : 2 * n->deferred_alloc;
        n->deferred = xrealloc(n->deferred, n->deferred_alloc * sizeof *n->deferred);
    }
    n->deferred[n->n_deferred++] = d;
    node_wake(n);
}

void node_tell_deferred(struct node *n)
{
    for (unsigned i = 0; i < n->n_deferred && node_is_alive(n); i++) {
        struct node_deferred d = n->deferred[i];
        if (d.index == 0)
            replica_peer_connected(n->replica, now(), d.peer, d.good);
        else
            replica_image_sent(n->replica, now(), d.peer, d.index, d.good);
    }
    n->n_deferred = 0;
}

static void io_persist(void *arg, const struct replica_write *w)
{
    struct node *n = arg;
    store_write(n->store, w);
}

void node_on_persisted(void *arg, uint64_t ticket)
{
    struct node *n = arg;
    if (node_is_alive(n))
        replica_persisted(n->replica, now(), ticket);
}

void node_on_store_failed(void *arg, const char *sentence)
{
    node_fail(arg, "%s", sentence);
}

static void io_send(void *arg, uint64_t to, const Hf__PeerFrame *frame)
{
    struct node *n = arg;
    if (n->peers != NULL)
        peers_send(n->peers, to, frame);
}

static void io_send_image(void *arg, uint64_t to, uint64_t term)
{
    struct node *n = arg;
    struct replica_image image = {0};
    const char *path;
    int rv = -ENOENT;
    if (n->peers != NULL && store_snapshot(n->store, &image, &path))
        rv = peers_send_image(n->peers, to, term, &image, path);
    if (rv < 0) {
        LOG_WARN("image can't be sent", "peer=%llu why=%s", (unsigned long long)to,
                 log_quote(bytes_str(uv_strerror(rv))));
        /* Index 0 would be taken for a link: there is no image 0. */
        defer(n, (struct node_deferred){to, image.index > 0 ? image.index : 1, false});
    } else {
        LOG_INFO("sending an image", "peer=%llu index=%llu", (unsigned long long)to,
                 (unsigned long long)image.index);
    }
}

static void peer_frame(void *arg, uint64_t from, const Hf__PeerFrame *frame)
{
    struct node *n = arg;
    if (node_is_alive(n))
        replica_receive(n->replica, now(), from, frame);
}

static void peer_link_changed(void *arg, uint64_t id, bool up)
{
    defer(arg, (struct node_deferred){id, 0, up});
}

static void peer_image_sent(void *arg, uint64_t to, uint64_t index, bool delivered)
{
    struct node *n = arg;
    n->n_images_sent += delivered;
    n->n_images_failed += !delivered;
    defer(arg, (struct node_deferred){to, index, delivered});
}

static uint64_t peer_incarnation_known(void *arg, uint64_t id)
{
    const struct node *n = arg;
    return store_peer_incarnation(n->store, id);
}

static void peer_incarnation_seen(void *arg, uint64_t id, uint64_t incarnation)
{
    struct node *n = arg;
    store_set_peer_incarnation(n->store, id, incarnation);
}

static void peer_cluster_learnt(void *arg, uint64_t cluster_id)
{
    struct node *n = arg;
    LOG_INFO("joined a cluster", "cluster=%016llx", (unsigned long long)cluster_id);
    store_set_cluster_id(n->store, cluster_id);
}

/* Nothing but the first entry, or less: only then can the directory be one that was emptied. */
static bool node_is_blank(const struct node *n)
{
    struct replica_view v = replica_view(n->replica);
    return v.snapshot_index == 0 && v.last_index <= 1 && v.term <= 1;
}

static bool node_is_member(const struct node *n, uint64_t id)
{
    const struct raft_configuration *c = replica_members(n->replica);
    for (unsigned i = 0; i < c->n; i++)
        if (c->servers[i].id == id)
            return true;
    return c->n == 0; /* Waiting to be added: whoever dials us is of the cluster. */
}

/* A single member's word stops a node that has nothing to lose: it forgot its votes, and the
 * others may be too few to remember them.  A node with a log was not wiped: then it is the other
 * one that is out of place (removed, or left over from a former cluster of these nodes), or this
 * directory was exchanged; it is not let in anyway, and going on without it is harmless. */
static void peer_wiped(void *arg, uint64_t by)
{
    struct node *n = arg;
    unsigned long long id = n->config.id;
    if (!node_is_alive(n) || !node_is_member(n, by) || !node_is_blank(n))
        return; /* The refusal was logged. */
    LOG_ERROR("a node that has forgotten its votes must not return under its old id",
              "remedy=\"holdfast member remove %llu; holdfast member add NEWID RAFTADDR "
              "CLIENTADDR; start it with --id NEWID --join and an empty directory\"",
              id);
    node_fail(n,
              "this node's data directory (%s) is not the one by which node %llu knows node %llu: "
              "it was emptied or exchanged",
              n->data, (unsigned long long)by, id);
}

/* Snapshots of our own. -------------------------------------------------------------------- */

static void io_take_snapshot(void *arg, const struct replica_image *image)
{
    struct node *n = arg;
    struct node_snapshot *s = &n->snapshot;
    assert(!s->active); /* The replica takes one at a time. */
    s->active = true;
    s->failed_ms = 0;
    s->begin_ns = now();
    image_set(&s->image, image);
    store_image_path(n->store, image->index, false, s->path, sizeof s->path);
    shadow_snapshot(n->shadow, &s->image, s->path, lock_digest(replica_table(n->replica)),
                    n->wall_offset_ns);
}

static void snapshot_over(struct node *n, bool good)
{
    struct node_snapshot *s = &n->snapshot;
    s->active = false;
    if (good) {
        s->n++;
        buckets_add(&s->took, now() - s->begin_ns);
        s->last_ms = (now() - s->begin_ns) / NS_PER_MS;
        LOG_INFO("snapshot taken", "index=%llu ms=%llu", (unsigned long long)s->image.index,
                 (unsigned long long)s->last_ms);
    }
    if (!node_is_alive(n))
        return;
    replica_snapshot_taken(n->replica, now(), s->image.index, good);
    if (good)
        admin_compacted(n, s->image.index);
}

void node_snapshot_sweep(struct node *n)
{
    const struct node_snapshot *s = &n->snapshot;
    if (s->active && s->failed_ms != 0 && uv_now(n->config.loop) - s->failed_ms > 10000)
        snapshot_over(n, false);
}

/* Told to the replica only after a while, so that a full disk is not tried a thousand times. */
static void snapshot_failed(struct node *n, const char *why)
{
    LOG_ERROR("snapshot failed", "index=%llu file=%s why=%s",
              (unsigned long long)n->snapshot.image.index, log_quote(bytes_str(n->snapshot.path)),
              log_quote(bytes_str(why)));
    (void)unlink(n->snapshot.path); /* Leftovers are removed at the next start. */
    n->snapshot.failed_ms = uv_now(n->config.loop);
    n->snapshot.n_failed++;
}

static void snapshot_committed(void *arg, int status)
{
    struct node *n = arg;
    if (status < 0)
        snapshot_failed(n, uv_strerror(status));
    else
        snapshot_over(n, true);
}

void node_on_snapshot(void *arg, uint64_t index, const char *path, int status, const char *sentence)
{
    struct node *n = arg;
    struct replica_image stored;
    const char *stored_path;
    (void)index; /* The path tells which one it is. */
    if (n->closing || admin_snapshot_written(n, path, status, sentence))
        return;
    if (status == -EILSEQ) {
        node_fail(n, "%s", sentence);
    } else if (status < 0) {
        snapshot_failed(n, sentence != NULL ? sentence : uv_strerror(status));
    } else if (n->install.received || (store_snapshot(n->store, &stored, &stored_path) &&
                                       stored.index >= n->snapshot.image.index)) {
        (void)unlink(path); /* An image of the leader's has overtaken it. */
        snapshot_over(n, false);
    } else {
        store_snapshot_commit(n->store, &n->snapshot.image, path, false, snapshot_committed, n);
    }
}

/* Images of the leader's. ------------------------------------------------------------------ */

static bool peer_image_wanted(void *arg, uint64_t from, uint64_t index, char *ret_path, size_t size)
{
    struct node *n = arg;
    (void)from;
    if (!node_is_alive(n) || n->install.received || index <= replica_view(n->replica).applied_index)
        return false;
    store_image_path(n->store, index, true, ret_path, size);
    return true;
}

static void install_clear(struct node *n)
{
    image_clear(&n->install.image);
    n->install.received = n->install.installing = false;
}

static void peer_image_received(
    void *arg, uint64_t from, uint64_t term, const struct replica_image *image, const char *path)
{
    struct node *n = arg;
    struct node_install *i = &n->install;
    if (!node_is_alive(n)) {
        (void)unlink(path); /* Leftovers are removed at the next start. */
        return;
    }
    i->received = true;
    image_set(&i->image, image);
    (void)snprintf(i->path, sizeof i->path, "%s", path);
    if (!replica_receive_image(n->replica, now(), from, term, &i->image) && !i->installing) {
        LOG_INFO("image not needed", "index=%llu", (unsigned long long)image->index);
        (void)unlink(path); /* Leftovers are removed at the next start. */
        install_clear(n);
    }
}

static void install_committed(void *arg, int status)
{
    struct node *n = arg;
    struct replica_image image;
    const char *path;
    if (!node_is_alive(n))
        return;
    if (status < 0 || !store_snapshot(n->store, &image, &path))
        node_fail(n, "the image from the leader can't be stored: %s", uv_strerror(status));
    else
        shadow_load(n->shadow, path);
}

static void io_install_image(void *arg, const struct replica_image *image)
{
    struct node *n = arg;
    assert(n->install.received && n->install.image.index == image->index);
    n->install.installing = true;
    image_set(&n->install.image, image); /* Its term may have been corrected. */
    store_snapshot_commit(n->store, &n->install.image, n->install.path, true, install_committed, n);
}

void node_on_loaded(void *arg, struct lock_table *table, int status, const char *sentence)
{
    struct node *n = arg;
    if (!node_is_alive(n)) {
        lock_table_free(table);
        return;
    }
    if (status < 0) {
        node_fail(n, "%s", sentence != NULL ? sentence : uv_strerror(status));
        return;
    }
    uint64_t index = n->install.image.index;
    n->n_images_installed++;
    LOG_INFO("image installed", "index=%llu", (unsigned long long)index);
    events_lost(n->events, index);
    install_clear(n);
    n->snapshot.active = false; /* One that failed and was not told yet: the replica forgets it. */
    replica_image_installed(n->replica, now(), table);
    listener_drop_subscribers(n->listener); /* They missed events: they resume and learn it. */
}

struct peers_config node_peers_config(struct node *n, uint64_t incarnation, uint64_t cluster_id)
{
    return (struct peers_config){
        .hub = &n->hub,
        .id = n->config.id,
        .incarnation = incarnation,
        .cluster_id = cluster_id,
        .raft_address = n->raft_address,
        .client_address = n->client_address,
        .arg = n,
        .incarnation_known = peer_incarnation_known,
        .incarnation_seen = peer_incarnation_seen,
        .cluster_learnt = peer_cluster_learnt,
        .frame = peer_frame,
        .link_changed = peer_link_changed,
        .wiped = peer_wiped,
        .image_wanted = peer_image_wanted,
        .image_check = image_check, /* Before the log that it replaces is dropped. */
        .image_received = peer_image_received,
        .image_sent = peer_image_sent,
    };
}

/* Outcomes for clients, and state. --------------------------------------------------------- */

static void io_command_done(void *arg,
                            uint64_t request_id,
                            enum replica_status status,
                            const struct lock_result *result,
                            uint64_t index)
{
    struct node *n = arg;
    if (status == REPLICA_OK)
        node_audit_asked(&n->audit, n->listener, request_id);
    listener_command_done(n->listener, now(), request_id, status, result, index);
}

static void io_read_done(void *arg, uint64_t read_id, enum replica_status status)
{
    struct node *n = arg;
    if (!admin_read_done(n, read_id, status))
        listener_read_done(n->listener, read_id, status);
}

static void
io_admin_done(void *arg, uint64_t request_id, enum replica_status status, const char *text)
{
    struct node *n = arg;
    if (request_id == NODE_STOP_REQUEST)
        node_transferred(n);
    else
        listener_admin_done(n->listener, request_id, status, text, 0);
}

static void io_entry_applied(void *arg, uint64_t index, uint64_t term, struct bytes data)
{
    struct node *n = arg;
    (void)term;
    shadow_apply(n->shadow, index, data);
}

static void io_effects(void *arg,
                       uint64_t index,
                       const struct lock_command *command,
                       const struct lock_effects *effects)
{
    struct node *n = arg;
    if (n->audit.audit != NULL)
        node_audit_effects(&n->audit, index, lock_counts(replica_table(n->replica)).term, command,
                           effects);
    events_add(n->events, index, command->stamp_ns, effects, n->wall_offset_ns);
}

static void io_state_changed(void *arg)
{
    node_state_changed(arg);
}

static void io_members_changed(void *arg, const struct raft_configuration *c)
{
    struct node *n = arg;
    struct peers_member members[PEERS_MAX];
    unsigned n_members = 0;
    for (unsigned i = 0; i < c->n && n_members < PEERS_MAX; i++) {
        char text[NODE_ADDRESS_BYTES];
        struct peers_member *m = &members[n_members];
        m->id = c->servers[i].id;
        node_raft_address(c->servers[i].address, text, sizeof text);
        if (m->id == n->config.id)
            continue;
        if (address_parse(text, &m->address) < 0)
            LOG_WARN("a member has no usable address", "peer=%llu addr=%s",
                     (unsigned long long)m->id, log_quote(bytes_str(c->servers[i].address)));
        else
            n_members++;
    }
    LOG_INFO("members", "n=%u", c->n);
    if (n->peers != NULL)
        peers_set(n->peers, members, n_members);
    node_state_changed(n); /* The leader's address may be another. */
}

static void io_fatal(void *arg, const char *reason)
{
    node_fail(arg, "%s", reason);
}

static void io_log(void *arg, int level, const char *msg, const char *fields)
{
    (void)arg;
    log_line((enum log_level)level, msg, "%s", fields);
}

const struct replica_io node_replica_io = {
    .persist = io_persist,
    .send = io_send,
    .send_image = io_send_image,
    .take_snapshot = io_take_snapshot,
    .install_image = io_install_image,
    .command_done = io_command_done,
    .read_done = io_read_done,
    .admin_done = io_admin_done,
    .entry_applied = io_entry_applied,
    .effects = io_effects,
    .state_changed = io_state_changed,
    .members_changed = io_members_changed,
    .fatal = io_fatal,
    .log = io_log,
};
