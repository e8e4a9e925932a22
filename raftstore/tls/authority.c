#include "raftstore/tls/authority.h"

#include "raftstore/base/buf.h"
#include "raftstore/base/clock.h"
#include "raftstore/base/random.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gnutls/crypto.h>
#include <gnutls/x509.h>

#define PEM_BYTES_MAX (64u * 1024u)
#define SKEW_S        3600 /* Certificates begin that much earlier: clocks differ. */

/* What is under way, so that one exit frees it all. */
struct work {
    gnutls_x509_privkey_t ca_key;
    gnutls_x509_crt_t ca;
    gnutls_x509_privkey_t key;
    gnutls_x509_crt_t crt;
    struct buf text; /* A file on its way. */
    char *made[3];   /* Files made so far, to be taken away again when the rest fails. */
    unsigned n_made;
    char **ret_sentence;
};

static void work_deinit(struct work *w)
{
    if (w->text.size_alloc > 0)
        explicit_bzero(w->text.data, w->text.size_alloc); /* May hold a key. */
    buf_deinit(&w->text);
    gnutls_x509_privkey_deinit(w->ca_key);
    gnutls_x509_crt_deinit(w->ca);
    gnutls_x509_privkey_deinit(w->key);
    gnutls_x509_crt_deinit(w->crt);
    for (unsigned i = 0; i < w->n_made; i++)
        free(w->made[i]);
}

/* A part of what belongs together is of no use, and would be in the way the next time. */
static void take_back(struct work *w)
{
    while (w->n_made > 0) {
        char *path = w->made[--w->n_made];
        (void)unlink(path); /* If that fails too, the user has been told enough. */
        free(path);
    }
}

static int fail(struct work *w, int error, const char *what, const char *why)
{
    struct buf text = BUF_INIT;
    buf_printf(&text, "%s: %s", what, why != NULL ? why : strerror(-error));
    buf_add(&text, "", 1);
    free(*w->ret_sentence);
    *w->ret_sentence = (char *)text.data;
    return error;
}

/* GnuTLS's answer as ours. */
static int must(struct work *w, int rv, const char *what)
{
    return rv >= 0 ? 0 : fail(w, -EIO, what, gnutls_strerror(rv));
}

static char *join(const char *dir, const char *name)
{
    struct buf path = BUF_INIT;
    buf_printf(&path, "%s/%s", dir, name);
    buf_add(&path, "", 1);
    return (char *)path.data;
}

static int file_write(struct work *w, const char *dir, const char *name, mode_t mode)
{
    char *path = join(dir, name);
    int error = 0;
    size_t done = 0;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        error = -errno;
    else
        w->made[w->n_made++] = xstrdup(path);
    while (error == 0 && done < w->text.size) {
        ssize_t n = write(fd, w->text.data + done, w->text.size - done);
        if (n < 0 && errno != EINTR)
            error = -errno;
        else if (n > 0)
            done += (size_t)n;
    }
    if (fd >= 0 && error == 0 && fsync(fd) < 0)
        error = -errno;
    if (fd >= 0 && close(fd) < 0 && error == 0)
        error = -errno;
    if (error < 0)
        (void)fail(w, error, path, NULL);
    free(path);
    return error;
}

static int file_read(struct work *w, const char *dir, const char *name)
{
    char *path = join(dir, name);
    int error = 0;
    FILE *f = fopen(path, "re");
    w->text.size = 0;
    if (f == NULL) {
        error = -errno;
    } else {
        size_t n = fread(buf_reserve(&w->text, PEM_BYTES_MAX), 1, PEM_BYTES_MAX, f);
        w->text.size = n;
        error = ferror(f) != 0 ? -EIO : n == PEM_BYTES_MAX ? -EFBIG : 0;
        (void)fclose(f); /* Only read from. */
    }
    if (error < 0)
        (void)fail(w, error, path, NULL);
    free(path);
    return error;
}

static int make_dir(struct work *w, const char *dir)
{
    if (mkdir(dir, 0755) == 0 || errno == EEXIST)
        return 0;
    return fail(w, -errno, dir, NULL);
}

