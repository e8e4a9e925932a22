/* GET /locks/{lock_id} and GET /locks. */
#include "gateway/show.h"
#include "gateway/access.h"
#include "gateway/common.h"
#include "gateway/handlers.h"
#include "gateway/owner.h"
#include "raftstore/base/duration.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <stdlib.h>

#define LIMIT_DEFAULT 100u
#define LIMIT_MAX     1000u
#define PAGES_MAX     16u /* Of the cluster, in one answer that tells of something. */

/* ---- One ------------------------------------------------------------------------------- */

static void set(json_t *o, const char *name, json_t *value)
{
    (void)json_object_set_new(o, name, value);
}

/* What both a hold alone and a lock with its first hold have. */
static void add_hold(json_t *o, const struct gateway *gw, const Hf__Hold *h)
{
    set(o, "owner_id", owner_json(pack_bytes(h->owner)));
    set(o, "expires_at", hold_expires_json(gw, h));
    set(o, "version", json_integer((json_int_t)h->token));
    set(o, "mode", json_string(wire_mode_name(h->mode)));
    set(o, "kind", json_string(wire_kind_name(h->kind)));
    set(o, "ttl", h->session_bound ? json_null() : json_real((double)h->ttl_ms / 1000));
    set(o, "since", json_instant(h->since_wall_ms));
    set(o, "host", json_bytes(pack_bytes(h->host)));
    if (h->limit != 0)
        set(o, "limit", json_integer(h->limit));
    if (h->pid != 0)
        set(o, "pid", json_integer(h->pid));
    set(o, "note", json_bytes(pack_bytes(h->note)));
}

json_t *lock_json(const struct gateway *gw, const Hf__Node *n, bool all_holds)
{
    json_t *o = json_object();
    set(o, "lock_id", json_bytes(pack_bytes(n->path)));
    add_hold(o, gw, n->holds[0]);
    set(o, "waiters", json_integer((json_int_t)n->waiters_total));
    set(o, "n_holds", json_integer((json_int_t)n->holds_total));
    if (!all_holds)
        return o;
    json_t *holds = json_array();
    for (size_t i = 0; i < n->n_holds; i++) {
        json_t *hold = json_object();
        add_hold(hold, gw, n->holds[i]);
        (void)json_array_append_new(holds, hold);
    }
    set(o, "holds", holds);
    return o;
}

struct show {
    struct gateway *gw;
    struct call *call; /* NULL: the client is gone. */
};

static void on_show_gone(struct call *call)
{
    struct show *s = call->op;
    s->call = NULL;
}

static void on_shown(void *arg, const struct client_reply *reply)
{
    struct show *s = arg;
    if (s->call != NULL) {
        const Hf__Node *n = reply->status == 0 ? reply_lock(reply) : NULL;
        if (reply->status < 0)
            call_problem_status(s->call, reply->status);
        else if (n == NULL)
            call_problem(s->call, &PROBLEM_FREE, "nobody holds it");
        else
            call_answer_json(s->call, 200, lock_json(s->gw, n, true));
    }
    free(s);
}

void handle_show(struct call *call)
{
    if (!access_may(call, POLICY_READ, buf_bytes(&call->lock_id)))
        return;
    struct show *s = xcalloc(1, sizeof *s);
    s->gw = call->gw;
    s->call = call;
    int rv = query_lock(call, buf_bytes(&call->lock_id), on_shown, s);
    if (rv < 0) {
        free(s);
        call_problem_status(call, rv);
        return;
    }
    call->op = s;
    call->on_gone = on_show_gone;
}

/* ---- Many ------------------------------------------------------------------------------ */

struct list {
    struct gateway *gw;
    struct call *call; /* NULL: the client is gone. */
    json_t *locks;
    struct buf prefix;
    struct buf after; /* The last one that was looked at. */
    struct buf shown; /* The last one that is told of: the cursor.  One that the caller may not
                         read must not be named by it. */
    uint64_t limit;
    uint64_t end_ns; /* When it is too late to look further. */
    bool hides;      /* There were some that the caller may not read: look at many at once. */
    unsigned n_pages;
};

static void list_free(struct list *l)
{
    json_decref(l->locks);
    buf_deinit(&l->prefix);
    buf_deinit(&l->after);
    buf_deinit(&l->shown);
    free(l);
}

static void on_list_gone(struct call *call)
{
    struct list *l = call->op;
    l->call = NULL;
}

static void on_page(void *arg, const struct client_reply *reply);

static int ask_page(struct list *l)
{
    Hf__Query q = HF__QUERY__INIT;
    q.what = HF__QUERY__WHAT__LIST_PREFIX;
    q.path = pack_binary(buf_bytes(&l->prefix));
    q.after = pack_binary(buf_bytes(&l->after));
    q.limit = l->hides ? LIMIT_MAX : (uint32_t)(l->limit - json_array_size(l->locks));
    q.brief = true;
    l->n_pages++;
    return client_query_traced(l->gw->client, &q, &l->call->trace, l->gw->options->timeout_ms,
                               false, on_page, l);
}

