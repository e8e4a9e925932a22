/* The parts of the requests for locks; for locking*.c only.
 *
 *     locking.c          beginning, and what the session brings about: see there for the events
 *     locking_request.c  the steps of a request
 *     locking_orphan.c   its end, time-outs, interrupts, and what outlives its answer
 *     locking_release.c  what is given back */
#ifndef HOLDFAST_FS_LOCKING_INTERNAL_H
#define HOLDFAST_FS_LOCKING_INTERNAL_H

#include "fs/locking.h"

#include "holdfast.pb-c.h"

enum step {
    STEP_LINE,    /* Waits for orphans of its locker. */
    STEP_TRY,     /* flock, from shared to exclusive at once. */
    STEP_YIELD,   /* It could not; gives up what it had. */
    STEP_ASK,     /* Acquires, and waits in the cluster's queue if it may. */
    STEP_RETRY,   /* Refused, but a release of our own was on its way. */
    STEP_SESSION, /* Granted, but whether the session lives is in doubt. */
    STEP_UNLOCK,
    STEP_KEPT, /* An orphan in its place that was granted. */
    STEP_UNDO, /* Gives back what an orphan was granted. */
};

struct lock_request {
    struct op op;
    struct handle *handle; /* With a reference. */
    struct locker *locker; /* Likewise. */
    struct lock_want want;
    enum step step;
    bool sent;                 /* A command is under way: its callback comes. */
    bool orphan;               /* The kernel has its answer. */
    bool in_place;             /* ORPHAN: `timer` runs, nothing is canceled yet. */
    bool restart;              /* Its locker was closed under it. */
    bool retried;              /* It was in RETRY once. */
    unsigned n_undo;           /* UNDO: commands under way. */
    uint64_t command;          /* For client_cancel(). */
    struct process_id process; /* Who asks. */
    bool has_timer;
    uv_timer_t timer;                     /* Time-out; IN_PLACE: end of the place. */
    LIST_ENTRY(lock_request) in_fs;       /* Of fs.lock_requests. */
    TAILQ_ENTRY(lock_request) link;       /* Of locker.requests. */
    TAILQ_ENTRY(lock_request) retry_link; /* Of lock_file.retry. */
};

struct fs *lock_request_fs(const struct lock_request *r);

/* ---- locking.c ---- */

/* Its locker was closed under it (fcntl: by another thread): the request is a new locker's. */
void lock_request_start_anew(struct lock_request *r);

/* ---- locking_request.c ---- */

/* A zeroed one, in the mount's list; lock_request_finish() frees it. */
struct lock_request *lock_request_new(struct fs *fs);

/* One more of this locker's; with a reference. */
void lock_request_join(struct lock_request *r, struct locker *l);

/* The locker is free to ask. */
void lock_request_begin(struct lock_request *r);

/* Send what this step asks for. */
void lock_request_ask(struct lock_request *r, enum step step);

/* The lock is there. */
void lock_request_granted(struct lock_request *r);

/* Give back what the program was not told it has; what it had before it keeps. */
void lock_request_undo(struct lock_request *r);

/* ---- locking_orphan.c ---- */

/* Over, with an errno (0: success); an orphan has had its answer. */
void lock_request_finish(struct lock_request *r, int error);

/* No orphan is left: whoever waited for that goes on. */
void locking_run_line(struct locker *l);

/* Its time-out, or the end of its place. */
void lock_request_set_timer(struct lock_request *r, uint64_t ms);

/* EINTR was answered. */
void lock_request_interrupted(struct op *op);

/* An orphan loses its place.  May free it. */
void lock_request_cancel_orphan(struct lock_request *r);

/* Does the same call come again, in whose place an orphan stands?  It takes the new request. */
struct lock_request *lock_request_find_place(struct locker *l, const struct lock_want *want);
void lock_request_resume(struct lock_request *r, fuse_req_t req, struct handle *h);

/* ---- locking_release.c ---- */

/* A command of this locker's on its path.
 *
 * @path: what it refers to. */
void lock_command_fill(Hf__Command *command,
                       ProtobufCBinaryData *path,
                       const struct locker *l,
                       uint32_t op,
                       uint64_t start,
                       uint64_t end);

/* Return: 0: `cb` comes; a positive errno. */
int lock_command_send(struct fs *fs,
                      const Hf__Command *command,
                      client_result_cb cb,
                      void *arg,
                      uint64_t *ret_handle);

/* The same for what is given back: a release, or less than was held.  Never refused for load. */
int lock_command_give_back(struct fs *fs,
                           const Hf__Command *command,
                           client_result_cb cb,
                           void *arg);

/* A release that nobody waits for. */
void locking_send_release(const struct locker *l, uint64_t start, uint64_t end);

/* It leans no more, and what it leaned on may hold less now. */
void locking_unlean(struct locker *l);

#endif
