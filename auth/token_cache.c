#include "auth/token_cache.h"

#include "raftstore/base/buf.h"

#include <assert.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <uthash.h>

struct known {
    uint8_t digest[32];        /* SHA-256 of the token. */
    struct token *token;       /* A reference. */
    TAILQ_ENTRY(known) by_use; /* The first is the one used longest ago. */
    UT_hash_handle hh;         /* */
};

struct token_cache {
    struct known *tokens;
    TAILQ_HEAD(, known) by_use;
    size_t tokens_max;
    uint64_t generation;
};

struct token_cache *token_cache_new(size_t tokens_max)
{
    assert(tokens_max > 0);
    struct token_cache *cache = xcalloc(1, sizeof *cache);
    TAILQ_INIT(&cache->by_use);
    cache->tokens_max = tokens_max;
    return cache;
}

static void forget(struct token_cache *cache, struct known *k)
{
    assert(cache->tokens != NULL);
    HASH_DEL(cache->tokens, k);
    TAILQ_REMOVE(&cache->by_use, k, by_use);
    token_unref(k->token);
    free(k);
}

static void forget_all(struct token_cache *cache)
{
    while (!TAILQ_EMPTY(&cache->by_use))
        forget(cache, TAILQ_FIRST(&cache->by_use));
}

void token_cache_free(struct token_cache *cache)
{
    if (cache == NULL)
        return;
    forget_all(cache);
    free(cache);
}

static void remember(struct token_cache *cache, const uint8_t digest[32], struct token *token)
{
    if (HASH_COUNT(cache->tokens) >= cache->tokens_max)
        forget(cache, TAILQ_FIRST(&cache->by_use));
    struct known *k = xcalloc(1, sizeof *k);
    memcpy(k->digest, digest, sizeof k->digest);
    k->token = token_ref(token);
    HASH_ADD(hh, cache->tokens, digest, sizeof k->digest, k);
    TAILQ_INSERT_TAIL(&cache->by_use, k, by_use);
}

struct token *token_ref(struct token *token)
{
    token->n_refs++;
    return token;
}

void token_unref(struct token *token)
{
    if (token == NULL || --token->n_refs > 0)
        return;
    jwt_claims_deinit(&token->claims);
    free(token);
}

/* What is known of a token.  Return: as jwt_verify(). */
static int ask_known(struct token_cache *cache,
                     struct known *k,
                     const struct jwt_rules *rules,
                     struct token **ret_token,
                     const char **ret_reason)
{
    int result = jwt_check_time(&k->token->claims, rules, ret_reason);
    if (result != 0) {
        forget(cache, k);
        return result;
    }
    TAILQ_REMOVE(&cache->by_use, k, by_use);
    TAILQ_INSERT_TAIL(&cache->by_use, k, by_use);
    *ret_token = token_ref(k->token);
    return 0;
}

/* Return: as token_cache_find(); @ret_digest is filled if it is -ENOENT. */
static int find(struct token_cache *cache,
                uint64_t generation,
                const struct jwt_rules *rules,
                struct bytes text,
                uint8_t ret_digest[32],
                struct token **ret_token,
                const char **ret_reason)
{
    if (generation != cache->generation) {
        forget_all(cache);
        cache->generation = generation;
    }
    if (text.size > JWS_BYTES_MAX || text.size == 0 ||
        gnutls_hash_fast(GNUTLS_DIG_SHA256, text.data, text.size, ret_digest) < 0) {
        *ret_reason = text.size > 0 ? "the token is too long" : "the token is empty";
        return JWT_INVALID;
    }
    struct known *k = NULL;
    HASH_FIND(hh, cache->tokens, ret_digest, 32, k);
    return k != NULL ? ask_known(cache, k, rules, ret_token, ret_reason) : -ENOENT;
}

int token_cache_find(struct token_cache *cache,
                     uint64_t generation,
                     const struct jwt_rules *rules,
                     struct bytes text,
                     struct token **ret_token,
                     const char **ret_reason)
{
    uint8_t digest[32];
    return find(cache, generation, rules, text, digest, ret_token, ret_reason);
}

int token_cache_verify(struct token_cache *cache,
                       const struct jwks *keys,
                       uint64_t generation,
                       const struct jwt_rules *rules,
                       struct bytes text,
                       struct token **ret_token,
                       const char **ret_reason)
{
    uint8_t digest[32];
    int result = find(cache, generation, rules, text, digest, ret_token, ret_reason);
    if (result != -ENOENT)
        return result;
    struct jwt_claims claims;
    result = jwt_verify(keys, rules, text, &claims, ret_reason);
    if (result != 0)
        return result;
    struct token *token = xcalloc(1, sizeof *token);
    token->claims = claims;
    remember(cache, digest, token);
    *ret_token = token_ref(token);
    return 0;
}
