/* Unit tests of auth/guard.c: the parts together, on a loop, with keys and policy in files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "auth/guard.h"
#include "auth/jwks_fetch.h"
#include "tests/unit/made_tokens.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define POLICY(path)                                                                               \
    "{\"version\":1,\"roles\":{"                                                                   \
    "\"deployer\":{\"allow\":[{\"verbs\":[\"acquire\",\"read\"],\"paths\":[\"" path "\"]}]}}}"

struct rig {
    uv_loop_t loop;
    struct guard *guard;
    struct guard_config config;
    struct jwks_waiter waiter;
    int n_woken;
    bool closed;
    char keys[64];
    char policy[64];
};

static uint64_t mono_ns, wall_ns;
static uint64_t fake_mono_ns(const struct clock *c)
{
    (void)c;
    return mono_ns;
}
static uint64_t fake_wall_ns(const struct clock *c)
{
    (void)c;
    return wall_ns;
}
static const struct clock fake_clock = {.mono_ns = fake_mono_ns, .wall_ns = fake_wall_ns};

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void write_keys(struct rig *rig, const char *name)
{
    char *text = made_keys(name);
    write_file(rig->keys, text);
    free(text);
}

static void on_woken(struct jwks_waiter *waiter)
{
    ((struct rig *)((char *)waiter - offsetof(struct rig, waiter)))->n_woken++;
}

static void on_closed(void *arg)
{
    ((struct rig *)arg)->closed = true;
}

static void rig_prepare(struct rig *rig)
{
    mono_ns = 1000 * NS_PER_S;
    wall_ns = (uint64_t)MADE_NOW_S * NS_PER_S;
    assert_int_equal(uv_loop_init(&rig->loop), 0);
    rig->waiter.fn = on_woken;
    (void)snprintf(rig->keys, sizeof rig->keys, "/tmp/holdfast-guard-keys-%d", (int)getpid());
    (void)snprintf(rig->policy, sizeof rig->policy, "/tmp/holdfast-guard-policy-%d", (int)getpid());
    rig->config.jwks = rig->keys;
    rig->config.policy = rig->policy;
    rig->config.issuer = "https://issuer.example";
    rig->config.audience = "holdfast";
    rig->config.scope = "locks";
    rig->config.roles_claim = "realm_access.roles";
    rig->config.leeway_s = 30;
    rig->config.clock = &fake_clock;
    write_keys(rig, "rotated");
    write_file(rig->policy, POLICY("/deploy"));
}

static void rig_open(struct rig *rig)
{
    char *sentence = NULL;
    if (guard_open(&rig->loop, &rig->config, &rig->guard, &sentence) < 0)
        fail_msg("%s", sentence);
}

static void rig_close(struct rig *rig)
{
    guard_close(rig->guard, on_closed, rig);
    while (!rig->closed)
        (void)uv_run(&rig->loop, UV_RUN_ONCE);
    (void)uv_run(&rig->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
    unlink(rig->keys);
    unlink(rig->policy);
}

/* Enter with a token from an address.  Return: as guard_authenticate(). */
static int enter_from(struct rig *rig,
                      const char *peer,
                      const char *name,
                      struct guard_caller **caller,
                      struct guard_refusal *r)
{
    struct buf header = BUF_INIT;
    *r = (struct guard_refusal){0};
    buf_printf(&header, "Bearer %s", (const char *)made_token(name).data);
    buf_add(&header, "", 1);
    int result = guard_authenticate(rig->guard, (char *)header.data, bytes_str(peer), &rig->waiter,
                                    caller, r);
    buf_deinit(&header);
    return result;
}

static int
enter(struct rig *rig, const char *name, struct guard_caller **caller, struct guard_refusal *r)
{
    return enter_from(rig, "", name, caller, r);
}

static void check_refused(struct rig *rig, const char *name, unsigned status, const char *error)
{
    struct guard_caller *caller = NULL;
    struct guard_refusal r;
    char want[64];
    assert_int_equal(enter(rig, name, &caller, &r), 1);
    assert_null(caller);
    assert_int_equal(r.status, status);
    assert_non_null(r.detail);
    (void)snprintf(want, sizeof want, "Bearer realm=\"holdfast\", error=\"%s\"", error);
    if (strncmp(r.challenge, want, strlen(want)) != 0)
        fail_msg("%s: %s", name, r.challenge);
    assert_null(strchr(r.challenge, '\n'));
}

