/* What several handlers share. */
#ifndef HOLDFAST_GATEWAY_COMMON_H
#define HOLDFAST_GATEWAY_COMMON_H

#include "gateway/call.h"

/* An owner as a caller may see it; an empty one is null. */
json_t *owner_json(struct bytes owner);

/* A hold's deadline as an instant of this machine's wall clock; one that hangs on a session has
 * none: null. */
json_t *hold_expires_json(const struct gateway *gw, const Hf__Hold *h);

/* The same for a deadline in cluster time; 0 = unknown: null. */
json_t *deadline_json(const struct gateway *gw, uint64_t deadline_ns);

/* How long a hold that was granted or renewed for this call can be relied on: adds expires_at,
 * expires_in_ms and expires_from_request_ms (openapi.json tells what they mean). */
void add_validity(json_t *o, const struct call *call, uint64_t deadline_boot_ns);

/* Ask for all about one path (of very many holds, for the first thousand), for a call. Return: as
 * client_query(). */
int query_lock(const struct call *call, struct bytes path, client_reply_cb cb, void *arg);

/* The same, with this owner's holds only. */
int query_own(
    const struct call *call, struct bytes path, struct bytes owner, client_reply_cb cb, void *arg);

/* The node of such a reply; NULL: there is none, or no hold to tell of. */
const Hf__Node *reply_lock(const struct client_reply *reply);

struct bytes buf_bytes(const struct buf *b);
void buf_set(struct buf *b, struct bytes content);

#endif
