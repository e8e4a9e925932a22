/* What this machine must be asked around a mount: directories, limits, a mount left behind. */
#ifndef HOLDFAST_FS_HOST_H
#define HOLDFAST_FS_HOST_H

#include <stdbool.h>

/* The absolute path of the mount point, without touching what is mounted on it (a dead mount
 * answers nothing): its parent is resolved, its name appended.
 *
 * Return: malloc()ed; NULL with errno. */
char *host_mount_point(const char *dir);

/* Take away a Holdfast mount whose daemon has died.
 *
 * Return: 0 the place is free; -EBUSY a living Holdfast mount is there; -EIO it can't be unmounted.
 */
int host_clear_dead_mount(const char *dir);

/* Make a directory with its parents (mode 0700 for the last).  Return: 0; negative errno. */
int host_make_directory(const char *path);

/* Warn in the log when the kernel would abort the mount over a request that waits. */
void host_check_request_timeout(void);

/* As many descriptors as we may have. */
void host_raise_limits(void);

#endif
