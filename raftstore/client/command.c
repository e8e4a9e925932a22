/* Commands: what changes the lock table.
 *
 *     IN_LINE --session, leader, room--> SENT --answer--> (callback)
 *                                          |  ^
 *            busy, not leader, lost conn.  v  |  timer, next leader
 *                                         PAUSED
 *     SENT --"queued"--> QUEUED --event or answer to a repetition--> (callback)
 *
 * The session keeps a result for each number above the lowest unanswered one, and a bounded number
 * of them; so a request that waits for long would hold up all others.  It is therefore "parked":
 * its number is acknowledged like an answered one, it stays in the cluster's queue, and its outcome
 * comes by event only.  Should events be missed (a gap), it is canceled and asked for anew.
 *
 * A command gets its number when it is sent first and keeps it: repetitions are recognised by
 * (session, seq), also by the next leader.  It never moves to another session once it may have
 * been executed.  An acquire whose caller gave up stays as an orphan until its outcome is known,
 * and what was granted is released.  The same owner's next acquire is held back until that release
 * is answered: it would be granted the orphan's hold, which the release then takes away.  A renewal
 * with a ttl of its own stays likewise, but is not undone: as long as it may be done yet, a lease
 * may end by it (lease.c). */
#include "raftstore/client/internal.h"

#include "raftstore/wire/frame.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define FRAME_EXTRA_BYTES    80u /* What is added to a command's body at most. */
#define BUSY_BACKOFF_MS      4
#define BUSY_MAX_MS          500
#define UNKNOWN_BACKOFF_MS   20
#define REPEAT_MS            3000 /* Unanswered on a connection that is otherwise alive. */
#define REPEAT_BACKLOG_BYTES (64u * 1024u)
#define QUEUED_REPEAT_MS     30000 /* Queued: the event can't be lost, but if it is. */
#define CANCEL_REPEAT_MS     200   /* Canceled: likewise. */
#define DENIED_MS            500   /* No repetition left in the budget: ask it again after that. */
#define PARK_WINDOW          1024u /* Numbers behind a queued request: park it. */

static void on_timer(struct boot_timer *t);
static void send_command(struct client *c, struct command *k, uint64_t now);
static void cancel_at_cluster(struct client *c, struct command *k);
static void undo_grant(struct client *c, const struct command *k, const Hf__Result *r);

static uint64_t now_boot(const struct client *c)
{
    return clock_boot_ns(c->config.clock);
}

static bool counts_on_wire(const struct command *k)
{
    return k->state == COMMAND_SENT || k->state == COMMAND_PAUSED;
}

static enum bulkhead_place place_of(const struct command *k)
{
    if (k->state == COMMAND_IN_LINE)
        return BULKHEAD_LINE;
    return k->state == COMMAND_QUEUED ? BULKHEAD_SETTLED : BULKHEAD_FLIGHT;
}

static void set_state(struct client *c, struct command *k, enum command_state state)
{
    enum bulkhead_place before = place_of(k);
    c->commands.n_wire -= counts_on_wire(k);
    k->state = state;
    c->commands.n_wire += counts_on_wire(k);
    bulkhead_move(&c->bulkhead, k->class, before, place_of(k));
}

static struct command *find(struct client *c, uint64_t id)
{
    struct command *k;
    HASH_FIND(hh, c->commands.by_id, &id, sizeof id, k);
    return k;
}

/* The next instant that matters: a repeat at `again_ns`, or the deadline if that is earlier. */
static void set_timer(struct client *c, struct command *k, uint64_t again_ns)
{
    uint64_t due = again_ns;
    /* Once queued, the command's own wait_ms bounds it. */
    if (k->state != COMMAND_QUEUED && !k->orphan && k->deadline_ns < due)
        due = k->deadline_ns;
    if (due == UINT64_MAX)
        boot_timer_stop(&c->timers, &k->timer);
    else
        boot_timer_set(&c->timers, &k->timer, due);
}

/* ---- Owners with orphans --------------------------------------------------------------- */

