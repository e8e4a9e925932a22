/* The model's waiters: who may have what, and who gets it when something ends. */
#include "tests/model/model.h"

#include <assert.h>
#include <stdlib.h>

void m_forget(struct model *m, struct m_waiter *w)
{
    unsigned i = 0;
    while (m->waiters[i] != w)
        i++;
    for (; i + 1 < m->n_waiters; i++)
        m->waiters[i] = m->waiters[i + 1];
    m->n_waiters--;
}

static void outcome(struct model *m, const struct m_waiter *w, const struct lock_result *r)
{
    struct m_session *s = m_session(m, w->session_id);
    for (unsigned i = 0; i < s->n_kept; i++) {
        if (s->kept[i].seq == w->seq)
            s->kept[i].r = *r;
    }
}

void m_refuse(struct model *m, struct m_waiter *w, int code)
{
    struct lock_result r = {.code = (enum lock_code)code, .stamp_ns = m->stamp};
    for (unsigned i = 0; i < w->n_paths; i++) {
        struct lock_effect *e = m_effect_waiter(m, LOCK_EFFECT_REFUSED, w, i);
        e->code = (enum lock_code)code;
        e->waited = true;
    }
    m_forget(m, w);
    for (unsigned i = 0; i < w->n_paths; i++)
        m_touch(m, &w->paths[i], w->c.start, w->c.end);
    outcome(m, w, &r);
    free(w);
}

void m_refuse_converts(struct model *m, const struct text *path, uint64_t token, uint64_t start)
{
    for (unsigned i = 0; i < m->n_waiters;) {
        struct m_waiter *w = m->waiters[i];
        if (w->convert == token && w->c.start == start && m_stands_at(w, path))
            m_refuse(m, w, LOCK_NOT_HELD);
        else
            i++;
    }
}

/* Does w have to yield to v on this path? */
bool m_is_ahead(struct model *m,
                const struct m_waiter *v,
                const struct m_waiter *w,
                const struct text *path)
{
    if (v == w || !m_stands_at(v, path) || !m_conflict(&v->c, &w->c))
        return false;
    if (v->front != w->front ? w->front : v->number > w->number)
        return false;
    if (!w->known)
        return true;
    /* v waits for w's owner: then w must not wait for v. */
    struct m_hold *own[M_HOLDS_MAX];
    unsigned n = m_owned(m, path, &w->c.owner, own);
    for (unsigned i = 0; i < n; i++) {
        if (m_conflict(&own[i]->c, &v->c))
            return false;
    }
    return true;
}

/* Slots of a semaphore go together, up to the smallest of their limits. */
bool m_free_of_holds(struct model *m, const struct text *path, const struct m_claim *c)
{
    uint64_t n_slots = 0, limit = c->limit;
    for (unsigned i = 0; i < m->n_holds; i++) {
        const struct m_hold *h = m->holds[i];
        if (!text_equal(&h->path, path) || !m_conflict(&h->c, c))
            continue;
        if (c->limit == 0 || h->c.limit == 0)
            return false;
        n_slots++;
        limit = h->c.limit < limit ? h->c.limit : limit;
    }
    return n_slots == 0 || n_slots + 1 <= limit;
}

bool m_grantable(struct model *m, const struct m_waiter *w)
{
    for (unsigned p = 0; p < w->n_paths; p++) {
        const struct m_node *n = m_node(m, &w->paths[p]);
        if (n != NULL && n->delay_until != 0)
            return false;
        if (!m_free_of_holds(m, &w->paths[p], &w->c))
            return false;
        for (unsigned i = 0; i < m->n_waiters; i++) {
            if (m_is_ahead(m, m->waiters[i], w, &w->paths[p]))
                return false;
        }
    }
    return true;
}

bool m_wanted(struct model *m, const struct m_hold *h, const struct m_waiter *except)
{
    for (unsigned i = 0; i < m->n_waiters; i++) {
        const struct m_waiter *w = m->waiters[i];
        if (w != except && m_stands_at(w, &h->path) && m_conflict(&w->c, &h->c))
            return true;
    }
    return false;
}

uint64_t m_need(const struct m_waiter *w)
{
    return m_posix(w->kind) ? 2 * w->n_paths : w->n_paths;
}

/* Grants. */

struct m_hold *m_exact(struct model *m, const struct text *path, const struct m_waiter *w, bool any)
{
    struct m_hold *own[M_HOLDS_MAX];
    unsigned n = m_owned(m, path, &w->c.owner, own);
    for (unsigned i = 0; i < n; i++) {
        if (own[i]->c.start == w->c.start && own[i]->c.end == w->c.end &&
            m_posix(own[i]->kind) == m_posix(w->kind) &&
            (any || (own[i]->c.exclusive == w->c.exclusive && own[i]->c.limit == w->c.limit)))
            return own[i];
    }
    return NULL;
}

