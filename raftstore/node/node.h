/* A store node: replica, store, shadow, peers and the client listener on one libuv loop.
 *
 * Used by holdfastd (a process of its own) and by mount.holdfast for SOURCE `local` (embedded, one
 * voter, reached through a Unix socket in the data directory).  The process must ignore SIGPIPE. */
#ifndef HOLDFAST_NODE_NODE_H
#define HOLDFAST_NODE_NODE_H

#include "raftstore/base/address.h"
#include "raftstore/base/buf.h"
#include "raftstore/lock/lock.h"
#include "telemetry/audit.h"
#include "telemetry/span.h"

#include <uv.h>

#define NODE_MEMBERS_MAX 16

struct node;

struct node_member {
    uint64_t id;
    struct address raft;   /* For the other nodes. is_unix with an empty path: none (embedded). */
    struct address client; /* For clients. */
};

struct node_config {
    uv_loop_t *loop;
    uint64_t id;
    const char *data; /* Data directory. */
    struct node_member members[NODE_MEMBERS_MAX];
    unsigned n_members;         /* At least this node itself. */
    struct address listen_raft; /* Where to listen for nodes and clients if not at this member's
                                   own addresses; host "" = there. */
    struct address listen_client;
    bool join;     /* Do not bootstrap: wait to be added by `holdfast member add`. */
    bool insecure; /* Plain TCP beyond loopback is allowed. */
    struct address
        http; /* Where to tell of itself: /metrics, /healthz, /readyz; host "" = nowhere. */
    bool http_insecure;  /* There beyond loopback, too (it is in the clear). */
    const char *tls;     /* Directory of ca.crt, tls.crt, tls.key; NULL = plain TCP. */
    const char *policy;  /* holdfast-policy(5) of the clients' certificates; NULL = their kind alone
                            decides.  Only with tls. */
    struct audit *audit; /* Where audit lines go; NULL = none.  Closed by whoever opened it, after
                            node_stop(). */
    struct audit_position audit_last; /* As audit_open() gave it. */
    struct spans *spans;              /* Where spans go; NULL = none are made.  Likewise. */
    unsigned election_timeout_ms;     /* 0 = default. */
    unsigned heartbeat_ms;            /* 0 = default. */
    size_t snapshot_log_bytes;        /* 0 = default. */
    unsigned snapshot_log_entries;    /* 0 = default. */
    struct lock_limits limits;        /* All zero = defaults. */
    /* The node can't go on; it has stopped serving. The process should exit (holdfastd: code 4). */
    void (*on_failed)(void *arg, const char *sentence);
    void *arg;
};

/* Open the data directory, bind, start.
 *
 * @ret_sentence: on failure, malloc()ed.  The loop must then still be run until it is empty, for
 * what was opened already to close.
 * Return: 0; -EBUSY, -EBADMSG (damaged store), -EADDRINUSE, -EPERM (not loopback and not insecure),
 * ...: negative errno. */
int node_start(const struct node_config *config, struct node **ret_node, char **ret_sentence);

/* Read the certificates anew; connections go on with what they began with, but for those whose
 * other side is not trusted any more (its authority is gone, or it is revoked): they end.
 *
 * Return: 0 (also without TLS); negative errno: the old ones stay, *ret_sentence (malloc()ed) says
 * why. */
int node_reload_tls(struct node *n, char **ret_sentence);

/* Append what the node counts, in Prometheus' text format. */
void node_metrics(const struct node *n, struct buf *out);

/* Can the node serve reads and take part in commits?  For /readyz.
 *
 * Return: NULL: yes; else why not (static storage). */
const char *node_unready(const struct node *n);

/* Read the policy anew, on the worker pool; a bad file is logged and leaves the old one in force.
 * Connections stay; new decisions are made by the new one as soon as it is there.  Nothing happens
 * without a policy. */
void node_reload_policy(struct node *n);

/* The audit file is to be opened anew (logrotate). */
void node_reopen_audit(struct node *n);

/* Hand leadership over (bounded by about two election timeouts), stop serving, finish writes, then
 * `cb`; the node is freed before it. */
void node_stop(struct node *n, void (*cb)(void *arg), void *arg);

#endif
