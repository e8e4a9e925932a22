/* What may be seen: queries, entries, sessions, events. */
#include "raftstore/node/access.h"

#include "raftstore/wire/pack.h"

bool access_reads(const struct access *a, struct bytes path)
{
    return a->rights == NULL || policy_rights_allow(a->rights->rules, POLICY_READ, path);
}

bool access_sees(const struct access *a, struct bytes path, bool is_directory)
{
    return access_reads(a, path) ||
           (is_directory && policy_rights_below(a->rights->rules, POLICY_READ, path));
}

static enum access_answer no(struct access_denial *ret, struct bytes path)
{
    *ret = (struct access_denial){.verb = POLICY_READ, .path = path};
    return ACCESS_NO;
}

static bool begins_with(struct bytes path, struct bytes prefix)
{
    return path.size >= prefix.size &&
           (prefix.size == 0 || memcmp(path.data, prefix.data, prefix.size) == 0);
}

/* Is there anything that may be read and whose path begins with these bytes? */
static bool reads_under(const struct access *a, struct bytes prefix)
{
    const struct bytes *paths;
    size_t n = policy_rights_paths(a->rights->rules, POLICY_READ, &paths);
    for (size_t i = 0; i < n; i++)
        if (begins_with(paths[i], prefix) || policy_path_covers(paths[i], prefix))
            return true;
    return false;
}

/* A hold is also shown to who may renew and release it. */
static enum access_answer judge_token(const struct access *a,
                                      const struct lock_table *table,
                                      uint64_t token,
                                      struct access_denial *ret_denial)
{
    struct lock_hold_view hold;
    struct lock_session_view session;
    struct bytes path;
    if (table == NULL || !lock_find_token(table, token, &hold, &path) || access_reads(a, path) ||
        policy_rights_allow(a->rights->rules, POLICY_ACQUIRE, path))
        return ACCESS_YES;
    if (lock_find_session(table, hold.session_id, &session) && access_sees_session(a, &session))
        return ACCESS_YES;
    (void)no(ret_denial, path);
    ret_denial->is_secret = true;
    return ACCESS_NO;
}

static enum access_answer judge_session(const struct access *a,
                                        const struct lock_table *table,
                                        uint64_t session_id,
                                        struct access_denial *ret_denial)
{
    struct lock_session_view view;
    if (table == NULL || !lock_find_session(table, session_id, &view) ||
        access_sees_session(a, &view))
        return ACCESS_YES;
    *ret_denial = (struct access_denial){.why = "the session is another certificate's"};
    return ACCESS_NO;
}

enum access_answer access_query(struct access *a,
                                const struct lock_table *table,
                                const Hf__Query *q,
                                struct access_denial *ret_denial)
{
    struct bytes path = pack_bytes(q->path);
    if (a->rights == NULL)
        return ACCESS_YES;
    switch (q->what) {
    case HF__QUERY__WHAT__STATUS:
    case HF__QUERY__WHAT__MEMBERS:
    case HF__QUERY__WHAT__COUNTS:
        return ACCESS_YES; /* Numbers, and the nodes' addresses. */
    case HF__QUERY__WHAT__SESSIONS:
        return ACCESS_YES; /* One by one. */
    case HF__QUERY__WHAT__SHOW:
    case HF__QUERY__WHAT__LIST:
        return access_sees(a, path, true) ? ACCESS_YES : no(ret_denial, path);
    case HF__QUERY__WHAT__LIST_PREFIX:
        return reads_under(a, path) ? ACCESS_YES : no(ret_denial, path);
    case HF__QUERY__WHAT__SESSION:
        return judge_session(a, table, q->session_id, ret_denial);
    case HF__QUERY__WHAT__TOKEN:
        return judge_token(a, table, q->token, ret_denial);
    default: /* Of a newer version. */
        return no(ret_denial, path);
    }
}

/* Of a rename, the name that may be seen. */
static const struct lock_effect *
half_of_rename(const struct lock_effect *e, bool sees_old, struct lock_effect *room)
{
    *room = *e;
    room->path2 = bytes_of(NULL, 0);
    if (sees_old) {
        room->type = LOCK_EFFECT_ENDED;
        room->code = LOCK_RELEASED;
    } else {
        room->type = LOCK_EFFECT_GRANTED;
        room->code = LOCK_OK;
        room->path = e->path2;
    }
    return room;
}

