/* Unit test of raftstore/tls: which certificates are good.  They are made here by hand, with what
 * the authority of the product does not do: intermediate authorities, RSA, revocation, odd names.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <gnutls/x509.h>

#include "raftstore/base/clock.h"
#include "raftstore/tls/authority.h"
#include "raftstore/tls/tls.h"

#define HOUR_S 3600

static char base[64];

static time_t now_s(void)
{
    return (time_t)(clock_wall_ns(clock_system()) / NS_PER_S);
}

/* A certificate and its key. */
struct made {
    gnutls_x509_crt_t crt;
    gnutls_x509_privkey_t key;
};

struct wish {
    const char *cn;
    const char *uri[2];         /* subjectAltName. */
    const struct made *by;      /* NULL: itself. */
    gnutls_pk_algorithm_t kind; /* 0: EC P-256. */
    bool ca;
    int from_s, to_s; /* From now; both 0: an hour each way. */
};

static struct made make(struct wish w)
{
    struct made m;
    uint8_t serial[8];
    time_t now = now_s();
    static uint64_t next = 1;
    unsigned bits =
        w.kind == GNUTLS_PK_RSA ? 2048 : GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1);
    if (w.from_s == 0 && w.to_s == 0) {
        w.from_s = -HOUR_S;
        w.to_s = HOUR_S;
    }
    for (int i = 0; i < 8; i++)
        serial[i] = (uint8_t)(next >> (56 - 8 * i));
    next++;
    assert_int_equal(gnutls_x509_privkey_init(&m.key), 0);
    assert_int_equal(
        gnutls_x509_privkey_generate(m.key, w.kind != 0 ? w.kind : GNUTLS_PK_ECDSA, bits, 0), 0);
    assert_int_equal(gnutls_x509_crt_init(&m.crt), 0);
    assert_int_equal(gnutls_x509_crt_set_version(m.crt, 3), 0);
    assert_int_equal(gnutls_x509_crt_set_serial(m.crt, serial, sizeof serial), 0);
    assert_int_equal(gnutls_x509_crt_set_activation_time(m.crt, now + w.from_s), 0);
    assert_int_equal(gnutls_x509_crt_set_expiration_time(m.crt, now + w.to_s), 0);
    assert_int_equal(gnutls_x509_crt_set_key(m.crt, m.key), 0);
    assert_int_equal(gnutls_x509_crt_set_dn_by_oid(m.crt, GNUTLS_OID_X520_COMMON_NAME, 0, w.cn,
                                                   (unsigned)strlen(w.cn)),
                     0);
    for (int i = 0; i < 2 && w.uri[i] != NULL; i++)
        assert_int_equal(gnutls_x509_crt_set_subject_alt_name(m.crt, GNUTLS_SAN_URI, w.uri[i],
                                                              (unsigned)strlen(w.uri[i]),
                                                              GNUTLS_FSAN_APPEND),
                         0);
    assert_int_equal(gnutls_x509_crt_set_basic_constraints(m.crt, w.ca, -1), 0);
    assert_int_equal(
        gnutls_x509_crt_set_key_usage(m.crt, w.ca ? GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN
                                                  : GNUTLS_KEY_DIGITAL_SIGNATURE),
        0);
    const struct made *by = w.by != NULL ? w.by : &m;
    assert_int_equal(gnutls_x509_crt_sign2(m.crt, by->crt, by->key, GNUTLS_DIG_SHA256, 0), 0);
    return m;
}

static void made_free(struct made *m)
{
    gnutls_x509_crt_deinit(m->crt);
    gnutls_x509_privkey_deinit(m->key);
}

static void put(const char *dir, const char *name, gnutls_datum_t d, const char *mode)
{
    char path[160];
    (void)snprintf(path, sizeof path, "%s/%s", base, dir);
    assert_true(mkdir(path, 0700) == 0 || errno == EEXIST);
    (void)snprintf(path, sizeof path, "%s/%s/%s", base, dir, name);
    FILE *f = fopen(path, mode);
    assert_non_null(f);
    assert_int_equal(fwrite(d.data, 1, d.size, f), d.size);
    assert_int_equal(fclose(f), 0);
    gnutls_free(d.data);
}

