/* OPENDIR, READDIR, RELEASEDIR.
 *
 * A directory is read in pages, each beginning behind a name; so entries that come and go meanwhile
 * shift nothing.  The offset of an entry is its running number: 1 ".", 2 "..", then the names.  The
 * handle remembers behind which name each page began, and can go back to any offset it gave out. */
#include "fs/ops.h"

#include "fs/attr.h"
#include "fs/errno_table.h"
#include "fs/op.h"
#include "fs/path.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <errno.h>
#include <stdlib.h>

#define PAGE_ENTRIES 1024u

struct page {
    uint64_t first; /* Running number of its first entry. */
    char *after;    /* Owned: the name that it begins behind. */
};

struct entry {
    ino_t number;
    mode_t type;
    char *name; /* Owned. */
};

struct dir_handle {
    unsigned n_refs;     /* The kernel's, and that of a request under way. */
    struct inode *inode; /* With a reference. */
    struct page *pages;  /* Every page that was read, in order. */
    size_t n_pages;
    size_t at;             /* Page that `entries` are of. */
    struct entry *entries; /* Of the present page. */
    size_t n_entries;
    bool loaded;                 /* `entries` is a page. */
    bool more;                   /* Another page follows it. */
    LIST_ENTRY(dir_handle) link; /* Of fs.dir_handles. */
};

#define FIRST_NAME UINT64_C(2) /* Running number of the first name: behind "." and "..". */

static void drop_entries(struct dir_handle *d)
{
    for (size_t i = 0; i < d->n_entries; i++)
        free(d->entries[i].name);
    free(d->entries);
    d->entries = NULL;
    d->n_entries = 0;
    d->loaded = false;
}

static void drop_pages(struct dir_handle *d)
{
    for (size_t i = 0; i < d->n_pages; i++)
        free(d->pages[i].after);
    d->n_pages = 0;
}

static void add_page(struct dir_handle *d, uint64_t first, const char *after)
{
    d->pages = xrealloc(d->pages, (d->n_pages + 1) * sizeof d->pages[0]);
    d->pages[d->n_pages++] = (struct page){first, xstrdup(after)};
}

static void dir_handle_unref(struct fs *fs, struct dir_handle *d)
{
    if (--d->n_refs > 0)
        return;
    LIST_REMOVE(d, link);
    drop_entries(d);
    drop_pages(d);
    free(d->pages);
    inode_unref(&fs->inodes, d->inode);
    free(d);
}

void ops_readdir_free_all(struct fs *fs)
{
    struct dir_handle *d;
    while ((d = LIST_FIRST(&fs->dir_handles)) != NULL)
        dir_handle_unref(fs, d);
}

void ops_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *fs = op_fs(req);
    struct inode *inode = inode_get(&fs->inodes, ino);
    if (inode == NULL) {
        (void)fuse_reply_err(req, ESTALE);
        return;
    }
    struct dir_handle *d = xcalloc(1, sizeof *d);
    d->n_refs = 1;
    d->inode = inode;
    inode_ref(inode);
    LIST_INSERT_HEAD(&fs->dir_handles, d, link);
    fi->fh = (uintptr_t)d;
    fi->cache_readdir = 0;
    if (fuse_reply_open(req, fi) < 0)
        dir_handle_unref(fs, d);
}

void ops_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    dir_handle_unref(op_fs(req), (struct dir_handle *)(uintptr_t)fi->fh);
    (void)fuse_reply_err(req, 0);
}

struct readdir {
    struct op op;
    struct dir_handle *dir; /* With a reference. */
    size_t size;
    uint64_t off;
    char *out; /* Owned: `size` bytes. */
    size_t used;
};

static void readdir_done(struct readdir *r, int error)
{
    fuse_req_t request = op_take(&r->op);
    /* What was filled in before an error is given first; the next call meets the error again. */
    if (request != NULL && error != 0 && r->used == 0)
        (void)fuse_reply_err(request, error);
    else if (request != NULL)
        (void)fuse_reply_buf(request, r->out, r->used);
    dir_handle_unref(r->op.fs, r->dir);
    free(r->out);
    free(r);
}

/* Return: false when the caller's buffer is full. */
static bool add_entry(struct readdir *r, const char *name, ino_t number, mode_t type)
{
    struct stat st = {.st_ino = number, .st_mode = type};
    size_t n = fuse_add_direntry(r->op.request, r->out + r->used, r->size - r->used, name, &st,
                                 (off_t)(r->off + 1));
    if (n > r->size - r->used)
        return false;
    r->used += n;
    r->off++;
    return true;
}

