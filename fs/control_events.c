/* The event file.
 *
 * While somebody has it open, the mount follows everything in the cluster, and each event becomes a
 * line of the log (event_log.h), as does what the mount itself knows of its session and its holds.
 * The log begins when the file is opened, and ends a little after the last close: a script that
 * reads it again and again misses nothing.  st_size is the end of the log and only grows in
 * between, which is what tail -f looks at; poll(2) wakes at once. */
#include "fs/control_internal.h"

#include "fs/event_line.h"
#include "fs/locker.h"
#include "raftstore/base/fields.h"

#include <poll.h>
#include <stdlib.h>

#define LINGER_MS 5000u

static struct control *of_follower(struct follower *f)
{
    return (struct control *)((char *)f - offsetof(struct control, events.follower));
}

/* ---- Lines ------------------------------------------------------------------------------ */

static void wake(struct control_handle *h)
{
    if (h->poll == NULL)
        return;
    (void)fuse_lowlevel_notify_poll(h->poll); /* Fails only when the mount is gone. */
    fuse_pollhandle_destroy(h->poll);
    h->poll = NULL; /* The kernel asks again, with another one. */
}

static void add_line(struct control *c, const struct buf *line)
{
    struct control_handle *h;
    event_log_add(&c->events.log, bytes_of(line->data, line->size));
    c->events.time_ms = control_wall_ms();
    c->events.n_lines++;
    LIST_FOREACH(h, &c->handles, link)
    wake(h);
}

static void begin_line(struct buf *line, const char *event)
{
    field_time(line, "time", control_wall_ms());
    field_text(line, "event", event);
}

/* End a line of the mount's own. */
static void end_line(struct control *c, struct buf *line)
{
    field_text(line, "from", "mount");
    field_end(line);
    add_line(c, line);
    buf_deinit(line);
}

static void on_event(struct follower *f, const Hf__Event *event)
{
    struct buf line = BUF_INIT;
    event_line(event, &line);
    add_line(of_follower(f), &line);
    buf_deinit(&line);
}

static void on_news(struct follower *f, enum follow_news news, uint64_t index)
{
    struct buf line = BUF_INIT;
    begin_line(&line, news == FOLLOW_BEGUN ? "following" : "missed");
    if (news == FOLLOW_BEGUN)
        field_u64(&line, "index", index);
    end_line(of_follower(f), &line);
}

void control_session(struct fs *fs, enum client_session_event event)
{
    static const char *const names[CONTROL_SESSION_EVENTS] = {
        [CLIENT_SESSION_OPENED] = "session-opened",
        [CLIENT_SESSION_JEOPARDY] = "session-jeopardy",
        [CLIENT_SESSION_SAFE] = "session-safe",
        [CLIENT_SESSION_LOST] = "session-lost",
        [CLIENT_SESSION_RESUMED] = "session-resumed",
        [CLIENT_SESSION_ENDED] = "session-ended",
    };
    struct control *c = fs->control;
    struct client_info info = client_info(fs->client);
    c->n_session_events[event]++;
    if (info.session_id != 0)
        c->session_id = info.session_id;
    if (!c->events.active)
        return;
    struct buf line = BUF_INIT;
    begin_line(&line, names[event]);
    field_u64(&line, "session", c->session_id);
    field_u64(&line, "remaining_ms", control_left_ns(info.session_deadline_boot_ns) / NS_PER_MS);
    end_line(c, &line);
}

static void add_lost(struct control *c,
                     const char *path,
                     const char *owner,
                     uint64_t token,
                     const char *kind,
                     struct process_id process,
                     uid_t uid)
{
    struct buf line = BUF_INIT;
    if (!c->events.active)
        return;
    begin_line(&line, "lost");
    field_text(&line, "path", path);
    if (owner != NULL)
        field_text(&line, "owner", owner);
    field_u64(&line, "token", token);
    field_text(&line, "kind", kind);
    field_u64(&line, "session", c->session_id);
    field_u64(&line, "pid", process.pid);
    field_u64(&line, "uid", uid);
    end_line(c, &line);
}

void control_lease_lost(struct fs *fs, const struct hold *h)
{
    struct process_id process = h->n_heirs > 0 ? h->heirs[0] : (struct process_id){0, 0};
    fs->control->n_leases_lost++;
    add_lost(fs->control, h->at->path, NULL, h->token, "lease", process, h->uid);
}

void control_lock_lost(struct fs *fs, const struct locker *l)
{
    fs->control->n_locks_lost[l->kind]++;
    add_lost(fs->control, l->file->path, l->text, l->token,
             l->kind == LOCKER_FLOCK ? "flock" : "fcntl", l->process, l->uid);
}

/* ---- Open, read, wait, close ------------------------------------------------------------ */

static void on_linger(uv_timer_t *timer)
{
    struct control *c = timer->data;
    follow_stop(&c->fs->follow, &c->events.follower);
    event_log_clear(&c->events.log);
    c->events.active = false;
}

void control_events_init(struct control *c)
{
    struct control_events *e = &c->events;
    event_log_init(&e->log);
    e->follower.on_event = on_event;
    e->follower.on_news = on_news;
    e->time_ms = c->begin_wall_ms;
    (void)uv_timer_init(c->fs->loop, &e->linger); /* Never fails. */
    e->linger.data = c;
}

void control_events_opened(struct control *c)
{
    struct control_events *e = &c->events;
    e->n_open++;
    if (c->closed)
        return;
    (void)uv_timer_stop(&e->linger); /* Never fails. */
    if (!e->active)
        follow_start(&c->fs->follow, &e->follower, "");
    e->active = true;
}

void control_events_closed(struct control *c, struct control_handle *h)
{
    struct control_events *e = &c->events;
    if (h->poll != NULL)
        fuse_pollhandle_destroy(h->poll);
    event_reader_deinit(&h->reader);
    if (--e->n_open == 0 && !c->closed)
        (void)uv_timer_start(&e->linger, on_linger, LINGER_MS, 0); /* Never fails. */
}

void control_events_close(struct control *c)
{
    follow_stop(&c->fs->follow, &c->events.follower);
    uv_close((uv_handle_t *)&c->events.linger, NULL);
}

void control_events_read(fuse_req_t req, struct control_handle *h, size_t size, off_t off)
{
    struct buf out = BUF_INIT;
    event_log_read(&h->control->events.log, &h->reader, off > 0 ? (uint64_t)off : 0, size,
                   control_wall_ms(), &out);
    (void)fuse_reply_buf(req, (const char *)out.data, out.size);
    buf_deinit(&out);
}

void control_events_poll(fuse_req_t req, struct control_handle *h, struct fuse_pollhandle *poll)
{
    bool more = event_log_has_more(&h->control->events.log, &h->reader);
    if (poll != NULL && h->poll != NULL)
        fuse_pollhandle_destroy(h->poll);
    if (poll != NULL)
        h->poll = poll;
    (void)fuse_reply_poll(req, more ? POLLIN | POLLRDNORM : 0);
}
