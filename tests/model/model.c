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

bool m_overlap(const struct m_claim *a, const struct m_claim *b)
{
    return a->start <= b->end && b->start <= a->end;
}

bool m_conflict(const struct m_claim *a, const struct m_claim *b)
{
    return m_overlap(a, b) && !text_equal(&a->owner, &b->owner) && (a->exclusive || b->exclusive);
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

void m_end_hold(struct model *m, struct m_hold *h, int code)
{
    leave_ring(m, h);
    struct m_hold was = *h;
    m_effect_hold(m, LOCK_EFFECT_ENDED, h)->code = (enum lock_code)code;
    hold_drop(m, h);
    m_touch(m, &was.path, was.c.start, was.c.end);
    m_refuse_converts(m, &was.path, was.token, was.c.start);
}

struct m_hold *m_first_bound(struct model *m, const struct m_session *s)
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
    m_end_hold(m, h, code);
    if (s != NULL && s->lapsed && m_first_bound(m, s) == NULL)
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
