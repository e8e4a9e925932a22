/* run: hold locks for as long as a command runs.
 *
 * The locks hang on a session of this process's own, kept alive while it lives.  By this machine's
 * clock it knows until when they can be relied on; when that moment comes without an answer of the
 * cluster, or when a lock is taken away, the command is signalled. */
#include "run.h"

#include "raftstore/base/random.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define RELEASE_MS 5000 /* Then the locks end with the session. */

struct run {
    struct cli *cli;
    char **words; /* The paths, as given. */
    unsigned n;
    struct place places[WIRE_PATHS_MAX];
    struct child child;
    uint64_t token;        /* Of the first path; the others' follow it.  0 = nothing is held. */
    unsigned n_ended;      /* Sessions that were ended. */
    bool lost;             /* What was held is, before the command's end. */
    int stop_signal;       /* Came before the command was started. */
    unsigned n_to_release; /* Without an answer yet. */
    bool released, timed_out;
};

/* The paths for a sentence: "a", or "a, b, c". */
static char *names_of(const struct run *r)
{
    struct buf out = BUF_INIT;
    for (unsigned i = 0; i < r->n; i++) {
        buf_printf(&out, "%s", i > 0 ? ", " : "");
        text_add(&out, bytes_str(r->words[i]));
    }
    buf_add(&out, "", 1);
    return (char *)out.data;
}

/* ---- What becomes of the locks ---------------------------------------------------------- */

static bool relies(const struct run *r)
{
    return r->child.pid != 0 && !r->child.ended && !r->lost;
}

/* From now on the locks may be another's. */
static void lose(struct run *r, const char *why)
{
    int number = r->cli->loss_signal != 0 ? r->cli->loss_signal : SIGTERM;
    const char *known = sigabbrev_np(number);
    char name[32];
    if (!relies(r))
        return;
    r->lost = true;
    child_signal_all(&r->child, number);
    char *names = names_of(r);
    if (known != NULL)
        (void)snprintf(name, sizeof name, "SIG%s", known);
    else
        (void)snprintf(name, sizeof name, "signal %d", number);
    (void)cli_fail(EXIT_LOST, "%s: lost: %s; %s sent to %s", names, why, name, r->cli->command[0]);
    free(names);
}

static const char lost_silence[] = "the cluster did not answer for so long that it may give them "
                                   "to others";

static void on_session(void *arg, enum client_session_event event)
{
    struct run *r = arg;
    if (event == CLIENT_SESSION_LOST)
        lose(r, lost_silence);
    if (event != CLIENT_SESSION_ENDED)
        return;
    r->n_ended++;
    lose(r, "the cluster ended the session");
}

static void on_event(void *arg, const Hf__Event *e)
{
    struct run *r = arg;
    if (e->type == WIRE_EFFECT_ENDED && r->token != 0 && e->token - r->token < r->n)
        lose(r, e->code == WIRE_CODE_BROKEN ? "taken away by an operator" : "ended by the cluster");
}

static void on_token(void *arg, const struct client_reply *reply)
{
    if (reply->status == 0 && reply->query->code == WIRE_CODE_NOT_FOUND)
        lose(arg, "ended by the cluster");
}

/* Events were missed: is everything still there? */
static void on_gap(void *arg)
{
    struct run *r = arg;
    for (unsigned i = 0; i < r->n && relies(r); i++) {
        Hf__Query query = HF__QUERY__INIT;
        query.what = HF__QUERY__WHAT__TOKEN;
        query.token = r->token + i;
        /* Not asked: the session's deadline tells in the end. */
        (void)client_query(r->cli->client, &query, r->cli->timeout_ms, false, on_token, r);
    }
}

/* The timer of the deadline may be late: we may have been stopped. */
static void check_deadline(struct run *r)
{
    if (!client_session_live(r->cli->client))
        lose(r, lost_silence);
}

/* ---- Signals ---------------------------------------------------------------------------- */

static void on_signal(void *arg, int number)
{
    struct run *r = arg;
    r->stop_signal = number;
    r->cli->interrupted = true;
}

static void on_continue(void *arg)
{
    struct run *r = arg;
    if (r->cli->client != NULL)
        check_deadline(r);
}

/* ---- Getting the locks ------------------------------------------------------------------ */

static int find_places(struct run *r)
{
    struct stat first = {0}, st;
    for (unsigned i = 0; i < r->n; i++) {
        struct place *p = &r->places[i];
        int code = place_find(r->words[i], p);
        if (code != EXIT_DONE)
            return code;
        if (stat(p->root, &st) < 0)
            return cli_fail(EXIT_AWAY, "the mount at %s does not answer: %s", p->root,
                            strerror(errno));
        if (i == 0)
            first = st;
        if (st.st_dev != first.st_dev)
            return cli_fail(EXIT_USAGE, "%s and %s are on different mounts", r->words[0],
                            r->words[i]);
        for (unsigned k = 0; k < i; k++)
            if (strcmp(p->path, r->places[k].path) == 0)
                return cli_fail(EXIT_USAGE, "%s and %s are one lock", r->words[k], r->words[i]);
    }
    free(r->cli->cluster);
    r->cli->cluster = xstrdup(r->places[0].cluster);
    return EXIT_DONE;
}

