/* The parts of a client and how they hang together; for the files of this folder only.
 *
 *     route.c    which nodes there are, which one leads; connections, liveness, backoff
 *     session.c  our session: open, keepalives, own deadline
 *     command.c  commands: sequence numbers, repeats, waits, orphans
 *     line.c     commands that wait to be sent: which one is next
 *     request.c  queries and admin requests
 *     watch.c    the subscription: what the cluster pushes, resumed by index
 *     stats.c    figures; metrics.c writes them down
 *     tracing.c  the requests' places in traces, and their spans
 *     client.c   the public functions and what ties the parts together
 *
 * What it does not do, so that a cluster in trouble is not kept there, is decided by breaker.c
 * (nodes), retry_budget.c (repetitions) and bulkhead.c (bounds by class).
 *
 * A frame's id comes from one counter, so an answer is looked up without knowing what it answers.
 */
#ifndef HOLDFAST_CLIENT_INTERNAL_H
#define HOLDFAST_CLIENT_INTERNAL_H

#include "raftstore/base/random.h"
#include "raftstore/client/boot_timer.h"
#include "raftstore/client/breaker.h"
#include "raftstore/client/bulkhead.h"
#include "raftstore/client/client.h"
#include "raftstore/client/conn.h"
#include "raftstore/client/deadline.h"
#include "raftstore/client/retry_budget.h"
#include "raftstore/wire/codes.h"
#include "raftstore/wire/pack.h"

#include <bsd/sys/queue.h>
#include <uthash.h>

#define PEERS_MAX             (2 * CLIENT_ADDRESSES_MAX)
#define ADMINS_MAX            64u /* Admin requests without an answer; more: -EBUSY. */
#define CLIENT_HOST_BYTES_MAX 64u

/* ---- route.c ---------------------------------------------------------------------------- */

/* A node's address that we know. */
struct peer {
    struct client *client;
    struct address address;
    char text[300];           /* address, as people write it. */
    bool seed;                /* From the configuration: never forgotten. */
    bool listed;              /* In the member list that came last. */
    bool says_leader;         /* Its last word on who leads was: me. */
    uint64_t node_id;         /* From its hello or a member list; 0 = not known yet. */
    struct client_conn *conn; /* NULL = none. */
    uint64_t serial;          /* Of the connection; commands remember it. */
    struct breaker breaker;   /* Is it worth trying? */
    bool greeted;             /* Its hello came, on this connection. */
    uint64_t tried_mono_ns;   /* Last attempt. */
    uint64_t pinged_mono_ns;  /* When the unanswered ping was sent; 0 = none. */
};

struct route {
    struct peer *peers[PEERS_MAX];
    unsigned n_peers;
    struct peer *primary;   /* Leads, and is connected: commands go there; NULL = seeking. */
    struct boot_timer tick; /* Next look at everything. */
    uint64_t seek_mono_ns;  /* Since when no leader is known; 0 = one is. */
    bool idle;              /* `tick` may be far away. */
    uint64_t leader_id;     /* Last that was heard; 0 = unknown. */
    uint64_t n_connections; /* Made so far: source of peer.serial. */
    char error[200];        /* Why the last attempt failed. */
};

int route_init(struct client *c, const char *addresses);
void route_start(struct client *c);
void route_stop(struct client *c);
void route_deinit(struct client *c);

/* A connected node that queries may be asked of: the leader if there is one and it is not silent;
 * else one that answers; else any.  NULL = none is connected. */
struct peer *route_any(struct client *c);

/* The peer says that it doesn't lead (any more). */
void route_not_leader(struct client *c, struct peer *p, uint64_t leader_id, const char *address);

/* Something was sent and an answer is due: look after it soon. */
void route_expect(struct client *c);

#define SESSION_FRAMES 8u

/* ---- session.c -------------------------------------------------------------------------- */

enum session_state {
    SESSION_NONE,    /* Wanted (ttl_ms > 0) but not there. */
    SESSION_OPENING, /* The request is on its way. */
    SESSION_OPEN,    /* There is one, as far as we know. */
    SESSION_CLOSING, /* client_close(). */
};

