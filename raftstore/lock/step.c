/* The table as a whole, and the step: one command in, its result and effects out. */
#include "raftstore/lock/table.h"

#include <stdlib.h>

struct lock_table *lock_table_new(void)
{
    struct lock_table *t = xcalloc(1, sizeof *t);
    t->root = node_root_new(t);
    t->infos = xcalloc(LOCK_NODES_MAX, sizeof *t->infos);
    t->scratch = xmalloc(LOCK_PATH_BYTES_MAX);
    t->next_token = 1;
    t->next_session_id = 1;
    t->next_directory_id = LOCK_ROOT_ID + 1;
    t->next_queue_number = 1;
    t->limits = lock_limits_default();
    TAILQ_INIT(&t->waiters);
    tokens_init(&t->tokens);
    digest_directory(t, t->root, true);
    digest_changed(t, t->root, true);
    return t;
}

/* Depth first; a path is at most LOCK_COMPONENTS_MAX deep, a directory's tree is balanced. */
static void free_tree(struct node *n)
{
    if (n == NULL)
        return;
    free_tree(n->child[0]);
    free_tree(n->child[1]);
    if (n->is_directory) {
        free_tree(n->entries);
    } else {
        for (struct hold *h = n->holds, *next; h != NULL; h = next) {
            next = h->next;
            free(h);
        }
    }
    node_free(n);
}

void lock_table_free(struct lock_table *t)
{
    if (t == NULL)
        return;
    free_tree(t->root);
    struct waiter *w, *next_waiter;
    TAILQ_FOREACH_SAFE(w, &t->waiters, all_entry, next_waiter)
    free(w);
    struct session *s, *next_session;
    RB_FOREACH_SAFE(s, session_tree, &t->sessions, next_session)
    {
        RB_REMOVE(session_tree, &t->sessions, s);
        session_free(s);
    }
    struct agent *a, *next_agent;
    RB_FOREACH_SAFE(a, agent_tree, &t->agents, next_agent)
    {
        RB_REMOVE(agent_tree, &t->agents, a);
        free(a);
    }
    while (t->arena != NULL) {
        struct arena_chunk *next = t->arena->next;
        free(t->arena);
        t->arena = next;
    }
    tokens_deinit(&t->tokens);
    free(t->heap);
    free(t->scratch);
    free(t->infos);
    free(t->effects);
    free(t->touched);
    free(t->fresh);
    free(t->own);
    free(t->found);
    free(t);
}

static enum lock_code run_meta(struct op *o)
{
    switch (o->c->op) {
    case LOCK_OP_SESSION_OPEN:
        return op_session_open(o);
    case LOCK_OP_TICK:
        return LOCK_OK; /* What is due has expired already. */
    case LOCK_OP_TERM_START:
        return op_term_start(o);
    case LOCK_OP_NODE_INFO:
        return op_node_info(o);
    case LOCK_OP_EPOCH:
        return op_epoch(o);
    default:
        return LOCK_INVALID;
    }
}

static enum lock_code run(struct op *o)
{
    switch (o->c->op) {
    case LOCK_OP_ACQUIRE:
        return op_acquire(o);
    case LOCK_OP_CANCEL:
        return op_cancel(o);
    case LOCK_OP_RENEW:
        return op_renew(o);
    case LOCK_OP_RELEASE:
        return op_release(o);
    case LOCK_OP_CONVERT:
        return op_convert(o);
    case LOCK_OP_NOTE:
        return op_note(o);
    case LOCK_OP_BREAK:
        return op_break(o);
    case LOCK_OP_MKDIR:
        return op_mkdir(o);
    case LOCK_OP_RMDIR:
        return op_rmdir(o);
    case LOCK_OP_SETATTR:
        return op_setattr(o);
    case LOCK_OP_LINK:
        return op_link(o);
    case LOCK_OP_RENAME:
        return op_rename(o);
    default:
        return LOCK_INVALID;
    }
}

static void repeat(struct op *o, const struct kept *k)
{
    *o->r = (struct lock_result){
        .code = k->code,
        .stamp_ns = k->stamp_ns,
        .token = k->token,
        .deadline_ns = k->deadline_ns,
        .ttl_ms = k->ttl_ms,
        .repeated = true,
    };
    if (k->code == LOCK_CONFLICT)
        conflict_show(o);
}

/* A command of a session: at most once, and its result is kept. */
static void run_once(struct op *o)
{
    const struct lock_command *c = o->c;
    struct session *s = o->s;
    const struct kept *k = result_find(s, c->seq);
    if (k != NULL) {
        repeat(o, k);
        return;
    }
    if (c->seq == 0) {
        o->r->code = LOCK_INVALID;
        return;
    }
    if (c->seq <= s->ack_seq) {
        o->r->code = LOCK_STALE_SEQ;
        return;
    }
    if (s->lapsed) {
        o->r->code = LOCK_NO_SESSION;
        return;
    }
    results_ack(o->t, s, c->ack_seq);
    if (c->seq <= s->ack_seq)
        o->r->code = LOCK_STALE_SEQ;
    else if (s->n_kept >= LOCK_RESULTS_MAX)
        o->r->code = LOCK_LIMIT;
    else {
        o->r->code = run(o);
        result_keep(o->t, s, c->seq, o->r);
    }
}

static bool op_needs_session(enum lock_op op)
{
    return op != LOCK_OP_SESSION_OPEN && op != LOCK_OP_TICK && op != LOCK_OP_TERM_START &&
           op != LOCK_OP_NODE_INFO && op != LOCK_OP_EPOCH;
}

static void dispatch(struct op *o)
{
    const struct lock_command *c = o->c;
    if (!op_needs_session(c->op)) {
        o->r->code = run_meta(o);
        return;
    }
    o->s = session_find(o->t, c->session_id);
    if (o->s == NULL)
        o->r->code = LOCK_NO_SESSION;
    else if (c->op == LOCK_OP_SESSION_KEEPALIVE)
        o->r->code = op_session_keepalive(o);
    else if (c->op == LOCK_OP_SESSION_CLOSE)
        o->r->code = op_session_close(o);
    else
        run_once(o);
}

void lock_step(struct lock_table *t,
               uint64_t index,
               const struct lock_command *command,
               struct lock_effects *ret_effects)
{
    effects_begin(t);
    t->index = index > t->index ? index : t->index;
    uint64_t stamp_ns = command->stamp_ns < LOCK_STAMP_MAX ? command->stamp_ns : LOCK_STAMP_MAX;
    t->stamp_ns = stamp_ns > t->stamp_ns ? stamp_ns : t->stamp_ns;
    expire_until(t, t->stamp_ns);
    struct lock_result result = {.stamp_ns = t->stamp_ns};
    struct op o = {.t = t, .c = command, .r = &result};
    dispatch(&o);
    settle(t);
    *ret_effects = (struct lock_effects){result, t->effects, t->n_effects};
}
