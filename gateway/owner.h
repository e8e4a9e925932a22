/* Whose hold: the owner text that the cluster knows, made of a subject and an owner_id.
 *
 *     http/SUBJECT/OWNER_ID
 *
 * Two different pairs never give the same text, the same pair always does, and no text is longer
 * than the cluster's bound.  Bytes other than letters, digits and some signs are written %XX.  What
 * is too long is cut, and a SHA-256 of the whole follows a '~', which stands nowhere else.  SUBJECT
 * is empty where no token was asked for (--no-auth). */
#ifndef HOLDFAST_GATEWAY_OWNER_H
#define HOLDFAST_GATEWAY_OWNER_H

#include "raftstore/base/buf.h"
#include "raftstore/wire/codes.h"

/* Make the text; 1..WIRE_OWNER_BYTES_MAX bytes are appended to `out`. */
void owner_make(struct bytes subject, struct bytes owner_id, struct buf *out);

/* The owner_id of an owner text, as a caller of the API may see it: for a text that was made here,
 * what owner_make() was given (shortened if it was too long); for any other owner its whole text.
 * Appended to `out`; need not be UTF-8. */
void owner_show(struct bytes owner, struct buf *out);

/* Are two owners the same owner_id, each of another subject?  (The caller has seen that the texts
 * differ.) */
bool owner_same_id(struct bytes owner, struct bytes other);

/* Append the bytes, with what is no plain sign as %XX.  What is plain: letters, digits and
 * `-._!$&'()*+,;=:@|`, and the bytes of `also`. */
void percent_add(struct buf *out, struct bytes in, const char *also);

/* Undo it: any byte may be written %XX.
 *
 * Return: 0; -EINVAL a '%' without two hexadecimal digits behind it. */
int percent_undo(struct buf *out, struct bytes in);

#endif
