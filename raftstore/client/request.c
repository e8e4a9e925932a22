/* Queries and an operator's requests.
 *
 *     in line --node and room--> asked --answer--> (callback)
 *        ^                         |
 *        |       refused, lost     v
 *        `--timer, budget---- waits for its timer
 *
 * A query can be asked again anywhere, so it is, until its time is up or the retry budget is.  An
 * admin request is repeated only while it surely was not done; operators have no budget. */
#include "raftstore/client/internal.h"

#include "raftstore/wire/frame.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define RETRY_MS     10
#define RETRY_MAX_MS 300
#define DENIED_MS    500 /* No repetition left in the budget: ask it again after that. */

/* Varint of protobuf, for the id in front of the packed body. */
static void add_varint(struct buf *out, uint64_t value)
{
    uint8_t *p = buf_reserve(out, 10);
    size_t n = 0;
    for (; value >= 0x80; value >>= 7)
        p[n++] = (uint8_t)(value | 0x80);
    p[n++] = (uint8_t)value;
    out->size += n;
}

static void set_timer(struct request *q, uint64_t again_ns)
{
    uint64_t due = again_ns < q->deadline_ns ? again_ns : q->deadline_ns;
    if (due == UINT64_MAX)
        boot_timer_stop(&q->client->timers, &q->timer);
    else
        boot_timer_set(&q->client->timers, &q->timer, due);
}

/* ---- In line and asked ------------------------------------------------------------------ */

static void enter_line(struct request *q)
{
    struct requests *all = &q->client->requests;
    TAILQ_REMOVE(&all->list, q, link);
    TAILQ_INSERT_TAIL(&all->line, q, link);
    q->in_line = true;
}

static void leave_line(struct request *q)
{
    struct requests *all = &q->client->requests;
    TAILQ_REMOVE(&all->line, q, link);
    TAILQ_INSERT_TAIL(&all->list, q, link);
    q->in_line = false;
}

/* It is asked of this node, or (NULL) of none any more. */
static void set_peer(struct request *q, struct peer *p)
{
    struct bulkhead *b = &q->client->bulkhead;
    if (!q->admin)
        bulkhead_move(b, CLIENT_READ, q->peer != NULL ? BULKHEAD_FLIGHT : BULKHEAD_LINE,
                      p != NULL ? BULKHEAD_FLIGHT : BULKHEAD_LINE);
    q->peer = p;
}

/* Where it could be asked now; NULL = nowhere. */
static struct peer *where(const struct request *q)
{
    struct client *c = q->client;
    if (!q->admin && !bulkhead_has_room(&c->bulkhead, CLIENT_READ))
        return NULL;
    return q->on_leader ? c->route.primary : route_any(c);
}

static void send_to(struct request *q, struct peer *p)
{
    struct client *c = q->client;
    struct buf *out = client_conn_out(p->conn);
    size_t mark = frame_begin(out);
    buf_add(out, (const uint8_t[]){0x08}, 1); /* ClientFrame.id */
    add_varint(out, q->id);
    buf_add(out, q->body, q->body_bytes);
    buf_add(out, client_trace_packed(q->trace).data, client_trace_packed(q->trace).size);
    frame_end(out, mark);
    if (!q->asked)
        retry_budget_request(&c->budget, q->began_boot_ns);
    else
        c->n_retries++;
    q->asked = true;
    set_peer(q, p);
    q->serial = p->serial;
    client_trace_sent(q->trace, p);
    set_timer(q, UINT64_MAX);
    route_expect(c);
}

/* Ask now, or as soon as it can be. */
static void ask(struct request *q)
{
    struct peer *p = TAILQ_EMPTY(&q->client->requests.line) ? where(q) : NULL;
    if (p != NULL) {
        send_to(q, p);
        return;
    }
    enter_line(q);
    set_timer(q, UINT64_MAX);
}

