#include "fake_node.h"

#include "raftstore/base/clock.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

void fake_cluster_init(struct fake_cluster *cluster)
{
    *cluster = (struct fake_cluster){.token_last = 1000};
    cluster->start_ns = clock_boot_ns(clock_system());
}

uint64_t fake_stamp_ns(const struct fake_cluster *cluster)
{
    return clock_boot_ns(clock_system()) - cluster->start_ns + NS_PER_S;
}

const struct fake_executed *fake_find(const struct fake_cluster *cluster, uint32_t op, unsigned nth)
{
    for (unsigned i = 0; i < cluster->n_executed; i++)
        if (cluster->executed[i].op == op && nth-- == 0)
            return &cluster->executed[i];
    return NULL;
}

/* ---- Out ------------------------------------------------------------------------------- */

struct write {
    uv_write_t req;
    struct buf data;
};

static void on_written(uv_write_t *req, int status)
{
    struct write *w = (struct write *)req;
    (void)status;
    buf_deinit(&w->data);
    free(w);
}

void fake_send_bytes(struct fake_conn *k, const void *data, size_t size)
{
    if (k->closed || k->node->mute)
        return;
    struct write *w = xcalloc(1, sizeof *w);
    buf_add(&w->data, data, size);
    uv_buf_t b = uv_buf_init((char *)w->data.data, (unsigned)w->data.size);
    if (uv_write(&w->req, (uv_stream_t *)&k->tcp, &b, 1, on_written) < 0)
        on_written(&w->req, 0);
}

void fake_send(struct fake_conn *k, Hf__NodeFrame *frame)
{
    struct buf out = BUF_INIT;
    pack_add_frame(&out, &frame->base);
    fake_send_bytes(k, out.data, out.size);
    buf_deinit(&out);
}

void fake_result(struct fake_conn *k, uint64_t id, const Hf__Result *r)
{
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    frame.id = id;
    frame.body_case = HF__NODE_FRAME__BODY_RESULT;
    frame.result = (Hf__Result *)(uintptr_t)r;
    fake_send(k, &frame);
}

void fake_code(struct fake_conn *k, uint64_t id, uint32_t code)
{
    Hf__Result r = HF__RESULT__INIT;
    r.code = code;
    r.stamp_ns = fake_stamp_ns(k->node->cluster);
    fake_result(k, id, &r);
}

void fake_failure(struct fake_conn *k, uint64_t id, Hf__Failure__Code code)
{
    Hf__Failure f = HF__FAILURE__INIT;
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    f.code = code;
    f.text = (char *)(uintptr_t) "as the script says";
    f.leader_id = k->node->leader_id;
    f.leader_client_address = k->node->leader_address;
    frame.id = id;
    frame.body_case = HF__NODE_FRAME__BODY_FAILURE;
    frame.failure = &f;
    fake_send(k, &frame);
}

void fake_event(struct fake_conn *k, Hf__Event *e)
{
    Hf__Events events = HF__EVENTS__INIT;
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    events.events = &e;
    events.n_events = 1;
    frame.body_case = HF__NODE_FRAME__BODY_EVENTS;
    frame.events = &events;
    fake_send(k, &frame);
}

/* ---- The default behaviour ------------------------------------------------------------- */

static void session_op(struct fake_conn *k, uint64_t id, const Hf__Command *command)
{
    struct fake_cluster *all = k->node->cluster;
    Hf__Result r = HF__RESULT__INIT;
    r.stamp_ns = fake_stamp_ns(all);
    static uint64_t ttl_ms; /* One session ttl a test is enough. */
    if (command->op == WIRE_OP_SESSION_OPEN) {
        all->n_opens++;
        r.session_id = ++all->session_last;
        ttl_ms = command->ttl_ms;
    } else if (command->op == WIRE_OP_SESSION_KEEPALIVE) {
        all->n_keepalives++;
    } else {
        all->n_closes++;
    }
    if (command->session_id <= all->session_ended && command->op != WIRE_OP_SESSION_OPEN)
        r.code = WIRE_CODE_NO_SESSION;
    r.ttl_ms = ttl_ms;
    r.deadline_ns = r.stamp_ns + ttl_ms * NS_PER_MS;
    fake_result(k, id, &r);
}

