#include "tests/fuzz/replica.h"

#include <stdio.h>
#include <stdlib.h>

#include "raftstore/lock/restore.h"

/* ---- Images ------------------------------------------------------------------------------ */

static int import_row(void *arg, const struct lock_row *row)
{
    return lock_import_row(arg, row);
}

static struct lock_table *table_copy(const struct lock_table *t)
{
    struct lock_table *copy = lock_table_new();
    int rv = lock_export(t, import_row, copy);
    if (rv == 0)
        rv = lock_import_finish(copy);
    fuzz_require(rv == 0, "a table's export can't be imported");
    return copy;
}

struct image *image_make(const struct lock_table *t, const struct replica_image *ident)
{
    struct image *i = xcalloc(1, sizeof *i);
    i->n_refs = 1;
    i->ident = *ident;
    buf_add(&i->conf, ident->conf.data, ident->conf.size);
    i->ident.conf = bytes_of(i->conf.data, i->conf.size);
    i->table = table_copy(t);
    return i;
}

struct image *image_ref(struct image *i)
{
    i->n_refs++;
    return i;
}

void image_drop(struct image *i)
{
    if (i == NULL || --i->n_refs > 0)
        return;
    buf_deinit(&i->conf);
    lock_table_free(i->table);
    free(i);
}

struct bytes configuration_make(unsigned n_voters, bool standby)
{
    struct raft_configuration c;
    struct buf encoded = BUF_INIT;
    raft_configuration_init(&c);
    for (unsigned i = 1; i <= n_voters + standby; i++) {
        uint64_t id = i <= n_voters ? i : n_voters < LIAR_MEMBER ? LIAR_MEMBER : 9;
        char address[32];
        (void)snprintf(address, sizeof address, "n%u:1,n%u:2", (unsigned)id, (unsigned)id);
        int rv = raft_configuration_add(&c, id, address, i <= n_voters ? RAFT_VOTER : RAFT_STANDBY);
        fuzz_require(rv == 0, "no configuration");
    }
    codec_configuration_encode(&c, &encoded);
    raft_configuration_close(&c);
    return bytes_of(encoded.data, encoded.size);
}

/* ---- The disk ---------------------------------------------------------------------------- */

static void disk_submit(struct disk *d,
                        enum disk_op_type type,
                        const struct replica_write *w,
                        struct image *image)
{
    if (d->n_ops == d->n_ops_alloc) {
        d->n_ops_alloc = d->n_ops_alloc == 0 ? 16 : d->n_ops_alloc * 2;
        d->ops = xrealloc(d->ops, d->n_ops_alloc * sizeof *d->ops);
    }
    struct disk_op *op = &d->ops[d->n_ops++];
    *op = (struct disk_op){.type = type, .image = image};
    if (w != NULL) {
        op->write = *w;
        op->entries =
            w->n_entries > 0 ? xmemdup(w->entries, w->n_entries * sizeof *w->entries) : NULL;
    }
}

static void disk_drop(struct disk *d, size_t from, size_t n)
{
    for (size_t i = from; i < from + n; i++)
        buf_deinit(&d->entries[i].data);
    if (n > 0)
        memmove(&d->entries[from], &d->entries[from + n], (d->n - from - n) * sizeof *d->entries);
    d->n -= n;
}

static void disk_append(struct node *n, const struct replica_entry *e)
{
    struct disk *d = &n->disk;
    uint64_t last = d->n > 0           ? d->entries[d->n - 1].index
                    : d->image != NULL ? d->image->ident.index
                                       : 0;
    fuzz_require(e->index == last + 1, "node %u writes entry %llu behind %llu", (unsigned)n->id,
                 (unsigned long long)e->index, (unsigned long long)last);
    if (d->n == d->n_alloc) {
        d->n_alloc = d->n_alloc == 0 ? 64 : d->n_alloc * 2;
        d->entries = xrealloc(d->entries, d->n_alloc * sizeof *d->entries);
    }
    struct disk_entry *out = &d->entries[d->n++];
    *out = (struct disk_entry){.index = e->index, .term = e->term, .type = e->type};
    buf_add(&out->data, e->data.data, e->data.size);
}

