#include "raftstore/node/access.h"

#include "raftstore/base/log.h"

void access_update(struct access *a, const struct identity *identity, struct access_policy *policy)
{
    a->identity = identity;
    if (identity == NULL || policy == NULL || (a->rights != NULL && a->rights->policy == policy))
        return;
    struct access_rights *old = a->rights;
    a->rights = access_rights_get(policy, identity);
    access_rights_put(old);
}

void access_deinit(struct access *a)
{
    access_rights_put(a->rights);
    a->rights = NULL;
}

static bool allows(const struct access *a, enum policy_verb verb, struct bytes path)
{
    return policy_rights_allow(a->rights->rules, verb, path);
}

static enum access_answer no(struct access_denial *ret, enum policy_verb verb, struct bytes path)
{
    *ret = (struct access_denial){.verb = verb, .path = path};
    return ACCESS_NO;
}

static enum access_answer never(struct access_denial *ret, const char *why)
{
    *ret = (struct access_denial){.why = why};
    return ACCESS_NO;
}

/* By kind. --------------------------------------------------------------------------------- */

static bool is_restricted(const struct identity *identity)
{
    return identity != NULL && identity->kind != IDENTITY_NODE && identity->kind != IDENTITY_CLIENT;
}

/* A mount's sessions are those of the host that its certificate names. */
static bool speaks_for_another(const struct identity *identity, const struct lock_command *c)
{
    return identity->kind == IDENTITY_MOUNT && !bytes_equal(c->host, bytes_str(identity->name));
}

static enum access_answer by_kind(const struct identity *identity,
                                  const struct lock_command *c,
                                  struct access_denial *ret_denial)
{
    if (!is_restricted(identity))
        return ACCESS_YES;
    if (c->op == LOCK_OP_BREAK)
        return never(ret_denial, "only a certificate of kind client may break locks");
    if (c->op == LOCK_OP_SESSION_OPEN && speaks_for_another(identity, c))
        return never(ret_denial, "the certificate speaks for another host");
    return ACCESS_YES;
}

/* Sessions. -------------------------------------------------------------------------------- */

bool access_is_own(const struct access *a, const struct lock_session_view *session)
{
    if (a->rights == NULL)
        return true;
    const char *own = a->rights->host;
    return own[0] != '\0' && bytes_equal(session->host, bytes_str(own));
}

bool access_owns_session(struct access *a, const struct lock_table *table, uint64_t session_id)
{
    struct lock_session_view view;
    if (a->rights == NULL || (session_id != 0 && session_id == a->session_id))
        return true;
    if (!lock_find_session(table, session_id, &view) || !access_is_own(a, &view))
        return false;
    a->session_id = session_id; /* It will not change hands: ids are never used again. */
    return true;
}

bool access_sees_session(const struct access *a, const struct lock_session_view *session)
{
    return access_is_own(a, session) || allows(a, POLICY_READ, bytes_of(NULL, 0));
}

static enum access_answer
judge_open(const struct access *a, const struct lock_command *c, struct access_denial *ret_denial)
{
    if (!policy_rights_any(a->rights->rules))
        return never(ret_denial, "the policy allows this certificate nothing");
    if (speaks_for_another(a->identity, c))
        return never(ret_denial, "the certificate speaks for another host");
    if (a->rights->host[0] == '\0')
        return never(ret_denial, "the name in the certificate is too long for a session");
    return a->identity->kind == IDENTITY_MOUNT ? ACCESS_YES : ACCESS_YES_HOST;
}

/* A session that a client knows of was opened by an entry that its leader, and each one after it
 * that is ready, has applied. */
static enum access_answer judge_session(struct access *a,
                                        const struct access_state *state,
                                        const struct lock_command *c,
                                        struct access_denial *ret_denial)
{
    struct lock_session_view view;
    if (access_owns_session(a, state->table, c->session_id))
        return ACCESS_YES;
    *ret_denial = (struct access_denial){0};
    if (!lock_find_session(state->table, c->session_id, &view))
        return state->ready ? ACCESS_NO_SESSION : ACCESS_LATER;
    ret_denial->why = "the session is another certificate's";
    return ACCESS_NO_SESSION;
}

