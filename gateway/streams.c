#include "gateway/streams.h"

#include "gateway/access.h"
#include "gateway/common.h"
#include "gateway/handlers.h"
#include "gateway/server.h"
#include "gateway/show.h"
#include "raftstore/base/log.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <assert.h>
#include <stdlib.h>
#include <uthash.h>

#define BEAT_NS        (UINT64_C(15) * NS_PER_S)
#define OUT_BYTES_MAX  262144u /* Unsent; a client that is slower than that is let go. */
#define HELD_BACK_MAX  1024u   /* Events behind the read of the state. */
#define STATE_RETRY_NS NS_PER_S

struct stream {
    TAILQ_ENTRY(stream) link; /* In topic.streams. */
    struct topic *topic;
    struct call *call; /* NULL: ended; the read of the state is still under way. */
    struct buf out;    /* Not sent yet. */
    uint64_t index;    /* What is up to this log index is known to the client. */
    bool reading;      /* The state. */
    bool again;        /* Read it once more: there was a gap meanwhile. */
    bool ending;       /* Behind what is in `out`. */
    bool idle;         /* Suspended: nothing to send. */
    bool unread;       /* libmicrohttpd has let go of it. */
    struct boot_timer retry;
    struct boot_timer end; /* When its token ends. */
    struct held_back {
        uint64_t index;
        struct buf text;
    } * held_back; /* Events that came while the state was read. */
    size_t n_held_back;
};
TAILQ_HEAD(stream_list, stream);

/* A watched path. */
struct topic {
    UT_hash_handle hh;
    struct streams *streams;
    struct stream_list list;
    uint64_t version; /* Of the subscription that has it. */
    size_t path_size;
    char path[]; /* Terminated, too: no path has a NUL. */
};

struct streams {
    struct gateway *gw;
    struct topic *topics;
    struct client *client; /* NULL while nobody watches. */
    uint64_t version;      /* Of the subscription that is wanted, */
    uint64_t in_force;     /* and of the last one that is in force. */
    struct boot_timer beat;
    unsigned n;
    unsigned n_clients; /* Not closed yet. */
    void (*on_closed)(void *arg);
    void *arg;
};

/* ---- Sending --------------------------------------------------------------------------- */

static void wake(struct stream *s)
{
    if (!s->idle)
        return;
    s->idle = false;
    conn_resume(s->call->conn);
}

/* End behind what is on its way. */
static void stop(struct stream *s)
{
    s->ending = true;
    wake(s);
}

static void send_text(struct stream *s, struct bytes text)
{
    if (s->call == NULL || s->ending)
        return;
    buf_add(&s->out, text.data, text.size);
    if (s->out.size > OUT_BYTES_MAX) {
        LOG_INFO("a stream's client is too slow", "lock=%s",
                 log_quote(bytes_of(s->topic->path, s->topic->path_size)));
        s->ending = true;
        conn_shut(s->call->conn);
    }
    wake(s);
}

static void format_event(struct buf *out, const char *name, uint64_t index, json_t *data)
{
    char *text = json_dumps(data, JSON_COMPACT); /* In one line. */
    json_decref(data);
    buf_printf(out, "event: %s\nid: %llu\ndata: %s\n\n", name, (unsigned long long)index, text);
    free(text);
}

static ssize_t on_read(void *arg, uint64_t position, char *out, size_t size)
{
    struct stream *s = arg;
    (void)position;
    if (s->call == NULL || s->call->state == CALL_GONE)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (s->out.size > 0) {
        size_t n = s->out.size < size ? s->out.size : size;
        memcpy(out, s->out.data, n);
        buf_consume(&s->out, n);
        return (ssize_t)n;
    }
    if (s->ending)
        return MHD_CONTENT_READER_END_OF_STREAM;
    s->idle = true;
    conn_suspend(s->call->conn);
    return 0;
}

/* ---- The client that listens ----------------------------------------------------------- */

