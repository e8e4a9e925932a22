/* READ and WRITE. */
#include "fs/ops.h"

#include "fs/act.h"
#include "fs/poller.h"
#include "fs/report.h"
#include "fs/show.h"

#include <errno.h>
#include <stdlib.h>

struct read {
    struct op op;
    off_t off;
    struct handle *handle; /* Referenced: a read may be interrupted and its file closed. */
    size_t size;
};

static void reply_slice(fuse_req_t req, const struct buf *report, size_t size, off_t off)
{
    size_t start = off < 0 || (uint64_t)off > report->size ? report->size : (size_t)off;
    size_t rest = report->size - start;
    const char *data = rest > 0 ? (const char *)report->data + start : NULL;
    (void)fuse_reply_buf(req, data, rest < size ? rest : size);
}

static void on_read(void *arg, const struct client_reply *reply)
{
    struct read *r = arg;
    struct handle *handle = r->handle;
    int error;
    const Hf__Node *node = show_node(reply, &error);
    fuse_req_t request = op_take(&r->op);
    if (request != NULL && node == NULL) {
        (void)fuse_reply_err(request, error);
    } else if (request != NULL && handle_lost(handle)) {
        (void)fuse_reply_err(request, ESTALE); /* While we asked. */
    } else if (request != NULL) {
        handle->report.size = 0;
        handle->has_report = true;
        report_node(node, &handle->report);
        poll_on_read(handle, node, reply->query->index);
        reply_slice(request, &handle->report, r->size, r->off);
    }
    handle_unref(r->op.fs, handle);
    free(r);
}

/* The text is taken at offset 0 and read on from there, so that a reader with a small buffer sees
 * one moment.  It is that of the path: whoever holds it now. */
void ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    struct handle *handle = handle_of(fi);
    (void)ino;
    if (handle_lost(handle)) {
        (void)fuse_reply_err(req, ESTALE);
        return;
    }
    if (off != 0 && handle->has_report) {
        reply_slice(req, &handle->report, size, off);
        return;
    }
    struct read *r = xcalloc(1, sizeof *r);
    r->handle = handle;
    handle_ref(handle);
    r->size = size;
    r->off = off;
    op_init(&r->op, req, NULL);
    int error = show_path(&r->op, handle->inode->path, on_read, r);
    if (error != 0) {
        op_reply_errno(&r->op, error);
        handle_unref(r->op.fs, handle);
        free(r);
    }
}

static void on_written(struct act *a, int error)
{
    fuse_req_t request = error == 0 ? op_take(&a->op) : NULL;
    if (request != NULL)
        (void)fuse_reply_write(request, a->context);
}

/* One write is one command, whatever its offset. */
void ops_write(fuse_req_t req,
               fuse_ino_t ino,
               const char *data,
               size_t size,
               off_t off,
               struct fuse_file_info *fi)
{
    struct handle *handle = handle_of(fi);
    struct command command;
    (void)ino;
    (void)off;
    int r = command_parse(bytes_of(data, size), &command);
    if (r < 0) {
        (void)fuse_reply_err(req, handle_lost(handle) ? ESTALE : -r);
        return;
    }
    if (handle->lost) {
        (void)fuse_reply_err(req, ESTALE);
        return;
    }
    act_start(req, handle->inode->path, handle, &command, size, on_written);
}
