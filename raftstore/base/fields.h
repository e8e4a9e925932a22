/* Lines of key=value pairs, which programs can read back: a value that is not a plain word stands
 * in double quotes, with \" and \\ for these two, and \xNN for control bytes and what is no UTF-8.
 * So no value, whatever its bytes, begins a new line or looks like a further pair.  Pure. */
#ifndef HOLDFAST_BASE_FIELDS_H
#define HOLDFAST_BASE_FIELDS_H

#include "raftstore/base/buf.h"

/* Append one pair, behind a space unless it is the first of its line. */
void field_bytes(struct buf *out, const char *key, struct bytes value);
void field_text(struct buf *out, const char *key, const char *value);
void field_u64(struct buf *out, const char *key, uint64_t value);
void field_bool(struct buf *out, const char *key, bool value); /* yes, no */

/* An instant of the wall clock: "2026-11-24T06:20:01.123Z". */
void field_time(struct buf *out, const char *key, uint64_t wall_ms);

/* End the line. */
void field_end(struct buf *out);

#endif
