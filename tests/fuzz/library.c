/* What nodes say to a client: the product's client library over connections in memory, with calls
 * of an application under way.
 *
 * conn.h and boot_alarm.h are implemented here, over the input; nothing that a node names is ever
 * connected to.  Each command is answered once; the client closes.
 *
 * Input: commands, one byte each and what belongs to it. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <stdlib.h>

#include "raftstore/client/boot_alarm.h"
#include "raftstore/client/client.h"
#include "raftstore/client/conn.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/frame.h"

#define STEPS_MAX 200u
#define CONNS_MAX 16u
#define OPEN_MAX  64u

struct client_conn {
    struct client_conn_config config;
    struct buf in, out;
    uint64_t heard_ns;
    bool ready, closed, told;
    unsigned n_busy; /* Calls of ours that are under way. */
};

static struct {
    struct clock clock;
    uint64_t now_ns;
    struct client_conn *conns[CONNS_MAX];
    unsigned n_conns;
    struct boot_alarm *alarm;
    uint64_t alarm_ns; /* 0 = not set. */
    bool alarm_closing;
    unsigned n_asked, n_answered; /* Of the application's. */
    uint64_t ids[OPEN_MAX];       /* Of the requests that were sent last. */
    unsigned n_ids;
    bool closed;
} world;

static uint64_t now_of(const struct clock *c)
{
    (void)c;
    return world.now_ns;
}

/* ---- boot_alarm.h ------------------------------------------------------------------------ */

int boot_alarm_init(struct boot_alarm *a, uv_loop_t *loop, void (*on_alarm)(void *arg), void *arg)
{
    (void)loop;
    *a = (struct boot_alarm){.fd = -1, .on_alarm = on_alarm, .arg = arg};
    world.alarm = a;
    return 0;
}

void boot_alarm_set(struct boot_alarm *a, uint64_t left_ns)
{
    (void)a;
    world.alarm_ns = left_ns > UINT64_MAX / 2 ? UINT64_MAX : world.now_ns + left_ns;
}

void boot_alarm_close(struct boot_alarm *a, void (*on_closed)(void *arg))
{
    a->on_closed = on_closed;
    world.alarm_closing = true;
}

/* ---- conn.h ------------------------------------------------------------------------------ */

struct client_conn *client_conn_new(const struct client_conn_config *config)
{
    struct client_conn *k = xcalloc(1, sizeof *k);
    k->config = *config;
    if (world.n_conns < CONNS_MAX)
        world.conns[world.n_conns++] = k;
    else
        fuzz_fail("too many connections at once");
    return k;
}

void client_conn_close(struct client_conn *k)
{
    k->closed = true;
}

struct buf *client_conn_out(struct client_conn *k)
{
    return &k->out;
}

bool client_conn_ready(const struct client_conn *k)
{
    return k->ready && !k->closed;
}

size_t client_conn_backlog_bytes(const struct client_conn *k)
{
    return k->out.size;
}

uint64_t client_conn_heard_mono_ns(const struct client_conn *k)
{
    return k->heard_ns;
}

/* Closed ones go when nothing of ours uses them. */
static void conns_sweep(void)
{
    for (unsigned i = 0; i < world.n_conns;) {
        struct client_conn *k = world.conns[i];
        if (!k->closed) {
            i++;
            continue;
        }
        world.conns[i] = world.conns[--world.n_conns];
        void *arg = k->config.freed_arg;
        void (*on_freed)(void *) = k->config.handler->on_freed;
        buf_deinit(&k->in);
        buf_deinit(&k->out);
        free(k);
        on_freed(arg);
        i = 0;
    }
}

static void conn_lose(struct client_conn *k, int error)
{
    if (k->closed)
        return;
    k->closed = true;
    k->config.handler->on_lost(k->config.arg, error, "fuzz");
}

/* What the library sends: whole frames of clients.  Their ids are remembered, to be answered. */
static void look(struct client_conn *k)
{
    struct arena a;
    struct bytes body;
    size_t at = 0, size;
    arena_init(&a);
    while (at < k->out.size) {
        int rv = frame_parse(bytes_of(k->out.data + at, k->out.size - at), FRAME_CLIENT_BYTES_MAX,
                             &body, &size);
        fuzz_require(rv == 1, "the library sends what is no frame");
        const Hf__ClientFrame *f = (const Hf__ClientFrame *)(const void *)pack_parse(
            &a, &hf__client_frame__descriptor, body);
        fuzz_require(f != NULL, "the library sends what is no message");
        world.ids[world.n_ids++ % OPEN_MAX] = f->id;
        at += size;
    }
    arena_deinit(&a);
    k->out.size = 0;
}

