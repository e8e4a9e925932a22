#include "fs/loss.h"

#include "fs/ask.h"
#include "fs/control.h"
#include "fs/locking.h"
#include "fs/poller.h"
#include "raftstore/base/log.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <signal.h>
#include <stdlib.h>

static void signal_process(struct process_id process, int number)
{
    if (process.pid == 0)
        return;
    int r = process_signal(process, number);
    LOG_INFO("signal for a lost lock", "pid=%u signal=%d result=%d", process.pid, number, r);
}

static bool is_frozen(const struct fs *fs, struct process_id process)
{
    for (size_t i = 0; i < fs->n_frozen; i++)
        if (process_equal(fs->frozen[i], process))
            return true;
    return false;
}

static void freeze(struct fs *fs, struct process_id process)
{
    if (process.pid == 0 || is_frozen(fs, process))
        return;
    signal_process(process, SIGSTOP);
    fs->frozen = xrealloc(fs->frozen, (fs->n_frozen + 1) * sizeof fs->frozen[0]);
    fs->frozen[fs->n_frozen++] = process;
}

static void signal_frozen(struct fs *fs, int number)
{
    for (size_t i = 0; i < fs->n_frozen; i++)
        signal_process(fs->frozen[i], number);
    free(fs->frozen);
    fs->frozen = NULL;
    fs->n_frozen = 0;
}

/* Who is told of a locker's loss. */
static struct process_id process_of(const struct locker *l)
{
    return heirs_living(l->file->fs->processes, l->heirs, l->n_heirs);
}

/* No way back: its handle answers ESTALE for ever. */
static void lose(struct locker *l)
{
    l->lost = l->told = true;
    l->handle->lost = true;
    if (l->latest != NULL)
        l->latest->lost = true;
    held_set(&l->held, 0, HELD_END, HELD_NONE);
    poll_wake(l->handle);
    poll_wake(l->latest);
    if (l->leaner != NULL)
        lose(l->leaner);
}

/* Call for every locker with holds of its own. */
static void each(struct fs *fs, void (*visit)(struct fs *fs, struct locker *l))
{
    struct lock_file *f, *next_file;
    struct locker *l, *next;
    HASH_ITER(hh, fs->lock_files, f, next_file)
    {
        lock_file_ref(f);
        LIST_FOREACH_SAFE(l, &f->lockers, in_file, next)
        {
            if (locker_holds(l))
                visit(fs, l);
        }
        lock_file_unref(f);
    }
}

/* In doubt by our own deadline. */
static void on_lost(struct fs *fs, struct locker *l)
{
    const struct options *o = fs->options;
    struct process_id process = process_of(l);
    if (l->lost)
        return;
    l->lost = true;
    control_lock_lost(fs, l);
    poll_wake(l->handle);
    poll_wake(l->latest);
    LOG_INFO("lock lost", "path=%s pid=%u", log_quote(bytes_str(l->file->path)), process.pid);
    if (o->lost_freeze)
        freeze(fs, process);
    else if (o->lost_signal != 0 && process.pid != 0)
        l->told = true;
    if (o->lost_signal != 0 && !process_equal(process, fs->signaled)) {
        fs->signaled = process; /* One signal is enough for the many locks of one process. */
        signal_process(process, o->lost_signal);
    }
}

/* The cluster has kept everything. */
static void on_resumed(struct fs *fs, struct locker *l)
{
    (void)fs;
    if (l->told) {
        lose(l);
        locking_release(l);
    } else {
        l->lost = false;
    }
}

static void on_ended(struct fs *fs, struct locker *l)
{
    on_lost(fs, l); /* Unless it is known. */
    lose(l);
    locker_unlean(l);
    if (l->leaner != NULL)
        locker_unlean(l->leaner);
}

void loss_session(struct fs *fs, enum client_session_event event)
{
    fs->signaled = (struct process_id){0, 0};
    if (event == CLIENT_SESSION_LOST) {
        each(fs, on_lost);
    } else if (event == CLIENT_SESSION_RESUMED) {
        each(fs, on_resumed);
        signal_frozen(fs, SIGCONT);
        locking_session_kept(fs);
    } else if (event == CLIENT_SESSION_ENDED) {
        each(fs, on_ended);
        signal_frozen(fs, SIGKILL);
        locking_session_ended(fs);
    }
}

