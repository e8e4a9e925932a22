/* Texts for which the cluster is asked.
 *
 * `sessions` needs a majority, as every read does.  `status` asks the node that we are connected to
 * about itself, and `members` the leader; what does not come within QUICK_MS, or would not come
 * because nobody leads, is told from what the mount knows. */
#include "fs/control_internal.h"

#include "fs/errno_table.h"
#include "fs/locker.h"
#include "fs/op.h"
#include "raftstore/base/fields.h"
#include "raftstore/wire/pack.h"

#include <stdlib.h>
#include <unistd.h>

#define QUICK_MS  500u
#define PAGE_MAX  1024u /* Sessions asked for at once. */
#define NODES_MAX 64u   /* Nodes that the mount knows of itself. */

struct asking {
    struct op op;
    struct control_handle *handle; /* With a reference. */
    size_t size;
    off_t off;
    struct buf text;
};

/* Answer the read from the text, or with a positive errno. */
static void asking_done(struct asking *a, int error)
{
    struct control_handle *h = a->handle;
    fuse_req_t request = op_take(&a->op);
    if (request != NULL && error != 0) {
        (void)fuse_reply_err(request, error);
    } else if (request != NULL) {
        struct buf old = h->text;
        h->text = a->text;
        a->text = old;
        h->has_text = true;
        control_reply_text(request, &h->text, a->size, a->off);
    }
    control_handle_unref(h);
    buf_deinit(&a->text);
    free(a);
}

/* Return: 0; positive errno: `cb` does not come. */
static int
ask(struct asking *a, const Hf__Query *query, bool quick, bool on_leader, client_reply_cb cb)
{
    struct fs *fs = a->op.fs;
    uint64_t ms = op_timeout_ms(&a->op);
    if (fs->failed)
        return EIO;
    if (quick && ms > QUICK_MS)
        ms = QUICK_MS;
    return errno_of_status(client_query(fs->client, query, ms, on_leader, cb, a));
}

/* ---- status ----------------------------------------------------------------------------- */

static void line_text(struct buf *out, const char *key, const char *value)
{
    field_text(out, key, value);
    field_end(out);
}

static void line_u64(struct buf *out, const char *key, uint64_t value)
{
    field_u64(out, key, value);
    field_end(out);
}

static void add_connection(const struct control *c,
                           const struct client_info *info,
                           const Hf__Status *status,
                           struct buf *out)
{
    line_text(out, "connected", info->connected ? "yes" : "no");
    line_u64(out, "node", info->node_id);
    line_text(out, "address", info->address);
    if (!info->connected)
        line_text(out, "error", info->error);
    line_text(out, "node_answers", status != NULL ? "yes" : "no");
    line_u64(out, "leader", status != NULL ? status->leader_id : info->leader_id);
    line_u64(out, "term", c->term);
    line_u64(out, "index", c->index);
}

static void add_session(const struct client_info *info, struct buf *out)
{
    uint64_t now = clock_boot_ns(clock_system());
    uint64_t heard = info->session_acked_boot_ns;
    line_u64(out, "session", info->session_id);
    line_text(out, "session_state", control_session_states[control_session_state(info)]);
    line_u64(out, "session_ttl_ms", info->session_ttl_ms);
    line_u64(out, "session_remaining_ms",
             control_left_ns(info->session_deadline_boot_ns) / NS_PER_MS);
    if (info->session_id != 0)
        line_u64(out, "session_kept_ms_ago", now > heard ? (now - heard) / NS_PER_MS : 0);
    line_text(out, "jeopardy", info->jeopardy ? "yes" : "no");
}

/* @status: of the node; NULL: it has not answered. */
static void status_text(struct control *c, const Hf__Status *status, struct buf *out)
{
    struct fs *fs = c->fs;
    struct client_info info = client_info(fs->client);
    struct control_counts n = control_count(fs);
    if (status != NULL) {
        c->term = status->term;
        c->index = status->applied_index;
    }
    line_text(out, "source", fs->options->source);
    line_text(out, "mount", fs->dir);
    line_text(out, "host", fs->namer.host);
    line_text(out, "version", HOLDFAST_VERSION);
    line_u64(out, "pid", (uint64_t)getpid());
    line_u64(out, "uptime_ms", (clock_boot_ns(clock_system()) - c->begin_boot_ns) / NS_PER_MS);
    add_connection(c, &info, status, out);
    add_session(&info, out);
    line_u64(out, "holds", n.leases + n.locks[LOCKER_FLOCK] + n.locks[LOCKER_FCNTL]);
    line_u64(out, "leases", n.leases);
    line_u64(out, "flock", n.locks[LOCKER_FLOCK]);
    line_u64(out, "fcntl", n.locks[LOCKER_FCNTL]);
    line_u64(out, "waiters", n.waiting);
    line_u64(out, "commands_pending", info.n_pending);
}

static void on_status(void *arg, const struct client_reply *reply)
{
    struct asking *a = arg;
    const Hf__Status *status = reply->status == 0 ? reply->query->status : NULL;
    status_text(a->handle->control, status, &a->text);
    asking_done(a, 0);
}

