/* Tokens that were checked a moment ago: a client sends the same one with each request, and
 * checking a signature costs more than all the rest of a read.
 *
 * A token is known by its SHA-256; what is kept are its claims.  Signature, issuer, audience and
 * scope are not checked again as long as keys and rules stay the same; the times are, at each use.
 * Bounded: the token used longest ago goes.  Only tokens that are good are kept.
 *
 * One thread. */
#ifndef HOLDFAST_AUTH_TOKEN_CACHE_H
#define HOLDFAST_AUTH_TOKEN_CACHE_H

#include "auth/jwt.h"

struct token_cache;

/* Claims that the cache and those who asked for them share. */
struct token {
    struct jwt_claims claims;
    unsigned n_refs;
};

/* @tokens_max: 1 or more. */
struct token_cache *token_cache_new(size_t tokens_max);
void token_cache_free(struct token_cache *cache); /* NULL is fine. */

/* As jwt_verify(), or by what is known.
 *
 * @generation: of the keys (jwks_source_generation()); another one than last time empties the
 * cache.
 * @rules:      but for now_s the same at each call.
 * @ret_token:  on 0: a reference of the caller's.
 * Return: as jwt_verify(). */
int token_cache_verify(struct token_cache *cache,
                       const struct jwks *keys,
                       uint64_t generation,
                       const struct jwt_rules *rules,
                       struct bytes text,
                       struct token **ret_token,
                       const char **ret_reason);

/* The first half of that: by what is known only.
 *
 * Return: as jwt_verify(); -ENOENT: nothing is known of it. */
int token_cache_find(struct token_cache *cache,
                     uint64_t generation,
                     const struct jwt_rules *rules,
                     struct bytes text,
                     struct token **ret_token,
                     const char **ret_reason);

struct token *token_ref(struct token *token);
void token_unref(struct token *token); /* NULL is fine. */

#endif
