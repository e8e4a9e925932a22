/* The metrics of a mount.  Everything is counted where it happens; here it is only written down. */
#include "fs/control_internal.h"

#include "fs/locker.h"
#include "fs/locking.h"
#include "raftstore/base/prometheus.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

struct control_counts control_count(struct fs *fs)
{
    struct control_counts n = {.waiting = locking_n_waiting(fs)};
    const struct hold *h;
    const struct lock_file *f;
    const struct locker *l;
    for (h = fs->holds.by_token; h != NULL; h = h->hh.next)
        n.leases += h->state == HOLD_LIVE;
    for (f = fs->lock_files; f != NULL; f = f->hh.next)
        LIST_FOREACH(l, &f->lockers, in_file)
    n.locks[l->kind] += locker_holds(l);
    return n;
}

/* One sample with one label. */
static void sample(struct prometheus *p, const char *key, const char *label, uint64_t value)
{
    prometheus_sample(p, "");
    prometheus_label(p, key, bytes_str(label));
    prometheus_u64(p, value);
}

/* ---- Requests of the kernel ------------------------------------------------------------- */

static void add_operation(struct prometheus *p, uint32_t opcode, int error, uint64_t n)
{
    const char *name = error != 0 ? strerrorname_np(error) : "ok";
    prometheus_sample(p, "");
    prometheus_label(p, "operation", bytes_str(tally_name(opcode)));
    prometheus_label(p, "result", bytes_str(name != NULL ? name : "other"));
    prometheus_u64(p, n);
}

/* A kind that came once is shown with its successes, be they none: a rate needs a beginning. */
static void add_operations(const struct tally *t, struct buf *out)
{
    struct prometheus p =
        prometheus_begin(out, "holdfast_mount_operations_total", "counter",
                         "Requests of the kernel, by kind and by what they were answered.");
    for (uint32_t i = 0; i < TALLY_OPCODES; i++) {
        for (uint32_t e = 0; t->counts[i] != NULL && e < TALLY_ERRNOS; e++)
            if (t->counts[i][e] > 0 || e == 0)
                add_operation(&p, i, (int)e, t->counts[i][e]);
    }
    prometheus_single(out, "holdfast_mount_operations_pending", "gauge",
                      "Requests of the kernel without an answer.", t->n_pending);
}

/* ---- Requests to the cluster ------------------------------------------------------------ */

static void add_latency(struct prometheus *p, const char *kind, const struct client_latency *l)
{
    uint64_t n = 0;
    char bound[32];
    for (unsigned i = 0; i <= CLIENT_LATENCY_BUCKETS; i++) {
        uint64_t us = CLIENT_LATENCY_FIRST_US << i;
        n += l->buckets[i];
        (void)snprintf(bound, sizeof bound, "%" PRIu64 ".%06" PRIu64, us / 1000000, us % 1000000);
        prometheus_sample(p, "_bucket");
        prometheus_label(p, "kind", bytes_str(kind));
        prometheus_label(p, "le", bytes_str(i < CLIENT_LATENCY_BUCKETS ? bound : "+Inf"));
        prometheus_u64(p, n);
    }
    prometheus_sample(p, "_sum");
    prometheus_label(p, "kind", bytes_str(kind));
    prometheus_seconds(p, l->sum_ns);
    prometheus_sample(p, "_count");
    prometheus_label(p, "kind", bytes_str(kind));
    prometheus_u64(p, l->n);
}

static void add_failures(struct prometheus *p, const char *kind, const struct client_latency *l)
{
    for (unsigned i = 0; i < CLIENT_FAILURE_REASONS; i++) {
        prometheus_sample(p, "");
        prometheus_label(p, "kind", bytes_str(kind));
        prometheus_label(p, "reason", bytes_str(client_failure_names[i]));
        prometheus_u64(p, l->failures[i]);
    }
}

static void add_requests(const struct client *client, struct buf *out)
{
    const struct client_stats *s = client_stats(client);
    struct prometheus p = prometheus_begin(
        out, "holdfast_mount_cluster_request_duration_seconds", "histogram",
        "Requests to the cluster that it answered, from being sent first to the answer.");
    add_latency(&p, "command", &s->commands);
    add_latency(&p, "query", &s->queries);
    p = prometheus_begin(out, "holdfast_mount_cluster_request_failures_total", "counter",
                         "Requests that the cluster did not answer in time, or refused.");
    add_failures(&p, "command", &s->commands);
    add_failures(&p, "query", &s->queries);
}

static void add_client(const struct client_info *info, struct buf *out)
{
    prometheus_single(out, "holdfast_mount_commands_pending", "gauge",
                      "Commands to the cluster without a final answer.", info->n_pending);
    prometheus_single(out, "holdfast_mount_command_retries_total", "counter",
                      "Commands sent once more.", info->n_retries);
    prometheus_single(out, "holdfast_mount_reconnects_total", "counter",
                      "Connections to nodes that broke.", info->n_reconnects);
    prometheus_single(out, "holdfast_mount_keepalives_total", "counter",
                      "Keepalives sent for the session.", info->n_keepalives);
    prometheus_single(out, "holdfast_mount_connected", "gauge", "Is a node connected?",
                      info->connected);
    prometheus_single(out, "holdfast_mount_leader_id", "gauge", "The cluster's leader; 0: unknown.",
                      info->leader_id);
}

