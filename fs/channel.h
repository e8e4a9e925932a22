/* The FUSE session on the loop: /dev/fuse is read when it is readable, until it would block. */
#ifndef HOLDFAST_FS_CHANNEL_H
#define HOLDFAST_FS_CHANNEL_H

#include "fs/fs.h"

struct channel {
    uv_loop_t *loop;
    struct fuse_session *session;
    struct fuse_buf
        buf; /* Of the message at hand; memory is libfuse's to allocate, ours to free. */
    struct tally *tally; /* Counts requests and their answers. */
    uv_poll_t poll;
    bool mounted;
    void (*on_gone)(void *arg); /* The file system was unmounted by somebody else, or failed. */
    void *arg;
};

/* Mount and begin to answer.
 *
 * @dir: absolute.  @source, @allow_other, @extra: see mount_arguments() in channel.c.
 * @ret_sentence: on failure, malloc()ed.
 * Return: 0; -EIO. */
int channel_open(struct channel *c,
                 struct fs *fs,
                 const char *dir,
                 void (*on_gone)(void *arg),
                 void *arg,
                 char **ret_sentence);

/* Unmount (lazily, so that open files don't stop it) and free; what is unanswered gets an error
 * from the kernel, but the requests themselves stay valid until channel_deinit(). */
void channel_close(struct channel *c);

/* Free the session: only when no request is held any more. */
void channel_deinit(struct channel *c);

#endif
