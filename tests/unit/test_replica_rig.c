#include "tests/unit/test_replica_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- Outputs ----------------------------------------------------------------------------- */

static void on_persist(void *arg, const struct replica_write *w)
{
    struct rig *g = arg;
    assert_true(g->n_writes < RIG_MAX);
    struct rig_write *out = &g->writes[g->n_writes++];
    *out = (struct rig_write){.w = *w};
    out->w.entries = NULL;
    if (w->n_entries > 0) {
        out->first = w->entries[0].index;
        out->last = w->entries[w->n_entries - 1].index;
    }
}

static void on_send(void *arg, uint64_t to, const Hf__PeerFrame *frame)
{
    struct rig *g = arg;
    struct buf packed = BUF_INIT;
    assert_true(g->n_sent < RIG_MAX);
    pack_add(&packed, &frame->base);
    g->sent[g->n_sent].to = to;
    g->sent[g->n_sent].frame = hf__peer_frame__unpack(NULL, packed.size, packed.data);
    assert_non_null(g->sent[g->n_sent].frame);
    g->n_sent++;
    buf_deinit(&packed);
}

static void on_send_image(void *arg, uint64_t to, uint64_t term)
{
    (void)to;
    (void)term;
    ((struct rig *)arg)->n_images_sent++;
}

static void on_take_snapshot(void *arg, const struct replica_image *image)
{
    struct rig *g = arg;
    g->n_snapshots++;
    g->snapshot = *image;
    g->snapshot.conf = (struct bytes){0};
}

static void on_install_image(void *arg, const struct replica_image *image)
{
    (void)image;
    ((struct rig *)arg)->n_installs++;
}

static void on_command_done(void *arg,
                            uint64_t id,
                            enum replica_status status,
                            const struct lock_result *result,
                            uint64_t index)
{
    struct rig *g = arg;
    (void)index;
    assert_true(g->n_commands < RIG_MAX);
    g->commands[g->n_commands++] =
        (struct rig_done){.id = id,
                          .status = status,
                          .has_result = result != NULL,
                          .code = result != NULL ? result->code : LOCK_OK,
                          .stamp_ns = result != NULL ? result->stamp_ns : 0};
}

static void on_read_done(void *arg, uint64_t id, enum replica_status status)
{
    struct rig *g = arg;
    assert_true(g->n_reads < RIG_MAX);
    g->reads[g->n_reads++] = (struct rig_done){.id = id, .status = status};
}

static void on_admin_done(void *arg, uint64_t id, enum replica_status status, const char *text)
{
    struct rig *g = arg;
    assert_non_null(text);
    assert_true(g->n_admins < RIG_MAX);
    g->admins[g->n_admins++] = (struct rig_done){.id = id, .status = status};
}

static void on_entry_applied(void *arg, uint64_t index, uint64_t term, struct bytes data)
{
    (void)arg;
    (void)index;
    (void)term;
    (void)data;
}

static void on_effects(void *arg,
                       uint64_t index,
                       const struct lock_command *command,
                       const struct lock_effects *effects)
{
    (void)index;
    (void)command;
    ((struct rig *)arg)->n_effects += (unsigned)effects->n;
}

static void on_state_changed(void *arg)
{
    (void)arg;
}

static void on_members_changed(void *arg, const struct raft_configuration *members)
{
    (void)arg;
    (void)members;
}

static void on_fatal(void *arg, const char *reason)
{
    struct rig *g = arg;
    snprintf(g->fatal, sizeof g->fatal, "%s", reason);
}

static void on_log(void *arg, int level, const char *msg, const char *fields)
{
    (void)level;
    (void)msg;
    (void)fields;
    ((struct rig *)arg)->n_logs++;
}

