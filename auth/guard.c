#include "auth/guard.h"

#include "auth/jwt.h"
#include "auth/token_cache.h"
#include "raftstore/base/buf.h"
#include "raftstore/base/log.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define TOKENS_MAX    4096  /* Remembered; a few kilobytes each at most. */
#define SUBJECTS_MAX  16384 /* Buckets. */
#define OWNERS_MAX    65536 /* */
#define FAILED_MAX    65536 /* */
#define NO_KEYS_RETRY 5     /* Seconds. */

/* The subject is the token's, or nobody's. */
struct guard_caller {
    unsigned n_refs;
    struct token *token; /* A reference; NULL without tokens. */
    uint32_t leeway_s;
};

struct guard {
    uv_loop_t *loop;
    struct guard_config config;
    struct jwks_source *keys; /* NULL without tokens. */
    struct token_cache *tokens;
    struct policy *policy;
    struct rate_table *subjects; /* NULL = no limit. */
    struct rate_table *owners;   /* Likewise. */
    struct rate_table *failed;   /* Likewise. */
    struct guard_counts counts;
    struct buf key; /* Scratch: an owner's bucket. */
    uv_work_t work; /* Reading the policy again. */
    bool works;
    bool again; /* And once more. */
    bool closing;
    bool keys_closed;
    struct policy *read; /* The worker's: what it read, or why not. */
    char *sentence;      /* */
    void (*closed)(void *arg);
    void *closed_arg;
};

/* ---- Life ------------------------------------------------------------------------------ */

static void free_guard(struct guard *g)
{
    token_cache_free(g->tokens);
    policy_free(g->policy);
    rate_table_free(g->subjects);
    rate_table_free(g->owners);
    rate_table_free(g->failed);
    buf_deinit(&g->key);
    free(g);
}

static int open_policy(struct guard *g, char **ret_sentence)
{
    char *why = NULL;
    if (policy_load(g->config.policy, &g->policy, &why) == 0)
        return 0;
    struct buf sentence = BUF_INIT;
    buf_printf(&sentence, "policy %s: %s", g->config.policy, why);
    buf_add(&sentence, "", 1);
    free(why);
    *ret_sentence = (char *)sentence.data;
    return -EINVAL;
}

static int open_keys(struct guard *g, char **ret_sentence)
{
    struct jwks_source_config config = {
        .location = g->config.jwks,
        .ca_file = g->config.jwks_ca,
        .refresh_ms = g->config.jwks_refresh_ms,
        .clock = g->config.clock,
    };
    char *why = NULL;
    if (jwks_source_open(g->loop, &config, &g->keys, &why) == 0)
        return 0;
    struct buf sentence = BUF_INIT;
    buf_printf(&sentence, "keys %s: %s", g->config.jwks, why);
    buf_add(&sentence, "", 1);
    free(why);
    *ret_sentence = (char *)sentence.data;
    return -EINVAL;
}

int guard_open(uv_loop_t *loop,
               const struct guard_config *config,
               struct guard **ret_guard,
               char **ret_sentence)
{
    struct guard *g = xcalloc(1, sizeof *g);
    g->loop = loop;
    g->config = *config;
    g->tokens = token_cache_new(TOKENS_MAX);
    if (config->subject.number > 0)
        g->subjects = rate_table_new(&config->subject, SUBJECTS_MAX);
    if (config->owner.number > 0)
        g->owners = rate_table_new(&config->owner, OWNERS_MAX);
    if (config->failed.number > 0 && config->jwks != NULL)
        g->failed = rate_table_new(&config->failed, FAILED_MAX);
    int result = config->jwks != NULL ? open_policy(g, ret_sentence) : 0;
    if (result == 0 && config->jwks != NULL)
        result = open_keys(g, ret_sentence);
    if (result < 0) {
        free_guard(g);
        return result;
    }
    *ret_guard = g;
    return 0;
}

static void finish_close(struct guard *g)
{
    if (!g->keys_closed || g->works)
        return;
    void (*closed)(void *) = g->closed;
    void *arg = g->closed_arg;
    free_guard(g);
    closed(arg);
}

