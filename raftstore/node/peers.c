#include "raftstore/node/peers_internal.h"

#include "raftstore/base/log.h"
#include "raftstore/wire/frame.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define INLINKS_MAX 256
#define SWEEP_MS    500
#define GRACE_MS    250 /* Nobody who has just come is sent away to make room. */

static void link_dial(struct link *l);
static void link_failed(struct link *l, const char *what, const char *why, bool slow);

void peers_unref(struct peers *p)
{
    assert(p->n_open > 0);
    if (--p->n_open > 0 || !p->closing)
        return;
    void (*closed)(void *arg) = p->closed;
    void *arg = p->closed_arg;
    arena_deinit(&p->arena);
    free(p);
    closed(arg);
}

struct link *peers_link(const struct peers *p, uint64_t id)
{
    struct link *l;
    LIST_FOREACH(l, &p->links, entry)
    if (l->id == id)
        return l;
    return NULL;
}

static struct inlink *inlink_of(const struct peers *p, uint64_t id)
{
    struct inlink *in;
    LIST_FOREACH(in, &p->inlinks, entry)
    if (in->id == id && !in->image_stream)
        return in;
    return NULL;
}

static bool is_member(const struct peers *p, uint64_t id)
{
    const struct link *l = peers_link(p, id);
    return l != NULL && l->member;
}

static unsigned n_stranger_links(const struct peers *p)
{
    const struct link *l;
    unsigned n = 0;
    LIST_FOREACH(l, &p->links, entry)
    n += l->member ? 0 : 1;
    return n;
}

/* Hellos. ---------------------------------------------------------------------------------- */

static void hello_send(const struct peers *p,
                       struct stream *s,
                       uint64_t to,
                       bool image_stream,
                       uint32_t refused_code,
                       const char *refused)
{
    Hf__PeerHello hello = HF__PEER_HELLO__INIT;
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    hello.version = WIRE_VERSION;
    hello.version_min = WIRE_VERSION_MIN;
    hello.cluster_id = p->config.cluster_id;
    hello.node_id = p->config.id;
    hello.to_id = to;
    hello.incarnation = p->config.incarnation;
    hello.image_stream = image_stream;
    hello.raft_address = (char *)(uintptr_t)p->config.raft_address; /* Only read by the packer. */
    hello.client_address = (char *)(uintptr_t)p->config.client_address;
    hello.refused_code = refused_code;
    hello.refused = (char *)(uintptr_t)refused;
    hello.stranger = n_stranger_links(p) < p->n_links && !is_member(p, to); /* Has it members? */
    frame.body_case = HF__PEER_FRAME__BODY_HELLO;
    frame.hello = &hello;
    pack_add_frame(stream_out(s), &frame.base);
}

void peers_hello(const struct peers *p, struct stream *s, uint64_t to, bool image_stream)
{
    hello_send(p, s, to, image_stream, 0, "");
}

/* May we talk to the node at the other end of `s` that says this of itself?
 * Return: 0, or PEERS_REFUSED_... with the sentence for it in `out`. */
