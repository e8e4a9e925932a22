/* What clients say, and what they are answered. */
#include "raftstore/node/listener_internal.h"

#include "raftstore/base/clock.h"
#include "raftstore/base/log.h"
#include "raftstore/node/access.h"
#include "raftstore/node/translate.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/frame.h"
#include "raftstore/wire/trace.h"

#include <errno.h>
#include <stdlib.h>

#define AGENT "holdfastd/" HOLDFAST_VERSION

static void put(struct conn *c, const Hf__NodeFrame *frame)
{
    struct buf *out = conn_out(c);
    if (out != NULL)
        pack_add_frame(out, &frame->base);
}

static void fail(struct conn *c, uint64_t frame_id, Hf__Failure__Code code, const char *text)
{
    struct listener *l = c->listener;
    struct listener_leader leader = l->config.leader(l->config.arg);
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    Hf__Failure failure = HF__FAILURE__INIT;
    failure.code = code;
    failure.text = (char *)(uintptr_t)text; /* Only read by the packer. */
    failure.leader_id = leader.id;
    failure.leader_client_address = (char *)(uintptr_t)leader.address;
    frame.id = frame_id;
    frame.body_case = HF__NODE_FRAME__BODY_FAILURE;
    frame.failure = &failure;
    if (code == HF__FAILURE__CODE__BUSY)
        l->stats.refused_busy++;
    request_stats_failed(&l->counts, l->what, (int)code);
    put(c, &frame);
}

static void
fail_status(struct conn *c, uint64_t frame_id, enum replica_status status, const char *text)
{
    static const struct {
        Hf__Failure__Code code;
        const char *text;
    } table[] = {
        [REPLICA_OK] = {HF__FAILURE__CODE__UNKNOWN, "internal error"},
        [REPLICA_NOT_LEADER] = {HF__FAILURE__CODE__NOT_LEADER, "this node is not the leader"},
        [REPLICA_UNKNOWN] = {HF__FAILURE__CODE__UNKNOWN,
                             "leadership was lost: the outcome is unknown, ask again"},
        [REPLICA_BUSY] = {HF__FAILURE__CODE__BUSY, "too many requests are waiting"},
        [REPLICA_NO_QUORUM] = {HF__FAILURE__CODE__NO_QUORUM,
                               "no majority of the nodes answered in time"},
        [REPLICA_BAD] = {HF__FAILURE__CODE__BAD_REQUEST, "malformed request"},
        [REPLICA_REFUSED] = {HF__FAILURE__CODE__REFUSED, "the membership rules forbid it"},
        [REPLICA_STOPPED] = {HF__FAILURE__CODE__SHUTTING_DOWN, "this node is stopping"},
    };
    size_t i = (size_t)status < sizeof table / sizeof table[0] ? (size_t)status : REPLICA_OK;
    fail(c, frame_id, table[i].code, text != NULL && *text != '\0' ? text : table[i].text);
}

/* The same, and the request's span ends. */
static void
fail_request(struct conn *c, struct request *r, enum replica_status status, const char *text)
{
    request_trace_answered(r, status == REPLICA_NOT_LEADER ? "not the leader" : "not done");
    fail_status(c, r->frame_id, status, text);
}

/* @sentence: ends with a NUL; given up. */
static void deny(struct conn *c, uint64_t frame_id, struct buf *sentence)
{
    fail(c, frame_id, HF__FAILURE__CODE__DENIED, (const char *)sentence->data);
    buf_deinit(sentence);
}

/* Requests. -------------------------------------------------------------------------------- */

