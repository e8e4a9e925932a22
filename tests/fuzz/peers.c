/* What nodes say to each other before the replica hears of it: hellos, images and their receipts,
 * with the product's peers*.c over streams in memory.
 *
 * bind.h, dial.h and libuv's worker pool are implemented here: connections come when the input says
 * so, nothing is ever dialled, and work is done at a step of its own.  An image that arrives is
 * read as the product does it (image.h), from a file in a directory of the target's own.
 *
 * Input: commands, one byte each and what belongs to it. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "raftstore/base/log.h"
#include "raftstore/node/bind.h"
#include "raftstore/node/checksum.h"
#include "raftstore/node/dial.h"
#include "raftstore/node/image.h"
#include "raftstore/node/peers.h"
#include "raftstore/wire/frame.h"
#include "tests/fuzz/stream.h"

#define STEPS_MAX 150u
#define WORK_MAX  16u
#define DIALS_MAX 64u
#define CLUSTER   7u

struct dial {
    struct stream_hub *hub;
    void (*cb)(void *arg, int status, struct stream *s);
    void *arg;
};

struct work {
    uv_work_t *job;
    uv_after_work_cb after;
};

static struct {
    uv_loop_t loop;
    struct stream_hub hub;
    uv_connection_cb on_connection;
    uv_stream_t server;
    struct dial *dials[DIALS_MAX];
    unsigned n_dials;
    struct work work[WORK_MAX];
    unsigned n_work;
    uint64_t known[8];
    char image[300]; /* Path of an image to send. */
    struct bytes image_bytes;
    bool closed;
} world;

static char directory[256];

/* ---- In the place of sockets and threads ------------------------------------------------- */

int bind_listen(struct bind_set *set,
                uv_loop_t *loop,
                const struct address *address,
                bool insecure,
                uv_connection_cb on_connection,
                void *arg,
                char **ret_sentence)
{
    (void)set;
    (void)loop;
    (void)address;
    (void)insecure;
    (void)ret_sentence;
    world.on_connection = on_connection;
    world.server.data = arg;
    return 0;
}

uint16_t bind_port(const struct bind_set *set)
{
    (void)set;
    return 1;
}

void bind_close(struct bind_set *set, void (*closed)(void *arg), void *arg)
{
    (void)set;
    closed(arg);
}

int uv_accept(uv_stream_t *server, uv_stream_t *client)
{
    (void)server;
    (void)client;
    return 0;
}

struct dial *dial_start(struct stream_hub *hub,
                        const struct address *address,
                        unsigned timeout_ms,
                        void (*cb)(void *arg, int status, struct stream *s),
                        void *arg)
{
    struct dial *d = xcalloc(1, sizeof *d);
    (void)timeout_ms;
    fuzz_require(address->host[0] != '\0', "dials nothing");
    fuzz_require(world.n_dials < DIALS_MAX, "dials too much");
    *d = (struct dial){hub, cb, arg};
    world.dials[world.n_dials++] = d;
    return d;
}

void dial_cancel(struct dial *d)
{
    for (unsigned i = 0; d != NULL && i < world.n_dials; i++) {
        if (world.dials[i] != d)
            continue;
        world.dials[i] = world.dials[--world.n_dials];
        free(d);
        return;
    }
}

int uv_queue_work(uv_loop_t *loop, uv_work_t *req, uv_work_cb work_cb, uv_after_work_cb after)
{
    (void)loop;
    fuzz_require(world.n_work < WORK_MAX, "too much work at once");
    req->work_cb = work_cb;
    world.work[world.n_work++] = (struct work){req, after};
    return 0;
}

static void work_one(void)
{
    if (world.n_work == 0)
        return;
    struct work w = world.work[0];
    memmove(world.work, world.work + 1, --world.n_work * sizeof world.work[0]);
    w.job->work_cb(w.job);
    w.after(w.job, 0);
}

/* ---- What peers ask for ------------------------------------------------------------------ */

static uint64_t on_known(void *arg, uint64_t id)
{
    (void)arg;
    return id < 8 ? world.known[id] : 0;
}

static void on_seen(void *arg, uint64_t id, uint64_t incarnation)
{
    (void)arg;
    if (id < 8)
        world.known[id] = incarnation;
}

static void on_learnt(void *arg, uint64_t cluster_id)
{
    (void)arg;
    fuzz_require(cluster_id != 0, "learns that there is no cluster");
}

static void on_frame(void *arg, uint64_t from, const Hf__PeerFrame *frame)
{
    (void)arg;
    fuzz_require(from != 0 && from != 1, "a frame from %llu", (unsigned long long)from);
    fuzz_require(frame->body_case != HF__PEER_FRAME__BODY_HELLO &&
                     frame->body_case != HF__PEER_FRAME__BODY_IMAGE_CHUNK,
                 "a frame that is not the replica's");
}

static void on_link(void *arg, uint64_t id, bool up)
{
    (void)arg;
    (void)id;
    (void)up;
}

