#include "tests/model/generate.h"

static const char *const paths[] = {"a", "d/a", "b",     "d/b",    "c",       "d/e/a",
                                    "d", "d/e", "q/r/s", "x.lock", "q/r/t/u", "q"};
static const char *const bad_paths[] = {"",  "/a",   "a/",        "a//b",
                                        ".", "a/..", ".holdfast", "a/b/./c"};
static const char *const owners[] = {"o0", "o1", "o2", "o3", "o4", "owner-with-a-longer-name-5",
                                     "p0", "p1", "p2", "p3", "p4", "p5",
                                     "p6", "p7", "p8", "p9", "q0", "q1",
                                     "q2", "q3", "q4", "q5", "q6", "q7",
                                     "q8", "q9", "r0", "r1", "r2", "r3",
                                     "r4", "r5", "r6", "r7", "r8", "r9"};
static const char *const texts[] = {"", "n", "note text",
                                    "a longer note with some more words in it"};

static uint64_t below(struct generator *g, uint64_t n)
{
    return random_below(&g->random, n);
}

static bool chance(struct generator *g, unsigned percent)
{
    return below(g, 100) < percent;
}

void generator_init(struct generator *g, uint64_t seed)
{
    memset(g, 0, sizeof *g);
    g->random.state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    g->profile = (unsigned)below(g, 10);
    g->n_paths = 2 + (unsigned)below(g, sizeof paths / sizeof paths[0] - 1);
    g->n_owners = 2 + (unsigned)below(g, 5);
    if (g->profile >= 6) { /* A crowd on one or two locks: of owners, or of ranges. */
        g->n_paths = 1 + (unsigned)below(g, 2);
        g->n_owners = g->profile == 6 ? sizeof owners / sizeof owners[0] : g->n_owners;
    }
    if (g->profile == 8) /* Semaphores on one to three locks, of few or of many. */
        g->n_paths = 1 + (unsigned)below(g, 3);
    if (g->profile == 8 && chance(g, 50))
        g->n_owners = sizeof owners / sizeof owners[0];
    g->stamp = 1000;
}

static struct bytes any_path(struct generator *g)
{
    if (chance(g, 1))
        return bytes_str(bad_paths[below(g, sizeof bad_paths / sizeof bad_paths[0])]);
    return bytes_str(paths[below(g, g->n_paths)]);
}

static struct bytes any_owner(struct generator *g)
{
    return bytes_str(owners[below(g, g->n_owners)]);
}

static uint64_t any_ttl(struct generator *g)
{
    if (chance(g, 1))
        return below(g, 12);
    return 10 + below(g, g->profile == 6 ? 2000 : g->profile == 1 ? 400 : 120);
}

static void any_range(struct generator *g, struct lock_command *c, unsigned percent_whole)
{
    c->end = LOCK_RANGE_END;
    if (chance(g, percent_whole))
        return;
    c->start = below(g, g->profile == 7 ? 80 : 12);
    if (chance(g, g->profile == 7 ? 97 : 80))
        c->end = c->start + below(g, g->profile == 7 ? 4 : 8);
    if (chance(g, 1))
        c->end = c->start - 1;
}

/* Mostly alike on one lock; seldom one that is not valid. */
static void any_limit(struct generator *g, struct lock_command *c)
{
    static const uint32_t wrong[] = {65535, 65536, UINT32_MAX};
    if (!chance(g, g->profile == 8 ? 80 : g->profile == 9 ? 40 : 8))
        return;
    c->limit = 2 + (uint32_t)(c->paths[0].size % 3) + (g->n_owners > 16 ? 12 : 0);
    if (chance(g, 20)) /* Another one; where there are many, mostly one that holders come near. */
        c->limit = g->n_owners > 16 && chance(g, 70) ? 12 + (uint32_t)below(g, 10)
                                                     : 1 + (uint32_t)below(g, 5);
    if (chance(g, 1))
        c->limit = wrong[below(g, 3)];
    if (chance(g, 3))
        return;
    c->mode = LOCK_EXCLUSIVE;
    c->start = 0;
    c->end = LOCK_RANGE_END;
    c->kind = (enum lock_kind)below(g, 5);
}