static uint64_t hash_owner(const Hf__Command *command)
{
    uint64_t key = UINT64_C(0xcbf29ce484222325); /* FNV-1a; a collision only delays. */
    for (size_t i = 0; i < command->owner.len; i++)
        key = (key ^ command->owner.data[i]) * UINT64_C(0x100000001b3);
    return key;
}

/* What it shares with those that it must not overtake in line. */
static uint64_t order_key(const Hf__Command *command)
{
    if (command->owner.len > 0)
        return hash_owner(command) | 1;
    return command->token != 0 ? command->token << 1 : 0;
}

bool commands_owner_busy(const struct client *c, uint64_t key)
{
    struct busy_owner *b = NULL;
    if (c->commands.busy_owners != NULL)
        HASH_FIND(hh, c->commands.busy_owners, &key, sizeof key, b);
    return b != NULL;
}

static void owner_ref(struct client *c, uint64_t key)
{
    struct busy_owner *b;
    HASH_FIND(hh, c->commands.busy_owners, &key, sizeof key, b);
    if (b == NULL) {
        b = xcalloc(1, sizeof *b);
        b->key = key;
        HASH_ADD(hh, c->commands.busy_owners, key, sizeof b->key, b);
    }
    b->n++;
}

static void owner_unref(struct client *c, uint64_t key)
{
    struct busy_owner *b;
    HASH_FIND(hh, c->commands.busy_owners, &key, sizeof key, b);
    assert(b != NULL);
    if (--b->n > 0)
        return;
    HASH_DELETE(hh, c->commands.busy_owners, b);
    free(b);
}

static bool makes_hold(unsigned op)
{
    return op == WIRE_OP_ACQUIRE || op == WIRE_OP_LINK;
}

static enum client_class class_of(const Hf__Command *command, bool waits)
{
    if (command->op == WIRE_OP_RELEASE || command->op == WIRE_OP_RENEW ||
        command->op == WIRE_OP_CANCEL)
        return CLIENT_UPKEEP;
    return waits ? CLIENT_WAIT : CLIENT_WRITE;
}

/* ---- Birth and end --------------------------------------------------------------------- */

static struct command *
command_new(struct client *c, const Hf__Command *command, struct client_trace *trace)
{
    Hf__Command bare = *command;
    bare.session_id = bare.seq = bare.ack_seq = 0;
    size_t size = hf__command__get_packed_size(&bare);
    if (size + client_trace_packed(trace).size + FRAME_EXTRA_BYTES > FRAME_CLIENT_BYTES_MAX)
        return NULL;
    struct command *k = xmalloc(sizeof *k + size);
    bool waits =
        command->wait_ms != 0 && (command->op == WIRE_OP_ACQUIRE || command->op == WIRE_OP_CONVERT);
    *k = (struct command){
        .id = c->id_next++,
        .state = COMMAND_IN_LINE,
        .op = (uint8_t)command->op,
        .waits = waits,
        .class = class_of(command, waits),
        .order_key = order_key(command),
        .shortens = command->op == WIRE_OP_RENEW && command->ttl_ms != 0,
        .many = command->n_paths > 1,
        .owner_key = command->op == WIRE_OP_ACQUIRE ? hash_owner(command) : 0,
        .deadline_ns = UINT64_MAX,
        .timer = {.cb = on_timer, .arg = k},
        .trace = trace,
        .client = c,
        .body_bytes = size,
    };
    (void)hf__command__pack(&bare, k->body);
    return k;
}

/* It is counted in the bulkhead's line already. */
static void enroll(struct client *c, struct command *k)
{
    HASH_ADD(hh, c->commands.by_id, id, sizeof k->id, k);
    c->commands.n++;
    if (line_may_pass(c, k)) {
        commands_start(c, k, now_boot(c));
        return;
    }
    line_add(c, k);
    commands_pump(c); /* Those before it may only wait for others of their owner. */
}

static void assign(struct client *c, struct command *k)
{
    k->session_id = c->session.id;
    k->seq = c->session.seq_next++;
    TAILQ_INSERT_TAIL(&c->commands.assigned, k, link);
    if (k->waits)
        HASH_ADD(hh_seq, c->commands.by_seq, seq, sizeof k->seq, k);
}

