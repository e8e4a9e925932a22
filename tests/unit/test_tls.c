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

/* @why: in what the refused side is told. */
static void refused(const char *client, const char *server, bool by_server, const char *why)
{
    struct pair p;
    pair_open(&p, client, server);
    pair_run(&p, 100000);
    assert_int_equal(p.status[by_server], -EACCES);
    assert_false(tls_session_open(p.side[by_server]));
    assert_int_equal(p.got[0].size + p.got[1].size, 0);
    assert_true(tls_session_error(p.side[by_server])[0] != '\0');
    assert_int_equal(p.status[!by_server], -EACCES); /* It is told. */
    assert_non_null(strstr(tls_session_error(p.side[!by_server]), why));
    pair_close(&p);
}

static void test_refused(void **state)
{
    (void)state;
    refused("foreign", "node1", false, "CA is unknown"); /* The client looks first. */
    refused("mount", "foreign", false, "CA is unknown");
    refused("expired", "node1", true, "expired");
    refused("mount", "expired", false, "expired");
}

/* Another TLS client in place of ours. */
struct stranger {
    gnutls_session_t gnutls;
    gnutls_certificate_credentials_t credentials;
    struct tls_session *server;
    struct buf plain;
    struct buf held; /* With `holding`: bytes on their way. */
    bool holding;
    int status;
};

static ssize_t stranger_push(gnutls_transport_ptr_t ptr, const void *data, size_t size)
{
    struct stranger *x = ptr;
    if (x->holding)
        buf_add(&x->held, data, size);
    else if (x->status == 0)
        x->status = tls_input(x->server, bytes_of(data, size), &x->plain);
    return (ssize_t)size;
}

static ssize_t stranger_pull(gnutls_transport_ptr_t ptr, void *data, size_t size)
{
    struct stranger *x = ptr;
    struct buf *wire = tls_wire(x->server);
    size_t n = wire->size < size ? wire->size : size;
    if (n == 0) {
        gnutls_transport_set_errno(x->gnutls, EAGAIN);
        return -1;
    }
    memcpy(data, wire->data, n);
    buf_consume(wire, n);
    return (ssize_t)n;
}

static void stranger_begin(struct stranger *x, const char *priorities, const char *alpn)
{
    struct tls_context *c = load("node1");
    gnutls_datum_t name = {(unsigned char *)(uintptr_t)alpn, (unsigned)strlen(alpn)};
    *x = (struct stranger){.server = tls_session_new(c, TLS_SERVER)};
    tls_context_unref(c);
    gnutls_certificate_allocate_credentials(&x->credentials);
    gnutls_init(&x->gnutls, GNUTLS_CLIENT | GNUTLS_NONBLOCK);
    gnutls_priority_set_direct(x->gnutls, priorities, NULL);
    gnutls_credentials_set(x->gnutls, GNUTLS_CRD_CERTIFICATE, x->credentials);
    gnutls_alpn_set_protocols(x->gnutls, &name, 1, 0);
    gnutls_transport_set_ptr(x->gnutls, x);
    gnutls_transport_set_push_function(x->gnutls, stranger_push);
    gnutls_transport_set_pull_function(x->gnutls, stranger_pull);
}

static void stranger_end(struct stranger *x)
{
    gnutls_deinit(x->gnutls);
    gnutls_certificate_free_credentials(x->credentials);
    tls_session_free(x->server);
    buf_deinit(&x->plain);
    buf_deinit(&x->held);
}

static int stranger_try(const char *priorities, const char *alpn)
{
    struct stranger x;
    stranger_begin(&x, priorities, alpn);
    for (int i = 0; i < 20; i++)
        if (gnutls_handshake(x.gnutls) == 0 && gnutls_record_send(x.gnutls, "hello", 5) < 0)
            break;
    assert_int_equal(x.plain.size, 0);
    assert_false(tls_session_open(x.server));
    stranger_end(&x);
    return x.status;
}

