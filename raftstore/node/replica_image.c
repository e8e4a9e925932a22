/* Snapshots: when to take one, and images on their way to and from other nodes. */
#include "raftstore/node/replica_impl.h"

#include <string.h>

/* ---- Taking ------------------------------------------------------------------------------ */

static bool snapshot_due(const struct replica *r)
{
    if (r->taking_index != 0 || r->installing || r->applied <= r->snapshot_index ||
        r->conf_applied_index == 0 || r->now_ns < r->snapshot_retry_ns)
        return false;
    return r->snapshot_wanted || r->log_bytes_applied >= r->config.snapshot_log_bytes ||
           r->log_entries_applied >= r->config.snapshot_log_entries;
}

static void snapshot_take(struct replica *r)
{
    const struct log_entry *e = log_get(&r->log, r->applied);
    if (e == NULL)
        return;
    r->snapshot_wanted = false;
    r->log_bytes_applied = r->log_entries_applied = 0;
    r->taking_index = r->applied;
    r->taking_term = e->term;
    r->taking_conf_index = r->conf_applied_index;
    r->taking_conf.size = 0;
    buf_add(&r->taking_conf, r->conf_applied.data, r->conf_applied.size);
    struct replica_image image = {
        .index = r->taking_index,
        .term = r->taking_term,
        .conf_index = r->taking_conf_index,
        .conf = bytes_of(r->taking_conf.data, r->taking_conf.size),
    };
    r->io->take_snapshot(r->io_arg, &image);
}

void replica_want_snapshot(struct replica *r)
{
    r->snapshot_wanted = true;
}

static void snapshot_remember(struct replica *r, uint64_t index, uint64_t term, uint64_t conf_index)
{
    r->snapshot_index = index;
    r->snapshot_term = term;
    r->snapshot_conf_index = conf_index;
}

/* How many entries behind the snapshot stay: as many as were asked for, but not more bytes than
 * two snapshots' worth of log. */
static unsigned snapshot_trailing(const struct replica *r)
{
    size_t bytes = 0;
    unsigned n = 0;
    for (; n < r->config.trailing_entries && r->taking_index > n; n++) {
        const struct log_entry *e = log_get(&r->log, r->taking_index - n);
        if (e == NULL)
            break;
        bytes += e->data.size;
        if (bytes > 2 * r->config.snapshot_log_bytes)
            break;
    }
    return n == 0 ? 1 : n;
}

static void snapshot_compact(struct replica *r)
{
    struct raft_event event = {.type = RAFT_SNAPSHOT};
    uint64_t drop_to;
    event.snapshot.trailing = snapshot_trailing(r);
    event.snapshot.metadata.index = r->taking_index;
    event.snapshot.metadata.term = r->taking_term;
    event.snapshot.metadata.configuration_index = r->taking_conf_index;
    if (codec_configuration_decode(bytes_of(r->taking_conf.data, r->taking_conf.size),
                                   &event.snapshot.metadata.configuration) != 0) {
        replica_fatal(r, "the configuration of a snapshot can't be read");
        return;
    }
    drop_to = r->taking_index - event.snapshot.trailing;
    snapshot_remember(r, r->taking_index, r->taking_term, r->taking_conf_index);
    r->snapshot_conf.size = 0;
    buf_add(&r->snapshot_conf, r->taking_conf.data, r->taking_conf.size);
    if (core_step(r, &event, NULL) != 0 || drop_to < r->log.first)
        return;
    log_prune(&r->log, drop_to);
    struct replica_write w = {.drop_to = drop_to};
    write_persist(r, &w, 0, NULL);
}

void replica_snapshot_taken(struct replica *r, uint64_t now_ns, uint64_t index, bool ok)
{
    replica_enter(r, now_ns);
    if (r->stopped || r->taking_index == 0 || index != r->taking_index)
        return;
    if (!ok) {
        r->snapshot_retry_ns = r->now_ns + REPLICA_SNAPSHOT_RETRY_NS;
        r->snapshot_wanted = true;
    } else if (index > r->snapshot_index && !r->installing) {
        snapshot_compact(r);
    }
    r->taking_index = 0;
}

