/* What is done to a hold: RELEASE, RENEW, CONVERT, NOTE, BREAK. */
#include "raftstore/lock/table.h"

#include <stdlib.h>

static bool path_ok(const struct lock_command *c)
{
    return c->n_paths >= 1 && lock_path_valid(c->paths[0]);
}

/* The pieces of a split hold stand beside each other: the next one, or NULL. */
static struct hold *next_piece(const struct hold *h)
{
    return h->next != NULL && h->next->token == h->token ? h->next : NULL;
}

/* The lock that a command names, if anybody holds it. LOCK_F_ANYWHERE: where the hold stands. */
static enum lock_code find_lock(struct op *o, struct node **ret_node)
{
    const struct lock_command *c = o->c;
    if (!path_ok(c) || (c->token == 0 && !owner_valid(c->owner)))
        return LOCK_INVALID;
    struct node *n;
    if (c->token != 0 && (c->flags & LOCK_F_ANYWHERE) != 0) {
        const struct hold *h = tokens_find(&o->t->tokens, c->token);
        n = h != NULL ? h->node : NULL;
    } else {
        n = node_find(o->t, c->paths[0]);
    }
    if (n == NULL || n->is_directory || n->holds == NULL)
        return LOCK_NOT_HELD;
    *ret_node = n;
    return LOCK_OK;
}

/* Does a hold meet the conditions in a command's flags? */
static bool as_flagged(const struct lock_command *c, const struct hold *h)
{
    if ((c->flags & LOCK_F_OWNER) != 0 && !bytes_equal(hold_owner(h), c->owner))
        return false;
    return (c->flags & LOCK_F_UNTOUCHED) == 0 || h->renewed_ns == h->since_ns;
}

/* The hold that a command names by token, or else its owner's first one on the path. */
enum lock_code find_own(struct op *o, struct hold **ret_hold)
{
    const struct lock_command *c = o->c;
    struct node *n;
    enum lock_code code = find_lock(o, &n);
    if (code != LOCK_OK)
        return code;
    struct hold *h = NULL;
    if (c->token != 0) {
        h = tokens_find(&o->t->tokens, c->token);
        if (h != NULL && (h->node != n || !as_flagged(c, h)))
            h = NULL;
    } else {
        struct owner_cursor own = owner_holds(n, c->owner);
        struct hold *one;
        while ((one = owner_next(&own)) != NULL) {
            if (h == NULL || hold_order(one, h) < 0)
                h = one;
        }
    }
    if (h == NULL)
        return LOCK_NOT_OWNER;
    *ret_hold = h;
    return LOCK_OK;
}

enum lock_code op_renew(struct op *o)
{
    struct hold *h;
    enum lock_code code = find_own(o, &h);
    if (code != LOCK_OK)
        return code;
    uint64_t ttl_ms = o->c->ttl_ms != 0 ? o->c->ttl_ms : h->ttl_ms;
    if (h->ttl_ms == 0 || !ttl_valid(ttl_ms))
        return LOCK_INVALID;
    struct hold *first = NULL;
    for (struct hold *piece = h, *next; piece != NULL; piece = next) {
        next = next_piece(piece);
        piece = hold_renew(o->t, piece, ttl_ms, o->c->mtime_ns, o->s->id,
                           (o->c->flags & LOCK_F_NO_LESS) != 0);
        first = first == NULL ? piece : first;
    }
    h = first;
    effect_hold(o->t, LOCK_EFFECT_RENEWED, h);
    result_of_hold(h, o->r);
    return LOCK_OK;
}

/* Collect in t->own what a RELEASE or a BREAK names. */
static enum lock_code collect(struct op *o, bool posix_only)
{
    struct lock_table *t = o->t;
    const struct lock_command *c = o->c;
    struct node *node;
    struct hold *h;
    t->n_own = 0;
    enum lock_code code = find_lock(o, &node);
    if (code == LOCK_OK && c->token == 0)
        own_collect(t, node, c->owner, c->start, c->end);
    else if (code == LOCK_OK && (code = find_own(o, &h)) == LOCK_OK) {
        for (; h != NULL; h = next_piece(h))
            (void)own_add(t, h); /* Never stops. */
    }
    if (code != LOCK_OK)
        return code;
    size_t n = 0;
    for (size_t i = 0; i < t->n_own; i++) {
        h = t->own[i];
        if (hold_start(h) <= c->end && c->start <= hold_end(h) &&
            (!posix_only || kind_is_posix((enum lock_kind)h->kind)))
            t->own[n++] = h;
    }
    t->n_own = n;
    return n > 0 ? LOCK_OK : LOCK_NOT_OWNER;
}

/* May the holds be split where the range leaves something on both sides? */
static bool room_for_splits(const struct op *o)
{
    const struct lock_table *t = o->t;
    uint64_t n = 0;
    for (size_t i = 0; i < t->n_own; i++)
        n += hold_start(t->own[i]) < o->c->start && hold_end(t->own[i]) > o->c->end;
    for (size_t i = 0; i < t->n_own && n > 0; i++) {
        const struct session *s = hold_session(t->own[i]);
        if (!room_for_holds(t, s, n, s != NULL))
            return false;
    }
    return true;
}

