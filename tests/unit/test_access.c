/* Unit tests of raftstore/node/access*.c: who may do what, with and without a policy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "raftstore/node/access.h"
#include "raftstore/wire/pack.h"

#include <stdio.h>
#include <stdlib.h>

static const char policy_text[] =
    "{\"version\": 1, \"roles\": {"
    " \"web\": {\"allow\": [{\"verbs\": [\"read\", \"acquire\"], \"paths\": [\"web\", "
    "\"ops/deep/a\"]}],"
    "   \"deny\": [{\"verbs\": [\"read\", \"acquire\"], \"paths\": [\"web/secret\"]}]},"
    " \"writer\": {\"allow\": [{\"verbs\": [\"acquire\"], \"paths\": [\"web\", \"db\"]}]},"
    " \"reader\": {\"allow\": [{\"verbs\": [\"read\"], \"paths\": [\"/\"]}]},"
    " \"operator\": {\"allow\": [{\"verbs\": [\"break\", \"admin\"], \"paths\": [\"/\"]}]}},"
    " \"bindings\": [{\"certificate\": \"mount/web*\", \"roles\": [\"web\"]},"
    "  {\"certificate\": \"gateway/g\", \"roles\": [\"writer\"]},"
    "  {\"certificate\": \"client/auditor\", \"roles\": [\"reader\"]},"
    "  {\"certificate\": \"client/root\", \"roles\": [\"operator\"]},"
    "  {\"subject\": \"client/eve\", \"roles\": [\"operator\", \"reader\", \"writer\"]}]}";

static const struct identity web1 = {IDENTITY_MOUNT, 0, "web1"};
static const struct identity web2 = {IDENTITY_MOUNT, 0, "web2"};
static const struct identity gateway = {IDENTITY_GATEWAY, 0, "g"};
static const struct identity auditor = {IDENTITY_CLIENT, 0, "auditor"};
static const struct identity root = {IDENTITY_CLIENT, 0, "root"};
static const struct identity eve = {IDENTITY_CLIENT, 0, "eve"};
static const struct identity node1 = {IDENTITY_NODE, 1, "1"};

struct world {
    struct lock_table *table;
    struct access_policy *policy;
    uint64_t index;
    uint64_t seq;
    uint64_t session_web1, session_gateway, session_auditor, session_root;
};

static struct lock_result apply(struct world *w, struct lock_command c)
{
    struct lock_effects effects;
    c.stamp_ns = 1000;
    c.seq = ++w->seq;
    lock_step(w->table, ++w->index, &c, &effects);
    return effects.result;
}

static uint64_t open_session(struct world *w, const char *host)
{
    struct lock_result r =
        apply(w, (struct lock_command){
                     .op = LOCK_OP_SESSION_OPEN, .ttl_ms = 30000, .host = bytes_str(host)});
    assert_int_equal(r.code, LOCK_OK);
    return r.session_id;
}

static uint64_t hold(struct world *w, uint64_t session, const char *path, const char *owner)
{
    struct lock_command c = {.op = LOCK_OP_ACQUIRE,
                             .flags = LOCK_F_PARENTS,
                             .session_id = session,
                             .n_paths = 1,
                             .owner = bytes_str(owner),
                             .mode = LOCK_EXCLUSIVE,
                             .end = LOCK_RANGE_END};
    c.paths[0] = bytes_str(path);
    struct lock_result r = apply(w, c);
    assert_int_equal(r.code, LOCK_OK);
    return r.token;
}

static struct access_policy *load(const char *text)
{
    struct policy *policy = NULL;
    char *sentence = NULL;
    if (policy_parse(bytes_str(text), &policy, &sentence) < 0)
        fail_msg("%s", sentence);
    return access_policy_new(policy);
}

static void begin(struct world *w)
{
    *w = (struct world){.table = lock_table_new(), .policy = load(policy_text)};
    w->session_web1 = open_session(w, "web1");
    w->session_gateway = open_session(w, "gateway/g");
    w->session_auditor = open_session(w, "client/auditor");
    w->session_root = open_session(w, "client/root");
}

static void end(struct world *w)
{
    access_policy_unref(w->policy);
    lock_table_free(w->table);
}

static struct access access_of(struct world *w, const struct identity *identity)
{
    struct access a = {0};
    access_update(&a, identity, w->policy);
    assert_non_null(a.rights);
    return a;
}

static struct access_state leader(const struct world *w)
{
    return (struct access_state){w->table, true, true};
}

/* Ops that name one path, two paths, none. */
static struct lock_command command(uint64_t session, enum lock_op op, const char *a, const char *b)
{
    struct lock_command c = {.op = op, .session_id = session, .end = LOCK_RANGE_END};
    if (a != NULL)
        c.paths[c.n_paths++] = bytes_str(a);
    if (b != NULL)
        c.paths[c.n_paths++] = bytes_str(b);
    c.owner = bytes_str("o");
    return c;
}

