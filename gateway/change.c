/* POST /locks/release and /locks/renew.
 *
 *     release without a token:  a read of the owner's holds tells the token -> RELEASE of that
 *     release with a token:     RELEASE of that token, if it is this owner's
 *     renew:                    RENEW of the owner's hold, or of the token if it is this owner's
 *     "no such hold":           a read of all tells why: 404 or 409, or 403 if another subject
 * holds it under the same owner_id
 *
 * A release always names a token: one that is late on the network must not end a later hold.  A
 * renewal that is late must not end a lease earlier than a later one promised (WIRE_F_NO_LESS). */
#include "gateway/access.h"
#include "gateway/common.h"
#include "gateway/fields.h"
#include "gateway/handlers.h"
#include "gateway/owner.h"
#include "raftstore/base/log.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <stdlib.h>

#define ASKED_MAX 3u /* Times; anew when the session was lost meanwhile. */

struct change {
    struct gateway *gw;
    struct call *call; /* NULL: the client is gone. */
    struct buf path, owner;
    uint64_t token; /* 0 = not known. */
    uint64_t ttl_ms;
    bool renew;
    bool denied;  /* By a node, which has an audit line of it. */
    bool refused; /* There is no such hold: the read is only to tell why. */
    unsigned n_asked;
};

static void on_result(void *arg, const struct client_result *r);

static void change_free(struct change *x)
{
    buf_deinit(&x->path);
    buf_deinit(&x->owner);
    free(x);
}

static void on_gone(struct call *call)
{
    struct change *x = call->op;
    x->call = NULL;
    x->gw->n_commands++;
}

/* What the client asked for is done all the same; nobody hears of it. */
static bool is_gone(struct change *x)
{
    if (x->call != NULL)
        return false;
    x->gw->n_commands--;
    change_free(x);
    return true;
}

static int order(struct change *x)
{
    Hf__Command c = HF__COMMAND__INIT;
    ProtobufCBinaryData path = pack_binary(buf_bytes(&x->path));
    c.op = x->renew ? WIRE_OP_RENEW : WIRE_OP_RELEASE;
    c.flags = x->token != 0 ? WIRE_F_OWNER : 0;
    c.flags |= x->renew ? WIRE_F_NO_LESS : 0;
    c.paths = &path;
    c.n_paths = 1;
    c.owner = pack_binary(buf_bytes(&x->owner));
    c.token = x->token;
    c.ttl_ms = x->ttl_ms;
    x->n_asked++;
    return client_command_traced(x->gw->client, &c, &x->call->trace, x->gw->options->timeout_ms,
                                 on_result, x, NULL);
}

/* ---- Refusals -------------------------------------------------------------------------- */

static void answer_refused(struct change *x, const Hf__Node *n)
{
    const struct problem *p = x->renew ? &PROBLEM_NOT_HELD : &PROBLEM_NO_LOCK;
    const char *done = x->renew ? "renewed" : "released";
    const Hf__Hold *shown = n != NULL ? n->holds[0] : NULL;
    for (size_t i = 0; n != NULL && i < n->n_holds; i++) {
        struct bytes owner = pack_bytes(n->holds[i]->owner);
        if (!bytes_equal(owner, buf_bytes(&x->owner)) &&
            owner_same_id(owner, buf_bytes(&x->owner))) {
            p = &PROBLEM_OTHER_SUBJECT;
            shown = NULL;
        }
    }
    const char *why = p == &PROBLEM_OTHER_SUBJECT
                          ? "the hold of this owner_id was made by another subject"
                      : n != NULL ? "it is held, but not by this owner or with this token"
                                  : "nobody holds it";
    if (n != NULL && !x->denied)
        access_audit(x->call, x->renew ? "renew" : "release", buf_bytes(&x->path), why);
    json_t *o = problem_json(p, "%s", why);
    (void)json_object_set_new(o, done, json_false());
    if (shown != NULL && x->renew) {
        (void)json_object_set_new(o, "owner_id", owner_json(pack_bytes(shown->owner)));
        (void)json_object_set_new(o, "expires_at", hold_expires_json(x->gw, shown));
    }
    call_problem_json(x->call, p, o);
}

/* The owner's hold, if it has the token that was given. */
static const Hf__Hold *own_hold(const struct change *x, const Hf__Node *n)
{
    for (size_t i = 0; n != NULL && i < n->n_holds; i++)
        if (bytes_equal(pack_bytes(n->holds[i]->owner), buf_bytes(&x->owner)) &&
            (x->token == 0 || n->holds[i]->token == x->token))
            return n->holds[i];
    return NULL;
}