/* ---- Sending ----------------------------------------------------------------------------- */

bool image_is_inflight(struct replica *r, uint64_t to)
{
    const struct peer *p = replica_peer(r, to);
    return p != NULL && p->image_index != 0 && r->now_ns < p->image_until_ns;
}

/* The core repeats an image whenever a heartbeat overtakes it. */
void image_send(struct replica *r, const struct raft_message *m)
{
    struct peer *p = replica_peer(r, m->server_id);
    if (p == NULL || (image_is_inflight(r, m->server_id) && replica_rule(r, RULE_ONE_IMAGE)))
        return;
    p->image_index = m->install_snapshot.last_index;
    p->image_until_ns = r->now_ns + REPLICA_IMAGE_SEND_NS;
    p->image_delivered_ns = 0;
    r->io->send_image(r->io_arg, m->server_id, r->core.current_term);
}

void replica_image_sent(
    struct replica *r, uint64_t now_ns, uint64_t to, uint64_t index, bool delivered)
{
    replica_enter(r, now_ns);
    struct peer *p = replica_peer(r, to);
    if (p == NULL || p->image_index == 0)
        return;
    if (!delivered) {
        /* The core asks again at the next heartbeat; whatever failed would fail as fast. */
        p->image_until_ns = r->now_ns + REPLICA_IMAGE_AGAIN_NS;
        p->image_delivered_ns = 0;
        return;
    }
    if (index != 0)
        p->image_index = index; /* The newest one may have gone. */
    p->image_until_ns = r->now_ns + REPLICA_IMAGE_LOAD_NS;
    p->image_delivered_ns = r->now_ns;
}

/* The image is done with when the follower has acknowledged it, or when, some time after it was
 * delivered, the follower's log still ends before it: one that is being installed shows. */
void image_result(struct replica *r, uint64_t from, const struct raft_append_entries_result *m)
{
    struct peer *p = replica_peer(r, from);
    if (p == NULL || p->image_index == 0)
        return;
    if (m->rejected == 0 && m->last_log_index >= p->image_index)
        p->image_index = 0;
    if (m->rejected != 0 && m->last_log_index < p->image_index && p->image_delivered_ns != 0 &&
        r->now_ns - p->image_delivered_ns > REPLICA_IMAGE_GRACE_NS)
        p->image_index = 0;
}

/* Nothing is known of the other nodes at the begin of a term; images of an older one are not
 * taken. */
void image_leader_begin(struct replica *r)
{
    for (unsigned i = 0; i < r->n_peers; i++) {
        r->peers[i].image_index = 0;
        r->peers[i].commit_sent = 0;
        r->peers[i].heard_ns = 0;
    }
}

/* ---- Installing -------------------------------------------------------------------------- */

static bool
image_valid(const struct replica *r, const struct replica_image *image, uint64_t leader_term)
{
    return codec_term_valid(r, leader_term) && image->index >= 1 &&
           image->index <= REPLICA_INDEX_MAX && image->term >= 1 && image->term <= leader_term &&
           image->conf_index >= 1 && image->conf_index <= image->index;
}

static void
image_answer(struct replica *r, uint64_t to, const struct raft_append_entries_result *answer)
{
    struct raft_message m = {
        .type = RAFT_APPEND_ENTRIES_RESULT,
        .server_id = to,
        .append_entries_result = *answer,
    };
    codec_send(r, &m);
}

