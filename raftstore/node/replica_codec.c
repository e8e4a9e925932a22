#include "raftstore/node/replica_impl.h"
#include "raftstore/wire/frame.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Message versions of libraft 0.22 (its results know pre-votes from version 2 on). */
#define VERSION_REQUEST_VOTE        2
#define VERSION_REQUEST_VOTE_RESULT 2
#define VERSION_APPEND_ENTRIES      0
#define VERSION_APPEND_RESULT       2
#define VERSION_INSTALL_SNAPSHOT    0
#define VERSION_TIMEOUT_NOW         0

/* ---- Configurations ---------------------------------------------------------------------- */

/* The core decodes configurations without looking at the length, so they are checked here first:
 * a byte 1, the number of servers, and for each id, address with its NUL, role; padded to 8. */
bool codec_configuration_valid(struct bytes encoded)
{
    const uint8_t *p = encoded.data;
    const uint8_t *end = p + encoded.size;
    uint64_t n, id;
    if (encoded.size < 9 || encoded.size % 8 != 0 || *p++ != 1)
        return false;
    memcpy(&n, p, 8);
    n = le64toh(n);
    p += 8;
    if (n == 0 || n > REPLICA_MEMBERS_MAX)
        return false;
    for (uint64_t i = 0; i < n; i++) {
        if ((size_t)(end - p) < 8)
            return false;
        memcpy(&id, p, 8);
        p += 8;
        const uint8_t *nul = memchr(p, 0, (size_t)(end - p));
        if (id == 0 || nul == NULL || nul - p > (ptrdiff_t)REPLICA_ADDRESS_MAX || end - nul < 2)
            return false;
        p = nul + 1;
        if (*p++ > RAFT_SPARE)
            return false;
    }
    return end - p < 8;
}

int codec_configuration_decode(struct bytes encoded, struct raft_configuration *ret)
{
    struct raft_buffer buf = {.base = (void *)(uintptr_t)encoded.data, .len = encoded.size};
    if (!codec_configuration_valid(encoded))
        return -EINVAL;
    return raft_configuration_decode(&buf, ret) == 0 ? 0 : -EINVAL; /* Duplicates. */
}

void codec_configuration_encode(const struct raft_configuration *c, struct buf *ret)
{
    struct raft_buffer encoded;
    ret->size = 0;
    if (c->n == 0 || raft_configuration_encode(c, &encoded) != 0)
        return;
    buf_add(ret, encoded.base, encoded.len);
    raft_free(encoded.base);
}

/* ---- Receiving --------------------------------------------------------------------------- */

static bool position_valid(uint64_t index, uint64_t term)
{
    return index <= REPLICA_INDEX_MAX && term <= REPLICA_INDEX_MAX && (index == 0) == (term == 0);
}

static bool parse_entry(const Hf__Entry *e, uint64_t term_min, uint64_t term_max)
{
    if (e->term < term_min || e->term > term_max || e->data.len > ENTRY_BYTES_LIMIT)
        return false;
    switch (e->type) {
    case RAFT_COMMAND:
    case RAFT_BARRIER:
        return true;
    case RAFT_CHANGE: {
        struct raft_configuration c;
        if (codec_configuration_decode(pack_bytes(e->data), &c) != 0)
            return false;
        raft_configuration_close(&c);
        return true;
    }
    default:
        return false;
    }
}