static int make_key(struct work *w, gnutls_x509_privkey_t *ret)
{
    int rv = gnutls_x509_privkey_init(ret);
    if (rv >= 0)
        rv = gnutls_x509_privkey_generate(*ret, GNUTLS_PK_ECDSA,
                                          GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
    return must(w, rv, "making a key");
}

/* What every certificate has. */
static int begin_crt(struct work *w, gnutls_x509_privkey_t key, const char *cn, unsigned days)
{
    uint8_t serial[16], id[64];
    size_t id_size = sizeof id;
    time_t now = (time_t)(clock_wall_ns(clock_system()) / NS_PER_S);
    int rv = gnutls_x509_crt_init(&w->crt);
    if (rv >= 0)
        rv = gnutls_x509_crt_set_version(w->crt, 3);
    if (rv >= 0)
        rv = gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof serial);
    serial[0] = (uint8_t)((serial[0] & 0x7fu) | 1u); /* A positive number without leading zeros. */
    if (rv >= 0)
        rv = gnutls_x509_crt_set_serial(w->crt, serial, sizeof serial);
    if (rv >= 0)
        rv = gnutls_x509_crt_set_activation_time(w->crt, now - SKEW_S);
    if (rv >= 0)
        rv = gnutls_x509_crt_set_expiration_time(w->crt, now + (time_t)days * 86400);
    if (rv >= 0)
        rv = gnutls_x509_crt_set_key(w->crt, key);
    if (rv >= 0)
        rv = gnutls_x509_crt_set_dn_by_oid(w->crt, GNUTLS_OID_X520_COMMON_NAME, 0, cn,
                                           (unsigned)strlen(cn));
    if (rv >= 0)
        rv = gnutls_x509_crt_get_key_id(w->crt, GNUTLS_KEYID_USE_SHA256, id, &id_size);
    if (rv >= 0)
        rv = gnutls_x509_crt_set_subject_key_id(w->crt, id, 20);
    return must(w, rv, "making a certificate");
}

static int put_crt(struct work *w, gnutls_x509_crt_t crt)
{
    gnutls_datum_t d;
    int rv = gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &d);
    if (rv < 0)
        return must(w, rv, "writing a certificate");
    w->text.size = 0;
    buf_add(&w->text, d.data, d.size);
    gnutls_free(d.data);
    return 0;
}

static int put_key(struct work *w, gnutls_x509_privkey_t key)
{
    gnutls_datum_t d;
    int rv = gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, 0, &d);
    if (rv < 0)
        return must(w, rv, "writing a key");
    w->text.size = 0;
    buf_add(&w->text, d.data, d.size);
    explicit_bzero(d.data, d.size);
    gnutls_free(d.data);
    return 0;
}

static int create(struct work *w, const char *dir, unsigned days)
{
    char cn[64];
    uint64_t number = random_system();
    /* Its own name, so that two of them can be trusted at once while one replaces the other. */
    (void)snprintf(cn, sizeof cn, "Holdfast private authority %08x", (unsigned)(uint32_t)number);
    int rv = make_dir(w, dir);
    if (rv == 0)
        rv = make_key(w, &w->key);
    if (rv == 0)
        rv = begin_crt(w, w->key, cn, days);
    if (rv < 0)
        return rv;
    rv = gnutls_x509_crt_set_basic_constraints(w->crt, 1, 0);
    if (rv >= 0)
        rv = gnutls_x509_crt_set_key_usage(w->crt, GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN);
    if (rv >= 0)
        rv = gnutls_x509_crt_sign2(w->crt, w->crt, w->key, GNUTLS_DIG_SHA256, 0);
    rv = must(w, rv, "making the authority");
    if (rv == 0)
        rv = put_key(w, w->key);
    if (rv == 0)
        rv = file_write(w, dir, "ca.key", 0600);
    if (rv == 0)
        rv = put_crt(w, w->crt);
    return rv == 0 ? file_write(w, dir, "ca.crt", 0644) : rv;
}

int authority_create(const char *dir, unsigned days, char **ret_sentence)
{
    struct work w = {.ret_sentence = ret_sentence};
    char *path = join(dir, "ca.crt");
    int rv = 0;
    *ret_sentence = NULL;
    if (access(path, F_OK) < 0) {
        rv = create(&w, dir, days);
        if (rv < 0)
            take_back(&w);
        else
            rv = 1;
    }
    free(path);
    work_deinit(&w);
    return rv;
}

