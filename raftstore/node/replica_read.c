/* Linearizable reads without the log (engine notes 3, "ReadIndex over own connections").
 *
 * As leader: when an entry of the own term is applied, note the commit index, ask every voter with
 * a nonce sent after the reads arrived whether its term is still ours, and serve when a majority
 * said so and the index is applied.  A later leader needs a majority whose terms were raised
 * before their votes left; the two majorities meet in a node that would have said no.  As
 * follower: ask the leader for the index. */
#include "raftstore/node/replica_impl.h"

#include <stdlib.h>
#include <string.h>

/* ---- Lists ------------------------------------------------------------------------------- */

static void reads_add(struct read_list *l, const struct read *read)
{
    if (l->n == l->n_alloc) {
        l->n_alloc = l->n_alloc == 0 ? 64 : l->n_alloc * 2;
        l->list = xrealloc(l->list, l->n_alloc * sizeof *l->list);
    }
    if (l->n == 0 || read->deadline_ns < l->deadline_ns)
        l->deadline_ns = read->deadline_ns;
    l->list[l->n++] = *read;
}

static void reads_move(struct read_list *to, struct read_list *from)
{
    for (size_t i = 0; i < from->n; i++)
        reads_add(to, &from->list[i]);
    from->n = 0;
}

size_t read_total(const struct replica *r)
{
    return r->reads_new.n + r->reads_waiting.n + r->reads_asked.n + r->rounds[0].reads.n +
           r->rounds[1].reads.n;
}

static void
read_answer_follower(struct replica *r, uint64_t to, uint64_t nonce, uint64_t index, bool ok)
{
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    Hf__ReadIndexResult m = HF__READ_INDEX_RESULT__INIT;
    m.nonce = nonce;
    m.index = index;
    m.ok = ok;
    frame.body_case = HF__PEER_FRAME__BODY_READ_INDEX_RESULT;
    frame.read_index_result = &m;
    outbox_send(r, to, &frame);
}

/* A follower that waits for this index should not have to wait for the next heartbeat to learn
 * that it is committed: an empty AppendEntries at what it is known to have says so now. */
static void read_hint_commit(struct replica *r, uint64_t to)
{
    struct peer *peer = replica_peer(r, to);
    raft_index match = 0;
    if (peer == NULL || peer->commit_sent >= r->core.commit_index ||
        raft_match_index(&r->core, to, &match) != 0)
        return;
    const struct log_entry *e = log_get(&r->log, match);
    if (e == NULL)
        return;
    struct raft_message m = {
        .type = RAFT_APPEND_ENTRIES,
        .server_id = to,
        .append_entries = {.term = r->core.current_term,
                           .prev_log_index = match,
                           .prev_log_term = e->term,
                           .leader_commit = r->core.commit_index},
    };
    codec_send(r, &m);
}

static void read_end(struct replica *r, const struct read *read, enum replica_status status)
{
    if (read->from == 0) {
        r->io->read_done(r->io_arg, read->id, status);
    } else {
        read_answer_follower(r, read->from, read->id, read->index, status == REPLICA_OK);
        if (status == REPLICA_OK)
            read_hint_commit(r, read->from);
    }
}

static void reads_expire(struct replica *r, struct read_list *l)
{
    size_t kept = 0;
    if (l->n == 0 || r->now_ns < l->deadline_ns)
        return;
    struct read_list all = *l;
    *l = (struct read_list){.list = all.list, .n_alloc = all.n_alloc, .deadline_ns = UINT64_MAX};
    for (size_t i = 0; i < all.n; i++) {
        struct read read = all.list[i];
        if (r->now_ns >= read.deadline_ns) {
            read_end(r, &read, REPLICA_NO_QUORUM);
            continue;
        }
        if (read.deadline_ns < l->deadline_ns)
            l->deadline_ns = read.deadline_ns;
        all.list[kept++] = read;
    }
    l->n = kept;
}

/* The index is known: serve what is applied, let the rest wait. */
static void reads_confirm(struct replica *r, struct read_list *l, uint64_t index)
{
    for (size_t i = 0; i < l->n; i++) {
        struct read read = l->list[i];
        read.index = index;
        if (read.from != 0 || r->applied >= index)
            read_end(r, &read, REPLICA_OK);
        else
            reads_add(&r->reads_waiting, &read);
    }
    l->n = 0;
}

void read_applied(struct replica *r)
{
    size_t kept = 0;
    for (size_t i = 0; i < r->reads_waiting.n; i++) {
        struct read read = r->reads_waiting.list[i];
        if (read.index <= r->applied)
            read_end(r, &read, REPLICA_OK);
        else
            r->reads_waiting.list[kept++] = read;
    }
    r->reads_waiting.n = kept;
}

