/* Unit test of raftstore/tls: two sessions wired together in memory, with certificates that the
 * authority made. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <gnutls/gnutls.h>

#include "raftstore/base/random.h"
#include "raftstore/tls/authority.h"
#include "raftstore/tls/tls.h"

static char base[64];

static char *at(const char *name)
{
    static char paths[8][160];
    static unsigned n;
    char *path = paths[n++ % 8];
    (void)snprintf(path, sizeof paths[0], "%s/%s", base, name);
    return path;
}

static void issue(const char *ca, const char *uri, unsigned days, const char *out)
{
    struct identity identity;
    char *sentence = NULL;
    const char *const names[] = {"localhost", "127.0.0.1", "::1", NULL};
    assert_int_equal(identity_parse(bytes_str(uri), &identity), 0);
    int rv = authority_issue(at(ca), &identity, names, days, at(out), &sentence);
    if (rv < 0)
        fail_msg("%s", sentence);
}

static int setup(void **state)
{
    char *sentence = NULL;
    (void)state;
    (void)snprintf(base, sizeof base, "/tmp/holdfast-tls-XXXXXX");
    assert_non_null(mkdtemp(base));
    assert_int_equal(authority_create(at("ca"), 10, &sentence), 1);
    assert_int_equal(authority_create(at("ca"), 10, &sentence), 0);
    assert_int_equal(authority_create(at("other"), 10, &sentence), 1);
    issue("ca", "holdfast:node/1", 10, "node1");
    issue("ca", "holdfast:mount/host-a", 10, "mount");
    issue("other", "holdfast:node/1", 10, "foreign");
    issue("ca", "holdfast:client/late", 0, "expired");
    (void)sleep(2); /* Until it has. */
    return 0;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    (void)snprintf(command, sizeof command, "rm -rf %s", base);
    return system(command);
}

static struct tls_context *load(const char *name)
{
    struct tls_context *c = NULL;
    char *sentence = NULL;
    if (tls_context_load(at(name), &c, &sentence) < 0)
        fail_msg("%s", sentence);
    return c;
}

struct pair {
    struct tls_session *side[2]; /* Client, server. */
    struct buf got[2];
    int status[2];
};

static void pair_open(struct pair *p, const char *client, const char *server)
{
    struct tls_context *c = load(client), *s = load(server);
    *p = (struct pair){0};
    p->side[0] = tls_session_new(c, TLS_CLIENT);
    p->side[1] = tls_session_new(s, TLS_SERVER);
    tls_context_unref(c);
    tls_context_unref(s);
}

/* Carry bytes in pieces of up to `piece` bytes until nothing moves. */
static void pair_run(struct pair *p, size_t piece)
{
    bool moved = true;
    while (moved) {
        moved = false;
        for (int from = 0; from < 2; from++) {
            struct buf *wire = tls_wire(p->side[from]);
            size_t n = wire->size < piece ? wire->size : piece;
            if (n == 0)
                continue;
            moved = true;
            int rv = p->status[!from] != 0
                         ? 0
                         : tls_input(p->side[!from], bytes_of(wire->data, n), &p->got[!from]);
            buf_consume(wire, n);
            if (rv != 0)
                p->status[!from] = rv;
        }
    }
}

static void pair_close(struct pair *p)
{
    for (int i = 0; i < 2; i++) {
        tls_session_free(p->side[i]);
        buf_deinit(&p->got[i]);
    }
}

static void test_data(void **state)
{
    struct random random = {.state = 7};
    struct pair p;
    (void)state;
    for (size_t piece = 1; piece < 100000; piece = piece * 7 + 3) {
        size_t size = piece < 100 ? 3000 : 1000000;
        struct buf sent = BUF_INIT;
        pair_open(&p, "mount", "node1");
        assert_false(tls_session_open(p.side[0]));
        assert_int_equal(tls_session_peer(p.side[1])->kind, IDENTITY_NONE);
        pair_run(&p, piece);
        assert_true(tls_session_open(p.side[0]) && tls_session_open(p.side[1]));
        assert_int_equal(tls_session_peer(p.side[0])->node_id, 1);
        assert_string_equal(tls_session_peer(p.side[1])->name, "host-a");
        assert_int_equal(tls_session_peer(p.side[1])->kind, IDENTITY_MOUNT);
        while (sent.size < size) {
            uint64_t x = random_next(&random);
            buf_add(&sent, &x, sizeof x);
        }
        for (int i = 0; i < 2; i++) {
            assert_int_equal(tls_output(p.side[i], bytes_of(sent.data, sent.size)), 0);
            assert_int_equal(tls_output(p.side[i], bytes_of(NULL, 0)), 0);
        }
        pair_run(&p, piece);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(p.got[i].size, sent.size);
            assert_memory_equal(p.got[i].data, sent.data, sent.size);
        }
        tls_session_close(p.side[0]);
        pair_run(&p, piece);
        assert_int_equal(p.status[1], -EPIPE);
        buf_deinit(&sent);
        pair_close(&p);
    }
}

static void refused(const char *client, const char *server, bool by_server)
{
    struct pair p;
    pair_open(&p, client, server);
    pair_run(&p, 100000);
