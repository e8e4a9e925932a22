#include "fs/follow.h"

#include "raftstore/base/buf.h"
#include "raftstore/base/log.h"
#include "raftstore/wire/pack.h"

#include <stdlib.h>

struct follow_path {
    char *path; /* Key; owned. */
    struct follower_list followers;
    uint64_t version; /* Of the first set that covers it; 0 = not sent yet. */
    uint64_t left_ms; /* Loop time at which its last follower went. */
    UT_hash_handle hh;
};

static void on_timer(uv_timer_t *timer);

static uint64_t now_ms(const struct follow *t)
{
    return uv_now(t->timer.loop);
}

/* Look at the set within `in_ms`. */
static void schedule(struct follow *t, uint64_t in_ms)
{
    if (t->closed)
        return;
    if (!uv_is_active((uv_handle_t *)&t->timer) || uv_timer_get_due_in(&t->timer) > in_ms)
        (void)uv_timer_start(&t->timer, on_timer, in_ms, 0); /* Never fails. */
}

/* The set is to be sent: at once, unless another one was just now. */
static void schedule_send(struct follow *t)
{
    uint64_t since = now_ms(t) - t->sent_ms;
    t->changed = true;
    schedule(t, t->sent_ms == 0 || since >= FOLLOW_BATCH_MS ? 0 : FOLLOW_BATCH_MS - since);
}

void follow_init(struct follow *t, uv_loop_t *loop)
{
    *t = (struct follow){0};
    LIST_INIT(&t->silent);
    (void)uv_timer_init(loop, &t->timer); /* Never fails. */
    t->timer.data = t;
}

void follow_close(struct follow *t)
{
    t->closed = true;
    uv_close((uv_handle_t *)&t->timer, NULL);
}

static void path_free(struct follow *t, struct follow_path *p)
{
    HASH_DEL(t->paths, p);
    free(p->path);
    free(p);
}

void follow_deinit(struct follow *t)
{
    struct follow_path *p, *next;
    struct follower *f;
    HASH_ITER(hh, t->paths, p, next)
    {
        while ((f = LIST_FIRST(&p->followers)) != NULL)
            follow_stop(t, f);
        path_free(t, p);
    }
}

/* ---- Followers ---- */

static struct follow_path *path_find(const struct follow *t, struct bytes path)
{
    struct follow_path *p = NULL;
    const void *key = path.size > 0 ? path.data : "";
    if (t->paths != NULL)
        HASH_FIND(hh, t->paths, key, path.size, p);
    return p;
}

void follow_start(struct follow *t, struct follower *f, const char *path)
{
    struct follow_path *p = path_find(t, bytes_str(path));
    if (p == NULL) {
        p = xcalloc(1, sizeof *p);
        p->path = xstrdup(path);
        LIST_INIT(&p->followers);
        HASH_ADD_KEYPTR(hh, t->paths, p->path, strlen(p->path), p);
        if (t->all)
            p->version = t->version;
        else
            schedule_send(t);
    }
    if (p->version != 0 && p->version <= t->begun_version)
        schedule(t, 0); /* In force: to be told. */
    f->at = p;
    f->begun = false;
    LIST_INSERT_HEAD(&p->followers, f, link);
    LIST_INSERT_HEAD(&t->silent, f, silent);
}

void follow_stop(struct follow *t, struct follower *f)
{
    struct follow_path *p = f->at;
    if (p == NULL)
        return;
    f->at = NULL;
    LIST_REMOVE(f, link);
    if (!f->begun)
        LIST_REMOVE(f, silent);
    p->left_ms = now_ms(t);
    if (t->drop_ms == 0)
        t->drop_ms = p->left_ms + FOLLOW_LINGER_MS;
    schedule(t, FOLLOW_LINGER_MS);
}

void follow_again(struct follow *t, struct follower *f)
{
    if (f->at == NULL || !f->begun || t->closed)
        return;
    f->begun = false;
    LIST_INSERT_HEAD(&t->silent, f, silent);
    schedule(t, FOLLOW_AGAIN_MS);
}

const char *follower_path(const struct follower *f)
{
    return f->at != NULL ? f->at->path : NULL;
}

bool follow_is_begun(const struct follower *f)
{
    return f->at != NULL && f->begun;
}

/* ---- The set ---- */

/* Forget paths whose followers went `age_ms` ago. */
static void drop_left(struct follow *t, uint64_t age_ms)
{
    struct follow_path *p, *next;
    t->drop_ms = 0;
    HASH_ITER(hh, t->paths, p, next)
    {
        if (!LIST_EMPTY(&p->followers))
            continue;
        uint64_t age = now_ms(t) - p->left_ms;
        if (age < age_ms) {
            uint64_t at = p->left_ms + age_ms;
            t->drop_ms = t->drop_ms == 0 || at < t->drop_ms ? at : t->drop_ms;
            continue;
        }
        t->changed = true;
        path_free(t, p);
    }
    if (t->drop_ms != 0)
        schedule(t, t->drop_ms - now_ms(t));
}

