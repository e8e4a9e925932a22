#include "auth/jwt.h"

#include "auth/json.h"
#include "raftstore/base/buf.h"

#include <math.h>
#include <stdlib.h>
#include <strings.h>

/* Beyond this no double is exact, and no date makes sense. */
#define DATE_S_MAX 9007199254740991.0

/* "typ" (RFC 9068, 2.1 and 4; RFC 7515, 4.1.9: "application/" may be left out, case is ignored). */
static const char *check_typ(const char *typ, bool strict)
{
    if (typ == NULL)
        return strict ? "the token has no type (at+jwt is wanted)" : NULL;
    if (strncasecmp(typ, "application/", 12) == 0)
        typ += 12;
    if (strcasecmp(typ, "at+jwt") == 0 || (!strict && strcasecmp(typ, "JWT") == 0))
        return NULL;
    return "not an access token, by its type";
}

/* A NumericDate.  Return: false: it is there but none. */
static bool get_date(const json_t *claims, const char *name, bool *ret_given, int64_t *ret_s)
{
    const json_t *value = json_object_get(claims, name);
    *ret_given = value != NULL;
    if (value == NULL)
        return true;
    if (!json_is_number(value))
        return false;
    double s = json_number_value(value);
    if (!(fabs(s) <= DATE_S_MAX))
        return false;
    *ret_s = (int64_t)floor(s);
    return true;
}

static bool array_has(const json_t *array, const char *want)
{
    size_t i;
    const json_t *value;
    bool has = false;
    json_array_foreach(array, i, value)
    {
        if (!json_is_string(value))
            return false;
        has = has || strcmp(json_string_value(value), want) == 0;
    }
    return has;
}

static const char *check_parties(const json_t *claims, const struct jwt_rules *rules)
{
    const char *issuer = json_string_value(json_object_get(claims, "iss"));
    if (issuer == NULL || strcmp(issuer, rules->issuer) != 0)
        return "the issuer is not the one trusted";
    const json_t *aud = json_object_get(claims, "aud");
    bool ok = json_is_string(aud) ? strcmp(json_string_value(aud), rules->audience) == 0
                                  : array_has(aud, rules->audience);
    return ok ? NULL : "the token is for another audience";
}

static const char *
read_dates(const json_t *claims, const struct jwt_rules *rules, struct jwt_claims *ret)
{
    bool given = false;
    int64_t issued_s = 0;
    if (!get_date(claims, "exp", &given, &ret->expires_s) || !given)
        return "the token has no proper expiry";
    if (!get_date(claims, "nbf", &given, &ret->starts_s))
        return "nbf is not a date";
    if (!given)
        ret->starts_s = INT64_MIN;
    if (!get_date(claims, "iat", &given, &issued_s))
        return "iat is not a date";
    if (given && issued_s > rules->now_s + rules->leeway_s)
        return "the token was issued in the future";
    return NULL;
}

static const char *read_subject(const json_t *claims, struct jwt_claims *ret)
{
    const char *subject = json_string_value(json_object_get(claims, "sub"));
    if (subject == NULL || subject[0] == '\0')
        return "the token names no subject";
    if (strlen(subject) > JWT_SUBJECT_BYTES_MAX)
        return "the subject is too long";
    for (const char *c = subject; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F)
            return "the subject has control characters";
    ret->subject = xstrdup(subject);
    const char *client = json_string_value(json_object_get(claims, "client_id"));
    if (client == NULL)
        client = json_string_value(json_object_get(claims, "azp"));
    ret->client = client != NULL ? xstrdup(client) : NULL;
    return NULL;
}

/* A list of texts, growing one by one. */
static void list_add(char ***list, size_t *n, const char *text, size_t size)
{
    *list = xrealloc(*list, (*n + 1) * sizeof **list);
    char *copy = xmalloc(size + 1);
    memcpy(copy, text, size);
    copy[size] = '\0';
    (*list)[(*n)++] = copy;
}

static void list_add_words(char ***list, size_t *n, const char *text)
{
    while (*text != '\0') {
        size_t size = strcspn(text, " ");
        if (size > 0)
            list_add(list, n, text, size);
        text += size + (text[size] == ' ');
    }
}

/* Strings of an array, or one string, as a whole or word by word.  Return: false: neither. */
static bool list_read(const json_t *value, bool words, char ***list, size_t *n)
{
    if (json_is_string(value)) {
        const char *text = json_string_value(value);
        if (words)
            list_add_words(list, n, text);
        else
            list_add(list, n, text, strlen(text));
        return true;
    }
    if (!json_is_array(value))
        return false;
    size_t i;
    const json_t *item;
    json_array_foreach(value, i, item)
    {
        if (!json_is_string(item))
            return false;
        list_add(list, n, json_string_value(item), json_string_length(item));
    }
    return true;
}

/* One step of a JSON pointer (RFC 6901): "~1" is '/', "~0" is '~'.  Return: what is behind it. */
static const char *pointer_step(const char *text, struct buf *name)
{
    for (; *text != '\0' && *text != '/'; text++) {
        char c = *text;
        if (c == '~' && (text[1] == '0' || text[1] == '1'))
            c = *++text == '0' ? '~' : '/';
        buf_add(name, &c, 1);
    }
    return text;
}

