#include "tests/sim/app.h"

#include "raftstore/client/client.h"
#include "raftstore/client/lease.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"
#include "tests/sim/cable.h"
#include "tests/sim/site.h"

#include <assert.h>
#include <bsd/sys/queue.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATHS_MAX 8u
#define SLACK_NS  (300 * NS_PER_MS) /* From a time-out to its answer. */

struct hold {
    struct app *app;
    unsigned path;
    bool asked;     /* An acquire, or a rename, is on its way. */
    bool leaving;   /* A release is on its way. */
    uint64_t token; /* 0 = none. */
    enum lock_mode mode;
    uint32_t limit;
    struct client_lease *lease; /* NULL = it hangs on the session. */
    uint64_t handle;            /* Of the acquire. */
    uint64_t owner;             /* Of the last acquire; see acquire(). */
    bool ran_out;               /* That one was not answered in time. */
    bool for_session;           /* It asked for a hold of the session. */
    uint64_t n_renewals;        /* Sent. */
};

/* A command or a query that is to be answered. */
struct op {
    LIST_ENTRY(op) link;
    struct app *app;
    uint64_t incarnation;
    struct hold *hold;
    uint32_t op; /* 0 = a query. */
    enum lock_mode mode;
    uint32_t limit;
    uint64_t ttl_ms;
    uint64_t number;      /* A renewal: its number of the hold's. */
    uint64_t due_ns;      /* Own clock: it is answered by then; UINT64_MAX = some time. */
    uint64_t acked_index; /* A query: what was acknowledged when it was asked. */
    uint64_t token;       /* A query: what the application held alone then. */
};

struct app {
    struct site site;
    struct client *client;
    uint64_t incarnation;
    uint64_t n_owners;
    uint64_t asleep_ns; /* The world's time until which it is stopped. */
    uint64_t awake_ns;  /* Own clock: since when it runs again. */
    unsigned n_paths;
    struct hold holds[PATHS_MAX];
    LIST_HEAD(, op) ops;
    struct app_counts counts;
    bool ending; /* The run is over. */
};

static uint64_t now_ns(const struct app *a)
{
    return clock_boot_ns(&a->site.clock.clock);
}

/* ---- Beliefs ----------------------------------------------------------------------------- */

struct app_belief app_believes(const struct app *a, unsigned path)
{
    const struct hold *h = &a->holds[path];
    bool holds = a->client != NULL && h->token != 0 && !h->leaving &&
                 (h->lease != NULL ? now_ns(a) < client_lease_deadline_boot_ns(h->lease)
                                   : client_session_live(a->client));
    return (struct app_belief){holds ? h->token : 0, h->mode, h->limit};
}

static void forget(struct hold *h)
{
    client_lease_free(h->lease);
    h->lease = NULL;
    h->token = 0;
    h->leaving = false;
}

static void on_lost(void *arg, struct client_lease *l, uint32_t reason)
{
    struct hold *h = arg;
    (void)l;
    (void)reason;
    h->app->counts.lost++;
    h->token = 0; /* The lease is freed at the next thought: this call comes out of it. */
}

static void on_session(void *arg, enum client_session_event event)
{
    struct app *a = arg;
    world_trace(a->site.world, "app %u session event %d", a->site.number, (int)event);
    if (event == CLIENT_SESSION_LOST)
        a->counts.sessions_lost++;
    if (event == CLIENT_SESSION_RESUMED) {
        a->counts.resumed++;
        for (unsigned i = 0; i < a->n_paths; i++)
            world_believed(a->site.world, a->site.number, i);
    }
    if (event != CLIENT_SESSION_OPENED && event != CLIENT_SESSION_ENDED)
        return;
    for (unsigned i = 0; i < a->n_paths; i++) {
        struct hold *h = &a->holds[i];
        if (h->token != 0 && h->lease == NULL)
            forget(h);
    }
}

static void on_event(void *arg, const Hf__Event *e)
{
    struct app *a = arg;
    if (e->type != WIRE_EFFECT_ENDED)
        return;
    for (unsigned i = 0; i < a->n_paths; i++) {
        struct hold *h = &a->holds[i];
        if (h->token != e->token || h->token == 0)
            continue;
        if (h->lease != NULL)
            client_lease_ended(h->lease, e->code);
        else
            forget(h);
    }
}

static void on_gap(void *arg)
{
    struct app *a = arg;
    world_trace(a->site.world, "app %u missed events", a->site.number);
}

/* ---- Operations -------------------------------------------------------------------------- */

