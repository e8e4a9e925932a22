#include "gateway/gateway.h"

#include "auth/guard.h"
#include "gateway/acquire.h"
#include "gateway/certificate.h"
#include "gateway/expiry.h"
#include "gateway/metrics.h"
#include "gateway/server.h"
#include "gateway/streams.h"
#include "raftstore/base/buf.h"
#include "raftstore/base/log.h"

#include <stdio.h>
#include <stdlib.h>

#define SESSION_TTL_MS 10000
#define DRAIN_MS       10000 /* Beyond the time-out of a request. */
#define DRAIN_POLL_MS  20
#define CLOSE_GRACE_MS 1000

static int load_certificate(struct gateway *gw, char **ret_sentence)
{
    const struct options *o = gw->options;
    return o->tls_cert != NULL ? certificate_load(o->tls_cert, o->tls_key, ret_sentence) : 0;
}

static int load_cluster_tls(struct gateway *gw, char **ret_sentence)
{
    struct tls_context *tls = NULL;
    if (gw->options->cluster_tls == NULL)
        return 0;
    int rv = tls_context_load(gw->options->cluster_tls, &tls, ret_sentence);
    if (rv < 0)
        return rv;
    rv = tls_context_check_time(tls, (int64_t)(clock_wall_ns(clock_system()) / NS_PER_S),
                                ret_sentence); /* Nobody would let us in otherwise. */
    if (rv < 0) {
        tls_context_unref(tls);
        return rv;
    }
    tls_context_unref(gw->tls);
    gw->tls = tls;
    return 0;
}

/* ---- Audit and spans ------------------------------------------------------------------- */

static void audit_policy(struct gateway *gw, const char *what, const char *why)
{
    if (gw->audit == NULL)
        return;
    struct buf *line = audit_begin(gw->audit, "policy");
    audit_text(line, "by", "gateway");
    audit_text(line, "what", what);
    audit_text(line, "file", gw->options->policy);
    audit_text(line, "reason", why);
    audit_end(gw->audit);
}

static void on_policy(void *arg, const char *why)
{
    audit_policy(arg, why == NULL ? "reloaded" : "refused", why);
}

static int open_telemetry(struct gateway *gw, char **ret_sentence)
{
    const struct options *o = gw->options;
    struct audit_position last; /* Gateways have none. */
    char address[300];
    gw->random.state = random_system();
    int rv = o->audit != NULL ? audit_open(o->audit, 0, &gw->audit, &last, ret_sentence) : 0;
    if (rv < 0 || o->otlp == NULL)
        return rv;
    struct otlp_config config = {
        .url = o->otlp,
        .ca_file = o->otlp_ca,
        .insecure = o->insecure,
        .service = "holdfast-gateway",
        .instance = address_format(&o->listen, address, sizeof address),
        .spans = spans_new(o->trace_ratio, 0),
    };
    rv = otlp_start(&config, &gw->otlp, ret_sentence);
    if (rv == 0)
        gw->spans = config.spans;
    else
        spans_free(config.spans);
    return rv;
}

/* After everything that makes lines and spans. */
static void close_telemetry(struct gateway *gw)
{
    otlp_stop(gw->otlp);
    audit_close(gw->audit);
    gw->otlp = NULL;
    gw->spans = NULL;
    gw->audit = NULL;
}

/* ---- The beginning --------------------------------------------------------------------- */

static int open_guard(struct gateway *gw, char **ret_sentence)
{
    const struct options *o = gw->options;
    struct guard_config config = {
        .jwks = o->jwks,
        .jwks_ca = o->jwks_ca,
        .issuer = o->issuer,
        .audience = o->audience,
        .scope = o->scope,
        .roles_claim = o->roles_claim,
        .leeway_s = o->leeway_s,
        .policy = o->policy,
        .subject = o->rate_subject,
        .owner = o->rate_owner,
        .failed = o->rate_failed,
        .strict_typ = o->strict_typ,
        .clock = clock_system(),
    };
    config.on_policy = on_policy;
    config.arg = gw;
    int rv = guard_open(gw->loop, &config, &gw->guard, ret_sentence);
    if (rv == 0 && o->policy != NULL)
        audit_policy(gw, "loaded", NULL);
    return rv;
}

