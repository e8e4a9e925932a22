/* What clients may do: the listener's side of access.h. */
#include "raftstore/node/listener_internal.h"

#include "raftstore/base/clock.h"

struct access *conn_access(struct conn *c)
{
    access_update(&c->access, stream_identity(c->stream), c->listener->policy);
    return &c->access;
}

void listener_set_policy(struct listener *l, struct access_policy *policy)
{
    struct access_policy *old = l->policy;
    l->policy = access_policy_ref(policy);
    if (old != NULL) {
        l->policy_index = l->config.applied_index(l->config.arg);
        access_policy_unref(old);
    }
}

static void denied(struct conn *c, const struct access_denial *denial, struct buf *ret_sentence)
{
    struct listener *l = c->listener;
    char name[64];
    size_t begin = ret_sentence->size;
    access_denied(&l->denials, clock_mono_ns(l->config.clock) / NS_PER_MS, &c->access, denial,
                  stream_peer_name(c->stream, name, sizeof name), ret_sentence);
    conn_audit_denied(c, denial->why == NULL ? policy_verb_name(denial->verb) : NULL, denial->path,
                      bytes_of(ret_sentence->data + begin, ret_sentence->size - begin));
    buf_add(ret_sentence, "", 1);
}

/* The command with one field set anew: of one that comes twice the last counts. */
static struct bytes append(struct listener *l, struct bytes command, struct bytes field)
{
    l->changed.size = 0;
    buf_add(&l->changed, command.data, command.size);
    buf_add(&l->changed, field.data, field.size);
    return bytes_of(l->changed.data, l->changed.size);
}

static struct bytes with_flags(struct listener *l, struct bytes command, uint32_t flags)
{
    uint8_t field[8] = {2 << 3 | 0}; /* Command.flags */
    size_t n = 1;
    for (; n == 1 || flags > 0; flags >>= 7)
        field[n++] = (uint8_t)((flags & 0x7f) | (flags > 0x7f ? 0x80 : 0));
    return append(l, command, bytes_of(field, n));
}

static struct bytes with_host(struct listener *l, struct bytes command, const char *host)
{
    const unsigned tag = 19 << 3 | 2; /* Command.host */
    uint8_t field[3 + LOCK_HOST_BYTES_MAX] = {(tag & 0x7f) | 0x80, tag >> 7};
    size_t size = strlen(host); /* At most LOCK_HOST_BYTES_MAX, below 128. */
    field[2] = (uint8_t)size;
    memcpy(field + 3, host, size);
    return append(l, command, bytes_of(field, 3 + size));
}

enum access_answer conn_may_command(struct conn *c,
                                    const struct lock_command *command,
                                    struct bytes *bytes,
                                    struct buf *ret_sentence)
{
    struct listener *l = c->listener;
    struct access *a = conn_access(c);
    struct access_state state = {0};
    struct access_denial denial;
    if (a->rights != NULL)
        state = l->config.state(l->config.arg);
    enum access_answer answer = access_command(a, &state, command, &denial);
    switch (answer) {
    case ACCESS_YES_BOUND:
        *bytes = with_flags(l, *bytes, command->flags & ~LOCK_F_ANYWHERE);
        return ACCESS_YES;
    case ACCESS_YES_HOST:
        *bytes = with_host(l, *bytes, a->rights->host);
        return ACCESS_YES;
    case ACCESS_NO_SESSION:
        if (denial.why != NULL)
            denied(c, &denial, ret_sentence);
        break;
    case ACCESS_NO:
        denied(c, &denial, ret_sentence);
        break;
    case ACCESS_YES:
    case ACCESS_LATER:
        break;
    }
    return answer;
}

bool conn_may_query(struct conn *c, const Hf__Query *q, bool answered, struct buf *ret_sentence)
{
    struct listener *l = c->listener;
    struct access *a = conn_access(c);
    struct access_denial denial;
    if (a->rights == NULL)
        return true;
    const struct lock_table *table = answered ? l->config.state(l->config.arg).table : NULL;
    if (access_query(a, table, q, &denial) == ACCESS_YES)
        return true;
    denied(c, &denial, ret_sentence);
    return false;
}

bool conn_may_admin(struct conn *c, struct buf *ret_sentence)
{
    struct access_denial denial;
    if (access_admin(conn_access(c), &denial) == ACCESS_YES)
        return true;
    denied(c, &denial, ret_sentence);
    return false;
}

const struct lock_effect *
conn_filter(void *arg, const struct lock_effect *effect, struct lock_effect *room)
{
    struct conn *c = arg;
    struct listener *l = c->listener;
    struct access *a = conn_access(c);
    if (a->rights == NULL)
        return effect;
    return access_effect(a, l->config.state(l->config.arg).table, c->sub->session_id, effect, room);
}
