/* No subject takes all of a gateway: of the connections that there may be, the requests of one
 * subject that are under way (those that wait for a lock, event streams) get half at most.  Without
 * tokens there is one subject, and no bound. */
#ifndef HOLDFAST_GATEWAY_SHARE_H
#define HOLDFAST_GATEWAY_SHARE_H

#include "gateway/call.h"

/* A call whose caller is known begins.
 *
 * Return: true: share_give() when it ends; false: there are too many of its subject. */
bool share_take(struct call *call);
void share_give(struct call *call); /* Fine for one that has none. */

#endif
