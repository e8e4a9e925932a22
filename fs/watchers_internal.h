/* What the two halves of the watchers share:
 *
 *     watchers.c             files: those that somebody seems to watch, and what ends here
 *     watchers_directory.c   directories: everything that others do, with -o dirwatch
 *
 * Nothing else includes this. */
#ifndef HOLDFAST_FS_WATCHERS_INTERNAL_H
#define HOLDFAST_FS_WATCHERS_INTERNAL_H

#include "fs/watchers.h"

#define GONE_MAX 8192u /* Files that are remembered as removed. */

struct candidate; /* watchers.c */
struct watched;
struct crowd; /* watchers_directory.c */
STAILQ_HEAD(candidate_list, candidate);

struct gone {
    uint64_t number; /* Key. */
    UT_hash_handle hh;
};

struct watchers {
    struct fs *fs;
    bool closed;
    uv_timer_t timer;
    uint64_t swept_ms;                /* Loop time. */
    struct candidate_list candidates; /* The oldest first. */
    struct watched *watched;          /* uthash. */
    struct follower all;              /* dirwatch: everything. */
    struct crowd *crowds;             /* uthash. */
    struct gone *gone;                /* uthash. */
    struct gone ring[GONE_MAX];       /* Of which `gone` is made; used in turn. */
    unsigned n_gone;                  /* Counts on. */
};

/* The kernel's inode, if it has it. */
struct inode *watchers_inode(struct fs *fs, uint64_t number);

/* Does the kernel know the directory that this path is in?  In others nobody can watch. */
bool watchers_directory_is_known(struct fs *fs, const char *path);

/* A file's hold has ended: tell those who can hear it.
 *
 * @path, @mode: of a file that is not known here. */
void watchers_tell_deleted(struct fs *fs, uint64_t number, const char *path, mode_t mode);

/* Is it of a hold of this mount? */
bool watchers_is_ours(const struct fs *fs, const Hf__Event *e);

/* With a NUL, to be freed. */
char *watchers_text(ProtobufCBinaryData b);

/* What watchers.all follows: everything. */
void watchers_on_everything(struct follower *f, const Hf__Event *e);
void watchers_on_everything_news(struct follower *f, enum follow_news news, uint64_t index);
void watchers_free_crowds(struct watchers *w);

#endif
