/* member ..., leader transfer: the nodes of the cluster.
 *
 * A change of membership is answered when it is done; if the answer is lost, or the leader changes
 * under it, the member list says whether it was, and it is asked for again until --timeout. */
#include "cli.h"

#include "raftstore/base/address.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define MEMBERS_MAX       32
#define SETTLE_MS         100
#define RETRY_MS          300
#define HEARD_MS          1000 /* Heard of so lately: it is there. */
#define HEARD_POLL_MS     100
#define HEARD_TRIES       100
#define SILENT_MS         3000  /* Not heard of for so long: taken for dead by `replace`. */
#define MOMENT_MS         200   /* For so long: it may be dead. */
#define HEARD_LOOKS       4     /* More than a moment. */
#define MEMBER_TIMEOUT_MS 60000 /* New nodes have to catch up. */

struct member {
    uint64_t id;
    int role; /* Hf__Member__Role; -1 = no member. */
    char raft[300], client[300];
    uint64_t match_index, silent_ms;
};

struct members {
    struct member list[MEMBERS_MAX];
    unsigned n;
    uint64_t leader_id;
};

static const char *role_name(int role)
{
    return role == HF__MEMBER__ROLE__VOTER     ? "voter"
           : role == HF__MEMBER__ROLE__STANDBY ? "standby"
                                               : "spare";
}

static void on_members(void *arg, const struct client_reply *reply)
{
    struct members *all = arg;
    for (size_t i = 0; reply->query != NULL && i < reply->query->n_members; i++) {
        const Hf__Member *m = reply->query->members[i];
        if (all->n == MEMBERS_MAX)
            break;
        struct member *out = &all->list[all->n++];
        out->id = m->node_id;
        out->role = (int)m->role;
        out->match_index = m->match_index;
        out->silent_ms = m->silent_ms;
        (void)snprintf(out->raft, sizeof out->raft, "%s", m->raft_address);
        (void)snprintf(out->client, sizeof out->client, "%s", m->client_address);
    }
}

static int get_members(struct cli *cli, struct members *ret_members)
{
    Hf__Query query = HF__QUERY__INIT;
    query.what = HF__QUERY__WHAT__MEMBERS;
    *ret_members = (struct members){0};
    int status = cli_query(cli, &query, on_members, ret_members);
    ret_members->leader_id = client_info(cli->client).leader_id;
    return status;
}

static struct member find(const struct members *all, uint64_t id)
{
    for (unsigned i = 0; i < all->n; i++)
        if (all->list[i].id == id)
            return all->list[i];
    return (struct member){.role = -1};
}

/* ---- One change ------------------------------------------------------------------------ */

/* Is what was asked for so already? */
static bool reached(const struct members *all, const Hf__Admin *admin)
{
    struct member m = find(all, admin->node_id);
    switch (admin->what) {
    case HF__ADMIN__WHAT__MEMBER_ADD:
        return m.role != -1 && strcmp(m.raft, admin->raft_address) == 0 &&
               strcmp(m.client, admin->client_address) == 0;
    case HF__ADMIN__WHAT__MEMBER_PROMOTE:
        return m.role == HF__MEMBER__ROLE__VOTER;
    case HF__ADMIN__WHAT__MEMBER_DEMOTE:
        return m.role != -1 && m.role != HF__MEMBER__ROLE__VOTER;
    case HF__ADMIN__WHAT__MEMBER_REMOVE:
        return m.role == -1;
    case HF__ADMIN__WHAT__TRANSFER:
        return admin->node_id != 0 && all->leader_id == admin->node_id;
    default:
        return false;
    }
}

/* A promotion needs nodes that answer; a busy one may be silent for a moment. */
static bool
may_answer_yet(const struct cli *cli, const Hf__Admin *admin, const char *text, uint64_t began)
{
    return admin->what == HF__ADMIN__WHAT__MEMBER_PROMOTE &&
           strstr(text, "does not answer") != NULL && began - cli_left_ms(cli) < SILENT_MS;
}

/* Ask for a change until it is done, refused, or time is up. */
static int change(struct cli *cli, const Hf__Admin *admin, const char *what)
{
    char text[300] = "";
    uint64_t began = cli_left_ms(cli);
    for (;;) {
        struct members all;
        int status = cli_admin(cli, admin, NULL, NULL, text, sizeof text);
        if (status == 0)
            return EXIT_DONE;
        bool unclear = status == -ECONNRESET || status == -ETIMEDOUT || status == -EBUSY ||
                       may_answer_yet(cli, admin, text, began);
        if (!unclear || cli_left_ms(cli) == 0)
            return cli_fail_status(cli, status, what, text);
        if (get_members(cli, &all) == 0 && reached(&all, admin))
            return EXIT_DONE;
        cli_sleep(cli, RETRY_MS);
        if (cli->interrupted)
            return cli_fail_status(cli, -EINTR, what, "");
    }
}

