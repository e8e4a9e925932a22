/* Connections between nodes on real sockets. */
#include "tests/unit/net_harness.h"

#include "raftstore/node/checksum.h"
#include "raftstore/node/peers.h"
#include "raftstore/wire/frame.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define CLUSTER 0xc1u

/* One node's side. */
struct side {
    struct peers *peers;
    struct net *net;
    uint64_t id;
    uint64_t cluster_id;
    uint64_t known[8]; /* Incarnations by id. */
    bool up[8];
    unsigned n_seen;
    unsigned n_frames;
    uint64_t last_term;
    uint64_t last_from;
    unsigned wiped_by;
    char address[64]; /* Told to others; right from the second start on. */
    char directory[64];
    bool want_image;
    unsigned n_images;
    uint64_t image_size;
    uint64_t image_index;
    int check_status; /* What the check of an image answers. */
    unsigned n_sent, n_delivered;
    uint16_t port;
    bool closed;
};

static uint64_t side_known(void *arg, uint64_t id)
{
    const struct side *s = arg;
    return id < 8 ? s->known[id] : 0;
}

static void side_seen(void *arg, uint64_t id, uint64_t incarnation)
{
    struct side *s = arg;
    s->n_seen++;
    if (id < 8)
        s->known[id] = incarnation;
}

static void side_cluster(void *arg, uint64_t cluster_id)
{
    struct side *s = arg;
    s->cluster_id = cluster_id;
}

static void side_frame(void *arg, uint64_t from, const Hf__PeerFrame *frame)
{
    struct side *s = arg;
    s->n_frames++;
    s->last_from = from;
    if (frame->body_case == HF__PEER_FRAME__BODY_TIMEOUT_NOW)
        s->last_term = frame->timeout_now->term;
}

static void side_link(void *arg, uint64_t id, bool up)
{
    struct side *s = arg;
    s->up[id] = up;
}

static void side_wiped(void *arg, uint64_t by)
{
    struct side *s = arg;
    s->wiped_by = (unsigned)by;
}

static bool side_wanted(void *arg, uint64_t from, uint64_t index, char *ret_path, size_t size)
{
    const struct side *s = arg;
    assert_true(from > 0);
    (void)snprintf(ret_path, size, "%s/incoming-%llu", s->directory, (unsigned long long)index);
    return s->want_image;
}

static int check_good(const char *path, const struct replica_image *image, char **ret_sentence)
{
    (void)ret_sentence;
    return access(path, R_OK) == 0 && image->index > 0 ? 0 : -EIO;
}

static int check_bad(const char *path, const struct replica_image *image, char **ret_sentence)
{
    (void)path;
    (void)image;
    *ret_sentence = strdup("it is no image");
    return -EBADMSG;
}

static void side_received(
    void *arg, uint64_t from, uint64_t term, const struct replica_image *image, const char *path)
{
    struct side *s = arg;
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_true(from > 0 && term > 0);
    s->n_images++;
    s->image_size = (uint64_t)st.st_size;
    s->image_index = image->index;
    assert_int_equal(unlink(path), 0);
}

static void side_sent(void *arg, uint64_t to, uint64_t index, bool delivered)
{
    struct side *s = arg;
    assert_true(to > 0 && index > 0);
    s->n_sent++;
    s->n_delivered += delivered ? 1 : 0;
}

