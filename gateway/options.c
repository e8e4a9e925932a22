#include "gateway/options.h"

#include "auth/jwt.h"
#include "raftstore/base/clock.h"
#include "raftstore/base/duration.h"
#include "raftstore/base/log.h"
#include "raftstore/base/trace.h"
#include "telemetry/otlp.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TIMEOUT_MS      5000
#define WAIT_MAX_MS     3600000
#define CONNECTIONS_MAX 16384

static const char help_text[] =
    "Usage: holdfast-gateway --listen HOST:PORT --cluster HOST:PORT,...\n"
    "           {--jwks FILE-OR-URL --issuer ISS --audience AUD --policy FILE | --no-auth}\n"
    "           [OPTION]...\n"
    "The HTTP API of a Holdfast cluster.  Any number of gateways side by side behave as one.\n"
    "\n"
    "  --listen HOST:PORT      where to serve; [IPV6]:PORT too\n"
    "  --cluster HOST:PORT,... the cluster's nodes (their addresses for clients)\n"
    "  --tls DIR               speak TLS with them, with DIR/ca.crt, tls.crt, tls.key\n"
    "  --jwks FILE-OR-URL      the keys that access tokens are signed with\n"
    "  --issuer ISS            who issues them\n"
    "  --audience AUD          whom they must be made for\n"
    "  --policy FILE           who may do what\n"
    "  --jwks-ca FILE          certificates to trust for the URL (default: the system's)\n"
    "  --scope SCOPE           a scope that each token must have\n"
    "  --roles-claim NAME      where a token has its subject's roles, such as roles or\n"
    "                          realm_access.roles (default: none; the policy binds roles)\n"
    "  --strict-typ            only tokens of the type at+jwt (RFC 9068); else JWT and none, too\n"
    "  --leeway DURATION       how far the issuer's clock may be off (default 30s)\n"
    "  --rate-subject RATE     requests of a subject: NUMBER[/s|/m|/h][:BURST] (default: no "
    "limit)\n"
    "  --rate-owner RATE       acquires, renewals and releases of a subject's owner_id (likewise)\n"
    "  --rate-failed RATE      tokens of a client's address that are refused; beyond that 429 for\n"
    "                          those not seen before (default 20/s:200; off: no limit)\n"
    "  --no-auth               serve without tokens; on loopback only\n"
    "  --tls-cert FILE --tls-key FILE\n"
    "                          serve HTTPS (TLS 1.3); PEM files; SIGHUP reads them again\n"
    "  --insecure              allow plain HTTP beyond loopback (behind a proxy with TLS)\n"
    "  --timeout DURATION      longest wait for an answer of the cluster (default 5s); then 503\n"
    "  --wait-max DURATION     longest 'wait' that a call may ask for (default 1h)\n"
    "  --connections-max N     open at once (default 16384)\n"
    "  --audit FILE            append a line for each denial and policy change ('-': standard "
    "error;\n"
    "                          SIGHUP opens the file again); grants are in the nodes' audits\n"
    "  --otlp URL              send spans to a collector (OTLP/HTTP, JSON), such as\n"
    "                          http://localhost:4318; https beyond this machine\n"
    "  --otlp-ca FILE          certificates to trust for it (default: the system's)\n"
    "  --trace-ratio N         share of the requests without a traceparent to record, 0 to 1\n"
    "                          (default 0)\n"
    "  --log-level LEVEL       error, warn, info (default) or debug\n"
    "  --version, --help\n"
    "\n"
    "It runs in the foreground, logs to standard error, and tells systemd when it serves.\n"
    "SIGTERM or SIGINT: finish what was accepted and stop; a second one: stop at once.\n"
    "\n"
    "Exit status: 0 stopped on request; 1 could not start; 2 wrong options.\n";

enum {
    OPT_LISTEN = 256,
    OPT_CLUSTER,
    OPT_CLUSTER_TLS,
    OPT_JWKS,
    OPT_ISSUER,
    OPT_AUDIENCE,
    OPT_POLICY,
    OPT_JWKS_CA,
    OPT_SCOPE,
    OPT_ROLES_CLAIM,
    OPT_LEEWAY,
    OPT_RATE_SUBJECT,
    OPT_RATE_OWNER,
    OPT_RATE_FAILED,
    OPT_STRICT_TYP,
    OPT_NO_AUTH,
    OPT_TLS_CERT,
    OPT_TLS_KEY,
    OPT_INSECURE,
    OPT_TIMEOUT,
    OPT_WAIT_MAX,
    OPT_CONNECTIONS_MAX,
    OPT_AUDIT,
    OPT_OTLP,
    OPT_OTLP_CA,
    OPT_TRACE_RATIO,
    OPT_LOG_LEVEL,
    OPT_VERSION,
    OPT_HELP,
};