static void put_crt(const char *dir, const char *name, const struct made *m, const char *mode)
{
    gnutls_datum_t d;
    assert_int_equal(gnutls_x509_crt_export2(m->crt, GNUTLS_X509_FMT_PEM, &d), 0);
    put(dir, name, d, mode);
}

/* A directory for --tls. */
static void put_all(const char *dir, const struct made *trusted, const struct made *own)
{
    gnutls_datum_t d;
    put_crt(dir, "ca.crt", trusted, "we");
    put_crt(dir, "tls.crt", own, "we");
    assert_int_equal(gnutls_x509_privkey_export2(own->key, GNUTLS_X509_FMT_PEM, &d), 0);
    put(dir, "tls.key", d, "we");
}

static int load(const char *dir, struct tls_context **ret, char **ret_sentence)
{
    char path[160];
    (void)snprintf(path, sizeof path, "%s/%s", base, dir);
    *ret_sentence = NULL;
    return tls_context_load(path, ret, ret_sentence);
}

static struct tls_context *must_load(const char *dir)
{
    struct tls_context *c = NULL;
    char *sentence;
    if (load(dir, &c, &sentence) < 0)
        fail_msg("%s", sentence);
    return c;
}

/* Two sessions in memory, until nothing moves.  sides[0] is the client. */
struct meeting {
    struct tls_session *side[2];
    int status[2];
};

static void meet(struct meeting *m, const char *client, const char *server)
{
    struct tls_context *c = must_load(client), *s = must_load(server);
    struct buf plain = BUF_INIT;
    *m = (struct meeting){.side = {tls_session_new(c, TLS_CLIENT), tls_session_new(s, TLS_SERVER)}};
    tls_context_unref(c);
    tls_context_unref(s);
    for (bool moved = true; moved;) {
        moved = false;
        for (int i = 0; i < 2; i++) {
            struct buf *wire = tls_wire(m->side[i]);
            moved = moved || wire->size > 0;
            if (wire->size > 0 && m->status[!i] == 0)
                m->status[!i] = tls_input(m->side[!i], bytes_of(wire->data, wire->size), &plain);
            wire->size = 0;
        }
    }
    assert_int_equal(plain.size, 0);
    buf_deinit(&plain);
}

static void part(struct meeting *m)
{
    tls_session_free(m->side[0]);
    tls_session_free(m->side[1]);
}

static void welcome(const char *client, const char *server)
{
    struct meeting m;
    meet(&m, client, server);
    for (int i = 0; i < 2; i++)
        if (!tls_session_open(m.side[i]))
            fail_msg("%s, %s: %s", client, server, tls_session_error(m.side[i]));
    part(&m);
}

/* The server refuses the client. */
static void refused(const char *client, const char *server, const char *why, const char *told)
{
    struct meeting m;
    meet(&m, client, server);
    assert_int_equal(m.status[1], -EACCES);
    assert_int_equal(m.status[0], -EACCES);
    if (strstr(tls_session_error(m.side[1]), why) == NULL ||
        strstr(tls_session_error(m.side[0]), told) == NULL)
        fail_msg("%s; %s", tls_session_error(m.side[1]), tls_session_error(m.side[0]));
    part(&m);
}

static struct made root, node;

static int setup(void **state)
{
    (void)state;
    (void)snprintf(base, sizeof base, "/tmp/holdfast-tls-XXXXXX");
    assert_non_null(mkdtemp(base));
    root = make((struct wish){.cn = "root", .ca = true});
    node = make((struct wish){.cn = "n", .uri = {"holdfast:node/1"}, .by = &root});
    put_all("node", &root, &node);
    return 0;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    made_free(&root);
    made_free(&node);
    (void)snprintf(command, sizeof command, "rm -rf %s", base);
    return system(command);
}

