/* What clients say to a node: the product's listener, queries and events over streams in memory,
 * with a replica behind them that is a cluster by itself, and whose disk is at once.
 *
 * Half of the inputs have a policy: connections of a mount that may see and lock below `a` only,
 * and of an operator, who locks at a name that nothing sent to the mount may ever hold, unless the
 * mount said it itself.
 *
 * Input: a byte for that; then commands, one byte each and what belongs to it: frames of clients,
 * time, connections that come and go.  Addresses that frames name are never dialled. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <stdlib.h>

#include "raftstore/base/log.h"
#include "raftstore/node/node_internal.h"
#include "raftstore/node/replica_impl.h"
#include "raftstore/wire/frame.h"
#include "tests/fuzz/quiet_io.h"
#include "tests/fuzz/stream.h"

#define STEPS_MAX       200u
#define CONNECTIONS_MAX 4u
#define SECRET          "zz-secret"

static const char policy_text[] =
    "{\"version\": 1, \"roles\": {"
    "\"some\": {\"allow\": [{\"verbs\": [\"read\", \"acquire\"], \"paths\": [\"a\"]}]},"
    "\"all\": {\"allow\": [{\"verbs\": [\"read\", \"acquire\", \"break\", \"admin\"], "
    "\"paths\": [\"/\"]}]}},"
    "\"bindings\": [{\"certificate\": \"mount/m\", \"roles\": [\"some\"]},"
    "{\"certificate\": \"client/root\", \"roles\": [\"all\"]}]}";

static const struct identity mount_identity = {IDENTITY_MOUNT, 0, "m"};
static const struct identity root_identity = {IDENTITY_CLIENT, 0, "root"};

static struct {
    struct clock clock;
    uint64_t now_ns;
} time_now;

struct door {
    struct node node;
    struct replica_io io;
    uv_loop_t loop; /* Never run. */
    uint64_t ticket;
    uint64_t session_id; /* The newest one. */
    bool has_policy;
    bool closed;
};

/* ---- Clock ------------------------------------------------------------------------------- */

static uint64_t now_of(const struct clock *c)
{
    (void)c;
    return time_now.now_ns;
}

/* ---- The replica's outputs --------------------------------------------------------------- */

static void on_persist(void *arg, const struct replica_write *w)
{
    ((struct door *)arg)->ticket = w->ticket;
}

static void on_command_done(void *arg,
                            uint64_t request_id,
                            enum replica_status status,
                            const struct lock_result *result,
                            uint64_t index)
{
    struct door *d = arg;
    if (status == REPLICA_OK && result->session_id != 0)
        d->session_id = result->session_id;
    listener_command_done(d->node.listener, time_now.now_ns, request_id, status, result, index);
}

static void on_read_done(void *arg, uint64_t read_id, enum replica_status status)
{
    struct door *d = arg;
    listener_read_done(d->node.listener, read_id, status);
}

static void
on_admin_done(void *arg, uint64_t request_id, enum replica_status status, const char *text)
{
    struct door *d = arg;
    listener_admin_done(d->node.listener, request_id, status, text, 1);
}

static void on_effects(void *arg,
                       uint64_t index,
                       const struct lock_command *command,
                       const struct lock_effects *effects)
{
    struct door *d = arg;
    events_add(d->node.events, index, command->stamp_ns, effects, 0);
}

static void on_fatal(void *arg, const char *reason)
{
    (void)arg;
    fuzz_fail("the node stops: %s", reason);
}

/* The node's own outputs that matter here. */
static struct replica_io door_io(void)
{
    struct replica_io io = quiet_io();
    io.persist = on_persist;
    io.command_done = on_command_done;
    io.read_done = on_read_done;
    io.admin_done = on_admin_done;
    io.effects = on_effects;
    io.fatal = on_fatal;
    return io;
}

/* ---- What the listener asks for ---------------------------------------------------------- */

static struct listener_leader on_leader(void *arg)
{
    (void)arg;
    return (struct listener_leader){1, "a:2"};
}

