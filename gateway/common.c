#include "gateway/common.h"

#include "gateway/owner.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

struct bytes buf_bytes(const struct buf *b)
{
    return bytes_of(b->data, b->size);
}

void buf_set(struct buf *b, struct bytes content)
{
    b->size = 0;
    buf_add(b, content.data, content.size);
}

json_t *owner_json(struct bytes owner)
{
    struct buf text = BUF_INIT;
    if (owner.size == 0)
        return json_null();
    owner_show(owner, &text);
    json_t *v = json_bytes(buf_bytes(&text));
    buf_deinit(&text);
    return v;
}

json_t *deadline_json(const struct gateway *gw, uint64_t deadline_ns)
{
    uint64_t boot_ns = deadline_ns != 0 ? client_deadline_boot_ns(gw->client, deadline_ns) : 0;
    return boot_ns != 0 ? json_deadline(boot_ns) : json_null();
}

json_t *hold_expires_json(const struct gateway *gw, const Hf__Hold *h)
{
    if (h->session_bound)
        return json_null();
    json_t *v = deadline_json(gw, h->deadline_ns);
    if (!json_is_null(v))
        return v;
    json_decref(v); /* Nothing is known of cluster time yet. */
    return json_deadline(clock_boot_ns(clock_system()) + h->remaining_ms * NS_PER_MS);
}

void add_validity(json_t *o, const struct call *call, uint64_t deadline_boot_ns)
{
    uint64_t now = clock_boot_ns(clock_system());
    uint64_t left = deadline_boot_ns > now ? deadline_boot_ns - now : 0;
    uint64_t passed = now - call->boot_ns;
    /* The client's clock may be slower than ours. */
    uint64_t from_request = left > 0 ? left + passed - passed / 128 : 0;
    (void)json_object_set_new(o, "expires_at", json_deadline(now + left));
    (void)json_object_set_new(o, "expires_in_ms", json_integer((json_int_t)(left / NS_PER_MS)));
    (void)json_object_set_new(o, "expires_from_request_ms",
                              json_integer((json_int_t)(from_request / NS_PER_MS)));
}

static int show(const struct call *call,
                struct bytes path,
                const struct bytes *owner,
                client_reply_cb cb,
                void *arg)
{
    struct gateway *gw = call->gw;
    Hf__Query q = HF__QUERY__INIT;
    q.what = HF__QUERY__WHAT__SHOW;
    q.path = pack_binary(path);
    q.brief = true;
    q.own = owner != NULL;
    if (owner != NULL)
        q.owner = pack_binary(*owner);
    return client_query_traced(gw->client, &q, &call->trace, gw->options->timeout_ms, false, cb,
                               arg);
}

int query_lock(const struct call *call, struct bytes path, client_reply_cb cb, void *arg)
{
    return show(call, path, NULL, cb, arg);
}

int query_own(
    const struct call *call, struct bytes path, struct bytes owner, client_reply_cb cb, void *arg)
{
    return show(call, path, &owner, cb, arg);
}

const Hf__Node *reply_lock(const struct client_reply *reply)
{
    const Hf__QueryReply *q = reply->query;
    if (q == NULL || q->n_nodes != 1 || q->nodes[0]->type != WIRE_NODE_LOCK ||
        q->nodes[0]->n_holds == 0)
        return NULL;
    return q->nodes[0];
}