static void
side_begin(struct side *s, struct net *net, uint64_t id, uint64_t cluster, uint64_t incarnation)
{
    struct address address = {.host = "127.0.0.1", .port = s->port};
    char *sentence = NULL;
    s->net = net;
    s->id = id;
    s->closed = false;
    s->want_image = true;
    (void)snprintf(s->address, sizeof s->address, "127.0.0.1:%u", s->port);
    struct peers_config config = {.hub = &net->hub,
                                  .id = id,
                                  .incarnation = incarnation,
                                  .cluster_id = cluster,
                                  .raft_address = s->address,
                                  .client_address = "127.0.0.1:1",
                                  .arg = s,
                                  .incarnation_known = side_known,
                                  .incarnation_seen = side_seen,
                                  .cluster_learnt = side_cluster,
                                  .frame = side_frame,
                                  .link_changed = side_link,
                                  .wiped = side_wiped,
                                  .image_wanted = side_wanted,
                                  .image_check = s->check_status < 0 ? check_bad : check_good,
                                  .image_received = side_received,
                                  .image_sent = side_sent};
    s->peers = peers_new(&config);
    assert_int_equal(peers_listen(s->peers, &address, false, &sentence), 0);
    s->port = peers_port(s->peers);
}

static void side_closed(void *arg)
{
    struct side *s = arg;
    s->closed = true;
}

static bool is_closed(void *arg)
{
    const struct side *s = arg;
    return s->closed;
}

static void side_end(struct side *s)
{
    peers_close(s->peers, side_closed, s);
    assert_true(net_run(s->net, is_closed, s, 3000));
}

static void introduce(struct side *a, const struct side *b)
{
    struct peers_member members[2] = {
        {.id = a->id, .address = {.host = "127.0.0.1", .port = a->port}},
        {.id = b->id, .address = {.host = "127.0.0.1", .port = b->port}}};
    peers_set(a->peers, members, 2);
}

static void send_term(struct side *s, uint64_t to, uint64_t term)
{
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    Hf__TimeoutNow now = HF__TIMEOUT_NOW__INIT;
    now.term = term;
    frame.body_case = HF__PEER_FRAME__BODY_TIMEOUT_NOW;
    frame.timeout_now = &now;
    peers_send(s->peers, to, &frame);
}

struct pair {
    struct net net;
    struct side a, b;
};

static bool both_up(void *arg)
{
    const struct pair *p = arg;
    return p->a.up[2] && p->b.up[1];
}

static void pair_begin(struct pair *p)
{
    *p = (struct pair){0};
    net_begin(&p->net);
    side_begin(&p->a, &p->net, 1, CLUSTER, 11);
    side_begin(&p->b, &p->net, 2, CLUSTER, 22);
    introduce(&p->a, &p->b);
    introduce(&p->b, &p->a);
    assert_true(net_run(&p->net, both_up, p, 3000));
}

static void pair_end(struct pair *p)
{
    side_end(&p->a);
    side_end(&p->b);
    net_end(&p->net);
}

static bool a_got_9(void *arg)
{
    const struct pair *p = arg;
    return p->a.last_term == 9;
}

static bool b_got_1000(void *arg)
{
    const struct pair *p = arg;
    return p->b.n_frames == 1000;
}

static void test_frames_both_ways(void **state)
{
    struct pair p;
    (void)state;
    pair_begin(&p);
    for (uint64_t i = 1; i <= 1000; i++)
        send_term(&p.a, 2, i);
    send_term(&p.b, 1, 9);
    assert_true(net_run(&p.net, b_got_1000, &p, 3000));
    assert_true(net_run(&p.net, a_got_9, &p, 3000));
    assert_int_equal(p.b.last_term, 1000);
    assert_int_equal(p.b.last_from, 1);
    assert_int_equal(p.b.known[1], 11);
    pair_end(&p);
}

static bool a_down(void *arg)
{
    const struct pair *p = arg;
    return !p->a.up[2];
}

static void test_a_node_that_returns_is_found(void **state)
{
    struct pair p;
    (void)state;
    pair_begin(&p);
    side_end(&p.b);
    p.b.up[1] = false;
    assert_true(net_run(&p.net, a_down, &p, 3000));
    side_begin(&p.b, &p.net, 2, CLUSTER, 22);
    introduce(&p.b, &p.a);
    assert_true(net_run(&p.net, both_up, &p, 3000));
    pair_end(&p);
}

