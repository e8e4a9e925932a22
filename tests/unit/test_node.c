/* Whole nodes in one process, on one loop, with real sockets and disks. */
#include "tests/unit/net_harness.h"

#include "raftstore/base/log.h"
#include "raftstore/lock/lock.h"
#include "raftstore/node/node.h"
#include "raftstore/tls/authority.h"
#include "raftstore/wire/frame.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#define NODES_MAX 4

struct member {
    struct node *node; /* NULL = not running. */
    char data[96];
    char *failure;
    bool stopped;
};

struct cluster {
    struct net net;
    struct node_config config; /* What all have in common. */
    struct member members[NODES_MAX];
    char directory[64];
    uint64_t frame_id;
    uint64_t session_id;
    uint64_t seq;
};

/* Set up and down. ------------------------------------------------------------------------- */

/* A port that is free now. */
static uint16_t free_port(void)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&in, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &size), 0);
    assert_int_equal(close(fd), 0);
    return ntohs(in.sin_port);
}

static void on_failed(void *arg, const char *sentence)
{
    struct member *m = arg;
    m->failure = strdup(sentence);
}

static void cluster_begin(struct cluster *c, unsigned n)
{
    *c = (struct cluster){0};
    net_begin(&c->net);
    (void)snprintf(c->directory, sizeof c->directory, "/tmp/holdfast-test-XXXXXX");
    assert_non_null(mkdtemp(c->directory));
    c->config.loop = &c->net.loop;
    c->config.n_members = n;
    for (unsigned i = 0; i < NODES_MAX; i++) {
        struct node_member *m = &c->config.members[i];
        m->id = i + 1;
        m->raft = (struct address){.host = "127.0.0.1", .port = free_port()};
        m->client = (struct address){.host = "127.0.0.1", .port = free_port()};
        (void)snprintf(c->members[i].data, sizeof c->members[i].data, "%s/node-%u", c->directory,
                       i + 1);
    }
}

static int try_start(struct cluster *c, unsigned i, bool join, char **ret_sentence)
{
    struct node_config config = c->config;
    config.id = i + 1;
    config.data = c->members[i].data;
    config.on_failed = on_failed;
    config.arg = &c->members[i];
    config.join = join;
    c->members[i].stopped = false;
    return node_start(&config, &c->members[i].node, ret_sentence);
}

static void start(struct cluster *c, unsigned i)
{
    char *sentence = NULL;
    int rv = try_start(c, i, false, &sentence);
    if (rv < 0)
        print_error("%s\n", sentence);
    assert_int_equal(rv, 0);
}

static void on_stopped(void *arg)
{
    struct member *m = arg;
    m->stopped = true;
}

static bool is_stopped(void *arg)
{
    const struct member *m = arg;
    return m->stopped;
}

