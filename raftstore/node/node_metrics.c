/* The metrics of a node.  Everything is counted where it happens; here it is only written down. */
#include "raftstore/node/node_internal.h"

#include "raftstore/base/clock.h"
#include "raftstore/base/prometheus.h"
#include "raftstore/lock/view.h"
#include "raftstore/node/request_stats.h"
#include "telemetry/observe.h"
#include "telemetry/process.h"

#include <inttypes.h>
#include <stdio.h>

static void counter(struct buf *out, const char *name, const char *help, uint64_t value)
{
    prometheus_single(out, name, "counter", help, value);
}

static void gauge(struct buf *out, const char *name, const char *help, uint64_t value)
{
    prometheus_single(out, name, "gauge", help, value);
}

static void histogram(struct buf *out, const char *name, const char *help, const struct buckets *b)
{
    struct prometheus p = prometheus_begin(out, name, "histogram", help);
    prometheus_buckets(&p, NULL, b);
}

/* ---- Raft ------------------------------------------------------------------------------ */

static void add_role(const struct node *n, const struct replica_view *v, struct buf *out)
{
    static const struct {
        enum raft_state state;
        const char *name;
    } states[] = {{RAFT_LEADER, "leader"},
                  {RAFT_FOLLOWER, "follower"},
                  {RAFT_CANDIDATE, "candidate"},
                  {RAFT_UNAVAILABLE, "unavailable"}};
    struct prometheus p =
        prometheus_begin(out, "holdfast_node_state", "gauge", "1 for the role of this node.");
    for (unsigned i = 0; i < sizeof states / sizeof states[0]; i++)
        prometheus_labelled(&p, "state", states[i].name, v->state == states[i].state);
    gauge(out, "holdfast_node_id", "Number of this node.", n->config.id);
    gauge(out, "holdfast_node_ready", "Is it ready, as /readyz says?", node_unready(n) == NULL);
    gauge(out, "holdfast_node_leader_id", "The leader as this node knows it; 0: none.",
          v->leader_id);
    gauge(out, "holdfast_node_term", "Raft term.", v->term);
    counter(out, "holdfast_node_leader_changes_total", "How often another leader became known.",
            n->n_leader_changes);
    counter(out, "holdfast_node_elections_started_total", "How often this node stood for election.",
            v->elections);
    counter(out, "holdfast_node_elections_won_total", "How often this node became the leader.",
            replica_figures(n->replica)->elections_won);
}

static void add_log(const struct node *n, const struct replica_view *v, struct buf *out)
{
    struct replica_queues q = replica_queues(n->replica);
    const struct replica_figures *f = replica_figures(n->replica);
    gauge(out, "holdfast_node_log_entries", "Log entries kept in memory.",
          v->last_index + 1 - v->first_index);
    gauge(out, "holdfast_node_log_bytes", "Data of the log entries kept in memory.", q.log_bytes);
    gauge(out, "holdfast_node_log_last_index", "Index of the last log entry.", v->last_index);
    gauge(out, "holdfast_node_commit_index", "Index of the last committed log entry.",
          v->commit_index);
    gauge(out, "holdfast_node_applied_index", "Index of the last applied log entry.",
          v->applied_index);
    gauge(out, "holdfast_node_apply_lag_entries",
          "Entries that the leader has committed and this node has not applied.",
          v->leader_commit_index - v->applied_index);
    counter(out, "holdfast_node_entries_proposed_total", "Log entries proposed as the leader.",
            v->entries);
    counter(out, "holdfast_node_commands_proposed_total", "Commands in them.", v->commands);
    gauge(out, "holdfast_node_commands_queued", "Commands that wait to be proposed.", v->n_queued);
    gauge(out, "holdfast_node_commands_queued_bytes", "Their size.", q.queued_bytes);
    gauge(out, "holdfast_node_entries_in_flight", "Entries proposed and not yet applied.",
          v->n_inflight);
    histogram(out, "holdfast_node_commit_duration_seconds",
              "As the leader: a log entry from its proposal until a majority has it on disk.",
              &f->commit);
    counter(out, "holdfast_node_reads_total", "Linearizable reads that were asked for.", v->reads);
    gauge(out, "holdfast_node_reads_waiting", "Reads that wait for their index.", q.reads);
    counter(out, "holdfast_node_read_rounds_total", "Rounds begun to confirm a read index.",
            v->read_rounds);
    histogram(out, "holdfast_node_read_round_duration_seconds",
              "From the question to the index at which reads may be served.", &f->read_round);
}

/* ---- The other nodes ------------------------------------------------------------------- */

struct peer_sample {
    uint64_t id;
    bool voter, up, followed; /* followed: the leader knows the two below. */
    uint64_t match_index, silent_ms;
};

