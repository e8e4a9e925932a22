/* Queued requests: their memory, their places in all indexes, and how they give up. */
#include "raftstore/lock/table.h"

#include <stdlib.h>

static int seq_order(const struct waiter *a, const struct waiter *b)
{
    return (a->seq > b->seq) - (a->seq < b->seq);
}

RB_GENERATE(waiter_tree, waiter, seq_entry, seq_order)

static const unsigned char *owner_at(const struct waiter *w)
{
    return (const unsigned char *)&w->links[w->n_paths];
}

struct bytes waiter_owner(const struct waiter *w)
{
    return bytes_of(owner_at(w), w->owner_size);
}

struct bytes waiter_note(const struct waiter *w)
{
    return bytes_of(owner_at(w) + w->owner_size, w->note_size);
}

/* Holds that a request may add to the table: a POSIX lock may split one of its owner's. */
uint64_t request_need(enum lock_kind kind, unsigned n_paths)
{
    return kind_is_posix(kind) ? 2u * n_paths : n_paths;
}

uint64_t waiter_need(const struct waiter *w)
{
    return request_need(w->kind, w->n_paths);
}

struct request waiter_request(const struct waiter *w)
{
    return (struct request){
        .session = w->session,
        .claim = waiter_claim(w),
        .note = waiter_note(w),
        .agent_number = w->agent == NULL ? 0 : w->agent->number,
        .seq = w->seq,
        .ttl_ms = w->ttl_ms,
        .lock_delay_ms = w->lock_delay_ms,
        .pid = w->pid,
        .uid = w->uid,
        .gid = w->gid,
        .perm = w->perm,
        .flags = w->flags,
        .n_paths = w->n_paths,
        .no_less = true, /* Its owner may have got more on another way meanwhile. */
        .kind = w->kind,
    };
}

struct waiter *waiter_new(const struct request *r, uint64_t convert_token, uint64_t deadline_ns)
{
    size_t fixed = sizeof(struct waiter) + r->n_paths * sizeof(struct link);
    struct waiter *w = xmalloc(fixed + r->claim.owner.size + r->note.size);
    memset(w, 0, fixed);
    w->seq = r->seq;
    w->deadline_ns = deadline_ns;
    w->start = r->claim.start;
    w->end = r->claim.end;
    w->exclusive = r->claim.exclusive;
    w->limit = r->claim.limit;
    w->convert_token = convert_token;
    w->session = r->session;
    w->ttl_ms = r->ttl_ms;
    w->lock_delay_ms = r->lock_delay_ms;
    w->flags = r->flags;
    w->pid = r->pid;
    w->uid = r->uid;
    w->gid = r->gid;
    w->perm = r->perm;
    w->n_paths = r->n_paths;
    w->kind = r->kind;
    w->owner_size = (uint8_t)r->claim.owner.size;
    w->note_size = (uint16_t)r->note.size;
    unsigned char *p = (unsigned char *)w + fixed;
    memcpy(p, r->claim.owner.data, r->claim.owner.size);
    if (r->note.size > 0)
        memcpy(p + w->owner_size, r->note.data, r->note.size);
    return w;
}

/* Take a place in the queue of one of its paths. */
void waiter_stand(struct lock_table *t, struct waiter *w, unsigned i, struct node *n)
{
    bool used = n->holds != NULL || (n->crowd != NULL && n->crowd->n_links > 0);
    t->n_locks += !used;
    w->links[i].node = n;
    w->links[i].waiter = w;
    crowd_add_link(n, &w->links[i]);
}

/* Into every index, at the end of all queues, as number t->next_queue_number (which the caller
 * raises).  Nodes that are NULL come later, by waiter_stand(). */