static void stop(struct cluster *c, unsigned i)
{
    struct member *m = &c->members[i];
    if (m->node == NULL)
        return;
    node_stop(m->node, on_stopped, m);
    m->node = NULL;
    assert_true(net_run(&c->net, is_stopped, m, 10000));
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void cluster_end(struct cluster *c)
{
    for (unsigned i = 0; i < NODES_MAX; i++) {
        stop(c, i);
        free(c->members[i].failure);
    }
    net_end(&c->net);
    assert_int_equal(nftw(c->directory, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* Requests. -------------------------------------------------------------------------------- */

static const Hf__NodeFrame *receive(struct cluster *c, struct raw *r)
{
    return (const Hf__NodeFrame *)raw_receive(&c->net, r, &hf__node_frame__descriptor);
}

static void greet(struct cluster *c, struct raw *r)
{
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__ClientHello hello = HF__CLIENT_HELLO__INIT;
    hello.version = WIRE_VERSION;
    hello.version_min = WIRE_VERSION_MIN;
    frame.body_case = HF__CLIENT_FRAME__BODY_HELLO;
    frame.hello = &hello;
    raw_send_message(r, &frame.base);
    const Hf__NodeFrame *f = receive(c, r);
    assert_non_null(f);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_HELLO);
}

static void connect_to(struct cluster *c, struct raw *r, unsigned i)
{
    raw_connect(r, c->config.members[i].client.port);
    greet(c, r);
}

/* Send a request and return what answers it. */
static const Hf__NodeFrame *ask(struct cluster *c, struct raw *r, Hf__ClientFrame *frame)
{
    const Hf__NodeFrame *f;
    frame->id = ++c->frame_id;
    raw_send_message(r, &frame->base);
    do {
        f = receive(c, r);
        assert_non_null(f);
    } while (f->id != frame->id);
    return f;
}

static const Hf__QueryReply *
query(struct cluster *c, unsigned i, Hf__Query__What what, const char *path)
{
    struct raw r;
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Query q = HF__QUERY__INIT;
    q.what = what;
    q.path = pack_binary(bytes_str(path));
    frame.body_case = HF__CLIENT_FRAME__BODY_QUERY;
    frame.query = &q;
    connect_to(c, &r, i);
    const Hf__NodeFrame *f = ask(c, &r, &frame);
    raw_close(&r);
    return f->body_case == HF__NODE_FRAME__BODY_QUERY ? f->query : NULL;
}

static const Hf__Status *status(struct cluster *c, unsigned i)
{
    const Hf__QueryReply *reply = query(c, i, HF__QUERY__WHAT__STATUS, "");
    assert_non_null(reply);
    return reply->status;
}

/* The running leader. Fails the test when there is none within ten seconds. */
static unsigned leader(struct cluster *c)
{
    for (unsigned turn = 0; turn < 1000; turn++) {
        for (unsigned i = 0; i < NODES_MAX; i++)
            if (c->members[i].node != NULL && strcmp(status(c, i)->state, "leader") == 0)
                return i;
        net_run_for(&c->net, 10);
    }
    fail_msg("no leader");
    return 0;
}

static Hf__Result command(struct cluster *c, struct raw *r, Hf__Command *command)
{
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    struct buf packed = BUF_INIT;
    command->session_id = c->session_id;
    command->seq = command->op == LOCK_OP_SESSION_OPEN ? 0 : ++c->seq;
    pack_add(&packed, &command->base);
    frame.body_case = HF__CLIENT_FRAME__BODY_COMMAND;
    frame.command = pack_binary(bytes_of(packed.data, packed.size));
    const Hf__NodeFrame *f = ask(c, r, &frame);
    buf_deinit(&packed);
    assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_RESULT);
    return *f->result;
}

static void open_session(struct cluster *c, unsigned i)
{
    struct raw r;
    Hf__Command open = HF__COMMAND__INIT;
    open.op = LOCK_OP_SESSION_OPEN;
    open.ttl_ms = 60000;
    c->session_id = 0;
    connect_to(c, &r, i);
    Hf__Result result = command(c, &r, &open);
    raw_close(&r);
    assert_int_equal(result.code, LOCK_OK);
    c->session_id = result.session_id;
}

static enum lock_code
acquire_for(struct cluster *c, struct raw *r, const char *path, const char *owner)
{
    Hf__Command acquire = HF__COMMAND__INIT;
    ProtobufCBinaryData paths[1] = {pack_binary(bytes_str(path))};
    acquire.op = LOCK_OP_ACQUIRE;
    acquire.paths = paths;
    acquire.n_paths = 1;
    acquire.owner = pack_binary(bytes_str(owner));
    acquire.mode = LOCK_EXCLUSIVE;
    acquire.ttl_ms = 60000;
    return command(c, r, &acquire).code;
}

static enum lock_code acquire_on(struct cluster *c, struct raw *r, const char *path)
{
    return acquire_for(c, r, path, "me");
}

static enum lock_code acquire(struct cluster *c, unsigned i, const char *path)
{
    struct raw r;
    connect_to(c, &r, i);
    enum lock_code code = acquire_on(c, &r, path);
    raw_close(&r);
    return code;
}

/* Is it held by somebody else than `intruder`? */
static bool is_taken(struct cluster *c, unsigned i, const char *path)
{
    struct raw r;
    connect_to(c, &r, i);
    enum lock_code code = acquire_for(c, &r, path, "intruder");
    raw_close(&r);
    return code == LOCK_CONFLICT;
}

/* Holds at a path by a linearizable read of one node. */
static size_t n_holds(struct cluster *c, unsigned i, const char *path)
{
    const Hf__QueryReply *reply = query(c, i, HF__QUERY__WHAT__SHOW, path);
    assert_non_null(reply);
    assert_int_equal(reply->n_nodes, 1);
    return reply->nodes[0]->n_holds;
}

static const Hf__NodeFrame *
admin(struct cluster *c, struct raw *r, Hf__Admin__What what, unsigned i, bool addresses)
{
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    Hf__Admin a = HF__ADMIN__INIT;
    char raft[300], client[300];
    a.what = what;
    a.node_id = i + 1;
    if (addresses) {
        a.raft_address = address_format(&c->config.members[i].raft, raft, sizeof raft);
        a.client_address = address_format(&c->config.members[i].client, client, sizeof client);
    }
    frame.body_case = HF__CLIENT_FRAME__BODY_ADMIN;
    frame.admin = &a;
    return ask(c, r, &frame);
}

/* Tests. ----------------------------------------------------------------------------------- */

static void test_one_node_survives_restart(void **state)
{
    struct cluster c;
    (void)state;
    cluster_begin(&c, 1);
    start(&c, 0);
    open_session(&c, leader(&c));
    assert_int_equal(acquire(&c, 0, "a"), LOCK_OK);
    for (unsigned i = 0; i < 3; i++) {
        stop(&c, 0);
        start(&c, 0);
        assert_int_equal(leader(&c), 0);
        assert_int_equal(n_holds(&c, 0, "a"), 1);
    }
    assert_true(is_taken(&c, 0, "a"));
    cluster_end(&c);
}

/* As mount.holdfast embeds it: no address for other nodes, a Unix socket for clients. */
static void test_embedded(void **state)
{
    struct cluster c;
    struct raw r;
    (void)state;
    cluster_begin(&c, 1);
    c.config.members[0].raft = (struct address){.is_unix = true};
    c.config.members[0].client = (struct address){.is_unix = true};
    (void)snprintf(c.config.members[0].client.host, sizeof c.config.members[0].client.host,
                   "%s/socket", c.directory);
    for (unsigned i = 0; i < 2; i++) {
        start(&c, 0);
        raw_connect_unix(&r, c.config.members[0].client.host);
        greet(&c, &r);
        if (i == 0) {
            Hf__Command open = HF__COMMAND__INIT;
            open.op = LOCK_OP_SESSION_OPEN;
            open.ttl_ms = 60000;
            net_run_for(&c.net, 50);
            c.session_id = command(&c, &r, &open).session_id;
        }
        net_run_for(&c.net, 50);
        assert_int_equal(acquire_for(&c, &r, "a", i == 0 ? "me" : "intruder"),
                         i == 0 ? LOCK_OK : LOCK_CONFLICT);
        raw_close(&r);
        stop(&c, 0);
    }
    cluster_end(&c);
}

static void test_three_nodes(void **state)
{
    struct cluster c;
    (void)state;
    cluster_begin(&c, 3);
    c.config.snapshot_log_entries = 20; /* Snapshots happen all the time. */
    for (unsigned i = 0; i < 3; i++)
        start(&c, i);
    open_session(&c, leader(&c));
    for (unsigned round = 0; round < 4; round++) {
        unsigned l = leader(&c);
        char path[16];
        for (unsigned k = 0; k < 30; k++) {
            (void)snprintf(path, sizeof path, "r%u-%u", round, k);
            assert_int_equal(acquire(&c, l, path), LOCK_OK);
            assert_int_equal(n_holds(&c, (l + 1) % 3, path), 1); /* A follower is never behind. */
        }
        stop(&c, l);
        unsigned next = leader(&c); /* Leadership was handed over. */
        assert_int_not_equal(next, l);
        assert_int_equal(n_holds(&c, next, path), 1);
        assert_true(is_taken(&c, next, path));
        start(&c, l);
        assert_int_equal(n_holds(&c, l, path), 1);
    }
    assert_true(status(&c, leader(&c))->snapshot_index > 0);
    for (unsigned i = 0; i < 3; i++)
        assert_null(c.members[i].failure);
    cluster_end(&c);
}

static void test_no_majority(void **state)
{
    struct cluster c;
    (void)state;
    cluster_begin(&c, 3);
    for (unsigned i = 0; i < 3; i++)
        start(&c, i);
    unsigned l = leader(&c);
    stop(&c, (l + 1) % 3);
    stop(&c, (l + 2) % 3);
    for (unsigned turn = 0; turn < 1000 && strcmp(status(&c, l)->state, "leader") == 0; turn++)
        net_run_for(&c.net, 10); /* For a while it believes in itself without a majority. */
    assert_string_not_equal(status(&c, l)->state, "leader");
    assert_null(query(&c, l, HF__QUERY__WHAT__SHOW, "a")); /* A failure, in bounded time. */
    cluster_end(&c);
}

static bool caught_up(struct cluster *c, unsigned i)
{
    for (unsigned turn = 0; turn < 1000; turn++) {
        const Hf__Status *a = status(c, i);
        const Hf__Status *b = status(c, leader(c));
        if (a->applied_index == b->applied_index && a->digest_lo == b->digest_lo &&
            a->digest_hi == b->digest_hi)
            return true;
        net_run_for(&c->net, 10);
    }
    return false;
}

static const Hf__NodeFrame *
admin_patiently(struct cluster *c, Hf__Admin__What what, unsigned i, bool addresses)
{
    const Hf__NodeFrame *f = NULL;
    for (unsigned turn = 0; turn < 100; turn++) { /* "The node does not answer" is for a moment. */
        struct raw r;
        connect_to(c, &r, leader(c));
        f = admin(c, &r, what, i, addresses);
        raw_close(&r);
        if (f->body_case == HF__NODE_FRAME__BODY_ADMIN)
            break;
        net_run_for(&c->net, 50);
    }
    return f;
}

/* A new node far behind gets an image, becomes a voter, and another leaves. */
static void test_join_by_image(void **state)
{
    struct cluster c;
    struct raw r;
    char *sentence = NULL;
    (void)state;
    cluster_begin(&c, 3);
    c.config.snapshot_log_entries = 50;
    for (unsigned i = 0; i < 3; i++)
        start(&c, i);
    open_session(&c, leader(&c));
    connect_to(&c, &r, leader(&c));
    for (unsigned k = 0; k < 200; k++) {
        char path[16];
        (void)snprintf(path, sizeof path, "k%u", k);
        assert_int_equal(acquire_on(&c, &r, path), LOCK_OK);
    }
    assert_int_equal(admin(&c, &r, HF__ADMIN__WHAT__COMPACT, 0, false)->body_case,
                     HF__NODE_FRAME__BODY_ADMIN);
    raw_close(&r);
    c.config.n_members = 4;
    assert_int_equal(try_start(&c, 3, true, &sentence), 0);
    assert_int_equal(admin_patiently(&c, HF__ADMIN__WHAT__MEMBER_ADD, 3, true)->body_case,
                     HF__NODE_FRAME__BODY_ADMIN);
    assert_int_equal(admin_patiently(&c, HF__ADMIN__WHAT__MEMBER_PROMOTE, 3, false)->body_case,
                     HF__NODE_FRAME__BODY_ADMIN);
    assert_true(caught_up(&c, 3));
    assert_int_equal(n_holds(&c, 3, "k199"), 1);
    unsigned victim = (leader(&c) + 1) % 4;
    assert_int_equal(admin_patiently(&c, HF__ADMIN__WHAT__MEMBER_REMOVE, victim, false)->body_case,
                     HF__NODE_FRAME__BODY_ADMIN);
    const Hf__QueryReply *reply = query(&c, leader(&c), HF__QUERY__WHAT__MEMBERS, "");
    assert_non_null(reply);
    assert_int_equal(reply->n_members, 3);
    cluster_end(&c);
}

/* An operator's snapshot comes whole, in chunks, and leaves no file behind. */
static void test_snapshot_stream(void **state)
{
    struct cluster c;
    struct raw r;
    (void)state;
    cluster_begin(&c, 1);
    start(&c, 0);
    open_session(&c, leader(&c));
    assert_int_equal(acquire(&c, 0, "a"), LOCK_OK);
    connect_to(&c, &r, 0);
    const Hf__NodeFrame *f = admin(&c, &r, HF__ADMIN__WHAT__SNAPSHOT, 0, false);
    uint64_t offset = 0;
    for (;;) {
        assert_int_equal(f->body_case, HF__NODE_FRAME__BODY_CHUNK);
        assert_int_equal(f->chunk->offset, offset);
        if (offset == 0)
            assert_memory_equal(f->chunk->data.data, "SQLite format 3", 16);
        offset += f->chunk->data.len;
        if (f->chunk->last)
            break;
        f = receive(&c, &r);
        assert_non_null(f);
    }
    assert_int_equal(offset, f->chunk->size);
    raw_close(&r);
    cluster_end(&c);
}

static void expect_refusal(struct cluster *c, unsigned i, int rv, const char *words)
{
    char *sentence = NULL;
    assert_int_equal(try_start(c, i, false, &sentence), rv);
    assert_non_null(sentence);
    if (strstr(sentence, words) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", words, sentence);
    free(sentence);
    c->members[i].node = NULL;
    net_run_for(&c->net, 50); /* What was opened is closed by the loop. */
}

static void test_start_refusals(void **state)
{
    struct cluster c;
    (void)state;
    cluster_begin(&c, 2);
    expect_refusal(&c, 0, -EINVAL, "1, 3, 5 or 7");
    cluster_end(&c);
    cluster_begin(&c, 3);
    start(&c, 0);
    (void)snprintf(c.members[1].data, sizeof c.members[1].data, "%s", c.members[0].data);
    expect_refusal(&c, 1, -EBUSY, c.members[0].data); /* Another node runs on it. */
    stop(&c, 0);
    expect_refusal(&c, 1, -EBADMSG, "node 1"); /* It is another node's. */
    (void)snprintf(c.members[1].data, sizeof c.members[1].data, "%s/b", c.directory);
    c.config.members[1].client = c.config.members[0].client;
    c.config.members[1].client.port++;
    c.config.members[1].raft = c.config.members[0].raft;
    start(&c, 0);
    expect_refusal(&c, 1, -EADDRINUSE, "127.0.0.1");
    cluster_end(&c);
}

/* A certificate that nobody would accept is told at the start, not by the silence of the others. */
static void test_expired_certificate(void **state)
{
    struct cluster c;
    struct identity identity;
    char ca[96], out[96], *sentence = NULL;
    (void)state;
    cluster_begin(&c, 1);
    (void)snprintf(ca, sizeof ca, "%s/ca", c.directory);
    (void)snprintf(out, sizeof out, "%s/tls", c.directory);
    assert_int_equal(authority_create(ca, 10, &sentence), 1);
    assert_int_equal(identity_parse(bytes_str("holdfast:node/1"), &identity), 0);
    assert_int_equal(authority_issue(ca, &identity, NULL, 0, out, &sentence), 0);
    (void)sleep(2); /* It was good for no day. */
    c.config.tls = out;
    expect_refusal(&c, 0, -EKEYEXPIRED, "expired");
    cluster_end(&c);
}

/* A node whose directory was emptied is refused under its old id, and says so. */
static void test_wiped_node_stops(void **state)
{
    struct cluster c;
    (void)state;
    cluster_begin(&c, 3);
    for (unsigned i = 0; i < 3; i++)
        start(&c, i);
    unsigned victim = (leader(&c) + 1) % 3;
    open_session(&c, leader(&c));
    net_run_for(&c.net, 300);
    stop(&c, victim);
    assert_int_equal(nftw(c.members[victim].data, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    start(&c, victim);
    for (unsigned i = 0; i < 1000 && c.members[victim].failure == NULL; i++)
        net_run_for(&c.net, 10);
    assert_non_null(c.members[victim].failure);
    assert_non_null(strstr(c.members[victim].failure, "emptied"));
    stop(&c, victim);
    assert_int_equal(acquire(&c, leader(&c), "a"), LOCK_OK); /* The others go on. */
    cluster_end(&c);
}

/* Two of three nodes were founded anew; the third still runs for the old cluster, which has the
 * same name.  It refuses them, since to it they are wiped; they have a log by then, and go on. */
static void test_stale_node_stops_nobody(void **state)
{
    struct cluster c;
    (void)state;
    cluster_begin(&c, 3);
    for (unsigned i = 0; i < 3; i++)
        start(&c, i);
    open_session(&c, leader(&c));
    net_run_for(&c.net, 300);
    for (unsigned i = 0; i < 3; i++)
        stop(&c, i);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(nftw(c.members[i].data, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
        start(&c, i);
    }
    open_session(&c, leader(&c));
    net_run_for(&c.net, 100);
    start(&c, 2);
    net_run_for(&c.net, 700);
    for (unsigned i = 0; i < 3; i++)
        assert_null(c.members[i].failure);
    assert_int_equal(acquire(&c, leader(&c), "a"), LOCK_OK);
    cluster_end(&c);
}

/* Clients never take the descriptors that the store and the other nodes need. */
static void test_descriptors_are_left(void **state)
{
    enum { LIMIT = 200 };
    struct cluster c;
    struct raw r[LIMIT];
    struct rlimit before;
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(
        setrlimit(RLIMIT_NOFILE, &(struct rlimit){.rlim_cur = LIMIT, .rlim_max = before.rlim_max}),
        0);
    cluster_begin(&c, 1);
    start(&c, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0); /* The clients are in this process. */
    for (unsigned i = 0; i < LIMIT; i++)
        raw_connect(&r[i], c.config.members[0].client.port);
    net_run_for(&c.net, 200);
    for (unsigned i = LIMIT; i-- > LIMIT / 2;) {
        assert_true(raw_is_closed(&c.net, &r[i]));
        raw_close(&r[i]);
    }
    greet(&c, &r[0]);
    for (unsigned i = 0; i < LIMIT / 2; i++)
        raw_close(&r[i]);
    net_run_for(&c.net, 50);
    open_session(&c, leader(&c));
    cluster_end(&c);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_node_survives_restart),
        cmocka_unit_test(test_embedded),
        cmocka_unit_test(test_three_nodes),
        cmocka_unit_test(test_no_majority),
        cmocka_unit_test(test_join_by_image),
        cmocka_unit_test(test_snapshot_stream),
        cmocka_unit_test(test_start_refusals),
        cmocka_unit_test(test_expired_certificate),
        cmocka_unit_test(test_wiped_node_stops),
        cmocka_unit_test(test_stale_node_stops_nobody),
        cmocka_unit_test(test_descriptors_are_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
