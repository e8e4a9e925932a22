/* Paths of locks: "a/b/c" without slashes at the ends; "" is the mount's root.  Pure. */
#ifndef HOLDFAST_FS_PATH_H
#define HOLDFAST_FS_PATH_H

#include <stdbool.h>
#include <stddef.h>

#define PATH_RESERVED ".holdfast" /* A name that no lock and no directory may have. */

/* The path of `name` in the directory `parent`.
 *
 * @ret_path: malloc()ed.
 * Return: 0; -ENAMETOOLONG when a bound of the lock table is passed; -EINVAL for a name that is
 *         empty, ".", ".." or holds a slash; -EPERM for the reserved name. */
int path_join(const char *parent, const char *name, char **ret_path);

/* Is it a name by which mkdir(2) makes a lock: NAME.lock or NAME.lck? */
bool path_names_lock(const char *name);

/* Its last component; inside `path`. */
const char *path_name(const char *path);

#endif
