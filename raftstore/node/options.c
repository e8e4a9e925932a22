#include "raftstore/node/options.h"

#include "raftstore/base/log.h"
#include "raftstore/base/trace.h"
#include "telemetry/otlp.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help_text[] =
    "Usage: holdfastd --id N --data DIR --member ID=RAFTHOST:PORT,CLIENTHOST:PORT ... [OPTION]...\n"
    "A node of a Holdfast cluster.\n"
    "\n"
    "  --id N                  number of this node, 1 or above\n"
    "  --data DIR              its data directory (made if missing)\n"
    "  --member ID=RAFT,CLIENT a member's address for the other nodes and its address for "
    "clients;\n"
    "                          once per member, this node included; the same on all first nodes.\n"
    "                          HOST:PORT, [IPV6]:PORT, and for clients also unix:/PATH\n"
    "  --listen RAFT,CLIENT    listen at these addresses instead of this member's own ones\n"
    "                          (0.0.0.0 and [::] mean all of the machine's)\n"
    "  --join                  do not found a cluster: wait to be added by 'holdfast member add'\n"
    "  --tls DIR               speak TLS 1.3 only, with DIR/ca.crt, DIR/tls.crt and DIR/tls.key\n"
    "                          ('holdfast cert' makes them; SIGHUP: read them anew)\n"
    "  --policy FILE           with --tls: what each certificate may do, path by path\n"
    "                          (holdfast-policy(5); SIGHUP: read it anew); without it the kind of\n"
    "                          the certificate decides\n"
    "  --insecure              allow plain TCP beyond loopback\n"
    "  --http HOST:PORT        serve /metrics, /healthz and /readyz there, in the clear\n"
    "  --http-insecure         allow that beyond loopback (--insecure allows it, too)\n"
    "  --audit FILE            append a line for each grant, denial, break and change of policy "
    "or\n"
    "                          members ('-': standard error; SIGHUP opens the file again)\n"
    "  --otlp URL              send spans to a collector (OTLP/HTTP, JSON), such as\n"
    "                          http://localhost:4318; https beyond this machine\n"
    "  --otlp-ca FILE          certificates to trust for it (default: the system's)\n"
    "  --trace-ratio N         share of the requests outside of any trace to record, 0 to 1\n"
    "                          (default 0)\n"
    "  --log-level LEVEL       error, warn, info (default) or debug\n"
    "  --election-timeout-ms N default 250\n"
    "  --heartbeat-ms N        default 10\n"
    "  --snapshot-log-bytes N  take a snapshot after so many bytes of log (default 33554432)\n"
    "  --snapshot-log-entries N  or after so many entries (default 100000)\n"
    "  --version, --help\n"
    "\n"
    "It runs in the foreground, logs to standard error, and tells systemd when it serves.\n"
    "SIGTERM or SIGINT: hand leadership over and stop; a second one: stop at once.\n"
    "\n"
    "Exit status: 0 stopped on request; 1 could not start (address, permission); 2 wrong options;\n"
    "3 the data directory is damaged or another node's (the message names the file and says how "
    "to\n"
    "reseed the node); 4 stopped because of a failure while running (disk full, I/O error, "
    "diverged\n"
    "state, refused by the cluster).\n";

enum {
    OPT_ID = 256,
    OPT_DATA,
    OPT_MEMBER,
    OPT_LISTEN,
    OPT_JOIN,
    OPT_INSECURE,
    OPT_TLS,
    OPT_HTTP,
    OPT_HTTP_INSECURE,
    OPT_POLICY,
    OPT_AUDIT,
    OPT_OTLP,
    OPT_OTLP_CA,
    OPT_TRACE_RATIO,
    OPT_LOG_LEVEL,
    OPT_ELECTION,
    OPT_HEARTBEAT,
    OPT_SNAPSHOT_BYTES,
    OPT_SNAPSHOT_ENTRIES,
    OPT_VERSION,
    OPT_HELP,
};

