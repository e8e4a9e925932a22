/* A set of public keys (JWKS, RFC 7517) that signatures of tokens are checked with.
 *
 * Pure: parses and computes; reads no file, no clock, no socket.  A set doesn't change once made;
 * it may be read by several threads.
 *
 * What a key may do follows from the key alone, never from the token: an RSA key checks RS256, a
 * P-256 key ES256, an Ed25519 key EdDSA, nothing else.  Symmetric keys ("oct") are never loaded, so
 * there is no key that an HMAC could be checked with.  Keys of unknown kinds, for other uses
 * ("use":"enc", "key_ops" without "verify", another "alg") and damaged or weak ones (RSA below 2048
 * bits, points off the curve) are left out, as RFC 7517 section 5 says, and counted.  A document
 * that publishes a private key is refused as a whole: whoever read it can sign. */
#ifndef HOLDFAST_AUTH_JWKS_H
#define HOLDFAST_AUTH_JWKS_H

#include "raftstore/base/bytes.h"

#include <stdbool.h>
#include <stddef.h>

#define JWKS_BYTES_MAX (256 * 1024) /* A longer document is refused. */
#define JWKS_KEYS_MAX  64           /* As is one with more keys. */

enum jwks_alg { JWKS_RS256, JWKS_ES256, JWKS_EDDSA };

struct jwks;
struct jwks_key;

/* Parse a document: {"keys": [...]}; members that we don't know are ignored (RFC 7517 says so),
 * repeated ones refused.  A set without a usable key is a set: it lets nobody in.
 *
 * @ret_sentence: on failure, what is wrong, in words that stay valid for ever.
 * Return: 0, *ret_keys is the caller's; -EINVAL. */
int jwks_parse(struct bytes document, struct jwks **ret_keys, const char **ret_sentence);
void jwks_free(struct jwks *keys); /* NULL is fine. */

size_t jwks_n_usable(const struct jwks *keys);
size_t jwks_n_skipped(const struct jwks *keys);
bool jwks_equal(const struct jwks *a, const struct jwks *b); /* The same usable keys, in order. */

/* The next key, after `after` (NULL: the first), that checks `alg` and has this id.
 *
 * @kid: NULL = any key of the algorithm.
 * Return: lives as long as the set; NULL: no more. */
const struct jwks_key *jwks_find(const struct jwks *keys,
                                 enum jwks_alg alg,
                                 const char *kid,
                                 const struct jwks_key *after);

/* Is `signature` (as JWS has it: ES256 and EdDSA 64 bytes, RS256 as long as the modulus) this key's
 * signature of `data`? */
bool jwks_key_verify(const struct jwks_key *key, struct bytes data, struct bytes signature);

#endif
