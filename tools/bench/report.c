#include "tools/bench/report.h"

#include <inttypes.h>
#include <stdio.h>

const char *report_mode_name(enum bench_mode mode)
{
    static const char *const names[] = {
        "cycle", "read", "mix", "contend", "renew", "fill", "baseline",
    };
    return names[mode];
}

const char *report_op_name(enum bench_op op)
{
    static const char *const names[] = {
        "acquire", "release", "read", "renew", "handoff", "commit", "refused",
    };
    return names[op];
}

static double us(uint64_t ns)
{
    return (double)ns / 1e3;
}

static double per_second(uint64_t n, uint64_t elapsed_ns)
{
    return elapsed_ns > 0 ? (double)n * 1e9 / (double)elapsed_ns : 0.0;
}

void report_begin(const struct bench_options *o)
{
    if (o->json)
        return;
    printf("%s\n%-16s %9s %-8s %10s %9s %9s %9s %9s %7s\n", "Latencies in microseconds.", "mode",
           "in flight", "what", "per second", "p50", "p99", "p99.9", "max", "errors");
    (void)fflush(stdout);
}

static void report_op(const struct bench_options *o,
                      const char *what,
                      unsigned in_flight,
                      enum bench_op op,
                      const struct bench_figures *f)
{
    const struct histogram *h = &f->ops[op];
    const char *format =
        o->json ? "{\"mode\":\"%s\",\"in_flight\":%u,\"op\":\"%s\",\"per_second\":%.1f,"
                  "\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f,"
                  "\"errors\":%" PRIu64 ",\"n\":%" PRIu64 "}\n"
                : "%-16s %9u %-8s %10.1f %9.1f %9.1f %9.1f %9.1f %7" PRIu64 "\n";

    printf(format, what, in_flight, report_op_name(op), per_second(h->n, f->elapsed_ns),
           us(histogram_quantile_ns(h, 0.5)), us(histogram_quantile_ns(h, 0.99)),
           us(histogram_quantile_ns(h, 0.999)), us(h->max_ns), f->errors[op], h->n);
}

/* Operations a second of all kinds, and what they cost the servers. */
static void
report_total(const struct bench_options *o, const char *what, const struct bench_figures *f)
{
    uint64_t n = 0;

    for (unsigned op = 0; op < BENCH_OP_N; op++)
        if (op != BENCH_OP_HANDOFF && op != BENCH_OP_REFUSED)
            n += f->ops[op].n;
    double rate = per_second(n, f->elapsed_ns);
    double cpu_us = n > 0 ? us(f->cpu_ns) / (double)n : 0.0;

    if (o->json) {
        printf("{\"mode\":\"%s\",\"op\":\"all\",\"per_second\":%.1f,\"n\":%" PRIu64
               ",\"server_cpu_us_per_op\":%.2f,\"busy\":%" PRIu64 ",\"overlaps\":%" PRIu64
               ",\"how\":\"%s\"}\n",
               what, rate, n, cpu_us, f->busy, f->overlaps, f->how != NULL ? f->how : "");
        return;
    }
    printf("  %s: %.1f operations/s", what, rate);
    if (o->n_pids > 0)
        printf(", %.2f us of server CPU each", cpu_us);
    if (f->busy > 0)
        printf(", %" PRIu64 " attempts found it held", f->busy);
    if (f->overlaps > 0)
        printf(", %" PRIu64 " TIMES TWO HOLDERS", f->overlaps);
    printf("%s%s\n", f->how != NULL ? "; " : "", f->how != NULL ? f->how : "");
}

void report_figures(const struct bench_options *o,
                    const char *what,
                    unsigned in_flight,
                    const struct bench_figures *f)
{
    for (unsigned op = 0; op < BENCH_OP_N; op++)
        if (f->ops[op].n > 0 || f->errors[op] > 0)
            report_op(o, what, in_flight, (enum bench_op)op, f);
    report_total(o, what, f);
    (void)fflush(stdout);
}

void report_ratio(const struct bench_options *o,
                  const char *what,
                  uint64_t p50_ns,
                  uint64_t baseline_p50_ns)
{
    if (p50_ns == 0 || baseline_p50_ns == 0)
        return;
    double ratio = (double)p50_ns / (double)baseline_p50_ns;
    if (o->json)
        printf("{\"ratio\":\"%s\",\"p50_us\":%.1f,\"baseline_p50_us\":%.1f,\"value\":%.2f}\n", what,
               us(p50_ns), us(baseline_p50_ns), ratio);
    else
        printf("%s: p50 %.1f us / baseline p50 %.1f us = %.2f\n", what, us(p50_ns),
               us(baseline_p50_ns), ratio);
    (void)fflush(stdout);
}
