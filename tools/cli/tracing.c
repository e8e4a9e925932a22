/* The trace that this process is part of: $TRACEPARENT and $TRACESTATE, as is the habit of
 * processes, and the exporter of --otlp. */
#include "cli.h"

#include "raftstore/base/random.h"

#include <stdlib.h>

int cli_tracing_begin(struct cli *cli)
{
    const char *parent = getenv("TRACEPARENT"), *state = getenv("TRACESTATE");
    const char *wrong = NULL;
    char *sentence = NULL;
    if (parent != NULL && trace_parse(bytes_str(parent), &cli->trace) && state != NULL)
        (void)trace_state_parse(bytes_str(state), cli->trace.state); /* A bad one is left out. */
    if (cli->otlp_url == NULL)
        return EXIT_DONE;
    if (otlp_check_url(cli->otlp_url, false, &wrong) < 0)
        return cli_fail(EXIT_USAGE, "--otlp %s: %s", cli->otlp_url, wrong);
    struct otlp_config config = {
        .url = cli->otlp_url,
        .service = "holdfast",
        .spans = spans_new(1, 0), /* Who names a collector wants to see something. */
    };
    if (otlp_start(&config, &cli->otlp, &sentence) < 0) {
        int code = cli_fail(EXIT_OS, "--otlp %s", sentence);
        free(sentence);
        spans_free(config.spans);
        return code;
    }
    cli->spans = config.spans;
    return EXIT_DONE;
}

void cli_tracing_end(struct cli *cli)
{
    otlp_stop(cli->otlp);
    cli->otlp = NULL;
    cli->spans = NULL;
}

struct span *cli_tracing_span(struct cli *cli, const char *name)
{
    const struct trace_context *parent = trace_is_set(&cli->trace) ? &cli->trace : NULL;
    struct span *span = span_begin(cli->spans, name, SPAN_INTERNAL, parent, true);
    struct random random = {random_system()};
    if (span != NULL)
        trace_copy(&cli->trace, &span->context);
    else if (parent != NULL)
        trace_new_span_id(&random, cli->trace.span_id);
    return span;
}

void cli_tracing_environment(const struct cli *cli)
{
    char text[TRACE_PARENT_BYTES + 1];
    if (!trace_is_set(&cli->trace)) {
        (void)unsetenv("TRACEPARENT"); /* It is none. */
        (void)unsetenv("TRACESTATE");
        return;
    }
    (void)setenv("TRACEPARENT", trace_format(&cli->trace, text), 1);
    if (cli->trace.state[0] != '\0')
        (void)setenv("TRACESTATE", cli->trace.state, 1);
    else
        (void)unsetenv("TRACESTATE");
}