static const struct replica_io rig_io = {
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

/* ---- Open and close ---------------------------------------------------------------------- */

struct bytes rig_configuration(unsigned n_voters, unsigned n_standbys)
{
    struct raft_configuration c;
    struct buf encoded = BUF_INIT;
    raft_configuration_init(&c);
    for (unsigned i = 1; i <= n_voters + n_standbys; i++) {
        char address[32];
        snprintf(address, sizeof address, "n%u:1,n%u:2", i, i);
        assert_int_equal(
            raft_configuration_add(&c, i, address, i <= n_voters ? RAFT_VOTER : RAFT_STANDBY), 0);
    }
    codec_configuration_encode(&c, &encoded);
    raft_configuration_close(&c);
    return bytes_of(encoded.data, encoded.size);
}

struct bytes rig_command(uint32_t op)
{
    static uint8_t packed[2];
    packed[0] = 0x08;
    packed[1] = (uint8_t)op;
    return bytes_of(packed, sizeof packed);
}

static uint8_t *tick_entry(size_t *ret_size)
{
    static uint8_t data[ENTRY_HEAD_BYTES + 16];
    uint8_t *p = entry_put_head(data, 0);
    p = entry_put_command(p, rig_command(LOCK_OP_TICK), 0);
    *ret_size = (size_t)(p - data);
    return data;
}

void rig_open(struct rig *g, const struct rig_stored *s)
{
    struct bytes conf = rig_configuration(s->n_voters, s->n_standbys);
    struct replica_entry entries[256] = {0};
    unsigned n = s->n_entries;
    uint64_t first = s->first == 0 ? 1 : s->first;
    size_t size;
    const uint8_t *tick = tick_entry(&size);
    memset(g, 0, sizeof *g);
    g->now_ns = 1000 * RIG_MS;
    g->id = 1;
    for (unsigned i = 0; i < n; i++)
        entries[i] =
            (struct replica_entry){first + i, s->terms[i], RAFT_COMMAND, bytes_of(tick, size)};
    if (s->image_index == 0) {
        entries[0] = (struct replica_entry){1, 1, RAFT_CHANGE, conf};
        n = n == 0 ? 1 : n;
    }
    struct replica_stored stored = {
        .term = s->term,
        .voted_for = s->voted_for,
        .table = lock_table_new(),
        .entries = entries,
        .n_entries = n,
    };
    if (s->image_index != 0)
        stored.image = (struct replica_image){s->image_index, s->image_term, 1, conf};
    struct replica_config config = {
        .id = 1,
        .address = "n1:1,n1:2",
        .seed = 42,
        .entries_inflight_max = 1,
        .queue_commands_max = 8,
        .queue_commands_late = 5,
        .io = &rig_io,
        .io_arg = g,
    };
    assert_int_equal(replica_create(&config, &stored, g->now_ns, s->rules_off, &g->r), 0);
    free((void *)(uintptr_t)conf.data);
}

void rig_forget(struct rig *g)
{
    for (unsigned i = 0; i < g->n_sent; i++)
        hf__peer_frame__free_unpacked(g->sent[i].frame, NULL);
    g->n_sent = 0;
}

void rig_close(struct rig *g)
{
    rig_forget(g);
    replica_free(g->r);
    g->r = NULL;
}

void rig_persist(struct rig *g)
{
    for (unsigned guard = 0; guard < 8; guard++) {
        uint64_t ticket = g->n_writes > 0 ? g->writes[g->n_writes - 1].w.ticket : 0;
        if (ticket == 0 || ticket == g->r->ticket_durable)
            return;
        replica_persisted(g->r, g->now_ns, ticket);
    }
}

uint64_t rig_flush(struct rig *g)
{
    uint64_t wake = replica_flush(g->r, g->now_ns);
    if (!g->hold_writes)
        rig_persist(g);
    return wake;
}

void rig_pass(struct rig *g, uint64_t ms)
{
    for (uint64_t i = 0; i < ms; i++) {
        g->now_ns += RIG_MS;
        (void)rig_flush(g);
    }
}

/* ---- Frames ------------------------------------------------------------------------------ */

const Hf__PeerFrame *rig_last(const struct rig *g, uint64_t to, Hf__PeerFrame__BodyCase type)
{
    for (unsigned i = g->n_sent; i > 0; i--) {
        if (g->sent[i - 1].to == to && g->sent[i - 1].frame->body_case == type)
            return g->sent[i - 1].frame;
    }
    return NULL;
}

unsigned rig_count(const struct rig *g, Hf__PeerFrame__BodyCase type)
{
    unsigned n = 0;
    for (unsigned i = 0; i < g->n_sent; i++)
        n += g->sent[i].frame->body_case == type ? 1 : 0;
    return n;
}

static void rig_receive(struct rig *g, uint64_t from, const Hf__PeerFrame *f)
{
    replica_receive(g->r, g->now_ns, from, f);
    if (!g->hold_writes)
        rig_persist(g);
}

void rig_vote_request(struct rig *g, uint64_t from, uint64_t term, uint64_t index, uint64_t iterm)
{
    Hf__PeerFrame f = HF__PEER_FRAME__INIT;
    Hf__RequestVote m = HF__REQUEST_VOTE__INIT;
    m.term = term;
    m.candidate_id = from;
    m.last_log_index = index;
    m.last_log_term = iterm;
    f.body_case = HF__PEER_FRAME__BODY_REQUEST_VOTE;
    f.request_vote = &m;
    rig_receive(g, from, &f);
}

void rig_vote_result(struct rig *g, uint64_t from, uint64_t term, bool granted, bool pre_vote)
{
    Hf__PeerFrame f = HF__PEER_FRAME__INIT;
    Hf__RequestVoteResult m = HF__REQUEST_VOTE_RESULT__INIT;
    m.term = term;
    m.vote_granted = granted;
    m.pre_vote = pre_vote;
    f.body_case = HF__PEER_FRAME__BODY_REQUEST_VOTE_RESULT;
    f.request_vote_result = &m;
    rig_receive(g, from, &f);
}

void rig_append(struct rig *g,
                uint64_t from,
                uint64_t term,
                uint64_t prev,
                uint64_t prev_term,
                uint64_t commit,
                const Hf__Entry *entries,
                unsigned n)
{
    Hf__PeerFrame f = HF__PEER_FRAME__INIT;
    Hf__AppendEntries m = HF__APPEND_ENTRIES__INIT;
    Hf__Entry *pointers[64];
    assert_true(n <= 64);
    for (unsigned i = 0; i < n; i++)
        pointers[i] = (Hf__Entry *)(uintptr_t)&entries[i];
    m.term = term;
    m.prev_log_index = prev;
    m.prev_log_term = prev_term;
    m.leader_commit = commit;
    m.entries = pointers;
    m.n_entries = n;
    f.body_case = HF__PEER_FRAME__BODY_APPEND_ENTRIES;
    f.append_entries = &m;
    rig_receive(g, from, &f);
}

void rig_append_result(
    struct rig *g, uint64_t from, uint64_t term, uint64_t rejected, uint64_t last)
{
    Hf__PeerFrame f = HF__PEER_FRAME__INIT;
    Hf__AppendEntriesResult m = HF__APPEND_ENTRIES_RESULT__INIT;
    m.term = term;
    m.rejected = rejected;
    m.last_log_index = last;
    f.body_case = HF__PEER_FRAME__BODY_APPEND_ENTRIES_RESULT;
    f.append_entries_result = &m;
    rig_receive(g, from, &f);
}

void rig_timeout_now(struct rig *g, uint64_t from, uint64_t term, uint64_t index, uint64_t iterm)
{
    Hf__PeerFrame f = HF__PEER_FRAME__INIT;
    Hf__TimeoutNow m = HF__TIMEOUT_NOW__INIT;
    m.term = term;
    m.last_log_index = index;
    m.last_log_term = iterm;
    f.body_case = HF__PEER_FRAME__BODY_TIMEOUT_NOW;
    f.timeout_now = &m;
    rig_receive(g, from, &f);
}

Hf__Entry rig_entry(uint64_t term)
{
    Hf__Entry e = HF__ENTRY__INIT;
    e.term = term;
    e.type = RAFT_COMMAND;
    e.data.data = tick_entry(&e.data.len);
    return e;
}

Hf__Entry rig_change(uint64_t term, struct bytes conf)
{
    Hf__Entry e = HF__ENTRY__INIT;
    e.term = term;
    e.type = RAFT_CHANGE;
    e.data = pack_binary(conf);
    return e;
}

bool rig_image(struct rig *g, uint64_t from, uint64_t term, uint64_t index, uint64_t iterm)
{
    struct bytes conf = rig_configuration(3, 0);
    struct replica_image image = {index, iterm, 1, conf};
    bool taken = replica_receive_image(g->r, g->now_ns, from, term, &image);
    free((void *)(uintptr_t)conf.data);
    return taken;
}

/* ---- Leading ----------------------------------------------------------------------------- */

void rig_elect(struct rig *g)
{
    unsigned voters = replica_voters(g->r);
    for (unsigned i = 0; i < 1000 && replica_view(g->r).state != RAFT_CANDIDATE; i++)
        rig_pass(g, 1);
    assert_int_equal(replica_view(g->r).state, RAFT_CANDIDATE);
    uint64_t term = replica_view(g->r).term;
    for (unsigned id = 2; id <= voters; id++)
        rig_vote_result(g, id, term + 1, true, /* pre_vote= */ true);
    for (unsigned id = 2; id <= voters; id++)
        rig_vote_result(g, id, term + 1, true, /* pre_vote= */ false);
    assert_int_equal(replica_view(g->r).state, RAFT_LEADER);
}

void rig_ack_all(struct rig *g, uint64_t from)
{
    struct replica_view v = replica_view(g->r);
    rig_append_result(g, from, v.term, 0, v.last_index);
}

void rig_ready(struct rig *g)
{
    rig_elect(g);
    (void)rig_flush(g);
    rig_ack_all(g, 2);
    (void)rig_flush(g);
    rig_ack_all(g, 2);
    assert_true(replica_view(g->r).ready);
}
