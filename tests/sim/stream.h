/* raftstore/node/stream.h over virtual cables: how a stream comes to one. */
#ifndef HOLDFAST_SIM_STREAM_H
#define HOLDFAST_SIM_STREAM_H

#include "raftstore/node/stream.h"
#include "tests/sim/cable.h"

/* The node's end of a connection that was accepted. */
struct stream *sim_stream_new(struct stream_hub *hub, struct cable *cable);

#endif