static void on_wiped(void *arg, uint64_t by)
{
    (void)arg;
    fuzz_require(by != 0, "wiped by nobody");
}

static bool on_wanted(void *arg, uint64_t from, uint64_t index, char *ret_path, size_t size)
{
    (void)arg;
    (void)from;
    (void)snprintf(ret_path, size, "%s/incoming", directory);
    return index != 99;
}

static void on_received(
    void *arg, uint64_t from, uint64_t term, const struct replica_image *image, const char *path)
{
    (void)arg;
    (void)from;
    (void)term;
    fuzz_require(image->index != 0 && image->conf.size > 0, "an image of nothing");
    (void)unlink(path); /* It was read in on_check(). */
}

static void on_sent(void *arg, uint64_t to, uint64_t index, bool delivered)
{
    (void)arg;
    (void)to;
    (void)delivered;
    fuzz_require(index != 0, "nothing was sent");
}

/* ---- Frames ------------------------------------------------------------------------------ */

static void say(struct stream *s, const Hf__PeerFrame *frame)
{
    struct buf b = BUF_INIT;
    pack_add_frame(&b, &frame->base);
    fuzz_stream_feed(s, bytes_of(b.data, b.size));
    buf_deinit(&b);
}

static void say_hello(struct stream *s, struct feed *f)
{
    static char *const addresses[] = {"b:1", "[::1]:7", "", "unix:/x", "c:0", "nonsense"};
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    Hf__PeerHello h = HF__PEER_HELLO__INIT;
    uint8_t how = feed_u8(f), who = feed_u8(f);
    h.version = h.version_min = WIRE_VERSION;
    if (who & 128)
        h.version_min = feed_u8(f);
    h.cluster_id = who & 64 ? 0 : who & 32 ? feed_u8(f) : CLUSTER;
    h.node_id = 2 + who % 5;
    h.to_id = how & 128 ? feed_u8(f) : 1;
    h.incarnation = how & 64 ? feed_u8(f) : 5;
    h.image_stream = how & 1;
    h.stranger = how & 2;
    h.raft_address = addresses[how % 6];
    h.refused_code = how & 32 ? feed_u8(f) % 7 : 0;
    h.refused = "because";
    frame.body_case = HF__PEER_FRAME__BODY_HELLO;
    frame.hello = &h;
    say(s, &frame);
}

/* A chunk of a real image, or something near. */
static void say_chunk(struct stream *s, struct feed *f)
{
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    Hf__ImageChunk c = HF__IMAGE_CHUNK__INIT;
    static uint8_t any[300];
    uint8_t how = feed_u8(f);
    size_t half = world.image_bytes.size / 2;
    const uint64_t offsets[] = {0, half, world.image_bytes.size, UINT64_MAX};
    const uint8_t conf[] = {1, 2, 3};
    c.term = 3;
    c.last_index = how & 1 ? feed_u8(f) : 5;
    c.last_term = 2;
    c.conf_index = 1;
    c.conf = pack_binary(bytes_of(conf, how & 2 ? 0 : sizeof conf));
    c.size = world.image_bytes.size;
    if (how & 4)
        c.size = feed_near(f, offsets, 4);
    c.offset = how & 8 ? half : 0;
    if (how & 16)
        c.offset = feed_near(f, offsets, 4);
    c.data = pack_binary(bytes_of((const uint8_t *)world.image_bytes.data + (how & 8 ? half : 0),
                                  how & 8 ? world.image_bytes.size - half : half));
    if (how & 32)
        c.data = pack_binary(bytes_of(any, feed_u8(f)));
    c.last = how & 64 ? how & 128 : how & 8;
    c.checksum = how & 128 ? 0 : checksum_add(0, world.image_bytes.data, world.image_bytes.size);
    frame.body_case = HF__PEER_FRAME__BODY_IMAGE_CHUNK;
    frame.image_chunk = &c;
    say(s, &frame);
}

static void say_bytes(struct stream *s, struct feed *f, bool framed)
{
    struct bytes bytes = feed_bytes(f, 255);
    struct buf b = BUF_INIT;
    if (framed)
        frame_add(&b, bytes);
    else
        buf_add(&b, bytes.data, bytes.size);
    fuzz_stream_feed(s, bytes_of(b.data, b.size));
    buf_deinit(&b);
}

/* ---- Steps ------------------------------------------------------------------------------- */

static void dialled(struct feed *f)
{
    if (world.n_dials == 0)
        return;
    unsigned i = feed_u8(f) % world.n_dials;
    bool good = feed_u8(f) & 1;
    struct dial *d = world.dials[i];
    world.dials[i] = world.dials[--world.n_dials];
    d->cb(d->arg, good ? 0 : UV_ECONNREFUSED, good ? stream_new(d->hub, false, TLS_CLIENT) : NULL);
    free(d);
}

