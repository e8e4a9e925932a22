/* STATFS: `df -i` shows how many locks there may be and how many are held. */
#include "fs/ops.h"

#include "fs/errno_table.h"
#include "fs/op.h"
#include "raftstore/base/buf.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/statvfs.h>

static void on_counts(void *arg, const struct client_reply *reply)
{
    struct op *op = arg;
    int error = errno_of_status(reply->status);
    const Hf__Counts *counts = error == 0 ? reply->query->counts : NULL;
    fuse_req_t request = op_take(op);
    if (request != NULL && counts == NULL) {
        (void)fuse_reply_err(request, error != 0 ? error : EIO);
    } else if (request != NULL) {
        struct statvfs st = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = 255};
        st.f_files = counts->holds_max;
        st.f_ffree = counts->holds_max -
                     (counts->holds < counts->holds_max ? counts->holds : counts->holds_max);
        st.f_favail = st.f_ffree;
        (void)fuse_reply_statfs(request, &st);
    }
    free(op);
}

void ops_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct op *op = xcalloc(1, sizeof *op);
    Hf__Query query = HF__QUERY__INIT;
    (void)ino;
    op_init(op, req, NULL);
    query.what = HF__QUERY__WHAT__COUNTS;
    int error = op->fs->failed
                    ? EIO
                    : errno_of_status(client_query(op->fs->client, &query, op_timeout_ms(op), false,
                                                   on_counts, op));
    if (error != 0) {
        op_reply_errno(op, error);
        free(op);
    }
}
