#include "gateway/fields.h"

#include "gateway/lockid.h"
#include "raftstore/wire/codes.h"

static const char *const names[FIELDS] = {
    [FIELD_LOCK_ID] = "lock_id", [FIELD_OWNER_ID] = "owner_id",
    [FIELD_TTL] = "ttl",         [FIELD_MODE] = "mode",
    [FIELD_WAIT] = "wait",       [FIELD_LIMIT] = "limit",
    [FIELD_NOTE] = "note",       [FIELD_LOCK_DELAY] = "lock_delay",
    [FIELD_TOKEN] = "token",
};

/* A text with bounds on its bytes. */
static const char *
take_text(const json_t *v, size_t size_min, size_t size_max, struct bytes *ret, char *say, size_t n)
{
    if (!json_is_string(v))
        return "must be a string";
    *ret = bytes_of(json_string_value(v), json_string_length(v));
    if (ret->size >= size_min && ret->size <= size_max)
        return NULL;
    (void)snprintf(say, n, "must have %zu to %zu bytes, not %zu", size_min, size_max, ret->size);
    return say;
}

/* Seconds, also fractions of them. */
static const char *take_seconds(
    const json_t *v, uint64_t min_ms, uint64_t max_ms, uint64_t *ret_ms, char *say, size_t n)
{
    if (!json_is_number(v))
        return "must be a number of seconds";
    double ms = json_number_value(v) * 1000;
    if (!(ms >= (double)min_ms && ms <= (double)max_ms)) {
        (void)snprintf(say, n, "must be from %g to %g seconds", (double)min_ms / 1000,
                       (double)max_ms / 1000);
        return say;
    }
    *ret_ms = (uint64_t)(ms + 0.5);
    return NULL;
}

static const char *take_count(const json_t *v, uint64_t max, uint64_t *ret, char *say, size_t n)
{
    if (!json_is_integer(v))
        return "must be a whole number";
    json_int_t value = json_integer_value(v);
    if (value < 1 || (uint64_t)value > max) {
        (void)snprintf(say, n, "must be from 1 to %llu", (unsigned long long)max);
        return say;
    }
    *ret = (uint64_t)value;
    return NULL;
}

static const char *take_mode(const json_t *v, uint32_t *ret)
{
    const char *word = json_string_value(v);
    if (word != NULL && strcmp(word, "exclusive") == 0)
        *ret = WIRE_MODE_EXCLUSIVE;
    else if (word != NULL && strcmp(word, "shared") == 0)
        *ret = WIRE_MODE_SHARED;
    else
        return "must be \"exclusive\" or \"shared\"";
    return NULL;
}

/* Return: what is wrong with the value, or NULL. */
static const char *
take(struct fields *f, enum field field, const json_t *v, uint64_t wait_max_ms, char *say, size_t n)
{
    uint64_t count = 0;
    const char *wrong;
    switch (field) {
    case FIELD_LOCK_ID:
        wrong = take_text(v, 1, WIRE_PATH_BYTES_MAX, &f->lock_id, say, n);
        return wrong != NULL ? wrong : lockid_problem(f->lock_id);
    case FIELD_OWNER_ID:
        return take_text(v, 1, CALL_OWNER_BYTES_MAX, &f->owner_id, say, n);
    case FIELD_NOTE:
        return take_text(v, 0, WIRE_NOTE_BYTES_MAX, &f->note, say, n);
    case FIELD_TTL:
        return take_seconds(v, WIRE_TTL_MS_MIN, WIRE_TTL_MS_MAX, &f->ttl_ms, say, n);
    case FIELD_WAIT:
        return take_seconds(v, 0, wait_max_ms, &f->wait_ms, say, n);
    case FIELD_LOCK_DELAY:
        return take_seconds(v, 0, WIRE_TTL_MS_MAX, &f->lock_delay_ms, say, n);
    case FIELD_TOKEN:
        return take_count(v, INT64_MAX, &f->token, say, n);
    case FIELD_LIMIT:
        wrong = take_count(v, WIRE_SEMAPHORE_MAX, &count, say, n);
        f->limit = (uint32_t)count;
        return wrong;
    default:
        return take_mode(v, &f->mode);
    }
}

static void refuse(struct call *call, const char *field, const char *wrong)
{
    json_t *o = problem_json(&PROBLEM_BAD_REQUEST, "%s %s", field, wrong);
    (void)json_object_set_new(o, "field", json_string(field));
    call_problem_json(call, &PROBLEM_BAD_REQUEST, o);
}

static bool take_all(struct call *call, unsigned required, unsigned allowed, struct fields *f)
{
    const char *name;
    json_t *v;
    char say[100];
    json_object_foreach(f->root, name, v)
    {
        unsigned i = 0;
        while (i < FIELDS && ((allowed & FIELD_BIT(i)) == 0 || strcmp(name, names[i]) != 0))
            i++;
        const char *wrong = i == FIELDS ? "is no member of this request"
                                        : take(f, (enum field)i, v, call->gw->options->wait_max_ms,
                                               say, sizeof say);
        if (wrong != NULL) {
            refuse(call, name, wrong);
            return false;
        }
        f->present |= FIELD_BIT(i);
    }
    for (unsigned i = 0; i < FIELDS; i++) {
        if ((required & ~f->present & FIELD_BIT(i)) != 0) {
            refuse(call, names[i], "is missing");
            return false;
        }
    }
    return true;
}

bool fields_parse(struct call *call, unsigned required, unsigned optional, struct fields *ret)
{
    json_error_t error;
    struct fields f = {.mode = WIRE_MODE_EXCLUSIVE};
    if (call->body.size == 0) {
        call_problem(call, &PROBLEM_BAD_REQUEST, "there is no body: a JSON object is wanted");
        return false;
    }
    f.root =
        json_loadb((const char *)call->body.data, call->body.size, JSON_REJECT_DUPLICATES, &error);
    if (f.root == NULL) {
        call_problem(call, &PROBLEM_BAD_REQUEST, "the body is no JSON: line %d, column %d: %s",
                     error.line, error.column, error.text);
        return false;
    }
    if (!json_is_object(f.root)) {
        call_problem(call, &PROBLEM_BAD_REQUEST, "the body must be a JSON object");
        json_decref(f.root);
        return false;
    }
    if (!take_all(call, required, required | optional, &f)) {
        json_decref(f.root);
        return false;
    }
    *ret = f;
    return true;
}

void fields_deinit(struct fields *f)
{
    json_decref(f->root);
    f->root = NULL;
}
