#include "fs/fs.h"

#include "fs/ask.h"
#include "fs/control.h"
#include "fs/handle.h"
#include "fs/locking.h"
#include "fs/loss.h"
#include "fs/moved.h"
#include "fs/ops.h"
#include "fs/poller.h"
#include "fs/rated.h"
#include "fs/watchers.h"
#include "raftstore/base/buf.h"
#include "raftstore/base/log.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static void on_init(void *userdata, struct fuse_conn_info *conn)
{
    struct fs *fs = userdata;
    /* Messages come by read(2) into one buffer.  A longer write than a page can't be a command; but
     * one that spans two must not be cut in two, as it would be if it had room for one page. */
    conn->want &= ~(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
                    FUSE_CAP_AUTO_INVAL_DATA);
    conn->max_write = 8192;
    watchers_start(fs);
    if (fs->on_init != NULL)
        fs->on_init(fs->arg);
}

const struct fuse_lowlevel_ops fs_ops = {
    .init = on_init,
    .lookup = ops_lookup,
    .forget = ops_forget,
    .forget_multi = ops_forget_multi,
    .getattr = ops_getattr,
    .setattr = ops_setattr,
    .mknod = ops_mknod,
    .mkdir = ops_mkdir,
    .unlink = ops_unlink,
    .rmdir = ops_rmdir,
    .symlink = ops_symlink,
    .readlink = ops_readlink,
    .rename = ops_rename,
    .link = ops_link,
    .create = ops_create,
    .open = ops_open,
    .read = ops_read,
    .write = ops_write,
    .flush = ops_flush,
    .release = ops_release,
    .fsync = ops_fsync,
    .opendir = ops_opendir,
    .readdir = ops_readdir,
    .releasedir = ops_releasedir,
    .statfs = ops_statfs,
    .getxattr = ops_getxattr,
    .listxattr = ops_listxattr,
    .setxattr = ops_setxattr,
    .removexattr = ops_removexattr,
    .flock = ops_flock,
    .poll = ops_poll,
    .getlk = ops_getlk,
    .setlk = ops_setlk,
};

/* The process that a hold was kept for has ended. */
static void on_keeper_gone(void *arg, struct hold *h)
{
    struct fs *fs = arg;
    LOG_INFO("kept hold released: its process has ended", "path=%s token=%" PRIu64,
             log_quote(bytes_str(h->at->path)), h->token);
    ask_release(fs, h->at->path, h->token);
}

static void on_lease_lost(void *arg, struct hold *h)
{
    loss_lease(arg, h);
    poll_wake_lease(arg, h);
    struct inode *inode = inode_get(&((struct fs *)arg)->inodes, inode_hold_number(h->token));
    if (inode != NULL) /* When the cluster says so too, its watchers are told. */
        watchers_known(arg, inode);
}

void fs_init(struct fs *fs,
             uv_loop_t *loop,
             const struct options *options,
             const char *cluster,
             const char *dir,
             const char *host)
{
    *fs = (struct fs){.loop = loop, .options = options, .cluster = cluster};
    fs->processes = process_table_new();
    fs->control = control_new(fs);
    inode_table_init(&fs->inodes);
    owner_namer_init(&fs->namer, host);
    follow_init(&fs->follow, loop);
    fs->watchers = watchers_new(fs);
    fs->notifier = notifier_new(loop, dir, watchers_on_done, fs);
    holds_init(&fs->holds, loop, fs->processes, on_keeper_gone, fs);
    fs->holds.on_lost = on_lease_lost;
}

void fs_set_client(struct fs *fs, struct client *client)
{
    fs->client = client;
    fs->holds.client = client;
    fs->follow.client = client;
}

void fs_deinit(struct fs *fs)
{
    handle_free_all(fs);
    rated_free(fs->rated);
    free(fs->frozen);
    ops_readdir_free_all(fs);
    watchers_free(fs->watchers);
    notifier_free(fs->notifier);
    follow_deinit(&fs->follow);
    holds_deinit(&fs->holds);
    inode_table_deinit(&fs->inodes);
    process_table_free(fs->processes);
    control_free(fs->control);
    tally_deinit(&fs->tally);
}

