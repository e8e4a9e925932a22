#include "raftstore/node/request_stats.h"

#include "raftstore/base/prometheus.h"
#include "raftstore/lock/lock.h"

#include "holdfast.pb-c.h"

#include <assert.h>

static_assert(REQUEST_CODES == LOCK_RELEASED + 1, "each result has a column");
static_assert(REQUEST_FAILURES == HF__FAILURE__CODE__DENIED + 1, "each failure, too");
static_assert(REQUEST_WHAT_QUERY > LOCK_OP_EPOCH, "kinds must differ");

static const char *const what_names[REQUEST_WHATS] = {
    [REQUEST_WHAT_OTHER] = "other",
    [LOCK_OP_SESSION_OPEN] = "session_open",
    [LOCK_OP_SESSION_KEEPALIVE] = "session_keepalive",
    [LOCK_OP_SESSION_CLOSE] = "session_close",
    [LOCK_OP_ACQUIRE] = "acquire",
    [LOCK_OP_CANCEL] = "cancel",
    [LOCK_OP_RENEW] = "renew",
    [LOCK_OP_RELEASE] = "release",
    [LOCK_OP_CONVERT] = "convert",
    [LOCK_OP_NOTE] = "note",
    [LOCK_OP_BREAK] = "break",
    [LOCK_OP_MKDIR] = "mkdir",
    [LOCK_OP_RMDIR] = "rmdir",
    [LOCK_OP_SETATTR] = "setattr",
    [LOCK_OP_LINK] = "link",
    [LOCK_OP_RENAME] = "rename",
    [LOCK_OP_TICK] = "tick",
    [LOCK_OP_TERM_START] = "term_start",
    [LOCK_OP_NODE_INFO] = "node_info",
    [LOCK_OP_EPOCH] = "epoch",
    [REQUEST_WHAT_QUERY + HF__QUERY__WHAT__STATUS] = "status",
    [REQUEST_WHAT_QUERY + HF__QUERY__WHAT__SHOW] = "show",
    [REQUEST_WHAT_QUERY + HF__QUERY__WHAT__LIST] = "list",
    [REQUEST_WHAT_QUERY + HF__QUERY__WHAT__LIST_PREFIX] = "list_prefix",
    [REQUEST_WHAT_QUERY + HF__QUERY__WHAT__SESSIONS] = "sessions",
    [REQUEST_WHAT_QUERY + HF__QUERY__WHAT__SESSION] = "session",
    [REQUEST_WHAT_QUERY + HF__QUERY__WHAT__MEMBERS] = "members",
    [REQUEST_WHAT_QUERY + HF__QUERY__WHAT__COUNTS] = "counts",
    [REQUEST_WHAT_QUERY + HF__QUERY__WHAT__TOKEN] = "token",
    [REQUEST_WHAT_ADMIN] = "admin",
    [REQUEST_WHAT_SUBSCRIBE] = "subscribe",
};

static const char *const failure_names[REQUEST_FAILURES] = {
    [HF__FAILURE__CODE__UNKNOWN] = "outcome_unknown",
    [HF__FAILURE__CODE__NOT_LEADER] = "not_leader",
    [HF__FAILURE__CODE__BUSY] = "busy",
    [HF__FAILURE__CODE__BAD_REQUEST] = "bad_request",
    [HF__FAILURE__CODE__NO_QUORUM] = "no_quorum",
    [HF__FAILURE__CODE__VERSION] = "version",
    [HF__FAILURE__CODE__NOT_FOUND] = "no_such_node",
    [HF__FAILURE__CODE__SHUTTING_DOWN] = "shutting_down",
    [HF__FAILURE__CODE__REFUSED] = "refused",
    [HF__FAILURE__CODE__DENIED] = "denied",
};

static const char *const class_names[REQUEST_CLASSES] = {
    [REQUEST_ACQUIRE] = "acquire",     [REQUEST_RENEW] = "renew",
    [REQUEST_RELEASE] = "release",     [REQUEST_KEEPALIVE] = "keepalive",
    [REQUEST_OTHER] = "other_command", [REQUEST_READ] = "read",
    [REQUEST_OPERATOR] = "operator",
};