static void test_commands(void **state)
{
    enum { WEB, GATEWAY, AUDITOR, ROOT };
    static const struct {
        int who;
        enum lock_op op;
        const char *a, *b;
        enum access_answer answer;
    } cases[] = {
        {WEB, LOCK_OP_ACQUIRE, "web", NULL, ACCESS_YES},
        {WEB, LOCK_OP_ACQUIRE, "web/x", NULL, ACCESS_YES},
        {WEB, LOCK_OP_ACQUIRE, "web/x", "web/y", ACCESS_YES},
        {WEB, LOCK_OP_ACQUIRE, "web/x", "db", ACCESS_NO}, /* All of several. */
        {WEB, LOCK_OP_ACQUIRE, "db", "web/x", ACCESS_NO},
        {WEB, LOCK_OP_ACQUIRE, "website", NULL, ACCESS_NO},
        {WEB, LOCK_OP_ACQUIRE, "we", NULL, ACCESS_NO},
        {WEB, LOCK_OP_ACQUIRE, "/web/x", NULL, ACCESS_NO},
        {WEB, LOCK_OP_ACQUIRE, "//web/x", NULL, ACCESS_NO},
        {WEB, LOCK_OP_ACQUIRE, "x/../web", NULL, ACCESS_NO},
        {WEB, LOCK_OP_ACQUIRE, "", NULL, ACCESS_NO},
        {WEB, LOCK_OP_ACQUIRE, "ops/deep", NULL, ACCESS_NO}, /* The way there is not the goal. */
        {WEB, LOCK_OP_ACQUIRE, "ops/deep/a/b", NULL, ACCESS_YES},
        {WEB, LOCK_OP_ACQUIRE, "web/secret", NULL, ACCESS_NO},
        {WEB, LOCK_OP_ACQUIRE, "web/secret/x", NULL, ACCESS_NO},
        {WEB, LOCK_OP_ACQUIRE, "web/secrets", NULL, ACCESS_YES},
        {WEB, LOCK_OP_RENEW, "web/x", NULL, ACCESS_YES},
        {WEB, LOCK_OP_RENEW, "db", NULL, ACCESS_NO},
        {WEB, LOCK_OP_RELEASE, "web/x", NULL, ACCESS_YES},
        {WEB, LOCK_OP_RELEASE, "db", NULL, ACCESS_NO},
        {WEB, LOCK_OP_CONVERT, "web/x", NULL, ACCESS_YES},
        {WEB, LOCK_OP_CONVERT, "db", NULL, ACCESS_NO},
        {WEB, LOCK_OP_NOTE, "web/x", NULL, ACCESS_YES},
        {WEB, LOCK_OP_NOTE, "db", NULL, ACCESS_NO},
        {WEB, LOCK_OP_BREAK, "web/x", NULL, ACCESS_NO},
        {WEB, LOCK_OP_MKDIR, "web/d", NULL, ACCESS_YES},
        {WEB, LOCK_OP_MKDIR, "d", NULL, ACCESS_NO},
        {WEB, LOCK_OP_MKDIR, "ops", NULL, ACCESS_NO},
        {WEB, LOCK_OP_RMDIR, "web/d", NULL, ACCESS_YES},
        {WEB, LOCK_OP_RMDIR, "ops/deep", NULL, ACCESS_NO},
        {WEB, LOCK_OP_SETATTR, "web", NULL, ACCESS_YES},
        {WEB, LOCK_OP_SETATTR, "ops", NULL, ACCESS_NO},
        {WEB, LOCK_OP_LINK, "web/a", "web/b", ACCESS_YES},
        {WEB, LOCK_OP_LINK, "web/a", "db", ACCESS_NO},
        {WEB, LOCK_OP_LINK, "db", "web/a", ACCESS_NO},
        {WEB, LOCK_OP_RENAME, "web/a", "web/b", ACCESS_YES},
        {WEB, LOCK_OP_RENAME, "web/a", "web/secret/b", ACCESS_NO},
        {WEB, LOCK_OP_RENAME, "web/secret/a", "web/b", ACCESS_NO},
        {WEB, LOCK_OP_CANCEL, NULL, NULL, ACCESS_YES},
        {WEB, LOCK_OP_RENEW, NULL, NULL, ACCESS_NO}, /* Malformed: what it would be about? */
        {WEB, LOCK_OP_TERM_START, NULL, NULL, ACCESS_NO},
        {WEB, LOCK_OP_EPOCH, NULL, NULL, ACCESS_NO},
        {GATEWAY, LOCK_OP_ACQUIRE, "db", NULL, ACCESS_YES},
        {GATEWAY, LOCK_OP_ACQUIRE, "dbs", NULL, ACCESS_NO},
        {GATEWAY, LOCK_OP_BREAK, "db", NULL, ACCESS_NO},
        {AUDITOR, LOCK_OP_ACQUIRE, "web/x", NULL, ACCESS_NO},
        {AUDITOR, LOCK_OP_RELEASE, "web/x", NULL, ACCESS_NO},
        {AUDITOR, LOCK_OP_MKDIR, "web/x", NULL, ACCESS_NO},
        {AUDITOR, LOCK_OP_BREAK, "web/x", NULL, ACCESS_NO},
        {ROOT, LOCK_OP_BREAK, "web/x", NULL, ACCESS_YES},
        {ROOT, LOCK_OP_ACQUIRE, "web/x", NULL, ACCESS_NO},
    };
    struct world w;
    (void)state;
    begin(&w);
    struct access who[] = {access_of(&w, &web1), access_of(&w, &gateway), access_of(&w, &auditor),
                           access_of(&w, &root)};
    const uint64_t sessions[] = {w.session_web1, w.session_gateway, w.session_auditor,
                                 w.session_root};
    struct access_state there = leader(&w), elsewhere = {w.table, false, false};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct access_denial denial;
        struct access *a = &who[cases[i].who];
        struct lock_command c =
            command(sessions[cases[i].who], cases[i].op, cases[i].a, cases[i].b);
        if (access_command(a, &there, &c, &denial) != cases[i].answer)
            fail_msg("case %zu: op %d %s %s by %s", i, (int)cases[i].op, cases[i].a, cases[i].b,
                     a->identity->name);
        /* Who does not lead takes no commands: the leader judges. */
        assert_int_equal(access_command(a, &elsewhere, &c, &denial), ACCESS_YES);
    }
    for (size_t i = 0; i < 4; i++)
        access_deinit(&who[i]);
    end(&w);
}

