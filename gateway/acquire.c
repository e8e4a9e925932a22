/* POST /locks/acquire: one command, waiting in the cluster's queue if asked to.
 *
 *     ASKED --granted--> 200
 *       |  --conflict--> 409
 *       |  --wait ran out, and so on--> EXPLAINING (a read: who holds it?) --> 409
 *       |  --session lost--> ASKED anew, with what is left of the wait
 *       |  --no answer in time--> 503
 *       v
 *     ABANDONED (the client hung up, or was answered with 503): the request is taken out of the
 *     queue; if it was granted before, the grant is undone
 *
 * To undo is delicate: the client may have asked again meanwhile, here or at another gateway, and
 * was told that it holds the lock.  So the undoing release names the grant's token and the
 * condition that nobody acquired again or renewed since (WIRE_F_UNTOUCHED), and every acquire of
 * the same owner renews what it holds.
 *
 * The other way round, a request that its client has given up may be late on its way and come
 * behind one that was answered.  So none takes anything away that an answer has promised
 * (WIRE_F_NO_LESS). */
#include "gateway/acquire.h"

#include "gateway/access.h"
#include "gateway/common.h"
#include "gateway/fields.h"
#include "gateway/handlers.h"
#include "gateway/owner.h"
#include "raftstore/base/log.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define UNDO_MS   60000
#define ASKED_MAX 3u /* Times; anew when the session was lost meanwhile. */
#define LOCK_PERM 0644u

struct acquire {
    struct gateway *gw;
    struct call *call; /* NULL: abandoned. */
    TAILQ_ENTRY(acquire) link;
    struct boot_timer give_up; /* When an answer that should have come has not. */
    uint64_t handle;           /* Of the command. */
    uint64_t wait_end_ns;      /* 0 = does not wait. */
    struct buf path, owner, note;
    uint64_t ttl_ms, lock_delay_ms;
    uint32_t mode, limit;
    unsigned n_asked;
};

static void on_result(void *arg, const struct client_result *r);

static void acquire_free(struct acquire *a)
{
    struct gateway *gw = a->gw;
    boot_timer_stop(&gw->timers, &a->give_up);
    TAILQ_REMOVE(&gw->acquires, a, link);
    buf_deinit(&a->path);
    buf_deinit(&a->owner);
    buf_deinit(&a->note);
    free(a);
}

/* The call is or will be answered: what is still under way goes on without it. */
static struct call *take_call(struct acquire *a)
{
    struct call *call = a->call;
    a->call = NULL;
    a->gw->metrics->waiting -= a->wait_end_ns != 0;
    boot_timer_stop(&a->gw->timers, &a->give_up);
    return call;
}

static void abandon(struct acquire *a)
{
    a->gw->n_commands++;
    client_cancel(a->gw->client, a->handle);
}

static void on_gone(struct call *call)
{
    struct acquire *a = call->op;
    (void)take_call(a);
    abandon(a);
}

static void on_give_up(struct boot_timer *t)
{
    struct acquire *a = t->arg;
    call_problem_status(take_call(a), -ETIMEDOUT);
    abandon(a);
}

void acquire_stop_all(struct gateway *gw)
{
    struct acquire *a;
    TAILQ_FOREACH(a, &gw->acquires, link)
    {
        if (a->call == NULL || a->wait_end_ns == 0)
            continue;
        call_problem(take_call(a), &PROBLEM_STOPPING,
                     "this gateway stops; the request does not wait any more: ask another one");
        abandon(a);
    }
}

/* ---- Undoing --------------------------------------------------------------------------- */

static void on_undone(void *arg, const struct client_result *r)
{
    struct gateway *gw = arg;
    gw->n_commands--;
    gw->metrics->undone += r->status == 0 && r->result->code == WIRE_CODE_OK;
}

static void undo(struct acquire *a, uint64_t token)
{
    Hf__Command c = HF__COMMAND__INIT;
    ProtobufCBinaryData path = pack_binary(buf_bytes(&a->path));
    c.op = WIRE_OP_RELEASE;
    c.flags = WIRE_F_UNTOUCHED;
    c.paths = &path;
    c.n_paths = 1;
    c.token = token;
    if (client_command(a->gw->client, &c, UNDO_MS, on_undone, a->gw, NULL) == 0)
        a->gw->n_commands++; /* Else the gateway is at its end, and the lease ends by itself. */
}

/* ---- Asking ---------------------------------------------------------------------------- */

