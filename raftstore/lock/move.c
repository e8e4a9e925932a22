/* LINK and RENAME: a hold gets a second name, or another one. */
#include "raftstore/lock/table.h"

#include <stdlib.h>

static bool names_valid(const struct lock_command *c)
{
    return c->n_paths == 2 && lock_path_valid(c->paths[0]) && lock_path_valid(c->paths[1]);
}

/* The same owner's lease on one more path; both are shown as one file. */
enum lock_code op_link(struct op *o)
{
    struct lock_table *t = o->t;
    const struct lock_command *c = o->c;
    struct hold *h;
    struct place p;
    if (!names_valid(c) || (unsigned)c->kind > LOCK_KIND_OFD || c->note.size > LOCK_NOTE_BYTES_MAX)
        return LOCK_INVALID;
    enum lock_code code = find_own(o, &h);
    if (code != LOCK_OK)
        return code;
    if (h->ttl_ms == 0 || !hold_is_whole(h) || kind_is_posix((enum lock_kind)h->kind) ||
        kind_is_posix(c->kind))
        return LOCK_INVALID;
    code = place_free(o, c->paths[1], 0, &p);
    if (code != LOCK_OK)
        return code;
    if (find_own(o, &h) != LOCK_OK) /* Lapsed sessions may have ended; a lease does not. */
        return LOCK_NOT_HELD;
    if (!room_for_holds(t, o->s, 1, false) || file_links(t, h) >= LOCK_LINKS_MAX)
        return LOCK_LIMIT;
    if (!h->has_file) {
        struct hold *d = hold_dup(h, false, true, hold_note(h));
        hold_replace(t, h, d);
        h = d;
    }
    struct node *n = place_make(t, &p, false);
    struct request r = {
        .session = o->s,
        .claim = hold_claim(h),
        .note = c->note.size > 0 ? c->note : hold_note(h),
        .mtime_ns = hold_mtime(h),
        .has_file = true,
        .agent_number = 0,
        .ttl_ms = h->ttl_ms,
        .lock_delay_ms = h->has_extra ? hold_extra(h)->lock_delay_ms : 0,
        .pid = h->pid,
        .uid = h->uid,
        .gid = h->gid,
        .perm = h->perm,
        .n_paths = 1,
        .kind = c->kind,
    };
    struct hold *made = hold_new(t, n, &r, t->next_token++);
    file_join(t, h, made);
    effect_hold(t, LOCK_EFFECT_GRANTED, made)->seq = c->seq;
    result_of_hold(made, o->r);
    return LOCK_OK;
}

/* Move the hold, with its token; those who wait for the old name stay there. */
enum lock_code op_rename(struct op *o)
{
    struct lock_table *t = o->t;
    const struct lock_command *c = o->c;
    struct hold *h;
    struct place p;
    if (!names_valid(c))
        return LOCK_INVALID;
    enum lock_code code = find_own(o, &h);
    if (code != LOCK_OK)
        return code;
    own_collect(t, h->node, hold_owner(h), 0, LOCK_RANGE_END);
    if (t->n_own != 1 || !hold_is_whole(h))
        return LOCK_INVALID;
    code = place_free(o, c->paths[1], 0, &p);
    if (code != LOCK_OK)
        return code;
    if ((code = find_own(o, &h)) != LOCK_OK) /* Its session may have been among those evicted. */
        return code;
    struct node *from = h->node, *to = place_make(t, &p, false);
    struct hold *d = hold_dup(h, false, false, hold_note(h));
    d->node = to;
    struct lock_effect *e = effect_hold(t, LOCK_EFFECT_RENAMED, h);
    struct bytes path2 = effects_path(t, to);
    e->path2 = path2;
    hold_replace(t, h, d);
    node_touch(t, from, 0, LOCK_RANGE_END);
    waiters_refuse_converts(t, from, d->token, 0);
    result_of_hold(d, o->r);
    return LOCK_OK;
}
