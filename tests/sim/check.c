/* What must hold after every step. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#include "raftstore/lock/view.h"

static uint64_t hash_bytes(struct bytes b)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    const uint8_t *p = b.data;
    for (size_t i = 0; i < b.size; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}

static struct history *history_at(struct world *w, uint64_t index)
{
    if (index >= w->n_history) {
        size_t n = (size_t)index * 2 + 1024;
        w->history = xrealloc(w->history, n * sizeof *w->history);
        memset(w->history + w->n_history, 0, (n - w->n_history) * sizeof *w->history);
        w->n_history = n;
    }
    return &w->history[index];
}

/* The same entry at an index on all nodes, and the same state after it. */
void check_applied(struct node *n, uint64_t index, uint64_t term, struct bytes data)
{
    struct world *w = n->world;
    struct history *h = history_at(w, index);
    struct lock_digest d = lock_digest(replica_table(n->replica));
    uint64_t hash = hash_bytes(data);
    if (index <= n->applied_seen)
        world_fail(w, "node %u applies index %llu again", n->number + 1, (unsigned long long)index);
    n->applied_seen = index;
    if (!h->set) {
        *h = (struct history){true, term, hash, d, n->number + 1};
        w->n_entries++;
    } else if (h->term != term || h->hash != hash) {
        world_fail(w, "nodes %u and %u applied different entries at index %llu", h->node,
                   n->number + 1, (unsigned long long)index);
    } else if (h->digest.lo != d.lo || h->digest.hi != d.hi) {
        world_fail(w, "nodes %u and %u differ after index %llu", h->node, n->number + 1,
                   (unsigned long long)index);
    }
    if (index % 61 == 0) {
        const char *broken = lock_check(replica_table(n->replica));
        if (broken != NULL)
            world_fail(w, "lock table of node %u: %s", n->number + 1, broken);
    }
}

void check_installed(struct node *n, uint64_t index)
{
    struct history *h = history_at(n->world, index);
    struct lock_digest d = lock_digest(replica_table(n->replica));
    n->applied_seen = index;
    if (h->set && (h->digest.lo != d.lo || h->digest.hi != d.hi))
        world_fail(n->world, "an image differs at index %llu", (unsigned long long)index);
    world_trace(n->world, "node %u installed image %llu", n->number + 1, (unsigned long long)index);
}

/* ---- Tokens and deadlines ---------------------------------------------------------------- */

static struct token_record *token_find(struct world *w, uint64_t token)
{
    size_t low = 0, high = w->n_tokens;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (w->tokens[middle].token < token)
            low = middle + 1;
        else
            high = middle;
    }
    return low < w->n_tokens && w->tokens[low].token == token ? &w->tokens[low] : NULL;
}

static void token_granted(struct world *w, uint64_t token)
{
    if (token <= w->last_token) {
        world_fail(w, "token %llu is granted after %llu", (unsigned long long)token,
                   (unsigned long long)w->last_token);
        return;
    }
    w->last_token = token;
    if (w->n_tokens == w->n_tokens_alloc) {
        w->n_tokens_alloc = w->n_tokens_alloc == 0 ? 256 : w->n_tokens_alloc * 2;
        w->tokens = xrealloc(w->tokens, w->n_tokens_alloc * sizeof *w->tokens);
    }
    w->tokens[w->n_tokens++] = (struct token_record){.token = token};
}

static void token_judge(struct world *w, const struct token_record *t)
{
    if (t->ended_ns != 0 && t->expired && t->ended_ns < t->deadline_ns)
        world_fail(w, "token %llu expired at %llu, acknowledged until %llu",
                   (unsigned long long)t->token, (unsigned long long)t->ended_ns,
                   (unsigned long long)t->deadline_ns);
}

void check_acked_hold(struct world *w, uint64_t token, uint64_t deadline_ns)
{
    struct token_record *t = token_find(w, token);
    if (t == NULL) {
        world_fail(w, "token %llu was never granted", (unsigned long long)token);
        return;
    }
    if (deadline_ns > t->deadline_ns)
        t->deadline_ns = deadline_ns;
    token_judge(w, t);
}

void check_acked_session(struct world *w, uint64_t session_id, uint64_t deadline_ns)
{
    if (session_id < 65536 && deadline_ns > w->session_acked[session_id])
        w->session_acked[session_id] = deadline_ns;
}

void world_unpromised(struct world *w, uint64_t token)
{
    struct token_record *t = token_find(w, token);
    if (t != NULL)
        t->deadline_ns = 0;
}

