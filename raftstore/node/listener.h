/* The client listener: connections of clients, their requests and their subscriptions.
 *
 * It speaks the protocol and knows nothing of Raft: what to do with a request comes from the node
 * through `struct listener_config`, what came of it goes back with listener_done_*().
 *
 * Bounds: connections, requests in flight per connection (reads, commands and an operator's
 * requests each by themselves; sessions' keepalives always have room), frames, subscribers'
 * prefixes, and output that a client does not read (it is then disconnected; events can be resumed
 * by index), for each and for all together.  A connection that does not say hello in time is
 * closed.  All on the loop's thread. */
#ifndef HOLDFAST_NODE_LISTENER_H
#define HOLDFAST_NODE_LISTENER_H

#include "raftstore/base/address.h"
#include "raftstore/base/clock.h"
#include "raftstore/base/trace.h"
#include "raftstore/node/access.h"
#include "raftstore/node/events.h"
#include "raftstore/node/replica.h"
#include "raftstore/node/stream.h"
#include "raftstore/wire/pack.h"
#include "telemetry/audit.h"
#include "telemetry/span.h"

#include "holdfast.pb-c.h"

#define LISTENER_CONNECTIONS_MAX 10000u
#define LISTENER_REQUESTS_MAX    16384u               /* In flight on one connection, by kind. */
#define LISTENER_OUTPUT_MAX      (16u * 1024 * 1024)  /* Not read by the client. */
#define LISTENER_OUTPUT_TOTAL    (256u * 1024 * 1024) /* Of all clients together; beyond it, */
#define LISTENER_OUTPUT_FAIR     (64u * 1024)         /* one that does not read may keep this. */
#define LISTENER_HELLO_MS        UINT64_C(5000)

struct listener;
struct request_stats;

/* What clients are told about where the leader is. */
struct listener_leader {
    uint64_t id;         /* 0 = unknown. */
    const char *address; /* Its client address; "" = unknown. */
};

struct listener_config {
    struct stream_hub *hub;
    const struct clock *clock; /* NULL = clock_system(). */
    uint64_t node_id;
    struct events *events;
    unsigned connections_max; /* 0 = LISTENER_CONNECTIONS_MAX. */
    size_t output_max;        /* 0 = LISTENER_OUTPUT_MAX. */
    size_t output_total_max;  /* 0 = LISTENER_OUTPUT_TOTAL. */
    uint64_t hello_ms;        /* 0 = LISTENER_HELLO_MS. */
    struct audit *audit;      /* For lines about denials; NULL = none. */
    struct spans *spans;      /* Of requests; NULL = none are made. */
    void *arg;

    struct listener_leader (*leader)(void *arg);
    /* Fill members of the hello; memory from the arena. */
    void (*members)(void *arg, struct arena *arena, Hf__NodeHello *hello);
    /* A checked command; listener_command_done() follows if REPLICA_OK. */
    enum replica_status (*submit)(void *arg,
                                  uint64_t now_ns,
                                  uint64_t request_id,
                                  enum replica_urgency urgency,
                                  struct bytes command);
    /* A linearizable read: listener_read_done() follows if REPLICA_OK. */
    enum replica_status (*read)(void *arg, uint64_t now_ns, uint64_t request_id);
    /* What a policy's decisions are made from; asked only when there is one. */
    struct access_state (*state)(void *arg);
    /* Append the NodeFrame that answers a query from the present state, as far as `access` lets
     * that be seen (access_query() said yes); `arena` is for use. */
    void (*answer)(void *arg,
                   const struct access *access,
                   uint64_t frame_id,
                   const Hf__Query *query,
                   struct arena *arena,
                   struct buf *out);
    /* An operator's request; listener_admin_done() or listener_chunk() follow if REPLICA_OK. Else
     * *ret_text may say why (static storage). */
    enum replica_status (*admin)(void *arg,
                                 uint64_t now_ns,
                                 uint64_t request_id,
                                 const Hf__Admin *admin,
                                 const char **ret_text);
    /* The client took the chunk put last, or (gone) its connection ended before it did. */
    void (*chunk_taken)(void *arg, uint64_t request_id, bool gone);
    /* Applied index (for SubscribeReply) and wall clock minus cluster time. */
    uint64_t (*applied_index)(void *arg);
    int64_t (*wall_offset_ns)(void *arg);
};

struct listener *listener_new(const struct listener_config *config);

/* Listen on one address more (TCP or Unix).  Return: as bind_listen(). */
int listener_listen(struct listener *l,
                    const struct address *address,
                    bool insecure,
                    char **ret_sentence);
uint16_t listener_port(const struct listener *l);

/* A client connected by a stream that is not started yet; it is the listener's from now on. */
void listener_adopt(struct listener *l, struct stream *s);

/* Who asked, for audit lines. */
struct listener_asker {
    char client[64]; /* Address; "" = unknown: he is gone. */
    enum identity_kind kind;
    char name[IDENTITY_NAME_BYTES_MAX + 1]; /* Of the certificate. */
    uint8_t trace_id[TRACE_ID_BYTES];       /* All zero = none. */
};
void listener_asker(const struct listener *l, uint64_t request_id, struct listener_asker *ret);
/* Add the pairs client=, certificate=, trace_id=, as far as known. */
void listener_add_asker(struct buf *line, const struct listener_asker *a);

/* Outcomes. A client that has gone meanwhile is no error. */
void listener_command_done(struct listener *l,
                           uint64_t now_ns,
                           uint64_t request_id,
                           enum replica_status status,
                           const struct lock_result *result,
                           uint64_t index);
void listener_read_done(struct listener *l, uint64_t request_id, enum replica_status status);
void listener_admin_done(struct listener *l,
                         uint64_t request_id,
                         enum replica_status status,
                         const char *text,
                         uint64_t index);
/* One piece of an answer in several; `chunk->last` ends the request.  config.chunk_taken follows,
 * unless it was the last.
 * Return: false when the client is gone. */
bool listener_chunk(struct listener *l, uint64_t request_id, const Hf__SnapshotChunk *chunk);

/* Judge clients by this policy from now on, in what is under way too; connections stay.  Who
 * resumes a subscription from before is told that there is a gap: what was kept from him would be
 * missing.
 *
 * @policy: gets a reference of the listener's; NULL: by the kind of their certificates. */
void listener_set_policy(struct listener *l, struct access_policy *policy);

/* Ends the connections of all subscribers: they missed events, and learn it when they resume. */
void listener_drop_subscribers(struct listener *l);

/* From now on refuse new requests with SHUTTING_DOWN (and accept no connection). */
void listener_drain(struct listener *l);

/* Every second or so: connections without hello. */
void listener_sweep(struct listener *l);

struct listener_stats {
    unsigned connections;
    unsigned requests; /* In flight. */
    unsigned subscribers;
    uint64_t output_bytes;                         /* Not yet taken by clients. */
    uint64_t accepted, refused_busy, dropped_slow; /* Since start. */
    uint64_t keepalives;                           /* Of sessions: accepted since start. */
    uint64_t denied;                               /* Requests; since start. */
    uint64_t command_p50_us, command_p99_us;       /* Arrival to answer, recent. */
};
struct listener_stats listener_stats(const struct listener *l);

/* The same without the percentiles; cheap. */
struct listener_stats listener_figures(const struct listener *l);

unsigned listener_connections_max(const struct listener *l);

/* What was counted of requests; lives as long as the listener. */
const struct request_stats *listener_counts(const struct listener *l);

void listener_close(struct listener *l, void (*closed)(void *arg), void *arg);

#endif