/* Without a policy the certificate's kind decides. */
static void test_kinds(void **state)
{
    static const struct identity other = {IDENTITY_MOUNT, 0, "other"};
    static const struct {
        const struct identity *identity;
        enum lock_op op;
        const char *host;
        enum access_answer answer;
    } cases[] = {
        {NULL, LOCK_OP_BREAK, "", ACCESS_YES},
        {NULL, LOCK_OP_SESSION_OPEN, "any", ACCESS_YES},
        {&root, LOCK_OP_BREAK, "", ACCESS_YES},
        {&root, LOCK_OP_SESSION_OPEN, "any", ACCESS_YES},
        {&node1, LOCK_OP_BREAK, "", ACCESS_YES},
        {&web1, LOCK_OP_BREAK, "", ACCESS_NO},
        {&gateway, LOCK_OP_BREAK, "", ACCESS_NO},
        {&gateway, LOCK_OP_ACQUIRE, "", ACCESS_YES},
        {&web1, LOCK_OP_SESSION_OPEN, "web1", ACCESS_YES},
        {&web1, LOCK_OP_SESSION_OPEN, "web2", ACCESS_NO},
        {&other, LOCK_OP_ACQUIRE, "", ACCESS_YES},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct access a = {0};
        struct access_state nothing = {0};
        struct access_denial denial;
        struct lock_command c = command(7, cases[i].op, "p", NULL);
        c.host = bytes_str(cases[i].host);
        access_update(&a, cases[i].identity, NULL);
        if (access_command(&a, &nothing, &c, &denial) != cases[i].answer)
            fail_msg("case %zu", i);
        bool admin = cases[i].identity == NULL || cases[i].identity->kind == IDENTITY_NODE ||
                     cases[i].identity->kind == IDENTITY_CLIENT;
        assert_int_equal(access_admin(&a, &denial), admin ? ACCESS_YES : ACCESS_NO);
        Hf__Query q = HF__QUERY__INIT;
        q.what = HF__QUERY__WHAT__SHOW;
        assert_int_equal(access_query(&a, NULL, &q, &denial), ACCESS_YES);
        assert_true(access_sees(&a, bytes_str("p"), false));
        access_deinit(&a);
    }
}

/* A client by the Unix socket of a node with a policy has no certificate: it is the node's user. */
static void test_no_certificate(void **state)
{
    struct world w;
    struct access a = {0};
    struct access_denial denial;
    (void)state;
    begin(&w);
    access_update(&a, NULL, w.policy);
    struct access_state there = leader(&w);
    struct lock_command c = command(99, LOCK_OP_BREAK, "db", NULL);
    assert_int_equal(access_command(&a, &there, &c, &denial), ACCESS_YES);
    assert_int_equal(access_admin(&a, &denial), ACCESS_YES);
    access_deinit(&a);
    end(&w);
}

