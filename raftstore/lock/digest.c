/* The digest of the state: the sum, modulo 2^128, of a hash of each object.
 *
 * A sum does not depend on order and is kept up to date by subtracting the old and adding the
 * new.  It has to notice replicas that went apart, not to withstand an adversary, so the hash is
 * a fast one: the folded 64 x 64 -> 128 bit multiplication of Wang Yi's wyhash (public domain,
 * "final version 4", the variant whose state can't be lost to a factor of zero). */
#include "raftstore/lock/table.h"

#include <endian.h>

enum object_type {
    OBJECT_HOLD = 1,
    OBJECT_WAITER = 2,
    OBJECT_WAITER_PATH = 3,
    OBJECT_SESSION = 4,
    OBJECT_ACK = 5,
    OBJECT_KEPT = 6,
    OBJECT_DIRECTORY = 7,
    OBJECT_CHANGED = 8,
    OBJECT_DELAY = 9,
    OBJECT_INFO = 10,
    OBJECT_META = 11,
};

struct mix {
    uint64_t lo;
    uint64_t hi;
};

uint64_t digest_fold(uint64_t a, uint64_t b)
{
    unsigned __int128 p = (unsigned __int128)a * b;
    return (a ^ (uint64_t)p) ^ (b ^ (uint64_t)(p >> 64));
}

static struct mix mix_begin(enum object_type type)
{
    return (struct mix){UINT64_C(0x2d358dccaa6c78a5) + type, UINT64_C(0x8bb84b93962eacc9) - type};
}

static void mix_pair(struct mix *m, uint64_t a, uint64_t b)
{
    m->lo = digest_fold(m->lo ^ a, b ^ UINT64_C(0x4b33a62ed433d4a3));
    m->hi = digest_fold(m->hi ^ b, a ^ UINT64_C(0x4d5a2da51de1aa47));
}

static void mix_bytes(struct mix *m, struct bytes b)
{
    const unsigned char *p = b.data;
    uint64_t w[2];
    mix_pair(m, b.size, 0);
    for (size_t left = b.size; left > 0;) {
        size_t size = left < sizeof w ? left : sizeof w;
        w[0] = w[1] = 0;
        memcpy(w, p, size);
        mix_pair(m, le64toh(w[0]), le64toh(w[1]));
        p += size;
        left -= size;
    }
}

static void mix_add(struct lock_table *t, struct mix *m, bool add)
{
    mix_pair(m, UINT64_C(0xa0761d6478bd642f), UINT64_C(0xe7037ed1a0b428db));
    unsigned __int128 sum = (unsigned __int128)m->hi << 64 | m->lo;
    t->digest = add ? t->digest + sum : t->digest - sum;
}

static uint64_t two(uint32_t a, uint32_t b)
{
    return (uint64_t)a << 32 | b;
}

static void mix_place(struct mix *m, const struct node *n)
{
    mix_pair(m, n->parent == NULL ? 0 : n->parent->directory->id, n->parent == NULL);
    mix_bytes(m, node_name(n));
}

void digest_hold(struct lock_table *t, const struct hold *h, bool add)
{
    const struct hold_extra *x = hold_extra(h);
    const struct agent *agent = hold_agent(h);
    struct mix m = mix_begin(OBJECT_HOLD);
    uint32_t bits = (uint32_t)(h->exclusive | h->kind << 1 | (hold_twin(h) != 0) << 4 |
                               (hold_session(h) != NULL) << 5);
    mix_pair(&m, h->token, h->session_id);
    mix_pair(&m, h->since_ns, h->renewed_ns);
    mix_pair(&m, two(h->ttl_ms, h->pid), two(h->uid, h->gid));
    mix_pair(&m, hold_start(h), hold_end(h));
    mix_pair(&m, two(h->perm, bits), x == NULL ? 0 : x->lock_delay_ms);
    mix_pair(&m, agent == NULL ? 0 : agent->number, hold_limit(h));
    const struct hold_file *f = hold_file(h);
    if (f != NULL && (f->mtime_ns | f->file_token | f->twin) != 0) {
        mix_pair(&m, f->mtime_ns, f->file_token);
        mix_pair(&m, f->twin, 0);
    }
    mix_place(&m, h->node);
    mix_bytes(&m, hold_owner(h));
    mix_bytes(&m, hold_note(h));
    mix_add(t, &m, add);
}

