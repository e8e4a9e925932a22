/* holdfast-bench: load on a cluster, and bare libraft beside it. */
#include "tools/bench/baseline.h"
#include "tools/bench/bench.h"
#include "tools/bench/report.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char usage[] =
    "usage: holdfast-bench [--cluster HOST:PORT,... | --mount DIR,...] [OPTION...] MODE...\n"
    "\n"
    "modes\n"
    "  cycle      acquire and release, each client its own keys\n"
    "  read       ask who holds a key (mount: open, read, close)\n"
    "  mix        70 % reads, 30 % acquires and releases\n"
    "  contend    all clients take one key in turns (native: waiting in the queue;\n"
    "             mount: flock, or O_EXCL every millisecond where that is refused)\n"
    "  renew      renew a held key\n"
    "  fill       take --locks leases and leave them held (native)\n"
    "  baseline   bare libraft: commits of 64 bytes, with its own disk and network code\n"
    "\n"
    "options\n"
    "  --seconds N       length of each measurement (5)\n"
    "  --clients N       sessions, or processes on the mounts (1)\n"
    "  --inflight N      requests in flight a client, native only (1; mix 16, fill 256)\n"
    "  --sessions WHICH  each: a session for each client; one: one for all of them (each)\n"
    "  --directories N   spread the keys over N directories (1)\n"
    "  --ttl SECONDS     lease of a native acquire; 0 = a hold on the session (30; fill 3600)\n"
    "  --locks N         for fill (100000)\n"
    "  --timeout MS      for one operation, native (5000)\n"
    "  --nodes N         nodes of the baseline (as many as the cluster has voters, else 3)\n"
    "  --baseline-dir D  where it keeps its logs: the same kind of disk as the nodes' (.)\n"
    "  --no-baseline     leave it out\n"
    "  --tls DIR         speak TLS with DIR/ca.crt, tls.crt and tls.key\n"
    "  --pids LIST       processes of the servers, to count their CPU time\n"
    "  --json            one JSON object a line\n"
    "  --help, --version\n"
    "\n"
    "Exit: 0 measured without an error; 1 some operation failed; 2 wrong usage.\n";

void *bench_shared_alloc(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        perror("holdfast-bench: mmap");
        exit(1);
    }
    return p;
}

uint64_t bench_cpu_ns(const pid_t *pids, unsigned n_pids)
{
    uint64_t ticks = 0;

    for (unsigned i = 0; i < n_pids; i++) {
        char path[64];
        char text[1024];
        uint64_t user = 0;
        uint64_t system = 0;
        (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pids[i]);
        FILE *f = fopen(path, "re");
        if (f == NULL)
            continue;
        size_t n = fread(text, 1, sizeof text - 1, f);
        text[n] = '\0';
        (void)fclose(f);
        /* Fields 14 and 15, counted behind the name, which may hold anything. */
        const char *p = strrchr(text, ')');
        if (p != NULL &&
            sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64,
                   &user, &system) == 2)
            ticks += user + system;
    }
    return ticks * (NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK));
}

/* A number within bounds.  Return: 0; -EINVAL. */
static int parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value)
{
    char *end;

    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || value < min || value > max)
        return -EINVAL;
    *ret_value = value;
    return 0;
}

static int parse_unsigned(const char *text, unsigned min, unsigned max, unsigned *ret_value)
{
    uint64_t value;

    if (parse_number(text, min, max, &value) != 0)
        return -EINVAL;
    *ret_value = (unsigned)value;
    return 0;
}

static int load_tls(const char *dir, struct bench_options *o)
{
    char *sentence = NULL;
    if (tls_context_load(dir, &o->tls, &sentence) == 0 &&
        tls_context_check_time(o->tls, (int64_t)(clock_wall_ns(clock_system()) / NS_PER_S),
                               &sentence) == 0)
        return 0;
    (void)fprintf(stderr, "holdfast-bench: %s\n", sentence);
    free(sentence);
    return -1;
}

static int parse_pids(const char *text, struct bench_options *o)
{
    char *end;

    for (const char *p = text; o->n_pids < BENCH_PIDS_MAX; p = end + 1) {
        long pid = strtol(p, &end, 10);
        if (end == p || pid <= 0 || pid > INT32_MAX || (*end != ',' && *end != '\0'))
            return -EINVAL;
        o->pids[o->n_pids++] = (pid_t)pid;
        if (*end == '\0')
            return 0;
    }
    return -EINVAL;
}

static int parse_mode(const char *text, struct bench_options *o)
{
    for (unsigned m = BENCH_CYCLE; m <= BENCH_BASELINE; m++) {
        if (strcmp(text, report_mode_name((enum bench_mode)m)) != 0)
            continue;
        if (o->n_modes == BENCH_MODES_MAX)
            return -EINVAL;
        o->modes[o->n_modes++] = (enum bench_mode)m;
        return 0;
    }
    return -EINVAL;
}