static void on_members(void *arg, struct arena *arena, Hf__NodeHello *hello)
{
    struct door *d = arg;
    Hf__QueryReply reply = HF__QUERY_REPLY__INIT;
    query_members(&d->node, arena, &reply);
    hello->members = reply.members;
    hello->n_members = reply.n_members;
}

static enum replica_status on_submit(void *arg,
                                     uint64_t at_ns,
                                     uint64_t request_id,
                                     enum replica_urgency urgency,
                                     struct bytes command)
{
    struct door *d = arg;
    return replica_submit(d->node.replica, at_ns, request_id, urgency, command);
}

static enum replica_status on_read(void *arg, uint64_t at_ns, uint64_t request_id)
{
    struct door *d = arg;
    return replica_read(d->node.replica, at_ns, request_id, at_ns + NODE_READ_NS);
}

static struct access_state on_state(void *arg)
{
    const struct door *d = arg;
    struct replica_view v = replica_view(d->node.replica);
    return (struct access_state){replica_table(d->node.replica), v.state == RAFT_LEADER,
                                 v.state == RAFT_LEADER && v.ready};
}

static void on_answer(void *arg,
                      const struct access *access,
                      uint64_t frame_id,
                      const Hf__Query *query,
                      struct arena *arena,
                      struct buf *out)
{
    struct door *d = arg;
    query_answer(&d->node, access, frame_id, query, arena, out);
}

static enum replica_status on_admin(
    void *arg, uint64_t at_ns, uint64_t request_id, const Hf__Admin *admin, const char **ret_text)
{
    struct door *d = arg;
    char address[NODE_ADDRESS_BYTES];
    (void)ret_text;
    switch (admin->what) {
    case HF__ADMIN__WHAT__MEMBER_ADD:
        (void)snprintf(address, sizeof address, "%s,%s", admin->raft_address,
                       admin->client_address);
        return replica_member_add(d->node.replica, at_ns, request_id, admin->node_id, address);
    case HF__ADMIN__WHAT__MEMBER_PROMOTE:
    case HF__ADMIN__WHAT__MEMBER_DEMOTE:
        return replica_member_role(d->node.replica, at_ns, request_id, admin->node_id,
                                   admin->what == HF__ADMIN__WHAT__MEMBER_PROMOTE);
    case HF__ADMIN__WHAT__MEMBER_REMOVE:
        return replica_member_remove(d->node.replica, at_ns, request_id, admin->node_id);
    case HF__ADMIN__WHAT__TRANSFER:
        return replica_transfer(d->node.replica, at_ns, request_id, admin->node_id);
    default:
        return REPLICA_REFUSED;
    }
}

static void on_chunk_taken(void *arg, uint64_t request_id, bool gone)
{
    (void)arg;
    (void)request_id;
    (void)gone;
}

static uint64_t on_applied_index(void *arg)
{
    const struct door *d = arg;
    return replica_view(d->node.replica).applied_index;
}

static int64_t on_wall_offset_ns(void *arg)
{
    (void)arg;
    return 0;
}

/* A status is asked of files and memory, too: that is not the input's. */
Hf__Status *status_make(struct node *n, struct arena *arena)
{
    Hf__Status *s = arena_alloc(arena, sizeof *s);
    (void)n;
    hf__status__init(s);
    return s;
}

Hf__Counts *status_counts(struct node *n, struct arena *arena)
{
    Hf__Counts *c = arena_alloc(arena, sizeof *c);
    (void)n;
    hf__counts__init(c);
    return c;
}

/* ---- Life -------------------------------------------------------------------------------- */

static void turn(struct door *d)
{
    for (unsigned i = 0; i < 3; i++) {
        (void)replica_flush(d->node.replica, time_now.now_ns);
        replica_persisted(d->node.replica, time_now.now_ns, d->ticket);
    }
    stream_hub_flush(&d->node.hub);
}

