#include "auth/jwks.h"

#include "auth/base64url.h"
#include "auth/json.h"
#include "raftstore/base/buf.h"

#include <assert.h>
#include <errno.h>
#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>

#define RSA_BITS_MIN   2048
#define RSA_BITS_MAX   8192
#define EC_COORD_BYTES 32
#define ED25519_BYTES  32

struct jwks_key {
    enum jwks_alg alg;
    char *kid;                /* Owned; NULL = none. */
    gnutls_pubkey_t pubkey;   /* Owned. */
    size_t n_signature_bytes; /* The only length a signature of it can have. */
    uint8_t id[20];           /* SHA-1 of the key, to compare sets. */
};

struct jwks {
    struct jwks_key keys[JWKS_KEYS_MAX];
    size_t n_keys;
    size_t n_skipped;
};

/* A member that must be base64url of 1 to size_max bytes.  Return: false: it isn't. */
static bool get_octets(const json_t *jwk, const char *name, size_t size_max, struct buf *out)
{
    const char *text = json_string_value(json_object_get(jwk, name));
    return text != NULL && base64url_decode(bytes_str(text), out) == 0 && out->size > 0 &&
           out->size <= size_max;
}

static gnutls_datum_t datum_of(const struct buf *b)
{
    return (gnutls_datum_t){b->data, (unsigned)b->size};
}

/* RSA (RFC 7518, 6.3.1): modulus without leading zeros, odd exponent of 3 or more. */
static bool import_rsa(const json_t *jwk, struct jwks_key *key)
{
    struct buf n = BUF_INIT;
    struct buf e = BUF_INIT;
    bool ok = get_octets(jwk, "n", RSA_BITS_MAX / 8, &n) && get_octets(jwk, "e", 8, &e);
    ok = ok && n.data[0] != 0 && (n.data[n.size - 1] & 1) != 0;
    ok = ok && e.data[0] != 0 && (e.data[e.size - 1] & 1) != 0 && !(e.size == 1 && e.data[0] < 3);
    if (ok) {
        gnutls_datum_t modulus = datum_of(&n);
        gnutls_datum_t exponent = datum_of(&e);
        unsigned bits = 0;
        ok = gnutls_pubkey_import_rsa_raw(key->pubkey, &modulus, &exponent) == 0 &&
             gnutls_pubkey_get_pk_algorithm(key->pubkey, &bits) == GNUTLS_PK_RSA &&
             bits >= RSA_BITS_MIN;
        key->alg = JWKS_RS256;
        key->n_signature_bytes = n.size;
    }
    buf_deinit(&n);
    buf_deinit(&e);
    return ok;
}

/* P-256 (RFC 7518, 6.2.1): coordinates of full length. */
static bool import_p256(const json_t *jwk, struct jwks_key *key)
{
    struct buf x = BUF_INIT;
    struct buf y = BUF_INIT;
    bool ok = get_octets(jwk, "x", EC_COORD_BYTES, &x) && x.size == EC_COORD_BYTES &&
              get_octets(jwk, "y", EC_COORD_BYTES, &y) && y.size == EC_COORD_BYTES;
    if (ok) {
        gnutls_datum_t dx = datum_of(&x);
        gnutls_datum_t dy = datum_of(&y);
        ok = gnutls_pubkey_import_ecc_raw(key->pubkey, GNUTLS_ECC_CURVE_SECP256R1, &dx, &dy) == 0 &&
             gnutls_pubkey_verify_params(key->pubkey) == 0;
        key->alg = JWKS_ES256;
        key->n_signature_bytes = 64;
    }
    buf_deinit(&x);
    buf_deinit(&y);
    return ok;
}

/* Ed25519 (RFC 8037, 2). */
static bool import_ed25519(const json_t *jwk, struct jwks_key *key)
{
    struct buf x = BUF_INIT;
    bool ok = get_octets(jwk, "x", ED25519_BYTES, &x) && x.size == ED25519_BYTES;
    if (ok) {
        gnutls_datum_t dx = datum_of(&x);
        ok = gnutls_pubkey_import_ecc_raw(key->pubkey, GNUTLS_ECC_CURVE_ED25519, &dx, NULL) == 0;
        key->alg = JWKS_EDDSA;
        key->n_signature_bytes = 64;
    }
    buf_deinit(&x);
    return ok;
}

static bool text_is(const char *text, const char *want)
{
    return text != NULL && strcmp(text, want) == 0;
}

/* Is the key meant for checking signatures, by what it says itself? */
static bool is_for_verifying(const json_t *jwk)
{
    const char *use = NULL;
    if (!json_get_text(jwk, "use", &use) || (use != NULL && strcmp(use, "sig") != 0))
        return false;
    const json_t *ops = json_object_get(jwk, "key_ops");
    if (ops == NULL)
        return true;
    size_t i;
    const json_t *op;
    json_array_foreach(ops, i, op) if (text_is(json_string_value(op), "verify")) return true;
    return false;
}

static bool import_key(const json_t *jwk, struct jwks_key *key)
{
    static const char *const names[] = {"RS256", "ES256", "EdDSA"};
    const char *kty = NULL;
    const char *crv = NULL;
    const char *alg = NULL;
    const char *kid = NULL;
    if (!json_get_text(jwk, "kty", &kty) || !json_get_text(jwk, "crv", &crv) ||
        !json_get_text(jwk, "alg", &alg) || !json_get_text(jwk, "kid", &kid))
        return false;
    if (!is_for_verifying(jwk))
        return false;
    bool ok = false;
    if (text_is(kty, "RSA"))
        ok = import_rsa(jwk, key);
    else if (text_is(kty, "EC") && text_is(crv, "P-256"))
        ok = import_p256(jwk, key);
    else if (text_is(kty, "OKP") && text_is(crv, "Ed25519"))
        ok = import_ed25519(jwk, key);
    if (!ok || (alg != NULL && strcmp(alg, names[key->alg]) != 0))
        return false;
    size_t id_size = sizeof key->id;
    if (gnutls_pubkey_get_key_id(key->pubkey, 0, key->id, &id_size) < 0)
        return false;
    key->kid = kid != NULL ? xstrdup(kid) : NULL;
    return true;
}