static int load_authority(struct work *w, const char *dir)
{
    int rv = file_read(w, dir, "ca.crt");
    if (rv < 0)
        return rv;
    gnutls_datum_t d = {w->text.data, (unsigned)w->text.size};
    rv = gnutls_x509_crt_init(&w->ca);
    if (rv >= 0)
        rv = gnutls_x509_crt_import(w->ca, &d, GNUTLS_X509_FMT_PEM);
    rv = must(w, rv, "reading ca.crt");
    if (rv == 0)
        rv = file_read(w, dir, "ca.key");
    if (rv < 0)
        return rv;
    d = (gnutls_datum_t){w->text.data, (unsigned)w->text.size};
    rv = gnutls_x509_privkey_init(&w->ca_key);
    if (rv >= 0)
        rv = gnutls_x509_privkey_import2(w->ca_key, &d, GNUTLS_X509_FMT_PEM, NULL, 0);
    return must(w, rv, "reading ca.key");
}

static int add_name(struct work *w, const char *name)
{
    uint8_t ip[16];
    if (inet_pton(AF_INET, name, ip) == 1)
        return gnutls_x509_crt_set_subject_alt_name(w->crt, GNUTLS_SAN_IPADDRESS, ip, 4,
                                                    GNUTLS_FSAN_APPEND);
    if (inet_pton(AF_INET6, name, ip) == 1)
        return gnutls_x509_crt_set_subject_alt_name(w->crt, GNUTLS_SAN_IPADDRESS, ip, 16,
                                                    GNUTLS_FSAN_APPEND);
    return gnutls_x509_crt_set_subject_alt_name(w->crt, GNUTLS_SAN_DNSNAME, name,
                                                (unsigned)strlen(name), GNUTLS_FSAN_APPEND);
}

static int
sign(struct work *w, const struct identity *identity, const char *const *names, unsigned days)
{
    char uri[IDENTITY_URI_BYTES_MAX + 1];
    uint8_t id[64];
    size_t id_size = sizeof id;
    (void)identity_format(identity, uri);
    int rv = begin_crt(w, w->key, strchr(uri, ':') + 1, days);
    if (rv < 0)
        return rv;
    rv = gnutls_x509_crt_set_subject_alt_name(w->crt, GNUTLS_SAN_URI, uri, (unsigned)strlen(uri),
                                              GNUTLS_FSAN_SET);
    for (; rv >= 0 && names != NULL && *names != NULL; names++)
        rv = add_name(w, *names);
    if (rv >= 0 && gnutls_x509_crt_get_subject_key_id(w->ca, id, &id_size, NULL) >= 0)
        rv = gnutls_x509_crt_set_authority_key_id(w->crt, id, id_size);
    if (rv >= 0)
        rv = gnutls_x509_crt_set_basic_constraints(w->crt, 0, -1);
    if (rv >= 0)
        rv = gnutls_x509_crt_set_key_usage(w->crt, GNUTLS_KEY_DIGITAL_SIGNATURE);
    if (rv >= 0)
        rv = gnutls_x509_crt_set_key_purpose_oid(w->crt, GNUTLS_KP_TLS_WWW_SERVER, 0);
    if (rv >= 0)
        rv = gnutls_x509_crt_set_key_purpose_oid(w->crt, GNUTLS_KP_TLS_WWW_CLIENT, 0);
    if (rv >= 0)
        rv = gnutls_x509_crt_sign2(w->crt, w->ca, w->ca_key, GNUTLS_DIG_SHA256, 0);
    return must(w, rv, "signing a certificate");
}

static int issue(struct work *w,
                 const char *dir,
                 const struct identity *identity,
                 const char *const *names,
                 unsigned days,
                 const char *out)
{
    int rv = load_authority(w, dir);
    if (rv == 0)
        rv = make_key(w, &w->key);
    if (rv == 0)
        rv = sign(w, identity, names, days);
    if (rv == 0)
        rv = make_dir(w, out);
    if (rv == 0)
        rv = put_key(w, w->key);
    if (rv == 0)
        rv = file_write(w, out, "tls.key", 0600); /* First: it is the one that tells EEXIST. */
    if (rv == 0)
        rv = put_crt(w, w->crt);
    if (rv == 0)
        rv = file_write(w, out, "tls.crt", 0644);
    if (rv == 0)
        rv = put_crt(w, w->ca);
    return rv == 0 ? file_write(w, out, "ca.crt", 0644) : rv;
}

int authority_issue(const char *dir,
                    const struct identity *identity,
                    const char *const *names,
                    unsigned days,
                    const char *out,
                    char **ret_sentence)
{
    struct work w = {.ret_sentence = ret_sentence};
    *ret_sentence = NULL;
    int rv = issue(&w, dir, identity, names, days, out);
    if (rv < 0)
        take_back(&w);
    work_deinit(&w);
    return rv;
}
