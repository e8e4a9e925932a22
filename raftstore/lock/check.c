/* Every invariant of the table, checked the slow way; and those that a snapshot's rows could break,
 * in linear time. */
#include "raftstore/lock/table.h"

struct tally {
    const struct lock_table *t;
    bool thorough;         /* With the digest, and what is not linear. */
    struct lock_table sum; /* Only its digest is used. */
    uint64_t n_locks, n_holds, n_delays, n_directories, n_links, n_agent_holds;
};

static const char *check_hold(struct tally *y, const struct node *n, const struct hold *h)
{
    const struct lock_table *t = y->t;
    const struct session *s = hold_session(h);
    y->n_holds++;
    y->n_agent_holds += hold_agent(h) != NULL;
    if (y->thorough)
        digest_hold(&y->sum, h, true);
    if (h->node != n)
        return "a hold is not on its node";
    if (h->token == 0 || h->token >= t->next_token)
        return "a hold's token was never given out";
    if (hold_start(h) > hold_end(h))
        return "a hold's range is empty";
    if ((s == NULL) != (h->ttl_ms != 0) || (h->ttl_ms != 0) != (h->heap_index != 0))
        return "a hold is neither a lease nor a session's, or has no deadline";
    if (s != NULL && (session_find(t, s->id) != s || s->id != h->session_id))
        return "a hold hangs on a session that is not there";
    if (h->next != NULL && (hold_order(h, h->next) >= 0 || h->next->prev != h))
        return "the holds of a lock are out of order";
    if (!y->thorough)
        return h->has_file ? file_check(t, h) : NULL;
    const struct hold *found = tokens_find(&t->tokens, h->token);
    if (found == NULL || found->token != h->token || found->node != n)
        return "a hold is not found by its token, or two locks share one";
    return file_check(t, h);
}

static const char *check_pairs(const struct node *n)
{
    for (const struct hold *a = n->holds; a != NULL; a = a->next) {
        struct claim ca = hold_claim(a);
        for (const struct hold *b = a->next; b != NULL; b = b->next) {
            struct claim cb = hold_claim(b);
            if (claims_conflict(&ca, &cb) && (ca.limit == 0 || cb.limit == 0))
                return "two holds of a lock conflict";
        }
    }
    return NULL;
}

/* No more hold a lock than each of its semaphores allows. */
static const char *check_semaphores(const struct node *n)
{
    size_t n_semaphores = 0;
    for (const struct hold *h = n->holds; h != NULL; h = h->next)
        n_semaphores += hold_limit(h) != 0;
    for (const struct hold *h = n->holds; h != NULL; h = h->next) {
        if (hold_limit(h) == 0)
            continue;
        if (!h->exclusive || !hold_is_whole(h) || kind_is_posix((enum lock_kind)h->kind))
            return "a semaphore is not whole and exclusive";
        if (n_semaphores > hold_limit(h))
            return "more hold a semaphore than it allows";
    }
    if (n->crowd != NULL && n->crowd->n_semaphores != n_semaphores)
        return "a lock's count of semaphores is wrong";
    return NULL;
}

/* No waiter may want what a lapsed session holds: that would have ended it. */
static const char *check_lapsed(const struct node *n, const struct waiter *w)
{
    struct claim c = waiter_claim(w);
    for (const struct hold *h = n->holds; h != NULL; h = h->next) {
        const struct session *s = hold_session(h);
        if (s != NULL && s->lapsed && claim_wants(&c, h))
            return "somebody waits for what a lapsed session holds";
    }
    return NULL;
}

static const char *check_queue(struct tally *y, const struct node *n, bool front)
{
    const struct link *l;
    uint64_t last = 0;
    TAILQ_FOREACH(l, front ? &n->crowd->front : &n->crowd->line, entry)
    {
        const struct waiter *w = l->waiter;
        y->n_links++;
        if (l->node != n || front != ((w->flags & WAITER_F_FRONT) != 0))
            return "a waiter stands in a queue that is not its own";
        if (w->queue_number <= last)
            return "a queue is out of order";
        last = w->queue_number;
        if (waiter_grantable(w))
            return "a waiter could be granted and was not";
        const char *why = y->thorough ? check_lapsed(n, w) : NULL;
        if (why != NULL)
            return why;
    }
    return NULL;
}

