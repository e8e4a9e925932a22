/* Operators' requests.
 *
 * SNAPSHOT: a linearizable read says that the state is fresh enough; the shadow writes it to a file
 * beside the store; the worker pool reads that chunk by chunk, each when the client has taken the
 * one before; then the file is deleted.  One at a time. */
#include "raftstore/node/node_internal.h"

#include "raftstore/base/clock.h"
#include "raftstore/base/log.h"
#include "raftstore/wire/frame.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Membership. ------------------------------------------------------------------------------ */

static enum replica_status
member_add(struct node *n, uint64_t now_ns, uint64_t id, const Hf__Admin *a, const char **ret_text)
{
    struct address raft, client;
    char text[NODE_ADDRESS_BYTES];
    if (a->node_id == 0 || address_parse(a->raft_address, &raft) < 0 || raft.is_unix ||
        raft.port == 0 || address_parse(a->client_address, &client) < 0) {
        *ret_text = "a member needs an id and two addresses: ID, RAFTHOST:PORT, CLIENTHOST:PORT";
        return REPLICA_BAD;
    }
    (void)snprintf(text, sizeof text, "%s,%s", a->raft_address, a->client_address);
    return replica_member_add(n->replica, now_ns, id, a->node_id, text);
}

static enum replica_status compact(struct node *n, uint64_t id, const char **ret_text)
{
    if (n->n_compacts >= NODE_COMPACTS_MAX) {
        *ret_text = "many of these wait already";
        return REPLICA_BUSY;
    }
    n->compacts[n->n_compacts].request_id = id;
    n->compacts[n->n_compacts++].begin_ms = uv_now(n->config.loop);
    replica_want_snapshot(n->replica);
    return REPLICA_OK;
}

void admin_compacted(struct node *n, uint64_t index)
{
    for (unsigned i = 0; i < n->n_compacts; i++)
        listener_admin_done(n->listener, n->compacts[i].request_id, REPLICA_OK, "the log was cut",
                            index);
    n->n_compacts = 0;
}

void admin_sweep(struct node *n)
{
    struct replica_view v = replica_view(n->replica);
    if (n->n_compacts > 0 && v.snapshot_index == v.applied_index)
        admin_compacted(n, v.snapshot_index); /* There was nothing to do. */
    while (n->n_compacts > 0 &&
           uv_now(n->config.loop) - n->compacts[0].begin_ms > NODE_COMPACT_MS) {
        listener_admin_done(n->listener, n->compacts[0].request_id, REPLICA_NO_QUORUM,
                            "the snapshot was not finished in time", 0);
        n->n_compacts--;
        memmove(n->compacts, n->compacts + 1, n->n_compacts * sizeof n->compacts[0]);
    }
}

/* Snapshots for operators. ----------------------------------------------------------------- */

static void export_end(struct node *n)
{
    struct node_export *e = &n->export;
    if (e->fd >= 0)
        (void)close(e->fd); /* Only read from. */
    (void)unlink(e->path);  /* Leftovers are removed at the next start. */
    free(e->chunk);
    e->chunk = NULL;
    e->active = false;
}

static void export_fail(struct node *n, const char *why)
{
    LOG_WARN("snapshot for a client failed", "why=%s", log_quote(bytes_str(why)));
    listener_admin_done(n->listener, n->export.request_id, REPLICA_REFUSED, why, 0);
    export_end(n);
}

static void export_job(uv_work_t *job)
{
    struct node_export *e = job->data;
    e->chunk_size = pread(e->fd, e->chunk, IMAGE_CHUNK_BYTES, (off_t)e->offset);
    if (e->chunk_size < 0)
        e->chunk_size = -errno;
    else if (e->chunk_size == 0)
        e->chunk_size = -EIO; /* The file became shorter. */
}

static void export_put(struct node *n)
{
    struct node_export *e = &n->export;
    Hf__SnapshotChunk chunk = HF__SNAPSHOT_CHUNK__INIT;
    chunk.offset = e->offset;
    chunk.data = pack_binary(bytes_of(e->chunk, (size_t)e->chunk_size));
    chunk.size = e->size;
    chunk.index = e->index;
    e->offset += (uint64_t)e->chunk_size;
    chunk.last = e->offset >= e->size;
    bool there = listener_chunk(n->listener, e->request_id, &chunk);
    if (!there || chunk.last)
        export_end(n);
}

static void export_job_done(uv_work_t *job, int status)
{
    struct node_export *e = job->data;
    struct node *n = (struct node *)((char *)e - offsetof(struct node, export));
    (void)status; /* Never cancelled. */
    e->reading = false;
    if (n->closing) {
        export_end(n);
        node_unref(n);
        return;
    }
    if (e->chunk_size < 0)
        export_fail(n, uv_strerror((int)e->chunk_size));
    else
        export_put(n);
}

