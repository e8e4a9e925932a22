/* Unit tests of auth/policy_rights.c: rights worked out beforehand decide as policy_allows() does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "auth/policy_rights.h"

#include <stdio.h>
#include <stdlib.h>

static struct policy *parse(const char *text)
{
    struct policy *policy = NULL;
    char *sentence = NULL;
    if (policy_parse(bytes_str(text), &policy, &sentence) < 0)
        fail_msg("%s: %s", text, sentence);
    return policy;
}

static const char office[] =
    "{\"version\": 1, \"roles\": {"
    " \"web\": {\"allow\": [{\"verbs\": [\"read\", \"acquire\"], \"paths\": [\"/web\", \"ops/a\","
    "   \"web/deep/within\", \"web!\"]},"
    "   {\"verbs\": [\"read\"], \"paths\": [\"/frozen/hidden\", \"lib\"]}],"
    "   \"deny\": [{\"verbs\": [\"read\", \"acquire\"], \"paths\": [\"/web/secret\", "
    "\"/frozen\"]}]},"
    " \"all\": {\"allow\": [{\"verbs\": [\"read\"], \"paths\": [\"/\"]}]}},"
    " \"bindings\": [{\"certificate\": \"mount/*\", \"roles\": [\"web\"]},"
    "  {\"certificate\": \"client/auditor\", \"roles\": [\"all\"]}]}";

static struct policy_rights *rights_of(const struct policy *policy, const char *name)
{
    struct policy_subject subject = {.kind = POLICY_CERTIFICATE, .name = name};
    return policy_resolve(policy, &subject);
}

static void test_decisions(void **state)
{
    static const struct {
        enum policy_verb verb;
        const char *path;
        bool allowed;
        bool below; /* May there be something below it? */
    } cases[] = {
        {POLICY_READ, "web", true, true},
        {POLICY_READ, "web/x", true, true},
        {POLICY_READ, "web/deep/within/it", true, true},
        {POLICY_READ, "web!", true, true},
        {POLICY_READ, "web!x", false, false},
        {POLICY_READ, "web/secret", false, false},
        {POLICY_READ, "web/secret/x", false, false},
        {POLICY_READ, "web/secrets", true, true},
        {POLICY_READ, "we", false, false},
        {POLICY_READ, "website", false, false},
        {POLICY_READ, "web/../secret", true, true}, /* The table has no such name. */
        {POLICY_READ, "", false, true},
        {POLICY_READ, "ops", false, true},
        {POLICY_READ, "ops/a", true, true},
        {POLICY_READ, "ops/ab", false, false},
        {POLICY_READ, "ops/a/b", true, true},
        {POLICY_READ, "op", false, false},
        {POLICY_READ, "frozen", false, false}, /* What is allowed there is denied again. */
        {POLICY_READ, "frozen/hidden", false, false},
        {POLICY_READ, "lib/x", true, true},
        {POLICY_ACQUIRE, "lib/x", false, false},
        {POLICY_ACQUIRE, "web/x", true, true},
        {POLICY_BREAK, "web/x", false, false},
        {POLICY_ADMIN, "", false, false},
        {POLICY_READ, "zzz", false, false},
        {POLICY_READ, "/web", false, false},
        {POLICY_READ, "web/", true, true},
    };
    (void)state;
    struct policy *policy = parse(office);
    struct policy_rights *mount = rights_of(policy, "mount/web1");
    struct policy_rights *auditor = rights_of(policy, "client/auditor");
    struct policy_rights *nobody = rights_of(policy, "client/eve");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bytes path = bytes_str(cases[i].path);
        if (policy_rights_allow(mount, cases[i].verb, path) != cases[i].allowed ||
            policy_rights_below(mount, cases[i].verb, path) != cases[i].below)
            fail_msg("%s %s", policy_verb_name(cases[i].verb), cases[i].path);
        assert_int_equal(policy_rights_allow(auditor, cases[i].verb, path),
                         cases[i].verb == POLICY_READ);
        assert_false(policy_rights_allow(nobody, cases[i].verb, path));
        assert_false(policy_rights_below(nobody, cases[i].verb, path));
    }
    assert_true(policy_rights_any(mount));
    assert_false(policy_rights_any(nobody));
    const struct bytes *paths;
    assert_int_equal(policy_rights_paths(mount, POLICY_READ, &paths), 4);
    assert_memory_equal(paths[0].data, "lib", 3); /* Tree order; nothing within another. */
    assert_memory_equal(paths[1].data, "ops/a", 5);
    assert_true(paths[2].size == 3);
    assert_memory_equal(paths[3].data, "web!", 4);
    policy_rights_free(mount);
    policy_rights_free(auditor);
    policy_rights_free(nobody);
    policy_free(policy);
}