static void take(struct client_conn *k, const Hf__NodeFrame *frame)
{
    if (k->ready) {
        k->config.handler->on_frame(k->config.arg, frame);
    } else if (frame->body_case == HF__NODE_FRAME__BODY_HELLO) {
        k->ready = true;
        k->config.handler->on_hello(k->config.arg, frame->hello);
    } else {
        conn_lose(k, UV_EPROTO);
    }
}

static void hear(struct client_conn *k, struct bytes packed)
{
    struct arena *a = k->config.arena;
    k->config.handler->on_wake(k->config.arg);
    if (k->closed)
        return;
    k->heard_ns = world.now_ns;
    ProtobufCMessage *m = pack_parse(a, &hf__node_frame__descriptor, packed);
    if (m == NULL)
        conn_lose(k, UV_EPROTO);
    else
        take(k, (const Hf__NodeFrame *)(const void *)m);
    arena_reset(a);
}

/* ---- The application --------------------------------------------------------------------- */

static void on_result(void *arg, const struct client_result *r)
{
    (void)arg;
    world.n_answered++;
    fuzz_require((r->status == 0) == (r->result != NULL), "a result without a result");
    fuzz_require(r->status <= 0, "status %d", r->status);
    fuzz_require(r->result == NULL || r->result->code != WIRE_CODE_QUEUED,
                 "told that it is queued");
}

static void on_reply(void *arg, const struct client_reply *r)
{
    (void)arg;
    fuzz_require(r->text != NULL, "a reply without a text");
    if (r->chunk == NULL || r->chunk->last)
        world.n_answered++;
}

static void on_session(void *arg, enum client_session_event event)
{
    (void)arg;
    (void)event;
}

static void on_event(void *arg, const Hf__Event *event)
{
    (void)arg;
    fuzz_require(event != NULL, "no event");
}

static void on_gap(void *arg)
{
    (void)arg;
}

static void call_command(struct client *c, struct feed *f)
{
    static const uint32_t ops[] = {WIRE_OP_ACQUIRE, WIRE_OP_RELEASE, WIRE_OP_RENEW,
                                   WIRE_OP_CONVERT, WIRE_OP_NOTE,    WIRE_OP_MKDIR};
    Hf__Command command = HF__COMMAND__INIT;
    ProtobufCBinaryData path = pack_binary(bytes_str("a/b"));
    uint8_t how = feed_u8(f);
    uint64_t handle = 0;
    command.op = ops[how % 6];
    command.paths = &path;
    command.n_paths = 1;
    command.owner = pack_binary(bytes_str("me"));
    command.mode = how & 64 ? WIRE_MODE_SHARED : WIRE_MODE_EXCLUSIVE;
    command.ttl_ms = how & 128 ? 0 : 1000;
    command.wait_ms = how & 32 ? 5000 : 0;
    if (client_command(c, &command, how & 16 ? CLIENT_NO_TIMEOUT : 3000, on_result, NULL,
                       &handle) == 0)
        world.n_asked++;
    if (how == 255)
        client_cancel(c, handle);
}

static void call_query(struct client *c, struct feed *f)
{
    Hf__Query q = HF__QUERY__INIT;
    uint8_t how = feed_u8(f);
    q.what = how % 9;
    q.path = pack_binary(bytes_str("a"));
    if (client_query(c, &q, 2000, how & 128, on_reply, NULL) == 0)
        world.n_asked++;
}

static void call_admin(struct client *c, struct feed *f)
{
    Hf__Admin m = HF__ADMIN__INIT;
    m.what = feed_below(f, 7);
    m.node_id = 2;
    if (client_admin(c, &m, 2000, on_reply, NULL) == 0)
        world.n_asked++;
}

/* ---- Nodes ------------------------------------------------------------------------------- */

static void say(struct client_conn *k, const Hf__NodeFrame *frame)
{
    struct buf b = BUF_INIT;
    pack_add(&b, &frame->base);
    uint8_t *exact = xmemdup(b.data, b.size);
    hear(k, bytes_of(exact, b.size));
    free(exact);
    buf_deinit(&b);
}