/* tls.crt may hold a chain; the others know the root alone. */
static void test_chain(void **state)
{
    (void)state;
    struct made middle = make((struct wish){.cn = "middle", .by = &root, .ca = true});
    struct made leaf = make((struct wish){.cn = "m", .uri = {"holdfast:mount/far"}, .by = &middle});
    put_all("chain", &root, &leaf);
    refused("chain", "node", "issuer is unknown", "CA is unknown"); /* Incomplete. */
    put_crt("chain", "tls.crt", &middle, "ae");
    welcome("chain", "node");
    welcome("node", "chain");
    struct tls_context *c = must_load("chain");
    assert_string_equal(tls_context_identity(c)->name, "far"); /* The leaf's. */
    tls_context_unref(c);
    made_free(&middle);
    made_free(&leaf);
}

static void test_rsa(void **state)
{
    (void)state;
    struct made leaf = make((struct wish){
        .cn = "r", .uri = {"holdfast:mount/rsa"}, .by = &root, .kind = GNUTLS_PK_RSA});
    put_all("rsa", &root, &leaf);
    welcome("rsa", "node");
    welcome("node", "rsa");
    made_free(&leaf);
}

/* A node's certificate is no authority. */
static void test_leaf_as_authority(void **state)
{
    (void)state;
    struct made forged = make((struct wish){.cn = "f", .uri = {"holdfast:node/2"}, .by = &node});
    put_all("forged", &root, &forged);
    put_crt("forged", "tls.crt", &node, "ae");
    refused("forged", "node", "refused", "certificate");
    made_free(&forged);
}

/* A client that does not look at its own certificate before it shows it. */
struct stranger {
    gnutls_session_t gnutls;
    struct tls_session *server;
    int status;
};

