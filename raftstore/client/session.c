/* Our session with the cluster.
 *
 * One keepalive each third of the ttl, whatever hangs on the session.  A keepalive is never
 * repeated: the next one has a new number and a later instant from which the ttl counts.  The own
 * deadline counts from before the last acknowledged one was sent; when it passes, the session is
 * lost for its owner, even if the cluster may still keep it (courtesy, design section 6).
 *
 *     NONE --primary--> OPENING --OK--> OPEN --no such session--> NONE ...
 *                          `--refused, connection lost--> NONE, again after a while */
#include "raftstore/client/internal.h"

#include <stdlib.h>

#define OPEN_BACKOFF_MS     100
#define OPEN_BACKOFF_MAX_MS 2000
#define OPEN_ANSWER_MS      1500 /* No answer to an open in this time: another one. */
#define KEEPALIVE_MIN_MS    3

static void tell(struct client *c, enum client_session_event event)
{
    if (c->config.on_session != NULL && !c->stopped)
        c->config.on_session(c->config.arg, event);
}

static uint64_t now_boot(const struct client *c)
{
    return clock_boot_ns(c->config.clock);
}

static void send_frame(struct client *c, const Hf__Command *command, uint64_t seq, uint64_t now)
{
    struct session *s = &c->session;
    struct buf body = BUF_INIT;
    uint64_t ack_seq = commands_ack_seq(c);
    pack_add(&body, &command->base);
    s->frame_id = c->id_next++;
    s->frames[s->n_frames++ % SESSION_FRAMES] = (struct session_frame){s->frame_id, now};
    client_add_command(client_conn_out(c->route.primary->conn), s->frame_id,
                       bytes_of(body.data, body.size), s->id, seq,
                       ack_seq < seq ? ack_seq : (seq != 0 ? seq - 1 : 0), bytes_of(NULL, 0));
    buf_deinit(&body);
    route_expect(c);
}

/* Is the answer `id` one to a frame of ours?  Those before it are then answered as well: they can
 * say nothing better. */
static bool take_frame(struct session *s, uint64_t id, uint64_t *ret_sent_boot_ns)
{
    bool found = false;
    for (unsigned i = 0; i < SESSION_FRAMES; i++) {
        if (s->frames[i].id == id && id != 0) {
            *ret_sent_boot_ns = s->frames[i].sent_boot_ns;
            found = true;
        }
    }
    for (unsigned i = 0; found && i < SESSION_FRAMES; i++)
        if (s->frames[i].id <= id)
            s->frames[i].id = 0;
    if (found && s->frame_id == id)
        s->frame_id = 0;
    return found;
}

static void forget_frames(struct session *s)
{
    s->frame_id = 0;
    for (unsigned i = 0; i < SESSION_FRAMES; i++)
        s->frames[i].id = 0;
}

static void send_open(struct client *c)
{
    struct session *s = &c->session;
    Hf__Command command = HF__COMMAND__INIT;
    uint64_t now = now_boot(c);
    command.op = WIRE_OP_SESSION_OPEN;
    command.ttl_ms = s->ttl_ms;
    command.agent = random_next(&c->random); /* Makes the id one of this cluster only. */
    command.host = pack_binary(bytes_str(c->host));
    s->state = SESSION_OPENING;
    send_frame(c, &command, 0, now);
    boot_timer_set(&c->timers, &s->keepalive, now + OPEN_ANSWER_MS * NS_PER_MS);
}

static void send_keepalive(struct client *c)
{
    struct session *s = &c->session;
    Hf__Command command = HF__COMMAND__INIT;
    uint64_t now = now_boot(c);
    uint64_t again_ms = s->granted_ttl_ms / 3;
    command.op = WIRE_OP_SESSION_KEEPALIVE;
    if (s->frame_id != 0) /* The last one was not answered in its time: hurry. */
        again_ms = s->granted_ttl_ms / 10;
    send_frame(c, &command, s->seq_next++, now);
    c->n_keepalives++;
    if (again_ms < KEEPALIVE_MIN_MS)
        again_ms = KEEPALIVE_MIN_MS;
    boot_timer_set(&c->timers, &s->keepalive, now + again_ms * NS_PER_MS);
}

/* Time for an open or a keepalive. */
static void on_keepalive(struct boot_timer *t)
{
    struct client *c = t->arg;
    struct session *s = &c->session;
    if (c->route.primary == NULL || s->ttl_ms == 0)
        return; /* session_on_primary() takes it up. */
    if (s->state == SESSION_OPEN)
        send_keepalive(c);
    else if (s->state != SESSION_CLOSING)
        send_open(c);
}