void requests_pump(struct client *c)
{
    struct request *q, *next;
    struct peer *p;
    if (c->stopped || route_any(c) == NULL)
        return;
    TAILQ_FOREACH_SAFE(q, &c->requests.line, link, next)
    {
        if (!q->admin && !bulkhead_has_room(&c->bulkhead, CLIENT_READ))
            break;
        if ((p = where(q)) == NULL)
            continue; /* For the leader, which is not known. */
        leave_line(q);
        send_to(q, p);
    }
}

/* Answer and free. */
static void finish(struct request *q, struct client_reply *reply)
{
    struct client *c = q->client;
    TAILQ_REMOVE(q->in_line ? &c->requests.line : &c->requests.list, q, link);
    HASH_DELETE(hh, c->requests.by_id, q);
    c->requests.n--;
    c->requests.n_admin -= q->admin;
    boot_timer_stop(&c->timers, &q->timer);
    if (!q->admin) {
        bulkhead_leave(&c->bulkhead, CLIENT_READ,
                       q->peer != NULL ? BULKHEAD_FLIGHT : BULKHEAD_LINE);
        if (reply->status == 0)
            stats_answered(c, &c->stats.queries, q->began_boot_ns);
        else
            stats_failed(&c->stats.queries, reply->status);
    }
    client_trace_end(q->trace, reply->status, NULL);
    if (reply->text == NULL)
        reply->text = q->text;
    if (q->cb != NULL)
        q->cb(q->arg, reply);
    client_trace_free(q->trace);
    free(q);
    if (!TAILQ_EMPTY(&c->requests.line))
        requests_pump(c);
}

static void finish_status(struct request *q, int status)
{
    finish(q, &(struct client_reply){.status = status});
}

/* ---- Again ------------------------------------------------------------------------------ */

/* Whom it was asked of will not answer: ask it elsewhere, at the next turn.
 *
 * @free: whatever the budget says. */
static void take_back(struct request *q, bool free, uint64_t now)
{
    set_peer(q, NULL);
    q->n_tries = 0;
    if (free && !q->paid)
        retry_budget_charge(&q->client->budget, now);
    q->paid = q->paid || free;
    set_timer(q, 0);
}

void requests_on_lost(struct client *c, struct peer *p)
{
    struct request *q;
    uint64_t now = clock_boot_ns(c->config.clock);
    bool burst = false, first = true;
    TAILQ_FOREACH(q, &c->requests.list, link)
    {
        if (q->peer != p)
            continue;
        if (first)
            burst = client_burst(&c->requests.burst_boot_ns, now);
        first = false;
        take_back(q, burst, now);
        if (q->admin) { /* Answered from the loop, like all others. */
            (void)snprintf(q->text, sizeof q->text, "the connection broke; it may have been done");
            q->failure = -ECONNRESET;
            q->deadline_ns = 0;
            set_timer(q, 0);
        }
    }
}

void requests_on_silent(struct client *c, struct peer *p)
{
    struct request *q;
    uint64_t now = clock_boot_ns(c->config.clock);
    TAILQ_FOREACH(q, &c->requests.list, link)
    if (q->peer == p && !q->admin && !q->on_leader)
        take_back(q, true, now); /* Once for a silence: the next ones are asked elsewhere. */
}

/* May it be asked once more?  If so, that is taken from the budget. */
static bool may_repeat(struct request *q, uint64_t now)
{
    bool free = q->paid || q->admin || !q->asked;
    q->paid = false;
    return free || retry_budget_take(&q->client->budget, now);
}

/* Failed, but it can be asked again. */
static void again(struct request *q)
{
    struct client *c = q->client;
    set_peer(q, NULL);
    uint64_t ms = client_backoff_ms(c, RETRY_MS, RETRY_MAX_MS, q->n_tries++);
    set_timer(q, client_after_ms(c, ms));
}

/* Refused for load.  When the budget has no repetition left, the caller is told at once. */
static void on_busy(struct request *q)
{
    struct client *c = q->client;
    q->paid = !q->admin && retry_budget_take(&c->budget, clock_boot_ns(c->config.clock));
    if (q->paid || q->admin)
        again(q);
    else
        finish_status(q, -EBUSY);
}