int gateway_start(struct gateway *gw, char **ret_sentence)
{
    struct client_config config = {
        .loop = gw->loop,
        .addresses = gw->options->cluster,
        .agent = "holdfast-gateway/" HOLDFAST_VERSION,
        .session_ttl_ms = SESSION_TTL_MS,
        .arg = gw,
    };
    gw->metrics = xcalloc(1, sizeof *gw->metrics);
    gw->timers.alarm.fd = -1;
    TAILQ_INIT(&gw->acquires);
    int rv = open_telemetry(gw, ret_sentence);
    if (rv == 0)
        rv = load_certificate(gw, ret_sentence);
    if (rv == 0)
        rv = load_cluster_tls(gw, ret_sentence);
    if (rv == 0)
        rv = open_guard(gw, ret_sentence);
    if (rv == 0)
        rv = boot_timers_init(&gw->timers, gw->loop, clock_system());
    if (rv == 0) {
        config.tls = gw->tls;
        config.spans = gw->spans;
        rv = client_new(&config, &gw->client);
        if (rv == -EINVAL)
            *ret_sentence =
                xasprintf("'%s' is no list of addresses: HOST:PORT,...", gw->options->cluster);
    }
    if (rv < 0)
        return rv;
    gw->streams = streams_new(gw);
    expiry_start(gw);
    return server_new(gw, &gw->server, ret_sentence);
}

/* Log what came of reading something again. */
static void reloaded(const char *file, int rv, char *sentence)
{
    if (rv < 0)
        LOG_ERROR("the certificate stays as it was", "why=%s",
                  log_quote(bytes_str(sentence != NULL ? sentence : strerror(-rv))));
    else
        LOG_INFO("the certificate was read again", "file=%s", log_quote(bytes_str(file)));
    free(sentence);
}

void gateway_reload(struct gateway *gw)
{
    char *sentence = NULL;
    if (gw->draining)
        return;
    if (gw->audit != NULL)
        audit_reopen(gw->audit);
    guard_reload(gw->guard);
    expiry_renewed(gw);
    if (gw->options->tls_cert != NULL) {
        int rv = load_certificate(gw, &sentence);
        reloaded(gw->options->tls_cert, rv, sentence);
    }
    if (gw->options->cluster_tls == NULL)
        return;
    sentence = NULL;
    int rv = load_cluster_tls(gw, &sentence);
    reloaded(gw->options->cluster_tls, rv, sentence);
    if (rv < 0)
        return;
    client_set_tls(gw->client, gw->tls);
    streams_set_tls(gw->streams);
}

/* ---- The end: server, then streams, client and timers ---------------------------------- */

static void on_guard_closed(void *arg)
{
    struct gateway *gw = arg;
    gw->guard = NULL;
    tls_context_unref(gw->tls);
    gw->tls = NULL;
    certificate_free_all();
    close_telemetry(gw);
    free(gw->metrics);
    gw->metrics = NULL;
    gw->on_stopped(gw->arg);
}

static void on_timers_closed(void *arg)
{
    struct gateway *gw = arg;
    if (gw->guard != NULL)
        guard_close(gw->guard, on_guard_closed, gw);
    else
        on_guard_closed(gw);
}

static void on_client_closed(void *arg)
{
    struct gateway *gw = arg;
    gw->client = NULL;
    if (gw->timers.alarm.fd >= 0)
        boot_timers_close(&gw->timers, on_timers_closed, gw);
    else
        on_timers_closed(gw);
}

static void on_streams_closed(void *arg)
{
    struct gateway *gw = arg;
    gw->streams = NULL;
    if (gw->client != NULL)
        client_close(gw->client, CLOSE_GRACE_MS, on_client_closed, gw);
    else
        on_client_closed(gw);
}

static void on_server_closed(void *arg)
{
    struct gateway *gw = arg;
    gw->server = NULL;
    if (gw->streams != NULL)
        streams_close(gw->streams, on_streams_closed, gw);
    else
        on_streams_closed(gw);
}

static void on_drain_closed(uv_handle_t *handle)
{
    struct gateway *gw = handle->data;
    server_close(gw->server, on_server_closed, gw);
}

static void on_drain(uv_timer_t *timer)
{
    struct gateway *gw = timer->data;
    bool late = uv_now(gw->loop) >= gw->drain_end_ms;
    if (!late && (server_n_connections(gw->server) > 0 || gw->n_commands > 0))
        return;
    if (late)
        LOG_WARN("stopping with work unfinished", "connections=%u commands=%u",
                 server_n_connections(gw->server), gw->n_commands);
    uv_close((uv_handle_t *)timer, on_drain_closed);
}

void gateway_stop(struct gateway *gw)
{
    if (gw->draining)
        return;
    gw->draining = true;
    if (gw->server == NULL) {
        on_server_closed(gw);
        return;
    }
    server_drain(gw->server);
    acquire_stop_all(gw);
    streams_stop_all(gw->streams);
    (void)uv_timer_init(gw->loop, &gw->drain); /* Can't fail. */
    gw->drain.data = gw;
    gw->drain_end_ms = uv_now(gw->loop) + gw->options->timeout_ms + DRAIN_MS;
    (void)uv_timer_start(&gw->drain, on_drain, 0, DRAIN_POLL_MS);
}
