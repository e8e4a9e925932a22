/* A client of a mount that writes its history (the format: history.py).
 *
 * One process is one client, named by its process id, since that is what a lock's text shows of its
 * holder.  It locks in one style, one lock at a time, and believes in a lease until its own
 * deadline, which it counts from before the call (design, section 4). */
#ifndef HOLDFAST_TESTS_LINEAR_WORKER_H
#define HOLDFAST_TESTS_LINEAR_WORKER_H

#include "raftstore/base/random.h"

#include <stdbool.h>
#include <stdint.h>

#define MS       UINT64_C(1000000)
#define PATH_LEN 512u

struct worker;

/* What the worker holds, or asks for. */
struct hold {
    char path[PATH_LEN]; /* From the mount's root on, which is the working directory. */
    int fd;              /* -1: none. */
    unsigned n;          /* Number of the acquire. */
    uint64_t token;      /* 0 = not known. */
    uint64_t sent_ns;    /* When the acquire, or the newest renewal that succeeded, was sent. */
    bool shared;
    unsigned lo, hi;          /* fcntl: the range. */
    char temporary[PATH_LEN]; /* link: the file that it is linked from; "" = none. */
};

/* How a program locks.  Each function does one call that the history has, and returns 0 or an
 * errno (ECANCELED: the lock was not even asked for); `acquire` leaves in the hold what the others
 * need. */
struct style {
    const char *name;
    bool lease;    /* It has a ttl, and can be renewed. */
    bool can_wait; /* Its acquire can stand in the queue. */
    int (*acquire)(struct worker *w, struct hold *h, bool wait);
    void (*token)(struct worker *w, struct hold *h); /* Find out h->token. */
    int (*renew)(struct worker *w, struct hold *h);  /* NULL: it needs none. */
    int (*check)(struct worker *w, struct hold *h);  /* Does it stand?  NULL: it can't be told. */
    int (*release)(struct worker *w, struct hold *h);
};

struct worker {
    const struct style *style;
    char name[24]; /* p and the process id. */
    uint64_t ttl_ns;
    unsigned n_locks;
    unsigned n; /* Operations so far. */
    struct random random;
    int log;
    bool dead; /* The mount is gone. */
};

/* All styles; the last one has no name. */
extern const struct style styles[];

uint64_t worker_now_ns(void);

/* Read what stands at a lock, by its descriptor, and write that into the history.
 *
 * @ret_token: NULL, or set to the token of the one hold that is this process's (0 = none).
 * Return: 0 or an errno. */
int worker_read(struct worker *w, const char *lock, int fd, uint64_t *ret_token);

#endif