void digest_waiter(struct lock_table *t, const struct waiter *w, bool add)
{
    struct mix m = mix_begin(OBJECT_WAITER);
    mix_pair(&m, w->queue_number, w->seq);
    mix_pair(&m, w->since_ns, w->deadline_ns);
    mix_pair(&m, w->start, w->end);
    mix_pair(&m, w->convert_token, w->session->id);
    mix_pair(&m, w->agent == NULL ? 0 : w->agent->number, two(w->ttl_ms, w->lock_delay_ms));
    mix_pair(&m, two(w->flags, w->pid), two(w->uid, w->gid));
    mix_pair(&m, two(w->perm, w->n_paths), two(w->exclusive | w->limit << 1, (uint32_t)w->kind));
    for (unsigned i = 0; i < w->n_paths; i++)
        mix_place(&m, w->links[i].node);
    mix_bytes(&m, waiter_owner(w));
    mix_bytes(&m, waiter_note(w));
    mix_add(t, &m, add);
}

void digest_session(struct lock_table *t, const struct session *s, bool add)
{
    struct mix m = mix_begin(OBJECT_SESSION);
    mix_pair(&m, s->id, s->deadline_ns);
    mix_pair(&m, s->ttl_ms, s->opened_ns);
    mix_pair(&m, s->lapsed, 0);
    mix_bytes(&m, bytes_of(s->host, s->host_size));
    mix_add(t, &m, add);
}

/* Apart from the session's other fields, because it changes with nearly every command. */
void digest_ack(struct lock_table *t, const struct session *s, bool add)
{
    struct mix m = mix_begin(OBJECT_ACK);
    mix_pair(&m, s->id, s->ack_seq);
    mix_add(t, &m, add);
}

void digest_kept(struct lock_table *t, const struct session *s, const struct kept *k, bool add)
{
    struct mix m = mix_begin(OBJECT_KEPT);
    mix_pair(&m, s->id, k->seq);
    mix_pair(&m, k->stamp_ns, k->token);
    mix_pair(&m, k->deadline_ns, k->ttl_ms);
    mix_pair(&m, (uint64_t)k->code, 0);
    mix_add(t, &m, add);
}

void digest_directory(struct lock_table *t, const struct node *n, bool add)
{
    const struct directory *d = n->directory;
    struct mix m = mix_begin(OBJECT_DIRECTORY);
    mix_pair(&m, d->id, two(d->uid, d->gid));
    mix_pair(&m, two(d->perm, d->implicit), 0);
    mix_place(&m, n);
    mix_add(t, &m, add);
}

/* Apart, because it changes whenever an entry comes or goes. */
void digest_changed(struct lock_table *t, const struct node *n, bool add)
{
    struct mix m = mix_begin(OBJECT_CHANGED);
    mix_pair(&m, n->directory->id, n->directory->changed_ns);
    mix_add(t, &m, add);
}

void digest_delay(struct lock_table *t, const struct node *n, bool add)
{
    struct mix m = mix_begin(OBJECT_DELAY);
    mix_pair(&m, n->crowd->delay_until_ns, 0);
    mix_place(&m, n);
    mix_add(t, &m, add);
}

void digest_info(struct lock_table *t, const struct node_info *i, bool add)
{
    struct mix m = mix_begin(OBJECT_INFO);
    mix_pair(&m, i->node_id, 0);
    mix_bytes(&m, bytes_of(i->host, i->host_size));
    mix_add(t, &m, add);
}

struct lock_digest lock_digest(const struct lock_table *t)
{
    struct mix m = mix_begin(OBJECT_META);
    const struct lock_limits *l = &t->limits;
    mix_pair(&m, (uint64_t)t->digest, (uint64_t)(t->digest >> 64));
    mix_pair(&m, t->index, t->term);
    mix_pair(&m, t->stamp_ns, t->next_token);
    mix_pair(&m, t->next_session_id, t->next_directory_id);
    mix_pair(&m, t->next_queue_number, l->holds_max);
    mix_pair(&m, l->holds_per_session_max, l->waiters_max);
    mix_pair(&m, l->sessions_max, l->directories_max);
    mix_pair(&m, UINT64_C(0xa0761d6478bd642f), UINT64_C(0xe7037ed1a0b428db));
    return (struct lock_digest){m.lo, m.hi};
}
