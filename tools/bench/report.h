/* Results for people (a table) and for programs (a JSON object a line). */
#ifndef HOLDFAST_BENCH_REPORT_H
#define HOLDFAST_BENCH_REPORT_H

#include "tools/bench/bench.h"

/* Name of a mode or of a kind of operation. */
const char *report_mode_name(enum bench_mode mode);
const char *report_op_name(enum bench_op op);

/* Head of the table; nothing with --json. */
void report_begin(const struct bench_options *o);

/* One mode's figures. @what: "cycle", "baseline-tuned", ... @in_flight: in all. */
void report_figures(const struct bench_options *o,
                    const char *what,
                    unsigned in_flight,
                    const struct bench_figures *f);

/* How one p50 relates to another; nothing if either is missing. */
void report_ratio(const struct bench_options *o,
                  const char *what,
                  uint64_t p50_ns,
                  uint64_t baseline_p50_ns);

#endif