/* ---- Rounds of the leader ---------------------------------------------------------------- */

static void round_send(struct replica *r, struct read_round *round)
{
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    Hf__ReadProbe m = HF__READ_PROBE__INIT;
    m.term = round->term;
    m.nonce = round->nonce;
    frame.body_case = HF__PEER_FRAME__BODY_READ_PROBE;
    frame.read_probe = &m;
    round->sent_ns = r->now_ns;
    for (unsigned i = 0; i < r->core.configuration.n; i++) {
        const struct raft_server *s = &r->core.configuration.servers[i];
        if (s->id != r->config.id && s->role == RAFT_VOTER)
            outbox_send(r, s->id, &frame);
    }
}

static bool round_has_majority(const struct replica *r, const struct read_round *round)
{
    unsigned acks = 0;
    const struct raft_server *self = replica_member(r, r->config.id);
    if (self != NULL && self->role == RAFT_VOTER)
        acks++;
    for (unsigned i = 0; i < round->n_acks; i++) {
        const struct raft_server *s = replica_member(r, round->acks[i]);
        if (s != NULL && s->role == RAFT_VOTER)
            acks++;
    }
    return acks > replica_voters(r) / 2;
}

static void round_won(struct replica *r, struct read_round *round)
{
    round->open = false;
    buckets_add(&r->figures.read_round, r->now_ns - round->begin_ns);
    reads_confirm(r, &round->reads, round->index);
}

static void round_begin(struct replica *r, struct read_round *round)
{
    round->open = true;
    round->nonce = ++r->nonce;
    round->term = r->core.current_term;
    round->index = r->commit;
    round->n_acks = 0;
    round->begin_ns = r->now_ns;
    reads_move(&round->reads, &r->reads_new);
    r->n_rounds++;
    if (round_has_majority(r, round) || !replica_rule(r, RULE_READ_ROUND)) {
        round_won(r, round);
        return;
    }
    round_send(r, round);
}

static void round_abort(struct replica *r, struct read_round *round)
{
    round->open = false;
    reads_move(&r->reads_new, &round->reads);
}

void read_probe(struct replica *r, uint64_t from, const Hf__ReadProbe *m)
{
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    Hf__ReadProbeResult result = HF__READ_PROBE_RESULT__INIT;
    if (m->term != r->core.current_term)
        return; /* No answer is as good as "no". */
    result.term = r->core.current_term;
    result.nonce = m->nonce;
    frame.body_case = HF__PEER_FRAME__BODY_READ_PROBE_RESULT;
    frame.read_probe_result = &result;
    outbox_send(r, from, &frame);
}

void read_probe_result(struct replica *r, uint64_t from, const Hf__ReadProbeResult *m)
{
    struct peer *peer = replica_peer(r, from);
    if (!replica_is_leader(r) || m->term != r->core.current_term)
        return;
    if (peer != NULL)
        peer->heard_ns = r->now_ns;
    for (unsigned i = 0; i < 2; i++) {
        struct read_round *round = &r->rounds[i];
        bool known = false;
        if (!round->open || round->nonce != m->nonce || round->term != m->term)
            continue;
        for (unsigned j = 0; j < round->n_acks; j++)
            known = known || round->acks[j] == from;
        if (!known && round->n_acks < REPLICA_MEMBERS_MAX)
            round->acks[round->n_acks++] = from;
        if (!round_has_majority(r, round))
            return;
        round_won(r, round);
        return;
    }
}

void read_index(struct replica *r, uint64_t from, const Hf__ReadIndex *m)
{
    struct read read = {
        .id = m->nonce,
        .from = from,
        .deadline_ns = r->now_ns + (uint64_t)replica_election_ms(r) * 1000000,
    };
    if (!replica_is_leader(r) || !r->ready || read_total(r) >= REPLICA_READS_MAX) {
        read_answer_follower(r, from, m->nonce, 0, false);
        return;
    }
    reads_add(&r->reads_new, &read);
}

/* ---- Asking, as follower ----------------------------------------------------------------- */

static uint64_t read_step_ns(const struct replica *r)
{
    return (uint64_t)r->config.heartbeat_ms * 1000000;
}

static void ask_abort(struct replica *r)
{
    r->asked_nonce = 0;
    reads_move(&r->reads_new, &r->reads_asked);
}

static void ask_send(struct replica *r)
{
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    Hf__ReadIndex m = HF__READ_INDEX__INIT;
    r->asked_ns = r->now_ns;
    m.nonce = r->asked_nonce;
    frame.body_case = HF__PEER_FRAME__BODY_READ_INDEX;
    frame.read_index = &m;
    outbox_send(r, r->leader_id, &frame);
}

