#include "raftstore/tls/tls_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define ALPN                "holdfast/1"
#define PLAIN_BYTES         (16u * 1024u + 512u) /* Of one record, at most. */
#define HANDSHAKE_BYTES_MAX (64u * 1024u)        /* Of the other side; most are certificates. */

struct tls_session {
    struct tls_context *context; /* With a reference. */
    gnutls_session_t gnutls;
    struct bytes in; /* Not yet taken by GnuTLS; the caller's of tls_input(). */
    struct buf out;
    size_t n_handshake_bytes; /* Taken before it was done. */
    struct identity peer;
    gnutls_alert_description_t refusal; /* What to tell of a certificate that is refused. */
    bool refused;
    bool starved; /* GnuTLS has asked for more than `in` has. */
    bool open;
    bool over;
    char error[200];
};

static void note(struct tls_session *s, const char *what, const char *why)
{
    s->over = true;
    if (s->error[0] == '\0')
        (void)snprintf(s->error, sizeof s->error, "%s%s%.150s", what, why[0] != '\0' ? ": " : "",
                       why);
}

static ssize_t pull(gnutls_transport_ptr_t ptr, void *to, size_t size)
{
    struct tls_session *s = ptr;
    size_t n = size < s->in.size ? size : s->in.size;
    if (n == 0) {
        s->starved = true;
        gnutls_transport_set_errno(s->gnutls, EAGAIN);
        return -1;
    }
    if (!s->open && (s->n_handshake_bytes += n) > HANDSHAKE_BYTES_MAX) {
        note(s, "the other side's handshake has no end", ""); /* GnuTLS keeps up to 16 MiB of it. */
        gnutls_transport_set_errno(s->gnutls, EMSGSIZE);
        return -1;
    }
    memcpy(to, s->in.data, n);
    s->in = bytes_of((const uint8_t *)s->in.data + n, s->in.size - n);
    return (ssize_t)n;
}

static int pull_timeout(gnutls_transport_ptr_t ptr, unsigned ms)
{
    const struct tls_session *s = ptr;
    (void)ms; /* Nothing comes while we are in here. */
    return s->in.size > 0;
}

static ssize_t push(gnutls_transport_ptr_t ptr, const void *from, size_t size)
{
    struct tls_session *s = ptr;
    buf_add(&s->out, from, size);
    return (ssize_t)size;
}

/* The other side's certificate is refused.  Return: -1. */
static int
refuse(struct tls_session *s, gnutls_alert_description_t alert, const char *what, const char *why)
{
    note(s, what, why);
    s->refused = true;
    s->refusal = alert;
    return -1;
}

/* So that the other side can tell its people what is wrong with its certificate. */
static gnutls_alert_description_t alert_of(unsigned status)
{
    return (status & GNUTLS_CERT_REVOKED) != 0            ? GNUTLS_A_CERTIFICATE_REVOKED
           : (status & GNUTLS_CERT_SIGNER_NOT_FOUND) != 0 ? GNUTLS_A_UNKNOWN_CA
           : (status & GNUTLS_CERT_EXPIRED) != 0          ? GNUTLS_A_CERTIFICATE_EXPIRED
                                                          : GNUTLS_A_BAD_CERTIFICATE;
}

static int refuse_status(struct tls_session *s, unsigned status)
{
    gnutls_datum_t text = {NULL, 0};
    int rv = gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
    (void)refuse(s, alert_of(status), "the other side's certificate is refused",
                 rv == 0 ? (const char *)text.data : "");
    if (rv == 0)
        gnutls_free(text.data);
    return -1;
}

/* Return: 0 it is good, with *ret; else what is wrong is noted. */
static int judge(struct tls_session *s, struct identity *ret)
{
    unsigned status = 0, n = 0;
    gnutls_x509_crt_t crt;
    int rv = gnutls_certificate_verify_peers2(s->gnutls, &status);
    if (rv < 0)
        return refuse(s, GNUTLS_A_BAD_CERTIFICATE, "the other side's certificate can't be verified",
                      gnutls_strerror(rv));
    if (status != 0)
        return refuse_status(s, status);
    const gnutls_datum_t *list = gnutls_certificate_get_peers(s->gnutls, &n);
    if (list == NULL || n == 0 || gnutls_x509_crt_init(&crt) < 0)
        return refuse(s, GNUTLS_A_CERTIFICATE_REQUIRED, "the other side shows no certificate", "");
    rv = gnutls_x509_crt_import(crt, &list[0], GNUTLS_X509_FMT_DER);
    if (rv == 0)
        rv = tls_certificate_identity(crt, ret);
    gnutls_x509_crt_deinit(crt);
    if (rv != 0)
        return refuse(s, GNUTLS_A_ACCESS_DENIED,
                      "the other side's certificate names nobody that Holdfast knows", "");
    return 0;
}

