/* The command line of holdfastd. */
#ifndef HOLDFAST_NODE_OPTIONS_H
#define HOLDFAST_NODE_OPTIONS_H

#include "raftstore/node/node.h"

/* What a process of holdfastd ends with. */
enum options_exit {
    OPTIONS_EXIT_OK = 0,
    OPTIONS_EXIT_START = 1,   /* Could not start: address, permission. */
    OPTIONS_EXIT_USAGE = 2,   /* Wrong options. */
    OPTIONS_EXIT_DAMAGED = 3, /* Damaged or foreign data. */
    OPTIONS_EXIT_FAILED = 4,  /* Stopped because of a failure while running. */
};

/* Where the process tells of what it does. */
struct options_telemetry {
    const char *audit;   /* File, "-" = standard error; NULL = nowhere. */
    const char *otlp;    /* URL of a collector of spans; NULL = none. */
    const char *otlp_ca; /* PEM file: whom to trust as that; NULL = the system's. */
    double trace_ratio;  /* Share of the traces that begin here that is recorded. */
};

/* Parse; prints help, version or what is wrong.
 *
 * @ret_config: everything but loop, on_failed, audit and spans; texts borrow from argv.
 * Return: -1 go on; else the exit code to end with at once. */
int options_parse(int argc,
                  char **argv,
                  struct node_config *ret_config,
                  struct options_telemetry *ret_telemetry);

#endif
