/* holdfast: look at a cluster's locks, take and free them, and run the cluster. */
#include "cli.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define TIMEOUT_MS 10000

static const char help[] =
    "Usage: holdfast COMMAND [OPTIONS]\n"
    "\n"
    "Locks:\n"
    "  ls [PREFIX]                  locks below a prefix, with their holders\n"
    "  show PATH                    one lock: its holds and who waits\n"
    "  acquire PATH                 take a lease; prints its token; it outlives this program\n"
    "      --ttl DURATION             until it ends unless renewed (30s)\n"
    "      --shared                   shared instead of exclusive\n"
    "      --limit K                  a semaphore: up to K hold it at once\n"
    "      --wait DURATION            wait in line so long (default: don't)\n"
    "      --owner ID                 whose it is (HOST:PID:UID)\n"
    "      --note TEXT                shown to others\n"
    "  renew PATH --token N|--owner ID [--ttl DURATION]\n"
    "  release PATH --token N|--owner ID\n"
    "  break PATH --token N         take exactly this hold away from its holder\n"
    "  run PATH... -- CMD [ARG...]  hold locks while CMD runs; PATHs are files on a mount\n"
    "      --shared, --limit K or --n K, --note TEXT    as for acquire\n"
    "      --wait DURATION            wait in line so long (default: for ever; 0: don't)\n"
    "      --ttl DURATION             until they end if this program can't keep them (10s)\n"
    "      --kill-after-loss SIGNAL   sent to CMD and its children if they are lost (TERM)\n"
    "\n"
    "Cluster:\n"
    "  status                       nodes, leader, term, index, digest, counts, longest stalls\n"
    "  snapshot save FILE           the present state as a SQLite database\n"
    "  member list\n"
    "  member add ID=RAFTHOST:PORT,CLIENTHOST:PORT      (as a standby)\n"
    "  member promote|demote|remove ID\n"
    "  member replace OLDID NEWID=RAFTHOST:PORT,CLIENTHOST:PORT\n"
    "  leader transfer [ID]         hand leadership over (to the best)\n"
    "\n"
    "  cert DIR KIND/NAME[=DNS-NAME,IP,...]...   certificates for node/ID, mount/HOST,\n"
    "                               gateway/NAME, client/NAME in DIR (and a private authority)\n"
    "      --days N                   how long they are good (825)\n"
    "Policy:\n"
    "  policy check FILE SUBJECT VERB PATH              may SUBJECT do VERB, and why (asks no "
    "node)\n"
    "      --role ROLE                a role that comes with its token; may be repeated\n"
    "      --certificate              SUBJECT is the name in a certificate, not of a token\n"
    "\n"
    "Options of all:\n"
    "  --cluster HOST:PORT,...      or $HOLDFAST_CLUSTER\n"
    "  --mount DIR                  find the cluster by this mount ($HOLDFAST_MOUNT, /locks)\n"
    "  --tls DIR                    speak TLS with DIR/ca.crt, tls.crt, tls.key ($HOLDFAST_TLS)\n"
    "  --otlp URL                   send spans to a collector (OTLP/HTTP, JSON); https, or on "
    "this\n"
    "                               machine; the trace is that of $TRACEPARENT, or a new one\n"
    "  --json                       answer in JSON\n"
    "  --timeout DURATION           give up after (10s; member changes 60s)\n"
    "  --help, --version\n"
    "\n"
    "A PATH is a lock's name (jobs/nightly), or its file on a mount (/locks/jobs/nightly).\n"
    "A DURATION is 500ms, 90s, 5m, 1h30m, 2d, or a number of seconds.\n"
    "\n"
    "Exit codes: 0 done; 1 refused (held, not held, not yours, forbidden by a rule); 2 wrong\n"
    "arguments; 65 no policy; 66 nothing there; 69 no node or no leader; 73 file can't be written; "
    "75 time ran\n"
    "out; 77 not authorised; 130 interrupted.  run: that of CMD (128+N: ended by signal N), and\n"
    "75 held by others; 78 not a file on a mount; 79 lost; 126, 127 CMD can't be executed, "
    "found.\n";

enum option_id {
    OPTION_CLUSTER = 256,
    OPTION_MOUNT,
    OPTION_JSON,
    OPTION_TIMEOUT,
    OPTION_TTL,
    OPTION_WAIT,
    OPTION_SHARED,
    OPTION_TOKEN,
    OPTION_OWNER,
    OPTION_NOTE,
    OPTION_ROLE,
    OPTION_CERTIFICATE,
    OPTION_LIMIT,
    OPTION_LOSS,
    OPTION_TLS,
    OPTION_DAYS,
    OPTION_OTLP,
    OPTION_HELP,
    OPTION_VERSION,
};

