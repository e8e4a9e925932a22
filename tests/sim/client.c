/* Clients: sessions, leases, waits, renewals and reads, with retries, and own deadlines computed
 * as client/client.h says. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <string.h>

#define RETRY_NS (250 * MS)

uint64_t client_clock_ns(const struct world *w, const struct client *c)
{
    return clock_local_ns(w->now_ns, c->drift_ppm, c->offset_ns);
}

/* Each mount has MOUNT_PROCESSES clients in a row. */
static void client_start_mount(struct client *c, struct world *w)
{
    c->mount = mount_new(w, c->number, PATHS);
    for (unsigned i = 1; i < MOUNT_PROCESSES; i++) {
        c[i].mount = c->mount;
        c[i].process = i;
    }
}

void client_start(struct client *c, struct world *w, unsigned kinds)
{
    if (kinds == 2 && c->mount == NULL && c->number + MOUNT_PROCESSES <= w->n_clients &&
        world_chance(w, 500))
        client_start_mount(c, w);
    else if (kinds >= 1 && c->mount == NULL && world_chance(w, 600))
        c->app = app_new(w, c->number, PATHS);
    c->drift_ppm = (int64_t)world_below(w, 6001) - 3000;
    c->offset_ns = world_below(w, 1000000) * MS;
    c->guess = (unsigned)world_below(w, w->n_nodes);
    world_event(w, EVENT_CLIENT, c->number, world_between(w, 500 * MS, 1500 * MS));
}

void client_stop(struct client *c)
{
    if (c->app != NULL)
        app_stop(c->app);
    if (c->mount != NULL && c->process == 0)
        mount_stop(c->mount);
}

void client_free(struct client *c)
{
    if (c->app != NULL)
        app_free(c->app);
    if (c->mount != NULL && c->process == 0)
        mount_free(c->mount);
    for (unsigned i = 0; i < SLOTS; i++)
        buf_deinit(&c->requests[i].packed);
}

/* ---- Own deadlines ----------------------------------------------------------------------- */

/* L + (D - stamp), less what clocks may drift meanwhile. */
static uint64_t deadline_from(uint64_t sent_ns, uint64_t stamp_ns, uint64_t deadline_ns)
{
    uint64_t span = deadline_ns > stamp_ns ? deadline_ns - stamp_ns : 0;
    uint64_t allowance = span / 128 + 5 * MS;
    return span > allowance ? sent_ns + span - allowance : sent_ns;
}

static uint64_t deadline_local(const struct client *c, uint64_t deadline_ns)
{
    return deadline_from(c->pair_sent_ns, c->pair_stamp_ns, deadline_ns);
}

static void pair_learn(struct client *c, const struct request *q, const struct lock_result *result)
{
    if (result->repeated || result->stamp_ns == 0 || q->first_ns < c->pair_sent_ns)
        return;
    c->pair_sent_ns = q->first_ns;
    c->pair_stamp_ns = result->stamp_ns;
}

/* ---- Requests ---------------------------------------------------------------------------- */

static void request_transmit(struct world *w, struct client *c, enum slot slot, bool again_soon)
{
    struct request *q = &c->requests[slot];
    struct event *e;
    q->attempts++;
    if (!world_chance(w, w->healed ? 0 : 20)) {
        e = world_event(w, EVENT_REQUEST, c->guess, world_between(w, MS / 10, MS));
        e->a = q->serial;
        e->b = c->number;
        buf_add(&e->bytes, q->packed.data, q->packed.size);
    }
    e = world_event(w, EVENT_CLIENT_RETRY, c->number, again_soon ? 60 * MS : RETRY_NS);
    e->a = slot;
    q->retry_order = e->order;
}

static struct request *request_begin(struct world *w, struct client *c, enum slot slot)
{
    struct request *q = &c->requests[slot];
    struct buf packed = q->packed;
    packed.size = 0;
    *q = (struct request){.active = true, .packed = packed, .serial = ++c->serial};
    q->first_ns = client_clock_ns(w, c);
    return q;
}

static uint64_t ack_seq(const struct client *c)
{
    uint64_t seq = c->seq;
    for (unsigned i = 0; i < SLOTS; i++) {
        if (c->requests[i].active && c->requests[i].seq != 0 && c->requests[i].seq <= seq)
            seq = c->requests[i].seq - 1;
    }
    return seq;
}

