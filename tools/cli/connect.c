/* From the asynchronous client to calls that return, and from a mount to its cluster. */
#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>

#define SESSION_TTL_MS 10000
#define CLOSE_GRACE_MS 1000
#define XATTR_CLUSTER  "user.holdfast.cluster"
#define DEFAULT_MOUNT  "/locks"

/* ---- Finding the cluster --------------------------------------------------------------- */

char *cli_cluster_of(const char *directory)
{
    char value[4096];
    ssize_t n = getxattr(directory, XATTR_CLUSTER, value, sizeof value - 1);
    if (n <= 0)
        return NULL;
    value[n] = '\0';
    return xstrdup(value);
}

static int find_cluster(struct cli *cli)
{
    const char *mount = cli->mount != NULL ? cli->mount : DEFAULT_MOUNT;
    if (cli->cluster != NULL)
        return EXIT_DONE;
    cli->cluster = cli_cluster_of(mount);
    if (cli->cluster != NULL)
        return EXIT_DONE;
    if (errno == ENODATA || errno == ENOTSUP || errno == ENOENT)
        return cli_fail(
            EXIT_AWAY,
            "%s is no Holdfast mount; name the cluster with --cluster HOST:PORT,... or a "
            "mount with --mount DIR",
            mount);
    return cli_fail(EXIT_AWAY, "the mount %s does not answer: %s", mount, strerror(errno));
}

static bool component_valid(const char *name, size_t n)
{
    return n >= 1 && n <= 255 && !(n == 1 && name[0] == '.') &&
           !(n == 2 && name[0] == '.' && name[1] == '.') &&
           !(n == 9 && memcmp(name, ".holdfast", 9) == 0);
}

/* The rules of the lock table, so that a mistake is told here, in one sentence. */
bool cli_path_valid(const char *path)
{
    unsigned n_components = 0;
    if (strlen(path) > WIRE_PATH_BYTES_MAX)
        return false;
    for (;;) {
        size_t n = strcspn(path, "/");
        if (!component_valid(path, n) || ++n_components > 16)
            return false;
        if (path[n] == '\0')
            return true;
        path += n + 1;
    }
}

/* "/locks/a/b": the longest leading directory that is the root of a mount is cut off. */
static int through_mount(struct cli *cli, const char *argument, char **ret_path)
{
    char directory[PATH_MAX];
    size_t n = strlen(argument);
    if (n >= sizeof directory)
        return cli_fail(EXIT_USAGE, "the path is too long");
    memcpy(directory, argument, n + 1);
    for (char *slash = directory + n; slash != NULL; slash = strrchr(directory, '/')) {
        *slash = '\0';
        char *cluster = cli_cluster_of(slash == directory ? "/" : directory);
        if (cluster != NULL) {
            const char *rest = argument + (slash - directory);
            rest += strspn(rest, "/");
            if (cli->cluster == NULL)
                cli->cluster = cluster;
            else
                free(cluster);
            *ret_path = xstrdup(rest);
            return EXIT_DONE;
        }
    }
    return cli_fail(EXIT_USAGE, "%s is not on a Holdfast mount; a lock's name has no leading slash",
                    argument);
}

int cli_fail_name(const char *argument)
{
    return cli_fail(EXIT_USAGE,
                    "%s can't be a lock's name: up to 16 parts of 1 to 255 bytes between single "
                    "slashes, 1023 bytes in all, and none of '.', '..' and '.holdfast'",
                    argument);
}

int cli_path(struct cli *cli, const char *argument, char **ret_path)
{
    char *path = NULL;
    int code = EXIT_DONE;
    if (argument[0] == '/')
        code = through_mount(cli, argument, &path);
    else
        path = xstrdup(argument);
    if (code == EXIT_DONE && path != NULL && path[0] != '\0' && !cli_path_valid(path)) {
        free(path);
        return cli_fail_name(argument);
    }
    *ret_path = path;
    return code;
}

