#include "tests/model/model.h"

#include <assert.h>
#include <stdlib.h>

struct text text_of(struct bytes b)
{
    struct text t = {.size = b.size};
    assert(b.size < M_TEXT_MAX);
    if (b.size > 0)
        memcpy(t.data, b.data, b.size);
    return t;
}

bool text_equal(const struct text *a, const struct text *b)
{
    return a->size == b->size && memcmp(a->data, b->data, a->size) == 0;
}

struct bytes text_bytes(const struct text *t)
{
    return bytes_of(t->data, t->size);
}

struct text m_parent(const struct text *path)
{
    struct text p = *path;
    while (p.size > 0 && p.data[p.size - 1] != '/')
        p.size--;
    if (p.size > 0)
        p.size--;
    memset(p.data + p.size, 0, sizeof p.data - p.size);
    return p;
}

uint64_t m_after(uint64_t from, uint64_t ms)
{
    return from + ms * 1000000; /* The generator stays far from the end of time. */
}

uint64_t m_deadline(const struct m_hold *h)
{
    return h->bound ? 0 : m_after(h->renewed, h->ttl);
}

bool m_posix(int kind)
{
    return kind == LOCK_KIND_POSIX || kind == LOCK_KIND_OFD;
}

static bool overlap(const struct m_claim *a, const struct m_claim *b)
{
    return a->start <= b->end && b->start <= a->end;
}

bool m_conflict(const struct m_claim *a, const struct m_claim *b)
{
    return overlap(a, b) && !text_equal(&a->owner, &b->owner) && (a->exclusive || b->exclusive);
}

struct model *model_new(void)
{
    struct model *m = calloc(1, sizeof *m);
    m->next_token = m->next_session = m->next_number = 1;
    m->next_directory = 2;
    m->limits = lock_limits_default();
    m->nodes[m->n_nodes++] = (struct m_node){.directory = true, .id = 1, .perm = 01777};
    return m;
}

void model_free(struct model *m)
{
    for (unsigned i = 0; i < m->n_holds; i++)
        free(m->holds[i]);
    for (unsigned i = 0; i < m->n_waiters; i++)
        free(m->waiters[i]);
    for (unsigned i = 0; i < m->n_sessions; i++)
        free(m->sessions[i]);
    free(m);
}

/* Effects. */

struct lock_effect *m_effect(struct model *m, int type)
{
    assert(m->n_effects < M_EFFECTS_MAX);
    struct lock_effect *e = &m->effects[m->n_effects];
    memset(m->effect_texts[m->n_effects], 0, sizeof m->effect_texts[0]);
    m->n_effects++;
    *e = (struct lock_effect){.type = (enum lock_effect_type)type};
    return e;
}

/* Give the last effect its path (0), path2 (1) or owner (2). */
void m_effect_path(struct model *m, const struct text *path, int which)
{
    struct lock_effect *e = &m->effects[m->n_effects - 1];
    struct text *t = &m->effect_texts[m->n_effects - 1][which];
    *t = *path;
    *(which == 0 ? &e->path : which == 1 ? &e->path2 : &e->owner) = text_bytes(t);
}

struct lock_effect *m_effect_hold(struct model *m, int type, const struct m_hold *h)
{
    struct lock_effect *e = m_effect(m, type);
    e->mode = h->c.exclusive ? LOCK_EXCLUSIVE : LOCK_SHARED;
    e->limit = h->c.limit;
    e->kind = (enum lock_kind)h->kind;
    e->session_id = h->session_id;
    e->token = h->token;
    e->deadline_ns = m_deadline(h);
    e->ttl_ms = h->ttl;
    e->start = h->c.start;
    e->end = h->c.end;
    e->pid = h->pid;
    e->uid = h->uid;
    m_effect_path(m, &h->path, 0);
    m_effect_path(m, &h->c.owner, 2);
    return e;
}

struct lock_effect *m_effect_waiter(struct model *m, int type, const struct m_waiter *w, unsigned i)
{
    struct lock_effect *e = m_effect(m, type);
    e->mode = w->c.exclusive ? LOCK_EXCLUSIVE : LOCK_SHARED;
    e->limit = w->c.limit;
    e->kind = (enum lock_kind)w->kind;
    e->session_id = w->session_id;
    e->seq = w->seq;
    e->ttl_ms = w->ttl;
    e->start = w->c.start;
    e->end = w->c.end;
    e->pid = w->pid;
    e->uid = w->uid;
    m_effect_path(m, &w->paths[i], 0);
    m_effect_path(m, &w->c.owner, 2);
    return e;
}

/* Finding things. */

struct m_session *m_session(struct model *m, uint64_t id)
{
    for (unsigned i = 0; i < m->n_sessions; i++) {
        if (m->sessions[i]->id == id)
            return m->sessions[i];
    }
    return NULL;
}

