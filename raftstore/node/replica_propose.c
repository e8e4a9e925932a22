#include "raftstore/lock/view.h"
#include "raftstore/node/replica_impl.h"
#include "raftstore/wire/frame.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- Cluster time ------------------------------------------------------------------------ */

/* A leader's own clock since its election on top of the newest stamp in its log: it never runs
 * ahead of real time, and stands still while there is no leader. */
uint64_t propose_cluster_now_ns(const struct replica *r, uint64_t now_ns)
{
    if (r->state == RAFT_LEADER) {
        uint64_t since = now_ns > r->elected_at_ns ? now_ns - r->elected_at_ns : 0;
        uint64_t stamp = r->base_stamp_ns + since;
        return stamp > r->last_stamp_ns ? stamp : r->last_stamp_ns;
    }
    if (r->leader_id == 0 || now_ns < r->applied_at_ns)
        return r->applied_stamp_ns;
    return r->applied_stamp_ns + (now_ns - r->applied_at_ns);
}

static uint64_t propose_newest_stamp(const struct replica *r)
{
    uint64_t stamp = lock_counts(r->table).stamp_ns;
    for (uint64_t i = log_last(&r->log); i >= r->log.first && i > r->applied; i--) {
        const struct log_entry *e = log_get(&r->log, i);
        if (e == NULL || e->type != RAFT_COMMAND)
            continue;
        uint64_t last = entry_last_stamp(e->data);
        return last > stamp ? last : stamp;
    }
    return stamp;
}

/* Stamps never run back, over leaders either. */
static uint64_t propose_stamp(struct replica *r)
{
    uint64_t stamp = propose_cluster_now_ns(r, r->now_ns);
    r->last_stamp_ns = stamp;
    return stamp;
}

/* ---- Queue ------------------------------------------------------------------------------- */

static struct queued_command *queue_at(const struct replica *r, size_t i)
{
    return &r->queue[(r->queue_head + i) & (r->n_queue_alloc - 1)];
}

static void queue_grow(struct replica *r)
{
    size_t n_alloc = r->n_queue_alloc == 0 ? 256 : r->n_queue_alloc * 2;
    struct queued_command *queue = xcalloc(n_alloc, sizeof *queue);
    for (size_t i = 0; i < r->n_queue; i++)
        queue[i] = *queue_at(r, i);
    free(r->queue);
    r->queue = queue;
    r->n_queue_alloc = n_alloc;
    r->queue_head = 0;
}

static void queue_add(struct replica *r, uint64_t request_id, struct bytes command, bool own)
{
    if (r->n_queue == r->n_queue_alloc)
        queue_grow(r);
    *queue_at(r, r->n_queue++) = (struct queued_command){
        .request_id = request_id,
        .stamp_ns = propose_stamp(r),
        .size_bytes = command.size,
        .own = own,
    };
    buf_add(&r->queue_bytes, command.data, command.size);
}

static void queue_drop(struct replica *r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        r->queue_bytes_head += queue_at(r, i)->size_bytes;
    r->queue_head = (r->queue_head + n) & (r->n_queue_alloc - 1);
    r->n_queue -= n;
    if (r->n_queue == 0) {
        r->queue_bytes.size = r->queue_bytes_head = 0;
    } else if (r->queue_bytes_head > r->queue_bytes.size / 2) {
        buf_consume(&r->queue_bytes, r->queue_bytes_head);
        r->queue_bytes_head = 0;
    }
}

/* Is there no room for one more?  A queue that is only long makes everybody wait for what nobody
 * waits for any more; so beside its length, its delay is bounded (as CoDel does, RFC 8289): what
 * the oldest has waited, the next one will wait at least. */
static bool queue_is_full(const struct replica *r, enum replica_urgency urgency, size_t size)
{
    const struct replica_config *c = &r->config;
    unsigned quarters = urgency == REPLICA_KEEPALIVE ? 6 : urgency == REPLICA_UPKEEP ? 5 : 4;
    size_t bytes = r->queue_bytes.size - r->queue_bytes_head + size;
    if (r->n_queue >= (size_t)c->queue_commands_max / 4 * quarters ||
        bytes > c->queue_bytes_max / 4 * quarters)
        return true;
    return urgency == REPLICA_ORDINARY && r->n_queue >= c->queue_commands_late &&
           propose_cluster_now_ns(r, r->now_ns) - queue_at(r, 0)->stamp_ns >
               (uint64_t)c->queue_ms_max * 1000000;
}

enum replica_status replica_submit(struct replica *r,
                                   uint64_t now_ns,
                                   uint64_t request_id,
                                   enum replica_urgency urgency,
                                   struct bytes command)
{
    replica_enter(r, now_ns);
    if (r->stopped)
        return REPLICA_STOPPED;
    if (r->state != RAFT_LEADER)
        return REPLICA_NOT_LEADER;
    if (command.size == 0 || command.size > FRAME_CLIENT_BYTES_MAX)
        return REPLICA_BAD;
    if (queue_is_full(r, urgency, command.size))
        return REPLICA_BUSY;
    queue_add(r, request_id, command, /* own= */ false);
    return REPLICA_OK;
}

