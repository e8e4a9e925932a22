/* The end of the gateway's own certificates, told in time: from two weeks before, once a day, and
 * when one has ended. */
#ifndef HOLDFAST_GATEWAY_EXPIRY_H
#define HOLDFAST_GATEWAY_EXPIRY_H

#include "gateway/gateway.h"

/* Look now and every second until gateway_stop(); call it when the certificates are loaded and the
 * timers are there. */
void expiry_start(struct gateway *gw);
void expiry_stop(struct gateway *gw);

/* New certificates were loaded: what is to be told of them is told at once. */
void expiry_renewed(struct gateway *gw);

#endif
