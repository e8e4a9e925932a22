/* Who holds flock and fcntl locks through this mount, and what.
 *
 * A locker is one owner of locks on one path: of flock the open file, of fcntl whatever the kernel
 * names as owner (a process's files, or for F_OFD_* the open file).  Its holds hang on the mount's
 * session.  Each locker has an owner text of its own that is never used again: a release that is
 * still under way can never meet a later lock of the same open file or process.
 *
 * A locker of a descriptor that acquired by O_EXCL adopts that lease: it needs no hold of its own,
 * whatever its mode, and its unlock leaves the lease alone.
 *
 * flock and fcntl locks of one descriptor and one process must not be in each other's way: the
 * second locker leans on the first, if that holds the whole file exclusively.  It shares its owner
 * text and has no hold of its own.  As long as it holds anything, the first one's hold stays at the
 * cluster as it is, also when that has been unlocked or closed. */
#ifndef HOLDFAST_FS_LOCKER_H
#define HOLDFAST_FS_LOCKER_H

#include "fs/handle.h"
#include "fs/held.h"

enum locker_kind { LOCKER_FLOCK, LOCKER_FCNTL };

struct lock_request;
TAILQ_HEAD(lock_request_list, lock_request);

/* A release that nobody waits for, on its way. */
struct lock_release {
    struct lock_file *file; /* With a reference. */
    char *text;             /* Owner, if all that he has goes; else NULL. Owned. */
    LIST_ENTRY(lock_release) link;
};
LIST_HEAD(lock_release_list, lock_release);

/* A path on which this mount has lockers, or releases under way. */
struct lock_file {
    char *path; /* Key; owned. */
    struct fs *fs;
    struct locker_list lockers;     /* Not the dropped ones. */
    struct locker_list fcntl;       /* Those of fcntl among them. */
    struct lock_request_list retry; /* Refused while a release of ours was under way. */
    struct lock_release_list releases;
    unsigned n_refs;     /* Lockers and releases. */
    struct inode *inode; /* The file at the path while it is held by such locks. */
    UT_hash_handle hh;
};

struct locker {
    unsigned n_refs; /* One of the file's list until it is dropped; one of each request. */
    enum locker_kind kind;
    struct lock_file *file;
    uint64_t kernel_owner; /* fuse_file_info.lock_owner. */
    struct handle *handle; /* Through which it locked first; NULL once dropped. */
    struct handle *latest; /* Through which it locked since, with a reference; NULL: no other. */
    char *text;            /* Owner at the cluster; owned. */
    struct held held;      /* What the program holds, as it was told. */
    uint64_t token;        /* Of the latest grant. */
    struct hold *adopted;  /* The lease that stands for everything (with a reference). */
    struct locker *leans;  /* On this one (with a reference); NULL: none. */
    struct locker *leaner; /* The one that leans on it; NULL: none. */
    bool lost;             /* Its session was lost, or an operator broke the hold. */
    bool told;             /* The program was told so (or will be killed for it): no way back. */
    uid_t uid;             /* Of who locked last. */
    struct process_id process; /* Likewise; {0, 0} unknown. */
    unsigned n_heirs;          /* Size of `heirs`. */
    struct process_id *heirs;  /* Owned: `process`, then its ancestors, nearest first. */
    bool visited;              /* Its requests are being walked through. */
    unsigned n_orphans;        /* Requests that were answered before the cluster answered them. */
    struct lock_request_list requests; /* All of its own. */
    LIST_ENTRY(locker) in_file;
    LIST_ENTRY(locker) in_fcntl; /* Of lock_file.fcntl. */
    LIST_ENTRY(locker) in_handle;
};

/* The path's record.  Return: NULL: no lockers. */
struct lock_file *lock_file_find(const struct fs *fs, const char *path);
void lock_file_ref(struct lock_file *f);
void lock_file_unref(struct lock_file *f);

/* Is this owner's hold on the path given up already, though the cluster may still show it? */
bool lock_file_releases(const struct fs *fs, const char *path, struct bytes owner);

/* The locker for a request that comes through `h`; NULL: none yet.
 *
 * The kernel names an open file by its address, and RELEASE comes late: another open file, closed
 * already, may have had the same name.  So of flock, the handle says whose it is; of fcntl, the
 * path does, unless it locked through this handle: its file may have been renamed since. */
struct locker *locker_find(const struct handle *h, enum locker_kind kind, uint64_t kernel_owner);

/* Make one.  It has one reference: the file's. */
struct locker *locker_new(struct handle *h, enum locker_kind kind, uint64_t kernel_owner);

/* The mount is gone: forget those of a handle. */
void lockers_forget(struct handle *h);

/* It locks through `h`, which need not be the one that it locked through first. */
void locker_through(struct locker *l, struct handle *h);

/* Its handle is closed, but it has locked through another one since: it is that one's now.  (Of a
 * process's fcntl locks FLUSH came first; this is an open file, whose name had another one before,
 * and what that one still held goes with this one.)
 *
 * Return: false: there is none. */
bool locker_move(struct locker *l);

/* What a locker could lean on that locks through `h` for this process; NULL: nothing. */
struct locker *
locker_support(const struct handle *h, enum locker_kind kind, struct process_id process);

void locker_lean(struct locker *l, struct locker *on);

/* No longer: it has a text of its own again.  Nothing happens where it does not lean. */
void locker_unlean(struct locker *l);

/* Out of the file and the handle; the requests keep it. */
void locker_detach(struct locker *l);

void locker_ref(struct locker *l);
void locker_unref(struct locker *l);

/* A new owner text: whatever is under way for the old one concerns nobody any more. */
void locker_rename(struct locker *l);

/* Who locks: remembered for authority and for signals. */
void locker_set_process(struct locker *l, uid_t uid, struct process_id process);

/* Does it hold something by a hold of its own? */
bool locker_holds(const struct locker *l);

/* Does the program rightly believe in what it holds?  If not, it counts as told now. */
bool locker_check(struct locker *l);

/* The path's locker that a process may act for: the one that locked, its descendants, or (once it
 * is gone) its heirs; with the same uid.  NULL: none. */
struct locker *
locker_find_authorised(struct fs *fs, const char *path, uid_t uid, const struct lineage *caller);

/* A locker with holds of its own on this handle; NULL: none. */
struct locker *locker_of_handle(const struct handle *h);

/* A lease was renamed: the locks that rely on it are at its new path.
 *
 * @old: the path before. */
void lockers_follow(struct fs *fs, struct hold *h, const char *old);

/* Does an open file of this inode hold its path by a session's hold? */
bool lockers_on_inode(const struct fs *fs, const struct inode *inode);

#endif