static void effect_ended(struct world *w, const struct lock_effect *e, uint64_t stamp_ns)
{
    struct token_record *t = token_find(w, e->token);
    if (t == NULL) {
        world_fail(w, "token %llu ends that was never granted", (unsigned long long)e->token);
        return;
    }
    t->ended_ns = stamp_ns;
    t->expired = e->code == LOCK_EXPIRED;
    token_judge(w, t);
}

static void effect_check(struct world *w, const struct lock_effect *e, uint64_t stamp_ns)
{
    world_trace(
        w, "effect %u: code %u token %llu session %llu seq %llu %.*s %.*s, stamp %llu, ends %llu",
        e->type, e->code, (unsigned long long)e->token, (unsigned long long)e->session_id,
        (unsigned long long)e->seq, (int)e->path.size, (const char *)e->path.data,
        (int)e->owner.size, (const char *)e->owner.data, (unsigned long long)stamp_ns,
        (unsigned long long)e->deadline_ns);
    switch (e->type) {
    case LOCK_EFFECT_GRANTED:
        token_granted(w, e->token);
        break;
    case LOCK_EFFECT_CONVERTED: /* To a new token, or it keeps its own. */
        if (token_find(w, e->token) == NULL)
            token_granted(w, e->token);
        break;
    case LOCK_EFFECT_ENDED:
        effect_ended(w, e, stamp_ns);
        break;
    case LOCK_EFFECT_SESSION_LAPSED:
        if (e->session_id < 65536 && stamp_ns < w->session_acked[e->session_id])
            world_fail(w, "session %llu lapsed early", (unsigned long long)e->session_id);
        break;
    default:
        break;
    }
}

/* Each index is looked at once, on the node that applies it first. */
void check_effects(struct node *n,
                   uint64_t index,
                   uint64_t stamp_ns,
                   const struct lock_effects *effects)
{
    struct world *w = n->world;
    if (history_at(w, index)->set)
        return;
    for (size_t i = 0; i < effects->n; i++)
        effect_check(w, &effects->list[i], stamp_ns);
}

/* ---- Leaders and reads ------------------------------------------------------------------- */

static void check_leader(struct node *n, uint64_t term)
{
    struct world *w = n->world;
    for (size_t i = 0; i < w->n_terms; i++) {
        if (w->terms[i].term != term)
            continue;
        if (w->terms[i].leader != n->number + 1)
            world_fail(w, "nodes %u and %u lead in term %llu", w->terms[i].leader, n->number + 1,
                       (unsigned long long)term);
        return;
    }
    if (w->n_terms == w->n_terms_alloc) {
        w->n_terms_alloc = w->n_terms_alloc == 0 ? 64 : w->n_terms_alloc * 2;
        w->terms = xrealloc(w->terms, w->n_terms_alloc * sizeof *w->terms);
    }
    w->terms[w->n_terms++] = (struct term_record){term, n->number + 1};
}

void check_state(struct node *n)
{
    if (n->replica == NULL)
        return;
    struct replica_view v = replica_view(n->replica);
    world_trace(n->world, "node %u: %s term %llu leader %llu commit %llu last %llu%s",
                n->number + 1, raft_state_name(v.state), (unsigned long long)v.term,
                (unsigned long long)v.leader_id, (unsigned long long)v.commit_index,
                (unsigned long long)v.last_index, v.ready ? " ready" : "");
    if (v.state == RAFT_LEADER)
        check_leader(n, v.term);
}

/* A read never sees a state older than what was acknowledged before it was asked. */
void check_read(struct node *n, uint64_t acked_index)
{
    uint64_t applied = replica_view(n->replica).applied_index;
    if (applied < acked_index)
        world_fail(n->world, "node %u serves a read at index %llu, %llu was acknowledged before",
                   n->number + 1, (unsigned long long)applied, (unsigned long long)acked_index);
}

/* ---- Mutual exclusion -------------------------------------------------------------------- */

/* What a client relies on now; token 0: nothing. */
static struct belief belief_now(const struct world *w, const struct client *c, unsigned path)
{
    struct belief b = c->beliefs[path];
    if (c->app != NULL || c->mount != NULL) {
        struct app_belief a = c->app != NULL ? app_believes(c->app, path)
                                             : mount_believes(c->mount, c->process, path);
        return (struct belief){.token = a.token, .mode = a.mode, .limit = a.limit};
    }
    if (client_clock_ns(w, c) >= (b.session_bound ? c->session_deadline_ns : b.deadline_ns))
        b.token = 0;
    return b;
}

void world_believed(struct world *w, unsigned number, unsigned path)
{
    check_belief(w, &w->clients[number], path);
}

void world_promised(struct world *w, uint64_t token, uint64_t deadline_ns)
{
    check_acked_hold(w, token, deadline_ns);
}

