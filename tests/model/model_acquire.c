/* Acquiring, waiting, converting; who waits for whom. */
#include <assert.h>
#include <stdlib.h>

#include "tests/model/model.h"

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

bool m_room(struct model *m, uint64_t session_id, uint64_t need, bool bound)
{
    if (m->n_holds + reserved(m, 0) + need > m->limits.holds_max)
        return false;
    return !bound || bound_to(m, session_id) + reserved(m, session_id) + need <=
                         m->limits.holds_per_session_max;
}

uint64_t m_directories(struct model *m)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < m->n_nodes; i++)
        n += m->nodes[i].directory && m->nodes[i].path.size > 0;
    return n;
}

/* The hold on a path that conflicts and begins first (of these, the lowest token). */
bool m_show_holder(struct model *m,
                   const struct text *path,
                   const struct m_claim *claim,
                   struct lock_result *r)
{
    const struct m_hold *best = NULL;
    if (m_free_of_holds(m, path, claim))
        return false;
    for (unsigned i = 0; i < m->n_holds; i++) {
        const struct m_hold *h = m->holds[i];
        if (!text_equal(&h->path, path) || !m_conflict(&h->c, claim))
            continue;
        if (best == NULL || h->c.start < best->c.start ||
            (h->c.start == best->c.start && h->token < best->token))
            best = h;
    }
    if (best == NULL)
        return false;
    m->holder = best->c.owner;
    r->holder = text_bytes(&m->holder);
    r->holder_deadline_ns = m_deadline(best);
    return true;
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
        bool slots_left = w->c.limit != 0 && m_free_of_holds(m, &w->paths[p], &w->c);
        for (unsigned i = 0; i < m->n_holds && !slots_left; i++) {
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

/* Of all who wait, take away one after another who could go on if all did who were taken away: is
 * the origin left?  (A slot of a semaphore is free if any of its holders goes on.) */

struct crowd {
    struct model *m;
    struct agent stuck[M_WAITERS_MAX];
    unsigned n_stuck;
};

static bool is_stuck(const struct crowd *k, uint64_t session_id, uint64_t number)
{
    for (unsigned i = 0; i < k->n_stuck; i++) {
        if (k->stuck[i].session_id == session_id && k->stuck[i].number == number)
            return number != 0;
    }
    return false;
}

static bool waiter_is_blocked(const struct crowd *k, const struct m_waiter *w, unsigned p)
{
    struct model *m = k->m;
    uint64_t limit = w->c.limit, n_slots = 0;
    for (unsigned i = 0; i < m->n_holds; i++) {
        const struct m_hold *h = m->holds[i];
        if (!text_equal(&h->path, &w->paths[p]) || !m_conflict(&h->c, &w->c) ||
            !is_stuck(k, h->session_id, h->agent))
            continue;
        if (w->c.limit == 0 || h->c.limit == 0)
            return true;
        n_slots++;
        limit = h->c.limit < limit ? h->c.limit : limit;
    }
    if (n_slots > 0 && n_slots + 1 > limit)
        return true;
    for (unsigned i = 0; i < m->n_waiters; i++) {
        const struct m_waiter *v = m->waiters[i];
        if (m_is_ahead(m, v, w, &w->paths[p]) && is_stuck(k, v->session_id, v->agent))
            return true;
    }
    return false;
}

static bool is_left(struct model *m, struct agent origin)
{
    struct crowd *k = calloc(1, sizeof *k);
    k->m = m;
    for (unsigned i = 0; i < m->n_waiters; i++) {
        const struct m_waiter *w = m->waiters[i];
        if (!is_stuck(k, w->session_id, w->agent))
            k->stuck[k->n_stuck++] = (struct agent){w->session_id, w->agent};
    }
    for (unsigned i = 0; i < k->n_stuck;) {
        struct agent a = k->stuck[i];
        bool blocked = false;
        for (unsigned j = 0; j < m->n_waiters; j++) {
            const struct m_waiter *w = m->waiters[j];
            for (unsigned p = 0; p < w->n_paths; p++)
                blocked |= w->session_id == a.session_id && w->agent == a.number &&
                           waiter_is_blocked(k, w, p);
        }
        if (blocked) {
            i++;
        } else {
            k->stuck[i] = k->stuck[--k->n_stuck];
            i = 0;
        }
    }
    bool left = is_stuck(k, origin.session_id, origin.number);
    free(k);
    return left;
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
    if (m->n_waiters >= m->limits.waiters_max || !m_room(m, w->session_id, m_need(w), true) ||
        (missing > 0 && m_directories(m) + missing > m->limits.directories_max))
        return LOCK_LIMIT;
    struct m_waiter *q = malloc(sizeof *q);
    *q = *w;
    q->number = m->next_number;
    q->no_less = true;
    q->mtime = 0; /* Not of those that wait. */
    q->since = m->stamp;
    q->deadline =
        c->wait_ms == LOCK_WAIT_FOREVER ? LOCK_DEADLINE_NEVER : m_after(m->stamp, c->wait_ms);
    assert(m->n_waiters < M_WAITERS_MAX);
    m->waiters[m->n_waiters++] = q;
    struct graph *g = calloc(1, sizeof *g);
    g->m = m;
    g->origin = (struct agent){w->session_id, w->agent};
    bool deadlock = raises_collide(m, q) ||
                    (w->agent != 0 && agent_waits(g, g->origin) && is_left(m, g->origin));
    free(g);
    if (deadlock) {
        m->n_waiters--;
        free(q);
        return LOCK_DEADLOCK;
    }
    m->next_number++;
    for (unsigned i = 0; i < q->n_paths; i++)
        m_make_lock(m, &q->paths[i]);
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

int m_raise_or_lower(struct model *m,
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
            (void)m_show_holder(m, &h->path, &w.c, r);
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

static bool below(const struct text *path, const struct text *top)
{
    return path->size > top->size && path->data[top->size] == '/' &&
           memcmp(path->data, top->data, top->size) == 0;
}

bool m_ttl_ok(uint64_t ttl)
{
    return ttl >= 10 && ttl <= UINT64_C(2592000000);
}

static bool acquire_ok(const struct lock_command *c)
{
    if (c->n_paths < 1 || c->n_paths > 16)
        return false;
    for (unsigned i = 0; i < c->n_paths; i++) {
        if (!m_path_ok(c->paths[i]))
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
    if (c->limit != 0 && (c->limit > 65535 || c->mode != 2 || c->start != 0 ||
                          c->end != UINT64_MAX || c->kind == 5 || c->kind == 6))
        return false;
    return c->owner.size >= 1 && c->owner.size <= 128 && (c->mode == 1 || c->mode == 2) &&
           (unsigned)c->kind <= 6 && c->start <= c->end &&
           (c->ttl_ms == 0 || m_ttl_ok(c->ttl_ms)) && c->lock_delay_ms <= UINT64_C(2592000000) &&
           c->note.size <= 256 && c->perm <= 07777;
}

static int find_all(struct model *m, const struct m_waiter *w, bool parents, unsigned *missing)
{
    *missing = 0;
    for (unsigned i = 0; i < w->n_paths; i++) {
        unsigned n;
        int code = m_resolve(m, &w->paths[i], parents, &n);
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

int m_acquire(struct model *m,
              struct m_session *s,
              const struct lock_command *c,
              struct lock_result *r)
{
    bool parents = (c->flags & LOCK_F_PARENTS) != 0, evicted = false;
    unsigned missing;
    if (!acquire_ok(c))
        return LOCK_INVALID;
    struct m_waiter w = {
        .c = {text_of(c->owner), c->start, c->end, c->mode == LOCK_EXCLUSIVE, c->limit},
        .n_paths = c->n_paths,
        .note = text_of(c->note),
        .session_id = s->id,
        .seq = c->seq,
        .ttl = c->ttl_ms,
        .mtime = c->ttl_ms == 0 ? 0 : c->mtime_ns,
        .delay = c->ttl_ms == 0 ? 0 : c->lock_delay_ms,
        .agent = c->agent,
        .no_less = (c->flags & LOCK_F_NO_LESS) != 0,
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
    if (w.no_less && m_at_odds(m, &w))
        return LOCK_EXISTS;
    if (m_has_all(m, &w) || (w.no_less && m_covered(m, &w) != NULL)) {
        m_grant(m, &w, false, r);
        return LOCK_OK;
    }
    if (w.n_paths == 1 && !m_posix(w.kind)) {
        struct m_hold *h = m_exact(m, &w.paths[0], &w, true);
        if (h != NULL && h->c.limit == 0 && w.c.limit == 0)
            return m_raise_or_lower(m, s, c, h, w.c.exclusive, r);
    }
    place(m, &w);
    code = judge(m, &w);
    if (code != LOCK_OK && c->wait_ms != 0)
        return enqueue(m, &w, c, missing);
    for (unsigned p = 0; p < w.n_paths && code == LOCK_CONFLICT; p++) {
        if (m_show_holder(m, &w.paths[p], &w.c, r))
            break;
    }
    if (code != LOCK_OK)
        return code;
    if (!m_room(m, s->id, m_need(&w), c->ttl_ms == 0) ||
        (missing > 0 && m_directories(m) + missing > m->limits.directories_max))
        return LOCK_LIMIT;
    for (unsigned i = 0; i < w.n_paths; i++)
        m_make_lock(m, &w.paths[i]);
    m_grant(m, &w, false, r);
    return LOCK_OK;
}
