/* A FUSE request that waits for the cluster.
 *
 * States: WAITING (the kernel's request is open) -> ANSWERED.  An interrupt (a signal, SIGKILL
 * too) leaves the answer that is on its way a short grace, since a signal that the program merely
 * handles (a shell's SIGCHLD) should not turn an open() into EINTR; then it is EINTR,
 * `on_interrupt` cancels what can be canceled, and the callback that still comes finds op_waiting()
 * false: what was granted meanwhile it must undo.
 *
 * | event                    | WAITING                   | ANSWERED           |
 * |--------------------------|---------------------------|--------------------|
 * | cluster's answer         | reply -> ANSWERED, free   | undo a grant, free |
 * | interrupt, grace is over | EINTR, cancel -> ANSWERED | cannot happen      |
 */
#ifndef HOLDFAST_FS_OP_H
#define HOLDFAST_FS_OP_H

#include "fs/fs.h"

struct op {
    struct fs *fs;
    fuse_req_t request;                  /* NULL once it is answered. */
    struct fuse_ctx caller;              /* Thread id, uid, gid, umask; valid throughout. */
    uint64_t until_mono_ns;              /* End of timeout=, counted from the request. */
    uv_timer_t *grace;                   /* Runs after an interrupt; NULL else. */
    void (*on_interrupt)(struct op *op); /* Cancel; may be NULL. */
};

#define OP_INTERRUPT_GRACE_MS 20u

/* The daemon's state, from a request. */
struct fs *op_fs(fuse_req_t request);

/* Begin: take the request over and register for its interrupt. `op` is zeroed memory of the
 * caller's, which frees it after the answer. */
void op_init(struct op *op, fuse_req_t request, void (*on_interrupt)(struct op *op));

/* Is the kernel still waiting? */
bool op_waiting(const struct op *op);

/* Hand the request out to be answered: from now on the op counts as answered.
 *
 * Return: NULL when the interrupt was answered before. */
fuse_req_t op_take(struct op *op);

/* Answer with an errno (0: success), if the kernel is still waiting. */
void op_reply_errno(struct op *op, int error);

/* How long the cluster may take: what is left of timeout=, at least 1. */
uint64_t op_timeout_ms(const struct op *op);

/* Who calls: the process, and its lineage (n = 0 when it can't be told). */
struct process_id op_process(const struct op *op);
void op_lineage(const struct op *op, struct lineage *ret_lineage);

#endif
