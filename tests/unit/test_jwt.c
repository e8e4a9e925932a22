/* Unit tests of auth/jwt.c, auth/jws.c and auth/token_cache.c, with tokens that make_tokens.py made
 * with other software. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "auth/jwt.h"
#include "auth/token_cache.h"
#include "raftstore/base/buf.h"
#include "tests/unit/made_tokens.h"

#include <stdio.h>
#include <stdlib.h>

#define NOW MADE_NOW_S

static struct jwks *keys;    /* All of them. */
static struct jwks *rotated; /* Without r2. */

static const struct jwt_rules rules = {
    .issuer = "https://issuer.example",
    .audience = "holdfast",
    .scope = "locks",
    .roles_claim = "realm_access.roles",
    .leeway_s = 30,
    .now_s = NOW,
};

static struct jwks *parse_keys(const char *name)
{
    char *text = made_keys(name);
    struct jwks *ret = NULL;
    const char *sentence = NULL;
    if (jwks_parse(bytes_str(text), &ret, &sentence) < 0)
        fail_msg("%s", sentence);
    free(text);
    return ret;
}

static int make(void **state)
{
    int result = made_tokens_load(state);
    keys = parse_keys("jwks");
    rotated = parse_keys("rotated");
    return result;
}

static int unmake(void **state)
{
    jwks_free(keys);
    jwks_free(rotated);
    return made_tokens_free(state);
}

