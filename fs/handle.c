#include "fs/handle.h"

#include <stdlib.h>

struct handle *handle_new(struct inode *inode, struct hold *hold)
{
    struct handle *h = xcalloc(1, sizeof *h);
    h->n_refs = 1;
    h->inode = inode;
    inode_ref(inode);
    h->hold = hold;
    if (hold != NULL)
        hold_ref(hold);
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
    inode_unref(&fs->inodes, h->inode);
    if (h->hold != NULL)
        hold_unref(h->hold);
    buf_deinit(&h->report);
    free(h);
}

bool handle_lost(const struct handle *h)
{
    return h->hold != NULL && !hold_is_live(h->hold);
}