static void send_set(struct follow *t)
{
    const char *prefixes[FOLLOW_PATHS_MAX];
    unsigned room = t->all ? FOLLOW_PATHS_MAX / 2 : FOLLOW_PATHS_MAX; /* Not to and fro. */
    struct follow_path *p, *next;
    size_t n = 0;
    t->changed = false;
    if (HASH_COUNT(t->paths) > room)
        drop_left(t, 0);
    bool all = HASH_COUNT(t->paths) > room || path_find(t, bytes_str("")) != NULL;
    if (all && t->all)
        return;
    if (all)
        prefixes[n++] = "";
    HASH_ITER(hh, t->paths, p, next)
    {
        if (!all)
            prefixes[n++] = p->path;
    }
    t->changed = false; /* What was dropped here is not in it. */
    t->all = all;
    t->sent_ms = now_ms(t);
    t->version = client_watch(t->client, prefixes, n);
    LOG_DEBUG("follows", "paths=%zu all=%d", n, all);
    HASH_ITER(hh, t->paths, p, next)
    {
        if (p->version == 0)
            p->version = t->version;
    }
}

/* Tell those whose path is in force. */
static void tell_begun(struct follow *t)
{
    struct follower_list ready;
    struct follower *f, *next;
    LIST_INIT(&ready);
    LIST_FOREACH_SAFE(f, &t->silent, silent, next)
    {
        if (f->at->version == 0 || f->at->version > t->begun_version)
            continue;
        LIST_REMOVE(f, silent);
        LIST_INSERT_HEAD(&ready, f, silent);
    }
    while ((f = LIST_FIRST(&ready)) != NULL) {
        LIST_REMOVE(f, silent);
        f->begun = true;
        f->on_news(f, FOLLOW_BEGUN, t->begun_index);
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct follow *t = timer->data;
    if (t->drop_ms != 0 && now_ms(t) >= t->drop_ms)
        drop_left(t, FOLLOW_LINGER_MS);
    else if (t->drop_ms != 0)
        schedule(t, t->drop_ms - now_ms(t));
    if (t->changed && (t->sent_ms == 0 || now_ms(t) - t->sent_ms >= FOLLOW_BATCH_MS))
        send_set(t);
    else if (t->changed)
        schedule_send(t);
    tell_begun(t);
}

/* ---- News ---- */

/* Callbacks may stop any follower: each is put back before it is called. */
static void
tell_path(struct follow_path *p, const Hf__Event *event, enum follow_news news, uint64_t index)
{
    struct follower_list list;
    struct follower *f;
    LIST_INIT(&list);
    LIST_SWAP(&list, &p->followers, follower, link);
    while ((f = LIST_FIRST(&list)) != NULL) {
        LIST_REMOVE(f, link);
        LIST_INSERT_HEAD(&p->followers, f, link);
        if (event != NULL)
            f->on_event(f, event);
        else if (f->begun)
            f->on_news(f, news, index);
    }
}

static bool covers(struct bytes prefix, struct bytes path)
{
    return prefix.size == 0 ||
           (path.size >= prefix.size && memcmp(path.data, prefix.data, prefix.size) == 0 &&
            (path.size == prefix.size || ((const char *)path.data)[prefix.size] == '/'));
}

/* Tell those who follow `path` or a directory above it, but none above `but` (they know). */
static void
tell_above(struct follow *t, const Hf__Event *event, struct bytes path, const struct bytes *but)
{
    const char *p = path.data;
    for (size_t n = 0; n <= path.size; n++) {
        bool boundary = n == 0 || n == path.size || p[n] == '/';
        struct bytes prefix = bytes_of(p, n);
        struct follow_path *at = boundary ? path_find(t, prefix) : NULL;
        if (at != NULL && (but == NULL || !covers(prefix, *but)))
            tell_path(at, event, FOLLOW_GAP, 0);
    }
}

void follow_on_event(struct follow *t, const Hf__Event *event)
{
    struct bytes path = pack_bytes(event->path), path2 = pack_bytes(event->path2);
    if (t->closed || t->paths == NULL)
        return;
    tell_above(t, event, path, NULL);
    if (path2.size > 0)
        tell_above(t, event, path2, &path);
}

void follow_on_watch(struct follow *t, uint64_t version, uint64_t index)
{
    t->begun_version = version;
    t->begun_index = index;
    if (!t->closed)
        tell_begun(t);
}

void follow_on_gap(struct follow *t)
{
    struct follow_path *p, *next;
    if (t->closed)
        return;
    HASH_ITER(hh, t->paths, p, next)
    {
        tell_path(p, NULL, FOLLOW_GAP, 0);
    }
}