static int change_node(struct cli *cli, Hf__Admin__What what, uint64_t id, const char *sentence)
{
    Hf__Admin admin = HF__ADMIN__INIT;
    admin.what = what;
    admin.node_id = id;
    return change(cli, &admin, sentence);
}

/* A node that was added a moment ago has not answered the leader yet, and its promotion would be
 * refused: give it the time. */
static void wait_until_heard(struct cli *cli, uint64_t id)
{
    struct members all;
    for (unsigned i = 0; i < HEARD_TRIES && cli_left_ms(cli) > RETRY_MS; i++) {
        struct member m;
        if (get_members(cli, &all) != 0)
            return;
        m = find(&all, id);
        if (m.role == -1 || m.role == HF__MEMBER__ROLE__VOTER ||
            (m.match_index > 0 && m.silent_ms < HEARD_MS))
            return;
        cli_sleep(cli, HEARD_POLL_MS);
    }
}

static int promote_node(struct cli *cli, uint64_t id)
{
    wait_until_heard(cli, id);
    return change_node(cli, HF__ADMIN__WHAT__MEMBER_PROMOTE, id, "member promote");
}

static int add_node(struct cli *cli, const struct member *m)
{
    Hf__Admin admin = HF__ADMIN__INIT;
    admin.what = HF__ADMIN__WHAT__MEMBER_ADD;
    admin.node_id = m->id;
    admin.raft_address = (char *)(uintptr_t)m->raft;
    admin.client_address = (char *)(uintptr_t)m->client;
    return change(cli, &admin, "member add");
}

/* ---- Words ----------------------------------------------------------------------------- */

static int parse_id(const char *word, uint64_t *ret_id)
{
    if (text_number(word, ret_id) < 0 || *ret_id == 0)
        return cli_fail(EXIT_USAGE, "'%s' is no node id: a number above 0", word);
    return EXIT_DONE;
}

static int parse_address(const char *word, char out[300])
{
    struct address a;
    if (address_parse(word, &a) < 0 || a.is_unix || a.port == 0)
        return cli_fail(EXIT_USAGE, "'%s' is no address: HOST:PORT or [IPV6]:PORT", word);
    (void)address_format(&a, out, 300);
    return EXIT_DONE;
}

/* "ID=RAFTHOST:PORT,CLIENTHOST:PORT", or the same as three words. */
static int parse_member(int n, char **words, struct member *ret_member)
{
    char *copy = xstrdup(words[0]);
    char *raft = NULL, *client = NULL, *equals = strchr(copy, '=');
    int code = EXIT_DONE;
    if (n == 1 && equals != NULL) {
        *equals = '\0';
        raft = equals + 1;
        client = strchr(raft, ',');
        if (client != NULL)
            *client++ = '\0';
    } else if (n == 3 && equals == NULL) {
        raft = words[1];
        client = words[2];
    }
    if (raft == NULL || client == NULL)
        code = cli_fail(EXIT_USAGE, "a member is ID=RAFTHOST:PORT,CLIENTHOST:PORT");
    if (code == EXIT_DONE)
        code = parse_id(copy, &ret_member->id);
    if (code == EXIT_DONE)
        code = parse_address(raft, ret_member->raft);
    if (code == EXIT_DONE)
        code = parse_address(client, ret_member->client);
    free(copy);
    return code;
}

/* ---- The subcommands ------------------------------------------------------------------- */