void fake_execute(struct fake_conn *k, uint64_t id, const Hf__Command *command)
{
    struct fake_cluster *all = k->node->cluster;
    struct fake_executed *x = NULL;
    Hf__Result r = HF__RESULT__INIT;
    if (command->op <= WIRE_OP_SESSION_CLOSE) {
        session_op(k, id, command);
        return;
    }
    all->n_received++;
    if (command->session_id <= all->session_ended) {
        fake_code(k, id, WIRE_CODE_NO_SESSION);
        return;
    }
    assert(command->seq > command->ack_seq);
    for (unsigned i = 0; i < all->n_executed; i++)
        if (all->executed[i].session_id == command->session_id &&
            all->executed[i].seq == command->seq)
            x = &all->executed[i];
    r.stamp_ns = fake_stamp_ns(all);
    r.repeated_ = x != NULL;
    if (x == NULL) {
        assert(all->n_executed < FAKE_EXECUTED_MAX);
        x = &all->executed[all->n_executed++];
        *x = (struct fake_executed){command->session_id,
                                    command->seq,
                                    command->op,
                                    command->token,
                                    command->cancel_seq,
                                    command->ack_seq,
                                    command->op == WIRE_OP_ACQUIRE ? ++all->token_last
                                                                   : command->token,
                                    0,
                                    0};
        x->ttl_ms = command->ttl_ms;
        for (unsigned i = 0; command->op == WIRE_OP_RENEW && i < all->n_executed; i++)
            if (all->executed[i].result_token == command->token && all->executed[i].ttl_ms != 0)
                x->ttl_ms = all->executed[i].ttl_ms; /* "0 = as before". */
        if (x->ttl_ms != 0)
            x->result_deadline_ns = r.stamp_ns + x->ttl_ms * NS_PER_MS;
    }
    r.token = x->result_token;
    r.ttl_ms = x->ttl_ms;
    r.deadline_ns = x->result_deadline_ns;
    fake_result(k, id, &r);
}

static void say_hello(struct fake_conn *k)
{
    Hf__NodeHello hello = HF__NODE_HELLO__INIT;
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    hello.version = hello.version_min = k->node->version;
    hello.node_id = k->node->id;
    hello.leader_id = k->node->leader_id;
    hello.leader_client_address = k->node->leader_address;
    frame.body_case = HF__NODE_FRAME__BODY_HELLO;
    frame.hello = &hello;
    fake_send(k, &frame);
}

static void say_pong(struct fake_conn *k, uint64_t id)
{
    Hf__Pong pong = HF__PONG__INIT;
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    pong.leader_id = k->node->leader_id;
    frame.id = id;
    frame.body_case = HF__NODE_FRAME__BODY_PONG;
    frame.pong = &pong;
    fake_send(k, &frame);
}

static void subscribe(struct fake_conn *k, uint64_t id, const Hf__Subscribe *s)
{
    Hf__SubscribeReply reply = HF__SUBSCRIBE_REPLY__INIT;
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    k->node->n_subscribes++;
    k->node->subscriber = k;
    k->node->subscribed_from = s->from_index;
    k->node->subscribed_session = s->session_id;
    struct buf text = BUF_INIT;
    for (size_t i = 0; i < s->n_prefixes; i++)
        buf_printf(&text, "%s%.*s", i > 0 ? "," : "", (int)s->prefixes[i].len,
                   (const char *)s->prefixes[i].data);
    buf_add(&text, "", 1);
    (void)snprintf(k->node->subscribed_prefixes, sizeof k->node->subscribed_prefixes, "%s",
                   (const char *)text.data);
    buf_deinit(&text);
    reply.index = k->node->applied_index;
    reply.gap = k->node->gap;
    frame.id = id;
    frame.body_case = HF__NODE_FRAME__BODY_SUBSCRIBED;
    frame.subscribed = &reply;
    fake_send(k, &frame);
}

static void answer_query(struct fake_conn *k, uint64_t id)
{
    Hf__QueryReply reply = HF__QUERY_REPLY__INIT;
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    k->node->n_queries++;
    reply.index = k->node->id;
    frame.id = id;
    frame.body_case = HF__NODE_FRAME__BODY_QUERY;
    frame.query = &reply;
    fake_send(k, &frame);
}