enum {
    OPT_CLUSTER = 256,
    OPT_MOUNT,
    OPT_SECONDS,
    OPT_CLIENTS,
    OPT_INFLIGHT,
    OPT_SESSIONS,
    OPT_DIRECTORIES,
    OPT_TTL,
    OPT_LOCKS,
    OPT_TIMEOUT,
    OPT_NODES,
    OPT_BASELINE_DIR,
    OPT_NO_BASELINE,
    OPT_PIDS,
    OPT_TLS,
    OPT_JSON,
    OPT_HELP,
    OPT_VERSION,
};

static const struct option long_options[] = {
    {"cluster", required_argument, NULL, OPT_CLUSTER},
    {"mount", required_argument, NULL, OPT_MOUNT},
    {"seconds", required_argument, NULL, OPT_SECONDS},
    {"clients", required_argument, NULL, OPT_CLIENTS},
    {"inflight", required_argument, NULL, OPT_INFLIGHT},
    {"sessions", required_argument, NULL, OPT_SESSIONS},
    {"directories", required_argument, NULL, OPT_DIRECTORIES},
    {"ttl", required_argument, NULL, OPT_TTL},
    {"locks", required_argument, NULL, OPT_LOCKS},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"nodes", required_argument, NULL, OPT_NODES},
    {"baseline-dir", required_argument, NULL, OPT_BASELINE_DIR},
    {"no-baseline", no_argument, NULL, OPT_NO_BASELINE},
    {"pids", required_argument, NULL, OPT_PIDS},
    {"tls", required_argument, NULL, OPT_TLS},
    {"json", no_argument, NULL, OPT_JSON},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {0},
};

static int parse_sessions(const char *text, struct bench_options *o)
{
    o->sessions_one = strcmp(text, "one") == 0;
    return o->sessions_one || strcmp(text, "each") == 0 ? 0 : -EINVAL;
}

static int parse_ttl(const char *text, struct bench_options *o)
{
    if (parse_number(text, 0, UINT64_C(2592000), &o->ttl_ms) != 0)
        return -EINVAL;
    o->ttl_ms *= 1000;
    return 0;
}

static int parse_option(int which, struct bench_options *o)
{
    switch (which) {
    case OPT_CLUSTER:
        o->cluster = optarg;
        return 0;
    case OPT_MOUNT:
        o->mounts = optarg;
        return 0;
    case OPT_SECONDS:
        return parse_unsigned(optarg, 1, 3600, &o->seconds);
    case OPT_CLIENTS:
        return parse_unsigned(optarg, 1, BENCH_CLIENTS_MAX, &o->clients);
    case OPT_INFLIGHT:
        return parse_unsigned(optarg, 1, 4096, &o->inflight);
    case OPT_SESSIONS:
        return parse_sessions(optarg, o);
    case OPT_DIRECTORIES:
        return parse_unsigned(optarg, 1, 4096, &o->directories);
    case OPT_TTL:
        return parse_ttl(optarg, o);
    case OPT_LOCKS:
        return parse_number(optarg, 1, UINT64_C(100000000), &o->locks);
    case OPT_TIMEOUT:
        return parse_number(optarg, 1, UINT64_C(3600000), &o->timeout_ms);
    case OPT_NODES:
        return parse_unsigned(optarg, 1, BASELINE_NODES_MAX, &o->nodes);
    case OPT_BASELINE_DIR:
        o->baseline_dir = optarg;
        return 0;
    case OPT_NO_BASELINE:
        o->baseline = false;
        return 0;
    case OPT_TLS:
        return load_tls(optarg, o);
    case OPT_PIDS:
        return parse_pids(optarg, o);
    case OPT_JSON:
        o->json = true;
        return 0;
    default:
        return -EINVAL;
    }
}

static bool has_mode(const struct bench_options *o, enum bench_mode mode)
{
    for (unsigned i = 0; i < o->n_modes; i++)
        if (o->modes[i] == mode)
            return true;
    return false;
}

/* What the options say together.  Return: NULL; else what is wrong. */
static const char *check_options(const struct bench_options *o, bool ttl_given)
{
    bool only_baseline = o->n_modes == 1 && o->modes[0] == BENCH_BASELINE;

    if (o->n_modes == 0)
        return "which mode?";
    if (o->cluster != NULL && o->mounts != NULL)
        return "either --cluster or --mount";
    if (o->cluster == NULL && o->mounts == NULL && !only_baseline)
        return "--cluster or --mount is needed";
    if (o->mounts != NULL && (o->inflight > 1 || o->sessions_one || ttl_given))
        return "--inflight, --sessions and --ttl are for --cluster";
    if (o->mounts != NULL && has_mode(o, BENCH_FILL))
        return "fill needs --cluster";
    return NULL;
}

