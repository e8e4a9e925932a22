/* Grants, and what is done to holds. */
#include "raftstore/lock/table.h"

#include <assert.h>
#include <stdlib.h>

void result_of_hold(const struct hold *h, struct lock_result *ret)
{
    ret->token = h->token;
    ret->deadline_ns = hold_deadline(h);
    ret->ttl_ms = h->ttl_ms;
}

static uint64_t take_tokens(struct lock_table *t, uint64_t n)
{
    uint64_t token = t->next_token;
    t->next_token += n;
    return token;
}

/* A hold was made, or has more power than before: somebody may wait for it already, and its
 * owner's own waiters may have to yield to fewer. */
void hold_made(struct lock_table *t, const struct hold *h)
{
    struct crowd *c = h->node->crowd;
    if (c == NULL || c->n_links == 0)
        return;
    ARRAY_RESERVE(t->fresh, t->n_fresh, t->fresh_alloc);
    t->fresh[t->n_fresh++] = h->token;
    node_touch(t, h->node, 1, 0);
    if (c->n_known > 0 || !TAILQ_EMPTY(&c->front))
        node_touch(t, h->node, 0, LOCK_RANGE_END);
}

void hold_finish(struct lock_table *t, struct hold *h, enum lock_code code)
{
    struct node *n = h->node;
    uint64_t token = h->token, start = hold_start(h);
    file_leave(t, h);
    effect_hold(t, LOCK_EFFECT_ENDED, h)->code = code;
    node_touch(t, n, hold_start(h), hold_end(h));
    hold_unlink(t, h);
    free(h);
    waiters_refuse_converts(t, n, token, start);
}

/* As above; and a lapsed session, which lives for its holds only, ends with the last of them. */
void hold_end_now(struct lock_table *t, struct hold *h, enum lock_code code)
{
    struct session *s = hold_session(h);
    hold_finish(t, h, code);
    if (s != NULL && s->lapsed && s->holds == NULL)
        session_end(t, s);
}

/* Take a range out of a hold, by the owner's wish; what remains keeps its token. */
void hold_cut(struct lock_table *t, struct hold *h, uint64_t start, uint64_t end)
{
    struct node *n = h->node;
    uint64_t token = h->token, h_start = hold_start(h), h_end = hold_end(h);
    start = start > h_start ? start : h_start;
    end = end < h_end ? end : h_end;
    if (start == h_start && end == h_end) {
        hold_end_now(t, h, LOCK_RELEASED);
        return;
    }
    file_leave(t, h);
    struct lock_effect *e = effect_hold(t, LOCK_EFFECT_ENDED, h);
    e->code = LOCK_RELEASED;
    e->start = start;
    e->end = end;
    node_touch(t, n, start, end);
    struct hold *right = NULL, *kept = hold_dup(h, true, false, hold_note(h));
    if (start > h_start && end < h_end) {
        right = hold_dup(h, true, false, hold_note(h));
        hold_extra(right)->start = end + 1;
        hold_extra(kept)->end = start - 1;
    } else if (start > h_start) {
        hold_extra(kept)->end = start - 1;
    } else {
        hold_extra(kept)->start = end + 1;
    }
    hold_replace(t, h, kept);
    if (right != NULL)
        hold_link_piece(t, right, kept);
    waiters_refuse_converts(t, n, token, h_start);
}

/* News of a lease go to the session that made it; once that has ended, to the one that renews.
 * renewed_ns always grows (two commands may have one stamp) and never is since_ns again:
 * LOCK_F_UNTOUCHED lives by that.
 *
 * @no_less: the deadline comes no earlier than it was.
 * Return: the hold, perhaps in another place. */
struct hold *hold_renew(struct lock_table *t,
                        struct hold *h,
                        uint64_t ttl_ms,
                        uint64_t mtime_ns,
                        uint64_t session_id,
                        bool no_less)
{
    if (mtime_ns != 0 && !h->has_file) {
        struct hold *d = hold_dup(h, false, true, hold_note(h));
        hold_replace(t, h, d);
        h = d;
    }
    const struct hold_extra *x = hold_extra(h);
    digest_hold(t, h, false);
    if ((x == NULL || x->agent == NULL) && /* An agent is one of its session. */
        session_find(t, h->session_id) == NULL)
        h->session_id = session_id;
    if (no_less && time_after_ms(t->stamp_ns, ttl_ms) < hold_deadline(h)) {
        h->renewed_ns++;
    } else {
        h->renewed_ns = t->stamp_ns > h->renewed_ns ? t->stamp_ns : h->renewed_ns + 1;
        h->ttl_ms = (uint32_t)ttl_ms;
    }
    h->renewed_ns += h->renewed_ns == h->since_ns;
    if (h->has_file)
        hold_file(h)->mtime_ns = mtime_ns;
    heap_moved(t, HEAP_HOLD, h);
    digest_hold(t, h, true);
    return h;
}