static void disk_write(struct node *n, const struct disk_op *op)
{
    struct disk *d = &n->disk;
    const struct replica_write *w = &op->write;
    if (w->set_vote) {
        fuzz_require(w->term >= d->term, "node %u stores an older term", (unsigned)n->id);
        fuzz_require(w->term > d->term || d->voted_for == 0 || w->voted_for == d->voted_for,
                     "node %u votes twice in term %llu", (unsigned)n->id,
                     (unsigned long long)w->term);
        d->term = w->term;
        d->voted_for = w->voted_for;
    }
    if (w->truncate_from != 0) {
        size_t keep = 0;
        while (keep < d->n && d->entries[keep].index < w->truncate_from)
            keep++;
        disk_drop(d, keep, d->n - keep);
    }
    for (unsigned i = 0; i < w->n_entries; i++)
        disk_append(n, &op->entries[i]);
    if (w->drop_to != 0) {
        size_t drop = 0;
        while (drop < d->n && d->entries[drop].index <= w->drop_to)
            drop++;
        disk_drop(d, 0, drop);
    }
}

static void disk_commit(struct node *n, struct disk_op *op)
{
    struct disk *d = &n->disk;
    if (op->type == DISK_WRITE) {
        disk_write(n, op);
        return;
    }
    image_drop(d->image);
    d->image = op->image;
    op->image = NULL;
    if (op->type == DISK_INSTALL)
        disk_drop(d, 0, d->n);
}

static void disk_op_free(struct disk_op *op)
{
    free(op->entries);
    image_drop(op->image);
}

static void disk_free(struct disk *d)
{
    for (size_t i = 0; i < d->n_ops; i++)
        disk_op_free(&d->ops[i]);
    free(d->ops);
    disk_drop(d, 0, d->n);
    free(d->entries);
    image_drop(d->image);
    *d = (struct disk){0};
}

static void real_report(struct node *n, enum disk_op_type type, uint64_t ticket)
{
    uint64_t now_ns = n->world->now_ns;
    if (type == DISK_WRITE) {
        replica_persisted(n->r, now_ns, ticket);
    } else if (type == DISK_SNAPSHOT) {
        replica_snapshot_taken(n->r, now_ns, n->disk.image->ident.index, true);
    } else {
        image_drop(n->incoming);
        n->incoming = NULL;
        n->commit_seen = n->applied_seen = 0; /* May be a false leader's. */
        replica_image_installed(n->r, now_ns, table_copy(n->disk.image->table));
    }
}

void real_persist(struct node *n, size_t n_ops)
{
    struct disk *d = &n->disk;
    while (n_ops-- > 0 && d->n_ops > 0) {
        struct disk_op op = d->ops[0];
        memmove(d->ops, d->ops + 1, --d->n_ops * sizeof *d->ops);
        disk_commit(n, &op);
        enum disk_op_type type = op.type;
        uint64_t ticket = op.write.ticket;
        disk_op_free(&op);
        if (n->r != NULL)
            real_report(n, type, ticket);
    }
    real_check(n);
}

/* ---- Outputs ----------------------------------------------------------------------------- */

static void on_persist(void *arg, const struct replica_write *w)
{
    struct node *n = arg;
    fuzz_require(w->truncate_from == 0 || w->truncate_from > n->commit_seen || n->r->stopped ||
                     n->r->installing,
                 "node %u truncates from %llu, committed %llu", (unsigned)n->id,
                 (unsigned long long)w->truncate_from, (unsigned long long)n->commit_seen);
    disk_submit(&n->disk, DISK_WRITE, w, NULL);
}

/* The term that a frame claims for its sender; 0 = none. */
static uint64_t frame_term(const Hf__PeerFrame *frame)
{
    switch (frame->body_case) {
    case HF__PEER_FRAME__BODY_REQUEST_VOTE: /* A pre-vote is asked for the next term. */
        return frame->request_vote->pre_vote ? 0 : frame->request_vote->term;
    case HF__PEER_FRAME__BODY_REQUEST_VOTE_RESULT:
        return frame->request_vote_result->pre_vote ? 0 : frame->request_vote_result->term;
    case HF__PEER_FRAME__BODY_APPEND_ENTRIES:
        return frame->append_entries->term;
    case HF__PEER_FRAME__BODY_APPEND_ENTRIES_RESULT:
        return frame->append_entries_result->term;
    case HF__PEER_FRAME__BODY_TIMEOUT_NOW:
        return frame->timeout_now->term;
    case HF__PEER_FRAME__BODY_READ_PROBE:
        return frame->read_probe->term;
    case HF__PEER_FRAME__BODY_READ_PROBE_RESULT:
        return frame->read_probe_result->term;
    default:
        return 0;
    }
}