static bool posix_profile(struct generator *g)
{
    return g->profile == 2 || g->profile == 5 || g->profile == 7;
}

static enum lock_kind any_kind(struct generator *g)
{
    if (posix_profile(g) && chance(g, 75))
        return chance(g, 80) ? LOCK_KIND_POSIX : LOCK_KIND_OFD;
    return (enum lock_kind)below(g, 7);
}

static void acquire(struct generator *g, struct lock_command *c)
{
    c->kind = any_kind(g);
    c->owner = any_owner(g);
    c->mode = chance(g, g->profile == 6 ? 90 : 50) ? LOCK_SHARED : LOCK_EXCLUSIVE;
    bool posix = m_posix((int)c->kind);
    any_range(g, c, posix ? (g->profile == 7 ? 2 : 20) : 92);
    if (chance(g, posix ? 5 : 50))
        c->ttl_ms = any_ttl(g);
    if (chance(g, 60))
        c->wait_ms = chance(g, 30) ? LOCK_WAIT_FOREVER : below(g, 150);
    if (chance(g, 12))
        c->lock_delay_ms = below(g, 80);
    if (chance(g, posix || g->profile == 9 ? 80 : 30))
        c->agent = 1 + below(g, 4);
    c->n_paths = 1;
    if (chance(g, g->profile == 4 ? 50 : g->profile == 9 ? 30 : 8)) {
        c->n_paths = 2 + (unsigned)below(g, 3);
        for (unsigned i = 1; i < c->n_paths; i++)
            c->paths[i] = any_path(g);
    }
    any_limit(g, c);
    c->note = bytes_str(texts[below(g, 4)]);
    c->mtime_ns = chance(g, 20) ? 1 + below(g, 5) : 0;
    c->flags = chance(g, 80) ? LOCK_F_PARENTS : 0;
    c->flags |= chance(g, 30) ? LOCK_F_NO_LESS : 0;
    c->pid = (uint32_t)below(g, 5);
    c->uid = (uint32_t)below(g, 3);
    c->gid = (uint32_t)below(g, 3);
    c->perm = chance(g, 1) ? 010000 : 0644;
}

/* Name a hold: mostly one that exists, by token or owner, sometimes of the wrong place. */
static void name_hold(struct generator *g, struct model *m, struct lock_command *c)
{
    c->owner = any_owner(g);
    if (m->n_holds == 0)
        return;
    const struct m_hold *h = m->holds[below(g, m->n_holds)];
    if (chance(g, 85)) {
        for (unsigned i = 0; i < g->n_paths; i++) {
            if (bytes_equal(bytes_str(paths[i]), text_bytes(&h->path)))
                c->paths[0] = bytes_str(paths[i]);
        }
    }
    if (chance(g, 40))
        c->token = chance(g, 95) ? h->token : 1 + below(g, m->next_token);
    if (chance(g, 10))
        c->flags |= LOCK_F_ANYWHERE;
    c->flags |= chance(g, 20) ? LOCK_F_UNTOUCHED : 0;
    c->flags |= chance(g, 20) ? LOCK_F_OWNER : 0;
    for (unsigned i = 0; i < g->n_owners && chance(g, 90); i++) {
        if (bytes_equal(bytes_str(owners[i]), text_bytes(&h->c.owner)))
            c->owner = bytes_str(owners[i]);
    }
}

static void release(struct generator *g, struct model *m, struct lock_command *c)
{
    name_hold(g, m, c);
    c->kind = any_kind(g);
    any_range(g, c, g->profile == 7 ? 3 : posix_profile(g) ? 25 : 85);
}