static void on_keys_closed(void *arg)
{
    struct guard *g = arg;
    g->keys = NULL;
    g->keys_closed = true;
    finish_close(g);
}

void guard_close(struct guard *guard, void (*closed)(void *arg), void *arg)
{
    guard->closing = true;
    guard->closed = closed;
    guard->closed_arg = arg;
    if (guard->keys != NULL)
        jwks_source_close(guard->keys, on_keys_closed, guard);
    else
        on_keys_closed(guard);
}

/* ---- Reading the policy again ---------------------------------------------------------- */

static void on_work(uv_work_t *work)
{
    struct guard *g = work->data;
    (void)policy_load(g->config.policy, &g->read, &g->sentence); /* g->read tells. */
}

static void begin_reload(struct guard *g);

static void on_worked(uv_work_t *work, int status)
{
    struct guard *g = work->data;
    const char *file = log_quote(bytes_str(g->config.policy));
    (void)status; /* Never cancelled by uv_cancel(). */
    g->works = false;
    if (g->read != NULL) {
        policy_free(g->policy);
        g->policy = g->read;
        g->read = NULL;
        LOG_INFO("the policy was read again", "file=%s", file);
    } else {
        LOG_ERROR("the policy stays as it was", "file=%s why=%s", file,
                  log_quote(bytes_str(g->sentence)));
    }
    if (g->config.on_policy != NULL && !g->closing)
        g->config.on_policy(g->config.arg, g->sentence);
    free(g->sentence);
    g->sentence = NULL;
    if (g->closing)
        finish_close(g);
    else if (g->again)
        begin_reload(g);
}

static void begin_reload(struct guard *g)
{
    g->again = g->works;
    if (g->works)
        return;
    g->works = true;
    g->work.data = g;
    int result = uv_queue_work(g->loop, &g->work, on_work, on_worked);
    assert(result == 0); /* It has no other failure than a missing function. */
}

void guard_reload(struct guard *guard)
{
    if (guard->keys == NULL || guard->closing)
        return;
    jwks_source_reload(guard->keys);
    begin_reload(guard);
}

bool guard_is_ready(const struct guard *guard)
{
    return guard->config.jwks == NULL ||
           (guard->keys != NULL && jwks_source_keys(guard->keys) != NULL);
}

/* ---- Callers --------------------------------------------------------------------------- */

static struct guard_caller *caller_new(const struct guard *g, struct token *token)
{
    struct guard_caller *caller = xcalloc(1, sizeof *caller);
    caller->n_refs = 1;
    caller->token = token;
    caller->leeway_s = g->config.leeway_s;
    return caller;
}

const char *guard_caller_subject(const struct guard_caller *caller)
{
    return caller->token != NULL ? caller->token->claims.subject : "";
}

int64_t guard_caller_end_s(const struct guard_caller *caller)
{
    return caller->token != NULL ? caller->token->claims.expires_s + caller->leeway_s : INT64_MAX;
}

struct guard_caller *guard_caller_ref(struct guard_caller *caller)
{
    caller->n_refs++;
    return caller;
}

void guard_caller_unref(struct guard_caller *caller)
{
    if (caller == NULL || --caller->n_refs > 0)
        return;
    token_unref(caller->token);
    free(caller);
}

/* ---- Questions ------------------------------------------------------------------------- */

/* A refusal with a challenge (RFC 6750, section 3); no error in it if no token came (3.1). */
static int
challenge(struct guard_refusal *r, unsigned status, const char *error, const char *detail)
{
    *r = (struct guard_refusal){.status = status, .detail = detail};
    (void)snprintf(r->challenge, sizeof r->challenge,
                   error != NULL
                       ? "Bearer realm=\"holdfast\", error=\"%s\", error_description=\"%s\""
                       : "Bearer realm=\"holdfast\"",
                   error, detail);
    return 1;
}

