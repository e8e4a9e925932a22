/* Holds: their memory, and their places in all indexes. */
#include "raftstore/lock/table.h"

#include <assert.h>
#include <stdlib.h>

int hold_order(const struct hold *a, const struct hold *b)
{
    if (a->token != b->token)
        return a->token < b->token ? -1 : 1;
    uint64_t sa = hold_start(a), sb = hold_start(b);
    return (sa > sb) - (sa < sb);
}

static unsigned char *owner_at(const struct hold *h)
{
    return (unsigned char *)(uintptr_t)h->tail + (h->has_extra ? sizeof(struct hold_extra) : 0) +
           (h->has_file ? sizeof(struct hold_file) : 0);
}

struct bytes hold_owner(const struct hold *h)
{
    return bytes_of(owner_at(h), h->owner_size);
}

struct bytes hold_note(const struct hold *h)
{
    if (!h->has_note)
        return bytes_of(NULL, 0);
    uint16_t size;
    const unsigned char *p = owner_at(h) + h->owner_size;
    memcpy(&size, p, sizeof size);
    return bytes_of(p + sizeof size, size);
}

/* Memory for a hold with these parts; everything else is zero. */
struct hold *hold_alloc(bool extra, bool file, struct bytes owner, struct bytes note)
{
    size_t fixed = sizeof(struct hold) + (extra ? sizeof(struct hold_extra) : 0) +
                   (file ? sizeof(struct hold_file) : 0);
    uint16_t note_size = (uint16_t)note.size;
    struct hold *h = xmalloc(fixed + owner.size + (note_size > 0 ? 2u + note_size : 0u));
    memset(h, 0, fixed);
    h->has_extra = extra;
    h->has_file = file;
    h->has_note = note_size > 0;
    h->owner_size = (uint8_t)owner.size;
    unsigned char *p = owner_at(h);
    memcpy(p, owner.data, owner.size);
    if (note_size > 0) {
        memcpy(p + owner.size, &note_size, sizeof note_size);
        memcpy(p + owner.size + sizeof note_size, note.data, note_size);
    }
    return h;
}

/* A new grant on a node, in every index. */
struct hold *hold_new(struct lock_table *t, struct node *n, const struct request *r, uint64_t token)
{
    bool whole = r->claim.start == 0 && r->claim.end == LOCK_RANGE_END;
    bool extra = !whole || r->ttl_ms == 0 || r->lock_delay_ms != 0 || r->agent_number != 0 ||
                 r->claim.limit != 0;
    struct hold *h = hold_alloc(extra, r->has_file || r->mtime_ns != 0, r->claim.owner, r->note);
    h->token = token;
    h->since_ns = h->renewed_ns = t->stamp_ns;
    h->session_id = r->session->id;
    h->node = n;
    h->ttl_ms = r->ttl_ms;
    h->pid = r->pid;
    h->uid = r->uid;
    h->gid = r->gid;
    h->perm = (uint16_t)r->perm;
    h->exclusive = r->claim.exclusive;
    h->kind = (uint8_t)(r->kind & 7u);
    if (h->has_file)
        hold_file(h)->mtime_ns = r->mtime_ns;
    if (extra) {
        struct hold_extra *x = hold_extra(h);
        x->start = r->claim.start;
        x->end = r->claim.end;
        x->lock_delay_ms = r->lock_delay_ms;
        x->limit = r->claim.limit;
        x->session = r->ttl_ms == 0 ? r->session : NULL;
        if (r->agent_number != 0)
            x->agent = agent_need(t, r->session->id, r->agent_number);
    }
    hold_link(t, h);
    return h;
}

/* A copy that is in no index yet; with room for extra and file if asked, and with the note given.
 */
struct hold *hold_dup(const struct hold *h, bool extra, bool file, struct bytes note)
{
    extra = extra || h->has_extra;
    struct hold *d = hold_alloc(extra, file || h->has_file, hold_owner(h), note);
    d->token = h->token;
    d->since_ns = h->since_ns;
    d->renewed_ns = h->renewed_ns;
    d->session_id = h->session_id;
    d->node = h->node;
    d->ttl_ms = h->ttl_ms;
    d->pid = h->pid;
    d->uid = h->uid;
    d->gid = h->gid;
    d->perm = h->perm;
    d->exclusive = h->exclusive;
    d->kind = h->kind;
    if (h->has_file)
        *hold_file(d) = *hold_file(h);
    if (extra) {
        struct hold_extra *x = hold_extra(d);
        x->start = hold_start(h);
        x->end = hold_end(h);
        x->agent = hold_agent(h);
        x->session = hold_session(h);
        x->lock_delay_ms = h->has_extra ? hold_extra(h)->lock_delay_ms : 0;
        x->limit = hold_limit(h);
    }
    return d;
}

/* Into the node's list by (token, start), searching from `hint` (NULL: from the last one, since
 * most holds come in order). */