/* What the rules above make of each token. */
static const struct {
    const char *name;
    int result;
    const char *reason; /* A part of it; NULL: none. */
} cases[] = {
    {"rs256", 0, NULL},
    {"es256", 0, NULL},
    {"eddsa", 0, NULL},
    {"no_kid", 0, NULL},
    {"no_kid_unknown", JWT_NO_KEY, "signature does not match"},
    {"aud_array", 0, NULL},
    {"typ_jwt", 0, NULL},
    {"typ_none", 0, NULL},
    {"typ_long", 0, NULL},
    {"typ_other", JWT_INVALID, "not an access token"},
    {"typ_number", JWT_INVALID, "type"},
    {"exp_fraction", 0, NULL},
    /* Algorithms. */
    {"none", JWT_INVALID, "algorithm"},
    {"none_None", JWT_INVALID, "algorithm"},
    {"none_NONE", JWT_INVALID, "algorithm"},
    {"none_nOnE", JWT_INVALID, "algorithm"},
    {"none_empty", JWT_INVALID, "algorithm"},
    {"none_signed", JWT_INVALID, "algorithm"},
    {"hs_pem", JWT_INVALID, "algorithm"},
    {"hs_jwk", JWT_INVALID, "algorithm"},
    {"hs_empty", JWT_INVALID, "algorithm"},
    {"hs_as_eddsa", JWT_INVALID, "signature"},
    {"ps256", JWT_INVALID, "algorithm"},
    {"rs512", JWT_INVALID, "algorithm"},
    {"alg_missing", JWT_INVALID, "algorithm"},
    {"alg_number", JWT_INVALID, "algorithm"},
    {"alg_array", JWT_INVALID, "algorithm"},
    {"rs_by_ec", JWT_NO_KEY, "no key"},
    {"es_by_rsa", JWT_NO_KEY, "no key"},
    /* Keys brought along. */
    {"thief", JWT_INVALID, "signature"},
    {"jwk", JWT_INVALID, "keys inside"},
    {"jwk_kid", JWT_INVALID, "keys inside"},
    {"jku", JWT_INVALID, "points to"},
    {"x5u", JWT_INVALID, "points to"},
    {"x5c", JWT_INVALID, "keys inside"},
    {"crit", JWT_INVALID, "critical"},
    {"crit_empty", JWT_INVALID, "critical"},
    {"b64", JWT_INVALID, "unencoded"},
    {"zip", JWT_INVALID, "compressed"},
    {"cty", JWT_INVALID, "nested"},
    {"nested", JWT_INVALID, "payload"},
    {"kid_unknown", JWT_NO_KEY, "no key"},
    {"kid_number", JWT_INVALID, "key id"},
    {"kid_path", JWT_NO_KEY, "no key"},
    {"rotated_out", 0, NULL}, /* Its key is still there: see test_rotated_out(). */
    /* Signatures. */
    {"sig_none", JWT_INVALID, "signature"},
    {"sig_short", JWT_INVALID, "signature"},
    {"sig_padded", JWT_INVALID, "base64url"},
    {"sig_long", JWT_INVALID, "signature"},
    {"sig_of_other", JWT_INVALID, "signature"},
    {"es_zero", JWT_INVALID, "signature"},
    {"es_der", JWT_INVALID, "signature"},
    {"es_order", JWT_INVALID, "signature"},
    {"eddsa_zero", JWT_INVALID, "signature"},
    /* Form. */
    {"empty", JWT_INVALID, "compact"},
    {"dots", JWT_INVALID, "header"},
    {"one", JWT_INVALID, "compact"},
    {"two", JWT_INVALID, "compact"},
    {"four", JWT_INVALID, "encrypted"},
    {"jwe", JWT_INVALID, "encrypted"},
    {"space", JWT_INVALID, "header"},
    {"newline", JWT_INVALID, "base64url"},
    {"plus", JWT_INVALID, "base64url"},
    {"head_array", JWT_INVALID, "header"},
    {"head_twice", JWT_INVALID, "header"},
    {"head_tail", JWT_INVALID, "header"},
    {"head_latin1", JWT_INVALID, "header"},
    {"head_deep", JWT_INVALID, "header"},
    {"payload_twice", JWT_INVALID, "payload"},
    {"payload_array", JWT_INVALID, "payload"},
    {"payload_text", JWT_INVALID, "payload"},
    {"payload_cut", JWT_INVALID, "payload"},
    {"payload_empty", JWT_INVALID, "payload"},
    {"payload_nul", JWT_INVALID, "payload"},
    {"payload_nan", JWT_INVALID, "payload"},
    {"huge", JWT_INVALID, "too long"},
    {"large", 0, NULL},
    /* Claims. */
    {"exp_none", JWT_INVALID, "expiry"},
    {"exp_text", JWT_INVALID, "expiry"},
    {"exp_true", JWT_INVALID, "expiry"},
    {"exp_1e300", JWT_INVALID, "expiry"},
    {"exp_int64", JWT_INVALID, "expiry"},
    {"exp_negative", JWT_INVALID, "expired"},
    {"exp_now", 0, NULL},
    {"exp_last", 0, NULL},
    {"exp_over", JWT_INVALID, "expired"},
    {"nbf_first", 0, NULL},
    {"nbf_over", JWT_INVALID, "not valid yet"},
    {"nbf_text", JWT_INVALID, "nbf"},
    {"nbf_low", 0, NULL},
    {"iat_first", 0, NULL},
    {"iat_over", JWT_INVALID, "future"},
    {"iat_text", JWT_INVALID, "iat"},
    {"iss_none", JWT_INVALID, "issuer"},
    {"iss_other", JWT_INVALID, "issuer"},
    {"iss_array", JWT_INVALID, "issuer"},
    {"aud_none", JWT_INVALID, "audience"},
    {"aud_other", JWT_INVALID, "audience"},
    {"aud_empty", JWT_INVALID, "audience"},
    {"aud_mixed", JWT_INVALID, "audience"},
    {"aud_object", JWT_INVALID, "audience"},
    {"sub_none", JWT_INVALID, "subject"},
    {"sub_empty", JWT_INVALID, "subject"},
    {"sub_number", JWT_INVALID, "subject"},
    {"sub_255", 0, NULL},
    {"sub_256", JWT_INVALID, "subject"},
    {"sub_line", JWT_INVALID, "subject"},
    {"sub_utf8", 0, NULL},
    {"scope_none", JWT_SCOPE, "scope"},
    {"scope_other", JWT_SCOPE, "scope"},
    {"scope_array", JWT_INVALID, "scope"},
    {"scope_spaces", 0, NULL},
    {"scp", 0, NULL},
    {"scp_text", 0, NULL},
    {"scp_mixed", JWT_INVALID, "scp"},
    {"roles_none", 0, NULL},
    {"roles_text", 0, NULL},
    {"roles_number", JWT_INVALID, "roles"},
    {"roles_mixed", JWT_INVALID, "roles"},
    {"roles_url", 0, NULL},
};
#define N_CASES (sizeof cases / sizeof cases[0])

static bool is_for_headers(const char *reason)
{
    for (; *reason != '\0'; reason++)
        if (*reason < 0x20 || *reason > 0x7E || *reason == '"' || *reason == '\\')
            return false;
    return true;
}

