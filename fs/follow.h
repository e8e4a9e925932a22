/* Who wants to know what happens at a path of the cluster, whoever does it.
 *
 * Followers register a path; the mount subscribes to those paths and to no others, so that a mount
 * that follows nothing costs the cluster no events but those of its own session.
 *
 * - Several followers of one path cost one prefix of the subscription.
 * - Changes of the set are sent at most every FOLLOW_BATCH_MS; a path without followers stays for
 *   FOLLOW_LINGER_MS, since most come back.  Beyond FOLLOW_PATHS_MAX paths everything is followed
 *   ("").
 * - A follower is told when its path is in force (FOLLOW_BEGUN) and when events may be missing
 *   (FOLLOW_GAP).  What it knows of the state from before may be outdated then: it has to look once
 *   more, and misses nothing from there on.
 *
 * Events come in log order, each once; those of this mount's own session come for every path that
 * has a follower, also before FOLLOW_BEGUN.  Everything on the loop's thread.  Callbacks may start
 * and stop followers, also themselves, and free the one that they are given. */
#ifndef HOLDFAST_FS_FOLLOW_H
#define HOLDFAST_FS_FOLLOW_H

#include "raftstore/client/client.h"

#include <bsd/sys/queue.h>
#include <stdbool.h>
#include <uthash.h>

#define FOLLOW_BATCH_MS  20u
#define FOLLOW_LINGER_MS 5000u
#define FOLLOW_AGAIN_MS  500u
#define FOLLOW_PATHS_MAX CLIENT_PREFIXES_MAX

enum follow_news {
    FOLLOW_BEGUN, /* Events of the path come from now on, behind log index `index`.  Once, and after
                     each follow_again(). */
    FOLLOW_GAP,   /* Events may be missing; those that come now are whole again. `index` is 0. */
};

struct follow_path;

/* Zeroed before its first use; the owner's memory, which stays where it is while it follows. */
struct follower {
    struct follow_path *at;      /* NULL: it follows nothing. */
    bool begun;                  /* FOLLOW_BEGUN was told. */
    LIST_ENTRY(follower) link;   /* Of the path's. */
    LIST_ENTRY(follower) silent; /* Of follow.silent, until it is told FOLLOW_BEGUN. */
    /* An event of the path or below it; `event` lives for the call. */
    void (*on_event)(struct follower *f, const Hf__Event *event);
    void (*on_news)(struct follower *f, enum follow_news news, uint64_t index);
};
LIST_HEAD(follower_list, follower);

struct follow {
    struct client *client;
    uv_timer_t timer;            /* The next look at the set. */
    bool closed;                 /* follow_close(). */
    bool all;                    /* The set that was sent last is "". */
    bool changed;                /* It does not cover what is followed, or too much. */
    struct follow_path *paths;   /* uthash. */
    struct follower_list silent; /* Not yet told FOLLOW_BEGUN. */
    uint64_t sent_ms;            /* Loop time: when the set was sent last; 0 = never. */
    uint64_t version;            /* Of the newest set sent; 0 = none was. */
    uint64_t begun_version;      /* Of the newest that is in force. */
    uint64_t begun_index;        /* Its log index. */
    uint64_t drop_ms;            /* Loop time: paths may be left by then; 0 = none is. */
};

/* `t->client` is set before the loop runs again. */
void follow_init(struct follow *t, uv_loop_t *loop);

/* The mount ends: nobody is told of anything any more.  Before the client is closed. */
void follow_close(struct follow *t);

/* After everything; followers that are left follow nothing then. */
void follow_deinit(struct follow *t);

/* Follow a path and what is below it; "" is everything.  `on_event` and `on_news` are set by the
 * owner.  FOLLOW_BEGUN comes from the loop, never from inside this.
 *
 * @path: copied. */
void follow_start(struct follow *t, struct follower *f, const char *path);

/* Stop; does nothing when it follows nothing. */
void follow_stop(struct follow *t, struct follower *f);

/* Its look had no answer: it is told FOLLOW_BEGUN once more, within FOLLOW_AGAIN_MS. */
void follow_again(struct follow *t, struct follower *f);

/* What it follows; NULL: nothing. */
const char *follower_path(const struct follower *f);

/* Is the path's subscription in force, so that f->on_event tells everything? */
bool follow_is_begun(const struct follower *f);

/* What the client says. */
void follow_on_event(struct follow *t, const Hf__Event *event);
void follow_on_watch(struct follow *t, uint64_t version, uint64_t index);
void follow_on_gap(struct follow *t);

#endif
