/* The parts of `.holdfast/`; for control*.c only.
 *
 *     control.c          the directory: numbers, attributes, what is refused
 *     control_file.c     open files: reading a text
 *     control_ask.c      texts for which the cluster is asked: status, sessions, members
 *     control_events.c   the event file
 *     control_metrics.c  the metrics */
#ifndef HOLDFAST_FS_CONTROL_INTERNAL_H
#define HOLDFAST_FS_CONTROL_INTERNAL_H

#include "fs/control.h"
#include "fs/event_log.h"
#include "fs/follow.h"
#include "raftstore/base/buf.h"
#include "telemetry/process.h"

#define CONTROL_SESSION_EVENTS (CLIENT_SESSION_ENDED + 1)

enum control_file {
    CONTROL_DIRECTORY,
    CONTROL_STATUS,
    CONTROL_METRICS,
    CONTROL_EVENTS,
    CONTROL_SESSIONS,
    CONTROL_MEMBERS,
    CONTROL_FILES,
};

/* An open file. */
struct control_handle {
    unsigned n_refs; /* The kernel's, and one of each request under way. */
    struct control *control;
    enum control_file file;
    struct buf text;              /* What reads at offsets behind 0 see: taken by the read at 0. */
    bool has_text;                /* It was taken. */
    struct event_reader reader;   /* EVENTS. */
    struct fuse_pollhandle *poll; /* EVENTS: wants to be woken; NULL: nobody does. Owned. */
    LIST_ENTRY(control_handle) link;
};
LIST_HEAD(control_handle_list, control_handle);

struct control_events {
    struct event_log log;
    unsigned n_open; /* Handles. */
    bool active;     /* Somebody has it open, or had a moment ago: the log is kept. */
    struct follower follower;
    uv_timer_t linger; /* Runs between the last close and the end of the log. */
    uint64_t time_ms;  /* Wall clock, of the last line. */
    uint64_t n_lines;  /* All that there were. */
};

struct control {
    struct fs *fs;
    uint64_t begin_boot_ns;
    uint64_t begin_wall_ms;
    struct process_stats process; /* As last written down. */
    struct control_handle_list handles;
    struct control_events events;
    uint64_t session_id; /* Our last one; 0 = there was none. */
    uint64_t term;       /* Of the node that we asked last; 0 = none has answered. */
    uint64_t index;      /* Applied there. */
    uint64_t n_session_events[CONTROL_SESSION_EVENTS];
    uint64_t n_leases_lost;
    uint64_t n_locks_lost[2]; /* By enum locker_kind. */
    bool closed;
};

/* What this mount holds and waits for. */
struct control_counts {
    uint64_t leases;
    uint64_t locks[2]; /* By enum locker_kind: owners with holds. */
    uint64_t waiting;
};
struct control_counts control_count(struct fs *fs);

/* "none", "open", "jeopardy" or "lost". */
extern const char *const control_session_states[4];
unsigned control_session_state(const struct client_info *info);

/* Time left until an own deadline. */
uint64_t control_left_ns(uint64_t deadline_boot_ns);

uint64_t control_wall_ms(void);

/* control_file.c */
void control_open(fuse_req_t req, enum control_file file, struct fuse_file_info *fi);
void control_read(fuse_req_t req, struct control_handle *h, size_t size, off_t off);
void control_release(fuse_req_t req, struct control_handle *h);
void control_handle_unref(struct control_handle *h);
void control_reply_text(fuse_req_t req, const struct buf *text, size_t size, off_t off);

/* control_ask.c: make the text of a file, answer the read from it. */
void control_ask(fuse_req_t req, struct control_handle *h, size_t size, off_t off);

/* control_events.c */
void control_events_init(struct control *c);
void control_events_close(struct control *c);
void control_events_opened(struct control *c);
void control_events_closed(struct control *c, struct control_handle *h);
void control_events_read(fuse_req_t req, struct control_handle *h, size_t size, off_t off);
void control_events_poll(fuse_req_t req, struct control_handle *h, struct fuse_pollhandle *poll);

#endif