static void node_list_insert(struct node *n, struct hold *h, struct hold *hint)
{
    struct hold *first = n->holds;
    if (first == NULL) {
        h->next = NULL;
        h->prev = h;
        n->holds = h;
        return;
    }
    struct hold *after = hint != NULL ? hint : first->prev;
    while (after->next != NULL && hold_order(after->next, h) < 0)
        after = after->next;
    while (after != NULL && hold_order(after, h) > 0)
        after = after == first ? NULL : after->prev;
    if (after == NULL) {
        h->next = first;
        h->prev = first->prev;
        first->prev = h;
        n->holds = h;
        return;
    }
    h->prev = after;
    h->next = after->next;
    if (h->next != NULL)
        h->next->prev = h;
    else
        first->prev = h;
    after->next = h;
}

static void node_list_remove(struct node *n, struct hold *h)
{
    struct hold *first = n->holds;
    if (h->next != NULL)
        h->next->prev = h->prev;
    else
        first->prev = h->prev;
    if (h == first)
        n->holds = h->next;
    else
        h->prev->next = h->next;
}

/* As above, for the session's list; `sorted` false: at the end, whatever the order. */
static void session_list_insert(struct session *s, struct hold *h, struct hold *hint, bool sorted)
{
    struct hold_extra *x = hold_extra(h);
    struct hold *first = s->holds;
    s->n_holds++;
    if (first == NULL) {
        x->session_next = NULL;
        x->session_prev = h;
        s->holds = h;
        return;
    }
    struct hold *after = hint != NULL ? hint : hold_extra(first)->session_prev, *next;
    while (sorted && (next = hold_extra(after)->session_next) != NULL && hold_order(next, h) < 0)
        after = next;
    while (sorted && after != NULL && hold_order(after, h) > 0)
        after = after == first ? NULL : hold_extra(after)->session_prev;
    if (after == NULL) {
        x->session_next = first;
        x->session_prev = hold_extra(first)->session_prev;
        hold_extra(first)->session_prev = h;
        s->holds = h;
        return;
    }
    x->session_prev = after;
    x->session_next = hold_extra(after)->session_next;
    if (x->session_next != NULL)
        hold_extra(x->session_next)->session_prev = h;
    else
        hold_extra(first)->session_prev = h;
    hold_extra(after)->session_next = h;
}

static void session_list_remove(struct session *s, struct hold *h)
{
    struct hold_extra *x = hold_extra(h);
    struct hold *first = s->holds;
    s->n_holds--;
    if (x->session_next != NULL)
        hold_extra(x->session_next)->session_prev = x->session_prev;
    else
        hold_extra(first)->session_prev = x->session_prev;
    if (h == first)
        s->holds = x->session_next;
    else
        hold_extra(x->session_prev)->session_next = x->session_next;
}

static bool lock_is_used(const struct node *n)
{
    return n->holds != NULL || (n->crowd != NULL && n->crowd->n_links > 0);
}

/* Into every index.  The hints stand near the hold's place in its node's and its session's list,
 * or are NULL. */
static void
link_near(struct lock_table *t, struct hold *h, struct hold *on_node, struct hold *on_session)
{
    struct node *n = h->node;
    t->n_locks += !lock_is_used(n);
    t->n_holds++;
    crowd_add_hold(n, h);
    node_list_insert(n, h, on_node);
    if (n->crowd != NULL)
        members_review(n);
    tokens_add(&t->tokens, h);
    if (hold_session(h) != NULL)
        session_list_insert(hold_session(h), h, on_session, !t->importing);
    if (hold_agent(h) != NULL)
        hold_agent(h)->n_holds++;
    if (h->ttl_ms != 0)
        heap_add(t, HEAP_HOLD, h);
    digest_hold(t, h, true);
}

void hold_link(struct lock_table *t, struct hold *h)
{
    link_near(t, h, NULL, NULL);
}

/* A piece that was split off `twin`, which is linked already. */
void hold_link_piece(struct lock_table *t, struct hold *h, struct hold *twin)
{
    link_near(t, h, twin, hold_session(h) != NULL ? twin : NULL);
}

/* Out of every index; its agent may be gone afterwards. */
void hold_unlink(struct lock_table *t, struct hold *h)
{
    struct node *n = h->node;
    digest_hold(t, h, false);
    if (h->heap_index != 0)
        heap_remove(t, HEAP_HOLD, h);
    if (hold_session(h) != NULL)
        session_list_remove(hold_session(h), h);
    tokens_remove(&t->tokens, h);
    node_list_remove(n, h);
    crowd_remove_hold(n, h);
    t->n_holds--;
    t->n_locks -= !lock_is_used(n);
    struct agent *a = hold_agent(h);
    if (a != NULL) {
        a->n_holds--;
        agent_drop(t, a);
    }
}

/* Put `d`, made by hold_dup(), in the place of `h`, which is freed. */
void hold_replace(struct lock_table *t, struct hold *h, struct hold *d)
{
    struct agent *a = hold_agent(h);
    const struct session *s = hold_session(h);
    struct hold *on_node = NULL, *on_session = NULL;
    if (a != NULL)
        a->n_holds++; /* So that it lives on. */
    if (d->token == h->token && d->node == h->node)
        on_node = h == h->node->holds ? h->next : h->prev;
    if (d->token == h->token && s != NULL)
        on_session = h == s->holds ? hold_extra(h)->session_next : hold_extra(h)->session_prev;
    hold_unlink(t, h);
    link_near(t, d, on_node, on_session);
    if (a != NULL)
        a->n_holds--;
    free(h);
}