static const struct option long_options[] = {
    {"id", required_argument, NULL, OPT_ID},
    {"data", required_argument, NULL, OPT_DATA},
    {"member", required_argument, NULL, OPT_MEMBER},
    {"listen", required_argument, NULL, OPT_LISTEN},
    {"join", no_argument, NULL, OPT_JOIN},
    {"insecure", no_argument, NULL, OPT_INSECURE},
    {"tls", required_argument, NULL, OPT_TLS},
    {"http", required_argument, NULL, OPT_HTTP},
    {"http-insecure", no_argument, NULL, OPT_HTTP_INSECURE},
    {"policy", required_argument, NULL, OPT_POLICY},
    {"audit", required_argument, NULL, OPT_AUDIT},
    {"otlp", required_argument, NULL, OPT_OTLP},
    {"otlp-ca", required_argument, NULL, OPT_OTLP_CA},
    {"trace-ratio", required_argument, NULL, OPT_TRACE_RATIO},
    {"log-level", required_argument, NULL, OPT_LOG_LEVEL},
    {"election-timeout-ms", required_argument, NULL, OPT_ELECTION},
    {"heartbeat-ms", required_argument, NULL, OPT_HEARTBEAT},
    {"snapshot-log-bytes", required_argument, NULL, OPT_SNAPSHOT_BYTES},
    {"snapshot-log-entries", required_argument, NULL, OPT_SNAPSHOT_ENTRIES},
    {"version", no_argument, NULL, OPT_VERSION},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static int usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)fputs("holdfastd: ", stderr);
    (void)vfprintf(stderr, format, args);
    (void)fputs(" (holdfastd --help tells more)\n", stderr);
    va_end(args);
    return OPTIONS_EXIT_USAGE;
}

/* A number from 1 up to max. Return: false for anything else. */
static bool number(const char *text, uint64_t max, uint64_t *ret)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] < '0' || text[0] > '9' || value == 0 ||
        value > max)
        return false;
    *ret = value;
    return true;
}

/* "RAFT,CLIENT" */
static bool address_pair(const char *text, struct address *ret_raft, struct address *ret_client)
{
    char raft[320];
    const char *comma = strchr(text, ',');
    if (comma == NULL || (size_t)(comma - text) >= sizeof raft)
        return false;
    memcpy(raft, text, (size_t)(comma - text));
    raft[comma - text] = '\0';
    return address_parse(raft, ret_raft) == 0 && !ret_raft->is_unix && ret_raft->port != 0 &&
           address_parse(comma + 1, ret_client) == 0 &&
           (ret_client->is_unix || ret_client->port != 0);
}

static bool is_wildcard(const struct address *a)
{
    return !a->is_unix && (strcmp(a->host, "0.0.0.0") == 0 || strcmp(a->host, "::") == 0);
}

static int member(const char *text, struct node_config *c)
{
    char id[24];
    const char *equals = strchr(text, '=');
    if (c->n_members == NODE_MEMBERS_MAX)
        return usage("at most %u members", NODE_MEMBERS_MAX);
    struct node_member *m = &c->members[c->n_members];
    if (equals == NULL || (size_t)(equals - text) >= sizeof id)
        return usage("--member %s: must be ID=RAFTHOST:PORT,CLIENTHOST:PORT", text);
    memcpy(id, text, (size_t)(equals - text));
    id[equals - text] = '\0';
    if (!number(id, INT64_MAX, &m->id))
        return usage("--member %s: the id must be a number from 1 on", text);
    if (!address_pair(equals + 1, &m->raft, &m->client))
        return usage("--member %s: must be ID=RAFTHOST:PORT,CLIENTHOST:PORT", text);
    for (unsigned i = 0; i < c->n_members; i++)
        if (c->members[i].id == m->id)
            return usage("--member %s: member %s is given twice", text, id);
    c->n_members++;
    return -1;
}

static int one_number(const char *name, const char *text, uint64_t max, uint64_t *ret)
{
    if (number(text, max, ret))
        return -1;
    return usage("--%s %s: must be a number from 1 to %llu", name, text, (unsigned long long)max);
}

static int log_level(const char *word)
{
    enum log_level level;
    if (log_level_parse(word, &level) < 0)
        return usage("--log-level %s: must be error, warn, info or debug", word);
    log_set_level(level);
    return -1;
}

