/* Receiving an image: chunks go to a file in the worker pool, one at a time; while one is being
 * written, nothing more is read from the connection (that is the flow control).  After the last
 * one the checksum is compared, the file is made durable and verified, and only then the receipt
 * leaves and the node hears of it.  One image at a time is received. */
#include "raftstore/node/peers_internal.h"

#include "raftstore/base/log.h"
#include "raftstore/node/checksum.h"
#include "raftstore/wire/frame.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#define IMAGE_BYTES_MAX (UINT64_C(1) << 40)
#define CONF_BYTES_MAX  (64u * 1024u)

struct image_in {
    struct peers *peers;
    struct inlink *inlink; /* NULL: the connection is gone. */
    uint64_t from;
    uint64_t term;
    struct replica_image image; /* conf is owned. */
    char path[PATH_MAX];
    int fd; /* -1 until the first chunk is written. */
    uint64_t size;
    uint64_t received;
    uint64_t checksum;
    uint64_t checksum_told;
    uint8_t *chunk; /* The job's. */
    size_t chunk_size;
    bool last;
    int status;
    char *sentence; /* From the check. */
    uv_work_t job;
    bool job_busy;
};

static void in_free(struct image_in *i, bool keep_file)
{
    struct peers *p = i->peers;
    if (i->fd >= 0)
        (void)close(i->fd); /* Its data was fsynced, or is thrown away. */
    if (!keep_file)
        (void)unlink(i->path); /* May not exist yet; leftovers are removed at the next start. */
    free((void *)(uintptr_t)i->image.conf.data);
    free(i->chunk);
    free(i->sentence);
    if (i->inlink != NULL)
        i->inlink->in = NULL;
    p->image_in = NULL;
    free(i);
    peers_unref(p);
}

static int write_all(int fd, const uint8_t *data, size_t size, uint64_t offset)
{
    while (size > 0) {
        ssize_t n = pwrite(fd, data, size, (off_t)offset);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            data += n;
            size -= (size_t)n;
            offset += (uint64_t)n;
        }
    }
    return 0;
}

static int file_finish(struct image_in *i)
{
    if (i->checksum != i->checksum_told)
        return -EBADMSG;
    if (fsync(i->fd) < 0)
        return -errno;
    int rv = close(i->fd);
    i->fd = -1;
    if (rv < 0)
        return -errno;
    if (i->peers->config.image_check == NULL)
        return 0;
    return i->peers->config.image_check(i->path, &i->image, &i->sentence);
}

