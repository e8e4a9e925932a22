#include "raftstore/base/fields.h"

#include "raftstore/base/utf8.h"

/* A byte that needs no quotes.  '=' does, '"' and '\' do, and so does a blank. */
static bool is_plain(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("_-./:@+,%[]~*", c) != NULL);
}

static void add_key(struct buf *out, const char *key)
{
    if (out->size > 0 && out->data[out->size - 1] != '\n')
        buf_add(out, " ", 1);
    buf_add(out, key, strlen(key));
    buf_add(out, "=", 1);
}

static void add_quoted(struct buf *out, const uint8_t *in, size_t size)
{
    buf_add(out, "\"", 1);
    for (size_t i = 0, n; i < size; i += n) {
        n = utf8_char(in + i, size - i);
        if (in[i] == '"' || in[i] == '\\')
            buf_printf(out, "\\%c", in[i]);
        else if (n > 0)
            buf_add(out, in + i, n);
        else
            buf_printf(out, "\\x%02x", in[i]);
        n += n == 0;
    }
    buf_add(out, "\"", 1);
}

void field_bytes(struct buf *out, const char *key, struct bytes value)
{
    const uint8_t *in = value.data;
    bool plain = value.size > 0;
    add_key(out, key);
    for (size_t i = 0; i < value.size && plain; i++)
        plain = is_plain(in[i]);
    if (plain)
        buf_add(out, in, value.size);
    else
        add_quoted(out, in, value.size);
}

void field_text(struct buf *out, const char *key, const char *value)
{
    field_bytes(out, key, bytes_str(value));
}

static void add_number(struct buf *out, uint64_t value)
{
    char digits[20];
    unsigned at = sizeof digits;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    buf_add(out, digits + at, sizeof digits - at);
}

void field_u64(struct buf *out, const char *key, uint64_t value)
{
    add_key(out, key);
    add_number(out, value);
}

void field_bool(struct buf *out, const char *key, bool value)
{
    field_text(out, key, value ? "yes" : "no");
}

static char *put_digits(char *p, uint64_t value, unsigned width)
{
    for (unsigned i = width; i-- > 0; value /= 10)
        p[i] = (char)('0' + value % 10);
    return p + width;
}

/* Days since 1970 as year, month and day of the Gregorian calendar (H. Hinnant, "chrono-Compatible
 * Low-Level Date Algorithms", civil_from_days). */
static void civil(uint64_t days, unsigned *ret_year, unsigned *ret_month, unsigned *ret_day)
{
    uint64_t z = days + 719468, era = z / 146097, doe = z % 146097;
    uint64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    uint64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    *ret_day = (unsigned)(doy - (153 * mp + 2) / 5 + 1);
    *ret_month = (unsigned)(mp < 10 ? mp + 3 : mp - 9);
    *ret_year = (unsigned)(yoe + era * 400 + (*ret_month <= 2));
}

void field_time(struct buf *out, const char *key, uint64_t wall_ms)
{
    char text[32], *p = text;
    unsigned year, month, day;
    uint64_t seconds = wall_ms / 1000;
    civil(seconds / 86400, &year, &month, &day);
    p = put_digits(p, year, 4);
    *p++ = '-';
    p = put_digits(p, month, 2);
    *p++ = '-';
    p = put_digits(p, day, 2);
    *p++ = 'T';
    p = put_digits(p, seconds / 3600 % 24, 2);
    *p++ = ':';
    p = put_digits(p, seconds / 60 % 60, 2);
    *p++ = ':';
    p = put_digits(p, seconds % 60, 2);
    *p++ = '.';
    p = put_digits(p, wall_ms % 1000, 3);
    *p++ = 'Z';
    add_key(out, key);
    buf_add(out, text, (size_t)(p - text));
}

void field_end(struct buf *out)
{
    buf_add(out, "\n", 1);
}