static void start_replica(struct door *d)
{
    struct raft_configuration c;
    struct bytes conf;
    raft_configuration_init(&c);
    int rv = raft_configuration_add(&c, 1, "a:1,a:2", RAFT_VOTER);
    fuzz_require(rv == 0 && replica_bootstrap(&c, &conf) == 0, "no configuration");
    raft_configuration_close(&c);
    struct replica_entry entry = {.index = 1, .term = 1, .type = RAFT_CHANGE, .data = conf};
    struct replica_stored stored = {.table = lock_table_new(), .entries = &entry, .n_entries = 1};
    d->io = door_io();
    struct replica_config config = {
        .id = 1,
        .address = "a:1,a:2",
        .seed = 1,
        .queue_commands_max = 100,
        .snapshot_log_entries = 1000000,
        .limits = {100, 50, 60, 20, 30},
        .io = &d->io,
        .io_arg = d,
    };
    rv = replica_new(&config, &stored, time_now.now_ns, &d->node.replica);
    fuzz_require(rv == 0, "no replica");
    free((void *)(uintptr_t)conf.data);
}

static void set_policy(struct door *d)
{
    struct policy *policy = NULL;
    char *sentence = NULL;
    int rv = policy_parse(bytes_str(policy_text), &policy, &sentence);
    fuzz_require(rv == 0, "no policy: %s", sentence);
    struct access_policy *shared = access_policy_new(policy);
    listener_set_policy(d->node.listener, shared);
    access_policy_unref(shared);
}

static bool is_root(const struct stream *s)
{
    const struct identity *identity = stream_identity(s);
    return identity != NULL && identity->kind == IDENTITY_CLIENT;
}

/* What the mount may not read, it is not told. */
static void on_output(struct stream *s, struct bytes out)
{
    if (stream_identity(s) == NULL || is_root(s) || out.size == 0 ||
        fuzz_stream_said(s, bytes_str(SECRET)))
        return;
    fuzz_require(memmem(out.data, out.size, SECRET, strlen(SECRET)) == NULL,
                 "the mount is told of what it may not see");
}

static void start(struct door *d, bool has_policy)
{
    d->has_policy = has_policy;
    fuzz_stream_watch(has_policy ? on_output : NULL);
    log_set_level(LOG_LEVEL_ERROR);
    time_now.clock = (struct clock){now_of, now_of, now_of};
    time_now.now_ns = UINT64_C(1000000000);
    stream_hub_init(&d->node.hub, &d->loop);
    fuzz_stream_expect(&hf__node_frame__descriptor, FRAME_NODE_BYTES_MAX);
    d->node.config.id = 1;
    d->node.clock = &time_now.clock;
    d->node.events = events_new();
    struct listener_config config = {
        .hub = &d->node.hub,
        .clock = &time_now.clock,
        .node_id = 1,
        .events = d->node.events,
        .connections_max = CONNECTIONS_MAX,
        .arg = d,
        .leader = on_leader,
        .members = on_members,
        .submit = on_submit,
        .read = on_read,
        .state = on_state,
        .answer = on_answer,
        .admin = on_admin,
        .chunk_taken = on_chunk_taken,
        .applied_index = on_applied_index,
        .wall_offset_ns = on_wall_offset_ns,
    };
    d->node.listener = listener_new(&config);
    start_replica(d);
    if (has_policy)
        set_policy(d);
    turn(d);
}

static void on_closed(void *arg)
{
    ((struct door *)arg)->closed = true;
}

static void stop(struct door *d)
{
    const char *broken = lock_check(replica_table(d->node.replica));
    fuzz_require(broken == NULL, "%s", broken);
    replica_free(d->node.replica);
    listener_close(d->node.listener, on_closed, d);
    fuzz_require(d->closed, "the listener does not close");
    stream_hub_deinit(&d->node.hub);
    events_free(d->node.events);
}

/* ---- Frames ------------------------------------------------------------------------------ */

static void say(struct stream *s, const ProtobufCMessage *m)
{
    struct buf b = BUF_INIT;
    pack_add_frame(&b, m);
    fuzz_stream_feed(s, bytes_of(b.data, b.size));
    buf_deinit(&b);
}

static void say_hello(struct stream *s)
{
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__ClientHello hello = HF__CLIENT_HELLO__INIT;
    hello.version = hello.version_min = WIRE_VERSION;
    hello.agent = hello.host = (char *)"fuzz";
    frame.body_case = HF__CLIENT_FRAME__BODY_HELLO;
    frame.hello = &hello;
    say(s, &frame.base);
}

