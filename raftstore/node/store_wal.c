#include "raftstore/node/store_wal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "raftstore/base/buf.h"
#include "raftstore/node/store_sql.h"

/* The format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log */
#define WAL_MAGIC   UINT32_C(0x377f0682) /* The lowest bit set: checksums of big-endian words. */
#define WAL_VERSION UINT32_C(3007000)

struct wal {
    const uint8_t *data;
    size_t size;
    bool big_endian;
    uint32_t page_bytes;
    uint64_t n_frames; /* Whole frames that fit the file. */
};

struct wal_sum {
    uint32_t a, b;
};

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t word(const struct wal *w, const uint8_t *p)
{
    uint32_t big = be32(p);
    return w->big_endian ? big : __builtin_bswap32(big);
}

static struct wal_sum sum_add(const struct wal *w, struct wal_sum s, const uint8_t *p, size_t size)
{
    for (const uint8_t *end = p + size; p < end; p += 8) {
        s.a += word(w, p) + s.b;
        s.b += word(w, p + 4) + s.a;
    }
    return s;
}

static const uint8_t *frame_at(const struct wal *w, uint64_t i)
{
    return w->data + WAL_HEADER_BYTES + i * (WAL_FRAME_HEADER_BYTES + w->page_bytes);
}

static bool salts_equal(const struct wal *w, const uint8_t *frame)
{
    return memcmp(frame + 8, w->data + 16, 8) == 0;
}

static bool is_commit(const uint8_t *frame)
{
    return be32(frame + 4) != 0;
}

/* SQLite's walDecodeFrame(): salts, a page number, and the checksum that runs on from the frame
 * before. */
static bool
frame_valid(const struct wal *w, const uint8_t *frame, struct wal_sum before, struct wal_sum *after)
{
    if (!salts_equal(w, frame) || be32(frame) == 0)
        return false;
    *after = sum_add(w, before, frame, 8);
    *after = sum_add(w, *after, frame + WAL_FRAME_HEADER_BYTES, w->page_bytes);
    return after->a == be32(frame + 16) && after->b == be32(frame + 20);
}

/* Does the transaction of frame i, whose header is `frame`, have all its frames? (A crash may have
 * come before the last one was written; then it was never durable.) */
static bool transaction_complete(const struct wal *w, uint64_t i, const uint8_t *frame)
{
    while (!is_commit(frame)) {
        if (++i >= w->n_frames || !salts_equal(w, frame_at(w, i)))
            return false;
        frame = frame_at(w, i);
    }
    return true;
}

/* Would frame i be valid with one of its bits flipped back, in a transaction that is all there?
 * (A recycled WAL's old page may by chance differ in one bit from the one that was to be written:
 * the count of pages in page 1.) */
static bool one_bit_repairs(const struct wal *w, uint64_t i, struct wal_sum before)
{
    const uint8_t *frame = frame_at(w, i);
    size_t size = WAL_FRAME_HEADER_BYTES + w->page_bytes;
    int salt_bits = 0;
    for (int k = 0; k < 8; k++)
        salt_bits += __builtin_popcount((unsigned)(frame[8 + k] ^ w->data[16 + k]));
    if (salt_bits > 1)
        return false; /* Of an earlier use of the file: the usual end of a WAL. */
    uint8_t *copy = xmemdup(frame, size);
    bool found = false;
    struct wal_sum running = before; /* Over the bytes before the bit: they don't change. */
    for (size_t at = 0; at < size && !found; at++) {
        for (int bit = 0; bit < 8 && !found; bit++) {
            struct wal_sum after;
            copy[at] ^= (uint8_t)(1u << bit);
            if (at < WAL_FRAME_HEADER_BYTES) {
                found = frame_valid(w, copy, before, &after);
            } else if (salt_bits == 0 && be32(copy) != 0) {
                size_t from = at - at % 8;
                after = sum_add(w, running, copy + from, size - from);
                found = after.a == be32(copy + 16) && after.b == be32(copy + 20);
            }
            found = found && transaction_complete(w, i, copy);
            copy[at] ^= (uint8_t)(1u << bit);
        }
        if (at == WAL_FRAME_HEADER_BYTES - 1)
            running = sum_add(w, before, copy, 8);
        else if (at >= WAL_FRAME_HEADER_BYTES && at % 8 == 7)
            running = sum_add(w, running, copy + at - 7, 8);
    }
    free(copy);
    return found;
}

