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

static bool path_ok(struct bytes path)
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

static bool below(const struct text *path, const struct text *top)
{
    return path->size > top->size && path->data[top->size] == '/' &&
           memcmp(path->data, top->data, top->size) == 0;
}

/* Where does a path lead? @missing: directories that would have to be made. */
static int resolve(struct model *m, const struct text *path, bool parents, unsigned *missing)
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

static void make_parents(struct model *m, const struct text *path)
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

static void make_lock(struct model *m, const struct text *path)
{
    make_parents(m, path);
    if (m_node(m, path) == NULL)
        m_node_add(m, path, false);
}

static uint64_t reserved(struct model *m, uint64_t session_id)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < m->n_waiters; i++) {
        if (session_id == 0 || m->waiters[i]->session_id == session_id)
            n += m_need(m->waiters[i]);
    }
    return n;
}

static uint64_t bound_to(struct model *m, uint64_t session_id)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < m->n_holds; i++)
        n += m->holds[i]->bound && m->holds[i]->session_id == session_id;
    return n;
}

static bool room(struct model *m, uint64_t session_id, uint64_t need, bool bound)
{
    if (m->n_holds + reserved(m, 0) + need > m->limits.holds_max)
        return false;
    return !bound || bound_to(m, session_id) + reserved(m, session_id) + need <=
                         m->limits.holds_per_session_max;
}

static uint64_t n_directories(struct model *m)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < m->n_nodes; i++)
        n += m->nodes[i].directory && m->nodes[i].path.size > 0;
    return n;
}

/* The conflicting hold that begins first (of these, the lowest token). */
static void show_holder(struct model *m,
                        const struct lock_command *c,
                        const struct m_claim *claim,
                        struct lock_result *r)
{
    for (unsigned p = 0; p < c->n_paths; p++) {
        const struct m_hold *best = NULL;
        if (!path_ok(c->paths[p]))
            continue;
        struct text path = text_of(c->paths[p]);
        for (unsigned i = 0; i < m->n_holds; i++) {
            const struct m_hold *h = m->holds[i];
            if (!text_equal(&h->path, &path) || !m_conflict(&h->c, claim))
                continue;
            if (best == NULL || h->c.start < best->c.start ||
                (h->c.start == best->c.start && h->token < best->token))
                best = h;
        }
        if (best == NULL)
            continue;
        m->holder = best->c.owner;
        r->holder = text_bytes(&m->holder);
        r->holder_deadline_ns = m_deadline(best);
        return;
    }
}

/* Deadlock: who waits for whom. */

struct agent {
    uint64_t session_id;
    uint64_t number;
};

struct graph {
    struct model *m;
    struct agent seen[M_WAITERS_MAX];
    unsigned n_seen;
    struct agent origin;
};

static bool reaches(struct graph *g, uint64_t session_id, uint64_t number);

static bool waiter_reaches(struct graph *g, const struct m_waiter *w)
{
    struct model *m = g->m;
    for (unsigned p = 0; p < w->n_paths; p++) {
        for (unsigned i = 0; i < m->n_holds; i++) {
            const struct m_hold *h = m->holds[i];
            if (text_equal(&h->path, &w->paths[p]) && m_conflict(&h->c, &w->c) &&
                reaches(g, h->session_id, h->agent))
                return true;
        }
        for (unsigned i = 0; i < m->n_waiters; i++) {
            const struct m_waiter *v = m->waiters[i];
            if (m_is_ahead(m, v, w, &w->paths[p]) && reaches(g, v->session_id, v->agent))
                return true;
        }
    }
    return false;
}

static bool agent_waits(struct graph *g, struct agent a)
{
    for (unsigned i = 0; i < g->m->n_waiters; i++) {
        const struct m_waiter *w = g->m->waiters[i];
        if (w->session_id == a.session_id && w->agent == a.number && waiter_reaches(g, w))
            return true;
    }
    return false;
}

static bool reaches(struct graph *g, uint64_t session_id, uint64_t number)
{
    if (number == 0)
        return false;
    if (session_id == g->origin.session_id && number == g->origin.number)
        return true;
    for (unsigned i = 0; i < g->n_seen; i++) {
        if (g->seen[i].session_id == session_id && g->seen[i].number == number)
            return false;
    }
    struct agent a = {session_id, number};
    g->seen[g->n_seen++] = a;
    return agent_waits(g, a);
}

