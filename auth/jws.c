#include "auth/jws.h"

#include "auth/base64url.h"
#include "auth/json.h"

#include <stdlib.h>

/* A token without a key id may be by any key of its algorithm; so many are tried. */
#define TRIES_MAX 4

struct parts {
    struct bytes signed_text; /* "header.payload" as it came. */
    struct bytes header;      /* Borrowed: encoded. */
    struct bytes payload;     /* */
    struct bytes signature;   /* */
};

static const char *split(struct bytes text, struct parts *ret)
{
    if (text.size > JWS_BYTES_MAX)
        return "the token is too long";
    const char *start = text.data;
    const char *end = start + text.size;
    const char *dots[2] = {NULL, NULL};
    size_t n_dots = 0;
    for (const char *c = start; c < end; c++) {
        if (*c != '.')
            continue;
        if (n_dots == 2)
            return "encrypted tokens are not taken";
        dots[n_dots++] = c;
    }
    if (n_dots != 2)
        return "not a signed token in compact form";
    ret->header = bytes_of(start, (size_t)(dots[0] - start));
    ret->payload = bytes_of(dots[0] + 1, (size_t)(dots[1] - dots[0] - 1));
    ret->signature = bytes_of(dots[1] + 1, (size_t)(end - dots[1] - 1));
    ret->signed_text = bytes_of(start, (size_t)(dots[1] - start));
    return NULL;
}

static const char *check_alg(const json_t *header, enum jwks_alg *ret_alg)
{
    const char *alg = json_string_value(json_object_get(header, "alg"));
    if (alg == NULL)
        return "the header names no algorithm";
    if (strcmp(alg, "RS256") == 0)
        *ret_alg = JWKS_RS256;
    else if (strcmp(alg, "ES256") == 0)
        *ret_alg = JWKS_ES256;
    else if (strcmp(alg, "EdDSA") == 0)
        *ret_alg = JWKS_EDDSA;
    else
        return "the algorithm is not allowed (RS256, ES256 and EdDSA are)";
    return NULL;
}

/* What a header may not have: see the head of jws.h. */
static const char *check_refused(const json_t *header)
{
    static const struct {
        const char *name;
        const char *why;
    } refused[] = {
        {"crit", "critical extensions are not supported"},
        {"b64", "unencoded payloads are not taken"},
        {"zip", "compressed payloads are not taken"},
        {"cty", "nested tokens are not taken"},
        {"jwk", "keys inside a token are not taken"},
        {"x5c", "keys inside a token are not taken"},
        {"jku", "keys that a token points to are not taken"},
        {"x5u", "keys that a token points to are not taken"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        if (json_object_get(header, refused[i].name) != NULL)
            return refused[i].why;
    return NULL;
}

/* Try the keys of this id (NULL: any). */
static int try_keys(const struct jwks *keys,
                    enum jwks_alg alg,
                    const char *kid,
                    const struct parts *parts,
                    const char **ret_reason)
{
    struct buf signature = BUF_INIT;
    const struct jwks_key *key = NULL;
    int result = JWS_NO_KEY;
    *ret_reason = "no key of this id and algorithm is known";
    if (base64url_decode(parts->signature, &signature) < 0) {
        buf_deinit(&signature);
        *ret_reason = "the signature is not base64url";
        return JWS_INVALID;
    }
    for (int i = 0; i < TRIES_MAX && result != 0; i++) {
        key = jwks_find(keys, alg, kid, key);
        if (key == NULL)
            break;
        *ret_reason = "the signature does not match";
        if (jwks_key_verify(key, parts->signed_text, bytes_of(signature.data, signature.size)))
            result = 0;
        else if (kid != NULL)
            result = JWS_INVALID; /* Without an id, it may be by a key that is not known yet. */
    }
    buf_deinit(&signature);
    return result;
}

static int check_signature(const struct jwks *keys,
                           const json_t *header,
                           const struct parts *parts,
                           const char **ret_reason)
{
    enum jwks_alg alg = JWKS_RS256;
    const char *kid = NULL;
    *ret_reason = check_refused(header);
    if (*ret_reason == NULL)
        *ret_reason = check_alg(header, &alg);
    if (*ret_reason == NULL && !json_get_text(header, "kid", &kid))
        *ret_reason = "the key id is not a string";
    if (*ret_reason != NULL)
        return JWS_INVALID;
    return try_keys(keys, alg, kid, parts, ret_reason);
}

static int verify_parts(const struct jwks *keys,
                        const struct parts *parts,
                        struct buf *ret_payload,
                        char **ret_typ,
                        const char **ret_reason)
{
    struct buf text = BUF_INIT;
    json_t *header = NULL;
    if (base64url_decode(parts->header, &text) == 0)
        header = json_parse_object(bytes_of(text.data, text.size), NULL);
    buf_deinit(&text);
    if (header == NULL) {
        *ret_reason = "the header is not a base64url JSON object";
        return JWS_INVALID;
    }
    const char *typ = NULL;
    int result = JWS_INVALID;
    if (!json_get_text(header, "typ", &typ))
        *ret_reason = "the type of the token is not a string";
    else
        result = check_signature(keys, header, parts, ret_reason);
    if (result == 0 && base64url_decode(parts->payload, ret_payload) < 0) {
        *ret_reason = "the payload is not base64url";
        result = JWS_INVALID;
    }
    if (result == 0)
        *ret_typ = typ != NULL ? xstrdup(typ) : NULL;
    json_decref(header);
    return result;
}

int jws_verify(const struct jwks *keys,
               struct bytes text,
               struct buf *ret_payload,
               char **ret_typ,
               const char **ret_reason)
{
    struct parts parts;
    *ret_reason = split(text, &parts);
    if (*ret_reason != NULL)
        return JWS_INVALID;
    return verify_parts(keys, &parts, ret_payload, ret_typ, ret_reason);
}