static void test_sessions(void **state)
{
    struct world w;
    struct access_denial denial;
    (void)state;
    begin(&w);
    struct access a = access_of(&w, &web1), g = access_of(&w, &gateway), e = access_of(&w, &eve),
                  n = access_of(&w, &node1), r = access_of(&w, &root);
    struct access_state there = leader(&w), fresh = {w.table, true, false};

    /* Whose is it? */
    static const enum lock_op ops[] = {LOCK_OP_SESSION_KEEPALIVE, LOCK_OP_SESSION_CLOSE,
                                       LOCK_OP_CANCEL, LOCK_OP_ACQUIRE, LOCK_OP_RELEASE};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        struct lock_command own = command(w.session_web1, ops[i], "web/x", NULL);
        struct lock_command others = command(w.session_gateway, ops[i], "web/x", NULL);
        struct lock_command none = command(4711, ops[i], "web/x", NULL);
        struct lock_command zero = command(0, ops[i], "web/x", NULL);
        assert_int_equal(access_command(&a, &there, &own, &denial), ACCESS_YES);
        assert_int_equal(access_command(&a, &there, &others, &denial), ACCESS_NO_SESSION);
        assert_non_null(denial.why);
        assert_int_equal(access_command(&g, &there, &others, &denial), ACCESS_YES);
        assert_int_equal(access_command(&g, &there, &own, &denial), ACCESS_NO_SESSION);
        assert_int_equal(access_command(&a, &there, &none, &denial), ACCESS_NO_SESSION);
        assert_null(denial.why); /* It is nobody's. */
        assert_int_equal(access_command(&a, &there, &zero, &denial), ACCESS_NO_SESSION);
        /* A new leader may not have heard of it. */
        assert_int_equal(access_command(&a, &fresh, &none, &denial), ACCESS_LATER);
        assert_int_equal(access_command(&a, &fresh, &own, &denial), ACCESS_YES);
    }

    /* Opening one. */
    struct lock_command open = command(0, LOCK_OP_SESSION_OPEN, NULL, NULL);
    open.host = bytes_str("web1");
    assert_int_equal(access_command(&a, &there, &open, &denial), ACCESS_YES);
    assert_int_equal(access_command(&g, &there, &open, &denial), ACCESS_YES_HOST);
    assert_string_equal(g.rights->host, "gateway/g");
    assert_int_equal(access_command(&r, &there, &open, &denial), ACCESS_YES_HOST);
    assert_int_equal(access_command(&e, &there, &open, &denial),
                     ACCESS_NO); /* A token's subject. */
    assert_int_equal(access_command(&n, &there, &open, &denial), ACCESS_NO);
    open.host = bytes_str("web2");
    assert_int_equal(access_command(&a, &there, &open, &denial), ACCESS_NO);

    /* A name that does not fit into the host text. */
    struct access_policy *all =
        load("{\"version\":1,\"roles\":{\"r\":{\"allow\":[{\"verbs\":[\"acquire\"],"
             "\"paths\":[\"/\"]}]}},\"bindings\":[{\"certificate\":\"*\",\"roles\":[\"r\"]}]}");
    struct identity longest = {.kind = IDENTITY_CLIENT};
    memset(longest.name, 'x', 57);
    struct access l = {0};
    access_update(&l, &longest, all);
    assert_int_equal(access_command(&l, &there, &open, &denial), ACCESS_YES_HOST);
    assert_int_equal(strlen(l.rights->host), LOCK_HOST_BYTES_MAX);
    access_deinit(&l);
    longest.name[57] = 'x';
    access_update(&l, &longest, all);
    assert_int_equal(access_command(&l, &there, &open, &denial), ACCESS_NO);
    access_deinit(&l);
    access_policy_unref(all);
    access_deinit(&a);
    access_deinit(&g);
    access_deinit(&e);
    access_deinit(&n);
    access_deinit(&r);
    end(&w);
}

