/* Open files of `.holdfast/`. */
#include "fs/control_internal.h"

#include "fs/op.h"

#include <stdlib.h>

void control_open(fuse_req_t req, enum control_file file, struct fuse_file_info *fi)
{
    struct control *c = op_fs(req)->control;
    struct control_handle *h = xcalloc(1, sizeof *h);
    h->n_refs = 1;
    h->control = c;
    h->file = file;
    LIST_INSERT_HEAD(&c->handles, h, link);
    if (file == CONTROL_EVENTS)
        control_events_opened(c);
    fi->fh = (uintptr_t)h;
    fi->direct_io = 1;
    fi->keep_cache = 0;
    if (fuse_reply_open(req, fi) < 0)
        control_handle_unref(h);
}

void control_handle_unref(struct control_handle *h)
{
    if (--h->n_refs > 0)
        return;
    LIST_REMOVE(h, link);
    if (h->file == CONTROL_EVENTS)
        control_events_closed(h->control, h);
    buf_deinit(&h->text);
    free(h);
}

void control_release(fuse_req_t req, struct control_handle *h)
{
    control_handle_unref(h);
    (void)fuse_reply_err(req, 0);
}

void control_reply_text(fuse_req_t req, const struct buf *text, size_t size, off_t off)
{
    size_t start = off < 0 || (uint64_t)off > text->size ? text->size : (size_t)off;
    size_t rest = text->size - start;
    const char *data = rest > 0 ? (const char *)text->data + start : NULL;
    (void)fuse_reply_buf(req, data, rest < size ? rest : size);
}

/* A text is taken at offset 0 and read on from there, so that a reader with a small buffer sees
 * one moment. */
void control_read(fuse_req_t req, struct control_handle *h, size_t size, off_t off)
{
    if (h->file == CONTROL_EVENTS) {
        control_events_read(req, h, size, off);
    } else if (off != 0 && h->has_text) {
        control_reply_text(req, &h->text, size, off);
    } else if (h->file == CONTROL_METRICS) {
        h->text.size = 0;
        h->has_text = true;
        process_stats_read(&h->control->process, NULL);
        build_info_write("mount", &h->text);
        control_metrics(h->control->fs, &h->text);
        process_stats_write(&h->control->process, &h->text);
        control_reply_text(req, &h->text, size, off);
    } else {
        control_ask(req, h, size, off);
    }
}
