/* acquire, renew, release, break, show, ls. */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TTL_MS_DEFAULT 30000
#define PAGE           1000

/* ---- Changing -------------------------------------------------------------------------- */

/* One command about one path.  On success nothing is printed. */
static int run_command(struct cli *cli,
                       const char *what,
                       const char *argument,
                       Hf__Command *command,
                       struct cli_result *ret_result,
                       char **ret_path)
{
    char *path = NULL;
    ProtobufCBinaryData bytes;
    int code = cli_path(cli, argument, &path);
    if (code == EXIT_DONE && path[0] == '\0')
        code = cli_fail(EXIT_USAGE, "the root is no lock");
    if (code == EXIT_DONE)
        code = cli_connect(cli, true);
    if (code == EXIT_DONE) {
        bytes = pack_binary(bytes_str(path));
        command->paths = &bytes;
        command->n_paths = 1;
        cli_command(cli, command, ret_result);
        if (ret_result->status == -EPERM)
            code = cli_fail(EXIT_NOT_ALLOWED, "%s: not authorised: %s", what, ret_result->text);
        else if (ret_result->status != 0)
            code = cli_fail_status(cli, ret_result->status, what, "");
        else if (ret_result->code != WIRE_CODE_OK)
            code = cli_fail_code(ret_result, what, path);
        command->paths = NULL;
        command->n_paths = 0;
    }
    *ret_path = path;
    return code;
}

static int
print_hold(struct cli *cli, const char *path, const struct cli_result *r, const char *owner)
{
    char text[32];
    if (cli->json) {
        json_t *o = json_pack("{s:o, s:I, s:I, s:I}", "path", text_json(bytes_str(path)), "token",
                              (json_int_t)r->token, "ttl_ms", (json_int_t)r->ttl_ms, "remaining_ms",
                              (json_int_t)r->remaining_ms);
        if (owner != NULL)
            (void)json_object_set_new(o, "owner", text_json(bytes_str(owner)));
        return print_json(o);
    }
    (void)printf("%llu\n", (unsigned long long)r->token);
    if (isatty(STDERR_FILENO))
        (void)fprintf(stderr, "%s: held for %s; the number is its token\n", path,
                      text_of_duration(r->remaining_ms, text));
    return EXIT_DONE;
}

static int print_done(struct cli *cli, const char *key, const char *path)
{
    if (!cli->json)
        return EXIT_DONE;
    return print_json(json_pack("{s:o, s:b}", "path", text_json(bytes_str(path)), key, 1));
}

int cli_acquire(struct cli *cli, int n, char **words)
{
    Hf__Command command = HF__COMMAND__INIT;
    struct cli_result r;
    char host[65] = "", owner[160], *path = NULL;
    if (n != 1)
        return cli_fail(EXIT_USAGE, "acquire takes one path");
    (void)gethostname(host, sizeof host - 1);
    (void)snprintf(owner, sizeof owner, "%.64s:%ld:%u", host, (long)getpid(), (unsigned)getuid());
    if (cli->owner == NULL)
        cli->owner = owner;
    if (cli->owner[0] == '\0' || strlen(cli->owner) > WIRE_OWNER_BYTES_MAX)
        return cli_fail(EXIT_USAGE, "an owner has 1 to %u bytes", WIRE_OWNER_BYTES_MAX);
    if (cli->note != NULL && strlen(cli->note) > WIRE_NOTE_BYTES_MAX)
        return cli_fail(EXIT_USAGE, "a note has at most %u bytes", WIRE_NOTE_BYTES_MAX);
    command.op = WIRE_OP_ACQUIRE;
    command.flags = WIRE_F_PARENTS;
    command.owner = pack_binary(bytes_str(cli->owner));
    if (cli->shared && cli->limit != 0)
        return cli_fail(EXIT_USAGE, "--shared and --limit exclude each other");
    command.mode = cli->shared ? WIRE_MODE_SHARED : WIRE_MODE_EXCLUSIVE;
    command.limit = (uint32_t)cli->limit;
    command.ttl_ms = cli->ttl_ms != 0 ? cli->ttl_ms : TTL_MS_DEFAULT;
    command.wait_ms = cli->wait_ms;
    command.pid = (uint32_t)getpid();
    command.uid = (uint32_t)getuid();
    command.gid = (uint32_t)getgid();
    command.perm = 0644;
    if (cli->note != NULL)
        command.note = pack_binary(bytes_str(cli->note));
    int code = run_command(cli, "acquire", words[0], &command, &r, &path);
    if (code == EXIT_DONE)
        code = print_hold(cli, path, &r, cli->owner);
    free(path);
    return code;
}

