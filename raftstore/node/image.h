/* Images: a lock table as a SQLite database, and back.
 *
 * Tables: lock(lock_id, owner_id, expires_at, version, mode, ...) with an index on expires_at;
 * waiter, session, result, directory, delay, node, meta. `PRAGMA user_version` is the format's
 * version: 2 has the column sem_limit (holders that a semaphore allows; 0 = none) in lock and
 * waiter; 3 has mtime_ns, file_token and twin (lock/table.h, struct hold_file) in lock.  All are
 * read; but no program of versions 1 and 2 ever made a hold that is linked. expires_at, since,
 * renewed: for people, wall clock milliseconds computed from `wall_offset_ns`; what restores state
 * are the columns in cluster time. Each table ends with a row count and a checksum in meta; reading
 * verifies them, PRAGMA integrity_check's cheap part, and the lock table's own digest. Blocking:
 * call from a worker thread. */
#ifndef HOLDFAST_NODE_IMAGE_H
#define HOLDFAST_NODE_IMAGE_H

#include "raftstore/lock/lock.h"
#include "raftstore/node/replica.h"

#define IMAGE_FORMAT_VERSION 3

/* Write table and image identity to a new file (replaced if it exists), fsynced, without WAL files
 * left.
 *
 * @wall_offset_ns: wall clock minus cluster time now, for the columns that people read.
 * @ret_sentence: on failure, malloc()ed, names the file.
 * Return: 0; negative errno. */
int image_write(const char *path,
                const struct lock_table *table,
                const struct replica_image *image,
                int64_t wall_offset_ns,
                char **ret_sentence);

/* Read a file that image_write() made.
 *
 * @ret_table: owned by the caller. @ret_image: its conf is malloc()ed (ret_image->conf.data), owned
 * by the caller. Return: 0; -EBADMSG damaged or a newer format; negative errno. */
int image_read(const char *path,
               struct lock_table **ret_table,
               struct replica_image *ret_image,
               char **ret_sentence);

/* Read a whole file, and see that it is the image which was told: same index, term and members.
 *
 * Return: 0; -EBADMSG damaged or another one; negative errno, with a malloc()ed sentence. */
int image_check(const char *path, const struct replica_image *told, char **ret_sentence);

/* The same as bytes in memory, for the simulator: malloc()ed, the caller frees. */
int image_write_bytes(const struct lock_table *table,
                      const struct replica_image *image,
                      struct bytes *ret_bytes);
int image_read_bytes(struct bytes in,
                     struct lock_table **ret_table,
                     struct replica_image *ret_image);

#endif