static int one_option(int option, char *value, struct node_config *c)
{
    uint64_t v = 0;
    int rv = -1;
    switch (option) {
    case OPT_ID:
        return one_number("id", value, INT64_MAX, &c->id);
    case OPT_DATA:
        c->data = value;
        return -1;
    case OPT_MEMBER:
        return member(value, c);
    case OPT_LISTEN:
        if (!address_pair(value, &c->listen_raft, &c->listen_client))
            return usage("--listen %s: must be RAFTHOST:PORT,CLIENTHOST:PORT", value);
        return -1;
    case OPT_JOIN:
        c->join = true;
        return -1;
    case OPT_INSECURE:
        c->insecure = true;
        return -1;
    case OPT_TLS:
        c->tls = value;
        return -1;
    case OPT_HTTP:
        if (address_parse(value, &c->http) < 0 || c->http.is_unix)
            return usage("--http %s: must be HOST:PORT", value);
        return -1;
    case OPT_HTTP_INSECURE:
        c->http_insecure = true;
        return -1;
    case OPT_POLICY:
        c->policy = value;
        return -1;
    case OPT_LOG_LEVEL:
        return log_level(value);
    case OPT_ELECTION:
        rv = one_number("election-timeout-ms", value, 60000, &v);
        c->election_timeout_ms = (unsigned)v;
        return rv;
    case OPT_HEARTBEAT:
        rv = one_number("heartbeat-ms", value, 10000, &v);
        c->heartbeat_ms = (unsigned)v;
        return rv;
    case OPT_SNAPSHOT_BYTES:
        rv = one_number("snapshot-log-bytes", value, UINT64_C(1) << 40, &v);
        c->snapshot_log_bytes = v;
        return rv;
    case OPT_SNAPSHOT_ENTRIES:
        rv = one_number("snapshot-log-entries", value, 1000000000, &v);
        c->snapshot_log_entries = (unsigned)v;
        return rv;
    case OPT_VERSION:
        (void)printf("holdfastd %s\n", HOLDFAST_VERSION);
        return OPTIONS_EXIT_OK;
    case OPT_HELP:
        (void)fputs(help_text, stdout);
        return OPTIONS_EXIT_OK;
    default: /* getopt_long() has said what it is. */
        return OPTIONS_EXIT_USAGE;
    }
}

/* Return: -2: the option is none of these. */
static int telemetry_option(int option, const char *value, struct options_telemetry *t)
{
    switch (option) {
    case OPT_AUDIT:
        t->audit = value;
        return value[0] != '\0' ? -1 : usage("--audit: a file must be named, or -");
    case OPT_OTLP:
        t->otlp = value;
        return -1;
    case OPT_OTLP_CA:
        t->otlp_ca = value;
        return -1;
    case OPT_TRACE_RATIO:
        if (trace_ratio_parse(value, &t->trace_ratio) < 0)
            return usage("--trace-ratio %s: must be a number from 0 to 1", value);
        return -1;
    default:
        return -2;
    }
}

static int check_telemetry(const struct options_telemetry *t, bool insecure)
{
    const char *wrong = NULL;
    if (t->otlp != NULL && otlp_check_url(t->otlp, insecure, &wrong) < 0)
        return usage("--otlp %s: %s", t->otlp, wrong);
    if (t->otlp == NULL && (t->otlp_ca != NULL || t->trace_ratio > 0))
        return usage("--otlp-ca and --trace-ratio belong to --otlp");
    return -1;
}

static int check_whole(const struct node_config *c)
{
    bool own = false;
    if (c->id == 0)
        return usage("--id is missing: the number of this node");
    if (c->data == NULL || c->data[0] == '\0')
        return usage("--data is missing: the directory of this node's data");
    for (unsigned i = 0; i < c->n_members; i++) {
        const struct node_member *m = &c->members[i];
        own = own || m->id == c->id;
        if (c->n_members > 1 && (is_wildcard(&m->raft) || is_wildcard(&m->client)))
            return usage("--member %llu: other nodes and clients can't connect to 0.0.0.0 or [::]; "
                         "give the address that they use, and --listen for where to listen",
                         (unsigned long long)m->id);
    }
    if (c->tls != NULL && c->insecure)
        return usage("--tls and --insecure exclude each other");
    if (c->policy != NULL && c->tls == NULL)
        return usage("--policy needs --tls: it judges clients by their certificates");
    if (!own)
        return usage("--member for this node (%llu) is missing", (unsigned long long)c->id);
    unsigned election_ms = c->election_timeout_ms != 0 ? c->election_timeout_ms : 250;
    unsigned heartbeat_ms = c->heartbeat_ms != 0 ? c->heartbeat_ms : 10;
    if (election_ms < 3 * heartbeat_ms)
        return usage("the election timeout (%u ms) must be at least three heartbeats (%u ms)",
                     election_ms, heartbeat_ms);
    return -1;
}

int options_parse(int argc,
                  char **argv,
                  struct node_config *ret_config,
                  struct options_telemetry *ret_telemetry)
{
    int option, rv;
    *ret_config = (struct node_config){0};
    *ret_telemetry = (struct options_telemetry){0};
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        rv = telemetry_option(option, optarg, ret_telemetry);
        if (rv == -2)
            rv = one_option(option, optarg, ret_config);
        if (rv >= 0)
            return rv;
    }
    if (optind < argc)
        return usage("unexpected argument %s", argv[optind]);
    rv = check_telemetry(ret_telemetry, ret_config->insecure);
    return rv >= 0 ? rv : check_whole(ret_config);
}