static const struct option long_options[] = {
    {"listen", required_argument, NULL, OPT_LISTEN},
    {"cluster", required_argument, NULL, OPT_CLUSTER},
    {"tls", required_argument, NULL, OPT_CLUSTER_TLS},
    {"jwks", required_argument, NULL, OPT_JWKS},
    {"issuer", required_argument, NULL, OPT_ISSUER},
    {"audience", required_argument, NULL, OPT_AUDIENCE},
    {"policy", required_argument, NULL, OPT_POLICY},
    {"jwks-ca", required_argument, NULL, OPT_JWKS_CA},
    {"scope", required_argument, NULL, OPT_SCOPE},
    {"roles-claim", required_argument, NULL, OPT_ROLES_CLAIM},
    {"leeway", required_argument, NULL, OPT_LEEWAY},
    {"rate-subject", required_argument, NULL, OPT_RATE_SUBJECT},
    {"rate-owner", required_argument, NULL, OPT_RATE_OWNER},
    {"rate-failed", required_argument, NULL, OPT_RATE_FAILED},
    {"strict-typ", no_argument, NULL, OPT_STRICT_TYP},
    {"no-auth", no_argument, NULL, OPT_NO_AUTH},
    {"tls-cert", required_argument, NULL, OPT_TLS_CERT},
    {"tls-key", required_argument, NULL, OPT_TLS_KEY},
    {"insecure", no_argument, NULL, OPT_INSECURE},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"wait-max", required_argument, NULL, OPT_WAIT_MAX},
    {"connections-max", required_argument, NULL, OPT_CONNECTIONS_MAX},
    {"audit", required_argument, NULL, OPT_AUDIT},
    {"otlp", required_argument, NULL, OPT_OTLP},
    {"otlp-ca", required_argument, NULL, OPT_OTLP_CA},
    {"trace-ratio", required_argument, NULL, OPT_TRACE_RATIO},
    {"log-level", required_argument, NULL, OPT_LOG_LEVEL},
    {"version", no_argument, NULL, OPT_VERSION},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static int usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)fputs("holdfast-gateway: ", stderr);
    (void)vfprintf(stderr, format, args);
    (void)fputs(" (holdfast-gateway --help tells more)\n", stderr);
    va_end(args);
    return OPTIONS_EXIT_USAGE;
}

static int duration(const char *name, const char *text, uint64_t max_ms, uint64_t *ret_ms)
{
    uint64_t ms;
    if (duration_parse(bytes_str(text), true, &ms) < 0 || ms == 0 || ms > max_ms)
        return usage("--%s %s: must be a duration such as 5s or 1h30m", name, text);
    *ret_ms = ms;
    return -1;
}

static int rate(const char *name, const char *text, struct rate_limit *ret)
{
    if (rate_limit_parse(text, ret) < 0)
        return usage("--%s %s: must be NUMBER[/s|/m|/h][:BURST], such as 50/s:100", name, text);
    return -1;
}

static int log_level(const char *word)
{
    enum log_level level;
    if (log_level_parse(word, &level) < 0)
        return usage("--log-level %s: must be error, warn, info or debug", word);
    log_set_level(level);
    return -1;
}

/* The options whose value is taken as it is. */
static const char **plain_option(int option, struct options *o)
{
    switch (option) {
    case OPT_CLUSTER:
        return &o->cluster;
    case OPT_CLUSTER_TLS:
        return &o->cluster_tls;
    case OPT_JWKS:
        return &o->jwks;
    case OPT_ISSUER:
        return &o->issuer;
    case OPT_AUDIENCE:
        return &o->audience;
    case OPT_POLICY:
        return &o->policy;
    case OPT_JWKS_CA:
        return &o->jwks_ca;
    case OPT_SCOPE:
        return &o->scope;
    case OPT_ROLES_CLAIM:
        return &o->roles_claim;
    case OPT_TLS_CERT:
        return &o->tls_cert;
    case OPT_TLS_KEY:
        return &o->tls_key;
    case OPT_AUDIT:
        return &o->audit;
    case OPT_OTLP:
        return &o->otlp;
    case OPT_OTLP_CA:
        return &o->otlp_ca;
    default:
        return NULL;
    }
}