/* Jeopardy at half the ttl, loss at the own deadline. */
static void on_watch(struct boot_timer *t)
{
    struct client *c = t->arg;
    struct session *s = &c->session;
    uint64_t now = now_boot(c);
    if (s->id == 0 || s->lost)
        return;
    if (now >= s->deadline_boot_ns) {
        s->lost = true;
        s->jeopardy = true;
        tell(c, CLIENT_SESSION_LOST);
        return;
    }
    boot_timer_set(&c->timers, t, s->deadline_boot_ns);
    if (!s->jeopardy) {
        s->jeopardy = true;
        tell(c, CLIENT_SESSION_JEOPARDY);
    }
}

static void watch_from(struct client *c)
{
    struct session *s = &c->session;
    uint64_t half = s->acked_boot_ns + s->granted_ttl_ms * NS_PER_MS / 2;
    boot_timer_set(&c->timers, &s->watch, half < s->deadline_boot_ns ? half : s->deadline_boot_ns);
}

/* An open or a keepalive that was sent at sent_ns is acknowledged: the deadline moves. */
static void acknowledge(struct client *c, uint64_t sent_ns, const Hf__Result *r)
{
    struct session *s = &c->session;
    struct deadline_pair own = {sent_ns, r->stamp_ns};
    uint64_t deadline = deadline_boot_ns(&own, r->deadline_ns);
    deadline_learn(&c->pair, sent_ns, r->stamp_ns);
    if (deadline > s->deadline_boot_ns)
        s->deadline_boot_ns = deadline;
    if (sent_ns > s->acked_boot_ns)
        s->acked_boot_ns = sent_ns;
    if (r->ttl_ms != 0)
        s->granted_ttl_ms = r->ttl_ms;
}

static void on_opened(struct client *c, uint64_t sent_ns, const Hf__Result *r)
{
    struct session *s = &c->session;
    s->state = SESSION_OPEN;
    s->id = r->session_id;
    s->seq_next = 1;
    s->granted_ttl_ms = s->ttl_ms;
    s->deadline_boot_ns = s->acked_boot_ns = 0;
    s->lost = s->jeopardy = false;
    s->failures = 0;
    /* Of several opens on their way the first answered counts: what another one is told is the
     * deadline of another session (which ends by itself). */
    forget_frames(s);
    /* Our session was not there: perhaps this is another cluster, whose time is another one. */
    c->pair = (struct deadline_pair){0, 0};
    acknowledge(c, sent_ns, r);
    boot_timer_set(&c->timers, &s->keepalive, sent_ns + s->granted_ttl_ms * NS_PER_MS / 3);
    watch_from(c);
    watch_on_session_opened(c, r->index);
    watch_update(c);
    tell(c, CLIENT_SESSION_OPENED);
    commands_pump(c);
}

static void on_kept(struct client *c, uint64_t sent_ns, const Hf__Result *r)
{
    struct session *s = &c->session;
    acknowledge(c, sent_ns, r);
    if (now_boot(c) >= s->deadline_boot_ns)
        return; /* It says no more than that the session was there once. */
    bool was_lost = s->lost, was_in_jeopardy = s->jeopardy;
    s->lost = s->jeopardy = false;
    watch_from(c);
    /* The third counts from when it was sent, not from when the answer came. */
    boot_timer_set(&c->timers, &s->keepalive, sent_ns + s->granted_ttl_ms * NS_PER_MS / 3);
    if (was_lost)
        tell(c, CLIENT_SESSION_RESUMED);
    else if (was_in_jeopardy)
        tell(c, CLIENT_SESSION_SAFE);
    watch_update(c); /* If a subscription was refused. */
    commands_on_session_kept(c);
}

static void open_later(struct client *c)
{
    struct session *s = &c->session;
    s->state = SESSION_NONE;
    forget_frames(s);
    uint64_t ms = client_backoff_ms(c, OPEN_BACKOFF_MS, OPEN_BACKOFF_MAX_MS, s->failures++);
    boot_timer_set(&c->timers, &s->keepalive, client_after_ms(c, ms));
}