static bool b_wiped(void *arg)
{
    const struct pair *p = arg;
    return p->b.wiped_by == 1;
}

static void wiped(bool dials)
{
    struct pair p;
    pair_begin(&p);
    side_end(&p.b);
    memset(p.b.known, 0, sizeof p.b.known);
    memset(p.b.up, 0, sizeof p.b.up);
    side_begin(&p.b, &p.net, 2, 0, 33);
    if (dials)
        introduce(&p.b, &p.a);
    assert_true(net_run(&p.net, b_wiped, &p, 5000));
    assert_false(p.a.up[2]);
    assert_false(p.b.up[1]);
    assert_int_equal(p.a.known[2], 22);
    send_term(&p.b, 1, 5);
    net_run_for(&p.net, 50);
    assert_int_equal(p.a.n_frames, 0);
    pair_end(&p);
}

/* A node that comes back with another data directory is refused and told, whoever dials. */
static void test_wiped_node_dials(void **state)
{
    (void)state;
    wiped(true);
}

static void test_wiped_node_is_dialled(void **state)
{
    (void)state;
    wiped(false);
}

static void test_other_cluster_is_refused(void **state)
{
    struct pair p = {0};
    (void)state;
    net_begin(&p.net);
    side_begin(&p.a, &p.net, 1, CLUSTER, 11);
    side_begin(&p.b, &p.net, 2, CLUSTER + 1, 22);
    introduce(&p.a, &p.b);
    introduce(&p.b, &p.a);
    net_run_for(&p.net, 300);
    assert_false(p.a.up[2]);
    assert_false(p.b.up[1]);
    assert_int_equal(p.a.known[2], 0);
    assert_int_equal(p.b.wiped_by, 0);
    pair_end(&p);
}

/* A fresh node that knows nobody is contacted, learns the cluster, and can answer. */
static void test_joining_node(void **state)
{
    struct pair p = {0};
    (void)state;
    net_begin(&p.net);
    side_begin(&p.b, &p.net, 2, 0, 22);
    side_begin(&p.a, &p.net, 1, CLUSTER, 11);
    side_end(&p.a); /* Now its port is known, to be told in its hello. */
    side_begin(&p.a, &p.net, 1, CLUSTER, 11);
    introduce(&p.a, &p.b);
    assert_true(net_run(&p.net, both_up, &p, 3000));
    assert_int_equal(p.b.cluster_id, CLUSTER);
    send_term(&p.b, 1, 9);
    assert_true(net_run(&p.net, a_got_9, &p, 3000));
    pair_end(&p);
}

/* What no node of ours would say. */
static void hello_send(struct raw *r, uint64_t from, uint64_t to, bool image_stream)
{
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    Hf__PeerHello hello = HF__PEER_HELLO__INIT;
    hello.version = WIRE_VERSION;
    hello.version_min = WIRE_VERSION_MIN;
    hello.cluster_id = CLUSTER;
    hello.node_id = from;
    hello.to_id = to;
    hello.incarnation = 77;
    hello.image_stream = image_stream;
    hello.raft_address = (char *)"127.0.0.1:1";
    hello.client_address = (char *)"127.0.0.1:1";
    frame.body_case = HF__PEER_FRAME__BODY_HELLO;
    frame.hello = &hello;
    raw_send_message(r, &frame.base);
}

static const Hf__PeerFrame *receive(struct pair *p, struct raw *r)
{
    return (const Hf__PeerFrame *)raw_receive(&p->net, r, &hf__peer_frame__descriptor);
}

static void greet(struct pair *p, struct raw *r, bool image_stream)
{
    raw_connect(r, p->a.port);
    hello_send(r, 5, 1, image_stream);
    const Hf__PeerFrame *f = receive(p, r);
    assert_non_null(f);
    assert_int_equal(f->body_case, HF__PEER_FRAME__BODY_HELLO);
    assert_int_equal(f->hello->refused_code, 0);
    assert_int_equal(f->hello->incarnation, 11);
    assert_true(f->hello->stranger); /* Only node 2 is a member beside it. */
}