struct session {
    enum session_state state;
    uint64_t ttl_ms;           /* Wanted; 0 = no session. */
    uint64_t id;               /* 0 = none. */
    uint64_t seq_next;         /* Next sequence number. */
    uint64_t granted_ttl_ms;   /* What the cluster said. */
    uint64_t acked_boot_ns;    /* When the last acknowledged keepalive was sent. */
    uint64_t deadline_boot_ns; /* Own deadline. */
    bool lost;                 /* Own deadline passed. */
    bool jeopardy;
    uint64_t frame_id; /* Of the newest open, keepalive or close, if unanswered; or 0. */
    struct session_frame {
        uint64_t id;
        uint64_t sent_boot_ns;
    } frames[SESSION_FRAMES];    /* The latest sent, of which answers may come; id 0 = none. */
    unsigned n_frames;           /* Counts on; modulo SESSION_FRAMES it is the next place. */
    unsigned failures;           /* Opens refused in a row. */
    struct boot_timer keepalive; /* Next open or keepalive. */
    struct boot_timer watch;     /* Jeopardy, then the own deadline. */
};

void session_init(struct client *c, uint64_t ttl_ms);
void session_stop(struct client *c);
void session_on_primary(struct client *c);
void session_on_primary_lost(struct client *c);
bool session_on_result(struct client *c, uint64_t id, const Hf__Result *r);
bool session_on_failure(struct client *c, uint64_t id, const Hf__Failure *f);

/* A command was answered "no such session": it ended, or has only run out and can be resumed. A
 * keepalive tells. */
void session_doubt(struct client *c);

/* The cluster said that the session `id` is no more. */
void session_on_ended(struct client *c, uint64_t id);

/* Ask the cluster to end it.  Return: true when an answer is to be waited for. */
bool session_close(struct client *c);

/* ---- command.c -------------------------------------------------------------------------- */

enum command_state {
    COMMAND_IN_LINE, /* No sequence number yet. */
    COMMAND_SENT,    /* On the wire. */
    COMMAND_PAUSED,  /* Has its number, to be sent again at `timer` or with the next leader. */
    COMMAND_QUEUED,  /* Waits in the cluster's queue. */
};

struct command {
    TAILQ_ENTRY(command) link;     /* In a line, or in commands.assigned by seq. */
    TAILQ_ENTRY(command) key_link; /* In line: in its line_key. */
    UT_hash_handle hh;             /* In commands.by_id. */
    UT_hash_handle hh_seq;         /* In commands.by_seq, while it may wait. */
    uint64_t id;                   /* Handle and frame id. */
    enum command_state state;
    uint8_t op;
    bool waits;       /* May be queued (wait_ms). */
    bool canceled;    /* client_cancel(). */
    bool cancel_sent; /* The cluster was asked to cancel it, under its present seq. */
    bool parked;      /* In commands.parked. */
    bool asks;        /* Queued, and how it stands was asked: its event may be missed, or is not
                         all.  To be repeated until it is answered. */
    bool no_session;  /* Refused so; the next keepalive's answer decides. */
    bool orphan;      /* Nobody waits; to be undone if it was granted, or until it is known. */
    bool internal;    /* Ours: cancel and release of orphans. */
    bool shortens;    /* A renewal with a ttl of its own: it may let a lease end earlier. */
    bool many;        /* Several paths. */
    bool was_busy;    /* Refused for load last. */
    bool paid;        /* The next repetition is taken from the budget already. */
    enum client_class class;
    bool counted;               /* In the statistics: it was queued. */
    uint64_t session_id;        /* Of seq. */
    uint64_t seq;               /* 0 = not yet assigned. */
    uint64_t target_id;         /* A cancel: the command that is to be canceled. */
    uint64_t serial;            /* Connection that it was sent on last. */
    uint64_t sent_boot_ns;      /* First sent; 0 = never. */
    uint64_t last_boot_ns;      /* Sent last. */
    uint64_t owner_key;         /* An acquire, or the undoing of one: hash of its owner. */
    uint64_t order_key;         /* Those with the same one are sent in the order given; 0 = none. */
    bool undo;                  /* Releases what an orphan was granted. */
    uint64_t token_before;      /* Highest token seen when it was sent first. */
    uint64_t deadline_ns;       /* Boot time; UINT64_MAX = none. */
    unsigned n_unresolved;      /* Sends whose outcome is unknown: 0 = surely not executed. */
    unsigned n_tries;           /* For the backoff. */
    struct boot_timer timer;    /* The deadline or the next repeat. */
    struct client_trace *trace; /* Owned; NULL = none. */
    client_result_cb cb;
    void *arg;
    struct client *client;
    size_t body_bytes;
    uint8_t body[]; /* Packed Command without session_id, seq and ack_seq. */
};
TAILQ_HEAD(command_list, command);