/* Which hold: by --token or by --owner. */
static int identify(struct cli *cli, const char *what, int n, Hf__Command *command)
{
    if (n != 1)
        return cli_fail(EXIT_USAGE, "%s takes one path", what);
    if ((cli->token != 0) == (cli->owner != NULL))
        return cli_fail(EXIT_USAGE, "%s needs --token N or --owner ID", what);
    if (cli->owner != NULL)
        command->owner = pack_binary(bytes_str(cli->owner));
    command->token = cli->token;
    return EXIT_DONE;
}

int cli_renew(struct cli *cli, int n, char **words)
{
    Hf__Command command = HF__COMMAND__INIT;
    struct cli_result r;
    char *path = NULL;
    int code = identify(cli, "renew", n, &command);
    if (code != EXIT_DONE)
        return code;
    command.op = WIRE_OP_RENEW;
    command.ttl_ms = cli->ttl_ms;
    code = run_command(cli, "renew", words[0], &command, &r, &path);
    if (code == EXIT_DONE)
        code = print_hold(cli, path, &r, cli->owner);
    free(path);
    return code;
}

int cli_release(struct cli *cli, int n, char **words)
{
    Hf__Command command = HF__COMMAND__INIT;
    struct cli_result r;
    char *path = NULL;
    int code = identify(cli, "release", n, &command);
    if (code != EXIT_DONE)
        return code;
    command.op = WIRE_OP_RELEASE;
    code = run_command(cli, "release", words[0], &command, &r, &path);
    if (code == EXIT_DONE)
        code = print_done(cli, "released", path);
    free(path);
    return code;
}

int cli_break(struct cli *cli, int n, char **words)
{
    Hf__Command command = HF__COMMAND__INIT;
    struct cli_result r;
    char *path = NULL;
    if (n != 1)
        return cli_fail(EXIT_USAGE, "break takes one path");
    if (cli->token == 0)
        return cli_fail(EXIT_USAGE,
                        "break needs --token N, so that it takes away the hold that you saw and no "
                        "later one (holdfast show %s)",
                        words[0]);
    command.op = WIRE_OP_BREAK;
    command.token = cli->token;
    int code = run_command(cli, "break", words[0], &command, &r, &path);
    if (code == EXIT_DONE)
        code = print_done(cli, "broken", path);
    free(path);
    return code;
}

/* ---- Looking --------------------------------------------------------------------------- */

static json_t *wall_json(uint64_t wall_ms)
{
    char text[32];
    return wall_ms != 0 ? json_string(text_of_wall(wall_ms, text)) : json_null();
}

static void set_number(json_t *o, const char *key, uint64_t value)
{
    (void)json_object_set_new(o, key, json_integer((json_int_t)value));
}

static void set_text(json_t *o, const char *key, ProtobufCBinaryData value)
{
    (void)json_object_set_new(o, key, text_json(pack_bytes(value)));
}

