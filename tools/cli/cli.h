/* The command line tool `holdfast`: what its subcommands share.
 *
 * Each subcommand is a function of `struct cli` and its words; it prints its answer on stdout, one
 * sentence on stderr if it failed, and returns an exit code.  The client library is asynchronous;
 * cli_command() and its kin run the loop until the answer is there. */
#ifndef HOLDFAST_TOOLS_CLI_CLI_H
#define HOLDFAST_TOOLS_CLI_CLI_H

#include "raftstore/base/buf.h"
#include "raftstore/base/bytes.h"
#include "raftstore/client/client.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"
#include "telemetry/otlp.h"

#include <jansson.h>
#include <signal.h>

/* Exit codes; those above 63 are of sysexits(3). */
enum cli_exit {
    EXIT_DONE = 0,
    EXIT_REFUSED = 1,          /* Held by somebody else, not held, forbidden by a rule. */
    EXIT_USAGE = 2,            /* Wrong arguments. */
    EXIT_BAD_DATA = 65,        /* policy check: the file is no policy. */
    EXIT_NOTHING = 66,         /* show: nothing is there; policy check: no file. */
    EXIT_AWAY = 69,            /* No node answers, or no leader. */
    EXIT_OS = 71,              /* run: no process could be made. */
    EXIT_CANT_WRITE = 73,      /* snapshot save: the file. */
    EXIT_TIMED_OUT = 75,       /* --wait or --timeout ran out; run: held by others. */
    EXIT_NOT_ALLOWED = 77,     /* Not authorised. */
    EXIT_NOT_HOLDFAST = 78,    /* run: the file is not on a mount. */
    EXIT_LOST = 79,            /* run: the locks were lost before the command ended. */
    EXIT_NOT_EXECUTABLE = 126, /* run: the command. */
    EXIT_NOT_FOUND = 127,      /* run: the command. */
    EXIT_SIGNAL = 130,         /* Interrupted. */
};

#define CLI_ROLES_MAX 64

struct cli {
    uv_loop_t loop;
    struct client *client;      /* NULL until it is needed. */
    char *cluster;              /* Owned: addresses. */
    const char *tls_dir;        /* --tls or $HOLDFAST_TLS; NULL = in the clear. */
    struct tls_context *tls;    /* Of tls_dir, once it is needed. */
    const char *mount;          /* --mount or $HOLDFAST_MOUNT; NULL = /locks. */
    const char *otlp_url;       /* --otlp; NULL = none. */
    struct otlp *otlp;          /* The exporter; NULL = none. */
    struct spans *spans;        /* Likewise. */
    struct trace_context trace; /* That this process is part of; not set: none. */
    bool json;                  /* --json */
    uint64_t timeout_ms;        /* --timeout */
    bool timeout_given;
    uint64_t end_mono_ns; /* When that is over. */
    bool interrupted;     /* SIGINT or SIGTERM. */
    bool client_gone;
    uv_signal_t signals[2];
    /* Options of acquire, renew, release, break. */
    uint64_t ttl_ms;  /* 0 = not given. */
    uint64_t wait_ms; /* 0 = don't wait. */
    bool wait_given;
    bool shared;
    uint64_t limit;    /* Of a semaphore; 0 = not given. */
    uint64_t token;    /* 0 = not given. */
    const char *owner; /* NULL = not given. */
    const char *note;
    /* Options of policy check. */
    const char *roles[CLI_ROLES_MAX];
    unsigned n_roles;
    bool certificate; /* The subject is a certificate's name. */
    /* Of run. */
    char **command;            /* Behind "--", ended by NULL; NULL = none. */
    int loss_signal;           /* 0 = not given. */
    bool own_signals;          /* It looks after the signals itself. */
    uint64_t session_ttl_ms;   /* 0 = the usual. */
    struct sigaction old_pipe; /* What SIGPIPE did at the start. */
    void (*on_session)(void *arg, enum client_session_event event); /* NULL = none. */
    void (*on_event)(void *arg, const Hf__Event *event); /* Of the session; NULL = none. */
    void (*on_gap)(void *arg);
    void *watch_arg;
    unsigned days; /* cert: 0 = not given. */
};

/* ---- connect.c -------------------------------------------------------------------------- */

/* Find the cluster and make the client.  On failure a sentence is printed.
 *
 * Return: EXIT_DONE or another code. */
int cli_connect(struct cli *cli, bool with_session);

/* Load the certificates of --tls, if it was given.  Return: EXIT_DONE; else a sentence is printed.
 */
int cli_load_tls(struct cli *cli);

/* A lock's name of an argument: "a/b" as it is; an absolute path through a mount ("/locks/a/b") is
 * translated, and that mount's cluster is taken if none was given.
 *
 * @ret_path: owned by the caller.
 * Return: EXIT_DONE; EXIT_USAGE with a sentence printed. */
int cli_path(struct cli *cli, const char *argument, char **ret_path);