static void test_entering(void **state)
{
    static const char *const no_token[] = {NULL, "", "Basic YTpi", "Bearer", "bearer", "Bearer: x"};
    struct rig rig = {0};
    struct guard_caller *caller = NULL;
    struct guard_refusal r;
    (void)state;
    rig_prepare(&rig);
    rig_open(&rig);
    assert_true(guard_is_ready(rig.guard));
    for (size_t i = 0; i < sizeof no_token / sizeof no_token[0]; i++) {
        assert_int_equal(
            guard_authenticate(rig.guard, no_token[i], bytes_str(""), NULL, &caller, &r), 1);
        assert_int_equal(r.status, 401);
        /* RFC 6750, 3.1: without a token no error is told. */
        assert_string_equal(r.challenge, "Bearer realm=\"holdfast\"");
    }
    assert_int_equal(guard_authenticate(rig.guard, "Bearer ", bytes_str(""), NULL, &caller, &r), 1);
    assert_int_equal(r.status, 401);
    check_refused(&rig, "none", 401, "invalid_token");
    check_refused(&rig, "thief", 401, "invalid_token");
    check_refused(&rig, "exp_over", 401, "invalid_token");
    check_refused(&rig, "scope_none", 403, "insufficient_scope");
    for (int i = 0; i < 2; i++) { /* The second time it is known. */
        assert_int_equal(enter(&rig, "rs256", &caller, &r), 0);
        assert_string_equal(guard_caller_subject(caller), "ci");
        assert_int_equal(guard_caller_end_s(caller), MADE_NOW_S + 330);
        guard_caller_unref(caller);
        caller = NULL;
    }
    struct buf header = BUF_INIT;
    buf_printf(&header, "bEARER   %s  ", (const char *)made_token("es256").data);
    buf_add(&header, "", 1);
    assert_int_equal(
        guard_authenticate(rig.guard, (char *)header.data, bytes_str(""), NULL, &caller, &r), 0);
    buf_deinit(&header);
    assert_int_equal(guard_counts(rig.guard).unauthenticated, 6 + 1 + 3);
    assert_int_equal(guard_counts(rig.guard).denied, 1);
    /* A caller outlives the guard. */
    rig_close(&rig);
    assert_string_equal(guard_caller_subject(caller), "ci");
    assert_ptr_equal(guard_caller_ref(caller), caller);
    guard_caller_unref(caller);
    guard_caller_unref(caller);
    guard_caller_unref(NULL);
}

/* Who sends too many bad tokens is not heard any more: not even with a good one, if it is new. */
static void test_failures(void **state)
{
    struct rig rig = {0};
    struct guard_caller *caller = NULL;
    struct guard_refusal r;
    (void)state;
    rig_prepare(&rig);
    rig.config.failed = (struct rate_limit){.number = 1, .period_ns = 10 * NS_PER_S, .burst = 2};
    rig_open(&rig);
    assert_int_equal(enter_from(&rig, "a", "rs256", &caller, &r), 0);
    guard_caller_unref(caller);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(enter_from(&rig, "a", "thief", &caller, &r), 1);
        assert_int_equal(r.status, 401);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(enter_from(&rig, "a", i == 0 ? "es256" : "thief", &caller, &r), 1);
        assert_true(r.status == 429 && r.retry_after_s == 10 && r.challenge[0] == '\0');
    }
    assert_int_equal(guard_counts(rig.guard).throttled, 3);
    assert_int_equal(guard_counts(rig.guard).unauthenticated, 2);
    /* A token that was found good before; another address; one that is not known. */
    assert_int_equal(enter_from(&rig, "a", "rs256", &caller, &r), 0);
    guard_caller_unref(caller);
    assert_int_equal(enter_from(&rig, "b", "es256", &caller, &r), 0);
    guard_caller_unref(caller);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(enter_from(&rig, "", "thief", &caller, &r), 1);
        assert_int_equal(r.status, 401);
    }
    /* It passes. */
    mono_ns += 10 * NS_PER_S;
    assert_int_equal(enter_from(&rig, "a", "eddsa", &caller, &r), 0);
    guard_caller_unref(caller);
    assert_int_equal(enter_from(&rig, "a", "scope_none", &caller, &r), 1);
    assert_int_equal(r.status, 403);
    assert_int_equal(enter_from(&rig, "a", "thief", &caller, &r), 1);
    assert_int_equal(r.status, 429);
    rig_close(&rig);
}

