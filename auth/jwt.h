/* Access tokens: JWT (RFC 7519, RFC 9068) that an authorization server signed.
 *
 * Pure: the time and the keys come in.  Required: "iss" (as configured), "aud" (a string or an
 * array that has the configured one), "exp", "sub".  Checked when there: "nbf", "iat" (not in the
 * future), "typ".  What is there but of the wrong type is refused, never ignored. */
#ifndef HOLDFAST_AUTH_JWT_H
#define HOLDFAST_AUTH_JWT_H

#include "auth/jws.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JWT_SUBJECT_BYTES_MAX 255
#define JWT_LEEWAY_S_DEFAULT  30
#define JWT_LEEWAY_S_MAX      300

struct jwt_rules {
    const char *issuer;      /* "iss" must be this. */
    const char *audience;    /* "aud" must be or contain this. */
    const char *scope;       /* A scope that the token must have; NULL = none. */
    const char *roles_claim; /* Where the roles are: "roles", "realm_access.roles" (names joined by
                                dots; a claim whose name is the whole text goes first), or a JSON
                                pointer ("/resource_access/a.b/roles").  NULL = no roles. */
    bool strict_typ;   /* Only "at+jwt" (RFC 9068); else "JWT" and none at all are taken too. */
    uint32_t leeway_s; /* How far the issuer's clock may be off. */
    int64_t now_s;     /* Seconds since 1970: clock_wall_ns() / NS_PER_S. */
};

struct jwt_claims {
    char *subject;   /* "sub": 1 to JWT_SUBJECT_BYTES_MAX bytes of UTF-8, no control characters. */
    char *client;    /* "client_id" or "azp"; NULL = none.  For logs only. */
    char **scopes;   /* "scope" (words) or "scp" (words or an array). */
    size_t n_scopes; /* */
    char **roles;    /* Of roles_claim: an array of strings, or one string. */
    size_t n_roles;  /* */
    int64_t expires_s; /* "exp". */
    int64_t starts_s;  /* "nbf"; INT64_MIN = always. */
};

enum jwt_result {
    JWT_INVALID = 1, /* 401, error="invalid_token". */
    JWT_NO_KEY = 2,  /* As well, but a newer set of keys may have it: see jwks_source_refetch(). */
    JWT_SCOPE = 3,   /* 403, error="insufficient_scope". */
};

/* Check a token.
 *
 * @ret_claims: on 0: filled; jwt_claims_deinit() frees it.
 * @ret_reason: on a positive result: why, in words that stay valid for ever and are fit for a
 *              client: printable ASCII without quotes and backslashes, as error_description wants.
 *
 * Return: 0, or an enum jwt_result. */
int jwt_verify(const struct jwks *keys,
               const struct jwt_rules *rules,
               struct bytes token,
               struct jwt_claims *ret_claims,
               const char **ret_reason);

/* Is it still (or already) time for claims that were checked before?  Return: as jwt_verify(). */
int jwt_check_time(const struct jwt_claims *claims,
                   const struct jwt_rules *rules,
                   const char **ret_reason);

void jwt_claims_deinit(struct jwt_claims *claims); /* Safe on {0}. */
bool jwt_has_scope(const struct jwt_claims *claims, const char *scope);

#endif