/* The token of "Bearer TOKEN".  Return: false: something else. */
static bool find_token(const char *authorization, struct bytes *ret)
{
    static const char scheme[] = "Bearer ";
    if (authorization == NULL || strncasecmp(authorization, scheme, sizeof scheme - 1) != 0)
        return false;
    const char *text = authorization + sizeof scheme - 1;
    text += strspn(text, " ");
    size_t size = strlen(text);
    while (size > 0 && text[size - 1] == ' ')
        size--;
    *ret = bytes_of(text, size);
    return true;
}

static int refuse_token(struct guard *g, int result, const char *reason, struct guard_refusal *r)
{
    if (result == JWT_SCOPE) {
        g->counts.denied++;
        (void)challenge(r, 403, "insufficient_scope", reason);
    } else {
        g->counts.unauthenticated++;
        (void)challenge(r, 401, "invalid_token", reason);
    }
    LOG_DEBUG("token refused", "status=%u why=%s", r->status, log_quote(bytes_str(reason)));
    return 1;
}

static int refuse_without_keys(struct guard *g, struct guard_refusal *r)
{
    g->counts.no_keys++;
    *r = (struct guard_refusal){
        .status = 503,
        .detail = "the keys to check tokens with can't be had at present",
        .retry_after_s = NO_KEYS_RETRY,
    };
    return 1;
}

/* Have too many tokens from there been refused already? */
static bool is_throttled(struct guard *g, struct bytes peer, struct guard_refusal *r)
{
    struct rate_state now;
    if (g->failed == NULL || peer.size == 0 ||
        rate_would_take(g->failed, peer, clock_mono_ns(g->config.clock), &now))
        return false;
    g->counts.throttled++;
    *r = (struct guard_refusal){
        .status = 429,
        .detail = "too many tokens from this address had to be refused",
        .retry_after_s = now.retry_after_s,
    };
    return true;
}

/* Check a token.  Return: 0; -EAGAIN: by no key that is known, while newer ones may be had; 1: it
 * is refused. */
static int check_token(struct guard *g,
                       struct bytes text,
                       struct bytes peer,
                       bool final,
                       struct token **ret_token,
                       struct guard_refusal *r)
{
    const struct jwks *keys = g->closing ? NULL : jwks_source_keys(g->keys);
    if (keys == NULL)
        return refuse_without_keys(g, r);
    const struct jwt_rules rules = {
        .issuer = g->config.issuer,
        .audience = g->config.audience,
        .scope = g->config.scope,
        .roles_claim = g->config.roles_claim,
        .strict_typ = g->config.strict_typ,
        .leeway_s = g->config.leeway_s,
        .now_s = (int64_t)(clock_wall_ns(g->config.clock) / NS_PER_S),
    };
    uint64_t generation = jwks_source_generation(g->keys);
    const char *reason = NULL;
    int result = token_cache_find(g->tokens, generation, &rules, text, ret_token, &reason);
    if (result == -ENOENT) {
        if (is_throttled(g, peer, r))
            return 1;
        result = token_cache_verify(g->tokens, keys, generation, &rules, text, ret_token, &reason);
    }
    if (result == 0)
        return 0;
    if (result == JWT_NO_KEY && !final && jwks_source_may_refetch(g->keys))
        return -EAGAIN;
    if (g->failed != NULL && peer.size > 0)
        (void)rate_take(g->failed, peer, clock_mono_ns(g->config.clock), NULL);
    return refuse_token(g, result, reason, r);
}

static int authenticate(struct guard *g,
                        const char *authorization,
                        struct bytes peer,
                        bool final,
                        struct guard_caller **ret_caller,
                        struct guard_refusal *r)
{
    struct bytes text;
    struct token *token = NULL;
    if (g->config.jwks == NULL) {
        *ret_caller = caller_new(g, NULL);
        return 0;
    }
    if (!find_token(authorization, &text)) {
        g->counts.unauthenticated++;
        return challenge(r, 401, NULL, "an access token is needed: Authorization: Bearer");
    }
    int rv = check_token(g, text, peer, final, &token, r);
    if (rv == 0)
        *ret_caller = caller_new(g, token);
    return rv;
}