/* Is there a transaction behind the one that the bad frame belongs to? */
static bool later_transaction(const struct wal *w, uint64_t bad)
{
    bool committed = false;
    for (uint64_t i = bad; i < w->n_frames; i++) {
        const uint8_t *frame = frame_at(w, i);
        if (!salts_equal(w, frame))
            continue;
        if (committed)
            return true;
        committed = is_commit(frame);
    }
    return false;
}

static int audit_frames(const struct wal *w,
                        const char *path,
                        struct wal_audit *ret_audit,
                        char **ret_sentence)
{
    struct wal_sum sum = {be32(w->data + 24), be32(w->data + 28)};
    uint64_t i = 0, committed = 0;
    for (; i < w->n_frames; i++) {
        struct wal_sum after;
        if (!frame_valid(w, frame_at(w, i), sum, &after))
            break;
        sum = after;
        if (is_commit(frame_at(w, i)))
            committed = i + 1;
    }
    if (i < w->n_frames && (one_bit_repairs(w, i, sum) || later_transaction(w, i)))
        return fail_damaged(
            ret_sentence, path, "frame %llu at offset %llu does not match its checksum",
            (unsigned long long)(i + 1), (unsigned long long)(frame_at(w, i) - w->data));
    *ret_audit = (struct wal_audit){.frames_committed = committed, .size_bytes = w->size};
    return 0;
}

static int
audit_bytes(struct wal *w, const char *path, struct wal_audit *ret_audit, char **ret_sentence)
{
    const char *wrong = NULL;
    if (w->size < WAL_HEADER_BYTES) {
        wrong = "the file is too short";
    } else {
        w->big_endian = (be32(w->data) & 1) != 0;
        w->page_bytes = be32(w->data + 8);
        struct wal_sum sum = sum_add(w, (struct wal_sum){0, 0}, w->data, 24);
        if ((be32(w->data) & ~UINT32_C(1)) != WAL_MAGIC || be32(w->data + 4) != WAL_VERSION ||
            w->page_bytes < 512 || w->page_bytes > 65536 || sum.a != be32(w->data + 24) ||
            sum.b != be32(w->data + 28))
            wrong = "its header (offset 0) is not valid";
    }
    if (wrong != NULL)
        return fail_damaged(ret_sentence, path, "%s", wrong);
    w->n_frames = (w->size - WAL_HEADER_BYTES) / (WAL_FRAME_HEADER_BYTES + w->page_bytes);
    return audit_frames(w, path, ret_audit, ret_sentence);
}

/* The whole file; read, not mapped, so that a bad sector is an error and not a signal. */
static int read_all(int fd, uint8_t **ret_data, size_t *ret_size)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return -errno;
    size_t size = (size_t)st.st_size, got = 0;
    uint8_t *data = xmalloc(size > 0 ? size : 1);
    while (got < size) {
        ssize_t n = pread(fd, data + got, size - got, (off_t)got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            int error = n < 0 ? -errno : -EIO;
            free(data);
            return error;
        }
        got += (size_t)n;
    }
    *ret_data = data;
    *ret_size = size;
    return 0;
}

int wal_audit(const char *path, struct wal_audit *ret_audit, char **ret_sentence)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return fail_damaged(ret_sentence, path, "the file is missing");
    if (fd < 0)
        return fail_with(-errno, path, "can't be opened", ret_sentence);
    uint8_t *data = NULL;
    size_t size = 0;
    int error = read_all(fd, &data, &size);
    (void)close(fd); /* Only read from. */
    if (error != 0)
        return fail_with(error, path, "can't be read", ret_sentence);
    struct wal w = {.data = data, .size = size};
    error = audit_bytes(&w, path, ret_audit, ret_sentence);
    free(data);
    return error;
}
