/* The two addresses in a member's configuration text: "RAFT,CLIENT". */
#include "raftstore/node/node_internal.h"

#include <stdio.h>
#include <string.h>

const char *node_client_address(const char *text)
{
    const char *comma = strchr(text, ',');
    return comma != NULL ? comma + 1 : "";
}

void node_raft_address(const char *text, char *out, size_t size)
{
    const char *comma = strchr(text, ',');
    size_t n = comma != NULL ? (size_t)(comma - text) : strlen(text);
    (void)snprintf(out, size, "%.*s", (int)(n < 512 ? n : 512), text);
}
