/* Requests to the gateway, from the request line to the answer: the product's own handlers, with a
 * cluster that says anything.
 *
 * In the place of the client library are functions that check what the gateway asks the cluster
 * for, and answer with what the input says; in the place of libmicrohttpd's connection is none, so
 * there are no headers.
 *
 * Input: a byte for the method, the target and the body (each behind its size), and what the
 * cluster answers, one answer behind the other. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <stdlib.h>

#include "gateway/call.h"
#include "gateway/conn.h"
#include "gateway/gateway.h"
#include "gateway/handlers.h"
#include "gateway/lockid.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#define PENDING_MAX 8u
#define ANSWERS_MAX 16u

/* What was asked and is not answered. */
struct pending {
    client_result_cb on_result;
    client_reply_cb on_reply;
    void *arg;
};

static struct pending pending[PENDING_MAX];
static unsigned n_pending;

/* ---- In the place of the client library -------------------------------------------------- */

static int ask(client_result_cb on_result, client_reply_cb on_reply, void *arg)
{
    if (n_pending == PENDING_MAX)
        return -EBUSY;
    pending[n_pending++] = (struct pending){on_result, on_reply, arg};
    return 0;
}

int client_command_traced(struct client *c,
                          const Hf__Command *command,
                          const struct trace_context *trace,
                          uint64_t timeout_ms,
                          client_result_cb cb,
                          void *arg,
                          uint64_t *ret_handle)
{
    (void)c;
    (void)trace;
    (void)timeout_ms;
    fuzz_require(command->n_paths == 1 && lockid_problem(pack_bytes(command->paths[0])) == NULL,
                 "the cluster is asked about a path that can't be");
    fuzz_require(command->owner.len <= WIRE_OWNER_BYTES_MAX &&
                     (command->owner.len > 0 || command->token != 0),
                 "an owner of %zu bytes", command->owner.len);
    fuzz_require(command->note.len <= WIRE_NOTE_BYTES_MAX, "a long note");
    fuzz_require(command->op != WIRE_OP_ACQUIRE ||
                     (command->ttl_ms >= WIRE_TTL_MS_MIN && command->ttl_ms <= WIRE_TTL_MS_MAX),
                 "a ttl of %llu ms", (unsigned long long)command->ttl_ms);
    fuzz_require(command->limit <= WIRE_SEMAPHORE_MAX, "a large limit");
    if (ret_handle != NULL)
        *ret_handle = 1;
    return ask(cb, NULL, arg);
}

int client_command(struct client *c,
                   const Hf__Command *command,
                   uint64_t timeout_ms,
                   client_result_cb cb,
                   void *arg,
                   uint64_t *ret_handle)
{
    return client_command_traced(c, command, NULL, timeout_ms, cb, arg, ret_handle);
}

int client_query_traced(struct client *c,
                        const Hf__Query *query,
                        const struct trace_context *trace,
                        uint64_t timeout_ms,
                        bool on_leader,
                        client_reply_cb cb,
                        void *arg)
{
    (void)c;
    (void)trace;
    (void)timeout_ms;
    (void)on_leader;
    fuzz_require(query->path.len <= WIRE_PATH_BYTES_MAX && query->after.len <= WIRE_PATH_BYTES_MAX,
                 "a long path in a query");
    return ask(NULL, cb, arg);
}

int client_query(struct client *c,
                 const Hf__Query *query,
                 uint64_t timeout_ms,
                 bool on_leader,
                 client_reply_cb cb,
                 void *arg)
{
    return client_query_traced(c, query, NULL, timeout_ms, on_leader, cb, arg);
}

void client_cancel(struct client *c, uint64_t handle)
{
    (void)c;
    (void)handle;
}

bool client_session_live(const struct client *c)
{
    (void)c;
    return true;
}

uint64_t client_deadline_boot_ns(const struct client *c, uint64_t deadline_ns)
{
    (void)c;
    return deadline_ns / 2;
}

/* ---- Other things that there are none of ------------------------------------------------- */

void boot_timer_set(struct boot_timers *ts, struct boot_timer *t, uint64_t due_ns)
{
    (void)ts;
    (void)t;
    (void)due_ns;
}

void boot_timer_stop(struct boot_timers *ts, struct boot_timer *t)
{
    (void)ts;
    (void)t;
}

struct bytes conn_peer(const struct conn *conn)
{
    (void)conn;
    return bytes_str("fuzz");
}

