/* The metrics of a mount.  Everything is counted where it happens; here it is only written down. */
#include "fs/control_internal.h"

#include "fs/locker.h"
#include "fs/locking.h"
#include "fs/rated.h"
#include "raftstore/base/prometheus.h"

#include <string.h>

struct control_counts control_count(struct fs *fs)
{
    return (struct control_counts){
        .leases = fs->holds.n_live,
        .locks =
            {[LOCKER_FLOCK] = fs->n_held[LOCKER_FLOCK], [LOCKER_FCNTL] = fs->n_held[LOCKER_FCNTL]},
        .waiting = locking_n_waiting(fs),
    };
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
        for (uint32_t e = 0; t->kinds[i] != NULL && e < TALLY_ERRNOS; e++)
            if (t->kinds[i]->counts[e] > 0 || e == 0)
                add_operation(&p, i, (int)e, t->kinds[i]->counts[e]);
    }
    p = prometheus_begin(
        out, "holdfast_mount_operation_duration_seconds", "histogram",
        "From a request of the kernel to its answer, waiting for a lock included.");
    for (uint32_t i = 0; i < TALLY_OPCODES; i++) {
        const struct prometheus_label labels[] = {{"operation", tally_name(i)}, {0}};
        if (t->kinds[i] != NULL)
            prometheus_buckets(&p, labels, &t->kinds[i]->took);
    }
    prometheus_single(out, "holdfast_mount_operations_pending", "gauge",
                      "Requests of the kernel without an answer.", t->n_pending);
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
        prometheus_labelled(&p, "state", control_session_states[i], i == state);
    p = prometheus_begin(out, "holdfast_mount_session_events_total", "counter",
                         "What became of sessions.");
    for (unsigned i = CLIENT_SESSION_OPENED; i < CONTROL_SESSION_EVENTS; i++)
        prometheus_labelled(&p, "event", events[i], c->n_session_events[i]);
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
    prometheus_labelled(&p, "kind", "lease", n.leases);
    prometheus_labelled(&p, "kind", "flock", n.locks[LOCKER_FLOCK]);
    prometheus_labelled(&p, "kind", "fcntl", n.locks[LOCKER_FCNTL]);
    prometheus_single(out, "holdfast_mount_rate_limited_total", "counter",
                      "Requests for locks refused for their user's rate.",
                      rated_n_refused(fs->rated));
    prometheus_single(out, "holdfast_mount_waiters", "gauge", "Lock calls that wait.", n.waiting);
    p = prometheus_begin(out, "holdfast_mount_lost_holds_total", "counter",
                         "Holds lost: not renewed in time, or broken.");
    prometheus_labelled(&p, "kind", "lease", c->n_leases_lost);
    prometheus_labelled(&p, "kind", "flock", c->n_locks_lost[LOCKER_FLOCK]);
    prometheus_labelled(&p, "kind", "fcntl", c->n_locks_lost[LOCKER_FCNTL]);
}

static void add_events(const struct control_events *e, struct buf *out)
{
    prometheus_single(out, "holdfast_mount_event_lines_total", "counter",
                      "Lines written to the event file.", e->n_lines);
    prometheus_single(out, "holdfast_mount_event_readers", "gauge", "Open files of the event file.",
                      e->n_open);
}

/* ---- All of it -------------------------------------------------------------------------- */

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
    client_metrics(fs->client, out);
    add_session(fs->control, &info, out);
    add_holds(fs, out);
    add_events(&fs->control->events, out);
}
