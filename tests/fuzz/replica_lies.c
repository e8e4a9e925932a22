#include "tests/fuzz/replica.h"

#include <stdio.h>
#include <stdlib.h>

#define ENTRIES_MAX 8u

/* A liar, whom it talks to, and room for what it says. */
struct liar {
    struct world *w;
    struct feed *f;
    struct node *to;
    uint64_t from;
    Hf__Entry entries[ENTRIES_MAX];
    Hf__Entry *pointers[ENTRIES_MAX];
    struct buf data[ENTRIES_MAX];
};

/* ---- Numbers that hurt ------------------------------------------------------------------- */

static uint64_t lie_term(struct liar *l)
{
    const struct replica *r = l->to->r;
    const uint64_t bases[] = {
        r->core.current_term, r->core.current_term + 1, r->core.current_term, 0,
        REPLICA_INDEX_MAX,    r->snapshot_term,         UINT64_MAX,           UINT64_C(1) << 32};
    uint8_t choice = feed_u8(l->f);
    if (choice < 96) /* Mostly plausible: else nothing deep is reached. */
        return r->core.current_term + choice % 3;
    return feed_near(l->f, bases, sizeof bases / sizeof bases[0]);
}

static uint64_t lie_index(struct liar *l)
{
    const struct replica *r = l->to->r;
    const uint64_t bases[] = {log_last(&r->log),   r->commit,
                              r->applied,          r->log.first,
                              r->snapshot_index,   r->conf_applied_index,
                              r->core.last_stored, 0,
                              REPLICA_INDEX_MAX,   UINT64_MAX,
                              UINT64_C(1) << 32,   UINT64_C(1) << 31};
    uint8_t choice = feed_u8(l->f);
    if (choice < 64)
        return log_last(&r->log) - choice % 4;
    if (choice < 128)
        return r->log.first + choice % 32;
    return feed_near(l->f, bases, sizeof bases / sizeof bases[0]);
}

/* The term that the victim has at an index, or another one. */
static uint64_t lie_term_at(struct liar *l, uint64_t index)
{
    const struct replica *r = l->to->r;
    const struct log_entry *e = log_get(&r->log, index);
    if (feed_u8(l->f) >= 192)
        return lie_term(l);
    if (e != NULL)
        return e->term;
    return index == 0 ? 0 : index == r->snapshot_index ? r->snapshot_term : r->core.current_term;
}

/* ---- Things that hurt -------------------------------------------------------------------- */

static void lie_configuration(struct liar *l, struct buf *out)
{
    struct bytes whole;
    uint8_t how = feed_u8(l->f);
    if (how & 1)
        whole = configuration_make(how >> 1 & 7, how & 16);
    else
        whole = bytes_of(xmemdup(l->w->conf.data, l->w->conf.size), l->w->conf.size);
    buf_add(out, whole.data, whole.size);
    free((void *)(uintptr_t)whole.data);
    if ((how & 32) && out->size > 0) /* One byte of it is another. */
        out->data[feed_u8(l->f) % out->size] = feed_u8(l->f);
    if (how & 64)
        out->size = out->size * (feed_u8(l->f) % 16) / 16;
    if (how & 128) {
        struct bytes more = feed_bytes(l->f, 64);
        buf_add(out, more.data, more.size);
    }
}

/* A log entry with one command, which may be any bytes. */
static void lie_command(struct liar *l, struct buf *out)
{
    static const uint8_t tick[] = {0x08, LOCK_OP_TICK};
    const uint64_t stamps[] = {l->to->r->applied_stamp_ns, 0, UINT64_MAX, l->w->now_ns};
    uint8_t how = feed_u8(l->f);
    uint64_t stamp = feed_near(l->f, stamps, 4);
    uint64_t delta = how & 1 ? feed_u64(l->f) : 0;
    struct bytes command = how & 2 ? feed_bytes(l->f, 200) : bytes_of(tick, sizeof tick);
    size_t size = ENTRY_HEAD_BYTES + entry_command_size(command.size, delta);
    uint8_t *p = entry_put_head(buf_reserve(out, size), stamp);
    (void)entry_put_command(p, command, delta);
    out->size += size;
    if (how & 4) {
        struct bytes more = feed_bytes(l->f, 64);
        buf_add(out, more.data, more.size);
    }
}

