#include <assert.h>
#include <stdlib.h>

#include "tests/model/model.h"

static bool name_ok(const char *p, size_t size)
{
    if (size == 0 || size > 255)
        return false;
    for (size_t i = 0; i < size; i++) {
        if (p[i] == 0)
            return false;
    }
    return !(size == 1 && p[0] == '.') && !(size == 2 && p[0] == '.' && p[1] == '.') &&
           !(size == 9 && memcmp(p, ".holdfast", 9) == 0);
}

bool m_path_ok(struct bytes path)
{
    const char *p = path.data;
    size_t begin = 0;
    unsigned n = 0;
    if (path.size == 0 || path.size > 1023)
        return false;
    for (size_t i = 0; i <= path.size; i++) {
        if (i < path.size && p[i] != '/')
            continue;
        if (!name_ok(p + begin, i - begin))
            return false;
        n++;
        begin = i + 1;
    }
    return n <= 16;
}

/* Where does a path lead? @missing: directories that would have to be made. */
int m_resolve(struct model *m, const struct text *path, bool parents, unsigned *missing)
{
    *missing = 0;
    for (size_t i = 0; i < path->size; i++) {
        if (path->data[i] != '/')
            continue;
        struct text up = {.size = i};
        memcpy(up.data, path->data, i);
        const struct m_node *n = m_node(m, &up);
        if (n == NULL) {
            if (!parents)
                return LOCK_NO_PARENT;
            ++*missing;
        } else if (!n->directory) {
            return LOCK_NOT_DIR;
        }
    }
    return LOCK_OK;
}

void m_make_parents(struct model *m, const struct text *path)
{
    for (size_t i = 0; i < path->size; i++) {
        if (path->data[i] != '/')
            continue;
        struct text up = {.size = i};
        memcpy(up.data, path->data, i);
        if (m_node(m, &up) != NULL)
            continue;
        m_node_add(m, &up, true);
        m_effect(m, LOCK_EFFECT_MKDIR)->uid = m_node(m, &up)->uid;
        m_effect_path(m, &up, 0);
    }
}

void m_make_lock(struct model *m, const struct text *path)
{
    m_make_parents(m, path);
    if (m_node(m, path) == NULL)
        m_node_add(m, path, false);
}

static bool has_token(struct m_hold **at, unsigned n, uint64_t token)
{
    for (unsigned i = 0; i < n; i++) {
        if (at[i]->token == token)
            return true;
    }
    return false;
}

/* The conditions on a hold that is named by its token. */
static bool as_flagged(const struct lock_command *c, const struct m_hold *h)
{
    if ((c->flags & LOCK_F_OWNER) != 0 && !bytes_equal(text_bytes(&h->c.owner), c->owner))
        return false;
    return (c->flags & LOCK_F_UNTOUCHED) == 0 || h->since == h->renewed;
}

/* The holds that a command means: by token all its pieces, by owner all of them. */
static int
targets(struct model *m, const struct lock_command *c, struct m_hold **ret, unsigned *ret_n)
{
    struct m_hold *at[M_HOLDS_MAX];
    *ret_n = 0;
    if (c->n_paths < 1 || !m_path_ok(c->paths[0]) ||
        (c->token == 0 && (c->owner.size < 1 || c->owner.size > 128)))
        return LOCK_INVALID;
    struct text path = text_of(c->paths[0]);
    for (unsigned i = 0; i < m->n_holds && c->token != 0; i++) {
        if ((c->flags & LOCK_F_ANYWHERE) != 0)
            path = m->holds[i]->path;
        if (m->holds[i]->token == c->token)
            break;
        path = text_of(c->paths[0]);
    }
    unsigned n = m_holds_at(m, &path, at);
    if ((c->flags & LOCK_F_ANYWHERE) != 0 && c->token != 0 && !has_token(at, n, c->token))
        n = 0;
    if (n == 0)
        return LOCK_NOT_HELD;
    struct text owner = {0};
    if (c->token == 0)
        owner = text_of(c->owner);
    for (unsigned i = 0; i < n; i++) {
        if (c->token != 0 ? at[i]->token == c->token && as_flagged(c, at[i])
                          : text_equal(&at[i]->c.owner, &owner))
            ret[(*ret_n)++] = at[i];
    }
    return *ret_n > 0 ? LOCK_OK : LOCK_NOT_OWNER;
}