static int on_hello(struct conn *c, const Hf__ClientHello *h)
{
    struct listener *l = c->listener;
    if (h->version < WIRE_VERSION_MIN || h->version_min > WIRE_VERSION) {
        fail(c, 0, HF__FAILURE__CODE__VERSION, "no protocol version that both sides speak");
        conn_close(c); /* Writes the answer. */
        return 0;
    }
    struct listener_leader leader = l->config.leader(l->config.arg);
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    Hf__NodeHello hello = HF__NODE_HELLO__INIT;
    hello.version = WIRE_VERSION;
    hello.version_min = WIRE_VERSION_MIN;
    hello.agent = (char *)(uintptr_t)AGENT;
    hello.node_id = l->config.node_id;
    hello.leader_id = leader.id;
    hello.leader_client_address = (char *)(uintptr_t)leader.address;
    l->config.members(l->config.arg, &l->arena, &hello);
    frame.body_case = HF__NODE_FRAME__BODY_HELLO;
    frame.hello = &hello;
    put(c, &frame);
    TAILQ_REMOVE(&l->fresh, c, link);
    TAILQ_INSERT_TAIL(&l->conns, c, link);
    c->hello = true;
    if (l->config.audit != NULL)
        (void)conn_who(c);
    stream_set_frame_bytes_max(c->stream, FRAME_CLIENT_BYTES_MAX);
    LOG_DEBUG("client connected", "agent=%s host=%s", log_quote(bytes_str(h->agent)),
              log_quote(bytes_str(h->host)));
    return 0;
}

/* A client has one of these under way, or a few. */
static bool is_keepalive(unsigned what)
{
    return what == LOCK_OP_SESSION_KEEPALIVE || what == LOCK_OP_SESSION_CLOSE;
}

/* A slot for a request, or NULL after the client was told that it has too many in flight. */
static struct request *
begin(struct conn *c, uint64_t frame_id, uint64_t now_ns, enum request_kind kind)
{
    struct listener *l = c->listener;
    if (l->draining) {
        fail_status(c, frame_id, REPLICA_STOPPED, NULL);
        return NULL;
    }
    if (c->n_requests[kind] >= LISTENER_REQUESTS_MAX && !is_keepalive(l->what)) {
        fail(c, frame_id, HF__FAILURE__CODE__BUSY,
             "too many requests are in flight on this connection");
        return NULL;
    }
    struct request *r = request_new(&l->requests, kind);
    r->owner = c;
    r->frame_id = frame_id;
    r->begin_ns = now_ns;
    r->what = l->what;
    LIST_INSERT_HEAD(&c->requests, r, link);
    c->n_requests[kind]++;
    return r;
}

static void end(struct listener *l, struct request *r)
{
    struct conn *c = r->owner;
    if (c != NULL) {
        LIST_REMOVE(r, link);
        c->n_requests[r->kind]--;
    }
    request_free(&l->requests, r);
}

static enum replica_urgency urgency_of(unsigned op)
{
    switch (op) {
    case LOCK_OP_SESSION_KEEPALIVE:
    case LOCK_OP_SESSION_CLOSE:
        return REPLICA_KEEPALIVE;
    case LOCK_OP_RENEW:
    case LOCK_OP_RELEASE:
    case LOCK_OP_CANCEL:
        return REPLICA_UPKEEP;
    default:
        return REPLICA_ORDINARY;
    }
}

/* The session is not there, or another's: which of them is nothing to tell.  There is no stamp:
 * nothing was done at any time. */
static void no_session(struct conn *c, uint64_t frame_id)
{
    struct listener *l = c->listener;
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    Hf__Result result = HF__RESULT__INIT;
    result.code = LOCK_NO_SESSION;
    frame.id = frame_id;
    frame.body_case = HF__NODE_FRAME__BODY_RESULT;
    frame.result = &result;
    request_stats_count(&l->counts, l->what, LOCK_NO_SESSION);
    put(c, &frame);
}

/* Return: false: it may not, and was told. */
static bool
may_command(struct conn *c, uint64_t frame_id, const struct lock_command *k, struct bytes *bytes)
{
    struct buf sentence = BUF_INIT;
    enum access_answer answer = conn_may_command(c, k, bytes, &sentence);
    if (answer == ACCESS_NO)
        deny(c, frame_id, &sentence);
    else if (answer == ACCESS_NO_SESSION)
        no_session(c, frame_id);
    else if (answer == ACCESS_LATER)
        fail_status(c, frame_id, REPLICA_BUSY, NULL);
    buf_deinit(&sentence);
    return answer == ACCESS_YES;
}