/* ---- In flight --------------------------------------------------------------------------- */

static struct inflight_entry *inflight_at(const struct replica *r, size_t i)
{
    return &r->inflight[(r->inflight_head + i) & (r->n_inflight_alloc - 1)];
}

static struct inflight_entry *inflight_add(struct replica *r, unsigned n)
{
    if (r->n_inflight == r->n_inflight_alloc) {
        size_t n_alloc = r->n_inflight_alloc == 0 ? 16 : r->n_inflight_alloc * 2;
        struct inflight_entry *list = xcalloc(n_alloc, sizeof *list);
        for (size_t i = 0; i < r->n_inflight; i++)
            list[i] = *inflight_at(r, i);
        free(r->inflight);
        r->inflight = list;
        r->n_inflight_alloc = n_alloc;
        r->inflight_head = 0;
    }
    struct inflight_entry *f = inflight_at(r, r->n_inflight++);
    *f = (struct inflight_entry){.n = n};
    f->request_ids = xmalloc(n * (sizeof(uint64_t) + sizeof(bool)) + 1);
    f->own = (bool *)(f->request_ids + n);
    return f;
}

struct inflight_entry *propose_inflight_front(struct replica *r, uint64_t index, uint64_t term)
{
    if (r->n_inflight == 0)
        return NULL;
    struct inflight_entry *f = inflight_at(r, 0);
    return f->index == index && f->term == term ? f : NULL;
}

void propose_inflight_pop(struct replica *r)
{
    free(inflight_at(r, 0)->request_ids);
    *inflight_at(r, 0) = (struct inflight_entry){0};
    r->inflight_head = (r->inflight_head + 1) & (r->n_inflight_alloc - 1);
    r->n_inflight--;
}

/* ---- Entries ----------------------------------------------------------------------------- */

/* A transfer under way makes the core refuse entries; they wait in the queue (bounded), for this
 * leader when the transfer is given up, or to be told NOT_LEADER. */
bool propose_possible(const struct replica *r)
{
    return !r->stopped && r->core.state == RAFT_LEADER && raft_transferee(&r->core) == 0;
}

static bool propose_chunk(struct replica *r, struct log_chunk *chunk, struct inflight_entry *f)
{
    struct raft_entry entry = {
        .term = r->core.current_term,
        .type = RAFT_COMMAND,
        .buf = {.base = chunk->data, .len = chunk->size},
        .batch = chunk,
    };
    struct raft_event event = {.type = RAFT_SUBMIT, .submit = {&entry, 1}};
    f->proposed_ns = r->now_ns;
    f->term = r->core.current_term;
    f->index = log_last(&r->log) + 1;
    r->n_entries++;
    r->n_commands += f->n;
    int rv = core_step(r, &event, chunk);
    log_chunk_unref(chunk);
    if (rv != 0)
        replica_fatal(r, "the Raft core refuses an entry: %s", raft_strerror(rv));
    return rv == 0;
}

/* How many queued commands go into the next entry, and its size. */
static unsigned propose_measure(const struct replica *r, size_t *ret_size)
{
    size_t size = ENTRY_HEAD_BYTES;
    unsigned n = 0;
    uint64_t first_ns = queue_at(r, 0)->stamp_ns;
    for (; n < r->n_queue && n < REPLICA_ENTRY_COMMANDS; n++) {
        const struct queued_command *c = queue_at(r, n);
        uint64_t delta = replica_rule(r, RULE_OWN_STAMP) ? c->stamp_ns - first_ns : 0;
        size_t more = entry_command_size(c->size_bytes, delta);
        if (n > 0 && size + more > r->config.entry_bytes_max)
            break;
        size += more;
    }
    *ret_size = size;
    return n;
}

static bool propose_queued(struct replica *r)
{
    size_t size;
    unsigned n = propose_measure(r, &size);
    struct log_chunk *chunk = log_chunk_new(size);
    struct inflight_entry *f = inflight_add(r, n);
    uint64_t first_ns = queue_at(r, 0)->stamp_ns;
    uint8_t *p = entry_put_head(chunk->data, first_ns);
    const uint8_t *bytes = r->queue_bytes.data + r->queue_bytes_head;
    for (unsigned i = 0; i < n; i++) {
        const struct queued_command *c = queue_at(r, i);
        uint64_t delta = replica_rule(r, RULE_OWN_STAMP) ? c->stamp_ns - first_ns : 0;
        p = entry_put_command(p, bytes_of(bytes, c->size_bytes), delta);
        bytes += c->size_bytes;
        f->request_ids[i] = c->request_id;
        f->own[i] = c->own;
    }
    assert(p == chunk->data + size);
    queue_drop(r, n);
    return propose_chunk(r, chunk, f);
}

