#include "tests/unit/lock_script.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftstore/base/buf.h"
#include "raftstore/lock/restore.h"

#define MS       UINT64_C(1000000)
#define SESSIONS 16

struct runner {
    struct lock_table *t;
    uint64_t index;
    uint64_t stamp_ms;
    uint64_t seq[SESSIONS];
    char words[512]; /* The line, cut up. */
};

static const struct {
    const char *word;
    enum lock_op op;
} ops[] = {
    {"open", LOCK_OP_SESSION_OPEN},   {"keepalive", LOCK_OP_SESSION_KEEPALIVE},
    {"close", LOCK_OP_SESSION_CLOSE}, {"acquire", LOCK_OP_ACQUIRE},
    {"cancel", LOCK_OP_CANCEL},       {"renew", LOCK_OP_RENEW},
    {"release", LOCK_OP_RELEASE},     {"convert", LOCK_OP_CONVERT},
    {"note", LOCK_OP_NOTE},           {"break", LOCK_OP_BREAK},
    {"mkdir", LOCK_OP_MKDIR},         {"rmdir", LOCK_OP_RMDIR},
    {"setattr", LOCK_OP_SETATTR},     {"link", LOCK_OP_LINK},
    {"rename", LOCK_OP_RENAME},       {"tick", LOCK_OP_TICK},
    {"term", LOCK_OP_TERM_START},     {"node", LOCK_OP_NODE_INFO},
    {"epoch", LOCK_OP_EPOCH},
};

static const char *const kinds[] = {"api", "excl", "mkdir", "symlink", "flock", "posix", "ofd"};

static const char *const effects[] = {"?",         "granted",   "queued",  "refused", "renewed",
                                      "converted", "ended",     "noted",   "renamed", "wanted",
                                      "mkdir",     "rmdir",     "setattr", "lapsed",  "s-ended",
                                      "resumed",   "delay-over"};

static uint64_t number(const char *s)
{
    if (strcmp(s, "inf") == 0)
        return UINT64_MAX;
    char *end;
    uint64_t n = strtoull(s, &end, 0);
    if (*end != '\0' && *end != '-')
        fail_msg("not a number: %s", s);
    return n;
}

static void set_paths(struct lock_command *c, char *word)
{
    char *save = NULL;
    c->n_paths = 0;
    for (char *p = strtok_r(word, ",", &save); p != NULL; p = strtok_r(NULL, ",", &save))
        c->paths[c->n_paths++] = bytes_str(strcmp(p, "/") == 0 ? "" : p);
}

static void set_range(struct lock_command *c, const char *value)
{
    c->start = number(value);
    const char *dash = strchr(value, '-');
    c->end = dash == NULL ? c->start : dash[1] == '\0' ? LOCK_RANGE_END : number(dash + 1);
}

static void set_kind(struct lock_command *c, const char *value)
{
    for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(kinds[i], value) == 0)
            c->kind = (enum lock_kind)i;
    }
}

static void set_value(struct lock_command *c, const char *name, const char *value)
{
    const struct {
        const char *name;
        uint64_t *to;
    } numbers[] = {
        {"ttl", &c->ttl_ms},
        {"wait", &c->wait_ms},
        {"token", &c->token},
        {"delay", &c->lock_delay_ms},
        {"agent", &c->agent},
        {"seq", &c->seq},
        {"ack", &c->ack_seq},
        {"cancel", &c->cancel_seq},
        {"epoch", &c->epoch},
        {"mtime", &c->mtime_ns},
        {"id", &c->node_id},
        {"holds", &c->limits.holds_max},
        {"waiters", &c->limits.waiters_max},
        {"sessions", &c->limits.sessions_max},
        {"dirs", &c->limits.directories_max},
        {"persession", &c->limits.holds_per_session_max},
    };
    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (strcmp(numbers[i].name, name) == 0) {
            *numbers[i].to = number(value);
            return;
        }
    }
    if (strcmp(name, "by") == 0)
        c->owner = bytes_str(value);
    else if (strcmp(name, "note") == 0)
        c->note = bytes_str(value);
    else if (strcmp(name, "host") == 0)
        c->host = bytes_str(value);
    else if (strcmp(name, "range") == 0)
        set_range(c, value);
    else if (strcmp(name, "kind") == 0)
        set_kind(c, value);
    else if (strcmp(name, "uid") == 0)
        c->uid = (uint32_t)number(value);
    else if (strcmp(name, "perm") == 0)
        c->perm = (uint32_t)number(value);
    else if (strcmp(name, "limit") == 0)
        c->limit = (uint32_t)number(value);
    else
        fail_msg("what is %s=?", name);
}

static void set_word(struct runner *r, struct lock_command *c, char *word)
{
    char *equals = strchr(word, '=');
    if (word[0] == '@') {
        r->stamp_ms = number(word + 1);
    } else if (equals != NULL) {
        *equals = '\0';
        set_value(c, word, equals + 1);
    } else if (strcmp(word, "X") == 0 || strcmp(word, "S") == 0) {
        c->mode = word[0] == 'X' ? LOCK_EXCLUSIVE : LOCK_SHARED;
    } else if (strcmp(word, "parents") == 0) {
        c->flags |= LOCK_F_PARENTS;
    } else if (strcmp(word, "untouched") == 0) {
        c->flags |= LOCK_F_UNTOUCHED;
    } else if (strcmp(word, "no_less") == 0) {
        c->flags |= LOCK_F_NO_LESS;
    } else if (strcmp(word, "his") == 0) {
        c->flags |= LOCK_F_OWNER;
    } else if (strcmp(word, "anywhere") == 0) {
        c->flags |= LOCK_F_ANYWHERE;
    } else if (word[0] == 's' && word[1] >= '0' && word[1] <= '9' && c->op == 0) {
        c->session_id = number(word + 1);
    } else if (c->op != 0) {
        set_paths(c, word);
    } else {
        for (unsigned i = 0; i < sizeof ops / sizeof ops[0]; i++) {
            if (strcmp(ops[i].word, word) == 0)
                c->op = ops[i].op;
        }
        if (c->op == 0)
            fail_msg("no such op: %s", word);
    }
}

