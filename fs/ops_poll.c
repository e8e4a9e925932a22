/* POLL: see poller.h.
 *
 * The answer is given at once, from what is known here.  Kernel: if somebody waits, POLL comes with
 * a handle, through which we say that it should ask again; the newest handle serves, any number of
 * times, until the file is closed. */
#include "fs/ops.h"
#include "fs/poller.h"

#include "fs/locker.h"
#include "fs/show.h"
#include "raftstore/base/buf.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <poll.h>
#include <stdlib.h>

#define LEASE_LOOK_MIN_MS 20u

struct poller {
    struct handle *handle;
    LIST_ENTRY(poller) link; /* Of fs.pollers. */
    struct follower follower;
    struct fuse_pollhandle *wake; /* NULL: nobody ever waited. */
    uv_timer_t *timer;            /* Looks for the lease's jeopardy; NULL: no lease. */
    bool in_jeopardy;             /* The lease was, when it was looked at last. */
    bool changed;
    bool wanted;
    bool asking;          /* A look at the lock is under way. */
    bool ask_again;       /* And another one is wanted behind it. */
    uint64_t asked_index; /* h->seen_index, when it was asked. */
    uint64_t event_index; /* Of the last event that was a change. */
};

/* ---- What is known ---- */

static bool is_own(const struct handle *h, uint64_t token, struct bytes owner)
{
    const struct locker *l;
    if (h->hold != NULL && h->hold->token == token)
        return true;
    LIST_FOREACH(l, &h->lockers, in_handle)
    {
        if (l->adopted == NULL && bytes_equal(bytes_str(l->text), owner))
            return true;
    }
    return false;
}

uint64_t poll_state(const struct handle *h, const Hf__Node *node)
{
    uint64_t state = 0;
    for (size_t i = 0; i < node->n_holds; i++) {
        const Hf__Hold *hold = node->holds[i];
        if (h == NULL || !is_own(h, hold->token, pack_bytes(hold->owner)))
            state += (hold->token * 4 + hold->mode) * UINT64_C(0x9e3779b97f4a7c15);
    }
    return state;
}

/* Does somebody wait for what this descriptor holds? */
static bool is_wanted(const struct handle *h, const Hf__Node *node)
{
    for (size_t i = 0; i < node->n_holds; i++) {
        const Hf__Hold *held = node->holds[i];
        if (!is_own(h, held->token, pack_bytes(held->owner)))
            continue;
        for (size_t k = 0; k < node->n_waiters; k++) {
            const Hf__Waiter *w = node->waiters[k];
            bool overlap = w->start <= UINT64_MAX - held->end_inverted &&
                           held->start <= UINT64_MAX - w->end_inverted;
            bool exclusive = w->mode == WIRE_MODE_EXCLUSIVE || held->mode == WIRE_MODE_EXCLUSIVE;
            if (overlap && exclusive && !is_own(h, 0, pack_bytes(w->owner)))
                return true;
        }
    }
    return false;
}

static bool holds_by_session(const struct handle *h)
{
    return locker_of_handle(h) != NULL;
}

static bool lease_in_jeopardy(const struct handle *h)
{
    return h->hold != NULL && h->hold->state == HOLD_LIVE &&
           clock_boot_ns(clock_system()) >= client_lease_jeopardy_boot_ns(h->hold->lease);
}

static unsigned events_of(const struct poller *p)
{
    const struct handle *h = p->handle;
    unsigned events = POLLOUT | POLLWRNORM;
    if (handle_lost(h))
        return events | POLLERR | POLLHUP;
    if (p->changed || p->wanted)
        events |= POLLIN | POLLRDNORM;
    if (lease_in_jeopardy(h) || (holds_by_session(h) && client_session_jeopardy(h->fs->client)))
        events |= POLLPRI;
    return events;
}

static void wake(struct poller *p)
{
    if (p->wake != NULL && !p->handle->fs->closed)
        (void)fuse_lowlevel_notify_poll(p->wake); /* Fails only when the mount is gone. */
}

/* ---- Looking at the lock ---- */

static void look(struct poller *p);

static void on_look(void *arg, const struct client_reply *reply)
{
    struct handle *h = arg;
    struct poller *p = h->poller;
    struct fs *fs = h->fs;
    bool answered = reply->status == 0 && reply->query != NULL && reply->query->n_nodes > 0;
    if (p == NULL) { /* Closed meanwhile. */
        handle_unref(fs, h);
        return;
    }
    p->asking = false;
    /* Logs grow: this is another one, of a cluster that was made anew. */
    if (answered && reply->query->index < p->asked_index)
        h->seen_index = p->event_index = 0;
    if (answered && reply->query->index >= h->seen_index) {
        const Hf__Node *node = reply->query->nodes[0];
        bool wanted = is_wanted(h, node);
        bool news = (wanted && !p->wanted) || (!p->changed && poll_state(h, node) != h->seen);
        p->wanted = wanted;
        p->changed = p->changed || poll_state(h, node) != h->seen;
        if (news)
            wake(p);
    }
    if (p->ask_again)
        look(p);
    else if (!answered)
        follow_again(&fs->follow, &p->follower);
    handle_unref(fs, h);
}

static void look(struct poller *p)
{
    struct handle *h = p->handle;
    struct fs *fs = h->fs;
    Hf__Query query = HF__QUERY__INIT;
    p->ask_again = p->asking;
    if (p->asking || fs->failed || fs->closed)
        return;
    query.what = HF__QUERY__WHAT__SHOW;
    query.path = pack_binary(bytes_str(h->inode->path));
    query.brief = h->hold == NULL && !holds_by_session(h);
    if (client_query(fs->client, &query, fs->options->timeout_ms, false, on_look, h) < 0) {
        follow_again(&fs->follow, &p->follower);
        return;
    }
    p->asking = true;
    p->asked_index = h->seen_index;
    handle_ref(h);
}