static void ask_begin(struct replica *r)
{
    reads_move(&r->reads_asked, &r->reads_new);
    r->asked_nonce = ++r->nonce;
    r->asked_leader = r->leader_id;
    r->asked_first_ns = r->now_ns;
    r->n_rounds++;
    ask_send(r);
}

void read_index_result(struct replica *r, uint64_t from, const Hf__ReadIndexResult *m)
{
    if (r->asked_nonce == 0 || m->nonce != r->asked_nonce || from != r->asked_leader ||
        m->index > REPLICA_INDEX_MAX)
        return;
    if (!m->ok) {
        ask_abort(r);
        r->ask_again_ns = r->now_ns + read_step_ns(r);
        return;
    }
    r->asked_nonce = 0;
    buckets_add(&r->figures.read_round, r->now_ns - r->asked_first_ns);
    reads_confirm(r, &r->reads_asked, m->index);
}

/* A question that stays without answer is repeated under the same nonce: the leader may only be
 * far away, and what it says to the first one is as good. */
static void ask_flush(struct replica *r)
{
    if (r->asked_nonce != 0 && (r->asked_leader != r->leader_id || r->reads_asked.n == 0))
        ask_abort(r);
    if (r->asked_nonce != 0 && r->now_ns >= r->asked_ns + 4 * read_step_ns(r))
        ask_send(r);
    if (r->asked_nonce == 0 && r->reads_new.n > 0 && r->leader_id != 0 &&
        r->leader_id != r->config.id && r->now_ns >= r->ask_again_ns)
        ask_begin(r);
}

/* ---- Turns ------------------------------------------------------------------------------- */

enum replica_status
replica_read(struct replica *r, uint64_t now_ns, uint64_t read_id, uint64_t deadline_ns)
{
    struct read read = {.id = read_id, .deadline_ns = deadline_ns};
    replica_enter(r, now_ns);
    if (r->stopped)
        return REPLICA_STOPPED;
    if (read_total(r) >= REPLICA_READS_MAX)
        return REPLICA_BUSY;
    r->n_reads++;
    reads_add(&r->reads_new, &read);
    return REPLICA_OK;
}

/* What was confirmed stays confirmed; the rest asks anew. Followers ask again themselves. */
void read_role_changed(struct replica *r)
{
    size_t kept = 0;
    round_abort(r, &r->rounds[0]);
    round_abort(r, &r->rounds[1]);
    ask_abort(r);
    if (r->state == RAFT_LEADER)
        return;
    for (size_t i = 0; i < r->reads_new.n; i++) {
        struct read read = r->reads_new.list[i];
        if (read.from == 0)
            r->reads_new.list[kept++] = read;
        else
            read_end(r, &read, REPLICA_NOT_LEADER);
    }
    r->reads_new.n = kept;
}

static void read_leader_flush(struct replica *r)
{
    for (unsigned i = 0; i < 2; i++) {
        struct read_round *round = &r->rounds[i];
        if (round->open && r->now_ns >= round->sent_ns + 2 * read_step_ns(r))
            round_send(r, round);
        if (!round->open && r->ready && r->reads_new.n > 0)
            round_begin(r, round);
    }
}

void read_flush(struct replica *r)
{
    reads_expire(r, &r->reads_new);
    reads_expire(r, &r->reads_waiting);
    reads_expire(r, &r->reads_asked);
    reads_expire(r, &r->rounds[0].reads);
    reads_expire(r, &r->rounds[1].reads);
    for (unsigned i = 0; i < 2; i++) {
        if (r->rounds[i].open && r->rounds[i].reads.n == 0)
            r->rounds[i].open = false;
    }
    if (r->state == RAFT_LEADER)
        read_leader_flush(r);
    else
        ask_flush(r);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t read_wake_ns(const struct replica *r)
{
    uint64_t at = UINT64_MAX;
    const struct read_list *lists[] = {&r->reads_new, &r->reads_waiting, &r->reads_asked,
                                       &r->rounds[0].reads, &r->rounds[1].reads};
    for (unsigned i = 0; i < 5; i++) {
        if (lists[i]->n > 0)
            at = earlier(at, lists[i]->deadline_ns);
    }
    for (unsigned i = 0; i < 2; i++) {
        if (r->rounds[i].open)
            at = earlier(at, r->rounds[i].sent_ns + 2 * read_step_ns(r));
    }
    if (r->asked_nonce != 0)
        at = earlier(at, r->asked_ns + 4 * read_step_ns(r));
    else if (r->reads_new.n > 0 && r->state != RAFT_LEADER && r->leader_id != 0)
        at = earlier(at, r->ask_again_ns);
    return at;
}

void read_free(struct replica *r)
{
    free(r->reads_new.list);
    free(r->reads_waiting.list);
    free(r->reads_asked.list);
    free(r->rounds[0].reads.list);
    free(r->rounds[1].reads.list);
}
