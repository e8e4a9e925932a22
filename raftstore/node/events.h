/* Notifications: what happened lately, and who wants to hear of it.
 *
 * Every effect of every applied command goes into a ring, as the lock table tells it (one copy, no
 * encoding), so that a client that reconnects can resume behind the last event that it has seen.
 * The ring grows on demand up to EVENTS_RECORDS_MAX records and EVENTS_BYTES_MAX bytes, and gives
 * back what is older than EVENTS_AGE_MS.  An effect is encoded once, and only if a subscriber
 * matches.  On the loop's thread. */
#ifndef HOLDFAST_NODE_EVENTS_H
#define HOLDFAST_NODE_EVENTS_H

#include "raftstore/base/buf.h"
#include "raftstore/lock/lock.h"

#include "holdfast.pb-c.h"

#include <sys/queue.h>

#define EVENTS_RECORDS_MAX  65536u
#define EVENTS_BYTES_MAX    (16u * 1024u * 1024u)
#define EVENTS_AGE_MS       UINT64_C(120000)
#define EVENTS_PREFIXES_MAX 256u /* Of one subscriber. */

struct events;

/* A subscriber; embedded in whatever is notified. Zeroed before its first use. */
struct events_sub {
    uint64_t session_id;    /* 0 = none. */
    struct bytes *prefixes; /* Owned, each one too. */
    unsigned n_prefixes;
    uint64_t after_index; /* Nothing up to this index. */
    uint64_t last_serial; /* The effect that it was given last. */
    bool active;
    LIST_ENTRY(events_sub) session_link; /* In a bucket by session. */
    LIST_ENTRY(events_sub) prefix_link;  /* In the list of those with prefixes. */
    /* Take one event: the bytes of one `events` field of the message Events, tag included; they
     * live for the call. */
    void (*deliver)(void *arg, struct bytes field);
    /* NULL, or what it may be told of an effect that it wants: the effect itself, `room` filled in
     * with something else, or NULL: nothing. */
    const struct lock_effect *(*filter)(void *arg,
                                        const struct lock_effect *effect,
                                        struct lock_effect *room);
    void *arg;
};

struct events *events_new(void);
void events_free(struct events *e); /* No subscriber may be left. NULL is accepted. */

/* Effects of one command were applied.
 *
 * @wall_offset_ns: wall clock minus cluster time, for Event.wall_ms. */
void events_add(struct events *e,
                uint64_t index,
                uint64_t stamp_ns,
                const struct lock_effects *effects,
                int64_t wall_offset_ns);

/* What happened up to `index` is not known (start from a snapshot, an installed image). */
void events_lost(struct events *e, uint64_t index);

/* Forget what is too old. Call it every second or so. */
void events_trim(struct events *e, uint64_t now_ms);

/* Subscribe (instead of what the subscriber had subscribed to before).
 *
 * Return: 0; -EINVAL more than EVENTS_PREFIXES_MAX prefixes. */
int events_subscribe(struct events *e, struct events_sub *sub, const Hf__Subscribe *request);
void events_unsubscribe(struct events *e, struct events_sub *sub);

/* Is everything behind `from_index` still known? */
bool events_reach(const struct events *e, uint64_t from_index);

/* Deliver what matched behind `sub->after_index` and is still known. */
void events_replay(struct events *e, struct events_sub *sub, int64_t wall_offset_ns);

unsigned events_n_subs(const struct events *e);
uint64_t events_bytes(const struct events *e); /* Memory of the ring. */

/* Effects of applied commands, since the start of this node. */
struct events_counts {
    uint64_t grants; /* Conversions too. */
    uint64_t waits;
    uint64_t refusals; /* Of requests that had waited. */
    uint64_t renewals;
    uint64_t releases;
    uint64_t expiries;
    uint64_t other_ends; /* Broken, ended with a session, ... */
    uint64_t sessions_ended;
    uint64_t delivered; /* To subscribers: one to each. */
};
struct events_counts events_counts(const struct events *e);

#endif