const struct lock_effect *access_effect(struct access *a,
                                        const struct lock_table *table,
                                        uint64_t session_id,
                                        const struct lock_effect *e,
                                        struct lock_effect *room)
{
    if (a->rights == NULL)
        return e;
    if (session_id != 0 && e->session_id == session_id && access_owns_session(a, table, session_id))
        return e;
    bool is_directory = e->type == LOCK_EFFECT_MKDIR || e->type == LOCK_EFFECT_RMDIR ||
                        e->type == LOCK_EFFECT_SETATTR;
    bool sees = access_sees(a, e->path, is_directory);
    if (e->path2.size == 0)
        return sees ? e : NULL;
    bool sees_new = access_reads(a, e->path2);
    if (sees == sees_new)
        return sees ? e : NULL;
    return half_of_rename(e, sees, room);
}

/* Lists. ----------------------------------------------------------------------------------- */

static struct bytes component_behind(struct bytes path, size_t at)
{
    const char *p = (const char *)path.data + at;
    const char *slash = memchr(p, '/', path.size - at);
    return bytes_of(p, slash != NULL ? (size_t)(slash - p) : path.size - at);
}

/* What there is in a directory that may not be read, on the way to what may: looked up one by one,
 * however many others are there. */
static void list_ways(const struct access *a,
                      const struct lock_table *table,
                      struct bytes directory,
                      struct bytes after,
                      bool (*visit)(void *arg, const struct lock_node_view *node),
                      void *arg)
{
    const struct bytes *paths;
    size_t n = policy_rights_paths(a->rights->rules, POLICY_READ, &paths);
    size_t below = directory.size > 0 ? directory.size + 1 : 0;
    for (size_t i = 0; i < n; i++) {
        if (paths[i].size <= below || !policy_path_covers(directory, paths[i]))
            continue;
        struct bytes name = component_behind(paths[i], below);
        if (after.size > 0 && bytes_compare(name, after) <= 0)
            continue;
        after = name; /* Tree order: its like come directly behind it. */
        struct bytes entry = bytes_of(paths[i].data, below + name.size);
        struct lock_node_view view = lock_lookup(table, entry);
        if (view.type != LOCK_NODE_NONE && !visit(arg, &view))
            return;
    }
}

enum lock_code access_list(const struct access *a,
                           const struct lock_table *table,
                           struct bytes directory,
                           struct bytes after,
                           bool (*visit)(void *arg, const struct lock_node_view *node),
                           void *arg)
{
    if (access_reads(a, directory))
        return lock_list(table, directory, after, visit, arg);
    struct lock_node_view view = lock_lookup(table, directory);
    if (view.type != LOCK_NODE_DIRECTORY)
        return LOCK_NOT_FOUND; /* A lock there would not be shown, either. */
    list_ways(a, table, directory, after, visit, arg);
    return LOCK_OK;
}

struct prefix_list {
    const struct access *access;
    struct bytes within; /* What may be read, of which this walk is. */
    bool (*visit)(void *arg, const struct lock_node_view *node);
    void *arg;
    bool stopped;
};

static bool prefix_visit(void *arg, const struct lock_node_view *node)
{
    struct prefix_list *l = arg;
    if (!policy_path_covers(l->within, node->path))
        return false; /* In tree order all of it came before: "jobs" and "jobs/a" before "jobs2". */
    if (!access_reads(l->access, node->path))
        return true;
    l->stopped = !l->visit(l->arg, node);
    return !l->stopped;
}

static bool prefix_enter(void *arg, struct bytes path)
{
    const struct prefix_list *l = arg;
    return policy_path_covers(l->within, path) && access_reads(l->access, path);
}

/* One walk for each thing that may be read, in order: what may not be is not walked through. */
void access_list_prefix(const struct access *a,
                        const struct lock_table *table,
                        struct bytes prefix,
                        struct bytes after,
                        bool (*visit)(void *arg, const struct lock_node_view *node),
                        void *arg)
{
    const struct bytes *paths;
    if (a->rights == NULL) {
        lock_list_prefix(table, prefix, after, visit, NULL, arg);
        return;
    }
    struct prefix_list l = {.access = a, .visit = visit, .arg = arg};
    size_t n = policy_rights_paths(a->rights->rules, POLICY_READ, &paths);
    for (size_t i = 0; i < n && !l.stopped; i++) {
        bool longer = begins_with(paths[i], prefix);
        l.within = paths[i];
        if (longer || policy_path_covers(paths[i], prefix))
            lock_list_prefix(table, longer ? paths[i] : prefix, after, prefix_visit, prefix_enter,
                             &l);
    }
}
