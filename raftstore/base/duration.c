#include "raftstore/base/duration.h"

#include <errno.h>

#define DURATION_MS_MAX (UINT64_C(1) << 53)

int number_parse(struct bytes text, uint64_t *ret_number)
{
    const unsigned char *p = text.data;
    uint64_t value = 0;
    if (text.size == 0 || text.size > 20)
        return -EINVAL;
    for (size_t i = 0; i < text.size; i++) {
        if (p[i] < '0' || p[i] > '9')
            return -EINVAL;
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(p[i] - '0'), &value))
            return -EINVAL;
    }
    *ret_number = value;
    return 0;
}

static const struct unit {
    const char *name;
    uint64_t ms;
} units[] = {
    {"ms", 1},
    {"s", 1000},
    {"m", UINT64_C(60) * 1000},
    {"h", UINT64_C(3600) * 1000},
    {"d", UINT64_C(86400) * 1000},
};

static size_t span(struct bytes text, bool digits)
{
    const char *p = text.data;
    size_t n = 0;
    while (n < text.size && (p[n] >= '0' && p[n] <= '9') == digits)
        n++;
    return n;
}

static struct bytes rest(struct bytes text, size_t n)
{
    return bytes_of((const char *)text.data + n, text.size - n);
}

static uint64_t unit_ms(struct bytes name)
{
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (bytes_equal(name, bytes_str(units[i].name)))
            return units[i].ms;
    return 0;
}

int duration_parse(struct bytes text, bool bare_is_seconds, uint64_t *ret_ms)
{
    uint64_t total = 0, number, last_ms = UINT64_MAX;
    if (bare_is_seconds && text.size > 0 && span(text, true) == text.size) {
        if (number_parse(text, &number) < 0 || number > DURATION_MS_MAX / 1000)
            return -EINVAL;
        *ret_ms = number * 1000;
        return 0;
    }
    if (text.size == 0)
        return -EINVAL;
    while (text.size > 0) {
        struct bytes digits = bytes_of(text.data, span(text, true));
        struct bytes behind = rest(text, digits.size);
        struct bytes name = bytes_of(behind.data, span(behind, false));
        uint64_t ms = unit_ms(name);
        if (ms == 0 || ms >= last_ms || number_parse(digits, &number) < 0 ||
            number > (DURATION_MS_MAX - total) / ms)
            return -EINVAL;
        total += number * ms;
        last_ms = ms;
        text = rest(behind, name.size);
    }
    *ret_ms = total;
    return 0;
}