/* ---- Session and holds ------------------------------------------------------------------ */

static void add_session(const struct control *c, const struct client_info *info, struct buf *out)
{
    static const char *const events[CONTROL_SESSION_EVENTS] = {
        [CLIENT_SESSION_OPENED] = "opened",   [CLIENT_SESSION_JEOPARDY] = "jeopardy",
        [CLIENT_SESSION_SAFE] = "safe",       [CLIENT_SESSION_LOST] = "lost",
        [CLIENT_SESSION_RESUMED] = "resumed", [CLIENT_SESSION_ENDED] = "ended",
    };
    unsigned state = control_session_state(info);
    struct prometheus p = prometheus_begin(out, "holdfast_mount_session_state", "gauge",
                                           "1 for the state that the session is in.");
    for (unsigned i = 0; i < 4; i++)
        sample(&p, "state", control_session_states[i], i == state);
    p = prometheus_begin(out, "holdfast_mount_session_events_total", "counter",
                         "What became of sessions.");
    for (unsigned i = CLIENT_SESSION_OPENED; i < CONTROL_SESSION_EVENTS; i++)
        sample(&p, "event", events[i], c->n_session_events[i]);
    prometheus_single_seconds(out, "holdfast_mount_session_remaining_seconds", "gauge",
                              "Until the session is lost, unless it is kept.",
                              control_left_ns(info->session_deadline_boot_ns));
}

static void add_holds(struct fs *fs, struct buf *out)
{
    const struct control *c = fs->control;
    struct control_counts n = control_count(fs);
    struct prometheus p =
        prometheus_begin(out, "holdfast_mount_holds", "gauge", "Held through this mount.");
    sample(&p, "kind", "lease", n.leases);
    sample(&p, "kind", "flock", n.locks[LOCKER_FLOCK]);
    sample(&p, "kind", "fcntl", n.locks[LOCKER_FCNTL]);
    prometheus_single(out, "holdfast_mount_waiters", "gauge", "Lock calls that wait.", n.waiting);
    p = prometheus_begin(out, "holdfast_mount_lost_holds_total", "counter",
                         "Holds lost: not renewed in time, or broken.");
    sample(&p, "kind", "lease", c->n_leases_lost);
    sample(&p, "kind", "flock", c->n_locks_lost[LOCKER_FLOCK]);
    sample(&p, "kind", "fcntl", c->n_locks_lost[LOCKER_FCNTL]);
}

static void add_events(const struct control_events *e, struct buf *out)
{
    prometheus_single(out, "holdfast_mount_event_lines_total", "counter",
                      "Lines written to the event file.", e->n_lines);
    prometheus_single(out, "holdfast_mount_event_readers", "gauge", "Open files of the event file.",
                      e->n_open);
}

/* ---- The process ------------------------------------------------------------------------ */

/* Second word of /proc/self/statm. */
static uint64_t resident_bytes(void)
{
    char text[128] = "", *end = NULL;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    (void)close(fd); /* Only read from. */
    if (n <= 0)
        return 0;
    (void)strtoull(text, &end, 10);
    return strtoull(end, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t ns_of(struct timeval t)
{
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_usec * NS_PER_US;
}

static void add_process(const struct control *c, struct buf *out)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        prometheus_single_seconds(out, "process_cpu_seconds_total", "counter",
                                  "User and system time of the daemon.",
                                  ns_of(usage.ru_utime) + ns_of(usage.ru_stime));
    prometheus_single(out, "process_resident_memory_bytes", "gauge", "Resident memory.",
                      resident_bytes());
    prometheus_single_seconds(out, "process_start_time_seconds", "gauge",
                              "Start of the daemon, since the epoch.",
                              c->begin_wall_ms * NS_PER_MS);
}

static void add_info(const struct fs *fs, struct buf *out)
{
    struct prometheus p = prometheus_begin(out, "holdfast_mount_info", "gauge", "This mount.");
    prometheus_sample(&p, "");
    prometheus_label(&p, "version", bytes_str(HOLDFAST_VERSION));
    prometheus_label(&p, "source", bytes_str(fs->options->source));
    prometheus_label(&p, "mount", bytes_str(fs->dir));
    prometheus_label(&p, "host", bytes_str(fs->namer.host));
    prometheus_u64(&p, 1);
}

void control_metrics(struct fs *fs, struct buf *out)
{
    struct client_info info = client_info(fs->client);
    add_info(fs, out);
    add_operations(&fs->tally, out);
    add_requests(fs->client, out);
    add_client(&info, out);
    add_session(fs->control, &info, out);
    add_holds(fs, out);
    add_events(&fs->control->events, out);
    add_process(fs->control, out);
}
