/* The kernel's side of FUSE, and what a mount asks the machine for, in the simulation.
 *
 * kernel.c has functions of the names of libfuse's that answer requests, and of fs/process.h,
 * fs/notifier.h and fs/control.h that would look into /proc, need threads, or serve `.holdfast`. */
#ifndef HOLDFAST_SIM_KERNEL_H
#define HOLDFAST_SIM_KERNEL_H

#include "fs/fs.h"
#include "tests/sim/site.h"

#define KERNEL_BYTES 64u

/* What came of a request. */
struct answer {
    int error; /* Positive errno. */
    struct fuse_entry_param entry;
    struct fuse_file_info fi;
    size_t size;
};

/* A request; libfuse's type is opaque, so this is ours. */
struct fuse_req {
    LIST_ENTRY(fuse_req) link;
    struct kernel *kernel;
    struct fuse_ctx ctx;
    fuse_interrupt_func_t on_interrupt;
    void *interrupt_arg;
    struct answer answer;
    bool answered;
    bool abandoned; /* Nobody is told. */
    /* The moment that the daemon says yes; NULL: nothing is to be looked at. */
    void (*check)(void *arg, const struct answer *a);
    /* When it is answered; NULL: nobody waits. */
    void (*done)(void *arg, const struct answer *a);
    void *arg;
};

/* One mount's. */
struct kernel {
    struct site *site;
    struct fs *fs;
    LIST_HEAD(, fuse_req) requests;
    bool (*is_alive)(void *arg, uint32_t pid);
    uint32_t (*parent)(void *arg, uint32_t pid); /* 0: it has none that counts. */
    void *arg;
};

/* A request of a process.  `done` comes from the world, never from inside. */
fuse_req_t kernel_request(struct kernel *k,
                          uint32_t pid,
                          void (*done)(void *arg, const struct answer *a),
                          void *arg);
/* The next process table that is made looks at this one's processes. */
void kernel_set_current(struct kernel *k);
/* A signal for the process that waits. */
void kernel_interrupt(fuse_req_t r);
/* The daemon is gone: nobody is told anything more. */
void kernel_abort(struct kernel *k);

#endif
