/* The packing of a LogEntry by hand: it is on the way of every command, and protobuf-c would
 * allocate twice for each. */
#include "raftstore/node/replica_entry.h"

#include <endian.h>
#include <string.h>

#define TAG_STAMP   0x09u /* LogEntry.stamp_ns, fixed64. */
#define TAG_COMMAND 0x12u /* LogEntry.commands. */
#define TAG_BYTES   0x0au /* EntryCommand.command. */
#define TAG_DELTA   0x10u /* EntryCommand.stamp_delta_ns. */

static size_t varint_size(uint64_t v)
{
    size_t n = 1;
    while (v >= 0x80) {
        v >>= 7;
        n++;
    }
    return n;
}

static uint8_t *varint_put(uint8_t *p, uint64_t v)
{
    while (v >= 0x80) {
        *p++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    return p;
}

static bool varint_get(const uint8_t **p, const uint8_t *end, uint64_t *ret)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64 && *p < end; shift += 7) {
        uint8_t byte = *(*p)++;
        v |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            *ret = v;
            return true;
        }
    }
    return false;
}

/* A tag or a length: protobuf-c reads no more than five bytes of either, and neither do we. */
static bool varint_get_short(const uint8_t **p, const uint8_t *end, uint64_t *ret)
{
    return varint_get(p, end - *p > 5 ? *p + 5 : end, ret);
}

static size_t entry_inner_size(size_t command_size, uint64_t delta_ns)
{
    size_t n = 1 + varint_size(command_size) + command_size;
    return delta_ns == 0 ? n : n + 1 + varint_size(delta_ns);
}

size_t entry_command_size(size_t command_size, uint64_t delta_ns)
{
    size_t inner = entry_inner_size(command_size, delta_ns);
    return 1 + varint_size(inner) + inner;
}

uint8_t *entry_put_head(uint8_t *p, uint64_t stamp_ns)
{
    uint64_t le = htole64(stamp_ns);
    *p++ = TAG_STAMP;
    memcpy(p, &le, sizeof le);
    return p + sizeof le;
}

uint8_t *entry_put_command(uint8_t *p, struct bytes command, uint64_t delta_ns)
{
    *p++ = TAG_COMMAND;
    p = varint_put(p, entry_inner_size(command.size, delta_ns));
    *p++ = TAG_BYTES;
    p = varint_put(p, command.size);
    if (command.size > 0)
        memcpy(p, command.data, command.size);
    p += command.size;
    if (delta_ns != 0) {
        *p++ = TAG_DELTA;
        p = varint_put(p, delta_ns);
    }
    return p;
}

/* Skip a field that this version does not know; what it knows (fields 1 and 2 of either message)
 * has another type here, and protobuf-c would not take it. */
static bool field_skip(const uint8_t **p, const uint8_t *end, uint64_t tag)
{
    uint64_t n = 0;
    if (tag >> 3 <= 2 || tag > UINT32_MAX)
        return false;
    switch (tag & 7) {
    case 0:
        return varint_get(p, end, &n);
    case 1:
        n = 8;
        break;
    case 2:
        if (!varint_get_short(p, end, &n))
            return false;
        break;
    case 5:
        n = 4;
        break;
    default:
        return false;
    }
    if (n > (uint64_t)(end - *p))
        return false;
    *p += n;
    return true;
}

static bool length_get(const uint8_t **p, const uint8_t *end, struct bytes *ret)
{
    uint64_t n;
    if (!varint_get_short(p, end, &n) || n > (uint64_t)(end - *p))
        return false;
    *ret = bytes_of(*p, (size_t)n);
    *p += n;
    return true;
}

bool entry_open(struct entry_reader *reader, struct bytes data)
{
    const uint8_t *p = data.data;
    uint64_t le;
    if (data.size < ENTRY_HEAD_BYTES || p[0] != TAG_STAMP)
        return false;
    memcpy(&le, p + 1, sizeof le);
    *reader = (struct entry_reader){
        .p = p + ENTRY_HEAD_BYTES,
        .end = p + data.size,
        .stamp_ns = le64toh(le),
    };
    return true;
}

static bool entry_command_parse(struct bytes inner, struct entry_command *ret)
{
    const uint8_t *p = inner.data;
    const uint8_t *end = p + inner.size;
    uint64_t delta = 0;
    while (p < end) {
        uint64_t tag;
        if (!varint_get_short(&p, end, &tag))
            return false;
        if (tag == TAG_BYTES) {
            if (!length_get(&p, end, &ret->command))
                return false;
        } else if (tag == TAG_DELTA) {
            if (!varint_get(&p, end, &delta))
                return false;
        } else if (!field_skip(&p, end, tag)) {
            return false;
        }
    }
    ret->stamp_ns += delta;
    return true;
}

int entry_next(struct entry_reader *reader, struct entry_command *ret)
{
    while (reader->p < reader->end) {
        uint64_t tag;
        struct bytes inner;
        if (!varint_get_short(&reader->p, reader->end, &tag))
            return -1;
        if (tag != TAG_COMMAND) {
            if (tag == TAG_STAMP || !field_skip(&reader->p, reader->end, tag))
                return -1;
            continue;
        }
        if (!length_get(&reader->p, reader->end, &inner))
            return -1;
        *ret = (struct entry_command){.stamp_ns = reader->stamp_ns};
        return entry_command_parse(inner, ret) ? 1 : -1;
    }
    return 0;
}

uint64_t entry_last_stamp(struct bytes data)
{
    struct entry_reader reader;
    struct entry_command c;
    uint64_t stamp = 0;
    if (!entry_open(&reader, data))
        return 0;
    stamp = reader.stamp_ns;
    while (entry_next(&reader, &c) == 1)
        stamp = c.stamp_ns;
    return stamp;
}