/* An owner that nobody else is, nor was: this host's and process's, and a random number. */
static void make_owner(char *out, size_t size)
{
    char host[65] = "";
    (void)gethostname(host, sizeof host - 1);
    (void)snprintf(out, size, "%.64s:%ld:%u:%016llx", host, (long)getpid(), (unsigned)getuid(),
                   (unsigned long long)random_system());
}

static void ask(struct run *r, uint64_t wait_ms, struct cli_result *ret_result)
{
    struct cli *cli = r->cli;
    Hf__Command command = HF__COMMAND__INIT;
    ProtobufCBinaryData paths[WIRE_PATHS_MAX];
    char owner[WIRE_OWNER_BYTES_MAX + 1];
    const char *slash = strrchr(cli->command[0], '/');
    const char *note = cli->note != NULL ? cli->note : slash != NULL ? slash + 1 : cli->command[0];
    size_t note_bytes = strlen(note);
    make_owner(owner, sizeof owner);
    for (unsigned i = 0; i < r->n; i++)
        paths[i] = pack_binary(bytes_str(r->places[i].path));
    command.op = WIRE_OP_ACQUIRE;
    command.paths = paths;
    command.n_paths = r->n;
    command.owner = pack_binary(bytes_str(owner));
    command.mode = cli->shared ? WIRE_MODE_SHARED : WIRE_MODE_EXCLUSIVE;
    command.limit = (uint32_t)cli->limit;
    command.wait_ms = wait_ms;
    command.note = pack_binary(
        bytes_of(note, note_bytes < WIRE_NOTE_BYTES_MAX ? note_bytes : WIRE_NOTE_BYTES_MAX));
    command.pid = (uint32_t)getpid();
    command.uid = (uint32_t)getuid();
    command.gid = (uint32_t)getgid();
    command.perm = 0644;
    cli->end_mono_ns = clock_mono_ns(clock_system()) + cli->timeout_ms * NS_PER_MS;
    cli_command(cli, &command, ret_result);
}

static int fail_acquire(struct run *r, const struct cli_result *result)
{
    char *names = names_of(r);
    int code;
    switch (result->code) {
    case WIRE_CODE_CONFLICT:
        code =
            cli_fail(EXIT_TIMED_OUT, "%s: held by %s", names,
                     result->holder[0] != '\0' ? result->holder : "nobody, but others wait for it");
        break;
    case WIRE_CODE_TIMEOUT:
        code = cli_fail(EXIT_TIMED_OUT, "%s: did not become free in time", names);
        break;
    case WIRE_CODE_DELAYED:
        code = cli_fail(EXIT_TIMED_OUT, "%s: in the lock-delay of a holder that expired", names);
        break;
    default:
        code = cli_fail_code(result, "run", names);
        break;
    }
    free(names);
    return code;
}

/* Milliseconds of --wait that are left. */
static uint64_t wait_left(const struct cli *cli, uint64_t begin_ns)
{
    uint64_t gone_ms = (clock_boot_ns(clock_system()) - begin_ns) / NS_PER_MS;
    if (!cli->wait_given)
        return WIRE_WAIT_FOREVER;
    return gone_ms < cli->wait_ms ? cli->wait_ms - gone_ms : 0;
}

static int acquire(struct run *r)
{
    struct cli *cli = r->cli;
    uint64_t begin_ns = clock_boot_ns(clock_system());
    struct cli_result result;
    for (;;) {
        unsigned n_ended = r->n_ended;
        ask(r, wait_left(cli, begin_ns), &result);
        if (result.status == -EINTR)
            return 128 + r->stop_signal;
        if (result.status == -EPERM)
            return cli_fail(EXIT_NOT_ALLOWED, "run: not authorised: %s", result.text);
        if (result.status != 0)
            return cli_fail_status(cli, result.status, "run", "");
        /* A session that ended took its place in the queue with it, or what it was granted. */
        bool ended = n_ended != r->n_ended || result.code == WIRE_CODE_NO_SESSION ||
                     result.code == WIRE_CODE_SESSION_ENDED;
        if (result.code != WIRE_CODE_OK && !ended)
            return fail_acquire(r, &result);
        if (result.code == WIRE_CODE_OK && !ended && client_session_live(cli->client)) {
            r->token = result.token;
            return EXIT_DONE;
        }
        cli_sleep(cli, 50);
        if (cli->interrupted)
            return 128 + r->stop_signal;
    }
}

/* ---- Giving them back ------------------------------------------------------------------- */

static void on_released(void *arg, const struct client_result *result)
{
    struct run *r = arg;
    r->timed_out |= result->status != 0;
    r->released = --r->n_to_release == 0;
}

