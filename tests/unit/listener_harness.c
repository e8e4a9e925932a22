#include "tests/unit/listener_harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct listener_leader fake_leader(void *arg)
{
    (void)arg;
    return (struct listener_leader){7, "leader.example:7001"};
}

static void fake_members(void *arg, struct arena *arena, Hf__NodeHello *hello)
{
    (void)arg;
    (void)arena;
    (void)hello;
}

static enum replica_status fake_submit(void *arg,
                                       uint64_t now_ns,
                                       uint64_t request_id,
                                       enum replica_urgency urgency,
                                       struct bytes command)
{
    struct listener_test *t = arg;
    (void)now_ns;
    assert_true(command.size > 0);
    t->urgency = urgency;
    if (t->submit_status == REPLICA_OK)
        t->submitted[t->n_submitted++ % 64] = request_id;
    return t->submit_status;
}

static enum replica_status fake_read(void *arg, uint64_t now_ns, uint64_t request_id)
{
    struct listener_test *t = arg;
    (void)now_ns;
    t->read_id = request_id;
    return REPLICA_OK;
}

static void fake_answer(void *arg,
                        const struct access *access,
                        uint64_t frame_id,
                        const Hf__Query *query,
                        struct arena *arena,
                        struct buf *out)
{
    struct listener_test *t = arg;
    (void)access;
    (void)arena;
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    Hf__QueryReply reply = HF__QUERY_REPLY__INIT;
    (void)snprintf(t->asked, sizeof t->asked, "%.*s|%.*s|%.*s", (int)query->path.len,
                   (const char *)query->path.data, (int)query->after.len,
                   (const char *)query->after.data, (int)query->owner.len,
                   (const char *)query->owner.data);
    reply.index = query->path.len; /* Shows that the query was kept. */
    reply.code = (uint32_t)query->what;
    frame.id = frame_id;
    frame.body_case = HF__NODE_FRAME__BODY_QUERY;
    frame.query = &reply;
    pack_add_frame(out, &frame.base);
}

static enum replica_status fake_admin(
    void *arg, uint64_t now_ns, uint64_t request_id, const Hf__Admin *admin, const char **ret_text)
{
    (void)arg;
    (void)now_ns;
    (void)request_id;
    (void)admin;
    *ret_text = "not today";
    return REPLICA_REFUSED;
}

static void fake_chunk_taken(void *arg, uint64_t request_id, bool gone)
{
    (void)arg;
    (void)request_id;
    (void)gone;
}

static uint64_t fake_applied_index(void *arg)
{
    (void)arg;
    return 10;
}

static int64_t fake_wall_offset_ns(void *arg)
{
    (void)arg;
    return 0;
}

void lt_begin_with(struct listener_test *t, struct listener_config config)
{
    struct address address = {.host = "127.0.0.1"};
    char *sentence = NULL;
    *t = (struct listener_test){0};
    net_begin(&t->net);
    t->events = events_new();
    config.hub = &t->net.hub;
    config.node_id = 3;
    config.events = t->events;
    config.arg = t;
    config.leader = fake_leader;
    config.members = fake_members;
    config.submit = fake_submit;
    config.read = fake_read;
    config.answer = fake_answer;
    config.admin = fake_admin;
    config.chunk_taken = fake_chunk_taken;
    config.applied_index = fake_applied_index;
    config.wall_offset_ns = fake_wall_offset_ns;
    t->listener = listener_new(&config);
    assert_int_equal(listener_listen(t->listener, &address, false, &sentence), 0);
}

void lt_begin(struct listener_test *t)
{
    lt_begin_with(t, (struct listener_config){0});
}

static void on_closed(void *arg)
{
    struct listener_test *t = arg;
    t->closed = true;
}

static bool is_closed(void *arg)
{
    const struct listener_test *t = arg;
    return t->closed;
}

void lt_end(struct listener_test *t)
{
    listener_close(t->listener, on_closed, t);
    assert_true(net_run(&t->net, is_closed, t, 2000));
    net_end(&t->net);
    events_free(t->events);
}

void lt_send_hello(struct raw *r, uint32_t version, uint32_t version_min)
{
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__ClientHello hello = HF__CLIENT_HELLO__INIT;
    hello.version = version;
    hello.version_min = version_min;
    frame.body_case = HF__CLIENT_FRAME__BODY_HELLO;
    frame.hello = &hello;
    raw_send_message(r, &frame.base);
}

const Hf__NodeFrame *lt_receive(struct listener_test *t, struct raw *r)
{
    return (const Hf__NodeFrame *)raw_receive(&t->net, r, &hf__node_frame__descriptor);
}

void lt_greet(struct listener_test *t, struct raw *r)
{
    raw_connect(r, listener_port(t->listener));
    lt_send_hello(r, WIRE_VERSION, WIRE_VERSION_MIN);
    const Hf__NodeFrame *f = lt_receive(t, r);
    assert_non_null(f);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_HELLO);
    assert_int_equal(f->hello->node_id, 3);
    assert_int_equal(f->hello->leader_id, 7);
    assert_string_equal(f->hello->leader_client_address, "leader.example:7001");
}

void lt_send_ping(struct raw *r, uint64_t id)
{
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Ping ping = HF__PING__INIT;
    frame.id = id;
    frame.body_case = HF__CLIENT_FRAME__BODY_PING;
    frame.ping = &ping;
    raw_send_message(r, &frame.base);
}

void lt_send_command(struct raw *r, uint64_t id, uint32_t op)
{
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Command command = HF__COMMAND__INIT;
    struct buf packed = BUF_INIT;
    command.op = op;
    command.session_id = 1;
    pack_add(&packed, &command.base);
    frame.id = id;
    frame.body_case = HF__CLIENT_FRAME__BODY_COMMAND;
    frame.command = pack_binary(bytes_of(packed.data, packed.size));
    raw_send_message(r, &frame.base);
    buf_deinit(&packed);
}

void lt_send_query(struct raw *r, uint64_t id)
{
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Query query = HF__QUERY__INIT;
    query.what = HF__QUERY__WHAT__SHOW;
    frame.id = id;
    frame.body_case = HF__CLIENT_FRAME__BODY_QUERY;
    frame.query = &query;
    raw_send_message(r, &frame.base);
}

void lt_expect_failure(struct listener_test *t, struct raw *r, uint64_t id, Hf__Failure__Code code)
{
    const Hf__NodeFrame *f = lt_receive(t, r);
    assert_non_null(f);
    assert_int_equal(f->id, id);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_FAILURE);
    assert_int_equal(f->failure->code, code);
    assert_true(strlen(f->failure->text) > 0);
}