static void cancel(struct generator *g, struct model *m, struct lock_command *c)
{
    c->cancel_seq = 1 + below(g, c->seq + 1);
    for (unsigned i = 0; i < m->n_waiters && chance(g, 90); i++) {
        if (m->waiters[i]->session_id == c->session_id && chance(g, 50))
            c->cancel_seq = m->waiters[i]->seq;
    }
}

static void other(struct generator *g, struct model *m, struct lock_command *c)
{
    static const enum lock_op ops[] = {LOCK_OP_RENEW,   LOCK_OP_RENEW,   LOCK_OP_CONVERT,
                                       LOCK_OP_CONVERT, LOCK_OP_CONVERT, LOCK_OP_NOTE,
                                       LOCK_OP_BREAK,   LOCK_OP_LINK,    LOCK_OP_RENAME};
    c->op = ops[below(g, sizeof ops / sizeof ops[0])];
    c->flags = chance(g, 50) ? LOCK_F_PARENTS : 0;
    name_hold(g, m, c);
    c->flags |= chance(g, 30) ? LOCK_F_NO_LESS : 0;
    c->mtime_ns = chance(g, 30) ? 1 + below(g, 5) : 0;
    c->ttl_ms = chance(g, 50) ? 0 : any_ttl(g);
    c->mode = chance(g, 70) ? LOCK_EXCLUSIVE : LOCK_SHARED;
    c->note = bytes_str(texts[below(g, 4)]);
    c->kind = any_kind(g);
    if (chance(g, 70))
        c->wait_ms = chance(g, 30) ? LOCK_WAIT_FOREVER : below(g, 100);
    if (chance(g, 50))
        c->agent = 1 + below(g, 4);
    if (c->op == LOCK_OP_LINK || c->op == LOCK_OP_RENAME) {
        c->n_paths = 2;
        c->paths[1] = any_path(g);
    }
}

static void directory(struct generator *g, struct lock_command *c)
{
    static const enum lock_op ops[] = {LOCK_OP_MKDIR, LOCK_OP_RMDIR, LOCK_OP_SETATTR};
    c->op = ops[below(g, 3)];
    c->flags = chance(g, 50) ? LOCK_F_PARENTS : 0;
    c->uid = (uint32_t)below(g, 5);
    c->gid = (uint32_t)below(g, 5);
    c->perm = 0700 + (uint32_t)below(g, 64);
    if (c->op == LOCK_OP_SETATTR && chance(g, 30))
        c->token = 1 + below(g, 40);
    if (c->op == LOCK_OP_SETATTR && chance(g, 40))
        c->uid = UINT32_MAX;
    if (c->op == LOCK_OP_SETATTR && chance(g, 40))
        c->perm = UINT32_MAX;
}

static void meta(struct generator *g, struct model *m, struct lock_command *c)
{
    switch (below(g, 8)) {
    case 0:
        c->op = LOCK_OP_TERM_START;
        c->term = m->term + below(g, 3);
        c->node_id = 1 + below(g, 3);
        if (chance(g, 50))
            c->limits = lock_limits_default();
        else if (chance(g, 70))
            c->limits = (struct lock_limits){4 + below(g, 20), 2 + below(g, 8), 1 + below(g, 8),
                                             2 + below(g, 4), below(g, 5)};
        break;
    case 1:
        c->op = LOCK_OP_NODE_INFO;
        c->node_id = 1 + below(g, 70);
        c->host = bytes_str(texts[below(g, 4)]);
        break;
    case 2:
        c->op = LOCK_OP_EPOCH;
        c->epoch = (m->next_token >> 48) + below(g, 2);
        break;
    case 3:
        c->op = (enum lock_op)(20 + below(g, 3));
        break;
    default:
        c->op = LOCK_OP_TICK;
        break;
    }
}

