/* GET /locks/{lock_id}/events: server-sent events (WHATWG HTML, 9.2).
 *
 * All streams share one client of their own, which subscribes to the paths that somebody watches
 * (to everything when these are too many for one subscription) and exists as long as there are
 * streams.  A stream begins with the lock's state, a read; events up to that read's log index are
 * in it already and are left out, later ones follow.  After a gap in the notifications the state is
 * sent again. */
#ifndef HOLDFAST_GATEWAY_STREAMS_H
#define HOLDFAST_GATEWAY_STREAMS_H

#include "gateway/gateway.h"

struct streams *streams_new(struct gateway *gw);

/* End all: what is on its way is sent. */
void streams_stop_all(struct streams *ss);

/* gateway.tls is another one. */
void streams_set_tls(struct streams *ss);

/* Free it; `cb` is called when that is done, maybe at once.  No stream may be left. */
void streams_close(struct streams *ss, void (*cb)(void *arg), void *arg);

#endif