static void parse(struct runner *r, const char *line, struct lock_command *c)
{
    char *save = NULL;
    *c = (struct lock_command){.end = LOCK_RANGE_END, .seq = UINT64_MAX};
    (void)snprintf(r->words, sizeof r->words, "%s", line);
    for (char *w = strtok_r(r->words, " ", &save); w != NULL; w = strtok_r(NULL, " ", &save))
        set_word(r, c, w);
    c->stamp_ns = r->stamp_ms * MS;
    if (c->seq == UINT64_MAX)
        c->seq = c->session_id < SESSIONS ? ++r->seq[c->session_id] : 1;
}

static void put_bytes(struct buf *b, const char *before, struct bytes x)
{
    buf_printf(b, "%s%.*s", before, (int)x.size, x.size > 0 ? (const char *)x.data : "");
}

static void put_range(struct buf *b, uint64_t start, uint64_t end)
{
    if (end != LOCK_RANGE_END)
        buf_printf(b, "[%" PRIu64 "-%" PRIu64 "]", start, end);
    else if (start != 0)
        buf_printf(b, "[%" PRIu64 "-]", start);
}

static void put_result(struct buf *b, const struct lock_result *r)
{
    buf_printf(b, "%s", lock_code_name(r->code));
    if (r->session_id != 0)
        buf_printf(b, " s%" PRIu64, r->session_id);
    if (r->token != 0)
        buf_printf(b, " #%" PRIu64, r->token);
    if (r->deadline_ns != 0)
        buf_printf(b, " d%" PRIu64, r->deadline_ns / MS);
    if (r->holder.size > 0)
        put_bytes(b, " holder=", r->holder);
    if (r->repeated)
        buf_printf(b, " again@%" PRIu64, r->stamp_ns / MS);
}

static void put_effect(struct buf *b, const struct lock_effect *e)
{
    buf_printf(b, "%s", effects[e->type]);
    if (e->path.size == 0 && e->owner.size == 0 && e->session_id != 0 &&
        e->type != LOCK_EFFECT_SETATTR) {
        buf_printf(b, " s%" PRIu64, e->session_id);
        return;
    }
    put_bytes(b, " ", e->path);
    if (e->path2.size > 0)
        put_bytes(b, "->", e->path2);
    if (e->owner.size > 0)
        put_bytes(b, " ", e->owner);
    if (e->limit != 0)
        buf_printf(b, " K%u", e->limit);
    else if (e->mode != 0)
        buf_printf(b, " %s", e->mode == LOCK_EXCLUSIVE ? "X" : "S");
    if (e->token != 0)
        buf_printf(b, "#%" PRIu64, e->token);
    if (e->mode != 0)
        put_range(b, e->start, e->end);
    if (e->code != LOCK_OK)
        buf_printf(b, " %s", lock_code_name(e->code));
    if (e->waited && e->code == LOCK_OK)
        buf_printf(b, " s%" PRIu64 "/%" PRIu64, e->session_id, e->seq);
}

static char *answer(const struct lock_effects *e)
{
    struct buf b = BUF_INIT;
    put_result(&b, &e->result);
    for (size_t i = 0; i < e->n; i++) {
        buf_printf(&b, "%s", i == 0 ? " | " : "; ");
        put_effect(&b, &e->list[i]);
    }
    buf_add(&b, "", 1);
    return (char *)b.data;
}

static int import_row(void *arg, const struct lock_row *row)
{
    return lock_import_row(arg, row);
}

struct lock_table *script_reimport(struct lock_table *t)
{
    struct lock_table *fresh = lock_table_new();
    struct lock_digest before = lock_digest(t);
    assert_int_equal(lock_export(t, import_row, fresh), 0);
    assert_int_equal(lock_import_finish(fresh), 0);
    struct lock_digest after = lock_digest(fresh);
    assert_true(before.lo == after.lo && before.hi == after.hi);
    assert_true(lock_next_deadline_ns(t) == lock_next_deadline_ns(fresh));
    lock_table_free(t);
    return fresh;
}

static void run_line(struct runner *r, const struct script_line *line)
{
    struct lock_command c;
    struct lock_effects e;
    parse(r, line->command, &c);
    lock_step(r->t, ++r->index, &c, &e);
    char *got = answer(&e);
    if (line->want == NULL)
        print_message("        {\"%s\",\n         \"%s\"},\n", line->command, got);
    else if (strcmp(got, line->want) != 0)
        fail_msg("%s\n  want: %s\n  got:  %s", line->command, line->want, got);
    const char *why = lock_check(r->t);
    if (why != NULL)
        fail_msg("%s\n  lock_check: %s", line->command, why);
    free(got);
}

void script_run(const struct script_line *lines, size_t n_lines)
{
    for (int reimport = 0; reimport < 2; reimport++) {
        struct runner r = {.t = lock_table_new()};
        for (size_t i = 0; i < n_lines; i++) {
            if (reimport)
                r.t = script_reimport(r.t);
            run_line(&r, &lines[i]);
        }
        lock_table_free(r.t);
    }
}