static struct op *op_begin(struct hold *h, uint32_t what, uint64_t timeout_ms)
{
    struct op *o = xcalloc(1, sizeof *o);
    struct app *a = h->app;
    o->app = a;
    o->incarnation = a->incarnation;
    o->hold = h;
    o->op = what;
    o->due_ns = timeout_ms == CLIENT_NO_TIMEOUT ? UINT64_MAX : now_ns(a) + timeout_ms * NS_PER_MS;
    LIST_INSERT_HEAD(&a->ops, o, link);
    return o;
}

/* Return: false: it is of a process that has died. */
static bool op_end(struct op *o)
{
    struct app *a = o->app;
    LIST_REMOVE(o, link);
    if (o->incarnation != a->incarnation)
        return false;
    a->counts.done++;
    a->counts.done_after_heal += world_is_healed(a->site.world);
    return true;
}

static void granted(struct op *o, const struct client_result *r)
{
    struct hold *h = o->hold;
    struct app *a = o->app;
    a->counts.grants++;
    h->token = r->result->token;
    h->mode = o->mode;
    h->limit = o->limit;
    h->leaving = false;
    if (o->ttl_ms != 0) {
        char path[16];
        (void)snprintf(path, sizeof path, "job%u", h->path);
        h->lease =
            client_lease_new(a->client, bytes_str(path), h->token, o->ttl_ms, r->deadline_boot_ns,
                             world_chance(a->site.world, 400), on_lost, h);
        world_promised(a->site.world, h->token, r->result->deadline_ns);
    }
    world_trace(a->site.world, "app %u granted %u: token %llu%s", a->site.number, h->path,
                (unsigned long long)h->token, o->ttl_ms == 0 ? " of the session" : "");
    world_trace(a->site.world, "app %u: now %llu, until %llu", a->site.number,
                (unsigned long long)now_ns(a), (unsigned long long)r->deadline_boot_ns);
    world_believed(a->site.world, a->site.number, h->path);
}

static void renewed(struct op *o, const struct client_result *r)
{
    struct hold *h = o->hold;
    if (h->token != o->token || h->lease == NULL)
        return; /* Lost meanwhile. */
    world_trace(
        o->app->site.world, "app %u: renewal %llu of token %llu: status %d, now %llu, until %llu",
        o->app->site.number, (unsigned long long)o->number, (unsigned long long)o->token, r->status,
        (unsigned long long)now_ns(o->app), (unsigned long long)r->deadline_boot_ns);
    if (r->status == 0 && r->result->code == WIRE_CODE_OK) {
        if (o->number == h->n_renewals)
            world_promised(o->app->site.world, h->token, r->result->deadline_ns);
        client_lease_renewed(h->lease, r->result->stamp_ns, o->ttl_ms, r->deadline_boot_ns);
        world_believed(o->app->site.world, o->app->site.number, h->path);
    } else if (r->status == 0 && r->result->code != WIRE_CODE_NO_SESSION) {
        client_lease_ended(h->lease, r->result->code);
    }
    if (h->lease == NULL)
        return;
    if (r->status != 0 || r->result->code == WIRE_CODE_NO_SESSION)
        client_lease_shortened(h->lease, CLIENT_LEASE_UNKNOWN);
    else
        client_lease_shortened(h->lease, r->result->code == WIRE_CODE_OK
                                             ? CLIENT_LEASE_RENEWED
                                             : CLIENT_LEASE_NOT_RENEWED);
}

static void on_result(void *arg, const struct client_result *r)
{
    struct op *o = arg;
    struct app *a = o->app;
    struct hold *h = o->hold;
    bool live = op_end(o);
    bool ok = r->status == 0 && r->result->code == WIRE_CODE_OK;
    if (r->status == 0)
        world_acknowledged(a->site.world, r->result->index);
    if (live) {
        a->counts.timeouts += r->status == -ETIMEDOUT;
        a->counts.canceled += r->status == 0 && r->result->code == WIRE_CODE_CANCELED;
        if (r->status == -EINVAL || (r->status == 0 && r->result->code == WIRE_CODE_INVALID))
            world_fail(a->site.world, "app %u: command %u is called malformed", a->site.number,
                       o->op);
        if (o->op == WIRE_OP_ACQUIRE) {
            h->asked = false;
            h->ran_out = r->status == -ETIMEDOUT;
            if (ok)
                granted(o, r);
        } else if (o->op == WIRE_OP_RENEW) {
            renewed(o, r);
        } else if (o->op == WIRE_OP_RELEASE && h->token == o->token) {
            h->token = 0;
            h->leaving = false;
        }
    }
    free(o);
}