static void answer(struct lock_result *r, const struct m_hold *h)
{
    r->token = h->token;
    r->deadline_ns = m_deadline(h);
    r->ttl_ms = h->ttl;
}

static int renew(struct model *m, const struct lock_command *c, struct lock_result *r)
{
    struct m_hold *own[M_HOLDS_MAX];
    unsigned n;
    int code = targets(m, c, own, &n);
    if (code != LOCK_OK)
        return code;
    uint64_t ttl = c->ttl_ms != 0 ? c->ttl_ms : own[0]->ttl;
    if (own[0]->bound || !m_ttl_ok(ttl))
        return LOCK_INVALID;
    for (unsigned i = 0; i < n; i++) {
        if (own[i]->token == own[0]->token) {
            m_renewed(m, own[i], ttl, (c->flags & LOCK_F_NO_LESS) != 0);
            own[i]->mtime = c->mtime_ns;
            if (own[i]->agent == 0 && m_session(m, own[i]->session_id) == NULL)
                own[i]->session_id = c->session_id;
        }
    }
    m_effect_hold(m, LOCK_EFFECT_RENEWED, own[0]);
    answer(r, own[0]);
    return LOCK_OK;
}

static int release(struct model *m, const struct lock_command *c)
{
    struct m_hold *own[M_HOLDS_MAX];
    unsigned n, k = 0, splits = 0;
    bool posix = m_posix((int)c->kind) && c->token == 0;
    if (c->start > c->end || (unsigned)c->kind > 6)
        return LOCK_INVALID;
    int code = targets(m, c, own, &n);
    if (code == LOCK_INVALID)
        return code;
    for (unsigned i = 0; i < n; i++) {
        if (own[i]->c.start <= c->end && c->start <= own[i]->c.end &&
            (!posix || m_posix(own[i]->kind))) {
            splits += own[i]->c.start < c->start && own[i]->c.end > c->end;
            own[k++] = own[i];
        }
    }
    if (k == 0)
        return posix ? LOCK_OK : code != LOCK_OK ? code : LOCK_NOT_OWNER;
    for (unsigned i = 0; i < k; i++) {
        if (own[i]->c.limit != 0 && (c->start != 0 || c->end != UINT64_MAX))
            return LOCK_INVALID;
    }
    for (unsigned i = 0; i < k && splits > 0; i++) {
        if (!m_room(m, own[i]->session_id, splits, own[i]->bound))
            return LOCK_LIMIT;
    }
    for (unsigned i = 0; i < k; i++)
        m_cut(m, own[i], c->start, c->end);
    return LOCK_OK;
}

static int break_hold(struct model *m, const struct lock_command *c)
{
    struct m_hold *own[M_HOLDS_MAX];
    unsigned n;
    if (c->token == 0)
        return LOCK_INVALID;
    int code = targets(m, c, own, &n);
    for (unsigned i = 0; i < n; i++)
        m_end(m, own[i], LOCK_BROKEN);
    return code;
}

static int note(struct model *m, const struct lock_command *c, struct lock_result *r)
{
    struct m_hold *own[M_HOLDS_MAX];
    unsigned n;
    if (c->note.size > 256)
        return LOCK_INVALID;
    int code = targets(m, c, own, &n);
    if (code != LOCK_OK)
        return code;
    for (unsigned i = 0; i < n; i++) {
        if (own[i]->token == own[0]->token)
            own[i]->note = text_of(c->note);
    }
    m_effect_hold(m, LOCK_EFFECT_NOTED, own[0]);
    answer(r, own[0]);
    return LOCK_OK;
}

