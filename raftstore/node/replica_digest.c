/* Nodes compare their states: a divergence must not go unnoticed.
 *
 * The leader tells its digest now and then.  Who differs tells all his own, again and again, and
 * so do the others who then differ from him.  Whoever has a majority of the voters against him
 * stops, be he the leader; who has one on his side goes on.  With too few to decide, a follower
 * that differs from its leader stops after a while; what any other single node says stops nobody.
 */
#include "raftstore/node/replica_impl.h"

static bool digest_equal(struct lock_digest a, struct lock_digest b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

/* Our own at an index; NULL when we have none (any more, or yet). */
static const struct digest_mark *digest_own(const struct replica *r, uint64_t index)
{
    const struct digest_mark *own = &r->digests[index / REPLICA_DIGEST_EVERY % REPLICA_DIGESTS];
    return index != 0 && own->index == index ? own : NULL;
}

static void digest_send(struct replica *r, const struct digest_mark *mark, uint64_t to)
{
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    Hf__Digest m = HF__DIGEST__INIT;
    m.index = mark->index;
    m.lo = mark->digest.lo;
    m.hi = mark->digest.hi;
    frame.body_case = HF__PEER_FRAME__BODY_DIGEST;
    frame.digest = &m;
    for (unsigned i = 0; i < r->core.configuration.n; i++) {
        uint64_t id = r->core.configuration.servers[i].id;
        if (id != r->config.id && (to == 0 || to == id))
            outbox_send(r, id, &frame);
    }
}

/* Voters, this node included, that were last heard to have this digest at this index. */
static unsigned digest_votes(const struct replica *r, const struct digest_mark *mark)
{
    const struct digest_mark *own = digest_own(r, mark->index);
    unsigned votes = 0;
    for (unsigned i = 0; i < r->core.configuration.n; i++) {
        const struct raft_server *s = &r->core.configuration.servers[i];
        const struct digest_mark *said = s->id == r->config.id ? own : NULL;
        for (unsigned j = 0; j < r->n_peers && said == NULL; j++)
            said = r->peers[j].id == s->id ? &r->peers[j].digest : NULL;
        if (s->role == RAFT_VOTER && said != NULL && said->index == mark->index &&
            digest_equal(said->digest, mark->digest))
            votes++;
    }
    return votes;
}

static void digest_fatal(struct replica *r,
                         const char *whose,
                         const struct digest_mark *own,
                         const struct digest_mark *theirs)
{
    replica_fatal(r,
                  "this node's lock table differs from %s at log index %llu "
                  "(digest %016llx%016llx, there %016llx%016llx): "
                  "remove the node's data and add it again under a new id",
                  whose, (unsigned long long)theirs->index, (unsigned long long)own->digest.hi,
                  (unsigned long long)own->digest.lo, (unsigned long long)theirs->digest.hi,
                  (unsigned long long)theirs->digest.lo);
}

/* Somebody's is another than ours. */
static void
digest_dispute(struct replica *r, const struct digest_mark *own, const struct digest_mark *theirs)
{
    unsigned majority = replica_voters(r) / 2 + 1;
    if (digest_votes(r, theirs) >= majority) {
        digest_fatal(r, "the majority's", own, theirs);
    } else if (digest_votes(r, own) >= majority) {
        r->dispute_since_ns = 0;
    } else if (r->dispute_since_ns == 0) {
        r->dispute_since_ns = r->now_ns;
        r->dispute_told_ns = r->now_ns;
        r->dispute = *theirs;
        replica_log_line(r, LOG_LEVEL_ERROR, "lock tables differ", "index=%llu",
                         (unsigned long long)own->index);
        digest_send(r, own, 0);
    }
}

static void digest_judge(struct replica *r, const struct digest_mark *theirs)
{
    const struct digest_mark *own = digest_own(r, theirs->index);
    if (own == NULL)
        return;
    if (!digest_equal(own->digest, theirs->digest))
        digest_dispute(r, own, theirs);
    else if (r->dispute_since_ns != 0 && digest_votes(r, own) > replica_voters(r) / 2)
        r->dispute_since_ns = 0;
}

void digest_applied(struct replica *r)
{
    if (r->applied % REPLICA_DIGEST_EVERY != 0)
        return;
    r->digests[r->applied / REPLICA_DIGEST_EVERY % REPLICA_DIGESTS] = (struct digest_mark){
        .index = r->applied,
        .digest = lock_digest(r->table),
    };
    r->digest_newest = r->applied;
    for (unsigned i = 0; i < r->n_peers && !r->stopped; i++) {
        if (r->peers[i].digest.index == r->applied)
            digest_judge(r, &r->peers[i].digest);
    }
}

/* Is what the leader told last another digest than ours? */
static bool digest_leader_differs(const struct replica *r)
{
    if (!replica_rule(r, RULE_DISPUTE_LEADER))
        return true;
    for (unsigned i = 0; i < r->n_peers; i++) {
        const struct digest_mark *told = &r->peers[i].digest;
        const struct digest_mark *own = digest_own(r, told->index);
        if (r->peers[i].id == r->leader_id)
            return own != NULL && !digest_equal(told->digest, own->digest);
    }
    return false;
}

/* Nobody has decided it for long: the leader, who has a majority with him, goes on. */
static void dispute_flush(struct replica *r)
{
    const struct digest_mark *own = digest_own(r, r->dispute.index);
    if (r->dispute_since_ns == 0)
        return;
    if (own == NULL) {
        r->dispute_since_ns = 0; /* Too old; a newer one follows. */
    } else if (r->state != RAFT_LEADER && r->now_ns - r->dispute_since_ns > REPLICA_DISPUTE_NS) {
        if (digest_leader_differs(r))
            digest_fatal(r, "another node's", own, &r->dispute);
        r->dispute_since_ns = 0;
    } else if (r->now_ns - r->dispute_told_ns > REPLICA_DIGEST_NS) {
        r->dispute_told_ns = r->now_ns;
        digest_send(r, own, 0);
    }
}

void digest_flush(struct replica *r)
{
    dispute_flush(r);
    if (r->state != RAFT_LEADER || r->digest_newest == 0 || r->digest_newest == r->digest_sent ||
        r->now_ns - r->digest_sent_ns < REPLICA_DIGEST_NS)
        return;
    r->digest_sent = r->digest_newest;
    r->digest_sent_ns = r->now_ns;
    digest_send(r, &r->digests[r->digest_newest / REPLICA_DIGEST_EVERY % REPLICA_DIGESTS], 0);
}

void digest_heard(struct replica *r, uint64_t from, const Hf__Digest *m)
{
    struct peer *peer = replica_peer(r, from);
    if (peer == NULL || m->index == 0)
        return;
    peer->digest = (struct digest_mark){.index = m->index, .digest = {.lo = m->lo, .hi = m->hi}};
    const struct digest_mark *own = digest_own(r, m->index);
    if (r->state == RAFT_LEADER && own != NULL)
        digest_send(r, own, from); /* It is in doubt: be on its side, or against it. */
    digest_judge(r, &peer->digest);
}