static void test_strangers(void **state)
{
    (void)state;
    assert_int_equal(stranger_try("NORMAL", "holdfast/1"), -EACCES); /* No certificate. */
    assert_int_equal(stranger_try("NORMAL:-VERS-ALL:+VERS-TLS1.2", "holdfast/1"), -EPROTO);
    assert_int_equal(stranger_try("NORMAL", "http/1.1"), -EPROTO);
}

/* GnuTLS changes keys by itself after 2^24 records, and any peer may: what comes right behind the
 * message, in the same read, must not get lost. */
static void test_key_update(void **state)
{
    struct stranger x;
    (void)state;
    stranger_begin(&x, "NORMAL", "holdfast/1");
    assert_true(gnutls_certificate_set_x509_key_file(x.credentials, at("mount/tls.crt"),
                                                     at("mount/tls.key"),
                                                     GNUTLS_X509_FMT_PEM) >= 0);
    for (int i = 0; i < 20 && gnutls_handshake(x.gnutls) != 0; i++)
        ;
    assert_true(tls_session_open(x.server));
    x.holding = true;
    for (int round = 0; round < 3; round++) {
        x.held.size = x.plain.size = 0;
        assert_int_equal(gnutls_record_send(x.gnutls, "one", 3), 3);
        assert_int_equal(gnutls_session_key_update(x.gnutls, round == 1 ? GNUTLS_KU_PEER : 0), 0);
        assert_int_equal(gnutls_record_send(x.gnutls, "two", 3), 3);
        assert_int_equal(gnutls_session_key_update(x.gnutls, 0), 0);
        assert_int_equal(gnutls_record_send(x.gnutls, "three", 5), 5);
        assert_int_equal(tls_input(x.server, bytes_of(x.held.data, x.held.size), &x.plain), 0);
        assert_int_equal(x.plain.size, 11);
        assert_memory_equal(x.plain.data, "onetwothree", 11);
        assert_int_equal(tls_output(x.server, bytes_str("back")), 0);
        uint8_t back[8];
        ssize_t n = GNUTLS_E_AGAIN;
        while (n == GNUTLS_E_AGAIN && tls_wire(x.server)->size > 0)
            n = gnutls_record_recv(x.gnutls, back, sizeof back);
        assert_int_equal(n, 4);
    }
    /* A flood of them is no way to keep us busy. */
    x.held.size = 0;
    for (int i = 0; i < 100; i++)
        assert_int_equal(gnutls_session_key_update(x.gnutls, 0), 0);
    assert_int_equal(tls_input(x.server, bytes_of(x.held.data, x.held.size), &x.plain), -EPROTO);
    stranger_end(&x);
}

/* A handshake message may tell a length of 16 MiB; nobody keeps so much of a stranger. */
static void test_huge_message(void **state)
{
    struct tls_context *c = load("node1");
    struct tls_session *s = tls_session_new(c, TLS_SERVER);
    struct buf plain = BUF_INIT;
    int rv = 0, n = 0;
    (void)state;
    tls_context_unref(c);
    for (; rv == 0 && n < 100; n++) {
        uint8_t record[5 + 1024] = {22, 3, 1, 4, 0};
        if (n == 0)
            memcpy(record + 5, (const uint8_t[]){1, 255, 255, 255}, 4); /* client_hello */
        rv = tls_input(s, bytes_of(record, sizeof record), &plain);
    }
    assert_int_equal(rv, -EPROTO);
    assert_in_range(n, 33, 65); /* A chain of certificates may have 32 KiB. */
    assert_non_null(strstr(tls_session_error(s), "no end"));
    tls_session_free(s);
    buf_deinit(&plain);
}