static void lie_entry(struct liar *l, unsigned i, uint64_t term)
{
    uint8_t kind = feed_u8(l->f);
    Hf__Entry *e = &l->entries[i];
    struct buf *data = &l->data[i];
    data->size = 0;
    hf__entry__init(e);
    e->term = term;
    e->type = RAFT_COMMAND;
    if (kind < 128) {
        lie_command(l, data);
    } else if (kind < 192) {
        e->type = RAFT_CHANGE;
        lie_configuration(l, data);
    } else if (kind < 224) {
        e->type = RAFT_BARRIER;
    } else {
        struct bytes any = feed_bytes(l->f, 255);
        buf_add(data, any.data, any.size);
        e->type = kind & 7;
    }
    e->data = pack_binary(bytes_of(data->data, data->size));
    l->pointers[i] = e;
}

/* ---- Frames ------------------------------------------------------------------------------ */

static void say(struct liar *l, Hf__PeerFrame__BodyCase type, void *message)
{
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    frame.body_case = type;
    frame.hello = message; /* A union of pointers. */
    real_receive(l->to, l->from, &frame);
}

static void lie_append(struct liar *l)
{
    Hf__AppendEntries m = HF__APPEND_ENTRIES__INIT;
    uint8_t n = feed_u8(l->f);
    m.term = lie_term(l);
    m.prev_log_index = lie_index(l);
    m.prev_log_term = lie_term_at(l, m.prev_log_index);
    m.leader_commit = lie_index(l);
    m.n_entries = n % (ENTRIES_MAX + 1);
    for (unsigned i = 0; i < m.n_entries; i++)
        lie_entry(l, i, n & 128 ? lie_term(l) : n & 64 ? m.prev_log_term : m.term);
    m.entries = l->pointers;
    say(l, HF__PEER_FRAME__BODY_APPEND_ENTRIES, &m);
}

static void lie_vote(struct liar *l)
{
    Hf__RequestVote m = HF__REQUEST_VOTE__INIT;
    uint8_t how = feed_u8(l->f);
    m.term = lie_term(l);
    m.candidate_id = how & 4 ? feed_u8(l->f) : l->from;
    m.last_log_index = lie_index(l);
    m.last_log_term = lie_term_at(l, m.last_log_index);
    m.disrupt_leader = how & 1;
    m.pre_vote = how & 2;
    say(l, HF__PEER_FRAME__BODY_REQUEST_VOTE, &m);
}

static void lie_vote_result(struct liar *l)
{
    Hf__RequestVoteResult m = HF__REQUEST_VOTE_RESULT__INIT;
    uint8_t how = feed_u8(l->f);
    m.term = lie_term(l);
    m.vote_granted = how & 1;
    m.pre_vote = how & 2;
    say(l, HF__PEER_FRAME__BODY_REQUEST_VOTE_RESULT, &m);
}

static void lie_append_result(struct liar *l)
{
    Hf__AppendEntriesResult m = HF__APPEND_ENTRIES_RESULT__INIT;
    m.term = lie_term(l);
    m.rejected = feed_u8(l->f) & 1 ? lie_index(l) : 0;
    m.last_log_index = lie_index(l);
    say(l, HF__PEER_FRAME__BODY_APPEND_ENTRIES_RESULT, &m);
}

static void lie_timeout_now(struct liar *l)
{
    Hf__TimeoutNow m = HF__TIMEOUT_NOW__INIT;
    m.term = lie_term(l);
    m.last_log_index = lie_index(l);
    m.last_log_term = lie_term_at(l, m.last_log_index);
    say(l, HF__PEER_FRAME__BODY_TIMEOUT_NOW, &m);
}

static uint64_t lie_nonce(struct liar *l)
{
    const struct replica *r = l->to->r;
    const uint64_t bases[] = {r->nonce, r->rounds[0].nonce, r->rounds[1].nonce, r->asked_nonce};
    return feed_near(l->f, bases, 4);
}