/* A command near what the table would take. */
static void say_command(struct door *d, struct stream *s, struct feed *f)
{
    static const char *const paths[] = {"a", "a/b", "c", "d.lock", "", "a/../b"};
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Command c = HF__COMMAND__INIT;
    ProtobufCBinaryData list[2];
    struct buf packed = BUF_INIT;
    uint8_t op = feed_u8(f), how = feed_u8(f);
    const uint64_t ttls[] = {1000, 0, 30000, UINT64_MAX};
    bool root = is_root(s);
    c.op = op % 20;
    if (root && (c.op == LOCK_OP_LINK || c.op == LOCK_OP_RENAME))
        return; /* Who is given a hold is told where it is. */
    c.session_id = how & 128 ? feed_u8(f) : d->session_id;
    c.seq = feed_u8(f);
    c.ack_seq = how & 64 ? feed_u8(f) : 0;
    c.n_paths = how & 32 ? 2 : 1;
    list[0] = pack_binary(bytes_str(root ? SECRET : paths[how % 6]));
    list[1] = pack_binary(bytes_str(root ? SECRET "/b" : paths[feed_below(f, 6)]));
    c.paths = list;
    c.owner = pack_binary(bytes_str(op & 128 ? "me" : "you"));
    c.mode = op & 64 ? 1 : 2;
    c.flags = feed_u8(f) & 31;
    c.ttl_ms = ttls[op >> 4 & 3];
    c.wait_ms = op & 32 ? 500 : 0;
    c.token = how & 16 ? feed_u8(f) : 0;
    pack_add(&packed, &c.base);
    frame.id = 1 + feed_u8(f);
    frame.body_case = HF__CLIENT_FRAME__BODY_COMMAND;
    frame.command = pack_binary(bytes_of(packed.data, packed.size));
    say(s, &frame.base);
    buf_deinit(&packed);
}

static void say_bytes(struct stream *s, struct feed *f, bool framed)
{
    struct bytes bytes = feed_bytes(f, 255);
    if (is_root(s))
        return; /* It might make the mount's business its own. */
    struct buf b = BUF_INIT;
    if (framed)
        frame_add(&b, bytes);
    else
        buf_add(&b, bytes.data, bytes.size);
    fuzz_stream_feed(s, bytes_of(b.data, b.size));
    buf_deinit(&b);
}

static void step(struct door *d, struct feed *f)
{
    uint8_t op = feed_u8(f);
    unsigned n = fuzz_stream_count(&d->node.hub);
    struct stream *s = n > 0 ? fuzz_stream(&d->node.hub, op % n) : NULL;
    if (op < 24 || s == NULL) {
        struct stream *made = stream_new(&d->node.hub, false, TLS_SERVER);
        if (d->has_policy)
            fuzz_stream_identify(made, op & 1 ? &root_identity : &mount_identity);
        listener_adopt(d->node.listener, made);
        unsigned after = fuzz_stream_count(&d->node.hub);
        if (after > n && op < 20)
            say_hello(fuzz_stream(&d->node.hub, after - 1));
    } else if (op < 112) {
        say_command(d, s, f);
    } else if (op < 208) {
        say_bytes(s, f, true);
    } else if (op < 212) {
        say_bytes(s, f, false);
    } else if (op < 224) {
        fuzz_stream_end(s, UV_EOF);
    } else if (op < 228) {
        listener_sweep(d->node.listener);
    } else if (op < 230) {
        listener_drop_subscribers(d->node.listener);
    } else if (op == 230) {
        listener_drain(d->node.listener);
    } else {
        time_now.now_ns += (uint64_t)(1 + feed_u8(f)) * (op & 1 ? 100000000 : 1000000);
        turn(d);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed f = feed_of(data, size);
    struct door *d = xcalloc(1, sizeof *d);
    start(d, feed_u8(&f) & 1);
    for (unsigned i = 0; i < STEPS_MAX && !feed_is_empty(&f); i++)
        step(d, &f);
    turn(d);
    stop(d);
    free(d);
    return 0;
}
