/* Tokens, key sets and policies: texts from outside that decide who may do what.
 *
 * Tokens are checked against real keys (of the corpus' key set, see `seeds`): a token that is let
 * through must be one of those that were signed; bytes alone can't make one.
 *
 * Input: a byte that chooses, then the text. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#include "auth/base64url.h"
#include "auth/jwks.h"
#include "auth/jws.h"
#include "auth/jwt.h"
#include "auth/policy.h"
#include "raftstore/base/buf.h"

static void try_base64url(struct bytes text)
{
    struct buf bytes = BUF_INIT, again = BUF_INIT;
    if (base64url_decode(text, &bytes) == 0) {
        base64url_encode(bytes_of(bytes.data, bytes.size), &again);
        fuzz_require(bytes_equal(bytes_of(again.data, again.size), text),
                     "two texts for the same bytes");
    }
    buf_deinit(&bytes);
    buf_deinit(&again);
}

static void try_jwks(struct bytes text)
{
    struct jwks *keys = NULL;
    const char *sentence = NULL;
    if (jwks_parse(text, &keys, &sentence) == 0) {
        fuzz_require(jwks_n_usable(keys) <= JWKS_KEYS_MAX, "too many keys");
        fuzz_require(jwks_equal(keys, keys), "a set is not itself");
        jwks_free(keys);
    } else {
        fuzz_require(sentence != NULL, "refused without a sentence");
    }
}

/* A key set, a line break, a token. */
static void try_token(struct bytes text)
{
    struct jwks *keys = NULL;
    const char *reason = NULL, *line = memchr(text.data, '\n', text.size);
    struct buf payload = BUF_INIT;
    struct jwt_claims claims = {0};
    char *typ = NULL;
    struct jwt_rules rules = {.issuer = "https://issuer.example",
                              .audience = "holdfast",
                              .roles_claim = "realm_access.roles",
                              .now_s = 1800000000, /* Of tests/unit/make_tokens.py. */
                              .leeway_s = 30};
    if (line == NULL)
        return;
    size_t n = (size_t)(line - (const char *)text.data);
    struct bytes token = bytes_of(line + 1, text.size - n - 1);
    if (jwks_parse(bytes_of(text.data, n), &keys, &reason) != 0)
        return;
    int rv = jws_verify(keys, token, &payload, &typ, &reason);
    fuzz_require(rv == 0 || reason != NULL, "refused without a reason");
    fuzz_require(rv == 0 || payload.size == 0, "refused, and passed on");
    reason = NULL;
    int rv2 = jwt_verify(keys, &rules, token, &claims, &reason);
    fuzz_require(rv2 == 0 || reason != NULL, "refused without a reason");
    fuzz_require(rv2 != 0 || rv == 0, "a token without a signature");
    if (rv2 == 0) {
        fuzz_require(claims.subject != NULL && claims.subject[0] != '\0' &&
                         strlen(claims.subject) <= JWT_SUBJECT_BYTES_MAX,
                     "no subject");
        (void)jwt_check_time(&claims, &rules, &reason);
        (void)jwt_has_scope(&claims, "a");
        jwt_claims_deinit(&claims);
    }
    buf_deinit(&payload);
    free(typ);
    jwks_free(keys);
}

/* A path, a line break, a policy. */
static void try_policy(struct bytes text)
{
    static const char *const roles[] = {"ops", "dev"};
    const struct policy_subject subjects[] = {
        {POLICY_TOKEN, "alice", roles, 2},
        {POLICY_TOKEN, "", NULL, 0},
        {POLICY_CERTIFICATE, "mount/db1", NULL, 0},
    };
    const char *line = memchr(text.data, '\n', text.size);
    struct policy *policy = NULL;
    char *sentence = NULL;
    if (line == NULL)
        return;
    size_t n = (size_t)(line - (const char *)text.data);
    struct bytes path = bytes_of(text.data, n);
    if (policy_parse(bytes_of(line + 1, text.size - n - 1), &policy, &sentence) == 0) {
        for (unsigned i = 0; i < 3; i++) {
            for (unsigned verb = 0; verb < POLICY_N_VERBS; verb++) {
                struct buf why = BUF_INIT;
                bool with = policy_allows(policy, &subjects[i], (enum policy_verb)verb, path, &why);
                bool without =
                    policy_allows(policy, &subjects[i], (enum policy_verb)verb, path, NULL);
                fuzz_require(with == without, "asked twice, answered twice");
                fuzz_require(why.size > 0, "no explanation");
                buf_deinit(&why);
            }
        }
        policy_free(policy);
    } else {
        fuzz_require(sentence != NULL, "refused without a sentence");
    }
    free(sentence);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed f = feed_of(data, size);
    static void (*const tries[])(struct bytes text) = {try_base64url, try_jwks, try_token,
                                                       try_policy};
    unsigned what = feed_below(&f, 4);
    struct bytes text = feed_rest(&f);
    if (text.size > 0)
        tries[what](text);
    return 0;
}