/* Nothing is promised that a crash could take back. */
static void check_promise(const struct node *n, uint64_t to, const Hf__PeerFrame *frame)
{
    const struct disk *d = &n->disk;
    const Hf__RequestVoteResult *vote = frame->request_vote_result;
    fuzz_require(frame_term(frame) <= d->term, "node %u speaks of term %llu, durable is %llu",
                 (unsigned)n->id, (unsigned long long)frame_term(frame),
                 (unsigned long long)d->term);
    if (frame->body_case == HF__PEER_FRAME__BODY_REQUEST_VOTE_RESULT && vote->vote_granted &&
        !vote->pre_vote)
        fuzz_require(d->term > vote->term || d->voted_for == to,
                     "node %u grants %u a vote that is not durable", (unsigned)n->id, (unsigned)to);
    if (frame->body_case == HF__PEER_FRAME__BODY_APPEND_ENTRIES_RESULT &&
        frame->append_entries_result->rejected == 0 && d->term == frame_term(frame)) {
        uint64_t last = d->n > 0           ? d->entries[d->n - 1].index
                        : d->image != NULL ? d->image->ident.index
                                           : 0;
        fuzz_require(frame->append_entries_result->last_log_index <= last || d->n_ops > 0,
                     "node %u acknowledges %llu, durable is %llu", (unsigned)n->id,
                     (unsigned long long)frame->append_entries_result->last_log_index,
                     (unsigned long long)last);
    }
}

static void on_send(void *arg, uint64_t to, const Hf__PeerFrame *frame)
{
    struct node *n = arg;
    struct world *w = n->world;
    check_promise(n, to, frame);
    if (world_node(w, to) == NULL || w->n_frames == FRAMES_MAX)
        return;
    struct frame *f = &w->frames[w->n_frames++];
    *f = (struct frame){.from = n->id, .to = to};
    pack_add(&f->packed, &frame->base);
}

static void on_send_image(void *arg, uint64_t to, uint64_t term)
{
    struct node *n = arg;
    fuzz_require(n->disk.image != NULL, "node %u is to send an image and has none",
                 (unsigned)n->id);
    n->image_to = to;
    n->image_term = term;
}

static void on_take_snapshot(void *arg, const struct replica_image *image)
{
    struct node *n = arg;
    disk_submit(&n->disk, DISK_SNAPSHOT, NULL, image_make(replica_table(n->r), image));
}

static void on_install_image(void *arg, const struct replica_image *image)
{
    struct node *n = arg;
    fuzz_require(n->incoming != NULL && n->incoming->ident.index == image->index,
                 "node %u installs an image that did not come", (unsigned)n->id);
    disk_submit(&n->disk, DISK_INSTALL, NULL, image_ref(n->incoming));
}

static struct open_request close_request(struct node *n, uint64_t id, int kind)
{
    for (unsigned i = 0; i < n->n_open; i++) {
        struct open_request o = n->open[i];
        if (o.id != id || (int)o.kind != kind)
            continue;
        n->open[i] = n->open[--n->n_open];
        return o;
    }
    fuzz_fail("node %u answers request %llu, which is not open", (unsigned)n->id,
              (unsigned long long)id);
}

static void on_command_done(void *arg,
                            uint64_t request_id,
                            enum replica_status status,
                            const struct lock_result *result,
                            uint64_t index)
{
    struct node *n = arg;
    (void)close_request(n, request_id, OPEN_COMMAND);
    fuzz_require((result != NULL) == (status == REPLICA_OK), "result and status differ");
    if (status == REPLICA_OK && index > n->world->acked_index)
        n->world->acked_index = index;
}

static void on_read_done(void *arg, uint64_t read_id, enum replica_status status)
{
    struct node *n = arg;
    struct open_request o = close_request(n, read_id, OPEN_READ);
    if (status == REPLICA_OK && n->world->liars == LIARS_OUTSIDE)
        fuzz_require(n->r->applied >= o.acked_index,
                     "node %u serves a read at %llu, acknowledged was %llu", (unsigned)n->id,
                     (unsigned long long)n->r->applied, (unsigned long long)o.acked_index);
}

static void
on_admin_done(void *arg, uint64_t request_id, enum replica_status status, const char *text)
{
    (void)status;
    fuzz_require(text != NULL, "an outcome without a text");
    (void)close_request(arg, request_id, OPEN_ADMIN);
}

