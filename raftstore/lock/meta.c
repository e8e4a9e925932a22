/* What the nodes tell the table: terms, bounds, their names, the token epoch. */
#include "raftstore/lock/table.h"

struct lock_limits lock_limits_default(void)
{
    return (struct lock_limits){
        .holds_max = 4194304,
        .holds_per_session_max = 131072,
        .waiters_max = 1048576,
        .sessions_max = 65536,
        .directories_max = 65536,
    };
}

enum lock_code op_term_start(struct op *o)
{
    const struct lock_limits *l = &o->c->limits;
    o->t->term = o->c->term;
    if (l->holds_max != 0 || l->holds_per_session_max != 0 || l->waiters_max != 0 ||
        l->sessions_max != 0 || l->directories_max != 0)
        o->t->limits = *l;
    return LOCK_OK;
}

/* The place of a node in the list, or where it would be. */
size_t info_position(const struct lock_table *t, uint64_t node_id)
{
    size_t i = 0;
    while (i < t->n_infos && t->infos[i].node_id < node_id)
        i++;
    return i;
}

enum lock_code op_node_info(struct op *o)
{
    struct lock_table *t = o->t;
    const struct lock_command *c = o->c;
    if (c->host.size > LOCK_HOST_BYTES_MAX)
        return LOCK_INVALID;
    size_t i = info_position(t, c->node_id);
    struct node_info *info = &t->infos[i];
    if (i < t->n_infos && info->node_id == c->node_id) {
        digest_info(t, info, false);
    } else {
        if (t->n_infos == LOCK_NODES_MAX)
            return LOCK_LIMIT;
        memmove(info + 1, info, (t->n_infos - i) * sizeof *info);
        t->n_infos++;
    }
    *info = (struct node_info){.node_id = c->node_id, .host_size = (uint8_t)c->host.size};
    if (c->host.size > 0)
        memcpy(info->host, c->host.data, c->host.size);
    digest_info(t, info, true);
    return LOCK_OK;
}

/* From now on every token is above all that an earlier epoch gave out. */
enum lock_code op_epoch(struct op *o)
{
    struct lock_table *t = o->t;
    uint64_t epoch = o->c->epoch;
    if (epoch > UINT16_MAX || epoch <= t->next_token >> LOCK_TOKEN_EPOCH_SHIFT)
        return LOCK_INVALID;
    t->next_token = epoch << LOCK_TOKEN_EPOCH_SHIFT | 1;
    return LOCK_OK;
}
