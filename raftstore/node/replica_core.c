#include "raftstore/node/replica_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- What a step asks for ---------------------------------------------------------------- */

/* The bytes of the entries in memory of our own.  What we submitted lies in `chunk` already. */
static struct log_chunk *core_entries_chunk(const struct raft_update *u, struct log_chunk *chunk)
{
    size_t size = 0;
    if (chunk != NULL)
        return log_chunk_ref(chunk);
    for (unsigned i = 0; i < u->entries.n; i++)
        size += u->entries.batch[i].buf.len;
    chunk = log_chunk_new(size);
    size = 0;
    for (unsigned i = 0; i < u->entries.n; i++) {
        const struct raft_buffer *b = &u->entries.batch[i].buf;
        if (b->len > 0)
            memcpy(chunk->data + size, b->base, b->len);
        size += b->len;
    }
    return chunk;
}

/* An index at or below the last one means: truncate from there first. */
static void core_truncate(struct replica *r, uint64_t from, struct replica_write *w)
{
    w->truncate_from = from;
    if (replica_rule(r, RULE_CAP_WRITES))
        write_cap(r, from - 1);
    log_truncate(&r->log, from);
    if (from <= r->applied)
        replica_fatal(r, "the core truncates applied entries (from %llu, applied %llu)",
                      (unsigned long long)from, (unsigned long long)r->applied);
}

static void core_append(struct replica *r,
                        const struct raft_update *u,
                        struct log_chunk *chunk,
                        struct replica_entry *entries)
{
    const uint8_t *data = chunk->data;
    for (unsigned i = 0; i < u->entries.n; i++) {
        const struct raft_entry *e = &u->entries.batch[i];
        struct bytes bytes = bytes_of(data, e->buf.len);
        data += e->buf.len;
        log_append(&r->log, e->term, e->type, bytes, chunk);
        entries[i] = (struct replica_entry){
            .index = u->entries.index + i,
            .term = e->term,
            .type = e->type,
            .data = bytes,
        };
    }
}

static void
core_persist(struct replica *r, const struct raft_update *u, struct log_chunk *submitted)
{
    struct replica_entry one;
    struct replica_entry *entries = &one;
    struct log_chunk *chunk = NULL;
    struct replica_write w = {0};
    uint64_t report = 0;
    if (u->flags & (RAFT_UPDATE_CURRENT_TERM | RAFT_UPDATE_VOTED_FOR)) {
        w.set_vote = true;
        w.term = r->core.current_term;
        w.voted_for = r->core.voted_for;
    }
    if (u->flags & RAFT_UPDATE_ENTRIES) {
        if (u->entries.index <= log_last(&r->log))
            core_truncate(r, u->entries.index, &w);
        if (u->entries.index != log_last(&r->log) + 1) {
            replica_fatal(r, "the core left a gap in the log");
            return;
        }
        if (u->entries.n > 1)
            entries = xcalloc(u->entries.n, sizeof *entries);
        chunk = core_entries_chunk(u, submitted);
        core_append(r, u, chunk, entries);
        w.entries = entries;
        w.n_entries = u->entries.n;
        report = u->entries.index + u->entries.n - 1;
    }
    write_persist(r, &w, report, chunk);
    log_chunk_unref(chunk);
    if (entries != &one)
        free(entries);
}

/* Tell the driver when the set of nodes is another one. */
void core_members_check(struct replica *r)
{
    struct buf now = BUF_INIT;
    codec_configuration_encode(&r->core.configuration, &now);
    if (bytes_equal(bytes_of(now.data, now.size), bytes_of(r->conf_seen.data, r->conf_seen.size))) {
        buf_deinit(&now);
        return;
    }
    buf_deinit(&r->conf_seen);
    r->conf_seen = now;
    r->io->members_changed(r->io_arg, &r->core.configuration);
}

static void core_state_check(struct replica *r)
{
    raft_id leader = 0;
    const char *address;
    enum raft_state before = r->state;
    uint64_t term = r->term;
    raft_leader(&r->core, &leader, &address);
    if (r->core.state == before && r->core.current_term == term && leader == r->leader_id)
        return;
    r->state = (enum raft_state)r->core.state;
    r->term = r->core.current_term;
    r->leader_id = leader;
    if (r->state == RAFT_CANDIDATE && before != RAFT_CANDIDATE)
        r->n_elections++;
    if (before == RAFT_LEADER && (r->state != RAFT_LEADER || r->term != term))
        propose_leader_end(r);
    if (r->state == RAFT_LEADER && (before != RAFT_LEADER || r->term != term))
        propose_leader_begin(r);
    if (r->state == RAFT_LEADER && before != RAFT_LEADER)
        r->figures.elections_won++;
    read_role_changed(r);
    member_role_changed(r);
    r->io->state_changed(r->io_arg);
}

