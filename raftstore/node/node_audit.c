#include "raftstore/node/node_audit.h"

#include "raftstore/wire/codes.h"

#include <stdlib.h>

#define ALL_OF_ENTRY UINT32_MAX /* As a position's n. */

void node_audit_init(struct node_audit *na,
                     struct audit *audit,
                     uint64_t node_id,
                     const struct audit_position *last,
                     uint64_t last_index)
{
    *na = (struct node_audit){.audit = audit, .node_id = node_id, .told = *last};
    if (last->index == 0)
        na->told = (struct audit_position){.index = last_index, .n = ALL_OF_ENTRY};
}

static void waiting_remove(struct node_audit *na, struct node_waiting *w)
{
    HASH_DEL(na->waiting, w);
    free(w);
}

void node_audit_deinit(struct node_audit *na)
{
    struct node_waiting *w, *next;
    HASH_ITER(hh, na->waiting, w, next)
    waiting_remove(na, w);
}

void node_audit_asked(struct node_audit *na, const struct listener *l, uint64_t request_id)
{
    if (na->audit == NULL)
        return;
    na->has_asker = true;
    listener_asker(l, request_id, &na->asker);
}

/* ---- Who waits ------------------------------------------------------------------------- */

static struct node_waiting *waiting_find(struct node_audit *na, const struct lock_effect *f)
{
    struct node_waiting *w = NULL, key = {.key = {f->session_id, f->seq}};
    if (na->waiting != NULL && f->seq != 0)
        HASH_FIND(hh, na->waiting, &key.key, sizeof key.key, w);
    return w;
}

static void waiting_add(struct node_audit *na, const struct lock_effect *f)
{
    if (!na->has_asker || f->seq == 0 || HASH_COUNT(na->waiting) >= NODE_AUDIT_WAITING_MAX ||
        waiting_find(na, f) != NULL)
        return;
    struct node_waiting *w = xcalloc(1, sizeof *w);
    w->key.session_id = f->session_id;
    w->key.seq = f->seq;
    w->asker = na->asker;
    HASH_ADD(hh, na->waiting, key, sizeof w->key, w);
}

/* ---- Lines ----------------------------------------------------------------------------- */

/* The next thing of an entry that is told.  Return: NULL: not by us, or not again. */
static struct buf *begin(struct node_audit *na, const char *event)
{
    uint64_t n = na->n++;
    bool ours = na->author_id == na->node_id || (na->author_id == 0 && na->term == na->told.term);
    if (!ours || na->index < na->told.index || (na->index == na->told.index && n <= na->told.n))
        return NULL;
    na->told = (struct audit_position){na->index, n, na->term};
    struct buf *line = audit_begin(na->audit, event);
    audit_text(line, "by", "node");
    audit_u64(line, "node", na->node_id);
    return line;
}

static void end(struct node_audit *na, struct buf *line, const struct listener_asker *asker)
{
    if (asker != NULL)
        listener_add_asker(line, asker);
    field_u64(line, "index", na->told.index);
    field_u64(line, "n", na->told.n);
    field_u64(line, "term", na->told.term);
    audit_end(na->audit);
}