/* Holds that are named by their token alone. */
static void test_tokens(void **state)
{
    struct world w;
    struct access_denial denial;
    (void)state;
    begin(&w);
    uint64_t in_db = hold(&w, w.session_gateway, "db/x", "og");
    uint64_t in_web = hold(&w, w.session_gateway, "web/x", "og");
    uint64_t next = in_web + 1;
    struct access a = access_of(&w, &web1), g = access_of(&w, &gateway), r = access_of(&w, &root);
    struct access_state there = leader(&w), fresh = {w.table, true, false};
    static const enum lock_op ops[] = {LOCK_OP_RENEW, LOCK_OP_RELEASE, LOCK_OP_CONVERT,
                                       LOCK_OP_NOTE,  LOCK_OP_LINK,    LOCK_OP_RENAME};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        bool two = ops[i] == LOCK_OP_LINK || ops[i] == LOCK_OP_RENAME;
        struct lock_command c = command(w.session_web1, ops[i], "web/y", two ? "web/z" : NULL);
        c.flags = LOCK_F_ANYWHERE;
        c.token = in_web;
        assert_int_equal(access_command(&a, &there, &c, &denial), ACCESS_YES);
        /* It stands elsewhere than the path says; which must not be told. */
        c.token = in_db;
        assert_int_equal(access_command(&a, &there, &c, &denial), ACCESS_NO);
        assert_true(denial.is_secret);
        /* Nobody has it yet, but might before the command's turn comes. */
        c.token = next;
        assert_int_equal(access_command(&a, &there, &c, &denial), ACCESS_YES_BOUND);
        assert_int_equal(access_command(&a, &fresh, &c, &denial), ACCESS_LATER);
        c.paths[0] = bytes_str("db/x");
        assert_int_equal(access_command(&a, &there, &c, &denial), ACCESS_NO);
        assert_false(denial.is_secret);
        /* Without the flag the path counts, where the hold must stand, too. */
        c.flags = 0;
        c.token = in_web;
        assert_int_equal(access_command(&a, &there, &c, &denial), ACCESS_NO);
        c.paths[0] = bytes_str("web/x");
        assert_int_equal(access_command(&a, &there, &c, &denial), ACCESS_YES);
        if (two) {
            c.flags = LOCK_F_ANYWHERE;
            c.paths[1] = bytes_str("db/z");
            assert_int_equal(access_command(&a, &there, &c, &denial), ACCESS_NO);
        }
    }
    struct lock_command b = command(w.session_root, LOCK_OP_BREAK, "nowhere", NULL);
    b.flags = LOCK_F_ANYWHERE;
    b.token = in_db;
    assert_int_equal(access_command(&r, &there, &b, &denial), ACCESS_YES);

    /* The sentence that the client gets names no path that it did not name. */
    struct lock_command c = command(w.session_web1, LOCK_OP_RENEW, "web/y", NULL);
    c.flags = LOCK_F_ANYWHERE;
    c.token = in_db;
    struct access_log log = {0};
    struct buf sentence = BUF_INIT;
    assert_int_equal(access_command(&a, &there, &c, &denial), ACCESS_NO);
    access_denied(&log, 1000, &a, &denial, "here", &sentence);
    buf_add(&sentence, "", 1);
    assert_null(strstr((char *)sentence.data, "db"));
    assert_non_null(strstr((char *)sentence.data, "mount/web1"));
    buf_deinit(&sentence);
    access_deinit(&a);
    access_deinit(&g);
    access_deinit(&r);
    end(&w);
}

/* What one holds oneself can be given back whatever the policy says by now. */
static void test_own_release(void **state)
{
    struct world w;
    struct access_denial denial;
    (void)state;
    begin(&w);
    uint64_t mine = hold(&w, w.session_web1, "old/x", "ow");
    uint64_t yours = hold(&w, w.session_gateway, "old/y", "og");
    struct access a = access_of(&w, &web1);
    struct access_state there = leader(&w);
    struct lock_command c = command(w.session_web1, LOCK_OP_RELEASE, "old/x", NULL);
    c.owner = bytes_str("ow");
    assert_int_equal(access_command(&a, &there, &c, &denial), ACCESS_YES);
    c.owner = bytes_str("other");
    assert_int_equal(access_command(&a, &there, &c, &denial), ACCESS_NO);
    c.token = mine;
    assert_int_equal(access_command(&a, &there, &c, &denial), ACCESS_YES);
    c.flags = LOCK_F_ANYWHERE;
    assert_int_equal(access_command(&a, &there, &c, &denial), ACCESS_YES);
    c.token = yours;
    assert_int_equal(access_command(&a, &there, &c, &denial), ACCESS_NO);
    c.flags = 0;
    c.paths[0] = bytes_str("old/y");
    assert_int_equal(access_command(&a, &there, &c, &denial), ACCESS_NO);
    c.token = 0;
    c.owner = bytes_str("og");
    assert_int_equal(access_command(&a, &there, &c, &denial), ACCESS_NO);
    c = command(w.session_web1, LOCK_OP_RENEW, "old/x", NULL);
    c.token = mine;
    assert_int_equal(access_command(&a, &there, &c, &denial), ACCESS_NO);
    access_deinit(&a);
    end(&w);
}

static enum access_answer ask(struct access *a,
                              const struct lock_table *table,
                              Hf__Query__What what,
                              const char *path,
                              uint64_t number)
{
    struct access_denial denial;
    Hf__Query q = HF__QUERY__INIT;
    q.what = what;
    q.path = pack_binary(bytes_str(path));
    q.token = q.session_id = number;
    return access_query(a, table, &q, &denial);
}