static const struct option options[] = {
    {"cluster", required_argument, NULL, OPTION_CLUSTER},
    {"mount", required_argument, NULL, OPTION_MOUNT},
    {"json", no_argument, NULL, OPTION_JSON},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"ttl", required_argument, NULL, OPTION_TTL},
    {"wait", required_argument, NULL, OPTION_WAIT},
    {"shared", no_argument, NULL, OPTION_SHARED},
    {"token", required_argument, NULL, OPTION_TOKEN},
    {"owner", required_argument, NULL, OPTION_OWNER},
    {"note", required_argument, NULL, OPTION_NOTE},
    {"role", required_argument, NULL, OPTION_ROLE},
    {"certificate", no_argument, NULL, OPTION_CERTIFICATE},
    {"limit", required_argument, NULL, OPTION_LIMIT},
    {"n", required_argument, NULL, OPTION_LIMIT},
    {"kill-after-loss", required_argument, NULL, OPTION_LOSS},
    {"tls", required_argument, NULL, OPTION_TLS},
    {"otlp", required_argument, NULL, OPTION_OTLP},
    {"days", required_argument, NULL, OPTION_DAYS},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {0},
};

#define BIT(id) (1u << ((id)-OPTION_CLUSTER))

static const struct subcommand {
    const char *name;
    int (*run)(struct cli *cli, int n, char **words);
    unsigned allowed; /* Options beyond those of all. */
    unsigned refused; /* Options of all that it has no use for. */
} subcommands[] = {
    {"acquire", cli_acquire,
     BIT(OPTION_TTL) | BIT(OPTION_WAIT) | BIT(OPTION_SHARED) | BIT(OPTION_OWNER) |
         BIT(OPTION_NOTE) | BIT(OPTION_LIMIT),
     0},
    {"break", cli_break, BIT(OPTION_TOKEN), 0},
    {"cert", cli_cert, BIT(OPTION_DAYS), 0},
    {"leader", cli_leader, 0, 0},
    {"ls", cli_ls, 0, 0},
    {"member", cli_member, 0, 0},
    {"policy", cli_policy, BIT(OPTION_ROLE) | BIT(OPTION_CERTIFICATE), 0},
    {"release", cli_release, BIT(OPTION_TOKEN) | BIT(OPTION_OWNER), 0},
    {"renew", cli_renew, BIT(OPTION_TOKEN) | BIT(OPTION_OWNER) | BIT(OPTION_TTL), 0},
    {"run", cli_run_command,
     BIT(OPTION_TTL) | BIT(OPTION_WAIT) | BIT(OPTION_SHARED) | BIT(OPTION_NOTE) |
         BIT(OPTION_LIMIT) | BIT(OPTION_LOSS),
     BIT(OPTION_CLUSTER) | BIT(OPTION_MOUNT) | BIT(OPTION_JSON)},
    {"show", cli_show, 0, 0},
    {"snapshot", cli_snapshot, 0, 0},
    {"status", cli_status, 0, 0},
};

static int set_duration(const char *name, const char *text, uint64_t min_ms, uint64_t *ret_ms)
{
    if (text_duration(text, ret_ms) < 0 || *ret_ms < min_ms || *ret_ms > WIRE_TTL_MS_MAX)
        return cli_fail(EXIT_USAGE,
                        "--%s %s: not a duration from %llums to 30d (500ms, 90s, 5m, 1h30m, ...)",
                        name, text, (unsigned long long)min_ms);
    return EXIT_DONE;
}

static int set_days(struct cli *cli, const char *text)
{
    uint64_t days;
    if (text_number(text, &days) < 0 || days == 0 || days > 36500)
        return cli_fail(EXIT_USAGE, "--days %s: not a number from 1 to 36500", text);
    cli->days = (unsigned)days;
    return EXIT_DONE;
}

static int set_option(struct cli *cli, int id)
{
    switch (id) {
    case OPTION_CLUSTER:
        free(cli->cluster);
        cli->cluster = xstrdup(optarg);
        return EXIT_DONE;
    case OPTION_MOUNT:
        cli->mount = optarg;
        return EXIT_DONE;
    case OPTION_JSON:
        cli->json = true;
        return EXIT_DONE;
    case OPTION_TIMEOUT:
        cli->timeout_given = true;
        return set_duration("timeout", optarg, 1, &cli->timeout_ms);
    case OPTION_TTL:
        return set_duration("ttl", optarg, WIRE_TTL_MS_MIN, &cli->ttl_ms);
    case OPTION_WAIT:
        cli->wait_given = true;
        return set_duration("wait", optarg, 0, &cli->wait_ms);
    case OPTION_SHARED:
        cli->shared = true;
        return EXIT_DONE;
    case OPTION_TOKEN:
        if (text_number(optarg, &cli->token) < 0 || cli->token == 0)
            return cli_fail(EXIT_USAGE, "--token %s: not a token (a number above 0)", optarg);
        return EXIT_DONE;
    case OPTION_OWNER:
        cli->owner = optarg;
        return EXIT_DONE;
    case OPTION_NOTE:
        cli->note = optarg;
        return EXIT_DONE;
    case OPTION_ROLE:
        if (cli->n_roles == CLI_ROLES_MAX)
            return cli_fail(EXIT_USAGE, "--role: more than %d roles", CLI_ROLES_MAX);
        cli->roles[cli->n_roles++] = optarg;
        return EXIT_DONE;
    case OPTION_CERTIFICATE:
        cli->certificate = true;
        return EXIT_DONE;
    case OPTION_LIMIT:
        if (text_number(optarg, &cli->limit) < 0 || cli->limit == 0 ||
            cli->limit > WIRE_SEMAPHORE_MAX)
            return cli_fail(EXIT_USAGE, "--limit %s: not a number from 1 to %u", optarg,
                            WIRE_SEMAPHORE_MAX);
        return EXIT_DONE;
    case OPTION_LOSS:
        cli->loss_signal = text_signal(optarg);
        if (cli->loss_signal < 0)
            return cli_fail(EXIT_USAGE, "--kill-after-loss %s: not a signal", optarg);
        return EXIT_DONE;
    case OPTION_TLS:
        cli->tls_dir = optarg;
        return EXIT_DONE;
    case OPTION_OTLP:
        cli->otlp_url = optarg;
        return EXIT_DONE;
    case OPTION_DAYS:
        return set_days(cli, optarg);
    default:
        return cli_fail(EXIT_USAGE, "see holdfast --help");
    }
}