static uint64_t hash_bytes(struct bytes b)
{
    uint64_t h = UINT64_C(14695981039346656037); /* FNV-1a. */
    for (size_t i = 0; i < b.size; i++)
        h = (h ^ ((const uint8_t *)b.data)[i]) * UINT64_C(1099511628211);
    return h;
}

/* All who apply an index apply the same, and come to the same. */
static void on_entry_applied(void *arg, uint64_t index, uint64_t term, struct bytes data)
{
    struct node *n = arg;
    struct world *w = n->world;
    struct applied now = {term, hash_bytes(data), lock_digest(n->r->table), true};
    if (w->liars != LIARS_OUTSIDE || index >= HISTORY_MAX)
        return;
    struct applied *known = &w->history[index];
    if (!known->set) {
        *known = now;
        return;
    }
    fuzz_require(known->term == now.term && known->hash == now.hash,
                 "node %u applies another entry %llu", (unsigned)n->id, (unsigned long long)index);
    fuzz_require(known->digest.lo == now.digest.lo && known->digest.hi == now.digest.hi,
                 "node %u has another digest at %llu", (unsigned)n->id, (unsigned long long)index);
}

static void on_effects(void *arg,
                       uint64_t index,
                       const struct lock_command *command,
                       const struct lock_effects *effects)
{
    (void)arg;
    (void)index;
    (void)command;
    (void)effects;
}

static void on_state_changed(void *arg)
{
    struct node *n = arg;
    struct replica_view v = replica_view(n->r);
    fuzz_require(!v.ready || v.state == RAFT_LEADER, "ready, and not leader");
}

static void on_members_changed(void *arg, const struct raft_configuration *members)
{
    (void)arg;
    fuzz_require(members->n <= REPLICA_MEMBERS_MAX, "too many members");
}

static void on_fatal(void *arg, const char *reason)
{
    struct node *n = arg;
    n->stopped = true;
    (void)snprintf(n->reason, sizeof n->reason, "%s", reason);
    /* A false leader of several nodes can have entries committed that nobody can apply, and make
     * tables differ; nothing else stops a node. */
    bool led = n->world->liars == LIARS_OTHERS || n->world->liars == LIARS_ANYBODY;
    fuzz_require(led && (strstr(reason, "has a command that this version does not know") != NULL ||
                         strstr(reason, "lock table differs") != NULL),
                 "node %u stops: %s", (unsigned)n->id, reason);
}

static void on_log(void *arg, int level, const char *msg, const char *fields)
{
    const struct node *n = arg;
    static int wanted = -1;
    if (wanted < 0)
        wanted = getenv("FUZZ_TRACE") != NULL;
    if (wanted)
        (void)fprintf(stderr, "node %u log %d: %s %s\n", (unsigned)n->id, level, msg, fields);
}

static const struct replica_io real_io = {
    .persist = on_persist,
    .send = on_send,
    .send_image = on_send_image,
    .take_snapshot = on_take_snapshot,
    .install_image = on_install_image,
    .command_done = on_command_done,
    .read_done = on_read_done,
    .admin_done = on_admin_done,
    .entry_applied = on_entry_applied,
    .effects = on_effects,
    .state_changed = on_state_changed,
    .members_changed = on_members_changed,
    .fatal = on_fatal,
    .log = on_log,
};

/* ---- Life -------------------------------------------------------------------------------- */

void real_start(struct node *n)
{
    struct disk *d = &n->disk;
    struct replica_stored stored = {.term = d->term, .voted_for = d->voted_for};
    char address[32];
    struct replica_entry *entries = xcalloc(d->n + 1, sizeof *entries);
    for (size_t i = 0; i < d->n; i++) {
        const struct disk_entry *e = &d->entries[i];
        entries[i] =
            (struct replica_entry){e->index, e->term, e->type, {e->data.data, e->data.size}};
    }
    stored.entries = entries;
    stored.n_entries = (unsigned)d->n;
    if (d->image != NULL)
        stored.image = d->image->ident;
    stored.table = d->image != NULL ? table_copy(d->image->table) : lock_table_new();
    (void)snprintf(address, sizeof address, "n%u:1,n%u:2", (unsigned)n->id, (unsigned)n->id);
    struct replica_config config = {
        .id = n->id,
        .address = address,
        .seed = n->id * 7919,
        .queue_commands_max = 64,
        .snapshot_log_entries = 20,
        .trailing_entries = 3,
        .io = &real_io,
        .io_arg = n,
    };
    n->term_seen = n->commit_seen = n->applied_seen = 0;
    int rv = replica_new(&config, &stored, n->world->now_ns, &n->r);
    fuzz_require(rv == 0, "node %u can't start from what it stored itself", (unsigned)n->id);
    free(entries);
    real_check(n);
}