static const char *dotted_step(const char *text, struct buf *name)
{
    size_t size = strcspn(text, ".");
    buf_add(name, text, size);
    return text + size;
}

/* Return: the value a claim's path leads to; NULL: none. */
static const json_t *find_claim(const json_t *claims, const char *path)
{
    const json_t *value = json_object_get(claims, path);
    if (value != NULL)
        return value;
    bool pointer = path[0] == '/';
    value = claims;
    const char *rest = pointer ? path + 1 : path;
    for (;;) {
        struct buf name = BUF_INIT;
        rest = pointer ? pointer_step(rest, &name) : dotted_step(rest, &name);
        buf_add(&name, "", 1);
        value = json_object_get(value, (const char *)name.data);
        buf_deinit(&name);
        if (value == NULL || *rest == '\0')
            return value;
        rest++;
    }
}

/* Roles that can't be read are no reason to go on without them: a deny may hang on one. */
static const char *read_lists(const json_t *claims, const char *roles_claim, struct jwt_claims *ret)
{
    const json_t *scope = json_object_get(claims, "scope");
    if (scope != NULL &&
        (!json_is_string(scope) || !list_read(scope, true, &ret->scopes, &ret->n_scopes)))
        return "scope is not a string";
    const json_t *scp = json_object_get(claims, "scp");
    if (scp != NULL && !list_read(scp, true, &ret->scopes, &ret->n_scopes))
        return "scp is not a string or an array of strings";
    if (roles_claim == NULL)
        return NULL;
    const json_t *roles = find_claim(claims, roles_claim);
    bool words = strcmp(roles_claim, "scope") == 0 || strcmp(roles_claim, "scp") == 0;
    if (roles != NULL && !list_read(roles, words, &ret->roles, &ret->n_roles))
        return "the roles are not a string or an array of strings";
    return NULL;
}

static const char *
read_claims(const json_t *claims, const struct jwt_rules *rules, struct jwt_claims *ret)
{
    const char *wrong = check_parties(claims, rules);
    if (wrong == NULL)
        wrong = read_dates(claims, rules, ret);
    if (wrong == NULL)
        wrong = read_subject(claims, ret);
    if (wrong == NULL)
        wrong = read_lists(claims, rules->roles_claim, ret);
    return wrong;
}

int jwt_check_time(const struct jwt_claims *claims,
                   const struct jwt_rules *rules,
                   const char **ret_reason)
{
    int64_t leeway_s = rules->leeway_s;
    *ret_reason = NULL;
    if (claims->expires_s + leeway_s <= rules->now_s)
        *ret_reason = "the token has expired";
    else if (claims->starts_s != INT64_MIN && claims->starts_s - leeway_s > rules->now_s)
        *ret_reason = "the token is not valid yet";
    return *ret_reason == NULL ? 0 : JWT_INVALID;
}

static int verify_payload(const struct jwt_rules *rules,
                          struct bytes payload,
                          struct jwt_claims *claims,
                          const char **ret_reason)
{
    json_t *root = json_parse_object(payload, NULL);
    if (root == NULL) {
        *ret_reason = "the payload is not a JSON object";
        return JWT_INVALID;
    }
    *ret_reason = read_claims(root, rules, claims);
    json_decref(root);
    if (*ret_reason != NULL)
        return JWT_INVALID;
    int result = jwt_check_time(claims, rules, ret_reason);
    if (result == 0 && rules->scope != NULL && !jwt_has_scope(claims, rules->scope)) {
        *ret_reason = "the token lacks the scope that is needed";
        result = JWT_SCOPE;
    }
    return result;
}

int jwt_verify(const struct jwks *keys,
               const struct jwt_rules *rules,
               struct bytes token,
               struct jwt_claims *ret_claims,
               const char **ret_reason)
{
    struct buf payload = BUF_INIT;
    char *typ = NULL;
    int result = jws_verify(keys, token, &payload, &typ, ret_reason);
    if (result == 0) {
        struct jwt_claims claims = {0};
        *ret_reason = check_typ(typ, rules->strict_typ);
        result = *ret_reason != NULL ? JWT_INVALID
                                     : verify_payload(rules, bytes_of(payload.data, payload.size),
                                                      &claims, ret_reason);
        if (result == 0)
            *ret_claims = claims;
        else
            jwt_claims_deinit(&claims);
        free(typ);
    } else {
        result = result == JWS_NO_KEY ? JWT_NO_KEY : JWT_INVALID;
    }
    buf_deinit(&payload);
    return result;
}

static void list_free(char **list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(list[i]);
    free(list);
}

void jwt_claims_deinit(struct jwt_claims *claims)
{
    free(claims->subject);
    free(claims->client);
    list_free(claims->scopes, claims->n_scopes);
    list_free(claims->roles, claims->n_roles);
    *claims = (struct jwt_claims){0};
}

bool jwt_has_scope(const struct jwt_claims *claims, const char *scope)
{
    for (size_t i = 0; i < claims->n_scopes; i++)
        if (strcmp(claims->scopes[i], scope) == 0)
            return true;
    return false;
}