static void test_garbage_closes(void **state)
{
    static const struct {
        const char *data;
        size_t size;
        bool after_hello;
    } cases[] = {
        {"\xff\xff\xff\xff", 4, false},
        {"\0\0\0\0", 4, false},
        {"\x01\x10\0\0", 4, false},                   /* 4097: too much for a hello. */
        {"\x05\0\0\0\xff\xff\xff\xff\xff", 9, false}, /* No message. */
        {"\x02\0\0\0\x32\0", 6, false},               /* A message before the hello. */
        {"\x01\0\0\x01", 4, true},                    /* 16 MiB + 1. */
        {"\x05\0\0\0\xff\xff\xff\xff\xff", 9, true},
        {"\x02\0\0\0\x3a\0", 6, true}, /* An image chunk on the wrong stream. */
        {"\x02\0\0\0\x0a\0", 6, true}, /* A second hello. */
        {"\x01\0\0\0\x08", 5, true},   /* A truncated one. */
    };
    struct pair p;
    (void)state;
    pair_begin(&p);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct raw r;
        if (cases[i].after_hello)
            greet(&p, &r, false);
        else
            raw_connect(&r, p.a.port);
        raw_send(&r, cases[i].data, cases[i].size);
        assert_true(raw_is_closed(&p.net, &r));
        raw_close(&r);
    }
    assert_int_equal(p.a.n_frames, 0);
    assert_true(both_up(&p));
    pair_end(&p);
}

/* Connections that say nothing fill the port for a moment, not for as long as they please. */
static void test_silent_ones_make_room(void **state)
{
    struct pair p;
    struct raw silent[300], r;
    (void)state;
    pair_begin(&p);
    for (unsigned i = 0; i < 300; i++)
        raw_connect(&silent[i], p.a.port);
    net_run_for(&p.net, 400); /* Of the two seconds that they have. */
    greet(&p, &r, false);
    raw_close(&r);
    for (unsigned i = 0; i < 300; i++)
        raw_close(&silent[i]);
    assert_true(both_up(&p));
    pair_end(&p);
}

/* Whoever makes up node after node fills neither the store nor the room of members. */
static void test_strangers_have_a_bound(void **state)
{
    struct pair p;
    uint32_t code = 0;
    uint64_t id = 100;
    (void)state;
    pair_begin(&p);
    for (; code == 0 && id < 1000; id++) {
        struct raw r;
        raw_connect(&r, p.a.port);
        hello_send(&r, id, 1, true);
        const Hf__PeerFrame *f = receive(&p, &r);
        assert_non_null(f);
        code = f->hello->refused_code;
        raw_close(&r);
    }
    assert_int_equal(code, PEERS_REFUSED_NODE);
    assert_int_equal(p.a.n_seen, id - 100); /* All but the last, and node 2. */
    assert_true(both_up(&p));
    pair_end(&p);
}

static void test_wrong_node_is_refused(void **state)
{
    struct pair p;
    struct raw r;
    (void)state;
    pair_begin(&p);
    raw_connect(&r, p.a.port);
    hello_send(&r, 5, 4, false); /* It wanted node 4. */
    const Hf__PeerFrame *f = receive(&p, &r);
    assert_non_null(f);
    assert_int_equal(f->hello->refused_code, PEERS_REFUSED_NODE);
    assert_true(raw_is_closed(&p.net, &r));
    raw_close(&r);
    pair_end(&p);
}

/* Images. ---------------------------------------------------------------------------------- */

static void directory_begin(struct side *s)
{
    (void)snprintf(s->directory, sizeof s->directory, "/tmp/holdfast-test-XXXXXX");
    assert_non_null(mkdtemp(s->directory));
}