static uint32_t hello_judge(
    const struct peers *p, const struct stream *s, const Hf__PeerHello *h, char *out, size_t size)
{
    uint64_t known;
    const struct identity *identity = stream_identity(s);
    if (identity != NULL && (identity->kind != IDENTITY_NODE || identity->node_id != h->node_id)) {
        (void)snprintf(out, size, "the certificate is that of %s/%s, not that of node/%llu",
                       identity_kind_name(identity->kind), identity->name,
                       (unsigned long long)h->node_id);
        return PEERS_REFUSED_CERT;
    }
    if (h->version < WIRE_VERSION_MIN || h->version_min > WIRE_VERSION) {
        (void)snprintf(out, size,
                       "node %llu speaks protocol versions %u to %u, node %llu speaks %u to %u",
                       (unsigned long long)h->node_id, h->version_min, h->version,
                       (unsigned long long)p->config.id, WIRE_VERSION_MIN, WIRE_VERSION);
        return PEERS_REFUSED_VERSION;
    }
    if (h->cluster_id != 0 && p->config.cluster_id != 0 && h->cluster_id != p->config.cluster_id) {
        (void)snprintf(out, size,
                       "node %llu belongs to another cluster (%016llx) than node %llu (%016llx): "
                       "were all first nodes started with the same --member options?",
                       (unsigned long long)h->node_id, (unsigned long long)h->cluster_id,
                       (unsigned long long)p->config.id, (unsigned long long)p->config.cluster_id);
        return PEERS_REFUSED_CLUSTER;
    }
    if (h->node_id == 0 || h->node_id == p->config.id || h->incarnation == 0) {
        (void)snprintf(out, size, "node id %llu can't be another node than %llu",
                       (unsigned long long)h->node_id, (unsigned long long)p->config.id);
        return PEERS_REFUSED_NODE;
    }
    known = p->config.incarnation_known(p->config.arg, h->node_id);
    if (known != 0 && known != h->incarnation) {
        (void)snprintf(out, size,
                       "the data directory of node %llu is not the one that node %llu knows it by "
                       "(it was wiped or exchanged)",
                       (unsigned long long)h->node_id, (unsigned long long)p->config.id);
        return PEERS_REFUSED_WIPED;
    }
    if (known == 0 && !is_member(p, h->node_id) && p->n_strangers >= PEERS_STRANGERS_MAX) {
        (void)snprintf(out, size, "node %llu has seen too many nodes that are no members",
                       (unsigned long long)p->config.id);
        return PEERS_REFUSED_NODE;
    }
    return 0;
}

/* Remember what a welcome node told of itself. */
static void hello_accept(struct peers *p, const Hf__PeerHello *h)
{
    if (p->config.incarnation_known(p->config.arg, h->node_id) == 0) {
        p->n_strangers += is_member(p, h->node_id) ? 0 : 1;
        p->config.incarnation_seen(p->config.arg, h->node_id, h->incarnation);
    }
    if (p->config.cluster_id == 0 && h->cluster_id != 0) {
        p->config.cluster_id = h->cluster_id;
        p->config.cluster_learnt(p->config.arg, h->cluster_id);
    }
}

/* Was this refusal logged a moment ago?  If not, it counts as logged now. */
static bool told_lately(struct peers *p, uint64_t id, uint32_t code)
{
    uint64_t now_ms = uv_now(p->config.hub->loop);
    for (unsigned i = 0; i < PEERS_TOLD; i++) {
        const struct peers_told *t = &p->told[i];
        if (t->id == id && t->code == code && now_ms - t->at_ms < PEERS_TOLD_MS)
            return true;
    }
    p->told[p->next_told++ % PEERS_TOLD] = (struct peers_told){id, code, now_ms};
    return false;
}

/* Another node does not want us.  Only one of our own cluster can know that we were wiped. */
static void refused_by(struct peers *p, const struct stream *s, uint64_t id, const Hf__PeerHello *h)
{
    const struct identity *identity = stream_identity(s);
    bool ours =
        (p->config.cluster_id == 0 || h->cluster_id == p->config.cluster_id) &&
        (identity == NULL || (identity->kind == IDENTITY_NODE && identity->node_id == h->node_id));
    if (!told_lately(p, id, h->refused_code << 1))
        LOG_ERROR("refused by a node", "peer=%llu answered=%llu code=%u why=%s",
                  (unsigned long long)id, (unsigned long long)h->node_id, h->refused_code,
                  log_quote(bytes_str(h->refused)));
    if (h->refused_code == PEERS_REFUSED_WIPED && ours && h->node_id == id)
        p->config.wiped(p->config.arg, id);
}

int peers_judge_answer(struct peers *p, uint64_t id, struct stream *s, const Hf__PeerHello *hello)
{
    char why[256];
    if (hello->refused_code != 0) {
        refused_by(p, s, id, hello);
        return -EACCES;
    }
    uint32_t code = hello_judge(p, s, hello, why, sizeof why);
    if (code == 0 && hello->node_id != id) {
        code = PEERS_REFUSED_NODE;
        (void)snprintf(why, sizeof why, "node %llu answered at the address of node %llu",
                       (unsigned long long)hello->node_id, (unsigned long long)id);
    }
    if (code == 0) {
        hello_accept(p, hello);
        return 0;
    }
    if (!told_lately(p, id, code << 1 | 1))
        LOG_ERROR("node refused", "peer=%llu code=%u why=%s", (unsigned long long)id, code,
                  log_quote(bytes_str(why)));
    hello_send(p, s, id, false, code, why); /* The close that follows writes it. */
    return -EACCES;
}