/* An owner of whom an orphan, or the undoing of one, is on its way. */
struct busy_owner {
    uint64_t key;
    unsigned n;
    UT_hash_handle hh;
};

/* Those in line with one order_key, in the order given. */
struct line_key {
    uint64_t key;
    struct command_list list;
    UT_hash_handle hh;
};

#define LINE_CANCELS ((unsigned)CLIENT_CLASSES)
#define LINES        (LINE_CANCELS + 1u)

struct commands {
    struct command_list lines[LINES]; /* By class, and cancels; each in the order given. */
    struct line_key *line_keys;       /* By key. */
    unsigned n_line;                  /* In all lines. */
    bool waits_next;                  /* They go before writes this time. */
    struct command_list assigned;     /* By seq. */
    struct command_list parked;       /* Queued long ago: acknowledged, see command.c. */
    struct command *by_id;
    struct busy_owner *busy_owners; /* By key. */
    struct command *by_seq;         /* Assigned ones that may wait: events name them so. */
    unsigned n;                     /* All of them. */
    unsigned n_wire;                /* In state SENT or PAUSED. */
    unsigned n_lost_renewals;       /* Orphans that shorten. */
    uint64_t token_max;             /* Highest token seen. */
    uint64_t burst_boot_ns;         /* When all in flight were sent to another leader last. */
};

void commands_init(struct client *c);
void commands_pump(struct client *c);
void commands_on_primary(struct client *c);
void commands_on_primary_lost(struct client *c);
bool commands_on_result(struct client *c, uint64_t id, const Hf__Result *r);
bool commands_on_failure(struct client *c, struct peer *p, uint64_t id, const Hf__Failure *f);
void commands_on_event(struct client *c, const Hf__Event *e);
void commands_on_gap(struct client *c);
void commands_on_session_ended(struct client *c, uint64_t session_id);
/* There will be no session: who waits for one is told so.  Of these commands nothing was done. */
void commands_on_session_denied(struct client *c, const char *text);
/* A keepalive says that the session is there (again). */
void commands_on_session_kept(struct client *c);
void commands_fail_all(struct client *c);

/* Everything up to this number is answered. */
uint64_t commands_ack_seq(const struct client *c);

/* For line.c: give it its number and send it; it is in no line any more. */
void commands_start(struct client *c, struct command *k, uint64_t now);

/* Requests that have waited for long must not keep results from being acknowledged. */
void commands_park_old(struct client *c);

/* Is an orphan of this owner about, or the undoing of one? */
bool commands_owner_busy(const struct client *c, uint64_t owner_key);

/* ---- line.c ------------------------------------------------------------------------------- */

void line_init(struct client *c);

/* At the end of its line, or at the front. */
void line_add(struct client *c, struct command *k);
void line_add_front(struct client *c, struct command *k);
void line_remove(struct client *c, struct command *k);

/* May it be sent at once, past the line? */
bool line_may_pass(struct client *c, const struct command *k);

/* Start those that may go: what keeps or ends holds before all else. */
void line_pump(struct client *c, uint64_t now);

/* ---- request.c -------------------------------------------------------------------------- */