static void
request_command(struct world *w, struct client *c, enum slot slot, Hf__Command *m, unsigned path)
{
    uint64_t acknowledged = ack_seq(c);
    struct request *q = request_begin(w, c, slot);
    q->op = m->op;
    q->path = path;
    q->mode = (enum lock_mode)m->mode;
    q->limit = m->limit;
    q->ttl_ms = m->ttl_ms;
    if (m->op != LOCK_OP_SESSION_OPEN) {
        q->seq = ++c->seq;
        m->session_id = c->session_id;
        m->seq = q->seq;
        m->ack_seq = acknowledged;
    }
    pack_add(&q->packed, &m->base);
    request_transmit(w, c, slot, false);
}

static void ask_session(struct world *w, struct client *c)
{
    Hf__Command m = HF__COMMAND__INIT;
    m.op = LOCK_OP_SESSION_OPEN;
    m.ttl_ms = world_between(w, 800, 3000);
    request_command(w, c, SLOT_OP, &m, 0);
}

static void ask_keepalive(struct world *w, struct client *c)
{
    Hf__Command m = HF__COMMAND__INIT;
    m.op = LOCK_OP_SESSION_KEEPALIVE;
    request_command(w, c, SLOT_KEEPALIVE, &m, 0);
}

static void path_name(unsigned path, char *out, size_t size)
{
    snprintf(out, size, "job%u", path);
}

static void ask_acquire(struct world *w, struct client *c, unsigned path)
{
    Hf__Command m = HF__COMMAND__INIT;
    char name[16], owner[48];
    path_name(path, name, sizeof name);
    snprintf(owner, sizeof owner, "c%u-%llu", c->number, (unsigned long long)c->serial);
    ProtobufCBinaryData paths[1] = {{strlen(name), (uint8_t *)name}};
    m.op = LOCK_OP_ACQUIRE;
    m.n_paths = 1;
    m.paths = paths;
    m.owner = (ProtobufCBinaryData){strlen(owner), (uint8_t *)owner};
    m.mode = world_chance(w, 200) ? LOCK_SHARED : LOCK_EXCLUSIVE;
    /* Semaphores on some of the paths; seldom of another size than the others'. */
    if (m.mode == LOCK_EXCLUSIVE && path % 2 == 1 && world_chance(w, 800))
        m.limit = world_chance(w, 850) ? 1 + path : 1 + (uint32_t)world_below(w, 4);
    m.ttl_ms = world_chance(w, 700) ? world_between(w, 100, 1500) : 0;
    m.wait_ms = world_chance(w, 600) ? world_between(w, 200, 2500) : 0;
    request_command(w, c, SLOT_OP, &m, path);
}

static void ask_on_hold(struct world *w, struct client *c, unsigned path, uint32_t op)
{
    Hf__Command m = HF__COMMAND__INIT;
    char name[16];
    path_name(path, name, sizeof name);
    ProtobufCBinaryData paths[1] = {{strlen(name), (uint8_t *)name}};
    m.op = op;
    m.n_paths = 1;
    m.paths = paths;
    m.token = c->beliefs[path].token;
    if (op == LOCK_OP_RELEASE)
        c->beliefs[path].token = 0; /* Before it is sent: we don't rely on it any more. */
    request_command(w, c, SLOT_OP, &m, path);
}

/* Until it is decided the hold may stand under either name, and is relied on under none. */
static void ask_rename(struct world *w, struct client *c, unsigned from, unsigned to)
{
    Hf__Command m = HF__COMMAND__INIT;
    char names[2][16];
    struct belief moving = c->beliefs[from];
    path_name(from, names[0], sizeof names[0]);
    path_name(to, names[1], sizeof names[1]);
    ProtobufCBinaryData paths[2] = {{strlen(names[0]), (uint8_t *)names[0]},
                                    {strlen(names[1]), (uint8_t *)names[1]}};
    m.op = LOCK_OP_RENAME;
    m.flags = world_chance(w, 500) ? LOCK_F_ANYWHERE : 0;
    m.n_paths = 2;
    m.paths = paths;
    m.token = moving.token;
    c->beliefs[from].token = 0;
    request_command(w, c, SLOT_OP, &m, from);
    c->requests[SLOT_OP].to = to;
    c->requests[SLOT_OP].moving = moving;
}

static void ask_read(struct world *w, struct client *c)
{
    struct request *q = request_begin(w, c, SLOT_READ);
    unsigned guess = c->guess;
    q->op = 0;
    c->guess = (unsigned)world_below(w, w->n_nodes); /* Any node serves reads. */
    request_transmit(w, c, SLOT_READ, false);
    c->guess = guess;
}

/* ---- Thinking ---------------------------------------------------------------------------- */

static void session_forget(struct client *c)
{
    c->session_id = 0;
    for (unsigned i = 0; i < PATHS; i++) {
        if (c->beliefs[i].session_bound)
            c->beliefs[i].token = 0;
    }
    c->requests[SLOT_OP].active = false;
    c->requests[SLOT_KEEPALIVE].active = false;
}

