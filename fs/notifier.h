/* Tells the kernel of changes that it did not see, so that inotify watchers here hear of them.
 *
 * The kernel makes inotify events of system calls of its own machine only.  A daemon's word
 * (FUSE_NOTIFY_DELETE) makes IN_DELETE_SELF, but none any more once somebody has looked for the
 * name after the lock's end (measured, Linux 6.18), and never anything for a directory's watchers.
 * So each change is replayed as a system call in our own mount: mknod, unlink, rename and their
 * kin, on a thread of its own.  The requests that this makes the kernel send are recognised by that
 * thread's id, which nobody can forge, and answered from memory (replay.h): nothing reaches the
 * cluster.
 *
 * Why this can't hang:
 * - The thread may sit for long in a system call, waiting for a directory that another process has
 *   locked with a request that waits for the cluster.  The loop never waits for the thread.
 * - The thread has a descriptor table of its own without /dev/fuse in it.  So when the process
 *   ends, by SIGKILL too, the last reference to /dev/fuse goes while the thread still sits there;
 *   the kernel then fails all requests, the directory is unlocked, and the thread can end.  (A
 *   write(2) to /dev/fuse, as FUSE_NOTIFY_DELETE is one, would hold that reference itself.)
 *
 * Why it touches nothing else: before each change the mount point is opened anew, as a path only,
 * and a secret name is looked up in it, for which our loop alone has the right answer; the change
 * goes through that same descriptor, never across a mount point or a symbolic link; then it is
 * closed, so that umount(8) finds the mount busy for no longer than that. */
#ifndef HOLDFAST_FS_NOTIFIER_H
#define HOLDFAST_FS_NOTIFIER_H

#include <bsd/sys/queue.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uthash.h>
#include <uv.h>

#define NOTIFIER_QUEUE_MAX    4096u /* Notices that wait; what comes on top is dropped. */
#define NOTIFIER_COALESCE     256u  /* From here on a name that came and went is not told of. */
#define NOTIFIER_BURST        64u   /* After so many the thread rests: */
#define NOTIFIER_PAUSE_MS     5u
#define NOTIFIER_PROBES_MAX   1024u
#define NOTIFIER_PROBE_US     500u /* Rest after each probe. */
#define NOTIFIER_SECRET_BYTES 32u

enum notice_type {
    NOTICE_CREATED,
    NOTICE_DELETED,
    NOTICE_RENAMED,
    NOTICE_PROBE, /* Nothing has happened; see notifier_probe(). */
};

struct notice {
    enum notice_type type;
    mode_t mode;     /* S_IFREG, S_IFDIR or S_IFLNK. */
    uint64_t number; /* Of the inode. */
    uint32_t uid;    /* CREATED: of the holder. */
    char *path;      /* Owned. */
    char *to;        /* RENAMED: the new path; owned. */
    int error;       /* When it was done: 0 or a positive errno. */
    TAILQ_ENTRY(notice) link;
    UT_hash_handle hh; /* By path: the last one of a path that waits. */
};
TAILQ_HEAD(notice_list, notice);

struct notifier;

/* Nothing runs before the first notice.
 *
 * @dir: the mount point, absolute; lives as long.
 * @on_done: from the loop, for each that was tried; may be NULL. */
struct notifier *notifier_new(uv_loop_t *loop,
                              const char *dir,
                              void (*on_done)(void *arg, const struct notice *n),
                              void *arg);

/* Tell the kernel, in the order of the calls. */
void notifier_created(
    struct notifier *n, const char *path, uint64_t number, mode_t mode, uint32_t uid);
void notifier_deleted(struct notifier *n, const char *path, uint64_t number, mode_t mode);
void notifier_renamed(
    struct notifier *n, const char *path, const char *to, uint64_t number, mode_t mode);

/* Let the kernel forget what it knows of a file, if it can: a name that it is told does not exist
 * is dropped from its cache (it will be looked up again), and its inode with it, unless that is
 * open, or watched.  Comes behind everything else.
 *
 * Return: false: too many are under way. */
bool notifier_probe(struct notifier *n, const char *path, uint64_t number);

/* Is this the thread? */
bool notifier_is_caller(const struct notifier *n, pid_t thread_id);

/* What the thread is at, while one of its requests is unanswered; NULL: nothing. */
const struct notice *notifier_current(struct notifier *n);

/* The name by which the thread recognises our mount, and the errno that says "yes". */
const char *notifier_secret(const struct notifier *n);
#define NOTIFIER_YES EXFULL

struct notifier_stats {
    uint64_t done;      /* Probes too. */
    uint64_t coalesced; /* Not told of, since they were over. */
    uint64_t dropped;   /* The queue was full. */
};
struct notifier_stats notifier_stats(struct notifier *n);

/* Take nothing more, and let the thread end.  The mount must be gone, so that no system call can
 * hang; the loop has a handle of ours until the thread has ended. */
void notifier_close(struct notifier *n);

/* When the loop has run out. */
void notifier_free(struct notifier *n);

#endif
