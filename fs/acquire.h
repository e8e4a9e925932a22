/* Acquire a lease for a request that makes a file: CREATE with O_EXCL, MKDIR, SYMLINK.
 *
 * It never waits for a lock: the kernel holds the directory while the request is unanswered. */
#ifndef HOLDFAST_FS_ACQUIRE_H
#define HOLDFAST_FS_ACQUIRE_H

#include "fs/op.h"

struct ask;

struct acquire {
    struct op op;
    char *path; /* Owned. */
    fuse_ino_t parent;
    uint32_t kind; /* enum wire_kind. */
    uint32_t perm;
    gid_t gid;
    struct bytes note;        /* Until acquire_start() returns. */
    uint64_t mtime_ns;        /* To be shown as mtime; 0: the time of the grant. */
    struct fuse_file_info fi; /* CREATE: of the request. */
    struct lineage lineage;   /* Of the caller. */
    struct ask *ask;          /* On its way; NULL once answered. */
    /* Answer with the new file.  Return: false when the kernel does not want it any more. */
    bool (*reply)(struct acquire *a, struct inode *inode, struct hold *hold);
};

/* Begin.
 *
 * @mode: as the kernel gives it: the umask is applied.
 * Return: NULL: there can be no such file; the request is answered. */
struct acquire *acquire_new(fuse_req_t req,
                            fuse_ino_t parent,
                            const char *name,
                            uint32_t kind,
                            mode_t mode,
                            bool (*reply)(struct acquire *, struct inode *, struct hold *));

/* Ask the cluster; takes `a` over. */
void acquire_start(struct acquire *a);

/* Answer with an errno if nothing was answered yet, and free. */
void acquire_done(struct acquire *a, int error);

/* Answer with an entry: what `reply` does for MKDIR and SYMLINK. */
bool acquire_reply_entry(struct acquire *a, struct inode *inode, struct hold *hold);

#endif
