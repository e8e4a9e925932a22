#include "fs/command.h"

#include "raftstore/base/duration.h"
#include "raftstore/wire/codes.h"

#include <errno.h>

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* Take the next word off the front; empty at the end. */
static struct bytes next_word(struct bytes *rest)
{
    const char *p = rest->data, *end = p + rest->size;
    while (p < end && is_blank(*p))
        p++;
    const char *word = p;
    while (p < end && !is_blank(*p))
        p++;
    *rest = bytes_of(p, (size_t)(end - p));
    return bytes_of(word, (size_t)(p - word));
}

static int parse_arguments(struct bytes rest, struct command *c)
{
    struct bytes word;
    while ((word = next_word(&rest)).size > 0) {
        if (c->token == 0 && number_parse(word, &c->token) == 0 && c->token != 0)
            continue;
        if (c->verb != COMMAND_RENEW || c->ttl_ms != 0)
            return -EINVAL;
        if (duration_parse(word, false, &c->ttl_ms) < 0)
            return -EINVAL;
        if (c->ttl_ms < WIRE_TTL_MS_MIN || c->ttl_ms > WIRE_TTL_MS_MAX)
            return -EINVAL;
    }
    return 0;
}

int command_parse(struct bytes text, struct command *ret_command)
{
    static const struct {
        const char *word;
        enum command_verb verb;
    } verbs[] = {
        {"renew", COMMAND_RENEW},
        {"keep", COMMAND_KEEP},
        {"release", COMMAND_RELEASE},
    };
    const char *p = text.data;
    if (text.size > 0 && p[text.size - 1] == '\n')
        text.size--;
    struct command c = {.verb = COMMAND_NOTE, .note = text};
    struct bytes rest = text;
    struct bytes first = next_word(&rest);
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
        if (bytes_equal(first, bytes_str(verbs[i].word)))
            c.verb = verbs[i].verb;
    if (c.verb == COMMAND_NOTE) {
        if (text.size > WIRE_NOTE_BYTES_MAX)
            return -EFBIG;
    } else {
        c.note = bytes_of(NULL, 0);
        int r = parse_arguments(rest, &c);
        if (r < 0)
            return r;
    }
    *ret_command = c;
    return 0;
}