static void send_command(struct op *o, Hf__Command *m, uint64_t timeout_ms, uint64_t *ret_handle)
{
    char path[16];
    (void)snprintf(path, sizeof path, "job%u", o->hold->path);
    ProtobufCBinaryData paths[1] = {{strlen(path), (uint8_t *)path}};
    m->op = o->op;
    m->n_paths = 1;
    m->paths = paths;
    int rv = client_command(o->app->client, m, timeout_ms, on_result, o, ret_handle);
    if (rv < 0)
        world_fail(o->app->site.world, "app %u: client_command: %s", o->app->site.number,
                   strerror(-rv));
}

/* Who was told nothing asks as the same owner again, for the same, or as another one. */
static void choose_claim(struct hold *h, struct op *o)
{
    struct world *w = h->app->site.world;
    bool again = h->ran_out && world_chance(w, 700);
    h->ran_out = false;
    if (!again) {
        h->owner = ++h->app->n_owners;
        h->for_session = world_chance(w, 400);
        h->mode = world_chance(w, 200) ? LOCK_SHARED : LOCK_EXCLUSIVE;
        h->limit = 0;
        if (h->mode == LOCK_EXCLUSIVE && h->path % 2 == 1 && world_chance(w, 800))
            h->limit = world_chance(w, 850) ? 1 + h->path : 1 + (uint32_t)world_below(w, 4);
    }
    o->mode = h->mode;
    o->limit = h->limit;
    o->ttl_ms = h->for_session ? 0 : world_between(w, 100, world_chance(w, 200) ? 4000 : 1500);
}

static void acquire(struct hold *h)
{
    struct app *a = h->app;
    struct world *w = a->site.world;
    Hf__Command m = HF__COMMAND__INIT;
    char owner[48];
    uint64_t timeout_ms = world_between(w, 100, 3000);
    struct op *o = op_begin(h, WIRE_OP_ACQUIRE, timeout_ms);
    choose_claim(h, o);
    (void)snprintf(owner, sizeof owner, "a%u.%llu.%llu", a->site.number,
                   (unsigned long long)a->incarnation, (unsigned long long)h->owner);
    m.owner = (ProtobufCBinaryData){strlen(owner), (uint8_t *)owner};
    m.mode = o->mode;
    m.limit = o->limit;
    m.ttl_ms = o->ttl_ms;
    if (world_chance(w, 600)) {
        m.wait_ms = world_between(w, 200, 2500);
        o->due_ns = UINT64_MAX;
        a->counts.waited++;
    }
    h->asked = true;
    world_trace(w, "app %u asks for job%u as %s, waits %llu ms, time-out %llu ms", a->site.number,
                h->path, owner, (unsigned long long)m.wait_ms, (unsigned long long)timeout_ms);
    send_command(o, &m, timeout_ms, &h->handle);
}

static void renew(struct hold *h)
{
    struct world *w = h->app->site.world;
    Hf__Command m = HF__COMMAND__INIT;
    bool short_of_time = world_chance(w, 300); /* And soon told nothing, if it is not answered. */
    uint64_t timeout_ms = world_between(w, 100, short_of_time ? 200 : 2000);
    struct op *o = op_begin(h, WIRE_OP_RENEW, timeout_ms);
    m.token = o->token = h->token;
    m.ttl_ms = o->ttl_ms = world_between(w, 100, short_of_time ? 400 : 1500);
    o->number = ++h->n_renewals;
    client_lease_shorten(h->lease, m.ttl_ms);
    world_trace(w, "app %u renews token %llu for %llu ms", h->app->site.number,
                (unsigned long long)h->token, (unsigned long long)m.ttl_ms);
    world_unpromised(w, h->token);
    send_command(o, &m, timeout_ms, NULL);
}

static void release(struct hold *h)
{
    Hf__Command m = HF__COMMAND__INIT;
    struct op *o = op_begin(h, WIRE_OP_RELEASE, CLIENT_NO_TIMEOUT);
    m.token = o->token = h->token;
    client_lease_free(h->lease);
    h->lease = NULL;
    h->leaving = true;
    send_command(o, &m, CLIENT_NO_TIMEOUT, NULL);
}

static bool shows_token(const Hf__QueryReply *q, uint64_t token)
{
    for (size_t i = 0; i < q->n_nodes; i++) {
        for (size_t j = 0; j < q->nodes[i]->n_holds; j++) {
            if (q->nodes[i]->holds[j]->token == token)
                return true;
        }
    }
    return false;
}

