#include "auth/siphash.h"

#include <endian.h>

#define ROTATE(x, n) ((x) << (n) | (x) >> (64 - (n)))

static void rounds(uint64_t v[4], int n)
{
    while (n-- > 0) {
        v[0] += v[1];
        v[1] = ROTATE(v[1], 13) ^ v[0];
        v[0] = ROTATE(v[0], 32);
        v[2] += v[3];
        v[3] = ROTATE(v[3], 16) ^ v[2];
        v[0] += v[3];
        v[3] = ROTATE(v[3], 21) ^ v[0];
        v[2] += v[1];
        v[1] = ROTATE(v[1], 17) ^ v[2];
        v[2] = ROTATE(v[2], 32);
    }
}

static void absorb(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    rounds(v, 2);
    v[0] ^= word;
}

uint64_t siphash(const uint64_t key[2], struct bytes data)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
                     key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573};
    const uint8_t *in = data.data;
    size_t n_left = data.size;
    for (; n_left >= 8; in += 8, n_left -= 8) {
        uint64_t word;
        memcpy(&word, in, 8);
        absorb(v, le64toh(word));
    }
    uint64_t last = (uint64_t)data.size << 56;
    for (size_t i = 0; i < n_left; i++)
        last |= (uint64_t)in[i] << (8 * i);
    absorb(v, last);
    v[2] ^= 0xff;
    rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