void waiter_enqueue(struct lock_table *t, struct waiter *w, struct node *const *nodes)
{
    TAILQ_INSERT_TAIL(&t->waiters, w, all_entry);
    TAILQ_INSERT_TAIL(&w->session->waiters, w, session_entry);
    RB_INSERT(waiter_tree, &w->session->waiters_by_seq, w);
    if (w->agent != NULL) {
        TAILQ_INSERT_TAIL(&w->agent->waiters, w, agent_entry);
        w->agent->n_waiters++;
    }
    t->n_waiters++;
    w->session->n_waiters++;
    t->n_reserved += waiter_need(w);
    w->session->n_reserved += waiter_need(w);
    if (w->deadline_ns != LOCK_DEADLINE_NEVER)
        heap_add(t, HEAP_WAITER, w);
    for (unsigned i = 0; i < w->n_paths; i++) {
        if (nodes[i] != NULL)
            waiter_stand(t, w, i, nodes[i]);
    }
}

/* Out of every index but the digest; still to be freed. */
void waiter_dequeue(struct lock_table *t, struct waiter *w)
{
    for (unsigned i = 0; i < w->n_paths; i++) {
        struct node *n = w->links[i].node;
        if (n == NULL)
            continue;
        crowd_remove_link(n, &w->links[i]);
        t->n_locks -= n->holds == NULL && n->crowd->n_links == 0;
    }
    if (w->heap_index != 0)
        heap_remove(t, HEAP_WAITER, w);
    t->n_reserved -= waiter_need(w);
    w->session->n_reserved -= waiter_need(w);
    t->n_waiters--;
    w->session->n_waiters--;
    if (w->agent != NULL) {
        TAILQ_REMOVE(&w->agent->waiters, w, agent_entry);
        w->agent->n_waiters--;
        agent_drop(t, w->agent);
    }
    RB_REMOVE(waiter_tree, &w->session->waiters_by_seq, w);
    TAILQ_REMOVE(&w->session->waiters, w, session_entry);
    TAILQ_REMOVE(&t->waiters, w, all_entry);
}

/* It gives up: tell it, and look after those behind it. */
void waiter_refuse(struct lock_table *t, struct waiter *w, enum lock_code code)
{
    struct lock_result r = {.code = code, .stamp_ns = t->stamp_ns};
    for (unsigned i = 0; i < w->n_paths; i++) {
        struct lock_effect *e = effect_waiter(t, LOCK_EFFECT_REFUSED, w, w->links[i].node);
        e->code = code;
        e->waited = true;
    }
    digest_waiter(t, w, false);
    waiter_dequeue(t, w);
    for (unsigned i = 0; i < w->n_paths; i++)
        node_touch(t, w->links[i].node, w->start, w->end);
    result_update(t, w->session, w->seq, &r);
    free(w);
}

struct waiter *waiter_find(const struct session *s, uint64_t seq)
{
    struct waiter key = {.seq = seq};
    return RB_FIND(waiter_tree, (struct waiter_tree *)(uintptr_t)&s->waiters_by_seq, &key);
}

/* A hold ended, or is no longer what it was: there is nothing to convert any more. */
void waiters_refuse_converts(struct lock_table *t, struct node *n, uint64_t token, uint64_t start)
{
    if (n->crowd == NULL)
        return;
    struct link *l, *next;
    TAILQ_FOREACH_SAFE(l, &n->crowd->front, entry, next)
    {
        if (l->waiter->convert_token == token && l->waiter->start == start)
            waiter_refuse(t, l->waiter, LOCK_NOT_HELD);
    }
}

/* A hold got a new token: those who wait to convert it mean the new one. */
void waiters_follow_convert(struct lock_table *t, const struct hold *h, uint64_t token)
{
    const struct node *n = h->node;
    if (n->crowd == NULL)
        return;
    struct link *l;
    TAILQ_FOREACH(l, &n->crowd->front, entry)
    {
        if (l->waiter->convert_token != token || l->waiter->start != hold_start(h))
            continue;
        digest_waiter(t, l->waiter, false);
        l->waiter->convert_token = h->token;
        digest_waiter(t, l->waiter, true);
    }
}