static void say_hello(struct client_conn *k, struct feed *f)
{
    static char *const addresses[] = {"a:1", "b:1", "", "c", "unix:/x", "[::1]:9"};
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    Hf__NodeHello hello = HF__NODE_HELLO__INIT;
    Hf__Member members[3], *list[3];
    uint8_t how = feed_u8(f);
    hello.version = hello.version_min = WIRE_VERSION;
    hello.node_id = 1 + how % 3;
    hello.leader_id = how >> 2 & 3;
    hello.leader_client_address = addresses[how % 6];
    hello.n_members = how >> 6;
    for (unsigned i = 0; i < hello.n_members; i++) {
        hf__member__init(&members[i]);
        members[i].node_id = 1 + i;
        members[i].client_address = addresses[feed_below(f, 6)];
        list[i] = &members[i];
    }
    hello.members = list;
    frame.body_case = HF__NODE_FRAME__BODY_HELLO;
    frame.hello = &hello;
    say(k, &frame);
}

static uint64_t an_id(struct feed *f)
{
    uint8_t which = feed_u8(f);
    unsigned n = world.n_ids < OPEN_MAX ? world.n_ids : OPEN_MAX;
    return which >= 240 || n == 0 ? which : world.ids[(world.n_ids - 1 - which % n) % OPEN_MAX];
}

static void say_result(struct client_conn *k, struct feed *f)
{
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    Hf__Result r = HF__RESULT__INIT;
    const uint64_t stamps[] = {world.now_ns, 0, UINT64_MAX, UINT64_C(30000000000)};
    frame.id = an_id(f);
    r.code = feed_u8(f) % 26;
    r.stamp_ns = feed_near(f, stamps, 4);
    r.session_id = feed_u8(f);
    r.token = feed_u8(f);
    r.deadline_ns = feed_near(f, stamps, 4);
    r.ttl_ms = feed_u8(f) * UINT64_C(100);
    r.index = feed_u8(f);
    frame.body_case = HF__NODE_FRAME__BODY_RESULT;
    frame.result = &r;
    say(k, &frame);
}

static void say_failure(struct client_conn *k, struct feed *f)
{
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    Hf__Failure m = HF__FAILURE__INIT;
    frame.id = an_id(f);
    m.code = feed_u8(f) % 11;
    m.text = "no";
    m.leader_id = feed_u8(f) % 4;
    m.leader_client_address = m.leader_id % 2 ? "b:1" : "";
    frame.body_case = HF__NODE_FRAME__BODY_FAILURE;
    frame.failure = &m;
    say(k, &frame);
}

/* The answers that carry nothing of their own but what the input says. */
static void say_short(struct client_conn *k, struct feed *f)
{
    Hf__NodeFrame frame = HF__NODE_FRAME__INIT;
    Hf__Pong pong = HF__PONG__INIT;
    Hf__SubscribeReply subscribed = HF__SUBSCRIBE_REPLY__INIT;
    Hf__QueryReply query = HF__QUERY_REPLY__INIT;
    Hf__SnapshotChunk chunk = HF__SNAPSHOT_CHUNK__INIT;
    Hf__AdminReply admin = HF__ADMIN_REPLY__INIT;
    Hf__Events events = HF__EVENTS__INIT;
    Hf__Event event = HF__EVENT__INIT, *list[] = {&event};
    uint8_t how = feed_u8(f);
    frame.id = an_id(f);
    switch (how % 6) {
    case 0:
        frame.body_case = HF__NODE_FRAME__BODY_PONG;
        frame.pong = &pong;
        pong.leader_id = how >> 6;
        break;
    case 1:
        frame.body_case = HF__NODE_FRAME__BODY_SUBSCRIBED;
        frame.subscribed = &subscribed;
        subscribed.index = feed_u8(f);
        subscribed.gap = how & 128;
        break;
    case 2:
        frame.body_case = HF__NODE_FRAME__BODY_QUERY;
        frame.query = &query;
        query.index = feed_u8(f);
        query.stamp_ns = feed_u64(f);
        break;
    case 3:
        frame.body_case = HF__NODE_FRAME__BODY_CHUNK;
        frame.chunk = &chunk;
        chunk.offset = feed_u8(f);
        chunk.last = how & 128;
        break;
    case 4:
        frame.body_case = HF__NODE_FRAME__BODY_ADMIN;
        frame.admin = &admin;
        break;
    default:
        frame.id = 0;
        frame.body_case = HF__NODE_FRAME__BODY_EVENTS;
        frame.events = &events;
        events.n_events = 1;
        events.events = list;
        event.index = feed_u8(f);
        event.type = feed_u8(f) % 20;
        event.code = feed_u8(f) % 26;
        event.session_id = feed_u8(f);
        event.seq = feed_u8(f);
        event.token = feed_u8(f);
        event.stamp_ns = feed_u64(f);
        event.path = pack_binary(bytes_str("a/b"));
        break;
    }
    say(k, &frame);
}