static void on_failure(struct request *q, const Hf__Failure *f)
{
    (void)snprintf(q->text, sizeof q->text, "%s", f->text != NULL ? f->text : "");
    q->failure = f->code == HF__FAILURE__CODE__BUSY ? -EBUSY : -ETIMEDOUT;
    switch (f->code) {
    case HF__FAILURE__CODE__BAD_REQUEST:
        finish_status(q, -EINVAL);
        return;
    case HF__FAILURE__CODE__DENIED:
        finish_status(q, -EACCES);
        return;
    case HF__FAILURE__CODE__REFUSED:
        finish_status(q, -EPERM);
        return;
    case HF__FAILURE__CODE__NOT_FOUND:
        finish_status(q, -ENOENT);
        return;
    case HF__FAILURE__CODE__UNKNOWN:
    case HF__FAILURE__CODE__NO_QUORUM:
        if (q->admin) { /* Perhaps done: the caller has to look. */
            finish_status(q, f->code == HF__FAILURE__CODE__UNKNOWN ? -ECONNRESET : -ETIMEDOUT);
            return;
        }
        break;
    default: /* Not done: NOT_LEADER, BUSY, SHUTTING_DOWN. */
        break;
    }
    if (q->started)
        finish_status(q, -ECONNRESET);
    else if (f->code == HF__FAILURE__CODE__BUSY)
        on_busy(q);
    else
        again(q);
}

static void on_chunk(struct request *q, const Hf__SnapshotChunk *chunk)
{
    struct client_reply reply = {.chunk = chunk, .text = ""};
    if (!q->snapshot)
        return;
    if (chunk->last) {
        finish(q, &reply);
        return;
    }
    q->started = true;
    if (q->deadline_ns != UINT64_MAX)
        q->deadline_ns = client_after_ms(q->client, q->timeout_ms);
    set_timer(q, UINT64_MAX);
    q->cb(q->arg, &reply);
}

bool requests_on_frame(struct client *c, struct peer *p, const Hf__NodeFrame *frame)
{
    struct request *q;
    HASH_FIND(hh, c->requests.by_id, &frame->id, sizeof frame->id, q);
    if (q == NULL)
        return false;
    if (q->peer != p || q->serial != p->serial)
        return true; /* Asked again elsewhere meanwhile. */
    if (frame->body_case == HF__NODE_FRAME__BODY_FAILURE)
        on_failure(q, frame->failure);
    else if (frame->body_case == HF__NODE_FRAME__BODY_QUERY && !q->admin)
        finish(q, &(struct client_reply){.query = frame->query, .text = ""});
    else if (frame->body_case == HF__NODE_FRAME__BODY_ADMIN && q->admin)
        finish(q, &(struct client_reply){.admin = frame->admin, .text = frame->admin->text});
    else if (frame->body_case == HF__NODE_FRAME__BODY_CHUNK)
        on_chunk(q, frame->chunk);
    return true;
}

void requests_fail_all(struct client *c)
{
    struct request *q;
    while ((q = TAILQ_FIRST(&c->requests.list)) != NULL ||
           (q = TAILQ_FIRST(&c->requests.line)) != NULL)
        finish_status(q, -ECANCELED);
}

static void on_timer(struct boot_timer *t)
{
    struct request *q = t->arg;
    struct client *c = q->client;
    uint64_t now = clock_boot_ns(c->config.clock);
    if (now >= q->deadline_ns) {
        if (q->text[0] == '\0')
            (void)snprintf(q->text, sizeof q->text, "%s", c->route.error);
        finish_status(q, q->failure != 0 ? q->failure : -ETIMEDOUT);
        return;
    }
    if (q->peer != NULL || q->in_line)
        return;
    if (may_repeat(q, now))
        ask(q);
    else
        set_timer(q, client_after_ms(c, client_backoff_ms(c, DENIED_MS, DENIED_MS, 0)));
}

