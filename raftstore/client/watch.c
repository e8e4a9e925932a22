/* The subscription: what the cluster pushes to us.
 *
 * One subscription a connection; a new one replaces it.
 *
 * On another connection it resumes behind the last event that was seen.  One log entry can have
 * many events, and the connection may break between them: so it is resumed one index earlier, and
 * what is known of the last index is skipped (the order of events of an entry is the same on all
 * nodes).  If the node's memory doesn't reach back that far it says "gap": the owner is told, and
 * our waiters are asked for by repeating their requests.
 *
 * On the same connection it is replaced without a position: the node has pushed everything that
 * was wanted before up to the moment at which it reads the new subscription, and names that moment
 * in its answer.  A replacement that was under way when the connection broke is made anew: first
 * the acknowledged subscription is resumed, since what was counted at the last index belongs to it,
 * then it is replaced.
 *
 * A log only grows.  So when a new session's entry stands before the position, the cluster is
 * another one, made anew or from an old copy: the position means nothing there and is given up. */
#include "raftstore/client/internal.h"

#include <stdlib.h>

/* ---- Sets of prefixes ------------------------------------------------------------------ */

static struct prefix_set *set_new(const char *const *prefixes, size_t n, uint64_t version)
{
    struct prefix_set *set = xcalloc(1, sizeof *set + n * sizeof set->list[0]);
    set->n_refs = 1;
    set->version = version;
    set->n = n;
    for (size_t i = 0; i < n; i++)
        set->list[i] = xstrdup(prefixes[i]);
    return set;
}

static void set_unref(struct prefix_set *set)
{
    if (--set->n_refs > 0)
        return;
    for (size_t i = 0; i < set->n; i++)
        free(set->list[i]);
    free(set);
}

static bool set_covers(const struct prefix_set *set, struct bytes path)
{
    for (size_t i = 0; i < set->n; i++) {
        size_t n = strlen(set->list[i]);
        if (n == 0 || (path.size >= n && memcmp(path.data, set->list[i], n) == 0 &&
                       (path.size == n || ((const char *)path.data)[n] == '/')))
            return true;
    }
    return false;
}

/* ---- Subscribing ----------------------------------------------------------------------- */

static void subscription_free(struct subscription *s)
{
    if (s == NULL)
        return;
    set_unref(s->set);
    free(s);
}

static void forget_sent(struct watch *w)
{
    struct subscription *s;
    while ((s = TAILQ_FIRST(&w->sent)) != NULL) {
        TAILQ_REMOVE(&w->sent, s, link);
        subscription_free(s);
    }
}

static void
subscribe(struct client *c, uint64_t session_id, struct prefix_set *set, uint64_t from_index)
{
    struct watch *w = &c->watch;
    struct subscription *s = xcalloc(1, sizeof *s);
    Hf__Subscribe message = HF__SUBSCRIBE__INIT;
    Hf__ClientFrame frame = HF__CLIENT_FRAME__INIT;
    ProtobufCBinaryData *prefixes = xcalloc(set->n + 1, sizeof *prefixes);
    for (size_t i = 0; i < set->n; i++)
        prefixes[i] = pack_binary(bytes_str(set->list[i]));
    message.session_id = session_id;
    message.prefixes = prefixes;
    message.n_prefixes = set->n;
    message.from_index = from_index;
    frame.id = c->id_next++;
    frame.body_case = HF__CLIENT_FRAME__BODY_SUBSCRIBE;
    frame.subscribe = &message;
    pack_add_frame(client_conn_out(c->route.primary->conn), &frame.base);
    free(prefixes);
    s->frame_id = frame.id;
    s->session_id = session_id;
    s->set = set;
    set->n_refs++;
    TAILQ_INSERT_TAIL(&w->sent, s, link);
}

/* On a new connection: go on where the acknowledged one was. */
static void resume(struct client *c, uint64_t session_id)
{
    struct watch *w = &c->watch;
    if (w->acked == NULL || (w->acked->set->n == 0 && w->acked->session_id != session_id))
        return; /* Nothing that concerns anybody was missed. */
    subscribe(c, w->acked->session_id, w->acked->set,
              w->n_at_index > 0 && w->index > 1 ? w->index - 1 : w->index);
    TAILQ_FIRST(&w->sent)->resumes = true;
}

