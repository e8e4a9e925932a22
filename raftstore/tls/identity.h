/* Who a certificate speaks for.
 *
 * A certificate of a Holdfast cluster names its bearer in one subjectAltName URI:
 *
 *     holdfast:node/ID          a node: may take part in the cluster's own traffic
 *     holdfast:mount/HOST       a mount: may speak for that host
 *     holdfast:gateway/NAME     an HTTP gateway
 *     holdfast:client/NAME      a person or program (the CLI)
 *
 * Other names in it are ignored; a certificate with none or several of these speaks for nobody. */
#ifndef HOLDFAST_TLS_IDENTITY_H
#define HOLDFAST_TLS_IDENTITY_H

#include "raftstore/base/bytes.h"

#include <stdint.h>

#define IDENTITY_NAME_BYTES_MAX 64u
#define IDENTITY_URI_BYTES_MAX  (IDENTITY_NAME_BYTES_MAX + 32u) /* Without the NUL. */

enum identity_kind {
    IDENTITY_NONE = 0,
    IDENTITY_NODE,
    IDENTITY_MOUNT,
    IDENTITY_GATEWAY,
    IDENTITY_CLIENT,
};

struct identity {
    enum identity_kind kind;
    uint64_t node_id;                       /* NODE. */
    char name[IDENTITY_NAME_BYTES_MAX + 1]; /* The part behind the slash. */
};

/* Parse one URI.  NAME: letters, digits, '.', '_', '-', ':', '@'; ID: a number above 0.
 *
 * Return: 0; -ENOENT it is no URI of ours; -EINVAL it is one, with a bad name. */
int identity_parse(struct bytes uri, struct identity *ret);

/* The URI as a string in `out`, which has room for IDENTITY_URI_BYTES_MAX + 1.
 *
 * Return: out. */
char *identity_format(const struct identity *identity, char *out);

/* "node", "mount", ...; "none". */
const char *identity_kind_name(enum identity_kind kind);

#endif
