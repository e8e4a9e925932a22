/* Unit tests of auth/policy.c and auth/policy_parse.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "auth/policy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char office[] =
    "{\"version\": 1, \"comment\": \"who may do what\","
    " \"roles\": {"
    "  \"reader\": {\"allow\": [{\"verbs\": [\"read\"], \"paths\": [\"/\"]}]},"
    "  \"deployer\": {"
    "   \"allow\": [{\"verbs\": [\"read\", \"acquire\"], \"paths\": [\"/deploy\", "
    "\"jobs/nightly/\"]}],"
    "   \"deny\": [{\"verbs\": [\"acquire\"], \"paths\": [\"/deploy/frozen\"], \"comment\": "
    "\"x\"}]},"
    "  \"guest\": {\"deny\": [{\"verbs\": [\"read\"], \"paths\": [\"secret\"]}]},"
    "  \"operator\": {\"allow\": [{\"verbs\": [\"break\", \"admin\"], \"paths\": [\"/\"]}]},"
    "  \"nobody\": {}},"
    " \"bindings\": ["
    "  {\"subject\": \"*\", \"roles\": [\"reader\"]},"
    "  {\"subject\": \"ci-*\", \"roles\": [\"deployer\"]},"
    "  {\"subject\": \"*.guest.example\", \"roles\": [\"guest\"]},"
    "  {\"subject\": \"svc-*-prod\", \"roles\": [\"deployer\"]},"
    "  {\"subject\": \"root\", \"roles\": [\"operator\", \"nobody\"]},"
    "  {\"certificate\": \"mount/host1\", \"roles\": [\"operator\"]}]}";

static struct policy *parse(const char *text)
{
    struct policy *policy = NULL;
    char *sentence = NULL;
    if (policy_parse(bytes_str(text), &policy, &sentence) < 0)
        fail_msg("%s: %s", text, sentence);
    return policy;
}

static bool
may(const struct policy *policy, const char *name, enum policy_verb verb, const char *path)
{
    struct policy_subject subject = {.name = name};
    return policy_allows(policy, &subject, verb, bytes_str(path), NULL);
}

static void test_decisions(void **state)
{
    static const struct {
        const char *name;
        enum policy_verb verb;
        const char *path;
        bool allowed;
    } cases[] = {
        /* Wildcard for all; verbs do not imply each other. */
        {"x", POLICY_READ, "anything/at/all", true},
        {"x", POLICY_READ, "", true},
        {"x", POLICY_ACQUIRE, "anything", false},
        {"x", POLICY_BREAK, "anything", false},
        {"root", POLICY_ACQUIRE, "a", false},
        {"root", POLICY_BREAK, "a", true},
        {"root", POLICY_ADMIN, "", true},
        {"rooty", POLICY_BREAK, "a", false},
        {"Root", POLICY_BREAK, "a", false},
        /* Prefixes are whole components. */
        {"ci-7", POLICY_ACQUIRE, "deploy", true},
        {"ci-7", POLICY_ACQUIRE, "deploy/web", true},
        {"ci-7", POLICY_ACQUIRE, "/deploy/web", true},
        {"ci-7", POLICY_ACQUIRE, "deployment", false},
        {"ci-7", POLICY_ACQUIRE, "deplo", false},
        {"ci-7", POLICY_ACQUIRE, "x/deploy", false},
        {"ci-7", POLICY_ACQUIRE, "Deploy", false},
        {"ci-7", POLICY_ACQUIRE, "", false},
        {"ci-7", POLICY_ACQUIRE, "jobs/nightly", true},
        {"ci-7", POLICY_ACQUIRE, "jobs/nightly/a", true},
        {"ci-7", POLICY_ACQUIRE, "jobs", false},
        /* Deny wins, for its verbs, below its path. */
        {"ci-7", POLICY_ACQUIRE, "deploy/frozen", false},
        {"ci-7", POLICY_ACQUIRE, "deploy/frozen/a", false},
        {"ci-7", POLICY_ACQUIRE, "deploy/frozenish", true},
        {"ci-7", POLICY_READ, "deploy/frozen", true},
        {"eve.guest.example", POLICY_READ, "secret/a", false},
        {"eve.guest.example", POLICY_READ, "secrets", true},
        {".guest.example", POLICY_READ, "secret", false},
        {"guest.example", POLICY_READ, "secret", true},
        /* A star in the middle: head and tail must not overlap. */
        {"svc-a-prod", POLICY_ACQUIRE, "deploy", true},
        {"svc--prod", POLICY_ACQUIRE, "deploy", true},
        {"svc-prod", POLICY_ACQUIRE, "deploy", false},
        {"ci-", POLICY_ACQUIRE, "deploy", true},
        {"ci", POLICY_ACQUIRE, "deploy", false},
        {"*", POLICY_ACQUIRE, "deploy", false},
        {"ci-*", POLICY_ACQUIRE, "deploy", true},
        /* What is no path is denied, even where everything is allowed. */
        {"x", POLICY_READ, "a//b", false},
        {"x", POLICY_READ, "a/", false},
        {"x", POLICY_READ, "a/../b", false},
        {"x", POLICY_READ, "..", false},
        {"x", POLICY_READ, "a/.", false},
        {"x", POLICY_READ, "a/...", true},
        {"x", POLICY_READ, ".a/b.", true},
        {"ci-7", POLICY_ACQUIRE, "deploy/../deploy/web", false},
        {"x", POLICY_READ, "//a", true},
    };
    struct policy *policy = parse(office);
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (may(policy, cases[i].name, cases[i].verb, cases[i].path) != cases[i].allowed)
            fail_msg("%s %s %s: not %d", cases[i].name, policy_verb_name(cases[i].verb),
                     cases[i].path, cases[i].allowed);
    struct policy_subject x = {.name = "x"};
    assert_false(policy_allows(policy, &x, POLICY_READ, bytes_of("a\0b", 3), NULL));
    policy_free(policy);
}

