/* Signed texts: JWS in compact form (RFC 7515), checked against a set of keys.
 *
 * Pure.  Refused, whatever the keys say: anything but three parts of strict base64url; more than
 * JWS_BYTES_MAX; a header that is no JSON object or repeats a name; any "alg" but RS256, ES256 and
 * EdDSA ("none" and HMAC first of all); headers that bring or point to a key ("jwk", "jku", "x5u",
 * "x5c"), that ask for extensions ("crit", "b64", "zip") or tell of another token inside ("cty").
 */
#ifndef HOLDFAST_AUTH_JWS_H
#define HOLDFAST_AUTH_JWS_H

#include "auth/jwks.h"
#include "raftstore/base/buf.h"
#include "raftstore/base/bytes.h"

#define JWS_BYTES_MAX 8192

enum jws_result {
    JWS_INVALID = 1, /* Malformed, refused, or the signature is wrong. */
    JWS_NO_KEY = 2,  /* Well-formed, but the set has no key of this id and algorithm. */
};

/* Check a signed text.
 *
 * @text:        at most JWS_BYTES_MAX bytes, no white space.
 * @ret_payload: on 0: the signed bytes are appended (not necessarily JSON).
 * @ret_typ:     on 0: the header's "typ", owned by the caller, or NULL if there is none.
 * @ret_reason:  on a positive result: why, in words that stay valid for ever and are fit for a
 *               client ("the signature does not match").
 *
 * Return: 0, or an enum jws_result (then nothing but *ret_reason is set). */
int jws_verify(const struct jwks *keys,
               struct bytes text,
               struct buf *ret_payload,
               char **ret_typ,
               const char **ret_reason);

#endif
