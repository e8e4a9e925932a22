#include "fs/daemon.h"

#include "fs/attr.h"
#include "fs/channel.h"
#include "fs/control.h"
#include "fs/errno_table.h"
#include "fs/fs.h"
#include "fs/host.h"
#include "fs/signals.h"
#include "raftstore/base/clock.h"
#include "raftstore/base/log.h"
#include "raftstore/node/node.h"
#include "raftstore/wire/codes.h"
#include "telemetry/endpoint.h"
#include "telemetry/observe.h"
#include "telemetry/otlp.h"
#include "telemetry/process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BUSY_RETRY_MS  100
#define BUSY_RETRIES   50   /* A killed daemon may take a moment to let go of its data. */
#define CLOSE_GRACE_MS 1000 /* To end the session at the cluster. */
#define CLOSE_LATE_MS  5000 /* An end that takes longer is a mistake of ours: say what is open. */

struct daemon {
    const struct daemon_config *config;
    uv_loop_t loop;
    char cluster[400]; /* Addresses for the client and the CLI. */
    char host[256];
    struct node *node; /* SOURCE local. */
    struct client *client;
    struct tls_context *tls; /* NULL: in the clear. */
    struct fs fs;
    struct channel channel;
    struct endpoint *endpoint; /* NULL: none. */
    struct otlp *otlp;         /* NULL: none. */
    struct spans *spans;       /* Likewise. */
    struct signals signals;
    uv_timer_t retry; /* To start the store again. */
    uv_timer_t late;  /* Runs while we end; does not keep the loop going. */
    unsigned n_retries;
    bool ready; /* on_ready() was told. */
    bool had_session;
    bool stopping; /* stop() was called. */
    int status;
};

static void daemon_stop(struct daemon *d);

static void tell(struct daemon *d, const char *sentence)
{
    if (d->ready)
        return;
    d->ready = true;
    d->config->on_ready(d->config->arg, sentence);
}