bool m_has_all(struct model *m, const struct m_waiter *w)
{
    const struct m_hold *first = NULL;
    for (unsigned i = 0; i < w->n_paths; i++) {
        const struct m_hold *h = m_exact(m, &w->paths[i], w, false);
        if (i == 0)
            first = h;
        if (h == NULL || h->token != first->token + i)
            return false;
    }
    return true;
}

static void tell(struct model *m, const struct m_waiter *w, const struct m_hold *h, bool waited)
{
    struct lock_effect *e = m_effect_hold(m, LOCK_EFFECT_GRANTED, h);
    e->session_id = w->session_id;
    e->seq = w->seq;
    e->waited = waited;
}

static void answer(struct lock_result *r, const struct m_hold *h)
{
    r->token = h->token;
    r->deadline_ns = m_deadline(h);
    r->ttl_ms = h->ttl;
}

/* POSIX: replace what the owner has in the range, join with what is alike. */
static void absorb(struct model *m, const struct m_waiter *w, struct m_hold *made)
{
    struct m_hold *own[M_HOLDS_MAX];
    unsigned n = m_owned(m, &made->path, &w->c.owner, own);
    for (unsigned i = 0; i < n; i++) {
        struct m_hold *h = own[i];
        if (!m_posix(h->kind))
            continue;
        bool meets = m_overlap(&h->c, &w->c);
        bool adjoins = (h->c.end != UINT64_MAX && h->c.end + 1 == w->c.start) ||
                       (w->c.end != UINT64_MAX && w->c.end + 1 == h->c.start);
        bool alike = h->c.exclusive == w->c.exclusive && h->bound && w->ttl == 0 &&
                     h->session_id == w->session_id;
        if (alike && (meets || adjoins)) {
            if (h->c.start < made->c.start)
                made->c.start = h->c.start;
            if (h->c.end > made->c.end)
                made->c.end = h->c.end;
            m_end(m, h, LOCK_RELEASED);
        } else if (meets) {
            m_cut(m, h, w->c.start, w->c.end);
        }
    }
}

static void grant_new(struct model *m, const struct m_waiter *w, bool waited, struct lock_result *r)
{
    uint64_t token = m->next_token;
    m->next_token += w->n_paths;
    for (unsigned i = 0; i < w->n_paths; i++) {
        struct m_hold made = {
            .c = w->c,
            .path = w->paths[i],
            .note = w->note,
            .token = token + i,
            .session_id = w->session_id,
            .since = m->stamp,
            .renewed = m->stamp,
            .ttl = w->ttl,
            .mtime = w->mtime,
            .delay = w->ttl == 0 ? 0 : w->delay,
            .agent = w->agent,
            .bound = w->ttl == 0,
            .kind = w->kind,
            .pid = w->pid,
            .uid = w->uid,
            .gid = w->gid,
            .perm = w->perm,
        };
        if (m_posix(w->kind)) {
            absorb(m, w, &made);
        } else {
            struct m_hold *old = m_exact(m, &w->paths[i], w, true);
            if (old != NULL)
                m_end(m, old, LOCK_RELEASED);
        }
        struct m_hold *h = m_hold_add(m, &made);
        m_hold_made(m, h);
        tell(m, w, h, waited);
        if (i == 0)
            answer(r, h);
    }
}

static struct m_hold *own_lease(struct model *m, const struct m_waiter *w)
{
    if (w->n_paths != 1 || w->ttl == 0 || m_posix(w->kind))
        return NULL;
    struct m_hold *h = m_exact(m, &w->paths[0], w, true);
    return h != NULL && !h->bound ? h : NULL;
}

struct m_hold *m_covered(struct model *m, const struct m_waiter *w)
{
    struct m_hold *h = own_lease(m, w);
    if (h == NULL || (!h->c.exclusive && w->c.exclusive))
        return NULL;
    /* A slot bears other slots, up to the smaller limit, which a shared hold doesn't. */
    bool slot = h->c.limit != 0;
    return slot && (w->c.limit == 0 || w->c.limit < h->c.limit) ? NULL : h;
}

bool m_at_odds(struct model *m, const struct m_waiter *w)
{
    const struct m_hold *h = own_lease(m, w);
    return h != NULL && m_covered(m, w) == NULL && (h->c.limit != 0 || w->c.limit != 0);
}