/* Parse one frame. Return: NULL with a log line for malformed bytes. */
static const Hf__PeerFrame *frame_read(struct peers *p, uint64_t from, struct bytes body)
{
    const Hf__PeerFrame *f =
        (const Hf__PeerFrame *)pack_parse(&p->arena, &hf__peer_frame__descriptor, body);
    if (f == NULL || f->body_case == HF__PEER_FRAME__BODY__NOT_SET) {
        LOG_WARN("malformed frame of a node dropped, connection closed", "peer=%llu bytes=%zu",
                 (unsigned long long)from, body.size);
        return NULL;
    }
    return f;
}

/* Links: what we dial. ---------------------------------------------------------------------- */

static void link_timer_closed(uv_handle_t *handle)
{
    struct link *l = handle->data;
    struct peers *p = l->peers;
    free(l);
    peers_unref(p);
}

static void link_drop(struct link *l)
{
    dial_cancel(l->dial);
    l->dial = NULL;
    stream_close(l->stream);
    l->stream = NULL;
    if (l->up) {
        l->up = false;
        l->peers->config.link_changed(l->peers->config.arg, l->id, false);
    }
}

static void link_free(struct link *l)
{
    struct peers *p = l->peers;
    link_drop(l);
    LIST_REMOVE(l, entry);
    p->n_links--;
    l->closing = true;
    uv_close((uv_handle_t *)&l->timer, link_timer_closed);
}

static void link_retry(uv_timer_t *timer)
{
    link_dial(timer->data);
}

static void link_failed(struct link *l, const char *what, const char *why, bool slow)
{
    char address[300];
    struct peers *p = l->peers;
    if (!l->told)
        LOG_WARN(what, "peer=%llu addr=%s why=%s", (unsigned long long)l->id,
                 address_format(&l->address, address, sizeof address), log_quote(bytes_str(why)));
    l->told = true;
    link_drop(l);
    uint64_t delay_ms = 50 + random_below(&p->random, 150);
    (void)uv_timer_start(&l->timer, link_retry, slow ? 10 * delay_ms : delay_ms, 0);
}

static void link_patience_over(uv_timer_t *timer)
{
    link_failed(timer->data, "peer does not answer", "no hello in time", false);
}

static int link_frame(void *arg, struct bytes body)
{
    struct link *l = arg;
    struct peers *p = l->peers;
    int rv = -EPROTO;
    bool stranger = false;
    const Hf__PeerFrame *f = frame_read(p, l->id, body);
    if (f != NULL && f->body_case == HF__PEER_FRAME__BODY_HELLO && !l->up) {
        stranger = f->hello->stranger;
        rv = peers_judge_answer(p, l->id, l->stream, f->hello);
    }
    arena_reset(&p->arena);
    if (p->closing || rv < 0) /* Closed by `wiped`, or to be closed by our caller. */
        return rv < 0 ? rv : -ECANCELED;
    (void)uv_timer_stop(&l->timer);
    if (stranger && !told_lately(p, l->id, 0))
        LOG_WARN("this node is no member of the cluster",
                 "known_by=%llu node=%llu "
                 "remedy=\"stop it if it was removed\"",
                 (unsigned long long)l->id, (unsigned long long)p->config.id);
    l->up = true;
    l->told = false;
    LOG_INFO("peer connected", "peer=%llu", (unsigned long long)l->id);
    p->config.link_changed(p->config.arg, l->id, true);
    return 0;
}

static void link_ended(void *arg, int status)
{
    struct link *l = arg;
    l->stream = NULL;
    link_failed(l, "peer connection lost", status == -EACCES ? "refused" : uv_strerror(status),
                status == -EACCES);
}

static const struct stream_ops link_ops = {.frame = link_frame, .ended = link_ended};