struct request {
    TAILQ_ENTRY(request) link; /* In requests.line or requests.list. */
    UT_hash_handle hh;
    uint64_t id;
    bool admin;
    bool snapshot;
    bool on_leader;
    bool in_line;      /* To be sent as soon as it can be. */
    bool asked;        /* It was sent once. */
    bool paid;         /* The next repetition is taken from the budget already. */
    bool started;      /* A chunk has come. */
    struct peer *peer; /* Whom it was asked of; NULL = in line, or waits for its timer. */
    uint64_t serial;   /* On which connection. */
    uint64_t timeout_ms;
    uint64_t began_boot_ns;
    uint64_t deadline_ns; /* Boot time; UINT64_MAX = none. */
    unsigned n_tries;
    char text[200]; /* The last failure's sentence. */
    int failure;    /* What it becomes when time is up. */
    struct boot_timer timer;
    struct client_trace *trace; /* Owned; NULL = none. */
    client_reply_cb cb;
    void *arg;
    struct client *client;
    size_t body_bytes;
    uint8_t body[]; /* Packed ClientFrame without its id. */
};
TAILQ_HEAD(request_list, request);

struct requests {
    struct request_list line; /* Those in_line, in the order given. */
    struct request_list list; /* All others. */
    struct request *by_id;
    unsigned n;
    unsigned n_admin;
    uint64_t burst_boot_ns; /* When all of a connection were asked again last. */
};

void requests_init(struct client *c);

/* Send what waits for a node. */
void requests_pump(struct client *c);
void requests_on_lost(struct client *c, struct peer *p);

/* It does not answer: ask its queries elsewhere, as far as they can be. */
void requests_on_silent(struct client *c, struct peer *p);
bool requests_on_frame(struct client *c, struct peer *p, const Hf__NodeFrame *frame);
void requests_fail_all(struct client *c);

/* ---- watch.c ---------------------------------------------------------------------------- */

/* A set of prefixes, shared by those who name it. */
struct prefix_set {
    unsigned n_refs;
    uint64_t version; /* Of the call that wanted it; the first one: 0. */
    size_t n;
    char *list[]; /* Owned. */
};

/* A subscription that was sent. */
struct subscription {
    TAILQ_ENTRY(subscription) link;
    uint64_t frame_id;
    uint64_t session_id;    /* 0 = none. */
    struct prefix_set *set; /* With a reference. */
    bool resumes;           /* An acknowledged one, on another connection. */
};
TAILQ_HEAD(subscription_list, subscription);

struct watch {
    bool session_wanted;           /* Somebody waits, or the owner asked. */
    bool events_wanted;            /* The owner wants its session's events. */
    struct prefix_set *wanted;     /* With a reference. */
    uint64_t told_version;         /* config.on_watch was told of sets up to this one. */
    struct subscription *acked;    /* The last that was acknowledged, perhaps on a connection that
                                      is gone: what the position is one of.  NULL = none. */
    struct subscription_list sent; /* On this connection, not acknowledged yet; in order. */
    uint64_t acked_serial;         /* Connection that it is in force on; 0 = none. */
    uint64_t serial;               /* Connection that is subscribed on; 0 = none. */
    uint64_t index;                /* Events up to here were seen; 0 = no position yet. */
    uint64_t n_at_index;           /* So many of those at `index`; 0 = all. */
    uint64_t skip;                 /* So many that come now at `index` are known already. */
    bool anew;                     /* The position was given up: the next one is behind a gap. */
};

void watch_init(struct client *c, const struct client_config *config);
void watch_deinit(struct client *c);

/* Subscribe, if something is wanted and not subscribed on this connection. */
void watch_update(struct client *c);

/* Somebody is going to wait: session events are needed from before the command on. */
void watch_want_session(struct client *c);
void watch_on_primary_lost(struct client *c);

/* Our session was opened, by the log entry `index`. */
void watch_on_session_opened(struct client *c, uint64_t index);
bool watch_on_reply(struct client *c, uint64_t id, const Hf__SubscribeReply *r);
bool watch_on_failure(struct client *c, uint64_t id);
void watch_on_events(struct client *c, const Hf__Events *events);

