#include "fs/inode.h"

#include "fs/path.h"
#include "raftstore/base/buf.h"
#include "raftstore/base/clock.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

uint64_t inode_hold_number(uint64_t token)
{
    return INODE_HOLD_BIT | token;
}

uint64_t inode_directory_number(uint64_t directory_id)
{
    return directory_id;
}

struct inode *inode_get(struct inode_table *t, uint64_t number)
{
    struct inode *i;
    HASH_FIND(hh, t->by_number, &number, sizeof number, i);
    return i;
}

struct inode *inode_directory_at(const struct inode_table *t, const char *path)
{
    struct inode *i;
    HASH_FIND(hh_path, t->directory_by_path, path, strlen(path), i);
    return i;
}

/* The directory that a path is in. */
static struct inode *parent_of(struct inode_table *t, const char *path)
{
    const char *slash = strrchr(path, '/');
    struct inode *i;
    size_t n = slash != NULL ? (size_t)(slash - path) : 0;
    if (*path == '\0')
        return NULL;
    HASH_FIND(hh_path, t->directory_by_path, path, n, i);
    if (i != NULL)
        inode_ref(i);
    return i;
}

static void directory_add(struct inode_table *t, struct inode *i)
{
    struct inode *old = inode_directory_at(t, i->path);
    if (old != NULL) {
        HASH_DELETE(hh_path, t->directory_by_path, old);
        old->by_path = false;
    }
    i->by_path = true;
    HASH_ADD_KEYPTR(hh_path, t->directory_by_path, i->path, strlen(i->path), i);
}

static struct inode *inode_add(
    struct inode_table *t, uint64_t number, enum inode_kind kind, uint64_t id, const char *path)
{
    struct inode *i = xcalloc(1, sizeof *i);
    i->number = number;
    i->kind = kind;
    i->id = id;
    i->path = xstrdup(path);
    i->type = kind == INODE_DIRECTORY ? S_IFDIR : S_IFREG;
    i->file = number;
    i->n_links = 1;
    i->parent = parent_of(t, path);
    HASH_ADD(hh, t->by_number, number, sizeof i->number, i);
    if (kind == INODE_FREE)
        HASH_ADD_KEYPTR(hh_path, t->free_by_path, i->path, strlen(i->path), i);
    if (kind == INODE_DIRECTORY)
        directory_add(t, i);
    return i;
}

static void inode_delete(struct inode_table *t, struct inode *i)
{
    assert(t->by_number != NULL); /* It is in there, */
    HASH_DELETE(hh, t->by_number, i);
    if (i->kind == INODE_FREE)
        HASH_DELETE(hh_path, t->free_by_path, i);
    if (i->by_path) {
        assert(t->directory_by_path != NULL); /* and in there. */
        HASH_DELETE(hh_path, t->directory_by_path, i);
    }
    free(i->path);
    free(i);
}

static void inode_drop_unused(struct inode_table *t, struct inode *i)
{
    while (i != NULL && i->n_refs == 0 && i->n_lookups == 0) {
        struct inode *parent = i->parent;
        inode_delete(t, i);
        if (parent != NULL)
            parent->n_refs--;
        i = parent;
    }
}

void inode_table_init(struct inode_table *t)
{
    *t = (struct inode_table){0};
    inode_add(t, INODE_ROOT, INODE_DIRECTORY, INODE_ROOT, "")->n_refs = 1;
}

void inode_table_deinit(struct inode_table *t)
{
    struct inode *i, *next;
    HASH_ITER(hh, t->by_number, i, next)
    {
        inode_delete(t, i);
    }
}

static struct inode *find_or_add(
    struct inode_table *t, uint64_t number, enum inode_kind kind, uint64_t id, const char *path)
{
    struct inode *i = inode_get(t, number);
    if (i == NULL)
        i = inode_add(t, number, kind, id, path);
    inode_ref(i);
    return i;
}

struct inode *inode_directory(struct inode_table *t, uint64_t directory_id, const char *path)
{
    uint64_t number = inode_directory_number(directory_id);
    return find_or_add(t, number, INODE_DIRECTORY, directory_id, path);
}

struct inode *inode_hold(struct inode_table *t, uint64_t token, const char *path)
{
    return find_or_add(t, inode_hold_number(token), INODE_HOLD, token, path);
}

struct inode *inode_free_lock(struct inode_table *t, const char *path)
{
    struct inode *i;
    HASH_FIND(hh_path, t->free_by_path, path, strlen(path), i);
    if (i == NULL) {
        uint64_t id = ++t->n_free_made;
        i = inode_add(t, INODE_FREE_BIT | id, INODE_FREE, id, path);
    }
    inode_ref(i);
    return i;
}

void inode_moved(struct inode_table *t, struct inode *i, const char *path)
{
    struct inode *parent = i->parent;
    if (strcmp(i->path, path) == 0)
        return;
    char *old = i->path; /* `path` may lie in it. */
    i->path = xstrdup(path);
    i->parent = parent_of(t, i->path);
    free(old);
    if (parent != NULL)
        inode_unref(t, parent);
}

int inode_child(struct inode_table *t,
                uint64_t parent,
                const char *name,
                struct inode **ret_directory,
                char **ret_path)
{
    struct inode *directory = inode_get(t, parent);
    if (directory == NULL)
        return -ESTALE;
    if (directory->kind != INODE_DIRECTORY)
        return -EPERM;
    int r = path_join(directory->path, name, ret_path);
    if (r == 0 && ret_directory != NULL)
        *ret_directory = directory;
    return r;
}

void inode_ref(struct inode *i)
{
    i->n_refs++;
}

void inode_unref(struct inode_table *t, struct inode *i)
{
    i->n_refs--;
    inode_drop_unused(t, i);
}

void inode_entries_changed(struct inode_table *t, uint64_t number)
{
    struct inode *i = inode_get(t, number);
    uint64_t now = clock_wall_ns(clock_system());
    if (i != NULL && i->time_ns < now)
        i->time_ns = i->changed_ns = now;
}

void inode_forget(struct inode_table *t, uint64_t number, uint64_t n_lookups)
{
    struct inode *i = inode_get(t, number);
    if (i == NULL)
        return;
    i->n_lookups -= n_lookups < i->n_lookups ? n_lookups : i->n_lookups;
    inode_drop_unused(t, i);
}