static void on_reply(void *arg, const struct client_reply *r)
{
    struct op *o = arg;
    struct app *a = o->app;
    if (op_end(o) && r->status == 0) {
        struct app_belief now = app_believes(a, o->hold->path);
        a->counts.reads++;
        if (r->query->index < o->acked_index)
            world_fail(a->site.world, "app %u reads at index %llu, %llu was acknowledged before",
                       a->site.number, (unsigned long long)r->query->index,
                       (unsigned long long)o->acked_index);
        if (o->token != 0 && now.token == o->token && !shows_token(r->query, o->token))
            world_fail(a->site.world, "app %u holds token %llu all the time, a read denies it",
                       a->site.number, (unsigned long long)o->token);
    }
    free(o);
}

static void look(struct hold *h)
{
    struct app *a = h->app;
    Hf__Query q = HF__QUERY__INIT;
    char path[16];
    uint64_t timeout_ms = world_between(a->site.world, 50, 1500);
    struct op *o = op_begin(h, 0, timeout_ms);
    (void)snprintf(path, sizeof path, "job%u", h->path);
    q.what = HF__QUERY__WHAT__SHOW;
    q.path = (ProtobufCBinaryData){strlen(path), (uint8_t *)path};
    o->acked_index = world_acked_index(a->site.world);
    o->token = app_believes(a, h->path).token;
    if (client_query(a->client, &q, timeout_ms, false, on_reply, o) < 0)
        world_fail(a->site.world, "app %u: client_query fails", a->site.number);
}

/* ---- Life -------------------------------------------------------------------------------- */

static void start(struct app *a)
{
    char addresses[64] = "";
    for (unsigned i = 0; i < world_n_nodes(a->site.world); i++)
        (void)snprintf(addresses + strlen(addresses), sizeof addresses - strlen(addresses),
                       "%sn%u:2", i == 0 ? "" : ",", i + 1);
    char host[16];
    (void)snprintf(host, sizeof host, "app%u", a->site.number);
    struct client_config config = {
        .loop = &a->site.loop,
        .clock = &a->site.clock.clock,
        .seed = world_below(a->site.world, UINT64_MAX - 1) + 1,
        .addresses = addresses,
        .agent = "sim",
        .host = host,
        .session_ttl_ms = world_between(a->site.world, 800, 3000),
        .connect_timeout_ms = 300,
        .events_session = true,
        .on_session = on_session,
        .on_event = on_event,
        .on_gap = on_gap,
        .arg = a,
    };
    site_enter(&a->site);
    if (client_new(&config, &a->client) < 0)
        world_fail(a->site.world, "app %u can't make a client", a->site.number);
    world_trace(a->site.world, "app %u starts", a->site.number);
}

static void on_restart(struct call *c)
{
    struct app *a = c->arg;
    if (!a->ending)
        start(a);
}

static void on_abandoned(void *arg)
{
    struct app *a = arg;
    if (!a->ending)
        world_call(a->site.world, world_between(a->site.world, NS_PER_MS, 500 * NS_PER_MS),
                   on_restart, a);
}

/* The process dies: what it held it believes no more. */
static void crash(struct app *a)
{
    struct client *c = a->client;
    world_trace(a->site.world, "app %u dies", a->site.number);
    a->counts.crashes++;
    for (unsigned i = 0; i < a->n_paths; i++) {
        forget(&a->holds[i]);
        a->holds[i].asked = false;
    }
    a->incarnation++;
    a->client = NULL;
    client_abandon(c, on_abandoned, a);
}

static void check_answered(struct app *a)
{
    struct op *o;
    LIST_FOREACH(o, &a->ops, link)
    {
        uint64_t due_ns = o->due_ns > a->awake_ns ? o->due_ns : a->awake_ns;
        if (o->due_ns != UINT64_MAX && o->incarnation == a->incarnation &&
            now_ns(a) > due_ns + SLACK_NS)
            world_fail(a->site.world, "app %u: command %u is not answered in time", a->site.number,
                       o->op);
    }
}