static void add_key(struct jwks *keys, const json_t *jwk)
{
    struct jwks_key key = {0};
    if (gnutls_pubkey_init(&key.pubkey) < 0)
        abort(); /* Out of memory. */
    if (import_key(jwk, &key)) {
        keys->keys[keys->n_keys++] = key;
        return;
    }
    gnutls_pubkey_deinit(key.pubkey);
    keys->n_skipped++;
}

static const char *parse_keys(struct jwks *keys, const json_t *array)
{
    /* Of RSA "d" to "qi" and "oth", of EC and OKP "d": each of them breaks the key. */
    static const char *const private_names[] = {"d", "p", "q", "dp", "dq", "qi", "oth"};
    size_t i;
    const json_t *jwk;
    json_array_foreach(array, i, jwk)
    {
        if (!json_is_object(jwk))
            return "a key is not an object";
        for (size_t k = 0; k < sizeof private_names / sizeof private_names[0]; k++)
            if (json_object_get(jwk, private_names[k]) != NULL)
                return "a private key is in it, so whoever read it can sign; make new keys";
    }
    json_array_foreach(array, i, jwk) add_key(keys, jwk);
    return NULL;
}

int jwks_parse(struct bytes document, struct jwks **ret_keys, const char **ret_sentence)
{
    const char *wrong = NULL;
    json_t *root = NULL;
    struct jwks *keys = xcalloc(1, sizeof *keys);
    if (document.size > JWKS_BYTES_MAX)
        wrong = "longer than 256 KiB";
    else if ((root = json_parse_object(document, NULL)) == NULL)
        wrong = "not a JSON object (or a name is repeated in it)";
    const json_t *array = json_object_get(root, "keys");
    if (wrong == NULL && !json_is_array(array))
        wrong = "no array \"keys\" in it";
    else if (wrong == NULL && json_array_size(array) > JWKS_KEYS_MAX)
        wrong = "more than 64 keys in it";
    if (wrong == NULL)
        wrong = parse_keys(keys, array);
    json_decref(root);
    if (wrong != NULL) {
        jwks_free(keys);
        *ret_sentence = wrong;
        return -EINVAL;
    }
    *ret_keys = keys;
    return 0;
}

void jwks_free(struct jwks *keys)
{
    if (keys == NULL)
        return;
    for (size_t i = 0; i < keys->n_keys; i++) {
        gnutls_pubkey_deinit(keys->keys[i].pubkey);
        free(keys->keys[i].kid);
    }
    free(keys);
}

size_t jwks_n_usable(const struct jwks *keys)
{
    return keys->n_keys;
}

size_t jwks_n_skipped(const struct jwks *keys)
{
    return keys->n_skipped;
}

bool jwks_equal(const struct jwks *a, const struct jwks *b)
{
    if (a->n_keys != b->n_keys)
        return false;
    for (size_t i = 0; i < a->n_keys; i++) {
        const struct jwks_key *x = &a->keys[i];
        const struct jwks_key *y = &b->keys[i];
        bool same_kid = x->kid == NULL ? y->kid == NULL : text_is(y->kid, x->kid);
        if (!same_kid || x->alg != y->alg || memcmp(x->id, y->id, sizeof x->id) != 0)
            return false;
    }
    return true;
}

const struct jwks_key *
jwks_find(const struct jwks *keys, enum jwks_alg alg, const char *kid, const struct jwks_key *after)
{
    const struct jwks_key *end = keys->keys + keys->n_keys;
    for (const struct jwks_key *k = after != NULL ? after + 1 : keys->keys; k < end; k++)
        if (k->alg == alg && (kid == NULL || text_is(k->kid, kid)))
            return k;
    return NULL;
}

/* JWS has r and s side by side (RFC 7518, 3.4); GnuTLS wants them in DER. */
static bool verify_es256(const struct jwks_key *key, gnutls_datum_t data, struct bytes signature)
{
    uint8_t *rs = (uint8_t *)(uintptr_t)signature.data;
    gnutls_datum_t r = {rs, 32};
    gnutls_datum_t s = {rs + 32, 32};
    gnutls_datum_t der = {0};
    if (gnutls_encode_rs_value(&der, &r, &s) < 0)
        return false;
    int result = gnutls_pubkey_verify_data2(key->pubkey, GNUTLS_SIGN_ECDSA_SHA256, 0, &data, &der);
    gnutls_free(der.data);
    return result >= 0;
}

bool jwks_key_verify(const struct jwks_key *key, struct bytes data, struct bytes signature)
{
    if (signature.size != key->n_signature_bytes || data.size > UINT32_MAX)
        return false;
    gnutls_datum_t text = {(uint8_t *)(uintptr_t)data.data, (unsigned)data.size};
    gnutls_datum_t sig = {(uint8_t *)(uintptr_t)signature.data, (unsigned)signature.size};
    switch (key->alg) {
    case JWKS_ES256:
        return verify_es256(key, text, signature);
    case JWKS_RS256:
        return gnutls_pubkey_verify_data2(key->pubkey, GNUTLS_SIGN_RSA_SHA256, 0, &text, &sig) >= 0;
    case JWKS_EDDSA:
        return gnutls_pubkey_verify_data2(key->pubkey, GNUTLS_SIGN_EDDSA_ED25519, 0, &text, &sig) >=
               0;
    }
    assert(false);
    return false;
}
