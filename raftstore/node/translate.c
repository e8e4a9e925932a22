#include "raftstore/node/translate.h"

#include "raftstore/wire/pack.h"

#include <errno.h>

static void translate_limits(const Hf__Limits *in, struct lock_limits *ret)
{
    *ret = (struct lock_limits){0};
    if (in == NULL)
        return;
    ret->holds_max = in->holds_max;
    ret->holds_per_session_max = in->holds_per_session_max;
    ret->waiters_max = in->waiters_max;
    ret->sessions_max = in->sessions_max;
    ret->directories_max = in->directories_max;
}

int translate_command(const Hf__Command *command, struct lock_command *ret)
{
    if (command->op < LOCK_OP_SESSION_OPEN || command->op > LOCK_OP_EPOCH ||
        command->n_paths > LOCK_PATHS_MAX)
        return -EINVAL;
    *ret = (struct lock_command){
        .op = (enum lock_op)command->op,
        .flags = command->flags,
        .session_id = command->session_id,
        .seq = command->seq,
        .ack_seq = command->ack_seq,
        .n_paths = (unsigned)command->n_paths,
        .owner = pack_bytes(command->owner),
        .token = command->token,
        .mode = (enum lock_mode)command->mode,
        .kind = (enum lock_kind)command->kind,
        .start = command->start,
        .end = UINT64_MAX - command->end_inverted,
        .ttl_ms = command->ttl_ms,
        .wait_ms = command->wait_ms,
        .lock_delay_ms = command->lock_delay_ms,
        .agent = command->agent,
        .cancel_seq = command->cancel_seq,
        .note = pack_bytes(command->note),
        .host = pack_bytes(command->host),
        .pid = command->pid,
        .uid = command->uid,
        .gid = command->gid,
        .perm = command->perm,
        .term = command->term,
        .node_id = command->node_id,
        .epoch = command->epoch,
        .limit = command->limit,
        .mtime_ns = command->mtime_ns,
    };
    for (size_t i = 0; i < command->n_paths; i++)
        ret->paths[i] = pack_bytes(command->paths[i]);
    translate_limits(command->limits, &ret->limits);
    return 0;
}

bool translate_op_is_client(uint32_t op)
{
    return op >= LOCK_OP_SESSION_OPEN && op <= LOCK_OP_RENAME;
}

void translate_result(const struct lock_result *result, uint64_t index, Hf__Result *ret)
{
    ret->code = result->code;
    ret->stamp_ns = result->stamp_ns;
    ret->session_id = result->session_id;
    ret->token = result->token;
    ret->deadline_ns = result->deadline_ns;
    ret->ttl_ms = result->ttl_ms;
    ret->holder = pack_binary(result->holder);
    ret->holder_deadline_ns = result->holder_deadline_ns;
    ret->repeated_ = result->repeated;
    ret->index = index;
}

void translate_effect(const struct lock_effect *effect,
                      uint64_t index,
                      uint64_t stamp_ns,
                      Hf__Event *ret)
{
    ret->index = index;
    ret->type = effect->type;
    ret->code = effect->code;
    ret->waited = effect->waited;
    ret->mode = effect->mode;
    ret->kind = effect->kind;
    ret->session_id = effect->session_id;
    ret->seq = effect->seq;
    ret->token = effect->token;
    ret->stamp_ns = stamp_ns;
    ret->deadline_ns = effect->deadline_ns;
    ret->ttl_ms = effect->ttl_ms;
    ret->start = effect->start;
    ret->end_inverted = UINT64_MAX - effect->end;
    ret->path = pack_binary(effect->path);
    ret->path2 = pack_binary(effect->path2);
    ret->owner = pack_binary(effect->owner);
    ret->pid = effect->pid;
    ret->uid = effect->uid;
    ret->limit = effect->limit;
}
