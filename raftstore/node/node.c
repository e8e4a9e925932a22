#include "raftstore/node/node_internal.h"

#include "raftstore/base/clock.h"
#include "raftstore/base/log.h"
#include "raftstore/base/random.h"
#include "raftstore/node/checksum.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define SWEEP_MS 1000u
#define STOP_MS  1000u

static void node_close(struct node *n);

/* Small things. ---------------------------------------------------------------------------- */

void node_fail(struct node *n, const char *format, ...)
{
    va_list args;
    if (n->failure != NULL)
        return;
    va_start(args, format);
    n->failure = xvasprintf(format, args);
    va_end(args);
    LOG_ERROR("this node can't go on", "why=%s", log_quote(bytes_str(n->failure)));
    if (n->started && !n->closing)
        node_wake(n);
}

static void idle_nothing(uv_idle_t *idle)
{
    (void)idle; /* Only its being active counts: the poll then does not sleep. */
}

void node_wake(struct node *n)
{
    if (n->started && !n->closing)
        (void)uv_idle_start(&n->awake, idle_nothing); /* Fails only without a callback. */
}

void node_state_changed(struct node *n)
{
    if (n->replica == NULL)
        return; /* It is being made; node_start() calls again. */
    struct replica_view v = replica_view(n->replica);
    const struct raft_configuration *c = replica_members(n->replica);
    n->leader_address[0] = '\0';
    for (unsigned i = 0; i < c->n; i++)
        if (c->servers[i].id == v.leader_id)
            (void)snprintf(n->leader_address, sizeof n->leader_address, "%.299s",
                           node_client_address(c->servers[i].address));
    if (n->state == v.state && n->leader_id == v.leader_id)
        return;
    n->state = v.state;
    n->leader_id = v.leader_id;
    if (n->leader_id != 0 && n->leader_id != n->led_by) {
        n->n_leader_changes += n->led_by != 0;
        n->led_by = n->leader_id;
    }
    LOG_INFO("state", "role=%s term=%llu leader=%llu",
             v.state == RAFT_LEADER     ? "leader"
             : v.state == RAFT_FOLLOWER ? "follower"
                                        : "candidate",
             (unsigned long long)v.term, (unsigned long long)v.leader_id);
}

/* The turn of the loop. -------------------------------------------------------------------- */

static void on_timer(uv_timer_t *timer)
{
    /* libuv runs timers before I/O: what has arrived meanwhile must be delivered first, so only
     * see to it that the poll returns at once; on_check() does the rest. */
    node_wake(timer->data);
}

