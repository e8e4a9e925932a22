#include "gateway/tracing.h"

#include "raftstore/base/log.h"

static const char *const span_names[CALL_KINDS] = {
    [CALL_KIND_ACQUIRE] = "POST /locks/acquire",
    [CALL_KIND_RELEASE] = "POST /locks/release",
    [CALL_KIND_RENEW] = "POST /locks/renew",
    [CALL_KIND_SHOW] = "GET /locks/{lock_id}",
    [CALL_KIND_LIST] = "GET /locks",
    [CALL_KIND_EVENTS] = "GET /locks/{lock_id}/events",
};

struct headers {
    const char *parent;
    unsigned n_parents;
    struct buf state; /* All of them, with commas between. */
};

static enum MHD_Result
on_header(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
    struct headers *h = arg;
    (void)kind;
    if (value == NULL)
        return MHD_YES;
    if (strcasecmp(name, "traceparent") == 0) {
        h->parent = value;
        h->n_parents++;
    } else if (strcasecmp(name, "tracestate") == 0) {
        if (h->state.size > 0)
            buf_add(&h->state, ",", 1);
        buf_add(&h->state, value, strlen(value));
    }
    return MHD_YES;
}

/* Return: false: the caller is in no trace. */
static bool take_up(struct call *call)
{
    struct headers h = {0};
    if (MHD_lookup_connection_value(call->mhd, MHD_HEADER_KIND, "traceparent") == NULL)
        return false;
    (void)MHD_get_connection_values(call->mhd, MHD_HEADER_KIND, on_header, &h);
    bool valid = h.n_parents == 1 && trace_parse(bytes_str(h.parent), &call->trace);
    if (valid)
        (void)trace_state_parse(bytes_of(h.state.data, h.state.size), call->trace.state);
    else
        LOG_DEBUG("traceparent ignored", "value=%s", log_quote(bytes_str(h.parent)));
    buf_deinit(&h.state);
    return valid;
}

/* What is no lock's business (health, metrics) is not recorded. */
static bool is_recorded(struct bytes path)
{
    static const char locks[] = "/locks";
    return path.size >= sizeof locks - 1 && memcmp(path.data, locks, sizeof locks - 1) == 0;
}

void tracing_begin(struct call *call, const char *method, struct bytes path)
{
    struct gateway *gw = call->gw;
    bool taken = take_up(call);
    if (is_recorded(path))
        call->span = span_begin(gw->spans, "HTTP", SPAN_SERVER, taken ? &call->trace : NULL, true);
    if (call->span != NULL)
        trace_copy(&call->trace, &call->span->context);
    else if (!taken)
        trace_begin(&gw->random, false, &call->trace);
    span_text(call->span, "http.request.method", bytes_str(method));
}

void tracing_answer(struct call *call, unsigned status)
{
    char text[TRACE_PARENT_BYTES + 1];
    if (!trace_is_set(&call->trace))
        return; /* Its head was none. */
    (void)MHD_add_response_header(call->response, "traceparent", trace_format(&call->trace, text));
    if (call->span != NULL && span_names[call->kind] != NULL)
        call->span->name = span_names[call->kind];
    span_text(call->span, "holdfast.lock", bytes_of(call->lock_id.data, call->lock_id.size));
    span_number(call->span, "http.response.status_code", status);
    if (call->caller != NULL)
        span_text(call->span, "enduser.id", call_subject(call));
    if (status >= 500)
        span_set_status(call->span, SPAN_ERROR, NULL);
    span_end(call->span);
    call->span = NULL;
}

void tracing_gone(struct call *call)
{
    span_set_status(call->span, SPAN_ERROR, "the client hung up");
    span_end(call->span);
    call->span = NULL;
}