static uint64_t wait_left_ms(const struct acquire *a)
{
    uint64_t now = clock_boot_ns(clock_system());
    return a->wait_end_ns > now ? (a->wait_end_ns - now + NS_PER_MS - 1) / NS_PER_MS : 0;
}

/* Return: as client_command(). */
static int ask(struct acquire *a)
{
    struct gateway *gw = a->gw;
    Hf__Command c = HF__COMMAND__INIT;
    ProtobufCBinaryData path = pack_binary(buf_bytes(&a->path));
    c.op = WIRE_OP_ACQUIRE;
    c.flags = WIRE_F_PARENTS | WIRE_F_NO_LESS;
    c.paths = &path;
    c.n_paths = 1;
    c.owner = pack_binary(buf_bytes(&a->owner));
    c.note = pack_binary(buf_bytes(&a->note));
    c.mode = a->mode;
    c.limit = a->limit;
    c.kind = WIRE_KIND_API;
    c.ttl_ms = a->ttl_ms;
    c.wait_ms = wait_left_ms(a);
    c.lock_delay_ms = a->lock_delay_ms;
    c.uid = getuid();
    c.gid = getgid();
    c.perm = LOCK_PERM;
    uint64_t timeout_ms = gw->options->timeout_ms;
    a->n_asked++;
    int rv = client_command_traced(gw->client, &c, &a->call->trace, timeout_ms, on_result, a,
                                   &a->handle);
    /* While it waits no answer may come for long; but not for longer than this. */
    if (rv == 0 && a->wait_end_ns != 0)
        boot_timer_set(&gw->timers, &a->give_up,
                       clock_boot_ns(clock_system()) + (c.wait_ms + timeout_ms) * NS_PER_MS);
    return rv;
}

void handle_acquire(struct call *call)
{
    struct gateway *gw = call->gw;
    struct fields f;
    const unsigned required =
        FIELD_BIT(FIELD_LOCK_ID) | FIELD_BIT(FIELD_OWNER_ID) | FIELD_BIT(FIELD_TTL);
    const unsigned optional = FIELD_BIT(FIELD_MODE) | FIELD_BIT(FIELD_WAIT) |
                              FIELD_BIT(FIELD_LIMIT) | FIELD_BIT(FIELD_LOCK_DELAY) |
                              FIELD_BIT(FIELD_NOTE);
    if (!fields_parse(call, required, optional, &f))
        return;
    if (f.limit != 0 && f.mode != WIRE_MODE_EXCLUSIVE) {
        call_problem(call, &PROBLEM_BAD_REQUEST, "limit goes with mode exclusive only");
        fields_deinit(&f);
        return;
    }
    if (!access_may_change(call, f.lock_id, f.owner_id)) {
        fields_deinit(&f);
        return;
    }
    struct acquire *a = xcalloc(1, sizeof *a);
    a->gw = gw;
    a->call = call;
    a->give_up = (struct boot_timer){.cb = on_give_up, .arg = a};
    a->wait_end_ns = f.wait_ms != 0 ? call->boot_ns + f.wait_ms * NS_PER_MS : 0;
    a->ttl_ms = f.ttl_ms;
    a->lock_delay_ms = f.lock_delay_ms;
    a->mode = f.mode;
    a->limit = f.limit;
    buf_set(&a->path, f.lock_id);
    buf_set(&a->note, f.note);
    owner_make(call_subject(call), f.owner_id, &a->owner);
    fields_deinit(&f);
    TAILQ_INSERT_TAIL(&gw->acquires, a, link);
    gw->metrics->waiting += a->wait_end_ns != 0;
    int rv = ask(a);
    if (rv < 0) {
        call_problem_status(take_call(a), rv);
        acquire_free(a);
        return;
    }
    call->op = a;
    call->on_gone = on_gone;
}

/* ---- Answers --------------------------------------------------------------------------- */

static void answer_granted(struct call *call, const struct client_result *r)
{
    json_t *o = json_pack("{s:b, s:I}", "lock_acquired", 1, "token", (json_int_t)r->result->token);
    add_validity(o, call, r->deadline_boot_ns);
    call_answer_json(call, 200, o);
}

static void answer_held(struct call *call, struct bytes owner, json_t *expires)
{
    call_answer_json(call, 409,
                     json_pack("{s:b, s:o, s:o}", "lock_acquired", 0, "owner_id", owner_json(owner),
                               "expires_at", expires));
}