static void flush_replica(struct node *n)
{
    uint64_t now_ns = clock_mono_ns(clock_system());
    uint64_t wake_ns = replica_flush(n->replica, now_ns);
    n->wall_offset_ns = (int64_t)clock_wall_ns(clock_system()) -
                        (int64_t)replica_cluster_now_ns(n->replica, now_ns);
    if (n->failure != NULL)
        return;
    uint64_t delay_ms = wake_ns > now_ns ? (wake_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS : 0;
    if (delay_ms == 0)
        node_wake(n);
    else
        (void)uv_timer_start(&n->timer, on_timer, delay_ms < 1000 ? delay_ms : 1000, 0);
}

static bool is_drained(struct node *n)
{
    if (!node_is_alive(n) || n->stop_late)
        return true;
    struct replica_view v = replica_view(n->replica);
    return !n->transferring && v.n_queued == 0 && v.n_inflight == 0;
}

static void on_check(uv_check_t *check)
{
    struct node *n = check->data;
    stall_poll_ended(n);
    (void)uv_idle_stop(&n->awake); /* Always 0. */
    node_tell_deferred(n);
    if (node_is_alive(n))
        flush_replica(n);
    stream_hub_flush(&n->hub);
    if (n->failure != NULL && !n->failure_told) {
        n->failure_told = true;
        listener_drain(n->listener);
        n->config.on_failed(n->config.arg, n->failure);
    }
    if (n->stopping && !n->closing && is_drained(n))
        node_close(n);
}

static void on_prepare(uv_prepare_t *prepare)
{
    stall_poll_begins(prepare->data, clock_mono_ns(clock_system()));
}

static void on_sweep(uv_timer_t *timer)
{
    struct node *n = timer->data;
    listener_sweep(n->listener);
    node_tls_sweep(n);
    events_trim(n->events, uv_now(n->config.loop));
    if (!node_is_alive(n))
        return;
    node_snapshot_sweep(n);
    admin_sweep(n);
}

/* Start. ----------------------------------------------------------------------------------- */

static const struct node_member *own_member(const struct node_config *config)
{
    for (unsigned i = 0; i < config->n_members; i++)
        if (config->members[i].id == config->id)
            return &config->members[i];
    return NULL;
}

static void member_text(const struct node_member *m, char *out, size_t size)
{
    char raft[300], client[300];
    (void)snprintf(out, size, "%s,%s", address_format(&m->raft, raft, sizeof raft),
                   address_format(&m->client, client, sizeof client));
}

/* The first entry of the log, the same on all first nodes whatever the order of their options. */
static int bootstrap_entry(const struct node_config *config, struct bytes *ret_data)
{
    struct raft_configuration c;
    char text[NODE_ADDRESS_BYTES];
    uint64_t last = 0;
    int rv = 0;
    raft_configuration_init(&c);
    for (unsigned n = 0; n < config->n_members && rv == 0; n++) {
        const struct node_member *next = NULL;
        for (unsigned i = 0; i < config->n_members; i++)
            if (config->members[i].id > last && (next == NULL || config->members[i].id < next->id))
                next = &config->members[i];
        if (next == NULL) { /* An id twice. */
            rv = -EINVAL;
            break;
        }
        last = next->id;
        member_text(next, text, sizeof text);
        rv = raft_configuration_add(&c, next->id, text, RAFT_VOTER) == 0 ? 0 : -EINVAL;
    }
    if (rv == 0)
        rv = replica_bootstrap(&c, ret_data);
    raft_configuration_close(&c);
    return rv;
}

/* What a fresh directory is to hold: the bootstrap entry, or nothing yet for a joining node. */
static int plan_fresh(struct node *n,
                      struct replica_entry *ret_first,
                      uint64_t *ret_cluster_id,
                      char **ret_sentence)
{
    *ret_cluster_id = 0;
    if (n->config.join)
        return 0;
    *ret_first = (struct replica_entry){.index = 1, .term = 1, .type = RAFT_CHANGE};
    if (bootstrap_entry(&n->config, &ret_first->data) < 0) {
        *ret_sentence = xasprintf("a cluster starts with 1, 3, 5 or 7 members whose ids and "
                                  "addresses all differ (%u were given)",
                                  n->config.n_members);
        return -EINVAL;
    }
    uint64_t digest = checksum_add(0, ret_first->data.data, ret_first->data.size);
    *ret_cluster_id = digest != 0 ? digest : 1;
    return 0;
}

static int initialise(struct node *n,
                      const struct replica_entry *first,
                      uint64_t cluster_id,
                      char **ret_sentence)
{
    unsigned n_entries = n->config.join ? 0 : 1;
    int rv = store_initialise(n->store, n->config.id, cluster_id, first, n_entries, ret_sentence);
    if (rv < 0)
        return rv;
    if (n->config.join)
        LOG_INFO("waiting to be added to a cluster", "node=%llu", (unsigned long long)n->config.id);
    else
        LOG_INFO("new cluster", "cluster=%016llx members=%u", (unsigned long long)cluster_id,
                 n->config.n_members);
    return 0;
}

/* What the replica starts from. */
static int restore(struct node *n, const struct store_loaded *loaded, char **ret_sentence)
{
    struct shadow_config shadow_config = {.loop = n->config.loop,
                                          .on_snapshot = node_on_snapshot,
                                          .on_loaded = node_on_loaded,
                                          .arg = n};
    struct replica_stored stored = {.term = loaded->term,
                                    .voted_for = loaded->voted_for,
                                    .image = loaded->image,
                                    .entries = loaded->entries,
                                    .n_entries = loaded->n_entries};
    struct replica_image image = {0};
    int rv = shadow_start(&shadow_config, loaded->image_path, &n->shadow, &stored.table, &image,
                          ret_sentence);
    if (rv < 0)
        return rv;
    if (loaded->image.index != 0 &&
        (image.index != loaded->image.index || image.term != loaded->image.term)) {
        *ret_sentence =
            xasprintf("%s is not the snapshot that this node's meta.db names: %s",
                      loaded->image_path, "remove this member and add it again under a new id");
        rv = -EBADMSG;
    }
    free((void *)(uintptr_t)image.conf.data);
    /* The bootstrap entry is of term 1, and no term is stored until the first election. */
    if (stored.n_entries > 0 && stored.entries[stored.n_entries - 1].term > stored.term) {
        stored.term = stored.entries[stored.n_entries - 1].term;
        stored.voted_for = 0;
    }
    struct replica_config config = {.id = n->config.id,
                                    .address = n->address,
                                    .seed = random_system(),
                                    .election_timeout_ms = n->config.election_timeout_ms,
                                    .heartbeat_ms = n->config.heartbeat_ms,
                                    .snapshot_log_bytes = n->config.snapshot_log_bytes,
                                    .snapshot_log_entries = n->config.snapshot_log_entries,
                                    .limits = n->config.limits,
                                    .io = &node_replica_io,
                                    .io_arg = n};
    events_lost(n->events, loaded->image.index);
    node_audit_init(&n->audit, n->config.audit, n->config.id, &n->config.audit_last,
                    stored.n_entries > 0 ? stored.entries[stored.n_entries - 1].index
                                         : image.index);
    node_audit_mark(&n->audit, "start");
    if (rv == 0) {
        rv = replica_new(&config, &stored, clock_mono_ns(clock_system()), &n->replica);
        if (rv < 0)
            *ret_sentence = xasprintf("what is stored in %s contradicts itself: remove this member "
                                      "and add it again under a new id",
                                      n->data);
        rv = rv == -EINVAL ? -EBADMSG : rv;
    }
    if (rv < 0)
        lock_table_free(stored.table);
    return rv;
}

static int open_store(struct node *n, const struct store_loaded **ret_loaded, char **ret_sentence)
{
    struct store_config config = {.loop = n->config.loop,
                                  .directory = n->data,
                                  .on_persisted = node_on_persisted,
                                  .on_failed = node_on_store_failed,
                                  .arg = n};
    int rv = store_open(&config, &n->store, ret_loaded, ret_sentence);
    if (rv < 0 || (*ret_loaded)->fresh || (*ret_loaded)->node_id == n->config.id)
        return rv;
    *ret_sentence =
        xasprintf("%s is the data directory of node %llu, not of node %llu", n->data,
                  (unsigned long long)(*ret_loaded)->node_id, (unsigned long long)n->config.id);
    return -EBADMSG;
}

static int listen_all(struct node *n,
                      const struct node_member *own,
                      uint64_t incarnation,
                      uint64_t cluster_id,
                      char **ret_sentence)
{
    const struct node_config *c = &n->config;
    bool insecure = c->insecure || c->tls != NULL;
    const struct address *raft = c->listen_raft.host[0] != '\0' ? &c->listen_raft : &own->raft;
    const struct address *client =
        c->listen_client.host[0] != '\0' ? &c->listen_client : &own->client;
    int rv = 0;
    if (c->n_members > 1 || !own->raft.is_unix) {
        struct peers_config config = node_peers_config(n, incarnation, cluster_id);
        n->peers = peers_new(&config);
        n->n_open++;
        rv = peers_listen(n->peers, raft, insecure, ret_sentence);
    }
    if (rv == 0)
        rv = listener_listen(n->listener, client, insecure, ret_sentence);
    return rv;
}

/* Sockets before anything is written: with a wrong address in its options, a node must not found
 * a cluster in which that address stands for good.  Nothing is accepted before the loop runs. */
static int start_parts(struct node *n, const struct node_member *own, char **ret_sentence)
{
    const struct store_loaded *loaded;
    struct replica_entry first = {0};
    int rv = node_load_tls(n, ret_sentence);
    if (rv == 0)
        rv = node_load_policy(n, ret_sentence);
    if (rv == 0)
        rv = node_http_open(n, ret_sentence);
    if (rv < 0)
        return rv;
    rv = open_store(n, &loaded, ret_sentence);
    if (rv < 0)
        return rv;
    struct store_loaded found = *loaded;
    if (found.fresh)
        rv = plan_fresh(n, &first, &found.cluster_id, ret_sentence);
    if (rv == 0)
        rv = listen_all(n, own, found.incarnation, found.cluster_id, ret_sentence);
    if (rv == 0 && found.fresh) {
        rv = initialise(n, &first, found.cluster_id, ret_sentence);
        found.entries = &first; /* As it was stored just now. */
        found.n_entries = n->config.join ? 0 : 1;
    }
    if (rv == 0)
        rv = restore(n, &found, ret_sentence);
    free((void *)(uintptr_t)first.data.data);
    store_loaded_free(n->store);
    return rv;
}

static void handles_init(struct node *n)
{
    uv_loop_t *loop = n->config.loop;
    (void)uv_check_init(loop, &n->check); /* None of these can fail. */
    (void)uv_prepare_init(loop, &n->prepare);
    (void)uv_timer_init(loop, &n->timer);
    (void)uv_timer_init(loop, &n->sweep);
    (void)uv_timer_init(loop, &n->stop_timer);
    (void)uv_idle_init(loop, &n->awake);
    n->check.data = n->prepare.data = n->timer.data = n->sweep.data = n;
    n->stop_timer.data = n->awake.data = n;
    n->n_open += 6;
    n->started = true;
}

static void handles_start(struct node *n)
{
    (void)uv_check_start(&n->check, on_check); /* None of these can fail. */
    (void)uv_prepare_start(&n->prepare, on_prepare);
    (void)uv_timer_start(&n->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
    node_wake(n);
}

static void hub_emptied(void *arg);

static struct node *node_new(const struct node_config *config, const struct node_member *own)
{
    struct node *n = xcalloc(1, sizeof *n);
    n->config = *config;
    n->clock = clock_system();
    n->data = xstrdup(config->data);
    n->begin_ns = clock_mono_ns(clock_system());
    n->export.fd = -1;
    n->state = RAFT_UNAVAILABLE;
    member_text(own, n->address, sizeof n->address);
    (void)address_format(&own->raft, n->raft_address, sizeof n->raft_address);
    (void)address_format(&own->client, n->client_address, sizeof n->client_address);
    stream_hub_init(&n->hub, config->loop);
    n->hub.audit = config->audit;
    n->hub.emptied = hub_emptied;
    n->hub.arg = n;
    handles_init(n);
    n->events = events_new();
    struct listener_config listener = node_listener_config(n);
    n->listener = listener_new(&listener);
    n->n_open++;
    return n;
}

int node_start(const struct node_config *config, struct node **ret_node, char **ret_sentence)
{
    const struct node_member *own = own_member(config);
    *ret_sentence = NULL;
    if (own == NULL) {
        *ret_sentence =
            xasprintf("node %llu is not among the members", (unsigned long long)config->id);
        return -EINVAL;
    }
    struct node *n = node_new(config, own);
    int rv = start_parts(n, own, ret_sentence);
    if (rv < 0) {
        node_close(n);
        return rv;
    }
    if (n->config.policy != NULL)
        node_audit_policy(&n->audit, "loaded", n->config.policy, NULL);
    node_state_changed(n);
    handles_start(n);
    *ret_node = n;
    return 0;
}

/* Stop. ------------------------------------------------------------------------------------ */

static void maybe_free(struct node *n)
{
    if (!n->closing || n->n_open > 0 || n->hub.n_streams > 0)
        return;
    void (*stopped)(void *arg) = n->stopped;
    void *arg = n->stopped_arg;
    shadow_stop(n->shadow);
    store_close(n->store); /* After what it still has to write, which is the replica's memory. */
    replica_free(n->replica);
    events_free(n->events);
    node_audit_mark(&n->audit, "stop");
    node_audit_deinit(&n->audit);
    node_io_deinit(n);
    node_policy_deinit(n);
    stream_hub_deinit(&n->hub);
    free(n->failure);
    free(n->data);
    free(n);
    if (stopped != NULL)
        stopped(arg);
}

static void hub_emptied(void *arg)
{
    maybe_free(arg);
}

void node_unref(struct node *n)
{
    assert(n->n_open > 0);
    n->n_open--;
    maybe_free(n);
}

static void part_closed(void *arg)
{
    node_unref(arg);
}

static void handle_closed(uv_handle_t *handle)
{
    node_unref(handle->data);
}

static void node_close(struct node *n)
{
    n->closing = true;
    n->n_open++; /* Held while we are in here. */
    admin_close(n);
    node_http_close(n);
    listener_close(n->listener, part_closed, n);
    if (n->peers != NULL)
        peers_close(n->peers, part_closed, n);
    uv_close((uv_handle_t *)&n->check, handle_closed);
    uv_close((uv_handle_t *)&n->prepare, handle_closed);
    uv_close((uv_handle_t *)&n->timer, handle_closed);
    uv_close((uv_handle_t *)&n->sweep, handle_closed);
    uv_close((uv_handle_t *)&n->stop_timer, handle_closed);
    uv_close((uv_handle_t *)&n->awake, handle_closed);
    node_unref(n);
}

void node_transferred(struct node *n)
{
    n->transferring = false;
    node_wake(n); /* on_check() goes on. */
}

static void on_stop_late(uv_timer_t *timer)
{
    struct node *n = timer->data;
    n->stop_late = true;
    node_wake(n);
}

static unsigned n_voters(const struct node *n)
{
    const struct raft_configuration *c = replica_members(n->replica);
    unsigned voters = 0;
    for (unsigned i = 0; i < c->n; i++)
        voters += c->servers[i].role == RAFT_VOTER ? 1 : 0;
    return voters;
}

void node_reopen_audit(struct node *n)
{
    if (n->config.audit == NULL)
        return;
    audit_reopen(n->config.audit);
    node_audit_mark(&n->audit, "open");
}

void node_stop(struct node *n, void (*cb)(void *arg), void *arg)
{
    unsigned election_ms =
        n->config.election_timeout_ms != 0 ? n->config.election_timeout_ms : NODE_ELECTION_MS;
    assert(!n->stopping);
    LOG_INFO("stopping", "node=%llu", (unsigned long long)n->config.id);
    n->stopping = true;
    n->stopped = cb;
    n->stopped_arg = arg;
    listener_drain(n->listener);
    if (node_is_alive(n) && n->state == RAFT_LEADER && n_voters(n) > 1)
        n->transferring = replica_transfer(n->replica, clock_mono_ns(clock_system()),
                                           NODE_STOP_REQUEST, 0) == REPLICA_OK;
    (void)uv_timer_start(&n->stop_timer, on_stop_late,
                         2 * election_ms > STOP_MS ? 2 * election_ms : STOP_MS, 0);
    node_wake(n);
}
