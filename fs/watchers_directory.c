/* What directory watchers hear of, with -o dirwatch: see watchers.h. */
#include "fs/watchers_internal.h"

#include "fs/attr.h"
#include "fs/locker.h"
#include "fs/show.h"
#include "raftstore/base/buf.h"
#include "raftstore/base/log.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <stdlib.h>

/* A path with locks that hang on others' sessions, or can have several holders. */
struct crowd {
    char *path; /* Key; owned. */
    bool asking;
    bool ask_again;
    bool failed; /* The last look had no answer. */
    UT_hash_handle hh;
};

static void on_crowd(void *arg, const struct client_reply *reply);

struct crowd_look {
    struct fs *fs;
    char *path; /* Owned. */
};

static void crowd_free(struct watchers *w, struct crowd *c)
{
    HASH_DEL(w->crowds, c);
    free(c->path);
    free(c);
}

static struct crowd *crowd_find(struct watchers *w, const char *path)
{
    struct crowd *c;
    HASH_FIND_STR(w->crowds, path, c);
    return c;
}

static struct crowd *crowd_add(struct watchers *w, const char *path)
{
    struct crowd *c = xcalloc(1, sizeof *c);
    c->path = xstrdup(path);
    HASH_ADD_KEYPTR(hh, w->crowds, c->path, strlen(c->path), c);
    return c;
}

/* Is anybody left? */
static void crowd_look(struct fs *fs, struct crowd *c)
{
    Hf__Query query = HF__QUERY__INIT;
    c->ask_again = c->asking;
    if (c->asking || fs->failed)
        return;
    struct crowd_look *l = xcalloc(1, sizeof *l);
    l->fs = fs;
    l->path = xstrdup(c->path);
    query.what = HF__QUERY__WHAT__SHOW;
    query.path = pack_binary(bytes_str(c->path));
    query.brief = true;
    if (client_query(fs->client, &query, fs->options->timeout_ms, false, on_crowd, l) == 0) {
        c->asking = true;
        c->failed = false;
        return;
    }
    c->failed = true;
    follow_again(&fs->follow, &fs->watchers->all);
    free(l->path);
    free(l);
}

static void on_crowd(void *arg, const struct client_reply *reply)
{
    struct crowd_look *l = arg;
    struct fs *fs = l->fs;
    struct watchers *w = fs->watchers;
    struct crowd *c = crowd_find(w, l->path);
    int error;
    const Hf__Node *node = show_node(reply, &error);
    if (c != NULL && !w->closed) {
        c->asking = false;
        bool none = node != NULL && node->holds_total == 0 && node->n_holds == 0;
        c->failed = node == NULL;
        if (c->ask_again) {
            crowd_look(fs, c);
        } else if (c->failed) {
            follow_again(&fs->follow, &w->all);
        } else if (none) {
            if (watchers_directory_is_known(fs, c->path))
                notifier_deleted(fs->notifier, c->path, INODE_FREE_BIT, S_IFREG);
            crowd_free(w, c);
        }
    }
    free(l->path);
    free(l);
}

/* Does a lock of this mount make the path a file already? */
static bool held_here(struct fs *fs, const char *path)
{
    const struct lock_file *f = lock_file_find(fs, path);
    const struct locker *l;
    if (f == NULL)
        return false;
    LIST_FOREACH(l, &f->lockers, in_file)
    {
        if (locker_holds(l))
            return true;
    }
    return false;
}

static void crowd_event(struct fs *fs, const Hf__Event *e, const char *path)
{
    struct watchers *w = fs->watchers;
    struct crowd *c = crowd_find(w, path);
    if (c == NULL) {
        c = crowd_add(w, path);
        if (e->type == WIRE_EFFECT_GRANTED && !held_here(fs, path) &&
            watchers_directory_is_known(fs, path))
            notifier_created(fs->notifier, path, INODE_FREE_BIT, S_IFREG, e->uid);
    }
    if (e->type == WIRE_EFFECT_ENDED)
        crowd_look(fs, c);
}

static bool is_crowd(const Hf__Event *e)
{
    return e->deadline_ns == 0 || e->mode != WIRE_MODE_EXCLUSIVE || e->limit != 0 ||
           e->start != 0 || e->end_inverted != 0;
}

static void lease_event(struct fs *fs, const Hf__Event *e, const char *path)
{
    uint64_t number = inode_hold_number(e->token);
    mode_t mode = attr_type_of_kind(e->kind);
    if (e->type == WIRE_EFFECT_ENDED) {
        watchers_tell_deleted(fs, number, path, mode);
    } else if (e->type == WIRE_EFFECT_GRANTED) {
        if (watchers_directory_is_known(fs, path))
            notifier_created(fs->notifier, path, number, mode, e->uid);
    } else if (e->type == WIRE_EFFECT_RENAMED) {
        char *to = watchers_text(e->path2);
        struct inode *i = watchers_inode(fs, number);
        if (i != NULL)
            inode_moved(&fs->inodes, i, to);
        if (watchers_directory_is_known(fs, path) && watchers_directory_is_known(fs, to))
            notifier_renamed(fs->notifier, path, to, number, mode);
        free(to);
    }
}

void watchers_on_everything(struct follower *f, const Hf__Event *e)
{
    struct watchers *w = (struct watchers *)((char *)f - offsetof(struct watchers, all));
    struct fs *fs = w->fs;
    bool changes = e->type == WIRE_EFFECT_GRANTED || e->type == WIRE_EFFECT_ENDED ||
                   e->type == WIRE_EFFECT_RENAMED;
    if (!changes || watchers_is_ours(fs, e))
        return; /* Its kernel has seen it, or watchers_on_own_event() tells. */
    char *path = watchers_text(e->path);
    if (is_crowd(e))
        crowd_event(fs, e, path);
    else
        lease_event(fs, e, path);
    free(path);
}

void watchers_on_everything_news(struct follower *f, enum follow_news news, uint64_t index)
{
    struct watchers *w = (struct watchers *)((char *)f - offsetof(struct watchers, all));
    struct crowd *c, *next;
    (void)index;
    if (news == FOLLOW_GAP)
        LOG_WARN("events were missed: directory watchers were not told of all", "paths=%u",
                 (unsigned)HASH_COUNT(w->crowds));
    HASH_ITER(hh, w->crowds, c, next)
    {
        if (news == FOLLOW_GAP || c->failed)
            crowd_look(w->fs, c);
    }
}

void watchers_free_crowds(struct watchers *w)
{
    struct crowd *c, *next;
    HASH_ITER(hh, w->crowds, c, next)
    {
        crowd_free(w, c);
    }
}
