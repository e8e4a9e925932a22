/* status: every member is asked itself, all at once, so that one that is down or cut off shows. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define NODES_MAX   32
#define NODE_ASK_MS 2000

struct node_row {
    struct survey *survey;
    uint64_t id; /* 0 = not known: found by its address only. */
    int role;    /* Hf__Member__Role; -1 = not known. */
    char address[300];
    struct client *client;
    Hf__Status *status; /* Owned; NULL = no answer. */
    char error[300];
};

struct survey {
    struct node_row rows[NODES_MAX];
    unsigned n;
    unsigned n_open; /* Not yet answered. */
    unsigned n_clients;
    bool done;
    bool closed;
    bool majority; /* MEMBERS was answered. */
};

static void on_members(void *arg, const struct client_reply *reply)
{
    struct survey *s = arg;
    for (size_t i = 0; reply->query != NULL && i < reply->query->n_members; i++) {
        const Hf__Member *m = reply->query->members[i];
        if (s->n == NODES_MAX)
            break;
        struct node_row *row = &s->rows[s->n++];
        row->id = m->node_id;
        row->role = (int)m->role;
        (void)snprintf(row->address, sizeof row->address, "%s", m->client_address);
    }
    s->majority = s->n > 0;
}

/* Without a majority nobody can say who the members are: ask at the addresses that we know. */
static void rows_of_addresses(struct survey *s, const char *cluster)
{
    char *list = xstrdup(cluster), *rest = list, *word;
    while ((word = strsep(&rest, ",")) != NULL && s->n < NODES_MAX) {
        struct node_row *row = &s->rows[s->n++];
        row->role = -1;
        (void)snprintf(row->address, sizeof row->address, "%s", word);
    }
    free(list);
}

static void on_status(void *arg, const struct client_reply *reply)
{
    struct node_row *row = arg;
    if (reply->status == 0 && reply->query->status != NULL) {
        size_t size = hf__status__get_packed_size(reply->query->status);
        uint8_t *copy = xmalloc(size + 1);
        (void)hf__status__pack(reply->query->status, copy);
        row->status = hf__status__unpack(NULL, size, copy);
        free(copy);
        if (row->status != NULL)
            row->id = row->status->node_id;
    } else {
        (void)snprintf(row->error, sizeof row->error, "%s",
                       reply->text[0] != '\0' ? reply->text : "no answer");
    }
    row->survey->done = --row->survey->n_open == 0;
}

static void on_row_closed(void *arg)
{
    struct survey *s = arg;
    s->closed = --s->n_clients == 0;
}

static void ask(struct cli *cli, struct survey *s, struct node_row *row)
{
    Hf__Query query = HF__QUERY__INIT;
    struct client_config config = {.loop = &cli->loop,
                                   .addresses = row->address,
                                   .agent = "holdfast/" HOLDFAST_VERSION,
                                   .tls = cli->tls,
                                   .pinned = true};
    row->survey = s;
    if (row->address[0] == '\0' || client_new(&config, &row->client) < 0) {
        (void)snprintf(row->error, sizeof row->error, "no address that can be used");
        return;
    }
    s->n_clients++;
    query.what = HF__QUERY__WHAT__STATUS;
    uint64_t ms = cli_left_ms(cli) < NODE_ASK_MS ? cli_left_ms(cli) : NODE_ASK_MS;
    if (client_query(row->client, &query, ms, false, on_status, row) == 0)
        s->n_open++;
}

static void ask_all(struct cli *cli, struct survey *s)
{
    for (unsigned i = 0; i < s->n; i++)
        ask(cli, s, &s->rows[i]);
    s->done = s->n_open == 0;
    (void)cli_run(cli, &s->done);
    s->closed = s->n_clients == 0;
    for (unsigned i = 0; i < s->n; i++)
        if (s->rows[i].client != NULL)
            client_abandon(s->rows[i].client, on_row_closed, s);
    while (!s->closed)
        (void)uv_run(&cli->loop, UV_RUN_ONCE);
}

static const char *role_name(int role)
{
    return role == HF__MEMBER__ROLE__VOTER     ? "voter"
           : role == HF__MEMBER__ROLE__STANDBY ? "standby"
           : role == HF__MEMBER__ROLE__SPARE   ? "spare"
                                               : "?";
}

