#include "auth/json_line.h"

/* The text was parsed by libjansson before, so that only its shape is looked at here; still nothing
 * reads behind its end. */
struct reader {
    const char *p;
    const char *end;
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The next character that means something; '\0' at the end. */
static char peek(struct reader *r)
{
    while (r->p < r->end && is_space(*r->p))
        r->p++;
    return r->p < r->end ? *r->p : '\0';
}

static struct bytes take_string(struct reader *r)
{
    const char *begin = ++r->p;
    while (r->p < r->end && *r->p != '"')
        r->p += *r->p == '\\' && r->end - r->p > 1 ? 2 : 1;
    struct bytes text = bytes_of(begin, (size_t)(r->p - begin));
    if (r->p < r->end)
        r->p++;
    return text;
}

static void skip_nested(struct reader *r)
{
    size_t depth = 0;
    do {
        char c = peek(r);
        if (c == '\0')
            return;
        if (c == '"') {
            (void)take_string(r);
            continue;
        }
        depth += c == '{' || c == '[';
        depth -= c == '}' || c == ']';
        r->p++;
    } while (depth > 0);
}

/* Behind the value that begins here. */
static void skip_value(struct reader *r)
{
    char c = peek(r);
    if (c == '"') {
        (void)take_string(r);
    } else if (c == '{' || c == '[') {
        skip_nested(r);
    } else {
        while (r->p < r->end && !is_space(*r->p) && strchr(",]}", *r->p) == NULL)
            r->p++;
    }
}

/* To the step's value.  Return: false: it isn't there. */
static bool descend(struct reader *r, const struct json_step *step)
{
    char c = peek(r);
    size_t i = 0;
    if (c != (step->key != NULL ? '{' : '['))
        return false;
    r->p++;
    while ((c = peek(r)) != '\0' && c != '}' && c != ']') {
        if (c == ',') {
            r->p++;
            continue;
        }
        if (step->key == NULL && i++ == step->index)
            return true;
        if (step->key != NULL) {
            struct bytes name = take_string(r);
            if (peek(r) == ':')
                r->p++;
            if (bytes_equal(name, bytes_str(step->key)))
                return peek(r) != '\0';
        }
        skip_value(r);
    }
    return false;
}

unsigned json_line(struct bytes text, const struct json_step *steps, size_t n)
{
    struct reader r = {text.data, (const char *)text.data + text.size};
    const char *found = r.p;
    unsigned line = 1;
    (void)peek(&r);
    for (size_t i = 0; i < n; i++) {
        found = r.p;
        if (!descend(&r, &steps[i]))
            break;
        found = r.p;
    }
    for (const char *p = text.data; p < found; p++)
        line += *p == '\n';
    return line;
}
