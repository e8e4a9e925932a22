/* What listener.c (connections) and listener_request.c (what is said on them) share. */
#ifndef HOLDFAST_NODE_LISTENER_INTERNAL_H
#define HOLDFAST_NODE_LISTENER_INTERNAL_H

#include "raftstore/node/bind.h"
#include "raftstore/node/histogram.h"
#include "raftstore/node/listener.h"
#include "raftstore/node/request_stats.h"
#include "raftstore/node/requests.h"
#include "raftstore/wire/pack.h"

#define LISTENER_BINDS_MAX 2
#define HELLO_BYTES_MAX    4096u

/* A client's connection. */
struct conn {
    TAILQ_ENTRY(conn) link; /* In `fresh` until its hello, then in `conns`. */
    struct listener *listener;
    struct stream *stream;
    struct listener_asker who; /* Once it was asked for: conn_who(). */
    struct access access;      /* conn_access() brings it up to date. */
    struct request_list requests;
    unsigned n_requests[REQUEST_KINDS];
    bool hello;
    bool doomed;            /* Does not read: to be closed at the flush. */
    uint64_t begin_ms;      /* When it was accepted; the clock's. */
    struct events_sub *sub; /* Owned; NULL = never subscribed. */
    struct buf events;      /* Fields of the Events frame that is being gathered. */
    uint64_t chunk_request; /* Whose chunk is on its way; 0 = none. */
    size_t counted;         /* What of the listener's output_bytes is this one's. */
};

TAILQ_HEAD(conn_list, conn);

struct listener {
    struct listener_config config;
    struct arena arena;        /* Requests while they are read. */
    struct arena answer_arena; /* Answers to queries while they are made. */
    struct requests requests;
    struct bind_set binds[LISTENER_BINDS_MAX];
    unsigned n_binds;
    unsigned n_binds_open;
    struct access_policy *policy; /* NULL: none. */
    uint64_t policy_index;        /* Events up to this one were filtered by an older one. */
    struct access_log denials;
    bool has_trace; /* The request that is being read belongs to this trace: */
    struct trace_context trace;
    struct buf changed;     /* A command with a field set by us. */
    struct conn_list fresh; /* No hello yet; oldest first. */
    struct conn_list conns;
    unsigned n_conns;
    size_t output_bytes; /* Waiting for all clients, as of when each was last looked at. */
    bool draining;
    uint64_t told_full_ms; /* When "too many connections" was logged last. */
    struct histogram command_us;
    unsigned what; /* Kind of the request at hand, for what is counted. */
    struct request_stats counts;
    struct listener_stats stats;
    void (*closed)(void *arg);
    void *closed_arg;
};

/* Where to append frames; NULL when the connection has too much unread output (it is doomed). */
struct buf *conn_out(struct conn *c);
void conn_close(struct conn *c);

/* What the client may do, as of now. */
struct access *conn_access(struct conn *c);

/* May it send that?  What may not is counted and logged, and the sentence for the client is
 * appended, with a NUL.
 *
 * @bytes:    the packed command; set to another one (that lasts until the next call) if it may do
 * it with a field changed.
 * @answered: the answer is about to be made; else it is to be asked for.
 * Return: ACCESS_YES, _NO, _NO_SESSION or _LATER. */
enum access_answer conn_may_command(struct conn *c,
                                    const struct lock_command *command,
                                    struct bytes *bytes,
                                    struct buf *ret_sentence);
bool conn_may_query(struct conn *c, const Hf__Query *q, bool answered, struct buf *ret_sentence);
bool conn_may_admin(struct conn *c, struct buf *ret_sentence);

/* struct events_sub.filter */
const struct lock_effect *
conn_filter(void *arg, const struct lock_effect *effect, struct lock_effect *room);

/* listener_trace.c ------------------------------------------------------------------------- */

/* Who it is, without a trace.  With an audit it is called at the hello, so that it is known when
 * the stream is gone. */
const struct listener_asker *conn_who(struct conn *c);

/* A frame came, with these bytes as its trace (ClientFrame.trace; may be empty). */
void conn_trace(struct conn *c, struct bytes trace);

/* A request was begun: its place in a trace, its span, a debug line. */
void conn_trace_request(struct conn *c, struct request *r, const char *name, struct bytes path);

/* It is answered: with a failure's sentence, or NULL. */
void request_trace_answered(struct request *r, const char *failure);

/* The client is gone, but its command is under way: who it was is kept with that. */
void request_keep_asker(struct request *r);

/* The client is gone, but its command is under way: who it was is kept with that. */
void request_keep_asker(struct request *r);

/* A line of what the client may not do. @what: the verb; may be NULL. */
void conn_audit_denied(struct conn *c, const char *what, struct bytes path, struct bytes reason);

/* What an operator asked for, kept with the request; and what became of it. */
void conn_audit_admin(struct conn *c, struct request *r, const Hf__Admin *a);
void request_audit_admin(struct listener *l,
                         const struct request *r,
                         enum replica_status status,
                         const char *text);

/* End the Events frame that is being gathered, so that what is appended next comes after it. */
void conn_seal_events(struct conn *c);

/* Append one field of an Events frame (struct events_sub.deliver). */
void conn_event(void *arg, struct bytes field);

/* A frame of a client. Return: 0, or a negative errno that ends the connection. */
int conn_frame(struct conn *c, struct bytes body);

#endif