static void subscribe(struct streams *ss)
{
    static const char *const everything[] = {""};
    const char *paths[CLIENT_PREFIXES_MAX];
    unsigned n = 0;
    for (struct topic *t = ss->topics; t != NULL && n < CLIENT_PREFIXES_MAX; t = t->hh.next)
        paths[n++] = t->path;
    if (HASH_COUNT(ss->topics) > CLIENT_PREFIXES_MAX)
        ss->version = client_watch(ss->client, everything, 1);
    else
        ss->version = client_watch(ss->client, paths, n);
}

static void on_event(void *arg, const Hf__Event *e);
static void on_gap(void *arg);
static void on_watch(void *arg, uint64_t version, uint64_t index);

static int open_client(struct streams *ss)
{
    struct client_config config = {
        .loop = ss->gw->loop,
        .addresses = ss->gw->options->cluster,
        .tls = ss->gw->tls,
        .agent = "holdfast-gateway/" HOLDFAST_VERSION,
        .on_event = on_event,
        .on_gap = on_gap,
        .on_watch = on_watch,
        .arg = ss,
    };
    if (ss->client != NULL)
        return 0;
    int rv = client_new(&config, &ss->client);
    if (rv == 0)
        ss->n_clients++;
    ss->version = ss->in_force = 0; /* They are the client's. */
    return rv;
}

static void closed(struct streams *ss)
{
    if (ss->n_clients > 0 || ss->on_closed == NULL)
        return;
    void (*cb)(void *arg) = ss->on_closed;
    void *arg = ss->arg;
    free(ss);
    cb(arg);
}

static void on_client_closed(void *arg)
{
    struct streams *ss = arg;
    ss->n_clients--;
    closed(ss);
}

static void close_client(struct streams *ss)
{
    if (ss->client == NULL)
        return;
    client_close(ss->client, 0, on_client_closed, ss);
    ss->client = NULL;
}

/* ---- Topics and streams ---------------------------------------------------------------- */

static struct topic *find_topic(struct streams *ss, struct bytes path)
{
    struct topic *t = NULL;
    if (ss->topics != NULL)
        HASH_FIND(hh, ss->topics, path.data, path.size, t);
    return t;
}

static struct topic *need_topic(struct streams *ss, struct bytes path)
{
    struct topic *t = find_topic(ss, path);
    if (t != NULL)
        return t;
    t = xcalloc(1, sizeof *t + path.size + 1);
    t->streams = ss;
    t->path_size = path.size;
    memcpy(t->path, path.data, path.size);
    TAILQ_INIT(&t->list);
    HASH_ADD(hh, ss->topics, path, path.size, t);
    subscribe(ss);
    t->version = ss->version;
    return t;
}

static void drop_held_back(struct stream *s)
{
    for (size_t i = 0; i < s->n_held_back; i++)
        buf_deinit(&s->held_back[i].text);
    free(s->held_back);
    s->held_back = NULL;
    s->n_held_back = 0;
}

static void stream_free(struct stream *s)
{
    buf_deinit(&s->out);
    drop_held_back(s);
    free(s);
}

/* The answer is over, or its client is gone. */
static void stream_end(struct stream *s)
{
    struct topic *t = s->topic;
    if (s->call == NULL)
        return;
    struct streams *ss = t->streams;
    s->call = NULL;
    ss->n--;
    ss->gw->metrics->streams = ss->n;
    boot_timer_stop(&ss->gw->timers, &s->retry);
    boot_timer_stop(&ss->gw->timers, &s->end);
    TAILQ_REMOVE(&t->list, s, link);
    s->topic = NULL;
    if (TAILQ_EMPTY(&t->list)) {
        HASH_DELETE(hh, ss->topics, t);
        free(t);
    }
    if (ss->n == 0) {
        boot_timer_stop(&ss->gw->timers, &ss->beat);
        close_client(ss); /* Answers the reads that are under way. */
    }
}

static void on_stream_gone(struct call *call)
{
    struct stream *s = call->op;
    s->idle = false; /* The connection is resumed by the one who calls this. */
    stream_end(s);
}