/* Of these every client sends many, and nobody asks where they went. */
static bool is_session_op(enum lock_op op)
{
    return op == LOCK_OP_SESSION_OPEN || op == LOCK_OP_SESSION_KEEPALIVE ||
           op == LOCK_OP_SESSION_CLOSE;
}

static void on_command(struct conn *c, uint64_t frame_id, struct bytes bytes)
{
    struct listener *l = c->listener;
    struct lock_command checked;
    l->what = REQUEST_WHAT_OTHER;
    if (translate_parse(&l->arena, bytes, &checked) < 0 || !translate_op_is_client(checked.op)) {
        fail_status(c, frame_id, REPLICA_BAD, NULL);
        return;
    }
    l->what = (unsigned)checked.op;
    if (!may_command(c, frame_id, &checked, &bytes))
        return;
    /* The clock is read after the request was: cluster time is stamped from it, and a client
     * counts its deadline from before it sent. */
    uint64_t now_ns = clock_mono_ns(l->config.clock);
    struct request *r = begin(c, frame_id, now_ns, REQUEST_COMMAND);
    if (r == NULL)
        return;
    if (l->has_trace || (l->config.spans != NULL && !is_session_op(checked.op)))
        conn_trace_request(c, r, wire_op_name(checked.op),
                           checked.n_paths > 0 ? checked.paths[0] : bytes_of(NULL, 0));
    enum replica_status status =
        l->config.submit(l->config.arg, now_ns, request_id(r), urgency_of(checked.op), bytes);
    if (status != REPLICA_OK) {
        fail_request(c, r, status, NULL);
        end(l, r);
        return;
    }
    l->stats.keepalives += checked.op == LOCK_OP_SESSION_KEEPALIVE;
}

/* Move bytes to *at, which goes on behind them. */
static void copy_bytes(ProtobufCBinaryData *data, uint8_t **at)
{
    if (data->len > 0)
        memcpy(*at, data->data, data->len);
    data->data = *at;
    *at += data->len;
}

/* A query with its bytes in one block of memory. */
static Hf__Query *query_copy(const Hf__Query *q)
{
    uint8_t *p = xmalloc(sizeof *q + q->path.len + q->after.len + q->owner.len);
    Hf__Query *copy = (Hf__Query *)p;
    *copy = *q;
    copy->base.n_unknown_fields = 0;
    copy->base.unknown_fields = NULL;
    p += sizeof *q;
    copy_bytes(&copy->path, &p);
    copy_bytes(&copy->after, &p);
    copy_bytes(&copy->owner, &p);
    return copy;
}

/* Return: false: it was denied. */
static bool answer(struct conn *c, uint64_t frame_id, const Hf__Query *q)
{
    struct listener *l = c->listener;
    struct buf sentence = BUF_INIT;
    if (!conn_may_query(c, q, true, &sentence)) {
        deny(c, frame_id, &sentence);
        return false;
    }
    struct buf *out = conn_out(c);
    if (out != NULL)
        l->config.answer(l->config.arg, &c->access, frame_id, q, &l->answer_arena, out);
    arena_reset(&l->answer_arena);
    return true;
}

static const char *enum_name(const ProtobufCEnumDescriptor *descriptor, int value)
{
    const ProtobufCEnumValue *v = protobuf_c_enum_descriptor_get_value(descriptor, value);
    return v != NULL ? v->name : "?";
}

