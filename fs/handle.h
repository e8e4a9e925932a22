/* Open files. */
#ifndef HOLDFAST_FS_HANDLE_H
#define HOLDFAST_FS_HANDLE_H

#include "fs/fs.h"
#include "raftstore/base/buf.h"

struct handle {
    unsigned n_refs;
    struct fs *fs;
    struct inode *inode;   /* With a reference. */
    struct hold *hold;     /* That this open acquired (with a reference); NULL: none. */
    struct buf report;     /* What reads at offsets behind 0 see: taken by the read at 0. */
    bool has_report;       /* It was taken. */
    bool closed;           /* RELEASE has come. */
    bool lost;             /* A lock that was taken through it was lost: ESTALE for ever. */
    uint64_t seen;         /* poll_state() as it was last read, or when it was opened (0: free). */
    uint64_t seen_index;   /* Log index of that; 0 = unknown. */
    struct poller *poller; /* Once it was polled; NULL before. */
    struct locker_list lockers; /* flock and fcntl locks that were taken through it first. */
    LIST_ENTRY(handle) link;    /* Of fs.handles. */
};

/* @inode, @hold (may be NULL): take a reference each. */
struct handle *handle_new(struct fs *fs, struct inode *inode, struct hold *hold);

/* The kernel's open file is one reference (handle_new()), a request under way another: after an
 * interrupt the file may be closed before the cluster has answered. */
void handle_ref(struct handle *h);
void handle_unref(struct fs *fs, struct handle *h);

/* The mount is gone, with all that was open. */
void handle_free_all(struct fs *fs);

static inline struct handle *handle_of(const struct fuse_file_info *fi)
{
    return fi != NULL ? (struct handle *)(uintptr_t)fi->fh : NULL;
}

/* Did this open acquire a hold, or take a lock, that was lost since?  If a session's lock was, the
 * program counts as told. */
bool handle_lost(const struct handle *h);

#endif
