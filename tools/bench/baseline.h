/* The baseline: bare libraft, as it comes, on as many nodes.
 *
 * Each node is a process of its own with libraft's raft_apply() and its own disk and network code
 * (raft_uv: O_DIRECT segments, TCP on loopback); the leader proposes entries of 64 bytes.  This
 * is what a program gets from libraft out of the box; "tuned" sets TCP_NODELAY on its sockets,
 * turns its tracer off and takes no snapshot while it is measured. */
#ifndef HOLDFAST_BENCH_BASELINE_H
#define HOLDFAST_BENCH_BASELINE_H

#include "tools/bench/bench.h"

#define BASELINE_NODES_MAX 7u

/* Run it: fork, elect, measure with `in_flight` entries outstanding, end the processes.
 *
 * @nodes: 1..BASELINE_NODES_MAX.
 * Return: 0; negative errno and a sentence on stderr. */
int baseline_run(const struct bench_options *o,
                 unsigned nodes,
                 unsigned in_flight,
                 bool tuned,
                 struct bench_figures *f);

#endif