static void on_frame(struct fake_conn *k, const Hf__ClientFrame *frame)
{
    struct fake_node *n = k->node;
    const Hf__Command *command = NULL;
    if (frame->body_case == HF__CLIENT_FRAME__BODY_COMMAND) {
        command = (const Hf__Command *)pack_parse(&n->arena, &hf__command__descriptor,
                                                  pack_bytes(frame->command));
        assert(command != NULL);
    }
    if (n->mute || (n->script != NULL && n->script(k, frame, command)))
        return;
    switch (frame->body_case) {
    case HF__CLIENT_FRAME__BODY_HELLO:
        say_hello(k);
        break;
    case HF__CLIENT_FRAME__BODY_COMMAND:
        if (n->leader_id == n->id)
            fake_execute(k, frame->id, command);
        else
            fake_failure(k, frame->id, HF__FAILURE__CODE__NOT_LEADER);
        break;
    case HF__CLIENT_FRAME__BODY_PING:
        n->n_pings++;
        say_pong(k, frame->id);
        break;
    case HF__CLIENT_FRAME__BODY_SUBSCRIBE:
        subscribe(k, frame->id, frame->subscribe);
        break;
    case HF__CLIENT_FRAME__BODY_QUERY:
        answer_query(k, frame->id);
        break;
    default:
        fake_failure(k, frame->id, HF__FAILURE__CODE__BAD_REQUEST);
        break;
    }
}

/* ---- In -------------------------------------------------------------------------------- */

static void on_conn_closed(uv_handle_t *handle)
{
    struct fake_conn *k = handle->data, **at = &k->node->conns;
    while (*at != k)
        at = &(*at)->next;
    *at = k->next;
    if (k->node->subscriber == k)
        k->node->subscriber = NULL;
    buf_deinit(&k->in);
    free(k);
}

static void close_conn(struct fake_conn *k)
{
    if (!k->closed)
        uv_close((uv_handle_t *)&k->tcp, on_conn_closed);
    k->closed = true;
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buf)
{
    struct fake_conn *k = handle->data;
    *ret_buf = uv_buf_init((char *)buf_reserve(&k->in, suggested), (unsigned)suggested);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *b)
{
    struct fake_conn *k = stream->data;
    (void)b;
    if (n < 0) {
        close_conn(k);
        return;
    }
    k->in.size += (size_t)n;
    while (!k->closed) {
        struct bytes body;
        size_t size;
        int rc =
            frame_parse(bytes_of(k->in.data, k->in.size), FRAME_CLIENT_BYTES_MAX, &body, &size);
        assert(rc >= 0);
        if (rc == 0)
            break;
        ProtobufCMessage *m = pack_parse(&k->node->arena, &hf__client_frame__descriptor, body);
        assert(m != NULL);
        on_frame(k, (const Hf__ClientFrame *)m);
        arena_reset(&k->node->arena);
        buf_consume(&k->in, size);
    }
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct fake_node *n = listener->data;
    struct fake_conn *k = xcalloc(1, sizeof *k);
    assert(status == 0);
    k->node = n;
    k->serial = ++n->n_connections;
    k->next = n->conns;
    n->conns = k;
    (void)uv_tcp_init(n->loop, &k->tcp);
    k->tcp.data = k;
    assert(uv_accept(listener, (uv_stream_t *)&k->tcp) == 0);
    (void)uv_tcp_nodelay(&k->tcp, 1);
    if (n->down)
        close_conn(k);
    else
        (void)uv_read_start((uv_stream_t *)&k->tcp, on_alloc, on_read);
}

void fake_node_start(struct fake_node *n,
                     uv_loop_t *loop,
                     struct fake_cluster *cluster,
                     uint64_t id)
{
    struct sockaddr_in sa;
    int size = sizeof sa;
    *n = (struct fake_node){.loop = loop, .cluster = cluster, .id = id, .version = WIRE_VERSION};
    arena_init(&n->arena);
    (void)uv_tcp_init(loop, &n->listener);
    n->listener.data = n;
    (void)uv_ip4_addr("127.0.0.1", 0, &sa);
    assert(uv_tcp_bind(&n->listener, (const struct sockaddr *)&sa, 0) == 0);
    assert(uv_listen((uv_stream_t *)&n->listener, 64, on_connection) == 0);
    assert(uv_tcp_getsockname(&n->listener, (struct sockaddr *)&sa, &size) == 0);
    (void)snprintf(n->address, sizeof n->address, "127.0.0.1:%u", ntohs(sa.sin_port));
    n->leader_id = id;
    (void)snprintf(n->leader_address, sizeof n->leader_address, "%s", n->address);
}

void fake_node_reset(struct fake_node *n)
{
    for (struct fake_conn *k = n->conns; k != NULL; k = k->next) {
        if (!k->closed)
            (void)uv_tcp_close_reset(&k->tcp, on_conn_closed);
        k->closed = true;
    }
}

void fake_node_stop(struct fake_node *n)
{
    for (struct fake_conn *k = n->conns; k != NULL; k = k->next)
        close_conn(k);
    uv_close((uv_handle_t *)&n->listener, NULL);
    arena_deinit(&n->arena);
}
