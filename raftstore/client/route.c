/* Which node to talk to.
 *
 * Commands go to the primary: a connected node that says it leads.  While there is none, or while
 * it is silent or stuck, every known node is connected to and asked (Ping; the answer names the
 * leader) until one says "me".  Two may say so for a moment, an old leader and its successor: the
 * old one is left as soon as it admits, or is silent, and a wrong guess costs time only, since a
 * command repeated elsewhere is recognised by (session, seq).
 *
 * Each node has a circuit breaker (breaker.h).  What opens it: attempts to connect that fail,
 * broken connections, a ping without an answer.  What any answer closes; that of a node which does
 * not lead, or is busy, too.  An open one is left alone for a while: queries are asked of others,
 * and while there is a leader, it is only looked after by one attempt after each pause.  It never
 * keeps the client from the only node that could help: who has no leader puts up with short pauses
 * only, and when all are open the best of them is tried.  What is sent on a connection that stands
 * never depends on a breaker: keepalives are not held back by one. */
#include "raftstore/client/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define SEEK_TICK_MS      25  /* While seeking a leader, at first, */
#define SEEK_TICK_SLOW_MS 150 /* and after SEEK_FAST_MS. */
#define SEEK_FAST_MS      5000
#define BUSY_TICK_MS      50   /* With something unanswered. */
#define IDLE_TICK_MS      1000 /* With nothing. */
#define SILENT_PING_MS    200  /* Nothing heard though something is due: ping. */
#define SUSPECT_MS        200  /* The ping isn't answered either: look for another leader. */
#define IDLE_PING_MS      1000
#define DROP_MS           5000 /* Ping not answered: the connection is dead. */
#define SILENT_MS         1000 /* Ping not answered: the breaker opens, queries go elsewhere. */
#define LEADER_TRY_MS     20   /* Who is said to lead is tried so soon again, */
#define LEADER_PAUSE_MS   250  /* if he can be reached at all; else after this. */
#define SEEK_PAUSE_MS     1000 /* Without a leader: no longer pause. */
#define BEST_TRY_MS       100  /* All are open: the best is tried so often. */

static const struct breaker_rule rule = {
    .failures_max = 5,
    .retry_ns = 20 * NS_PER_MS,
    .open_ns = 500 * NS_PER_MS,
    .open_max_ns = 30 * NS_PER_S,
};

static uint64_t now_mono(const struct client *c)
{
    return clock_mono_ns(c->config.clock);
}

/* ---- The list of nodes ----------------------------------------------------------------- */

static struct peer *peer_by_text(struct client *c, const char *text)
{
    for (unsigned i = 0; i < c->route.n_peers; i++)
        if (strcmp(c->route.peers[i]->text, text) == 0)
            return c->route.peers[i];
    return NULL;
}

/* A node may be known under two addresses; the connected one is preferred. */
static struct peer *peer_by_id(struct client *c, uint64_t node_id)
{
    struct peer *found = NULL;
    for (unsigned i = 0; node_id != 0 && i < c->route.n_peers; i++) {
        struct peer *p = c->route.peers[i];
        if (p->node_id == node_id && (found == NULL || found->conn == NULL))
            found = p;
    }
    return found;
}

static struct peer *peer_add(struct client *c, const char *text, bool seed)
{
    struct address a;
    struct peer *p;
    if (address_parse(text, &a) < 0 || (!a.is_unix && a.port == 0))
        return NULL;
    if (c->route.n_peers == PEERS_MAX)
        return NULL;
    p = xcalloc(1, sizeof *p);
    p->client = c;
    p->address = a;
    p->seed = seed;
    p->listed = true;
    (void)address_format(&a, p->text, sizeof p->text);
    c->route.peers[c->route.n_peers++] = p;
    return p;
}

static void peer_drop_conn(struct peer *p)
{
    if (p->conn == NULL)
        return;
    struct client_conn *k = p->conn;
    p->conn = NULL;
    p->says_leader = p->greeted = false;
    p->pinged_mono_ns = 0;
    breaker_abandon(&p->breaker);
    client_conn_close(k);
    requests_on_lost(p->client, p);
}

static void peer_remove(struct client *c, unsigned at)
{
    struct peer *p = c->route.peers[at];
    peer_drop_conn(p);
    c->route.peers[at] = c->route.peers[--c->route.n_peers];
    free(p);
}

/* A node's client address, as the cluster tells it.  A seed keeps the address that we were given:
 * it is how we reach it. */