static int
convert(struct model *m, struct m_session *s, const struct lock_command *c, struct lock_result *r)
{
    struct m_hold *own[M_HOLDS_MAX];
    unsigned n;
    if (c->mode != 1 && c->mode != 2)
        return LOCK_INVALID;
    bool exclusive = c->mode == LOCK_EXCLUSIVE;
    for (;;) {
        int code = targets(m, c, own, &n);
        if (code != LOCK_OK)
            return code;
        if (own[0]->bound && m_session(m, own[0]->session_id)->lapsed)
            return LOCK_NO_SESSION;
        if ((n > 1 && own[1]->token == own[0]->token) || own[0]->c.limit != 0)
            return LOCK_INVALID;
        struct m_claim claim = own[0]->c;
        struct text path = own[0]->path;
        claim.exclusive = true;
        if (!exclusive || own[0]->c.exclusive || !m_evict(m, &path, &claim))
            break;
        m_settle(m);
    }
    return m_raise_or_lower(m, s, c, own[0], exclusive, r);
}

/* May something new be made at a path? */
static int
place_free(struct model *m, const struct lock_command *c, const struct text *path, unsigned more)
{
    unsigned missing;
    bool parents = (c->flags & LOCK_F_PARENTS) != 0;
    struct m_claim all = {.end = UINT64_MAX, .exclusive = true};
    int code = m_resolve(m, path, parents, &missing);
    if (code == LOCK_OK && m_evict(m, path, &all)) {
        m_settle(m);
        code = m_resolve(m, path, parents, &missing);
    }
    if (code != LOCK_OK)
        return code;
    const struct m_node *n = m_node(m, path);
    if (n != NULL) {
        struct m_hold *at[M_HOLDS_MAX];
        bool used = n->directory || m_holds_at(m, path, at) > 0;
        for (unsigned i = 0; i < m->n_waiters; i++)
            used |= m_stands_at(m->waiters[i], path);
        return used ? LOCK_EXISTS : LOCK_DELAYED;
    }
    if (missing + more > 0 && m_directories(m) + missing + more > m->limits.directories_max)
        return LOCK_LIMIT;
    return LOCK_OK;
}

static int make_directory(struct model *m, struct m_session *s, const struct lock_command *c)
{
    if (c->n_paths < 1 || !m_path_ok(c->paths[0]) || c->perm > 07777)
        return LOCK_INVALID;
    struct text path = text_of(c->paths[0]);
    int code = place_free(m, c, &path, 1);
    struct m_node *n = m_node(m, &path);
    if (code == LOCK_EXISTS && n->directory && n->implicit)
        code = LOCK_OK;
    if (code != LOCK_OK)
        return code;
    if (n == NULL) {
        m_make_parents(m, &path);
        m_node_add(m, &path, true);
        n = m_node(m, &path);
    }
    n->implicit = false;
    n->uid = c->uid;
    n->gid = c->gid;
    n->perm = c->perm;
    n->changed = m->stamp;
    struct lock_effect *e = m_effect(m, LOCK_EFFECT_MKDIR);
    e->session_id = s->id;
    e->uid = n->uid;
    m_effect_path(m, &path, 0);
    return LOCK_OK;
}

static int remove_directory(struct model *m, const struct lock_command *c)
{
    unsigned missing;
    if (c->n_paths < 1 || !m_path_ok(c->paths[0]))
        return LOCK_INVALID;
    struct text path = text_of(c->paths[0]);
    int code = m_resolve(m, &path, false, &missing);
    if (code == LOCK_NOT_DIR)
        return code;
    const struct m_node *n = m_node(m, &path);
    if (n == NULL)
        return LOCK_NOT_FOUND;
    if (!n->directory)
        return LOCK_NOT_DIR;
    if (m_entries(m, &path) > 0)
        return LOCK_NOT_EMPTY;
    m_node_remove(m, &path);
    return LOCK_OK;
}

