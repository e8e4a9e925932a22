#include "fs/handle.h"

#include <stdlib.h>

struct handle *handle_new(struct fs *fs, struct inode *inode, struct hold *hold)
{
    struct handle *h = xcalloc(1, sizeof *h);
    h->n_refs = 1;
    h->inode = inode;
    inode_ref(inode);
    h->hold = hold;
    if (hold != NULL)
        hold_ref(hold);
    LIST_INSERT_HEAD(&fs->handles, h, link);
    return h;
}

void handle_ref(struct handle *h)
{
    h->n_refs++;
}

void handle_unref(struct fs *fs, struct handle *h)
{
    if (--h->n_refs > 0)
        return;
    LIST_REMOVE(h, link);
    inode_unref(&fs->inodes, h->inode);
    if (h->hold != NULL)
        hold_unref(h->hold);
    buf_deinit(&h->report);
    free(h);
}

void handle_free_all(struct fs *fs)
{
    struct handle *h;
    while ((h = LIST_FIRST(&fs->handles)) != NULL)
        handle_unref(fs, h); /* Requests are all answered: the last reference is the kernel's. */
}

bool handle_lost(const struct handle *h)
{
    return h->hold != NULL && !hold_is_live(h->hold);
}
