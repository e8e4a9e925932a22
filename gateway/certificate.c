#include "gateway/certificate.h"

#include "raftstore/base/buf.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>

#define CHAIN_MAX 16u

struct pair {
    struct pair *next; /* The one that was used before. */
    gnutls_pcert_st certs[CHAIN_MAX];
    unsigned n_certs;
    gnutls_privkey_t key;
    int64_t expires_s; /* Since 1970; 0 = not known. */
};

/* libmicrohttpd's callback has no argument of ours. */
static struct pair *newest;

static void pair_free(struct pair *p)
{
    for (unsigned i = 0; i < p->n_certs; i++)
        gnutls_pcert_deinit(&p->certs[i]);
    if (p->key != NULL)
        gnutls_privkey_deinit(p->key);
    free(p);
}

static int fail(char **ret_sentence, const char *file, int rv)
{
    *ret_sentence = xasprintf("%s: %s", file, gnutls_strerror(rv));
    return rv == GNUTLS_E_FILE_ERROR ? -ENOENT : -EINVAL;
}

/* Does the key belong to the first certificate? */
static int check_match(struct pair *p)
{
    unsigned char a[64], b[64];
    size_t n_a = sizeof a, n_b = sizeof b;
    gnutls_pubkey_t public;
    int rv = gnutls_pubkey_init(&public);
    if (rv < 0)
        return rv;
    rv = gnutls_pubkey_import_privkey(public, p->key, 0, 0);
    if (rv == 0)
        rv = gnutls_pubkey_get_key_id(public, GNUTLS_KEYID_USE_SHA256, a, &n_a);
    if (rv == 0)
        rv = gnutls_pubkey_get_key_id(p->certs[0].pubkey, GNUTLS_KEYID_USE_SHA256, b, &n_b);
    if (rv == 0 && (n_a != n_b || memcmp(a, b, n_a) != 0))
        rv = GNUTLS_E_CERTIFICATE_KEY_MISMATCH;
    gnutls_pubkey_deinit(public);
    return rv;
}

static int64_t end_of(struct pair *p)
{
    gnutls_x509_crt_t crt;
    if (gnutls_pcert_export_x509(&p->certs[0], &crt) < 0)
        return 0;
    time_t s = gnutls_x509_crt_get_expiration_time(crt);
    gnutls_x509_crt_deinit(crt);
    return s > 0 ? (int64_t)s : 0;
}

int certificate_load(const char *cert, const char *key, char **ret_sentence)
{
    struct pair *p = xcalloc(1, sizeof *p);
    gnutls_datum_t data;
    unsigned n = CHAIN_MAX;
    int rv = gnutls_load_file(cert, &data);
    if (rv == 0) {
        rv = gnutls_pcert_list_import_x509_raw(p->certs, &n, &data, GNUTLS_X509_FMT_PEM, 0);
        gnutls_free(data.data);
    }
    if (rv < 0) {
        pair_free(p);
        return fail(ret_sentence, cert, rv);
    }
    p->n_certs = n;
    rv = gnutls_load_file(key, &data);
    if (rv == 0) {
        rv = gnutls_privkey_init(&p->key);
        if (rv == 0)
            rv = gnutls_privkey_import_x509_raw(p->key, &data, GNUTLS_X509_FMT_PEM, NULL, 0);
        gnutls_memset(data.data, 0, data.size);
        gnutls_free(data.data);
    }
    if (rv == 0)
        rv = check_match(p);
    if (rv < 0) {
        pair_free(p);
        return fail(ret_sentence, key, rv);
    }
    p->expires_s = end_of(p);
    p->next = newest;
    newest = p;
    return 0;
}

int64_t certificate_expires_s(void)
{
    return newest != NULL ? newest->expires_s : 0;
}

void certificate_free_all(void)
{
    while (newest != NULL) {
        struct pair *p = newest;
        newest = p->next;
        pair_free(p);
    }
}

int certificate_retrieve(gnutls_session_t session,
                         const struct gnutls_cert_retr_st *info,
                         gnutls_pcert_st **ret_certs,
                         unsigned *ret_n_certs,
                         gnutls_ocsp_data_st **ret_ocsp,
                         unsigned *ret_n_ocsp,
                         gnutls_privkey_t *ret_key,
                         unsigned *ret_flags)
{
    (void)session;
    (void)info;
    if (newest == NULL)
        return -1;
    *ret_certs = newest->certs;
    *ret_n_certs = newest->n_certs;
    *ret_ocsp = NULL;
    *ret_n_ocsp = 0;
    *ret_key = newest->key;
    *ret_flags = 0; /* They stay ours. */
    return 0;
}