/* libmicrohttpd is done with the answer: nothing reads from it any more. */
static void on_reader_free(void *arg)
{
    struct stream *s = arg;
    if (s->call != NULL)
        s->call->on_gone = NULL;
    stream_end(s);
    s->unread = true;
    if (!s->reading) /* Else on_state() frees it. */
        stream_free(s);
}

/* ---- The state ------------------------------------------------------------------------- */

static void on_state(void *arg, const struct client_reply *reply);

static void read_state(struct stream *s)
{
    Hf__Query q = HF__QUERY__INIT;
    q.what = HF__QUERY__WHAT__SHOW;
    q.path = pack_binary(bytes_of(s->topic->path, s->topic->path_size));
    q.brief = true;
    if (s->topic->version > s->topic->streams->in_force)
        return; /* on_watch() comes here again. */
    if (s->reading) {
        s->again = true;
        return;
    }
    struct gateway *gw = s->topic->streams->gw;
    if (client_query(s->topic->streams->client, &q, gw->options->timeout_ms, false, on_state, s) ==
        0)
        s->reading = true;
    else
        boot_timer_set(&gw->timers, &s->retry, clock_boot_ns(clock_system()) + STATE_RETRY_NS);
}

static void on_retry(struct boot_timer *t)
{
    read_state(t->arg);
}

static void send_state(struct stream *s, const struct client_reply *reply)
{
    struct gateway *gw = s->topic->streams->gw;
    const Hf__Node *n = reply_lock(reply);
    struct buf text = BUF_INIT;
    json_t *o = n != NULL ? lock_json(gw, n, true) : json_object();
    (void)json_object_set_new(o, "lock_id",
                              json_bytes(bytes_of(s->topic->path, s->topic->path_size)));
    (void)json_object_set_new(o, "held", json_boolean(n != NULL));
    s->index = reply->query->index;
    format_event(&text, "state", s->index, o);
    send_text(s, buf_bytes(&text));
    buf_deinit(&text);
    for (size_t i = 0; i < s->n_held_back; i++)
        if (s->held_back[i].index > s->index)
            send_text(s, buf_bytes(&s->held_back[i].text));
    drop_held_back(s);
}

static void on_state(void *arg, const struct client_reply *reply)
{
    struct stream *s = arg;
    s->reading = false;
    if (s->call == NULL) { /* It ended meanwhile. */
        if (s->unread)
            stream_free(s);
        return;
    }
    if (reply->status == 0 && !s->again) {
        if (access_sees(s->call, bytes_of(s->topic->path, s->topic->path_size)))
            send_state(s, reply);
        else
            stop(s); /* The policy has changed. */
        return;
    }
    s->again = false;
    boot_timer_set(&s->topic->streams->gw->timers, &s->retry,
                   clock_boot_ns(clock_system()) + (reply->status == 0 ? 0 : STATE_RETRY_NS));
}

/* ---- Events ---------------------------------------------------------------------------- */

static const char *event_name(const Hf__Event *e)
{
    switch (e->type) {
    case WIRE_EFFECT_GRANTED:
        return "granted";
    case WIRE_EFFECT_QUEUED:
        return "queued";
    case WIRE_EFFECT_REFUSED:
        return "refused";
    case WIRE_EFFECT_RENEWED:
        return "renewed";
    case WIRE_EFFECT_CONVERTED:
        return "converted";
    case WIRE_EFFECT_ENDED:
        return "ended";
    case WIRE_EFFECT_NOTED:
        return "noted";
    case WIRE_EFFECT_RENAMED:
        return "renamed";
    case WIRE_EFFECT_DELAY_OVER:
        return "delay_over";
    default: /* Of sessions and directories. */
        return NULL;
    }
}