static void test_cases(void **state)
{
    (void)state;
    assert_int_equal(made_n_tokens(), N_CASES);
    for (size_t i = 0; i < N_CASES; i++) {
        struct jwt_claims claims = {0};
        const char *reason = NULL;
        int result = jwt_verify(keys, &rules, made_token(cases[i].name), &claims, &reason);
        if (result != cases[i].result)
            fail_msg("%s: %d (%s), not %d", cases[i].name, result, reason, cases[i].result);
        if (result != 0 && (strstr(reason, cases[i].reason) == NULL || !is_for_headers(reason)))
            fail_msg("%s: '%s' is not about '%s'", cases[i].name, reason, cases[i].reason);
        if (result != 0)
            assert_null(claims.subject);
        jwt_claims_deinit(&claims);
    }
}

static void test_claims(void **state)
{
    struct jwt_claims c = {0};
    const char *reason = NULL;
    (void)state;
    assert_int_equal(jwt_verify(keys, &rules, made_token("es256"), &c, &reason), 0);
    assert_string_equal(c.subject, "ci");
    assert_string_equal(c.client, "runner");
    assert_int_equal(c.expires_s, NOW + 300);
    assert_int_equal(c.starts_s, NOW - 5);
    assert_true(jwt_has_scope(&c, "openid") && jwt_has_scope(&c, "locks"));
    assert_false(jwt_has_scope(&c, "lock") || jwt_has_scope(&c, "openid locks"));
    assert_int_equal(c.n_roles, 2);
    assert_string_equal(c.roles[0], "reader");
    assert_string_equal(c.roles[1], "deployer");
    jwt_claims_deinit(&c);
}

/* The roles that a claim's path finds in a token, joined by commas. */
static void check_roles(const char *name, const char *path, const char *want)
{
    struct jwt_rules r = rules;
    struct jwt_claims c = {0};
    const char *reason = NULL;
    char got[256] = "";
    r.roles_claim = path;
    assert_int_equal(jwt_verify(keys, &r, made_token(name), &c, &reason), 0);
    for (size_t i = 0; i < c.n_roles; i++)
        (void)snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s", i > 0 ? "," : "",
                       c.roles[i]);
    assert_string_equal(got, want);
    jwt_claims_deinit(&c);
}

static void test_roles(void **state)
{
    (void)state;
    check_roles("rs256", "realm_access.roles", "reader,deployer");
    check_roles("rs256", "/realm_access/roles", "reader,deployer");
    check_roles("rs256", "realm_access.role", "");
    check_roles("rs256", "realm_access.roles.more", "");
    check_roles("rs256", NULL, "");
    check_roles("rs256", "scope", "openid,locks");
    check_roles("roles_text", "realm_access.roles", "a b"); /* One role, not two. */
    check_roles("roles_url", "https://x.example/roles", "far");
    check_roles("roles_url", "/https:~1~1x.example~1roles", "far");
    check_roles("roles_url", "/a.b/c~1d", "deep");
    check_roles("roles_none", "realm_access.roles", "");
}

static int verify(const struct jwks *set, const struct jwt_rules *r, struct bytes text)
{
    struct jwt_claims c = {0};
    const char *reason = NULL;
    int result = jwt_verify(set, r, text, &c, &reason);
    jwt_claims_deinit(&c);
    return result;
}

static void test_rules(void **state)
{
    struct jwt_rules r = rules;
    (void)state;
    r.strict_typ = true;
    assert_int_equal(verify(keys, &r, made_token("rs256")), 0);
    assert_int_equal(verify(keys, &r, made_token("typ_long")), 0);
    assert_int_equal(verify(keys, &r, made_token("typ_jwt")), JWT_INVALID);
    assert_int_equal(verify(keys, &r, made_token("typ_none")), JWT_INVALID);
    r = rules;
    r.scope = NULL;
    assert_int_equal(verify(keys, &r, made_token("scope_none")), 0);
    r = rules;
    r.leeway_s = 0;
    assert_int_equal(verify(keys, &r, made_token("exp_now")), JWT_INVALID);
    assert_int_equal(verify(keys, &r, made_token("nbf_first")), JWT_INVALID);
    r.now_s = NOW + 299;
    assert_int_equal(verify(keys, &r, made_token("rs256")), 0);
    r.now_s = NOW + 300;
    assert_int_equal(verify(keys, &r, made_token("rs256")), JWT_INVALID);
}

