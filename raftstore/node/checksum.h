/* A 64-bit checksum of images on their way between nodes (CRC-64/XZ).
 *
 * It finds what a transfer damages; what a disk damages is found by the checksums inside. */
#ifndef HOLDFAST_NODE_CHECKSUM_H
#define HOLDFAST_NODE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Continue a checksum (0 to start with) over `size` more bytes. */
uint64_t checksum_add(uint64_t sum, const void *data, size_t size);

#endif