static void on_query(struct conn *c, uint64_t frame_id, const Hf__Query *q)
{
    struct listener *l = c->listener;
    struct buf sentence = BUF_INIT;
    unsigned what = (unsigned)q->what; /* Any number that the client liked. */
    l->what = what <= HF__QUERY__WHAT__TOKEN ? REQUEST_WHAT_QUERY + what : REQUEST_WHAT_OTHER;
    if (q->what == HF__QUERY__WHAT__STATUS) {
        if (answer(c, frame_id, q)) /* Needs no majority: it tells what this node knows. */
            request_stats_count(&l->counts, l->what, LOCK_OK);
        return;
    }
    if (q->path.len > LOCK_PATH_BYTES_MAX || q->after.len > LOCK_PATH_BYTES_MAX ||
        q->owner.len > LOCK_OWNER_BYTES_MAX) {
        fail_status(c, frame_id, REPLICA_BAD, "a name is too long"); /* It would be kept. */
        return;
    }
    if (!conn_may_query(c, q, false, &sentence)) {
        deny(c, frame_id, &sentence);
        return;
    }
    uint64_t now_ns = clock_mono_ns(l->config.clock);
    struct request *r = begin(c, frame_id, now_ns, REQUEST_QUERY);
    if (r == NULL)
        return;
    r->body = query_copy(q);
    if (l->has_trace || l->config.spans != NULL)
        conn_trace_request(c, r, enum_name(&hf__query__what__descriptor, (int)q->what),
                           pack_bytes(q->path));
    enum replica_status status = l->config.read(l->config.arg, now_ns, request_id(r));
    if (status != REPLICA_OK) {
        fail_request(c, r, status, NULL);
        end(l, r);
    }
}

static void on_admin(struct conn *c, uint64_t frame_id, const Hf__Admin *a)
{
    struct listener *l = c->listener;
    struct buf sentence = BUF_INIT;
    l->what = REQUEST_WHAT_ADMIN;
    const char *text = NULL;
    uint64_t now_ns = clock_mono_ns(l->config.clock);
    if (!conn_may_admin(c, &sentence)) {
        deny(c, frame_id, &sentence);
        return;
    }
    struct request *r = begin(c, frame_id, now_ns, REQUEST_ADMIN);
    if (r == NULL)
        return;
    if (l->has_trace || l->config.spans != NULL)
        conn_trace_request(c, r, enum_name(&hf__admin__what__descriptor, (int)a->what),
                           bytes_of(NULL, 0));
    conn_audit_admin(c, r, a);
    enum replica_status status = l->config.admin(l->config.arg, now_ns, request_id(r), a, &text);
    if (status != REPLICA_OK) {
        if (status != REPLICA_NOT_LEADER) /* It will ask the leader. */
            request_audit_admin(l, r, status, text);
        fail_request(c, r, status, text);
        end(l, r);
    }
}

static void on_subscribe(struct conn *c, uint64_t frame_id, const Hf__Subscribe *s)
{
    struct listener *l = c->listener;
    l->what = REQUEST_WHAT_SUBSCRIBE;
    if (c->sub == NULL) {
        c->sub = xcalloc(1, sizeof *c->sub);
        c->sub->deliver = conn_event;
        c->sub->arg = c;
    }
    c->sub->filter = l->policy != NULL ? conn_filter : NULL;
    if (events_subscribe(l->config.events, c->sub, s) < 0) {
        fail(c, frame_id, HF__FAILURE__CODE__BAD_REQUEST, "too many prefixes in one subscription");
        return;
    }
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    Hf__SubscribeReply reply = HF__SUBSCRIBE_REPLY__INIT;
    uint64_t applied = l->config.applied_index(l->config.arg);
    reply.gap = s->from_index != 0 &&
                (!events_reach(l->config.events, s->from_index) || s->from_index < l->policy_index);
    /* A node that lags behind the one subscribed to before still has those events before it. */
    reply.index = c->sub->after_index = s->from_index == 0 || reply.gap ? applied : s->from_index;
    frame.id = frame_id;
    request_stats_count(&l->counts, l->what, LOCK_OK);
    frame.body_case = HF__NODE_FRAME__BODY_SUBSCRIBED;
    frame.subscribed = &reply;
    put(c, &frame);
    if (reply.index < applied)
        events_replay(l->config.events, c->sub, l->config.wall_offset_ns(l->config.arg));
}

static void on_ping(struct conn *c, uint64_t frame_id)
{
    struct listener *l = c->listener;
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    Hf__Pong pong = HF__PONG__INIT;
    pong.leader_id = l->config.leader(l->config.arg).id;
    frame.id = frame_id;
    frame.body_case = HF__NODE_FRAME__BODY_PONG;
    frame.pong = &pong;
    put(c, &frame);
}

