/* Internal: an audit of a write-ahead log before SQLite opens it.
 *
 * SQLite ends a WAL silently at the first frame that does not verify, because a crash leaves one
 * there; a flipped bit looks the same to it and would cost every entry behind it.  The audit tells
 * the two apart:
 *
 *  - The writer commits with synchronous=FULL: a transaction's frames are written only when the
 *    transaction before is durable.  So a crash can tear the last transaction only.  If behind the
 *    first bad frame there is a commit frame of the same generation (same salts), and behind that
 *    yet another frame of the generation, then the bad frame belongs to a transaction that was
 *    durable: damage.
 *  - If the bad frame verifies after one bit of it is flipped, and the frames behind it go on to a
 *    commit frame, it was written whole and then changed: damage, in whichever transaction it is.
 *    (A torn write differs from the frame by sectors.  In a recycled file a sector's old bytes may
 *    differ from the new ones by a bit, as page 1 does in its count of pages; but a crash or a full
 *    disk that leaves them there leaves no commit frame behind them either, unless the power
 *    failed and the disk had reordered its writes: that is taken for damage, the safe side.)
 *
 * What can't be told apart from a torn write is damage of more than one bit inside the very last
 * transaction of a file that was not closed cleanly: to this node it is as if it had crashed just
 * before that commit.  A clean close checkpoints the file, so it leaves no such transaction. */
#ifndef HOLDFAST_NODE_STORE_WAL_H
#define HOLDFAST_NODE_STORE_WAL_H

#include <stdint.h>

#define WAL_HEADER_BYTES       32u
#define WAL_FRAME_HEADER_BYTES 24u

struct wal_audit {
    uint64_t frames_committed; /* Frames up to the last commit: what SQLite will see. */
    uint64_t size_bytes;       /* Size of the file. */
};

/* Read the file and judge it.
 *
 * Return: 0; -EBADMSG damaged (also: no valid header); negative errno. */
int wal_audit(const char *path, struct wal_audit *ret_audit, char **ret_sentence);

#endif
