/* How a daemon's allocator treats what a peak of load needed.
 *
 * glibc learns from each large block that is freed: a queue of 16 MiB makes it keep up to 32 MiB of
 * free memory at the end of its heap, for good. A daemon that runs for months then stands at the
 * size of its worst second. With fixed bounds the memory goes back. */
#ifndef HOLDFAST_BASE_MEMORY_H
#define HOLDFAST_BASE_MEMORY_H

/* Bytes: blocks from this size on are mapped by themselves, and unmapped when they are freed. */
#define MEMORY_MAPPED_BYTES (1 << 20)
/* Bytes: more free memory than this at the end of a heap is given back. */
#define MEMORY_SPARE_BYTES (4 << 20)

/* Call it once, first in main(). Does nothing with another C library than glibc. */
void memory_init(void);

#endif
