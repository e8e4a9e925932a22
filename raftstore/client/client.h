/* The client library: one session with a Holdfast cluster, over libuv.
 *
 * It finds the leader, pipelines requests, repeats them (with backoff and jitter, within a budget)
 * inside the deadline that the caller gives, keeps its session alive, resumes notifications after a
 * reconnect, and converts cluster deadlines to this machine's CLOCK_BOOTTIME so that the holder
 * always gives up before the cluster can grant anew.
 *
 * Threading: everything on the loop's thread; callbacks come from the loop, never from inside
 * the call that was given them.  A function that takes a callback either fails and never calls
 * it, or succeeds and calls it exactly once.
 *
 * Deadlines.  No two machines' clocks are ever compared.  Every answer carries the cluster time
 * `stamp` at which its command took effect; that instant lies after the moment L at which the
 * command was sent first.  So a cluster deadline D comes no earlier than L + (D - stamp) on this
 * machine's own clock, less what clocks may drift in that time: (D - stamp)/128 + 5 ms.  The
 * library keeps the best pair (L, stamp) and offers client_deadline_boot_ns().  A waiter's grant
 * is covered as well: its stamp is later than that of the pair, and cluster time never runs ahead
 * of real time. */
#ifndef HOLDFAST_CLIENT_CLIENT_H
#define HOLDFAST_CLIENT_CLIENT_H

#include "raftstore/base/bytes.h"
#include "raftstore/base/clock.h"
#include "raftstore/base/trace.h"
#include "raftstore/client/class.h"
#include "raftstore/tls/tls.h"
#include "telemetry/span.h"

#include "holdfast.pb-c.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define CLIENT_ADDRESSES_MAX 16
#define CLIENT_PREFIXES_MAX  256        /* Of one subscription; the node's own bound. */
#define CLIENT_NO_TIMEOUT    UINT64_MAX /* timeout_ms: repeat until it is answered. */

struct client;

enum client_session_event {
    CLIENT_SESSION_OPENED = 1, /* A new session: whatever hung on an earlier one is lost. */
    CLIENT_SESSION_JEOPARDY,   /* No keepalive acknowledged for half the session's ttl. */
    CLIENT_SESSION_SAFE,       /* Acknowledged again, after jeopardy. */
    CLIENT_SESSION_LOST,       /* By our own deadline: behave as if every session hold were gone.
                                  Comes before the cluster can grant them to anybody else. */
    CLIENT_SESSION_RESUMED,    /* After LOST: the cluster had kept the session and all its holds. */
    CLIENT_SESSION_ENDED, /* After LOST (or out of the blue: broken): the cluster ended it; a new
                             one will be opened. */
};

struct client_config {
    uv_loop_t *loop;
    const struct clock *clock;   /* NULL = clock_system(). */
    uint64_t seed;               /* Of the jitter; 0 = from the system. */
    const char *addresses;       /* Comma list: "host:port", "[v6]:port", "unix:/path". */
    const char *agent;           /* Program and version, for the node's log. */
    const char *host;            /* Host that the session speaks for; NULL = the host's name. */
    uint64_t session_ttl_ms;     /* 0 = no session: only queries and admin requests. */
    uint64_t connect_timeout_ms; /* 0 = 1000. */
    struct tls_context *tls;     /* Speak TLS (not on Unix sockets); a reference is taken. NULL = in
                                    the clear. */
    unsigned inflight_max;       /* Writes on the wire at once; half as many of those that may wait,
                                    and of renewals and releases.  More wait in line.  0 = 2048. */
    struct spans *spans;         /* Where spans of requests go; NULL = none are made. */
    const struct trace_context *trace; /* Of all requests that name none; copied; NULL = none. */
    bool pinned;         /* Talk to the first of the addresses that answers and never follow
                            the leader: for asking one node (STATUS). No commands. */
    bool events_session; /* Subscribe to what concerns our own session. */
    const char *const *event_prefixes; /* Also to these paths and below (NULL = none);
                                          NULL-terminated. client_watch() replaces them. */
    void (*on_session)(void *arg, enum client_session_event event);
    void (*on_event)(void *arg, const Hf__Event *event); /* In log order; may be NULL. */
    void (*on_gap)(void *arg); /* Events were missed: read the state afresh. May be NULL. */
    /* The prefixes of the client_watch() that returned `version` are in force: what happens to them
     * behind log index `index` will be told, or on_gap() says that it was not.  A query that is
     * sent now sees everything up to `index`.  Comes once for each version, unless a newer one
     * replaced it before.  May be NULL. */
    void (*on_watch)(void *arg, uint64_t version, uint64_t index);
    void *arg;
};

/* Make a client and start connecting.
 *
 * Return: 0; -EINVAL bad addresses or session ttl; other negative errno. */
