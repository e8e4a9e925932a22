/* Tables to start from, and rows that lie: shared by the targets `import` and `image`. */
#ifndef HOLDFAST_FUZZ_ROWS_H
#define HOLDFAST_FUZZ_ROWS_H

#include "raftstore/lock/lock.h"
#include "tests/fuzz/fuzz.h"

/* A table that has something of everything, by a few commands of which `about` decides; lives for
 * ever. */
const struct lock_table *rows_table(uint8_t about);

/* An import was let through: it must be as good as any table.  More commands from the feed run on
 * it. */
void rows_accepted(struct lock_table *t, struct feed *f);

#endif