static void set_members(struct peers *p, uint8_t which)
{
    struct peers_member members[3];
    unsigned n = 0;
    for (unsigned i = 0; i < 3; i++) {
        if ((which >> i & 1) == 0)
            continue;
        members[n] = (struct peers_member){.id = i + 1};
        int rv = address_parse(which & 8 ? "m:1" : "m:2", &members[n].address);
        fuzz_require(rv == 0, "no address");
        n++;
    }
    peers_set(p, members, n);
}

static void send_image(struct peers *p, uint64_t to)
{
    static const uint8_t conf[] = {1, 2, 3};
    struct replica_image image = {5, 2, 1, bytes_of(conf, sizeof conf)};
    (void)peers_send_image(p, to, 3, &image, world.image);
}

static void step(struct peers *p, struct feed *f)
{
    uint8_t op = feed_u8(f);
    unsigned n = fuzz_stream_count(&world.hub);
    struct stream *s = n > 0 ? fuzz_stream(&world.hub, op % n) : NULL;
    if (op < 24)
        world.on_connection(&world.server, 0);
    else if (op < 32)
        set_members(p, feed_u8(f));
    else if (op < 48)
        dialled(f);
    else if (op < 80)
        work_one();
    else if (op < 92)
        send_image(p, 2 + op % 4);
    else if (s == NULL)
        world.on_connection(&world.server, 0);
    else if (op < 136)
        say_hello(s, f);
    else if (op < 184)
        say_chunk(s, f);
    else if (op < 228)
        say_bytes(s, f, true);
    else if (op < 236)
        say_bytes(s, f, false);
    else if (op < 248)
        fuzz_stream_end(s, UV_EOF);
    else
        stream_hub_flush(&world.hub);
}

/* ---- Life -------------------------------------------------------------------------------- */

static void remove_directory(void)
{
    (void)unlink(world.image);
    (void)rmdir(directory);
}

/* Once: a directory, and an image in it. */
static void prepare(void)
{
    static const uint8_t conf[] = {1, 2, 3};
    struct replica_image image = {5, 2, 1, bytes_of(conf, sizeof conf)};
    char *sentence = NULL;
    if (world.image_bytes.size > 0)
        return;
    struct lock_table *t = lock_table_new();
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(directory, sizeof directory, "%s/holdfast-fuzz-XXXXXX",
                   tmp != NULL && strlen(tmp) < 200 ? tmp : "/tmp");
    fuzz_require(mkdtemp(directory) != NULL, "no directory");
    (void)snprintf(world.image, sizeof world.image, "%s/image", directory);
    int rv = image_write(world.image, t, &image, 0, &sentence);
    fuzz_require(rv == 0, "no image: %s", sentence);
    lock_table_free(t);
    FILE *file = fopen(world.image, "rb");
    static uint8_t bytes[65536];
    fuzz_require(file != NULL, "no image");
    world.image_bytes = bytes_of(bytes, fread(bytes, 1, sizeof bytes, file));
    (void)fclose(file);
    fuzz_require(world.image_bytes.size > 0, "an empty image");
    (void)atexit(remove_directory);
    fuzz_require(uv_loop_init(&world.loop) == 0, "no loop");
    log_set_level(LOG_LEVEL_ERROR);
}

static void on_closed(void *arg)
{
    (void)arg;
    world.closed = true;
}

static void finish(struct peers *p)
{
    peers_close(p, on_closed, NULL);
    for (unsigned i = 0; i < 100 && !world.closed; i++) {
        work_one();
        (void)uv_run(&world.loop, UV_RUN_NOWAIT);
    }
    fuzz_require(world.closed, "the peers do not close");
    fuzz_require(world.n_dials == 0 && world.n_work == 0, "something is under way");
    stream_hub_deinit(&world.hub);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed f = feed_of(data, size);
    struct address address = {.host = "127.0.0.1"};
    prepare();
    world.n_dials = world.n_work = 0;
    world.closed = false;
    memset(world.known, 0, sizeof world.known);
    stream_hub_init(&world.hub, &world.loop);
    fuzz_stream_expect(&hf__peer_frame__descriptor, FRAME_PEER_BYTES_MAX);
    struct peers_config config = {
        .hub = &world.hub,
        .id = 1,
        .incarnation = 3,
        .cluster_id = feed_u8(&f) & 1 ? 0 : CLUSTER,
        .raft_address = "a:1",
        .client_address = "a:2",
        .incarnation_known = on_known,
        .incarnation_seen = on_seen,
        .cluster_learnt = on_learnt,
        .frame = on_frame,
        .link_changed = on_link,
        .wiped = on_wiped,
        .image_wanted = on_wanted,
        .image_check = image_check,
        .image_received = on_received,
        .image_sent = on_sent,
    };
    struct peers *p = peers_new(&config);
    int rv = peers_listen(p, &address, false, NULL);
    fuzz_require(rv == 0, "does not listen");
    for (unsigned i = 0; i < STEPS_MAX && !feed_is_empty(&f); i++)
        step(p, &f);
    finish(p);
    return 0;
}