static void test_rotated_out(void **state)
{
    (void)state;
    assert_int_equal(verify(keys, &rules, made_token("rotated_out")), 0);
    assert_int_equal(verify(rotated, &rules, made_token("rotated_out")), JWT_NO_KEY);
    assert_int_equal(verify(rotated, &rules, made_token("rs256")), 0);
}

/* No token but the one that was signed: each character changed to another one, and each prefix. */
static void test_each_character(void **state)
{
    static const char *const names[] = {"rs256", "es256", "eddsa"};
    static const char alphabet[] = "AQgwABx_-.";
    (void)state;
    for (size_t n = 0; n < 3; n++) {
        struct bytes good = made_token(names[n]);
        char *copy = xmemdup(good.data, good.size);
        for (size_t i = 0; i < good.size; i++) {
            char old = copy[i];
            for (size_t k = i % 3; k < sizeof alphabet - 1; k += 3) {
                copy[i] = alphabet[k];
                if (alphabet[k] != old && verify(keys, &rules, bytes_of(copy, good.size)) == 0)
                    fail_msg("%s: %c at %zu is taken for %c", names[n], alphabet[k], i, old);
            }
            copy[i] = old;
            assert_int_not_equal(verify(keys, &rules, bytes_of(copy, i)), 0);
        }
        assert_int_equal(verify(keys, &rules, bytes_of(copy, good.size)), 0);
        free(copy);
    }
}

static int ask(struct token_cache *cache,
               const struct jwks *set,
               uint64_t generation,
               const struct jwt_rules *r,
               const char *name)
{
    struct token *t = NULL;
    const char *reason = NULL;
    int result = token_cache_verify(cache, set, generation, r, made_token(name), &t, &reason);
    if (result == 0)
        assert_string_equal(t->claims.subject, "ci");
    else
        assert_non_null(reason);
    token_unref(t);
    return result;
}

static void test_cache(void **state)
{
    struct token_cache *cache = token_cache_new(2);
    struct jwt_rules r = rules;
    struct jwks *none = NULL;
    const char *sentence = NULL;
    (void)state;
    assert_int_equal(jwks_parse(bytes_str("{\"keys\":[]}"), &none, &sentence), 0);
    assert_int_equal(ask(cache, keys, 1, &r, "rs256"), 0);
    assert_int_equal(ask(cache, keys, 1, &r, "thief"), JWT_INVALID);
    assert_int_equal(ask(cache, keys, 1, &r, "scope_none"), JWT_SCOPE);
    /* An empty set shows what is known without looking. */
    assert_int_equal(ask(cache, none, 1, &r, "rs256"), 0);
    assert_int_equal(ask(cache, none, 1, &r, "es256"), JWT_NO_KEY);
    assert_int_equal(ask(cache, none, 1, &r, "huge"), JWT_INVALID);
    assert_int_equal(ask(cache, none, 1, &r, "empty"), JWT_INVALID);
    /* The one used longest ago goes. */
    assert_int_equal(ask(cache, keys, 1, &r, "es256"), 0);
    assert_int_equal(ask(cache, none, 1, &r, "rs256"), 0);
    assert_int_equal(ask(cache, keys, 1, &r, "eddsa"), 0);
    assert_int_equal(ask(cache, none, 1, &r, "rs256"), 0);
    assert_int_equal(ask(cache, none, 1, &r, "es256"), JWT_NO_KEY);
    /* Time goes on. */
    r.now_s = NOW + 300 + 30;
    assert_int_equal(ask(cache, keys, 1, &r, "rs256"), JWT_INVALID);
    r.now_s = NOW;
    assert_int_equal(ask(cache, none, 1, &r, "rs256"), JWT_NO_KEY);
    /* Keys change. */
    assert_int_equal(ask(cache, none, 1, &r, "eddsa"), 0);
    assert_int_equal(ask(cache, none, 2, &r, "eddsa"), JWT_NO_KEY);
    token_cache_free(cache);
    jwks_free(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),       cmocka_unit_test(test_claims),
        cmocka_unit_test(test_roles),       cmocka_unit_test(test_rules),
        cmocka_unit_test(test_rotated_out), cmocka_unit_test(test_each_character),
        cmocka_unit_test(test_cache),
    };
    return cmocka_run_group_tests(tests, make, unmake);
}