/* Shared <-> exclusive.  More is a new grant with a new token; less keeps it. */
struct hold *hold_set_mode(struct lock_table *t, struct hold *h, bool exclusive)
{
    uint64_t token = h->token;
    struct hold *d = hold_dup(h, false, false, hold_note(h));
    d->exclusive = exclusive;
    if (exclusive) {
        d->token = take_tokens(t, 1);
        d->since_ns = t->stamp_ns;
    }
    d->since_ns += d->since_ns == d->renewed_ns; /* Touched. */
    hold_replace(t, h, d);
    file_renumber(t, d, token);
    effect_hold(t, LOCK_EFFECT_CONVERTED, d);
    if (exclusive) {
        waiters_follow_convert(t, d, token);
        hold_made(t, d);
    } else {
        node_touch(t, d->node, hold_start(d), hold_end(d));
    }
    return d;
}

struct exact {
    const struct request *request;
    struct hold *best;
    bool any_mode;
};

static bool take_exact(void *arg, struct hold *h)
{
    struct exact *e = arg;
    const struct request *r = e->request;
    if (hold_start(h) == r->claim.start && hold_end(h) == r->claim.end &&
        kind_is_posix((enum lock_kind)h->kind) == kind_is_posix(r->kind) &&
        (e->any_mode || (h->exclusive == r->claim.exclusive && hold_limit(h) == r->claim.limit)) &&
        (e->best == NULL || hold_order(h, e->best) < 0))
        e->best = h;
    return true;
}

/* The owner's hold on just this range (POSIX holds and others don't mix), in the mode and with the
 * limit asked for or with any; the first one by token. */
struct hold *own_exact(const struct node *n, const struct request *r, bool any_mode)
{
    struct exact e = {.request = r, .any_mode = any_mode};
    if (n != NULL)
        (void)own_visit(n, r->claim.owner, r->claim.start, r->claim.start, take_exact, &e);
    return e.best;
}

/* Does the owner have all that it asks for already, with consecutive tokens? */
bool own_all_exact(const struct request *r, struct node *const *nodes)
{
    uint64_t first = 0;
    for (unsigned i = 0; i < r->n_paths; i++) {
        const struct hold *h = own_exact(nodes[i], r, false);
        if (h == NULL || (i > 0 && h->token != first + i))
            return false;
        if (i == 0)
            first = h->token;
    }
    return true;
}

/* Does a hold give all that is asked for? */
static bool hold_covers(const struct hold *h, const struct claim *c)
{
    uint32_t limit = hold_limit(h);
    if (!h->exclusive)
        return !c->exclusive;
    return limit == 0 || (c->limit != 0 && limit <= c->limit);
}

enum own_lease own_lease(const struct node *n, const struct request *r, struct hold **ret_hold)
{
    if (r->n_paths != 1 || r->ttl_ms == 0 || kind_is_posix(r->kind))
        return OWN_LEASE_NONE;
    struct hold *h = own_exact(n, r, true);
    if (h == NULL || h->ttl_ms == 0)
        return OWN_LEASE_NONE;
    *ret_hold = h;
    if (hold_covers(h, &r->claim))
        return OWN_LEASE_COVERS;
    return hold_limit(h) == 0 && r->claim.limit == 0 ? OWN_LEASE_RAISE : OWN_LEASE_OTHER;
}

static void
tell_granted(struct lock_table *t, const struct request *r, const struct hold *h, bool waited)
{
    struct lock_effect *e = effect_hold(t, LOCK_EFFECT_GRANTED, h);
    e->seq = r->seq;
    e->session_id = r->session->id;
    e->waited = waited;
}

