/* base64url without padding (RFC 4648 section 5, as RFC 7515 uses it), strictly.
 *
 * Strict: no padding, no white space, no other alphabet, no length that can't be, and the unused
 * bits of the last character are 0.  So each run of bytes has exactly one text. */
#ifndef HOLDFAST_AUTH_BASE64URL_H
#define HOLDFAST_AUTH_BASE64URL_H

#include "raftstore/base/buf.h"
#include "raftstore/base/bytes.h"

/* Decode and append to `out`.
 *
 * Return: 0; -EINVAL for anything that is not exactly base64url (`out` is as it was). */
int base64url_decode(struct bytes text, struct buf *out);

/* Encode and append to `out`. */
void base64url_encode(struct bytes data, struct buf *out);

#endif
