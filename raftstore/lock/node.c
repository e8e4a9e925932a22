/* Locks and directories as nodes of one tree. */
#include "raftstore/lock/table.h"

#include <assert.h>
#include <stdlib.h>

static struct node *node_alloc(struct bytes name)
{
    /* The name begins in what would be padding; a million of these count. */
    size_t size = offsetof(struct node, name) + name.size;
    struct node *n = xmalloc(size > sizeof *n ? size : sizeof *n);
    memset(n, 0, sizeof *n);
    n->name_size = (uint8_t)name.size;
    if (name.size > 0)
        memcpy(n->name, name.data, name.size);
    return n;
}

struct node *node_root_new(const struct lock_table *t)
{
    struct node *n = node_alloc(bytes_of(NULL, 0));
    n->is_directory = 1;
    n->directory = xcalloc(1, sizeof *n->directory);
    n->directory->id = LOCK_ROOT_ID;
    n->directory->perm = 01777;
    n->directory->table = t;
    return n;
}

void directory_changed(struct lock_table *t, struct node *directory)
{
    struct directory *d = directory->directory;
    if (d->changed_ns == t->stamp_ns || t->importing)
        return;
    digest_changed(t, directory, false);
    d->changed_ns = t->stamp_ns;
    digest_changed(t, directory, true);
}

/* A new entry.  A directory takes its parent's attributes and is implicit at first. */
struct node *node_new(struct lock_table *t, struct node *parent, struct bytes name, bool directory)
{
    struct node *n = node_alloc(name);
    n->parent = parent;
    tree_insert(parent, n);
    parent->directory->n_entries++;
    directory_changed(t, parent);
    if (!directory)
        return n;
    n->is_directory = 1;
    n->directory = xcalloc(1, sizeof *n->directory);
    *n->directory = (struct directory){
        .id = t->next_directory_id++,
        .changed_ns = t->stamp_ns,
        .uid = parent->directory->uid,
        .gid = parent->directory->gid,
        .perm = parent->directory->perm,
        .implicit = true,
    };
    digest_directory(t, n, true);
    digest_changed(t, n, true);
    t->n_directories++;
    return n;
}

/* Free the memory of a node that hangs nowhere any more. */
void node_free(struct node *n)
{
    if (n->is_directory) {
        free(n->directory);
    } else if (n->crowd != NULL) {
        members_free(n->crowd);
        free(n->crowd);
    }
    free(n);
}

static unsigned count_names(struct bytes rest)
{
    struct bytes name;
    unsigned n = 0;
    while (path_next(&rest, &name))
        n++;
    return n;
}

/* Walk to a valid path.
 *
 * Return: LOCK_OK, also when nothing stands there; LOCK_NOT_DIR; LOCK_NO_PARENT. */
enum lock_code
place_find(const struct lock_table *t, struct bytes path, bool parents, struct place *ret)
{
    struct bytes rest = path, name = {0};
    *ret = (struct place){.parent = t->root, .rest = path};
    while (path_next(&rest, &name)) {
        struct node *n = tree_find(ret->parent, name);
        if (rest.size == 0) {
            ret->node = n;
            ret->name = name;
            return LOCK_OK;
        }
        if (n == NULL) {
            if (!parents)
                return LOCK_NO_PARENT;
            ret->n_missing = count_names(ret->rest) - 1;
            return LOCK_OK;
        }
        if (!n->is_directory)
            return LOCK_NOT_DIR;
        ret->parent = n;
        ret->rest = rest;
    }
    return LOCK_OK;
}

/* Make what place_find() found missing, and the node itself. */
struct node *place_make(struct lock_table *t, const struct place *p, bool directory)
{
    struct bytes rest = p->rest, name;
    struct node *at = p->parent;
    while (path_next(&rest, &name)) {
        struct node *n = tree_find(at, name); /* An earlier path of the command may have made it. */
        if (n == NULL) {
            n = node_new(t, at, name, rest.size > 0 || directory);
            if (rest.size > 0) {
                struct lock_effect *e = effect_add(t, LOCK_EFFECT_MKDIR);
                e->path = effects_path(t, n);
                e->uid = n->directory->uid;
            }
        }
        at = n;
    }
    return at;
}

/* What stands at a path; the empty one is the root. */
struct node *node_find(const struct lock_table *t, struct bytes path)
{
    if (path.size == 0)
        return t->root;
    struct place p;
    if (!lock_path_valid(path) || place_find(t, path, false, &p) != LOCK_OK)
        return NULL;
    return p.node;
}

/* Something on a lock changed within a range: settle() looks after it.  Start > end: nothing that
 * could let a waiter in, but the lock may need less, or nothing, now. */
void node_touch(struct lock_table *t, struct node *n, uint64_t start, uint64_t end)
{
    if (!n->touched) {
        n->touched = 1;
        ARRAY_RESERVE(t->touched, t->n_touched, t->touched_alloc);
        t->touched[t->n_touched++] = n;
    }
    struct crowd *c = n->crowd;
    if (c == NULL || start > end)
        return;
    t->n_changes++;
    if (c->dirty_start > c->dirty_end) {
        c->dirty_start = start;
        c->dirty_end = end;
        return;
    }
    c->dirty_start = start < c->dirty_start ? start : c->dirty_start;
    c->dirty_end = end > c->dirty_end ? end : c->dirty_end;
}

/* Free a lock that nothing keeps, or a directory that is to go, and then the implicit
 * directories above that became empty. */
void node_prune(struct lock_table *t, struct node *n)
{
    if (!n->is_directory) {
        crowd_drop(n);
        if (n->holds != NULL || n->crowd != NULL)
            return;
    }
    for (;;) {
        struct node *parent = n->parent;
        if (n->is_directory) {
            assert(n->directory->n_entries == 0);
            struct lock_effect *e = effect_add(t, LOCK_EFFECT_RMDIR);
            e->path = effects_path(t, n);
            e->uid = n->directory->uid;
            digest_directory(t, n, false);
            digest_changed(t, n, false);
            t->n_directories--;
        }
        tree_remove(parent, n);
        parent->directory->n_entries--;
        directory_changed(t, parent);
        node_free(n);
        if (parent->parent == NULL || !parent->directory->implicit ||
            parent->directory->n_entries > 0)
            return;
        n = parent;
    }
}

size_t node_path_size(const struct node *n)
{
    size_t size = 0;
    for (; n->parent != NULL; n = n->parent)
        size += n->name_size + (size_t)(n->parent->parent != NULL);
    return size;
}

/* Write the path, node_path_size() bytes, from its end on. */
void node_path_write(const struct node *n, char *to)
{
    char *p = to + node_path_size(n);
    for (; n->parent != NULL; n = n->parent) {
        p -= n->name_size;
        memcpy(p, n->name, n->name_size);
        if (n->parent->parent != NULL)
            *--p = '/';
    }
}