/* Paths. ----------------------------------------------------------------------------------- */

static enum access_answer judge_paths(const struct access *a,
                                      const struct lock_command *c,
                                      unsigned from,
                                      enum policy_verb verb,
                                      struct access_denial *ret_denial)
{
    for (unsigned i = from; i < c->n_paths; i++)
        if (!allows(a, verb, c->paths[i]))
            return no(ret_denial, verb, c->paths[i]);
    return ACCESS_YES;
}

struct own_search {
    struct access *a;
    const struct lock_table *table;
    struct bytes owner;
    bool any;
    bool foreign;
};

static bool own_visit(void *arg, const struct lock_hold_view *h)
{
    struct own_search *s = arg;
    if (!bytes_equal(h->owner, s->owner))
        return true;
    s->any = true;
    s->foreign = !access_owns_session(s->a, s->table, h->session_id);
    return !s->foreign;
}

/* Does a RELEASE name only what came from sessions of its own?  That can be given back whatever the
 * policy says by now: it would lie there for nobody. */
static bool releases_own(struct access *a,
                         const struct access_state *state,
                         const struct lock_command *c,
                         const struct lock_hold_view *hold)
{
    struct lock_hold_view found;
    struct bytes path;
    if (hold == NULL && c->token != 0 && lock_find_token(state->table, c->token, &found, &path))
        hold = &found;
    if (c->token != 0)
        return hold != NULL && access_owns_session(a, state->table, hold->session_id);
    struct own_search s = {.a = a, .table = state->table, .owner = c->owner};
    struct lock_node_view node = lock_lookup(state->table, c->paths[0]);
    if (node.type == LOCK_NODE_LOCK)
        lock_node_holds(state->table, &node, own_visit, &s);
    return s.any && !s.foreign;
}

/* A command about a hold. */
static enum access_answer judge_hold(struct access *a,
                                     const struct access_state *state,
                                     const struct lock_command *c,
                                     struct access_denial *ret_denial)
{
    enum policy_verb verb = c->op == LOCK_OP_BREAK ? POLICY_BREAK : POLICY_ACQUIRE;
    enum access_answer yes = ACCESS_YES;
    struct lock_hold_view hold;
    struct bytes path = c->n_paths > 0 ? c->paths[0] : bytes_of(NULL, 0);
    bool anywhere = c->token != 0 && (c->flags & LOCK_F_ANYWHERE) != 0;
    bool found = anywhere && lock_find_token(state->table, c->token, &hold, &path);
    if (c->n_paths == 0)
        return no(ret_denial, verb, path);
    if (anywhere && !found) {
        if (!state->ready)
            return ACCESS_LATER;
        yes = ACCESS_YES_BOUND;
    }
    if (!allows(a, verb, path) &&
        !(c->op == LOCK_OP_RELEASE && releases_own(a, state, c, found ? &hold : NULL))) {
        (void)no(ret_denial, verb, path);
        ret_denial->is_secret = found;
        return ACCESS_NO;
    }
    enum access_answer rest = judge_paths(a, c, 1, verb, ret_denial);
    return rest == ACCESS_YES ? yes : rest;
}

