/* Outputs of a replica that nobody hears: the base of a target that cares for a few of them. */
#ifndef TESTS_FUZZ_QUIET_IO_H
#define TESTS_FUZZ_QUIET_IO_H

#include "raftstore/node/replica.h"

/* Return: all outputs, each of which does nothing. */
struct replica_io quiet_io(void);

#endif