static json_t *event_json(const struct gateway *gw, const Hf__Event *e)
{
    json_t *o = json_object();
    (void)json_object_set_new(o, "lock_id", json_bytes(pack_bytes(e->path)));
    if (e->path2.len > 0)
        (void)json_object_set_new(o, "new_lock_id", json_bytes(pack_bytes(e->path2)));
    (void)json_object_set_new(o, "owner_id", owner_json(pack_bytes(e->owner)));
    if (e->token != 0)
        (void)json_object_set_new(o, "version", json_integer((json_int_t)e->token));
    if (e->mode != 0)
        (void)json_object_set_new(o, "mode", json_string(wire_mode_name(e->mode)));
    if (e->limit != 0)
        (void)json_object_set_new(o, "limit", json_integer(e->limit));
    if (e->type == WIRE_EFFECT_ENDED || e->type == WIRE_EFFECT_REFUSED)
        (void)json_object_set_new(o, "reason", json_string(wire_code_name(e->code)));
    else if (e->deadline_ns != 0)
        (void)json_object_set_new(o, "expires_at", deadline_json(gw, e->deadline_ns));
    (void)json_object_set_new(o, "at", json_instant(e->wall_ms));
    return o;
}

static void hold_back(struct stream *s, uint64_t index, struct bytes text)
{
    if (s->n_held_back == HELD_BACK_MAX) {
        drop_held_back(s); /* A later state has them all. */
        s->again = true;
    }
    s->held_back = xrealloc(s->held_back, (s->n_held_back + 1) * sizeof *s->held_back);
    struct held_back *h = &s->held_back[s->n_held_back++];
    *h = (struct held_back){.index = index};
    buf_add(&h->text, text.data, text.size);
}

/* Something that happened, as text for those who may read the path, of a renaming those who may
 * read both, the old one only, or the new one only. */
struct news {
    struct bytes path, path2;
    uint64_t index;
    struct buf text, of_old, of_new;
};

/* Return: the text for who listens on this stream; NULL: it is none of its business. */
static const struct buf *choose_text(const struct stream *s, const struct news *n)
{
    bool sees = access_sees(s->call, n->path);
    if (n->path2.size == 0)
        return sees ? &n->text : NULL;
    bool sees2 = access_sees(s->call, n->path2);
    return sees && sees2 ? &n->text : sees ? &n->of_old : sees2 ? &n->of_new : NULL;
}

static void tell_topic(struct topic *t, const struct news *n)
{
    struct stream *s;
    TAILQ_FOREACH(s, &t->list, link)
    {
        const struct buf *text = choose_text(s, n);
        if (text == NULL)
            continue;
        if (s->reading || s->index == 0)
            hold_back(s, n->index, buf_bytes(text));
        else if (n->index > s->index)
            send_text(s, buf_bytes(text));
    }
}

/* Are the first `n` bytes of p a path, or something above it? */
static bool is_above(const char *p, size_t n, struct bytes path)
{
    return n <= path.size && memcmp(p, path.data, n) == 0 &&
           (n == path.size || ((const char *)path.data)[n] == '/');
}

/* To those who watch the path or anything above it, but for those who watch `told` so. */
static void tell(struct streams *ss, struct bytes path, struct bytes told, const struct news *news)
{
    const char *p = path.data;
    for (size_t n = path.size; n > 0; n--) {
        if ((n < path.size && p[n] != '/') || (told.size > 0 && is_above(p, n, told)))
            continue;
        struct topic *t = find_topic(ss, bytes_of(p, n));
        if (t != NULL)
            tell_topic(t, news);
    }
}

static void on_event(void *arg, const Hf__Event *e)
{
    struct streams *ss = arg;
    const char *name = event_name(e);
    struct news n = {
        pack_bytes(e->path), pack_bytes(e->path2), e->index, BUF_INIT, BUF_INIT, BUF_INIT};
    if (name == NULL)
        return;
    format_event(&n.text, name, e->index, event_json(ss->gw, e));
    if (n.path2.size > 0) {
        json_t *o = event_json(ss->gw, e);
        (void)json_object_del(o, "new_lock_id");
        format_event(&n.of_old, name, e->index, o);
        o = event_json(ss->gw, e);
        (void)json_object_del(o, "lock_id");
        format_event(&n.of_new, name, e->index, o);
    }
    tell(ss, n.path, bytes_of(NULL, 0), &n);
    if (n.path2.size > 0)
        tell(ss, n.path2, n.path, &n);
    buf_deinit(&n.text);
    buf_deinit(&n.of_old);
    buf_deinit(&n.of_new);
}

