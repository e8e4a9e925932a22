/* What context.c and session.c share. */
#ifndef HOLDFAST_TLS_TLS_IMPL_H
#define HOLDFAST_TLS_TLS_IMPL_H

#include "raftstore/tls/tls.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

struct tls_context {
    unsigned n_refs;
    gnutls_certificate_credentials_t credentials;
    struct identity own;
    int64_t expires_s;
};

/* Whom a certificate names.  Return: 0; -ENOENT nobody, or several; -EINVAL a malformed name. */
int tls_certificate_identity(gnutls_x509_crt_t crt, struct identity *ret);

/* GnuTLS asks, within the handshake: is the other side's certificate good?  (0 or -1) */
int tls_verify_peer(gnutls_session_t gnutls);

#endif