static json_t *hold_json(const Hf__Hold *h)
{
    json_t *o = json_object();
    set_number(o, "token", h->token);
    set_text(o, "owner", h->owner);
    (void)json_object_set_new(o, "mode", json_string(wire_hold_mode_name(h->mode, h->limit)));
    if (h->limit != 0)
        set_number(o, "limit", h->limit);
    (void)json_object_set_new(o, "kind", json_string(wire_kind_name(h->kind)));
    set_text(o, "host", h->host);
    set_number(o, "pid", h->pid);
    set_number(o, "uid", h->uid);
    set_number(o, "session", h->session_id);
    (void)json_object_set_new(o, "session_bound", json_boolean(h->session_bound));
    (void)json_object_set_new(o, "lapsed", json_boolean(h->lapsed));
    set_number(o, "ttl_ms", h->ttl_ms);
    set_number(o, "remaining_ms", h->remaining_ms);
    (void)json_object_set_new(o, "since", wall_json(h->since_wall_ms));
    (void)json_object_set_new(o, "expires", wall_json(h->expires_wall_ms));
    set_number(o, "start", h->start);
    (void)json_object_set_new(o, "end",
                              h->end_inverted == 0
                                  ? json_null()
                                  : json_integer((json_int_t)(UINT64_MAX - h->end_inverted)));
    set_text(o, "note", h->note);
    return o;
}

static json_t *waiter_json(const Hf__Waiter *w)
{
    json_t *o = json_object();
    set_text(o, "owner", w->owner);
    (void)json_object_set_new(o, "mode", json_string(wire_hold_mode_name(w->mode, w->limit)));
    if (w->limit != 0)
        set_number(o, "limit", w->limit);
    (void)json_object_set_new(o, "kind", json_string(wire_kind_name(w->kind)));
    set_text(o, "host", w->host);
    set_number(o, "pid", w->pid);
    set_number(o, "uid", w->uid);
    set_number(o, "session", w->session_id);
    (void)json_object_set_new(o, "since", wall_json(w->since_wall_ms));
    return o;
}

static json_t *node_json(const Hf__Node *node)
{
    json_t *o = json_object(), *holds = json_array(), *waiters = json_array();
    set_text(o, "path", node->path);
    (void)json_object_set_new(
        o, "type", json_string(node->type == WIRE_NODE_DIRECTORY ? "directory" : "lock"));
    if (node->type == WIRE_NODE_DIRECTORY) {
        set_number(o, "children", node->n_children);
        set_number(o, "uid", node->uid);
        set_number(o, "gid", node->gid);
        set_number(o, "perm", node->perm);
    }
    set_number(o, "n_holds", node->holds_total);
    set_number(o, "n_waiters", node->waiters_total);
    for (size_t i = 0; i < node->n_holds; i++)
        (void)json_array_append_new(holds, hold_json(node->holds[i]));
    for (size_t i = 0; i < node->n_waiters; i++)
        (void)json_array_append_new(waiters, waiter_json(node->waiters[i]));
    (void)json_object_set_new(o, "holds", holds);
    (void)json_object_set_new(o, "waiters", waiters);
    return o;
}

static void print_field(const char *key, struct bytes value)
{
    struct buf text = BUF_INIT;
    text_add(&text, value);
    (void)printf("  %-10s %.*s\n", key, (int)text.size, text.data != NULL ? (char *)text.data : "");
    buf_deinit(&text);
}

static void print_one_hold(const Hf__Hold *h)
{
    char a[32], b[32];
    char slot[32];
    (void)snprintf(slot, sizeof slot, "as a slot of %u", h->limit);
    (void)printf("held %s (%s), token %llu\n",
                 h->limit != 0                 ? slot
                 : h->mode == WIRE_MODE_SHARED ? "shared"
                                               : "exclusively",
                 wire_kind_name(h->kind), (unsigned long long)h->token);
    print_field("owner", pack_bytes(h->owner));
    (void)printf("  %-10s pid %u, uid %u\n", "process", h->pid, h->uid);
    if (h->host.len > 0)
        print_field("host", pack_bytes(h->host));
    if (h->start != 0 || h->end_inverted != 0)
        (void)printf("  %-10s %llu to %llu\n", "bytes", (unsigned long long)h->start,
                     (unsigned long long)(UINT64_MAX - h->end_inverted));
    (void)printf("  %-10s %s\n", "since", text_of_wall(h->since_wall_ms, a));
    if (h->session_bound)
        (void)printf("  %-10s with session %llu%s\n", "ends", (unsigned long long)h->session_id,
                     h->lapsed ? " (which has run out)" : "");
    else
        (void)printf("  %-10s %s, in %s (ttl %s)\n", "expires", text_of_wall(h->expires_wall_ms, a),
                     text_of_duration(h->remaining_ms, b),
                     text_of_duration(h->ttl_ms, (char[32]){0}));
    if (h->note.len > 0)
        print_field("note", pack_bytes(h->note));
}