void requests_init(struct client *c)
{
    TAILQ_INIT(&c->requests.line);
    TAILQ_INIT(&c->requests.list);
}

/* ---- The public face -------------------------------------------------------------------- */

/* Is there room for one more? */
static bool admit(struct client *c, bool admin)
{
    if (admin)
        return c->requests.n_admin < ADMINS_MAX;
    if (bulkhead_enter(&c->bulkhead, CLIENT_READ))
        return true;
    stats_failed(&c->stats.queries, -EBUSY);
    return false;
}

static int request_add(struct client *c,
                       Hf__ClientFrame *frame,
                       uint64_t timeout_ms,
                       struct request traits,
                       client_reply_cb cb,
                       void *arg)
{
    if (c->closing)
        return -ESHUTDOWN;
    size_t size = hf__client_frame__get_packed_size(frame);
    if (size + client_trace_packed(traits.trace).size + 16 > FRAME_CLIENT_BYTES_MAX)
        return -EMSGSIZE;
    if (!admit(c, traits.admin))
        return -EBUSY;
    struct request *q = xmalloc(sizeof *q + size);
    *q = traits;
    (void)hf__client_frame__pack(frame, q->body);
    q->body_bytes = size;
    q->id = c->id_next++;
    q->timeout_ms = timeout_ms;
    q->began_boot_ns = clock_boot_ns(c->config.clock);
    q->deadline_ns = client_later_ms(q->began_boot_ns, timeout_ms);
    q->timer = (struct boot_timer){.cb = on_timer, .arg = q};
    q->cb = cb;
    q->arg = arg;
    q->client = c;
    TAILQ_INSERT_TAIL(&c->requests.list, q, link);
    HASH_ADD(hh, c->requests.by_id, id, sizeof q->id, q);
    c->requests.n++;
    c->requests.n_admin += q->admin;
    ask(q);
    return 0;
}

/* The same, and the place in a trace is given back if it fails. */
static int request_add_traced(struct client *c,
                              Hf__ClientFrame *frame,
                              uint64_t timeout_ms,
                              struct request traits,
                              client_reply_cb cb,
                              void *arg)
{
    int rv = request_add(c, frame, timeout_ms, traits, cb, arg);
    if (rv < 0) {
        client_trace_end(traits.trace, rv, NULL);
        client_trace_free(traits.trace);
    }
    return rv;
}

int client_query(struct client *c,
                 const Hf__Query *query,
                 uint64_t timeout_ms,
                 bool on_leader,
                 client_reply_cb cb,
                 void *arg)
{
    return client_query_traced(c, query, NULL, timeout_ms, on_leader, cb, arg);
}

int client_query_traced(struct client *c,
                        const Hf__Query *query,
                        const struct trace_context *trace,
                        uint64_t timeout_ms,
                        bool on_leader,
                        client_reply_cb cb,
                        void *arg)
{
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    frame.body_case = HF__CLIENT_FRAME__BODY_QUERY;
    frame.query = (Hf__Query *)(uintptr_t)query;
    struct request traits = {
        .on_leader = on_leader,
        .trace = client_trace_new(c, client_query_name(query), trace, pack_bytes(query->path)),
    };
    return request_add_traced(c, &frame, timeout_ms, traits, cb, arg);
}

int client_admin(
    struct client *c, const Hf__Admin *admin, uint64_t timeout_ms, client_reply_cb cb, void *arg)
{
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    frame.body_case = HF__CLIENT_FRAME__BODY_ADMIN;
    frame.admin = (Hf__Admin *)(uintptr_t)admin;
    struct request traits = {
        .admin = true,
        .on_leader = true,
        .snapshot = admin->what == HF__ADMIN__WHAT__SNAPSHOT,
        .trace = client_trace_new(c, client_admin_name(admin), NULL, bytes_of(NULL, 0)),
    };
    return request_add_traced(c, &frame, timeout_ms, traits, cb, arg);
}
