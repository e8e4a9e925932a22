/* What libraft's core must not see.
 *
 * Every guard answers a defect of the core that was reproduced or read in its source, and is named
 * by a rule; each has a test that fails without it.  "Core" is struct raft of libraft 0.22.1. */
#include "raftstore/node/replica_impl.h"

#include <string.h>

/* Term of an entry as the core knows it; 0 = unknown. */
static uint64_t guard_term_of(const struct replica *r, uint64_t index)
{
    const struct log_entry *e = log_get(&r->log, index);
    if (e != NULL)
        return e->term;
    return index == r->snapshot_index ? r->snapshot_term : 0;
}

/* The core answers entries (and images) of an old term with an uninitialised last index and, for
 * images, as a success: the sender, leader again by then, could count it as a match. */
static enum guard_verdict guard_stale(struct replica *r,
                                      const struct raft_append_entries *m,
                                      struct raft_append_entries_result *ret_answer)
{
    *ret_answer = (struct raft_append_entries_result){
        .term = r->core.current_term,
        .rejected = m->prev_log_index > 0 ? m->prev_log_index : 1,
        .last_log_index = 0,
    };
    return GUARD_ANSWER;
}

/* The core can't judge entries from before its log begins: with prev 0 it would append entry 1
 * anew behind a compacted log.  What lies at or below our snapshot is committed, so the sender, a
 * leader, has the same: cut it off and go on from the snapshot. */
static void guard_compacted(struct replica *r, struct raft_append_entries *m)
{
    uint64_t skip = r->snapshot_index - m->prev_log_index;
    if (skip >= m->n_entries) {
        m->n_entries = 0;
    } else {
        m->entries += skip;
        m->n_entries -= (unsigned)skip;
    }
    m->prev_log_index = r->snapshot_index;
    m->prev_log_term = r->snapshot_term;
}

static bool guard_sole_of(const struct replica *r, const struct raft_configuration *c)
{
    unsigned voters = 0, self = 0;
    for (unsigned i = 0; i < c->n; i++) {
        if (c->servers[i].role != RAFT_VOTER)
            continue;
        voters++;
        self += c->servers[i].id == r->config.id ? 1 : 0;
    }
    return voters == 1 && self == 1;
}

/* Nobody else can be elected while we are the only voter, before and after a change that may be
 * under way: who says so lies. */
static bool guard_alone(const struct replica *r)
{
    return guard_sole_of(r, &r->core.configuration) &&
           (r->core.configuration_uncommitted_index == 0 ||
            guard_sole_of(r, &r->core.configuration_committed)) &&
           replica_rule(r, RULE_SOLE_FOLLOWS);
}

/* A term has one leader (Raft, section 5.2).  The core follows whoever spoke last. */
static bool guard_other_leader(const struct replica *r, uint64_t from, uint64_t term)
{
    return term == r->followed_term && from != r->followed_id && replica_rule(r, RULE_ONE_LEADER);
}

static void guard_follow(struct replica *r, uint64_t from, uint64_t term)
{
    r->followed_term = term;
    r->followed_id = from;
}

/* Do the entries say otherwise than what is committed?  The core would stop for good: whoever is
 * wrong, one message must not do that. */
static bool guard_contradicts(const struct replica *r, const struct raft_append_entries *m)
{
    uint64_t known = m->prev_log_index == 0 ? 0 : guard_term_of(r, m->prev_log_index);
    if (m->prev_log_index <= r->commit && known != 0 && known != m->prev_log_term)
        return true;
    for (unsigned i = 0; i < m->n_entries && m->prev_log_index + 1 + i <= r->commit; i++) {
        known = guard_term_of(r, m->prev_log_index + 1 + i);
        if (known != 0 && known != m->entries[i].term)
            return true;
    }
    return false;
}

static enum guard_verdict guard_append(struct replica *r,
                                       uint64_t from,
                                       struct raft_append_entries *m,
                                       struct raft_append_entries_result *ret_answer,
                                       const char **ret_why)
{
    if (guard_alone(r)) {
        *ret_why = "entries for the only voter";
        return GUARD_DROP;
    }
    if (m->term < r->core.current_term && replica_rule(r, RULE_STALE_TERM))
        return guard_stale(r, m, ret_answer);
    if (m->term == r->core.current_term && replica_is_leader(r) &&
        replica_rule(r, RULE_SAME_TERM_LEADER)) {
        *ret_why = "another leader of our term";
        return GUARD_DROP;
    }
    if (guard_other_leader(r, from, m->term)) {
        *ret_why = "a second leader of the term";
        return GUARD_DROP;
    }
    if (guard_contradicts(r, m) && replica_rule(r, RULE_COMMITTED)) {
        *ret_why = "entries that contradict committed ones";
        return GUARD_DROP;
    }
    guard_follow(r, from, m->term);
    if (m->prev_log_index < r->snapshot_index && guard_term_of(r, m->prev_log_index) == 0 &&
        r->log.first > 1 && replica_rule(r, RULE_PREV_COMPACTED))
        guard_compacted(r, m);
    return GUARD_PASS;
}

