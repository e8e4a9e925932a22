#include "raftstore/node/access.h"

static bool is_restricted(const struct identity *identity)
{
    return identity != NULL && identity->kind != IDENTITY_NODE && identity->kind != IDENTITY_CLIENT;
}

const char *access_command(const struct identity *identity, const struct lock_command *command)
{
    if (!is_restricted(identity))
        return NULL;
    if (command->op == LOCK_OP_BREAK)
        return "only a certificate of kind client may break locks";
    if (command->op == LOCK_OP_SESSION_OPEN && identity->kind == IDENTITY_MOUNT &&
        !bytes_equal(command->host, bytes_str(identity->name)))
        return "the certificate speaks for another host";
    return NULL;
}

const char *access_admin(const struct identity *identity)
{
    return is_restricted(identity) ? "only a certificate of kind client may do that" : NULL;
}