static void unassign(struct client *c, struct command *k)
{
    if (k->parked)
        TAILQ_REMOVE(&c->commands.parked, k, link);
    else
        TAILQ_REMOVE(&c->commands.assigned, k, link);
    if (k->waits)
        HASH_DELETE(hh_seq, c->commands.by_seq, k);
    k->parked = k->cancel_sent = k->no_session = k->asks = false;
    k->seq = 0;
}

void commands_park_old(struct client *c)
{
    struct commands *all = &c->commands;
    struct command *k;
    while ((k = TAILQ_FIRST(&all->assigned)) != NULL && k->state == COMMAND_QUEUED && !k->asks &&
           c->session.seq_next - k->seq > PARK_WINDOW) {
        TAILQ_REMOVE(&all->assigned, k, link);
        TAILQ_INSERT_TAIL(&all->parked, k, link);
        k->parked = true;
        boot_timer_stop(&c->timers, &k->timer);
    }
}

static void remove_command(struct client *c, struct command *k)
{
    struct commands *all = &c->commands;
    if (k->seq != 0)
        unassign(c, k);
    else
        line_remove(c, k);
    all->n_wire -= counts_on_wire(k);
    bulkhead_leave(&c->bulkhead, k->class, place_of(k));
    if (k->orphan || k->undo)
        owner_unref(c, k->owner_key);
    all->n_lost_renewals -= k->orphan && k->shortens;
    all->n--;
    HASH_DELETE(hh, all->by_id, k);
    boot_timer_stop(&c->timers, &k->timer);
}

/* Answer and free.  Nothing of `k` may be used after it. */
static void
finish_with(struct client *c, struct command *k, int status, const Hf__Result *r, const char *text)
{
    struct client_result out = {
        .status = status, .text = text, .result = r, .sent_boot_ns = k->sent_boot_ns};
    if (r != NULL && r->deadline_ns != 0) {
        struct deadline_pair own = {k->sent_boot_ns, r->stamp_ns};
        uint64_t by_own = deadline_boot_ns(&own, r->deadline_ns);
        uint64_t by_best = deadline_boot_ns(&c->pair, r->deadline_ns);
        out.deadline_boot_ns = by_own > by_best ? by_own : by_best;
    }
    if (status != 0 && !k->internal && !k->orphan)
        stats_failed(&c->stats.commands, status);
    remove_command(c, k);
    client_trace_end(k->trace, status, r);
    if (k->cb != NULL)
        k->cb(k->arg, &out);
    client_trace_free(k->trace);
    free(k);
}

static void finish(struct client *c, struct command *k, int status, const Hf__Result *r)
{
    finish_with(c, k, status, r, "");
}

/* The cluster has answered a request for the first time. */
static void count_answer(struct client *c, struct command *k)
{
    if (!k->internal && !k->orphan && !k->counted)
        stats_answered(c, &c->stats.commands, k->sent_boot_ns);
    k->counted = true;
}

static void finish_code(struct client *c, struct command *k, uint32_t code)
{
    Hf__Result r = HF__RESULT__INIT;
    r.code = code;
    r.session_id = k->session_id;
    finish(c, k, 0, &r);
}

/* A command of our own, without a caller. */
static struct command *add_internal(struct client *c, const Hf__Command *command)
{
    struct command *k = command_new(c, command, NULL);
    assert(k != NULL); /* Made of parts of what was small enough once. */
    k->internal = true;
    bulkhead_force(&c->bulkhead, k->class);
    return k;
}

/* ---- Sending --------------------------------------------------------------------------- */

uint64_t commands_ack_seq(const struct client *c)
{
    const struct command *first = TAILQ_FIRST(&c->commands.assigned);
    return (first != NULL ? first->seq : c->session.seq_next) - 1;
}

