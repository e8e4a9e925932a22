/* Reads: directories and subtrees, in order, resumable. */
#include "raftstore/lock/view.h"

#include "raftstore/lock/table.h"

static const struct bytes none = {NULL, 0};

struct walk {
    bool (*visit)(void *arg, const struct lock_node_view *node);
    bool (*enter)(void *arg, struct bytes path); /* NULL: always. */
    void *arg;
    char path[LOCK_PATH_BYTES_MAX + 1]; /* Of the directory at hand, with a slash behind. */
};

/* Visit one entry of the directory whose path is the first `size` bytes. */
static bool visit_entry(struct walk *w, const struct node *n, size_t size)
{
    memcpy(w->path + size, n->name, n->name_size);
    struct lock_node_view v = view_node(n, bytes_of(w->path, size + n->name_size));
    return v.type == LOCK_NODE_NONE || w->visit(w->arg, &v);
}

static const struct node *next_entry(const struct node *n)
{
    return tree_from(n->parent, node_name(n), true);
}

static size_t path_begin(struct walk *w, const struct node *directory)
{
    size_t size = node_path_size(directory);
    node_path_write(directory, w->path);
    if (size > 0)
        w->path[size++] = '/';
    return size;
}

enum lock_code lock_list(const struct lock_table *t,
                         struct bytes directory,
                         struct bytes after,
                         bool (*visit)(void *arg, const struct lock_node_view *node),
                         void *arg)
{
    const struct node *d = node_find(t, directory);
    if (d == NULL)
        return LOCK_NOT_FOUND;
    if (!d->is_directory)
        return LOCK_NOT_DIR;
    struct walk w = {.visit = visit, .arg = arg};
    size_t size = path_begin(&w, d);
    for (const struct node *n = tree_from(d, after, after.size > 0); n != NULL; n = next_entry(n)) {
        if (!visit_entry(&w, n, size))
            break;
    }
    return LOCK_OK;
}

static bool begins_with(struct bytes name, struct bytes prefix)
{
    return name.size >= prefix.size &&
           (prefix.size == 0 || memcmp(name.data, prefix.data, prefix.size) == 0);
}

/* Visit what is below a directory, entries beginning with `prefix` only (below those, all).
 *
 * @after: path below the directory to start behind; empty: from the first.
 * Return: false when the visitor had enough. */
static bool walk_below(
    struct walk *w, const struct node *d, size_t size, struct bytes prefix, struct bytes after)
{
    struct bytes name = none;
    bool resume = path_next(&after, &name);
    const struct node *n = tree_from(d, bytes_compare(prefix, name) > 0 ? prefix : name, false);
    for (; n != NULL && begins_with(node_name(n), prefix); n = next_entry(n)) {
        bool at = resume && bytes_equal(node_name(n), name);
        bool shown = !n->is_directory || !n->directory->implicit;
        if (!at && shown && !visit_entry(w, n, size))
            return false;
        if (!n->is_directory)
            continue;
        size_t below = size + n->name_size;
        memcpy(w->path + size, n->name, n->name_size);
        if (w->enter != NULL && !w->enter(w->arg, bytes_of(w->path, below)))
            continue;
        w->path[below++] = '/';
        if (!walk_below(w, n, below, none, at ? after : none))
            return false;
    }
    return true;
}

void lock_list_prefix(const struct lock_table *t,
                      struct bytes prefix,
                      struct bytes after,
                      bool (*visit)(void *arg, const struct lock_node_view *node),
                      bool (*enter)(void *arg, struct bytes path),
                      void *arg)
{
    const struct node *d = t->root;
    struct walk w = {.visit = visit, .enter = enter, .arg = arg};
    /* Down to the directory that the prefix names whole, `after` walking along. */
    while (prefix.size > 0 && memchr(prefix.data, '/', prefix.size) != NULL) {
        struct bytes name, after_name = none;
        path_next(&prefix, &name);
        d = tree_find(d, name);
        if (d == NULL || !d->is_directory)
            return;
        if (!path_next(&after, &after_name))
            continue;
        int order = bytes_compare(after_name, name);
        if (order > 0)
            return;
        if (order < 0)
            after = none;
    }
    walk_below(&w, d, path_begin(&w, d), prefix, after);
}