static int dispatch(struct conn *c, const Hf__ClientFrame *f)
{
    c->listener->what = REQUEST_WHAT_OTHER;
    if (!c->hello) {
        if (f->body_case != HF__CLIENT_FRAME__BODY_HELLO)
            return -EPROTO;
        return on_hello(c, f->hello);
    }
    if (f->id == 0)
        return -EPROTO;
    switch (f->body_case) {
    case HF__CLIENT_FRAME__BODY_COMMAND:
        on_command(c, f->id, pack_bytes(f->command));
        return 0;
    case HF__CLIENT_FRAME__BODY_QUERY:
        on_query(c, f->id, f->query);
        return 0;
    case HF__CLIENT_FRAME__BODY_SUBSCRIBE:
        on_subscribe(c, f->id, f->subscribe);
        return 0;
    case HF__CLIENT_FRAME__BODY_PING:
        on_ping(c, f->id);
        return 0;
    case HF__CLIENT_FRAME__BODY_ADMIN:
        on_admin(c, f->id, f->admin);
        return 0;
    case HF__CLIENT_FRAME__BODY__NOT_SET: /* Something that only a newer version knows. */
        fail(c, f->id, HF__FAILURE__CODE__BAD_REQUEST, "unknown kind of request");
        return 0;
    default:
        return -EPROTO;
    }
}

/* A varint at *at. Return: false when it is not whole. */
static bool varint(struct bytes in, size_t *at, uint64_t *ret)
{
    const uint8_t *p = in.data;
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && *at < in.size; shift += 7) {
        uint8_t byte = p[(*at)++];
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *ret = value;
            return true;
        }
    }
    return false;
}

/* Is this ClientFrame exactly {id, command} or {id, command, trace}, as nearly all are?  Then its
 * command needs no copy. */
static bool frame_is_command(struct bytes body,
                             uint64_t *ret_id,
                             struct bytes *ret_command,
                             struct bytes *ret_trace)
{
    const uint8_t *p = body.data;
    size_t at = 1;
    uint64_t id, size;
    if (body.size < 4 || p[0] != (1 << 3 | 0) || !varint(body, &at, &id) || at >= body.size ||
        p[at++] != (3 << 3 | 2) || !varint(body, &at, &size) || size > body.size - at || id == 0)
        return false;
    *ret_id = id;
    *ret_command = bytes_of(p + at, (size_t)size);
    *ret_trace = bytes_of(NULL, 0);
    at += (size_t)size;
    if (at == body.size)
        return true;
    if (p[at++] != (WIRE_TRACE_FIELD << 3 | 2) || !varint(body, &at, &size) ||
        size != body.size - at)
        return false;
    *ret_trace = bytes_of(p + at, (size_t)size);
    return true;
}

int conn_frame(struct conn *c, struct bytes body)
{
    struct listener *l = c->listener;
    uint64_t id;
    struct bytes command, trace;
    int rv;
    l->has_trace = false;
    if (c->hello && frame_is_command(body, &id, &command, &trace)) {
        conn_trace(c, trace);
        on_command(c, id, command);
        rv = 0;
    } else {
        const Hf__ClientFrame *f =
            (const Hf__ClientFrame *)pack_parse(&l->arena, &hf__client_frame__descriptor, body);
        if (f != NULL)
            conn_trace(c, pack_bytes(f->trace));
        rv = f == NULL ? -EPROTO : dispatch(c, f);
    }
    arena_reset(&l->arena);
    return rv;
}

/* Outcomes. -------------------------------------------------------------------------------- */

static void command_span(struct request *r,
                         enum replica_status status,
                         const struct lock_result *result,
                         uint64_t index)
{
    if (status == REPLICA_OK) {
        span_event(r->span, "committed", "holdfast.index", (int64_t)index);
        span_text(r->span, "holdfast.result", bytes_str(lock_code_name(result->code)));
        if (result->token != 0)
            span_number(r->span, "holdfast.token", (int64_t)result->token);
    }
    request_trace_answered(r, status == REPLICA_OK ? NULL : "the outcome is unknown");
}

