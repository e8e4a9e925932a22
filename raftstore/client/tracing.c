#include "raftstore/client/internal.h"
#include "raftstore/wire/trace.h"

#include <errno.h>
#include <stdlib.h>

struct client_trace *client_trace_new(struct client *c,
                                      const char *name,
                                      const struct trace_context *parent,
                                      struct bytes path)
{
    uint8_t packed[WIRE_TRACE_BYTES_MAX];
    if (parent == NULL && trace_is_set(&c->trace))
        parent = &c->trace;
    struct span *span = span_begin(c->config.spans, name, SPAN_CLIENT, parent, false);
    const struct trace_context *own = span_context(span, parent);
    if (own == NULL)
        return NULL;
    size_t size = wire_trace_put(own, packed);
    struct client_trace *t = xmalloc(sizeof *t + size);
    memcpy(t + 1, packed, size);
    *t = (struct client_trace){.span = span, .packed = bytes_of(t + 1, size)};
    span_text(span, "rpc.system", bytes_str("holdfast"));
    span_text(span, "rpc.method", bytes_str(name));
    span_text(span, "holdfast.lock", path);
    return t;
}

struct bytes client_trace_packed(const struct client_trace *t)
{
    return t != NULL ? t->packed : bytes_of(NULL, 0);
}

void client_trace_sent(struct client_trace *t, const struct peer *p)
{
    if (t == NULL || t->span == NULL)
        return;
    span_event(t->span, "sent", "holdfast.node", (int64_t)p->node_id);
}

void client_trace_end(struct client_trace *t, int status, const Hf__Result *r)
{
    if (t == NULL || t->span == NULL)
        return;
    if (status < 0)
        span_set_status(t->span, SPAN_ERROR, strerror(-status));
    if (r != NULL) {
        span_text(t->span, "holdfast.result", bytes_str(wire_code_name(r->code)));
        if (r->token != 0)
            span_number(t->span, "holdfast.token", (int64_t)r->token);
    }
    span_end(t->span);
    t->span = NULL;
}

void client_trace_free(struct client_trace *t)
{
    client_trace_end(t, -ECANCELED, NULL);
    free(t);
}

static const char *enum_name(const ProtobufCEnumDescriptor *descriptor, int value)
{
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(descriptor, value);
    return v != NULL ? v->name : "?";
}

const char *client_query_name(const Hf__Query *query)
{
    return enum_name(&hf__query__what__descriptor, (int)query->what);
}

const char *client_admin_name(const Hf__Admin *admin)
{
    return enum_name(&hf__admin__what__descriptor, (int)admin->what);
}
