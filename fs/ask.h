/* Send a command to the cluster, again if its session ended under it. */
#ifndef HOLDFAST_FS_ASK_H
#define HOLDFAST_FS_ASK_H

#include "fs/fs.h"

#define ASK_TRIES 3u /* When the session was ended while we asked, a new one is used. */

struct ask;

/* Send.  `cb` comes exactly once, with the last answer.
 *
 * @command: copied.
 * @ret_ask: for ask_cancel() until `cb` comes; may be NULL.
 * Return: 0; positive errno when nothing was sent (`cb` does not come). */
int ask_cluster(struct fs *fs,
                const Hf__Command *command,
                uint64_t timeout_ms,
                client_result_cb cb,
                void *arg,
                struct ask **ret_ask);

/* Try to stop it; `cb` still comes. */
void ask_cancel(struct ask *a);

/* Give back exactly this hold; nobody waits for the answer.  Repeated until it is answered. */
void ask_release(struct fs *fs, const char *path, uint64_t token);

#endif