static void test_roles_of_tokens(void **state)
{
    static const char *const roles[] = {"unknown", "deployer", "operatorx", "", "reader "};
    struct policy *policy = parse(office);
    struct policy_subject with = {POLICY_TOKEN, "x", roles, 5};
    struct policy_subject certificate = {POLICY_CERTIFICATE, "mount/host1", NULL, 0};
    struct policy_subject token = {POLICY_TOKEN, "mount/host1", NULL, 0};
    struct policy_subject ci = {POLICY_CERTIFICATE, "ci-1", NULL, 0};
    (void)state;
    assert_true(policy_allows(policy, &with, POLICY_ACQUIRE, bytes_str("deploy"), NULL));
    assert_false(policy_allows(policy, &with, POLICY_ACQUIRE, bytes_str("deploy/frozen"), NULL));
    assert_false(policy_allows(policy, &with, POLICY_ADMIN, bytes_str(""), NULL));
    with.n_roles = 1;
    assert_false(policy_allows(policy, &with, POLICY_ACQUIRE, bytes_str("deploy"), NULL));
    /* Names of tokens and of certificates are apart. */
    assert_true(policy_allows(policy, &certificate, POLICY_ADMIN, bytes_str(""), NULL));
    assert_false(policy_allows(policy, &token, POLICY_ADMIN, bytes_str(""), NULL));
    assert_false(policy_allows(policy, &ci, POLICY_READ, bytes_str("a"), NULL));
    policy_free(policy);
}

static void check_explained(const struct policy *policy,
                            const struct policy_subject *subject,
                            enum policy_verb verb,
                            const char *path,
                            const char *want)
{
    struct buf out = BUF_INIT;
    (void)policy_allows(policy, subject, verb, bytes_str(path), &out);
    buf_add(&out, "", 1);
    assert_string_equal((char *)out.data, want);
    buf_deinit(&out);
}

static void test_explanations(void **state)
{
    static const char *const roles[] = {"deployer"};
    struct policy *policy = parse(office);
    struct policy_subject ci = {.name = "ci-7"}, x = {POLICY_TOKEN, "x\n", roles, 1};
    struct policy_subject host = {.kind = POLICY_CERTIFICATE, .name = "h"};
    (void)state;
    check_explained(policy, &ci, POLICY_READ, "a",
                    "allowed: role 'reader' (bound to '*') allows read on everything");
    check_explained(policy, &ci, POLICY_ACQUIRE, "deploy/web",
                    "allowed: role 'deployer' (bound to 'ci-*') allows acquire on 'deploy'");
    check_explained(policy, &x, POLICY_ACQUIRE, "deploy/frozen/a",
                    "denied: role 'deployer' (that came with the subject) denies acquire on "
                    "'deploy/frozen'");
    check_explained(policy, &x, POLICY_BREAK, "a",
                    "denied: nothing allows 'x\\x0a' to break 'a' (roles: 'deployer', 'reader')");
    check_explained(
        policy, &host, POLICY_READ, "a",
        "denied: nothing allows 'h' to read 'a' (it has no role that the policy knows)");
    check_explained(policy, &x, POLICY_READ, "a//b", "denied: 'a//b' is not a path");
    policy_free(policy);
}

static void test_nothing_allows_nothing(void **state)
{
    struct policy *policy = parse("{\"version\":1,\"roles\":{}}");
    (void)state;
    for (int verb = 0; verb < POLICY_N_VERBS; verb++)
        assert_false(may(policy, "root", (enum policy_verb)verb, ""));
    policy_free(policy);
}