static void send_command(struct client *c, struct command *k, uint64_t now)
{
    struct peer *p = c->route.primary;
    if (k->sent_boot_ns == 0) {
        k->sent_boot_ns = now;
        k->token_before = c->commands.token_max;
        retry_budget_request(&c->budget, now);
    } else {
        c->n_retries++;
    }
    k->last_boot_ns = now;
    k->serial = p->serial;
    k->n_unresolved++;
    client_add_command(client_conn_out(p->conn), k->id, bytes_of(k->body, k->body_bytes),
                       k->session_id, k->seq, commands_ack_seq(c), client_trace_packed(k->trace));
    client_trace_sent(k->trace, p);
    if (k->state != COMMAND_QUEUED) {
        set_state(c, k, COMMAND_SENT);
        set_timer(c, k, now + REPEAT_MS * NS_PER_MS);
    }
    route_expect(c);
}

void commands_start(struct client *c, struct command *k, uint64_t now)
{
    assign(c, k);
    commands_park_old(c);
    if (k->waits)
        watch_want_session(c);
    send_command(c, k, now);
}

/* How does the queued request stand?  Repeated until it is answered, as its event may be missed. */
static void ask(struct client *c, struct command *k, uint64_t now)
{
    k->asks = true;
    if (c->route.primary != NULL) /* Else commands_on_primary() does. */
        send_command(c, k, now);
    set_timer(c, k, now + REPEAT_MS * NS_PER_MS);
}

void commands_pump(struct client *c)
{
    if (c->commands.n_line > 0)
        line_pump(c, now_boot(c));
}

/* Not bounded by the budget: what keeps or ends holds, what nobody can be told of, and the rare
 * questions after what waits in the cluster. */
static bool is_exempt(const struct command *k)
{
    return k->class == CLIENT_UPKEEP || k->internal || k->orphan || k->state == COMMAND_QUEUED;
}

/* May it be sent once more?  If so, that is taken from the budget. */
static bool may_repeat(struct client *c, struct command *k, uint64_t now)
{
    bool paid = k->paid;
    k->paid = false;
    if (paid)
        return true;
    if (!is_exempt(k))
        return retry_budget_take(&c->budget, now);
    retry_budget_charge(&c->budget, now);
    return true;
}

/* Not now: later, if there is time. */
static void repeat_later(struct client *c, struct command *k)
{
    set_state(c, k, COMMAND_PAUSED);
    set_timer(c, k, client_after_ms(c, client_backoff_ms(c, DENIED_MS, DENIED_MS, 0)));
}

void commands_on_primary(struct client *c)
{
    struct command *k;
    uint64_t now = now_boot(c);
    bool burst = client_burst(&c->commands.burst_boot_ns, now);
    TAILQ_FOREACH(k, &c->commands.assigned, link)
    {
        if (!counts_on_wire(k) && !k->asks)
            continue;
        if (burst)
            retry_budget_charge(&c->budget, now);
        if (k->asks)
            ask(c, k, now);
        else if (burst || may_repeat(c, k, now))
            send_command(c, k, now);
        else
            repeat_later(c, k);
    }
    commands_pump(c);
}

void commands_on_primary_lost(struct client *c)
{
    (void)c; /* What is on the wire is sent again by commands_on_primary(). */
}

/* A parked request of which events may have been missed: out of the queue, if it is in there, and
 * asked for anew.  If it was granted, its owner has the lock and gets the same hold again. */
static void ask_anew(struct client *c, struct command *k)
{
    Hf__Command command = HF__COMMAND__INIT;
    command.op = WIRE_OP_CANCEL;
    command.cancel_seq = k->seq;
    unassign(c, k);
    set_state(c, k, COMMAND_IN_LINE);
    k->deadline_ns = UINT64_MAX;          /* It was queued: its own wait_ms bounds it. */
    enroll(c, add_internal(c, &command)); /* Cancels go first, so it is before it on the wire. */
    line_add(c, k);
}

void commands_on_gap(struct client *c)
{
    struct command *k;
    uint64_t now = now_boot(c);
    while ((k = TAILQ_FIRST(&c->commands.parked)) != NULL)
        ask_anew(c, k);
    TAILQ_FOREACH(k, &c->commands.assigned, link)
    {
        if (k->state == COMMAND_QUEUED)
            ask(c, k, now);
    }
    commands_pump(c);
}

