/* Sending an image: a connection of its own; the worker pool reads the file chunk by chunk, the
 * next one when the kernel has taken the last.
 *
 *     dialling -> hello sent -> chunk read (worker) -> chunk written -> ... -> receipt awaited
 *
 * Every step has a deadline without progress; whatever goes wrong ends the transfer, and Raft asks
 * for it again. */
#include "raftstore/node/peers_internal.h"

#include "raftstore/base/log.h"
#include "raftstore/node/checksum.h"
#include "raftstore/wire/frame.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROGRESS_MS UINT64_C(10000)
/* The receiver verifies a whole image before its receipt: seconds, for a large one. */
#define RECEIPT_MS UINT64_C(120000)

struct image_out {
    LIST_ENTRY(image_out) entry;
    struct peers *peers;
    uint64_t to;
    uint64_t term;
    struct replica_image image; /* conf is owned. */
    int fd;
    uint64_t size;
    uint64_t offset; /* Read so far. */
    uint64_t checksum;
    uint8_t *chunk;     /* Owned; the job's while it runs. */
    ssize_t chunk_size; /* Or a negative errno. */
    struct dial *dial;
    struct stream *stream;
    uv_timer_t timer;
    uv_work_t job;
    bool welcome;
    bool job_busy;
    bool over;
    bool timer_closed;
};

static void out_free(struct image_out *o)
{
    struct peers *p = o->peers;
    if (o->job_busy || !o->timer_closed)
        return;
    (void)close(o->fd); /* Only read from. */
    free((void *)(uintptr_t)o->image.conf.data);
    free(o->chunk);
    free(o);
    peers_unref(p);
}

static void out_timer_closed(uv_handle_t *handle)
{
    struct image_out *o = handle->data;
    o->timer_closed = true;
    out_free(o);
}

/* The end of a transfer; `why` NULL = delivered. */
static void out_end(struct image_out *o, const char *why)
{
    struct peers *p = o->peers;
    if (o->over)
        return;
    o->over = true;
    if (why == NULL)
        LOG_INFO("image delivered", "peer=%llu index=%llu bytes=%llu", (unsigned long long)o->to,
                 (unsigned long long)o->image.index, (unsigned long long)o->size);
    else
        LOG_WARN("image not delivered", "peer=%llu index=%llu sent=%llu bytes=%llu why=%s",
                 (unsigned long long)o->to, (unsigned long long)o->image.index,
                 (unsigned long long)o->offset, (unsigned long long)o->size,
                 log_quote(bytes_str(why)));
    LIST_REMOVE(o, entry);
    dial_cancel(o->dial);
    stream_close(o->stream);
    o->dial = NULL;
    o->stream = NULL;
    uv_close((uv_handle_t *)&o->timer, out_timer_closed);
    if (!p->closing)
        p->config.image_sent(p->config.arg, o->to, o->image.index, why == NULL);
}

static void out_patience_over(uv_timer_t *timer)
{
    out_end(timer->data, "no progress in time");
}

static void out_progress(struct image_out *o, uint64_t patience_ms)
{
    (void)uv_timer_start(&o->timer, out_patience_over, patience_ms, 0);
}

static void job_read(uv_work_t *job)
{
    struct image_out *o = job->data;
    uint64_t left = o->size - o->offset;
    size_t want = left < IMAGE_CHUNK_BYTES ? (size_t)left : IMAGE_CHUNK_BYTES;
    o->chunk_size = pread(o->fd, o->chunk, want, (off_t)o->offset);
    if (o->chunk_size < 0)
        o->chunk_size = -errno;
    else if ((size_t)o->chunk_size != want)
        o->chunk_size = -EIO; /* The file became shorter. */
    else
        o->checksum = checksum_add(o->checksum, o->chunk, want);
}

static void chunk_put(struct image_out *o)
{
    Hf__ImageChunk chunk = HF__IMAGE_CHUNK__INIT;
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    chunk.term = o->term;
    chunk.last_index = o->image.index;
    chunk.last_term = o->image.term;
    chunk.conf_index = o->image.conf_index;
    if (o->offset == 0)
        chunk.conf = pack_binary(o->image.conf);
    chunk.size = o->size;
    chunk.offset = o->offset;
    chunk.data = pack_binary(bytes_of(o->chunk, (size_t)o->chunk_size));
    o->offset += (uint64_t)o->chunk_size;
    chunk.last = o->offset == o->size;
    chunk.checksum = chunk.last ? o->checksum : 0;
    frame.body_case = HF__PEER_FRAME__BODY_IMAGE_CHUNK;
    frame.image_chunk = &chunk;
    pack_add_frame(stream_out(o->stream), &frame.base);
}