#define ROLES(text)    "{\"version\":1,\"roles\":{" text "}}"
#define BINDINGS(text) "{\"version\":1,\"roles\":{\"r\":{}},\"bindings\":" text "}"
#define RULE(text)     ROLES("\"r\":{\"allow\":[" text "]}")

static void test_strict(void **state)
{
    static const char *const wrong[][2] = {
        {"", "not JSON"},
        {"{", "line 1"},
        {"[]", "not JSON"},
        {"{} {}", "not JSON"},
        {"{}", "version"},
        {"{\"version\":2,\"roles\":{}}", "version"},
        {"{\"version\":\"1\",\"roles\":{}}", "version"},
        {"{\"version\":1}", "roles"},
        {"{\"version\":1,\"roles\":[]}", "roles"},
        {"{\"version\":1,\"version\":1,\"roles\":{}}", "duplicate"},
        {"{\"version\":1,\"roles\":{},\"role\":{}}", "\"role\""},
        {"{\"version\":1,\"roles\":{},\"comment\":5}", "comment"},
        {ROLES("\"r\":5"), "object"},
        {ROLES("\"\":{}"), "no name"},
        {ROLES("\"r\":{},\"r\":{}"), "duplicate"},
        {ROLES("\"r\":{\"alow\":[]}"), "alow"},
        {ROLES("\"r\":{\"allow\":{}}"), "array"},
        {ROLES("\"r\":{\"deny\":\"x\"}"), "array"},
        {RULE("5"), "object"},
        {RULE("{}"), "verbs"},
        {RULE("{\"verbs\":[\"read\"]}"), "paths"},
        {RULE("{\"verbs\":[],\"paths\":[\"/\"]}"), "verbs"},
        {RULE("{\"verbs\":[\"read\"],\"paths\":[]}"), "paths"},
        {RULE("{\"verbs\":\"read\",\"paths\":[\"/\"]}"), "verbs"},
        {RULE("{\"verbs\":[\"write\"],\"paths\":[\"/\"]}"), "write"},
        {RULE("{\"verbs\":[\"*\"],\"paths\":[\"/\"]}"), "verb"},
        {RULE("{\"verbs\":[5],\"paths\":[\"/\"]}"), "string"},
        {RULE("{\"verbs\":[\"read\"],\"paths\":[5]}"), "string"},
        {RULE("{\"verbs\":[\"read\"],\"paths\":[\"\"]}"), "string"},
        {RULE("{\"verbs\":[\"read\"],\"paths\":[\"a/*\"]}"), "path"},
        {RULE("{\"verbs\":[\"read\"],\"paths\":[\"a//b\"]}"), "path"},
        {RULE("{\"verbs\":[\"read\"],\"paths\":[\"a/../b\"]}"), "path"},
        {RULE("{\"verbs\":[\"read\"],\"paths\":[\".\"]}"), "path"},
        {RULE("{\"verbs\":[\"read\"],\"paths\":[\"a//\"]}"), "path"},
        {RULE("{\"verbs\":[\"read\"],\"paths\":[\"a\"],\"path\":[]}"), "\"path\""},
        {BINDINGS("{}"), "array"},
        {BINDINGS("[5]"), "object"},
        {BINDINGS("[{\"roles\":[\"r\"]}]"), "subject"},
        {BINDINGS("[{\"subject\":\"a\",\"certificate\":\"mount/a\",\"roles\":[\"r\"]}]"), "either"},
        {BINDINGS("[{\"subject\":5,\"roles\":[\"r\"]}]"), "string"},
        {BINDINGS("[{\"subject\":\"\",\"roles\":[\"r\"]}]"), "string"},
        {BINDINGS("[{\"subject\":\"*a*\",\"roles\":[\"r\"]}]"), "more than one"},
        {BINDINGS("[{\"subject\":\"a\"}]"), "roles"},
        {BINDINGS("[{\"subject\":\"a\",\"roles\":[]}]"), "roles"},
        {BINDINGS("[{\"subject\":\"a\",\"roles\":[\"q\"]}]"), "\"q\""},
        {BINDINGS("[{\"subject\":\"a\",\"roles\":[7]}]"), "string"},
        {BINDINGS("[{\"subject\":\"a\",\"roles\":[\"r\"],\"rolls\":1}]"), "rolls"},
        {BINDINGS("[{\"certificate\":\"web1\",\"roles\":[\"r\"]}]"), "KIND/NAME"},
        {BINDINGS("[{\"certificate\":\"mount*\",\"roles\":[\"r\"]}]"), "KIND/NAME"},
        {BINDINGS("[{\"certificate\":\"mount/\",\"roles\":[\"r\"]}]"), "KIND/NAME"},
        {BINDINGS("[{\"certificate\":\"user/x\",\"roles\":[\"r\"]}]"), "KIND/NAME"},
        {BINDINGS("[{\"certificate\":\"mount/a/b\",\"roles\":[\"r\"]}]"), "KIND/NAME"},
        /* Each complaint tells the line. */
        {"{\"version\": 1,\n\"roles\": {\n\"r\": {\"allow\": [\n{\"verbs\": [\"read\"], "
         "\"paths\": [\"a\"]},\n{\"verbs\": [\"read\"],\n\"paths\": [\"a\",\n\"b//c\"]}]}}}",
         "line 7: "},
        {"{\"version\": 1,\n\"roles\": {\"a\": {\"comment\": \"}]\\\"\"}, \"b\": "
         "{}},\n\"bindings\": [\n"
         "{\"subject\": \"x\", \"roles\": [\"a\"]},\n{\"certificate\":\n\"web\", \"roles\": "
         "[\"b\"]}]}",
         "line 6: "},
        {"{\n\"version\":\n 2, \"roles\": {}}", "line 3: "},
        {"{\"version\": 1,\n\n\"roles\": {\n\"r\": {\"allow\": [],\n \"denny\": []}}}", "line 5: "},
        {"{\"version\": 1,\n\"roles\": {\n\"r\": x}}", "line 3"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct policy *policy = NULL;
        char *sentence = NULL;
        if (policy_parse(bytes_str(wrong[i][0]), &policy, &sentence) != -EINVAL)
            fail_msg("%s is taken", wrong[i][0]);
        if (strstr(sentence, wrong[i][1]) == NULL)
            fail_msg("%s: '%s' is not about '%s'", wrong[i][0], sentence, wrong[i][1]);
        assert_null(policy);
        free(sentence);
    }
}

/* As many roles as there may be, and one more. */
static void test_many_roles(void **state)
{
    (void)state;
    for (int n = 1024; n <= 1025; n++) {
        struct buf text = BUF_INIT;
        struct policy *policy = NULL;
        char *sentence = NULL;
        buf_printf(&text, "{\"version\":1,\"roles\":{");
        for (int i = 0; i < n; i++)
            buf_printf(&text, "%s\"r%d\":{\"allow\":[{\"verbs\":[\"read\"],\"paths\":[\"p%d\"]}]}",
                       i > 0 ? "," : "", i, i);
        buf_printf(&text, "}}");
        int result = policy_parse(bytes_of(text.data, text.size), &policy, &sentence);
        assert_int_equal(result, n == 1024 ? 0 : -EINVAL);
        for (int i = 0; i < n && policy != NULL; i++) {
            char role[16], path[16];
            (void)snprintf(role, sizeof role, "r%d", i);
            (void)snprintf(path, sizeof path, "p%d", i);
            const char *roles[] = {role};
            struct policy_subject s = {POLICY_TOKEN, "x", roles, 1};
            assert_true(policy_allows(policy, &s, POLICY_READ, bytes_str(path), NULL));
            assert_false(policy_allows(policy, &s, POLICY_READ, bytes_str("p"), NULL));
        }
        free(sentence);
        policy_free(policy);
        buf_deinit(&text);
    }
}

static void test_load(void **state)
{
    char path[] = "/tmp/holdfast-policy-XXXXXX";
    struct policy *policy = NULL;
    char *sentence = NULL;
    (void)state;
    assert_int_equal(policy_load("/nonexistent/policy", &policy, &sentence), -ENOENT);
    assert_non_null(sentence);
    free(sentence);
    assert_int_equal(policy_load("/", &policy, &sentence), -EISDIR);
    free(sentence);
    int fd = mkstemp(path);
    assert_int_equal(write(fd, office, sizeof office - 1), sizeof office - 1);
    assert_int_equal(policy_load(path, &policy, &sentence), 0);
    assert_true(may(policy, "ci-1", POLICY_ACQUIRE, "deploy"));
    policy_free(policy);
    policy = NULL;
    assert_int_equal(ftruncate(fd, POLICY_BYTES_MAX + 1), 0);
    assert_int_equal(policy_load(path, &policy, &sentence), -EINVAL);
    assert_non_null(strstr(sentence, "1 MiB"));
    free(sentence);
    close(fd);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decisions),    cmocka_unit_test(test_roles_of_tokens),
        cmocka_unit_test(test_explanations), cmocka_unit_test(test_nothing_allows_nothing),
        cmocka_unit_test(test_strict),       cmocka_unit_test(test_many_roles),
        cmocka_unit_test(test_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
