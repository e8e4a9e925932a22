/* Sends spans (span.h) to a collector: OTLP/HTTP with JSON (OpenTelemetry Protocol 1.x).
 *
 * A thread takes what has ended, a batch a second or as soon as one is full, and posts it.  It
 * never holds anybody up: while the collector is slow, away or answers "not now" (429, 502, 503,
 * 504; with Retry-After), the batch is kept and tried again, less and less often, for a minute;
 * meanwhile the queue may run full and spans are dropped and counted.  What the collector refuses
 * otherwise is dropped at once. */
#ifndef HOLDFAST_TELEMETRY_OTLP_H
#define HOLDFAST_TELEMETRY_OTLP_H

#include "raftstore/base/buf.h"
#include "telemetry/span.h"

struct otlp;

struct otlp_config {
    const char *url;      /* "http://localhost:4318": "/v1/traces" is added if there is no path. */
    const char *ca_file;  /* PEM certificates to trust for https; NULL = the system's. */
    bool insecure;        /* http beyond this machine is allowed. */
    const char *service;  /* "holdfastd", ...: service.name. */
    const char *instance; /* Which one of them: service.instance.id; NULL = none. */
    struct spans *spans;  /* Taken over on success. */
};                        /* The texts are copied. */

/* Is it a URL that spans may be sent to?
 *
 * Return: 0; -EINVAL: *ret_sentence (valid for ever) says what is wrong with it. */
int otlp_check_url(const char *url, bool insecure, const char **ret_sentence);

/* Start the thread.  (After any fork().)
 *
 * Return: 0; negative errno, and *ret_sentence (owned by the caller) says why. */
int otlp_start(const struct otlp_config *config, struct otlp **ret, char **ret_sentence);

/* Send what waits, for two seconds or so at most, end the thread and free the spans, which nobody
 * may use any more.  NULL is accepted. */
void otlp_stop(struct otlp *o);

/* The body of a request for these spans: JSON.  For otlp_start()'s thread, and for tests. */
char *otlp_encode(const struct otlp_config *config, const struct span_list *spans);

#endif
