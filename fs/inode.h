/* Inodes: the kernel's handles on what stands at a path.
 *
 * Numbers say what they are and never name two things: a directory has its directory id (the root
 * 1), a hold has bit 63 and its token, a free lock that is open has bit 62 and a counter.  So a
 * number is stable as long as the thing lives, on every mount of the cluster (free locks: of this
 * one), and a new hold on the same path is a new file.
 *
 * An inode lives while the kernel knows it (lookups) or somebody here refers to it. */
#ifndef HOLDFAST_FS_INODE_H
#define HOLDFAST_FS_INODE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uthash.h>

#define INODE_ROOT     UINT64_C(1)
#define INODE_HOLD_BIT (UINT64_C(1) << 63)
#define INODE_FREE_BIT (UINT64_C(1) << 62)

enum inode_kind { INODE_DIRECTORY, INODE_HOLD, INODE_FREE };

struct inode {
    uint64_t number; /* Key. */
    enum inode_kind kind;
    uint64_t id;            /* DIRECTORY: its directory id; HOLD: token. */
    char *path;             /* Owned.  HOLD: where it stood when it was last seen. */
    uid_t uid;              /* As last told by the cluster; FREE: of who opened it first. */
    gid_t gid;              /* Likewise. */
    uint32_t perm;          /* Likewise. */
    uint64_t time_ns;       /* Wall clock: mtime as last told; FREE: when it was opened first. */
    uint64_t changed_ns;    /* Likewise ctime: the last renewal. */
    mode_t type;            /* S_IFDIR; HOLD: S_IFREG, or what the habit wants that made it. */
    uint64_t file;          /* HOLD: number that stat(2) shows; hard links have one in common. */
    nlink_t n_links;        /* Names; of a directory 1: "count them yourself". */
    uint64_t state;         /* poll_state() of the path when it was looked up last. */
    off_t size;             /* HOLD: bytes of a symbolic link's text. */
    uint64_t asked_mono_ns; /* DIRECTORY: when the cluster was asked for the above; 0: ask again. */
    bool ended;             /* HOLD: the cluster says that the hold is over. */
    bool unlinked;          /* HOLD: a program removed the name, by unlink(2) or rmdir(2) here. */
    struct inode *parent;   /* The directory it was found in, with a reference; or NULL. */
    unsigned n_open;        /* Open files of it, as far as the kernel has not closed them. */
    uint64_t known_ms;      /* Loop time at which watchers.c took it for a candidate; 0: not now. */
    uint64_t n_lookups;     /* What the kernel will forget in the end. */
    unsigned n_refs;        /* Handles and requests that refer to it. */
    UT_hash_handle hh;      /* By number. */
    bool by_path;           /* It is in the table by path. */
    UT_hash_handle hh_path; /* FREE, DIRECTORY: by path. */
};

/* A directory stays in the table as long as what was found in it, so that the way to it can be
 * told. */
struct inode_table {
    struct inode *by_number; /* uthash. */
    struct inode *free_by_path;
    struct inode *directory_by_path; /* Of several at one path, the newest. */
    uint64_t n_free_made;            /* Numbers used for free locks. */
};

/* The root is always there. */
void inode_table_init(struct inode_table *t);
void inode_table_deinit(struct inode_table *t);

/* Number of a hold's or a directory's file. */
uint64_t inode_hold_number(uint64_t token);
uint64_t inode_directory_number(uint64_t directory_id);

/* Return: NULL when the kernel names one that we don't know. */
struct inode *inode_get(struct inode_table *t, uint64_t number);

/* Find or make.  With a reference for the caller. */
struct inode *inode_directory(struct inode_table *t, uint64_t directory_id, const char *path);
struct inode *inode_hold(struct inode_table *t, uint64_t token, const char *path);
struct inode *inode_free_lock(struct inode_table *t, const char *path);

/* The directory that was seen last at a path.  Return: NULL: the kernel knows none. */
struct inode *inode_directory_at(const struct inode_table *t, const char *path);

/* A hold's file was seen at another path. */
void inode_moved(struct inode_table *t, struct inode *i, const char *path);

/* The path of a name in a directory that the kernel knows by number.
 *
 * @ret_directory: may be NULL.  @ret_path: malloc()ed.
 * Return: 0; -ESTALE unknown number; -EPERM nothing can be made in a lock that is shown as a
 *         directory, nor under the reserved name; else as path_join(). */
int inode_child(struct inode_table *t,
                uint64_t parent,
                const char *name,
                struct inode **ret_directory,
                char **ret_path);

void inode_ref(struct inode *i);
void inode_unref(struct inode_table *t, struct inode *i);

/* This mount has changed the entries of a directory (unknown numbers are ignored): the time of its
 * last change is now, until the cluster is asked again. */
void inode_entries_changed(struct inode_table *t, uint64_t number);

/* The kernel dropped so many lookups. */
void inode_forget(struct inode_table *t, uint64_t number, uint64_t n_lookups);

#endif
