/* A stream of lines that grows for ever, of which the last megabyte is kept; and readers of it,
 * each at its own place.  Pure.
 *
 * Offsets that a reader asks for are positions in the stream.  A reader whose position is kept no
 * more (it fell behind, or began at 0 late) is told so by a line "... event=gap bytes=N", and goes
 * on behind the gap at the next whole line; from then on its offsets are `shift` below the
 * positions, until it seeks (asks for an offset that is not the end of its last read). */
#ifndef HOLDFAST_FS_EVENT_LOG_H
#define HOLDFAST_FS_EVENT_LOG_H

#include "raftstore/base/buf.h"

#include <sys/queue.h>

#define EVENT_LOG_CHUNK_BYTES (64u * 1024u)
#define EVENT_LOG_CHUNKS_MAX  16u
#define EVENT_LOG_GAP_BYTES   128u /* A gap's line is shorter. */

struct event_chunk {
    TAILQ_ENTRY(event_chunk) link;
    uint64_t begin; /* Position of its first byte, which begins a line. */
    size_t size;
    char data[EVENT_LOG_CHUNK_BYTES];
};
TAILQ_HEAD(event_chunk_list, event_chunk);

struct event_log {
    struct event_chunk_list chunks; /* Oldest first. */
    unsigned n_chunks;
    uint64_t begin; /* Position of the first byte that is kept. */
    uint64_t end;   /* Behind the last one. */
};

/* Zeroed: at the beginning. */
struct event_reader {
    uint64_t next;   /* Offset behind what was read last. */
    uint64_t shift;  /* Position minus offset. */
    bool mid_line;   /* What was read last did not end a line. */
    struct buf gap;  /* The line that tells of the last gap; empty: there was none. */
    uint64_t gap_at; /* Its offset. */
};

void event_log_init(struct event_log *l);

/* Forget everything; positions begin at 0 again.  No reader may be left. */
void event_log_clear(struct event_log *l);

/* Append whole lines, ended by a newline; at most EVENT_LOG_CHUNK_BYTES at once. */
void event_log_add(struct event_log *l, struct bytes lines);

/* Read; at the end of the stream nothing.
 *
 * @wall_ms: time for a gap's line.
 * @out: at most `size` bytes are appended. */
void event_log_read(const struct event_log *l,
                    struct event_reader *r,
                    uint64_t offset,
                    size_t size,
                    uint64_t wall_ms,
                    struct buf *out);

/* Is there more than it has read? */
bool event_log_has_more(const struct event_log *l, const struct event_reader *r);

void event_reader_deinit(struct event_reader *r);

#endif