static void on_shown(void *arg, const struct client_reply *reply);

/* There is no such hold: why not? */
static int explain(struct change *x)
{
    x->refused = true;
    return query_lock(x->call, buf_bytes(&x->path), on_shown, x);
}

static void on_shown(void *arg, const struct client_reply *reply)
{
    struct change *x = arg;
    if (is_gone(x))
        return;
    const Hf__Node *n = reply->status == 0 ? reply_lock(reply) : NULL;
    const Hf__Hold *own = x->refused ? NULL : own_hold(x, n);
    int rv = reply->status;
    if (rv == 0 && !x->refused) {
        if (own != NULL)
            x->token = own->token;
        rv = own != NULL ? order(x) : explain(x);
        if (rv == 0)
            return;
    }
    if (rv < 0)
        call_problem_status(x->call, rv);
    else
        answer_refused(x, n);
    change_free(x);
}

/* ---- Answers --------------------------------------------------------------------------- */

static void answer_done(struct change *x, const struct client_result *r)
{
    json_t *o = json_pack("{s:b}", x->renew ? "renewed" : "released", 1);
    if (x->renew) {
        (void)json_object_set_new(o, "token", json_integer((json_int_t)r->result->token));
        add_validity(o, x->call, r->deadline_boot_ns);
    }
    call_answer_json(x->call, 200, o);
}

static void answer_code(struct change *x, uint32_t code)
{
    switch (code) {
    case WIRE_CODE_INVALID: /* All else was checked. */
        call_problem(x->call, &PROBLEM_NOT_HELD,
                     "this hold hangs on a session, not on a lease: it can't be renewed");
        break;
    case WIRE_CODE_NO_SESSION:
    case WIRE_CODE_SESSION_ENDED:
        call_problem_status(x->call, -ETIMEDOUT);
        break;
    default:
        LOG_ERROR("unexpected answer to a release or renewal", "code=%s", wire_code_name(code));
        call_problem(x->call, &PROBLEM_INTERNAL, "unexpected answer of the cluster: %s",
                     wire_code_name(code));
        break;
    }
}

static bool session_lost(uint32_t code)
{
    return code == WIRE_CODE_NO_SESSION || code == WIRE_CODE_SESSION_ENDED;
}

static void on_result(void *arg, const struct client_result *r)
{
    struct change *x = arg;
    if (is_gone(x))
        return;
    uint32_t code = r->status == 0 ? r->result->code : 0;
    if (r->status < 0) {
        call_problem_status(x->call, r->status);
    } else if (code == WIRE_CODE_OK) {
        answer_done(x, r);
    } else if (code == WIRE_CODE_NOT_HELD || code == WIRE_CODE_NOT_OWNER) {
        x->denied |= code == WIRE_CODE_NOT_OWNER;
        int rv = explain(x);
        if (rv == 0)
            return;
        call_problem_status(x->call, rv);
    } else if (session_lost(code) && x->n_asked < ASKED_MAX && order(x) == 0) {
        return;
    } else {
        answer_code(x, code);
    }
    change_free(x);
}

static void handle_change(struct call *call, bool renew)
{
    struct fields f;
    unsigned required = FIELD_BIT(FIELD_LOCK_ID) | FIELD_BIT(FIELD_OWNER_ID);
    if (renew)
        required |= FIELD_BIT(FIELD_TTL);
    if (!fields_parse(call, required, FIELD_BIT(FIELD_TOKEN), &f))
        return;
    if (!access_may_change(call, f.lock_id, f.owner_id)) {
        fields_deinit(&f);
        return;
    }
    struct change *x = xcalloc(1, sizeof *x);
    x->gw = call->gw;
    x->call = call;
    x->renew = renew;
    x->token = f.token;
    x->ttl_ms = f.ttl_ms;
    buf_set(&x->path, f.lock_id);
    owner_make(call_subject(call), f.owner_id, &x->owner);
    fields_deinit(&f);
    int rv = renew || x->token != 0
                 ? order(x)
                 : query_own(x->call, buf_bytes(&x->path), buf_bytes(&x->owner), on_shown, x);
    if (rv < 0) {
        call_problem_status(call, rv);
        change_free(x);
        return;
    }
    call->op = x;
    call->on_gone = on_gone;
}

void handle_release(struct call *call)
{
    handle_change(call, false);
}

void handle_renew(struct call *call)
{
    handle_change(call, true);
}