/* As stat(2) would show it. */
static ino_t hold_number(const struct fs *fs, const Hf__Node *node, const Hf__Hold *hold)
{
    struct inode *i = NULL;
    if (hold->session_bound)
        HASH_FIND(hh_path, fs->inodes.free_by_path, node->path.data, node->path.len, i);
    return i != NULL ? i->number : attr_file_number(hold);
}

static void take_entries(const struct fs *fs, struct dir_handle *d, const Hf__QueryReply *reply)
{
    drop_entries(d);
    d->entries = xcalloc(reply->n_nodes + 1, sizeof d->entries[0]);
    for (size_t i = 0; i < reply->n_nodes; i++) {
        const Hf__Node *node = reply->nodes[i];
        const Hf__Hold *hold = attr_hold(fs, node);
        struct entry *e = &d->entries[d->n_entries];
        if (node->type == WIRE_NODE_DIRECTORY)
            *e = (struct entry){inode_directory_number(node->directory_id), S_IFDIR, NULL};
        else
            *e = (struct entry){hold != NULL ? hold_number(fs, node, hold) : 0,
                                hold != NULL ? attr_type_of_kind(hold->kind) : S_IFREG, NULL};
        char *path = xmalloc(node->path.len + 1);
        memcpy(path, node->path.data, node->path.len);
        path[node->path.len] = '\0';
        e->name = xstrdup(path_name(path));
        free(path);
        d->n_entries++;
    }
    d->loaded = true;
    d->more = reply->more && reply->n_nodes > 0;
}

static void readdir_continue(struct readdir *r);

static void on_page(void *arg, const struct client_reply *reply)
{
    struct readdir *r = arg;
    int error = errno_of_status(reply->status);
    if (error == 0)
        error = errno_of_code(ERRNO_DIRECTORY, reply->query->code);
    if (error != 0 || !op_waiting(&r->op)) {
        readdir_done(r, error);
        return;
    }
    take_entries(r->op.fs, r->dir, reply->query);
    readdir_continue(r);
}

static void load_page(struct readdir *r, size_t index)
{
    struct dir_handle *d = r->dir;
    Hf__Query query = HF__QUERY__INIT;
    drop_entries(d);
    d->at = index;
    query.what = HF__QUERY__WHAT__LIST;
    query.path = pack_binary(bytes_str(d->inode->path));
    query.after = pack_binary(bytes_str(d->pages[index].after));
    query.limit = PAGE_ENTRIES;
    query.brief = true;
    int error = r->op.fs->failed
                    ? EIO
                    : errno_of_status(client_query(r->op.fs->client, &query, op_timeout_ms(&r->op),
                                                   false, on_page, r));
    if (error != 0)
        readdir_done(r, error);
}

/* The page that running number `off` is on. */
static size_t find_page(const struct dir_handle *d, uint64_t off)
{
    size_t low = 0, high = d->n_pages;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (d->pages[middle].first <= off)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Fill the buffer from the pages; comes back after each one that had to be fetched. */
static void readdir_continue(struct readdir *r)
{
    struct dir_handle *d = r->dir;
    for (;;) {
        size_t index = find_page(d, r->off);
        if (!d->loaded || d->at != index) {
            load_page(r, index);
            return;
        }
        uint64_t first = d->pages[index].first;
        while (r->off - first < d->n_entries) {
            const struct entry *e = &d->entries[r->off - first];
            /* A lock with waiters only is free for now: not there. */
            bool shown = e->number != 0;
            if (!shown)
                r->off++;
            else if (!add_entry(r, e->name, e->number, e->type)) {
                readdir_done(r, 0);
                return;
            }
        }
        if (!d->more) {
            readdir_done(r, 0);
            return;
        }
        if (index + 1 == d->n_pages)
            add_page(d, first + d->n_entries, d->entries[d->n_entries - 1].name);
        else if (r->off < d->pages[index + 1].first) /* It was longer when it was read before. */
            r->off = d->pages[index + 1].first;
    }
}

void ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    struct dir_handle *d = (struct dir_handle *)(uintptr_t)fi->fh;
    struct readdir *r = xcalloc(1, sizeof *r);
    r->dir = d;
    d->n_refs++;
    r->size = size;
    r->off = off > 0 ? (uint64_t)off : 0;
    r->out = xmalloc(size + 1);
    op_init(&r->op, req, NULL);
    if (r->off == 0) { /* From the start: read afresh. */
        drop_entries(d);
        drop_pages(d);
        add_page(d, FIRST_NAME, "");
    }
    if ((r->off == 0 && !add_entry(r, ".", d->inode->file, S_IFDIR)) ||
        (r->off == 1 && !add_entry(r, "..", ino, S_IFDIR)))
        readdir_done(r, 0);
    else if (d->inode->kind != INODE_DIRECTORY)
        readdir_done(r, 0); /* A lock that looks like an empty one. */
    else
        readdir_continue(r);
}