static void parse_arguments(int argc, char **argv, struct bench_options *o)
{
    const char *wrong = NULL;
    bool ttl_given = false;
    int which;

    while ((which = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (which == OPT_HELP) {
            (void)fputs(usage, stdout);
            exit(0);
        }
        if (which == OPT_VERSION) {
            (void)puts("holdfast-bench " HOLDFAST_VERSION);
            exit(0);
        }
        ttl_given = ttl_given || which == OPT_TTL;
        if (parse_option(which, o) != 0) {
            if (which != '?')
                (void)fprintf(stderr, "holdfast-bench: bad value '%s'\n", optarg);
            exit(2);
        }
    }
    for (int i = optind; i < argc && wrong == NULL; i++)
        if (parse_mode(argv[i], o) != 0)
            wrong = "unknown mode, or too many";
    if (wrong == NULL)
        wrong = check_options(o, ttl_given);
    if (wrong != NULL) {
        (void)fprintf(stderr, "holdfast-bench: %s\n%s", wrong, usage);
        exit(2);
    }
    if (!ttl_given)
        o->ttl_ms = has_mode(o, BENCH_FILL) ? 3600000 : 30000;
}

static bool had_errors(const struct bench_figures *f)
{
    uint64_t n = f->overlaps;

    for (unsigned op = 0; op < BENCH_OP_N; op++)
        n += f->errors[op];
    return n > 0;
}

/* libraft as it comes and tuned, one at a time and with as many in flight as we have clients.
 *
 * @ret_p50_ns: the better p50 of one at a time. */
static bool run_baseline(const struct bench_options *o, uint64_t *ret_p50_ns)
{
    unsigned nodes = o->nodes != 0 ? o->nodes : 3;
    bool ok = true;

    for (unsigned i = 0; i < (o->clients > 1 ? 4u : 2u); i++) {
        bool tuned = i % 2 == 1;
        unsigned in_flight = i < 2 ? 1 : o->clients;
        struct bench_figures *f = calloc(1, sizeof *f);
        char what[32];
        if (f == NULL)
            abort();
        (void)snprintf(what, sizeof what, "libraft-%u%s", nodes, tuned ? "-tuned" : "");
        if (baseline_run(o, nodes, in_flight, tuned, f) != 0) {
            ok = false;
        } else {
            report_figures(o, what, in_flight, f);
            uint64_t p50_ns = histogram_quantile_ns(&f->ops[BENCH_OP_COMMIT], 0.5);
            if (in_flight == 1 && p50_ns > 0 && (*ret_p50_ns == 0 || p50_ns < *ret_p50_ns))
                *ret_p50_ns = p50_ns;
            ok = ok && !had_errors(f);
        }
        free(f);
    }
    return ok;
}

static unsigned in_flight_of(const struct bench_options *o, enum bench_mode mode)
{
    unsigned each = o->inflight;

    if (each == 0)
        each = o->mounts != NULL ? 1 : mode == BENCH_MIX ? 16 : mode == BENCH_FILL ? 256 : 1;
    return o->clients * each;
}

/* @ret_p50_ns: that of the acquires, if this mode is the one to compare. */
static bool run_mode(const struct bench_options *o, enum bench_mode mode, uint64_t *ret_p50_ns)
{
    struct bench_figures *f = calloc(1, sizeof *f);
    bool ok = false;

    if (f == NULL)
        abort();
    int r = o->mounts != NULL ? bench_mount_run(o, mode, f) : bench_native_run(o, mode, f);
    if (r == 0) {
        report_figures(o, report_mode_name(mode), in_flight_of(o, mode), f);
        if (mode == BENCH_CYCLE)
            *ret_p50_ns = histogram_quantile_ns(&f->ops[BENCH_OP_ACQUIRE], 0.5);
        ok = !had_errors(f);
    }
    free(f);
    return ok;
}

int main(int argc, char **argv)
{
    struct bench_options o = {
        .baseline_dir = ".",
        .seconds = 5,
        .clients = 1,
        .directories = 1,
        .locks = 100000,
        .timeout_ms = 5000,
        .baseline = true,
    };
    uint64_t acquire_p50_ns = 0;
    uint64_t commit_p50_ns = 0;
    char ratio[64];
    bool ok = true;

    (void)signal(SIGPIPE, SIG_IGN);
    parse_arguments(argc, argv, &o);
    if (o.nodes == 0 && o.cluster != NULL)
        o.nodes = bench_native_voters(&o);
    report_begin(&o);
    for (unsigned i = 0; i < o.n_modes; i++)
        if (o.modes[i] != BENCH_BASELINE)
            ok = run_mode(&o, o.modes[i], &acquire_p50_ns) && ok;
    if (has_mode(&o, BENCH_BASELINE) || (o.baseline && has_mode(&o, BENCH_CYCLE)))
        ok = run_baseline(&o, &commit_p50_ns) && ok;
    (void)snprintf(ratio, sizeof ratio,
                   "acquire with %u in flight / bare libraft commit, one at a time",
                   in_flight_of(&o, BENCH_CYCLE));
    report_ratio(&o, ratio, acquire_p50_ns, commit_p50_ns);
    return ok ? 0 : 1;
}
