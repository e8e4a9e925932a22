#include "raftstore/client/client.h"

#include "raftstore/client/internal.h"
#include "raftstore/wire/frame.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CONNECT_TIMEOUT_MS 1000
#define INFLIGHT           2048u
#define RETRY_PERCENT      20u
#define RETRY_FLOOR        100u /* In ten seconds. */
#define BURST_MS           500u

/* ---- Small things for all parts -------------------------------------------------------- */

void client_wake(struct client *c)
{
    boot_timers_run(&c->timers);
}

uint64_t client_later_ms(uint64_t boot_ns, uint64_t ms)
{
    uint64_t ns, due;
    if (__builtin_mul_overflow(ms, NS_PER_MS, &ns) || __builtin_add_overflow(boot_ns, ns, &due))
        return UINT64_MAX;
    return due;
}

uint64_t client_after_ms(const struct client *c, uint64_t ms)
{
    return client_later_ms(clock_boot_ns(c->config.clock), ms);
}

uint64_t client_backoff_ms(struct client *c, uint64_t base_ms, uint64_t max_ms, unsigned tries)
{
    uint64_t ms = base_ms << (tries < 16 ? tries : 16);
    if (ms > max_ms)
        ms = max_ms;
    return ms / 2 + random_below(&c->random, ms / 2 + 1);
}

bool client_burst(uint64_t *last_boot_ns, uint64_t now_boot_ns)
{
    if (*last_boot_ns != 0 && now_boot_ns - *last_boot_ns < BURST_MS * NS_PER_MS)
        return false;
    *last_boot_ns = now_boot_ns;
    return true;
}

static size_t put_varint(uint8_t *p, uint64_t value)
{
    size_t n = 0;
    for (; value >= 0x80; value >>= 7)
        p[n++] = (uint8_t)(value | 0x80);
    p[n++] = (uint8_t)value;
    return n;
}

static size_t put_field(uint8_t *p, unsigned field, uint64_t value)
{
    if (value == 0) /* The default of proto3 is not written. */
        return 0;
    p[0] = (uint8_t)(field << 3);
    return 1 + put_varint(p + 1, value);
}

/* The fields of a message may come in any order: what changes with each send goes behind the body,
 * which is packed once. */
void client_add_command(struct buf *out,
                        uint64_t id,
                        struct bytes body,
                        uint64_t session_id,
                        uint64_t seq,
                        uint64_t ack_seq,
                        struct bytes trace)
{
    uint8_t tail[40], head[32];
    size_t n_tail = put_field(tail, 3, session_id);
    n_tail += put_field(tail + n_tail, 4, seq);
    n_tail += put_field(tail + n_tail, 5, ack_seq);
    size_t n_head = put_field(head, 1, id);
    head[n_head++] = 3 << 3 | 2; /* ClientFrame.command, length-delimited. */
    n_head += put_varint(head + n_head, body.size + n_tail);
    size_t mark = frame_begin(out);
    buf_add(out, head, n_head);
    buf_add(out, body.data, body.size);
    buf_add(out, tail, n_tail);
    buf_add(out, trace.data, trace.size);
    frame_end(out, mark);
}

/* ---- The parts told of each other ------------------------------------------------------ */

void client_on_primary(struct client *c)
{
    if (c->stopped)
        return;
    session_on_primary(c);
    watch_update(c); /* Before the commands: what they cause is not missed. */
    commands_on_primary(c);
    requests_pump(c);
}

void client_on_primary_lost(struct client *c)
{
    session_on_primary_lost(c);
    watch_on_primary_lost(c);
    commands_on_primary_lost(c);
}

static void on_failure(struct client *c, struct peer *p, const Hf__NodeFrame *frame)
{
    const Hf__Failure *f = frame->failure;
    if (!session_on_failure(c, frame->id, f) && !watch_on_failure(c, frame->id) &&
        !commands_on_failure(c, p, frame->id, f))
        (void)requests_on_frame(c, p, frame); /* Else nobody's any more. */
    if (!c->stopped &&
        (f->code == HF__FAILURE__CODE__NOT_LEADER || f->code == HF__FAILURE__CODE__SHUTTING_DOWN))
        route_not_leader(c, p, f->leader_id, f->leader_client_address);
}

void client_on_frame(struct client *c, struct peer *p, const Hf__NodeFrame *frame)
{
    switch (frame->body_case) {
    case HF__NODE_FRAME__BODY_RESULT:
        if (!session_on_result(c, frame->id, frame->result))
            (void)commands_on_result(c, frame->id, frame->result); /* Else answered before. */
        break;
    case HF__NODE_FRAME__BODY_EVENTS:
        if (p == c->route.primary)
            watch_on_events(c, frame->events);
        break;
    case HF__NODE_FRAME__BODY_SUBSCRIBED:
        (void)watch_on_reply(c, frame->id, frame->subscribed);
        break;
    case HF__NODE_FRAME__BODY_FAILURE:
        on_failure(c, p, frame);
        break;
    default:
        (void)requests_on_frame(c, p, frame); /* What is new to us is ignored. */
        break;
    }
}

/* ---- Making and closing ---------------------------------------------------------------- */

static void on_close_timer(struct boot_timer *t);