static uint32_t dice(uint32_t *seed, uint32_t n)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (*seed >> 8) % n;
}

static void add_path(struct buf *out, uint32_t *seed)
{
    static const char *const names[] = {"a", "ab", "b", "a!", "a0", "B"};
    uint32_t n = 1 + dice(seed, 3);
    for (uint32_t i = 0; i < n; i++)
        buf_printf(out, "%s%s", i > 0 ? "/" : "", names[dice(seed, 6)]);
}

static void add_rules(struct buf *out, const char *kind, uint32_t *seed)
{
    static const char *const verbs[] = {"\"read\"", "\"acquire\"", "\"read\",\"break\""};
    uint32_t n = dice(seed, 4);
    buf_printf(out, "\"%s\":[", kind);
    for (uint32_t i = 0; i < n; i++) {
        buf_printf(out, "%s{\"verbs\":[%s],\"paths\":[\"", i > 0 ? "," : "", verbs[dice(seed, 3)]);
        if (dice(seed, 12) == 0)
            buf_printf(out, "/");
        else
            add_path(out, seed);
        buf_printf(out, "\",\"");
        add_path(out, seed);
        buf_printf(out, "\"]}");
    }
    buf_printf(out, "]");
}

/* Many small policies: the same decisions, and the same "is there anything below". */
static void test_like_the_judge(void **state)
{
    (void)state;
    uint32_t seed = 7;
    for (int round = 0; round < 500; round++) {
        struct buf text = BUF_INIT;
        buf_printf(&text, "{\"version\":1,\"roles\":{");
        for (int i = 0; i < 3; i++) {
            buf_printf(&text, "%s\"r%d\":{", i > 0 ? "," : "", i);
            add_rules(&text, "allow", &seed);
            buf_printf(&text, ",");
            add_rules(&text, "deny", &seed);
            buf_printf(&text, "}");
        }
        buf_printf(&text, "},\"bindings\":[{\"certificate\":\"*\",\"roles\":[\"r0\",\"r1\"]}]}");
        buf_add(&text, "", 1);
        struct policy *policy = parse((const char *)text.data);
        struct policy_subject subject = {.kind = POLICY_CERTIFICATE, .name = "client/x"};
        struct policy_rights *rights = policy_resolve(policy, &subject);
        for (int i = 0; i < 200; i++) {
            struct buf path = BUF_INIT, deeper = BUF_INIT;
            add_path(&path, &seed);
            enum policy_verb verb = (enum policy_verb)dice(&seed, POLICY_N_VERBS);
            struct bytes p = bytes_of(path.data, path.size);
            if (policy_allows(policy, &subject, verb, p, NULL) !=
                policy_rights_allow(rights, verb, p))
                fail_msg("%s: %s %.*s", (const char *)text.data, policy_verb_name(verb),
                         (int)p.size, (const char *)p.data);
            buf_printf(&deeper, "%.*s/", (int)p.size, (const char *)p.data);
            add_path(&deeper, &seed);
            if (policy_rights_allow(rights, verb, bytes_of(deeper.data, deeper.size)))
                assert_true(policy_rights_below(rights, verb, p));
            buf_deinit(&path);
            buf_deinit(&deeper);
        }
        policy_rights_free(rights);
        policy_free(policy);
        buf_deinit(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decisions),
        cmocka_unit_test(test_like_the_judge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
