#include "raftstore/tls/tls_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <gnutls/x509.h>

#define FILE_BYTES_MAX (1024u * 1024u)
#define PRIORITIES     "NORMAL:-VERS-ALL:+VERS-TLS1.3"
#define CHAIN_MAX      8

static int fail(char **ret_sentence, const char *dir, const char *name, int error, const char *why)
{
    struct buf text = BUF_INIT;
    buf_printf(&text, "%s/%s: %s", dir, name, why != NULL ? why : strerror(-error));
    buf_add(&text, "", 1);
    *ret_sentence = (char *)text.data;
    return error;
}

static int read_file(const char *dir, const char *name, struct buf *ret, char **ret_sentence)
{
    struct buf path = BUF_INIT;
    uint8_t part[4096];
    size_t n;
    buf_printf(&path, "%s/%s", dir, name);
    buf_add(&path, "", 1);
    FILE *f = fopen((char *)path.data, "re");
    buf_deinit(&path);
    if (f == NULL)
        return fail(ret_sentence, dir, name, -errno, NULL);
    while ((n = fread(part, 1, sizeof part, f)) > 0 && ret->size <= FILE_BYTES_MAX)
        buf_add(ret, part, n);
    bool bad = ferror(f) != 0;
    (void)fclose(f); /* Only read from. */
    if (bad)
        return fail(ret_sentence, dir, name, -EIO, NULL);
    if (ret->size == 0 || ret->size > FILE_BYTES_MAX)
        return fail(ret_sentence, dir, name, -EINVAL, "is empty or too large");
    return 0;
}

static gnutls_datum_t datum(const struct buf *b)
{
    return (gnutls_datum_t){b->data, (unsigned)b->size};
}

int tls_certificate_identity(gnutls_x509_crt_t crt, struct identity *ret)
{
    char uri[512];
    unsigned n_found = 0;
    *ret = (struct identity){IDENTITY_NONE, 0, ""};
    for (unsigned i = 0;; i++) {
        struct identity found;
        size_t size = sizeof uri;
        int type = gnutls_x509_crt_get_subject_alt_name(crt, i, uri, &size, NULL);
        if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
            break;
        if (type == GNUTLS_E_SHORT_MEMORY_BUFFER)
            continue; /* Longer than any name of ours. */
        if (type < 0)
            return -EINVAL;
        if (type != GNUTLS_SAN_URI)
            continue;
        int rv = identity_parse(bytes_of(uri, size), &found);
        if (rv == -EINVAL)
            return rv;
        if (rv == 0) {
            n_found++;
            *ret = found;
        }
    }
    if (n_found == 1)
        return 0;
    *ret = (struct identity){IDENTITY_NONE, 0, ""};
    return -ENOENT;
}

/* What our own certificate says. */
static int
load_own(struct tls_context *c, const struct buf *pem, const char *dir, char **ret_sentence)
{
    gnutls_x509_crt_t crt;
    gnutls_datum_t d = datum(pem);
    if (gnutls_x509_crt_init(&crt) < 0)
        return fail(ret_sentence, dir, "tls.crt", -ENOMEM, NULL);
    int rv = gnutls_x509_crt_import(crt, &d, GNUTLS_X509_FMT_PEM);
    if (rv < 0) {
        gnutls_x509_crt_deinit(crt);
        return fail(ret_sentence, dir, "tls.crt", -EINVAL, gnutls_strerror(rv));
    }
    c->begins_s = (int64_t)gnutls_x509_crt_get_activation_time(crt);
    c->expires_s = (int64_t)gnutls_x509_crt_get_expiration_time(crt);
    rv = tls_certificate_identity(crt, &c->own);
    gnutls_x509_crt_deinit(crt);
    if (rv < 0)
        return fail(ret_sentence, dir, "tls.crt", -EINVAL,
                    "names nobody that Holdfast knows: it needs one subjectAltName URI such as "
                    "holdfast:mount/HOST (make one with: holdfast cert)");
    return 0;
}

/* The list of revoked certificates, which need not be there. */
static int load_revoked(struct tls_context *c, const char *dir, char **ret_sentence)
{
    struct buf crl = BUF_INIT;
    int rv = read_file(dir, "ca.crl", &crl, ret_sentence);
    if (rv == -ENOENT) {
        free(*ret_sentence);
        *ret_sentence = NULL;
        return 0;
    }
    if (rv == 0) {
        gnutls_datum_t d = datum(&crl);
        int n = gnutls_certificate_set_x509_crl_mem(c->credentials, &d, GNUTLS_X509_FMT_PEM);
        if (n <= 0)
            rv =
                fail(ret_sentence, dir, "ca.crl", -EINVAL,
                     n < 0 ? gnutls_strerror(n) : "holds no list that an authority of ca.crt made");
    }
    buf_deinit(&crl);
    return rv;
}

