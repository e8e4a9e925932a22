#include "fs/watchers_internal.h"

#include "fs/attr.h"
#include "fs/locker.h"
#include "fs/show.h"
#include "raftstore/base/buf.h"
#include "raftstore/base/log.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <errno.h>
#include <stdlib.h>

#define SWEEP_MS 1000u

/* A file that may be watched, or a name that has ended, to be looked at in a moment. */
struct candidate {
    STAILQ_ENTRY(candidate) link;
    uint64_t number;
    uint64_t since_ms; /* Loop time. */
    char *path;  /* Owned.  A name that was released here, perhaps not by unlink(2); or NULL. */
    mode_t mode; /* Of that. */
    bool probed; /* The kernel did not forget it. */
};

/* A file of somebody else's hold that somebody here seems to watch. */
struct watched {
    uint64_t number; /* Key. */
    struct fs *fs;
    uint64_t probed_ms; /* Loop time. */
    struct follower follower;
    UT_hash_handle hh;
};

static void on_timer(uv_timer_t *timer);

struct watchers *watchers_new(struct fs *fs)
{
    struct watchers *w = xcalloc(1, sizeof *w);
    w->fs = fs;
    STAILQ_INIT(&w->candidates);
    (void)uv_timer_init(fs->loop, &w->timer); /* Never fails. */
    w->timer.data = w;
    w->all.on_event = watchers_on_everything;
    w->all.on_news = watchers_on_everything_news;
    return w;
}

void watchers_start(struct fs *fs)
{
    if (fs->options->dirwatch)
        follow_start(&fs->follow, &fs->watchers->all, "");
}

void watchers_close(struct watchers *w)
{
    w->closed = true;
    uv_close((uv_handle_t *)&w->timer, NULL);
}

static void candidate_free(struct candidate *c)
{
    free(c->path);
    free(c);
}

static void unwatch(struct watchers *w, struct watched *one)
{
    HASH_DEL(w->watched, one);
    follow_stop(&w->fs->follow, &one->follower);
    free(one);
}

void watchers_free(struct watchers *w)
{
    struct candidate *c;
    struct watched *one, *next;
    while ((c = STAILQ_FIRST(&w->candidates)) != NULL) {
        STAILQ_REMOVE_HEAD(&w->candidates, link);
        candidate_free(c);
    }
    HASH_ITER(hh, w->watched, one, next)
    {
        unwatch(w, one);
    }
    watchers_free_crowds(w);
    follow_stop(&w->fs->follow, &w->all);
    HASH_CLEAR(hh, w->gone);
    free(w);
}

/* ---- What the kernel knows ---- */

static bool is_remembered(const struct watchers *w, uint64_t number)
{
    struct gone *g;
    HASH_FIND(hh, w->gone, &number, sizeof number, g);
    return g != NULL;
}

static bool is_gone(const struct watchers *w, uint64_t number)
{
    const struct inode *i = inode_get(&w->fs->inodes, number);
    return (i != NULL && i->unlinked) || is_remembered(w, number);
}

void watchers_unlinked(struct fs *fs, uint64_t number)
{
    struct inode *i = inode_get(&fs->inodes, number);
    if (i != NULL && i->kind == INODE_HOLD)
        i->unlinked = true;
    /* Of a file that the kernel forgets nobody is told but with dirwatch. */
    if (fs->options->dirwatch || fs->watchers->watched != NULL)
        watchers_replayed(fs, number);
}

void watchers_replayed(struct fs *fs, uint64_t number)
{
    struct watchers *w = fs->watchers;
    struct watched *one;
    struct gone *g = &w->ring[w->n_gone % GONE_MAX];
    HASH_FIND(hh, w->watched, &number, sizeof number, one);
    if (one != NULL)
        unwatch(w, one);
    if ((number & INODE_HOLD_BIT) == 0 || is_remembered(w, number))
        return; /* The file of a path with session locks may come again. */
    if (w->n_gone++ >= GONE_MAX)
        HASH_DEL(w->gone, g);
    g->number = number;
    HASH_ADD(hh, w->gone, number, sizeof g->number, g);
}

bool watchers_is_over(struct fs *fs, const struct notice *n)
{
    return is_gone(fs->watchers, n->number);
}

bool watchers_directory_is_known(struct fs *fs, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return true;
    char *directory = xmemdup(path, (size_t)(slash - path) + 1);
    directory[slash - path] = '\0';
    const struct inode *i = inode_directory_at(&fs->inodes, directory);
    free(directory);
    return i != NULL && i->n_lookups > 0;
}

struct inode *watchers_inode(struct fs *fs, uint64_t number)
{
    struct inode *i = inode_get(&fs->inodes, number);
    return i != NULL && i->n_lookups > 0 ? i : NULL;
}

void watchers_tell_deleted(struct fs *fs, uint64_t number, const char *path, mode_t mode)
{
    const struct inode *i = watchers_inode(fs, number);
    if (is_gone(fs->watchers, number) ||
        (i == NULL && (!fs->options->dirwatch || !watchers_directory_is_known(fs, path))))
        return;
    notifier_deleted(fs->notifier, i != NULL ? i->path : path, number, i != NULL ? i->type : mode);
}