static struct peer *learn(struct client *c, uint64_t node_id, const char *text)
{
    struct peer *p = peer_by_id(c, node_id);
    if (p != NULL || text == NULL || text[0] == '\0')
        return p;
    p = peer_by_text(c, text);
    if (p == NULL && strncmp(text, "unix:", 5) != 0)
        p = peer_add(c, text, false);
    if (p != NULL && p->conn == NULL)
        p->node_id = node_id;
    return p;
}

/* A whole member list: forget learned addresses that are in it no more. */
static void learn_members(struct client *c, const Hf__NodeHello *hello)
{
    struct route *r = &c->route;
    if (hello->n_members == 0)
        return;
    for (unsigned i = 0; i < r->n_peers; i++)
        r->peers[i]->listed = false;
    for (size_t i = 0; i < hello->n_members; i++) {
        const Hf__Member *m = hello->members[i];
        struct peer *p = peer_by_id(c, m->node_id);
        if (p != NULL && !p->seed && p->conn == NULL && strcmp(p->text, m->client_address) != 0)
            p->node_id = 0; /* It moved: its new address is added, the old one goes below. */
        p = learn(c, m->node_id, m->client_address);
        if (p != NULL)
            p->listed = true;
    }
    for (unsigned i = r->n_peers; i-- > 0;) {
        struct peer *p = r->peers[i];
        if (!p->seed && !p->listed && p->conn == NULL)
            peer_remove(c, i);
    }
}

/* The same node under two addresses: one connection is enough. */
static void drop_twins(struct client *c, struct peer *p)
{
    for (unsigned i = c->route.n_peers; i-- > 0;) {
        struct peer *q = c->route.peers[i];
        if (q != p && q->node_id == p->node_id && !q->seed && q != c->route.primary)
            peer_remove(c, i);
    }
}

/* ---- Connections ----------------------------------------------------------------------- */

static void peer_on_wake(void *arg)
{
    client_wake(((struct peer *)arg)->client);
}

static void demote(struct client *c, struct peer *p)
{
    p->says_leader = false;
    if (c->route.primary != p)
        return;
    c->route.primary = NULL;
    c->route.seek_mono_ns = now_mono(c);
    client_on_primary_lost(c);
    boot_timer_set(&c->timers, &c->route.tick, 0);
}

/* Is the primary doubtful enough that another one's claim counts? */
static bool suspect(const struct client *c, const struct peer *p, uint64_t now)
{
    if (p->pinged_mono_ns != 0 && now - p->pinged_mono_ns > SUSPECT_MS * NS_PER_MS)
        return true;
    uint64_t boot = clock_boot_ns(c->config.clock);
    const struct command *k = TAILQ_FIRST(&c->commands.assigned);
    /* The oldest ones, as far as a few looks find one: waiters stand at the front. */
    for (unsigned i = 0; k != NULL && i < 64; i++, k = TAILQ_NEXT(k, link))
        if (k->state == COMMAND_SENT && k->serial == p->serial &&
            boot - k->last_boot_ns > 3 * SUSPECT_MS * NS_PER_MS)
            return true;
    return false;
}

/* Connections that were made while seeking; those that find out about a node go on. */
static void drop_others(struct client *c)
{
    for (unsigned i = 0; i < c->route.n_peers; i++) {
        struct peer *p = c->route.peers[i];
        if (p != c->route.primary && p->breaker.state != BREAKER_HALF_OPEN)
            peer_drop_conn(p);
    }
}

static void trip(struct client *c, struct peer *p, uint64_t now)
{
    if (breaker_trip(&p->breaker, &rule, now, random_next(&c->random)))
        (void)snprintf(c->route.error, sizeof c->route.error, "%.120s: no answer any more",
                       p->text);
}

static void promote(struct client *c, struct peer *p)
{
    struct route *r = &c->route;
    if (r->primary == p)
        return;
    if (r->primary != NULL) {
        struct peer *old = r->primary;
        uint64_t now = now_mono(c);
        r->primary = NULL;
        if (old->pinged_mono_ns != 0 && now - old->pinged_mono_ns > SUSPECT_MS * NS_PER_MS)
            trip(c, old, now);
        client_on_primary_lost(c);
        old->says_leader = false;
    }
    r->primary = p;
    r->seek_mono_ns = 0;
    r->idle = false;
    if (!c->config.pinned)
        drop_others(c);
    client_on_primary(c);
    boot_timer_set(&c->timers, &r->tick, client_after_ms(c, BUSY_TICK_MS));
}