/* The node whose counts are shown: the leader, else the one that has applied most. */
static const struct node_row *best(const struct survey *s)
{
    const struct node_row *found = NULL;
    for (unsigned i = 0; i < s->n; i++) {
        const struct node_row *row = &s->rows[i];
        if (row->status == NULL)
            continue;
        if (strcmp(row->status->state, "leader") == 0)
            return row;
        if (found == NULL || row->status->applied_index > found->status->applied_index)
            found = row;
    }
    return found;
}

/* Equal index, different state: that must never be. */
static bool digests_differ(const struct survey *s)
{
    for (unsigned i = 0; i < s->n; i++) {
        for (unsigned k = 0; k < i; k++) {
            const Hf__Status *a = s->rows[i].status, *b = s->rows[k].status;
            if (a != NULL && b != NULL && a->applied_index == b->applied_index &&
                (a->digest_lo != b->digest_lo || a->digest_hi != b->digest_hi))
                return true;
        }
    }
    return false;
}

static void number(json_t *o, const char *key, uint64_t value)
{
    (void)json_object_set_new(o, key, json_integer((json_int_t)value));
}

static json_t *status_json(const struct node_row *row)
{
    json_t *o = json_object();
    const Hf__Status *s = row->status;
    char digest[40];
    number(o, "id", row->id);
    (void)json_object_set_new(o, "role", json_string(role_name(row->role)));
    (void)json_object_set_new(o, "address", text_json(bytes_str(row->address)));
    (void)json_object_set_new(o, "answers", json_boolean(s != NULL));
    if (s == NULL) {
        (void)json_object_set_new(o, "error", text_json(bytes_str(row->error)));
        return o;
    }
    (void)snprintf(digest, sizeof digest, "%016" PRIx64 "%016" PRIx64, s->digest_hi, s->digest_lo);
    (void)json_object_set_new(o, "state", text_json(bytes_str(s->state)));
    (void)json_object_set_new(o, "version", text_json(bytes_str(s->version)));
    (void)json_object_set_new(o, "digest", json_string(digest));
    const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {
        {"term", s->term},
        {"leader", s->leader_id},
        {"commit_index", s->commit_index},
        {"applied_index", s->applied_index},
        {"first_index", s->first_index},
        {"last_index", s->last_index},
        {"snapshot_index", s->snapshot_index},
        {"snapshots", s->snapshots},
        {"snapshot_ms", s->snapshot_ms},
        {"stall_max_us", s->stall_max_us},
        {"snapshot_stall_max_us", s->snapshot_stall_max_us},
        {"uptime_ms", s->uptime_ms},
        {"resident_bytes", s->resident_bytes},
        {"entries", s->entries},
        {"commands", s->commands},
        {"reads", s->reads},
        {"read_rounds", s->read_rounds},
        {"commit_p50_us", s->commit_p50_us},
        {"commit_p99_us", s->commit_p99_us},
        {"store_p50_us", s->store_p50_us},
        {"store_p99_us", s->store_p99_us},
        {"connections", s->connections},
        {"elections", s->elections},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        number(o, numbers[i].key, numbers[i].value);
    json_t *metrics = json_object();
    for (size_t i = 0; i < s->n_metrics; i++)
        number(metrics, s->metrics[i]->name, s->metrics[i]->value);
    (void)json_object_set_new(o, "metrics", metrics);
    return o;
}

static int print_status_json(const struct survey *s)
{
    json_t *o = json_object(), *nodes = json_array();
    const struct node_row *top = best(s);
    for (unsigned i = 0; i < s->n; i++)
        (void)json_array_append_new(nodes, status_json(&s->rows[i]));
    number(o, "leader", top != NULL ? top->status->leader_id : 0);
    number(o, "term", top != NULL ? top->status->term : 0);
    (void)json_object_set_new(o, "majority", json_boolean(s->majority));
    (void)json_object_set_new(o, "digests_differ", json_boolean(digests_differ(s)));
    if (top != NULL && top->status->counts != NULL) {
        const Hf__Counts *c = top->status->counts;
        number(o, "locks", c->locks);
        number(o, "holds", c->holds);
        number(o, "holds_max", c->holds_max);
        number(o, "waiters", c->waiters);
        number(o, "sessions", c->sessions);
        number(o, "sessions_lapsed", c->lapsed);
        number(o, "directories", c->directories);
        number(o, "last_token", c->last_token);
    }
    (void)json_object_set_new(o, "nodes", nodes);
    return print_json(o);
}

static void add_row(struct table *t, const struct node_row *row)
{
    const Hf__Status *s = row->status;
    char up[32];
    table_addf(t, "%" PRIu64, row->id);
    table_add(t, bytes_str(role_name(row->role)));
    table_add(t, bytes_str(row->address));
    if (s == NULL) {
        table_add(t, bytes_str("no answer"));
        for (int i = 0; i < 8; i++)
            table_add(t, bytes_str(""));
        return;
    }
    table_add(t, bytes_str(s->state));
    table_addf(t, "%" PRIu64, s->term);
    table_addf(t, "%" PRIu64, s->applied_index);
    table_addf(t, "%016" PRIx64, s->digest_hi ^ s->digest_lo);
    table_addf(t, "%" PRIu64, s->connections);
    table_addf(t, "%.1fms", (double)s->stall_max_us / 1000);
    table_addf(t, "%.1fms", (double)s->snapshot_stall_max_us / 1000);
    table_addf(t, "%.1fMiB", (double)s->resident_bytes / 1048576);
    table_add(t, bytes_str(text_of_duration(s->uptime_ms, up)));
}

static void print_status_text(const struct survey *s)
{
    static const char *const heading[] = {"NODE",  "ROLE",       "ADDRESS", "STATE",
                                          "TERM",  "INDEX",      "DIGEST",  "CONNECTIONS",
                                          "STALL", "(SNAPSHOT)", "MEMORY",  "UP"};
    const struct node_row *top = best(s);
    struct table t;
    table_init(&t, 12, heading);
    for (unsigned i = 0; i < s->n; i++)
        add_row(&t, &s->rows[i]);
    table_print(&t);
    table_deinit(&t);
    for (unsigned i = 0; i < s->n; i++)
        if (s->rows[i].status == NULL)
            (void)printf("%s: %s\n", s->rows[i].address, s->rows[i].error);
    if (top == NULL)
        return;
    if (top->status->leader_id != 0 && s->majority)
        (void)printf("leader: node %" PRIu64 ", term %" PRIu64 ", committed index %" PRIu64 "\n",
                     top->status->leader_id, top->status->term, top->status->commit_index);
    else
        (void)printf("leader: none; a majority of the voting nodes is needed\n");
    const Hf__Counts *c = top->status->counts;
    if (c != NULL)
        (void)printf("locks: %" PRIu64 " (%" PRIu64 " holds of at most %" PRIu64 ", %" PRIu64
                     " waiters), sessions: %" PRIu64 " (%" PRIu64 " run out), directories: %" PRIu64
                     ", last token: %" PRIu64 "\n",
                     c->locks, c->holds, c->holds_max, c->waiters, c->sessions, c->lapsed,
                     c->directories, c->last_token);
    if (digests_differ(s))
        (void)printf("ALARM: nodes at the same index have different digests\n");
}

int cli_status(struct cli *cli, int n, char **words)
{
    Hf__Query query = HF__QUERY__INIT;
    struct survey *s;
    (void)words;
    if (n != 0)
        return cli_fail(EXIT_USAGE, "status takes no words");
    int code = cli_connect(cli, false);
    if (code != EXIT_DONE)
        return code;
    s = xcalloc(1, sizeof *s);
    query.what = HF__QUERY__WHAT__MEMBERS;
    uint64_t end = cli->end_mono_ns;
    if (!cli->timeout_given) /* A cluster without a leader is worth a quick answer too. */
        cli->end_mono_ns = clock_mono_ns(clock_system()) + 3 * NS_PER_S;
    int status = cli_query(cli, &query, on_members, s);
    cli->end_mono_ns = end;
    if (cli_left_ms(cli) < NODE_ASK_MS)
        cli->end_mono_ns = clock_mono_ns(clock_system()) + NODE_ASK_MS * NS_PER_MS;
    if (status != 0 || s->n == 0)
        rows_of_addresses(s, cli->cluster);
    ask_all(cli, s);
    const struct node_row *top = best(s);
    if (top == NULL)
        code = cli_fail_status(cli, -ETIMEDOUT, "status", NULL);
    else if (cli->json)
        code = print_status_json(s);
    else
        print_status_text(s);
    if (top != NULL && code == EXIT_DONE && (!s->majority || top->status->leader_id == 0))
        code = EXIT_AWAY;
    for (unsigned i = 0; i < s->n; i++)
        if (s->rows[i].status != NULL)
            hf__status__free_unpacked(s->rows[i].status, NULL);
    free(s);
    return code;
}