static void answer_list(struct list *l, bool more)
{
    json_t *o = json_pack("{s:O}", "locks", l->locks);
    struct buf cursor = BUF_INIT;
    if (more) {
        percent_add(&cursor, buf_bytes(&l->shown), "/");
        set(o, "cursor", json_bytes(buf_bytes(&cursor)));
    } else {
        set(o, "cursor", json_null());
    }
    buf_deinit(&cursor);
    call_answer_json(l->call, 200, o);
}

/* Take what the caller may see of a page.  Return: is there more behind what was taken? */
static bool take_page(struct list *l, const Hf__QueryReply *page)
{
    for (size_t i = 0; i < page->n_nodes; i++) {
        const Hf__Node *n = page->nodes[i];
        struct bytes path = pack_bytes(n->path);
        buf_set(&l->after, path);
        if (n->type != WIRE_NODE_LOCK || n->n_holds == 0)
            continue;
        if (!access_sees(l->call, path)) {
            l->hides = true;
            continue;
        }
        if (json_array_size(l->locks) == l->limit)
            return true;
        (void)json_array_append_new(l->locks, lock_json(l->gw, n, false));
        buf_set(&l->shown, path);
    }
    return page->more;
}

static void on_page(void *arg, const struct client_reply *reply)
{
    struct list *l = arg;
    if (l->call == NULL) {
        list_free(l);
        return;
    }
    int rv = reply->status;
    bool more = rv == 0 && take_page(l, reply->query);
    size_t n = json_array_size(l->locks);
    bool late = n == 0 && clock_boot_ns(clock_system()) >= l->end_ns;
    if (more && n < l->limit && (n == 0 ? !late : l->n_pages < PAGES_MAX)) {
        rv = ask_page(l);
        if (rv == 0)
            return;
    }
    if (rv < 0)
        call_problem_status(l->call, rv);
    else if (more && n == 0)
        call_problem(l->call, &PROBLEM_BUSY,
                     "too many locks come before the first that you may read: give a prefix");
    else
        answer_list(l, more);
    list_free(l);
}

/* One "name=value" of the query.  Return: what is wrong, or NULL. */
static const char *take_parameter(struct list *l, struct bytes name, struct bytes value)
{
    struct buf once = BUF_INIT;
    const char *wrong = NULL;
    if (percent_undo(&once, value) < 0) {
        wrong = "a '%' without two hexadecimal digits behind it";
    } else if (bytes_equal(name, bytes_str("prefix"))) {
        buf_set(&l->prefix, buf_bytes(&once));
    } else if (bytes_equal(name, bytes_str("cursor"))) {
        l->after.size = 0;
        if (percent_undo(&l->after, buf_bytes(&once)) < 0)
            wrong = "this is no cursor";
    } else if (bytes_equal(name, bytes_str("limit"))) {
        if (number_parse(buf_bytes(&once), &l->limit) < 0 || l->limit < 1 || l->limit > LIMIT_MAX)
            wrong = "limit must be a number from 1 to 1000";
    } else {
        wrong = "known parameters are prefix, limit and cursor";
    }
    if (l->prefix.size > WIRE_PATH_BYTES_MAX || l->after.size > WIRE_PATH_BYTES_MAX)
        wrong = "a prefix has 1023 bytes at most";
    buf_deinit(&once);
    return wrong;
}

static const char *take_query(struct list *l, struct bytes query)
{
    const char *p = query.data, *end = p + query.size, *wrong = NULL;
    while (p != NULL && p < end && wrong == NULL) {
        const char *amp = memchr(p, '&', (size_t)(end - p));
        const char *stop = amp != NULL ? amp : end;
        const char *equals = memchr(p, '=', (size_t)(stop - p));
        const char *value = equals != NULL ? equals + 1 : stop;
        if (stop > p)
            wrong = take_parameter(l, bytes_of(p, (size_t)((equals != NULL ? equals : stop) - p)),
                                   bytes_of(value, (size_t)(stop - value)));
        p = stop + 1;
    }
    return wrong;
}

void handle_list(struct call *call)
{
    struct list *l = xcalloc(1, sizeof *l);
    l->gw = call->gw;
    l->call = call;
    l->limit = LIMIT_DEFAULT;
    l->end_ns = call->boot_ns + call->gw->options->timeout_ms * NS_PER_MS;
    l->locks = json_array();
    const char *wrong = take_query(l, call->query);
    int rv = wrong == NULL ? ask_page(l) : 0;
    if (wrong != NULL)
        call_problem(call, &PROBLEM_BAD_REQUEST, "%s", wrong);
    else if (rv < 0)
        call_problem_status(call, rv);
    if (wrong != NULL || rv < 0) {
        list_free(l);
        return;
    }
    call->op = l;
    call->on_gone = on_list_gone;
}
