/* The holds of a crowd by range: an AVL tree by (start, token) in which each subtree knows how
 * far its holds reach (an interval tree: Cormen et al., Introduction to Algorithms, 14.3). */
#include "raftstore/lock/table.h"

#include <assert.h>

static int order(const struct hold *a, const struct hold *b)
{
    uint64_t sa = hold_start(a), sb = hold_start(b);
    if (sa != sb)
        return sa < sb ? -1 : 1;
    return (a->token > b->token) - (a->token < b->token);
}

static int height(const struct member *m)
{
    return m == NULL ? 0 : m->height;
}

static void update(struct member *m)
{
    int a = height(m->child[0]), b = height(m->child[1]);
    m->height = (uint8_t)((a > b ? a : b) + 1);
    m->reach = hold_end(m->hold);
    m->has_exclusive = m->hold->exclusive;
    m->reach_exclusive = m->has_exclusive ? m->reach : 0;
    m->limit_min = hold_limit(m->hold) != 0 ? hold_limit(m->hold) : UINT32_MAX;
    for (int side = 0; side < 2; side++) {
        const struct member *c = m->child[side];
        if (c == NULL)
            continue;
        m->reach = c->reach > m->reach ? c->reach : m->reach;
        m->has_exclusive |= c->has_exclusive;
        m->limit_min = c->limit_min < m->limit_min ? c->limit_min : m->limit_min;
        if (c->has_exclusive && c->reach_exclusive > m->reach_exclusive)
            m->reach_exclusive = c->reach_exclusive;
    }
}

/* Turn the subtree so that child[side] comes up. */
static struct member *rotate(struct member *m, int side)
{
    struct member *up = m->child[side];
    m->child[side] = up->child[!side];
    up->child[!side] = m;
    update(m);
    update(up);
    return up;
}

static struct member *balance(struct member *m)
{
    int lean = height(m->child[1]) - height(m->child[0]);
    if (lean >= -1 && lean <= 1) {
        update(m);
        return m;
    }
    int side = lean > 0;
    struct member *heavy = m->child[side];
    if (height(heavy->child[!side]) > height(heavy->child[side]))
        m->child[side] = rotate(heavy, !side);
    return rotate(m, side);
}

/* Return: the subtree with one more. */
struct member *ranges_add(struct member *m, struct member *made)
{
    if (m == NULL) {
        made->child[0] = made->child[1] = NULL;
        update(made);
        return made;
    }
    int side = order(made->hold, m->hold) > 0;
    m->child[side] = ranges_add(m->child[side], made);
    return balance(m);
}

static struct member *take_first(struct member *m, struct member **ret_first)
{
    if (m->child[0] == NULL) {
        *ret_first = m;
        return m->child[1];
    }
    m->child[0] = take_first(m->child[0], ret_first);
    return balance(m);
}

/* Return: the subtree without the hold; *ret_member is what stood for it. */
struct member *ranges_remove(struct member *m, const struct hold *h, struct member **ret_member)
{
    assert(m != NULL);
    if (m->hold != h) {
        int side = order(h, m->hold) > 0;
        m->child[side] = ranges_remove(m->child[side], h, ret_member);
        return balance(m);
    }
    *ret_member = m;
    if (m->child[1] == NULL)
        return m->child[0];
    struct member *next;
    struct member *right = take_first(m->child[1], &next);
    next->child[0] = m->child[0];
    next->child[1] = right;
    return balance(next);
}

/* Visit, by (start, token), the holds that meet a range.
 *
 * Return: false when the visitor said so. */
bool ranges_visit(const struct member *m,
                  uint64_t start,
                  uint64_t end,
                  bool exclusive_only,
                  bool (*visit)(void *arg, struct hold *h),
                  void *arg)
{
    if (m == NULL || m->reach < start)
        return true;
    if (exclusive_only && (!m->has_exclusive || m->reach_exclusive < start))
        return true;
    if (!ranges_visit(m->child[0], start, end, exclusive_only, visit, arg))
        return false;
    if (hold_start(m->hold) > end)
        return true;
    if (hold_end(m->hold) >= start && (!exclusive_only || m->hold->exclusive) &&
        !visit(arg, m->hold))
        return false;
    return ranges_visit(m->child[1], start, end, exclusive_only, visit, arg);
}

const char *ranges_check(const struct member *m, size_t *count)
{
    if (m == NULL)
        return NULL;
    struct member copy = *m;
    ++*count;
    update(&copy);
    int lean = height(m->child[1]) - height(m->child[0]);
    if (lean < -1 || lean > 1 || copy.height != m->height || copy.reach != m->reach ||
        copy.has_exclusive != m->has_exclusive || copy.reach_exclusive != m->reach_exclusive ||
        copy.limit_min != m->limit_min)
        return "a crowd's tree of ranges is wrong";
    for (int side = 0; side < 2; side++) {
        const struct member *c = m->child[side];
        if (c == NULL)
            continue;
        if ((order(c->hold, m->hold) > 0) != (side == 1))
            return "a crowd's tree of ranges is out of order";
        const char *why = ranges_check(c, count);
        if (why != NULL)
            return why;
    }
    return NULL;
}