int tls_verify_peer(gnutls_session_t gnutls)
{
    struct tls_session *s = gnutls_session_get_ptr(gnutls);
    return judge(s, &s->peer);
}

/* None of these fails with good arguments, out of memory aside. */
static void check(int rv)
{
    if (rv >= 0)
        return;
    (void)fprintf(stderr, "TLS can't be set up: %s\n", gnutls_strerror(rv));
    abort();
}

struct tls_session *tls_session_new(struct tls_context *context, enum tls_role role)
{
    struct tls_session *s = xcalloc(1, sizeof *s);
    const gnutls_datum_t alpn = {(unsigned char *)(uintptr_t)ALPN, sizeof ALPN - 1};
    unsigned flags = role == TLS_SERVER ? (unsigned)GNUTLS_SERVER : (unsigned)GNUTLS_CLIENT;
    s->context = tls_context_ref(context);
    check(gnutls_init(&s->gnutls, flags | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS |
                                      GNUTLS_FORCE_CLIENT_CERT));
    check(gnutls_priority_set(s->gnutls, context->priorities));
    check(gnutls_credentials_set(s->gnutls, GNUTLS_CRD_CERTIFICATE, context->credentials));
    check(gnutls_alpn_set_protocols(s->gnutls, &alpn, 1, GNUTLS_ALPN_MANDATORY));
    gnutls_session_set_ptr(s->gnutls, s);
    if (role == TLS_SERVER)
        gnutls_certificate_server_set_request(s->gnutls, GNUTLS_CERT_REQUIRE);
    gnutls_handshake_set_timeout(s->gnutls, GNUTLS_INDEFINITE_TIMEOUT); /* The caller has one. */
    gnutls_transport_set_ptr(s->gnutls, s);
    gnutls_transport_set_pull_function(s->gnutls, pull);
    gnutls_transport_set_pull_timeout_function(s->gnutls, pull_timeout);
    gnutls_transport_set_push_function(s->gnutls, push);
    if (role == TLS_CLIENT) {
        struct buf none = BUF_INIT;
        (void)tls_input(s, bytes_of(NULL, 0), &none); /* Makes the first message. */
        buf_deinit(&none);
    }
    return s;
}

void tls_session_free(struct tls_session *s)
{
    if (s == NULL)
        return;
    gnutls_deinit(s->gnutls);
    tls_context_unref(s->context);
    buf_deinit(&s->out);
    free(s);
}

/* Does the other side say by this alert that it won't have our certificate? */
static bool alert_refuses(gnutls_alert_description_t alert)
{
    switch (alert) {
    case GNUTLS_A_BAD_CERTIFICATE:
    case GNUTLS_A_UNSUPPORTED_CERTIFICATE:
    case GNUTLS_A_CERTIFICATE_REVOKED:
    case GNUTLS_A_CERTIFICATE_EXPIRED:
    case GNUTLS_A_CERTIFICATE_UNKNOWN:
    case GNUTLS_A_CERTIFICATE_REQUIRED:
    case GNUTLS_A_UNKNOWN_CA:
    case GNUTLS_A_ACCESS_DENIED:
        return true;
    default: /* Also for what happened to bytes on their way: it is no verdict on us. */
        return false;
    }
}

/* The session is over by this error of GnuTLS.  Return: what tls_input() answers. */
static int over(struct tls_session *s, int error)
{
    if (error == GNUTLS_E_FATAL_ALERT_RECEIVED) {
        gnutls_alert_description_t alert = gnutls_alert_get(s->gnutls);
        const char *name = gnutls_alert_get_name(alert);
        s->refused = alert_refuses(alert);
        note(s, s->refused ? "the other side refuses our certificate" : "the other side gives up",
             name != NULL ? name : "");
    } else if (s->refused) { /* Noted by judge(). */
        (void)gnutls_alert_send(s->gnutls, GNUTLS_AL_FATAL, s->refusal);
    } else {
        s->refused =
            error == GNUTLS_E_CERTIFICATE_REQUIRED || error == GNUTLS_E_NO_CERTIFICATE_FOUND;
        note(s, "TLS", gnutls_strerror(error));
        (void)gnutls_alert_send_appropriate(s->gnutls, error); /* As far as it can be told. */
    }
    s->over = true;
    return s->refused ? -EACCES : -EPROTO;
}

