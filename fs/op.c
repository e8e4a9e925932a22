#include "fs/op.h"

#include "raftstore/base/buf.h"

#include <errno.h>
#include <stdlib.h>

struct fs *op_fs(fuse_req_t request)
{
    return fuse_req_userdata(request);
}

static void on_grace_closed(uv_handle_t *timer)
{
    free(timer);
}

static void stop_grace(struct op *op)
{
    if (op->grace == NULL)
        return;
    uv_close((uv_handle_t *)op->grace, on_grace_closed);
    op->grace = NULL;
}

static void on_grace_over(uv_timer_t *timer)
{
    struct op *op = timer->data;
    fuse_req_t request = op_take(op);
    (void)fuse_reply_err(request, EINTR); /* Fails only when the mount is gone. */
    if (op->on_interrupt != NULL)
        op->on_interrupt(op);
}

/* Called by libfuse on our thread: from within the processing of the INTERRUPT request, or from
 * op_init() when that came first. */
static void on_fuse_interrupt(fuse_req_t request, void *arg)
{
    struct op *op = arg;
    (void)request;
    if (op->request == NULL || op->grace != NULL)
        return;
    op->grace = xcalloc(1, sizeof *op->grace);
    (void)uv_timer_init(op->fs->loop, op->grace); /* Never fails. */
    op->grace->data = op;
    (void)uv_timer_start(op->grace, on_grace_over, OP_INTERRUPT_GRACE_MS, 0);
}

void op_init(struct op *op, fuse_req_t request, void (*on_interrupt)(struct op *op))
{
    op->fs = op_fs(request);
    op->request = request;
    op->caller = *fuse_req_ctx(request);
    op->on_interrupt = on_interrupt;
    op->until_mono_ns = clock_mono_ns(clock_system()) + op->fs->options->timeout_ms * NS_PER_MS;
    fuse_req_interrupt_func(request, on_fuse_interrupt, op);
}

bool op_waiting(const struct op *op)
{
    return op->request != NULL;
}

fuse_req_t op_take(struct op *op)
{
    fuse_req_t request = op->request;
    stop_grace(op);
    op->request = NULL;
    if (request != NULL)
        fuse_req_interrupt_func(request, NULL, NULL);
    return request;
}

void op_reply_errno(struct op *op, int error)
{
    fuse_req_t request = op_take(op);
    if (request != NULL)
        (void)fuse_reply_err(request, error); /* Fails only when the mount is gone. */
}

uint64_t op_timeout_ms(const struct op *op)
{
    uint64_t now = clock_mono_ns(clock_system());
    return now < op->until_mono_ns ? (op->until_mono_ns - now + NS_PER_MS - 1) / NS_PER_MS : 1;
}

struct process_id op_process(const struct op *op)
{
    return process_of_thread(op->fs->processes, (uint32_t)op->caller.pid);
}

void op_lineage(const struct op *op, struct lineage *ret_lineage)
{
    (void)process_lineage(op->fs->processes, op_process(op), ret_lineage); /* n = 0 on failure. */
}
