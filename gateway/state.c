/* GET /healthz, /readyz, /metrics, /openapi.json: about the gateway itself. */
#include "gateway/certificate.h"
#include "gateway/handlers.h"
#include "gateway/openapi.h"
#include "raftstore/base/prometheus.h"
#include "telemetry/observe.h"
#include "telemetry/process.h"

#include <stdlib.h>

void handle_health(struct call *call)
{
    call_answer_json(call, 200, json_pack("{s:s}", "status", "ok"));
}

/* Ready: it could take a lock, as far as it knows.  Return: NULL, or why not. */
static const struct problem *unready(const struct gateway *gw, const char **ret_detail)
{
    *ret_detail = "this gateway stops";
    if (gw->draining)
        return &PROBLEM_STOPPING;
    *ret_detail = "no keys could be had yet";
    if (!guard_is_ready(gw->guard))
        return &PROBLEM_NO_KEYS;
    *ret_detail = "no majority of the nodes answers";
    return client_session_live(gw->client) ? NULL : &PROBLEM_NO_MAJORITY;
}

void handle_ready(struct call *call)
{
    const char *detail;
    const struct problem *why = unready(call->gw, &detail);
    if (why != NULL)
        call_problem(call, why, "%s", detail);
    else
        call_answer_json(call, 200, json_pack("{s:s}", "status", "ready"));
}

/* A call for metrics, while the process is being looked at: with thousands of connections the
 * kernel needs too long for that to be done on the loop. */
struct look {
    uv_work_t job;
    struct call *call; /* NULL: gone. */
    struct process_stats process;
};

static void on_gone(struct call *call)
{
    struct look *look = call->op;
    look->call = NULL;
}

static void on_look(uv_work_t *job)
{
    struct look *look = job->data;
    process_stats_read(&look->process, NULL);
}

static void answer_metrics(struct call *call, const struct process_stats *process)
{
    struct gateway *gw = call->gw;
    struct buf out = BUF_INIT;
    const char *detail;
    const struct certificate_end ends[] = {
        {"https", certificate_expires_s()},
        {"cluster", gw->tls != NULL ? tls_context_expires_s(gw->tls) : 0},
    };
    gw->process_start_ns = process->start_wall_ns;
    build_info_write("gateway", &out);
    metrics_write(gw->metrics, &out);
    observe_metrics(&out, "gateway", gw->audit, gw->spans);
    client_metrics(gw->client, &out);
    prometheus_single(&out, "holdfast_gateway_ready", "gauge", "Is it ready, as /readyz says?",
                      unready(gw, &detail) == NULL);
    certificates_write(ends, 2, &out);
    process_stats_write(process, &out);
    call_answer_text(call, 200, "text/plain; version=0.0.4; charset=utf-8", &out);
}

static void on_looked(uv_work_t *job, int status)
{
    struct look *look = job->data;
    (void)status; /* It is never cancelled. */
    if (look->call != NULL)
        answer_metrics(look->call, &look->process);
    free(look);
}

void handle_metrics(struct call *call)
{
    struct look *look = xcalloc(1, sizeof *look);
    look->job.data = look;
    look->call = call;
    look->process.start_wall_ns = call->gw->process_start_ns;
    if (uv_queue_work(call->gw->loop, &look->job, on_look, on_looked) < 0) {
        answer_metrics(call, &look->process);
        free(look);
        return;
    }
    call->op = look;
    call->on_gone = on_gone;
}

void handle_openapi(struct call *call)
{
    call_answer_static(call, "application/openapi+json;version=3.1", openapi_document());
}