static void file_write(const char *path, size_t size)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (size_t i = 0; i < size; i++)
        assert_true(fputc((int)(i * 7 % 251), f) != EOF);
    assert_int_equal(fclose(f), 0);
}

static bool a_sent(void *arg)
{
    const struct pair *p = arg;
    return p->a.n_sent > 0;
}

static struct replica_image an_image(void)
{
    return (struct replica_image){
        .index = 40, .term = 3, .conf_index = 1, .conf = bytes_str("configuration")};
}

static void image_transfer(size_t size, bool wanted, int check_status, bool delivered)
{
    struct pair p = {0};
    struct replica_image image = an_image();
    char path[128];
    p.b.check_status = check_status;
    net_begin(&p.net);
    side_begin(&p.a, &p.net, 1, CLUSTER, 11);
    side_begin(&p.b, &p.net, 2, CLUSTER, 22);
    directory_begin(&p.b);
    (void)snprintf(path, sizeof path, "%s/image", p.b.directory);
    file_write(path, size);
    introduce(&p.a, &p.b);
    introduce(&p.b, &p.a);
    assert_true(net_run(&p.net, both_up, &p, 3000));
    p.b.want_image = wanted;
    assert_int_equal(peers_send_image(p.a.peers, 7, 3, &image, path), -ENOENT);
    assert_int_equal(peers_send_image(p.a.peers, 2, 3, &image, path), 0);
    assert_int_equal(peers_send_image(p.a.peers, 2, 3, &image, path), -EBUSY);
    assert_true(net_run(&p.net, a_sent, &p, 10000));
    assert_int_equal(p.a.n_delivered, delivered);
    assert_int_equal(p.b.n_images, delivered);
    if (delivered) {
        assert_int_equal(p.b.image_size, size);
        assert_int_equal(p.b.image_index, 40);
    }
    assert_int_equal(unlink(path), 0);
    pair_end(&p);
    assert_int_equal(rmdir(p.b.directory), 0); /* Nothing is left over. */
}

static void test_image(void **state)
{
    (void)state;
    image_transfer(1, true, 0, true);
    image_transfer(IMAGE_CHUNK_BYTES, true, 0, true);
    image_transfer(5 * IMAGE_CHUNK_BYTES + 77, true, 0, true);
}

static void test_image_not_wanted(void **state)
{
    (void)state;
    image_transfer(1000, false, 0, false);
}

static void test_image_that_is_damaged_inside(void **state)
{
    (void)state;
    image_transfer(1000, true, -EBADMSG, false);
}

static void chunk_send(struct raw *r, uint64_t offset, size_t size, uint64_t total, uint64_t sum)
{
    static const uint8_t data[1000];
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    Hf__ImageChunk chunk = HF__IMAGE_CHUNK__INIT;
    chunk.term = 3;
    chunk.last_index = 40;
    chunk.last_term = 3;
    chunk.conf = pack_binary(offset == 0 ? bytes_str("configuration") : bytes_of(NULL, 0));
    chunk.size = total;
    chunk.offset = offset;
    chunk.data = pack_binary(bytes_of(data, size));
    chunk.last = offset + size == total;
    chunk.checksum = sum;
    frame.body_case = HF__PEER_FRAME__BODY_IMAGE_CHUNK;
    frame.image_chunk = &chunk;
    raw_send_message(r, &frame.base);
}