static void beliefs_expire(const struct world *w, struct client *c)
{
    uint64_t now_ns = client_clock_ns(w, c);
    for (unsigned i = 0; i < PATHS; i++) {
        struct belief *b = &c->beliefs[i];
        if (b->token != 0 && !b->session_bound && now_ns >= b->deadline_ns)
            b->token = 0;
    }
}

static void client_act(struct world *w, struct client *c)
{
    unsigned path = (unsigned)world_below(w, PATHS), to = (unsigned)world_below(w, PATHS);
    struct belief *b = &c->beliefs[path];
    if (b->token == 0)
        ask_acquire(w, c, path);
    else if (c->beliefs[to].token == 0 && world_chance(w, 300))
        ask_rename(w, c, path, to);
    else if (world_chance(w, 500) && !b->session_bound)
        ask_on_hold(w, c, path, LOCK_OP_RENEW);
    else
        ask_on_hold(w, c, path, LOCK_OP_RELEASE);
}

/* In the end everything is given back, so that whoever waits must get it. */
static void client_give_back(struct world *w, struct client *c)
{
    for (unsigned i = 0; i < PATHS; i++) {
        if (c->beliefs[i].token == 0)
            continue;
        ask_on_hold(w, c, i, LOCK_OP_RELEASE);
        return;
    }
}

void client_think(struct world *w, struct client *c)
{
    uint64_t now_ns = client_clock_ns(w, c);
    world_event(w, EVENT_CLIENT, c->number, world_between(w, 5 * MS, 120 * MS));
    if (c->mount != NULL) {
        if (mount_asleep_ns(c->mount) <= w->now_ns)
            mount_think(c->mount, c->process);
        return;
    }
    if (c->app != NULL) {
        if (app_asleep_ns(c->app) <= w->now_ns)
            app_think(c->app);
        return;
    }
    beliefs_expire(w, c);
    if (c->session_id != 0 && now_ns >= c->session_deadline_ns)
        session_forget(c);
    if (!c->requests[SLOT_READ].active && world_chance(w, 500))
        ask_read(w, c);
    if (c->session_id == 0) {
        if (!c->requests[SLOT_OP].active)
            ask_session(w, c);
        return;
    }
    if (!c->requests[SLOT_KEEPALIVE].active && now_ns >= c->keepalive_at_ns)
        ask_keepalive(w, c);
    bool quiet = w->healed && w->now_ns > w->heal_ns + QUIET_NS;
    if (!c->requests[SLOT_OP].active && quiet)
        client_give_back(w, c);
    else if (!c->requests[SLOT_OP].active && world_chance(w, 700))
        client_act(w, c);
}

void client_retry(struct world *w, struct client *c, const struct event *e)
{
    struct request *q = &c->requests[e->a];
    unsigned guess = c->guess;
    if (!q->active || q->retry_order != e->order)
        return;
    if (e->a == SLOT_READ) { /* Given up: the next one is a new read. */
        q->active = false;
        return;
    }
    if (q->attempts > 1 || world_chance(w, 500))
        c->guess = (unsigned)world_below(w, w->n_nodes);
    request_transmit(w, c, (enum slot)e->a, false);
    if (world_chance(w, 300))
        c->guess = guess;
}

/* ---- Answers ----------------------------------------------------------------------------- */

static void reply_session(struct world *w, struct client *c, const struct lock_result *r)
{
    struct request *q = &c->requests[SLOT_OP];
    c->session_id = r->session_id;
    c->session_ttl_ms = r->ttl_ms;
    c->session_deadline_ns = deadline_from(q->first_ns, r->stamp_ns, r->deadline_ns);
    c->keepalive_at_ns = client_clock_ns(w, c) + r->ttl_ms * MS / 3;
    c->seq = 0;
    check_acked_session(w, r->session_id, r->deadline_ns);
}

static void reply_keepalive(struct world *w, struct client *c, const struct lock_result *r)
{
    struct request *q = &c->requests[SLOT_KEEPALIVE];
    if (r->code != LOCK_OK) {
        session_forget(c);
        return;
    }
    uint64_t deadline_ns = deadline_from(q->first_ns, r->stamp_ns, r->deadline_ns);
    if (deadline_ns > c->session_deadline_ns)
        c->session_deadline_ns = deadline_ns;
    c->keepalive_at_ns = client_clock_ns(w, c) + c->session_ttl_ms * MS / 3;
    check_acked_session(w, c->session_id, r->deadline_ns);
    for (unsigned i = 0; i < PATHS; i++) {
        if (c->beliefs[i].token != 0 && c->beliefs[i].session_bound)
            check_belief(w, c, i);
    }
}

