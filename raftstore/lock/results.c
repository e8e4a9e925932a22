/* Exactly once: the results that a session's client has not acknowledged. */
#include "raftstore/lock/table.h"

/* The first kept result at or above a number. */
static uint32_t position(const struct session *s, uint64_t seq)
{
    uint32_t from = 0, to = s->n_kept;
    if (to == 0)
        return 0;
    const struct kept *k = s->kept + s->kept_begin;
    if (k[to - 1].seq < seq) /* The usual case: a new one. */
        return to;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (k[middle].seq < seq)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

struct kept *result_find(const struct session *s, uint64_t seq)
{
    uint32_t i = position(s, seq);
    if (i == s->n_kept)
        return NULL;
    struct kept *k = s->kept + s->kept_begin + i;
    return k->seq == seq ? k : NULL;
}

/* Room for one more behind the last. */
static void make_room(struct session *s)
{
    if (s->kept_begin + s->n_kept < s->kept_alloc)
        return;
    if (s->kept_begin > s->kept_alloc / 2) {
        memmove(s->kept, s->kept + s->kept_begin, s->n_kept * sizeof *s->kept);
        s->kept_begin = 0;
        return;
    }
    s->kept_alloc = s->kept_alloc == 0 ? 4 : s->kept_alloc * 2;
    s->kept = xrealloc(s->kept, s->kept_alloc * sizeof *s->kept);
}

void result_keep(struct lock_table *t, struct session *s, uint64_t seq, const struct lock_result *r)
{
    make_room(s);
    uint32_t i = position(s, seq);
    struct kept *k = s->kept + s->kept_begin + i;
    memmove(k + 1, k, (s->n_kept - i) * sizeof *k);
    *k = (struct kept){seq, r->stamp_ns, r->token, r->deadline_ns, r->ttl_ms, r->code};
    s->n_kept++;
    digest_kept(t, s, k, true);
}

/* A queued request came to its end: a repetition shall tell so. */
void result_update(struct lock_table *t,
                   struct session *s,
                   uint64_t seq,
                   const struct lock_result *r)
{
    struct kept *k = result_find(s, seq);
    if (k == NULL)
        return; /* Acknowledged while it waited. */
    digest_kept(t, s, k, false);
    *k = (struct kept){seq, r->stamp_ns, r->token, r->deadline_ns, r->ttl_ms, r->code};
    digest_kept(t, s, k, true);
}

void results_ack(struct lock_table *t, struct session *s, uint64_t ack_seq)
{
    if (ack_seq <= s->ack_seq)
        return;
    digest_ack(t, s, false);
    s->ack_seq = ack_seq;
    digest_ack(t, s, true);
    while (s->n_kept > 0 && s->kept[s->kept_begin].seq <= ack_seq) {
        digest_kept(t, s, &s->kept[s->kept_begin], false);
        s->kept_begin++;
        s->n_kept--;
    }
    if (s->n_kept == 0)
        s->kept_begin = 0;
}