static int one_option(int option, const char *value, struct options *o)
{
    uint64_t n;
    const char **plain = plain_option(option, o);
    if (plain != NULL) {
        *plain = value;
        return value[0] != '\0' ? -1 : usage("an option's value is empty");
    }
    switch (option) {
    case OPT_LISTEN:
        if (address_parse(value, &o->listen) < 0 || o->listen.is_unix)
            return usage("--listen %s: must be HOST:PORT", value);
        return -1;
    case OPT_NO_AUTH:
        o->no_auth = true;
        return -1;
    case OPT_INSECURE:
        o->insecure = true;
        return -1;
    case OPT_TIMEOUT:
        return duration("timeout", value, 600000, &o->timeout_ms);
    case OPT_WAIT_MAX:
        return duration("wait-max", value, UINT64_C(86400000), &o->wait_max_ms);
    case OPT_LEEWAY:
        if (duration_parse(bytes_str(value), true, &n) < 0 || n > JWT_LEEWAY_S_MAX * 1000u)
            return usage("--leeway %s: must be a duration up to 5m", value);
        o->leeway_s = (uint32_t)(n / 1000);
        return -1;
    case OPT_RATE_SUBJECT:
        return rate("rate-subject", value, &o->rate_subject);
    case OPT_RATE_OWNER:
        return rate("rate-owner", value, &o->rate_owner);
    case OPT_RATE_FAILED:
        if (strcmp(value, "off") != 0)
            return rate("rate-failed", value, &o->rate_failed);
        o->rate_failed = (struct rate_limit){0};
        return -1;
    case OPT_STRICT_TYP:
        o->strict_typ = true;
        return -1;
    case OPT_CONNECTIONS_MAX:
        if (number_parse(bytes_str(value), &n) < 0 || n < 16 || n > 1000000)
            return usage("--connections-max %s: must be a number from 16 to 1000000", value);
        o->connections_max = (unsigned)n;
        return -1;
    case OPT_TRACE_RATIO:
        if (trace_ratio_parse(value, &o->trace_ratio) < 0)
            return usage("--trace-ratio %s: must be a number from 0 to 1", value);
        return -1;
    case OPT_LOG_LEVEL:
        return log_level(value);
    case OPT_VERSION:
        (void)printf("holdfast-gateway %s\n", HOLDFAST_VERSION);
        return OPTIONS_EXIT_OK;
    case OPT_HELP:
        (void)fputs(help_text, stdout);
        return OPTIONS_EXIT_OK;
    default: /* getopt_long() has said what it is. */
        return OPTIONS_EXIT_USAGE;
    }
}

static int check_access(const struct options *o)
{
    const char *const values[] = {o->jwks, o->issuer, o->audience, o->policy};
    static const char *const names[] = {"--jwks", "--issuer", "--audience", "--policy"};
    for (unsigned i = 0; i < 4; i++) {
        if (o->no_auth && values[i] != NULL)
            return usage("--no-auth and %s exclude each other", names[i]);
        if (!o->no_auth && values[i] == NULL)
            return usage("%s is missing (or, on loopback only, --no-auth)", names[i]);
    }
    if (o->no_auth && !address_is_loopback(&o->listen))
        return usage("--no-auth serves on loopback only: anybody who reaches %s could take, break "
                     "and read every lock",
                     o->listen.host);
    return -1;
}

static int check_whole(const struct options *o)
{
    if (o->listen.host[0] == '\0')
        return usage("--listen is missing: where to serve");
    if (o->cluster == NULL)
        return usage("--cluster is missing: the addresses of the nodes");
    int code = check_access(o);
    if (code >= 0)
        return code;
    const char *wrong = NULL;
    if (o->otlp != NULL && otlp_check_url(o->otlp, o->insecure, &wrong) < 0)
        return usage("--otlp %s: %s", o->otlp, wrong);
    if (o->otlp == NULL && (o->otlp_ca != NULL || o->trace_ratio > 0))
        return usage("--otlp-ca and --trace-ratio belong to --otlp");
    if ((o->tls_cert == NULL) != (o->tls_key == NULL))
        return usage("--tls-cert and --tls-key belong together");
    if (o->tls_cert == NULL && !o->insecure && !address_is_loopback(&o->listen))
        return usage("%s is beyond loopback: give --tls-cert and --tls-key, or --insecure if a "
                     "proxy in front does TLS",
                     o->listen.host);
    return -1;
}

int options_parse(int argc, char **argv, struct options *ret)
{
    int option;
    *ret = (struct options){
        .timeout_ms = TIMEOUT_MS,
        .leeway_s = JWT_LEEWAY_S_DEFAULT,
        .wait_max_ms = WAIT_MAX_MS,
        .connections_max = CONNECTIONS_MAX,
        .rate_failed = {.number = 20, .period_ns = NS_PER_S, .burst = 200},
    };
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        int code = one_option(option, optarg, ret);
        if (code >= 0)
            return code;
    }
    if (optind < argc)
        return usage("unexpected argument %s", argv[optind]);
    return check_whole(ret);
}