/* ---- Answers --------------------------------------------------------------------------- */

static void on_queued(struct client *c, struct command *k)
{
    bool first = k->state != COMMAND_QUEUED;
    count_answer(c, k);
    set_state(c, k, COMMAND_QUEUED);
    k->n_tries = 0;
    k->asks = false;
    set_timer(c, k, client_after_ms(c, QUEUED_REPEAT_MS + random_below(&c->random, 5000)));
    if (first && (k->orphan || k->canceled) && !k->cancel_sent)
        cancel_at_cluster(c, k);
    commands_pump(c);
}

/* A cancel was answered: if it found its target in the queue, that is the target's outcome; else
 * the outcome was decided before, and its event is on the way. */
static void on_cancel_done(struct client *c, uint64_t target_id, uint32_t code)
{
    struct command *k = find(c, target_id);
    if (k == NULL || !k->cancel_sent)
        return;
    if (k->state != COMMAND_QUEUED) {
        k->cancel_sent = false; /* It came before its target; once that is queued, again. */
        return;
    }
    if (code == WIRE_CODE_OK)
        finish_code(c, k, WIRE_CODE_CANCELED);
    else if (!k->parked)
        boot_timer_set(&c->timers, &k->timer, client_after_ms(c, CANCEL_REPEAT_MS));
}

static void on_final(struct client *c, struct command *k, const Hf__Result *r)
{
    bool granted = r->code == WIRE_CODE_OK && makes_hold(k->op);
    uint64_t target = k->op == WIRE_OP_CANCEL ? k->target_id : 0;
    uint32_t code = r->code;
    count_answer(c, k);
    if (k->orphan && granted)
        undo_grant(c, k, r);
    if (r->token > c->commands.token_max)
        c->commands.token_max = r->token;
    finish(c, k, 0, r);
    if (target != 0)
        on_cancel_done(c, target, code);
    commands_pump(c);
}

bool commands_on_result(struct client *c, uint64_t id, const Hf__Result *r)
{
    struct command *k = find(c, id);
    if (k == NULL)
        return false;
    if (k->seq == 0)
        return true; /* An answer to nothing that we sent: ignored. */
    deadline_learn(&c->pair, k->sent_boot_ns, r->stamp_ns);
    if (r->code == WIRE_CODE_QUEUED) {
        on_queued(c, k);
    } else if (r->code == WIRE_CODE_NO_SESSION && k->session_id == c->session.id) {
        k->no_session = true;
        if (k->state != COMMAND_QUEUED)
            set_state(c, k, COMMAND_PAUSED);
        session_doubt(c); /* Leads to commands_on_session_kept() or _ended(). */
    } else if (r->code == WIRE_CODE_STALE_SEQ && k->parked) {
        ask_anew(c, k); /* A repetition of before it was parked. */
        commands_pump(c);
    } else {
        on_final(c, k, r);
    }
    return true;
}

void commands_on_event(struct client *c, const Hf__Event *e)
{
    struct command *k = NULL;
    bool granted = e->type == WIRE_EFFECT_GRANTED || e->type == WIRE_EFFECT_CONVERTED;
    if (e->seq == 0 || e->session_id != c->session.id || e->session_id == 0 ||
        (!granted && e->type != WIRE_EFFECT_REFUSED) || !e->waited)
        return;
    HASH_FIND(hh_seq, c->commands.by_seq, &e->seq, sizeof e->seq, k);
    if (k == NULL)
        return;
    if (granted && k->many) { /* One event a path: the kept result says it all at once. */
        if (k->state == COMMAND_QUEUED)
            ask(c, k, now_boot(c));
        return;
    }
    Hf__Result r = HF__RESULT__INIT;
    r.code = granted ? WIRE_CODE_OK : e->code;
    r.stamp_ns = e->stamp_ns;
    r.token = granted ? e->token : 0;
    r.deadline_ns = granted ? e->deadline_ns : 0;
    r.ttl_ms = e->ttl_ms;
    r.index = e->index;
    on_final(c, k, &r);
}

