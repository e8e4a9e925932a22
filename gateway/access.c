#include "gateway/access.h"

#include "gateway/common.h"
#include "gateway/server.h"
#include "gateway/share.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <strings.h>

/* A call that waits for newer keys; outlives it when its client goes. */
struct entry {
    struct jwks_waiter waiter;
    struct call *call; /* NULL: gone. */
    void (*next)(struct call *call);
};

static const char *header(const struct call *call, const char *name)
{
    return MHD_lookup_connection_value(call->mhd, MHD_HEADER_KIND, name);
}

/* "192.0.2.1:4711" */
static void add_client(struct buf *line, const struct call *call)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(call->mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    char host[INET6_ADDRSTRLEN + 2], port[8], text[sizeof host + sizeof port + 4];
    socklen_t size;
    if (info == NULL || info->client_addr == NULL)
        return;
    bool is_v6 = info->client_addr->sa_family == AF_INET6;
    size = is_v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (getnameinfo(info->client_addr, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return;
    (void)snprintf(text, sizeof text, is_v6 ? "[%s]:%s" : "%s:%s", host, port);
    audit_text(line, "client", text);
}

void access_audit(const struct call *call,
                  const char *what,
                  struct bytes lock_id,
                  const char *reason)
{
    struct audit *audit = call->gw->audit;
    char id[TRACE_ID_HEX + 1];
    if (audit == NULL)
        return;
    struct buf *line = audit_begin(audit, "denied");
    audit_text(line, "by", "gateway");
    audit_text(line, "what", what);
    audit_bytes(line, "path", lock_id);
    if (call->caller != NULL)
        audit_bytes(line, "subject", call_subject(call));
    add_client(line, call);
    audit_text(line, "trace_id", trace_hex(call->trace.trace_id, TRACE_ID_BYTES, id));
    audit_text(line, "reason", reason);
    audit_end(audit);
}

/* @what: the verb or call, @lock_id: and where, for the audit. */
static void
refuse(struct call *call, const struct guard_refusal *r, const char *what, struct bytes lock_id)
{
    const struct problem *p = r->status == 401   ? &PROBLEM_UNAUTHORIZED
                              : r->status == 403 ? &PROBLEM_FORBIDDEN
                              : r->status == 429 ? &PROBLEM_RATE
                                                 : &PROBLEM_NO_KEYS;
    if (r->challenge[0] != '\0')
        call_header(call, "WWW-Authenticate", "%s", r->challenge);
    if (r->retry_after_s != 0)
        call_header(call, "Retry-After", "%llu", (unsigned long long)r->retry_after_s);
    if (r->status == 401 || r->status == 403)
        access_audit(call, what, lock_id, r->reason[0] != '\0' ? r->reason : r->detail);
    call_problem(call, p, "%s", r->detail);
}

/* ---- Without tokens: no web page may speak for the user that visits it ------------------- */

/* "127.0.0.1:8080", "[::1]", "localhost". */
static bool is_loopback_host(const char *host)
{
    char text[300];
    struct address a;
    size_t n = strlen(host);
    const char *colon = strrchr(host, ':');
    bool has_port = colon != NULL && host[n - 1] != ']';
    (void)snprintf(text, sizeof text, "%s%s", host, has_port ? "" : ":80");
    return address_parse(text, &a) == 0 && !a.is_unix && address_is_loopback(&a);
}

/* A page of another origin can make a browser send requests here; but the browser says so.  And a
 * page may give its own name our address: then that name is in Host. */
static bool from_a_web_page(const struct call *call)
{
    const char *host = header(call, MHD_HTTP_HEADER_HOST);
    const char *site = header(call, "Sec-Fetch-Site");
    return header(call, MHD_HTTP_HEADER_ORIGIN) != NULL ||
           (site != NULL && strcmp(site, "none") != 0) || (host != NULL && !is_loopback_host(host));
}

/* ---- Entering -------------------------------------------------------------------------- */

static void on_keys(struct jwks_waiter *waiter);

static void on_gone(struct call *call)
{
    struct entry *e = call->op;
    e->call = NULL;
}

static void enter(struct call *call, struct entry *again, void (*next)(struct call *call))
{
    struct gateway *gw = call->gw;
    struct guard_refusal refusal;
    int rv = 0;
    if (call->caller == NULL) {
        struct entry *e = again == NULL ? xcalloc(1, sizeof *e) : NULL;
        if (e != NULL)
            *e = (struct entry){.waiter = {.fn = on_keys}, .call = call, .next = next};
        rv = guard_authenticate(gw->guard, header(call, MHD_HTTP_HEADER_AUTHORIZATION),
                                conn_peer(call->conn), e != NULL ? &e->waiter : NULL, &call->caller,
                                &refusal);
        if (rv == -EAGAIN) {
            call->op = e;
            call->on_gone = on_gone;
            return;
        }
        free(e);
    }
    if (rv != 0 || !guard_take_subject(gw->guard, call->caller, &call->rate, &refusal)) {
        refuse(call, &refusal, call_kind_name(call->kind), buf_bytes(&call->lock_id));
    } else if (!share_take(call)) {
        refusal = (struct guard_refusal){
            .status = 429,
            .detail = "half of this gateway's connections are in use by requests of this subject",
            .retry_after_s = 1,
        };
        refuse(call, &refusal, call_kind_name(call->kind), buf_bytes(&call->lock_id));
    } else {
        next(call);
    }
}

static void on_keys(struct jwks_waiter *waiter)
{
    struct entry *e = (struct entry *)(void *)waiter; /* It is the first member. */
    struct call *call = e->call;
    if (call != NULL) {
        call->op = NULL;
        call->on_gone = NULL;
        enter(call, e, e->next);
    }
    free(e);
}

void access_look(struct call *call)
{
    struct guard_refusal refusal;
    int rv = guard_look(call->gw->guard, header(call, MHD_HTTP_HEADER_AUTHORIZATION),
                        conn_peer(call->conn), &call->caller, &refusal);
    if (rv > 0)
        refuse(call, &refusal, call_kind_name(call->kind), buf_bytes(&call->lock_id));
}

void access_enter(struct call *call, void (*next)(struct call *call))
{
    if (call->gw->options->no_auth && from_a_web_page(call)) {
        access_audit(call, call_kind_name(call->kind), buf_bytes(&call->lock_id),
                     "a web page, or another name than loopback's");
        call_problem(call, &PROBLEM_FORBIDDEN,
                     "without tokens no web pages are served, and none but loopback names");
        return;
    }
    enter(call, NULL, next);
}

/* ---- Inside ---------------------------------------------------------------------------- */

bool access_may(struct call *call, enum policy_verb verb, struct bytes lock_id)
{
    struct guard_refusal refusal;
    if (guard_allows(call->gw->guard, call->caller, verb, lock_id, &refusal))
        return true;
    refuse(call, &refusal, policy_verb_name(verb), lock_id);
    return false;
}

bool access_may_change(struct call *call, struct bytes lock_id, struct bytes owner_id)
{
    struct guard_refusal refusal;
    if (!guard_take_owner(call->gw->guard, call->caller, owner_id, &call->rate, &refusal)) {
        refuse(call, &refusal, NULL, lock_id);
        return false;
    }
    return access_may(call, POLICY_ACQUIRE, lock_id);
}

bool access_sees(const struct call *call, struct bytes lock_id)
{
    return guard_sees(call->gw->guard, call->caller, lock_id);
}