/* Did GnuTLS's last call stop because it has taken all that came?  Between two messages it also
 * stops with this error, after a change of keys, with bytes left that nobody would come back for.
 */
static bool is_fed_up(const struct tls_session *s, int error)
{
    return error == GNUTLS_E_AGAIN && s->starved;
}

/* Return: 0 it is done, or waits for more bytes; or what ends the session. */
static int handshake(struct tls_session *s)
{
    while (!s->open) {
        s->starved = false;
        int rv = gnutls_handshake(s->gnutls);
        if (is_fed_up(s, rv))
            return 0;
        if (rv < 0 && gnutls_error_is_fatal(rv) != 0)
            return over(s, rv);
        if (rv == 0 && s->peer.kind == IDENTITY_NONE) { /* Never: it would be a way in. */
            (void)refuse(s, GNUTLS_A_CERTIFICATE_REQUIRED, "nobody has looked at the certificate",
                         "");
            return over(s, GNUTLS_E_CERTIFICATE_ERROR);
        }
        s->open = rv == 0;
    }
    return 0;
}

int tls_input(struct tls_session *s, struct bytes wire, struct buf *plain)
{
    if (s->over)
        return -EPROTO;
    s->in = wire;
    int rv = handshake(s);
    while (rv == 0 && s->open) {
        uint8_t *to = buf_reserve(plain, PLAIN_BYTES);
        s->starved = false;
        ssize_t n = gnutls_record_recv(s->gnutls, to, PLAIN_BYTES);
        if (is_fed_up(s, (int)n))
            return 0;
        if (n == 0) {
            note(s, "the other side closed the session", "");
            return -EPIPE;
        }
        if (n < 0 && gnutls_error_is_fatal((int)n) != 0)
            return over(s, (int)n);
        if (n > 0)
            plain->size += (size_t)n;
        if (n > 0 && s->in.size == 0 && gnutls_record_check_pending(s->gnutls) == 0)
            return 0; /* As a further call would say, at a price. */
    }
    return rv;
}

int tls_output(struct tls_session *s, struct bytes plain)
{
    const uint8_t *p = plain.data;
    size_t left = plain.size;
    while (left > 0 && !s->over) {
        ssize_t n = gnutls_record_send(s->gnutls, p, left); /* push() takes all of it. */
        if (n < 0 && gnutls_error_is_fatal((int)n) != 0)
            return over(s, (int)n);
        if (n > 0) {
            p += n;
            left -= (size_t)n;
        }
    }
    return s->over ? -EPROTO : 0;
}

struct buf *tls_wire(struct tls_session *s)
{
    return &s->out;
}

bool tls_session_open(const struct tls_session *s)
{
    return s->open && !s->over;
}

const struct identity *tls_session_peer(const struct tls_session *s)
{
    static const struct identity nobody = {IDENTITY_NONE, 0, ""};
    return s->open ? &s->peer : &nobody;
}

void tls_session_close(struct tls_session *s)
{
    if (tls_session_open(s))
        (void)gnutls_bye(s->gnutls, GNUTLS_SHUT_WR); /* push() can't refuse it. */
}

int tls_session_recheck(struct tls_session *s, struct tls_context *context, char **ret_sentence)
{
    unsigned n = 0, status = 0;
    *ret_sentence = NULL;
    if (!tls_session_open(s))
        return 0;
    const gnutls_datum_t *list = gnutls_certificate_get_peers(s->gnutls, &n);
    int rv = tls_context_verify(context, list, n, &status);
    if (rv == 0 && status == 0)
        return 0;
    gnutls_datum_t text = {NULL, 0};
    struct buf why = BUF_INIT;
    if (rv == 0)
        rv = gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
    buf_printf(&why, "%s", rv == 0 ? (const char *)text.data : gnutls_strerror(rv));
    buf_add(&why, "", 1);
    gnutls_free(text.data);
    *ret_sentence = (char *)why.data;
    return -EACCES;
}

const char *tls_session_error(const struct tls_session *s)
{
    return s->error;
}