/* The last send surely did nothing. */
static void on_not_done(struct client *c, struct command *k, uint64_t again_ms)
{
    if (k->n_unresolved > 0)
        k->n_unresolved--;
    if (k->state != COMMAND_QUEUED)
        set_state(c, k, COMMAND_PAUSED);
    set_timer(c, k, client_after_ms(c, again_ms));
}

/* Refused for load.  When the budget has no repetition left, the caller is told at once; to let
 * it wait would only be refused again. */
static void on_busy(struct client *c, struct command *k)
{
    uint64_t now = now_boot(c);
    on_not_done(c, k, client_backoff_ms(c, BUSY_BACKOFF_MS, BUSY_MAX_MS, k->n_tries++));
    if (is_exempt(k) || k->paid || k->canceled)
        return;
    if (retry_budget_take(&c->budget, now)) {
        k->paid = true;
    } else if (k->n_unresolved == 0) {
        finish(c, k, -EBUSY, NULL);
        commands_pump(c);
    } else {
        repeat_later(c, k);
    }
}

bool commands_on_failure(struct client *c, struct peer *p, uint64_t id, const Hf__Failure *f)
{
    struct command *k = find(c, id);
    if (k == NULL)
        return false;
    if (k->seq == 0 || k->serial != p->serial)
        return true; /* It was sent elsewhere meanwhile. */
    k->was_busy = f->code == HF__FAILURE__CODE__BUSY;
    switch (f->code) {
    case HF__FAILURE__CODE__BAD_REQUEST:
        finish(c, k, -EINVAL, NULL);
        commands_pump(c);
        break;
    case HF__FAILURE__CODE__DENIED:
    case HF__FAILURE__CODE__REFUSED:
        finish_with(c, k, -EPERM, NULL, f->text != NULL ? f->text : "");
        commands_pump(c);
        break;
    case HF__FAILURE__CODE__NOT_LEADER:
    case HF__FAILURE__CODE__SHUTTING_DOWN:
        on_not_done(c, k, REPEAT_MS); /* The next leader comes first. */
        break;
    case HF__FAILURE__CODE__BUSY:
        on_busy(c, k);
        break;
    default: /* Outcome unknown. */
        k->n_unresolved++;
        on_not_done(c, k, client_backoff_ms(c, UNKNOWN_BACKOFF_MS, BUSY_MAX_MS, k->n_tries++));
        break;
    }
    return true;
}

/* ---- Time ------------------------------------------------------------------------------ */

/* The caller's time is up. */
static void time_out(struct client *c, struct command *k)
{
    bool undone = k->was_busy && k->n_unresolved == 0;
    struct client_result out = {
        .status = undone ? -EBUSY : -ETIMEDOUT, .text = "", .sent_boot_ns = k->sent_boot_ns};
    client_result_cb cb = k->cb;
    if ((!makes_hold(k->op) && !k->shortens) || k->n_unresolved == 0) {
        finish(c, k, out.status, NULL);
        commands_pump(c);
        return;
    }
    stats_failed(&c->stats.commands, out.status);
    client_trace_end(k->trace, out.status, NULL);
    k->cb = NULL;
    k->orphan = true;
    c->commands.n_lost_renewals += k->shortens;
    owner_ref(c, k->owner_key);
    set_timer(c, k, client_after_ms(c, REPEAT_MS));
    if (cb != NULL)
        cb(k->arg, &out);
}

static void on_timer(struct boot_timer *t)
{
    struct command *k = t->arg;
    struct client *c = k->client;
    uint64_t now = now_boot(c);
    if (k->canceled && k->n_unresolved == 0 && k->state != COMMAND_QUEUED) {
        finish_code(c, k, WIRE_CODE_CANCELED);
    } else if (k->state != COMMAND_QUEUED && !k->orphan && now >= k->deadline_ns) {
        time_out(c, k);
    } else if (k->seq != 0 && c->route.primary != NULL &&
               client_conn_backlog_bytes(c->route.primary->conn) < REPEAT_BACKLOG_BYTES) {
        /* With a long backlog it would only lengthen that. */
        if (!may_repeat(c, k, now)) {
            repeat_later(c, k);
            return;
        }
        if (k->state == COMMAND_QUEUED)
            ask(c, k, now);
        else
            send_command(c, k, now);
    } else {
        set_timer(c, k, k->seq != 0 ? now + REPEAT_MS * NS_PER_MS : UINT64_MAX);
    }
}

