/* Internal: what writing and reading an image share. */
#ifndef HOLDFAST_NODE_IMAGE_INTERNAL_H
#define HOLDFAST_NODE_IMAGE_INTERNAL_H

#include "raftstore/node/image.h"
#include "raftstore/node/image_rows.h"

#include <stdatomic.h>

#define IMAGE_APPLICATION_ID 0x4866496d /* "HfIm". */

/* The meta table: pairs of key and value. All but `conf` are numbers, in the order of
 * image_meta_values(). */
#define IMAGE_META_VALUES (17 + 2 * IMAGE_TABLES)

struct image_meta {
    struct replica_image image;
    struct lock_row row; /* LOCK_ROW_META. */
    struct {
        uint64_t n_rows, sum;
    } tables[IMAGE_TABLES];
};

struct image_meta_value {
    char key[32];
    uint64_t *value;
};

void image_meta_values(struct image_meta *m, struct image_meta_value ret[IMAGE_META_VALUES]);

/* Checksum over all values and the configuration. */
uint64_t image_meta_sum(struct image_meta *m);

/* image_write() that gives up with -ECANCELED when *stop becomes true; NULL = never. */
int image_write_until(const char *path,
                      const struct lock_table *table,
                      const struct replica_image *image,
                      int64_t wall_offset_ns,
                      const atomic_bool *stop,
                      char **ret_sentence);

#endif
