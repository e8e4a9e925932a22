#include "fs/show.h"

#include "fs/errno_table.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <errno.h>

int show_path(const struct op *op, const char *path, client_reply_cb cb, void *arg)
{
    Hf__Query query = HF__QUERY__INIT;
    query.what = HF__QUERY__WHAT__SHOW;
    query.path = pack_binary(bytes_str(path));
    query.brief = true;
    if (op->fs->failed)
        return EIO;
    int r = client_query(op->fs->client, &query, op_timeout_ms(op), false, cb, arg);
    return errno_of_status(r);
}

const Hf__Node *show_node(const struct client_reply *reply, int *ret_error)
{
    *ret_error = errno_of_status(reply->status);
    if (*ret_error != 0)
        return NULL;
    if (reply->query == NULL || reply->query->n_nodes == 0) {
        *ret_error = EIO;
        return NULL;
    }
    return reply->query->nodes[0];
}