static void print_waiters(const Hf__Node *node)
{
    static const char *const heading[] = {"WAITER", "MODE", "HOST", "PID", "SINCE"};
    struct table t;
    char since[32];
    if (node->n_waiters == 0)
        return;
    (void)printf("%llu waiting:\n", (unsigned long long)node->waiters_total);
    table_init(&t, 5, heading);
    for (size_t i = 0; i < node->n_waiters; i++) {
        const Hf__Waiter *w = node->waiters[i];
        table_add(&t, pack_bytes(w->owner));
        table_add(&t, bytes_str(wire_hold_mode_name(w->mode, w->limit)));
        table_add(&t, pack_bytes(w->host));
        table_addf(&t, "%u", w->pid);
        table_add(&t, bytes_str(text_of_wall(w->since_wall_ms, since)));
    }
    table_print(&t);
    table_deinit(&t);
}

struct looking {
    struct cli *cli;
    int code;
    const char *path;
};

static void on_show(void *arg, const struct client_reply *reply)
{
    struct looking *l = arg;
    const Hf__QueryReply *q = reply->query;
    const Hf__Node *node = q != NULL && q->n_nodes > 0 ? q->nodes[0] : NULL;
    if (node == NULL || node->type == WIRE_NODE_NONE) {
        l->code = cli_fail(EXIT_NOTHING, "%s: nobody holds it or waits for it", l->path);
    } else if (l->cli->json) {
        l->code = print_json(node_json(node));
    } else if (node->type == WIRE_NODE_DIRECTORY) {
        (void)printf("directory, %llu entries, uid %u, gid %u, mode %04o\n",
                     (unsigned long long)node->n_children, node->uid, node->gid, node->perm);
    } else {
        for (size_t i = 0; i < node->n_holds; i++)
            print_one_hold(node->holds[i]);
        if (node->holds_total > node->n_holds)
            (void)printf("and %llu more\n",
                         (unsigned long long)(node->holds_total - node->n_holds));
        print_waiters(node);
    }
}

int cli_show(struct cli *cli, int n, char **words)
{
    Hf__Query query = HF__QUERY__INIT;
    char *path = NULL;
    if (n != 1)
        return cli_fail(EXIT_USAGE, "show takes one path");
    int code = cli_path(cli, words[0], &path);
    if (code == EXIT_DONE)
        code = cli_connect(cli, false);
    if (code == EXIT_DONE) {
        struct looking l = {.cli = cli, .path = words[0]};
        query.what = HF__QUERY__WHAT__SHOW;
        query.path = pack_binary(bytes_str(path));
        int status = cli_query(cli, &query, on_show, &l);
        code = status == 0 ? l.code : cli_fail_status(cli, status, "show", NULL);
    }
    free(path);
    return code;
}

/* ---- ls -------------------------------------------------------------------------------- */

struct listing {
    struct table table;
    json_t *locks;
    json_t *directories;
    bool json;
    bool more;
    uint32_t code;
    struct buf after; /* The last path seen. */
};

