/* Requests' places in traces, their spans, and audit lines of clients' requests. */
#include "raftstore/node/listener_internal.h"

#include "raftstore/base/fields.h"
#include "raftstore/base/log.h"
#include "raftstore/wire/trace.h"

#include <stdio.h>
#include <stdlib.h>

const struct listener_asker *conn_who(struct conn *c)
{
    const struct identity *identity;
    struct listener_asker *who = &c->who;
    if (who->client[0] != '\0')
        return who;
    (void)stream_peer_name(c->stream, who->client, sizeof who->client);
    identity = stream_identity(c->stream);
    if (identity != NULL) {
        who->kind = identity->kind;
        memcpy(who->name, identity->name, strlen(identity->name) + 1);
    }
    return who;
}

/* ---- Traces ---------------------------------------------------------------------------- */

void conn_trace(struct conn *c, struct bytes trace)
{
    struct listener *l = c->listener;
    bool wanted =
        l->config.audit != NULL || l->config.spans != NULL || log_enabled(LOG_LEVEL_DEBUG);
    l->has_trace = trace.size > 0 && wanted && wire_trace_read(trace, &l->trace);
}

static void log_request(struct conn *c, const char *name, struct bytes path)
{
    char id[TRACE_ID_HEX + 1];
    LOG_DEBUG("request", "client=%s what=%s path=%s trace_id=%s", conn_who(c)->client, name,
              log_quote(path), trace_hex(c->listener->trace.trace_id, TRACE_ID_BYTES, id));
}

void conn_trace_request(struct conn *c, struct request *r, const char *name, struct bytes path)
{
    struct listener *l = c->listener;
    if (l->has_trace) {
        r->trace = xmalloc(sizeof *r->trace);
        trace_copy(r->trace, &l->trace);
        if (log_enabled(LOG_LEVEL_DEBUG))
            log_request(c, name, path);
    }
    r->span = span_begin(l->config.spans, name, SPAN_SERVER, r->trace, true);
    if (r->span == NULL)
        return;
    span_text(r->span, "rpc.system", bytes_str("holdfast"));
    span_text(r->span, "rpc.method", bytes_str(name));
    span_text(r->span, "holdfast.lock", path);
    span_number(r->span, "holdfast.node", (int64_t)l->config.node_id);
    span_text(r->span, "client.address", bytes_str(conn_who(c)->client));
    span_text(r->span, "enduser.id", bytes_str(conn_who(c)->name));
}

void request_trace_answered(struct request *r, const char *failure)
{
    if (r->span == NULL)
        return;
    if (failure != NULL)
        span_set_status(r->span, SPAN_ERROR, failure);
    span_end(r->span);
    r->span = NULL;
}

/* ---- Who ------------------------------------------------------------------------------- */

static void asker_of(struct conn *c, const struct trace_context *trace, struct listener_asker *ret)
{
    *ret = c != NULL ? *conn_who(c) : (struct listener_asker){0};
    if (trace != NULL)
        memcpy(ret->trace_id, trace->trace_id, sizeof ret->trace_id);
}

void listener_asker(const struct listener *l, uint64_t request_id, struct listener_asker *ret)
{
    const struct request *r = request_find(&l->requests, request_id);
    if (r != NULL && r->owner == NULL && r->kind == REQUEST_COMMAND && r->body != NULL)
        memcpy(ret, r->body, sizeof *ret);
    else
        asker_of(r != NULL ? r->owner : NULL, r != NULL ? r->trace : NULL, ret);
}

void request_keep_asker(struct request *r)
{
    struct conn *c = r->owner;
    if (c->listener->config.audit == NULL || r->kind != REQUEST_COMMAND)
        return;
    struct listener_asker *asker = xmalloc(sizeof *asker);
    asker_of(c, r->trace, asker);
    r->body = asker;
}

void listener_add_asker(struct buf *line, const struct listener_asker *a)
{
    static const uint8_t none[TRACE_ID_BYTES];
    char id[TRACE_ID_HEX + 1], text[IDENTITY_NAME_BYTES_MAX + 32];
    audit_text(line, "client", a->client);
    if (a->kind != IDENTITY_NONE) {
        (void)snprintf(text, sizeof text, "%s/%s", identity_kind_name(a->kind), a->name);
        audit_text(line, "certificate", text);
    }
    if (memcmp(a->trace_id, none, sizeof none) != 0)
        audit_text(line, "trace_id", trace_hex(a->trace_id, TRACE_ID_BYTES, id));
}

/* ---- Lines ----------------------------------------------------------------------------- */

void conn_audit_denied(struct conn *c, const char *what, struct bytes path, struct bytes reason)
{
    struct listener *l = c->listener;
    struct listener_asker asker;
    if (l->config.audit == NULL)
        return;
    asker_of(c, l->has_trace ? &l->trace : NULL, &asker);
    struct buf *line = audit_begin(l->config.audit, "denied");
    audit_text(line, "by", "node");
    audit_u64(line, "node", l->config.node_id);
    audit_text(line, "what", what);
    audit_bytes(line, "path", path);
    listener_add_asker(line, &asker);
    audit_bytes(line, "reason", reason);
    audit_end(l->config.audit);
}

void conn_audit_admin(struct conn *c, struct request *r, const Hf__Admin *a)
{
    struct listener_asker asker;
    struct buf pairs = BUF_INIT;
    const ProtobufCEnumValue *v =
        protobuf_c_enum_descriptor_get_value(&hf__admin__what__descriptor, (int)a->what);
    if (c->listener->config.audit == NULL)
        return;
    asker_of(c, r->trace, &asker);
    field_text(&pairs, "what", v != NULL ? v->name : "?");
    audit_u64(&pairs, "member", a->node_id);
    audit_text(&pairs, "raft_address", a->raft_address);
    audit_text(&pairs, "client_address", a->client_address);
    listener_add_asker(&pairs, &asker);
    r->body = pairs.data;
    r->size = (uint32_t)pairs.size;
}

void request_audit_admin(struct listener *l,
                         const struct request *r,
                         enum replica_status status,
                         const char *text)
{
    if (l->config.audit == NULL || r->kind != REQUEST_ADMIN || r->body == NULL)
        return;
    struct buf *line = audit_begin(l->config.audit, "admin");
    audit_u64(line, "node", l->config.node_id);
    buf_add(line, " ", 1);
    buf_add(line, r->body, r->size);
    audit_text(line, "result", status == REPLICA_OK ? "done" : "failed");
    audit_text(line, "reason", status == REPLICA_OK ? NULL : text);
    audit_end(l->config.audit);
}
