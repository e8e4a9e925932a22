/* The server's certificate, read again on demand. */
#ifndef HOLDFAST_GATEWAY_CERTIFICATE_H
#define HOLDFAST_GATEWAY_CERTIFICATE_H

#include <gnutls/abstract.h>

/* Read certificate chain and key (PEM files) and use them for handshakes from now on.  Earlier ones
 * stay until certificate_free_all(): a handshake may be using them.  Blocks for the files.
 *
 * @ret_sentence: owned; set on failure: what is wrong; what was in use stays so.
 * Return: 0; negative errno. */
int certificate_load(const char *cert, const char *key, char **ret_sentence);

void certificate_free_all(void);

/* When the newest one ends, in seconds since 1970; 0: none is loaded. */
int64_t certificate_expires_s(void);

/* For GnuTLS (gnutls_certificate_retrieve_function3). */
int certificate_retrieve(gnutls_session_t session,
                         const struct gnutls_cert_retr_st *info,
                         gnutls_pcert_st **ret_certs,
                         unsigned *ret_n_certs,
                         gnutls_ocsp_data_st **ret_ocsp,
                         unsigned *ret_n_ocsp,
                         gnutls_privkey_t *ret_key,
                         unsigned *ret_flags);

#endif