/* One hold is gone, though the session lives. */
static void lose_one(struct fs *fs, struct locker *l)
{
    const struct options *o = fs->options;
    struct process_id process = process_of(l);
    LOG_INFO("lock lost", "path=%s pid=%u", log_quote(bytes_str(l->file->path)), process.pid);
    control_lock_lost(fs, l);
    lose(l);
    locking_release(l); /* What is left of it; `l` may be gone. */
    if (o->lost_freeze)
        signal_process(process, SIGKILL); /* There is nothing to be resumed. */
    else if (o->lost_signal != 0)
        signal_process(process, o->lost_signal);
}

static struct locker *find_owner(struct lock_file *f, struct bytes owner)
{
    struct locker *l;
    LIST_FOREACH(l, &f->lockers, in_file)
    {
        if (locker_holds(l) && bytes_equal(bytes_str(l->text), owner))
            return l;
    }
    return NULL;
}

void loss_event(struct fs *fs, const Hf__Event *event)
{
    struct lock_file *f = NULL;
    /* By somebody with its token: no mount renames what was locked by flock or fcntl. */
    bool taken_away = event->type == WIRE_EFFECT_RENAMED;
    if (!taken_away && (event->type != WIRE_EFFECT_ENDED || event->code != WIRE_CODE_BROKEN))
        return; /* The session's end is the session's news; RELEASED was our own wish. */
    if (fs->lock_files != NULL)
        HASH_FIND(hh, fs->lock_files, event->path.data, event->path.len, f);
    if (f == NULL)
        return;
    lock_file_ref(f);
    struct locker *l = find_owner(f, pack_bytes(event->owner));
    if (l != NULL && taken_away)
        ask_release(fs, f->path, event->token); /* Wherever it stands now. */
    for (; l != NULL; l = find_owner(f, pack_bytes(event->owner)))
        lose_one(fs, l); /* And who leans on it. */
    lock_file_unref(f);
}

struct gap {
    struct fs *fs;
    char *path; /* Owned. */
    char *text; /* Owner; owned. */
};

static void on_gap_answer(void *arg, const struct client_reply *reply)
{
    struct gap *g = arg;
    struct lock_file *f = lock_file_find(g->fs, g->path);
    struct locker *l = f != NULL ? find_owner(f, bytes_str(g->text)) : NULL;
    bool there = reply->status != 0 || reply->query == NULL || reply->query->n_nodes == 0;
    if (!there) {
        const Hf__Node *node = reply->query->nodes[0];
        there = node->n_holds >= 1024; /* Not all of them are told. */
        for (size_t i = 0; i < node->n_holds && !there; i++)
            there = bytes_equal(pack_bytes(node->holds[i]->owner), bytes_str(g->text));
    }
    if (l != NULL && !there && TAILQ_EMPTY(&l->requests))
        lose_one(g->fs, l);
    free(g->path);
    free(g->text);
    free(g);
}

static void ask(struct fs *fs, struct locker *l)
{
    struct gap *g = xcalloc(1, sizeof *g);
    Hf__Query query = HF__QUERY__INIT;
    g->fs = fs;
    g->path = xstrdup(l->file->path);
    g->text = xstrdup(l->text);
    query.what = HF__QUERY__WHAT__SHOW;
    query.path = pack_binary(bytes_str(g->path));
    query.brief = true;
    if (client_query(fs->client, &query, fs->options->timeout_ms, false, on_gap_answer, g) == 0)
        return;
    free(g->path);
    free(g->text);
    free(g);
}

void loss_gap(struct fs *fs)
{
    each(fs, ask);
}

void loss_lease(struct fs *fs, struct hold *h)
{
    const struct options *o = fs->options;
    control_lease_lost(fs, h);
    if (o->lost_signal == 0 && !o->lost_freeze)
        return;
    /* A lease is never resumed, so there is nothing to freeze for. */
    signal_process(holds_heir(&fs->holds, h), o->lost_freeze ? SIGKILL : o->lost_signal);
}

void loss_close(struct fs *fs)
{
    signal_frozen(fs, SIGKILL);
}