int guard_look(struct guard *guard,
               const char *authorization,
               struct bytes peer,
               struct guard_caller **ret_caller,
               struct guard_refusal *ret_refusal)
{
    return authenticate(guard, authorization, peer, false, ret_caller, ret_refusal);
}

int guard_authenticate(struct guard *guard,
                       const char *authorization,
                       struct bytes peer,
                       struct jwks_waiter *waiter,
                       struct guard_caller **ret_caller,
                       struct guard_refusal *ret_refusal)
{
    int rv = authenticate(guard, authorization, peer, waiter == NULL, ret_caller, ret_refusal);
    if (rv == -EAGAIN) {
        bool waits = jwks_source_refetch(guard->keys, waiter);
        assert(waits); /* It may, a moment ago. */
    }
    return rv;
}

static bool decide(const struct guard *g,
                   const struct guard_caller *caller,
                   enum policy_verb verb,
                   struct bytes path,
                   struct buf *explanation)
{
    if (g->config.jwks == NULL)
        return true;
    const struct jwt_claims *claims = &caller->token->claims;
    struct policy_subject subject = {
        .kind = POLICY_TOKEN,
        .name = claims->subject,
        .roles = (const char *const *)claims->roles,
        .n_roles = claims->n_roles,
    };
    return policy_allows(g->policy, &subject, verb, path, explanation);
}

bool guard_allows(struct guard *guard,
                  const struct guard_caller *caller,
                  enum policy_verb verb,
                  struct bytes path,
                  struct guard_refusal *ret_refusal)
{
    if (decide(guard, caller, verb, path, NULL))
        return true;
    struct buf why = BUF_INIT;
    (void)decide(guard, caller, verb, path, &why); /* The same answer, with its reason. */
    LOG_INFO("denied", "subject=%s verb=%s path=%s why=%s",
             log_quote(bytes_str(guard_caller_subject(caller))), policy_verb_name(verb),
             log_quote(path), log_quote(bytes_of(why.data, why.size)));
    guard->counts.denied++;
    (void)challenge(ret_refusal, 403, "insufficient_scope", "the policy does not allow this");
    (void)snprintf(ret_refusal->reason, sizeof ret_refusal->reason, "%.*s", (int)why.size,
                   why.size > 0 ? (const char *)why.data : "");
    buf_deinit(&why);
    return false;
}

bool guard_sees(const struct guard *guard, const struct guard_caller *caller, struct bytes path)
{
    return decide(guard, caller, POLICY_READ, path, NULL);
}

static bool take(struct guard *g,
                 struct rate_table *table,
                 struct bytes key,
                 struct rate_state *state,
                 struct guard_refusal *ret_refusal)
{
    struct rate_state now;
    bool granted = rate_take(table, key, clock_mono_ns(g->config.clock), &now);
    *state = state->limit == 0 ? now : *rate_tighter(state, &now);
    if (granted)
        return true;
    g->counts.rate_limited++;
    *ret_refusal = (struct guard_refusal){
        .status = 429,
        .detail = table == g->owners ? "too many requests of this owner_id"
                                     : "too many requests of this subject",
        .retry_after_s = now.retry_after_s,
    };
    return false;
}

bool guard_take_subject(struct guard *guard,
                        const struct guard_caller *caller,
                        struct rate_state *state,
                        struct guard_refusal *ret_refusal)
{
    return guard->subjects == NULL ||
           take(guard, guard->subjects, bytes_str(guard_caller_subject(caller)), state,
                ret_refusal);
}

bool guard_take_owner(struct guard *guard,
                      const struct guard_caller *caller,
                      struct bytes owner_id,
                      struct rate_state *state,
                      struct guard_refusal *ret_refusal)
{
    if (guard->owners == NULL)
        return true;
    const char *subject = guard_caller_subject(caller);
    guard->key.size = 0;
    buf_add(&guard->key, subject, strlen(subject) + 1);
    buf_add(&guard->key, owner_id.data, owner_id.size);
    return take(guard, guard->owners, bytes_of(guard->key.data, guard->key.size), state,
                ret_refusal);
}

struct guard_counts guard_counts(const struct guard *guard)
{
    return guard->counts;
}