/* What is known when only the head has come. */
static void test_look(void **state)
{
    struct rig rig = {0};
    struct guard_caller *caller = NULL;
    struct guard_refusal r;
    struct buf header = BUF_INIT;
    static const struct {
        const char *name;
        int result;
    } looks[] = {{"rs256", 0}, {"thief", 1}, {"kid_unknown", -EAGAIN}, {"exp_over", 1}};
    (void)state;
    rig_prepare(&rig);
    rig_open(&rig);
    for (size_t i = 0; i < sizeof looks / sizeof looks[0]; i++) {
        header.size = 0;
        buf_printf(&header, "Bearer %s", (const char *)made_token(looks[i].name).data);
        buf_add(&header, "", 1);
        assert_int_equal(guard_look(rig.guard, (char *)header.data, bytes_str(""), &caller, &r),
                         looks[i].result);
    }
    assert_string_equal(guard_caller_subject(caller), "ci");
    guard_caller_unref(caller);
    assert_int_equal(guard_look(rig.guard, NULL, bytes_str(""), &caller, &r), 1);
    assert_int_equal(rig.n_woken, 0);
    buf_deinit(&header);
    rig_close(&rig);
}

/* RFC 9068: access tokens only, by their type. */
static void test_strict(void **state)
{
    struct rig rig = {0};
    struct guard_caller *caller = NULL;
    struct guard_refusal r;
    (void)state;
    rig_prepare(&rig);
    rig_open(&rig);
    assert_int_equal(enter(&rig, "typ_jwt", &caller, &r), 0);
    guard_caller_unref(caller);
    rig_close(&rig);
    rig = (struct rig){0};
    rig_prepare(&rig);
    rig.config.strict_typ = true;
    rig_open(&rig);
    caller = NULL;
    check_refused(&rig, "typ_jwt", 401, "invalid_token");
    check_refused(&rig, "typ_none", 401, "invalid_token");
    assert_int_equal(enter(&rig, "typ_long", &caller, &r), 0);
    guard_caller_unref(caller);
    rig_close(&rig);
}

static void test_rotation(void **state)
{
    struct rig rig = {0};
    struct guard_caller *caller = NULL;
    struct guard_refusal r;
    (void)state;
    rig_prepare(&rig);
    rig_open(&rig);
    /* A key that is not known: wait for newer keys, which have it. */
    write_keys(&rig, "jwks");
    assert_int_equal(enter(&rig, "rotated_out", &caller, &r), -EAGAIN);
    while (rig.n_woken == 0)
        (void)uv_run(&rig.loop, UV_RUN_ONCE);
    assert_int_equal(enter(&rig, "rotated_out", &caller, &r), 0);
    guard_caller_unref(caller);
    caller = NULL;
    /* Another that is not known, soon after: no. */
    check_refused(&rig, "kid_unknown", 401, "invalid_token");
    /* One that was let in is not let in any more when its key is gone. */
    write_keys(&rig, "rotated");
    mono_ns += 10 * NS_PER_S;
    assert_int_equal(enter(&rig, "kid_unknown", &caller, &r), -EAGAIN);
    while (rig.n_woken == 1)
        (void)uv_run(&rig.loop, UV_RUN_ONCE);
    check_refused(&rig, "rotated_out", 401, "invalid_token");
    /* Keys that can't be confirmed any more let nobody in. */
    assert_int_equal(enter(&rig, "rs256", &caller, &r), 0);
    guard_caller_unref(caller);
    caller = NULL;
    mono_ns += UINT64_C(25) * 3600 * NS_PER_S;
    assert_int_equal(enter(&rig, "rs256", &caller, &r), 1);
    assert_true(r.status == 503 && r.retry_after_s > 0 && r.challenge[0] == '\0');
    assert_false(guard_is_ready(rig.guard));
    rig_close(&rig);
}