struct m_node *m_node(struct model *m, const struct text *path)
{
    for (unsigned i = 0; i < m->n_nodes; i++) {
        if (text_equal(&m->nodes[i].path, path))
            return &m->nodes[i];
    }
    return NULL;
}

unsigned m_entries(struct model *m, const struct text *path)
{
    unsigned n = 0;
    for (unsigned i = 0; i < m->n_nodes; i++) {
        struct text parent = m_parent(&m->nodes[i].path);
        n += m->nodes[i].path.size > 0 && text_equal(&parent, path);
    }
    return n;
}

unsigned m_holds_at(struct model *m, const struct text *path, struct m_hold **ret)
{
    unsigned n = 0;
    for (unsigned i = 0; i < m->n_holds; i++) {
        struct m_hold *h = m->holds[i];
        if (!text_equal(&h->path, path))
            continue;
        unsigned at = n++;
        while (at > 0 && (ret[at - 1]->token > h->token ||
                          (ret[at - 1]->token == h->token && ret[at - 1]->c.start > h->c.start))) {
            ret[at] = ret[at - 1];
            at--;
        }
        ret[at] = h;
    }
    return n;
}

unsigned
m_owned(struct model *m, const struct text *path, const struct text *owner, struct m_hold **ret)
{
    unsigned n = 0, all = m_holds_at(m, path, ret);
    for (unsigned i = 0; i < all; i++) {
        if (text_equal(&ret[i]->c.owner, owner))
            ret[n++] = ret[i];
    }
    return n;
}

bool m_stands_at(const struct m_waiter *w, const struct text *path)
{
    for (unsigned i = 0; i < w->n_paths; i++) {
        if (text_equal(&w->paths[i], path))
            return true;
    }
    return false;
}

/* Nodes. */

void m_node_add(struct model *m, const struct text *path, bool directory)
{
    struct text up = m_parent(path);
    struct m_node *parent = m_node(m, &up);
    assert(parent != NULL && m->n_nodes < M_NODES_MAX);
    parent->changed = m->stamp;
    struct m_node n = {.path = *path, .directory = directory};
    if (directory) {
        n.implicit = true;
        n.id = m->next_directory++;
        n.changed = m->stamp;
        n.uid = parent->uid;
        n.gid = parent->gid;
        n.perm = parent->perm;
    }
    m->nodes[m->n_nodes++] = n;
}

/* And the implicit directories above that are empty then. */
void m_node_remove(struct model *m, const struct text *path)
{
    struct text at = *path;
    for (;;) {
        struct m_node *n = m_node(m, &at);
        if (n->directory) {
            m_effect(m, LOCK_EFFECT_RMDIR)->uid = n->uid;
            m_effect_path(m, &at, 0);
        }
        *n = m->nodes[--m->n_nodes];
        struct text up = m_parent(&at);
        struct m_node *parent = m_node(m, &up);
        parent->changed = m->stamp;
        if (up.size == 0 || !parent->implicit || m_entries(m, &up) > 0)
            return;
        at = up;
    }
}

/* Something within a range of a path changed; start > end: only look whether it is still kept. */
void m_touch(struct model *m, const struct text *path, uint64_t start, uint64_t end)
{
    unsigned i = 0;
    while (i < m->n_touched && !text_equal(&m->touched[i].path, path))
        i++;
    struct m_touched *x = &m->touched[i];
    if (i == m->n_touched)
        m->touched[m->n_touched++] = (struct m_touched){*path, 1, 0};
    if (start > end)
        return;
    bool none = x->start > x->end;
    x->start = none || start < x->start ? start : x->start;
    x->end = none || end > x->end ? end : x->end;
}

/* Holds. */

struct m_hold *m_hold_add(struct model *m, const struct m_hold *like)
{
    struct m_hold *h = malloc(sizeof *h);
    *h = *like;
    assert(m->n_holds < M_HOLDS_MAX);
    m->holds[m->n_holds++] = h;
    return h;
}

static void hold_drop(struct model *m, struct m_hold *h)
{
    for (unsigned i = 0; i < m->n_holds; i++) {
        if (m->holds[i] == h) {
            m->holds[i] = m->holds[--m->n_holds];
            free(h);
            return;
        }
    }
    assert(false);
}

void m_hold_made(struct model *m, const struct m_hold *h)
{
    bool any = false, changes = false;
    for (unsigned i = 0; i < m->n_waiters; i++) {
        any |= m_stands_at(m->waiters[i], &h->path);
        changes |=
            m_stands_at(m->waiters[i], &h->path) && (m->waiters[i]->front || m->waiters[i]->known);
    }
    if (!any)
        return;
    m->fresh[m->n_fresh++] = h->token;
    m_touch(m, &h->path, 1, 0);
    if (changes) /* Waiters of this owner may have to yield to fewer now. */
        m_touch(m, &h->path, 0, UINT64_MAX);
}