void conn_resume(struct conn *conn)
{
    (void)conn;
}

void handle_events(struct call *call)
{
    call_answer_json(call, 200, json_object());
}

void handle_health(struct call *call)
{
    call_answer_json(call, 200, json_object());
}

void handle_ready(struct call *call)
{
    call_answer_json(call, 200, json_object());
}

void handle_metrics(struct call *call)
{
    call_answer_json(call, 200, json_object());
}

void handle_openapi(struct call *call)
{
    call_answer_json(call, 200, json_object());
}

/* ---- The cluster's answers --------------------------------------------------------------- */

static void answer(struct feed *f, struct arena *a)
{
    struct pending p = pending[0];
    memmove(pending, pending + 1, --n_pending * sizeof pending[0]);
    static const int errors[] = {-ETIMEDOUT, -EBUSY, -ECANCELED, -EPERM, -EINVAL, -ESHUTDOWN};
    uint8_t how = feed_u8(f);
    int status = how >= 128 ? errors[how % 6] : 0;
    struct bytes packed = feed_bytes(f, 255);
    arena_reset(a);
    ProtobufCMessage *m = pack_parse(
        a, p.on_result != NULL ? &hf__result__descriptor : &hf__query_reply__descriptor, packed);
    if (m == NULL && status == 0)
        status = -ETIMEDOUT;
    if (p.on_result != NULL) {
        struct client_result r = {.status = status};
        r.result = status == 0 ? (const Hf__Result *)(const void *)m : NULL;
        r.deadline_boot_ns = status == 0 ? r.result->deadline_ns : 0;
        r.sent_boot_ns = 1;
        p.on_result(p.arg, &r);
    } else {
        struct client_reply r = {.status = status, .text = ""};
        r.query = status == 0 ? (const Hf__QueryReply *)(const void *)m : NULL;
        p.on_reply(p.arg, &r);
    }
}

/* What an answer must be: a known status and, but for one document, JSON or plain text. */
static void check_answer(const struct call *call)
{
    static const unsigned known[] = {200, 400, 401, 403, 404, 405, 409, 413, 429, 503, 500, 501};
    bool ok = false;
    for (unsigned i = 0; i < sizeof known / sizeof known[0]; i++)
        ok = ok || call->status == known[i];
    fuzz_require(ok, "status %u", call->status);
    fuzz_require(call->status < 500 || call->status == 503, "the gateway made a mistake");
}

static char *text_of(struct bytes b)
{
    char *s = xcalloc(1, b.size + 1);
    if (b.size > 0)
        memcpy(s, b.data, b.size);
    return s;
}

static void run(struct gateway *gw, struct feed *f)
{
    static const char *const methods[] = {"GET", "POST", "HEAD", "PUT"};
    const char *method = methods[feed_below(f, 4)];
    char *target = text_of(feed_bytes(f, 255));
    struct bytes body = feed_bytes(f, 255);
    struct arena a;
    arena_init(&a);
    struct call *call = call_begin(gw, target);
    call_head(call, method, NULL);
    call->state = CALL_BODY;
    call_body(call, body.data, body.size);
    if (call->response == NULL) {
        call->state = CALL_RUNNING;
        call_run(call);
    }
    for (unsigned i = 0; i < ANSWERS_MAX && call->response == NULL && n_pending > 0; i++)
        answer(f, &a);
    if (call->response != NULL)
        check_answer(call);
    else
        call_gone(call);
    call_free(call);
    struct feed end = feed_of(NULL, 0);
    for (unsigned i = 0; n_pending > 0; i++) { /* What goes on without the call. */
        fuzz_require(i < 100, "it asks for ever");
        answer(&end, &a);
    }
    arena_deinit(&a);
    free(target);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed f = feed_of(data, size);
    struct options options = {.timeout_ms = 1000, .wait_max_ms = 60000, .no_auth = true};
    struct gateway gw = {.options = &options, .metrics = xcalloc(1, sizeof(struct metrics))};
    struct guard_config guard = {.clock = clock_system()};
    char *sentence = NULL;
    fuzz_require(guard_open(NULL, &guard, &gw.guard, &sentence) == 0, "no guard");
    TAILQ_INIT(&gw.acquires);
    run(&gw, &f);
    fuzz_require(TAILQ_EMPTY(&gw.acquires) && gw.n_commands == 0, "something is left");
    guard_close(gw.guard, free, NULL);
    free(gw.metrics);
    return 0;
}
