/* Nodes compare their states: a divergence must not go unnoticed. */
#include "raftstore/node/replica_impl.h"

static bool digest_equal(struct lock_digest a, struct lock_digest b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

static void digest_compare(struct replica *r, const struct digest_mark *theirs)
{
    const struct digest_mark *ours =
        &r->digests[theirs->index / REPLICA_DIGEST_EVERY % REPLICA_DIGESTS];
    if (ours->index == theirs->index && !digest_equal(ours->digest, theirs->digest))
        replica_fatal(r,
                      "this node's lock table differs from the leader's at log index %llu "
                      "(digest %016llx%016llx, the leader's %016llx%016llx): "
                      "remove the node's data and add it again under a new id",
                      (unsigned long long)theirs->index, (unsigned long long)ours->digest.hi,
                      (unsigned long long)ours->digest.lo, (unsigned long long)theirs->digest.hi,
                      (unsigned long long)theirs->digest.lo);
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
    if (r->digest_heard.index == r->applied)
        digest_compare(r, &r->digest_heard);
}

void digest_flush(struct replica *r)
{
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    Hf__Digest m = HF__DIGEST__INIT;
    const struct digest_mark *mark =
        &r->digests[r->digest_newest / REPLICA_DIGEST_EVERY % REPLICA_DIGESTS];
    if (r->state != RAFT_LEADER || r->digest_newest == 0 || r->digest_newest == r->digest_sent ||
        r->now_ns - r->digest_sent_ns < REPLICA_DIGEST_NS)
        return;
    r->digest_sent = r->digest_newest;
    r->digest_sent_ns = r->now_ns;
    m.index = mark->index;
    m.lo = mark->digest.lo;
    m.hi = mark->digest.hi;
    frame.body_case = HF__PEER_FRAME__BODY_DIGEST;
    frame.digest = &m;
    for (unsigned i = 0; i < r->core.configuration.n; i++) {
        uint64_t id = r->core.configuration.servers[i].id;
        if (id != r->config.id)
            outbox_send(r, id, &frame);
    }
}

void digest_heard(struct replica *r, const Hf__Digest *m)
{
    struct digest_mark mark = {.index = m->index, .digest = {.lo = m->lo, .hi = m->hi}};
    if (mark.index > r->applied)
        r->digest_heard = mark;
    else if (mark.index > 0)
        digest_compare(r, &mark);
}