bool session_on_result(struct client *c, uint64_t id, const Hf__Result *r)
{
    struct session *s = &c->session;
    uint64_t sent_ns;
    if (!take_frame(s, id, &sent_ns))
        return false;
    if (s->state == SESSION_CLOSING)
        client_on_session_closed(c);
    else if (s->state == SESSION_OPENING && r->code == WIRE_CODE_OK && r->session_id != 0)
        on_opened(c, sent_ns, r);
    else if (s->state == SESSION_OPENING)
        open_later(c);
    else if (r->code == WIRE_CODE_OK)
        on_kept(c, sent_ns, r);
    else if (r->code == WIRE_CODE_NO_SESSION || r->code == WIRE_CODE_SESSION_ENDED)
        session_on_ended(c, s->id);
    /* Else (a bound, ...) the timer sends the next one. */
    return true;
}

/* Not done: again soon, or with the next leader. */
bool session_on_failure(struct client *c, uint64_t id, const Hf__Failure *f)
{
    struct session *s = &c->session;
    uint64_t sent_ns;
    if (!take_frame(s, id, &sent_ns))
        return false;
    if (s->state == SESSION_CLOSING)
        client_on_session_closed(c);
    else if (s->state == SESSION_OPENING)
        open_later(c);
    else /* Whatever it is, there is nothing better than trying again. */
        boot_timer_set(&c->timers, &s->keepalive,
                       client_after_ms(c, client_backoff_ms(c, 20, s->granted_ttl_ms / 6 + 1, 0)));
    if (s->state == SESSION_NONE && f->code == HF__FAILURE__CODE__DENIED)
        commands_on_session_denied(c, f->text != NULL ? f->text : "");
    return true;
}

bool client_session_live(const struct client *c)
{
    const struct session *s = &c->session;
    return s->id != 0 && !s->lost && now_boot(c) < s->deadline_boot_ns;
}

bool client_session_jeopardy(const struct client *c)
{
    const struct session *s = &c->session;
    return s->id == 0 || s->lost || s->jeopardy;
}

void session_doubt(struct client *c)
{
    /* A keepalive under way was sent after the command, or it would have been answered before. */
    if (c->session.state == SESSION_OPEN && c->session.frame_id == 0 && c->route.primary != NULL)
        send_keepalive(c);
}

void session_on_ended(struct client *c, uint64_t id)
{
    struct session *s = &c->session;
    if (id == 0 || id != s->id || s->state == SESSION_CLOSING)
        return;
    s->id = 0;
    forget_frames(s);
    s->state = SESSION_NONE;
    s->deadline_boot_ns = s->acked_boot_ns = 0;
    s->lost = s->jeopardy = false;
    boot_timer_stop(&c->timers, &s->watch);
    boot_timer_set(&c->timers, &s->keepalive, 0);
    tell(c, CLIENT_SESSION_ENDED);
    commands_on_session_ended(c, id);
}

void session_on_primary(struct client *c)
{
    struct session *s = &c->session;
    if (s->state == SESSION_OPENING)
        s->state = SESSION_NONE;
    if (s->ttl_ms == 0 || s->state == SESSION_CLOSING)
        return;
    if (s->state == SESSION_NONE)
        send_open(c);
    else if (!s->keepalive.armed || s->jeopardy)
        send_keepalive(c);
}

void session_on_primary_lost(struct client *c)
{
    struct session *s = &c->session;
    bool waited = s->frame_id != 0;
    forget_frames(s);
    if (s->state == SESSION_CLOSING)
        client_on_session_closed(c);
    else if (waited && s->state == SESSION_OPEN)
        boot_timer_stop(&c->timers, &s->keepalive); /* With the next leader, at once. */
}

void session_init(struct client *c, uint64_t ttl_ms)
{
    struct session *s = &c->session;
    s->ttl_ms = ttl_ms;
    s->keepalive.cb = on_keepalive;
    s->keepalive.arg = c;
    s->watch.cb = on_watch;
    s->watch.arg = c;
}

void session_stop(struct client *c)
{
    boot_timer_stop(&c->timers, &c->session.keepalive);
    boot_timer_stop(&c->timers, &c->session.watch);
}

bool session_close(struct client *c)
{
    struct session *s = &c->session;
    Hf__Command command = HF__COMMAND__INIT;
    if (s->state != SESSION_OPEN || c->route.primary == NULL)
        return false;
    command.op = WIRE_OP_SESSION_CLOSE;
    s->state = SESSION_CLOSING;
    session_stop(c);
    forget_frames(s);
    send_frame(c, &command, s->seq_next++, now_boot(c));
    return true;
}