static enum access_answer by_policy(struct access *a,
                                    const struct access_state *state,
                                    const struct lock_command *c,
                                    struct access_denial *ret_denial)
{
    if (c->op == LOCK_OP_SESSION_OPEN)
        return judge_open(a, c, ret_denial);
    enum access_answer answer = judge_session(a, state, c, ret_denial);
    if (answer != ACCESS_YES)
        return answer;
    switch (c->op) {
    case LOCK_OP_SESSION_KEEPALIVE:
    case LOCK_OP_SESSION_CLOSE:
    case LOCK_OP_CANCEL:
        return ACCESS_YES;
    case LOCK_OP_ACQUIRE:
    case LOCK_OP_MKDIR:
    case LOCK_OP_RMDIR:
    case LOCK_OP_SETATTR:
        return judge_paths(a, c, 0, POLICY_ACQUIRE, ret_denial);
    case LOCK_OP_RENEW:
    case LOCK_OP_RELEASE:
    case LOCK_OP_CONVERT:
    case LOCK_OP_NOTE:
    case LOCK_OP_BREAK:
    case LOCK_OP_LINK:
    case LOCK_OP_RENAME:
        return judge_hold(a, state, c, ret_denial);
    default: /* The nodes' own. */
        return never(ret_denial, "it is no command of clients");
    }
}

enum access_answer access_command(struct access *a,
                                  const struct access_state *state,
                                  const struct lock_command *command,
                                  struct access_denial *ret_denial)
{
    if (a->rights == NULL)
        return by_kind(a->identity, command, ret_denial);
    return state->leads ? by_policy(a, state, command, ret_denial) : ACCESS_YES;
}

enum access_answer access_admin(const struct access *a, struct access_denial *ret_denial)
{
    if (a->rights == NULL)
        return is_restricted(a->identity)
                   ? never(ret_denial, "only a certificate of kind client may do that")
                   : ACCESS_YES;
    if (allows(a, POLICY_ADMIN, bytes_of(NULL, 0)))
        return ACCESS_YES;
    return no(ret_denial, POLICY_ADMIN, bytes_of(NULL, 0));
}

/* Denials. --------------------------------------------------------------------------------- */

/* In single quotes: the sentence stands in log lines, between double ones. */
static void add_path(const char *verb, struct bytes path, struct buf *out)
{
    const char *quoted = log_quote(path);
    buf_printf(out, "%s '%.*s'", verb, (int)strlen(quoted) - 2, quoted + 1);
}

static void add_sentence(const struct access *a, const struct access_denial *d, struct buf *out)
{
    if (d->why != NULL) {
        buf_add(out, d->why, strlen(d->why));
        return;
    }
    buf_printf(out, "the policy does not let %s/%s ", identity_kind_name(a->identity->kind),
               a->identity->name);
    if (d->verb == POLICY_ADMIN)
        buf_printf(out, "run the cluster (admin on '/')");
    else if (d->is_secret)
        buf_printf(out, "%s where the hold with this token stands", policy_verb_name(d->verb));
    else if (d->path.size == 0)
        buf_printf(out, "%s the root", policy_verb_name(d->verb));
    else
        add_path(policy_verb_name(d->verb), d->path, out);
}

static bool may_write_line(struct access_log *log, uint64_t now_ms)
{
    uint64_t second = now_ms / 1000;
    if (second != log->second) {
        log->second = second;
        log->n_lines = 0;
    }
    if (log->n_lines >= ACCESS_LINES_MAX) {
        log->suppressed++;
        return false;
    }
    log->n_lines++;
    return true;
}

void access_denied(struct access_log *log,
                   uint64_t now_ms,
                   const struct access *a,
                   const struct access_denial *d,
                   const char *client,
                   struct buf *ret_sentence)
{
    size_t begin = ret_sentence->size;
    log->denied++;
    add_sentence(a, d, ret_sentence);
    if (!may_write_line(log, now_ms))
        return;
    struct bytes why = bytes_of(ret_sentence->data + begin, ret_sentence->size - begin);
    LOG_WARN("denied", "client=%s certificate=%s/%s verb=%s path=%s why=%s%s%.0llu", client,
             identity_kind_name(a->identity->kind), a->identity->name,
             d->why == NULL ? policy_verb_name(d->verb) : "-", log_quote(d->path), log_quote(why),
             log->suppressed > 0 ? " suppressed=" : "", (unsigned long long)log->suppressed);
    log->suppressed = 0;
}