void m_grant(struct model *m, const struct m_waiter *w, bool waited, struct lock_result *r)
{
    struct m_hold *h = m_exact(m, &w->paths[0], w, true);
    struct m_hold *covered = w->no_less ? m_covered(m, w) : NULL;
    if (m_has_all(m, w) || covered != NULL) {
        for (unsigned i = 0; i < w->n_paths; i++) {
            h = covered != NULL ? covered : m_exact(m, &w->paths[i], w, false);
            if (!h->bound && w->ttl != 0) {
                m_renewed(m, h, w->ttl, w->no_less);
                h->mtime = w->mtime;
                if (h->agent == 0 && m_session(m, h->session_id) == NULL)
                    h->session_id = w->session_id;
                m_effect_hold(m, LOCK_EFFECT_RENEWED, h);
            }
            if (waited)
                tell(m, w, h, true);
            if (i == 0)
                answer(r, h);
        }
    } else if (w->n_paths == 1 && !m_posix(w->kind) && h != NULL && h->c.limit == 0 &&
               w->c.limit == 0) {
        m_set_mode(m, h, w->c.exclusive);
        if (waited)
            tell(m, w, h, true);
        answer(r, h);
    } else {
        grant_new(m, w, waited, r);
    }
}

static void grant_waiter(struct model *m, struct m_waiter *w)
{
    struct lock_result r = {.code = LOCK_OK, .stamp_ns = m->stamp};
    m_forget(m, w);
    bool more = w->c.limit != 0 && w->n_paths > 1; /* Who waits behind it on any of its paths. */
    for (unsigned i = 0; i < w->n_paths; i++)
        m_touch(m, &w->paths[i], more ? 0 : 1, more ? UINT64_MAX : 0);
    if (w->convert != 0) {
        struct m_hold *h = NULL;
        for (unsigned i = 0; i < m->n_holds; i++) {
            if (m->holds[i]->token == w->convert && m->holds[i]->c.start == w->c.start)
                h = m->holds[i];
        }
        assert(h != NULL);
        if (!h->c.exclusive)
            m_set_mode(m, h, true);
        tell(m, w, h, true);
        answer(&r, h);
    } else {
        m_grant(m, w, true, &r);
    }
    outcome(m, w, &r);
    free(w);
}

/* The first waiter of a path that may be granted and whose range meets what changed: the front
 * before the line. */
static struct m_waiter *first_grantable(struct model *m, const struct m_touched *x)
{
    for (int front = 1; front >= 0; front--) {
        for (unsigned i = 0; i < m->n_waiters; i++) {
            struct m_waiter *w = m->waiters[i];
            if (w->front == (front == 1) && m_stands_at(w, &x->path) && w->c.start <= x->end &&
                x->start <= w->c.end && m_grantable(m, w))
                return w;
        }
    }
    return NULL;
}

static bool kept_by_something(struct model *m, const struct m_node *n)
{
    if (n->directory || n->delay_until != 0)
        return true;
    for (unsigned i = 0; i < m->n_holds; i++) {
        if (text_equal(&m->holds[i]->path, &n->path))
            return true;
    }
    for (unsigned i = 0; i < m->n_waiters; i++) {
        if (m_stands_at(m->waiters[i], &n->path))
            return true;
    }
    return false;
}

void m_settle(struct model *m)
{
    bool again;
    do {
        again = false;
        for (unsigned i = 0; i < m->n_touched; i++) {
            struct m_touched *x = &m->touched[i];
            struct m_waiter *w;
            if (x->start > x->end)
                continue;
            while ((w = first_grantable(m, x)) != NULL) { /* Both may widen the range. */
                if (w->convert == 0 && m_at_odds(m, w))
                    m_refuse(m, w, LOCK_EXISTS);
                else
                    grant_waiter(m, w);
            }
            x->start = 1;
            x->end = 0;
            again = true;
        }
    } while (again);
    for (unsigned i = 0; i < m->n_fresh; i++) {
        const struct m_hold *h = NULL;
        for (unsigned k = 0; k < m->n_holds; k++) {
            if (m->holds[k]->token == m->fresh[i] &&
                (h == NULL || m->holds[k]->c.start < h->c.start))
                h = m->holds[k];
        }
        if (h != NULL && m_wanted(m, h, NULL))
            m_effect_hold(m, LOCK_EFFECT_WANTED, h);
    }
    m->n_fresh = 0;
    for (unsigned i = 0; i < m->n_touched; i++) {
        struct m_node *n = m_node(m, &m->touched[i].path);
        if (n != NULL && !kept_by_something(m, n))
            m_node_remove(m, &m->touched[i].path);
    }
    m->n_touched = 0;
}