/* Two who wait, in front, each for what the other holds. */
static bool raises_collide(struct model *m, const struct m_waiter *w)
{
    struct m_hold *own[M_HOLDS_MAX];
    if (!w->front)
        return false;
    for (unsigned i = 0; i < m->n_waiters; i++) {
        const struct m_waiter *v = m->waiters[i];
        if (v == w || !v->front || !m_stands_at(v, &w->paths[0]) || !m_conflict(&v->c, &w->c))
            continue;
        bool a = false, b = false;
        unsigned n = m_owned(m, &w->paths[0], &w->c.owner, own);
        for (unsigned k = 0; k < n; k++)
            a |= m_conflict(&own[k]->c, &v->c);
        n = m_owned(m, &w->paths[0], &v->c.owner, own);
        for (unsigned k = 0; k < n; k++)
            b |= m_conflict(&own[k]->c, &w->c);
        if (a && b)
            return true;
    }
    return false;
}

static int
enqueue(struct model *m, struct m_waiter *w, const struct lock_command *c, unsigned missing)
{
    if (m->n_waiters >= m->limits.waiters_max || !room(m, w->session_id, m_need(w), true) ||
        (missing > 0 && n_directories(m) + missing > m->limits.directories_max))
        return LOCK_LIMIT;
    struct m_waiter *q = malloc(sizeof *q);
    *q = *w;
    q->number = m->next_number;
    q->since = m->stamp;
    q->deadline =
        c->wait_ms == LOCK_WAIT_FOREVER ? LOCK_DEADLINE_NEVER : m_after(m->stamp, c->wait_ms);
    assert(m->n_waiters < M_WAITERS_MAX);
    m->waiters[m->n_waiters++] = q;
    struct graph *g = calloc(1, sizeof *g);
    g->m = m;
    g->origin = (struct agent){w->session_id, w->agent};
    bool deadlock = raises_collide(m, q) || (w->agent != 0 && agent_waits(g, g->origin));
    free(g);
    if (deadlock) {
        m->n_waiters--;
        free(q);
        return LOCK_DEADLOCK;
    }
    m->next_number++;
    for (unsigned i = 0; i < q->n_paths; i++)
        make_lock(m, &q->paths[i]);
    for (unsigned i = 0; i < q->n_paths; i++)
        m_effect_waiter(m, LOCK_EFFECT_QUEUED, q, i);
    for (unsigned p = 0; p < q->n_paths; p++) {
        struct m_hold *at[M_HOLDS_MAX];
        unsigned n = m_holds_at(m, &q->paths[p], at);
        for (unsigned i = 0; i < n; i++) {
            if (m_conflict(&at[i]->c, &q->c) && !m_wanted(m, at[i], q))
                m_effect_hold(m, LOCK_EFFECT_WANTED, at[i]);
        }
    }
    return LOCK_QUEUED;
}

/* Can this request be granted now? LOCK_OK, LOCK_CONFLICT or LOCK_DELAYED. */
static int judge(struct model *m, struct m_waiter *w)
{
    int code = LOCK_OK;
    w->number = UINT64_MAX; /* Behind all of its sort. */
    for (unsigned p = 0; p < w->n_paths; p++) {
        if (!m_free_of_holds(m, &w->paths[p], &w->c))
            return LOCK_CONFLICT;
        for (unsigned i = 0; i < m->n_waiters; i++) {
            if (m_is_ahead(m, m->waiters[i], w, &w->paths[p]))
                return LOCK_CONFLICT;
        }
        const struct m_node *n = m_node(m, &w->paths[p]);
        if (n != NULL && n->delay_until != 0)
            code = LOCK_DELAYED;
    }
    return code;
}

static int raise_or_lower(struct model *m,
                          struct m_session *s,
                          const struct lock_command *c,
                          struct m_hold *h,
                          bool exclusive,
                          struct lock_result *r)
{
    int code = LOCK_OK;
    if (!h->c.exclusive && exclusive) {
        struct m_waiter w = {
            .c = h->c,
            .paths = {h->path},
            .n_paths = 1,
            .session_id = s->id,
            .seq = c->seq,
            .ttl = h->bound ? 0 : h->ttl,
            .agent = c->agent,
            .convert = h->token,
            .front = true,
            .known = true,
            .kind = h->kind,
            .pid = h->pid,
            .uid = h->uid,
            .gid = h->gid,
            .perm = h->perm,
        };
        w.c.exclusive = true;
        code = judge(m, &w);
        if (code != LOCK_OK && c->wait_ms != 0)
            return enqueue(m, &w, c, 0);
        if (code == LOCK_CONFLICT)
            show_holder(m, c, &w.c, r);
        if (code != LOCK_OK)
            return code;
    }
    if (h->c.exclusive != exclusive)
        m_set_mode(m, h, exclusive);
    r->token = h->token;
    r->deadline_ns = m_deadline(h);
    r->ttl_ms = h->ttl;
    return LOCK_OK;
}

static bool ttl_ok(uint64_t ttl)
{
    return ttl >= 10 && ttl <= UINT64_C(2592000000);
}