static void peer_connect(struct peer *p);

/* Who is said to lead, by one that should know, is tried sooner than others are. */
static void try_leader(struct client *c, struct peer *leader)
{
    uint64_t now = now_mono(c);
    if (leader->conn == NULL && now - leader->tried_mono_ns > LEADER_TRY_MS * NS_PER_MS &&
        breaker_allows(&leader->breaker, now, LEADER_PAUSE_MS * NS_PER_MS))
        peer_connect(leader);
}

/* What a node said about who leads. */
static void
heard_of_leader(struct client *c, struct peer *p, uint64_t leader_id, struct peer *leader)
{
    struct route *r = &c->route;
    p->says_leader = leader_id != 0 && leader_id == p->node_id;
    if (leader_id != 0 || p == r->primary)
        r->leader_id = leader_id;
    if (c->config.pinned) {
        if (r->primary == NULL)
            promote(c, p);
        return;
    }
    if (p->says_leader) {
        if (r->primary == NULL || suspect(c, r->primary, now_mono(c)))
            promote(c, p);
        return;
    }
    if (p == r->primary)
        demote(c, p);
    if (r->primary == NULL && leader != NULL)
        try_leader(c, leader);
    requests_pump(c);
}

static void peer_on_hello(void *arg, const Hf__NodeHello *hello)
{
    struct peer *p = arg;
    struct client *c = p->client;
    p->node_id = hello->node_id;
    p->greeted = true;
    breaker_succeed(&p->breaker);
    drop_twins(c, p);
    if (!c->config.pinned)
        learn_members(c, hello);
    struct peer *leader =
        c->config.pinned ? NULL : learn(c, hello->leader_id, hello->leader_client_address);
    heard_of_leader(c, p, hello->leader_id, leader);
}

static void peer_on_frame(void *arg, const Hf__NodeFrame *frame)
{
    struct peer *p = arg;
    struct client *c = p->client;
    breaker_succeed(&p->breaker);
    if (frame->body_case != HF__NODE_FRAME__BODY_PONG) {
        client_on_frame(c, p, frame);
        return;
    }
    p->pinged_mono_ns = 0;
    heard_of_leader(c, p, frame->pong->leader_id, peer_by_id(c, frame->pong->leader_id));
}

static void peer_on_lost(void *arg, int error, const char *text)
{
    struct peer *p = arg;
    struct client *c = p->client;
    uint64_t now = now_mono(c), random = random_next(&c->random);
    bool was_ready = p->greeted;
    p->conn = NULL;
    p->greeted = false;
    p->pinged_mono_ns = 0;
    if (error == UV_EPROTONOSUPPORT) /* It will say the same next time. */
        (void)breaker_trip(&p->breaker, &rule, now, random);
    else
        (void)breaker_fail(&p->breaker, &rule, now, random);
    (void)snprintf(c->route.error, sizeof c->route.error, "%.120s: %.70s", p->text, text);
    c->n_reconnects += was_ready;
    requests_on_lost(c, p);
    demote(c, p);
}

static void peer_on_freed(void *arg)
{
    client_unref(arg);
}

static const struct client_conn_handler peer_handler = {
    .on_wake = peer_on_wake,
    .on_hello = peer_on_hello,
    .on_frame = peer_on_frame,
    .on_lost = peer_on_lost,
    .on_freed = peer_on_freed,
};

static void peer_connect(struct peer *p)
{
    struct client *c = p->client;
    struct client_conn_config config = {
        .loop = c->config.loop,
        .clock = c->config.clock,
        .address = &p->address,
        .agent = c->agent,
        .host = c->host,
        .connect_timeout_ms = c->config.connect_timeout_ms,
        .tls = c->config.tls,
        .arena = &c->arena,
        .handler = &peer_handler,
        .arg = p,
        .freed_arg = c,
    };
    c->n_refs++;
    p->says_leader = p->greeted = false;
    p->pinged_mono_ns = 0;
    p->tried_mono_ns = now_mono(c);
    breaker_begin(&p->breaker);
    p->serial = ++c->route.n_connections;
    p->conn = client_conn_new(&config);
}

/* ---- Looking after them ---------------------------------------------------------------- */