/* What is held already stays; a lease runs anew.  Return: the hold, perhaps in another place. */
static struct hold *
grant_one_again(struct lock_table *t, const struct request *r, struct hold *h, bool waited)
{
    if (h->ttl_ms != 0 && r->ttl_ms != 0) {
        h = hold_renew(t, h, r->ttl_ms, r->mtime_ns, r->session->id, r->no_less);
        effect_hold(t, LOCK_EFFECT_RENEWED, h);
    }
    if (waited)
        tell_granted(t, r, h, waited);
    return h;
}

static void grant_again(struct lock_table *t,
                        const struct request *r,
                        struct node *const *nodes,
                        bool waited,
                        struct lock_result *ret)
{
    for (unsigned i = 0; i < r->n_paths; i++) {
        struct hold *h = grant_one_again(t, r, own_exact(nodes[i], r, false), waited);
        if (i == 0)
            result_of_hold(h, ret);
    }
}

/* A POSIX lock replaces what its owner holds in its range, and takes up what it joins with
 * (POSIX.1-2017, fcntl(): a lock of the same owner in the range is replaced). */
static void
absorb_own(struct lock_table *t, struct node *n, const struct request *r, struct claim *span)
{
    uint64_t from = r->claim.start > 0 ? r->claim.start - 1 : 0;
    uint64_t to = r->claim.end < LOCK_RANGE_END ? r->claim.end + 1 : LOCK_RANGE_END;
    own_collect(t, n, r->claim.owner, from, to);
    for (size_t i = 0; i < t->n_own; i++) {
        struct hold *h = t->own[i];
        uint64_t start = hold_start(h), end = hold_end(h);
        if (!kind_is_posix((enum lock_kind)h->kind))
            continue;
        bool meets = start <= r->claim.end && r->claim.start <= end;
        bool adjoins = (end != LOCK_RANGE_END && end + 1 == r->claim.start) ||
                       (r->claim.end != LOCK_RANGE_END && r->claim.end + 1 == start);
        bool joins =
            h->exclusive == r->claim.exclusive && r->ttl_ms == 0 && hold_session(h) == r->session;
        if (joins && (meets || adjoins)) {
            span->start = start < span->start ? start : span->start;
            span->end = end > span->end ? end : span->end;
            hold_end_now(t, h, LOCK_RELEASED);
        } else if (meets) {
            hold_cut(t, h, r->claim.start, r->claim.end);
        }
    }
}

static struct hold *
grant_path(struct lock_table *t, const struct request *r, struct node *n, uint64_t token)
{
    struct request made = *r;
    if (kind_is_posix(r->kind)) {
        absorb_own(t, n, r, &made.claim);
    } else {
        struct hold *old = own_exact(n, r, true);
        if (old != NULL)
            hold_end_now(t, old, LOCK_RELEASED);
    }
    struct hold *h = hold_new(t, n, &made, token);
    hold_made(t, h);
    return h;
}

/* Give what was asked for: nothing is in the way any more.
 *
 * @nodes:  one for each path.
 * @waited: it was queued; the outcome is told for each path. */
void grant(struct lock_table *t,
           const struct request *r,
           struct node *const *nodes,
           bool waited,
           struct lock_result *ret)
{
    struct hold *h = NULL;
    if (own_all_exact(r, nodes)) {
        grant_again(t, r, nodes, waited, ret);
        return;
    }
    if (r->no_less && own_lease(nodes[0], r, &h) == OWN_LEASE_COVERS) {
        result_of_hold(grant_one_again(t, r, h, waited), ret);
        return;
    }
    h = NULL;
    if (r->n_paths == 1 && !kind_is_posix(r->kind))
        h = own_exact(nodes[0], r, true);
    if (h != NULL && hold_limit(h) == 0 && r->claim.limit == 0) {
        h = hold_set_mode(t, h, r->claim.exclusive);
        if (waited)
            tell_granted(t, r, h, waited);
        result_of_hold(h, ret);
        return;
    }
    uint64_t token = take_tokens(t, r->n_paths);
    for (unsigned i = 0; i < r->n_paths; i++) {
        h = grant_path(t, r, nodes[i], token + i);
        tell_granted(t, r, h, waited);
        if (i == 0)
            result_of_hold(h, ret);
    }
}

/* A queued CONVERT's turn. Another one of the same hold may have come first. */
void grant_convert(struct lock_table *t,
                   const struct request *r,
                   struct hold *h,
                   struct lock_result *ret)
{
    assert(h != NULL);
    if (!h->exclusive)
        h = hold_set_mode(t, h, true);
    tell_granted(t, r, h, true);
    result_of_hold(h, ret);
}
