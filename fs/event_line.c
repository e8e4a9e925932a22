#include "fs/event_line.h"

#include "raftstore/base/fields.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <inttypes.h>

static const char *const names[] = {
    [WIRE_EFFECT_GRANTED] = "granted",
    [WIRE_EFFECT_QUEUED] = "waiting",
    [WIRE_EFFECT_REFUSED] = "refused",
    [WIRE_EFFECT_RENEWED] = "renewed",
    [WIRE_EFFECT_CONVERTED] = "converted",
    [WIRE_EFFECT_NOTED] = "noted",
    [WIRE_EFFECT_RENAMED] = "renamed",
    [WIRE_EFFECT_WANTED] = "wanted",
    [WIRE_EFFECT_MKDIR] = "mkdir",
    [WIRE_EFFECT_RMDIR] = "rmdir",
    [WIRE_EFFECT_SETATTR] = "setattr",
    [WIRE_EFFECT_SESSION_LAPSED] = "session-lapsed",
    [WIRE_EFFECT_SESSION_ENDED] = "session-ended",
    [WIRE_EFFECT_SESSION_RESUMED] = "session-resumed",
    [WIRE_EFFECT_DELAY_OVER] = "delay-over",
};

/* A hold ends in many ways; the two that people look for have words of their own. */
static const char *name_of(const Hf__Event *e)
{
    if (e->type == WIRE_EFFECT_ENDED)
        return e->code == WIRE_CODE_RELEASED  ? "released"
               : e->code == WIRE_CODE_EXPIRED ? "expired"
                                              : "ended";
    const char *name = e->type < sizeof names / sizeof names[0] ? names[e->type] : NULL;
    return name != NULL ? name : "other";
}

/* Does it concern a hold, or the wish for one? */
static bool about_hold(const Hf__Event *e)
{
    return e->type >= WIRE_EFFECT_GRANTED && e->type <= WIRE_EFFECT_WANTED;
}

static void add_hold(const Hf__Event *e, struct buf *out)
{
    uint64_t end = UINT64_MAX - e->end_inverted;
    field_bytes(out, "owner", pack_bytes(e->owner));
    if (e->token != 0)
        field_u64(out, "token", e->token);
    field_text(out, "mode", wire_mode_name(e->mode));
    field_text(out, "kind", wire_kind_name(e->kind));
    if (e->limit != 0)
        field_u64(out, "limit", e->limit);
    if (e->start != 0 || end != UINT64_MAX)
        buf_printf(out, " range=%" PRIu64 "-%" PRIu64, e->start, end);
    if (e->ttl_ms != 0)
        field_u64(out, "ttl_ms", e->ttl_ms);
    if (e->waited)
        field_bool(out, "waited", true);
}

void event_line(const Hf__Event *e, struct buf *out)
{
    field_time(out, "time", e->wall_ms);
    field_text(out, "event", name_of(e));
    if (e->path.len > 0)
        field_bytes(out, "path", pack_bytes(e->path));
    if (e->path2.len > 0)
        field_bytes(out, "path2", pack_bytes(e->path2));
    if (about_hold(e))
        add_hold(e, out);
    if (e->code != WIRE_CODE_OK)
        field_text(out, "code", wire_code_name(e->code));
    if (e->session_id != 0)
        field_u64(out, "session", e->session_id);
    if (about_hold(e)) {
        field_u64(out, "pid", e->pid);
        field_u64(out, "uid", e->uid);
    }
    field_u64(out, "index", e->index);
    field_text(out, "from", "cluster");
    field_end(out);
}
