/* GET /healthz, /readyz, /metrics, /openapi.json: about the gateway itself. */
#include "gateway/handlers.h"
#include "gateway/openapi.h"

void handle_health(struct call *call)
{
    call_answer_json(call, 200, json_pack("{s:s}", "status", "ok"));
}

/* Ready: it could take a lock, as far as it knows. */
void handle_ready(struct call *call)
{
    struct gateway *gw = call->gw;
    if (gw->draining)
        call_problem(call, &PROBLEM_STOPPING, "this gateway stops");
    else if (!guard_is_ready(gw->guard))
        call_problem(call, &PROBLEM_NO_KEYS, "no keys could be had yet");
    else if (!client_session_live(gw->client))
        call_problem(call, &PROBLEM_NO_MAJORITY, "no majority of the nodes answers");
    else
        call_answer_json(call, 200, json_pack("{s:s}", "status", "ready"));
}

void handle_metrics(struct call *call)
{
    struct buf out = BUF_INIT;
    metrics_write(call->gw->metrics, &out);
    call_answer_text(call, 200, "text/plain; version=0.0.4; charset=utf-8", &out);
}

void handle_openapi(struct call *call)
{
    call_answer_static(call, "application/openapi+json;version=3.1", openapi_document());
}