/* A belief begins or is prolonged: nobody else may believe what conflicts with it, and no more may
 * believe in a semaphore's slots than each of them allows. */
void check_belief(struct world *w, const struct client *c, unsigned path)
{
    const struct belief now = belief_now(w, c, path), *mine = &now;
    uint32_t n_slots = 1, limit = mine->limit;
    if (mine->token == 0)
        return;
    for (unsigned i = 0; i < w->n_clients; i++) {
        const struct client *other = &w->clients[i];
        const struct belief now_theirs = belief_now(w, other, path), *theirs = &now_theirs;
        if (other == c || theirs->token == 0 ||
            (mine->mode == LOCK_SHARED && theirs->mode == LOCK_SHARED))
            continue;
        if (mine->limit != 0 && theirs->limit != 0) {
            n_slots++;
            limit = theirs->limit < limit ? theirs->limit : limit;
            w->n_shared_slots += n_slots == 2;
            if (n_slots > limit)
                world_fail(w, "%u clients believe in a slot of path %u, of which there are %u",
                           n_slots, path, limit);
            continue;
        }
        world_fail(w, "clients %u (token %llu) and %u (token %llu) both hold path %u", c->number,
                   (unsigned long long)mine->token, other->number,
                   (unsigned long long)theirs->token, path);
    }
}

/* ---- The end ----------------------------------------------------------------------------- */

static void check_end_node(struct world *w, struct node *n, uint64_t applied_min)
{
    if (!n->up) {
        world_fail(w, "node %u is down in the end", n->number + 1);
        return;
    }
    struct replica_view v = replica_view(n->replica);
    const char *broken = lock_check(replica_table(n->replica));
    if (v.leader_id == 0)
        world_fail(w, "node %u knows no leader in the end", n->number + 1);
    else if (v.applied_index + 64 < applied_min)
        world_fail(w, "node %u is far behind in the end", n->number + 1);
    else if (broken != NULL)
        world_fail(w, "lock table of node %u: %s", n->number + 1, broken);
}

struct node *check_leader_ready(struct world *w)
{
    struct node *best = NULL;
    for (unsigned i = 0; i < w->n_nodes; i++) {
        struct node *n = &w->nodes[i];
        if (n->up && replica_view(n->replica).ready &&
            (best == NULL || replica_view(n->replica).term > replica_view(best->replica).term))
            best = n;
    }
    return best;
}

/* Some seconds after healing there is a leader that serves. */
void check_ready(struct world *w)
{
    if (check_leader_ready(w) == NULL)
        world_fail(w, "no leader serves four seconds after healing");
}

static bool is_member(const struct node *leader, const struct node *n)
{
    const struct raft_configuration *c = replica_members(leader->replica);
    for (unsigned i = 0; i < c->n; i++) {
        if (c->servers[i].id == n->number + 1)
            return true;
    }
    return false;
}

static void check_end_client(struct world *w, struct client *c, const struct lock_table *t)
{
    uint64_t done = c->app != NULL     ? app_counts(c->app).done_after_heal
                    : c->mount != NULL ? mount_counts(c->mount).done_after_heal
                                       : c->done_after_heal;
    if (done == 0)
        world_fail(w, "client %u got no answer after healing", c->number);
    if (c->app != NULL)
        app_check_end(c->app, t);
    if (c->mount != NULL && c->process == 0)
        mount_check_end(c->mount, t);
}

/* After healing everything has moved on, and nothing acknowledged is missing. */
void check_end(struct world *w)
{
    uint64_t applied = 0;
    for (unsigned i = 0; i < w->n_nodes; i++) {
        if (w->nodes[i].up && replica_view(w->nodes[i].replica).applied_index > applied)
            applied = replica_view(w->nodes[i].replica).applied_index;
    }
    if (applied < w->acked_index)
        world_fail(w, "acknowledged index %llu is lost", (unsigned long long)w->acked_index);
    const struct node *leader = check_leader_ready(w);
    if (leader == NULL) {
        world_fail(w, "no leader serves in the end");
        return;
    }
    for (unsigned i = 0; i < w->n_nodes; i++) {
        if (is_member(leader, &w->nodes[i]))
            check_end_node(w, &w->nodes[i], applied);
    }
    for (unsigned i = 0; i < w->n_nodes; i++)
        w->n_replaced += w->nodes[i].refused && !is_member(leader, &w->nodes[i]);
    for (unsigned i = 0; i < w->n_clients; i++) {
        check_end_client(w, &w->clients[i], replica_table(leader->replica));
    }
}

void check_free(struct world *w)
{
    free(w->history);
    free(w->tokens);
    free(w->terms);
}