static void list_lock(struct listing *l, const Hf__Node *node)
{
    char remaining[32];
    for (size_t i = 0; i < node->n_holds; i++) {
        const Hf__Hold *h = node->holds[i];
        table_add(&l->table, pack_bytes(node->path));
        table_add(&l->table, bytes_str(wire_hold_mode_name(h->mode, h->limit)));
        table_add(&l->table, bytes_str(wire_kind_name(h->kind)));
        table_addf(&l->table, "%llu", (unsigned long long)h->token);
        table_add(&l->table,
                  bytes_str(h->lapsed          ? "lapsed"
                            : h->session_bound ? "session"
                                               : text_of_duration(h->remaining_ms, remaining)));
        table_addf(&l->table, "%llu", (unsigned long long)node->waiters_total);
        table_add(&l->table, pack_bytes(h->host));
        table_addf(&l->table, "%u", h->pid);
        table_add(&l->table, pack_bytes(h->owner));
    }
    for (unsigned i = 0; node->n_holds == 0 && i < l->table.n_columns; i++) {
        if (i == 0)
            table_add(&l->table, pack_bytes(node->path));
        else if (i == 5)
            table_addf(&l->table, "%llu", (unsigned long long)node->waiters_total);
        else
            table_add(&l->table, bytes_str(""));
    }
}

static void on_list(void *arg, const struct client_reply *reply)
{
    struct listing *l = arg;
    const Hf__QueryReply *q = reply->query;
    if (q == NULL)
        return;
    l->code = q->code;
    l->more = q->more && q->n_nodes > 0;
    for (size_t i = 0; i < q->n_nodes; i++) {
        const Hf__Node *node = q->nodes[i];
        if (node->type == WIRE_NODE_DIRECTORY && l->json)
            (void)json_array_append_new(l->directories, text_json(pack_bytes(node->path)));
        else if (node->type == WIRE_NODE_LOCK && l->json)
            (void)json_array_append_new(l->locks, node_json(node));
        else if (node->type == WIRE_NODE_LOCK)
            list_lock(l, node);
        l->after.size = 0;
        buf_add(&l->after, node->path.data, node->path.len);
    }
}

static int list_all(struct cli *cli, const char *prefix, struct listing *l)
{
    Hf__Query query = HF__QUERY__INIT;
    int status;
    query.what = HF__QUERY__WHAT__LIST_PREFIX;
    query.path = pack_binary(bytes_str(prefix));
    query.limit = PAGE;
    query.brief = true;
    do {
        query.after = pack_binary(bytes_of(l->after.data, l->after.size));
        l->more = false;
        /* The answer is copied to `after`, which the next question uses: not while it is asked. */
        struct buf asked = l->after;
        l->after = BUF_INIT;
        status = cli_query(cli, &query, on_list, l);
        buf_deinit(&asked);
    } while (status == 0 && l->more);
    if (status != 0)
        return cli_fail_status(cli, status, "ls", NULL);
    if (l->code == WIRE_CODE_OK || l->code == WIRE_CODE_NOT_FOUND)
        return EXIT_DONE;
    return cli_fail(EXIT_REFUSED, "ls %s: %s", prefix, wire_code_name(l->code));
}

int cli_ls(struct cli *cli, int n, char **words)
{
    static const char *const heading[] = {"PATH",    "MODE", "KIND", "TOKEN", "REMAINING",
                                          "WAITERS", "HOST", "PID",  "OWNER"};
    struct listing l = {.json = cli->json, .after = BUF_INIT};
    char *prefix = NULL;
    if (n > 1)
        return cli_fail(EXIT_USAGE, "ls takes one prefix at most");
    int code = n == 1 ? cli_path(cli, words[0], &prefix) : EXIT_DONE;
    if (code == EXIT_DONE)
        code = cli_connect(cli, false);
    if (code != EXIT_DONE) {
        free(prefix);
        return code;
    }
    table_init(&l.table, 9, heading);
    l.locks = json_array();
    l.directories = json_array();
    code = list_all(cli, prefix != NULL ? prefix : "", &l);
    if (code == EXIT_DONE && cli->json)
        code = print_json(json_pack("{s:O, s:O}", "locks", l.locks, "directories", l.directories));
    else if (code == EXIT_DONE)
        table_print(&l.table);
    json_decref(l.locks);
    json_decref(l.directories);
    table_deinit(&l.table);
    buf_deinit(&l.after);
    free(prefix);
    return code;
}
