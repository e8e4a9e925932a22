#include "auth/json.h"

json_t *json_parse_object(struct bytes text, json_error_t *error)
{
    json_t *value =
        json_loadb(text.data != NULL ? text.data : "", text.size, JSON_REJECT_DUPLICATES, error);
    if (value != NULL && !json_is_object(value)) {
        json_decref(value);
        if (error != NULL)
            *error = (json_error_t){.line = 1, .column = 1, .text = "not an object"};
        return NULL;
    }
    return value;
}

bool json_get_text(const json_t *object, const char *name, const char **ret)
{
    const json_t *value = json_object_get(object, name);
    if (value != NULL && !json_is_string(value))
        return false;
    *ret = value != NULL ? json_string_value(value) : NULL;
    return true;
}