static int print_members(struct cli *cli)
{
    static const char *const heading[] = {"NODE",   "ROLE",   "LEADER", "RAFT",
                                          "CLIENT", "STORED", "SILENT"};
    struct members all;
    int status = get_members(cli, &all);
    if (status != 0)
        return cli_fail_status(cli, status, "member list", NULL);
    if (cli->json) {
        json_t *list = json_array();
        for (unsigned i = 0; i < all.n; i++)
            (void)json_array_append_new(
                list, json_pack("{s:I, s:s, s:b, s:s, s:s, s:I, s:I}", "id",
                                (json_int_t)all.list[i].id, "role", role_name(all.list[i].role),
                                "leader", (int)(all.list[i].id == all.leader_id), "raft_address",
                                all.list[i].raft, "client_address", all.list[i].client,
                                "match_index", (json_int_t)all.list[i].match_index, "silent_ms",
                                (json_int_t)all.list[i].silent_ms));
        return print_json(
            json_pack("{s:I, s:o}", "leader", (json_int_t)all.leader_id, "members", list));
    }
    struct table t;
    table_init(&t, 7, heading);
    for (unsigned i = 0; i < all.n; i++) {
        const struct member *m = &all.list[i];
        char silent[32];
        table_addf(&t, "%" PRIu64, m->id);
        table_add(&t, bytes_str(role_name(m->role)));
        table_add(&t, bytes_str(m->id == all.leader_id ? "leader" : ""));
        table_add(&t, bytes_str(m->raft));
        table_add(&t, bytes_str(m->client));
        table_addf(&t, "%" PRIu64, m->match_index);
        table_add(&t, bytes_str(m->silent_ms > 0 ? text_of_duration(m->silent_ms, silent) : ""));
    }
    table_print(&t);
    table_deinit(&t);
    return EXIT_DONE;
}

/* Remove a node; if it leads, leadership goes first. */
static int remove_node(struct cli *cli, uint64_t id)
{
    struct members all;
    if (get_members(cli, &all) == 0 && all.leader_id == id && all.n > 1) {
        int code = change_node(cli, HF__ADMIN__WHAT__TRANSFER, 0, "leader transfer");
        if (code != EXIT_DONE)
            return code;
        cli_sleep(cli, SETTLE_MS); /* The old leader may not have heard of the new one. */
    }
    return change_node(cli, HF__ADMIN__WHAT__MEMBER_REMOVE, id, "member remove");
}

/* Wait until nothing was heard of a node for so long that it is taken for dead.
 *
 * Return: false when it still speaks. */
static bool wait_until_silent(struct cli *cli, uint64_t id)
{
    struct members all;
    for (unsigned i = 0; i < HEARD_TRIES && cli_left_ms(cli) > RETRY_MS; i++) {
        if (get_members(cli, &all) == 0 && id != all.leader_id &&
            find(&all, id).silent_ms > SILENT_MS)
            return true;
        cli_sleep(cli, HEARD_POLL_MS);
    }
    return false;
}

/* Is the node dead?  It is when it stays silent; it lives when it was heard of lately, again and
 * again: a new leader counts the silence from its election. */
static bool is_dead(struct cli *cli, uint64_t id)
{
    struct members all;
    for (unsigned n_heard = 0; n_heard < HEARD_LOOKS && cli_left_ms(cli) > RETRY_MS;) {
        if (get_members(cli, &all) == 0) {
            uint64_t silent_ms = id == all.leader_id ? 0 : find(&all, id).silent_ms;
            if (silent_ms > SILENT_MS)
                return true;
            n_heard = silent_ms <= MOMENT_MS ? n_heard + 1 : 0;
        }
        cli_sleep(cli, HEARD_POLL_MS);
    }
    return false;
}

/* The new node is where the old one was: two members can't have one address, so the old one must
 * go first.  It is dead, or the new one could not be there. */
static int replace_in_place(struct cli *cli, uint64_t old_id, const struct member *fresh)
{
    if (!wait_until_silent(cli, old_id))
        return cli_fail(EXIT_REFUSED,
                        "member replace: node %" PRIu64 " still speaks at the address of the new "
                        "one: stop it first",
                        old_id);
    int code = remove_node(cli, old_id);
    if (code == EXIT_DONE)
        code = add_node(cli, fresh);
    return code == EXIT_DONE ? promote_node(cli, fresh->id) : code;
}

/* Replace a node by a new one.
 *
 * The new one first catches up as a standby, which risks nothing.  If the old one is dead it is
 * removed before the promotion: with it still counted, the promotion would raise the majority to
 * a number that only just lives (3 of 4), and a failure of the new node would stop the cluster
 * (the leader refuses it).
 * If the old one lives, the promotion comes first: at no time are there fewer voters than before.
 */
