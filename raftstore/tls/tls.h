/* TLS 1.3 with certificates on both sides, over memory: no sockets, no loop.
 *
 * A context is what a process presents and whom it trusts; it can be replaced while connections
 * go on (each session keeps the one that it began with).  A session is one connection: bytes from
 * the wire go in, plain bytes come out, and the other way round.
 *
 *     HANDSHAKE --both certificates verified--> OPEN --close_notify or an error--> over
 *
 * Both sides must present a certificate of the context's authority, valid now, that names who it
 * speaks for (identity.h).  Nothing is sent or delivered before the handshake is done; the server
 * side is certain of its client then, the client may still learn by an error that it was refused.
 * The protocol name "holdfast/1" must be agreed on (ALPN).  GnuTLS does the work.
 *
 * Threading: one thread at a time for each session; contexts are shared by a process's one loop. */
#ifndef HOLDFAST_TLS_TLS_H
#define HOLDFAST_TLS_TLS_H

#include "raftstore/base/buf.h"
#include "raftstore/tls/identity.h"

struct tls_context;
struct tls_session;

/* Load DIR/ca.crt, DIR/tls.crt and DIR/tls.key (PEM; the names that Kubernetes gives a secret of
 * type tls), and DIR/ca.crl, the certificates that are revoked, if it is there.  tls.crt may hold a
 * chain: our own certificate first, then those of intermediate authorities.
 *
 * That our own certificate is good now is not looked at: see tls_context_check_time().
 *
 * Return: 0; negative errno, and *ret_sentence (owned by the caller) says what is wrong with which
 * file. */
int tls_context_load(const char *dir, struct tls_context **ret, char **ret_sentence);

struct tls_context *tls_context_ref(struct tls_context *c); /* Return: c. */
void tls_context_unref(struct tls_context *c);              /* NULL is accepted. */

/* Whom our own certificate names. */
const struct identity *tls_context_identity(const struct tls_context *c);

/* When our own certificate ends: seconds of the wall clock since 1970. */
int64_t tls_context_expires_s(const struct tls_context *c);

/* Is our own certificate good at `now_s` (seconds since 1970)?  Nobody would let us in if not.
 *
 * Return: 0; -EKEYEXPIRED or -EKEYREJECTED (not yet), and *ret_sentence (the caller's). */
int tls_context_check_time(const struct tls_context *c, int64_t now_s, char **ret_sentence);

enum tls_role { TLS_SERVER, TLS_CLIENT };

/* Begin a session; takes a reference of the context. Never fails.
 *
 * The client's first bytes are there at once, see tls_wire(). */
struct tls_session *tls_session_new(struct tls_context *context, enum tls_role role);
void tls_session_free(struct tls_session *s); /* NULL is accepted. */

/* Bytes came from the wire: append what they decrypt to to `plain`.
 *
 * Return: 0; -EPIPE the other side closed properly; -EACCES the certificate of the other side is
 * refused, or it refuses ours; -EPROTO anything else that ends the session.  tls_session_error()
 * says more, and tls_wire() may have a last alert to be sent. */
int tls_input(struct tls_session *s, struct bytes wire, struct buf *plain);

/* Encrypt; only when tls_session_open().  Return: 0; -EPROTO the session is over. */
int tls_output(struct tls_session *s, struct bytes plain);

/* Bytes to be put on the wire, in order; the caller consumes them (buf_consume(), or size = 0). */
struct buf *tls_wire(struct tls_session *s);

/* Is the handshake done? */
bool tls_session_open(const struct tls_session *s);

/* Whom the other side's certificate names; kind NONE before the handshake is done. */
const struct identity *tls_session_peer(const struct tls_session *s);

/* Would the other side's certificate still be accepted by `context`, but for its times?  For a
 * reload, after which an authority may be gone or a certificate revoked.
 *
 * Return: 0 yes, or the handshake isn't done; -EACCES no, and *ret_sentence (the caller's). */
int tls_session_recheck(struct tls_session *s, struct tls_context *context, char **ret_sentence);

/* Say that we are done (close_notify), if there is a session to say it in. */
void tls_session_close(struct tls_session *s);

/* Why the session is over, for people; "" while it isn't. */
const char *tls_session_error(const struct tls_session *s);

#endif