int client_new(const struct client_config *config, struct client **ret_client);

/* New connections use these certificates from now on (NULL = in the clear); those that are open go
 * on with what they began with. */
void client_set_tls(struct client *c, struct tls_context *tls);

/* Close: ends the session at the cluster if it can within `grace_ms` (so that its holds go at
 * once), fails what is open with -ECANCELED, then calls `cb` (may be NULL); the client is gone
 * after it. */
void client_close(struct client *c, uint64_t grace_ms, void (*cb)(void *arg), void *arg);

/* The same at once and without ending the session (a crash, for tests; or fork in the child). */
void client_abandon(struct client *c, void (*cb)(void *arg), void *arg);

/* Outcome of a command. */
struct client_result {
    int status;                /* 0: `result` is there. -ETIMEDOUT: no answer in time (it may or may
                                  not have been done; an acquire that was granted all the same is
                                  released by the library). -ECANCELED: client closed. -EINVAL: the cluster
                                  calls it malformed. -EPERM: not authorised. -EBUSY: not done: refused for load,
                                  and repeated as often as the retry budget allowed. */
    const char *text;          /* The cluster's sentence, until the callback returns; or "". */
    const Hf__Result *result;  /* Until the callback returns. code: enum lock_code. */
    uint64_t deadline_boot_ns; /* result.deadline_ns on our clock, safe to rely on; 0 = none. */
    uint64_t sent_boot_ns;     /* When it was sent first. */
};
typedef void (*client_result_cb)(void *arg, const struct client_result *r);

/* Send one command (any op but SESSION_*).  session_id, seq and ack_seq are filled in.
 *
 * A request that waits in the cluster's queue (ACQUIRE, CONVERT with wait_ms) is answered once,
 * with its final result; LOCK_QUEUED never reaches the callback.  timeout_ms counts from now and,
 * for such a request, only until it is queued; its own wait_ms bounds the rest.  When a session is
 * lost and ended meanwhile, the answer is LOCK_NO_SESSION or LOCK_SESSION_ENDED.
 *
 * @command: copied.
 * @ret_handle: for client_cancel(); may be NULL.
 *
 * Return: 0 (the callback will come); -EMSGSIZE too large; -ESHUTDOWN closing; -EINVAL this client
 * has no session or the op is none of a client's; -EBUSY as many of its class as may be are
 * under way (bulkhead.h). */
int client_command(struct client *c,
                   const Hf__Command *command,
                   uint64_t timeout_ms,
                   client_result_cb cb,
                   void *arg,
                   uint64_t *ret_handle);

/* The same as part of a trace: nodes tell of it, and its span is the parent of theirs.
 *
 * @trace: copied; NULL: config.trace. */
int client_command_traced(struct client *c,
                          const Hf__Command *command,
                          const struct trace_context *trace,
                          uint64_t timeout_ms,
                          client_result_cb cb,
                          void *arg,
                          uint64_t *ret_handle);

/* The same for what gives something back though it looks like asking for it, as a lock that is made
 * smaller or shared: it is of the class CLIENT_UPKEEP, whatever its op. */
int client_upkeep(struct client *c,
                  const Hf__Command *command,
                  uint64_t timeout_ms,
                  client_result_cb cb,
                  void *arg,
                  uint64_t *ret_handle);

/* Cancel a command that may be waiting.  Its callback still comes once: with LOCK_CANCELED, or with
 * what happened first (a grant that raced in is the caller's to release).  Unknown handles
 * (answered already) are ignored. */
void client_cancel(struct client *c, uint64_t handle);

/* Replace the paths whose events are told.  Of those that were asked for before and still are, no
 * event is missed or told twice; those of dropped ones end at once; those of new ones begin at some
 * moment, of which config.on_watch() tells.
 *
 * @prefixes: `n` of them, copied; a path stands for itself and what is below it, "" for everything.
 * Return: the version, counting from 1; 0: more than CLIENT_PREFIXES_MAX, nothing has changed. */
uint64_t client_watch(struct client *c, const char *const *prefixes, size_t n);

/* Outcome of a query or an admin request. */
struct client_reply {
    int status; /* 0; -ETIMEDOUT no majority (or node) answered in time; -ECANCELED; -EPERM
                   refused by a rule (text); -EACCES not authorised; -EINVAL; -ENOENT; -EBUSY. */
    const Hf__QueryReply *query; /* Of a query; until the callback returns. */
    const Hf__AdminReply *admin; /* Of an admin request. */
    const Hf__SnapshotChunk
        *chunk;       /* Admin SNAPSHOT: called once per chunk; the last has chunk->last. */
    const char *text; /* The cluster's sentence, or "". */
};
typedef void (*client_reply_cb)(void *arg, const struct client_reply *r);