/* ---- The loop -------------------------------------------------------------------------- */

static void on_signal(uv_signal_t *handle, int number)
{
    struct cli *cli = handle->data;
    (void)number;
    cli->interrupted = true;
    uv_stop(&cli->loop);
}

static void watch_signals(struct cli *cli)
{
    static const int numbers[] = {SIGINT, SIGTERM};
    for (unsigned i = 0; i < 2; i++) {
        (void)uv_signal_init(&cli->loop, &cli->signals[i]);
        cli->signals[i].data = cli;
        (void)uv_signal_start(&cli->signals[i], on_signal, numbers[i]);
        uv_unref((uv_handle_t *)&cli->signals[i]);
    }
}

int cli_load_tls(struct cli *cli)
{
    char *sentence = NULL;
    if (cli->tls_dir == NULL || cli->tls != NULL)
        return EXIT_DONE;
    int code = EXIT_DONE;
    if (tls_context_load(cli->tls_dir, &cli->tls, &sentence) < 0)
        code = cli_fail(EXIT_USAGE, "%s", sentence);
    else if (tls_context_check_time(cli->tls, (int64_t)(clock_wall_ns(clock_system()) / NS_PER_S),
                                    &sentence) < 0)
        code = cli_fail(EXIT_NOT_ALLOWED, "%s/tls.crt: %s", cli->tls_dir, sentence);
    free(sentence);
    return code;
}

int cli_connect(struct cli *cli, bool with_session)
{
    int code = cli_load_tls(cli);
    if (code == EXIT_DONE)
        code = find_cluster(cli);
    if (code != EXIT_DONE)
        return code;
    struct client_config config = {
        .loop = &cli->loop,
        .addresses = cli->cluster,
        .tls = cli->tls,
        .spans = cli->spans,
        .trace = trace_is_set(&cli->trace) ? &cli->trace : NULL,
        .agent = "holdfast/" HOLDFAST_VERSION,
        .session_ttl_ms = !with_session              ? 0
                          : cli->session_ttl_ms != 0 ? cli->session_ttl_ms
                                                     : SESSION_TTL_MS,
        .events_session = cli->on_event != NULL,
        .on_session = cli->on_session,
        .on_event = cli->on_event,
        .on_gap = cli->on_gap,
        .arg = cli->watch_arg,
    };
    int rc = client_new(&config, &cli->client);
    if (rc == -EINVAL)
        return cli_fail(EXIT_USAGE,
                        "'%s' is no list of addresses: HOST:PORT, [IPV6]:PORT or unix:/PATH, with "
                        "commas between",
                        cli->cluster);
    if (rc < 0)
        return cli_fail(EXIT_AWAY, "can't start: %s", strerror(-rc));
    cli->end_mono_ns = clock_mono_ns(clock_system()) + cli->timeout_ms * NS_PER_MS;
    if (!cli->own_signals)
        watch_signals(cli);
    return EXIT_DONE;
}

static void on_client_gone(void *arg)
{
    ((struct cli *)arg)->client_gone = true;
}

void cli_disconnect(struct cli *cli)
{
    if (cli->client == NULL)
        return;
    client_close(cli->client, CLOSE_GRACE_MS, on_client_gone, cli);
    while (!cli->client_gone)
        (void)uv_run(&cli->loop, UV_RUN_ONCE);
    cli->client = NULL;
    for (unsigned i = 0; i < 2 && !cli->own_signals; i++)
        uv_close((uv_handle_t *)&cli->signals[i], NULL);
    (void)uv_run(&cli->loop, UV_RUN_DEFAULT);
}

uint64_t cli_left_ms(const struct cli *cli)
{
    uint64_t now = clock_mono_ns(clock_system());
    return now < cli->end_mono_ns ? (cli->end_mono_ns - now) / NS_PER_MS : 0;
}

