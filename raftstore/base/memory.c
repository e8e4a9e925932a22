#include "raftstore/base/memory.h"

#include <stdlib.h> /* Defines __GLIBC__, or not. */

#ifdef __GLIBC__
#include <malloc.h>
#endif

void memory_init(void)
{
#ifdef __GLIBC__
    /* These fail below a sanitizer, whose allocator has no such bounds; then all is as it was. */
    (void)mallopt(M_MMAP_THRESHOLD, MEMORY_MAPPED_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, MEMORY_SPARE_BYTES);
#endif
}