static void on_own_event(struct fs *fs, const Hf__Event *event)
{
    struct hold *h = holds_find(&fs->holds, event->token);
    if (h == NULL) {
        loss_event(fs, event);
        return;
    }
    if (event->type == WIRE_EFFECT_ENDED) {
        bool lost = event->code != WIRE_CODE_RELEASED;
        if (lost && h->state == HOLD_LIVE)
            LOG_INFO("hold lost", "path=%s token=%" PRIu64 " reason=%s",
                     log_quote(bytes_str(h->at->path)), h->token, wire_code_name(event->code));
        holds_ended(h, lost && h->state == HOLD_LIVE);
    } else if (event->type == WIRE_EFFECT_RENEWED) {
        /* By somebody who knows the token; our own renewals tell nothing new. */
        holds_renewed(h, event->stamp_ns, event->ttl_ms,
                      client_deadline_boot_ns(fs->client, event->deadline_ns));
    } else if (event->type == WIRE_EFFECT_RENAMED) {
        moved(fs, event->token, pack_bytes(event->path2), event->index, true);
    }
}

void fs_on_event(struct fs *fs, const Hf__Event *event)
{
    watchers_on_own_event(fs, event);
    on_own_event(fs, event);
    follow_on_event(&fs->follow, event);
}

/* Does the hold of a gap's question stand still? */
struct gap {
    struct fs *fs;
    uint64_t token;
    uint64_t stamp_ns; /* Of the newest news when it was asked. */
};

static void on_gap_answer(void *arg, const struct client_reply *reply)
{
    struct gap *g = arg;
    struct hold *h = holds_find(&g->fs->holds, g->token);
    const Hf__Hold *shown = NULL;
    if (reply->status == 0 && reply->query->n_nodes > 0)
        for (size_t i = 0; i < reply->query->nodes[0]->n_holds; i++)
            if (reply->query->nodes[0]->holds[i]->token == g->token)
                shown = reply->query->nodes[0]->holds[i];
    bool answered = reply->status == 0 || reply->status == -ENOENT;
    bool news = h != NULL && h->state == HOLD_LIVE &&
                client_lease_stamp_ns(h->lease) != g->stamp_ns; /* Perhaps newer than this. */
    if (h != NULL && shown != NULL && !news)
        holds_renewed(h, 0, shown->ttl_ms,
                      client_deadline_boot_ns(g->fs->client, shown->deadline_ns));
    if (h != NULL && shown != NULL)
        moved(g->fs, g->token, pack_bytes(reply->query->nodes[0]->path), reply->query->index,
              false);
    if (h != NULL && shown == NULL && answered) /* Else its own deadline tells. */
        holds_ended(h, h->state == HOLD_LIVE);
    free(g);
}

void fs_on_session(struct fs *fs, enum client_session_event event)
{
    control_session(fs, event);
    loss_session(fs, event);
    poll_wake_session(fs);
}

void fs_close(struct fs *fs)
{
    fs->closed = true;
    control_close(fs->control);
    watchers_close(fs->watchers);
    notifier_close(fs->notifier);
    follow_close(&fs->follow);
    poll_close(fs);
    loss_close(fs);
    locking_close(fs);
    holds_close(&fs->holds);
}

void fs_on_gap(struct fs *fs)
{
    struct hold *h, *next;
    loss_gap(fs);
    HASH_ITER(hh, fs->holds.by_token, h, next)
    {
        if (h->state != HOLD_LIVE)
            continue;
        struct gap *g = xcalloc(1, sizeof *g);
        Hf__Query query = HF__QUERY__INIT;
        g->fs = fs;
        g->token = h->token;
        g->stamp_ns = client_lease_stamp_ns(h->lease);
        query.what = HF__QUERY__WHAT__TOKEN;
        query.token = h->token;
        query.brief = true;
        if (client_query(fs->client, &query, fs->options->timeout_ms, false, on_gap_answer, g) < 0)
            free(g);
    }
}