static void link_dialled(void *arg, int status, struct stream *s)
{
    struct link *l = arg;
    l->dial = NULL;
    if (status < 0) {
        link_failed(l, "peer unreachable", uv_strerror(status), false);
        return;
    }
    l->stream = s;
    int rv = stream_start(s, &link_ops, l, PEERS_HELLO_BYTES_MAX, PEERS_USER_TIMEOUT_MS);
    if (rv < 0) {
        link_failed(l, "peer unreachable", uv_strerror(rv), false);
        return;
    }
    peers_hello(l->peers, s, l->id, false);
    (void)uv_timer_start(&l->timer, link_patience_over, PEERS_HELLO_MS, 0);
}

static void link_dial(struct link *l)
{
    assert(l->dial == NULL && l->stream == NULL);
    l->dial = dial_start(l->peers->config.hub, &l->address, PEERS_CONNECT_MS, link_dialled, l);
}

static struct link *
link_new(struct peers *p, uint64_t id, const struct address *address, bool member)
{
    if (p->n_links >= PEERS_MAX)
        return NULL;
    struct link *l = xcalloc(1, sizeof *l);
    l->peers = p;
    l->id = id;
    l->address = *address;
    l->member = member;
    (void)uv_timer_init(p->config.hub->loop, &l->timer); /* Always 0. */
    l->timer.data = l;
    LIST_INSERT_HEAD(&p->links, l, entry);
    p->n_links++;
    p->n_open++;
    link_dial(l);
    return l;
}

static bool address_equal(const struct address *a, const struct address *b)
{
    return a->is_unix == b->is_unix && a->port == b->port && strcmp(a->host, b->host) == 0;
}

static void link_set(struct peers *p, const struct peers_member *m)
{
    struct link *l = peers_link(p, m->id);
    if (l == NULL) {
        if (link_new(p, m->id, &m->address, true) == NULL)
            LOG_WARN("too many nodes, not connecting", "peer=%llu", (unsigned long long)m->id);
        return;
    }
    l->member = true;
    if (!address_equal(&l->address, &m->address)) {
        l->address = m->address;
        link_drop(l);
        (void)uv_timer_stop(&l->timer);
        link_dial(l);
    }
}

void peers_set(struct peers *p, const struct peers_member *members, unsigned n)
{
    struct link *l, *next;
    LIST_FOREACH(l, &p->links, entry)
    l->member = false;
    for (unsigned i = 0; i < n; i++)
        if (members[i].id != p->config.id)
            link_set(p, &members[i]);
    for (l = LIST_FIRST(&p->links); l != NULL; l = next) {
        next = LIST_NEXT(l, entry);
        if (!l->member && inlink_of(p, l->id) == NULL) {
            peers_image_out_cancel(p, l->id);
            link_free(l);
        }
    }
}

bool peers_is_up(const struct peers *p, uint64_t id)
{
    const struct link *l = peers_link(p, id);
    return l != NULL && l->up;
}

void peers_send(struct peers *p, uint64_t to, const Hf__PeerFrame *frame)
{
    struct link *l = peers_link(p, to);
    if (l == NULL || !l->up)
        return;
    size_t size = hf__peer_frame__get_packed_size(frame);
    size_t waiting = stream_pending_bytes(l->stream);
    if (size > FRAME_PEER_BYTES_MAX || (waiting > 0 && waiting + size > PEERS_QUEUE_BYTES_MAX)) {
        if (!l->full)
            LOG_WARN("queue of a node is full, messages dropped", "peer=%llu bytes=%zu",
                     (unsigned long long)to, waiting);
        l->full = true;
        return;
    }
    l->full = false;
    struct buf *out = stream_out(l->stream);
    size_t mark = frame_begin(out);
    (void)hf__peer_frame__pack(frame, buf_reserve(out, size));
    out->size += size;
    frame_end(out, mark);
}

/* Incoming connections. --------------------------------------------------------------------- */

static void inlink_free(struct inlink *in)
{
    struct peers *p = in->peers;
    uint64_t id = in->id;
    bool image_stream = in->image_stream;
    stream_close(in->stream);
    peers_image_in_ended(in);
    LIST_REMOVE(in, entry);
    p->n_inlinks--;
    free(in);
    struct link *l = id != 0 && !image_stream ? peers_link(p, id) : NULL;
    if (l != NULL && !l->member && inlink_of(p, id) == NULL)
        link_free(l); /* Only made to answer it. */
}

