#include "raftstore/client/bulkhead.h"

#include <assert.h>

/* A line of that length is gone through within a second or so.  Waits may be many: they cost the
 * cluster memory only.  Upkeep is bounded by what a session can hold (131 072), twice. */
#define READS_FLIGHT 4096u
#define READS_MAX    16384u
#define WRITES_MAX   16384u
#define WAITS_MAX    65536u
#define UPKEEP_MAX   262144u

const char *const bulkhead_class_names[CLIENT_CLASSES] = {
    [CLIENT_READ] = "read",
    [CLIENT_WRITE] = "write",
    [CLIENT_WAIT] = "wait",
    [CLIENT_UPKEEP] = "upkeep",
};

void bulkhead_init(struct bulkhead *b, unsigned flight_max)
{
    unsigned half = flight_max - flight_max / 2;
    *b = (struct bulkhead){.limits = {
                               [CLIENT_READ] = {READS_FLIGHT, READS_MAX},
                               [CLIENT_WRITE] = {flight_max, WRITES_MAX},
                               [CLIENT_WAIT] = {half, WAITS_MAX},
                               [CLIENT_UPKEEP] = {half, UPKEEP_MAX},
                           }};
}

unsigned bulkhead_n(const struct bulkhead *b, enum client_class class)
{
    const unsigned *n = b->n[class];
    return n[BULKHEAD_LINE] + n[BULKHEAD_FLIGHT] + n[BULKHEAD_SETTLED];
}

void bulkhead_force(struct bulkhead *b, enum client_class class)
{
    b->n[class][BULKHEAD_LINE]++;
}

bool bulkhead_enter(struct bulkhead *b, enum client_class class)
{
    if (bulkhead_n(b, class) >= b->limits[class].all_max) {
        b->n_refused[class]++;
        return false;
    }
    bulkhead_force(b, class);
    return true;
}

bool bulkhead_has_room(const struct bulkhead *b, enum client_class class)
{
    return b->n[class][BULKHEAD_FLIGHT] < b->limits[class].flight_max;
}

void bulkhead_leave(struct bulkhead *b, enum client_class class, enum bulkhead_place from)
{
    assert(b->n[class][from] > 0);
    b->n[class][from]--;
}

void bulkhead_move(struct bulkhead *b,
                   enum client_class class,
                   enum bulkhead_place from,
                   enum bulkhead_place to)
{
    bulkhead_leave(b, class, from);
    b->n[class][to]++;
}