static bool acquire_ok(const struct lock_command *c)
{
    if (c->n_paths < 1 || c->n_paths > 16)
        return false;
    for (unsigned i = 0; i < c->n_paths; i++) {
        if (!path_ok(c->paths[i]))
            return false;
    }
    for (unsigned i = 0; i < c->n_paths; i++) {
        struct text a = text_of(c->paths[i]);
        for (unsigned j = 0; j < c->n_paths; j++) {
            struct text b = text_of(c->paths[j]);
            if (i != j && (text_equal(&a, &b) || below(&a, &b)))
                return false;
        }
    }
    return c->owner.size >= 1 && c->owner.size <= 128 && (c->mode == 1 || c->mode == 2) &&
           (unsigned)c->kind <= 6 && c->start <= c->end && (c->ttl_ms == 0 || ttl_ok(c->ttl_ms)) &&
           c->lock_delay_ms <= UINT64_C(2592000000) && c->note.size <= 256 && c->perm <= 07777;
}

static int find_all(struct model *m, const struct m_waiter *w, bool parents, unsigned *missing)
{
    *missing = 0;
    for (unsigned i = 0; i < w->n_paths; i++) {
        unsigned n;
        int code = resolve(m, &w->paths[i], parents, &n);
        if (code != LOCK_OK)
            return code;
        const struct m_node *node = m_node(m, &w->paths[i]);
        if (node != NULL && node->directory)
            return LOCK_IS_DIR;
        *missing += n;
    }
    return LOCK_OK;
}

static void place(struct model *m, struct m_waiter *w)
{
    for (unsigned p = 0; p < w->n_paths; p++) {
        struct m_hold *own[M_HOLDS_MAX];
        unsigned n = m_owned(m, &w->paths[p], &w->c.owner, own);
        for (unsigned i = 0; i < n; i++) {
            w->known = true;
            if (w->n_paths == 1 && own[i]->c.start <= w->c.end && w->c.start <= own[i]->c.end)
                w->front = true;
        }
        for (unsigned i = 0; i < m->n_waiters; i++) {
            const struct m_waiter *v = m->waiters[i];
            if (m_stands_at(v, &w->paths[p]) && text_equal(&v->c.owner, &w->c.owner))
                w->known = true;
        }
    }
}

static int
acquire(struct model *m, struct m_session *s, const struct lock_command *c, struct lock_result *r)
{
    bool parents = (c->flags & LOCK_F_PARENTS) != 0, evicted = false;
    unsigned missing;
    if (!acquire_ok(c))
        return LOCK_INVALID;
    struct m_waiter w = {
        .c = {text_of(c->owner), c->start, c->end, c->mode == LOCK_EXCLUSIVE},
        .n_paths = c->n_paths,
        .note = text_of(c->note),
        .session_id = s->id,
        .seq = c->seq,
        .ttl = c->ttl_ms,
        .delay = c->ttl_ms == 0 ? 0 : c->lock_delay_ms,
        .agent = c->agent,
        .kind = (int)c->kind,
        .pid = c->pid,
        .uid = c->uid,
        .gid = c->gid,
        .perm = c->perm,
    };
    for (unsigned i = 0; i < c->n_paths; i++)
        w.paths[i] = text_of(c->paths[i]);
    int code = find_all(m, &w, parents, &missing);
    for (unsigned i = 0; i < w.n_paths && code == LOCK_OK; i++)
        evicted |= m_evict(m, &w.paths[i], &w.c);
    if (evicted) {
        m_settle(m);
        code = find_all(m, &w, parents, &missing);
    }
    if (code != LOCK_OK)
        return code;
    if (m_has_all(m, &w)) {
        m_grant(m, &w, false, r);
        return LOCK_OK;
    }
    if (w.n_paths == 1 && !m_posix(w.kind)) {
        struct m_hold *h = m_exact(m, &w.paths[0], &w, true);
        if (h != NULL)
            return raise_or_lower(m, s, c, h, w.c.exclusive, r);
    }
    place(m, &w);
    code = judge(m, &w);
    if (code != LOCK_OK && c->wait_ms != 0)
        return enqueue(m, &w, c, missing);
    if (code == LOCK_CONFLICT)
        show_holder(m, c, &w.c, r);
    if (code != LOCK_OK)
        return code;
    if (!room(m, s->id, m_need(&w), c->ttl_ms == 0) ||
        (missing > 0 && n_directories(m) + missing > m->limits.directories_max))
        return LOCK_LIMIT;
    for (unsigned i = 0; i < w.n_paths; i++)
        make_lock(m, &w.paths[i]);
    m_grant(m, &w, false, r);
    return LOCK_OK;
}