/* ---- Cancel and undo ------------------------------------------------------------------- */

static void cancel_at_cluster(struct client *c, struct command *k)
{
    Hf__Command command = HF__COMMAND__INIT;
    command.op = WIRE_OP_CANCEL;
    command.cancel_seq = k->seq;
    k->cancel_sent = true;
    struct command *cancel = add_internal(c, &command);
    cancel->target_id = k->id;
    enroll(c, cancel);
}

void client_cancel(struct client *c, uint64_t handle)
{
    struct command *k = find(c, handle);
    if (k == NULL || k->canceled || k->internal || k->orphan)
        return;
    k->canceled = true;
    if (k->n_unresolved == 0 && k->state != COMMAND_QUEUED)
        boot_timer_set(&c->timers, &k->timer, 0); /* Surely not executed: answered by itself. */
    else if (k->waits)
        cancel_at_cluster(c, k);
}

/* Release what an orphan was granted, by token.  Where the owner held the lock before, its older
 * token came back: that hold is not ours to end.  Nor is a lease that the owner acquired again or
 * renewed meanwhile, through another client. */
static void undo_grant(struct client *c, const struct command *k, const Hf__Result *r)
{
    Hf__Command *was = hf__command__unpack(NULL, k->body_bytes, k->body);
    assert(was != NULL); /* Packed by ourselves. */
    bool lease = was->ttl_ms != 0 || k->op == WIRE_OP_LINK;
    size_t first = k->op == WIRE_OP_LINK ? 1 : 0; /* Its first path is where it linked from. */
    for (size_t i = first; i < was->n_paths && r->token > k->token_before; i++) {
        Hf__Command command = HF__COMMAND__INIT;
        command.op = WIRE_OP_RELEASE;
        command.paths = &was->paths[i];
        command.n_paths = 1;
        command.token = r->token + i - first;
        command.flags = lease ? WIRE_F_UNTOUCHED : 0;
        struct command *release = add_internal(c, &command);
        release->undo = true;
        release->owner_key = k->owner_key;
        owner_ref(c, k->owner_key);
        enroll(c, release);
    }
    hf__command__free_unpacked(was, NULL);
}

/* ---- Session and end ------------------------------------------------------------------- */

/* What surely was not executed may go to the next session; the rest is answered. */
void commands_on_session_ended(struct client *c, uint64_t session_id)
{
    struct commands *all = &c->commands;
    struct command *k, *next;
    /* From the last one on, each to the front: so they keep their order. */
    TAILQ_FOREACH_REVERSE_SAFE(k, &all->assigned, command_list, link, next)
    {
        if (k->session_id != session_id)
            continue;
        /* To release by token once more does no harm, and leases outlive the session. */
        if (!k->undo &&
            (k->n_unresolved > 0 || k->state == COMMAND_QUEUED || k->internal || k->orphan))
            continue;
        unassign(c, k);
        set_state(c, k, COMMAND_IN_LINE);
        k->sent_boot_ns = 0;
        line_add_front(c, k);
        set_timer(c, k, UINT64_MAX);
    }
    /* A callback may do anything but free the client: always from the front. */
    while (((k = TAILQ_FIRST(&all->assigned)) != NULL && k->session_id == session_id) ||
           ((k = TAILQ_FIRST(&all->parked)) != NULL && k->session_id == session_id))
        finish_code(c, k, WIRE_CODE_NO_SESSION);
}

/* The first of those in line that was there before frame `end` and is the caller's. */
static struct command *first_in_line(struct client *c, uint64_t end)
{
    struct command *k;
    for (size_t i = 0; i < LINES; i++) {
        TAILQ_FOREACH(k, &c->commands.lines[i], link)
        {
            if (k->id < end && !k->internal && !k->orphan)
                return k;
        }
    }
    return NULL;
}