static unsigned peers_list(const struct node *n, struct peer_sample *list, unsigned max)
{
    const struct raft_configuration *c = replica_members(n->replica);
    uint64_t now_ns = clock_mono_ns(n->clock);
    unsigned n_peers = 0;
    for (unsigned i = 0; i < c->n && n_peers < max; i++) {
        struct peer_sample *p = &list[n_peers];
        if (c->servers[i].id == n->config.id)
            continue;
        *p =
            (struct peer_sample){.id = c->servers[i].id, .voter = c->servers[i].role == RAFT_VOTER};
        p->up = n->peers != NULL && peers_is_up(n->peers, p->id);
        p->followed = replica_follower(n->replica, now_ns, p->id, &p->match_index, &p->silent_ms);
        n_peers++;
    }
    return n_peers;
}

static void peer_sample(struct prometheus *p, uint64_t id)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRIu64, id);
    prometheus_sample(p, "");
    prometheus_label(p, "peer", bytes_str(text));
}

static void
add_followers(const struct peer_sample *list, unsigned n, uint64_t last, struct buf *out)
{
    struct prometheus p =
        prometheus_begin(out, "holdfast_node_peer_silence_seconds", "gauge",
                         "As the leader: since when nothing was heard of the node.");
    for (unsigned i = 0; i < n; i++) {
        peer_sample(&p, list[i].id);
        prometheus_seconds(&p, list[i].silent_ms * NS_PER_MS);
    }
    p = prometheus_begin(out, "holdfast_node_peer_lag_entries", "gauge",
                         "As the leader: log entries that the node is not known to have.");
    for (unsigned i = 0; i < n; i++) {
        peer_sample(&p, list[i].id);
        prometheus_u64(&p, last > list[i].match_index ? last - list[i].match_index : 0);
    }
}

static void add_peers(const struct node *n, const struct replica_view *v, struct buf *out)
{
    struct peer_sample list[PEERS_MAX];
    unsigned n_peers = peers_list(n, list, PEERS_MAX), voters = 0, in_touch = 0;
    const struct raft_configuration *c = replica_members(n->replica);
    uint64_t fresh_ms =
        2 * (n->config.election_timeout_ms != 0 ? n->config.election_timeout_ms : NODE_ELECTION_MS);
    for (unsigned i = 0; i < c->n; i++)
        voters += c->servers[i].role == RAFT_VOTER;
    in_touch = voters;
    for (unsigned i = 0; i < n_peers; i++)
        in_touch -= list[i].voter && list[i].silent_ms > fresh_ms;
    gauge(out, "holdfast_node_voters", "Voters of the cluster.", voters);
    if (v->state == RAFT_LEADER)
        gauge(out, "holdfast_node_voters_in_touch", "As the leader: voters heard of lately.",
              in_touch);
    if (n_peers == 0)
        return;
    struct prometheus p = prometheus_begin(out, "holdfast_node_peer_connected", "gauge",
                                           "Is the connection to the node up?");
    for (unsigned i = 0; i < n_peers; i++) {
        peer_sample(&p, list[i].id);
        prometheus_u64(&p, list[i].up);
    }
    if (v->state == RAFT_LEADER)
        add_followers(list, n_peers, v->last_index, out);
    counter(out, "holdfast_node_peer_messages_dropped_total",
            "Messages of nodes that were impossible, out of place or a stranger's.", v->dropped);
}

/* ---- Disk and snapshots ---------------------------------------------------------------- */

static void add_store(const struct node *n, struct buf *out)
{
    struct store_figures f;
    store_figures(n->store, &f);
    histogram(out, "holdfast_node_store_write_duration_seconds",
              "One transaction of the log, its fdatasync included.", &f.commit);
    counter(out, "holdfast_node_store_writes_total", "Writes of the log; a transaction has many.",
            f.writes);
    counter(out, "holdfast_node_store_written_bytes_total", "Entries' data in them.", f.bytes);
    gauge(out, "holdfast_node_store_writes_pending", "Writes that are not durable yet.",
          replica_queues(n->replica).writes);
}

static void add_snapshots(const struct node *n, const struct replica_view *v, struct buf *out)
{
    const struct node_snapshot *s = &n->snapshot;
    struct prometheus p = prometheus_begin(out, "holdfast_node_snapshots_total", "counter",
                                           "Snapshots of the lock table.");
    prometheus_labelled(&p, "result", "ok", s->n);
    prometheus_labelled(&p, "result", "failed", s->n_failed);
    histogram(out, "holdfast_node_snapshot_duration_seconds", "A snapshot, made in the background.",
              &s->took);
    gauge(out, "holdfast_node_snapshot_running", "Is one being made (or did it just fail)?",
          s->active);
    gauge(out, "holdfast_node_snapshot_index", "Log index of the newest one.", v->snapshot_index);
    gauge(out, "holdfast_node_snapshot_backlog_bytes",
          "Entries that the table which snapshots are made of has not applied yet.",
          shadow_backlog_bytes(n->shadow));
    p = prometheus_begin(out, "holdfast_node_images_sent_total", "counter",
                         "Snapshots sent to other nodes.");
    prometheus_labelled(&p, "result", "ok", n->n_images_sent);
    prometheus_labelled(&p, "result", "failed", n->n_images_failed);
    counter(out, "holdfast_node_images_installed_total", "Snapshots of the leader installed.",
            n->n_images_installed);
}