static void pass(uint64_t ms)
{
    uint64_t end_ns = world.now_ns + ms * UINT64_C(1000000);
    for (unsigned i = 0; i < 50; i++) {
        if (world.alarm_ns == 0 || world.alarm_ns > end_ns)
            break;
        if (world.alarm_ns > world.now_ns)
            world.now_ns = world.alarm_ns;
        world.alarm_ns = 0;
        world.alarm->on_alarm(world.alarm->arg);
        conns_sweep();
    }
    if (end_ns > world.now_ns)
        world.now_ns = end_ns;
}

static void step(struct client *c, struct feed *f)
{
    uint8_t op = feed_u8(f);
    struct client_conn *k = world.n_conns > 0 ? world.conns[op % world.n_conns] : NULL;
    if (op < 40) {
        pass((uint64_t)(1 + feed_u8(f)) * (op & 1 ? 100 : 1));
    } else if (op < 60) {
        call_command(c, f);
    } else if (op < 70) {
        call_query(c, f);
    } else if (op < 76) {
        call_admin(c, f);
    } else if (op < 80) {
        const char *prefixes[] = {"a", "b/c"};
        (void)client_watch(c, prefixes, op % 3);
    } else if (k == NULL) {
        pass(50);
    } else if (op < 110) {
        say_hello(k, f);
    } else if (op < 150) {
        say_result(k, f);
    } else if (op < 170) {
        say_failure(k, f);
    } else if (op < 200) {
        say_short(k, f);
    } else if (op < 240) {
        struct bytes b = feed_bytes(f, 255);
        uint8_t *exact = xmemdup(b.data, b.size);
        hear(k, bytes_of(exact, b.size));
        free(exact);
    } else {
        k->config.handler->on_wake(k->config.arg);
        conn_lose(k, UV_EOF);
    }
    for (unsigned i = 0; i < world.n_conns; i++)
        if (!world.conns[i]->closed)
            look(world.conns[i]);
    conns_sweep();
}

static void on_closed(void *arg)
{
    (void)arg;
    world.closed = true;
}

static void finish(struct client *c)
{
    client_abandon(c, on_closed, NULL);
    for (unsigned i = 0; i < 100 && !world.closed; i++) {
        conns_sweep();
        if (world.alarm_closing) {
            world.alarm_closing = false;
            world.alarm->on_closed(world.alarm->arg);
        }
        pass(10);
    }
    fuzz_require(world.closed, "the client does not close");
    fuzz_require(world.n_conns == 0, "%u connections are left", world.n_conns);
    fuzz_require(world.n_asked == world.n_answered, "%u asked, %u answered", world.n_asked,
                 world.n_answered);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed f = feed_of(data, size);
    static const char *const prefixes[] = {"a", NULL};
    uv_loop_t loop = {0};
    struct client *c = NULL;
    memset(&world, 0, sizeof world);
    world.clock = (struct clock){now_of, now_of, now_of};
    world.now_ns = UINT64_C(30000000000);
    uint8_t how = feed_u8(&f);
    struct client_config config = {
        .loop = &loop,
        .clock = &world.clock,
        .seed = 1,
        .addresses = "a:1,b:1,c:1",
        .agent = "fuzz",
        .host = "h",
        .session_ttl_ms = how & 1 ? 0 : 3000,
        .inflight_max = how & 2 ? 2 : 0,
        .events_session = how & 4,
        .event_prefixes = how & 8 ? prefixes : NULL,
        .on_session = on_session,
        .on_event = on_event,
        .on_gap = on_gap,
    };
    fuzz_require(client_new(&config, &c) == 0, "no client");
    for (unsigned i = 0; i < STEPS_MAX && !feed_is_empty(&f); i++)
        step(c, &f);
    finish(c);
    return 0;
}