static void test_queries(void **state)
{
    static const struct {
        Hf__Query__What what;
        const char *path;
        bool web, gateway, auditor, root;
    } cases[] = {
        {HF__QUERY__WHAT__STATUS, "", true, true, true, true},
        {HF__QUERY__WHAT__MEMBERS, "", true, true, true, true},
        {HF__QUERY__WHAT__COUNTS, "", true, true, true, true},
        {HF__QUERY__WHAT__SESSIONS, "", true, true, true, true}, /* Filtered. */
        {HF__QUERY__WHAT__SHOW, "web/x", true, false, true, false},
        {HF__QUERY__WHAT__SHOW, "web/secret", false, false, true, false},
        {HF__QUERY__WHAT__SHOW, "db", false, false, true, false},
        {HF__QUERY__WHAT__SHOW, "ops", true, false, true, false}, /* On the way. */
        {HF__QUERY__WHAT__SHOW, "ops/deep/b", false, false, true, false},
        {HF__QUERY__WHAT__SHOW, "", true, false, true, false},
        {HF__QUERY__WHAT__LIST, "", true, false, true, false},
        {HF__QUERY__WHAT__LIST, "web", true, false, true, false},
        {HF__QUERY__WHAT__LIST, "db", false, false, true, false},
        {HF__QUERY__WHAT__LIST_PREFIX, "", true, false, true, false},
        {HF__QUERY__WHAT__LIST_PREFIX, "we", true, false, true, false},
        {HF__QUERY__WHAT__LIST_PREFIX, "web/x", true, false, true, false},
        {HF__QUERY__WHAT__LIST_PREFIX, "d", false, false, true, false},
        {(Hf__Query__What)99, "web", false, false, false, false},
    };
    struct world w;
    (void)state;
    begin(&w);
    struct access a = access_of(&w, &web1), g = access_of(&w, &gateway),
                  u = access_of(&w, &auditor), r = access_of(&w, &root), b = access_of(&w, &web2);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const bool got[] = {ask(&a, NULL, cases[i].what, cases[i].path, 0) == ACCESS_YES,
                            ask(&g, NULL, cases[i].what, cases[i].path, 0) == ACCESS_YES,
                            ask(&u, NULL, cases[i].what, cases[i].path, 0) == ACCESS_YES,
                            ask(&r, NULL, cases[i].what, cases[i].path, 0) == ACCESS_YES};
        if (got[0] != cases[i].web || got[1] != cases[i].gateway || got[2] != cases[i].auditor ||
            got[3] != cases[i].root)
            fail_msg("case %zu: %d %s", i, (int)cases[i].what, cases[i].path);
    }
    uint64_t in_db = hold(&w, w.session_gateway, "db/x", "og");
    uint64_t in_web = hold(&w, w.session_gateway, "web/x", "og");
    uint64_t mine = hold(&w, w.session_web1, "old/x", "ow");
    const Hf__Query__What token = HF__QUERY__WHAT__TOKEN, session = HF__QUERY__WHAT__SESSION;
    assert_int_equal(ask(&a, w.table, token, "", in_web), ACCESS_YES);
    assert_int_equal(ask(&a, w.table, token, "", in_db), ACCESS_NO);
    assert_int_equal(ask(&a, NULL, token, "", in_db), ACCESS_YES); /* Judged with the answer. */
    assert_int_equal(ask(&a, w.table, token, "", mine), ACCESS_YES);
    assert_int_equal(ask(&b, w.table, token, "", mine), ACCESS_NO);   /* The other mount. */
    assert_int_equal(ask(&g, w.table, token, "", in_db), ACCESS_YES); /* It may acquire there. */
    assert_int_equal(ask(&u, w.table, token, "", in_db), ACCESS_YES);
    assert_int_equal(ask(&r, w.table, token, "", in_db), ACCESS_NO);
    assert_int_equal(ask(&r, w.table, token, "", 4711), ACCESS_YES); /* "not found". */
    assert_int_equal(ask(&a, w.table, session, "", w.session_web1), ACCESS_YES);
    assert_int_equal(ask(&a, w.table, session, "", w.session_gateway), ACCESS_NO);
    assert_int_equal(ask(&u, w.table, session, "", w.session_gateway), ACCESS_YES);
    access_deinit(&a);
    access_deinit(&b);
    access_deinit(&g);
    access_deinit(&u);
    access_deinit(&r);
    end(&w);
}

struct listing {
    struct access *access;
    struct buf text;
    size_t left;
};

static bool list_visit(void *arg, const struct lock_node_view *node)
{
    struct listing *l = arg;
    if (!access_sees(l->access, node->path, node->type == LOCK_NODE_DIRECTORY))
        return true;
    if (l->left-- == 0)
        return false;
    buf_printf(&l->text, "%s%.*s", l->text.size > 0 ? " " : "", (int)node->path.size,
               (const char *)node->path.data);
    return true;
}

static void expect_list(struct world *w,
                        struct access *a,
                        bool prefix,
                        const char *path,
                        const char *after,
                        size_t limit,
                        const char *want)
{
    struct listing l = {.access = a, .left = limit};
    if (prefix)
        access_list_prefix(a, w->table, bytes_str(path), bytes_str(after), list_visit, &l);
    else
        (void)access_list(a, w->table, bytes_str(path), bytes_str(after), list_visit, &l);
    buf_add(&l.text, "", 1);
    assert_string_equal((char *)l.text.data, want);
    buf_deinit(&l.text);
}

