/* raftstore/node/stream.h over memory, in the place of stream.c: what comes in is the input's, what
 * goes out is looked at and forgotten. */
#ifndef HOLDFAST_FUZZ_STREAM_H
#define HOLDFAST_FUZZ_STREAM_H

#include "raftstore/node/stream.h"
#include "raftstore/wire/pack.h"

/* Frames that go out must be messages of this kind, within the bound. */
void fuzz_stream_expect(const ProtobufCMessageDescriptor *descriptor, size_t bytes_max);

/* Each stream's output is shown to this as well; NULL = to nobody. */
void fuzz_stream_watch(void (*watch)(struct stream *s, struct bytes out));

/* Whom the other side's certificate names; NULL: none (as stream_new() makes it).  Copied. */
void fuzz_stream_identify(struct stream *s, const struct identity *identity);

/* Did the other side send these bytes, ever? */
bool fuzz_stream_said(const struct stream *s, struct bytes what);

/* The streams that are open and started, in the order of their making; NULL behind the last. */
struct stream *fuzz_stream(struct stream_hub *hub, unsigned i);
unsigned fuzz_stream_count(const struct stream_hub *hub);

/* Bytes come; the other side closes. */
void fuzz_stream_feed(struct stream *s, struct bytes bytes);
void fuzz_stream_end(struct stream *s, int status);

#endif