void listener_command_done(struct listener *l,
                           uint64_t now_ns,
                           uint64_t id,
                           enum replica_status status,
                           const struct lock_result *result,
                           uint64_t index)
{
    struct request *r = request_find(&l->requests, id);
    if (r == NULL)
        return;
    struct conn *c = r->owner;
    uint64_t frame_id = r->frame_id, took_ns = now_ns - r->begin_ns;
    l->what = r->what;
    if (r->span != NULL)
        command_span(r, status, result, index);
    if (status == REPLICA_OK) {
        histogram_add(&l->command_us, now_ns, took_ns / NS_PER_US);
        request_stats_done(&l->counts, r->what, result->code, took_ns);
    }
    end(l, r);
    if (c == NULL)
        return;
    if (status != REPLICA_OK) {
        fail_status(c, frame_id, status, NULL);
        return;
    }
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    Hf__Result out = HF__RESULT__INIT;
    translate_result(result, index, &out);
    frame.id = frame_id;
    frame.body_case = HF__NODE_FRAME__BODY_RESULT;
    frame.result = &out;
    put(c, &frame);
}

void listener_read_done(struct listener *l, uint64_t id, enum replica_status status)
{
    struct request *r = request_find(&l->requests, id);
    if (r == NULL)
        return;
    struct conn *c = r->owner;
    l->what = r->what;
    if (status == REPLICA_OK)
        span_event(r->span, "read index confirmed", NULL, 0);
    if (status == REPLICA_OK && (c == NULL || answer(c, r->frame_id, r->body)))
        request_stats_done(&l->counts, r->what, LOCK_OK,
                           clock_mono_ns(l->config.clock) - r->begin_ns);
    if (c != NULL && status != REPLICA_OK)
        fail_status(c, r->frame_id, status, NULL);
    request_trace_answered(r, status == REPLICA_OK ? NULL : "no majority");
    end(l, r);
}

static void admin_counted(struct listener *l, const struct request *r)
{
    request_stats_done(&l->counts, r->what, LOCK_OK, clock_mono_ns(l->config.clock) - r->begin_ns);
}

void listener_admin_done(
    struct listener *l, uint64_t id, enum replica_status status, const char *text, uint64_t index)
{
    struct request *r = request_find(&l->requests, id);
    if (r == NULL)
        return;
    struct conn *c = r->owner;
    uint64_t frame_id = r->frame_id;
    l->what = r->what;
    if (status == REPLICA_OK)
        admin_counted(l, r);
    request_audit_admin(l, r, status, text);
    request_trace_answered(r, status == REPLICA_OK ? NULL : text);
    end(l, r);
    if (c == NULL)
        return;
    if (status != REPLICA_OK) {
        fail_status(c, frame_id, status, text);
        return;
    }
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    Hf__AdminReply reply = HF__ADMIN_REPLY__INIT;
    reply.index = index;
    reply.text = (char *)(uintptr_t)(text != NULL ? text : "");
    frame.id = frame_id;
    frame.body_case = HF__NODE_FRAME__BODY_ADMIN;
    frame.admin = &reply;
    put(c, &frame);
}

bool listener_chunk(struct listener *l, uint64_t id, const Hf__SnapshotChunk *chunk)
{
    struct request *r = request_find(&l->requests, id);
    struct conn *c = r == NULL ? NULL : r->owner;
    struct buf *out = c == NULL ? NULL : conn_out(c);
    if (out == NULL) {
        if (r != NULL) {
            request_audit_admin(l, r, REPLICA_UNKNOWN, "the client hung up");
            end(l, r);
        }
        return false;
    }
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    frame.id = r->frame_id;
    frame.body_case = HF__NODE_FRAME__BODY_CHUNK;
    frame.chunk = (Hf__SnapshotChunk *)(uintptr_t)chunk; /* Only read by the packer. */
    pack_add_frame(out, &frame.base);
    if (chunk->last) {
        admin_counted(l, r);
        request_audit_admin(l, r, REPLICA_OK, NULL);
        end(l, r);
    } else {
        c->chunk_request = id;
    }
    return true;
}
