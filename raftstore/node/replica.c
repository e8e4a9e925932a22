#include "raftstore/node/replica_impl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftstore/lock/view.h"
#include "raftstore/wire/frame.h"

/* ---- Small things ------------------------------------------------------------------------ */

void replica_log_line(const struct replica *r, int level, const char *msg, const char *format, ...)
{
    char fields[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(fields, sizeof fields, format, args); /* Cut off when it is too long. */
    va_end(args);
    r->io->log(r->io_arg, level, msg, fields);
}

bool replica_may_log_drop(struct replica *r)
{
    r->n_dropped++;
    if (r->dropped_ns != 0 && r->now_ns - r->dropped_ns < UINT64_C(1000000000))
        return false;
    r->dropped_ns = r->now_ns;
    return true;
}

void replica_fatal(struct replica *r, const char *format, ...)
{
    char reason[512];
    va_list args;
    if (r->stopped)
        return;
    va_start(args, format);
    (void)vsnprintf(reason, sizeof reason, format, args); /* Cut off when it is too long. */
    va_end(args);
    r->stopped = true;
    r->io->fatal(r->io_arg, reason);
}

struct peer *replica_peer(struct replica *r, uint64_t id)
{
    for (unsigned i = 0; i < r->n_peers; i++) {
        if (r->peers[i].id == id)
            return &r->peers[i];
    }
    for (unsigned i = 0; i < r->n_peers; i++) { /* Of a node that left. */
        if (replica_member(r, r->peers[i].id) == NULL) {
            r->peers[i] = (struct peer){.id = id};
            return &r->peers[i];
        }
    }
    if (r->n_peers == REPLICA_MEMBERS_MAX)
        return NULL;
    r->peers[r->n_peers] = (struct peer){.id = id};
    return &r->peers[r->n_peers++];
}

const struct raft_server *replica_member(const struct replica *r, uint64_t id)
{
    for (unsigned i = 0; i < r->core.configuration.n; i++) {
        if (r->core.configuration.servers[i].id == id)
            return &r->core.configuration.servers[i];
    }
    return NULL;
}

unsigned replica_voters(const struct replica *r)
{
    unsigned n = 0;
    for (unsigned i = 0; i < r->core.configuration.n; i++)
        n += r->core.configuration.servers[i].role == RAFT_VOTER ? 1 : 0;
    return n;
}

bool replica_is_sole_voter(const struct replica *r)
{
    const struct raft_server *self = replica_member(r, r->config.id);
    return self != NULL && self->role == RAFT_VOTER && replica_voters(r) == 1;
}

void replica_enter(struct replica *r, uint64_t now_ns)
{
    if (now_ns > r->now_ns)
        r->now_ns = now_ns;
}

/* ---- Lifecycle --------------------------------------------------------------------------- */

static void config_fill(struct replica *r, const struct replica_config *c)
{
    r->config = *c;
    r->config.address = xstrdup(c->address);
    if (c->election_timeout_ms == 0)
        r->config.election_timeout_ms = 250;
    if (c->heartbeat_ms == 0)
        r->config.heartbeat_ms = 10;
    if (c->entry_bytes_max == 0 || c->entry_bytes_max > ENTRY_BYTES_LIMIT / 2)
        r->config.entry_bytes_max = ENTRY_BYTES_MAX;
    if (c->entries_inflight_max == 0)
        r->config.entries_inflight_max = 2;
    if (c->queue_bytes_max == 0)
        r->config.queue_bytes_max = 16 * 1024 * 1024;
    if (c->queue_commands_max == 0)
        r->config.queue_commands_max = 65536;
    if (c->queue_ms_max == 0)
        r->config.queue_ms_max = 100;
    if (c->queue_commands_late == 0)
        r->config.queue_commands_late = 1024;
    if (c->snapshot_log_bytes == 0)
        r->config.snapshot_log_bytes = 32 * 1024 * 1024;
    if (c->snapshot_log_entries == 0)
        r->config.snapshot_log_entries = 100000;
    if (c->trailing_entries == 0)
        r->config.trailing_entries = 10000;
    r->io = c->io;
    r->io_arg = c->io_arg;
}

static bool stored_image_valid(const struct replica_stored *s)
{
    const struct replica_image *image = &s->image;
    if (image->index == 0)
        return true;
    return image->index <= REPLICA_INDEX_MAX && image->term >= 1 && image->term <= s->term &&
           image->conf_index >= 1 && image->conf_index <= image->index &&
           codec_configuration_valid(image->conf);
}

/* Does what is stored contradict itself? */
static bool stored_valid(const struct replica_stored *s)
{
    uint64_t term = 1;
    if (s->table == NULL || s->term > REPLICA_INDEX_MAX || !stored_image_valid(s))
        return false;
    for (unsigned i = 0; i < s->n_entries; i++) {
        const struct replica_entry *e = &s->entries[i];
        if (e->term < term || e->index != s->entries[0].index + i || e->index > REPLICA_INDEX_MAX ||
            e->data.size > ENTRY_BYTES_LIMIT || e->type < RAFT_COMMAND || e->type > RAFT_CHANGE)
            return false;
        if (e->type == RAFT_CHANGE && !codec_configuration_valid(e->data))
            return false;
        if (e->index == s->image.index && e->term != s->image.term)
            return false;
        term = e->term;
    }
    if (s->n_entries == 0)
        return s->term > 0 || s->voted_for == 0;
    if (s->entries[0].index == 0 || s->entries[0].index > s->image.index + 1)
        return false;
    if (s->image.index == 0 && s->entries[0].type != RAFT_CHANGE)
        return false;
    return term <= s->term || (s->term == 0 && term == 1 && s->n_entries == 1);
}

/* Into the log in memory.
 *
 * Return: index from which the stored log is to be deleted, because it ends before the snapshot
 * that covers it; 0 = none. */
static uint64_t stored_load(struct replica *r, const struct replica_stored *s)
{
    unsigned n = s->n_entries;
    size_t size = 0;
    r->snapshot_index = s->image.index;
    r->snapshot_term = s->image.term;
    r->snapshot_conf_index = s->image.conf_index;
    if (s->image.index > 0) {
        buf_add(&r->snapshot_conf, s->image.conf.data, s->image.conf.size);
        buf_add(&r->conf_applied, s->image.conf.data, s->image.conf.size);
        r->conf_applied_index = s->image.conf_index;
    }
    r->applied = r->commit = s->image.index;
    if (n == 0 || s->entries[n - 1].index < s->image.index) {
        log_init(&r->log, s->image.index + 1);
        return n == 0 ? 0 : s->entries[0].index;
    }
    log_init(&r->log, s->entries[0].index);
    for (unsigned i = 0; i < n; i++)
        size += s->entries[i].data.size;
    struct log_chunk *chunk = log_chunk_new(size);
    uint8_t *p = chunk->data;
    for (unsigned i = 0; i < n; i++) {
        struct bytes data = s->entries[i].data;
        if (data.size > 0)
            memcpy(p, data.data, data.size);
        log_append(&r->log, s->entries[i].term, s->entries[i].type, bytes_of(p, data.size), chunk);
        p += data.size;
    }
    log_chunk_unref(chunk);
    return 0;
}

/* The newest configuration that is stored says who votes, committed or not. */
static bool stored_sole_voter(const struct replica *r)
{
    struct bytes conf = bytes_of(r->snapshot_conf.data, r->snapshot_conf.size);
    struct raft_configuration c;
    unsigned voters = 0;
    bool self = false;
    for (uint64_t i = log_last(&r->log); i >= r->log.first && i > r->snapshot_conf_index; i--) {
        const struct log_entry *e = log_get(&r->log, i);
        if (e != NULL && e->type == RAFT_CHANGE) {
            conf = e->data;
            break;
        }
    }
    if (conf.size == 0 || codec_configuration_decode(conf, &c) != 0)
        return false;
    for (unsigned i = 0; i < c.n; i++) {
        voters += c.servers[i].role == RAFT_VOTER ? 1 : 0;
        self = self || (c.servers[i].role == RAFT_VOTER && c.servers[i].id == r->config.id);
    }
    raft_configuration_close(&c);
    return self && voters == 1;
}

static int replica_start(struct replica *r, const struct replica_stored *s)
{
    uint64_t term = s->term, voted_for = s->voted_for;
    struct replica_write w = {.truncate_from = stored_load(r, s)};
    if (term == 0 && s->n_entries > 0)
        term = 1; /* The bootstrap entry. */
    if (stored_sole_voter(r) && replica_rule(r, RULE_SOLE_TERM)) {
        /* The core makes it leader at once, in the term that it finds. */
        term++;
        voted_for = 0;
    }
    w.set_vote = term != s->term;
    w.term = term;
    w.voted_for = voted_for;
    if (w.set_vote || w.truncate_from != 0)
        write_persist(r, &w, 0, NULL);
    if (core_start(r, term, voted_for) != 0)
        return -EINVAL;
    r->state = (enum raft_state)r->core.state;
    r->term = r->core.current_term;
    core_members_check(r);
    return 0;
}

int replica_create(const struct replica_config *config,
                   const struct replica_stored *stored,
                   uint64_t now_ns,
                   uint64_t rules_off,
                   struct replica **ret_replica)
{
    struct replica *before = *ret_replica;
    if (config->id == 0 || config->address == NULL || !stored_valid(stored))
        return -EINVAL;
    struct replica *r = xcalloc(1, sizeof *r);
    config_fill(r, config);
    r->rules_off = rules_off;
    arena_init(&r->arena);
    r->now_ns = now_ns;
    r->applied_at_ns = now_ns;
    r->nonce = config->seed ^ (config->id << 48);
    r->table = stored->table;
    r->applied_stamp_ns = lock_counts(r->table).stamp_ns;
    *ret_replica = r; /* The driver's functions are called from here on. */
    int rv = replica_start(r, stored);
    if (rv != 0) {
        r->table = NULL; /* Stays the caller's. */
        replica_free(r);
        *ret_replica = before;
    }
    return rv;
}

int replica_new(const struct replica_config *config,
                const struct replica_stored *stored,
                uint64_t now_ns,
                struct replica **ret_replica)
{
    return replica_create(config, stored, now_ns, /* rules_off= */ 0, ret_replica);
}

void replica_free(struct replica *r)
{
    if (r == NULL)
        return;
    raft_close(&r->core, NULL);
    image_free(r);
    read_free(r);
    propose_free(r);
    outbox_free(r);
    write_free(r);
    log_deinit(&r->log);
    lock_table_free(r->table);
    arena_deinit(&r->arena);
    buf_deinit(&r->conf_seen);
    buf_deinit(&r->conf_applied);
    free(r->rx_entries);
    free(r->tx_entries);
    free(r->tx_pointers);
    free((void *)(uintptr_t)r->config.address);
    free(r);
}

int replica_bootstrap(const struct raft_configuration *members, struct bytes *ret_data)
{
    struct buf encoded = BUF_INIT;
    unsigned voters = 0;
    for (unsigned i = 0; i < members->n; i++) {
        const struct raft_server *s = &members->servers[i];
        voters += s->role == RAFT_VOTER ? 1 : 0;
        if (s->id == 0 || s->address == NULL || strlen(s->address) > REPLICA_ADDRESS_MAX)
            return -EINVAL;
        for (unsigned j = 0; j < i; j++) {
            if (members->servers[j].id == s->id ||
                strcmp(members->servers[j].address, s->address) == 0)
                return -EINVAL;
        }
    }
    if (voters % 2 == 0 || voters > 7 || members->n > REPLICA_MEMBERS_MAX)
        return -EINVAL;
    codec_configuration_encode(members, &encoded);
    *ret_data = bytes_of(encoded.data, encoded.size);
    return 0;
}

/* ---- Inputs ------------------------------------------------------------------------------ */

static void receive_message(struct replica *r, struct raft_message *m)
{
    struct raft_event event = {.type = RAFT_RECEIVE, .receive = {m}};
    (void)core_step(r, &event, NULL); /* Failure is fatal inside. */
}

/* Give entries [from, to) of a message to the core, as a message of their own. */
static void
receive_entries(struct replica *r, const struct raft_message *whole, unsigned from, unsigned to)
{
    struct raft_message m = *whole;
    struct raft_append_entries *part = &m.append_entries;
    void *batch = NULL;
    if (from > 0)
        part->entries += from;
    part->n_entries = to - from;
    if (from > 0) {
        part->prev_log_index += from;
        part->prev_log_term = whole->append_entries.entries[from - 1].term;
    }
    if (part->n_entries > 0)
        batch = raft_malloc(1); /* The core frees it, or gives it back with the entries. */
    for (unsigned i = 0; i < part->n_entries; i++)
        part->entries[i].batch = batch;
    receive_message(r, &m);
}

/* The core notes a configuration under the index of its batch's first entry: make it the first. */
static void receive_append(struct replica *r, const struct raft_message *m)
{
    const struct raft_append_entries *all = &m->append_entries;
    unsigned from = 0;
    for (unsigned i = 1; i < all->n_entries && replica_rule(r, RULE_CHANGE_FIRST); i++) {
        if (all->entries[i].type != RAFT_CHANGE)
            continue;
        receive_entries(r, m, from, i);
        if (r->stopped || r->rebuild_wanted || r->installing ||
            log_last(&r->log) < all->prev_log_index + i)
            return; /* It was not taken; the rest would be refused as well. */
        from = i;
    }
    receive_entries(r, m, from, all->n_entries);
}

static void receive_raft(struct replica *r, uint64_t from, const Hf__PeerFrame *frame)
{
    struct raft_message m;
    struct raft_append_entries_result answer;
    const char *why = NULL;
    if (!codec_parse(r, from, frame, &m, &why)) {
        if (replica_may_log_drop(r))
            replica_log_line(r, LOG_LEVEL_WARN, "impossible message dropped",
                             "peer=%llu what=\"%s\"", (unsigned long long)from, why);
        return;
    }
    switch (guard_message(r, &m, &answer, &why)) {
    case GUARD_DROP:
        if (why != NULL && replica_may_log_drop(r))
            replica_log_line(r, LOG_LEVEL_WARN, "message dropped", "peer=%llu why=\"%s\"",
                             (unsigned long long)from, why);
        return;
    case GUARD_ANSWER:
        codec_send(r, &(struct raft_message){.type = RAFT_APPEND_ENTRIES_RESULT,
                                             .server_id = from,
                                             .append_entries_result = answer});
        return;
    case GUARD_PASS:
        break;
    }
    if (m.type == RAFT_APPEND_ENTRIES) {
        r->leader_commit = m.append_entries.leader_commit;
        receive_append(r, &m);
        return;
    }
    if (m.type == RAFT_APPEND_ENTRIES_RESULT && replica_is_leader(r) &&
        m.append_entries_result.term == r->core.current_term) {
        struct peer *peer = replica_peer(r, from);
        if (peer != NULL)
            peer->heard_ns = r->now_ns;
    }
    receive_message(r, &m);
}

/* Requests of a leader or candidate are taken from a node that we don't know yet: our own
 * configuration may be the old one. Everything else is members' talk. */
static bool receive_expected(const struct replica *r, uint64_t from, const Hf__PeerFrame *frame)
{
    if (from == 0 || from == r->config.id)
        return false;
    switch (frame->body_case) {
    case HF__PEER_FRAME__BODY_REQUEST_VOTE:
    case HF__PEER_FRAME__BODY_APPEND_ENTRIES:
    case HF__PEER_FRAME__BODY_READ_PROBE:
        return true;
    default:
        return replica_member(r, from) != NULL;
    }
}

static void receive_frame(struct replica *r, uint64_t from, const Hf__PeerFrame *frame)
{
    switch (frame->body_case) {
    case HF__PEER_FRAME__BODY_READ_PROBE:
        read_probe(r, from, frame->read_probe);
        break;
    case HF__PEER_FRAME__BODY_READ_PROBE_RESULT:
        read_probe_result(r, from, frame->read_probe_result);
        break;
    case HF__PEER_FRAME__BODY_READ_INDEX:
        read_index(r, from, frame->read_index);
        break;
    case HF__PEER_FRAME__BODY_READ_INDEX_RESULT:
        read_index_result(r, from, frame->read_index_result);
        break;
    case HF__PEER_FRAME__BODY_DIGEST:
        digest_heard(r, from, frame->digest);
        break;
    default:
        receive_raft(r, from, frame);
    }
}

void replica_receive(struct replica *r, uint64_t now_ns, uint64_t from, const Hf__PeerFrame *frame)
{
    replica_enter(r, now_ns);
    if (r->stopped || r->rebuild_wanted)
        return; /* As if it were lost. */
    if (!receive_expected(r, from, frame)) {
        if (replica_may_log_drop(r))
            replica_log_line(r, LOG_LEVEL_INFO, "message of a stranger dropped",
                             "peer=%llu type=%u", (unsigned long long)from,
                             (unsigned)frame->body_case);
        return;
    }
    receive_frame(r, from, frame);
    apply_committed(r);
}

void replica_persisted(struct replica *r, uint64_t now_ns, uint64_t ticket)
{
    replica_enter(r, now_ns);
    if (r->stopped || ticket > r->ticket)
        return;
    uint64_t report = write_complete(r, ticket);
    outbox_release(r);
    if (report > r->core.last_stored && report <= log_last(&r->log) && !r->installing &&
        !r->rebuild_wanted) {
        struct raft_event event = {.type = RAFT_PERSISTED_ENTRIES, .persisted_entries = {report}};
        (void)core_step(r, &event, NULL); /* Failure is fatal inside. */
    }
    if (r->rebuild_wanted && r->n_writes == 0 && !r->stopped)
        core_rebuild(r, r->core.current_term, r->core.voted_for);
    apply_committed(r);
}

void replica_peer_connected(struct replica *r, uint64_t now_ns, uint64_t id, bool up)
{
    replica_enter(r, now_ns);
    struct peer *p = replica_member(r, id) != NULL ? replica_peer(r, id) : NULL;
    if (p == NULL)
        return;
    p->connected = up;
    if (up)
        p->commit_sent = 0;
    else
        p->image_index = 0; /* It may have crashed while it loaded one: don't wait for it. */
}

/* ---- The end of a turn ------------------------------------------------------------------- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t replica_wake_ns(const struct replica *r)
{
    uint64_t at = r->rebuild_wanted ? UINT64_MAX : core_timeout_ns(r);
    at = earlier(at, propose_wake_ns(r));
    at = earlier(at, read_wake_ns(r));
    at = earlier(at, member_wake_ns(r));
    at = earlier(at, image_wake_ns(r));
    return at;
}

uint64_t replica_flush(struct replica *r, uint64_t now_ns)
{
    replica_enter(r, now_ns);
    if (!r->stopped)
        core_timeouts(r);
    if (!r->stopped)
        apply_committed(r);
    if (!r->stopped)
        propose_flush(r);
    if (r->stopped)
        return UINT64_MAX;
    apply_committed(r);
    read_flush(r);
    member_flush(r);
    digest_flush(r);
    image_flush(r);
    return r->stopped ? UINT64_MAX : replica_wake_ns(r);
}

/* ---- Views ------------------------------------------------------------------------------- */

const struct lock_table *replica_table(const struct replica *r)
{
    return r->table;
}

uint64_t replica_cluster_now_ns(const struct replica *r, uint64_t now_ns)
{
    return propose_cluster_now_ns(r, now_ns);
}

const struct raft_configuration *replica_members(const struct replica *r)
{
    return &r->core.configuration;
}

struct replica_view replica_view(const struct replica *r)
{
    return (struct replica_view){
        .state = r->state,
        .ready = r->ready,
        .term = r->core.current_term,
        .leader_id = r->leader_id,
        .commit_index = r->commit,
        .applied_index = r->applied,
        .last_index = log_last(&r->log),
        .first_index = r->log.first,
        .snapshot_index = r->snapshot_index,
        .n_queued = r->n_queue,
        .n_inflight = r->n_inflight,
        .entries = r->n_entries,
        .commands = r->n_commands,
        .reads = r->n_reads,
        .read_rounds = r->n_rounds,
        .elections = r->n_elections,
        .leader_commit_index = r->leader_commit > r->commit ? r->leader_commit : r->commit,
        .dropped = r->n_dropped,
    };
}

const struct replica_figures *replica_figures(const struct replica *r)
{
    return &r->figures;
}

struct replica_queues replica_queues(const struct replica *r)
{
    return (struct replica_queues){
        .reads = read_total(r),
        .writes = r->n_writes,
        .log_bytes = r->log.bytes,
        .queued_bytes = r->queue_bytes.size - r->queue_bytes_head,
    };
}

bool replica_follower(const struct replica *r,
                      uint64_t now_ns,
                      uint64_t id,
                      uint64_t *ret_match_index,
                      uint64_t *ret_silent_ms)
{
    raft_index match = 0;
    uint64_t heard_ns = r->elected_at_ns;
    if (r->state != RAFT_LEADER || raft_match_index(&r->core, id, &match) != 0)
        return false;
    for (unsigned i = 0; i < r->n_peers; i++) {
        if (r->peers[i].id == id && r->peers[i].heard_ns > heard_ns)
            heard_ns = r->peers[i].heard_ns;
    }
    *ret_match_index = id == r->config.id ? log_last(&r->log) : match;
    *ret_silent_ms = id == r->config.id || now_ns < heard_ns ? 0 : (now_ns - heard_ns) / 1000000;
    return true;
}