static void act(struct app *a)
{
    struct world *w = a->site.world;
    struct hold *h = &a->holds[world_below(w, a->n_paths)];
    if (h->token == 0 && h->lease != NULL)
        forget(h);
    if (world_chance(w, 400)) {
        look(h);
    } else if (h->asked) {
        if (world_chance(w, 150)) {
            world_trace(w, "app %u cancels job%u", a->site.number, h->path);
            client_cancel(a->client, h->handle);
        }
    } else if (h->token == 0) {
        acquire(h);
    } else if (h->leaving) {
        return;
    } else if (h->lease != NULL && world_chance(w, 500)) {
        if (world_chance(w, 300))
            client_lease_keep(h->lease, world_chance(w, 500));
        else
            renew(h);
    } else {
        release(h);
    }
}

static void give_back(struct app *a)
{
    for (unsigned i = 0; i < a->n_paths; i++) {
        struct hold *h = &a->holds[i];
        if (h->token == 0 && h->lease != NULL)
            forget(h);
        else if (h->token != 0 && !h->leaving)
            release(h);
    }
}

void app_think(struct app *a)
{
    struct world *w = a->site.world;
    if (a->client == NULL)
        return;
    site_enter(&a->site);
    check_answered(a);
    for (unsigned i = 0; i < a->n_paths; i++)
        world_believed(w, a->site.number, i);
    if (!world_is_healed(w) && world_chance(w, 4)) {
        crash(a);
        return;
    }
    if (!world_is_healed(w) && world_chance(w, 8)) {
        uint64_t ns = world_between(w, 10 * NS_PER_MS, 2500 * NS_PER_MS);
        world_trace(w, "app %u stops for %.3f s", a->site.number, (double)ns / 1e9);
        a->asleep_ns = world_now_ns(w) + ns;
        a->awake_ns =
            clock_local_ns(a->asleep_ns, a->site.clock.drift_ppm, a->site.clock.offset_ns);
        return;
    }
    if (world_is_healed(w) && world_healed_ns(w) + QUIET_NS < world_now_ns(w)) {
        give_back(a);
        return;
    }
    if (world_chance(w, 700))
        act(a);
}

uint64_t app_asleep_ns(const struct app *a)
{
    return a->asleep_ns;
}

struct app_counts app_counts(const struct app *a)
{
    return a->counts;
}

struct app *app_new(struct world *w, unsigned number, unsigned n_paths)
{
    struct app *a = xcalloc(1, sizeof *a);
    site_init(&a->site, w, number);
    a->n_paths = n_paths < PATHS_MAX ? n_paths : PATHS_MAX;
    LIST_INIT(&a->ops);
    for (unsigned i = 0; i < a->n_paths; i++)
        a->holds[i] = (struct hold){.app = a, .path = i};
    start(a);
    return a;
}

void app_stop(struct app *a)
{
    a->ending = true;
    site_enter(&a->site);
    a->asleep_ns = 0;
    if (a->client != NULL)
        crash(a);
}

void app_free(struct app *a)
{
    assert(LIST_EMPTY(&a->ops)); /* The library calls back for each. */
    free(a);
}

/* ---- The end ----------------------------------------------------------------------------- */

struct leak_search {
    struct app *app;
    const struct lock_table *table;
    char prefix[32];
};

static bool visit_hold(void *arg, const struct lock_hold_view *v)
{
    struct leak_search *s = arg;
    struct app *a = s->app;
    size_t n = strlen(s->prefix);
    if (v->owner.size < n || memcmp(v->owner.data, s->prefix, n) != 0)
        return true;
    for (unsigned i = 0; i < a->n_paths; i++) {
        if (a->holds[i].token == v->token)
            return true;
    }
    if (v->ttl_ms == 0) /* A lease would end by itself. */
        world_fail(a->site.world, "app %u: the cluster keeps token %llu for it, unknown to it",
                   a->site.number, (unsigned long long)v->token);
    return true;
}

static bool visit_node(void *arg, const struct lock_node_view *node)
{
    struct leak_search *s = arg;
    lock_node_holds(s->table, node, visit_hold, s);
    return true;
}

void app_check_end(struct app *a, const struct lock_table *t)
{
    struct leak_search s = {.app = a, .table = t};
    if (a->client == NULL || !LIST_EMPTY(&a->ops)) {
        struct op *o = LIST_FIRST(&a->ops);
        world_fail(a->site.world, "app %u: command %u of job%u is not answered in the end",
                   a->site.number, o != NULL ? o->op : 0, o != NULL ? o->hold->path : 0);
        return;
    }
    (void)snprintf(s.prefix, sizeof s.prefix, "a%u.%llu.", a->site.number,
                   (unsigned long long)a->incarnation);
    lock_list_prefix(t, bytes_str(""), bytes_str(""), visit_node, NULL, &s);
}
