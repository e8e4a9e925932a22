/* Names of locks. */
#ifndef HOLDFAST_GATEWAY_LOCKID_H
#define HOLDFAST_GATEWAY_LOCKID_H

#include "raftstore/base/bytes.h"

/* What is wrong with a lock_id, in a sentence that lives for ever; NULL: nothing. */
const char *lockid_problem(struct bytes id);

#endif
