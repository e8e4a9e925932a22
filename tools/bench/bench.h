/* What the parts of holdfast-bench share: options and figures.
 *
 * A mode runs for a warm-up and then for `seconds`; only operations that begin and end inside
 * that window are counted.  Everything is bounded in time. */
#ifndef HOLDFAST_BENCH_BENCH_H
#define HOLDFAST_BENCH_BENCH_H

#include "raftstore/base/clock.h"
#include "raftstore/tls/tls.h"
#include "tools/bench/histogram.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define BENCH_MODES_MAX   8
#define BENCH_PIDS_MAX    32
#define BENCH_CLIENTS_MAX 4096u
#define BENCH_WARMUP_MS   500u

enum bench_mode {
    BENCH_CYCLE,    /* Acquire and release, each client its own keys. */
    BENCH_READ,     /* Who holds it?  Of a key that is held. */
    BENCH_MIX,      /* 70 % reads, 30 % acquires and releases. */
    BENCH_CONTEND,  /* All clients want the one key and give it back at once. */
    BENCH_RENEW,    /* Renewals of a key that is held. */
    BENCH_FILL,     /* Take `locks` leases and leave them. */
    BENCH_BASELINE, /* Bare libraft. */
};

enum bench_op {
    BENCH_OP_ACQUIRE, /* Call to held. */
    BENCH_OP_RELEASE, /* Call to released. */
    BENCH_OP_READ,
    BENCH_OP_RENEW,
    BENCH_OP_HANDOFF, /* Release sent by the holder to grant seen by the next one. */
    BENCH_OP_COMMIT,  /* Baseline: one entry of 64 bytes. */
    BENCH_OP_REFUSED, /* Native: call to being refused for load (BUSY); no error. */
    BENCH_OP_N,
};

struct bench_options {
    const char *cluster;        /* Node list for the native protocol, or NULL. */
    const char *mounts;         /* Comma list of mount points, or NULL. */
    const char *baseline_dir;   /* Where the baseline keeps its logs. */
    unsigned seconds;           /* Length of one measured window. */
    unsigned clients;           /* Sessions, or processes on mounts. */
    unsigned inflight;          /* Requests in flight a client; 0 = the mode's own. */
    unsigned directories;       /* Keys are spread over so many directories. */
    unsigned nodes;             /* Of the baseline; 0 = as many as the cluster has voters. */
    uint64_t locks;             /* BENCH_FILL. */
    uint64_t ttl_ms;            /* Of leases (native); 0 = holds on the session. */
    uint64_t timeout_ms;        /* Of one operation (native). */
    bool sessions_one;          /* One session for all clients. */
    bool json;                  /* JSON lines instead of a table. */
    bool baseline;              /* Measure bare libraft as well. */
    pid_t pids[BENCH_PIDS_MAX]; /* Servers whose CPU time is counted. */
    unsigned n_pids;
    struct tls_context *tls;                /* --tls; NULL = in the clear. */
    enum bench_mode modes[BENCH_MODES_MAX]; /* What to run, in order. */
    unsigned n_modes;
};

/* What one mode measured; plain memory, for sharing between processes. */
struct bench_figures {
    struct histogram ops[BENCH_OP_N]; /* By kind of operation. */
    uint64_t errors[BENCH_OP_N];      /* Operations that failed. */
    uint64_t busy;                    /* Polled attempts that found the lock held. */
    uint64_t overlaps;                /* Two holders at once: must be 0. */
    uint64_t elapsed_ns;              /* Length of the window. */
    uint64_t cpu_ns;                  /* Of options.pids inside the window. */
    const char *how;                  /* A remark for the report, static; or NULL. */
};

/* One mode over the native protocol.  Return: 0; negative errno, and a sentence on stderr. */
int bench_native_run(const struct bench_options *o, enum bench_mode mode, struct bench_figures *f);

/* Voters of the cluster, 0 when it doesn't answer. */
unsigned bench_native_voters(const struct bench_options *o);

/* One mode on mounts, a process for each client. */
int bench_mount_run(const struct bench_options *o, enum bench_mode mode, struct bench_figures *f);

/* CPU time that the processes have used so far; those that are gone count 0. */
uint64_t bench_cpu_ns(const pid_t *pids, unsigned n_pids);

/* Memory shared with children, zeroed; never NULL (ends the process when there is none). */
void *bench_shared_alloc(size_t size);

#endif
