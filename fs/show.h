/* Ask the cluster what stands at a path: a linearizable read for a FUSE request. */
#ifndef HOLDFAST_FS_SHOW_H
#define HOLDFAST_FS_SHOW_H

#include "fs/op.h"

/* Ask; `cb` gets what client_query() gives, with reply->query->nodes[0] present on status 0.
 *
 * Return: 0; positive errno when it could not even be asked (`cb` does not come). */
int show_path(const struct op *op, const char *path, client_reply_cb cb, void *arg);

/* The node of a reply.
 *
 * @ret_error: positive errno when there is none.
 * Return: NULL on error. */
const Hf__Node *show_node(const struct client_reply *reply, int *ret_error);

#endif