static int set_attributes(struct model *m, struct m_session *s, const struct lock_command *c)
{
    unsigned missing;
    if (c->n_paths < 1 || (c->paths[0].size > 0 && !m_path_ok(c->paths[0])) ||
        (c->perm > 07777 && c->perm != UINT32_MAX))
        return LOCK_INVALID;
    struct text path = text_of(c->paths[0]);
    if (m_resolve(m, &path, false, &missing) == LOCK_NOT_DIR)
        return LOCK_NOT_DIR;
    struct m_node *n = m_node(m, &path);
    if (n == NULL)
        return LOCK_NOT_FOUND;
    if (!n->directory)
        return LOCK_NOT_DIR;
    if (c->token != 0 && c->token != n->id)
        return LOCK_NOT_FOUND;
    n->uid = c->uid != UINT32_MAX ? c->uid : n->uid;
    n->gid = c->gid != UINT32_MAX ? c->gid : n->gid;
    n->perm = c->perm != UINT32_MAX ? c->perm : n->perm;
    n->changed = m->stamp;
    struct lock_effect *e = m_effect(m, LOCK_EFFECT_SETATTR);
    e->session_id = s->id;
    e->uid = n->uid;
    m_effect_path(m, &path, 0);
    return LOCK_OK;
}

static bool two_paths(const struct lock_command *c)
{
    return c->n_paths == 2 && m_path_ok(c->paths[0]) && m_path_ok(c->paths[1]);
}

static int
link_hold(struct model *m, struct m_session *s, const struct lock_command *c, struct lock_result *r)
{
    struct m_hold *own[M_HOLDS_MAX];
    unsigned n;
    if (!two_paths(c) || (unsigned)c->kind > 6 || c->note.size > 256)
        return LOCK_INVALID;
    struct text to = text_of(c->paths[1]);
    int code = targets(m, c, own, &n);
    if (code != LOCK_OK)
        return code;
    if (own[0]->bound || own[0]->c.start != 0 || own[0]->c.end != UINT64_MAX ||
        m_posix(own[0]->kind) || m_posix((int)c->kind))
        return LOCK_INVALID;
    code = place_free(m, c, &to, 0);
    if (code != LOCK_OK)
        return code;
    if (targets(m, c, own, &n) != LOCK_OK)
        return LOCK_NOT_HELD;
    uint64_t names = 0, at = own[0]->token;
    do {
        names++;
        for (unsigned i = 0; i < m->n_holds; i++) {
            if (m->holds[i]->token == at) {
                at = m->holds[i]->twin;
                break;
            }
        }
    } while (at != 0 && at != own[0]->token);
    if (!m_room(m, s->id, 1, false) || names >= 8)
        return LOCK_LIMIT;
    m_make_lock(m, &to);
    if (own[0]->file == 0)
        own[0]->file = own[0]->token;
    struct m_hold made = *own[0];
    made.path = to;
    if (c->note.size > 0)
        made.note = text_of(c->note);
    if (made.twin == 0)
        made.twin = own[0]->token;
    own[0]->twin = m->next_token;
    made.token = m->next_token++;
    made.session_id = s->id;
    made.since = made.renewed = m->stamp;
    made.agent = 0;
    made.kind = (int)c->kind;
    struct m_hold *h = m_hold_add(m, &made);
    m_effect_hold(m, LOCK_EFFECT_GRANTED, h)->seq = c->seq;
    answer(r, h);
    return LOCK_OK;
}

static int rename_hold(struct model *m, const struct lock_command *c, struct lock_result *r)
{
    struct m_hold *own[M_HOLDS_MAX], *all[M_HOLDS_MAX];
    unsigned n;
    if (!two_paths(c))
        return LOCK_INVALID;
    struct text to = text_of(c->paths[1]);
    int code = targets(m, c, own, &n);
    if (code != LOCK_OK)
        return code;
    if (m_owned(m, &own[0]->path, &own[0]->c.owner, all) != 1 || own[0]->c.start != 0 ||
        own[0]->c.end != UINT64_MAX)
        return LOCK_INVALID;
    code = place_free(m, c, &to, 0);
    if (code == LOCK_OK)
        code = targets(m, c, own, &n);
    if (code != LOCK_OK)
        return code;
    struct text from = own[0]->path;
    m_make_lock(m, &to);
    m_effect_hold(m, LOCK_EFFECT_RENAMED, own[0]);
    m_effect_path(m, &to, 1);
    own[0]->path = to;
    m_touch(m, &from, 0, UINT64_MAX);
    m_refuse_converts(m, &from, own[0]->token, 0);
    answer(r, own[0]);
    return LOCK_OK;
}