static void job_read_done(uv_work_t *job, int status)
{
    struct image_out *o = job->data;
    (void)status; /* Never cancelled. */
    o->job_busy = false;
    if (o->over) {
        out_free(o);
        return;
    }
    if (o->chunk_size < 0) {
        out_end(o, uv_strerror((int)o->chunk_size));
        return;
    }
    chunk_put(o);
    out_progress(o, o->offset == o->size ? RECEIPT_MS : PROGRESS_MS);
}

static void read_next(struct image_out *o)
{
    if (!o->welcome || o->job_busy || o->over || o->offset == o->size)
        return;
    o->job.data = o;
    o->job_busy = true;
    int rv = uv_queue_work(o->peers->config.hub->loop, &o->job, job_read, job_read_done);
    if (rv < 0) {
        o->job_busy = false;
        out_end(o, uv_strerror(rv));
    }
}

static void out_drained(void *arg)
{
    read_next(arg);
}

static int out_frame(void *arg, struct bytes body)
{
    struct image_out *o = arg;
    struct peers *p = o->peers;
    const Hf__PeerFrame *f =
        (const Hf__PeerFrame *)pack_parse(&p->arena, &hf__peer_frame__descriptor, body);
    int rv = -EPROTO;
    if (f != NULL && f->body_case == HF__PEER_FRAME__BODY_HELLO && !o->welcome) {
        rv = peers_judge_answer(p, o->to, o->stream, f->hello);
        if (rv == 0 && !o->over) {
            o->welcome = true;
            out_progress(o, PROGRESS_MS);
            read_next(o);
        }
    } else if (f != NULL && f->body_case == HF__PEER_FRAME__BODY_IMAGE_CHUNK &&
               f->image_chunk->last && f->image_chunk->last_index == o->image.index &&
               o->offset == o->size) {
        rv = 0;
        out_end(o, NULL);
    }
    arena_reset(&p->arena);
    return rv;
}

static void out_ended(void *arg, int status)
{
    struct image_out *o = arg;
    o->stream = NULL;
    out_end(o, status == UV_EOF ? "the receiver closed the connection" : uv_strerror(status));
}

static const struct stream_ops out_ops = {
    .frame = out_frame, .ended = out_ended, .drained = out_drained};

static void out_dialled(void *arg, int status, struct stream *s)
{
    struct image_out *o = arg;
    o->dial = NULL;
    if (status < 0) {
        out_end(o, uv_strerror(status));
        return;
    }
    o->stream = s;
    int rv = stream_start(s, &out_ops, o, PEERS_HELLO_BYTES_MAX, PEERS_USER_TIMEOUT_MS);
    if (rv < 0) {
        out_end(o, uv_strerror(rv));
        return;
    }
    peers_hello(o->peers, s, o->to, true);
    out_progress(o, PEERS_HELLO_MS);
}

static int file_open(const char *path, int *ret_fd, uint64_t *ret_size)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rv = fstat(fd, &st) < 0 ? -errno : st.st_size == 0 ? -ENODATA : 0;
    if (rv < 0) {
        (void)close(fd);
        return rv;
    }
    *ret_fd = fd;
    *ret_size = (uint64_t)st.st_size;
    return 0;
}

int peers_send_image(struct peers *p,
                     uint64_t to,
                     uint64_t term,
                     const struct replica_image *image,
                     const char *path)
{
    int fd = -1;
    uint64_t size = 0;
    struct image_out *o;
    const struct link *l = peers_link(p, to);
    if (l == NULL || p->closing)
        return -ENOENT;
    LIST_FOREACH(o, &p->images_out, entry)
    if (o->to == to)
        return -EBUSY;
    int rv = file_open(path, &fd, &size);
    if (rv < 0)
        return rv;
    o = xcalloc(1, sizeof *o);
    o->peers = p;
    o->to = to;
    o->term = term;
    o->image = *image;
    o->image.conf.data = xmemdup(image->conf.data, image->conf.size);
    o->fd = fd;
    o->size = size;
    o->chunk = xmalloc(IMAGE_CHUNK_BYTES);
    (void)uv_timer_init(p->config.hub->loop, &o->timer); /* Always 0. */
    o->timer.data = o;
    p->n_open++;
    LIST_INSERT_HEAD(&p->images_out, o, entry);
    o->dial = dial_start(p->config.hub, &l->address, PEERS_CONNECT_MS, out_dialled, o);
    return 0;
}

void peers_image_out_cancel(struct peers *p, uint64_t id)
{
    struct image_out *o;
    LIST_FOREACH(o, &p->images_out, entry)
    {
        if (o->to == id) {
            out_end(o, "the node is no member any more");
            return;
        }
    }
}

void peers_images_close(struct peers *p)
{
    struct image_out *o;
    while ((o = LIST_FIRST(&p->images_out)) != NULL)
        out_end(o, "this node is stopping");
}