static const struct subcommand *find_subcommand(const char *name)
{
    for (size_t i = 0; i < sizeof subcommands / sizeof subcommands[0]; i++)
        if (strcmp(subcommands[i].name, name) == 0)
            return &subcommands[i];
    return NULL;
}

static int check_options(const struct subcommand *sub, unsigned given)
{
    unsigned common = BIT(OPTION_CLUSTER) | BIT(OPTION_MOUNT) | BIT(OPTION_JSON) |
                      BIT(OPTION_TIMEOUT) | BIT(OPTION_TLS) | BIT(OPTION_OTLP);
    unsigned wrong = given & ~((common & ~sub->refused) | sub->allowed);
    for (size_t i = 0; options[i].name != NULL; i++)
        if (wrong & BIT(options[i].val))
            return cli_fail(EXIT_USAGE, "%s has no option --%s", sub->name, options[i].name);
    return EXIT_DONE;
}

static int parse(struct cli *cli, int argc, char **argv, unsigned *ret_given)
{
    int id;
    while ((id = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (id == OPTION_HELP || id == 'h') {
            (void)fputs(help, stdout);
            return -1;
        }
        if (id == OPTION_VERSION) {
            (void)puts("holdfast " HOLDFAST_VERSION);
            return -1;
        }
        int code = set_option(cli, id);
        if (code != EXIT_DONE)
            return code;
        *ret_given |= BIT(id);
    }
    return EXIT_DONE;
}

/* Behind a "--" no options are looked for.  For run a command begins there; for the others it is
 * taken away, and what follows are words like those before.
 *
 * @ret_n: where options may stand ends there. */
static char **find_command(int argc, char **argv, int *ret_n)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            *ret_n = i;
            return argv + i + 1;
        }
    }
    *ret_n = argc;
    return NULL;
}

static int run_subcommand(struct cli *cli, const struct subcommand *sub, int argc, char **argv)
{
    int n_before = optind;
    for (char **word = cli->command; sub->run != cli_run_command && word != NULL && *word != NULL;)
        argv[argc++] = *word++; /* Over the "--". */
    return sub->run(cli, argc - n_before - 1, argv + n_before + 1);
}

static int run(struct cli *cli, int argc, char **argv)
{
    unsigned given = 0;
    cli->command = find_command(argc, argv, &argc);
    int code = parse(cli, argc, argv, &given);
    if (code != EXIT_DONE)
        return code < 0 ? EXIT_DONE : code;
    if (optind == argc)
        return cli_fail(EXIT_USAGE, "a command is needed; see holdfast --help");
    const struct subcommand *sub = find_subcommand(argv[optind]);
    if (sub == NULL)
        return cli_fail(EXIT_USAGE, "'%s' is no command; see holdfast --help", argv[optind]);
    code = check_options(sub, given);
    if (code == EXIT_DONE)
        code = cli_tracing_begin(cli);
    if (code == EXIT_DONE)
        code = run_subcommand(cli, sub, argc, argv);
    cli_disconnect(cli);
    cli_tracing_end(cli);
    return code;
}

int main(int argc, char **argv)
{
    struct cli cli = {.timeout_ms = TIMEOUT_MS, .mount = getenv("HOLDFAST_MOUNT")};
    const char *tls = getenv("HOLDFAST_TLS");
    const char *cluster = getenv("HOLDFAST_CLUSTER");
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGPIPE, &ignore, &cli.old_pipe);
    if (uv_loop_init(&cli.loop) < 0)
        return cli_fail(EXIT_AWAY, "no event loop: out of descriptors?");
    if (cluster != NULL && cluster[0] != '\0')
        cli.cluster = xstrdup(cluster);
    if (tls != NULL && tls[0] != '\0')
        cli.tls_dir = tls;
    int code = run(&cli, argc, argv);
    free(cli.cluster);
    tls_context_unref(cli.tls);
    (void)uv_loop_close(&cli.loop); /* Nothing is left in it. */
    if (fflush(stdout) != 0 && code == EXIT_DONE)
        code = cli_fail(EXIT_CANT_WRITE, "the answer can't be written: %s", strerror(errno));
    return code;
}
