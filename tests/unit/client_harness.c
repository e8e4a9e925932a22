#include "client_harness.h"

#include <stdio.h>

static uint64_t now_boot(void)
{
    return clock_boot_ns(clock_system());
}

void harness_init(struct harness *h, unsigned n_nodes)
{
    *h = (struct harness){.n_nodes = n_nodes};
    assert_int_equal(uv_loop_init(&h->loop), 0);
    fake_cluster_init(&h->cluster);
    for (unsigned i = 0; i < n_nodes; i++)
        fake_node_start(&h->nodes[i], &h->loop, &h->cluster, i + 1);
    harness_lead(h, 0);
}

void harness_lead(struct harness *h, unsigned leader)
{
    for (unsigned i = 0; i < h->n_nodes; i++) {
        struct fake_node *n = &h->nodes[i];
        n->leader_id = h->nodes[leader].id;
        memcpy(n->leader_address, h->nodes[leader].address, sizeof n->leader_address);
    }
}

static void on_session(void *arg, enum client_session_event event)
{
    struct harness *h = arg;
    h->n_session_events[event]++;
    h->session_event_boot_ns[event] = now_boot();
}

static void on_event(void *arg, const Hf__Event *e)
{
    struct harness *h = arg;
    if (h->n_events < 64)
        h->event_indices[h->n_events] = e->index;
    h->n_events++;
}

static void on_gap(void *arg)
{
    ((struct harness *)arg)->n_gaps++;
}

void harness_client_with(struct harness *h, unsigned seeds, struct client_config config)
{
    char addresses[256] = "";
    size_t at = 0;
    for (unsigned i = 0; i < h->n_nodes; i++)
        if (seeds & 1u << i)
            at += (size_t)snprintf(addresses + at, sizeof addresses - at, "%s%s", at > 0 ? "," : "",
                                   h->nodes[i].address);
    config.loop = &h->loop;
    config.addresses = addresses;
    config.agent = "test";
    config.on_session = on_session;
    config.on_event = on_event;
    config.on_gap = on_gap;
    config.arg = h;
    assert_int_equal(client_new(&config, &h->client), 0);
    h->client_gone = false;
}

void harness_client(struct harness *h, unsigned seeds, uint64_t session_ttl_ms)
{
    harness_client_with(h, seeds, (struct client_config){.session_ttl_ms = session_ttl_ms});
}

void harness_on_closed(void *arg)
{
    struct harness *h = arg;
    h->client = NULL;
    h->client_gone = true;
}

void harness_deinit(struct harness *h)
{
    if (h->client != NULL) {
        client_abandon(h->client, harness_on_closed, h);
        RUN_UNTIL(h, h->client_gone);
    }
    for (unsigned i = 0; i < h->n_nodes; i++)
        fake_node_stop(&h->nodes[i]);
    assert_int_equal(uv_run(&h->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&h->loop), 0);
}

static void on_run_timer(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

void harness_run_ms(struct harness *h, uint64_t ms)
{
    uv_timer_t timer;
    bool over = false;
    assert_int_equal(uv_timer_init(&h->loop, &timer), 0);
    timer.data = &over;
    uv_update_time(&h->loop);
    assert_int_equal(uv_timer_start(&timer, on_run_timer, ms, 0), 0);
    while (!over)
        (void)uv_run(&h->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, NULL);
    (void)uv_run(&h->loop, UV_RUN_NOWAIT); /* The handle is on our stack: let it go. */
    while (uv_is_active((uv_handle_t *)&timer))
        (void)uv_run(&h->loop, UV_RUN_NOWAIT);
}

void harness_on_result(void *arg, const struct client_result *r)
{
    struct outcome *o = arg;
    o->n++;
    o->status = r->status;
    o->sent_boot_ns = r->sent_boot_ns;
    o->deadline_boot_ns = r->deadline_boot_ns;
    o->at_boot_ns = now_boot();
    if (r->status == 0) {
        o->code = r->result->code;
        o->token = r->result->token;
    }
}

void harness_on_reply(void *arg, const struct client_reply *r)
{
    struct outcome *o = arg;
    o->status = r->status;
    o->at_boot_ns = now_boot();
    (void)snprintf(o->text, sizeof o->text, "%s", r->text);
    if (r->query != NULL)
        o->index = r->query->index;
    if (r->chunk != NULL)
        o->chunks++;
    o->n += r->chunk == NULL || r->chunk->last;
}

uint64_t harness_acquire(
    struct harness *h, uint64_t ttl_ms, uint64_t wait_ms, uint64_t timeout_ms, struct outcome *o)
{
    Hf__Command command = HF__COMMAND__INIT;
    ProtobufCBinaryData path = pack_binary(bytes_str("a/b"));
    uint64_t handle = 0;
    *o = (struct outcome){.status = 1};
    command.op = WIRE_OP_ACQUIRE;
    command.paths = &path;
    command.n_paths = 1;
    command.owner = pack_binary(bytes_str("me"));
    command.mode = WIRE_MODE_EXCLUSIVE;
    command.ttl_ms = ttl_ms;
    command.wait_ms = wait_ms;
    assert_int_equal(client_command(h->client, &command, timeout_ms, harness_on_result, o, &handle),
                     0);
    assert_int_equal(o->n, 0); /* Never from inside the call. */
    return handle;
}

uint64_t harness_release(struct harness *h, uint64_t token, struct outcome *o)
{
    Hf__Command command = HF__COMMAND__INIT;
    ProtobufCBinaryData path = pack_binary(bytes_str("a/b"));
    uint64_t handle = 0;
    *o = (struct outcome){.status = 1};
    command.op = WIRE_OP_RELEASE;
    command.paths = &path;
    command.n_paths = 1;
    command.token = token;
    assert_int_equal(
        client_command(h->client, &command, CLIENT_NO_TIMEOUT, harness_on_result, o, &handle), 0);
    return handle;
}