static void ping(struct peer *p, uint64_t now)
{
    Hf__Ping body = HF__PING__INIT;
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    frame.id = p->client->id_next++;
    frame.body_case = HF__CLIENT_FRAME__BODY_PING;
    frame.ping = &body;
    pack_add_frame(client_conn_out(p->conn), &frame.base);
    p->pinged_mono_ns = now;
}

static bool something_due(const struct client *c)
{
    return c->commands.n_wire > 0 || c->requests.n > 0 || c->session.frame_id != 0;
}

/* The primary: ping it when it is silent; drop it when it stays so. */
static void watch_primary(struct client *c, uint64_t now)
{
    struct peer *p = c->route.primary;
    uint64_t heard = client_conn_heard_mono_ns(p->conn);
    uint64_t silent = now > heard ? now - heard : 0;
    uint64_t limit = something_due(c) ? SILENT_PING_MS : IDLE_PING_MS;
    if (p->pinged_mono_ns != 0 && heard > p->pinged_mono_ns)
        p->pinged_mono_ns = 0; /* It speaks, if not yet of our ping. */
    if (p->pinged_mono_ns != 0 && now - p->pinged_mono_ns > DROP_MS * NS_PER_MS) {
        struct client_conn *k = p->conn;
        p->conn = NULL;
        client_conn_close(k);
        peer_on_lost(p, UV_ETIMEDOUT, "no answer any more");
    } else if (p->pinged_mono_ns != 0 && now - p->pinged_mono_ns > SILENT_MS * NS_PER_MS) {
        trip(c, p, now);
        if (route_any(c) != p)
            requests_on_silent(c, p);
    } else if (p->pinged_mono_ns == 0 && (silent > limit * NS_PER_MS || suspect(c, p, now))) {
        ping(p, now);
    }
}

/* One node while seeking: connect to it, or ask it again who leads. */
static void ask(struct client *c, struct peer *p, uint64_t now)
{
    if (p->conn == NULL) {
        if (breaker_allows(&p->breaker, now, SEEK_PAUSE_MS * NS_PER_MS))
            peer_connect(p);
    } else if (client_conn_ready(p->conn) && p->pinged_mono_ns == 0) {
        ping(p, now);
    } else if (p->pinged_mono_ns != 0 && p != c->route.primary &&
               now - p->pinged_mono_ns > 1000 * NS_PER_MS) {
        struct client_conn *k = p->conn; /* Stopped or cut off: a fresh connection may do better. */
        p->conn = NULL;
        client_conn_close(k);
        peer_on_lost(p, UV_ETIMEDOUT, "no answer any more");
    }
}

/* No node is connected, nor being connected to, since all breakers are open: the best of them. */
static void try_best(struct client *c, uint64_t now)
{
    const struct breaker *list[PEERS_MAX] = {NULL};
    struct route *r = &c->route;
    for (unsigned i = 0; i < r->n_peers; i++) {
        const struct peer *p = r->peers[i];
        assert(p != NULL);
        if (p->conn != NULL || now - p->tried_mono_ns < BEST_TRY_MS * NS_PER_MS)
            return;
        list[i] = &p->breaker;
    }
    size_t best = breaker_best(list, r->n_peers);
    if (best < r->n_peers && list[best]->state == BREAKER_OPEN)
        peer_connect(r->peers[best]);
}

static void look_around(struct client *c)
{
    struct route *r = &c->route;
    uint64_t now = now_mono(c);
    /* A first attempt goes to one seed, and to the others if it doesn't help at once. */
    unsigned n = r->n_connections == 0 ? 1 : r->n_peers;
    for (unsigned i = 0; i < n && i < r->n_peers; i++)
        if (r->peers[i] != r->primary)
            ask(c, r->peers[i], now);
    try_best(c, now);
}

/* Those that did not answer, while there is a leader: one attempt after each pause. */
static void probe(struct client *c, uint64_t now)
{
    for (unsigned i = 0; i < c->route.n_peers; i++) {
        struct peer *p = c->route.peers[i];
        if (p->conn == NULL && p->breaker.state == BREAKER_OPEN &&
            breaker_allows(&p->breaker, now, UINT64_MAX))
            peer_connect(p);
    }
}