/* Whoever names it next in its ring names the one behind it now. */
static void leave_ring(struct model *m, struct m_hold *h)
{
    for (unsigned i = 0; i < m->n_holds; i++) {
        struct m_hold *o = m->holds[i];
        if (h->twin != 0 && o->twin == h->token)
            o->twin = h->twin == o->token ? 0 : h->twin;
    }
    h->twin = 0;
}

static void end_hold(struct model *m, struct m_hold *h, int code)
{
    leave_ring(m, h);
    struct m_hold was = *h;
    m_effect_hold(m, LOCK_EFFECT_ENDED, h)->code = (enum lock_code)code;
    hold_drop(m, h);
    m_touch(m, &was.path, was.c.start, was.c.end);
    m_refuse_converts(m, &was.path, was.token, was.c.start);
}

static struct m_hold *first_bound(struct model *m, const struct m_session *s)
{
    struct m_hold *best = NULL;
    for (unsigned i = 0; i < m->n_holds; i++) {
        struct m_hold *h = m->holds[i];
        if (h->bound && h->session_id == s->id &&
            (best == NULL || h->token < best->token ||
             (h->token == best->token && h->c.start < best->c.start)))
            best = h;
    }
    return best;
}

/* And the lapsed session whose last hold it was. */
void m_end(struct model *m, struct m_hold *h, int code)
{
    struct m_session *s = h->bound ? m_session(m, h->session_id) : NULL;
    end_hold(m, h, code);
    if (s != NULL && s->lapsed && first_bound(m, s) == NULL)
        m_session_end(m, s);
}

void m_cut(struct model *m, struct m_hold *h, uint64_t start, uint64_t end)
{
    if (start <= h->c.start && end >= h->c.end) {
        m_end(m, h, LOCK_RELEASED);
        return;
    }
    leave_ring(m, h);
    struct m_hold was = *h;
    struct lock_effect *e = m_effect_hold(m, LOCK_EFFECT_ENDED, h);
    e->code = LOCK_RELEASED;
    e->start = start > was.c.start ? start : was.c.start;
    e->end = end < was.c.end ? end : was.c.end;
    hold_drop(m, h);
    if (was.c.start < start) {
        struct m_hold left = was;
        left.c.end = start - 1;
        m_hold_add(m, &left);
    }
    if (was.c.end > end) {
        struct m_hold right = was;
        right.c.start = end + 1;
        m_hold_add(m, &right);
    }
    m_touch(m, &was.path, was.c.start > start ? was.c.start : start,
            was.c.end < end ? was.c.end : end);
    m_refuse_converts(m, &was.path, was.token, was.c.start);
}

/* Renewed: later than ever before, even at one stamp; and touched. */
void m_renewed(const struct model *m, struct m_hold *h, uint64_t ttl, bool no_less)
{
    if (no_less && m_after(m->stamp, ttl) < m_deadline(h)) {
        h->renewed++;
    } else {
        h->renewed = h->renewed >= m->stamp ? h->renewed + 1 : m->stamp;
        h->ttl = ttl;
    }
    if (h->renewed == h->since)
        h->renewed++;
}

void m_set_mode(struct model *m, struct m_hold *h, bool exclusive)
{
    uint64_t old = h->token;
    h->c.exclusive = exclusive;
    if (exclusive) {
        h->token = m->next_token++;
        h->since = m->stamp;
        for (unsigned i = 0; i < m->n_holds; i++) {
            if (m->holds[i]->twin == old)
                m->holds[i]->twin = h->token;
        }
    }
    if (h->since == h->renewed)
        h->since++; /* Touched. */
    m_effect_hold(m, LOCK_EFFECT_CONVERTED, h);
    for (unsigned i = 0; i < m->n_waiters && exclusive; i++) {
        struct m_waiter *w = m->waiters[i];
        if (w->convert == old && w->c.start == h->c.start && m_stands_at(w, &h->path))
            w->convert = h->token;
    }
    if (exclusive)
        m_hold_made(m, h);
    else
        m_touch(m, &h->path, h->c.start, h->c.end);
}

/* Waiters. */

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
        bool meets = overlap(&h->c, &w->c);
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

/* Sessions. */

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
    while ((h = first_bound(m, s)) != NULL)
        end_hold(m, h, LOCK_SESSION_ENDED);
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
    return overlap(c, &h->c) &&
           (c->exclusive || h->c.exclusive || text_equal(&c->owner, &h->c.owner));
}

static void session_expire(struct model *m, struct m_session *s)
{
    refuse_all(m, s);
    bool ends = first_bound(m, s) == NULL;
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