static void release(struct run *r)
{
    for (unsigned i = 0; i < r->n; i++) {
        Hf__Command command = HF__COMMAND__INIT;
        ProtobufCBinaryData path = pack_binary(bytes_str(r->places[i].path));
        command.op = WIRE_OP_RELEASE;
        command.paths = &path;
        command.n_paths = 1;
        command.token = r->token + i;
        if (client_command(r->cli->client, &command, RELEASE_MS, on_released, r, NULL) == 0)
            r->n_to_release++;
    }
    if (r->n_to_release > 0)
        (void)cli_run(r->cli, &r->released); /* Interrupted: they end with the session. */
    if (r->timed_out)
        (void)cli_fail(0,
                       "the cluster does not answer; what was locked becomes free within %llu ms",
                       (unsigned long long)client_info(r->cli->client).session_ttl_ms);
}

/* ---- The command ------------------------------------------------------------------------ */

static void set_environment(const struct run *r)
{
    struct buf all = BUF_INIT;
    char first[24];
    (void)snprintf(first, sizeof first, "%llu", (unsigned long long)r->token);
    for (unsigned i = 0; i < r->n; i++)
        buf_printf(&all, "%s%llu", i > 0 ? " " : "", (unsigned long long)r->token + i);
    buf_add(&all, "", 1);
    (void)setenv("HOLDFAST_TOKEN", first, 1);
    (void)setenv("HOLDFAST_TOKENS", (const char *)all.data, 1);
    cli_tracing_environment(r->cli);
    buf_deinit(&all);
}

static int run_it(struct run *r)
{
    struct cli *cli = r->cli;
    set_environment(r);
    int error = child_start(&r->child, cli->command);
    if (error < 0)
        return cli_fail(EXIT_OS, "no process can be made: %s", strerror(-error));
    while (!r->child.ended)
        (void)uv_run(&cli->loop, UV_RUN_ONCE);
    error = child_exec_error(&r->child);
    if (error < 0)
        (void)cli_fail(0, "%s: %s", cli->command[0], strerror(-error));
    return child_exit_code(r->child.status);
}

static int hold_and_run_it(struct run *r)
{
    int code = cli_connect(r->cli, true);
    if (code == EXIT_DONE)
        code = acquire(r);
    if (code != EXIT_DONE)
        return code;
    code = run_it(r);
    if (r->lost)
        return EXIT_LOST;
    /* While we were stopped, it may have gone on beyond the deadline. */
    if (r->child.pid != 0 && !client_session_live(r->cli->client))
        return cli_fail(EXIT_LOST, "lost before %s ended: %s", r->cli->command[0], lost_silence);
    release(r);
    return code;
}

static int hold_and_run(struct run *r)
{
    struct span *span = cli_tracing_span(r->cli, "run");
    int code = hold_and_run_it(r);
    if (r->n > 0)
        span_text(span, "holdfast.lock", bytes_str(r->places[0].path));
    span_text(span, "process.command", bytes_str(r->cli->command[0]));
    span_number(span, "process.exit.code", code);
    if (r->lost)
        span_set_status(span, SPAN_ERROR, "the locks were lost");
    span_end(span);
    return code;
}

static int check_usage(const struct cli *cli, int n)
{
    if (cli->command == NULL || cli->command[0] == NULL)
        return cli_fail(EXIT_USAGE, "run needs a command behind '--': holdfast run PATH... -- CMD");
    if (n < 1 || n > (int)WIRE_PATHS_MAX)
        return cli_fail(EXIT_USAGE, "run takes 1 to %u paths", WIRE_PATHS_MAX);
    if (cli->shared && cli->limit != 0)
        return cli_fail(EXIT_USAGE, "--shared and --limit exclude each other");
    if (cli->note != NULL && strlen(cli->note) > WIRE_NOTE_BYTES_MAX)
        return cli_fail(EXIT_USAGE, "a note has at most %u bytes", WIRE_NOTE_BYTES_MAX);
    return EXIT_DONE;
}

int cli_run_command(struct cli *cli, int n, char **words)
{
    struct run r = {.cli = cli, .words = words, .n = (unsigned)n};
    const struct child_callbacks callbacks = {on_signal, on_continue, &r};
    int code = check_usage(cli, n);
    if (code != EXIT_DONE)
        return code;
    code = find_places(&r);
    int error =
        code == EXIT_DONE ? child_init(&r.child, &cli->loop, &callbacks, &cli->old_pipe) : 0;
    if (error < 0)
        code = cli_fail(EXIT_OS, "the signals can't be watched: %s", strerror(-error));
    if (code == EXIT_DONE) {
        cli->own_signals = true;
        cli->session_ttl_ms = cli->ttl_ms;
        cli->on_session = on_session;
        cli->on_event = on_event;
        cli->on_gap = on_gap;
        cli->watch_arg = &r;
        code = hold_and_run(&r);
        cli_disconnect(cli); /* Before what its callbacks use is gone. */
        child_deinit(&r.child);
    }
    for (unsigned i = 0; i < r.n; i++)
        place_deinit(&r.places[i]);
    return code;
}