static void test_lists(void **state)
{
    static const char *const paths[] = {
        "web/a",        "web/secret/x", "web/z",     "web2", "web!",       "db/x",
        "ops/deep/a/b", "ops/deep/c",   "ops/other", "a",    "web/sub/d/e"};
    struct world w;
    (void)state;
    begin(&w);
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        (void)hold(&w, w.session_gateway, paths[i], "o");
    struct access a = access_of(&w, &web1), u = access_of(&w, &auditor), none = {0};
    expect_list(&w, &a, false, "", "", 99, "ops web");
    expect_list(&w, &a, false, "", "ops", 99, "web");
    expect_list(&w, &a, false, "", "opsz", 99, "web");
    expect_list(&w, &a, false, "", "", 1, "ops");
    expect_list(&w, &a, false, "", "web", 99, "");
    expect_list(&w, &a, false, "ops", "", 99, "ops/deep");
    expect_list(&w, &a, false, "ops/deep", "", 99, "ops/deep/a");
    expect_list(&w, &a, false, "ops/deep/a", "", 99, "ops/deep/a/b");
    expect_list(&w, &a, false, "web", "", 99, "web/a web/sub web/z");
    expect_list(&w, &a, false, "web", "a", 1, "web/sub");
    expect_list(&w, &a, false, "web/secret", "", 99, "");
    expect_list(&w, &u, false, "", "", 99, "a db ops web web! web2");
    expect_list(&w, &none, false, "", "", 99, "a db ops web web! web2");

    expect_list(&w, &a, true, "", "", 99, "ops/deep/a/b web/a web/sub/d/e web/z");
    expect_list(&w, &a, true, "", "ops/deep/a/b", 99, "web/a web/sub/d/e web/z");
    expect_list(&w, &a, true, "", "web/a", 1, "web/sub/d/e");
    expect_list(&w, &a, true, "", "web/sub/d/e", 99, "web/z");
    expect_list(&w, &a, true, "", "web/z", 99, "");
    expect_list(&w, &a, true, "we", "", 99, "web/a web/sub/d/e web/z");
    expect_list(&w, &a, true, "web", "", 99, "web/a web/sub/d/e web/z");
    expect_list(&w, &a, true, "web/", "", 99, "web/a web/sub/d/e web/z");
    expect_list(&w, &a, true, "web/s", "", 99, "web/sub/d/e");
    expect_list(&w, &a, true, "web2", "", 99, "");
    expect_list(&w, &a, true, "ops", "", 2, "ops/deep/a/b");
    expect_list(&w, &a, true, "d", "", 99, "");
    expect_list(&w, &u, true, "w", "", 99, "web/a web/secret/x web/sub/d/e web/z web! web2");
    expect_list(&w, &none, true, "ops", "", 99, "ops/deep/a/b ops/deep/c ops/other");
    access_deinit(&a);
    access_deinit(&u);
    end(&w);
}

/* A cursor through a list, one entry at a time, shows each entry once, whatever is hidden between.
 */
static void test_cursors(void **state)
{
    struct world w;
    char path[64], want[64];
    (void)state;
    begin(&w);
    for (int i = 0; i < 60; i++) {
        (void)snprintf(path, sizeof path, "%s/%03d",
                       i % 3 == 0   ? "web"
                       : i % 3 == 1 ? "web/secret"
                                    : "w",
                       i);
        (void)hold(&w, w.session_gateway, path, "o");
    }
    struct access a = access_of(&w, &web1);
    char after[64] = "";
    for (int i = 0; i < 60; i += 3) {
        (void)snprintf(want, sizeof want, "web/%03d", i);
        expect_list(&w, &a, true, "", after, 1, want);
        (void)snprintf(after, sizeof after, "%s", want);
    }
    expect_list(&w, &a, true, "", after, 1, "");
    access_deinit(&a);
    end(&w);
}