/* The addresses of the cluster whose mount has its root here; owned.  NULL with errno set: ENODATA,
 * ENOTSUP, ...: it is no such directory. */
char *cli_cluster_of(const char *directory);

/* May this be a lock's name? */
bool cli_path_valid(const char *path);

/* Say that it may not.  Return: EXIT_USAGE. */
int cli_fail_name(const char *argument);

/* Close the client (ends its session). */
void cli_disconnect(struct cli *cli);

/* Time left of --timeout, in ms. */
uint64_t cli_left_ms(const struct cli *cli);

/* Run the loop until *done, or an interrupt.  Return: false when interrupted. */
bool cli_run(struct cli *cli, const bool *done);

/* Run the loop for a while. */
void cli_sleep(struct cli *cli, uint64_t ms);

/* ---- tracing.c -------------------------------------------------------------------------- */

/* Take up the trace of the environment and start the exporter, if --otlp names one.
 *
 * Return: EXIT_DONE; else a sentence is printed. */
int cli_tracing_begin(struct cli *cli);
/* Send what waits, for two seconds or so at most. */
void cli_tracing_end(struct cli *cli);

/* This process' own place in the trace, from now on the parent of all that it asks for.
 *
 * Return: its span, to be ended before cli_tracing_end(); NULL: not recorded. */
struct span *cli_tracing_span(struct cli *cli, const char *name);
/* Give that to processes that are started next. */
void cli_tracing_environment(const struct cli *cli);

/* What a command came to. */
struct cli_result {
    int status; /* As client_result.status; -EINTR: interrupted. */
    uint32_t code;
    uint64_t token;
    uint64_t ttl_ms;
    uint64_t remaining_ms; /* Of the deadline that was granted; 0 = none. */
    char holder[160];      /* LOCK_CONFLICT: for people. */
    char text[300];        /* Of a status: the cluster's sentence, or "". */
};
void cli_command(struct cli *cli, const Hf__Command *command, struct cli_result *ret_result);

/* Ask; `fn` (may be NULL) sees the answer while it lives.  Return: status as client_reply.status,
 * -EINTR when interrupted; text (if not NULL) is filled with the cluster's sentence. */
typedef void (*cli_reply_fn)(void *arg, const struct client_reply *reply);
int cli_query(struct cli *cli, const Hf__Query *query, cli_reply_fn fn, void *arg);
int cli_admin(struct cli *cli,
              const Hf__Admin *admin,
              cli_reply_fn fn,
              void *arg,
              char *text,
              size_t text_size);

/* Say why nothing came of it.  Return: the exit code that fits. */
int cli_fail_status(struct cli *cli, int status, const char *what, const char *text);
int cli_fail_code(const struct cli_result *r, const char *what, const char *path);

/* ---- text.c ----------------------------------------------------------------------------- */

/* "500ms", "90s", "5m", "1h30m", "2d"; a bare number is seconds.  Return: 0 or -EINVAL. */
int text_duration(const char *text, uint64_t *ret_ms);
/* The other way: "1h30m", "2.5s", "80ms". */
const char *text_of_duration(uint64_t ms, char out[32]);
int text_number(const char *text, uint64_t *ret_number);
/* "TERM", "SIGTERM" or "15".  Return: the number, or -EINVAL. */
int text_signal(const char *text);
/* "2026-11-24T06:20:01Z". */
const char *text_of_wall(uint64_t wall_ms, char out[32]);
/* Append bytes for people: control characters, backslashes and what is no UTF-8 as \xNN. */
void text_add(struct buf *out, struct bytes value);
/* A JSON string of bytes, escaped in the same way where they are no UTF-8. */
json_t *text_json(struct bytes value);

/* A table: columns as wide as their widest cell. */
struct table {
    unsigned n_columns;
    char **cells; /* Owned, row by row; the first row is the heading. */
    size_t n_cells;
};
void table_init(struct table *t, unsigned n_columns, const char *const *heading);
void table_add(struct table *t, struct bytes cell);
void table_addf(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void table_print(struct table *t);
void table_deinit(struct table *t);

/* Print and free.  Return: EXIT_DONE. */
int print_json(json_t *value);

/* One sentence on stderr, "holdfast: " before it.  Return: `code`. */
int cli_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- The subcommands -------------------------------------------------------------------- */

int cli_status(struct cli *cli, int n, char **words);
int cli_ls(struct cli *cli, int n, char **words);
int cli_show(struct cli *cli, int n, char **words);
int cli_acquire(struct cli *cli, int n, char **words);
int cli_renew(struct cli *cli, int n, char **words);
int cli_release(struct cli *cli, int n, char **words);
int cli_break(struct cli *cli, int n, char **words);
int cli_run_command(struct cli *cli, int n, char **words);
int cli_cert(struct cli *cli, int n, char **words);
int cli_snapshot(struct cli *cli, int n, char **words);
int cli_member(struct cli *cli, int n, char **words);
int cli_leader(struct cli *cli, int n, char **words);
int cli_policy(struct cli *cli, int n, char **words);

#endif