/* ---- Loop ------------------------------------------------------------------------------ */

static void add_loop(const struct node *n, struct buf *out)
{
    const struct node_stall *s = &n->stall;
    histogram(out, "holdfast_node_loop_turn_duration_seconds",
              "How long the event loop was busy at a stretch.", &s->turns);
    prometheus_single_seconds(out, "holdfast_node_loop_turn_max_seconds", "gauge",
                              "The longest such turn.", s->max_ns);
    prometheus_single_seconds(out, "holdfast_node_loop_turn_cpu_max_seconds", "gauge",
                              "Most CPU time of one turn.", s->cpu_max_ns);
    prometheus_single_seconds(out, "holdfast_node_loop_turn_snapshot_max_seconds", "gauge",
                              "The longest turn while a snapshot was taken.", s->snapshot_max_ns);
}

/* ---- Locks and clients ----------------------------------------------------------------- */

static void add_limits(const struct lock_limits *l, struct buf *out)
{
    struct prometheus p =
        prometheus_begin(out, "holdfast_node_limit", "gauge", "Bounds of the lock table.");
    prometheus_labelled(&p, "of", "holds", l->holds_max);
    prometheus_labelled(&p, "of", "waiters", l->waiters_max);
    prometheus_labelled(&p, "of", "sessions", l->sessions_max);
    prometheus_labelled(&p, "of", "directories", l->directories_max);
}

static void add_table(const struct node *n, struct buf *out)
{
    struct lock_counts c = lock_counts(replica_table(n->replica));
    gauge(out, "holdfast_node_locks", "Paths with a holder or a waiter.", c.locks);
    gauge(out, "holdfast_node_holds", "Holds in the cluster.", c.holds);
    gauge(out, "holdfast_node_waiters", "Requests that wait for a lock.", c.waiters);
    gauge(out, "holdfast_node_sessions", "Sessions, lapsed ones included.", c.sessions);
    gauge(out, "holdfast_node_sessions_lapsed", "Sessions that ran out and may be resumed.",
          c.lapsed);
    gauge(out, "holdfast_node_directories", "Directories.", c.directories);
    gauge(out, "holdfast_node_lock_delays", "Locks that are free and not grantable yet.", c.delays);
    add_limits(&c.limits, out);
}

static void add_events(const struct node *n, struct buf *out)
{
    struct events_counts e = events_counts(n->events);
    struct prometheus p = prometheus_begin(
        out, "holdfast_node_lock_events_total", "counter",
        "What became of locks, as applied by this node: the same on every node of the cluster.");
    prometheus_labelled(&p, "event", "granted", e.grants);
    prometheus_labelled(&p, "event", "waiting", e.waits);
    prometheus_labelled(&p, "event", "refused", e.refusals);
    prometheus_labelled(&p, "event", "renewed", e.renewals);
    prometheus_labelled(&p, "event", "released", e.releases);
    prometheus_labelled(&p, "event", "expired", e.expiries);
    prometheus_labelled(&p, "event", "ended", e.other_ends);
    counter(out, "holdfast_node_sessions_ended_total", "Sessions that ended.", e.sessions_ended);
    counter(out, "holdfast_node_notifications_total", "Events sent to clients.", e.delivered);
    gauge(out, "holdfast_node_events_kept_bytes", "Memory of recent events.",
          events_bytes(n->events));
}

static void add_clients(const struct node *n, struct buf *out)
{
    struct listener_stats l = listener_figures(n->listener);
    request_stats_write(listener_counts(n->listener), out);
    gauge(out, "holdfast_node_requests_in_flight", "Requests of clients without an answer.",
          l.requests);
    gauge(out, "holdfast_node_connections", "Connections of clients.", l.connections);
    gauge(out, "holdfast_node_connections_max", "So many there may be.",
          listener_connections_max(n->listener));
    counter(out, "holdfast_node_connections_accepted_total", "Connections of clients accepted.",
            l.accepted);
    counter(out, "holdfast_node_clients_dropped_total",
            "Connections closed because the client did not read.", l.dropped_slow);
    gauge(out, "holdfast_node_clients_output_bytes", "Answers not taken by clients yet.",
          l.output_bytes);
    gauge(out, "holdfast_node_subscribers", "Clients that are told of events.", l.subscribers);
}

static void add_certificate(const struct node *n, struct buf *out)
{
    struct certificate_end own = {"cluster",
                                  n->hub.tls != NULL ? tls_context_expires_s(n->hub.tls) : 0};
    certificates_write(&own, 1, out);
}

void node_metrics(const struct node *n, struct buf *out)
{
    if (n->replica == NULL || n->closing)
        return;
    struct replica_view v = replica_view(n->replica);
    add_role(n, &v, out);
    add_log(n, &v, out);
    add_peers(n, &v, out);
    add_store(n, out);
    add_snapshots(n, &v, out);
    add_loop(n, out);
    add_table(n, out);
    add_events(n, out);
    add_clients(n, out);
    add_certificate(n, out);
    observe_metrics(out, "node", n->config.audit, n->config.spans);
}
