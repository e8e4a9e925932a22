/* The packing of a log entry: a LogEntry of wire/holdfast.proto, written and read by hand. */
#ifndef HOLDFAST_NODE_REPLICA_ENTRY_H
#define HOLDFAST_NODE_REPLICA_ENTRY_H

#include "raftstore/base/bytes.h"

#include <stdbool.h>
#include <stdint.h>

/* One command inside of a LogEntry. */
struct entry_command {
    struct bytes command;
    uint64_t stamp_ns;
};
struct entry_reader {
    const uint8_t *p, *end;
    uint64_t stamp_ns; /* Of the entry. */
};
/* Return: false: malformed. */
bool entry_open(struct entry_reader *reader, struct bytes data);
/* Return: 1 a command, 0 the end, -1 malformed. */
int entry_next(struct entry_reader *reader, struct entry_command *ret);
/* Stamp of the last command of an entry; 0 when it is malformed. */
uint64_t entry_last_stamp(struct bytes data);
size_t entry_command_size(size_t command_size, uint64_t delta_ns);
uint8_t *entry_put_head(uint8_t *p, uint64_t stamp_ns); /* 9 bytes. */
uint8_t *entry_put_command(uint8_t *p, struct bytes command, uint64_t delta_ns);
#define ENTRY_HEAD_BYTES 9u

#endif