enum lock_code op_release(struct op *o)
{
    struct lock_table *t = o->t;
    const struct lock_command *c = o->c;
    if (c->start > c->end || (unsigned)c->kind > LOCK_KIND_OFD)
        return LOCK_INVALID;
    bool posix = kind_is_posix(c->kind);
    enum lock_code code = collect(o, posix && c->token == 0);
    if ((code == LOCK_NOT_HELD || code == LOCK_NOT_OWNER) && posix && c->token == 0)
        return LOCK_OK; /* POSIX: to unlock what is not locked is no error. */
    if (code != LOCK_OK)
        return code;
    for (size_t i = 0; i < t->n_own; i++) {
        if (hold_limit(t->own[i]) != 0 && (c->start != 0 || c->end != LOCK_RANGE_END))
            return LOCK_INVALID; /* A slot has no parts. */
    }
    if (!room_for_splits(o))
        return LOCK_LIMIT;
    for (size_t i = 0; i < t->n_own; i++)
        hold_cut(t, t->own[i], c->start, c->end);
    return LOCK_OK;
}

enum lock_code op_break(struct op *o)
{
    struct lock_command whole = *o->c;
    struct op all = *o;
    if (o->c->token == 0)
        return LOCK_INVALID;
    whole.start = 0;
    whole.end = LOCK_RANGE_END;
    all.c = &whole;
    enum lock_code code = collect(&all, false);
    for (size_t i = 0; i < o->t->n_own && code == LOCK_OK; i++)
        hold_end_now(o->t, o->t->own[i], LOCK_BROKEN);
    return code;
}

enum lock_code op_note(struct op *o)
{
    struct lock_table *t = o->t;
    struct hold *h;
    if (o->c->note.size > LOCK_NOTE_BYTES_MAX)
        return LOCK_INVALID;
    enum lock_code code = find_own(o, &h);
    if (code != LOCK_OK)
        return code;
    struct hold *first = NULL;
    for (struct hold *piece = h, *next; piece != NULL; piece = next) {
        next = next_piece(piece);
        struct hold *d = hold_dup(piece, false, false, o->c->note);
        hold_replace(t, piece, d);
        first = first == NULL ? d : first;
    }
    effect_hold(t, LOCK_EFFECT_NOTED, first);
    result_of_hold(first, o->r);
    return LOCK_OK;
}

/* May a hold become exclusive at once? LOCK_OK, LOCK_CONFLICT, LOCK_DELAYED. */
static enum lock_code judge_raise(const struct hold *h, const struct request *r)
{
    const struct node *n = h->node;
    if (node_holds_conflict(n, &r->claim) || node_waiters_conflict(n, &r->claim, r->flags, NULL))
        return LOCK_CONFLICT;
    return n->crowd != NULL && n->crowd->delay_until_ns != 0 ? LOCK_DELAYED : LOCK_OK;
}

/* CONVERT, and an ACQUIRE that comes to the same. */
enum lock_code convert_hold(struct op *o, struct hold *h, bool exclusive)
{
    if (h->exclusive == exclusive) {
        result_of_hold(h, o->r);
        return LOCK_OK;
    }
    if (!exclusive) {
        result_of_hold(hold_set_mode(o->t, h, false), o->r);
        return LOCK_OK;
    }
    struct request r = {
        .session = o->s,
        .claim = hold_claim(h),
        .agent_number = o->c->agent,
        .seq = o->c->seq,
        .ttl_ms = h->ttl_ms,
        .pid = h->pid,
        .uid = h->uid,
        .gid = h->gid,
        .perm = h->perm,
        .flags = WAITER_F_FRONT | WAITER_F_KNOWN,
        .n_paths = 1,
        .kind = (enum lock_kind)h->kind,
    };
    r.claim.exclusive = true;
    enum lock_code code = judge_raise(h, &r);
    if (code == LOCK_OK) {
        result_of_hold(hold_set_mode(o->t, h, true), o->r);
        return LOCK_OK;
    }
    struct place place = {.node = h->node};
    if (o->c->wait_ms != 0)
        return queue_up(o, &r, h->token, &place);
    if (code == LOCK_CONFLICT)
        conflict_show(o);
    return code;
}

enum lock_code op_convert(struct op *o)
{
    struct hold *h;
    if (!mode_valid(o->c->mode))
        return LOCK_INVALID;
    enum lock_code code = find_own(o, &h);
    if (code != LOCK_OK)
        return code;
    bool exclusive = o->c->mode == LOCK_EXCLUSIVE;
    for (;;) {
        const struct session *own = hold_session(h);
        if (own != NULL && own->lapsed)
            return LOCK_NO_SESSION; /* Nobody keeps it alive; more power would be a trap. */
        if (next_piece(h) != NULL || hold_limit(h) != 0)
            return LOCK_INVALID; /* Nor can a slot, or as one what a range release split. */
        struct claim c = hold_claim(h);
        c.exclusive = true;
        if (!exclusive || h->exclusive || !evict_lapsed(o->t, h->node, &c))
            break;
        settle(o->t);
        code = find_own(o, &h);
        if (code != LOCK_OK)
            return code;
    }
    return convert_hold(o, h, exclusive);
}