static int load(struct tls_context *c,
                const char *dir,
                struct buf *ca,
                struct buf *crt,
                struct buf *key,
                char **ret_sentence)
{
    int rv = read_file(dir, "ca.crt", ca, ret_sentence);
    if (rv == 0)
        rv = read_file(dir, "tls.crt", crt, ret_sentence);
    if (rv == 0)
        rv = read_file(dir, "tls.key", key, ret_sentence);
    if (rv < 0)
        return rv;
    gnutls_datum_t d = datum(ca), own = datum(crt), secret = datum(key);
    int n = gnutls_certificate_set_x509_trust_mem(c->credentials, &d, GNUTLS_X509_FMT_PEM);
    if (n <= 0)
        return fail(ret_sentence, dir, "ca.crt", -EINVAL,
                    n < 0 ? gnutls_strerror(n) : "holds no certificate");
    n = gnutls_certificate_set_x509_key_mem(c->credentials, &own, &secret, GNUTLS_X509_FMT_PEM);
    if (n < 0)
        return fail(ret_sentence, dir, "tls.crt and tls.key", -EINVAL, gnutls_strerror(n));
    rv = load_own(c, crt, dir, ret_sentence);
    return rv == 0 ? load_revoked(c, dir, ret_sentence) : rv;
}

int tls_context_load(const char *dir, struct tls_context **ret, char **ret_sentence)
{
    struct buf ca = BUF_INIT, crt = BUF_INIT, key = BUF_INIT;
    struct tls_context *c = xcalloc(1, sizeof *c);
    c->n_refs = 1;
    int rv = gnutls_certificate_allocate_credentials(&c->credentials);
    if (rv < 0) {
        free(c);
        return fail(ret_sentence, dir, "", -ENOMEM, NULL);
    }
    rv = gnutls_priority_init(&c->priorities, PRIORITIES, NULL);
    if (rv < 0) /* This machine's policy for all of GnuTLS forbids it. */
        rv = fail(ret_sentence, dir, "TLS 1.3", -EINVAL, gnutls_strerror(rv));
    if (rv == 0)
        rv = load(c, dir, &ca, &crt, &key, ret_sentence);
    if (key.size > 0)
        explicit_bzero(key.data, key.size);
    buf_deinit(&ca);
    buf_deinit(&crt);
    buf_deinit(&key);
    if (rv == 0) {
        gnutls_certificate_set_verify_function(c->credentials, tls_verify_peer);
        *ret = c;
    } else {
        tls_context_unref(c);
    }
    return rv;
}

struct tls_context *tls_context_ref(struct tls_context *c)
{
    c->n_refs++;
    return c;
}

void tls_context_unref(struct tls_context *c)
{
    if (c == NULL || --c->n_refs > 0)
        return;
    gnutls_certificate_free_credentials(c->credentials);
    gnutls_priority_deinit(c->priorities); /* NULL is accepted. */
    free(c);
}

const struct identity *tls_context_identity(const struct tls_context *c)
{
    return &c->own;
}

int64_t tls_context_expires_s(const struct tls_context *c)
{
    return c->expires_s;
}

int tls_context_check_time(const struct tls_context *c, int64_t now_s, char **ret_sentence)
{
    char uri[IDENTITY_URI_BYTES_MAX + 1], when[32];
    struct buf text = BUF_INIT;
    struct tm tm;
    bool late = now_s > c->expires_s;
    time_t limit = (time_t)(late ? c->expires_s : c->begins_s);
    *ret_sentence = NULL;
    if (now_s >= c->begins_s && !late)
        return 0;
    if (gmtime_r(&limit, &tm) == NULL || strftime(when, sizeof when, "%F %T UTC", &tm) == 0)
        (void)snprintf(when, sizeof when, "%lld", (long long)limit);
    buf_printf(&text, "our own certificate (%s) %s %s by this machine's clock",
               identity_format(&c->own, uri), late ? "expired at" : "is not good before", when);
    buf_add(&text, "", 1);
    *ret_sentence = (char *)text.data;
    return late ? -EKEYEXPIRED : -EKEYREJECTED;
}

int tls_context_verify(const struct tls_context *c,
                       const gnutls_datum_t *chain,
                       unsigned n,
                       unsigned *ret_status)
{
    gnutls_x509_crt_t crts[CHAIN_MAX];
    gnutls_x509_trust_list_t trust;
    unsigned n_crts = 0;
    int rv = n > 0 ? 0 : GNUTLS_E_NO_CERTIFICATE_FOUND;
    gnutls_certificate_get_trust_list(c->credentials, &trust);
    while (rv == 0 && n_crts < n && n_crts < CHAIN_MAX) {
        rv = gnutls_x509_crt_init(&crts[n_crts]);
        if (rv < 0)
            break;
        rv = gnutls_x509_crt_import(crts[n_crts], &chain[n_crts], GNUTLS_X509_FMT_DER);
        n_crts++;
    }
    if (rv == 0)
        rv = gnutls_x509_trust_list_verify_crt2(trust, crts, n_crts, NULL, 0,
                                                GNUTLS_VERIFY_DISABLE_TIME_CHECKS |
                                                    GNUTLS_VERIFY_DISABLE_TRUSTED_TIME_CHECKS,
                                                ret_status, NULL);
    for (unsigned i = 0; i < n_crts; i++)
        gnutls_x509_crt_deinit(crts[i]);
    return rv;
}
