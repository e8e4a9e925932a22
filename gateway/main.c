/* holdfast-gateway: the HTTP API as a process. */
#include "gateway/gateway.h"
#include "gateway/server.h"
#include "raftstore/base/log.h"
#include "raftstore/base/memory.h"
#include "raftstore/base/notify.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

struct process {
    uv_loop_t loop;
    struct gateway gateway;
    struct options options;
    uv_signal_t signals[3]; /* SIGTERM, SIGINT, SIGHUP. */
};

static void on_signal(uv_signal_t *handle, int number)
{
    struct process *p = handle->data;
    if (number == SIGHUP) {
        gateway_reload(&p->gateway);
        return;
    }
    if (p->gateway.draining) {
        LOG_WARN("stopping at once", "signal=%d", number);
        _exit(OPTIONS_EXIT_OK);
    }
    LOG_INFO("stopping", "signal=%d", number);
    notify_systemd("STOPPING=1");
    gateway_stop(&p->gateway);
}

static void on_stopped(void *arg)
{
    struct process *p = arg;
    for (unsigned i = 0; i < 3; i++)
        uv_close((uv_handle_t *)&p->signals[i], NULL);
}

static void start_signals(struct process *p)
{
    static const int numbers[3] = {SIGTERM, SIGINT, SIGHUP};
    for (unsigned i = 0; i < 3; i++) {
        (void)uv_signal_init(&p->loop, &p->signals[i]); /* Fails only without descriptors. */
        p->signals[i].data = p;
        (void)uv_signal_start(&p->signals[i], on_signal, numbers[i]);
    }
}

/* A connection is a descriptor: allow as many as we may. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        LOG_WARN("raising the descriptor limit failed", "now=%llu",
                 (unsigned long long)limit.rlim_cur);
}

int main(int argc, char **argv)
{
    static struct process p;
    char *sentence = NULL;
    memory_init();
    int code = options_parse(argc, argv, &p.options);
    if (code >= 0)
        return code;
    (void)signal(SIGPIPE, SIG_IGN); /* Writes report EPIPE instead. */
    raise_descriptor_limit();
    int rv = uv_loop_init(&p.loop);
    if (rv < 0) {
        LOG_ERROR("can't start", "why=%s", log_quote(bytes_str(uv_strerror(rv))));
        return OPTIONS_EXIT_START;
    }
    p.gateway.loop = &p.loop;
    p.gateway.options = &p.options;
    p.gateway.on_stopped = on_stopped;
    p.gateway.arg = &p;
    start_signals(&p);
    rv = gateway_start(&p.gateway, &sentence);
    if (rv < 0) {
        LOG_ERROR("can't start", "why=%s",
                  log_quote(bytes_str(sentence != NULL ? sentence : uv_strerror(rv))));
        free(sentence);
        code = OPTIONS_EXIT_START;
        gateway_stop(&p.gateway);
    } else {
        LOG_INFO("serving", "address=%s tls=%s version=%s", server_address(p.gateway.server),
                 p.options.tls_cert != NULL ? "yes" : "no", HOLDFAST_VERSION);
        notify_systemd("READY=1");
        code = OPTIONS_EXIT_OK;
    }
    (void)uv_run(&p.loop, UV_RUN_DEFAULT); /* Ends when everything is closed. */
    rv = uv_loop_close(&p.loop);
    if (rv < 0)
        LOG_WARN("handles were left open", "why=%s", log_quote(bytes_str(uv_strerror(rv))));
    return code;
}