static int replace_node(struct cli *cli, uint64_t old_id, const struct member *fresh)
{
    struct members all;
    int status = get_members(cli, &all);
    if (status != 0)
        return cli_fail_status(cli, status, "member replace", NULL);
    struct member old = find(&all, old_id);
    bool added = find(&all, fresh->id).role != -1;
    if (old.role == -1 && !added)
        return cli_fail(EXIT_REFUSED, "member replace: there is no node %" PRIu64, old_id);
    if (old.role == HF__MEMBER__ROLE__VOTER && !added && strcmp(old.raft, fresh->raft) == 0)
        return replace_in_place(cli, old_id, fresh);
    int code = added ? EXIT_DONE : add_node(cli, fresh);
    bool dead = code == EXIT_DONE && old.role != -1 && is_dead(cli, old_id);
    if (code == EXIT_DONE && dead)
        code = remove_node(cli, old_id);
    if (code == EXIT_DONE && (old.role == -1 || old.role == HF__MEMBER__ROLE__VOTER))
        code = promote_node(cli, fresh->id);
    if (code == EXIT_DONE && old.role != -1 && !dead)
        code = remove_node(cli, old_id);
    return code;
}

static int do_replace(struct cli *cli, int n, char **words)
{
    struct member fresh = {0};
    uint64_t old_id = 0;
    if (n != 2 && n != 4)
        return cli_fail(EXIT_USAGE, "member replace OLDID NEWID=RAFTHOST:PORT,CLIENTHOST:PORT");
    int code = parse_id(words[0], &old_id);
    if (code == EXIT_DONE)
        code = parse_member(n - 1, words + 1, &fresh);
    if (code == EXIT_DONE && fresh.id == old_id)
        code = cli_fail(EXIT_USAGE, "the new node needs a new id: %" PRIu64 " has voted before",
                        old_id);
    if (code == EXIT_DONE)
        code = cli_connect(cli, false);
    return code == EXIT_DONE ? replace_node(cli, old_id, &fresh) : code;
}

static int do_add(struct cli *cli, int n, char **words)
{
    struct member fresh = {0};
    if (n != 1 && n != 3)
        return cli_fail(EXIT_USAGE, "member add ID=RAFTHOST:PORT,CLIENTHOST:PORT");
    int code = parse_member(n, words, &fresh);
    if (code == EXIT_DONE)
        code = cli_connect(cli, false);
    return code == EXIT_DONE ? add_node(cli, &fresh) : code;
}

static int do_one(struct cli *cli, const char *verb, int n, char **words)
{
    uint64_t id = 0;
    if (n != 1)
        return cli_fail(EXIT_USAGE, "member %s takes a node's id", verb);
    int code = parse_id(words[0], &id);
    if (code == EXIT_DONE)
        code = cli_connect(cli, false);
    if (code != EXIT_DONE)
        return code;
    if (strcmp(verb, "promote") == 0)
        return promote_node(cli, id);
    if (strcmp(verb, "demote") == 0)
        return change_node(cli, HF__ADMIN__WHAT__MEMBER_DEMOTE, id, "member demote");
    return remove_node(cli, id);
}

int cli_member(struct cli *cli, int n, char **words)
{
    int code;
    if (n == 0)
        return cli_fail(EXIT_USAGE, "member list, add, promote, demote, remove or replace");
    const char *verb = words[0];
    if (!cli->timeout_given)
        cli->timeout_ms = MEMBER_TIMEOUT_MS;
    if (strcmp(verb, "list") == 0 && n == 1) {
        if (!cli->timeout_given)
            cli->timeout_ms = 10000;
        code = cli_connect(cli, false);
        return code == EXIT_DONE ? print_members(cli) : code;
    }
    if (strcmp(verb, "add") == 0)
        code = do_add(cli, n - 1, words + 1);
    else if (strcmp(verb, "replace") == 0)
        code = do_replace(cli, n - 1, words + 1);
    else if (strcmp(verb, "promote") == 0 || strcmp(verb, "demote") == 0 ||
             strcmp(verb, "remove") == 0)
        code = do_one(cli, verb, n - 1, words + 1);
    else
        return cli_fail(EXIT_USAGE,
                        "member %s: the verbs are list, add, promote, demote, remove, replace",
                        verb);
    return code == EXIT_DONE && cli->json ? print_members(cli) : code;
}

int cli_leader(struct cli *cli, int n, char **words)
{
    uint64_t id = 0;
    if (n < 1 || n > 2 || strcmp(words[0], "transfer") != 0)
        return cli_fail(EXIT_USAGE, "leader transfer [ID]");
    if (n == 2 && text_number(words[1], &id) < 0)
        return cli_fail(EXIT_USAGE, "'%s' is no node id", words[1]);
    int code = cli_connect(cli, false);
    if (code == EXIT_DONE)
        code = change_node(cli, HF__ADMIN__WHAT__TRANSFER, id, "leader transfer");
    if (code != EXIT_DONE || !cli->json)
        return code;
    return print_json(json_pack("{s:I, s:b}", "to", (json_int_t)id, "transferred", 1));
}