static bool parse_append(struct replica *r,
                         const Hf__AppendEntries *in,
                         struct raft_append_entries *out,
                         const char **ret_why)
{
    uint64_t term = in->prev_log_term == 0 ? 1 : in->prev_log_term;
    *ret_why = "position";
    if (!position_valid(in->prev_log_index, in->prev_log_term) || in->prev_log_term > in->term ||
        in->leader_commit > REPLICA_INDEX_MAX)
        return false;
    *ret_why = "number of entries";
    if (in->n_entries > REPLICA_BATCH_MAX)
        return false;
    if (in->n_entries > r->n_rx_alloc) {
        r->n_rx_alloc = in->n_entries;
        r->rx_entries = xrealloc(r->rx_entries, r->n_rx_alloc * sizeof *r->rx_entries);
    }
    *ret_why = "entry";
    for (size_t i = 0; i < in->n_entries; i++) {
        const Hf__Entry *e = in->entries[i];
        if (!parse_entry(e, term, in->term))
            return false;
        term = e->term;
        r->rx_entries[i] = (struct raft_entry){
            .term = e->term,
            .type = (enum raft_entry_type)e->type,
            .buf = {.base = e->data.data, .len = e->data.len},
        };
    }
    *out = (struct raft_append_entries){
        .version = VERSION_APPEND_ENTRIES,
        .term = in->term,
        .prev_log_index = in->prev_log_index,
        .prev_log_term = in->prev_log_term,
        .leader_commit = in->leader_commit,
        .entries = r->rx_entries,
        .n_entries = (unsigned)in->n_entries,
    };
    return true;
}

static bool parse_vote(uint64_t from,
                       const Hf__RequestVote *in,
                       struct raft_request_vote *out,
                       const char **ret_why)
{
    *ret_why = "candidate is not the sender";
    if (in->candidate_id != from)
        return false;
    *ret_why = "position";
    if (!position_valid(in->last_log_index, in->last_log_term) || in->last_log_term > in->term)
        return false;
    *out = (struct raft_request_vote){
        .version = VERSION_REQUEST_VOTE,
        .term = in->term,
        .candidate_id = in->candidate_id,
        .last_log_index = in->last_log_index,
        .last_log_term = in->last_log_term,
        .disrupt_leader = in->disrupt_leader,
        .pre_vote = in->pre_vote,
    };
    return true;
}

static bool parse_append_result(const Hf__AppendEntriesResult *in,
                                struct raft_append_entries_result *out,
                                const char **ret_why)
{
    *ret_why = "index";
    if (in->rejected > REPLICA_INDEX_MAX || in->last_log_index > REPLICA_INDEX_MAX)
        return false;
    *out = (struct raft_append_entries_result){
        .version = VERSION_APPEND_RESULT,
        .term = in->term,
        .rejected = in->rejected,
        .last_log_index = in->last_log_index,
    };
    return true;
}

static bool
parse_timeout_now(const Hf__TimeoutNow *in, struct raft_timeout_now *out, const char **ret_why)
{
    *ret_why = "position";
    if (!position_valid(in->last_log_index, in->last_log_term) || in->last_log_term > in->term)
        return false;
    *out = (struct raft_timeout_now){
        .version = VERSION_TIMEOUT_NOW,
        .term = in->term,
        .last_log_index = in->last_log_index,
        .last_log_term = in->last_log_term,
    };
    return true;
}

static bool parse_body(struct replica *r,
                       uint64_t from,
                       const Hf__PeerFrame *frame,
                       struct raft_message *m,
                       uint64_t *ret_term,
                       const char **ret_why)
{
    switch (frame->body_case) {
    case HF__PEER_FRAME__BODY_REQUEST_VOTE:
        m->type = RAFT_REQUEST_VOTE;
        *ret_term = frame->request_vote->term;
        return parse_vote(from, frame->request_vote, &m->request_vote, ret_why);
    case HF__PEER_FRAME__BODY_REQUEST_VOTE_RESULT:
        m->type = RAFT_REQUEST_VOTE_RESULT;
        *ret_term = frame->request_vote_result->term;
        m->request_vote_result = (struct raft_request_vote_result){
            .version = VERSION_REQUEST_VOTE_RESULT,
            .term = *ret_term,
            .vote_granted = frame->request_vote_result->vote_granted,
            .pre_vote = frame->request_vote_result->pre_vote,
        };
        return true;
    case HF__PEER_FRAME__BODY_APPEND_ENTRIES:
        m->type = RAFT_APPEND_ENTRIES;
        *ret_term = frame->append_entries->term;
        return parse_append(r, frame->append_entries, &m->append_entries, ret_why);
    case HF__PEER_FRAME__BODY_APPEND_ENTRIES_RESULT:
        m->type = RAFT_APPEND_ENTRIES_RESULT;
        *ret_term = frame->append_entries_result->term;
        return parse_append_result(frame->append_entries_result, &m->append_entries_result,
                                   ret_why);
    case HF__PEER_FRAME__BODY_TIMEOUT_NOW:
        m->type = RAFT_TIMEOUT_NOW;
        *ret_term = frame->timeout_now->term;
        return parse_timeout_now(frame->timeout_now, &m->timeout_now, ret_why);
    default:
        *ret_why = "type";
        return false;
    }
}

