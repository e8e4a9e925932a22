/* What context.c and session.c share. */
#ifndef HOLDFAST_TLS_TLS_IMPL_H
#define HOLDFAST_TLS_TLS_IMPL_H

#include "raftstore/tls/tls.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

struct tls_context {
    unsigned n_refs;
    gnutls_certificate_credentials_t credentials;
    gnutls_priority_t priorities;
    struct identity own;
    int64_t begins_s, expires_s;
};

/* Whom a certificate names.  Return: 0; -ENOENT nobody, or several; -EINVAL a malformed name. */
int tls_certificate_identity(gnutls_x509_crt_t crt, struct identity *ret);

/* GnuTLS asks, within the handshake: is the other side's certificate good?  (0 or -1) */
int tls_verify_peer(gnutls_session_t gnutls);

/* Is this chain good but for its times?  Return: 0 with *ret_status (0: it is), or GnuTLS's error.
 */
int tls_context_verify(const struct tls_context *c,
                       const gnutls_datum_t *chain,
                       unsigned n,
                       unsigned *ret_status);

#endif