bool replica_receive_image(struct replica *r,
                           uint64_t now_ns,
                           uint64_t from,
                           uint64_t leader_term,
                           const struct replica_image *image)
{
    struct raft_append_entries_result answer;
    const char *why = NULL;
    struct raft_message m = {.type = RAFT_INSTALL_SNAPSHOT, .server_id = from};
    struct raft_event event = {.type = RAFT_RECEIVE, .receive = {&m}};
    replica_enter(r, now_ns);
    if (r->stopped || r->rebuild_wanted || from == 0 || from == r->config.id)
        return false;
    if (!image_valid(r, image, leader_term) ||
        codec_configuration_decode(image->conf, &m.install_snapshot.conf) != 0) {
        replica_log_line(r, LOG_LEVEL_WARN, "impossible image dropped", "peer=%llu",
                         (unsigned long long)from);
        return false;
    }
    enum guard_verdict verdict = guard_image(r, from, leader_term, image, &answer, &why);
    if (verdict != GUARD_PASS) {
        raft_configuration_close(&m.install_snapshot.conf);
        if (verdict == GUARD_ANSWER)
            image_answer(r, from, &answer);
        else
            replica_log_line(r, LOG_LEVEL_INFO, "image dropped", "peer=%llu why=\"%s\"",
                             (unsigned long long)from, why);
        return false;
    }
    m.server_address = codec_address(r, from);
    m.install_snapshot.term = leader_term;
    m.install_snapshot.last_index = image->index;
    m.install_snapshot.last_term = image->term;
    m.install_snapshot.conf_index = image->conf_index;
    m.install_snapshot.data.base = raft_malloc(1); /* The bytes are with the driver. */
    m.install_snapshot.data.len = 1;
    (void)core_step(r, &event, NULL); /* Failure is fatal inside. */
    return r->installing;
}

/* The core has emptied its trail already; ours, on disk and in memory, stays until the image is
 * durable. Nothing is applied or reported meanwhile. */
void image_accepted(struct replica *r, const struct raft_update *u)
{
    struct buf conf = BUF_INIT;
    r->installing = true;
    r->install = u->snapshot.metadata;
    raft_free(u->snapshot.chunk.base);
    write_cap(r, 0);
    if (r->install.index <= r->applied) {
        replica_fatal(r, "the core installs an image that is older than the state");
        return;
    }
    codec_configuration_encode(&r->install.configuration, &conf);
    struct replica_image image = {
        .index = r->install.index,
        .term = r->install.term,
        .conf_index = r->install.configuration_index,
        .conf = bytes_of(conf.data, conf.size),
    };
    r->io->install_image(r->io_arg, &image);
    buf_deinit(&conf);
}

void replica_image_installed(struct replica *r, uint64_t now_ns, struct lock_table *table)
{
    struct raft_event event = {.type = RAFT_PERSISTED_SNAPSHOT};
    replica_enter(r, now_ns);
    if (r->stopped || !r->installing) {
        lock_table_free(table);
        return;
    }
    lock_table_free(r->table);
    r->table = table;
    snapshot_remember(r, r->install.index, r->install.term, r->install.configuration_index);
    codec_configuration_encode(&r->install.configuration, &r->snapshot_conf);
    r->conf_applied.size = 0;
    buf_add(&r->conf_applied, r->snapshot_conf.data, r->snapshot_conf.size);
    r->conf_applied_index = r->install.configuration_index;
    log_reset(&r->log, r->install.index + 1);
    r->applied = r->install.index;
    if (r->commit < r->applied)
        r->commit = r->applied;
    r->log_bytes_applied = r->log_entries_applied = 0;
    r->taking_index = 0;
    event.persisted_snapshot.metadata = r->install;
    event.persisted_snapshot.offset = 0;
    event.persisted_snapshot.last = true;
    r->install = (struct raft_snapshot_metadata){0};
    r->installing = false;
    (void)core_step(r, &event, NULL); /* Failure is fatal inside. */
    core_members_check(r);
    apply_committed(r);
    if (!r->stopped)
        read_applied(r);
}

void image_flush(struct replica *r)
{
    if (snapshot_due(r))
        snapshot_take(r);
}

uint64_t image_wake_ns(const struct replica *r)
{
    return r->snapshot_wanted && r->taking_index == 0 && r->snapshot_retry_ns > r->now_ns
               ? r->snapshot_retry_ns
               : UINT64_MAX;
}

void image_free(struct replica *r)
{
    if (r->installing)
        raft_configuration_close(&r->install.configuration);
    buf_deinit(&r->snapshot_conf);
    buf_deinit(&r->taking_conf);
}