static int hex_digit(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* A gateway's owner text is http/SUBJECT/OWNER_ID, each with %XX for what is no plain sign
 * (gateway/owner.h).  Only a gateway's word for the subject is taken. */
static void add_subject(struct buf *line, struct bytes owner, const struct listener_asker *asker)
{
    static const char prefix[] = "http/";
    const uint8_t *p = owner.data;
    size_t at = sizeof prefix - 1;
    struct buf subject = BUF_INIT;
    if (asker == NULL || (asker->kind != IDENTITY_GATEWAY && asker->kind != IDENTITY_NONE) ||
        owner.size < at || memcmp(p, prefix, at) != 0)
        return;
    for (; at < owner.size && p[at] != '/'; at++) {
        uint8_t c = p[at];
        if (c == '%' && at + 2 < owner.size && hex_digit(p[at + 1]) >= 0 &&
            hex_digit(p[at + 2]) >= 0) {
            c = (uint8_t)(hex_digit(p[at + 1]) << 4 | hex_digit(p[at + 2]));
            at += 2;
        }
        buf_add(&subject, &c, 1);
    }
    audit_bytes(line, "subject", bytes_of(subject.data, subject.size));
    buf_deinit(&subject);
}

static const char *mode_name(const struct lock_effect *f)
{
    return f->limit != 0 ? "semaphore" : f->mode == LOCK_SHARED ? "shared" : "exclusive";
}

static void add_hold(struct buf *line, const struct lock_effect *f)
{
    audit_bytes(line, "path", f->path);
    audit_bytes(line, "path2", f->path2);
    audit_bytes(line, "owner", f->owner);
    audit_u64(line, "token", f->token);
    audit_text(line, "mode", mode_name(f));
    audit_u64(line, "limit", f->limit);
}

static void tell_grant(struct node_audit *na, const struct lock_effect *f)
{
    struct node_waiting *w = f->waited ? waiting_find(na, f) : NULL;
    const struct listener_asker *asker = w != NULL                     ? &w->asker
                                         : na->has_asker && !f->waited ? &na->asker
                                                                       : NULL;
    struct buf *line = begin(na, "grant");
    if (line == NULL)
        return;
    add_hold(line, f);
    if (f->type == LOCK_EFFECT_CONVERTED)
        field_bool(line, "converted", true);
    if (f->waited)
        field_bool(line, "waited", true);
    audit_u64(line, "ttl_ms", f->ttl_ms);
    field_u64(line, "session", f->session_id);
    audit_u64(line, "pid", f->pid);
    if (f->pid != 0)
        field_u64(line, "uid", f->uid);
    add_subject(line, f->owner, asker);
    end(na, line, asker);
}

static void tell(struct node_audit *na, const char *event, const struct lock_effect *f)
{
    const struct listener_asker *asker = na->has_asker ? &na->asker : NULL;
    struct buf *line = begin(na, event);
    if (line == NULL)
        return;
    add_hold(line, f);
    add_subject(line, f->owner, asker);
    end(na, line, asker);
}

static void on_effect(struct node_audit *na, const struct lock_effect *f)
{
    struct node_waiting *w;
    switch (f->type) {
    case LOCK_EFFECT_GRANTED:
    case LOCK_EFFECT_CONVERTED:
        tell_grant(na, f);
        break;
    case LOCK_EFFECT_QUEUED:
        waiting_add(na, f);
        return;
    case LOCK_EFFECT_ENDED:
        if (f->code == LOCK_BROKEN)
            tell(na, "break", f);
        return;
    case LOCK_EFFECT_RENAMED:
        tell(na, "rename", f);
        return;
    case LOCK_EFFECT_REFUSED:
        break;
    default:
        return;
    }
    w = f->waited ? waiting_find(na, f) : NULL;
    if (w != NULL)
        waiting_remove(na, w);
}

/* Somebody named a hold that is not his, by its owner or its token.  What a client library undoes
 * is no attempt of anybody's: it asks for it only as long as nobody touched the hold. */
static void on_refused(struct node_audit *na, const struct lock_command *command)
{
    if ((command->flags & LOCK_F_UNTOUCHED) != 0)
        return;
    struct buf *line = begin(na, "denied");
    if (line == NULL)
        return;
    audit_text(line, "what", wire_op_name(command->op));
    audit_bytes(line, "path", command->n_paths > 0 ? command->paths[0] : bytes_of(NULL, 0));
    audit_bytes(line, "owner", command->owner);
    audit_u64(line, "token", command->token);
    add_subject(line, command->owner, na->has_asker ? &na->asker : NULL);
    audit_text(line, "reason", "there is a hold, but not of this owner or token");
    end(na, line, na->has_asker ? &na->asker : NULL);
}

void node_audit_effects(struct node_audit *na,
                        uint64_t index,
                        uint64_t term,
                        const struct lock_command *command,
                        const struct lock_effects *effects)
{
    if (na->audit == NULL)
        return;
    if (command->op == LOCK_OP_TERM_START)
        na->author_id = command->node_id;
    na->term = term;
    if (index != na->index) {
        na->index = index;
        na->n = 0;
    }
    for (size_t i = 0; i < effects->n; i++)
        on_effect(na, &effects->list[i]);
    if (effects->result.code == LOCK_NOT_OWNER && !effects->result.repeated)
        on_refused(na, command);
    na->has_asker = false;
}

void node_audit_mark(struct node_audit *na, const char *event)
{
    if (na->audit == NULL)
        return;
    struct buf *line = audit_begin(na->audit, event);
    audit_text(line, "by", "node");
    audit_u64(line, "node", na->node_id);
    end(na, line, NULL);
}

void node_audit_policy(struct node_audit *na, const char *what, const char *file, const char *why)
{
    if (na->audit == NULL)
        return;
    struct buf *line = audit_begin(na->audit, "policy");
    audit_text(line, "by", "node");
    audit_u64(line, "node", na->node_id);
    audit_text(line, "what", what);
    audit_text(line, "file", file);
    audit_text(line, "reason", why);
    audit_end(na->audit);
}
