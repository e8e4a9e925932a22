/* Between the wire and the lock table: Command -> struct lock_command, and lock results, effects
 * and views -> messages. */
#ifndef HOLDFAST_NODE_TRANSLATE_H
#define HOLDFAST_NODE_TRANSLATE_H

#include "raftstore/lock/lock.h"
#include "raftstore/lock/view.h"
#include "raftstore/wire/pack.h"

#include "holdfast.pb-c.h"

/* Fill `ret` from a message; its bytes are borrowed from the message. stamp_ns is left 0.
 *
 * Return: 0; -EINVAL for an unknown op or more than LOCK_PATHS_MAX paths (everything else is judged
 * by lock_step()). */
int translate_command(const Hf__Command *command, struct lock_command *ret);

/* The same from a packed Command, and cheaply; its bytes are borrowed from `in` or from the arena.
 *
 * Return: 0; -EINVAL as above, or malformed. */
int translate_parse(struct arena *a, struct bytes in, struct lock_command *ret);

/* Its fast way: only for what has nothing out of the ordinary in it.
 *
 * Return: false: the bytes must be judged by protobuf-c; `ret` is undefined. */
bool translate_parse_plain(struct bytes in, struct lock_command *ret);

/* May a client send this op?  (TICK, TERM_START, NODE_INFO and EPOCH are the nodes' own.) */
bool translate_op_is_client(uint32_t op);

/* Fill messages; bytes are borrowed from the source. The message must be initialised
 * (HF__..__INIT). */
void translate_result(const struct lock_result *result, uint64_t index, Hf__Result *ret);
void translate_effect(const struct lock_effect *effect,
                      uint64_t index,
                      uint64_t stamp_ns,
                      Hf__Event *ret);

#endif