static int cancel(struct model *m, struct m_session *s, const struct lock_command *c)
{
    for (unsigned i = 0; i < m->n_waiters; i++) {
        struct m_waiter *w = m->waiters[i];
        if (w->session_id == s->id && w->seq == c->cancel_seq) {
            m_refuse(m, w, LOCK_CANCELED);
            return LOCK_OK;
        }
    }
    return LOCK_NOT_FOUND;
}

static int
run(struct model *m, struct m_session *s, const struct lock_command *c, struct lock_result *r)
{
    switch (c->op) {
    case LOCK_OP_ACQUIRE:
        return m_acquire(m, s, c, r);
    case LOCK_OP_CANCEL:
        return cancel(m, s, c);
    case LOCK_OP_RENEW:
        return renew(m, c, r);
    case LOCK_OP_RELEASE:
        return release(m, c);
    case LOCK_OP_CONVERT:
        return convert(m, s, c, r);
    case LOCK_OP_NOTE:
        return note(m, c, r);
    case LOCK_OP_BREAK:
        return break_hold(m, c);
    case LOCK_OP_MKDIR:
        return make_directory(m, s, c);
    case LOCK_OP_RMDIR:
        return remove_directory(m, c);
    case LOCK_OP_SETATTR:
        return set_attributes(m, s, c);
    case LOCK_OP_LINK:
        return link_hold(m, s, c, r);
    case LOCK_OP_RENAME:
        return rename_hold(m, c, r);
    default:
        return LOCK_INVALID;
    }
}

/* Sessions and what nodes tell. */

static int session_open(struct model *m, const struct lock_command *c, struct lock_result *r)
{
    if (!m_ttl_ok(c->ttl_ms) || c->host.size > 64)
        return LOCK_INVALID;
    if (m->n_sessions >= m->limits.sessions_max) {
        struct m_session *oldest = NULL;
        for (unsigned i = 0; i < m->n_sessions; i++) {
            struct m_session *s = m->sessions[i];
            if (s->lapsed && (oldest == NULL || s->deadline < oldest->deadline))
                oldest = s; /* They are by id. */
        }
        if (oldest == NULL)
            return LOCK_LIMIT;
        m_session_end(m, oldest);
        if (m->n_sessions >= m->limits.sessions_max)
            return LOCK_LIMIT;
    }
    struct m_session *s = calloc(1, sizeof *s);
    s->id = (c->agent & 0x7fffff) << 40 | m->next_session++;
    s->ttl = c->ttl_ms;
    s->opened = m->stamp;
    s->deadline = m_after(m->stamp, s->ttl);
    s->host = text_of(c->host);
    assert(m->n_sessions < M_SESSION_MAX);
    unsigned at = m->n_sessions++;
    for (; at > 0 && m->sessions[at - 1]->id > s->id; at--)
        m->sessions[at] = m->sessions[at - 1];
    m->sessions[at] = s;
    r->session_id = s->id;
    r->deadline_ns = s->deadline;
    r->ttl_ms = s->ttl;
    return LOCK_OK;
}

static void acknowledge(struct m_session *s, uint64_t ack)
{
    unsigned n = 0;
    s->ack = ack > s->ack ? ack : s->ack;
    for (unsigned i = 0; i < s->n_kept; i++) {
        if (s->kept[i].seq > s->ack)
            s->kept[n++] = s->kept[i];
    }
    s->n_kept = n;
}

static int
keepalive(struct model *m, struct m_session *s, const struct lock_command *c, struct lock_result *r)
{
    acknowledge(s, c->ack_seq);
    s->deadline = m_after(m->stamp, s->ttl);
    if (s->lapsed)
        m_effect(m, LOCK_EFFECT_SESSION_RESUMED)->session_id = s->id;
    s->lapsed = false;
    r->deadline_ns = s->deadline;
    r->ttl_ms = s->ttl;
    return LOCK_OK;
}

static int node_info(struct model *m, const struct lock_command *c)
{
    unsigned i = 0;
    if (c->host.size > 64)
        return LOCK_INVALID;
    while (i < m->n_infos && m->info_ids[i] != c->node_id)
        i++;
    if (i == 64)
        return LOCK_LIMIT;
    m->n_infos += i == m->n_infos;
    m->info_ids[i] = c->node_id;
    m->info_hosts[i] = text_of(c->host);
    return LOCK_OK;
}

