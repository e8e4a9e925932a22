#include "gateway/owner.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <stdlib.h>

#define PREFIX       "http/"
#define PREFIX_BYTES 5u
#define DIGEST_BYTES 44u /* '~' and 43 signs. */
#define ROOM         (WIRE_OWNER_BYTES_MAX - PREFIX_BYTES - 1u)
#define ID_BYTES_MAX (ROOM - DIGEST_BYTES) /* Of an owner_id that is not cut. */

static bool plain(uint8_t c, const char *also)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && (strchr("-._!$&'()*+,;=:@|", c) != NULL || strchr(also, c) != NULL));
}

void percent_add(struct buf *out, struct bytes in, const char *also)
{
    const uint8_t *p = in.data;
    for (size_t i = 0; i < in.size; i++) {
        if (plain(p[i], also))
            buf_add(out, &p[i], 1);
        else
            buf_printf(out, "%%%02X", p[i]);
    }
}

static int hex(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int percent_undo(struct buf *out, struct bytes in)
{
    const uint8_t *p = in.data;
    for (size_t i = 0; i < in.size; i++) {
        uint8_t c = p[i];
        if (c == '%') {
            int high = i + 2 < in.size ? hex(p[i + 1]) : -1;
            int low = high >= 0 ? hex(p[i + 2]) : -1;
            if (low < 0)
                return -EINVAL;
            c = (uint8_t)(high << 4 | low);
            i += 2;
        }
        buf_add(out, &c, 1);
    }
    return 0;
}

static void add_digest(struct buf *out, struct bytes in)
{
    static const char signs[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint8_t digest[33] = {0};
    if (gnutls_hash_fast(GNUTLS_DIG_SHA256, in.data != NULL ? in.data : "", in.size, digest) < 0)
        abort(); /* A library without SHA-256: nothing can be promised. */
    buf_add(out, "~", 1);
    for (unsigned bit = 0; bit < 258; bit += 6) {
        unsigned two = (unsigned)(digest[bit / 8] << 8 | digest[bit / 8 + 1]);
        buf_add(out, &signs[two >> (10 - bit % 8) & 63], 1);
    }
}

/* One part: as it is if it fits, else its beginning and a digest. */
static void add_part(struct buf *out, struct bytes part, size_t size_max)
{
    struct buf text = BUF_INIT;
    percent_add(&text, part, "");
    if (text.size > size_max) {
        size_t n = size_max - DIGEST_BYTES;
        while (n > 0 && (text.data[n - 1] == '%' || (n > 1 && text.data[n - 2] == '%')))
            n--; /* No half of a %XX. */
        text.size = n;
        add_digest(&text, part);
    }
    buf_add(out, text.data, text.size);
    buf_deinit(&text);
}

void owner_make(struct bytes subject, struct bytes owner_id, struct buf *out)
{
    struct buf id = BUF_INIT;
    add_part(&id, owner_id, ID_BYTES_MAX);
    buf_add(out, PREFIX, PREFIX_BYTES);
    add_part(out, subject, ROOM - id.size);
    buf_add(out, "/", 1);
    buf_add(out, id.data, id.size);
    buf_deinit(&id);
}

/* The part behind the subject; false: not made here. */
static bool id_part(struct bytes owner, struct bytes *ret)
{
    const char *p = owner.data;
    if (owner.size < PREFIX_BYTES || memcmp(p, PREFIX, PREFIX_BYTES) != 0)
        return false;
    const char *slash = memchr(p + PREFIX_BYTES, '/', owner.size - PREFIX_BYTES);
    if (slash == NULL)
        return false;
    *ret = bytes_of(slash + 1, (size_t)(p + owner.size - slash - 1));
    return memchr(ret->data, '/', ret->size) == NULL;
}

void owner_show(struct bytes owner, struct buf *out)
{
    struct bytes id;
    struct buf text = BUF_INIT;
    if (id_part(owner, &id) && percent_undo(&text, id) == 0)
        owner = bytes_of(text.data, text.size);
    buf_add(out, owner.data, owner.size);
    buf_deinit(&text);
}

bool owner_same_id(struct bytes owner, struct bytes other)
{
    struct bytes a, b;
    return id_part(owner, &a) && id_part(other, &b) && bytes_equal(a, b);
}