static void ask_status(struct asking *a)
{
    Hf__Query query = HF__QUERY__INIT;
    query.what = HF__QUERY__WHAT__STATUS;
    if (client_info(a->op.fs->client).connected && ask(a, &query, true, false, on_status) == 0)
        return;
    status_text(a->handle->control, NULL, &a->text);
    asking_done(a, 0);
}

/* ---- members ---------------------------------------------------------------------------- */

static void member_line(const Hf__Member *m, uint64_t leader_id, struct buf *out)
{
    static const char *const roles[] = {"standby", "voter", "spare"};
    unsigned role = (unsigned)m->role;
    field_u64(out, "member", m->node_id);
    field_text(out, "role", role < sizeof roles / sizeof roles[0] ? roles[role] : "unknown");
    field_bool(out, "leader", m->node_id == leader_id);
    field_text(out, "raft", m->raft_address);
    field_text(out, "client", m->client_address);
    field_u64(out, "match_index", m->match_index);
    field_u64(out, "silent_ms", m->silent_ms);
    field_text(out, "from", "cluster");
    field_end(out);
}

/* What the mount itself has heard of. */
static void members_known(struct client *client, struct buf *out)
{
    struct client_node *nodes = xcalloc(NODES_MAX, sizeof *nodes);
    uint64_t leader_id = client_info(client).leader_id;
    unsigned n = client_nodes(client, nodes, NODES_MAX);
    for (unsigned i = 0; i < n; i++) {
        field_u64(out, "member", nodes[i].node_id);
        field_bool(out, "leader", nodes[i].node_id != 0 && nodes[i].node_id == leader_id);
        field_text(out, "client", nodes[i].address);
        field_bool(out, "connected", nodes[i].connected);
        field_text(out, "from", "mount");
        field_end(out);
    }
    free(nodes);
}

static void on_members(void *arg, const struct client_reply *reply)
{
    struct asking *a = arg;
    struct client *client = a->op.fs->client;
    uint64_t leader_id = client_info(client).leader_id;
    for (size_t i = 0; reply->status == 0 && i < reply->query->n_members; i++)
        member_line(reply->query->members[i], leader_id, &a->text);
    if (a->text.size == 0)
        members_known(client, &a->text);
    asking_done(a, 0);
}

static void ask_members(struct asking *a)
{
    struct client *client = a->op.fs->client;
    Hf__Query query = HF__QUERY__INIT;
    query.what = HF__QUERY__WHAT__MEMBERS;
    if (client_in_touch(client) && ask(a, &query, true, true, on_members) == 0)
        return;
    members_known(client, &a->text);
    asking_done(a, 0);
}

/* ---- sessions --------------------------------------------------------------------------- */

static void ask_sessions(struct asking *a, uint64_t after);

static void session_line(const Hf__Session *s, uint64_t own_id, struct buf *out)
{
    field_u64(out, "session", s->session_id);
    field_bytes(out, "host", pack_bytes(s->host));
    field_bool(out, "own", s->session_id == own_id);
    field_u64(out, "ttl_ms", s->ttl_ms);
    field_u64(out, "remaining_ms", s->remaining_ms);
    field_time(out, "opened", s->opened_wall_ms);
    field_bool(out, "lapsed", s->lapsed);
    field_u64(out, "holds", s->n_holds);
    field_u64(out, "waiters", s->n_waiters);
    field_end(out);
}

static void on_sessions(void *arg, const struct client_reply *reply)
{
    struct asking *a = arg;
    int error = errno_of_status(reply->status);
    if (error != 0 || !op_waiting(&a->op)) {
        asking_done(a, error);
        return;
    }
    const Hf__QueryReply *page = reply->query;
    uint64_t own_id = client_info(a->op.fs->client).session_id;
    for (size_t i = 0; i < page->n_sessions; i++)
        session_line(page->sessions[i], own_id, &a->text);
    if (page->more && page->n_sessions > 0)
        ask_sessions(a, page->sessions[page->n_sessions - 1]->session_id);
    else
        asking_done(a, 0);
}

/* One page after the other. */
static void ask_sessions(struct asking *a, uint64_t after)
{
    Hf__Query query = HF__QUERY__INIT;
    query.what = HF__QUERY__WHAT__SESSIONS;
    query.session_id = after;
    query.limit = PAGE_MAX;
    int error = ask(a, &query, false, false, on_sessions);
    if (error != 0)
        asking_done(a, error);
}

void control_ask(fuse_req_t req, struct control_handle *h, size_t size, off_t off)
{
    struct asking *a = xcalloc(1, sizeof *a);
    a->handle = h;
    h->n_refs++;
    a->size = size;
    a->off = off;
    op_init(&a->op, req, NULL);
    if (h->file == CONTROL_STATUS)
        ask_status(a);
    else if (h->file == CONTROL_MEMBERS)
        ask_members(a);
    else
        ask_sessions(a, 0);
}