/* Bytes that were damaged on their way say nothing about anybody's certificate. */
static void test_damage_is_no_refusal(void **state)
{
    struct pair p;
    (void)state;
    pair_open(&p, "mount", "node1");
    pair_run(&p, 100000);
    assert_int_equal(tls_output(p.side[0], bytes_str("attack at dawn")), 0);
    struct buf *wire = tls_wire(p.side[0]);
    wire->data[wire->size - 1] ^= 1;
    pair_run(&p, 100000);
    assert_int_equal(p.status[1], -EPROTO);
    assert_int_equal(p.status[0], -EPROTO); /* By the other's alert. */
    assert_non_null(strstr(tls_session_error(p.side[0]), "gives up"));
    pair_close(&p);
}

static void test_garbage(void **state)
{
    struct random random = {.state = 3};
    (void)state;
    for (int round = 0; round < 300; round++) {
        struct pair p;
        uint8_t bytes[600];
        pair_open(&p, "mount", "node1");
        if (round % 3 > 0)
            pair_run(&p, 100000);
        if (round % 3 == 2) { /* One bit of good traffic is wrong. */
            assert_int_equal(tls_output(p.side[0], bytes_str("attack at dawn")), 0);
            struct buf *wire = tls_wire(p.side[0]);
            wire->data[random_below(&random, wire->size)] ^=
                (uint8_t)(1u << random_below(&random, 8));
            int rv = tls_input(p.side[1], bytes_of(wire->data, wire->size), &p.got[1]);
            /* A longer length makes it wait for more; anything else is an error. */
            assert_true(rv == -EPROTO || rv == -EACCES || rv == 0);
            assert_int_equal(p.got[1].size, 0);
        } else {
            for (size_t i = 0; i < sizeof bytes; i++)
                bytes[i] = (uint8_t)random_below(&random, 256);
            (void)tls_input(p.side[1], bytes_of(bytes, sizeof bytes), &p.got[1]);
            assert_int_equal(p.got[1].size, 0);
        }
        pair_close(&p);
    }
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void test_files(void **state)
{
    struct tls_context *c = load("mount");
    char *sentence = NULL;
    struct identity identity;
    (void)state;
    assert_string_equal(tls_context_identity(c)->name, "host-a");
    assert_true(tls_context_expires_s(c) > 0);
    tls_context_unref(c);
    assert_int_equal(tls_context_load(at("none"), &c, &sentence), -ENOENT);
    assert_non_null(strstr(sentence, "ca.crt"));
    free(sentence);
    issue("ca", "holdfast:client/bad", 1, "bad");
    write_file(at("bad/tls.crt"), "no certificate\n");
    assert_int_equal(tls_context_load(at("bad"), &c, &sentence), -EINVAL);
    free(sentence);
    assert_int_equal(identity_parse(bytes_str("holdfast:node/1"), &identity), 0);
    assert_int_equal(authority_issue(at("ca"), &identity, NULL, 1, at("node1"), &sentence),
                     -EEXIST);
    assert_non_null(strstr(sentence, "tls.key"));
    free(sentence);
}

static void test_identity(void **state)
{
    static const char *const bad[] = {
        "holdfast:",           "holdfast:node",    "holdfast:node/",       "holdfast:node/0",
        "holdfast:node/x",     "holdfast:node/01", "holdfast:king/arthur", "holdfast:mount/a b",
        "holdfast:client/a/b", "holdfast:none/x",
    };
    struct identity i;
    char text[IDENTITY_URI_BYTES_MAX + 1];
    (void)state;
    assert_int_equal(identity_parse(bytes_str("https://example.org"), &i), -ENOENT);
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++)
        assert_int_equal(identity_parse(bytes_str(bad[k]), &i), -EINVAL);
    assert_int_equal(identity_parse(bytes_of("holdfast:client/a\0b", 19), &i), -EINVAL);
    assert_int_equal(identity_parse(bytes_str("holdfast:gateway/gw-1.example"), &i), 0);
    assert_string_equal(identity_format(&i, text), "holdfast:gateway/gw-1.example");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_data),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_key_update),
        cmocka_unit_test(test_huge_message),
        cmocka_unit_test(test_damage_is_no_refusal),
    };
    return cmocka_run_group_tests_name("tls", tests, setup, teardown);
}
