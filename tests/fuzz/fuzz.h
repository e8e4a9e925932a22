/* What the fuzz targets share.
 *
 * A target is one file (or a few) with LLVMFuzzerTestOneInput().  It is linked twice: with clang's
 * libFuzzer by tests/fuzz/run, which looks for inputs that break it, and with main.c into a plain
 * program that runs the inputs in corpus/TARGET (a unit test, with any compiler).  A target is a
 * pure function of its input: no clock, no randomness of its own, nothing kept from run to run.
 *
 * What breaks a target: a sanitizer's report, an assertion, or fuzz_fail(). */
#ifndef HOLDFAST_FUZZ_H
#define HOLDFAST_FUZZ_H

#include "raftstore/base/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold does not: say so and abort. */
_Noreturn void fuzz_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define fuzz_require(condition, ...)                                                               \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fuzz_fail(__VA_ARGS__);                                                                \
    } while (0)

/* The input as a source of decisions.  At its end everything is 0. */
struct feed {
    const uint8_t *next;
    const uint8_t *end;
};

static inline struct feed feed_of(const uint8_t *data, size_t size)
{
    return (struct feed){data, data + size};
}

static inline bool feed_is_empty(const struct feed *f)
{
    return f->next == f->end;
}

static inline uint8_t feed_u8(struct feed *f)
{
    return f->next == f->end ? 0 : *f->next++;
}

static inline uint64_t feed_u64(struct feed *f) /* Eight bytes. */
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 8; i++)
        v |= (uint64_t)feed_u8(f) << (8 * i);
    return v;
}

/* A number in [0, n), from one byte; n is 1 to 256. */
static inline unsigned feed_below(struct feed *f, unsigned n)
{
    return feed_u8(f) % n;
}

/* Up to `max` bytes behind a byte that says how many; inside the input. */
static inline struct bytes feed_bytes(struct feed *f, size_t max)
{
    size_t n = feed_u8(f);
    if (n > max)
        n = max;
    if (n > (size_t)(f->end - f->next))
        n = (size_t)(f->end - f->next);
    struct bytes b = bytes_of(f->next, n);
    f->next += n;
    return b;
}

/* All that is left; inside the input. */
static inline struct bytes feed_rest(struct feed *f)
{
    struct bytes b = bytes_of(f->next, (size_t)(f->end - f->next));
    f->next = f->end;
    return b;
}

/* A number of which the interesting ones are near `bases`: one byte chooses, one shifts. */
static inline uint64_t feed_near(struct feed *f, const uint64_t *bases, unsigned n_bases)
{
    uint8_t choice = feed_u8(f);
    if (choice >= 0xf0)
        return feed_u64(f);
    uint64_t base = bases[choice % n_bases];
    return base + (uint64_t)(int64_t)(int8_t)feed_u8(f);
}

#endif