static void on_tick(struct boot_timer *t)
{
    struct client *c = t->arg;
    struct route *r = &c->route;
    uint64_t now = now_mono(c);
    uint64_t next_ms = something_due(c) ? BUSY_TICK_MS : IDLE_TICK_MS;
    if (c->stopped)
        return;
    if (r->primary != NULL)
        watch_primary(c, now);
    if (r->primary == NULL || (!c->config.pinned && suspect(c, r->primary, now))) {
        look_around(c);
        bool slow = r->seek_mono_ns != 0 && now - r->seek_mono_ns > SEEK_FAST_MS * NS_PER_MS;
        next_ms = slow ? SEEK_TICK_SLOW_MS : SEEK_TICK_MS;
        next_ms += random_below(&c->random, next_ms / 4);
    } else if (!c->config.pinned) {
        drop_others(c);
        probe(c, now);
    }
    if (r->primary != NULL && r->primary->pinged_mono_ns != 0 && next_ms > BUSY_TICK_MS)
        next_ms = BUSY_TICK_MS; /* Its answer is due. */
    r->idle = next_ms == IDLE_TICK_MS;
    boot_timer_set(&c->timers, &r->tick, client_after_ms(c, next_ms));
}

void route_expect(struct client *c)
{
    if (!c->route.idle)
        return;
    c->route.idle = false;
    boot_timer_set(&c->timers, &c->route.tick, client_after_ms(c, BUSY_TICK_MS));
}

/* ---- In and out ------------------------------------------------------------------------ */

int route_init(struct client *c, const char *addresses)
{
    char *list = xstrdup(addresses), *rest = list, *word;
    int rc = 0;
    c->route.tick.cb = on_tick;
    c->route.tick.arg = c;
    while (rc == 0 && (word = strsep(&rest, ",")) != NULL) {
        struct address a;
        char text[300];
        if (c->route.n_peers == CLIENT_ADDRESSES_MAX || address_parse(word, &a) < 0 ||
            (!a.is_unix && a.port == 0))
            rc = -EINVAL;
        else if (peer_by_text(c, address_format(&a, text, sizeof text)) == NULL)
            (void)peer_add(c, text, true); /* Can't fail: parsed and counted above. */
    }
    free(list);
    if (rc < 0)
        route_deinit(c);
    return rc;
}

void route_start(struct client *c)
{
    c->route.seek_mono_ns = now_mono(c);
    boot_timer_set(&c->timers, &c->route.tick, 0);
}

void route_stop(struct client *c)
{
    boot_timer_stop(&c->timers, &c->route.tick);
    c->route.idle = false;
    c->route.primary = NULL;
    for (unsigned i = 0; i < c->route.n_peers; i++)
        peer_drop_conn(c->route.peers[i]);
}

void route_deinit(struct client *c)
{
    for (unsigned i = 0; i < c->route.n_peers; i++)
        free(c->route.peers[i]);
    c->route.n_peers = 0;
}

struct peer *route_any(struct client *c)
{
    struct route *r = &c->route;
    struct peer *found = r->primary;
    if (found != NULL && found->breaker.state == BREAKER_CLOSED)
        return found;
    for (unsigned i = 0; i < r->n_peers; i++) {
        struct peer *p = r->peers[i];
        if (p->conn == NULL || !client_conn_ready(p->conn))
            continue;
        if (p->breaker.state == BREAKER_CLOSED)
            return p;
        if (found == NULL)
            found = p;
    }
    return found;
}

bool client_in_touch(const struct client *c)
{
    const struct peer *p = c->route.primary;
    return p != NULL &&
           (p->pinged_mono_ns == 0 || now_mono(c) - p->pinged_mono_ns < SUSPECT_MS * NS_PER_MS);
}

unsigned client_nodes(const struct client *c, struct client_node *ret_nodes, unsigned max)
{
    const struct route *r = &c->route;
    unsigned n = 0;
    for (; n < r->n_peers && n < max; n++) {
        const struct peer *p = r->peers[n];
        ret_nodes[n] =
            (struct client_node){.node_id = p->node_id,
                                 .connected = p->conn != NULL && client_conn_ready(p->conn),
                                 .leads = p == r->primary,
                                 .breaker = breaker_state_names[p->breaker.state],
                                 .n_opened = p->breaker.n_opened};
        (void)snprintf(ret_nodes[n].address, sizeof ret_nodes[n].address, "%s", p->text);
    }
    return n;
}

void route_not_leader(struct client *c, struct peer *p, uint64_t leader_id, const char *address)
{
    struct peer *leader = learn(c, leader_id, address);
    if (leader_id == p->node_id)
        leader_id = 0; /* It says both: not to be believed. */
    if (p->conn == NULL || c->config.pinned)
        return;
    heard_of_leader(c, p, leader_id, leader);
}