static enum request_class class_of(unsigned what)
{
    switch (what) {
    case LOCK_OP_ACQUIRE:
        return REQUEST_ACQUIRE;
    case LOCK_OP_RENEW:
        return REQUEST_RENEW;
    case LOCK_OP_RELEASE:
        return REQUEST_RELEASE;
    case LOCK_OP_SESSION_KEEPALIVE:
        return REQUEST_KEEPALIVE;
    case REQUEST_WHAT_ADMIN:
        return REQUEST_OPERATOR;
    default:
        return what >= REQUEST_WHAT_QUERY ? REQUEST_READ : REQUEST_OTHER;
    }
}

void request_stats_count(struct request_stats *s, unsigned what, uint32_t code)
{
    assert(what < REQUEST_WHATS && code < REQUEST_CODES);
    s->counts[what][code]++;
}

void request_stats_done(struct request_stats *s, unsigned what, uint32_t code, uint64_t took_ns)
{
    request_stats_count(s, what, code);
    buckets_add(&s->took[class_of(what)], took_ns);
}

void request_stats_failed(struct request_stats *s, unsigned what, int code)
{
    assert(what < REQUEST_WHATS && code >= 0 && (unsigned)code < REQUEST_FAILURES);
    s->counts[what][REQUEST_CODES + (unsigned)code]++;
}

/* A kind that came once is shown with its successes, be they none: a rate needs a beginning.  So
 * are those that there always are. */
static bool is_shown(const struct request_stats *s, unsigned what)
{
    bool seen = what == LOCK_OP_ACQUIRE || what == LOCK_OP_RENEW || what == LOCK_OP_RELEASE ||
                what == LOCK_OP_SESSION_KEEPALIVE || what == REQUEST_WHAT_QUERY + 1;
    for (unsigned i = 0; i < REQUEST_CODES + REQUEST_FAILURES; i++)
        seen = seen || s->counts[what][i] > 0;
    return seen;
}

static void add_result(struct prometheus *p, unsigned what, const char *result, uint64_t n)
{
    prometheus_sample(p, "");
    prometheus_label(p, "kind", bytes_str(what_names[what]));
    prometheus_label(p, "result", bytes_str(result));
    prometheus_u64(p, n);
}

static void add_requests(const struct request_stats *s, struct buf *out)
{
    struct prometheus p =
        prometheus_begin(out, "holdfast_node_requests_total", "counter",
                         "Requests of clients, by kind and by what they were answered.");
    for (unsigned what = 0; what < REQUEST_WHATS; what++) {
        if (!is_shown(s, what))
            continue;
        for (unsigned i = 0; i < REQUEST_CODES + REQUEST_FAILURES; i++)
            if (s->counts[what][i] > 0 || i == LOCK_OK)
                add_result(&p, what,
                           i < REQUEST_CODES ? lock_code_name((enum lock_code)i)
                                             : failure_names[i - REQUEST_CODES],
                           s->counts[what][i]);
    }
}

static void add_failures(const struct request_stats *s, struct buf *out)
{
    struct prometheus p = prometheus_begin(out, "holdfast_node_request_failures_total", "counter",
                                           "Requests of clients that were not done.");
    for (unsigned i = 0; i < REQUEST_FAILURES; i++) {
        uint64_t n = 0;
        for (unsigned what = 0; what < REQUEST_WHATS; what++)
            n += s->counts[what][REQUEST_CODES + i];
        prometheus_labelled(&p, "reason", failure_names[i], n);
    }
}

void request_stats_write(const struct request_stats *s, struct buf *out)
{
    add_requests(s, out);
    add_failures(s, out);
    struct prometheus p =
        prometheus_begin(out, "holdfast_node_request_duration_seconds", "histogram",
                         "From a request's arrival to its answer, of those that were done; one "
                         "that waits for a lock: to being queued.");
    for (unsigned i = 0; i < REQUEST_CLASSES; i++) {
        const struct prometheus_label labels[] = {{"class", class_names[i]}, {0}};
        prometheus_buckets(&p, labels, &s->took[i]);
    }
}
