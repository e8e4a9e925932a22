/* holdfastd: a store node as a process. */
#include "raftstore/base/log.h"
#include "raftstore/base/memory.h"
#include "raftstore/base/notify.h"
#include "raftstore/node/node.h"
#include "raftstore/node/options.h"
#include "telemetry/otlp.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const int signal_numbers[] = {SIGTERM, SIGINT, SIGHUP};
#define N_SIGNALS (sizeof signal_numbers / sizeof signal_numbers[0])

struct daemon {
    uv_loop_t loop;
    struct node *node;
    struct audit *audit; /* NULL = none. */
    struct otlp *otlp;   /* NULL = none. */
    uv_signal_t signals[N_SIGNALS];
    bool stopping;
    int exit_code;
};

static void on_stopped(void *arg)
{
    struct daemon *d = arg;
    d->node = NULL;
    for (unsigned i = 0; i < N_SIGNALS; i++)
        uv_close((uv_handle_t *)&d->signals[i], NULL);
}

static void stop(struct daemon *d)
{
    if (d->stopping)
        return;
    d->stopping = true;
    notify_systemd("STOPPING=1");
    node_stop(d->node, on_stopped, d);
}

/* SIGHUP: certificates may have been renewed, the policy changed, the audit file been moved. */
static void reload(struct daemon *d)
{
    char *sentence = NULL;
    if (d->node == NULL || d->stopping)
        return;
    if (node_reload_tls(d->node, &sentence) < 0)
        LOG_ERROR("certificates not reloaded, the old ones stay", "why=%s",
                  log_quote(bytes_str(sentence)));
    free(sentence);
    node_reload_policy(d->node);
    node_reopen_audit(d->node);
}

static void on_signal(uv_signal_t *signal, int number)
{
    struct daemon *d = signal->data;
    if (number == SIGHUP) {
        reload(d);
        return;
    }
    if (d->stopping) { /* Raft and the leases recover from this as from a crash. */
        LOG_WARN("stopping at once", "signal=%d", number);
        _exit(d->exit_code);
    }
    stop(d);
}

static void on_failed(void *arg, const char *sentence)
{
    struct daemon *d = arg;
    (void)sentence; /* The node has logged it. */
    d->exit_code = OPTIONS_EXIT_FAILED;
    stop(d);
}

/* A connection is a descriptor: allow as many as we may. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        LOG_WARN("raising the descriptor limit failed", "why=%s",
                 log_quote(bytes_str(strerror(errno))));
}

static void signals_start(struct daemon *d)
{
    for (unsigned i = 0; i < N_SIGNALS; i++) {
        (void)uv_signal_init(&d->loop, &d->signals[i]); /* Fails only without descriptors. */
        d->signals[i].data = d;
        (void)uv_signal_start(&d->signals[i], on_signal, signal_numbers[i]);
    }
}

static int start_failed(struct daemon *d, int rv, char *sentence)
{
    LOG_ERROR("can't start", "why=%s",
              log_quote(bytes_str(sentence != NULL ? sentence : uv_strerror(rv))));
    free(sentence);
    for (unsigned i = 0; i < N_SIGNALS; i++)
        uv_close((uv_handle_t *)&d->signals[i], NULL);
    (void)uv_run(&d->loop, UV_RUN_DEFAULT); /* Closes what was opened. */
    return rv == -EBADMSG  ? OPTIONS_EXIT_DAMAGED
           : rv == -EINVAL ? OPTIONS_EXIT_USAGE
                           : OPTIONS_EXIT_START;
}

/* Audit and spans, before the node that makes them. */
static int telemetry_open(struct daemon *d,
                          const struct options_telemetry *t,
                          struct node_config *config,
                          char **ret_sentence)
{
    char instance[24];
    int rv = 0;
    if (t->audit != NULL)
        rv = audit_open(t->audit, 0, &config->audit, &config->audit_last, ret_sentence);
    d->audit = config->audit;
    if (rv < 0 || t->otlp == NULL)
        return rv;
    (void)snprintf(instance, sizeof instance, "%llu", (unsigned long long)config->id);
    struct otlp_config otlp = {
        .url = t->otlp,
        .ca_file = t->otlp_ca,
        .insecure = config->insecure,
        .service = "holdfastd",
        .instance = instance,
        .spans = spans_new(t->trace_ratio, 0),
    };
    rv = otlp_start(&otlp, &d->otlp, ret_sentence);
    if (rv == 0)
        config->spans = otlp.spans;
    else
        spans_free(otlp.spans);
    return rv;
}

int main(int argc, char **argv)
{
    struct daemon d = {0};
    struct node_config config;
    struct options_telemetry telemetry;
    char *sentence = NULL;
    memory_init();
    int code = options_parse(argc, argv, &config, &telemetry);
    if (code >= 0)
        return code;
    (void)signal(SIGPIPE, SIG_IGN); /* libuv reports EPIPE instead. */
    raise_descriptor_limit();
    int rv = uv_loop_init(&d.loop);
    if (rv < 0) {
        LOG_ERROR("can't start", "why=%s", log_quote(bytes_str(uv_strerror(rv))));
        return OPTIONS_EXIT_START;
    }
    config.loop = &d.loop;
    config.on_failed = on_failed;
    config.arg = &d;
    signals_start(&d);
    rv = telemetry_open(&d, &telemetry, &config, &sentence);
    if (rv == 0)
        rv = node_start(&config, &d.node, &sentence);
    if (rv < 0) {
        code = start_failed(&d, rv, sentence);
    } else {
        LOG_INFO("serving", "node=%llu version=%s", (unsigned long long)config.id,
                 HOLDFAST_VERSION);
        notify_systemd("READY=1");
        (void)uv_run(&d.loop, UV_RUN_DEFAULT); /* Ends when everything is closed. */
        code = d.exit_code;
    }
    otlp_stop(d.otlp);
    audit_close(d.audit);
    rv = uv_loop_close(&d.loop);
    if (rv < 0)
        LOG_WARN("handles were left open", "why=%s", log_quote(bytes_str(uv_strerror(rv))));
    return code;
}
