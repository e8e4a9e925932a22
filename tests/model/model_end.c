/* The ends of the model's sessions, holds and lock-delays: asked for, or by time. */
#include "tests/model/model.h"

#include <stdlib.h>

static void refuse_all(struct model *m, struct m_session *s)
{
    for (unsigned i = 0; i < m->n_waiters;) {
        if (m->waiters[i]->session_id == s->id) {
            m_refuse(m, m->waiters[i], LOCK_SESSION_ENDED);
            i = 0;
        } else {
            i++;
        }
    }
}

void m_session_end(struct model *m, struct m_session *s)
{
    struct m_hold *h;
    refuse_all(m, s);
    while ((h = m_first_bound(m, s)) != NULL)
        m_end_hold(m, h, LOCK_SESSION_ENDED);
    m_effect(m, LOCK_EFFECT_SESSION_ENDED)->session_id = s->id;
    unsigned i = 0;
    while (m->sessions[i] != s)
        i++;
    for (; i + 1 < m->n_sessions; i++)
        m->sessions[i] = m->sessions[i + 1];
    m->n_sessions--;
    free(s);
}

/* Does this claim take a lapsed hold away? */
static bool takes(const struct m_claim *c, const struct m_hold *h)
{
    return m_overlap(c, &h->c) &&
           (c->exclusive || h->c.exclusive || text_equal(&c->owner, &h->c.owner));
}

static void session_expire(struct model *m, struct m_session *s)
{
    refuse_all(m, s);
    bool ends = m_first_bound(m, s) == NULL;
    for (unsigned i = 0; i < m->n_holds; i++) {
        const struct m_hold *h = m->holds[i];
        if (!h->bound || h->session_id != s->id)
            continue;
        for (unsigned k = 0; k < m->n_waiters; k++)
            ends |= m_stands_at(m->waiters[k], &h->path) && takes(&m->waiters[k]->c, h);
    }
    if (ends) {
        m_session_end(m, s);
        return;
    }
    s->lapsed = true;
    m_effect(m, LOCK_EFFECT_SESSION_LAPSED)->session_id = s->id;
}

bool m_evict(struct model *m, const struct text *path, const struct m_claim *c)
{
    bool any = false, again = true;
    while (again) {
        struct m_hold *at[M_HOLDS_MAX];
        unsigned n = m_holds_at(m, path, at);
        again = false;
        for (unsigned i = 0; i < n && !again; i++) {
            struct m_session *s = at[i]->bound ? m_session(m, at[i]->session_id) : NULL;
            if (s != NULL && s->lapsed && takes(c, at[i])) {
                m_session_end(m, s);
                any = again = true;
            }
        }
    }
    return any;
}

/* Expiry: the earliest deadline, whatever it belongs to. */

struct due {
    uint64_t deadline;
    int type; /* 0 hold, 1 delay, 2 session, 3 waiter. */
    uint64_t key1;
    uint64_t key2;
    struct text name;
    void *what;
};

static bool sooner(const struct due *a, const struct due *b)
{
    if (a->deadline != b->deadline)
        return a->deadline < b->deadline;
    if (a->type != b->type)
        return a->type < b->type;
    if (a->key1 != b->key1)
        return a->key1 < b->key1;
    if (a->key2 != b->key2)
        return a->key2 < b->key2;
    return bytes_compare(text_bytes(&a->name), text_bytes(&b->name)) < 0;
}

static void consider(struct due *best, const struct due *d)
{
    if (best->what == NULL || sooner(d, best))
        *best = *d;
}

static struct due earliest(struct model *m)
{
    struct due best = {0};
    for (unsigned i = 0; i < m->n_holds; i++) {
        struct m_hold *h = m->holds[i];
        struct due d = {m_deadline(h), 0, h->token, h->c.start, {0}, h};
        if (!h->bound)
            consider(&best, &d);
    }
    for (unsigned i = 0; i < m->n_nodes; i++) {
        struct m_node *n = &m->nodes[i];
        struct text up = m_parent(&n->path);
        struct due d = {n->delay_until, 1, m_node(m, &up)->id, 0, n->path, n};
        if (n->delay_until != 0)
            consider(&best, &d);
    }
    for (unsigned i = 0; i < m->n_sessions; i++) {
        struct m_session *s = m->sessions[i];
        struct due d = {s->deadline, 2, s->id, 0, {0}, s};
        if (!s->lapsed)
            consider(&best, &d);
    }
    for (unsigned i = 0; i < m->n_waiters; i++) {
        struct m_waiter *w = m->waiters[i];
        struct due d = {w->deadline, 3, w->number, 0, {0}, w};
        if (w->deadline != LOCK_DEADLINE_NEVER)
            consider(&best, &d);
    }
    return best;
}

static void expire_hold(struct model *m, struct m_hold *h)
{
    uint64_t until = h->delay == 0 ? 0 : m_after(m_deadline(h), h->delay);
    struct m_node *n = m_node(m, &h->path);
    if (until > n->delay_until)
        n->delay_until = until;
    m_end(m, h, LOCK_EXPIRED);
}

static void expire_delay(struct model *m, struct m_node *n)
{
    struct text path = n->path;
    n->delay_until = 0;
    m_effect(m, LOCK_EFFECT_DELAY_OVER);
    m_effect_path(m, &path, 0);
    m_touch(m, &path, 0, UINT64_MAX);
}

void model_expire(struct model *m)
{
    for (;;) {
        struct due d = earliest(m);
        if (d.what == NULL || d.deadline > m->stamp)
            return;
        if (d.type == 0)
            expire_hold(m, d.what);
        else if (d.type == 1)
            expire_delay(m, d.what);
        else if (d.type == 2)
            session_expire(m, d.what);
        else
            m_refuse(m, d.what, LOCK_TIMEOUT);
        m_settle(m);
    }
}