static int meta(struct model *m, const struct lock_command *c, struct lock_result *r)
{
    static const struct lock_limits zero;
    switch (c->op) {
    case LOCK_OP_SESSION_OPEN:
        return session_open(m, c, r);
    case LOCK_OP_TICK:
        return LOCK_OK;
    case LOCK_OP_TERM_START:
        m->term = c->term;
        if (memcmp(&c->limits, &zero, sizeof zero) != 0)
            m->limits = c->limits;
        return LOCK_OK;
    case LOCK_OP_NODE_INFO:
        return node_info(m, c);
    case LOCK_OP_EPOCH:
        if (c->epoch > 65535 || c->epoch <= m->next_token >> 48)
            return LOCK_INVALID;
        m->next_token = (c->epoch << 48) + 1;
        return LOCK_OK;
    default:
        return -1;
    }
}

static void
repeat(struct model *m, const struct lock_command *c, const struct m_kept *k, struct lock_result *r)
{
    *r = k->r;
    r->repeated = true;
    r->holder = bytes_of(NULL, 0);
    r->holder_deadline_ns = 0;
    if (r->code != LOCK_CONFLICT)
        return;
    struct m_claim claim = {
        .start = c->start, .end = c->end, .exclusive = c->mode == 2, .limit = c->limit};
    if (c->op == LOCK_OP_CONVERT) {
        struct m_hold *own[M_HOLDS_MAX];
        unsigned n;
        if (targets(m, c, own, &n) != LOCK_OK)
            return;
        claim = own[0]->c;
        claim.exclusive = true;
        (void)m_show_holder(m, &own[0]->path, &claim, r);
        return;
    }
    claim.owner = text_of(c->owner);
    for (unsigned i = 0; i < c->n_paths; i++) {
        struct text path = text_of(c->paths[i]);
        if (m_show_holder(m, &path, &claim, r))
            return;
    }
}

static void
once(struct model *m, struct m_session *s, const struct lock_command *c, struct lock_result *r)
{
    for (unsigned i = 0; i < s->n_kept; i++) {
        if (s->kept[i].seq == c->seq) {
            repeat(m, c, &s->kept[i], r);
            return;
        }
    }
    r->code = c->seq == 0        ? LOCK_INVALID
              : c->seq <= s->ack ? LOCK_STALE_SEQ
              : s->lapsed        ? LOCK_NO_SESSION
                                 : LOCK_OK;
    if (r->code != LOCK_OK)
        return;
    acknowledge(s, c->ack_seq);
    if (c->seq <= s->ack) {
        r->code = LOCK_STALE_SEQ;
    } else if (s->n_kept >= M_KEPT_MAX) {
        r->code = LOCK_LIMIT;
    } else {
        r->code = (enum lock_code)run(m, s, c, r);
        s->kept[s->n_kept++] = (struct m_kept){c->seq, *r};
    }
}

void model_step(struct model *m,
                uint64_t index,
                const struct lock_command *c,
                struct lock_result *r)
{
    m->n_effects = 0;
    m->index = index > m->index ? index : m->index;
    uint64_t stamp = c->stamp_ns > LOCK_STAMP_MAX ? LOCK_STAMP_MAX : c->stamp_ns;
    m->stamp = stamp > m->stamp ? stamp : m->stamp;
    model_expire(m);
    *r = (struct lock_result){.stamp_ns = m->stamp};
    int code = meta(m, c, r);
    if (code >= 0) {
        r->code = (enum lock_code)code;
    } else {
        struct m_session *s = m_session(m, c->session_id);
        if (s == NULL)
            r->code = LOCK_NO_SESSION;
        else if (c->op == LOCK_OP_SESSION_KEEPALIVE)
            r->code = (enum lock_code)keepalive(m, s, c, r);
        else if (c->op == LOCK_OP_SESSION_CLOSE)
            m_session_end(m, s);
        else
            once(m, s, c, r);
    }
    m_settle(m);
}