static ssize_t stranger_push(gnutls_transport_ptr_t ptr, const void *data, size_t size)
{
    struct stranger *x = ptr;
    struct buf plain = BUF_INIT;
    if (x->status == 0)
        x->status = tls_input(x->server, bytes_of(data, size), &plain);
    assert_int_equal(plain.size, 0);
    buf_deinit(&plain);
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

static void must_refuse(const char *dir, const char *server)
{
    char crt[160], key[160];
    struct stranger x = {0};
    struct tls_context *c = must_load(server);
    const gnutls_datum_t alpn = {(unsigned char *)(uintptr_t) "holdfast/1", 10};
    gnutls_certificate_credentials_t credentials;
    (void)snprintf(crt, sizeof crt, "%s/%s/tls.crt", base, dir);
    (void)snprintf(key, sizeof key, "%s/%s/tls.key", base, dir);
    x.server = tls_session_new(c, TLS_SERVER);
    tls_context_unref(c);
    gnutls_certificate_allocate_credentials(&credentials);
    assert_true(gnutls_certificate_set_x509_key_file(credentials, crt, key, GNUTLS_X509_FMT_PEM) >=
                0);
    gnutls_init(&x.gnutls, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_FORCE_CLIENT_CERT);
    gnutls_priority_set_direct(x.gnutls, "NORMAL", NULL);
    gnutls_credentials_set(x.gnutls, GNUTLS_CRD_CERTIFICATE, credentials);
    gnutls_alpn_set_protocols(x.gnutls, &alpn, 1, 0);
    gnutls_transport_set_ptr(x.gnutls, &x);
    gnutls_transport_set_push_function(x.gnutls, stranger_push);
    gnutls_transport_set_pull_function(x.gnutls, stranger_pull);
    for (int i = 0; i < 20; i++)
        if (gnutls_handshake(x.gnutls) == 0 && gnutls_record_send(x.gnutls, "hello", 5) < 0)
            break;
    assert_int_equal(x.status, -EACCES);
    assert_false(tls_session_open(x.server));
    assert_non_null(strstr(tls_session_error(x.server), "names nobody"));
    gnutls_deinit(x.gnutls);
    gnutls_certificate_free_credentials(credentials);
    tls_session_free(x.server);
}

/* Whom we can't name we don't let in, nor present ourselves as such. */
static void test_names(void **state)
{
    static const struct wish wishes[] = {
        {.cn = "holdfast:node/1"},
        {.cn = "node/1", .uri = {"https://example.org/node/1"}},
        {.cn = "two", .uri = {"holdfast:node/1", "holdfast:node/2"}},
        {.cn = "two", .uri = {"holdfast:client/a", "holdfast:node/2"}},
        {.cn = "bad", .uri = {"holdfast:node/1x", "holdfast:node/2"}},
        {.cn = "bad", .uri = {"holdfast:node/0"}},
        {.cn = "case", .uri = {"HOLDFAST:node/1"}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof wishes / sizeof wishes[0]; i++) {
        struct wish w = wishes[i];
        struct tls_context *c = NULL;
        char *sentence;
        w.by = &root;
        struct made odd = make(w);
        put_all("odd", &root, &odd);
        assert_int_equal(load("odd", &c, &sentence), -EINVAL);
        assert_non_null(strstr(sentence, "names nobody"));
        free(sentence);
        must_refuse("odd", "node");
        made_free(&odd);
    }
}

static void test_times(void **state)
{
    char *sentence;
    (void)state;
    struct made late = make((struct wish){
        .cn = "l", .uri = {"holdfast:client/l"}, .by = &root, .from_s = -HOUR_S, .to_s = -60});
    struct made early = make((struct wish){.cn = "e",
                                           .uri = {"holdfast:client/e"},
                                           .by = &root,
                                           .from_s = HOUR_S,
                                           .to_s = 2 * HOUR_S});
    put_all("late", &root, &late);
    put_all("early", &root, &early);
    refused("late", "node", "expired", "expired");
    refused("early", "node", "not yet", "certificate");
    struct tls_context *c = must_load("late");
    assert_int_equal(tls_context_check_time(c, now_s(), &sentence), -EKEYEXPIRED);
    assert_non_null(strstr(sentence, "holdfast:client/l) expired at 2"));
    free(sentence);
    assert_int_equal(tls_context_check_time(c, now_s() - 120, &sentence), 0);
    tls_context_unref(c);
    c = must_load("early");
    assert_int_equal(tls_context_check_time(c, now_s(), &sentence), -EKEYREJECTED);
    assert_non_null(strstr(sentence, "not good before 2"));
    free(sentence);
    tls_context_unref(c);
    made_free(&late);
    made_free(&early);
}

/* An authority is replaced: for a while both are trusted, also two of `holdfast cert`. */
static void test_two_authorities(void **state)
{
    char a[160], b[160], out[160], *sentence = NULL;
    struct identity identity;
    (void)state;
    (void)snprintf(a, sizeof a, "%s/ca-a", base);
    (void)snprintf(b, sizeof b, "%s/ca-b", base);
    assert_int_equal(authority_create(a, 10, &sentence), 1);
    assert_int_equal(authority_create(b, 10, &sentence), 1);
    assert_int_equal(identity_parse(bytes_str("holdfast:node/1"), &identity), 0);
    (void)snprintf(out, sizeof out, "%s/old", base);
    assert_int_equal(authority_issue(a, &identity, NULL, 1, out, &sentence), 0);
    (void)snprintf(out, sizeof out, "%s/new", base);
    assert_int_equal(authority_issue(b, &identity, NULL, 1, out, &sentence), 0);
    char command[512];
    (void)snprintf(command, sizeof command,
                   "cd %s && cat ca-a/ca.crt ca-b/ca.crt > both && cp both old/ca.crt && "
                   "cp both new/ca.crt",
                   base);
    assert_int_equal(system(command), 0);
    welcome("old", "new");
    welcome("new", "old");
}

static void put_crl(const char *dir, const struct made *revoked)
{
    gnutls_x509_crl_t crl;
    gnutls_datum_t d;
    uint8_t number = 1;
    time_t now = now_s();
    assert_int_equal(gnutls_x509_crl_init(&crl), 0);
    assert_int_equal(gnutls_x509_crl_set_version(crl, 2), 0);
    assert_int_equal(gnutls_x509_crl_set_this_update(crl, now - 60), 0);
    assert_int_equal(gnutls_x509_crl_set_next_update(crl, now + HOUR_S), 0);
    assert_int_equal(gnutls_x509_crl_set_number(crl, &number, 1), 0);
    assert_int_equal(gnutls_x509_crl_set_crt(crl, revoked->crt, now - 60), 0);
    assert_int_equal(gnutls_x509_crl_sign2(crl, root.crt, root.key, GNUTLS_DIG_SHA256, 0), 0);
    assert_int_equal(gnutls_x509_crl_export2(crl, GNUTLS_X509_FMT_PEM, &d), 0);
    gnutls_x509_crl_deinit(crl);
    put(dir, "ca.crl", d, "we");
}

static void test_revoked(void **state)
{
    struct tls_context *c;
    char *sentence;
    struct meeting m, other;
    (void)state;
    struct made stolen =
        make((struct wish){.cn = "s", .uri = {"holdfast:mount/stolen"}, .by = &root});
    struct made good = make((struct wish){.cn = "g", .uri = {"holdfast:mount/good"}, .by = &root});
    put_all("stolen", &root, &stolen);
    put_all("good", &root, &good);
    put_all("judge", &root, &node);
    meet(&m, "stolen", "judge");
    meet(&other, "good", "judge");
    assert_true(tls_session_open(m.side[1]) && tls_session_open(other.side[1]));
    c = must_load("judge");
    assert_int_equal(tls_session_recheck(m.side[1], c, &sentence), 0);
    tls_context_unref(c);

    put_crl("judge", &stolen);
    refused("stolen", "judge", "revoked", "revoked");
    welcome("good", "judge");
    c = must_load("judge"); /* As at SIGHUP. */
    assert_int_equal(tls_session_recheck(m.side[1], c, &sentence), -EACCES);
    assert_non_null(strstr(sentence, "revoked"));
    free(sentence);
    assert_int_equal(tls_session_recheck(other.side[1], c, &sentence), 0);
    tls_context_unref(c);

    struct made another = make((struct wish){.cn = "another root", .ca = true});
    put_crt("judge", "ca.crt", &another, "we"); /* The authority is gone. */
    char path[160];
    (void)snprintf(path, sizeof path, "%s/judge/ca.crl", base);
    assert_int_equal(unlink(path), 0);
    c = must_load("judge");
    assert_int_equal(tls_session_recheck(other.side[1], c, &sentence), -EACCES);
    free(sentence);
    tls_context_unref(c);
    part(&m);
    part(&other);
    put_crt("judge", "ca.crl", &node, "we"); /* What is no list is an error, not a silent gap. */
    assert_true(load("judge", &c, &sentence) < 0);
    assert_non_null(strstr(sentence, "ca.crl"));
    free(sentence);
    made_free(&stolen);
    made_free(&good);
    made_free(&another);
}

/* What can't be finished leaves nothing that would be in the way. */
static void test_issue_again(void **state)
{
    char ca[160], out[160], path[200], *sentence = NULL;
    struct identity identity;
    struct stat st;
    (void)state;
    (void)snprintf(ca, sizeof ca, "%s/ca-again", base);
    (void)snprintf(out, sizeof out, "%s/again", base);
    (void)snprintf(path, sizeof path, "%s/tls.crt", out);
    mode_t mask = umask(0);
    assert_int_equal(authority_create(ca, 10, &sentence), 1);
    assert_int_equal(mkdir(out, 0700), 0);
    assert_int_equal(mkdir(path, 0700), 0); /* tls.key can be written, tls.crt can't. */
    assert_int_equal(identity_parse(bytes_str("holdfast:client/me"), &identity), 0);
    assert_int_equal(authority_issue(ca, &identity, NULL, 1, out, &sentence), -EEXIST);
    free(sentence);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(authority_issue(ca, &identity, NULL, 1, out, &sentence), 0);
    static const struct {
        const char *name;
        mode_t mode;
    } files[] = {{"tls.key", 0600}, {"tls.crt", 0644}, {"ca.crt", 0644}};
    for (int i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", out, files[i].name);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, files[i].mode);
    }
    (void)snprintf(path, sizeof path, "%s/ca.key", ca);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    (void)umask(mask);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_rsa),
        cmocka_unit_test(test_leaf_as_authority),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_two_authorities),
        cmocka_unit_test(test_revoked),
        cmocka_unit_test(test_issue_again),
    };
    return cmocka_run_group_tests_name("tls certificates", tests, setup, teardown);
}
