#include "raftstore/base/trace.h"

#include <errno.h>

#define MEMBERS_MAX       32u
#define MEMBER_LONG_BYTES 128u /* These go first when there is no room. */
#define KEY_BYTES_MAX     256u
#define VALUE_BYTES_MAX   256u
#define TENANT_BYTES_MAX  241u
#define SYSTEM_BYTES_MAX  14u

/* ---- traceparent ----------------------------------------------------------------------- */

/* A digit in lower case.  Return: -1: it is none. */
static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool undo_hex(const char *text, unsigned size, uint8_t *out)
{
    for (unsigned i = 0; i < size; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool all_zero(const uint8_t *p, unsigned size)
{
    uint8_t any = 0;
    for (unsigned i = 0; i < size; i++)
        any |= p[i];
    return any == 0;
}

static struct bytes trim(struct bytes b)
{
    const char *p = b.data;
    while (b.size > 0 && (p[0] == ' ' || p[0] == '\t'))
        p++, b.size--;
    while (b.size > 0 && (p[b.size - 1] == ' ' || p[b.size - 1] == '\t'))
        b.size--;
    return bytes_of(p, b.size);
}

bool trace_parse(struct bytes traceparent, struct trace_context *ret)
{
    struct bytes text = trim(traceparent);
    const char *p = text.data;
    uint8_t version, flags;
    struct trace_context t;
    if (text.size < TRACE_PARENT_BYTES || !undo_hex(p, 1, &version) || version == 0xff ||
        p[2] != '-' || !undo_hex(p + 3, TRACE_ID_BYTES, t.trace_id) || p[35] != '-' ||
        !undo_hex(p + 36, TRACE_SPAN_ID_BYTES, t.span_id) || p[52] != '-' ||
        !undo_hex(p + 53, 1, &flags))
        return false;
    if (text.size > TRACE_PARENT_BYTES && (version == 0 || p[TRACE_PARENT_BYTES] != '-'))
        return false;
    if (all_zero(t.trace_id, TRACE_ID_BYTES) || all_zero(t.span_id, TRACE_SPAN_ID_BYTES))
        return false;
    t.flags = flags & TRACE_F_SAMPLED;
    t.state[0] = '\0';
    trace_copy(ret, &t);
    return true;
}

/* ---- tracestate ------------------------------------------------------------------------ */

static bool key_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '*' ||
           c == '/';
}

static bool key_part_valid(struct bytes part, size_t size_max, bool digit_first)
{
    const char *p = part.data;
    if (part.size == 0 || part.size > size_max)
        return false;
    for (size_t i = 0; i < part.size; i++)
        if (!key_char(p[i]))
            return false;
    return (p[0] >= 'a' && p[0] <= 'z') || (digit_first && p[0] >= '0' && p[0] <= '9');
}

/* "vendor" or "tenant@vendor". */
static bool key_valid(struct bytes key)
{
    const char *p = key.data;
    const char *at = memchr(p, '@', key.size);
    if (at == NULL)
        return key_part_valid(key, KEY_BYTES_MAX, false);
    size_t n = (size_t)(at - p);
    return key_part_valid(bytes_of(p, n), TENANT_BYTES_MAX, true) &&
           key_part_valid(bytes_of(at + 1, key.size - n - 1), SYSTEM_BYTES_MAX, false);
}

static bool value_valid(struct bytes value)
{
    const char *p = value.data;
    if (value.size == 0 || value.size > VALUE_BYTES_MAX || p[value.size - 1] == ' ')
        return false;
    for (size_t i = 0; i < value.size; i++)
        if (p[i] < 0x20 || p[i] > 0x7e || p[i] == ',' || p[i] == '=')
            return false;
    return true;
}

struct member {
    struct bytes whole;
    size_t key_bytes;
};

static bool member_parse(struct bytes text, struct member *ret)
{
    const char *p = text.data;
    const char *equals = memchr(p, '=', text.size);
    if (equals == NULL)
        return false;
    size_t n = (size_t)(equals - p);
    *ret = (struct member){text, n};
    return key_valid(bytes_of(p, n)) && value_valid(bytes_of(equals + 1, text.size - n - 1));
}

static bool key_is_known(const struct member *list, unsigned n, const struct member *m)
{
    for (unsigned i = 0; i < n; i++)
        if (bytes_equal(bytes_of(list[i].whole.data, list[i].key_bytes),
                        bytes_of(m->whole.data, m->key_bytes)))
            return true;
    return false;
}

/* Return: how many; -1: malformed. */
static int members_parse(struct bytes in, struct member list[MEMBERS_MAX])
{
    const char *p = in.data, *end = p + in.size;
    unsigned n = 0;
    while (p != NULL && p < end) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        struct bytes text = trim(bytes_of(p, (size_t)((comma != NULL ? comma : end) - p)));
        p = comma != NULL ? comma + 1 : end;
        if (text.size == 0)
            continue; /* Empty members are allowed. */
        struct member m;
        if (n == MEMBERS_MAX || !member_parse(text, &m) || key_is_known(list, n, &m))
            return -1;
        list[n++] = m;
    }
    return (int)n;
}

