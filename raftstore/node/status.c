/* What a node knows of itself. */
#include "raftstore/node/node_internal.h"

#include "raftstore/base/clock.h"
#include "raftstore/lock/view.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Resident memory from /proc; 0 if it can't be read. */
static uint64_t resident_bytes(void)
{
    char text[128];
    unsigned long long total, resident;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    (void)close(fd); /* Only read from. */
    if (n <= 0)
        return 0;
    text[n] = '\0';
    char *end = NULL;
    total = strtoull(text, &end, 10);
    resident = strtoull(end, NULL, 10);
    return total > 0 ? resident * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static const char *state_name(enum raft_state state)
{
    switch (state) {
    case RAFT_LEADER:
        return "leader";
    case RAFT_CANDIDATE:
        return "candidate";
    case RAFT_FOLLOWER:
        return "follower";
    case RAFT_UNAVAILABLE:
        break;
    }
    return "unavailable";
}

Hf__Counts *status_counts(struct node *n, struct arena *arena)
{
    struct lock_counts c = lock_counts(replica_table(n->replica));
    Hf__Counts *out = arena_alloc(arena, sizeof *out);
    Hf__Limits *limits = arena_alloc(arena, sizeof *limits);
    hf__counts__init(out);
    hf__limits__init(limits);
    limits->holds_max = c.limits.holds_max;
    limits->holds_per_session_max = c.limits.holds_per_session_max;
    limits->waiters_max = c.limits.waiters_max;
    limits->sessions_max = c.limits.sessions_max;
    limits->directories_max = c.limits.directories_max;
    out->locks = c.locks;
    out->holds = c.holds;
    out->waiters = c.waiters;
    out->sessions = c.sessions;
    out->lapsed = c.lapsed;
    out->directories = c.directories;
    out->delays = c.delays;
    out->last_token = c.last_token;
    out->holds_max = c.limits.holds_max;
    out->limits = limits;
    return out;
}

#define METRICS_MAX 44

static void metric(Hf__Status *s, struct arena *arena, const char *name, uint64_t value)
{
    Hf__Metric *m = arena_alloc(arena, sizeof *m);
    hf__metric__init(m);
    m->name = (char *)(uintptr_t)name; /* Only read by the packer. */
    m->value = value;
    assert(s->n_metrics < METRICS_MAX);
    s->metrics[s->n_metrics++] = m;
}

static void
metrics_fill(struct node *n, struct arena *arena, const struct listener_stats *l, Hf__Status *s)
{
    struct store_stats st = store_stats(n->store);
    struct replica_view v = replica_view(n->replica);
    struct events_counts e = events_counts(n->events);
    s->metrics = arena_alloc(arena, METRICS_MAX * sizeof(Hf__Metric *));
    metric(s, arena, "stall_cpu_max_us", n->stall.cpu_max_ns / NS_PER_US);
    metric(s, arena, "requests_inflight", l->requests);
    metric(s, arena, "subscribers", l->subscribers);
    metric(s, arena, "connections_accepted", l->accepted);
    metric(s, arena, "refused_busy", l->refused_busy);
    metric(s, arena, "denied", l->denied);
    metric(s, arena, "clients_dropped_slow", l->dropped_slow);
    metric(s, arena, "clients_output_bytes", l->output_bytes);
    metric(s, arena, "commands_queued", v.n_queued);
    metric(s, arena, "entries_inflight", v.n_inflight);
    metric(s, arena, "peer_messages_dropped", v.dropped);
    metric(s, arena, "store_transactions", st.transactions);
    metric(s, arena, "store_writes", st.writes);
    metric(s, arena, "store_bytes", st.bytes);
    metric(s, arena, "store_commit_max_us", st.commit_max_us);
    metric(s, arena, "store_free_bytes", st.free_bytes);
    metric(s, arena, "shadow_backlog_bytes", shadow_backlog_bytes(n->shadow));
    metric(s, arena, "events_ring_bytes", events_bytes(n->events));
    metric(s, arena, "log_bytes", replica_queues(n->replica).log_bytes);
    metric(s, arena, "session_keepalives", l->keepalives);
    metric(s, arena, "grants", e.grants);
    metric(s, arena, "waits", e.waits);
    metric(s, arena, "refusals", e.refusals);
    metric(s, arena, "renewals", e.renewals);
    metric(s, arena, "releases", e.releases);
    metric(s, arena, "expiries", e.expiries);
    metric(s, arena, "other_ends", e.other_ends);
    metric(s, arena, "sessions_ended", e.sessions_ended);
    metric(s, arena, "notifications", e.delivered);
    metric(s, arena, "audit_lines", audit_counts(n->config.audit).lines);
    metric(s, arena, "audit_dropped", audit_counts(n->config.audit).dropped);
    metric(s, arena, "spans_exported", spans_counts(n->config.spans).exported);
    metric(s, arena, "spans_dropped", spans_counts(n->config.spans).dropped);
    s->store_p50_us = st.commit_p50_us;
    s->store_p99_us = st.commit_p99_us;
}

Hf__Status *status_make(struct node *n, struct arena *arena)
{
    struct replica_view v = replica_view(n->replica);
    struct lock_digest digest = lock_digest(replica_table(n->replica));
    struct listener_stats l = listener_stats(n->listener);
    Hf__Status *s = arena_alloc(arena, sizeof *s);
    hf__status__init(s);
    s->node_id = n->config.id;
    s->state = (char *)(uintptr_t)state_name(v.state); /* Only read by the packer. */
    s->term = v.term;
    s->leader_id = v.leader_id;
    s->commit_index = v.commit_index;
    s->applied_index = v.applied_index;
    s->last_index = v.last_index;
    s->first_index = v.first_index;
    s->digest_lo = digest.lo;
    s->digest_hi = digest.hi;
    s->snapshot_index = v.snapshot_index;
    s->counts = status_counts(n, arena);
    s->uptime_ms = (clock_mono_ns(clock_system()) - n->begin_ns) / NS_PER_MS;
    s->version = (char *)(uintptr_t)HOLDFAST_VERSION;
    s->stall_max_us = n->stall.max_ns / NS_PER_US;
    s->snapshot_stall_max_us = n->stall.snapshot_max_ns / NS_PER_US;
    s->snapshot_ms = n->snapshot.last_ms;
    s->snapshots = n->snapshot.n;
    s->resident_bytes = resident_bytes();
    s->entries = v.entries;
    s->commands = v.commands;
    s->reads = v.reads;
    s->read_rounds = v.read_rounds;
    s->commit_p50_us = l.command_p50_us;
    s->commit_p99_us = l.command_p99_us;
    s->connections = l.connections;
    s->elections = v.elections;
    metrics_fill(n, arena, &l, s);
    return s;
}