static void pass_time(struct generator *g, struct model *m, struct lock_command *c)
{
    uint64_t ms = 1000000;
    unsigned dice = (unsigned)below(g, 100);
    if (dice < 60)
        g->stamp += below(g, 2 * ms);
    else if (dice < 62)
        g->stamp += below(g, 60 * ms);
    else if (dice < 63 && chance(g, 20))
        g->stamp += below(g, 2000 * ms);
    else if (dice < 72 && m->n_holds > 0 && m_deadline(m->holds[0]) > g->stamp)
        g->stamp = m_deadline(m->holds[0]) - below(g, 2); /* Just before, or just at. */
    c->stamp_ns = g->stamp;
    if (dice == 99)
        c->stamp_ns -= below(g, g->stamp);
}

static bool open_session(struct generator *g, struct model *m, struct lock_command *c)
{
    if (m->n_sessions >= 2 && !chance(g, 2))
        return false;
    c->op = LOCK_OP_SESSION_OPEN;
    c->ttl_ms = chance(g, 3) ? below(g, 12) : 20 + below(g, g->profile == 3 ? 150 : 900);
    c->host = bytes_str(texts[below(g, 4)]);
    c->agent = chance(g, 50) ? below(g, 4) << 20 | below(g, 3) : 0;
    return true;
}

static void session_command(struct generator *g, struct model *m, struct lock_command *c)
{
    struct g_session *s = &g->sessions[below(g, g->n_sessions)];
    for (unsigned i = 0; i < 6 && m_session(m, s->id) == NULL; i++)
        s = &g->sessions[below(g, g->n_sessions)]; /* Mostly one that lives. */
    c->session_id = chance(g, 99) ? s->id : below(g, 30);
    if (s->n_sent > 0 && chance(g, 6)) {
        uint64_t stamp_ns = c->stamp_ns;
        *c = s->sent[below(g, s->n_sent)];
        c->stamp_ns = stamp_ns;
        return;
    }
    c->seq = ++s->seq;
    c->ack_seq = chance(g, 30) ? s->seq - below(g, s->seq < 40 ? s->seq + 1 : 40) : 0;
    if (chance(g, 1))
        c->seq = below(g, s->seq + 1);
    c->n_paths = 1;
    c->paths[0] = any_path(g);
    unsigned dice = (unsigned)below(g, 100);
    if (dice < 15) {
        c->op = LOCK_OP_SESSION_KEEPALIVE;
    } else if (dice < 16 && chance(g, 50)) {
        c->op = LOCK_OP_SESSION_CLOSE;
    } else if (dice < 60) {
        c->op = LOCK_OP_ACQUIRE;
        acquire(g, c);
    } else if (dice < 76) {
        c->op = LOCK_OP_RELEASE;
        release(g, m, c);
    } else if (dice < 80) {
        c->op = LOCK_OP_CANCEL;
        cancel(g, m, c);
    } else if (dice < 94) {
        other(g, m, c);
    } else {
        directory(g, c);
    }
    s->sent[s->n_sent < G_SENT_MAX ? s->n_sent++ : below(g, G_SENT_MAX)] = *c;
}

void generator_next(struct generator *g, struct model *m, struct lock_command *ret)
{
    memset(ret, 0, sizeof *ret);
    pass_time(g, m, ret);
    if (open_session(g, m, ret))
        return;
    if (chance(g, 3))
        meta(g, m, ret);
    else
        session_command(g, m, ret);
}

void generator_result(struct generator *g,
                      const struct lock_command *c,
                      const struct lock_result *r)
{
    unsigned n = sizeof g->sessions / sizeof g->sessions[0];
    if (c->op != LOCK_OP_SESSION_OPEN || r->code != LOCK_OK)
        return;
    unsigned at = g->n_sessions < n ? g->n_sessions++ : (unsigned)below(g, n);
    memset(&g->sessions[at], 0, sizeof g->sessions[at]);
    g->sessions[at].id = r->session_id;
}
