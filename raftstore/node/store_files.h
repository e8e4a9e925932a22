/* Internal: the files of the data directory, below SQLite. */
#ifndef HOLDFAST_NODE_STORE_FILES_H
#define HOLDFAST_NODE_STORE_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* DIRECTORY/NAME, malloc()ed. */
char *files_path(const char *directory, const char *name);
char *files_log_path(const char *directory, uint64_t seq);
char *files_snapshot_path(const char *directory, uint64_t index);

/* Make the directory if it is missing, and take its lock file.
 *
 * @ret_fd: holds the lock until it is closed.
 * Return: 0; -EBUSY; negative errno. */
int files_lock_directory(const char *directory, int *ret_fd, char **ret_sentence);

/* fsync a file or a directory. */
int files_sync(const char *path, char **ret_sentence);

int files_rename(const char *from, const char *to, char **ret_sentence);

/* Remove one file; a missing one is no error. */
int files_remove(const char *path, char **ret_sentence);

/* Remove a database with its -wal, -shm and -journal. */
int files_remove_database(const char *path, char **ret_sentence);

/* Put a write-ahead log of zeros, `size_bytes` long, at `path`: really written, so that later
 * writes into it change no metadata and their fdatasync is the cheap kind.  `spare`, if such a file
 * of the right size exists, is made into it (its header is zeroed, which makes it empty).  The
 * directory is not synced. */
int files_make_wal(const char *path, const char *spare, size_t size_bytes, char **ret_sentence);

bool files_exist(const char *path);
uint64_t files_size(const char *path); /* 0 when it is missing. */

/* What a name in the directory is. */
enum files_kind {
    FILES_OTHER,
    FILES_META,      /* meta.db */
    FILES_LOG,       /* log-N.db */
    FILES_SNAPSHOT,  /* snapshot-N.db */
    FILES_TEMPORARY, /* incoming-N.db, image-N.db, meta-new.db and what SQLite puts beside them. */
    FILES_BESIDE,    /* log-N.db-wal, ...: belongs to a database. */
};

/* Visit every name. Return: 0; what the visitor returned if not 0; negative errno. */
int files_visit(const char *directory,
                int (*visit)(void *arg, enum files_kind kind, const char *name, uint64_t number),
                void *arg,
                char **ret_sentence);

#endif
