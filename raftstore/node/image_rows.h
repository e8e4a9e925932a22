/* Internal: the tables of an image, described once for writing and for reading.
 *
 * A row's describer names its columns in order; the cursor either binds each value or reads it, and
 * in both cases adds it to the table's checksum: CRC-32 over every value of every row. */
#ifndef HOLDFAST_NODE_IMAGE_ROWS_H
#define HOLDFAST_NODE_IMAGE_ROWS_H

#include "raftstore/base/buf.h"
#include "raftstore/lock/restore.h"
#include "raftstore/node/image.h"
#include "raftstore/node/store_sql.h"

#define IMAGE_TABLES 7

struct image_cursor {
    sqlite3_stmt *stmt;
    bool writing;
    int version;            /* Of the format. */
    bool bad;               /* A value read can't be what was written. */
    int column;             /* The next one, from 0. */
    int64_t wall_offset_ns; /* Writing: for the columns that people read. */
    uint64_t n_rows;
    uint32_t sum;
    struct buf values; /* Of the present row, for the checksum. */
    struct buf paths;  /* Writing: scratch. */
};

struct image_table {
    enum lock_row_type type;
    const char *name;
    const char *columns;                 /* For CREATE TABLE. */
    int n_columns[IMAGE_FORMAT_VERSION]; /* In each version of the format. */
    void (*describe)(struct image_cursor *c, struct lock_row *row);
};

/* In the order of import; the meta row is not among them. */
extern const struct image_table image_tables[IMAGE_TABLES];

/* Bind or read one row of the table: the statement must be reset, or stand on the row. Writing
 * does not change the row. */
void image_row(struct image_cursor *c, const struct image_table *t, struct lock_row *row);

#endif
