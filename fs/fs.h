/* The daemon's state: one per process, on one loop, one thread. */
#ifndef HOLDFAST_FS_FS_H
#define HOLDFAST_FS_FS_H

#define FUSE_USE_VERSION 312

#include "fs/follow.h"
#include "fs/holds.h"
#include "fs/inode.h"
#include "fs/options.h"
#include "fs/owner.h"
#include "fs/process.h"
#include "fs/tally.h"
#include "raftstore/client/client.h"

#include <bsd/sys/queue.h>
#include <fuse_lowlevel.h>

struct control;
struct handle;
struct dir_handle;
LIST_HEAD(handle_list, handle);
struct locker;
struct lock_file;
struct notifier;
struct poller;
struct watchers;
LIST_HEAD(dir_handle_list, dir_handle);
LIST_HEAD(locker_list, locker);
LIST_HEAD(poller_list, poller);

struct fs {
    uv_loop_t *loop;
    const struct options *options;
    const char *cluster;     /* Addresses as the CLI wants them. */
    const char *dir;         /* Mount point; NULL before it is known. */
    struct control *control; /* `.holdfast` in the root. */
    struct tally tally;
    bool root_stale; /* Old attributes of the root were told: see root.h. */
    struct client *client;
    struct fuse_session *session; /* While it is mounted. */
    struct inode_table inodes;
    struct hold_table holds;
    struct process_table *processes;
    struct handle_list handles; /* Open files, to be freed with the mount. */
    struct dir_handle_list dir_handles;
    struct poller_list pollers;   /* Of open files that were polled. */
    struct lock_file *lock_files; /* uthash: paths with flock and fcntl locks of ours. */
    uint64_t n_held[2]; /* Lockers that hold something by a hold of their own, by locker_kind. */
    LIST_HEAD(, lock_request) lock_requests; /* All of them. */
    uint64_t n_lockers_made;
    struct follow follow;      /* Who wants to know of others' locks. */
    struct watchers *watchers; /* Who hears of it by inotify, */
    struct notifier *notifier; /* and how. */
    struct owner_namer namer;
    struct rated *rated;       /* rated.h; NULL = no limit. */
    struct process_id *frozen; /* Stopped by lost=freeze; owned. */
    size_t n_frozen;
    struct process_id signaled; /* Who got the last signal for a lost lock. */
    bool closed;                /* fs_close(): the client goes, the kernel is told no more. */
    bool failed;                /* The embedded store can't go on: everything is EIO. */
    void (*on_init)(void *arg); /* The kernel has said hello: the mount is usable. */
    void *arg;
};

/* @options, @cluster, @dir (the mount point, absolute): live as long.  @host: that the mount speaks
 * for. */
void fs_init(struct fs *fs,
             uv_loop_t *loop,
             const struct options *options,
             const char *cluster,
             const char *dir,
             const char *host);

/* Before the first operation; the client's callbacks need the rest first. */
void fs_set_client(struct fs *fs, struct client *client);
void fs_deinit(struct fs *fs);

/* The client's events: what happened to holds of our session, and at followed paths. */
void fs_on_event(struct fs *fs, const Hf__Event *event);

/* What became of our session. */
void fs_on_session(struct fs *fs, enum client_session_event event);

/* The mount ends; before the client is closed. */
void fs_close(struct fs *fs);

/* Events of our session were missed: ask for every hold that we think we have. */
void fs_on_gap(struct fs *fs);

/* libfuse's table of operations. */
extern const struct fuse_lowlevel_ops fs_ops;

#endif