/* A linearizable read; needs no session.  `on_leader`: ask the leader only (STATUS and MEMBERS of
 * it).  Return: as client_command(). */
int client_query(struct client *c,
                 const Hf__Query *query,
                 uint64_t timeout_ms,
                 bool on_leader,
                 client_reply_cb cb,
                 void *arg);

/* The same as part of a trace; as client_command_traced(). */
int client_query_traced(struct client *c,
                        const Hf__Query *query,
                        const struct trace_context *trace,
                        uint64_t timeout_ms,
                        bool on_leader,
                        client_reply_cb cb,
                        void *arg);

/* An operator's request; goes to the leader. SNAPSHOT calls the callback once per chunk, and its
 * timeout_ms counts anew from each.  A request on whose way the connection broke is not repeated:
 * -ECONNRESET, it may or may not have been done. */
int client_admin(
    struct client *c, const Hf__Admin *admin, uint64_t timeout_ms, client_reply_cb cb, void *arg);

/* This machine's CLOCK_BOOTTIME until which a hold that ends at `deadline_ns` (cluster time)
 * can surely be relied on; 0 when nothing is known yet. */
uint64_t client_deadline_boot_ns(const struct client *c, uint64_t deadline_ns);

/* Can session holds be relied on at this very moment, by our own deadline?  (The timer that leads
 * to CLIENT_SESSION_LOST may be late.) */
bool client_session_live(const struct client *c);

/* Has no keepalive been acknowledged for half the session's ttl?  (Also when there is none.) */
bool client_session_jeopardy(const struct client *c);

/* Is there a leader that answers, as far as is known?  After half a second without an answer the
 * word is meaningful. */
bool client_in_touch(const struct client *c);

struct client_info {
    uint64_t session_id;               /* 0 = none now. */
    uint64_t session_deadline_boot_ns; /* Own deadline of the session; 0 = none. */
    uint64_t session_acked_boot_ns; /* When the last acknowledged keepalive was sent; 0 = none. */
    bool session_lost;              /* By our own deadline; the cluster may have kept it. */
    uint64_t session_ttl_ms;
    bool jeopardy;
    bool connected;
    uint64_t leader_id;    /* 0 = unknown. */
    uint64_t node_id;      /* That we are connected to; 0 = none. */
    char address[300];     /* That we are connected to. */
    char error[200];       /* Why the last connection attempt failed; "" = none did. */
    uint64_t n_pending;    /* Commands without an answer. */
    uint64_t n_keepalives; /* Sent since start. */
    uint64_t n_retries;
    uint64_t n_reconnects;
};
struct client_info client_info(const struct client *c);

/* ---- Figures since the client was made, for metrics ------------------------------------- */

#define CLIENT_LATENCY_BUCKETS  20u
#define CLIENT_LATENCY_FIRST_US UINT64_C(32) /* Bucket i: up to 32 us << i; the rest behind. */
#define CLIENT_FAILURE_REASONS  6u

struct client_latency {
    uint64_t buckets[CLIENT_LATENCY_BUCKETS + 1]; /* Not cumulative; the last has no bound. */
    uint64_t sum_ns;
    uint64_t n;                                /* Answered by the cluster. */
    uint64_t failures[CLIENT_FAILURE_REASONS]; /* By client_failure_names. */
};

/* Queries and commands, each from being sent first to its answer; a command that waits in the
 * cluster's queue: to being queued.  Exact to what the loop does in one turn. */
struct client_stats {
    struct client_latency queries;
    struct client_latency commands;
    uint64_t retries;         /* Commands and queries that were sent once more. */
    uint64_t retries_refused; /* That were not, for the budget. */
    struct client_class_stats {
        unsigned line;    /* Wait to be sent. */
        unsigned flight;  /* Sent, no answer yet. */
        unsigned settled; /* Wait in the cluster's queue. */
        uint64_t refused; /* Since start: the class was full. */
    } classes[CLIENT_CLASSES];
};
extern const char *const client_failure_names[CLIENT_FAILURE_REASONS];
struct client_stats client_stats(const struct client *c);

/* The same in Prometheus' format: the holdfast_client_... families. */
void client_metrics(const struct client *c, struct buf *out);

/* A node that the client knows of, for people. */
struct client_node {
    uint64_t node_id; /* 0 = not known yet. */
    char address[300];
    bool connected;
    bool leads; /* Commands go there. */
    const char
        *breaker;      /* "closed": it answers; "open": it does not; "half-open": is being tried. */
    uint64_t n_opened; /* So often it did not. */
};

/* Fill in at most `max`.  Return: how many. */
unsigned client_nodes(const struct client *c, struct client_node *ret_nodes, unsigned max);

#endif
