#include "raftstore/tls/tls_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define PRIORITIES  "NORMAL:-VERS-ALL:+VERS-TLS1.3"
#define ALPN        "holdfast/1"
#define UPDATES_MAX 16u                  /* Records without data that one call takes. */
#define PLAIN_BYTES (16u * 1024u + 512u) /* Of one record, at most. */

struct tls_session {
    struct tls_context *context; /* With a reference. */
    gnutls_session_t gnutls;
    struct bytes in; /* Not yet taken by GnuTLS; the caller's of tls_input(). */
    struct buf out;
    struct identity peer;
    bool starved; /* GnuTLS wanted more than there was. */
    bool open;
    bool over;
    char error[200];
};

static ssize_t pull(gnutls_transport_ptr_t ptr, void *to, size_t size)
{
    struct tls_session *s = ptr;
    size_t n = size < s->in.size ? size : s->in.size;
    if (n == 0) {
        s->starved = true;
        gnutls_transport_set_errno(s->gnutls, EAGAIN);
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

static void note(struct tls_session *s, const char *what, const char *why)
{
    s->over = true;
    if (s->error[0] == '\0')
        (void)snprintf(s->error, sizeof s->error, "%s%s%.150s", what, why[0] != '\0' ? ": " : "",
                       why);
}

/* Return: 0 it is good, with *ret; else what is wrong is noted. */
static int judge(struct tls_session *s, struct identity *ret)
{
    unsigned status = 0, n = 0;
    gnutls_datum_t text;
    gnutls_x509_crt_t crt;
    int rv = gnutls_certificate_verify_peers2(s->gnutls, &status);
    if (rv < 0) {
        note(s, "the other side's certificate can't be verified", gnutls_strerror(rv));
        return -1;
    }
    if (status != 0) {
        rv = gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
        note(s, "the other side's certificate is refused", rv == 0 ? (char *)text.data : "");
        if (rv == 0)
            gnutls_free(text.data);
        return -1;
    }
    const gnutls_datum_t *list = gnutls_certificate_get_peers(s->gnutls, &n);
    if (list == NULL || n == 0 || gnutls_x509_crt_init(&crt) < 0) {
        note(s, "the other side shows no certificate", "");
        return -1;
    }
    rv = gnutls_x509_crt_import(crt, &list[0], GNUTLS_X509_FMT_DER);
    if (rv == 0)
        rv = tls_certificate_identity(crt, ret);
    gnutls_x509_crt_deinit(crt);
    if (rv != 0)
        note(s, "the other side's certificate names nobody that Holdfast knows", "");
    return rv == 0 ? 0 : -1;
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
    check(gnutls_init(&s->gnutls, flags | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS));
    check(gnutls_priority_set_direct(s->gnutls, PRIORITIES, NULL));
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

/* The session is over by this error of GnuTLS.  Return: what tls_input() answers. */
static int over(struct tls_session *s, int error)
{
    bool refused = s->error[0] != '\0' || error == GNUTLS_E_CERTIFICATE_REQUIRED ||
                   error == GNUTLS_E_NO_CERTIFICATE_FOUND;
    if (error == GNUTLS_E_FATAL_ALERT_RECEIVED) {
        gnutls_alert_description_t alert = gnutls_alert_get(s->gnutls);
        const char *name = gnutls_alert_get_name(alert);
        refused = alert != GNUTLS_A_NO_APPLICATION_PROTOCOL && alert != GNUTLS_A_PROTOCOL_VERSION &&
                  alert != GNUTLS_A_DECODE_ERROR && alert != GNUTLS_A_UNEXPECTED_MESSAGE;
        note(s, refused ? "the other side refuses our certificate" : "the other side gives up",
             name != NULL ? name : "");
    } else {
        note(s, "TLS", gnutls_strerror(error));
        (void)gnutls_alert_send_appropriate(s->gnutls, error); /* As far as it can be told. */
    }
    s->over = true;
    return refused ? -EACCES : -EPROTO;
}

int tls_input(struct tls_session *s, struct bytes wire, struct buf *plain)
{
    int rv = 0;
    unsigned n_updates = 0;
    if (s->over)
        return -EPROTO;
    s->in = wire;
    while (!s->open) {
        rv = gnutls_handshake(s->gnutls);
        if (rv == GNUTLS_E_AGAIN)
            return 0;
        if (rv == 0)
            s->open = true;
        else if (gnutls_error_is_fatal(rv) != 0)
            return over(s, rv);
    }
    for (;;) {
        uint8_t *to = buf_reserve(plain, PLAIN_BYTES);
        s->starved = false;
        ssize_t n = gnutls_record_recv(s->gnutls, to, PLAIN_BYTES);
        if (n == GNUTLS_E_AGAIN && s->starved)
            return 0;
        /* A record without data, such as new keys: what stands behind it is still to come. */
        if (n == GNUTLS_E_AGAIN && n_updates++ == UPDATES_MAX)
            return over(s, GNUTLS_E_UNEXPECTED_PACKET);
        if (n == 0) {
            note(s, "the other side closed the session", "");
            return -EPIPE;
        }
        if (n < 0 && gnutls_error_is_fatal((int)n) != 0)
            return over(s, (int)n);
        if (n > 0)
            plain->size += (size_t)n;
    }
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

const char *tls_session_error(const struct tls_session *s)
{
    return s->error;
}