static void fail(struct daemon *d, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void fail(struct daemon *d, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *sentence = xvasprintf(format, args);
    va_end(args);
    LOG_ERROR("mount failed", "reason=%s", log_quote(bytes_str(sentence)));
    tell(d, sentence);
    free(sentence);
    d->status = DAEMON_EXIT_MOUNT;
    daemon_stop(d);
}

/* ---- The end ---- */

static void on_node_stopped(void *arg)
{
    struct daemon *d = arg;
    d->node = NULL;
}

static void on_client_closed(void *arg)
{
    struct daemon *d = arg;
    d->client = NULL;
    if (d->node != NULL)
        node_stop(d->node, on_node_stopped, d);
}

static void log_open_handle(uv_handle_t *handle, void *arg)
{
    const struct daemon *d = arg;
    if (handle != (const uv_handle_t *)&d->late)
        LOG_ERROR("still open", "handle=%s active=%d closing=%d",
                  uv_handle_type_name(uv_handle_get_type(handle)), uv_is_active(handle),
                  uv_is_closing(handle));
}

static void on_late(uv_timer_t *timer)
{
    struct daemon *d = timer->data;
    LOG_ERROR("the end takes long", "client=%d node=%d requests=%d", d->client != NULL,
              d->node != NULL, (int)d->loop.active_reqs.count);
    uv_walk(&d->loop, log_open_handle, d);
}

static void daemon_stop(struct daemon *d)
{
    if (d->stopping)
        return;
    d->stopping = true;
    (void)uv_timer_start(&d->late, on_late, CLOSE_LATE_MS, 0); /* Never fails. */
    channel_close(&d->channel);
    signals_close(&d->signals);
    uv_close((uv_handle_t *)&d->retry, NULL);
    fs_close(&d->fs);
    if (d->endpoint != NULL)
        endpoint_close(d->endpoint, NULL, NULL);
    d->endpoint = NULL;
    if (d->client != NULL)
        client_close(d->client, CLOSE_GRACE_MS, on_client_closed, d);
    else
        on_client_closed(d);
}

/* The cluster would refuse a mount that is not the one which its certificate names. */
static int check_tls(const struct daemon *d, const struct tls_context *tls, char **ret_sentence)
{
    const struct identity *own = tls_context_identity(tls);
    const char *asked = d->config->options->host;
    const struct identity *before = d->tls != NULL ? tls_context_identity(d->tls) : NULL;
    if (before != NULL && (before->kind != own->kind || strcmp(before->name, own->name) != 0)) {
        *ret_sentence = xasprintf("%s/tls.crt is that of %s/%s now; this mount began as %s/%s",
                                  d->config->tls, identity_kind_name(own->kind), own->name,
                                  identity_kind_name(before->kind), before->name);
        return -EINVAL;
    }
    if (asked != NULL && own->kind == IDENTITY_MOUNT && strcmp(asked, own->name) != 0) {
        *ret_sentence = xasprintf("%s/tls.crt is that of mount/%s; it can't speak for host=%s",
                                  d->config->tls, own->name, asked);
        return -EINVAL;
    }
    return tls_context_check_time(tls, (int64_t)(clock_wall_ns(clock_system()) / NS_PER_S),
                                  ret_sentence);
}

/* Load the certificates.  Return: 0, or negative errno with a sentence. */
static int load_tls(struct daemon *d, char **ret_sentence)
{
    struct tls_context *tls = NULL;
    *ret_sentence = NULL;
    if (d->config->tls == NULL)
        return 0;
    int r = tls_context_load(d->config->tls, &tls, ret_sentence);
    if (r == 0)
        r = check_tls(d, tls, ret_sentence);
    if (r < 0) {
        tls_context_unref(tls);
        return r;
    }
    tls_context_unref(d->tls);
    d->tls = tls;
    return 0;
}

static void reload(struct daemon *d)
{
    char *sentence = NULL;
    if (load_tls(d, &sentence) < 0) {
        LOG_ERROR("certificates not reloaded, the old ones stay", "why=%s",
                  log_quote(bytes_str(sentence)));
    } else if (d->client != NULL) {
        client_set_tls(d->client, d->tls);
        LOG_INFO("certificates reloaded", "expires=%lld", (long long)tls_context_expires_s(d->tls));
    }
    free(sentence);
}

static void on_signal(void *arg, int number)
{
    struct daemon *d = arg;
    if (number == SIGHUP && d->config->tls != NULL) {
        reload(d);
        return;
    }
    LOG_INFO("unmounting", "signal=%d", number);
    daemon_stop(d);
}

static void on_unmounted(void *arg)
{
    LOG_INFO("unmounted", "%s", "");
    daemon_stop(arg);
}

/* ---- The beginning: store, client, root, mount, INIT ---- */

static void on_mount_usable(void *arg)
{
    struct daemon *d = arg;
    LOG_INFO("mounted", "source=%s dir=%s", log_quote(bytes_str(d->config->options->source)),
             log_quote(bytes_str(d->config->dir)));
    tell(d, NULL);
}

static void daemon_mount(struct daemon *d)
{
    char *sentence = NULL;
    d->fs.dir = d->config->dir;
    d->fs.on_init = on_mount_usable;
    d->fs.arg = d;
    if (channel_open(&d->channel, &d->fs, d->config->dir, on_unmounted, d, &sentence) == 0)
        return;
    fail(d, "%s: %s", d->config->dir, sentence);
    free(sentence);
}

static void on_root(void *arg, const struct client_reply *reply)
{
    struct daemon *d = arg;
    if (d->stopping)
        return;
    if (reply->status == -EACCES) {
        fail(d, "the cluster at %s refuses this mount: %s", d->cluster, reply->text);
        return;
    }
    if (reply->status != 0 || reply->query->n_nodes == 0) {
        struct client_info info = client_info(d->client);
        fail(d, "no answer from the cluster at %s within %llu ms%s%s%s", d->cluster,
             (unsigned long long)d->config->options->timeout_ms, info.error[0] != '\0' ? " (" : "",
             info.error, info.error[0] != '\0' ? ")" : "");
        return;
    }
    attr_update_directory(inode_get(&d->fs.inodes, INODE_ROOT), reply->query->nodes[0], 0);
    daemon_mount(d);
}

static void on_session(void *arg, enum client_session_event event)
{
    static const char *const names[] = {
        [CLIENT_SESSION_OPENED] = "opened",   [CLIENT_SESSION_JEOPARDY] = "in jeopardy",
        [CLIENT_SESSION_SAFE] = "safe again", [CLIENT_SESSION_LOST] = "lost",
        [CLIENT_SESSION_RESUMED] = "resumed", [CLIENT_SESSION_ENDED] = "ended",
    };
    struct daemon *d = arg;
    struct client_info info = {0};
    if (d->client != NULL)
        info = client_info(d->client);
    if (event == CLIENT_SESSION_OPENED && d->had_session && !d->stopping)
        fs_on_gap(&d->fs); /* News of the old session's leases went to that one. */
    d->had_session = true;
    if (!d->stopping)
        fs_on_session(&d->fs, event);
    LOG_INFO("session", "event=\"%s\" id=%llu", names[event], (unsigned long long)info.session_id);
}

static void on_event(void *arg, const Hf__Event *event)
{
    struct daemon *d = arg;
    fs_on_event(&d->fs, event);
}

static void on_gap(void *arg)
{
    struct daemon *d = arg;
    if (d->stopping)
        return;
    fs_on_gap(&d->fs);
    follow_on_gap(&d->fs.follow);
}

static void on_watch(void *arg, uint64_t version, uint64_t index)
{
    struct daemon *d = arg;
    follow_on_watch(&d->fs.follow, version, index);
}

static void start_client(struct daemon *d)
{
    const struct options *o = d->config->options;
    struct client_config config = {
        .loop = &d->loop,
        .addresses = d->cluster,
        .agent = "mount.holdfast " HOLDFAST_VERSION,
        .host = d->host,
        .tls = d->tls,
        .spans = d->spans,
        .session_ttl_ms = o->session_ttl_ms,
        .events_session = true,
        .on_session = on_session,
        .on_event = on_event,
        .on_gap = on_gap,
        .on_watch = on_watch,
        .arg = d,
    };
    Hf__Query query = HF__QUERY__INIT;
    int r = client_new(&config, &d->client);
    if (r < 0) {
        d->client = NULL;
        fail(d, "'%s' is not a list of HOST:PORT", o->source);
        return;
    }
    fs_set_client(&d->fs, d->client);
    query.what = HF__QUERY__WHAT__SHOW;
    query.brief = true;
    r = client_query(d->client, &query, o->timeout_ms, false, on_root, d);
    if (r < 0)
        fail(d, "the cluster can't be asked: %s", strerror(-r));
}

static void on_node_failed(void *arg, const char *sentence)
{
    struct daemon *d = arg;
    LOG_ERROR("the store has failed", "reason=%s", log_quote(bytes_str(sentence)));
    d->fs.failed = true;
    tell(d, sentence);
    exit(d->channel.mounted ? DAEMON_EXIT_FAILED : DAEMON_EXIT_MOUNT);
}

static void start_node(struct daemon *d);

static void on_retry(uv_timer_t *timer)
{
    start_node(timer->data);
}

/* The store in this process: one voter, reached through a socket in its data directory. */
static void start_node(struct daemon *d)
{
    struct node_config config = {
        .loop = &d->loop,
        .id = 1,
        .data = d->config->data,
        .n_members = 1,
        .spans = d->spans,
        .on_failed = on_node_failed,
        .arg = d,
    };
    struct node_member *self = &config.members[0];
    char *sentence = NULL;
    self->id = 1;
    self->raft.is_unix = true; /* Without a path: there are no other nodes. */
    if (address_parse(d->cluster, &self->client) < 0 || strchr(d->cluster, ',') != NULL) {
        fail(d, "the data directory's path is too long or has a comma: %s", d->config->data);
        return;
    }
    int r = node_start(&config, &d->node, &sentence);
    if (r == -EBUSY && d->n_retries++ < BUSY_RETRIES) {
        free(sentence);
        (void)uv_timer_start(&d->retry, on_retry, BUSY_RETRY_MS, 0); /* Never fails. */
        return;
    }
    if (r < 0) {
        d->node = NULL;
        fail(d, "the store did not start: %s", sentence != NULL ? sentence : strerror(-r));
        free(sentence);
        return;
    }
    start_client(d);
}

/* ---- Metrics and health over HTTP ---- */

static void on_metrics(void *arg, struct buf *out)
{
    struct daemon *d = arg;
    if (d->client != NULL)
        control_metrics(&d->fs, out);
    struct certificate_end own = {"cluster", d->tls != NULL ? tls_context_expires_s(d->tls) : 0};
    certificates_write(&own, 1, out);
    observe_metrics(out, "mount", NULL, d->spans);
    if (d->node != NULL)
        node_metrics(d->node, out);
}

static const char *on_unready(void *arg)
{
    struct daemon *d = arg;
    if (d->stopping)
        return "this mount ends";
    if (!d->ready || d->client == NULL)
        return "not mounted yet";
    if (d->node != NULL && node_unready(d->node) != NULL)
        return node_unready(d->node);
    if (!client_in_touch(d->client))
        return "no leader answers";
    return NULL;
}

static int open_endpoint(struct daemon *d, char **ret_sentence)
{
    const struct options *o = d->config->options;
    struct endpoint_config config = {
        .loop = &d->loop,
        .address = o->http,
        .insecure = o->http_insecure,
        .remedy = "http_insecure",
        .data = d->config->data,
        .component = "mount",
        .metrics = on_metrics,
        .unready = on_unready,
        .arg = d,
    };
    if (config.address.host[0] == '\0')
        return 0;
    int r = endpoint_open(&config, &d->endpoint, ret_sentence);
    if (r == 0)
        LOG_INFO("metrics and health", "http=%s", endpoint_address(d->endpoint));
    return r;
}

static int start(struct daemon *d)
{
    const struct options *o = d->config->options;
    int r = uv_loop_init(&d->loop);
    if (r < 0)
        return r;
    (void)uv_timer_init(&d->loop, &d->retry); /* Never fails. */
    d->retry.data = d;
    (void)uv_timer_init(&d->loop, &d->late);
    uv_unref((uv_handle_t *)&d->late);
    d->late.data = d;
    r = signals_open(&d->signals, &d->loop, on_signal, d);
    if (r < 0)
        return r;
    const struct identity *own = d->tls != NULL ? tls_context_identity(d->tls) : NULL;
    if (o->host == NULL && own != NULL && own->kind == IDENTITY_MOUNT)
        (void)snprintf(d->host, sizeof d->host, "%s", own->name);
    else if (o->host != NULL)
        (void)snprintf(d->host, sizeof d->host, "%.64s", o->host);
    else if (gethostname(d->host, sizeof d->host - 1) < 0)
        (void)snprintf(d->host, sizeof d->host, "localhost");
    d->host[WIRE_HOST_BYTES_MAX] = '\0';
    fs_init(&d->fs, &d->loop, o, d->cluster, d->config->dir, d->host);
    return 0;
}

static int open_spans(struct daemon *d, char **ret_sentence)
{
    const struct options *o = d->config->options;
    char *why = NULL;
    if (o->otlp == NULL)
        return 0;
    struct otlp_config config = {
        .url = o->otlp,
        .service = "mount.holdfast",
        .instance = d->host,
        .spans = spans_new(o->trace_ratio, 0),
    };
    int r = otlp_start(&config, &d->otlp, &why);
    if (r == 0) {
        d->spans = config.spans;
    } else {
        spans_free(config.spans);
        *ret_sentence = xasprintf("otlp=%s", why);
        free(why);
    }
    return r;
}

static void begin(struct daemon *d)
{
    char *sentence = NULL;
    if (open_spans(d, &sentence) < 0 || open_endpoint(d, &sentence) < 0) {
        fail(d, "%s", sentence);
        free(sentence);
        return;
    }
    int r = host_clear_dead_mount(d->config->dir);
    host_raise_limits();
    host_check_request_timeout();
    if (r == -EBUSY)
        fail(d, "%s has a Holdfast mount already", d->config->dir);
    else if (r < 0)
        fail(d, "%s has a dead Holdfast mount that can't be unmounted", d->config->dir);
    else if (d->config->data == NULL)
        start_client(d);
    else if ((r = host_make_directory(d->config->data)) < 0)
        fail(d, "can't make the data directory %s: %s", d->config->data, strerror(-r));
    else
        start_node(d);
}

int daemon_run(const struct daemon_config *config)
{
    struct daemon d = {.config = config};
    if (config->data != NULL)
        (void)snprintf(d.cluster, sizeof d.cluster, "unix:%s/client.sock", config->data);
    else
        (void)snprintf(d.cluster, sizeof d.cluster, "%s", config->options->source);
    char *sentence;
    if (load_tls(&d, &sentence) < 0) {
        tell(&d, sentence);
        free(sentence);
        return DAEMON_EXIT_MOUNT;
    }
    if (start(&d) < 0) {
        tls_context_unref(d.tls);
        tell(&d, "the event loop did not start");
        return DAEMON_EXIT_MOUNT;
    }
    begin(&d);
    (void)uv_run(&d.loop, UV_RUN_DEFAULT); /* Ends when daemon_stop() has closed everything. */
    uv_close((uv_handle_t *)&d.late, NULL);
    (void)uv_run(&d.loop, UV_RUN_DEFAULT);
    channel_deinit(&d.channel);
    fs_deinit(&d.fs);
    otlp_stop(d.otlp);
    tls_context_unref(d.tls);
    if (uv_loop_close(&d.loop) < 0)
        LOG_WARN("the loop had handles left", "%s", "");
    return d.status;
}