static void export_read(struct node *n)
{
    struct node_export *e = &n->export;
    e->job.data = e;
    e->reading = true;
    int rv = uv_queue_work(n->config.loop, &e->job, export_job, export_job_done);
    if (rv < 0) {
        e->reading = false;
        export_fail(n, uv_strerror(rv));
    }
}

static enum replica_status
export_begin(struct node *n, uint64_t now_ns, uint64_t id, const char **ret_text)
{
    struct node_export *e = &n->export;
    if (e->active) {
        *ret_text = "another snapshot is being streamed";
        return REPLICA_BUSY;
    }
    enum replica_status status = replica_read(n->replica, now_ns, id, now_ns + NODE_READ_NS);
    if (status != REPLICA_OK)
        return status;
    *e = (struct node_export){.active = true, .request_id = id, .number = e->number + 1, .fd = -1};
    return REPLICA_OK;
}

/* The state as of now is to be written. */
static void export_write(struct node *n)
{
    struct node_export *e = &n->export;
    struct raft_buffer conf;
    struct replica_view v = replica_view(n->replica);
    if (raft_configuration_encode(replica_members(n->replica), &conf) != 0) {
        export_fail(n, "the configuration can't be encoded");
        return;
    }
    struct replica_image image = {.index = v.applied_index,
                                  .term = v.term,
                                  .conf_index = v.applied_index,
                                  .conf = bytes_of(conf.base, conf.len)};
    /* A number that no image has, so that the file is recognised as a leftover after a crash. */
    store_image_path(n->store, UINT64_MAX - e->number, true, e->path, sizeof e->path);
    e->index = v.applied_index;
    e->writing = true;
    shadow_snapshot(n->shadow, &image, e->path, lock_digest(replica_table(n->replica)),
                    n->wall_offset_ns);
    raft_free(conf.base);
}

bool admin_read_done(struct node *n, uint64_t request_id, enum replica_status status)
{
    struct node_export *e = &n->export;
    if (!e->active || e->request_id != request_id)
        return false;
    if (status == REPLICA_OK) {
        export_write(n);
    } else {
        listener_admin_done(n->listener, request_id, status, NULL, 0);
        export_end(n);
    }
    return true;
}

bool admin_snapshot_written(struct node *n, const char *path, int status, const char *sentence)
{
    struct node_export *e = &n->export;
    struct stat st;
    if (!e->active || !e->writing || strcmp(path, e->path) != 0)
        return false;
    e->writing = false;
    if (status < 0) {
        export_fail(n, sentence != NULL ? sentence : uv_strerror(status));
        return true;
    }
    e->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (e->fd < 0 || fstat(e->fd, &st) < 0) {
        export_fail(n, uv_strerror(-errno));
        return true;
    }
    e->size = (uint64_t)st.st_size;
    e->chunk = xmalloc(IMAGE_CHUNK_BYTES);
    export_read(n);
    return true;
}

void admin_chunk_taken(void *arg, uint64_t request_id, bool gone)
{
    struct node *n = arg;
    struct node_export *e = &n->export;
    if (!e->active || e->request_id != request_id)
        return;
    if (gone)
        export_end(n); /* Neither written nor read now: it waited for the client. */
    else
        export_read(n);
}

void admin_close(struct node *n)
{
    if (!n->export.active)
        return;
    if (n->export.reading)
        n->n_open++; /* export_job_done() ends it. */
    else
        export_end(n);
}

/* Dispatch. -------------------------------------------------------------------------------- */

enum replica_status admin_begin(
    void *arg, uint64_t now_ns, uint64_t request_id, const Hf__Admin *a, const char **ret_text)
{
    struct node *n = arg;
    if (!node_is_alive(n))
        return REPLICA_STOPPED;
    LOG_INFO("operator's request", "what=%d node=%llu", (int)a->what,
             (unsigned long long)a->node_id);
    switch (a->what) {
    case HF__ADMIN__WHAT__MEMBER_ADD:
        return member_add(n, now_ns, request_id, a, ret_text);
    case HF__ADMIN__WHAT__MEMBER_PROMOTE:
        return replica_member_role(n->replica, now_ns, request_id, a->node_id, true);
    case HF__ADMIN__WHAT__MEMBER_DEMOTE:
        return replica_member_role(n->replica, now_ns, request_id, a->node_id, false);
    case HF__ADMIN__WHAT__MEMBER_REMOVE:
        return replica_member_remove(n->replica, now_ns, request_id, a->node_id);
    case HF__ADMIN__WHAT__TRANSFER:
        return replica_transfer(n->replica, now_ns, request_id, a->node_id);
    case HF__ADMIN__WHAT__SNAPSHOT:
        return export_begin(n, now_ns, request_id, ret_text);
    case HF__ADMIN__WHAT__COMPACT:
        return compact(n, request_id, ret_text);
    default:
        *ret_text = "unknown kind of request";
        return REPLICA_BAD;
    }
}
