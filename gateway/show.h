/* A lock as JSON. */
#ifndef HOLDFAST_GATEWAY_SHOW_H
#define HOLDFAST_GATEWAY_SHOW_H

#include "gateway/gateway.h"

#include <jansson.h>

/* A lock that is held: its first hold's members at the top, and all of them in `holds` if asked. */
json_t *lock_json(const struct gateway *gw, const Hf__Node *n, bool all_holds);

#endif
