/* Load over the native protocol: slots, each with one request in flight and keys of its own, on
 * one loop.  With --sessions=each every client is a session with a connection of its own. */
#include "tools/bench/bench.h"

#include "raftstore/base/random.h"
#include "raftstore/client/client.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#define DRAIN_MS_MAX      5000u
#define CLOSE_GRACE_MS    1000u
#define CONTEND_WAIT_MS   10000u
#define SESSION_TTL_MS    15000u
#define MIX_INFLIGHT      16u
#define FILL_INFLIGHT     256u
#define MIX_READS_PERCENT 70u
#define REFUSED_PAUSE_MS  100u /* Who was refused for load comes back after that. */

struct native;

/* One request in flight at a time. */
struct slot {
    TAILQ_ENTRY(slot) link; /* In native.refused. */
    struct native *native;
    struct client *client;
    char path[96];
    char owner[48];
    uint64_t sent_ns;
    uint64_t token; /* Of the hold; 0 = not held. */
    enum bench_op op;
    bool done;           /* Asks for nothing more. */
    uint64_t refused_ns; /* In native.refused: since when. */
};
TAILQ_HEAD(slot_list, slot);

struct native {
    const struct bench_options *options;
    struct bench_figures *figures;
    enum bench_mode mode;
    uv_loop_t loop;
    uv_timer_t window;       /* Begin of the window, then its end. */
    uv_timer_t guard;        /* Gives up on what doesn't answer. */
    struct client **clients; /* Owned. */
    unsigned n_clients;
    unsigned n_open; /* Clients not yet gone. */
    struct slot *slots;
    unsigned n_slots;
    unsigned n_done;
    struct random random;
    uint64_t begin_ns;        /* 0 = still warming up. */
    uint64_t end_ns;          /* 0 = the window is open. */
    uint64_t cpu_ns;          /* Of the servers at its begin. */
    uint64_t n_filled;        /* FILL: keys given out. */
    struct slot_list refused; /* Pause; in the order of their refusals. */
    uv_timer_t pause;         /* For the first of them. */
    struct slot *last_holder;
    uint64_t given_back_ns; /* CONTEND: when the last holder sent its release. */
    bool gave_up;           /* The guard fired. */
};

static uint64_t now_ns(void)
{
    return clock_mono_ns(clock_system());
}

static void slot_next(struct slot *s);
static void on_pause(uv_timer_t *timer);

/* After a while it goes on, with whatever it was that was refused. */
static void slot_refused(struct slot *s)
{
    struct native *n = s->native;

    if (s->done)
        return;
    s->refused_ns = now_ns();
    TAILQ_INSERT_TAIL(&n->refused, s, link);
    if (!uv_is_active((uv_handle_t *)&n->pause))
        (void)uv_timer_start(&n->pause, on_pause, REFUSED_PAUSE_MS, 0);
}

static void on_pause(uv_timer_t *timer)
{
    struct native *n = timer->data;
    uint64_t now = now_ns(), pause_ns = REFUSED_PAUSE_MS * NS_PER_MS;
    struct slot *s;

    /* What is refused again meanwhile stands behind, with a later instant. */
    while ((s = TAILQ_FIRST(&n->refused)) != NULL && now - s->refused_ns >= pause_ns) {
        TAILQ_REMOVE(&n->refused, s, link);
        slot_next(s);
    }
    if (s != NULL)
        (void)uv_timer_start(&n->pause, on_pause, (s->refused_ns + pause_ns - now) / NS_PER_MS + 1,
                             0);
}

static void record(struct native *n, enum bench_op op, uint64_t since_ns, bool ok)
{
    uint64_t now = now_ns();
    bool inside =
        n->mode == BENCH_FILL || (n->begin_ns != 0 && since_ns >= n->begin_ns && n->end_ns == 0);

    if (!inside)
        return;
    if (ok)
        histogram_add(&n->figures->ops[op], now - since_ns);
    else
        n->figures->errors[op]++;
}

static void close_timers(struct native *n)
{
    uv_close((uv_handle_t *)&n->window, NULL);
    uv_close((uv_handle_t *)&n->guard, NULL);
    uv_close((uv_handle_t *)&n->pause, NULL);
}

