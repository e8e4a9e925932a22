/* The entries of a directory: an AVL tree by name, without parent pointers.
 *
 * Knuth, The Art of Computer Programming, volume 3, 6.2.3.  The tree's shape depends on the
 * order of insertions and so differs between replicas; only its order is ever seen. */
#include "raftstore/lock/table.h"

#include <assert.h>

#define DEPTH_MAX 64 /* An AVL tree of 2^40 entries is less than 60 deep. */

static int height(const struct node *n)
{
    return n == NULL ? 0 : n->height;
}

static void height_set(struct node *n)
{
    int a = height(n->child[0]), b = height(n->child[1]);
    n->height = (uint8_t)((a > b ? a : b) + 1);
}

/* Turn the subtree so that child[side] comes up. */
static void rotate(struct node **top, int side)
{
    struct node *n = *top, *up = n->child[side];
    n->child[side] = up->child[!side];
    up->child[!side] = n;
    height_set(n);
    height_set(up);
    *top = up;
}

static void rebalance(struct node **top)
{
    struct node *n = *top;
    int lean = height(n->child[1]) - height(n->child[0]);
    if (lean >= -1 && lean <= 1) {
        height_set(n);
        return;
    }
    int side = lean > 0;
    struct node *heavy = n->child[side];
    if (height(heavy->child[!side]) > height(heavy->child[side]))
        rotate(&n->child[side], !side);
    rotate(top, side);
}

struct node *tree_find(const struct node *directory, struct bytes name)
{
    struct node *n = directory->entries;
    while (n != NULL) {
        int order = bytes_compare(name, node_name(n));
        if (order == 0)
            return n;
        n = n->child[order > 0];
    }
    return NULL;
}

/* The first entry at or behind a name. */
struct node *tree_from(const struct node *directory, struct bytes name, bool behind)
{
    struct node *n = directory->entries, *best = NULL;
    while (n != NULL) {
        int order = bytes_compare(name, node_name(n));
        if (order < 0 || (order == 0 && !behind)) {
            best = n;
            n = n->child[0];
        } else {
            n = n->child[1];
        }
    }
    return best;
}

void tree_insert(struct node *directory, struct node *node)
{
    struct node **way[DEPTH_MAX];
    int depth = 0;
    struct node **at = &directory->entries;
    struct bytes name = node_name(node);
    while (*at != NULL) {
        int order = bytes_compare(name, node_name(*at));
        assert(order != 0 && depth < DEPTH_MAX);
        way[depth++] = at;
        at = &(*at)->child[order > 0];
    }
    node->child[0] = node->child[1] = NULL;
    node->height = 1;
    *at = node;
    while (depth > 0)
        rebalance(way[--depth]);
}

void tree_remove(struct node *directory, struct node *node)
{
    struct node **way[DEPTH_MAX];
    int depth = 0;
    struct node **at = &directory->entries;
    struct bytes name = node_name(node);
    while (*at != node) {
        assert(*at != NULL && depth < DEPTH_MAX);
        way[depth++] = at;
        at = &(*at)->child[bytes_compare(name, node_name(*at)) > 0];
    }
    if (node->child[0] == NULL || node->child[1] == NULL) {
        *at = node->child[0] != NULL ? node->child[0] : node->child[1];
    } else {
        /* The next entry by name takes its place. */
        int top = depth;
        way[depth++] = at;
        struct node **next = &node->child[1];
        while ((*next)->child[0] != NULL) {
            assert(depth < DEPTH_MAX);
            way[depth++] = next;
            next = &(*next)->child[0];
        }
        struct node *up = *next;
        *next = up->child[1];
        up->child[0] = node->child[0];
        up->child[1] = node->child[1];
        up->height = node->height;
        *at = up;
        if (depth > top + 1)
            way[top + 1] = &up->child[1];
    }
    while (depth > 0)
        rebalance(way[--depth]);
}

static const char *subtree_check(const struct node *n, const struct node *directory, size_t *count)
{
    if (n == NULL)
        return NULL;
    ++*count;
    if (n->parent != directory)
        return "an entry's parent is not its directory";
    int a = height(n->child[0]), b = height(n->child[1]);
    if (a - b > 1 || b - a > 1 || n->height != (a > b ? a : b) + 1)
        return "a directory's tree is out of balance";
    for (int side = 0; side < 2; side++) {
        const struct node *c = n->child[side];
        if (c == NULL)
            continue;
        int order = bytes_compare(node_name(c), node_name(n));
        if (side == 0 ? order >= 0 : order <= 0)
            return "a directory's tree is out of order";
        const char *why = subtree_check(c, directory, count);
        if (why != NULL)
            return why;
    }
    return NULL;
}

const char *tree_check(const struct node *directory)
{
    size_t count = 0;
    const char *why = subtree_check(directory->entries, directory, &count);
    if (why == NULL && count != directory->directory->n_entries)
        why = "a directory's count of entries is wrong";
    return why;
}