void peers_inlink_close(struct inlink *in)
{
    inlink_free(in);
}

static int inlink_refuse(struct inlink *in, const Hf__PeerHello *h, uint32_t code, const char *why)
{
    char name[64];
    if (!told_lately(in->peers, h->node_id, code << 1 | 1))
        LOG_ERROR("node refused", "peer=%llu from=%s code=%u why=%s",
                  (unsigned long long)h->node_id, stream_peer_name(in->stream, name, sizeof name),
                  code, log_quote(bytes_str(why)));
    hello_send(in->peers, in->stream, h->node_id, false, code, why);
    inlink_free(in); /* Closing writes the answer. */
    return 0;
}

/* A node that is not a member here talks to us: be able to answer it. */
static void learn_link(struct peers *p, const Hf__PeerHello *h)
{
    struct address address;
    if (peers_link(p, h->node_id) != NULL || n_stranger_links(p) >= PEERS_STRANGERS_LINKS)
        return;
    if (address_parse(h->raft_address, &address) < 0 || address.is_unix || address.port == 0) {
        LOG_WARN("node told no usable address", "peer=%llu addr=%s", (unsigned long long)h->node_id,
                 log_quote(bytes_str(h->raft_address)));
        return;
    }
    LOG_INFO("node that is not a member connected", "peer=%llu addr=%s",
             (unsigned long long)h->node_id, log_quote(bytes_str(h->raft_address)));
    (void)link_new(p, h->node_id, &address, false);
}

static int inlink_hello(struct inlink *in, const Hf__PeerHello *h)
{
    struct peers *p = in->peers;
    char why[256];
    uint32_t code = hello_judge(p, in->stream, h, why, sizeof why);
    if (code == 0 && h->to_id != p->config.id) {
        code = PEERS_REFUSED_NODE;
        (void)snprintf(why, sizeof why, "this is node %llu, not node %llu",
                       (unsigned long long)p->config.id, (unsigned long long)h->to_id);
    }
    if (code != 0)
        return inlink_refuse(in, h, code, why);
    hello_accept(p, h);
    struct inlink *old = h->image_stream ? NULL : inlink_of(p, h->node_id);
    in->id = h->node_id;
    in->image_stream = h->image_stream;
    if (old != NULL)
        inlink_free(old); /* What is still in it is older than what comes now. */
    stream_set_frame_bytes_max(in->stream, FRAME_PEER_BYTES_MAX);
    peers_hello(p, in->stream, in->id, in->image_stream);
    if (!in->image_stream)
        learn_link(p, h);
    return 0;
}

static int inlink_message(struct inlink *in, const Hf__PeerFrame *f)
{
    struct peers *p = in->peers;
    if (f->body_case == HF__PEER_FRAME__BODY_HELLO) {
        if (in->id == 0 && f->hello->refused_code == 0)
            return inlink_hello(in, f->hello);
        if (in->id == 0 || f->hello->refused_code == 0)
            return -EPROTO;
        refused_by(p, in->stream, in->id, f->hello);
        return p->closing ? 0 : -EACCES;
    }
    if (in->id == 0)
        return -EPROTO;
    if (f->body_case == HF__PEER_FRAME__BODY_IMAGE_CHUNK)
        return in->image_stream ? peers_image_chunk(in, f->image_chunk) : -EPROTO;
    if (in->image_stream)
        return -EPROTO;
    p->config.frame(p->config.arg, in->id, f);
    return 0;
}

static int inlink_frame(void *arg, struct bytes body)
{
    struct inlink *in = arg;
    struct peers *p = in->peers;
    const Hf__PeerFrame *f = frame_read(p, in->id, body);
    int rv = f == NULL ? -EPROTO : inlink_message(in, f); /* `in` may be gone now. */
    arena_reset(&p->arena);
    return rv;
}