void watch_update(struct client *c)
{
    struct watch *w = &c->watch;
    struct peer *p = c->route.primary;
    uint64_t session_id = w->session_wanted ? c->session.id : 0;
    bool wanted = session_id != 0 || w->wanted->n > 0 || w->told_version < w->wanted->version;
    if (p == NULL || c->stopped || (w->serial != p->serial && !wanted))
        return;
    if (w->session_wanted && session_id == 0 && w->wanted->n == 0 &&
        w->told_version == w->wanted->version)
        return; /* The next session's is to come. */
    if (w->serial != p->serial) {
        forget_sent(w);
        w->serial = p->serial;
        resume(c, session_id);
    }
    const struct subscription *last = TAILQ_LAST(&w->sent, subscription_list);
    if (last == NULL && w->acked_serial == p->serial)
        last = w->acked;
    if (last == NULL || last->session_id != session_id || last->set != w->wanted)
        subscribe(c, session_id, w->wanted, 0);
}

void watch_want_session(struct client *c)
{
    c->watch.session_wanted = true;
    watch_update(c);
}

uint64_t client_watch(struct client *c, const char *const *prefixes, size_t n)
{
    struct watch *w = &c->watch;
    if (n > CLIENT_PREFIXES_MAX)
        return 0;
    struct prefix_set *set = set_new(prefixes, n, w->wanted->version + 1);
    set_unref(w->wanted);
    w->wanted = set;
    watch_update(c);
    return set->version;
}

void watch_on_primary_lost(struct client *c)
{
    c->watch.serial = c->watch.acked_serial = 0;
    forget_sent(&c->watch);
}

void watch_on_session_opened(struct client *c, uint64_t index)
{
    struct watch *w = &c->watch;
    if (index == 0 || index >= w->index)
        return;
    forget_sent(w); /* Their answers, if some are on the way, are nobody's. */
    subscription_free(w->acked);
    w->acked = NULL;
    w->acked_serial = 0;
    w->index = w->n_at_index = w->skip = 0;
    w->anew = true;
}

/* ---- Answers --------------------------------------------------------------------------- */

/* The position after an acknowledged subscription.
 *
 * Return: true: there is a gap before it. */
static bool set_position(struct watch *w, const struct subscription *s, const Hf__SubscribeReply *r)
{
    if (s->resumes) {
        w->skip = w->n_at_index;
        if (!r->gap && r->index <= w->index)
            return false;
        w->index = r->index;
        w->n_at_index = w->skip = 0;
        return true;
    }
    bool anew = w->anew;
    w->anew = false;
    w->n_at_index = w->skip = 0;
    if (r->index >= w->index) {
        w->index = r->index;
        return anew;
    }
    /* This node has not yet applied what another one had told us of, and what of that is wanted
     * now was perhaps not wanted then. */
    w->skip = UINT64_MAX;
    return true;
}

bool watch_on_reply(struct client *c, uint64_t id, const Hf__SubscribeReply *r)
{
    struct watch *w = &c->watch;
    struct subscription *s = TAILQ_FIRST(&w->sent);
    if (s == NULL || s->frame_id != id)
        return false;
    TAILQ_REMOVE(&w->sent, s, link);
    bool gap = set_position(w, s, r);
    subscription_free(w->acked);
    w->acked = s;
    w->acked_serial = w->serial;
    if (gap) {
        commands_on_gap(c);
        if (c->config.on_gap != NULL && !c->stopped)
            c->config.on_gap(c->config.arg);
    }
    if (w->acked == s && s->set == w->wanted && w->told_version < s->set->version) {
        w->told_version = s->set->version;
        if (c->config.on_watch != NULL && !c->stopped)
            c->config.on_watch(c->config.arg, w->told_version, w->index);
    }
    return true;
}

bool watch_on_failure(struct client *c, uint64_t id)
{
    const struct subscription *s;
    TAILQ_FOREACH(s, &c->watch.sent, link)
    {
        if (s->frame_id == id) {
            watch_on_primary_lost(c); /* The next keepalive, waiter or leader asks again. */
            return true;
        }
    }
    return false;
}

/* ---- Events ---------------------------------------------------------------------------- */

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
    /* A node that led before, and leads again, may still tell what was subscribed to then: what it
     * tells before it has acknowledged the new subscription would move the position past events
     * that we did not take while it was none of ours. */
    if (w->acked_serial == 0 || w->acked_serial != c->route.primary->serial)
        return;
    for (size_t i = 0; i < events->n_events && !c->stopped; i++) {
        const Hf__Event *e = events->events[i];
        bool ours = e->session_id != 0 && e->session_id == c->session.id;
        if (!is_new(w, e))
            continue;
        if (ours)
            commands_on_event(c, e);
        if (c->config.on_event != NULL &&
            ((w->events_wanted && ours) || set_covers(w->wanted, pack_bytes(e->path)) ||
             set_covers(w->wanted, pack_bytes(e->path2))))
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
    w->wanted = set_new(config->event_prefixes, n, 0);
    TAILQ_INIT(&w->sent);
}

void watch_deinit(struct client *c)
{
    forget_sent(&c->watch);
    subscription_free(c->watch.acked);
    set_unref(c->watch.wanted);
}