bool cli_run(struct cli *cli, const bool *done)
{
    while (!*done && !cli->interrupted)
        (void)uv_run(&cli->loop, UV_RUN_ONCE);
    return *done;
}

static void on_slept(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle);
}

void cli_sleep(struct cli *cli, uint64_t ms)
{
    uv_timer_t *timer = xcalloc(1, sizeof *timer);
    bool done = false;
    (void)uv_timer_init(&cli->loop, timer);
    timer->data = &done;
    uv_update_time(&cli->loop);
    (void)uv_timer_start(timer, on_slept, ms, 0);
    (void)cli_run(cli, &done);
    uv_close((uv_handle_t *)timer, on_timer_closed);
}

/* ---- Calls ----------------------------------------------------------------------------- */

/* Outlives the call when that was interrupted: the callback comes when the client is closed. */
struct call {
    bool done;
    bool abandoned;
    int status;
    struct cli_result *result;
    cli_reply_fn fn;
    void *arg;
    char text[300];
};

static void end_call(struct call *call)
{
    call->done = true;
    if (call->abandoned)
        free(call);
}

/* Wait for it and free it, now or when it ends. */
static int finish_call(struct cli *cli, struct call *call, char *text, size_t text_size)
{
    int status = -EINTR;
    if (cli_run(cli, &call->done)) {
        status = call->status;
        if (text != NULL)
            (void)snprintf(text, text_size, "%s", call->text);
        free(call);
    } else {
        call->abandoned = true;
    }
    return status;
}

static void on_result(void *arg, const struct client_result *r)
{
    struct call *call = arg;
    call->status = r->status;
    if (r->status != 0)
        (void)snprintf(call->text, sizeof call->text, "%s", r->text);
    if (r->status == 0 && !call->abandoned) {
        struct cli_result *out = call->result;
        struct buf holder = BUF_INIT;
        uint64_t now = clock_boot_ns(clock_system());
        text_add(&holder, pack_bytes(r->result->holder));
        out->code = r->result->code;
        out->token = r->result->token;
        out->ttl_ms = r->result->ttl_ms;
        out->remaining_ms = r->deadline_boot_ns > now ? (r->deadline_boot_ns - now) / NS_PER_MS : 0;
        (void)snprintf(out->holder, sizeof out->holder, "%.*s", (int)holder.size,
                       holder.data != NULL ? (const char *)holder.data : "");
        buf_deinit(&holder);
    }
    end_call(call);
}

void cli_command(struct cli *cli, const Hf__Command *command, struct cli_result *ret_result)
{
    struct call *call = xcalloc(1, sizeof *call);
    *ret_result = (struct cli_result){0};
    call->result = ret_result;
    int rc = client_command(cli->client, command, cli_left_ms(cli), on_result, call, NULL);
    if (rc < 0) {
        free(call);
        ret_result->status = rc;
        return;
    }
    ret_result->status = finish_call(cli, call, ret_result->text, sizeof ret_result->text);
}

static void on_reply(void *arg, const struct client_reply *reply)
{
    struct call *call = arg;
    call->status = reply->status;
    if (call->fn != NULL && reply->status == 0 && !call->abandoned)
        call->fn(call->arg, reply);
    if (reply->chunk != NULL && !reply->chunk->last)
        return;
    (void)snprintf(call->text, sizeof call->text, "%s", reply->text);
    end_call(call);
}

static char query_text[300]; /* Of the last query: for cli_fail_status(). */

int cli_query(struct cli *cli, const Hf__Query *query, cli_reply_fn fn, void *arg)
{
    struct call *call = xcalloc(1, sizeof *call);
    call->fn = fn;
    call->arg = arg;
    int rc = client_query(cli->client, query, cli_left_ms(cli), false, on_reply, call);
    if (rc < 0) {
        free(call);
        return rc;
    }
    return finish_call(cli, call, query_text, sizeof query_text);
}