char *watchers_text(ProtobufCBinaryData b)
{
    char *text = xmalloc(b.len + 1);
    if (b.len > 0)
        memcpy(text, b.data, b.len);
    text[b.len] = '\0';
    return text;
}

/* ---- Files ---- */

struct look {
    struct fs *fs;
    uint64_t number;
};

/* Does the file's hold stand? */
static bool stands(const struct inode *i, const Hf__Node *node)
{
    if (node->n_holds < node->holds_total)
        return true; /* Not all are told. */
    for (size_t k = 0; k < node->n_holds; k++) {
        const Hf__Hold *h = node->holds[k];
        if (i->kind == INODE_HOLD ? h->token == i->id : h->session_bound)
            return true;
    }
    return false;
}

static void on_look(void *arg, const struct client_reply *reply)
{
    struct look *l = arg;
    struct fs *fs = l->fs;
    struct watchers *w = fs->watchers;
    const struct inode *i = watchers_inode(fs, l->number);
    struct watched *one;
    int error;
    const Hf__Node *node = show_node(reply, &error);
    HASH_FIND(hh, w->watched, &l->number, sizeof l->number, one);
    if (one != NULL && node == NULL) {
        follow_again(&fs->follow, &one->follower);
    } else if (one != NULL && i != NULL && !w->closed && !stands(i, node)) {
        watchers_tell_deleted(fs, l->number, i->path, i->type);
        unwatch(w, one);
    }
    free(l);
}

static void look(struct watched *one)
{
    struct fs *fs = one->fs;
    Hf__Query query = HF__QUERY__INIT;
    const struct inode *i = watchers_inode(fs, one->number);
    if (i == NULL || fs->failed)
        return;
    struct look *l = xcalloc(1, sizeof *l);
    l->fs = fs;
    l->number = one->number;
    query.what = HF__QUERY__WHAT__SHOW;
    query.path = pack_binary(bytes_str(i->path));
    query.brief = true;
    if (client_query(fs->client, &query, fs->options->timeout_ms, false, on_look, l) < 0) {
        free(l);
        follow_again(&fs->follow, &one->follower);
    }
}

static struct watched *watched_of(struct follower *f)
{
    return (struct watched *)((char *)f - offsetof(struct watched, follower));
}

static void on_file_news(struct follower *f, enum follow_news news, uint64_t index)
{
    (void)news; /* Whichever: its end may have passed us by. */
    (void)index;
    look(watched_of(f));
}

static void on_file_event(struct follower *f, const Hf__Event *e)
{
    struct watched *one = watched_of(f);
    struct fs *fs = one->fs;
    struct inode *i = watchers_inode(fs, one->number);
    if (i == NULL) {
        unwatch(fs->watchers, one);
    } else if (i->kind == INODE_FREE) {
        if (e->type == WIRE_EFFECT_ENDED)
            look(one); /* There may be others. */
    } else if (e->token == i->id && e->type == WIRE_EFFECT_ENDED) {
        watchers_tell_deleted(fs, one->number, i->path, i->type);
        unwatch(fs->watchers, one);
    } else if (e->token == i->id && e->type == WIRE_EFFECT_RENAMED) {
        char *to = watchers_text(e->path2);
        inode_moved(&fs->inodes, i, to);
        follow_stop(&fs->follow, f);
        follow_start(&fs->follow, f, to);
        free(to);
    }
}

static void watch(struct fs *fs, const struct inode *i)
{
    struct watchers *w = fs->watchers;
    struct watched *one;
    uint64_t number = i->number;
    HASH_FIND(hh, w->watched, &number, sizeof number, one);
    if (one != NULL)
        return;
    one = xcalloc(1, sizeof *one);
    one->number = number;
    one->fs = fs;
    one->probed_ms = uv_now(fs->loop);
    one->follower.on_event = on_file_event;
    one->follower.on_news = on_file_news;
    HASH_ADD(hh, w->watched, number, sizeof one->number, one);
    follow_start(&fs->follow, &one->follower, i->path);
}

/* May somebody's watch on it hang on our knowing what others do? */
static bool needs_news(struct fs *fs, const struct inode *i)
{
    if (i->kind == INODE_FREE)
        return !fs->options->dirwatch && lock_file_find(fs, i->path) == NULL;
    const struct hold *own = holds_find(&fs->holds, i->id);
    return own == NULL || own->state == HOLD_ENDED;
}

/* The kernel still knows it: does somebody watch it?
 *
 * Return: false: that can't be found out now. */
static bool consider(struct fs *fs, struct inode *i, bool probed)
{
    if (i->n_open == 0 && !is_gone(fs->watchers, i->number)) {
        if (i->ended)
            watchers_tell_deleted(fs, i->number, i->path, i->type);
        else if (needs_news(fs, i) && probed)
            watch(fs, i);
        else if (needs_news(fs, i) && !notifier_probe(fs->notifier, i->path, i->number))
            return false;
    }
    i->known_ms = 0;
    return true;
}