static bool propose_own(struct replica *r, const Hf__Command *command, uint64_t stamp_ns)
{
    struct buf packed = BUF_INIT;
    pack_add(&packed, &command->base);
    size_t size = ENTRY_HEAD_BYTES + entry_command_size(packed.size, 0);
    struct log_chunk *chunk = log_chunk_new(size);
    struct inflight_entry *f = inflight_add(r, 1);
    uint8_t *p = entry_put_head(chunk->data, stamp_ns);
    p = entry_put_command(p, bytes_of(packed.data, packed.size), 0);
    assert(p == chunk->data + size);
    buf_deinit(&packed);
    f->request_ids[0] = 0;
    f->own[0] = true;
    f->term_start = command->op == LOCK_OP_TERM_START;
    return propose_chunk(r, chunk, f);
}

/* The first entry of a term is the leader's own: when it is applied the leader knows what is
 * committed, and may serve reads and change the membership. */
static bool propose_term_start(struct replica *r)
{
    Hf__Command command = HF__COMMAND__INIT;
    Hf__Limits limits = HF__LIMITS__INIT;
    limits.holds_max = r->config.limits.holds_max;
    limits.holds_per_session_max = r->config.limits.holds_per_session_max;
    limits.waiters_max = r->config.limits.waiters_max;
    limits.sessions_max = r->config.limits.sessions_max;
    limits.directories_max = r->config.limits.directories_max;
    command.op = LOCK_OP_TERM_START;
    command.term = r->core.current_term;
    command.node_id = r->config.id;
    command.limits = &limits;
    r->term_start_wanted = false;
    return propose_own(r, &command, r->base_stamp_ns);
}

/* A deadline has passed, and no command that was stamped since is on its way to expire it. */
static void propose_tick(struct replica *r)
{
    static const uint8_t tick[] = {0x08, LOCK_OP_TICK}; /* A packed Command: op. */
    uint64_t deadline_ns = lock_next_deadline_ns(r->table);
    if (!r->ready || deadline_ns == LOCK_DEADLINE_NEVER || r->last_stamp_ns >= deadline_ns ||
        deadline_ns > propose_cluster_now_ns(r, r->now_ns))
        return;
    queue_add(r, 0, bytes_of(tick, sizeof tick), /* own= */ true);
}

void propose_flush(struct replica *r)
{
    if (r->state != RAFT_LEADER)
        return;
    propose_tick(r);
    if (r->term_start_wanted && propose_possible(r) && !propose_term_start(r))
        return;
    while (r->n_queue > 0 && r->n_inflight < r->config.entries_inflight_max &&
           propose_possible(r)) {
        if (!propose_queued(r))
            return;
    }
}

uint64_t propose_wake_ns(const struct replica *r)
{
    uint64_t deadline_ns;
    if (r->state != RAFT_LEADER || !r->ready)
        return UINT64_MAX;
    deadline_ns = lock_next_deadline_ns(r->table);
    if (deadline_ns == LOCK_DEADLINE_NEVER || r->last_stamp_ns >= deadline_ns)
        return UINT64_MAX;
    if (deadline_ns <= r->base_stamp_ns)
        return r->now_ns;
    return r->elected_at_ns + (deadline_ns - r->base_stamp_ns);
}

/* ---- Leadership -------------------------------------------------------------------------- */

void propose_leader_begin(struct replica *r)
{
    r->ready = false;
    r->base_stamp_ns = propose_newest_stamp(r);
    r->last_stamp_ns = r->base_stamp_ns;
    r->elected_at_ns = r->now_ns;
    r->term_start_wanted = true;
    r->timeout_fired_ns = r->now_ns;
    image_leader_begin(r);
}

void propose_leader_end(struct replica *r)
{
    r->ready = false;
    r->term_start_wanted = false;
    while (r->n_inflight > 0) {
        struct inflight_entry *f = inflight_at(r, 0);
        for (unsigned i = 0; i < f->n; i++) {
            if (!f->own[i])
                r->io->command_done(r->io_arg, f->request_ids[i], REPLICA_UNKNOWN, NULL, 0);
        }
        propose_inflight_pop(r);
    }
    for (size_t i = 0; i < r->n_queue; i++) {
        const struct queued_command *c = queue_at(r, i);
        if (!c->own)
            r->io->command_done(r->io_arg, c->request_id, REPLICA_NOT_LEADER, NULL, 0);
    }
    if (r->n_queue > 0)
        queue_drop(r, r->n_queue);
}

void propose_free(struct replica *r)
{
    while (r->n_inflight > 0)
        propose_inflight_pop(r);
    free(r->inflight);
    free(r->queue);
    buf_deinit(&r->queue_bytes);
}
