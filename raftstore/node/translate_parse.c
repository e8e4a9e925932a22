/* A Command's bytes -> struct lock_command, without a message in between.
 *
 * Every command is decoded once by the listener and twice on each node (the table and its shadow).
 * protobuf-c allocates for each and copies its bytes; here they are borrowed.  What is the least
 * out of the ordinary (a field of a newer version, a submessage, a number too large) is left to
 * protobuf-c: it decides what is malformed. */
#include "raftstore/node/translate.h"

#include <errno.h>

enum { WIRE_VARINT = 0, WIRE_BYTES = 2 };

/* Return: false when it is not whole, or longer than any that protobuf-c writes. */
static bool varint(const uint8_t **p, const uint8_t *end, uint64_t *ret)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 63 && *p < end; shift += 7) {
        uint8_t byte = *(*p)++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *ret = value;
            return true;
        }
    }
    if (*p == end || **p > 1)
        return false;
    *ret = value | (uint64_t) * (*p)++ << 63;
    return true;
}

static bool field_number(unsigned field, uint64_t v, struct lock_command *ret)
{
    switch (field) {
    case 3:
        ret->session_id = v;
        return true;
    case 4:
        ret->seq = v;
        return true;
    case 5:
        ret->ack_seq = v;
        return true;
    case 8:
        ret->token = v;
        return true;
    case 11:
        ret->start = v;
        return true;
    case 12:
        ret->end = UINT64_MAX - v;
        return true;
    case 13:
        ret->ttl_ms = v;
        return true;
    case 14:
        ret->wait_ms = v;
        return true;
    case 15:
        ret->lock_delay_ms = v;
        return true;
    case 16:
        ret->agent = v;
        return true;
    case 17:
        ret->cancel_seq = v;
        return true;
    case 24:
        ret->term = v;
        return true;
    case 25:
        ret->node_id = v;
        return true;
    case 27:
        ret->epoch = v;
        return true;
    case 29:
        ret->mtime_ns = v;
        return true;
    default:
        return false;
    }
}

static bool field_small(unsigned field, uint64_t v, struct lock_command *ret)
{
    if (v > UINT32_MAX)
        return false;
    switch (field) {
    case 1:
        ret->op = (enum lock_op)v;
        return true;
    case 2:
        ret->flags = (uint32_t)v;
        return true;
    case 9:
        ret->mode = (enum lock_mode)v;
        return true;
    case 10:
        ret->kind = (enum lock_kind)v;
        return true;
    case 20:
        ret->pid = (uint32_t)v;
        return true;
    case 21:
        ret->uid = (uint32_t)v;
        return true;
    case 22:
        ret->gid = (uint32_t)v;
        return true;
    case 23:
        ret->perm = (uint32_t)v;
        return true;
    case 28:
        ret->limit = (uint32_t)v;
        return true;
    default:
        return false;
    }
}

static bool field_bytes(unsigned field, struct bytes b, struct lock_command *ret)
{
    switch (field) {
    case 6:
        if (ret->n_paths == LOCK_PATHS_MAX)
            return false;
        ret->paths[ret->n_paths++] = b;
        return true;
    case 7:
        ret->owner = b;
        return true;
    case 18:
        ret->note = b;
        return true;
    case 19:
        ret->host = b;
        return true;
    default:
        return false;
    }
}

bool translate_parse_plain(struct bytes in, struct lock_command *ret)
{
    const uint8_t *p = in.data;
    const uint8_t *end = p + in.size;
    *ret = (struct lock_command){.end = UINT64_MAX};
    while (p < end) {
        uint64_t tag, v;
        if (!varint(&p, end, &tag) || tag >= 32 << 3 || !varint(&p, end, &v))
            return false;
        unsigned field = (unsigned)(tag >> 3);
        if ((tag & 7) == WIRE_VARINT) {
            if (!field_number(field, v, ret) && !field_small(field, v, ret))
                return false;
        } else if ((tag & 7) == WIRE_BYTES) {
            if (v > (uint64_t)(end - p) || !field_bytes(field, bytes_of(p, (size_t)v), ret))
                return false;
            p += v;
        } else {
            return false;
        }
    }
    return ret->op >= LOCK_OP_SESSION_OPEN && ret->op <= LOCK_OP_EPOCH;
}

int translate_parse(struct arena *a, struct bytes in, struct lock_command *ret)
{
    if (translate_parse_plain(in, ret))
        return 0;
    const Hf__Command *message =
        (const Hf__Command *)(const void *)pack_parse(a, &hf__command__descriptor, in);
    return message == NULL ? -EINVAL : translate_command(message, ret);
}
