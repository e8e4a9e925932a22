/* The holds that this mount made (or keeps alive), and what it remembers of those that ended.
 *
 * A hold lives by the daemon's own deadline (client_lease): at it the hold has ended for everybody
 * here, whatever the cluster still thinks.  Ended holds are remembered for a while, so that a
 * script whose lease ran out is told ESTALE and not that there never was one.
 *
 * Authority: the process that acquired and its descendants; once it is gone, its nearest living
 * ancestor and that one's descendants (never pid 1 or a reaper); always with the same uid. */
#ifndef HOLDFAST_FS_HOLDS_H
#define HOLDFAST_FS_HOLDS_H

#include "fs/process.h"
#include "raftstore/client/lease.h"

#include <bsd/sys/queue.h>
#include <sys/types.h>
#include <uthash.h>

#define HOLDS_ENDED_MAX 4096u /* Ended holds that are remembered. */

enum hold_state {
    HOLD_LIVE,      /* Held. */
    HOLD_RELEASING, /* Our release is on its way; perhaps still held as the cluster sees it. */
    HOLD_ENDED,     /* Released, expired, broken. */
};

struct hold_path;
struct keeper;

struct hold {
    uint64_t token; /* Key. */
    struct hold_table *table;
    struct hold_path *at; /* Its path. */
    enum hold_state state;
    bool lost;                   /* ENDED: not by a release of ours. */
    bool remembered;             /* ENDED, lost and without references: in hold_table.ended. */
    uid_t uid;                   /* Of the process that acquired. */
    uint64_t moved_index;        /* Log index of the last news of another path. */
    struct client_lease *lease;  /* LIVE: follows the deadline. */
    struct keeper *keeper;       /* `keep`: the process that it hangs on; NULL = not kept. */
    unsigned n_refs;             /* Handles and requests; an ended one without any may go. */
    unsigned n_heirs;            /* Size of `heirs`. */
    struct process_id *heirs;    /* Owned: who acquired, then ancestors, nearest first. */
    UT_hash_handle hh;           /* By token. */
    TAILQ_ENTRY(hold) in_path;   /* Of hold_path.holds; the newest last. */
    TAILQ_ENTRY(hold) in_ended;  /* Of hold_table.ended, the oldest first. */
    TAILQ_ENTRY(hold) in_keeper; /* Of keeper.holds. */
};
TAILQ_HEAD(hold_list, hold);

struct hold_path {
    char *path; /* Key; owned. */
    struct hold_list holds;
    UT_hash_handle hh;
};

struct hold_table {
    struct hold *by_token;     /* uthash. */
    uint64_t n_live;           /* Of them, in the state LIVE. */
    struct hold_path *by_path; /* uthash. */
    struct hold_list ended;    /* Remembered. */
    unsigned n_ended;
    struct keeper *keepers; /* uthash, by process. */
    struct client *client;
    bool closed; /* holds_close(): nothing is followed any more. */
    uv_loop_t *loop;
    struct process_table *processes;
    void (*on_keeper_gone)(void *arg, struct hold *h); /* The process of a kept hold has ended. */
    void (*on_lost)(void *arg, struct hold *h); /* One was lost; NULL: nobody wants to know. */
    void *arg;
};

void holds_init(struct hold_table *t,
                uv_loop_t *loop,
                struct process_table *processes,
                void (*on_keeper_gone)(void *arg, struct hold *h),
                void *arg);
void holds_deinit(struct hold_table *t);

/* Take in a hold that was granted.  What else was believed to be held at its path has ended.
 * Behind holds_close() it counts as ended itself.
 *
 * @lineage: of the process that acquired; its heirs are copied.
 * Return: the hold, with a reference for the caller. */
struct hold *holds_add(struct hold_table *t,
                       const char *path,
                       uint64_t token,
                       uid_t uid,
                       const struct lineage *lineage,
                       uint64_t ttl_ms,
                       uint64_t deadline_boot_ns);

/* Stop following all of them, before the client goes; nothing is released. */
void holds_close(struct hold_table *t);

/* Is it held still, at this very moment?  (The timer of its deadline may be late.) */
bool hold_is_live(struct hold *h);

/* Return: NULL when it is not known here. */
struct hold *holds_find(const struct hold_table *t, uint64_t token);

/* The live one at a path; NULL: none of ours. */
struct hold *holds_find_live(const struct hold_table *t, const char *path);

/* May a process with this uid and lineage act on the hold? */
bool holds_authorised(struct hold_table *t,
                      const struct hold *h,
                      uid_t uid,
                      const struct lineage *caller);

/* Did such a process hold this path here, and lost it? */
bool holds_remembered(struct hold_table *t,
                      const char *path,
                      uid_t uid,
                      const struct lineage *caller);

/* It was renewed: the new ttl and own deadline.  Ignored when it has ended, or when something newer
 * is known already.
 *
 * @stamp_ns: cluster time of the renewal; 0: it is the present state. */
void holds_renewed(struct hold *h, uint64_t stamp_ns, uint64_t ttl_ms, uint64_t deadline_boot_ns);

/* A release of it is going to be sent.  From now on nobody here may rely on it: whether it was
 * done is not known before the answer, which may never come. */
void holds_releasing(struct hold *h);

/* The release surely was not done: back to how it was, if its time is not over. */
void holds_not_released(struct hold *h);

/* It stands at another path now.
 *
 * @index: log index of the news.  @event: it comes in the order of the log.  Older news than the
 * newest are ignored.
 * Return: does that change its path here? */
bool holds_moved(struct hold *h, const char *path, uint64_t index, bool event);

/* A renewal with this ttl is going to be sent: the hold may end as early as that.
 *
 * Return: holds_shortened() is to follow, also when it is not known whether it was done. */
bool holds_shorten(struct hold *h, uint64_t ttl_ms);
void holds_shortened(struct hold *h, enum client_lease_outcome outcome);

/* It has ended.  A lost one (expired, broken) is remembered for a while; the object of a released
 * one goes with its last reference: at once, if there is none. */
void holds_ended(struct hold *h, bool lost);

/* Renew it for as long as `process` lives.
 *
 * Return: 0; -ESRCH the process has ended; other negative errno. */
int holds_keep(struct hold *h, struct process_id process);

/* The process that has authority now: who acquired, or its nearest living heir.
 *
 * Return: {0, 0}: none is left. */
struct process_id holds_heir(struct hold_table *t, const struct hold *h);

void hold_ref(struct hold *h);
void hold_unref(struct hold *h);

#endif
