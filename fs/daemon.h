/* The running daemon: store (SOURCE local), client, mount; from start to a clean end. */
#ifndef HOLDFAST_FS_DAEMON_H
#define HOLDFAST_FS_DAEMON_H

#include "fs/options.h"

#define DAEMON_EXIT_MOUNT  32 /* mount(8): mount failure. */
#define DAEMON_EXIT_FAILED 4  /* The embedded store can't go on. */

struct daemon_config {
    const struct options *options;
    const char *dir;  /* Absolute. */
    const char *data; /* Absolute; NULL unless SOURCE is local. */
    const char
        *tls; /* Absolute: directory of certificates; NULL = the cluster speaks in the clear. */
    /* The mount is usable (sentence NULL), or won't be. Comes at most once. */
    void (*on_ready)(void *arg, const char *sentence);
    void *arg;
};

/* Run until the mount is gone, or a signal (SIGTERM, SIGINT; without certificates SIGHUP too) ends
 * it. With certificates SIGHUP reads them anew.
 *
 * Return: the exit status: 0, DAEMON_EXIT_MOUNT.  When the embedded store fails under a mount that
 * is in use, the process ends here with DAEMON_EXIT_FAILED and the mount stays, dead: its paths
 * fail with ENOTCONN, and nobody takes a plain local file for a lock. */
int daemon_run(const struct daemon_config *config);

#endif