static void on_client_closed(void *arg)
{
    struct native *n = arg;

    if (--n->n_open > 0)
        return;
    close_timers(n);
}

static void close_all(struct native *n)
{
    unsigned n_open = n->n_open; /* Those that could be made. */

    for (unsigned i = 0; i < n_open; i++)
        client_close(n->clients[i], CLOSE_GRACE_MS, on_client_closed, n);
}

static void slot_done(struct slot *s)
{
    struct native *n = s->native;

    if (s->done)
        return;
    s->done = true;
    if (++n->n_done == n->n_slots)
        close_all(n);
}

/* A grant: measure the handoff, and count it as wrong if somebody else still holds. */
static void contend_granted(struct slot *s)
{
    struct native *n = s->native;

    if (n->last_holder != NULL)
        n->figures->overlaps++;
    n->last_holder = s;
    if (n->given_back_ns != 0)
        record(n, BENCH_OP_HANDOFF, n->given_back_ns, true);
}

static void on_result(void *arg, const struct client_result *r)
{
    struct slot *s = arg;
    struct native *n = s->native;
    bool ok = r->status == 0 && r->result->code == WIRE_CODE_OK;

    if (r->status == -ECANCELED)
        return; /* Closing. */
    if (r->status == -EBUSY && n->mode != BENCH_FILL) {
        record(n, BENCH_OP_REFUSED, s->sent_ns, true);
        slot_refused(s);
        return;
    }
    record(n, s->op, s->sent_ns, ok);
    if (s->op == BENCH_OP_ACQUIRE && ok) {
        s->token = r->result->token;
        if (n->mode == BENCH_CONTEND)
            contend_granted(s);
    } else if (s->op != BENCH_OP_RENEW) {
        s->token = 0;
    }
    slot_next(s);
}

static void on_reply(void *arg, const struct client_reply *r)
{
    struct slot *s = arg;

    if (r->status == -ECANCELED)
        return; /* Closing. */
    if (r->status == -EBUSY) {
        record(s->native, BENCH_OP_REFUSED, s->sent_ns, true);
        slot_refused(s);
        return;
    }
    record(s->native, BENCH_OP_READ, s->sent_ns, r->status == 0 && r->query->n_nodes == 1);
    slot_next(s);
}

/* What client_command() or client_query() said. */
static void slot_sent(struct slot *s, int status)
{
    if (status == -EBUSY) {
        record(s->native, BENCH_OP_REFUSED, s->sent_ns, true);
        slot_refused(s);
    } else if (status != 0) {
        slot_done(s);
    }
}

static void slot_send_command(struct slot *s, Hf__Command *command)
{
    ProtobufCBinaryData path = pack_binary(bytes_str(s->path));

    command->paths = &path;
    command->n_paths = 1;
    command->owner = pack_binary(bytes_str(s->owner));
    slot_sent(
        s, client_command(s->client, command, s->native->options->timeout_ms, on_result, s, NULL));
}

static void slot_acquire(struct slot *s)
{
    struct native *n = s->native;
    Hf__Command c = HF__COMMAND__INIT;

    c.op = WIRE_OP_ACQUIRE;
    c.flags = WIRE_F_PARENTS;
    c.mode = WIRE_MODE_EXCLUSIVE;
    c.kind = WIRE_KIND_API;
    c.ttl_ms = n->options->ttl_ms;
    c.wait_ms = n->mode == BENCH_CONTEND ? CONTEND_WAIT_MS : 0;
    c.pid = (uint32_t)getpid();
    slot_send_command(s, &c);
}

static void slot_send(struct slot *s, enum bench_op op)
{
    struct native *n = s->native;

    s->op = op;
    s->sent_ns = now_ns();
    if (op == BENCH_OP_ACQUIRE) {
        slot_acquire(s);
    } else if (op == BENCH_OP_READ) {
        Hf__Query q = HF__QUERY__INIT;
        q.what = HF__QUERY__WHAT__SHOW;
        q.path = pack_binary(bytes_str(s->path));
        q.brief = true;
        slot_sent(s, client_query(s->client, &q, n->options->timeout_ms, false, on_reply, s));
    } else {
        Hf__Command c = HF__COMMAND__INIT;
        c.op = op == BENCH_OP_RENEW ? WIRE_OP_RENEW : WIRE_OP_RELEASE;
        c.token = s->token;
        if (op == BENCH_OP_RELEASE && n->mode == BENCH_CONTEND) {
            n->given_back_ns = s->sent_ns;
            n->last_holder = NULL;
        }
        slot_send_command(s, &c);
    }
}