const char *codec_address(struct replica *r, uint64_t id)
{
    const struct raft_server *server = replica_member(r, id);
    const char *address = server != NULL ? server->address : "?";
    size_t size = strnlen(address, REPLICA_ADDRESS_MAX);
    memcpy(r->rx_address, address, size);
    r->rx_address[size] = '\0';
    return r->rx_address;
}

bool codec_term_valid(const struct replica *r, uint64_t term)
{
    uint64_t own = r->core.current_term;
    return term >= 1 && term <= REPLICA_INDEX_MAX &&
           (own == 0 || term <= own || term - own <= REPLICA_TERM_JUMP ||
            !replica_rule(r, RULE_TERM_JUMP));
}

bool codec_parse(struct replica *r,
                 uint64_t from,
                 const Hf__PeerFrame *frame,
                 struct raft_message *ret,
                 const char **ret_why)
{
    uint64_t term = 0;
    *ret = (struct raft_message){
        .server_id = from,
        .server_address = codec_address(r, from),
    };
    if (!parse_body(r, from, frame, ret, &term, ret_why))
        return false;
    *ret_why = "term";
    return codec_term_valid(r, term);
}

/* ---- Sending ----------------------------------------------------------------------------- */

static void tx_reserve(struct replica *r, size_t n)
{
    if (n <= r->n_tx_alloc)
        return;
    r->n_tx_alloc = n;
    r->tx_entries = xrealloc(r->tx_entries, n * sizeof *r->tx_entries);
    r->tx_pointers = xrealloc(r->tx_pointers, n * sizeof *r->tx_pointers);
}

/* Send entries [prev + 1, last] as one frame, or fewer when they are large.
 *
 * Return: index of the last one sent; prev when the log does not have them. */
static uint64_t
send_append_frame(struct replica *r, uint64_t to, Hf__AppendEntries *m, uint64_t last)
{
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    size_t bytes = 0;
    m->n_entries = 0;
    tx_reserve(r, (size_t)(last - m->prev_log_index));
    for (uint64_t i = m->prev_log_index + 1; i <= last && bytes < REPLICA_FRAME_BYTES; i++) {
        const struct log_entry *e = log_get(&r->log, i);
        if (e == NULL)
            break;
        Hf__Entry *out = &r->tx_entries[m->n_entries];
        hf__entry__init(out);
        out->term = e->term;
        out->type = e->type;
        out->data = pack_binary(e->data);
        r->tx_pointers[m->n_entries++] = out;
        bytes += e->data.size;
    }
    m->entries = r->tx_pointers;
    frame.body_case = HF__PEER_FRAME__BODY_APPEND_ENTRIES;
    frame.append_entries = m;
    outbox_send(r, to, &frame);
    return m->prev_log_index + m->n_entries;
}

