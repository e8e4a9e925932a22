/* The rules that keep the core sound, by name.
 *
 * In the product every rule always holds: replica_rule() is the constant true.  The tests compile
 * the same sources with REPLICA_TEST, where a rule can be switched off, to prove that a test or
 * the simulation notices. */
#ifndef HOLDFAST_NODE_REPLICA_RULE_H
#define HOLDFAST_NODE_REPLICA_RULE_H

#include <stdbool.h>
#include <stdint.h>

enum replica_rule {
    RULE_VOTE_FIRST,       /* No message leaves before term and vote of its step are durable. */
    RULE_READ_ROUND,       /* A read waits for a round of the leader with a majority. */
    RULE_OWN_STAMP,        /* Each command has its own arrival, not its entry's first. */
    RULE_STALE_TERM,       /* Entries and images of an old term never reach the core. */
    RULE_RESULT_BOUND,     /* Results beyond the leader's own log are dropped. */
    RULE_SOLE_TERM,        /* A sole voter starts in a new term. */
    RULE_SOLE_TIMEOUT_NOW, /* A sole voter ignores TimeoutNow. */
    RULE_SOLE_TIMEOUT,     /* A sole voter that lost leadership is restarted in a new term. */
    RULE_PREV_COMPACTED,   /* Entries at or below our snapshot are cut off. */
    RULE_LATE_REJECTION,   /* A rejection that is older than what matches is none. */
    RULE_VOTE_RESULT,      /* Vote results reach candidates only. */
    RULE_CHANGE_FIRST,     /* A configuration entry is the first of its batch. */
    RULE_ONE_IMAGE,        /* One image in flight to a follower. */
    RULE_IMAGE_REJECTION,  /* Heartbeats that overtake an image don't abort it. */
    RULE_INSTALLING,       /* A second image is dropped while one is being installed. */
    RULE_HEARTBEAT_RATE,   /* A leader's time-out fires once a heartbeat at most. */
    RULE_SAME_TERM_LEADER, /* A leader drops what another leader of its term sends. */
    RULE_CONF_ROLLBACK,    /* After a truncation the core's configuration is the log's. */
    RULE_CAP_WRITES,       /* A write that was truncated meanwhile is reported only so far. */
    RULE_COMMIT_MAX,       /* The commit index never goes back. */
    RULE_TERM_JUMP,        /* Terms far ahead of ours are impossible. */
    RULE_SOLE_FOLLOWS,     /* A sole voter follows nobody and votes for nobody. */
    RULE_ONE_LEADER,       /* Of a term one node is followed, the first that led. */
    RULE_COMMITTED,        /* Entries that contradict committed ones are dropped. */
    RULE_DISPUTE_LEADER,   /* Undecided, a node stops only if its leader has another digest. */
    RULE_N,
};

#endif