/* It can't be had for a reason that is no holder. */
static void answer_not(struct call *call, const char *why)
{
    json_t *o = problem_json(&PROBLEM_HELD, "%s", why);
    (void)json_object_set_new(o, "lock_acquired", json_false());
    (void)json_object_set_new(o, "owner_id", json_null());
    (void)json_object_set_new(o, "expires_at", json_null());
    call_problem_json(call, &PROBLEM_HELD, o);
}

/* Who was in the way until the end? */
static void on_explained(void *arg, const struct client_reply *reply)
{
    struct acquire *a = arg;
    if (a->call == NULL) {
        a->gw->n_commands--;
    } else if (reply->status < 0) {
        call_problem_status(take_call(a), reply->status);
    } else {
        const Hf__Node *n = reply_lock(reply);
        const Hf__Hold *h = NULL;
        for (size_t i = 0; n != NULL && h == NULL && i < n->n_holds; i++)
            if (!bytes_equal(pack_bytes(n->holds[i]->owner), buf_bytes(&a->owner)))
                h = n->holds[i];
        struct call *call = take_call(a);
        if (h != NULL)
            answer_held(call, pack_bytes(h->owner), hold_expires_json(a->gw, h));
        else
            answer_held(call, bytes_of(NULL, 0), json_null());
    }
    acquire_free(a);
}

static void answer_code(struct acquire *a, uint32_t code)
{
    switch (code) {
    case WIRE_CODE_DELAYED:
        answer_not(take_call(a), "it is free, but in the lock-delay of a hold that expired");
        break;
    case WIRE_CODE_IS_DIR:
        answer_not(take_call(a), "there are locks below this name: it can't be one itself");
        break;
    case WIRE_CODE_NOT_DIR:
        answer_not(take_call(a), "a part of this name is a lock: there can't be one below it");
        break;
    case WIRE_CODE_EXISTS:
        answer_not(take_call(a),
                   "this owner holds it already with another limit: release it first");
        break;
    case WIRE_CODE_INVALID:
        call_problem(take_call(a), &PROBLEM_BAD_REQUEST, "the cluster calls it malformed");
        break;
    case WIRE_CODE_LIMIT:
        call_problem(take_call(a), &PROBLEM_LIMIT,
                     "the cluster has as many holds, waiters or directories as it may");
        break;
    case WIRE_CODE_NO_SESSION:
    case WIRE_CODE_SESSION_ENDED:
        call_problem_status(take_call(a), -ETIMEDOUT);
        break;
    default:
        LOG_ERROR("unexpected answer to an acquire", "code=%s", wire_code_name(code));
        call_problem(take_call(a), &PROBLEM_INTERNAL, "unexpected answer of the cluster: %s",
                     wire_code_name(code));
        break;
    }
}

static bool session_lost(uint32_t code)
{
    return code == WIRE_CODE_NO_SESSION || code == WIRE_CODE_SESSION_ENDED;
}

/* Nobody wants it any more. */
static void on_abandoned(struct acquire *a, const struct client_result *r)
{
    a->gw->n_commands--;
    if (r->status == 0 && r->result->code == WIRE_CODE_OK)
        undo(a, r->result->token);
    acquire_free(a);
}

static void on_result(void *arg, const struct client_result *r)
{
    struct acquire *a = arg;
    if (a->call == NULL) {
        on_abandoned(a, r);
        return;
    }
    boot_timer_stop(&a->gw->timers, &a->give_up);
    if (r->status < 0) {
        call_problem_status(take_call(a), r->status);
    } else if (r->result->code == WIRE_CODE_OK) {
        answer_granted(take_call(a), r);
    } else if (r->result->code == WIRE_CODE_CONFLICT && r->result->holder.len > 0) {
        answer_held(take_call(a), pack_bytes(r->result->holder),
                    deadline_json(a->gw, r->result->holder_deadline_ns));
    } else if (r->result->code == WIRE_CODE_TIMEOUT || r->result->code == WIRE_CODE_CONFLICT) {
        int rv = query_lock(a->call, buf_bytes(&a->path), on_explained, a);
        if (rv == 0)
            return;
        call_problem_status(take_call(a), rv);
    } else if (session_lost(r->result->code) && a->n_asked < ASKED_MAX && ask(a) == 0) {
        return;
    } else {
        answer_code(a, r->result->code);
    }
    acquire_free(a);
}