/* FILL: the next key, until all are taken; nothing is given back. */
static void slot_fill(struct slot *s)
{
    struct native *n = s->native;
    const struct bench_options *o = n->options;

    if (n->n_filled == o->locks || n->gave_up) {
        slot_done(s);
        return;
    }
    (void)snprintf(s->path, sizeof s->path, "fill.%d.%u/%" PRIu64, (int)getpid(),
                   (unsigned)(n->n_filled % o->directories), n->n_filled);
    n->n_filled++;
    slot_send(s, BENCH_OP_ACQUIRE);
}

static void slot_next(struct slot *s)
{
    struct native *n = s->native;
    bool held = s->token != 0;

    if (n->mode == BENCH_FILL) {
        slot_fill(s);
    } else if (n->end_ns != 0) {
        if (held && s->op != BENCH_OP_RELEASE)
            slot_send(s, BENCH_OP_RELEASE);
        else
            slot_done(s);
    } else if (n->mode == BENCH_MIX && random_below(&n->random, 100) < MIX_READS_PERCENT) {
        slot_send(s, BENCH_OP_READ);
    } else if (!held) {
        slot_send(s, BENCH_OP_ACQUIRE);
    } else if (n->mode == BENCH_READ) {
        slot_send(s, BENCH_OP_READ);
    } else if (n->mode == BENCH_RENEW) {
        slot_send(s, BENCH_OP_RENEW);
    } else {
        slot_send(s, BENCH_OP_RELEASE);
    }
}

/* What has not ended by now is dropped, and said so. */
static void on_guard(uv_timer_t *timer)
{
    struct native *n = timer->data;

    n->gave_up = true;
    if (n->end_ns == 0)
        n->end_ns = now_ns();
    for (unsigned i = 0; i < n->n_slots; i++)
        slot_done(&n->slots[i]);
}

static void on_window(uv_timer_t *timer)
{
    struct native *n = timer->data;
    uint64_t now = now_ns();
    uint64_t cpu_ns = bench_cpu_ns(n->options->pids, n->options->n_pids);

    if (n->begin_ns == 0) {
        n->begin_ns = now;
        n->cpu_ns = cpu_ns;
        (void)uv_timer_start(timer, on_window, n->options->seconds * UINT64_C(1000), 0);
        return;
    }
    n->end_ns = now;
    n->figures->elapsed_ns = n->end_ns - n->begin_ns;
    n->figures->cpu_ns = cpu_ns - n->cpu_ns;
}

static int open_clients(struct native *n, uint64_t session_ttl_ms)
{
    n->clients = calloc(n->n_clients, sizeof(struct client *));
    if (n->clients == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < n->n_clients; i++) {
        struct client_config config = {
            .loop = &n->loop,
            .addresses = n->options->cluster,
            .tls = n->options->tls,
            .agent = "holdfast-bench " HOLDFAST_VERSION,
            .session_ttl_ms = session_ttl_ms,
            .events_session = n->mode == BENCH_CONTEND, /* Grants to those who wait. */
            .arg = n,
        };
        int r = client_new(&config, &n->clients[i]);
        if (r != 0) {
            (void)fprintf(stderr, "holdfast-bench: --cluster %s: %s\n", n->options->cluster,
                          strerror(-r));
            return r;
        }
        n->n_open++;
    }
    return 0;
}

static unsigned slots_per_client(const struct bench_options *o, enum bench_mode mode)
{
    if (o->inflight != 0)
        return o->inflight;
    if (mode == BENCH_FILL)
        return FILL_INFLIGHT;
    return mode == BENCH_MIX ? MIX_INFLIGHT : 1;
}

