#include "auth/base64url.h"

#include <errno.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* The value of one character; -1: not of the alphabet. */
static int value_of(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '-')
        return 62;
    return c == '_' ? 63 : -1;
}

int base64url_decode(struct bytes text, struct buf *out)
{
    const uint8_t *in = text.data;
    size_t n_tail = text.size % 4;
    if (n_tail == 1)
        return -EINVAL;
    uint8_t *to = buf_reserve(out, text.size / 4 * 3 + 2);
    size_t size = 0;
    uint32_t bits = 0;
    for (size_t i = 0; i < text.size; i++) {
        int value = value_of(in[i]);
        if (value < 0)
            return -EINVAL;
        bits = bits << 6 | (uint32_t)value;
        if (i % 4 == 3) {
            to[size++] = (uint8_t)(bits >> 16);
            to[size++] = (uint8_t)(bits >> 8);
            to[size++] = (uint8_t)bits;
            bits = 0;
        }
    }
    if ((n_tail == 2 && (bits & 0xF) != 0) || (n_tail == 3 && (bits & 0x3) != 0))
        return -EINVAL;
    if (n_tail == 2)
        to[size++] = (uint8_t)(bits >> 4);
    if (n_tail == 3) {
        to[size++] = (uint8_t)(bits >> 10);
        to[size++] = (uint8_t)(bits >> 2);
    }
    out->size += size;
    return 0;
}

void base64url_encode(struct bytes data, struct buf *out)
{
    const uint8_t *in = data.data;
    for (size_t i = 0; i < data.size; i += 3) {
        size_t n = data.size - i < 3 ? data.size - i : 3;
        uint32_t bits = (uint32_t)in[i] << 16;
        if (n > 1)
            bits |= (uint32_t)in[i + 1] << 8;
        if (n > 2)
            bits |= in[i + 2];
        for (size_t k = 0; k <= n; k++)
            buf_add(out, &alphabet[bits >> (18 - 6 * k) & 63], 1);
    }
}
