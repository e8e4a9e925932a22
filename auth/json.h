/* Strict JSON from outside: UTF-8, no repeated names, no NUL in strings, nothing behind it. */
#ifndef HOLDFAST_AUTH_JSON_H
#define HOLDFAST_AUTH_JSON_H

#include "raftstore/base/bytes.h"

#include <jansson.h>
#include <stdbool.h>

/* Parse an object.
 *
 * @error: where and what, if it is none; or NULL.
 * Return: owned by the caller; NULL: not such an object. */
json_t *json_parse_object(struct bytes text, json_error_t *error);

/* A string member.
 *
 * Return: false: it is there, but no string (then *ret is untouched); true: *ret is its text, which
 * lives as long as the object, or NULL if there is no such member. */
bool json_get_text(const json_t *object, const char *name, const char **ret);

#endif