static void inlink_ended(void *arg, int status)
{
    struct inlink *in = arg;
    if (status == -EMSGSIZE || status == -EPROTO)
        LOG_WARN("connection of a node closed: it breaks the protocol", "peer=%llu why=%s",
                 (unsigned long long)in->id,
                 status == -EMSGSIZE ? "\"a frame is over its bound\"" : "\"unexpected frame\"");
    else
        LOG_DEBUG("connection of a node ended", "peer=%llu why=%s", (unsigned long long)in->id,
                  log_quote(bytes_str(uv_strerror(status))));
    in->stream = NULL;
    inlink_free(in);
}

static const struct stream_ops inlink_ops = {.frame = inlink_frame, .ended = inlink_ended};

/* Strangers that say nothing must not keep nodes out: the oldest of them goes. */
static bool make_room(struct peers *p)
{
    struct inlink *in, *oldest = NULL;
    LIST_FOREACH(in, &p->inlinks, entry)
    if (in->id == 0)
        oldest = in; /* New ones are put in front. */
    if (oldest == NULL || uv_now(p->config.hub->loop) - oldest->begin_ms < GRACE_MS)
        return false;
    inlink_free(oldest);
    return true;
}

static void peers_connection(uv_stream_t *server, int status)
{
    struct peers *p = server->data;
    if (status < 0) {
        LOG_WARN("accepting a node failed", "why=%s", log_quote(bytes_str(uv_strerror(status))));
        return;
    }
    struct stream *s = stream_new(p->config.hub, false, TLS_SERVER);
    if (uv_accept(server, stream_handle(s)) < 0 || (p->n_inlinks >= INLINKS_MAX && !make_room(p))) {
        stream_close(s);
        return;
    }
    struct inlink *in = xcalloc(1, sizeof *in);
    in->peers = p;
    in->stream = s;
    in->begin_ms = uv_now(p->config.hub->loop);
    LIST_INSERT_HEAD(&p->inlinks, in, entry);
    p->n_inlinks++;
    if (stream_start(s, &inlink_ops, in, PEERS_HELLO_BYTES_MAX, PEERS_USER_TIMEOUT_MS) < 0)
        inlink_free(in);
}

static void peers_sweep(uv_timer_t *timer)
{
    struct peers *p = timer->data;
    struct inlink *in, *next;
    for (in = LIST_FIRST(&p->inlinks); in != NULL; in = next) {
        next = LIST_NEXT(in, entry);
        uint64_t now_ms = uv_now(timer->loop);
        if ((in->id == 0 && now_ms - in->begin_ms > PEERS_HELLO_MS) ||
            peers_image_in_stuck(in, now_ms))
            inlink_free(in);
    }
}

/* The object. ------------------------------------------------------------------------------ */

struct peers *peers_new(const struct peers_config *config)
{
    struct peers *p = xcalloc(1, sizeof *p);
    p->config = *config;
    p->random.state = random_system();
    arena_init(&p->arena);
    LIST_INIT(&p->links);
    LIST_INIT(&p->inlinks);
    LIST_INIT(&p->images_out);
    (void)uv_timer_init(config->hub->loop, &p->sweep); /* Always 0. */
    p->sweep.data = p;
    (void)uv_timer_start(&p->sweep, peers_sweep, SWEEP_MS, SWEEP_MS);
    p->n_open = 2; /* sweep, bind */
    return p;
}

int peers_listen(struct peers *p, const struct address *address, bool insecure, char **ret_sentence)
{
    return bind_listen(&p->bind, p->config.hub->loop, address, insecure, peers_connection, p,
                       ret_sentence);
}

uint16_t peers_port(const struct peers *p)
{
    return bind_port(&p->bind);
}

static void sweep_closed(uv_handle_t *handle)
{
    peers_unref(handle->data);
}

static void bind_closed(void *arg)
{
    peers_unref(arg);
}

void peers_close(struct peers *p, void (*closed)(void *arg), void *arg)
{
    struct link *l;
    struct inlink *in;
    p->closing = true;
    p->closed = closed;
    p->closed_arg = arg;
    p->n_open++; /* Held while we are in here. */
    while ((in = LIST_FIRST(&p->inlinks)) != NULL)
        inlink_free(in);
    peers_images_close(p);
    while ((l = LIST_FIRST(&p->links)) != NULL)
        link_free(l);
    uv_close((uv_handle_t *)&p->sweep, sweep_closed);
    bind_close(&p->bind, bind_closed, p);
    peers_unref(p);
}
