#include "fs/moved.h"

#include "fs/locker.h"
#include "raftstore/base/buf.h"
#include "raftstore/base/log.h"

#include <inttypes.h>
#include <stdlib.h>

void moved(struct fs *fs, uint64_t token, struct bytes to, uint64_t index, bool event)
{
    struct hold *h = holds_find(&fs->holds, token);
    struct inode *inode = inode_get(&fs->inodes, inode_hold_number(token));
    char *path = xmalloc(to.size + 1);
    memcpy(path, to.data, to.size);
    path[to.size] = '\0';
    char *old = h != NULL ? xstrdup(h->at->path) : NULL;
    if (h == NULL || holds_moved(h, path, index, event)) {
        if (inode != NULL)
            inode_moved(&fs->inodes, inode, path);
        if (h != NULL) {
            LOG_DEBUG("renamed", "path=%s to=%s token=%" PRIu64, log_quote(bytes_str(old)),
                      log_quote(bytes_str(path)), token);
            lockers_follow(fs, h, old);
        }
    }
    free(old);
    free(path);
}