static bool
allows(struct rig *rig, struct guard_caller *caller, enum policy_verb verb, const char *path)
{
    struct guard_refusal r = {0};
    bool allowed = guard_allows(rig->guard, caller, verb, bytes_str(path), &r);
    assert_int_equal(r.status, allowed ? 0 : 403);
    if (!allowed)
        assert_non_null(strstr(r.challenge, "insufficient_scope"));
    return allowed;
}

static void reload(struct rig *rig, struct guard_caller *caller, const char *path, bool until)
{
    guard_reload(rig->guard);
    while (guard_sees(rig->guard, caller, bytes_str(path)) != until)
        (void)uv_run(&rig->loop, UV_RUN_ONCE);
}

static void test_policy(void **state)
{
    struct rig rig = {0};
    struct guard_caller *caller = NULL;
    struct guard_caller *none = NULL;
    struct guard_refusal r;
    (void)state;
    rig_prepare(&rig);
    rig_open(&rig);
    assert_int_equal(enter(&rig, "rs256", &caller, &r), 0);
    assert_int_equal(enter(&rig, "roles_none", &none, &r), 0);
    assert_true(allows(&rig, caller, POLICY_ACQUIRE, "deploy/a"));
    assert_false(allows(&rig, caller, POLICY_BREAK, "deploy/a"));
    assert_false(allows(&rig, caller, POLICY_ACQUIRE, "jobs/a"));
    assert_false(allows(&rig, none, POLICY_ACQUIRE, "deploy/a"));
    assert_true(guard_sees(rig.guard, caller, bytes_str("deploy")));
    assert_false(guard_sees(rig.guard, none, bytes_str("deploy")));
    assert_int_equal(guard_counts(rig.guard).denied, 3);
    /* Read again, off the loop; for those who are in already, too. */
    write_file(rig.policy, POLICY("/jobs"));
    assert_false(guard_sees(rig.guard, caller, bytes_str("jobs")));
    reload(&rig, caller, "jobs", true);
    assert_false(allows(&rig, caller, POLICY_ACQUIRE, "deploy/a"));
    /* A bad one changes nothing; several at once are fine, as is an end in the middle. */
    write_file(rig.policy, "{\"version\":1,\"roles\":{},\"x\":1}");
    guard_reload(rig.guard);
    guard_reload(rig.guard);
    for (int i = 0; i < 20; i++)
        (void)uv_run(&rig.loop, UV_RUN_NOWAIT);
    assert_true(guard_sees(rig.guard, caller, bytes_str("jobs")));
    write_file(rig.policy, POLICY("/x"));
    reload(&rig, caller, "x", true);
    guard_reload(rig.guard);
    guard_caller_unref(caller);
    guard_caller_unref(none);
    rig_close(&rig);
}