static void reply_acquire(struct world *w,
                          struct client *c,
                          const struct request *q,
                          const struct lock_result *r)
{
    struct belief *b = &c->beliefs[q->path];
    if (r->code != LOCK_OK)
        return;
    c->n_grants++;
    *b = (struct belief){
        .token = r->token, .mode = q->mode, .limit = q->limit, .session_bound = q->ttl_ms == 0};
    if (r->deadline_ns != 0) {
        /* The better of the two: from this very request, or from the newest answer. */
        uint64_t own_ns = deadline_from(q->first_ns, r->stamp_ns, r->deadline_ns);
        uint64_t pair_ns = deadline_local(c, r->deadline_ns);
        b->deadline_ns = own_ns > pair_ns ? own_ns : pair_ns;
        check_acked_hold(w, r->token, r->deadline_ns);
    }
    check_belief(w, c, q->path);
}

static void
reply_renew(struct world *w, struct client *c, const struct request *q, const struct lock_result *r)
{
    struct belief *b = &c->beliefs[q->path];
    if (r->code != LOCK_OK) {
        b->token = 0;
        return;
    }
    uint64_t deadline_ns = deadline_from(q->first_ns, r->stamp_ns, r->deadline_ns);
    b->token = r->token;
    if (deadline_ns > b->deadline_ns)
        b->deadline_ns = deadline_ns;
    check_acked_hold(w, r->token, r->deadline_ns);
    check_belief(w, c, q->path);
}

/* A repeated answer is as good: nobody else moves the hold meanwhile. */
static void reply_rename(struct world *w,
                         struct client *c,
                         const struct request *q,
                         const struct lock_result *r)
{
    bool stays = r->code == LOCK_EXISTS || r->code == LOCK_DELAYED;
    if (r->code != LOCK_OK && !stays)
        return; /* Lost. */
    unsigned path = stays ? q->path : q->to;
    c->beliefs[path] = q->moving;
    c->n_renamed += !stays;
    check_belief(w, c, path);
}

static void reply_result(struct world *w, struct client *c, enum slot slot, const struct event *e)
{
    struct request *q = &c->requests[slot];
    const struct lock_result *r = &e->result;
    pair_learn(c, q, r);
    if (r->code == LOCK_QUEUED) { /* Ask again until it is decided. */
        c->n_waited++;
        struct event *again =
            world_event(w, EVENT_CLIENT_RETRY, c->number, world_between(w, 20 * MS, 100 * MS));
        again->a = slot;
        q->retry_order = again->order;
        return;
    }
    q->active = false;
    c->n_done++;
    if (w->healed)
        c->done_after_heal++;
    if (e->b > w->acked_index)
        w->acked_index = e->b;
    if (r->code == LOCK_NO_SESSION) {
        session_forget(c);
        return;
    }
    switch (q->op) {
    case LOCK_OP_SESSION_OPEN:
        reply_session(w, c, r);
        break;
    case LOCK_OP_SESSION_KEEPALIVE:
        reply_keepalive(w, c, r);
        break;
    case LOCK_OP_ACQUIRE:
        reply_acquire(w, c, q, r);
        break;
    case LOCK_OP_RENEW:
        reply_renew(w, c, q, r);
        break;
    case LOCK_OP_RENAME:
        reply_rename(w, c, q, r);
        break;
    default:
        break;
    }
}

/* Not done, or nobody knows: repeat it, with the same session and number. */
static void reply_refused(struct world *w, struct client *c, enum slot slot, const struct event *e)
{
    struct request *q = &c->requests[slot];
    bool hint = e->status == REPLICA_NOT_LEADER && e->c != 0 && e->c <= w->n_nodes;
    c->guess = hint ? (unsigned)e->c - 1 : (unsigned)world_below(w, w->n_nodes);
    struct event *again =
        world_event(w, EVENT_CLIENT_RETRY, c->number, world_between(w, MS, 40 * MS));
    again->a = slot;
    q->retry_order = again->order;
    q->attempts = hint ? 0 : q->attempts;
}

void client_reply(struct world *w, struct client *c, const struct event *e)
{
    enum slot slot = SLOT_OP;
    beliefs_expire(w, c);
    while (slot < SLOTS && !(c->requests[slot].active && c->requests[slot].serial == e->a))
        slot++;
    if (slot == SLOTS)
        return;
    if (slot == SLOT_READ) {
        c->requests[slot].active = false;
        c->n_reads += e->status == REPLICA_OK ? 1 : 0;
    } else if (e->status == REPLICA_OK) {
        reply_result(w, c, slot, e);
    } else {
        reply_refused(w, c, slot, e);
    }
}
