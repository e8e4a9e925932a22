/* Bounds on what a client has under way, for each class of requests by itself: one class that is
 * full neither delays nor refuses another.
 *
 *     (new) --enter--> LINE --start--> FLIGHT --(answered) leave-->
 *                        ^---- back ------'  `--settle--> SETTLED --leave-->
 *
 * LINE: waits to be sent.  FLIGHT: sent, no answer yet.  SETTLED: its first answer came, and the
 * final one may take long (a blocking wait in the cluster's queue).
 *
 * Pure: it only counts. */
#ifndef HOLDFAST_CLIENT_BULKHEAD_H
#define HOLDFAST_CLIENT_BULKHEAD_H

#include "raftstore/client/class.h"

#include <stdbool.h>
#include <stdint.h>

extern const char *const bulkhead_class_names[CLIENT_CLASSES]; /* "read", ... */

enum bulkhead_place { BULKHEAD_LINE, BULKHEAD_FLIGHT, BULKHEAD_SETTLED, BULKHEAD_PLACES };

struct bulkhead_limit {
    unsigned flight_max;
    unsigned all_max; /* In all places together; more are refused. */
};

struct bulkhead {
    struct bulkhead_limit limits[CLIENT_CLASSES];
    unsigned n[CLIENT_CLASSES][BULKHEAD_PLACES];
    uint64_t n_refused[CLIENT_CLASSES];
};

/* Bounds of a client that may have `flight_max` writes in flight, half as many waits and half as
 * much upkeep (at least one of each). */
void bulkhead_init(struct bulkhead *b, unsigned flight_max);

/* One more, in LINE.  Return: false: the class is full; counted as refused. */
bool bulkhead_enter(struct bulkhead *b, enum client_class class);

/* One more in LINE, whatever the bounds say (what the client itself has to do). */
void bulkhead_force(struct bulkhead *b, enum client_class class);

/* May one of LINE go on to FLIGHT? */
bool bulkhead_has_room(const struct bulkhead *b, enum client_class class);

/* From one place to another; the same one is fine. */
void bulkhead_move(struct bulkhead *b,
                   enum client_class class,
                   enum bulkhead_place from,
                   enum bulkhead_place to);

/* Answered, or given up. */
void bulkhead_leave(struct bulkhead *b, enum client_class class, enum bulkhead_place from);

/* In all places. */
unsigned bulkhead_n(const struct bulkhead *b, enum client_class class);

#endif