static size_t joined_size(const struct member *list, unsigned n)
{
    size_t size = n > 0 ? n - 1 : 0;
    for (unsigned i = 0; i < n; i++)
        size += list[i].whole.size;
    return size;
}

static unsigned member_remove(struct member *list, unsigned n, unsigned i)
{
    memmove(list + i, list + i + 1, (n - i - 1) * sizeof *list);
    return n - 1;
}

bool trace_state_parse(struct bytes tracestate, char out[TRACE_STATE_BYTES_MAX + 1])
{
    struct member list[MEMBERS_MAX] = {0};
    int count = members_parse(tracestate, list);
    unsigned n = count > 0 ? (unsigned)count : 0;
    for (unsigned i = n; i-- > 0 && joined_size(list, n) > TRACE_STATE_BYTES_MAX;)
        if (list[i].whole.size > MEMBER_LONG_BYTES)
            n = member_remove(list, n, i);
    while (joined_size(list, n) > TRACE_STATE_BYTES_MAX)
        n--;
    size_t at = 0;
    for (unsigned i = 0; i < n; i++) {
        if (i > 0)
            out[at++] = ',';
        if (list[i].whole.size > 0) /* Always: for the analyzer. */
            memcpy(out + at, list[i].whole.data, list[i].whole.size);
        at += list[i].whole.size;
    }
    out[at] = '\0';
    return count >= 0;
}

/* ---- Contexts -------------------------------------------------------------------------- */

bool trace_is_set(const struct trace_context *t)
{
    return !all_zero(t->trace_id, TRACE_ID_BYTES);
}

void trace_copy(struct trace_context *to, const struct trace_context *from)
{
    memcpy(to->trace_id, from->trace_id, sizeof to->trace_id);
    memcpy(to->span_id, from->span_id, sizeof to->span_id);
    to->flags = from->flags;
    memcpy(to->state, from->state, strlen(from->state) + 1);
}

void trace_new_span_id(struct random *random, uint8_t ret_span_id[TRACE_SPAN_ID_BYTES])
{
    uint64_t id;
    do
        id = random_next(random);
    while (id == 0);
    memcpy(ret_span_id, &id, sizeof id);
}

void trace_begin(struct random *random, bool sampled, struct trace_context *ret)
{
    do {
        uint64_t high = random_next(random), low = random_next(random);
        memcpy(ret->trace_id, &high, sizeof high);
        memcpy(ret->trace_id + sizeof high, &low, sizeof low);
    } while (all_zero(ret->trace_id, TRACE_ID_BYTES));
    trace_new_span_id(random, ret->span_id);
    ret->flags = sampled ? TRACE_F_SAMPLED : 0;
    ret->state[0] = '\0';
}

bool trace_is_chosen(const struct trace_context *t, double ratio)
{
    uint64_t low = 0;
    for (unsigned i = TRACE_ID_BYTES - 8; i < TRACE_ID_BYTES; i++)
        low = low << 8 | t->trace_id[i];
    return ratio >= 1 || (double)(low >> 11) < ratio * (double)(UINT64_C(1) << 53);
}

int trace_ratio_parse(const char *text, double *ret_ratio)
{
    double value = 0, unit = 1;
    size_t n = strspn(text, "0123456789"), rest = text[n] == '.' ? n + 1 : n;
    size_t n_after = strspn(text + rest, "0123456789");
    if (text[rest + n_after] != '\0' || n + n_after == 0 || n > 10 || n_after > 30)
        return -EINVAL;
    for (size_t i = 0; i < n; i++)
        value = value * 10 + (text[i] - '0');
    for (size_t i = 0; i < n_after; i++)
        value += (unit /= 10) * (text[rest + i] - '0');
    if (value > 1)
        return -EINVAL;
    *ret_ratio = value;
    return 0;
}

/* ---- Text ------------------------------------------------------------------------------ */

char *trace_hex(const uint8_t *bytes, unsigned size, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < size; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * size] = '\0';
    return out;
}

char *trace_format(const struct trace_context *t, char out[TRACE_PARENT_BYTES + 1])
{
    memcpy(out, "00-", 3);
    (void)trace_hex(t->trace_id, TRACE_ID_BYTES, out + 3);
    out[35] = '-';
    (void)trace_hex(t->span_id, TRACE_SPAN_ID_BYTES, out + 36);
    out[52] = '-';
    (void)trace_hex(&t->flags, 1, out + 53);
    return out;
}
