/* Audit lines of what was done to locks: who tells, and how each thing is told once.
 *
 * Grants, breaks, renames and refusals to act on another's hold are results of log entries, which
 * every node applies.  An entry's *author* tells of it: the node that led in the entry's term,
 * which every node knows from the TERM_START at the term's beginning.  So no two nodes tell of one
 * entry, however the leaders changed meanwhile; a leader that lost its place tells of the last
 * entries it made once it hears that they were committed.
 *
 * Each line carries its position, the entry's index and a count within the entry.  A node that
 * starts again (kill -9 loses lines that were not written yet) applies the entries behind its last
 * snapshot once more and tells only of those behind the last position in its file.  What is told
 * then has no client and no trace: who asked is not in the log.
 *
 * Limits: entries of a node that never comes back, and that were committed but not told by it, are
 * told by nobody (it applies, and queues the lines, before it answers; so an answer that a client
 * has seen can miss its line only if that node is killed in the milliseconds before it is written
 * and never starts again, or only after an image has taken the place of its log).
 *
 * A request that had to wait is told when it is granted, by the author of the entry that granted
 * it, with the client and the trace of the one who asked if he asked that node. */
#ifndef HOLDFAST_NODE_NODE_AUDIT_H
#define HOLDFAST_NODE_NODE_AUDIT_H

#include "raftstore/node/listener.h"
#include "telemetry/audit.h"

#include <uthash.h>

#define NODE_AUDIT_WAITING_MAX 16384u

/* A request that waits, and who made it. */
struct node_waiting {
    struct {
        uint64_t session_id;
        uint64_t seq;
    } key;
    struct listener_asker asker;
    UT_hash_handle hh;
};

struct node_audit {
    struct audit *audit; /* NULL: none. */
    uint64_t node_id;
    uint64_t author_id;         /* Of the entries being applied; 0 = unknown. */
    uint64_t term;              /* Theirs. */
    uint64_t index;             /* The entry being applied. */
    uint64_t n;                 /* Things in it that the author tells of, so far. */
    struct audit_position told; /* By this node: what comes up to here is not told again. */
    bool has_asker;             /* Of the command being applied: */
    struct listener_asker asker;
    struct node_waiting *waiting; /* By key. */
};

/* @last: as audit_open() gave it.  @last_index: end of the log at the start: if the file has no
 * position, all that is in there already is not told. */
void node_audit_init(struct node_audit *na,
                     struct audit *audit,
                     uint64_t node_id,
                     const struct audit_position *last,
                     uint64_t last_index);
void node_audit_deinit(struct node_audit *na);

/* A command of a client of ours was applied; its effects come next. */
void node_audit_asked(struct node_audit *na, const struct listener *l, uint64_t request_id);

/* A command was applied. @term: of its entry. */
void node_audit_effects(struct node_audit *na,
                        uint64_t index,
                        uint64_t term,
                        const struct lock_command *command,
                        const struct lock_effects *effects);

/* The file was opened (again): a line that carries the position over to it.
 *
 * @event: "start", "open" or "stop". */
void node_audit_mark(struct node_audit *na, const char *event);

/* The policy was loaded or reloaded (why NULL), or refused. */
void node_audit_policy(struct node_audit *na, const char *what, const char *file, const char *why);

#endif