void real_crash(struct node *n)
{
    struct disk *d = &n->disk;
    replica_free(n->r);
    n->r = NULL;
    for (size_t i = 0; i < d->n_ops; i++)
        disk_op_free(&d->ops[i]);
    d->n_ops = 0;
    n->n_open = 0;
    n->image_to = 0;
    image_drop(n->incoming);
    n->incoming = NULL;
}

void real_free(struct node *n)
{
    real_crash(n);
    disk_free(&n->disk);
}

void real_check(struct node *n)
{
    if (n->r == NULL || n->stopped)
        return;
    struct replica_view v = replica_view(n->r);
    fuzz_require(v.term >= n->term_seen, "node %u: the term goes back", (unsigned)n->id);
    fuzz_require(v.commit_index >= n->commit_seen, "node %u: the commit index goes back",
                 (unsigned)n->id);
    fuzz_require(v.applied_index >= n->applied_seen, "node %u: the applied index goes back",
                 (unsigned)n->id);
    fuzz_require(v.applied_index <= v.commit_index, "node %u applied what is not committed",
                 (unsigned)n->id);
    fuzz_require(n->r->installing || v.commit_index <= v.last_index,
                 "node %u: %llu is committed, the log ends at %llu", (unsigned)n->id,
                 (unsigned long long)v.commit_index, (unsigned long long)v.last_index);
    fuzz_require(v.first_index <= v.last_index + 1, "node %u: the log is inside out",
                 (unsigned)n->id);
    n->term_seen = v.term;
    n->commit_seen = v.commit_index;
    n->applied_seen = v.applied_index;
}

/* ---- Inputs ------------------------------------------------------------------------------ */

void real_flush(struct node *n)
{
    if (n->r == NULL)
        return;
    (void)replica_flush(n->r, n->world->now_ns);
    real_check(n);
}

bool real_open(struct node *n, int kind)
{
    if (n->n_open == OPEN_MAX)
        return false;
    n->open[n->n_open++] = (struct open_request){
        .id = ++n->world->next_request,
        .acked_index = n->world->acked_index,
        .kind = kind,
    };
    return true;
}

void real_refused(struct node *n)
{
    (void)close_request(n, n->world->next_request, (int)n->open[n->n_open - 1].kind);
}

void real_receive(struct node *n, uint64_t from, const Hf__PeerFrame *frame)
{
    if (n->r == NULL)
        return;
    replica_receive(n->r, n->world->now_ns, from, frame);
    real_check(n);
}

void real_receive_image(struct node *n, uint64_t from, uint64_t term, struct image *i)
{
    if (n->r == NULL || n->incoming != NULL)
        return;
    n->incoming = image_ref(i);
    if (!replica_receive_image(n->r, n->world->now_ns, from, term, &i->ident)) {
        image_drop(n->incoming);
        n->incoming = NULL;
    }
    real_check(n);
}

struct node *world_node(struct world *w, uint64_t id)
{
    return id >= 1 && id <= w->n_nodes ? &w->nodes[id - 1] : NULL;
}

void world_drop(struct world *w, unsigned i)
{
    buf_deinit(&w->frames[i].packed);
    memmove(&w->frames[i], &w->frames[i + 1], (w->n_frames - i - 1) * sizeof w->frames[0]);
    w->n_frames--;
}

void world_deliver(struct world *w, unsigned i, bool keep)
{
    struct frame *f = &w->frames[i];
    struct node *n = world_node(w, f->to);
    uint64_t from = f->from;
    arena_reset(&w->arena);
    const Hf__PeerFrame *frame = (const Hf__PeerFrame *)(const void *)pack_parse(
        &w->arena, &hf__peer_frame__descriptor, bytes_of(f->packed.data, f->packed.size));
    fuzz_require(frame != NULL, "a frame of a replica can't be unpacked");
    if (!keep)
        world_drop(w, i);
    real_receive(n, from, frame);
}