static void test_events(void **state)
{
    static const struct {
        const char *path, *path2;
        enum lock_effect_type type;
        uint64_t session; /* 1: its own. */
        const char *told; /* The path that is told; NULL: nothing. */
        enum lock_effect_type as;
    } cases[] = {
        {"web/x", "", LOCK_EFFECT_GRANTED, 0, "web/x", LOCK_EFFECT_GRANTED},
        {"web/secret/x", "", LOCK_EFFECT_GRANTED, 0, NULL, 0},
        {"db", "", LOCK_EFFECT_GRANTED, 0, NULL, 0},
        {"db", "", LOCK_EFFECT_GRANTED, 1, "db", LOCK_EFFECT_GRANTED},
        {"ops", "", LOCK_EFFECT_MKDIR, 0, "ops", LOCK_EFFECT_MKDIR},
        {"ops", "", LOCK_EFFECT_RMDIR, 0, "ops", LOCK_EFFECT_RMDIR},
        {"ops", "", LOCK_EFFECT_GRANTED, 0, NULL, 0},
        {"ops/x", "", LOCK_EFFECT_MKDIR, 0, NULL, 0},
        {"web/a", "web/b", LOCK_EFFECT_RENAMED, 0, "web/a", LOCK_EFFECT_RENAMED},
        {"web/a", "db/b", LOCK_EFFECT_RENAMED, 0, "web/a", LOCK_EFFECT_ENDED},
        {"db/a", "web/b", LOCK_EFFECT_RENAMED, 0, "web/b", LOCK_EFFECT_GRANTED},
        {"db/a", "db/b", LOCK_EFFECT_RENAMED, 0, NULL, 0},
        {"web/a", "db/b", LOCK_EFFECT_RENAMED, 1, "web/a", LOCK_EFFECT_RENAMED},
        {"", "", LOCK_EFFECT_SESSION_ENDED, 0, NULL, 0},
        {"", "", LOCK_EFFECT_SESSION_ENDED, 1, "", LOCK_EFFECT_SESSION_ENDED},
    };
    struct world w;
    (void)state;
    begin(&w);
    struct access a = access_of(&w, &web1), u = access_of(&w, &auditor);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct lock_effect room,
            e = {.type = cases[i].type,
                 .path = bytes_str(cases[i].path),
                 .path2 = bytes_str(cases[i].path2),
                 .session_id = cases[i].session != 0 ? w.session_web1 : w.session_gateway};
        const struct lock_effect *told = access_effect(&a, w.table, w.session_web1, &e, &room);
        if ((told != NULL) != (cases[i].told != NULL))
            fail_msg("case %zu", i);
        assert_ptr_equal(access_effect(&u, w.table, 0, &e, &room), &e);
        if (told == NULL)
            continue;
        told = access_effect(&a, w.table, w.session_web1, &e, &room);
        assert_true(bytes_equal(told->path, bytes_str(cases[i].told)));
        assert_int_equal(told->type, cases[i].as);
        if (told != &e)
            assert_int_equal(told->path2.size, 0);
    }
    /* To name another's session does not help. */
    struct lock_effect room,
        e = {.type = LOCK_EFFECT_GRANTED, .path = bytes_str("db"), .session_id = w.session_gateway};
    assert_null(access_effect(&a, w.table, w.session_gateway, &e, &room));
    access_deinit(&a);
    access_deinit(&u);
    end(&w);
}

/* A new policy counts at once; what is shared by connections is given up with the last of them. */
static void test_update(void **state)
{
    struct world w;
    struct access_denial denial;
    (void)state;
    begin(&w);
    struct access a = access_of(&w, &web1), again = access_of(&w, &web1);
    struct access_state there = leader(&w);
    struct lock_command c = command(w.session_web1, LOCK_OP_ACQUIRE, "web/x", NULL);
    assert_ptr_equal(a.rights, again.rights);
    assert_int_equal(access_command(&a, &there, &c, &denial), ACCESS_YES);
    struct access_policy *none = load("{\"version\":1,\"roles\":{}}");
    access_policy_unref(w.policy);
    w.policy = none;
    assert_int_equal(access_command(&again, &there, &c, &denial), ACCESS_YES); /* Not yet told. */
    access_update(&a, &web1, w.policy);
    access_update(&again, &web1, w.policy);
    assert_int_equal(access_command(&a, &there, &c, &denial), ACCESS_NO);
    assert_int_equal(access_command(&again, &there, &c, &denial), ACCESS_NO);
    access_deinit(&a);
    access_deinit(&again);
    end(&w);
}

static void test_log(void **state)
{
    struct world w;
    struct access_log log = {0};
    struct access_denial denial = {.verb = POLICY_ACQUIRE, .path = bytes_str("a\nb")};
    (void)state;
    begin(&w);
    struct access a = access_of(&w, &web1);
    for (int i = 0; i < 1000; i++) {
        struct buf sentence = BUF_INIT;
        access_denied(&log, 5000, &a, &denial, "here", &sentence);
        buf_add(&sentence, "", 1);
        assert_string_equal((char *)sentence.data,
                            "the policy does not let mount/web1 acquire 'a\\x0ab'");
        buf_deinit(&sentence);
    }
    assert_int_equal(log.denied, 1000);
    assert_int_equal(log.n_lines, ACCESS_LINES_MAX);
    assert_int_equal(log.suppressed, 1000 - ACCESS_LINES_MAX);
    struct buf sentence = BUF_INIT;
    access_denied(&log, 6000, &a, &denial, "here", &sentence);
    assert_int_equal(log.suppressed, 0);
    buf_deinit(&sentence);
    access_deinit(&a);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands),       cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_no_certificate), cmocka_unit_test(test_sessions),
        cmocka_unit_test(test_tokens),         cmocka_unit_test(test_own_release),
        cmocka_unit_test(test_queries),        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_cursors),        cmocka_unit_test(test_events),
        cmocka_unit_test(test_update),         cmocka_unit_test(test_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