static char *host_name(const char *given)
{
    char name[CLIENT_HOST_BYTES_MAX + 1] = "?";
    if (given != NULL)
        (void)snprintf(name, sizeof name, "%s", given);
    else if (gethostname(name, sizeof name - 1) < 0)
        (void)snprintf(name, sizeof name, "unknown");
    name[CLIENT_HOST_BYTES_MAX] = '\0';
    return xstrdup(name);
}

static void client_free(struct client *c)
{
    route_deinit(c);
    watch_deinit(c);
    arena_deinit(&c->arena);
    tls_context_unref(c->config.tls);
    free(c->agent);
    free(c->host);
    free(c);
}

int client_new(const struct client_config *config, struct client **ret_client)
{
    uint64_t ttl_ms = config->session_ttl_ms;
    if (ttl_ms != 0 && (ttl_ms < WIRE_TTL_MS_MIN || ttl_ms > WIRE_TTL_MS_MAX))
        return -EINVAL;
    struct client *c = xcalloc(1, sizeof *c);
    c->config = *config;
    if (c->config.clock == NULL)
        c->config.clock = clock_system();
    if (c->config.tls != NULL)
        (void)tls_context_ref(c->config.tls);
    if (c->config.connect_timeout_ms == 0)
        c->config.connect_timeout_ms = CONNECT_TIMEOUT_MS;
    if (config->trace != NULL)
        trace_copy(&c->trace, config->trace);
    c->config.trace = NULL; /* The caller's. */
    c->agent = xstrdup(config->agent != NULL ? config->agent : "holdfast-client");
    c->host = host_name(config->host);
    c->random.state = config->seed != 0 ? config->seed : random_system();
    c->id_next = 1;
    c->n_refs = 1; /* The timers. */
    c->close_timer.cb = on_close_timer;
    c->close_timer.arg = c;
    arena_init(&c->arena);
    requests_init(c);
    bulkhead_init(&c->bulkhead, config->inflight_max != 0 ? config->inflight_max : INFLIGHT);
    retry_budget_init(&c->budget, RETRY_PERCENT, RETRY_FLOOR);
    commands_init(c);
    session_init(c, ttl_ms);
    watch_init(c, config);
    int rc = route_init(c, config->addresses);
    if (rc == 0)
        rc = boot_timers_init(&c->timers, config->loop, c->config.clock);
    if (rc < 0) {
        client_free(c);
        return rc;
    }
    c->config.addresses = c->config.agent = c->config.host = NULL; /* The caller's. */
    c->config.event_prefixes = NULL;
    route_start(c);
    *ret_client = c;
    return 0;
}

void client_set_tls(struct client *c, struct tls_context *tls)
{
    if (tls != NULL)
        (void)tls_context_ref(tls);
    tls_context_unref(c->config.tls);
    c->config.tls = tls;
}

void client_unref(struct client *c)
{
    if (--c->n_refs > 0)
        return;
    void (*cb)(void *arg) = c->close_cb;
    void *arg = c->close_arg;
    client_free(c);
    if (cb != NULL)
        cb(arg);
}

static void on_timers_closed(void *arg)
{
    client_unref(arg);
}

/* Fail and close everything; the last handle that is gone frees the client. */
static void stop(struct client *c)
{
    c->stopped = true;
    session_stop(c);
    route_stop(c);
    commands_fail_all(c);
    requests_fail_all(c);
    boot_timers_close(&c->timers, on_timers_closed, c);
}

static void on_close_timer(struct boot_timer *t)
{
    stop(t->arg);
}

void client_on_session_closed(struct client *c)
{
    if (c->closing && !c->stopped)
        boot_timer_set(&c->timers, &c->close_timer, 0);
}

static void close_with(struct client *c, uint64_t grace_ms, void (*cb)(void *arg), void *arg)
{
    assert(!c->closing); /* Closing twice is the caller's mistake. */
    c->closing = true;
    c->close_cb = cb;
    c->close_arg = arg;
    bool wait = grace_ms > 0 && session_close(c);
    boot_timer_set(&c->timers, &c->close_timer, wait ? client_after_ms(c, grace_ms) : 0);
}

void client_close(struct client *c, uint64_t grace_ms, void (*cb)(void *arg), void *arg)
{
    close_with(c, grace_ms, cb, arg);
}

void client_abandon(struct client *c, void (*cb)(void *arg), void *arg)
{
    close_with(c, 0, cb, arg);
}

/* ---- What it knows --------------------------------------------------------------------- */

uint64_t client_deadline_boot_ns(const struct client *c, uint64_t deadline_ns)
{
    return deadline_boot_ns(&c->pair, deadline_ns);
}

struct client_info client_info(const struct client *c)
{
    const struct peer *p = route_any((struct client *)(uintptr_t)c);
    struct client_info info = {
        .session_id = c->session.id,
        .session_deadline_boot_ns = c->session.deadline_boot_ns,
        .session_acked_boot_ns = c->session.acked_boot_ns,
        .session_lost = c->session.lost,
        .session_ttl_ms = c->session.granted_ttl_ms,
        .jeopardy = c->session.jeopardy,
        .connected = p != NULL,
        .leader_id = c->route.leader_id,
        .node_id = p != NULL ? p->node_id : 0,
        .n_pending = c->commands.n,
        .n_keepalives = c->n_keepalives,
        .n_retries = c->n_retries,
        .n_reconnects = c->n_reconnects,
    };
    (void)snprintf(info.address, sizeof info.address, "%s", p != NULL ? p->text : "");
    (void)snprintf(info.error, sizeof info.error, "%s", c->route.error);
    return info;
}