static void each_stream(struct streams *ss, void (*fn)(struct stream *s))
{
    struct topic *t, *next_topic;
    struct stream *s, *next;
    HASH_ITER(hh, ss->topics, t, next_topic)
    {
        TAILQ_FOREACH_SAFE(s, &t->list, link, next)
        fn(s);
    }
}

static void on_gap(void *arg)
{
    each_stream(arg, read_state);
}

static void read_first(struct stream *s)
{
    if (s->index == 0 && !s->reading)
        read_state(s);
}

/* What a read sees from now on and the events behind it leave no gap. */
static void on_watch(void *arg, uint64_t version, uint64_t index)
{
    struct streams *ss = arg;
    (void)index;
    ss->in_force = version;
    each_stream(ss, read_first);
}

/* A comment: so that a dead connection is noticed, by both sides. */
static void beat(struct stream *s)
{
    send_text(s, bytes_str(": still here\n\n"));
}

static void on_beat(struct boot_timer *timer)
{
    struct streams *ss = timer->arg;
    boot_timer_set(&ss->gw->timers, timer, clock_boot_ns(clock_system()) + BEAT_NS);
    each_stream(ss, beat);
}

/* ---- Beginning and end ----------------------------------------------------------------- */

static void on_token_end(struct boot_timer *t)
{
    stop(t->arg);
}

/* No stream outlives the token that opened it. */
static void limit_to_token(struct stream *s)
{
    int64_t end_s = guard_caller_end_s(s->call->caller);
    int64_t now_s = (int64_t)(clock_wall_ns(clock_system()) / NS_PER_S);
    s->end = (struct boot_timer){.cb = on_token_end, .arg = s};
    if (end_s - now_s > INT32_MAX)
        return;
    uint64_t left_ns = end_s > now_s ? (uint64_t)(end_s - now_s) * NS_PER_S : 0;
    boot_timer_set(&s->topic->streams->gw->timers, &s->end,
                   clock_boot_ns(clock_system()) + left_ns);
}

void handle_events(struct call *call)
{
    struct streams *ss = call->gw->streams;
    if (!access_may(call, POLICY_READ, buf_bytes(&call->lock_id)))
        return;
    int rv = ss->n < call->gw->options->connections_max / 2 ? open_client(ss) : -EBUSY;
    if (rv < 0) {
        call_problem_status(call, rv);
        return;
    }
    struct stream *s = xcalloc(1, sizeof *s);
    s->call = call;
    s->retry = (struct boot_timer){.cb = on_retry, .arg = s};
    s->topic = need_topic(ss, buf_bytes(&call->lock_id));
    TAILQ_INSERT_TAIL(&s->topic->list, s, link);
    call->op = s;
    call->on_gone = on_stream_gone;
    if (ss->n++ == 0)
        boot_timer_set(&ss->gw->timers, &ss->beat, clock_boot_ns(clock_system()) + BEAT_NS);
    ss->gw->metrics->streams = ss->n;
    read_state(s);
    limit_to_token(s);
    call_answer_stream(call, "text/event-stream", on_read, s, on_reader_free);
}

struct streams *streams_new(struct gateway *gw)
{
    struct streams *ss = xcalloc(1, sizeof *ss);
    ss->gw = gw;
    ss->beat = (struct boot_timer){.cb = on_beat, .arg = ss};
    return ss;
}

void streams_stop_all(struct streams *ss)
{
    each_stream(ss, stop);
}

void streams_set_tls(struct streams *ss)
{
    if (ss->client != NULL)
        client_set_tls(ss->client, ss->gw->tls);
}

void streams_close(struct streams *ss, void (*cb)(void *arg), void *arg)
{
    assert(ss->n == 0);
    ss->on_closed = cb;
    ss->arg = arg;
    closed(ss);
}