static size_t list_size(const struct link_list *list)
{
    const struct link *l;
    size_t n = 0;
    TAILQ_FOREACH(l, list, entry)
    n++;
    return n;
}

static bool owner_has(const struct node *n, const struct hold *h)
{
    struct owner_cursor own = owner_holds(n, hold_owner(h));
    const struct hold *o;
    do
        o = owner_next(&own);
    while (o != NULL && o != h);
    return o != NULL;
}

static const char *check_crowd(struct tally *y, const struct node *n)
{
    const struct crowd *c = n->crowd;
    size_t n_holds = 0, n_exclusive = 0, n_ranged = 0;
    for (const struct hold *h = n->holds; h != NULL; h = h->next) {
        n_holds++;
        n_exclusive += h->exclusive;
        n_ranged += !hold_is_whole(h);
        if (y->thorough && !owner_has(n, h))
            return "a hold is not found by its owner";
    }
    if (n_holds != c->n_holds || n_exclusive != c->n_exclusive || n_ranged != c->n_ranged)
        return "a lock's counts of holds are wrong";
    if (list_size(&c->front) + list_size(&c->line) != c->n_links)
        return "a lock's count of waiters is wrong";
    size_t n_ranges = 0;
    const char *why = c->index == NULL ? NULL : ranges_check(c->index->ranges, &n_ranges);
    if (why != NULL || (c->index != NULL && n_ranges != n_holds))
        return why != NULL ? why : "a crowd's tree of ranges lacks a hold";
    if (c->dirty_start <= c->dirty_end)
        return "a lock was touched and not settled";
    if (c->delay_until_ns != 0) {
        y->n_delays++;
        digest_delay(&y->sum, n, true);
        if (c->delay_until_ns <= y->t->stamp_ns)
            return "a lock-delay is over and still there";
    }
    if (c->n_holds < 2 && c->n_links == 0 && c->delay_until_ns == 0)
        return "a lock is called busy and is not";
    why = check_queue(y, n, true);
    return why != NULL ? why : check_queue(y, n, false);
}

static const char *check_lock(struct tally *y, const struct node *n)
{
    const char *why = NULL;
    if (n->holds == NULL && n->crowd == NULL)
        return "a lock stands there that nothing keeps";
    if (n->crowd == NULL && n->holds->next != NULL)
        return "a lock with several holds is not called busy";
    for (const struct hold *h = n->holds; h != NULL && why == NULL; h = h->next)
        why = check_hold(y, n, h);
    if (why == NULL && y->thorough)
        why = check_pairs(n);
    if (why == NULL)
        why = check_semaphores(n);
    if (why == NULL && n->crowd != NULL)
        why = check_crowd(y, n);
    y->n_locks += n->holds != NULL || (n->crowd != NULL && n->crowd->n_links > 0);
    return why;
}

static const char *check_node(struct tally *y, const struct node *n)
{
    const char *why;
    if (n->touched)
        return "a node was touched and not settled";
    if (!n->is_directory)
        return check_lock(y, n);
    if (n->parent != NULL) {
        y->n_directories++;
        if (n->directory->implicit && n->directory->n_entries == 0)
            return "an implicit directory is empty";
    }
    if (n->directory->id >= y->t->next_directory_id)
        return "a directory's id was never given out";
    digest_directory(&y->sum, n, true);
    digest_changed(&y->sum, n, true);
    why = tree_check(n);
    for (const struct node *e = tree_from(n, bytes_of(NULL, 0), false); e != NULL && why == NULL;
         e = tree_from(n, node_name(e), true))
        why = check_node(y, e);
    return why;
}

static const char *check_session(struct tally *y, const struct session *s)
{
    size_t n_holds = 0, n_waiters = 0;
    uint64_t reserved = 0;
    for (const struct hold *h = s->holds; h != NULL; h = hold_extra(h)->session_next) {
        const struct hold *next = hold_extra(h)->session_next;
        n_holds++;
        if (hold_session(h) != s || (next != NULL && hold_order(h, next) >= 0))
            return "a session's holds are out of order";
    }
    const struct waiter *w;
    TAILQ_FOREACH(w, &s->waiters, session_entry)
    {
        n_waiters++;
        reserved += waiter_need(w);
        if (w->session != s || waiter_find(s, w->seq) != w)
            return "a session does not find its waiter";
    }
    if (n_holds != s->n_holds || n_waiters != s->n_waiters || reserved != s->n_reserved)
        return "a session's counts are wrong";
    if (s->lapsed ? s->heap_index != 0 || n_holds == 0 || n_waiters > 0 : s->heap_index == 0)
        return "a session is neither alive nor lapsed";
    for (uint32_t i = 0; i < s->n_kept; i++) {
        const struct kept *k = &s->kept[s->kept_begin + i];
        if (y->thorough)
            digest_kept(&y->sum, s, k, true);
        if (k->seq <= (i == 0 ? s->ack_seq : k[-1].seq))
            return "a session's results are out of order";
        if (k->code == LOCK_QUEUED && waiter_find(s, k->seq) == NULL)
            return "a result says queued, but nobody waits";
    }
    digest_session(&y->sum, s, true);
    digest_ack(&y->sum, s, true);
    return NULL;
}

