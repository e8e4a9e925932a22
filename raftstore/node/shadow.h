/* The shadow: a second instance of the lock table, on a thread of its own, that snapshots are
 * written from, so that taking one never stalls the loop.
 *
 * It applies the same entries in the same order. A snapshot request is a mark in that order: when
 * the thread comes to it, its state is exactly the one at the snapshot's index; it compares its
 * digest with the one given (a difference is a divergence and is reported), writes the image file,
 * and reports on the loop. */
#ifndef HOLDFAST_NODE_SHADOW_H
#define HOLDFAST_NODE_SHADOW_H

#include "raftstore/node/image.h"

#include <uv.h>

struct shadow;

struct shadow_config {
    uv_loop_t *loop;
    /* A snapshot file is finished and durable (status 0), or failed (negative errno, sentence). */
    void (*on_snapshot)(
        void *arg, uint64_t index, const char *path, int status, const char *sentence);
    /* A table was loaded for the loop's own use (shadow_load). Ownership passes. */
    void (*on_loaded)(void *arg, struct lock_table *table, int status, const char *sentence);
    void *arg;
};

/* Start the thread with an empty table, or with one read from `image_path`. Blocking until it is
 * read.
 *
 * @ret_table: a second table of the same state, for the loop; owned by the caller.
 * Return: 0; -EBADMSG, -EIO, ... with *ret_sentence malloc()ed. */
int shadow_start(const struct shadow_config *config,
                 const char *image_path,
                 struct shadow **ret_shadow,
                 struct lock_table **ret_table,
                 struct replica_image *ret_image,
                 char **ret_sentence);

/* Queue an applied LogEntry (bytes are copied or referenced until applied: copied). */
void shadow_apply(struct shadow *s, uint64_t index, struct bytes entry);

/* Queue a snapshot of the state after everything queued before. */
void shadow_snapshot(struct shadow *s,
                     const struct replica_image *image,
                     const char *path,
                     struct lock_digest expected,
                     int64_t wall_offset_ns);

/* Throw the state away and load this image instead; on_loaded gets a second copy for the loop. */
void shadow_load(struct shadow *s, const char *image_path);

/* Bytes queued and not yet applied (backpressure and statistics). */
uint64_t shadow_backlog_bytes(const struct shadow *s);

/* Stop the thread (a running image is given up) and free. NULL is accepted. */
void shadow_stop(struct shadow *s);

#endif
