/* The audit of a write-ahead log, over files that are made here byte by byte: what a crash, a full
 * disk, a recycled file and a flipped bit leave. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "raftstore/node/store_wal.h"

#define PAGE   512u
#define FRAME  (WAL_FRAME_HEADER_BYTES + PAGE)
#define FRAMES 8u

/* https://www.sqlite.org/fileformat2.html#the_write_ahead_log */
struct file {
    uint8_t bytes[WAL_HEADER_BYTES + FRAMES * FRAME];
    uint32_t salt, a, b; /* The checksum so far. */
    unsigned n;          /* Frames of this use. */
};

static void put(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static uint32_t get(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void sum(struct file *f, const uint8_t *p, size_t size)
{
    for (size_t i = 0; i < size; i += 8) {
        f->a += get(p + i) + f->b;
        f->b += get(p + i + 4) + f->a;
    }
}

static uint8_t *frame(struct file *f, unsigned i)
{
    return f->bytes + WAL_HEADER_BYTES + i * FRAME;
}

/* A use of the file begins: what stood there before stays behind the header. */
static void begin(struct file *f, uint32_t salt)
{
    const uint32_t words[] = {0x377f0683, 3007000, PAGE, 0, salt, ~salt};
    f->salt = salt;
    f->a = f->b = 0;
    f->n = 0;
    for (size_t i = 0; i < 6; i++)
        put(f->bytes + 4 * i, words[i]);
    sum(f, f->bytes, 24);
    put(f->bytes + 24, f->a);
    put(f->bytes + 28, f->b);
}

/* The next frame. Its page is all `fill`; `commit`: pages of the database, 0 in the midst. */
static uint8_t *add(struct file *f, uint32_t page, uint32_t commit, uint8_t fill)
{
    uint8_t *p = frame(f, f->n++);
    put(p, page);
    put(p + 4, commit);
    put(p + 8, f->salt);
    put(p + 12, ~f->salt);
    memset(p + WAL_FRAME_HEADER_BYTES, fill, PAGE);
    sum(f, p, 8);
    sum(f, p + WAL_FRAME_HEADER_BYTES, PAGE);
    put(p + 16, f->a);
    put(p + 20, f->b);
    return p;
}

/* Return: what the audit says; the frames that are committed. */
static int audit(const struct file *f, size_t size, uint64_t *ret_frames)
{
    char path[] = "/tmp/holdfast-wal-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, f->bytes, size), (ssize_t)size);
    (void)close(fd);
    struct wal_audit a = {0};
    char *sentence = NULL;
    int error = wal_audit(path, &a, &sentence);
    assert_int_equal(error != 0, sentence != NULL);
    free(sentence);
    (void)unlink(path);
    *ret_frames = a.frames_committed;
    return error;
}

static void expect(const struct file *f, uint64_t frames)
{
    uint64_t found;
    assert_int_equal(audit(f, sizeof f->bytes, &found), 0);
    assert_int_equal(found, frames);
}

static void expect_damaged(const struct file *f)
{
    uint64_t found;
    assert_int_equal(audit(f, sizeof f->bytes, &found), -EBADMSG);
}

/* A recycled file: an older use filled it; then one transaction, and a second of three frames, of
 * which `n` were written. Return: the second frame. */
static uint8_t *recycled(struct file *f, unsigned n)
{
    memset(f, 0, sizeof *f);
    begin(f, 0x1234567);
    for (unsigned i = 0; i < FRAMES; i++)
        add(f, i + 1, i + 1, 0x55);
    begin(f, 0xfedcba9);
    add(f, 2, 3, 0xa1);
    uint8_t *second = NULL;
    for (unsigned i = 0; i < n; i++) {
        uint8_t *p = add(f, i + 1, i == 2 ? 4 : 0, 0x55);
        second = i == 0 ? p : second;
    }
    return second;
}

static void test_whole(void **state)
{
    (void)state;
    struct file f;
    for (unsigned n = 0; n < 3; n++) {
        recycled(&f, n);
        expect(&f, 1);
    }
    recycled(&f, 3);
    expect(&f, 4);
}

/* The disk was full, or the process ended, between a frame's header and its page; the page that
 * stands there differs by one bit. That is no damage: the transaction was never whole. */
static void test_old_page_is_one_bit_away(void **state)
{
    (void)state;
    struct file f;
    for (unsigned n = 1; n < 3; n++) {
        recycled(&f, n)[WAL_FRAME_HEADER_BYTES + 31] ^= 1;
        expect(&f, 1);
    }
}

/* In a transaction that is whole a flipped bit is damage, wherever it is. */
static void test_flips(void **state)
{
    (void)state;
    struct file f;
    for (size_t at = 0; at < 3 * FRAME; at += at % FRAME < WAL_FRAME_HEADER_BYTES ? 1 : 37) {
        for (int bit = 0; bit < 8; bit += 3) {
            recycled(&f, 3)[at] ^= (uint8_t)(1u << bit);
            expect_damaged(&f);
        }
    }
}

/* Two bits in the last transaction are as a torn write; in one before it they are damage. */
static void test_two_bits(void **state)
{
    (void)state;
    struct file f;
    recycled(&f, 3)[WAL_FRAME_HEADER_BYTES + 100] ^= 3;
    expect(&f, 1);
    recycled(&f, 3)[WAL_FRAME_HEADER_BYTES + 100] ^= 3;
    add(&f, 1, 4, 0x66);
    add(&f, 2, 4, 0x77);
    expect_damaged(&f);
}

static void test_headers(void **state)
{
    (void)state;
    struct file f;
    uint64_t found;
    recycled(&f, 3);
    assert_int_equal(audit(&f, WAL_HEADER_BYTES - 1, &found), -EBADMSG);
    assert_int_equal(audit(&f, WAL_HEADER_BYTES + FRAME + FRAME / 2, &found), 0);
    assert_int_equal(found, 1);
    for (size_t at = 0; at < WAL_HEADER_BYTES; at++) {
        recycled(&f, 3);
        f.bytes[at] ^= 0x10;
        assert_int_equal(audit(&f, sizeof f.bytes, &found), -EBADMSG);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),   cmocka_unit_test(test_old_page_is_one_bit_away),
        cmocka_unit_test(test_flips),   cmocka_unit_test(test_two_bits),
        cmocka_unit_test(test_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