static void job_write(uv_work_t *job)
{
    struct image_in *i = job->data;
    if (i->fd < 0)
        i->fd = open(i->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (i->fd < 0) {
        i->status = -errno;
        return;
    }
    i->status = write_all(i->fd, i->chunk, i->chunk_size, i->received);
    i->checksum = checksum_add(i->checksum, i->chunk, i->chunk_size);
    i->received += i->chunk_size;
    if (i->status == 0 && i->last)
        i->status = file_finish(i);
}

static void in_log_failure(const struct image_in *i)
{
    LOG_ERROR("receiving an image failed", "peer=%llu index=%llu file=%s why=%s",
              (unsigned long long)i->from, (unsigned long long)i->image.index,
              log_quote(bytes_str(i->path)),
              log_quote(bytes_str(i->sentence != NULL     ? i->sentence
                                  : i->status == -EBADMSG ? "the checksum is wrong"
                                                          : uv_strerror(i->status))));
}

static void in_receipt(struct inlink *in, const struct image_in *i)
{
    Hf__ImageChunk chunk = HF__IMAGE_CHUNK__INIT;
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    chunk.last_index = i->image.index;
    chunk.offset = chunk.size = i->size;
    chunk.last = true;
    frame.body_case = HF__PEER_FRAME__BODY_IMAGE_CHUNK;
    frame.image_chunk = &chunk;
    pack_add_frame(stream_out(in->stream), &frame.base);
}

static void job_write_done(uv_work_t *job, int status)
{
    struct image_in *i = job->data;
    struct peers *p = i->peers;
    struct inlink *in = i->inlink;
    (void)status; /* Never cancelled. */
    i->job_busy = false;
    if (i->status < 0) {
        in_log_failure(i);
        in_free(i, false);
        if (in != NULL)
            peers_inlink_close(in); /* The sender sees it, and Raft asks again later. */
        return;
    }
    if (p->closing || (in == NULL && !i->last)) {
        in_free(i, false);
        return;
    }
    if (in != NULL)
        in->begin_ms = uv_now(p->config.hub->loop);
    if (!i->last) {
        stream_resume(in->stream);
        return;
    }
    if (in != NULL) {
        in_receipt(in, i);
        in->in = NULL; /* What comes behind the image must not reach it. */
        i->inlink = NULL;
        stream_resume(in->stream); /* The sender closes it; or it is closed in here. */
    }
    LOG_INFO("image received", "peer=%llu index=%llu bytes=%llu", (unsigned long long)i->from,
             (unsigned long long)i->image.index, (unsigned long long)i->size);
    p->config.image_received(p->config.arg, i->from, i->term, &i->image, i->path);
    in_free(i, true);
}

/* The first chunk: is the image welcome?  Return: 0, or a negative errno. */
static int in_begin(struct inlink *in, const Hf__ImageChunk *c)
{
    struct peers *p = in->peers;
    if (c->offset != 0 || c->size == 0 || c->size > IMAGE_BYTES_MAX || c->conf.len == 0 ||
        c->conf.len > CONF_BYTES_MAX || c->last_index == 0)
        return -EPROTO;
    if (p->image_in != NULL)
        return -EBUSY;
    struct image_in *i = xcalloc(1, sizeof *i);
    if (!p->config.image_wanted(p->config.arg, in->id, c->last_index, i->path, sizeof i->path)) {
        free(i);
        return -EALREADY;
    }
    i->peers = p;
    i->inlink = in;
    i->from = in->id;
    i->term = c->term;
    i->image.index = c->last_index;
    i->image.term = c->last_term;
    i->image.conf_index = c->conf_index;
    i->image.conf = bytes_of(xmemdup(c->conf.data, c->conf.len), c->conf.len);
    i->size = c->size;
    i->fd = -1;
    i->chunk = xmalloc(IMAGE_CHUNK_BYTES);
    in->in = p->image_in = i;
    p->n_open++;
    return 0;
}

int peers_image_chunk(struct inlink *in, const Hf__ImageChunk *c)
{
    int rv = in->in == NULL ? in_begin(in, c) : 0;
    if (rv < 0)
        return rv;
    struct image_in *i = in->in;
    bool last = c->offset + c->data.len == i->size;
    if (i->job_busy || c->offset != i->received || c->size != i->size ||
        c->last_index != i->image.index || c->last_term != i->image.term ||
        c->conf_index != i->image.conf_index || c->data.len == 0 ||
        c->data.len > IMAGE_CHUNK_BYTES || c->data.len > i->size - i->received || c->last != last)
        return -EPROTO;
    memcpy(i->chunk, c->data.data, c->data.len);
    i->chunk_size = c->data.len;
    i->last = last;
    i->checksum_told = c->checksum;
    i->job.data = i;
    i->job_busy = true;
    stream_pause(in->stream);
    in->begin_ms = uv_now(in->peers->config.hub->loop);
    rv = uv_queue_work(in->peers->config.hub->loop, &i->job, job_write, job_write_done);
    if (rv < 0)
        i->job_busy = false;
    return rv;
}

void peers_image_in_ended(struct inlink *in)
{
    struct image_in *i = in->in;
    if (i == NULL)
        return;
    in->in = NULL;
    i->inlink = NULL;
    if (!i->job_busy)
        in_free(i, false);
}

bool peers_image_in_stuck(const struct inlink *in, uint64_t now_ms)
{
    return in->image_stream && (in->in == NULL || !in->in->job_busy) &&
           now_ms - in->begin_ms > 10000;
}
