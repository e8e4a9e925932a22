#include "fs/handle.h"

#include "fs/locker.h"
#include "fs/poller.h"

#include <stdlib.h>

struct handle *handle_new(struct fs *fs, struct inode *inode, struct hold *hold)
{
    struct handle *h = xcalloc(1, sizeof *h);
    h->n_refs = 1;
    h->fs = fs;
    LIST_INIT(&h->lockers);
    h->inode = inode;
    inode_ref(inode);
    inode->n_open++;
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
    poll_free(h);
    if (!h->closed)
        h->inode->n_open--;
    LIST_REMOVE(h, link);
    inode_unref(&fs->inodes, h->inode);
    if (h->hold != NULL)
        hold_unref(h->hold);
    buf_deinit(&h->report);
    free(h);
}

void handle_free_all(struct fs *fs)
{
    struct handle *h, *next;
    LIST_FOREACH_SAFE(h, &fs->handles, link, next)
    {
        handle_ref(h);
        lockers_forget(h); /* These refer to other handles. */
        next = LIST_NEXT(h, link);
        handle_unref(fs, h);
    }
    while ((h = LIST_FIRST(&fs->handles)) != NULL)
        handle_unref(fs, h); /* Requests are all answered: the last reference is the kernel's. */
}

bool handle_lost(const struct handle *h)
{
    struct locker *l;
    if (h->lost || (h->hold != NULL && !hold_is_live(h->hold)))
        return true;
    LIST_FOREACH(l, &h->lockers, in_handle)
    {
        if (locker_holds(l) && !locker_check(l))
            return true;
    }
    return false;
}