void commands_on_session_denied(struct client *c, const char *text)
{
    uint64_t end = c->id_next; /* Callbacks may send more. */
    struct command *k;
    while ((k = first_in_line(c, end)) != NULL)
        finish_with(c, k, -EPERM, NULL, text);
}

void commands_on_session_kept(struct client *c)
{
    struct command *k;
    uint64_t now = now_boot(c);
    if (c->route.primary == NULL)
        return;
    TAILQ_FOREACH(k, &c->commands.assigned, link)
    {
        if (!k->no_session)
            continue;
        k->no_session = false;
        retry_budget_charge(&c->budget, now);
        send_command(c, k, now);
    }
}

void commands_fail_all(struct client *c)
{
    struct commands *all = &c->commands;
    struct command *k;
    while ((k = TAILQ_FIRST(&all->assigned)) != NULL || (k = TAILQ_FIRST(&all->parked)) != NULL)
        finish(c, k, -ECANCELED, NULL);
    for (unsigned i = 0; i < LINES; i++)
        while ((k = TAILQ_FIRST(&all->lines[i])) != NULL)
            finish(c, k, -ECANCELED, NULL);
}

void commands_init(struct client *c)
{
    line_init(c);
    TAILQ_INIT(&c->commands.assigned);
    TAILQ_INIT(&c->commands.parked);
}

/* ---- The public face ------------------------------------------------------------------- */

static bool for_clients(uint32_t op)
{
    return op >= WIRE_OP_ACQUIRE && op <= WIRE_OP_RENAME;
}

static int command_give(struct client *c,
                        const Hf__Command *command,
                        const struct trace_context *trace,
                        bool upkeep,
                        uint64_t timeout_ms,
                        client_result_cb cb,
                        void *arg,
                        uint64_t *ret_handle)
{
    if (c->closing)
        return -ESHUTDOWN;
    if (c->session.ttl_ms == 0 || !for_clients(command->op))
        return -EINVAL;
    struct bytes path = command->n_paths > 0 ? pack_bytes(command->paths[0]) : bytes_of(NULL, 0);
    struct client_trace *place = client_trace_new(c, wire_op_name(command->op), trace, path);
    struct command *k = command_new(c, command, place);
    if (k == NULL) {
        client_trace_end(place, -EMSGSIZE, NULL);
        client_trace_free(place);
        return -EMSGSIZE;
    }
    if (upkeep)
        k->class = CLIENT_UPKEEP;
    if (!bulkhead_enter(&c->bulkhead, k->class)) {
        stats_failed(&c->stats.commands, -EBUSY);
        client_trace_end(place, -EBUSY, NULL);
        client_trace_free(place);
        free(k);
        return -EBUSY;
    }
    k->cb = cb;
    k->arg = arg;
    if (timeout_ms != CLIENT_NO_TIMEOUT)
        k->deadline_ns = client_after_ms(c, timeout_ms);
    if (ret_handle != NULL)
        *ret_handle = k->id;
    enroll(c, k);
    if (k->state == COMMAND_IN_LINE)
        set_timer(c, k, UINT64_MAX);
    return 0;
}

int client_command(struct client *c,
                   const Hf__Command *command,
                   uint64_t timeout_ms,
                   client_result_cb cb,
                   void *arg,
                   uint64_t *ret_handle)
{
    return command_give(c, command, NULL, false, timeout_ms, cb, arg, ret_handle);
}

int client_command_traced(struct client *c,
                          const Hf__Command *command,
                          const struct trace_context *trace,
                          uint64_t timeout_ms,
                          client_result_cb cb,
                          void *arg,
                          uint64_t *ret_handle)
{
    return command_give(c, command, trace, false, timeout_ms, cb, arg, ret_handle);
}

int client_upkeep(struct client *c,
                  const Hf__Command *command,
                  uint64_t timeout_ms,
                  client_result_cb cb,
                  void *arg,
                  uint64_t *ret_handle)
{
    return command_give(c, command, NULL, true, timeout_ms, cb, arg, ret_handle);
}
