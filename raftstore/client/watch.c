/* The subscription: what the cluster pushes to us.
 *
 * One subscription a connection; a new one replaces it.  It resumes behind the last event that was
 * seen.  One log entry can have many events, and the connection may break between them: so it is
 * resumed one index earlier, and what is known of the last index is skipped (the order of events
 * of an entry is the same on all nodes).  If the node's memory doesn't reach back that far it says
 * "gap": the owner is told, and our waiters are asked for by repeating their requests. */
#include "raftstore/client/internal.h"

#include <stdlib.h>

static bool wanted(const struct watch *w)
{
    return w->session_wanted || w->n_prefixes > 0;
}

void watch_update(struct client *c)
{
    struct watch *w = &c->watch;
    struct peer *p = c->route.primary;
    uint64_t session_id = w->session_wanted ? c->session.id : 0;
    if (!wanted(w) || p == NULL || c->stopped || (session_id == 0 && w->n_prefixes == 0))
        return;
    if (w->serial == p->serial && w->session_id == session_id)
        return;
    Hf__Subscribe s = HF__SUBSCRIBE__INIT;
    ProtobufCBinaryData *prefixes = xcalloc(w->n_prefixes + 1, sizeof *prefixes);
    for (size_t i = 0; i < w->n_prefixes; i++)
        prefixes[i] = pack_binary(bytes_str(w->prefixes[i]));
    s.session_id = session_id;
    s.prefixes = prefixes;
    s.n_prefixes = w->n_prefixes;
    if (w->serial == p->serial)
        w->n_at_index = 0; /* The stream so far came whole: nothing of the last index is open. */
    s.from_index = w->n_at_index > 0 && w->index > 1 ? w->index - 1 : w->index;
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    frame.id = c->id_next++;
    frame.body_case = HF__CLIENT_FRAME__BODY_SUBSCRIBE;
    frame.subscribe = &s;
    pack_add_frame(client_conn_out(p->conn), &frame.base);
    free(prefixes);
    w->serial = p->serial;
    w->session_id = session_id;
    w->frame_id = frame.id;
}

void watch_want_session(struct client *c)
{
    c->watch.session_wanted = true;
    watch_update(c);
}

void watch_on_primary_lost(struct client *c)
{
    c->watch.serial = 0;
    c->watch.frame_id = 0;
}

bool watch_on_reply(struct client *c, uint64_t id, const Hf__SubscribeReply *r)
{
    struct watch *w = &c->watch;
    if (id != w->frame_id || id == 0)
        return false;
    w->frame_id = 0;
    w->skip = w->n_at_index;
    if (r->gap || r->index > w->index) {
        w->index = r->index;
        w->n_at_index = w->skip = 0;
    }
    if (!r->gap)
        return true;
    commands_on_gap(c);
    if (c->config.on_gap != NULL && !c->stopped)
        c->config.on_gap(c->config.arg);
    return true;
}

bool watch_on_failure(struct client *c, uint64_t id)
{
    struct watch *w = &c->watch;
    if (id != w->frame_id || id == 0)
        return false;
    watch_on_primary_lost(c); /* The next keepalive, waiter or leader asks again. */
    return true;
}

static bool below_a_prefix(const struct watch *w, struct bytes path)
{
    for (size_t i = 0; i < w->n_prefixes; i++) {
        size_t n = strlen(w->prefixes[i]);
        if (n == 0 || (path.size >= n && memcmp(path.data, w->prefixes[i], n) == 0 &&
                       (path.size == n || ((const char *)path.data)[n] == '/')))
            return true;
    }
    return false;
}

/* Have we seen it?  Keeps the position. */
static bool is_new(struct watch *w, const Hf__Event *e)
{
    if (e->index < w->index)
        return false;
    if (e->index > w->index) {
        w->index = e->index;
        w->n_at_index = 1;
        w->skip = 0;
        return true;
    }
    if (w->skip > 0) {
        w->skip--;
        return false;
    }
    w->n_at_index++;
    return true;
}

void watch_on_events(struct client *c, const Hf__Events *events)
{
    struct watch *w = &c->watch;
    for (size_t i = 0; i < events->n_events && !c->stopped; i++) {
        const Hf__Event *e = events->events[i];
        bool ours = e->session_id != 0 && e->session_id == c->session.id;
        if (!is_new(w, e))
            continue;
        if (ours)
            commands_on_event(c, e);
        if (c->config.on_event != NULL &&
            ((w->events_wanted && ours) || below_a_prefix(w, pack_bytes(e->path)) ||
             below_a_prefix(w, pack_bytes(e->path2))))
            c->config.on_event(c->config.arg, e);
        if (ours && e->type == WIRE_EFFECT_SESSION_ENDED)
            session_on_ended(c, e->session_id);
    }
}

void watch_init(struct client *c, const struct client_config *config)
{
    struct watch *w = &c->watch;
    size_t n = 0;
    w->events_wanted = w->session_wanted = config->events_session;
    while (config->event_prefixes != NULL && config->event_prefixes[n] != NULL)
        n++;
    w->prefixes = n > 0 ? xcalloc(n + 1, sizeof *w->prefixes) : NULL;
    for (size_t i = 0; i < n; i++)
        w->prefixes[i] = xstrdup(config->event_prefixes[i]);
    w->n_prefixes = n;
}

void watch_deinit(struct client *c)
{
    for (size_t i = 0; i < c->watch.n_prefixes; i++)
        free(c->watch.prefixes[i]);
    free(c->watch.prefixes);
}
