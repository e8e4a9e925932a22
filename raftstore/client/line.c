/* Commands that wait to be sent.
 *
 * A line for each class of the bulkhead, so that one that is full holds up no other.  What keeps or
 * ends holds goes first: it must not starve behind acquires, and makes room for them.  Yet of
 * those that name the same owner, or the same hold, none overtakes another: "acquire, release" must
 * not become "release, acquire". */
#include "raftstore/client/internal.h"

#include <assert.h>
#include <stdlib.h>

#define RESULTS_WINDOW 4096u /* LOCK_RESULTS_MAX: results that the cluster keeps for us. */
#define UPKEEP_WINDOW  512u  /* Of them, the last ones are for upkeep. */

void line_init(struct client *c)
{
    for (unsigned i = 0; i < LINES; i++)
        TAILQ_INIT(&c->commands.lines[i]);
}

/* ---- The order of those with one key ---------------------------------------------------- */

static struct line_key *key_find(const struct client *c, uint64_t key)
{
    struct line_key *l = NULL;
    if (c->commands.line_keys != NULL)
        HASH_FIND(hh, c->commands.line_keys, &key, sizeof key, l);
    return l;
}

static struct line_key *key_get(struct client *c, uint64_t key)
{
    struct line_key *l = key_find(c, key);
    if (l == NULL) {
        l = xcalloc(1, sizeof *l);
        l->key = key;
        TAILQ_INIT(&l->list);
        HASH_ADD(hh, c->commands.line_keys, key, sizeof l->key, l);
    }
    return l;
}

static void key_remove(struct client *c, struct command *k)
{
    struct line_key *l = key_find(c, k->order_key);
    assert(l != NULL);
    TAILQ_REMOVE(&l->list, k, key_link);
    if (!TAILQ_EMPTY(&l->list))
        return;
    HASH_DELETE(hh, c->commands.line_keys, l);
    free(l);
}

/* ---- In and out ------------------------------------------------------------------------- */

static struct command_list *line_of(struct client *c, const struct command *k)
{
    return &c->commands.lines[k->op == WIRE_OP_CANCEL ? LINE_CANCELS : (unsigned)k->class];
}

void line_add(struct client *c, struct command *k)
{
    TAILQ_INSERT_TAIL(line_of(c, k), k, link);
    if (k->order_key != 0)
        TAILQ_INSERT_TAIL(&key_get(c, k->order_key)->list, k, key_link);
    c->commands.n_line++;
}

void line_add_front(struct client *c, struct command *k)
{
    TAILQ_INSERT_HEAD(line_of(c, k), k, link);
    if (k->order_key != 0)
        TAILQ_INSERT_HEAD(&key_get(c, k->order_key)->list, k, key_link);
    c->commands.n_line++;
}

void line_remove(struct client *c, struct command *k)
{
    TAILQ_REMOVE(line_of(c, k), k, link);
    if (k->order_key != 0)
        key_remove(c, k);
    c->commands.n_line--;
}

/* ---- Who is next ------------------------------------------------------------------------ */

/* May a further number be given out?  The cluster keeps the results of all that were given out
 * since the oldest unanswered one, and refuses more than so many.  Cancels have no other bound:
 * what they make way for must not be sent before them. */
static bool has_room(const struct client *c, const struct command *k)
{
    const struct command *first = TAILQ_FIRST(&c->commands.assigned);
    uint64_t span = first != NULL ? c->session.seq_next - first->seq : 0;
    if (span >= (k->class == CLIENT_UPKEEP ? RESULTS_WINDOW : RESULTS_WINDOW - UPKEEP_WINDOW))
        return false;
    return k->op == WIRE_OP_CANCEL || bulkhead_has_room(&c->bulkhead, k->class);
}

/* Does something hold it back that holds back no others? */
static bool held_back(const struct client *c, const struct command *k)
{
    /* An orphan that is asked for anew is itself what makes its owner busy. */
    return k->op == WIRE_OP_ACQUIRE && !k->orphan && commands_owner_busy(c, k->owner_key);
}

static bool can_send(const struct client *c)
{
    return c->route.primary != NULL && c->session.state == SESSION_OPEN && !c->stopped;
}

bool line_may_pass(struct client *c, const struct command *k)
{
    return can_send(c) && TAILQ_EMPTY(line_of(c, k)) && has_room(c, k) && !held_back(c, k) &&
           (k->order_key == 0 || key_find(c, k->order_key) == NULL);
}

static void pump(struct client *c, unsigned line, uint64_t now)
{
    struct command *k, *next;
    for (k = TAILQ_FIRST(&c->commands.lines[line]); k != NULL && has_room(c, k); k = next) {
        next = TAILQ_NEXT(k, link);
        if (held_back(c, k) ||
            (k->order_key != 0 && TAILQ_FIRST(&key_find(c, k->order_key)->list) != k))
            continue;
        line_remove(c, k);
        commands_start(c, k, now);
    }
}

void line_pump(struct client *c, uint64_t now)
{
    if (c->commands.n_line == 0 || !can_send(c))
        return;
    commands_park_old(c); /* It may open the window. */
    bool waits = c->commands.waits_next;
    c->commands.waits_next = !waits;
    pump(c, LINE_CANCELS, now);
    pump(c, CLIENT_UPKEEP, now);
    pump(c, waits ? CLIENT_WAIT : CLIENT_WRITE, now);
    pump(c, waits ? CLIENT_WRITE : CLIENT_WAIT, now);
}