int cli_admin(struct cli *cli,
              const Hf__Admin *admin,
              cli_reply_fn fn,
              void *arg,
              char *text,
              size_t text_size)
{
    struct call *call = xcalloc(1, sizeof *call);
    call->fn = fn;
    call->arg = arg;
    int rc = client_admin(cli->client, admin, cli_left_ms(cli), on_reply, call);
    if (rc < 0) {
        free(call);
        return rc;
    }
    return finish_call(cli, call, text, text_size);
}

/* ---- Saying why not -------------------------------------------------------------------- */

static int fail_timeout(struct cli *cli, const char *what)
{
    struct client_info info = client_info(cli->client);
    if (!info.connected)
        return cli_fail(EXIT_AWAY, "%s: no node of %s answers%s%s", what, cli->cluster,
                        info.error[0] != '\0' ? "; the last one tried was " : "", info.error);
    if (info.leader_id == 0)
        return cli_fail(EXIT_AWAY,
                        "%s: the cluster has no leader (%s answers, but a majority of the nodes is "
                        "needed)",
                        what, info.address);
    return cli_fail(EXIT_TIMED_OUT, "%s: no answer within %llu ms", what,
                    (unsigned long long)cli->timeout_ms);
}

int cli_fail_status(struct cli *cli, int status, const char *what, const char *text)
{
    if (text == NULL)
        text = query_text;
    switch (status) {
    case -EINTR:
        return cli_fail(EXIT_SIGNAL, "%s: interrupted", what);
    case -ETIMEDOUT:
        return fail_timeout(cli, what);
    case -EBUSY:
        return cli_fail(EXIT_TIMED_OUT, "%s: the cluster is too busy; try again later", what);
    case -EPERM:
        return cli_fail(EXIT_REFUSED, "%s: refused: %s", what,
                        text[0] != '\0' ? text : "not allowed");
    case -EACCES:
        return cli_fail(EXIT_NOT_ALLOWED, "%s: not authorised: %s", what, text);
    case -ECONNRESET:
        return cli_fail(EXIT_TIMED_OUT, "%s: %s", what, text);
    default:
        return cli_fail(EXIT_REFUSED, "%s: %s%s%s", what, strerror(-status),
                        text[0] != '\0' ? ": " : "", text);
    }
}

int cli_fail_code(const struct cli_result *r, const char *what, const char *path)
{
    switch (r->code) {
    case WIRE_CODE_CONFLICT:
        return cli_fail(EXIT_REFUSED, "%s is held by %s", path,
                        r->holder[0] != '\0' ? r->holder : "nobody, but others wait for it");
    case WIRE_CODE_TIMEOUT:
        return cli_fail(EXIT_TIMED_OUT, "%s did not become free in time", path);
    case WIRE_CODE_NOT_HELD:
        return cli_fail(EXIT_REFUSED, "%s: %s is not held", what, path);
    case WIRE_CODE_NOT_OWNER:
        return cli_fail(EXIT_REFUSED, "%s: %s is held, but not by that owner or token", what, path);
    case WIRE_CODE_NOT_DIR:
        return cli_fail(EXIT_REFUSED, "%s: a part of %s is a lock, not a directory", what, path);
    case WIRE_CODE_IS_DIR:
        return cli_fail(EXIT_REFUSED, "%s: %s is a directory", what, path);
    case WIRE_CODE_DELAYED:
        return cli_fail(EXIT_REFUSED,
                        "%s is free, but in the lock-delay of a holder that expired; try later",
                        path);
    case WIRE_CODE_LIMIT:
        return cli_fail(EXIT_REFUSED, "%s: a limit of the cluster is reached (see holdfast status)",
                        what);
    case WIRE_CODE_INVALID:
        return cli_fail(EXIT_USAGE, "%s: the cluster calls this malformed", what);
    default:
        return cli_fail(EXIT_REFUSED, "%s %s: %s", what, path, wire_code_name(r->code));
    }
}