static void on_news(struct follower *f, enum follow_news news, uint64_t index)
{
    (void)news; /* Whichever: something may have passed us by. */
    (void)index;
    look((struct poller *)((char *)f - offsetof(struct poller, follower)));
}

static bool is_change(uint32_t type)
{
    return type == WIRE_EFFECT_GRANTED || type == WIRE_EFFECT_ENDED ||
           type == WIRE_EFFECT_CONVERTED || type == WIRE_EFFECT_NOTED ||
           type == WIRE_EFFECT_RENAMED;
}

static void on_event(struct follower *f, const Hf__Event *e)
{
    struct poller *p = (struct poller *)((char *)f - offsetof(struct poller, follower));
    struct handle *h = p->handle;
    bool own = is_own(h, e->token, pack_bytes(e->owner));
    if (own && e->type == WIRE_EFFECT_WANTED) {
        p->wanted = true;
        wake(p);
    } else if (own && e->type == WIRE_EFFECT_ENDED) {
        p->wanted = false;
        wake(p); /* Perhaps it is lost. */
    } else if (own && e->type == WIRE_EFFECT_RENAMED) {
        wake(p); /* Who asks again is told what happens to its new name. */
    } else if (!own && is_change(e->type) && e->index > h->seen_index) {
        p->changed = true;
        p->event_index = e->index;
        wake(p);
    }
    if (p->wanted && (e->type == WIRE_EFFECT_REFUSED || e->type == WIRE_EFFECT_GRANTED))
        look(p); /* One waits no longer. */
}

void poll_on_read(struct handle *h, const Hf__Node *node, uint64_t index)
{
    if (index < h->seen_index)
        return;
    h->seen = poll_state(h, node);
    h->seen_index = index;
    if (h->poller != NULL && h->poller->event_index <= index)
        h->poller->changed = false;
}

/* ---- Jeopardy and loss ---- */

static void on_timer(uv_timer_t *timer);

/* When to look at the lease next. */
static void set_timer(struct poller *p)
{
    const struct hold *hold = p->handle->hold;
    if (hold == NULL || hold->state != HOLD_LIVE || p->handle->fs->closed)
        return;
    if (p->timer == NULL) {
        p->timer = xcalloc(1, sizeof *p->timer);
        (void)uv_timer_init(p->handle->fs->loop, p->timer); /* Never fails. */
        p->timer->data = p;
    }
    uint64_t now = clock_boot_ns(clock_system());
    uint64_t at = client_lease_jeopardy_boot_ns(hold->lease);
    /* In jeopardy: is it over?  The next one is news again. */
    uint64_t ms = at > now ? (at - now) / NS_PER_MS + 1 : LEASE_LOOK_MIN_MS;
    (void)uv_timer_start(p->timer, on_timer, ms, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct poller *p = timer->data;
    bool was = p->in_jeopardy;
    p->in_jeopardy = lease_in_jeopardy(p->handle);
    if (p->in_jeopardy && !was)
        wake(p);
    set_timer(p);
}

void poll_wake(struct handle *h)
{
    if (h != NULL && h->poller != NULL)
        wake(h->poller);
}

void poll_wake_lease(struct fs *fs, const struct hold *hold)
{
    struct poller *p;
    LIST_FOREACH(p, &fs->pollers, link)
    {
        if (p->handle->hold == hold)
            wake(p);
    }
}

void poll_wake_session(struct fs *fs)
{
    struct poller *p;
    LIST_FOREACH(p, &fs->pollers, link)
    {
        if (holds_by_session(p->handle))
            wake(p);
    }
}

/* ---- The operation ---- */

static struct poller *poller_new(struct handle *h)
{
    struct poller *p = xcalloc(1, sizeof *p);
    p->handle = h;
    p->follower.on_event = on_event;
    p->follower.on_news = on_news;
    LIST_INSERT_HEAD(&h->fs->pollers, p, link);
    h->poller = p;
    set_timer(p);
    return p;
}

static void on_timer_closed(uv_handle_t *timer)
{
    free(timer);
}

static void stop_timer(struct poller *p)
{
    if (p->timer != NULL)
        uv_close((uv_handle_t *)p->timer, on_timer_closed);
    p->timer = NULL;
}

void poll_close(struct fs *fs)
{
    struct poller *p;
    LIST_FOREACH(p, &fs->pollers, link)
    {
        stop_timer(p);
    }
}

void poll_free(struct handle *h)
{
    struct poller *p = h->poller;
    if (p == NULL)
        return;
    h->poller = NULL;
    LIST_REMOVE(p, link);
    follow_stop(&h->fs->follow, &p->follower);
    if (p->wake != NULL)
        fuse_pollhandle_destroy(p->wake);
    stop_timer(p);
    free(p);
}

void ops_poll(fuse_req_t req,
              fuse_ino_t ino,
              struct fuse_file_info *fi,
              struct fuse_pollhandle *wake_by)
{
    struct fs *fs = op_fs(req);
    struct handle *h = handle_of(fi);
    struct poller *p = h->poller != NULL ? h->poller : poller_new(h);
    const char *followed = follower_path(&p->follower);
    (void)ino;
    if (followed == NULL || strcmp(followed, h->inode->path) != 0) { /* The first; or renamed. */
        follow_stop(&fs->follow, &p->follower);
        follow_start(&fs->follow, &p->follower, h->inode->path);
    }
    if (wake_by != NULL) {
        if (p->wake != NULL)
            fuse_pollhandle_destroy(p->wake);
        p->wake = wake_by;
    }
    (void)fuse_reply_poll(req, events_of(p));
}
