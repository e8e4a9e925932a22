#include "raftstore/node/checksum.h"

#include <pthread.h>

#define POLYNOMIAL UINT64_C(0xc96c5795d7870f42) /* ECMA-182, reflected. */

static uint64_t table[256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void table_make(void)
{
    for (unsigned i = 0; i < 256; i++) {
        uint64_t c = i;
        for (unsigned bit = 0; bit < 8; bit++)
            c = (c & 1) != 0 ? c >> 1 ^ POLYNOMIAL : c >> 1;
        table[i] = c;
    }
}

uint64_t checksum_add(uint64_t sum, const void *data, size_t size)
{
    const uint8_t *p = data;
    (void)pthread_once(&table_once, table_make); /* Fails only for a bad control object. */
    sum = ~sum;
    for (size_t i = 0; i < size; i++)
        sum = table[(sum ^ p[i]) & 0xff] ^ sum >> 8;
    return ~sum;
}
