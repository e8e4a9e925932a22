#include "fs/duration.h"

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

static const struct {
    const char *unit;
    uint64_t ms;
} units[] = {
    {"ms", 1},
    {"s", 1000},
    {"m", UINT64_C(60) * 1000},
    {"h", UINT64_C(3600) * 1000},
    {"d", UINT64_C(86400) * 1000},
};

int duration_parse(struct bytes text, bool bare_is_seconds, uint64_t *ret_ms)
{
    const char *p = text.data;
    size_t digits = 0;
    uint64_t number, factor = 0;
    while (digits < text.size && p[digits] >= '0' && p[digits] <= '9')
        digits++;
    if (number_parse(bytes_of(p, digits), &number) < 0)
        return -EINVAL;
    struct bytes unit = bytes_of(p + digits, text.size - digits);
    if (unit.size == 0)
        factor = bare_is_seconds ? 1000 : 0;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (bytes_equal(unit, bytes_str(units[i].unit)))
            factor = units[i].ms;
    if (factor == 0 || number > DURATION_MS_MAX / factor)
        return -EINVAL;
    *ret_ms = number * factor;
    return 0;
}