static void send_append(struct replica *r, uint64_t to, const struct raft_append_entries *in)
{
    Hf__AppendEntries m = HF__APPEND_ENTRIES__INIT;
    uint64_t last = in->prev_log_index + in->n_entries;
    struct peer *peer = replica_peer(r, to);
    m.term = in->term;
    m.prev_log_index = in->prev_log_index;
    m.prev_log_term = in->prev_log_term;
    m.leader_commit = in->leader_commit;
    if (peer != NULL)
        peer->commit_sent = in->leader_commit;
    for (;;) {
        uint64_t sent = send_append_frame(r, to, &m, last);
        if (sent >= last)
            return;
        const struct log_entry *e = log_get(&r->log, sent);
        if (sent == m.prev_log_index || e == NULL)
            return;
        m.prev_log_index = sent;
        m.prev_log_term = e->term;
    }
}

static void send_vote(struct replica *r, uint64_t to, const struct raft_request_vote *in)
{
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    Hf__RequestVote m = HF__REQUEST_VOTE__INIT;
    m.term = in->term;
    m.candidate_id = in->candidate_id;
    m.last_log_index = in->last_log_index;
    m.last_log_term = in->last_log_term;
    m.disrupt_leader = in->disrupt_leader;
    m.pre_vote = in->pre_vote;
    frame.body_case = HF__PEER_FRAME__BODY_REQUEST_VOTE;
    frame.request_vote = &m;
    outbox_send(r, to, &frame);
}

static void
send_vote_result(struct replica *r, uint64_t to, const struct raft_request_vote_result *in)
{
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    Hf__RequestVoteResult m = HF__REQUEST_VOTE_RESULT__INIT;
    m.term = in->term;
    /* libraft echoes the candidate's term in the denial of a pre-vote.  One whose log we need, but
     * whose term is behind ours, would never learn ours, and nobody could be elected.  It is told
     * in steps that it takes; its term is one below that of its request. */
    if (in->pre_vote && !in->vote_granted && in->term < r->core.current_term) {
        uint64_t step = in->term - 1 + REPLICA_TERM_JUMP;
        m.term = r->core.current_term < step ? r->core.current_term : step;
    }
    m.vote_granted = in->vote_granted;
    m.pre_vote = in->pre_vote;
    frame.body_case = HF__PEER_FRAME__BODY_REQUEST_VOTE_RESULT;
    frame.request_vote_result = &m;
    outbox_send(r, to, &frame);
}

static void
send_append_result(struct replica *r, uint64_t to, const struct raft_append_entries_result *in)
{
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    Hf__AppendEntriesResult m = HF__APPEND_ENTRIES_RESULT__INIT;
    m.term = in->term;
    m.rejected = in->rejected;
    m.last_log_index = in->last_log_index;
    frame.body_case = HF__PEER_FRAME__BODY_APPEND_ENTRIES_RESULT;
    frame.append_entries_result = &m;
    outbox_send(r, to, &frame);
}

static void send_timeout_now(struct replica *r, uint64_t to, const struct raft_timeout_now *in)
{
    Hf__PeerFrame frame = HF__PEER_FRAME__INIT;
    Hf__TimeoutNow m = HF__TIMEOUT_NOW__INIT;
    m.term = in->term;
    m.last_log_index = in->last_log_index;
    m.last_log_term = in->last_log_term;
    frame.body_case = HF__PEER_FRAME__BODY_TIMEOUT_NOW;
    frame.timeout_now = &m;
    outbox_send(r, to, &frame);
}

void codec_send(struct replica *r, const struct raft_message *m)
{
    switch (m->type) {
    case RAFT_APPEND_ENTRIES:
        send_append(r, m->server_id, &m->append_entries);
        break;
    case RAFT_APPEND_ENTRIES_RESULT:
        send_append_result(r, m->server_id, &m->append_entries_result);
        break;
    case RAFT_REQUEST_VOTE:
        send_vote(r, m->server_id, &m->request_vote);
        break;
    case RAFT_REQUEST_VOTE_RESULT:
        send_vote_result(r, m->server_id, &m->request_vote_result);
        break;
    case RAFT_INSTALL_SNAPSHOT:
        image_send(r, m);
        break;
    case RAFT_TIMEOUT_NOW:
        send_timeout_now(r, m->server_id, &m->timeout_now);
        break;
    }
}