static void lie_read(struct liar *l, uint8_t type)
{
    Hf__ReadProbe probe = HF__READ_PROBE__INIT;
    Hf__ReadProbeResult probe_result = HF__READ_PROBE_RESULT__INIT;
    Hf__ReadIndex index = HF__READ_INDEX__INIT;
    Hf__ReadIndexResult index_result = HF__READ_INDEX_RESULT__INIT;
    switch (type % 4) {
    case 0:
        probe.term = lie_term(l);
        probe.nonce = lie_nonce(l);
        say(l, HF__PEER_FRAME__BODY_READ_PROBE, &probe);
        break;
    case 1:
        probe_result.term = lie_term(l);
        probe_result.nonce = lie_nonce(l);
        say(l, HF__PEER_FRAME__BODY_READ_PROBE_RESULT, &probe_result);
        break;
    case 2:
        index.nonce = lie_nonce(l);
        say(l, HF__PEER_FRAME__BODY_READ_INDEX, &index);
        break;
    default:
        index_result.nonce = lie_nonce(l);
        index_result.index = lie_index(l);
        index_result.ok = feed_u8(l->f) & 1;
        say(l, HF__PEER_FRAME__BODY_READ_INDEX_RESULT, &index_result);
        break;
    }
}

static void lie_digest(struct liar *l)
{
    Hf__Digest m = HF__DIGEST__INIT;
    const struct replica *r = l->to->r;
    const uint64_t bases[] = {r->digest_newest, r->digest_newest + REPLICA_DIGEST_EVERY, 0,
                              UINT64_MAX};
    m.index = feed_near(l->f, bases, 4);
    m.lo = feed_u8(l->f);
    m.hi = feed_u8(l->f);
    say(l, HF__PEER_FRAME__BODY_DIGEST, &m);
}

/* Bytes that may be any frame. */
static void lie_bytes(struct liar *l)
{
    struct bytes packed = feed_bytes(l->f, 255);
    arena_reset(&l->w->arena);
    const Hf__PeerFrame *frame = (const Hf__PeerFrame *)(const void *)pack_parse(
        &l->w->arena, &hf__peer_frame__descriptor, packed);
    bool leads = frame != NULL && frame->body_case == HF__PEER_FRAME__BODY_APPEND_ENTRIES;
    bool elsewhere = frame == NULL || frame->body_case == HF__PEER_FRAME__BODY_HELLO ||
                     frame->body_case == HF__PEER_FRAME__BODY_IMAGE_CHUNK;
    if (!elsewhere && !(leads && l->w->liars == LIARS_OUTSIDE))
        real_receive(l->to, l->from, frame);
}

static void lie_image(struct liar *l)
{
    struct buf conf = BUF_INIT;
    uint64_t term = lie_term(l);
    struct replica_image ident = {.index = lie_index(l)};
    uint8_t how = feed_u8(l->f);
    ident.term = lie_term_at(l, ident.index);
    ident.conf_index = how & 1 ? lie_index(l) : 1;
    lie_configuration(l, &conf);
    ident.conf = bytes_of(conf.data, conf.size);
    struct lock_table *empty = lock_table_new();
    struct image *i = image_make(how & 2 ? empty : l->to->r->table, &ident);
    real_receive_image(l->to, l->from, term, i);
    image_drop(i);
    lock_table_free(empty);
    buf_deinit(&conf);
}

/* Claims to lead: entries or an image.  From outside only with terms that are over. */
static void lie_as_leader(struct liar *l, bool image)
{
    if (l->w->liars == LIARS_OUTSIDE)
        return;
    if (image)
        lie_image(l);
    else
        lie_append(l);
}

void lie(struct world *w, struct feed *f)
{
    struct liar l = {.w = w, .f = f};
    uint8_t who = feed_u8(f);
    uint8_t type = feed_u8(f);
    unsigned first = w->liars == LIARS_OUTSIDE   ? LIAR_MEMBER
                     : w->liars == LIARS_ANYBODY ? 1
                                                 : LIAR_FIRST;
    l.to = &w->nodes[who % w->n_nodes];
    l.from = first + (who >> 4) % (LIAR_LAST - first + 1);
    if (l.to->r == NULL || l.to->stopped)
        return;
    if (type < 80)
        lie_as_leader(&l, /* image= */ false);
    else if (type < 96)
        lie_as_leader(&l, /* image= */ true);
    else if (type < 128)
        lie_vote(&l);
    else if (type < 152)
        lie_vote_result(&l);
    else if (type < 192)
        lie_append_result(&l);
    else if (type < 204)
        lie_timeout_now(&l);
    else if (type < 228)
        lie_read(&l, type);
    else if (type < 240)
        lie_digest(&l);
    else
        lie_bytes(&l);
    for (unsigned i = 0; i < ENTRIES_MAX; i++)
        buf_deinit(&l.data[i]);
}