static bool core_has_change(const struct raft_update *u)
{
    for (unsigned i = 0; i < u->entries.n; i++) {
        if (u->entries.batch[i].type == RAFT_CHANGE)
            return true;
    }
    return false;
}

/* In the order that the core's contract asks for: term, vote and entries to the disk's queue,
 * image, messages.  Applying is the caller's. */
static void core_update(struct replica *r, const struct raft_update *u, struct log_chunk *chunk)
{
    bool truncates = false, members = (u->flags & RAFT_UPDATE_SNAPSHOT) != 0;
    if (u->flags & RAFT_UPDATE_ENTRIES) {
        truncates = u->entries.index <= log_last(&r->log);
        members = members || truncates || core_has_change(u);
    }
    if (u->flags & (RAFT_UPDATE_CURRENT_TERM | RAFT_UPDATE_VOTED_FOR | RAFT_UPDATE_ENTRIES))
        core_persist(r, u, chunk);
    if (u->flags & RAFT_UPDATE_SNAPSHOT)
        image_accepted(r, u);
    if (r->stopped)
        return;
    for (unsigned i = 0; (u->flags & RAFT_UPDATE_MESSAGES) && i < u->messages.n; i++)
        codec_send(r, &u->messages.batch[i]);
    core_state_check(r);
    if (truncates && !guard_configuration(r)) {
        replica_log_line(r, LOG_LEVEL_WARN, "core rolled back too far, rebuilding it", " ");
        r->rebuild_wanted = true;
    }
    if (members && !r->rebuild_wanted)
        core_members_check(r);
    /* It may go back in the core, but what was committed once is committed. */
    uint64_t commit = raft_commit_index(&r->core);
    if (commit > log_last(&r->log))
        commit = log_last(&r->log);
    if (commit > r->commit || !replica_rule(r, RULE_COMMIT_MAX))
        r->commit = commit;
}

int core_step(struct replica *r, struct raft_event *event, struct log_chunk *chunk)
{
    struct raft_update u;
    memset(&u, 0, sizeof u);
    event->time = r->now_ns / 1000000;
    int rv = raft_step(&r->core, event, &u);
    if (rv != 0) {
        if (event->type != RAFT_SUBMIT && event->type != RAFT_TRANSFER)
            replica_fatal(r, "the Raft core failed: %s", raft_strerror(rv));
        return rv;
    }
    /* Memory of a batch comes back with its entries; ours is marked by `chunk`. */
    void *batch =
        (u.flags & RAFT_UPDATE_ENTRIES) && chunk == NULL ? u.entries.batch[0].batch : NULL;
    core_update(r, &u, chunk);
    raft_free(batch);
    return 0;
}

/* ---- Start and restart ------------------------------------------------------------------- */

static void core_start_entries(struct replica *r, struct raft_event *event)
{
    struct raft_entry *entries = xcalloc(r->log.n + 1, sizeof *entries);
    for (size_t i = 0; i < r->log.n; i++) {
        const struct log_entry *e = log_get(&r->log, r->log.first + i);
        entries[i] = (struct raft_entry){
            .term = e->term,
            .type = (enum raft_entry_type)e->type,
            .buf = {.base = (void *)(uintptr_t)e->data.data, .len = e->data.size},
            .batch = (void *)e->chunk,
        };
    }
    event->start.start_index = r->log.first;
    event->start.entries = entries;
    event->start.n_entries = (unsigned)r->log.n;
}

static void core_configure(struct replica *r)
{
    unsigned entry_kib = (unsigned)(r->config.entry_bytes_max / 1024 + 1);
    unsigned inflight = 8 * 1024 / entry_kib;
    r->core.tracer = NULL;
    raft_seed(&r->core, (unsigned)(r->config.seed ^ r->config.seed >> 32));
    raft_set_pre_vote(&r->core, true);
    raft_set_heartbeat_timeout(&r->core, r->config.heartbeat_ms);
    raft_set_election_timeout(&r->core, r->config.election_timeout_ms);
    raft_set_max_inflight_entries(&r->core, inflight < 8 ? 8 : inflight > 1024 ? 1024 : inflight);
    /* Images have deadlines of our own.  The core's must be short: while it waits for an image and
     * takes a newer snapshot itself, it ignores every rejection until this is over. */
    raft_set_install_snapshot_timeout(&r->core, 4 * r->config.election_timeout_ms);
}