static int start_slots(struct native *n)
{
    const struct bench_options *o = n->options;

    n->n_slots = o->clients * slots_per_client(o, n->mode);
    n->slots = calloc(n->n_slots, sizeof *n->slots);
    if (n->slots == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < n->n_slots; i++) {
        struct slot *s = &n->slots[i];
        unsigned key = n->mode == BENCH_CONTEND ? 0 : i;
        s->native = n;
        s->client = n->clients[i % n->n_clients];
        (void)snprintf(s->owner, sizeof s->owner, "bench.%d.%u", (int)getpid(), i);
        (void)snprintf(s->path, sizeof s->path, "bench.%d.%u/%u", (int)getpid(),
                       key % o->directories, key);
    }
    for (unsigned i = 0; i < n->n_slots; i++)
        slot_next(&n->slots[i]);
    return 0;
}

/* FILL has no window of its own: it ends when the keys are taken. */
static void fill_finish(struct native *n, uint64_t began_ns)
{
    struct bench_figures *f = n->figures;

    f->elapsed_ns = now_ns() - began_ns;
    if (n->gave_up)
        f->errors[BENCH_OP_ACQUIRE] += n->options->locks - f->ops[BENCH_OP_ACQUIRE].n;
}

int bench_native_run(const struct bench_options *o, enum bench_mode mode, struct bench_figures *f)
{
    struct native n = {.options = o, .figures = f, .mode = mode};
    uint64_t began_ns = now_ns();
    /* Filling may take its time, yet not for ever: at least 1000 a second. */
    uint64_t guard_ms =
        mode == BENCH_FILL ? 10000 + o->locks : BENCH_WARMUP_MS + o->seconds * UINT64_C(1000);
    int r;

    n.random.state = random_system();
    n.n_clients = o->sessions_one ? 1 : o->clients;
    if (uv_loop_init(&n.loop) != 0)
        return -ENOMEM;
    n.window.data = &n;
    n.guard.data = &n;
    n.pause.data = &n;
    TAILQ_INIT(&n.refused);
    (void)uv_timer_init(&n.loop, &n.window); /* These never fail. */
    (void)uv_timer_init(&n.loop, &n.guard);
    (void)uv_timer_init(&n.loop, &n.pause);
    r = open_clients(&n, SESSION_TTL_MS);
    if (r == 0)
        r = start_slots(&n);
    if (r == 0) {
        if (mode != BENCH_FILL)
            (void)uv_timer_start(&n.window, on_window, BENCH_WARMUP_MS, 0);
        (void)uv_timer_start(&n.guard, on_guard, guard_ms + DRAIN_MS_MAX, 0);
    } else {
        close_all(&n);
    }
    if (n.n_open == 0)
        close_timers(&n);
    (void)uv_run(&n.loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&n.loop); /* Nothing of ours is open any more. */
    if (mode == BENCH_FILL)
        fill_finish(&n, began_ns);
    f->how = o->sessions_one ? "native, one session" : "native, a session for each client";
    if (n.gave_up)
        (void)fprintf(stderr, "holdfast-bench: some requests were not answered in time\n");
    free(n.clients);
    free(n.slots);
    return r;
}

/* ---- How many voters has the cluster? ---- */

struct voters {
    struct client *client;
    unsigned n;
};

static void on_members(void *arg, const struct client_reply *r)
{
    struct voters *v = arg;

    if (r->status == 0 && r->query != NULL)
        for (size_t i = 0; i < r->query->n_members; i++)
            v->n += r->query->members[i]->role == HF__MEMBER__ROLE__VOTER;
    client_close(v->client, 0, NULL, NULL);
}

unsigned bench_native_voters(const struct bench_options *o)
{
    struct voters v = {0};
    uv_loop_t loop;
    Hf__Query q = HF__QUERY__INIT;

    if (uv_loop_init(&loop) != 0)
        return 0;
    struct client_config config = {
        .loop = &loop,
        .addresses = o->cluster,
        .tls = o->tls,
        .agent = "holdfast-bench " HOLDFAST_VERSION,
    };
    q.what = HF__QUERY__WHAT__MEMBERS;
    if (client_new(&config, &v.client) == 0) {
        if (client_query(v.client, &q, o->timeout_ms, false, on_members, &v) != 0)
            client_close(v.client, 0, NULL, NULL);
        (void)uv_run(&loop, UV_RUN_DEFAULT);
    }
    (void)uv_loop_close(&loop);
    return v.n;
}