static void test_rates(void **state)
{
    struct rig rig = {0};
    struct guard_caller *caller = NULL;
    struct guard_refusal r = {0};
    struct rate_state s = {0};
    (void)state;
    rig_prepare(&rig);
    rig.config.subject = (struct rate_limit){.number = 1, .period_ns = NS_PER_S, .burst = 3};
    rig.config.owner = (struct rate_limit){.number = 1, .period_ns = 10 * NS_PER_S, .burst = 1};
    rig_open(&rig);
    assert_int_equal(enter(&rig, "rs256", &caller, &r), 0);
    assert_true(guard_take_subject(rig.guard, caller, &s, &r));
    assert_true(s.limit == 3 && s.remaining == 2);
    assert_true(guard_take_owner(rig.guard, caller, bytes_str("me"), &s, &r));
    assert_true(s.limit == 1 && s.remaining == 0 && s.reset_s == 10); /* The tighter one. */
    assert_false(guard_take_owner(rig.guard, caller, bytes_str("me"), &s, &r));
    assert_true(r.status == 429 && r.retry_after_s == 10 && r.challenge[0] == '\0');
    assert_true(guard_take_owner(rig.guard, caller, bytes_str("you"), &s, &r));
    /* Another subject's owner of the same name has its own. */
    struct guard_caller *other = NULL;
    assert_int_equal(enter(&rig, "sub_utf8", &other, &r), 0);
    assert_true(guard_take_owner(rig.guard, other, bytes_str("me"), &s, &r));
    s = (struct rate_state){0};
    assert_true(guard_take_subject(rig.guard, caller, &s, &r));
    assert_true(guard_take_subject(rig.guard, caller, &s, &r));
    assert_false(guard_take_subject(rig.guard, caller, &s, &r));
    assert_true(r.status == 429 && r.retry_after_s == 1);
    assert_true(guard_take_subject(rig.guard, other, &s, &r));
    mono_ns += NS_PER_S;
    assert_true(guard_take_subject(rig.guard, caller, &s, &r));
    assert_int_equal(guard_counts(rig.guard).rate_limited, 2);
    guard_caller_unref(caller);
    guard_caller_unref(other);
    rig_close(&rig);
}

static void test_without_tokens(void **state)
{
    struct rig rig = {0};
    struct guard_caller *caller = NULL;
    struct guard_refusal r = {0};
    struct rate_state s = {0};
    (void)state;
    rig_prepare(&rig);
    rig.config.jwks = NULL;
    rig.config.policy = NULL;
    rig.config.owner = (struct rate_limit){.number = 1, .period_ns = 10 * NS_PER_S, .burst = 1};
    rig_open(&rig);
    guard_reload(rig.guard);
    assert_true(guard_is_ready(rig.guard));
    assert_int_equal(guard_authenticate(rig.guard, NULL, bytes_str(""), NULL, &caller, &r), 0);
    assert_string_equal(guard_caller_subject(caller), "");
    assert_true(guard_caller_end_s(caller) == INT64_MAX);
    assert_true(allows(&rig, caller, POLICY_ADMIN, ""));
    assert_true(guard_sees(rig.guard, caller, bytes_str("x")));
    assert_true(guard_take_subject(rig.guard, caller, &s, &r));
    assert_int_equal(s.limit, 0);
    assert_true(guard_take_owner(rig.guard, caller, bytes_str("a"), &s, &r));
    assert_false(guard_take_owner(rig.guard, caller, bytes_str("a"), &s, &r));
    guard_caller_unref(caller);
    rig_close(&rig);
}

static void test_bad_start(void **state)
{
    struct rig rig = {0};
    char *sentence = NULL;
    (void)state;
    rig_prepare(&rig);
    write_file(rig.policy, "{}");
    assert_int_equal(guard_open(&rig.loop, &rig.config, &rig.guard, &sentence), -EINVAL);
    assert_non_null(strstr(sentence, rig.policy));
    free(sentence);
    write_file(rig.policy, POLICY("/"));
    write_file(rig.keys, "{}");
    assert_int_equal(guard_open(&rig.loop, &rig.config, &rig.guard, &sentence), -EINVAL);
    assert_non_null(strstr(sentence, rig.keys));
    free(sentence);
    rig.config.jwks = "http://issuer.example/keys";
    assert_int_equal(guard_open(&rig.loop, &rig.config, &rig.guard, &sentence), -EINVAL);
    assert_non_null(strstr(sentence, "https"));
    free(sentence);
    assert_int_equal(uv_loop_close(&rig.loop), 0);
    unlink(rig.keys);
    unlink(rig.policy);
}

static int load(void **state)
{
    jwks_fetch_init();
    return made_tokens_load(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entering),  cmocka_unit_test(test_failures),
        cmocka_unit_test(test_look),      cmocka_unit_test(test_strict),
        cmocka_unit_test(test_rotation),  cmocka_unit_test(test_policy),
        cmocka_unit_test(test_rates),     cmocka_unit_test(test_without_tokens),
        cmocka_unit_test(test_bad_start),
    };
    return cmocka_run_group_tests(tests, load, made_tokens_free);
}