static enum guard_verdict guard_append_result(struct replica *r,
                                              uint64_t from,
                                              struct raft_append_entries_result *m,
                                              const char **ret_why)
{
    raft_index match = 0;
    if (!replica_is_leader(r) || m->term != r->core.current_term)
        return GUARD_PASS;
    if (m->last_log_index > log_last(&r->log) && m->rejected == 0 &&
        replica_rule(r, RULE_RESULT_BOUND)) {
        *ret_why = "result beyond our log";
        return GUARD_DROP;
    }
    image_result(r, from, m);
    if (m->rejected == 0)
        return GUARD_PASS;
    /* Next would fall below match, and the count of entries in flight wrap around. */
    if (raft_match_index(&r->core, from, &match) == 0 &&
        (m->rejected <= match || m->last_log_index < match) &&
        replica_rule(r, RULE_LATE_REJECTION)) {
        m->rejected = 0;
        m->last_log_index = 0;
    }
    /* A heartbeat at the image's index overtook the image: no reason to send another one. */
    if (m->rejected > 0 && image_is_inflight(r, from) && replica_rule(r, RULE_IMAGE_REJECTION)) {
        m->rejected = 0;
        m->last_log_index = 0;
    }
    return GUARD_PASS;
}

enum guard_verdict guard_message(struct replica *r,
                                 struct raft_message *m,
                                 struct raft_append_entries_result *ret_answer,
                                 const char **ret_why)
{
    *ret_why = NULL;
    switch (m->type) {
    case RAFT_APPEND_ENTRIES:
        return guard_append(r, m->server_id, &m->append_entries, ret_answer, ret_why);
    case RAFT_REQUEST_VOTE:
        if (!guard_alone(r))
            return GUARD_PASS;
        *ret_why = "a vote of the only voter is asked for";
        return GUARD_DROP;
    case RAFT_APPEND_ENTRIES_RESULT:
        return guard_append_result(r, m->server_id, &m->append_entries_result, ret_why);
    case RAFT_REQUEST_VOTE_RESULT:
        /* The core looks at the candidate's part of a union whatever its state is. */
        if (r->core.state != RAFT_CANDIDATE && replica_rule(r, RULE_VOTE_RESULT))
            return GUARD_DROP;
        if (m->request_vote_result.vote_granted &&
            m->request_vote_result.term > r->core.current_term + 1) {
            *ret_why = "a vote for a term that we did not ask for";
            return GUARD_DROP;
        }
        return GUARD_PASS;
    case RAFT_TIMEOUT_NOW:
        /* It would become leader without a new term. */
        if (replica_is_sole_voter(r) && replica_rule(r, RULE_SOLE_TIMEOUT_NOW))
            return GUARD_DROP;
        return GUARD_PASS;
    default:
        return GUARD_PASS;
    }
}

enum guard_verdict guard_image(struct replica *r,
                               uint64_t from,
                               uint64_t leader_term,
                               const struct replica_image *image,
                               struct raft_append_entries_result *ret_answer,
                               const char **ret_why)
{
    *ret_why = NULL;
    if (guard_alone(r)) {
        *ret_why = "for the only voter";
        return GUARD_DROP;
    }
    if (guard_other_leader(r, from, leader_term)) {
        *ret_why = "of a second leader of the term";
        return GUARD_DROP;
    }
    if (leader_term < r->core.current_term && replica_rule(r, RULE_STALE_TERM)) {
        *ret_why = "of an old term";
        return GUARD_DROP;
    }
    if (leader_term == r->core.current_term && replica_is_leader(r) &&
        replica_rule(r, RULE_SAME_TERM_LEADER)) {
        *ret_why = "from another leader of our term";
        return GUARD_DROP;
    }
    if (r->installing && replica_rule(r, RULE_INSTALLING)) {
        *ret_why = "while another one is being installed";
        return GUARD_DROP;
    }
    /* We have it all already.  The core would see so itself while the entry is in its log; answer
     * without asking it where that is no longer so. */
    if (image->index <= r->applied && leader_term == r->core.current_term &&
        guard_term_of(r, image->index) != image->term) {
        *ret_answer = (struct raft_append_entries_result){
            .term = leader_term,
            .last_log_index =
                image->index < r->core.last_stored ? image->index : r->core.last_stored,
        };
        return GUARD_ANSWER;
    }
    if (image->index <= r->applied && guard_term_of(r, image->index) != image->term) {
        *ret_why = "older than our state";
        return GUARD_DROP;
    }
    guard_follow(r, from, leader_term);
    return GUARD_PASS;
}

/* When two configuration entries are uncommitted and one is truncated, the core goes back too
 * far: the newest one in the log counts. */
bool guard_configuration(struct replica *r)
{
    struct buf now = BUF_INIT;
    struct bytes expected = bytes_of(r->conf_applied.data, r->conf_applied.size);
    for (uint64_t i = log_last(&r->log); i > r->conf_applied_index && i >= r->log.first; i--) {
        const struct log_entry *e = log_get(&r->log, i);
        if (e != NULL && e->type == RAFT_CHANGE) {
            expected = e->data;
            break;
        }
    }
    codec_configuration_encode(&r->core.configuration, &now);
    bool same = bytes_equal(bytes_of(now.data, now.size), expected);
    buf_deinit(&now);
    return same || !replica_rule(r, RULE_CONF_ROLLBACK);
}
