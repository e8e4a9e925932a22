/* One HTTP request, from its request line to the end of its answer.
 *
 * libmicrohttpd gives it piece by piece (server.c): the head, the body, the end of the request.
 * Then the handler of its kind runs once.  It answers at once or later, with exactly one of the
 * call_answer_*() functions; a call without an answer when its handler returns is parked: its
 * connection is suspended and watched for the client's hang-up.
 *
 *     head -> body -> handler -> answered -> (freed)
 *                        |          ^
 *                        v          |
 *                      parked ------+
 *                        |
 *                        v
 *                       gone: on_gone() -> (freed)
 *
 * A handler that answers later sets on_gone and op.  on_gone() is called at most once, when the
 * client is gone or the gateway stops before the answer; after it nothing of the call may be used.
 * With call_answer_*() the call is likewise out of its handler's hands. */
#ifndef HOLDFAST_GATEWAY_CALL_H
#define HOLDFAST_GATEWAY_CALL_H

#include "auth/guard.h"
#include "gateway/gateway.h"
#include "gateway/metrics.h"
#include "raftstore/base/buf.h"

#include <jansson.h>
#include <microhttpd.h>

#define CALL_BODY_BYTES_MAX  65536u              /* Longer: 413. */
#define CALL_SWALLOW_MAX     UINT64_C(33554432)  /* So much of a body is read to refuse it. */
#define CALL_OWNER_BYTES_MAX 1024u               /* Of an owner_id. */
#define CALL_SECONDS_MAX     (UINT64_C(1) << 40) /* Of any duration in a body. */

enum call_state { CALL_HEAD, CALL_BODY, CALL_RUNNING, CALL_PARKED, CALL_ANSWERED, CALL_GONE };

struct call_header {
    const char *name;
    char value[256];
};

struct conn;

struct call {
    struct gateway *gw;
    struct conn *conn;          /* Known from the head on. */
    struct MHD_Connection *mhd; /* Likewise. */
    enum call_state state;
    enum call_kind kind;
    bool head_only;              /* HEAD. */
    struct guard_caller *caller; /* A reference; NULL where nobody is asked for it. */
    struct share *share;         /* Of its subject, from then on. */
    struct trace_context trace;  /* What it makes of others' requests belongs here. */
    struct span *span;           /* NULL: not recorded, or ended. */
    struct rate_state rate;      /* For the RateLimit-* headers; limit 0 = none. */
    char *uri;                   /* Owned: the request's target as it came. */
    struct bytes query;          /* Of uri; behind the '?'. */
    struct buf lock_id;          /* From the path, decoded. */
    struct buf body;             /* As much as fits. */
    uint64_t body_bytes;         /* That came. */
    bool too_large;
    uint64_t boot_ns; /* When its head was there. */
    unsigned status;  /* Of the answer. */
    struct MHD_Response *response;
    struct call_header headers[12];
    unsigned n_headers;
    void (*on_gone)(struct call *call);
    void *op; /* The handler's. */
};

/* For server.c.  call_begin(): a request line came; `uri` is copied. */
struct call *call_begin(struct gateway *gw, const char *uri);
/* The head came: finds the call's kind.  An answer may be there already (404, 405, 401, ...).
 *
 * @malformed: NULL, or what is wrong with it: then that is the answer, and the connection's last.
 */
void call_head(struct call *call, const char *method, const char *malformed);
void call_body(struct call *call, const void *data, size_t size);
/* The request is complete. */
void call_run(struct call *call);
/* The client is gone or the gateway stops: tell the handler. */
void call_gone(struct call *call);
void call_free(struct call *call);

/* Who calls; "" without tokens. */
static inline struct bytes call_subject(const struct call *call)
{
    return bytes_str(guard_caller_subject(call->caller));
}

/* Add a header to the answer that follows. */
void call_header(struct call *call, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Answer. The json value is taken over. */
void call_answer_json(struct call *call, unsigned status, json_t *value);
void call_answer_text(struct call *call, unsigned status, const char *type, struct buf *text);
void call_answer_static(struct call *call, const char *type, struct bytes text);
void call_answer_stream(struct call *call,
                        const char *type,
                        MHD_ContentReaderCallback reader,
                        void *arg,
                        MHD_ContentReaderFreeCallback end);

/* Problems: what an RFC 9457 document is made of. */
struct problem {
    unsigned status;
    const char *name;  /* Last part of its type: urn:holdfast:problem:NAME. */
    const char *title; /* The same for every occurrence. */
};
extern const struct problem PROBLEM_BAD_REQUEST, PROBLEM_BAD_LOCK_ID, PROBLEM_NOT_FOUND,
    PROBLEM_FREE, PROBLEM_METHOD, PROBLEM_TOO_LARGE, PROBLEM_UNAUTHORIZED, PROBLEM_FORBIDDEN,
    PROBLEM_OTHER_SUBJECT, PROBLEM_RATE, PROBLEM_HELD, PROBLEM_NOT_HELD, PROBLEM_NO_LOCK,
    PROBLEM_NO_MAJORITY, PROBLEM_NO_KEYS, PROBLEM_BUSY, PROBLEM_LIMIT, PROBLEM_STOPPING,
    PROBLEM_INTERNAL;

/* The document as a JSON object, for more members; `detail` is a sentence about this occurrence. */
json_t *problem_json(const struct problem *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Answer with a problem; 503 comes with Retry-After. */
void call_problem(struct call *call, const struct problem *p, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same with members added by the caller to problem_json(); taken over. */
void call_problem_json(struct call *call, const struct problem *p, json_t *document);

/* Answer for a status of the client library (below 0): 503 and the like. */
void call_problem_status(struct call *call, int status);

/* Bytes that may be no UTF-8 as a JSON string: then with all but plain signs as %XX. */
json_t *json_bytes(struct bytes b);

/* RFC 3339 with milliseconds, UTC. */
json_t *json_instant(uint64_t wall_ms);

/* A deadline of this machine's CLOCK_BOOTTIME as an instant of its wall clock. */
json_t *json_deadline(uint64_t boot_ns);

#endif