int core_start(struct replica *r, uint64_t term, uint64_t voted_for)
{
    struct raft_event event = {.type = RAFT_START};
    struct raft_snapshot_metadata metadata = {0};
    memset(&r->core, 0, sizeof r->core);
    if (raft_init(&r->core, NULL, NULL, r->config.id, r->config.address) != 0)
        return RAFT_NOMEM;
    core_configure(r);
    event.start.term = term;
    event.start.voted_for = voted_for;
    if (r->snapshot_index > 0) {
        metadata.index = r->snapshot_index;
        metadata.term = r->snapshot_term;
        metadata.configuration_index = r->snapshot_conf_index;
        int rv = codec_configuration_decode(bytes_of(r->snapshot_conf.data, r->snapshot_conf.size),
                                            &metadata.configuration);
        if (rv != 0)
            return RAFT_MALFORMED;
        event.start.metadata = &metadata;
    }
    core_start_entries(r, &event);
    int rv = core_step(r, &event, NULL);
    free(event.start.entries);
    return rv;
}

/* What the log says the configuration is, committed or not, decides whether we are alone. */
void core_rebuild(struct replica *r, uint64_t term, uint64_t voted_for)
{
    struct raft_event event = {.type = RAFT_CONFIGURATION};
    assert(r->n_writes == 0 || term != r->core.current_term);
    r->rebuild_wanted = false;
    if (term != r->core.current_term) {
        struct replica_write w = {.set_vote = true, .term = term, .voted_for = voted_for};
        write_persist(r, &w, 0, NULL);
    }
    raft_close(&r->core, NULL);
    if (core_start(r, term, voted_for) != 0) {
        replica_fatal(r, "the Raft core can't be restarted");
        return;
    }
    /* It does not know yet what was applied. */
    if (r->conf_applied_index > r->core.configuration_committed_index &&
        r->conf_applied_index == r->core.configuration_uncommitted_index) {
        event.configuration.index = r->conf_applied_index;
        if (codec_configuration_decode(bytes_of(r->conf_applied.data, r->conf_applied.size),
                                       &event.configuration.conf) == 0)
            (void)core_step(r, &event, NULL); /* Failure is fatal inside. */
    }
    core_members_check(r);
}

/* ---- Time-outs --------------------------------------------------------------------------- */

/* The core takes a follower that did not answer since the last tick for lost and goes back to one
 * message a heartbeat, which costs the next write a heartbeat.  One slow disk write is enough.
 * Whoever was heard within a quarter of the election time-out is vouched for. */
static void core_keep_contact(struct replica *r)
{
    uint64_t fresh_ns = (uint64_t)replica_election_ms(r) * 1000000 / 4;
    for (unsigned i = 0; i < r->n_peers && replica_is_leader(r); i++) {
        struct peer *p = &r->peers[i];
        struct raft_message m = {
            .type = RAFT_APPEND_ENTRIES_RESULT,
            .server_id = p->id,
            .server_address = "",
            .append_entries_result = {.version = 2, .term = r->core.current_term},
        };
        struct raft_event event = {.type = RAFT_RECEIVE, .receive = {&m}};
        if (p->heard_ns == 0 || r->now_ns - p->heard_ns > fresh_ns ||
            replica_member(r, p->id) == NULL)
            continue;
        (void)core_step(r, &event, NULL); /* Failure is fatal inside. */
    }
}

static void core_timeout(struct replica *r)
{
    struct raft_event event = {.type = RAFT_TIMEOUT};
    r->timeout_fired_ns = r->now_ns;
    if (r->core.state == RAFT_FOLLOWER && replica_is_sole_voter(r) &&
        replica_rule(r, RULE_SOLE_TIMEOUT)) {
        /* The core would become leader without a new term. */
        if (r->n_writes == 0 && !r->installing)
            core_rebuild(r, r->core.current_term + 1, 0);
        return;
    }
    if (replica_is_leader(r))
        core_keep_contact(r);
    (void)core_step(r, &event, NULL); /* Failure is fatal inside. */
}

uint64_t core_timeout_ns(const struct replica *r)
{
    uint64_t at = (uint64_t)raft_timeout(&r->core) * 1000000;
    uint64_t step = (uint64_t)r->config.heartbeat_ms * 1000000;
    /* As leader it may stay in the past (a former spare keeps an old last_send); a follower whose
     * writes are under way is asked again, but not in a circle. */
    if (replica_rule(r, RULE_HEARTBEAT_RATE) && at < r->timeout_fired_ns + step)
        at = r->timeout_fired_ns + step;
    return at;
}

void core_timeouts(struct replica *r)
{
    if (r->rebuild_wanted || r->now_ns < core_timeout_ns(r))
        return;
    core_timeout(r);
}
