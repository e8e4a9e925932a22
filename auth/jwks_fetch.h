/* Read a key set's document from where it lives: a file, or a URL by libcurl.
 *
 * Blocks: for a worker thread, or before the loop runs.  Any thread.
 *
 * A URL must be https; http is taken for loopback addresses only, since whoever can change the
 * document on its way makes the keys.  Certificates are always checked; redirects are not followed;
 * the document is bounded by JWKS_BYTES_MAX while it is read. */
#ifndef HOLDFAST_AUTH_JWKS_FETCH_H
#define HOLDFAST_AUTH_JWKS_FETCH_H

#include "raftstore/base/buf.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Does it look like a URL ("https://", "http://")?  Else it is a file's name. */
bool jwks_location_is_url(const char *location);

/* Can it be fetched at all?
 *
 * Return: 0; -EINVAL: *ret_sentence (valid for ever) says what is wrong with it. */
int jwks_location_check(const char *location, const char **ret_sentence);

/* Fetch the document.
 *
 * @ca_file:      PEM certificates to trust instead of the system's; NULL = the system's.
 * @timeout_ms:   for all of it.
 * @cancel:       may be set by another thread to end the call early (within about a second); or
 * NULL.
 * @ret_document: appended.
 * @ret_sentence: on failure, what went wrong, owned by the caller.
 *
 * Return: 0; -EINVAL as jwks_location_check(); -EFBIG; -EIO for everything else. */
int jwks_fetch(const char *location,
               const char *ca_file,
               uint64_t timeout_ms,
               const atomic_bool *cancel,
               struct buf *ret_document,
               char **ret_sentence);

/* Set up libcurl, before threads use it; more than once does no harm.  (jwks_source_open() does.)
 */
void jwks_fetch_init(void);

#endif