/* ---- stats.c ---------------------------------------------------------------------------- */

/* Answered by the cluster just now.
 *
 * @sent_boot_ns: when it was sent first; 0 = it never was, and does not count. */
void stats_answered(struct client *c, struct client_latency *l, uint64_t sent_boot_ns);

/* Not answered, or refused as a request. */
void stats_failed(struct client_latency *l, int status);

/* ---- tracing.c -------------------------------------------------------------------------- */

/* A request's place in a trace. */
struct client_trace {
    struct span *span;   /* Until it is answered; NULL: not recorded. */
    struct bytes packed; /* ClientFrame.trace, tag and length included. */
};

/* @parent: NULL: the client's own.  @path: for the span; may be empty.
 * Return: NULL: it is in no trace. */
struct client_trace *client_trace_new(struct client *c,
                                      const char *name,
                                      const struct trace_context *parent,
                                      struct bytes path);
/* What goes with each frame of it; all of these accept NULL. */
struct bytes client_trace_packed(const struct client_trace *t);
/* It was sent (again). */
void client_trace_sent(struct client_trace *t, const struct peer *p);
/* It was answered, or given up (status below 0). @r: may be NULL. */
void client_trace_end(struct client_trace *t, int status, const Hf__Result *r);
/* Ends it, too, if need be. */
void client_trace_free(struct client_trace *t);

/* "SHOW", "LIST", ...; "MEMBER_ADD", ... */
const char *client_query_name(const Hf__Query *query);
const char *client_admin_name(const Hf__Admin *admin);

/* ---- client.c --------------------------------------------------------------------------- */

struct client {
    struct client_config config; /* Pointers in it are not kept, but for loop and clock. */
    struct trace_context trace;  /* Of requests that name none. */
    char *agent;                 /* Owned. */
    char *host;                  /* Owned. */
    struct random random;
    struct arena arena; /* Received messages. */
    struct boot_timers timers;
    struct route route;
    struct session session;
    struct commands commands;
    struct requests requests;
    struct watch watch;
    struct bulkhead bulkhead;   /* Of commands and queries. */
    struct retry_budget budget; /* Of both; boot time. */
    struct deadline_pair pair;
    struct client_stats stats;
    uint64_t id_next;
    uint64_t n_keepalives;
    uint64_t n_retries;
    uint64_t n_reconnects;
    unsigned n_refs; /* What must be gone before the client is. */
    bool closing;    /* No new requests. */
    bool stopped;    /* Everything failed and closed. */
    struct boot_timer close_timer;
    void (*close_cb)(void *arg);
    void *close_arg;
};

/* At every wake-up, first thing. */
void client_wake(struct client *c);

/* The primary connection is there, or no more. */
void client_on_primary(struct client *c);
void client_on_primary_lost(struct client *c);
void client_on_frame(struct client *c, struct peer *p, const Hf__NodeFrame *frame);

/* SESSION_CLOSE was answered, or can't be. */
void client_on_session_closed(struct client *c);

void client_unref(struct client *c);

/* A time-out, from now or from an instant on, as an instant of boot time, saturating. */
uint64_t client_after_ms(const struct client *c, uint64_t ms);
uint64_t client_later_ms(uint64_t boot_ns, uint64_t ms);

/* A connection broke, or another leader came: may all that was on its way be sent again at once?
 * Not if that was so half a second ago; then each one asks the budget.
 *
 * @last_boot_ns: when it was so last; set. */
bool client_burst(uint64_t *last_boot_ns, uint64_t now_boot_ns);

/* base_ms doubled `tries` times, at most max_ms, half of it random. */
uint64_t client_backoff_ms(struct client *c, uint64_t base_ms, uint64_t max_ms, unsigned tries);

/* Append a frame with a command in it; body as in struct command; trace: client_trace_packed(). */
void client_add_command(struct buf *out,
                        uint64_t id,
                        struct bytes body,
                        uint64_t session_id,
                        uint64_t seq,
                        uint64_t ack_seq,
                        struct bytes trace);

#endif
