/* Problem documents (RFC 9457), and values of JSON. */
#include "gateway/call.h"
#include "gateway/owner.h"
#include "raftstore/base/clock.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define RETRY_AFTER_S 1

const struct problem PROBLEM_BAD_REQUEST = {400, "bad-request", "The request is malformed"};
const struct problem PROBLEM_BAD_LOCK_ID = {400, "bad-lock-id", "This can't be a lock's name"};
const struct problem PROBLEM_NOT_FOUND = {404, "not-found", "Nothing here"};
const struct problem PROBLEM_FREE = {404, "free", "Nobody holds this lock"};
const struct problem PROBLEM_METHOD = {405, "method", "Not with this method"};
const struct problem PROBLEM_TOO_LARGE = {413, "too-large", "The request is too large"};
const struct problem PROBLEM_UNAUTHORIZED = {401, "unauthorized", "No valid access token"};
const struct problem PROBLEM_FORBIDDEN = {403, "forbidden", "Not allowed"};
const struct problem PROBLEM_OTHER_SUBJECT = {403, "other-subject", "Somebody else's owner_id"};
const struct problem PROBLEM_RATE = {429, "rate", "Too many requests"};
const struct problem PROBLEM_HELD = {409, "held", "The lock can't be had"};
const struct problem PROBLEM_NOT_HELD = {409, "not-held", "This owner does not hold the lock"};
const struct problem PROBLEM_NO_LOCK = {404, "not-held", "This owner does not hold the lock"};
const struct problem PROBLEM_NO_MAJORITY = {503, "no-majority",
                                            "The cluster did not answer in time"};
const struct problem PROBLEM_NO_KEYS = {503, "no-keys",
                                        "The keys of the authorization server can't be had"};
const struct problem PROBLEM_BUSY = {503, "busy", "The cluster is too busy"};
const struct problem PROBLEM_LIMIT = {503, "limit", "A bound of the cluster is reached"};
const struct problem PROBLEM_STOPPING = {503, "stopping", "This gateway stops"};
const struct problem PROBLEM_INTERNAL = {500, "internal", "The gateway made a mistake"};

/* ---- Values ---------------------------------------------------------------------------- */

json_t *json_bytes(struct bytes b)
{
    json_t *s = json_stringn(b.size > 0 ? b.data : "", b.size);
    if (s != NULL)
        return s;
    struct buf out = BUF_INIT;
    percent_add(&out, b, "/ ");
    s = json_stringn((const char *)out.data, out.size);
    buf_deinit(&out);
    return s;
}

json_t *json_instant(uint64_t wall_ms)
{
    char text[40], day[24];
    struct tm tm;
    time_t s = (time_t)(wall_ms / 1000);
    if (gmtime_r(&s, &tm) == NULL || strftime(day, sizeof day, "%FT%T", &tm) == 0)
        return json_null();
    (void)snprintf(text, sizeof text, "%s.%03uZ", day, (unsigned)(wall_ms % 1000));
    return json_string(text);
}

json_t *json_deadline(uint64_t boot_ns)
{
    uint64_t wall_ns = clock_wall_ns(clock_system()), now_ns = clock_boot_ns(clock_system());
    if (boot_ns >= now_ns)
        wall_ns += boot_ns - now_ns;
    else
        wall_ns -= now_ns - boot_ns < wall_ns ? now_ns - boot_ns : wall_ns;
    return json_instant(wall_ns / NS_PER_MS);
}

/* ---- Documents ------------------------------------------------------------------------- */

static json_t *document(const struct problem *p, const char *format, va_list args)
{
    struct buf detail = BUF_INIT, type = BUF_INIT;
    buf_vprintf(&detail, format, args);
    buf_printf(&type, "urn:holdfast:problem:%s", p->name);
    json_t *o = json_pack("{s:o, s:s, s:i, s:o}", "type",
                          json_bytes(bytes_of(type.data, type.size)), "title", p->title, "status",
                          (int)p->status, "detail", json_bytes(bytes_of(detail.data, detail.size)));
    buf_deinit(&detail);
    buf_deinit(&type);
    assert(o != NULL); /* All of it is plain text. */
    return o;
}

json_t *problem_json(const struct problem *p, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    json_t *o = document(p, format, args);
    va_end(args);
    return o;
}

void call_problem_json(struct call *call, const struct problem *p, json_t *o)
{
    char *text = json_dumps(o, JSON_COMPACT);
    struct buf out = {(uint8_t *)text, strlen(text), strlen(text) + 1};
    json_decref(o);
    if (p->status == 503 && p != &PROBLEM_NO_KEYS) /* That tells its own. */
        call_header(call, "Retry-After", "%d", RETRY_AFTER_S);
    call_answer_text(call, p->status, "application/problem+json", &out);
}

void call_problem(struct call *call, const struct problem *p, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    json_t *o = document(p, format, args);
    va_end(args);
    call_problem_json(call, p, o);
}

void call_problem_status(struct call *call, int status)
{
    switch (status) {
    case -ETIMEDOUT:
        call_problem(call, &PROBLEM_NO_MAJORITY,
                     "no majority of the nodes answered within %llu ms; whether it was done is not "
                     "known: repeat it",
                     (unsigned long long)call->gw->options->timeout_ms);
        break;
    case -EBUSY:
        call_problem(call, &PROBLEM_BUSY, "it was not done: try again later");
        break;
    case -ECANCELED:
    case -ESHUTDOWN:
        call_problem(call, &PROBLEM_STOPPING,
                     "this gateway stops; whether it was done is not known: repeat it");
        break;
    case -EPERM:
    case -EACCES:
        call_problem(call, &PROBLEM_FORBIDDEN, "the cluster does not let this gateway do that");
        break;
    case -EMSGSIZE:
    case -EINVAL:
        call_problem(call, &PROBLEM_BAD_REQUEST, "the cluster calls it malformed");
        break;
    default:
        call_problem(call, &PROBLEM_INTERNAL, "%s", strerror(-status));
        break;
    }
}
