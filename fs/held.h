/* What one owner of flock or fcntl locks holds on one path: ranges of bytes that don't overlap,
 * in order; neighbours of one mode are one range, as POSIX has it.  Pure. */
#ifndef HOLDFAST_FS_HELD_H
#define HOLDFAST_FS_HELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HELD_END UINT64_MAX /* End of the whole range. */

enum held_mode { HELD_NONE = 0, HELD_SHARED = 1, HELD_EXCLUSIVE = 2 }; /* As enum wire_mode. */

struct held_range {
    uint64_t start;      /* First byte. */
    uint64_t end;        /* Last byte, inclusive. */
    enum held_mode mode; /* Never HELD_NONE. */
};

struct held {
    struct held_range *list; /* Owned; by start. */
    size_t n;
    size_t n_alloc;
    uint64_t *counter; /* Counts those with it that hold something; NULL: nobody counts. */
};

void held_deinit(struct held *h);

/* What it holds counts no longer. */
void held_uncount(struct held *h);

/* From now on the mode of all bytes start..end is this one. */
void held_set(struct held *h, uint64_t start, uint64_t end, enum held_mode mode);

/* The mode at `start`, and how far it reaches.
 *
 * @ret_end: last byte of the piece, at most `end`. */
enum held_mode held_piece(const struct held *h, uint64_t start, uint64_t end, uint64_t *ret_end);

/* Is everything held, exclusively? */
bool held_all(const struct held *h);

/* Is any byte of start..end held? */
bool held_any(const struct held *h, uint64_t start, uint64_t end);

#endif