/* The holds that a command means: by token all its pieces, by owner all of them. */
static int
targets(struct model *m, const struct lock_command *c, struct m_hold **ret, unsigned *ret_n)
{
    struct m_hold *at[M_HOLDS_MAX];
    *ret_n = 0;
    if (c->n_paths < 1 || !path_ok(c->paths[0]) ||
        (c->token == 0 && (c->owner.size < 1 || c->owner.size > 128)))
        return LOCK_INVALID;
    struct text path = text_of(c->paths[0]);
    unsigned n = m_holds_at(m, &path, at);
    if (n == 0)
        return LOCK_NOT_HELD;
    struct text owner = {0};
    if (c->token == 0)
        owner = text_of(c->owner);
    for (unsigned i = 0; i < n; i++) {
        if (c->token != 0 ? at[i]->token == c->token : text_equal(&at[i]->c.owner, &owner))
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
    if (own[0]->bound || !ttl_ok(ttl))
        return LOCK_INVALID;
    for (unsigned i = 0; i < n; i++) {
        if (own[i]->token == own[0]->token) {
            own[i]->ttl = ttl;
            own[i]->renewed = m->stamp;
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
    for (unsigned i = 0; i < k && splits > 0; i++) {
        if (!room(m, own[i]->session_id, splits, own[i]->bound))
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
        if (n > 1 && own[1]->token == own[0]->token)
            return LOCK_INVALID;
        struct m_claim claim = own[0]->c;
        struct text path = own[0]->path;
        claim.exclusive = true;
        if (!exclusive || own[0]->c.exclusive || !m_evict(m, &path, &claim))
            break;
        m_settle(m);
    }
    return raise_or_lower(m, s, c, own[0], exclusive, r);
}

/* May something new be made at a path? */
static int
place_free(struct model *m, const struct lock_command *c, const struct text *path, unsigned more)
{
    unsigned missing;
    bool parents = (c->flags & LOCK_F_PARENTS) != 0;
    struct m_claim all = {.end = UINT64_MAX, .exclusive = true};
    int code = resolve(m, path, parents, &missing);
    if (code == LOCK_OK && m_evict(m, path, &all)) {
        m_settle(m);
        code = resolve(m, path, parents, &missing);
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
    if (missing + more > 0 && n_directories(m) + missing + more > m->limits.directories_max)
        return LOCK_LIMIT;
    return LOCK_OK;
}

static int make_directory(struct model *m, struct m_session *s, const struct lock_command *c)
{
    if (c->n_paths < 1 || !path_ok(c->paths[0]) || c->perm > 07777)
        return LOCK_INVALID;
    struct text path = text_of(c->paths[0]);
    int code = place_free(m, c, &path, 1);
    struct m_node *n = m_node(m, &path);
    if (code == LOCK_EXISTS && n->directory && n->implicit)
        code = LOCK_OK;
    if (code != LOCK_OK)
        return code;
    if (n == NULL) {
        make_parents(m, &path);
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
    if (c->n_paths < 1 || !path_ok(c->paths[0]))
        return LOCK_INVALID;
    struct text path = text_of(c->paths[0]);
    int code = resolve(m, &path, false, &missing);
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
    if (c->n_paths < 1 || (c->paths[0].size > 0 && !path_ok(c->paths[0])) ||
        (c->perm > 07777 && c->perm != UINT32_MAX))
        return LOCK_INVALID;
    struct text path = text_of(c->paths[0]);
    if (resolve(m, &path, false, &missing) == LOCK_NOT_DIR)
        return LOCK_NOT_DIR;
    struct m_node *n = m_node(m, &path);
    if (n == NULL)
        return LOCK_NOT_FOUND;
    if (!n->directory)
        return LOCK_NOT_DIR;
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
    return c->n_paths == 2 && path_ok(c->paths[0]) && path_ok(c->paths[1]);
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
    if (own[0]->bound)
        return LOCK_INVALID;
    code = place_free(m, c, &to, 0);
    if (code != LOCK_OK)
        return code;
    if (targets(m, c, own, &n) != LOCK_OK)
        return LOCK_NOT_HELD;
    if (!room(m, s->id, 1, false))
        return LOCK_LIMIT;
    make_lock(m, &to);
    own[0]->linked = true;
    struct m_hold made = *own[0];
    made.path = to;
    made.note = text_of(c->note);
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
    make_lock(m, &to);
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
        return acquire(m, s, c, r);
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
    if (!ttl_ok(c->ttl_ms) || c->host.size > 64)
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
    struct m_claim claim = {.start = c->start, .end = c->end, .exclusive = c->mode == 2};
    if (c->op == LOCK_OP_CONVERT) {
        struct m_hold *own[M_HOLDS_MAX];
        unsigned n;
        if (targets(m, c, own, &n) != LOCK_OK)
            return;
        claim = own[0]->c;
        claim.exclusive = true;
    } else {
        claim.owner = text_of(c->owner);
    }
    show_holder(m, c, &claim, r);
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
    m->stamp = c->stamp_ns > m->stamp ? c->stamp_ns : m->stamp;
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
