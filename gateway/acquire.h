/* POST /locks/acquire. */
#ifndef HOLDFAST_GATEWAY_ACQUIRE_H
#define HOLDFAST_GATEWAY_ACQUIRE_H

#include "gateway/gateway.h"

/* The gateway stops: answer everybody who waits for a lock with 503, and stop waiting for it. */
void acquire_stop_all(struct gateway *gw);

#endif