static struct candidate *
add_candidate(struct watchers *w, uint64_t number, const char *path, mode_t mode)
{
    struct candidate *c = xcalloc(1, sizeof *c);
    c->number = number;
    c->since_ms = uv_now(w->timer.loop);
    c->path = path != NULL ? xstrdup(path) : NULL;
    c->mode = mode;
    if (STAILQ_EMPTY(&w->candidates))
        (void)uv_timer_start(&w->timer, on_timer, WATCHERS_AGE_MS, 0); /* Never fails. */
    STAILQ_INSERT_TAIL(&w->candidates, c, link);
    return c;
}

void watchers_known(struct fs *fs, struct inode *inode)
{
    struct watchers *w = fs->watchers;
    if (w->closed || inode->known_ms != 0 || inode->kind == INODE_DIRECTORY || inode->n_open > 0)
        return;
    if (inode->kind == INODE_HOLD && !inode->ended && !needs_news(fs, inode))
        return; /* Our own hold: its end will be known, whatever it is. */
    inode->known_ms = uv_now(fs->loop);
    (void)add_candidate(w, inode->number, NULL, 0);
}

void watchers_on_done(void *fs, const struct notice *n)
{
    struct watchers *w = ((struct fs *)fs)->watchers;
    struct inode *i = watchers_inode(fs, n->number);
    if (n->type != NOTICE_PROBE || n->error != ENOENT || w->closed || i == NULL)
        return;
    i->known_ms = uv_now(w->timer.loop); /* The kernel's FORGET may be still to come. */
    add_candidate(w, n->number, NULL, 0)->probed = true;
}

/* Return: false: not now. */
static bool look_at(struct watchers *w, const struct candidate *c)
{
    struct inode *i = watchers_inode(w->fs, c->number);
    if (c->path != NULL)
        watchers_tell_deleted(w->fs, c->number, c->path, c->mode);
    else if (i != NULL && i->known_ms == c->since_ms) /* Else it is another one, and younger. */
        return consider(w->fs, i, c->probed);
    return true;
}

/* Files that the kernel has forgotten are watched by nobody. */
static void sweep(struct watchers *w)
{
    struct watched *one, *next;
    uint64_t now = uv_now(w->timer.loop);
    HASH_ITER(hh, w->watched, one, next)
    {
        const struct inode *i = watchers_inode(w->fs, one->number);
        if (i == NULL) {
            unwatch(w, one);
        } else if (now - one->probed_ms >= WATCHERS_PROBE_MS) {
            one->probed_ms = now;
            (void)notifier_probe(w->fs->notifier, i->path, i->number); /* Else the next time. */
        }
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct watchers *w = timer->data;
    struct candidate *c;
    uint64_t now = uv_now(timer->loop);
    while ((c = STAILQ_FIRST(&w->candidates)) != NULL && now - c->since_ms >= WATCHERS_AGE_MS) {
        if (!look_at(w, c))
            break;
        STAILQ_REMOVE_HEAD(&w->candidates, link);
        candidate_free(c);
    }
    if (now - w->swept_ms >= SWEEP_MS) {
        w->swept_ms = now;
        sweep(w);
    }
    if (c != NULL)
        (void)uv_timer_start(timer, on_timer,
                             WATCHERS_AGE_MS - (now - c->since_ms) % WATCHERS_AGE_MS, 0);
    else if (w->watched != NULL)
        (void)uv_timer_start(timer, on_timer, SWEEP_MS, 0);
}

/* ---- What ends here ---- */

bool watchers_is_ours(const struct fs *fs, const Hf__Event *e)
{
    return holds_find(&fs->holds, e->token) != NULL ||
           owner_is_of(&fs->namer, pack_bytes(e->owner));
}

void watchers_on_own_event(struct fs *fs, const Hf__Event *e)
{
    struct watchers *w = fs->watchers;
    if (w->closed || e->type != WIRE_EFFECT_ENDED || e->deadline_ns == 0 ||
        !watchers_is_ours(fs, e))
        return; /* A lock that hangs on the session leaves no file of its own. */
    uint64_t number = inode_hold_number(e->token);
    struct inode *i = watchers_inode(fs, number);
    if (i == NULL && !fs->options->dirwatch)
        return;
    char *path = watchers_text(e->path);
    mode_t mode = attr_type_of_kind(e->kind);
    if (i != NULL)
        i->ended = true;
    if (e->code == WIRE_CODE_RELEASED && fs->options->dirwatch)
        add_candidate(w, number, path, mode); /* Most likely by unlink(2): that will be known. */
    else if (e->code == WIRE_CODE_RELEASED)
        watchers_known(fs, i);
    else if (fs->options->dirwatch || i->n_open == 0)
        watchers_tell_deleted(fs, number, path, mode);
    free(path);
}