/* Streams that no node of ours would send: none of them becomes an image, and no file stays. */
static void test_image_streams_that_are_wrong(void **state)
{
    static const struct {
        uint64_t offset_first, offset_second, total;
        bool good_sum;
        bool taken;
    } cases[] = {
        {0, 1000, 2000, true, true},
        {0, 1000, 2000, false, false},             /* The checksum is wrong. */
        {0, 900, 2000, true, false},               /* A piece again. */
        {0, 1001, 2001, true, false},              /* A hole. */
        {1000, 2000, 3000, true, false},           /* Not from the beginning. */
        {0, 1000, UINT64_C(1) << 50, true, false}, /* Absurdly large. */
    };
    static const uint8_t zeros[2000];
    uint64_t sum = checksum_add(0, zeros, sizeof zeros);
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct pair p;
        struct raw r;
        pair_begin(&p);
        directory_begin(&p.a);
        greet(&p, &r, true);
        chunk_send(&r, cases[i].offset_first, 1000, cases[i].total, 0);
        chunk_send(&r, cases[i].offset_second, 1000, cases[i].total,
                   cases[i].good_sum ? sum : sum + 1);
        const Hf__PeerFrame *f = receive(&p, &r);
        if (cases[i].taken) {
            assert_non_null(f);
            assert_int_equal(f->body_case, HF__PEER_FRAME__BODY_IMAGE_CHUNK);
            assert_true(f->image_chunk->last);
        } else {
            assert_null(f);
        }
        raw_close(&r);
        assert_int_equal(p.a.n_images, cases[i].taken);
        pair_end(&p);
        assert_int_equal(rmdir(p.a.directory), 0);
    }
}

static bool a_has_image(void *arg)
{
    const struct pair *p = arg;
    return p->a.n_images == 1;
}

/* Whatever follows an image ends its connection, and leaves the image what it was. */
static void test_image_with_more_behind_it(void **state)
{
    static const uint8_t zeros[2000];
    uint64_t sum = checksum_add(0, zeros, sizeof zeros);
    struct pair p;
    struct raw r;
    (void)state;
    pair_begin(&p);
    directory_begin(&p.a);
    greet(&p, &r, true);
    chunk_send(&r, 0, 1000, 2000, 0);
    chunk_send(&r, 1000, 1000, 2000, sum);
    chunk_send(&r, 1000, 1000, 2000, sum);
    assert_true(raw_is_closed(&p.net, &r));
    raw_close(&r);
    assert_true(net_run(&p.net, a_has_image, &p, 3000));
    assert_int_equal(p.a.image_size, 2000);
    pair_end(&p);
    assert_int_equal(rmdir(p.a.directory), 0);
}

static bool a_has_file(void *arg)
{
    const struct pair *p = arg;
    char path[128];
    (void)snprintf(path, sizeof path, "%s/incoming-40", p->a.directory);
    return access(path, F_OK) == 0;
}

static bool a_has_no_file(void *arg)
{
    return !a_has_file(arg);
}

static void test_image_sender_dies(void **state)
{
    struct pair p;
    struct raw r;
    (void)state;
    pair_begin(&p);
    directory_begin(&p.a);
    greet(&p, &r, true);
    chunk_send(&r, 0, 1000, 2000, 0);
    assert_true(net_run(&p.net, a_has_file, &p, 3000));
    raw_close(&r);
    assert_true(net_run(&p.net, a_has_no_file, &p, 3000));
    assert_int_equal(p.a.n_images, 0);
    pair_end(&p);
    assert_int_equal(rmdir(p.a.directory), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames_both_ways),
        cmocka_unit_test(test_a_node_that_returns_is_found),
        cmocka_unit_test(test_wiped_node_dials),
        cmocka_unit_test(test_wiped_node_is_dialled),
        cmocka_unit_test(test_other_cluster_is_refused),
        cmocka_unit_test(test_joining_node),
        cmocka_unit_test(test_garbage_closes),
        cmocka_unit_test(test_strangers_have_a_bound),
        cmocka_unit_test(test_silent_ones_make_room),
        cmocka_unit_test(test_wrong_node_is_refused),
        cmocka_unit_test(test_image),
        cmocka_unit_test(test_image_not_wanted),
        cmocka_unit_test(test_image_that_is_damaged_inside),
        cmocka_unit_test(test_image_streams_that_are_wrong),
        cmocka_unit_test(test_image_with_more_behind_it),
        cmocka_unit_test(test_image_sender_dies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