static const char *check_waiters(struct tally *y)
{
    const struct lock_table *t = y->t;
    uint64_t n = 0, links = 0, last = 0, reserved = 0;
    const struct waiter *w;
    TAILQ_FOREACH(w, &t->waiters, all_entry)
    {
        n++;
        links += w->n_paths;
        reserved += waiter_need(w);
        if (y->thorough)
            digest_waiter(&y->sum, w, true);
        if (w->queue_number <= last || w->queue_number >= t->next_queue_number)
            return "the queue numbers are out of order";
        last = w->queue_number;
        if ((w->deadline_ns != LOCK_DEADLINE_NEVER) != (w->heap_index != 0))
            return "a waiter's limit is not in the heap";
        if (session_find(t, w->session->id) != w->session || w->session->lapsed)
            return "a waiter's session is not alive";
        if (!limit_valid(w->limit, w->exclusive ? LOCK_EXCLUSIVE : LOCK_SHARED, w->kind, w->start,
                         w->end) ||
            (w->limit != 0 && w->convert_token != 0))
            return "somebody waits for a slot that can't be one";
    }
    if (n != t->n_waiters || links != y->n_links || reserved != t->n_reserved)
        return "the counts of waiters are wrong";
    return NULL;
}

static const char *check_agents(const struct tally *y)
{
    const struct lock_table *t = y->t;
    size_t n_holds = 0, n_waiters = 0;
    struct agent *a;
    RB_FOREACH(a, agent_tree, (struct agent_tree *)(uintptr_t)&t->agents)
    {
        if (a->n_holds + a->n_waiters == 0)
            return "an agent neither holds nor waits";
        n_holds += a->n_holds;
        n_waiters += a->n_waiters;
    }
    const struct waiter *w;
    TAILQ_FOREACH(w, &t->waiters, all_entry)
    n_waiters -= w->agent != NULL;
    if (n_waiters != 0 || n_holds != y->n_agent_holds)
        return "the agents' counts are wrong";
    return NULL;
}

static const char *check(const struct lock_table *t, bool thorough)
{
    struct tally y = {.t = t, .thorough = thorough};
    uint64_t n_sessions = 0, n_lapsed = 0;
    const char *why = check_node(&y, t->root);
    struct session *s;
    RB_FOREACH(s, session_tree, (struct session_tree *)(uintptr_t)&t->sessions)
    {
        n_sessions++;
        n_lapsed += s->lapsed;
        if (why == NULL)
            why = check_session(&y, s);
    }
    if (why == NULL)
        why = check_waiters(&y);
    if (why == NULL)
        why = check_agents(&y);
    if (why == NULL)
        why = heap_check(t);
    for (size_t i = 0; i < t->n_infos; i++)
        digest_info(&y.sum, &t->infos[i], true);
    if (why != NULL)
        return why;
    if (y.n_locks != t->n_locks || y.n_holds != t->n_holds || y.n_delays != t->n_delays ||
        y.n_directories != t->n_directories || n_sessions != t->n_sessions ||
        n_lapsed != t->n_lapsed || t->tokens.n != t->n_holds)
        return "the totals are wrong";
    if (t->n_heap > 0 && lock_next_deadline_ns(t) <= t->stamp_ns)
        return "a deadline is over and nothing happened";
    if (thorough && y.sum.digest != t->digest)
        return "the digest is not that of the state";
    return NULL;
}

const char *lock_check(const struct lock_table *t)
{
    return check(t, /* thorough= */ true);
}

const char *check_imported(const struct lock_table *t)
{
    return check(t, /* thorough= */ false);
}
