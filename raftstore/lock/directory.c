/* MKDIR, RMDIR, SETATTR: directories made by name. */
#include "raftstore/lock/table.h"

static void tell(struct op *o, enum lock_effect_type type, const struct node *n)
{
    struct lock_effect *e = effect_add(o->t, type);
    e->session_id = o->s->id;
    e->uid = n->directory->uid;
    e->path = effects_path(o->t, n);
}

static void take_attributes(struct op *o, struct node *n)
{
    struct lock_table *t = o->t;
    digest_directory(t, n, false);
    n->directory->uid = o->c->uid;
    n->directory->gid = o->c->gid;
    n->directory->perm = o->c->perm;
    n->directory->implicit = false;
    digest_directory(t, n, true);
    directory_changed(t, n);
    tell(o, LOCK_EFFECT_MKDIR, n);
}

/* Is there room for something new at this path?
 *
 * Return: LOCK_OK, and nothing is there; LOCK_NO_PARENT, LOCK_NOT_DIR; LOCK_EXISTS, also for a
 *         lock that is only waited for; LOCK_DELAYED; LOCK_LIMIT of directories. */
enum lock_code place_free(struct op *o, struct bytes path, unsigned n_more, struct place *ret)
{
    struct lock_table *t = o->t;
    bool parents = (o->c->flags & LOCK_F_PARENTS) != 0;
    enum lock_code code = place_find(t, path, parents, ret);
    if (code == LOCK_OK && ret->node != NULL && !ret->node->is_directory) {
        /* Whatever an absent session holds there is wanted now. */
        struct claim all = {bytes_of(NULL, 0), 0, LOCK_RANGE_END, true, 0};
        if (evict_lapsed(t, ret->node, &all)) {
            settle(t);
            code = place_find(t, path, parents, ret);
        }
    }
    if (code != LOCK_OK)
        return code;
    const struct node *n = ret->node;
    if (n != NULL) {
        if (n->is_directory || n->holds != NULL || n->crowd->n_links > 0)
            return LOCK_EXISTS;
        return LOCK_DELAYED;
    }
    uint64_t n_new = (uint64_t)ret->n_missing + n_more;
    if (n_new > 0 && t->n_directories + n_new > t->limits.directories_max)
        return LOCK_LIMIT;
    return LOCK_OK;
}

enum lock_code op_mkdir(struct op *o)
{
    const struct lock_command *c = o->c;
    struct place p;
    if (c->n_paths < 1 || !lock_path_valid(c->paths[0]) || c->perm > LOCK_PERM_MAX)
        return LOCK_INVALID;
    enum lock_code code = place_free(o, c->paths[0], 1, &p);
    if (code == LOCK_EXISTS && p.node->is_directory && p.node->directory->implicit) {
        take_attributes(o, p.node);
        return LOCK_OK;
    }
    if (code == LOCK_OK)
        take_attributes(o, place_make(o->t, &p, true));
    return code;
}

enum lock_code op_rmdir(struct op *o)
{
    const struct lock_command *c = o->c;
    struct place p;
    if (c->n_paths < 1 || !lock_path_valid(c->paths[0]))
        return LOCK_INVALID;
    enum lock_code code = place_find(o->t, c->paths[0], false, &p);
    if (code == LOCK_NOT_DIR)
        return code;
    if (code != LOCK_OK || p.node == NULL)
        return LOCK_NOT_FOUND;
    if (!p.node->is_directory)
        return LOCK_NOT_DIR;
    if (p.node->directory->n_entries > 0)
        return LOCK_NOT_EMPTY;
    node_prune(o->t, p.node);
    return LOCK_OK;
}

enum lock_code op_setattr(struct op *o)
{
    const struct lock_command *c = o->c;
    struct lock_table *t = o->t;
    if (c->n_paths < 1 || (c->paths[0].size > 0 && !lock_path_valid(c->paths[0])) ||
        (c->perm != UINT32_MAX && c->perm > LOCK_PERM_MAX))
        return LOCK_INVALID;
    struct node *n = t->root;
    if (c->paths[0].size > 0) {
        struct place p;
        enum lock_code code = place_find(t, c->paths[0], false, &p);
        if (code == LOCK_NOT_DIR)
            return code;
        n = code == LOCK_OK ? p.node : NULL;
    }
    if (n == NULL)
        return LOCK_NOT_FOUND;
    if (!n->is_directory)
        return LOCK_NOT_DIR;
    struct directory *d = n->directory;
    if (c->token != 0 && c->token != d->id)
        return LOCK_NOT_FOUND; /* Another one than its caller was allowed to change. */
    digest_directory(t, n, false);
    d->uid = c->uid == UINT32_MAX ? d->uid : c->uid;
    d->gid = c->gid == UINT32_MAX ? d->gid : c->gid;
    d->perm = c->perm == UINT32_MAX ? d->perm : c->perm;
    digest_directory(t, n, true);
    directory_changed(t, n);
    tell(o, LOCK_EFFECT_SETATTR, n);
    return LOCK_OK;
}
