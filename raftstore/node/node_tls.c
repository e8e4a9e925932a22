/* The certificates of a node: loading, renewing, and the warning before they end. */
#include "raftstore/node/node_internal.h"

#include "raftstore/base/clock.h"
#include "raftstore/base/log.h"

#include <errno.h>
#include <stdlib.h>

#define EXPIRY_WARN_S (14 * 86400)
#define EXPIRY_TELL_S 86400

static int64_t wall_s(void)
{
    return (int64_t)(clock_wall_ns(clock_system()) / NS_PER_S);
}

/* It must be this node's, and good now: nobody would let it in otherwise. */
static int check(const struct node *n, const struct tls_context *tls, char **ret_sentence)
{
    const struct identity *own = tls_context_identity(tls);
    if (own->kind == IDENTITY_NODE && own->node_id == n->config.id)
        return tls_context_check_time(tls, wall_s(), ret_sentence);
    struct buf text = BUF_INIT;
    buf_printf(&text, "%s/tls.crt is the certificate of %s/%s, not of node/%llu", n->config.tls,
               identity_kind_name(own->kind), own->name, (unsigned long long)n->config.id);
    buf_add(&text, "", 1);
    *ret_sentence = (char *)text.data;
    return -EINVAL;
}

int node_load_tls(struct node *n, char **ret_sentence)
{
    struct tls_context *tls = NULL;
    *ret_sentence = NULL;
    if (n->config.tls == NULL)
        return 0;
    int rv = tls_context_load(n->config.tls, &tls, ret_sentence);
    if (rv < 0)
        return rv;
    rv = check(n, tls, ret_sentence);
    if (rv == 0) {
        stream_hub_set_tls(&n->hub, tls);
        n->tls_told_s = 0;
        LOG_INFO("certificate loaded", "node=%llu expires=%lld", (unsigned long long)n->config.id,
                 (long long)tls_context_expires_s(tls));
    }
    tls_context_unref(tls);
    return rv;
}

int node_reload_tls(struct node *n, char **ret_sentence)
{
    int rv = node_load_tls(n, ret_sentence);
    if (rv == 0 && n->config.tls != NULL)
        stream_hub_recheck(&n->hub);
    return rv;
}

void node_tls_sweep(struct node *n)
{
    if (n->hub.tls == NULL)
        return;
    int64_t now_s = wall_s(), left_s = tls_context_expires_s(n->hub.tls) - now_s;
    if (left_s > EXPIRY_WARN_S ||
        (n->tls_told_s != 0 && now_s >= n->tls_told_s && now_s - n->tls_told_s < EXPIRY_TELL_S))
        return;
    n->tls_told_s = now_s;
    if (left_s >= 0)
        LOG_WARN("the certificate ends soon",
                 "days=%lld remedy=\"put a new one there and send SIGHUP\"",
                 (long long)(left_s / 86400));
    else
        LOG_ERROR("the certificate has expired: new connections are refused",
                  "remedy=\"put a new one there and send SIGHUP\"");
}
