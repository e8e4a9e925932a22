/* Reads by ReadIndex: three nodes, terms, votes, deposed leaders that do not know it, restarts; one
 * read at a time at any node, one round at a time.
 *
 * What the code does, and where: raftstore/node/replica_read.c (round, probes, the follower's
 * question), replica_propose.c (an entry of the own term first), replica_outbox.c (term and vote
 * are durable before a message tells of them).  Raft itself (libraft) is here as the paper has it:
 * votes, logs, commitment by counting entries of the own term.  No clocks: there are no leader
 * leases, so nothing hangs on time.
 *
 * A write is an entry, its acknowledgement the leader's commit; the state of a table is the
 * index up to which it is applied, and what is committed is applied at once. */

#ifndef TERMS
#define TERMS 2
#endif
#ifndef LENGTH
#define LENGTH 3 /* Entries of a log. */
#endif
#ifndef RESTARTS
#define RESTARTS 1
#endif
#ifndef READS
#define READS 1
#endif

#define N    3
#define NONE 3

typedef node {
    unsigned term : 3;
    unsigned vote : 2; /* In this term; NONE. */
    bit leads;
    unsigned votes : 3;   /* As candidate: who is for it. */
    unsigned length : 3;
    byte log[LENGTH]; /* Terms. */
    unsigned commit : 3;
    unsigned first : 3; /* As leader: index of its first own entry. */
    byte got[N]; /* As leader: what a follower stored, perhaps not yet heard of. */
};
node n[N];

/* The round of a leader. */
bit round;
byte r_node, r_term, r_index, r_acks;
/* The read. */
#define IDLE     0
#define NEW      1 /* At q_lead, perhaps for another node; in no round. */
#define IN_ROUND 2
#define INDEXED  3 /* q_index is known; waits until q_node has it. */
byte q_state, q_node, q_lead, q_index, reads = 0;
byte q_need; /* Ghost: acknowledged when it was asked. */
byte restarts = 0;
/* Ghost: what was acknowledged. */
byte acked, acked_log[LENGTH];

byte i, k;

inline forget()
{
    i = 0;
    k = 0
}

/* Of what was acknowledged in terms before `before`, nothing is missing up to `index`. */
inline agrees(x, index, before)
{
    for (i : 0 .. LENGTH - 1) {
        assert(i >= index || i >= acked || acked_log[i] >= before || n[x].log[i] == acked_log[i])
    }
}

inline drop_round(x)
{
    if
    :: round && r_node == x ->
        round = 0;
        r_node = 0;
        r_term = 0;
        r_index = 0;
        r_acks = 0;
        if
        :: q_state == IN_ROUND -> end_read() /* Asks anew: another read. */
        :: else
        fi
    :: else
    fi
}

inline end_read()
{
    q_state = IDLE;
    q_node = 0;
    q_lead = 0;
    q_index = 0;
    q_need = 0
}

inline step_down(x)
{
    n[x].leads = 0;
    n[x].votes = 0;
    n[x].first = 0;
    n[x].got[0] = 0;
    n[x].got[1] = 0;
    n[x].got[2] = 0;
    drop_round(x)
}

/* To term k. */
inline raise_term(z)
{
    if
    :: n[z].term < k ->
        n[z].term = k;
        n[z].vote = NONE;
        step_down(z)
    :: else
    fi
}

#define LAST_TERM(x)      (n[x].length == 0 -> 0 : n[x].log[n[x].length - 1])
#define UP_TO_DATE(x, y)                                                                           \
    (LAST_TERM(x) > LAST_TERM(y) || (LAST_TERM(x) == LAST_TERM(y) && n[x].length >= n[y].length))

/* x stands for election. */
inline stand(x)
{
    k = n[x].term + 1;
    raise_term(x);
    n[x].vote = x;
    n[x].votes = 1 << x;
    printf("node %d stands in term %d\n", x, n[x].term);
    forget()
}

/* y votes for the candidate x; its answer may be heard of later. */
#define MAY_VOTE(y, x)                                                                             \
    (n[x].votes != 0 && !n[x].leads && (n[x].votes & (1 << y)) == 0 &&                             \
     (n[y].term < n[x].term || (n[y].term == n[x].term && n[y].vote == NONE)) && UP_TO_DATE(x, y))
inline grant_vote(y, x)
{
    k = n[x].term;
    raise_term(y);
    n[y].vote = x;
    printf("node %d votes for node %d in term %d\n", y, x, n[x].term);
    n[x].votes = n[x].votes | (1 << y);
    forget()
}

#define MAJORITY(set) ((set) == 3 || (set) == 5 || (set) == 6 || (set) == 7)
inline win(x)
{
    printf("node %d leads in term %d\n", x, n[x].term);
    agrees(x, LENGTH, n[x].term); /* A leader has all that was acknowledged before its term. */
    n[x].leads = 1;
    n[x].votes = 0;
    n[x].log[n[x].length] = n[x].term;
    n[x].length++;
    n[x].first = n[x].length;
    forget()
}

/* The follower y takes what the leader x has.  x may hear of it when it has long been deposed. */
#define MAY_FOLLOW(y, x)                                                                           \
    (n[x].leads && n[y].term <= n[x].term && !(n[y].leads && n[y].term == n[x].term))
inline follow(y, x)
{
    printf("node %d takes %d entries, %d committed, from node %d of term %d\n", y, n[x].length,
           n[x].commit, x, n[x].term);
    k = n[x].term;
    raise_term(y);
    n[y].votes = 0;
    for (i : 0 .. LENGTH - 1) {
        assert(i >= n[y].commit || n[y].log[i] == n[x].log[i]);
        n[y].log[i] = n[x].log[i]
    };
    n[y].length = n[x].length;
    n[y].commit = (n[x].commit > n[y].commit -> n[x].commit : n[y].commit);
    n[x].got[y] = (n[x].length > n[x].commit -> n[x].length : 0);
    forget()
}

/* The answers of the followers reach x, be it deposed in others' eyes. */
#define COUNTS(x, index) (n[x].log[index - 1] == n[x].term)
#define MAY_COMMIT(x, y)                                                                           \
    (n[x].leads && n[x].got[y] > n[x].commit && COUNTS(x, n[x].got[y]))
inline take_commit(x, y)
{
    n[x].commit = n[x].got[y];
    printf("node %d of term %d acknowledges up to %d\n", x, n[x].term, n[x].commit);
    for (i : 0 .. LENGTH - 1) {
        if
        :: i < n[x].commit && i < acked -> assert(acked_log[i] == n[x].log[i])
        :: i < n[x].commit && i >= acked -> acked_log[i] = n[x].log[i]
        :: else
        fi
    };
    acked = (n[x].commit > acked -> n[x].commit : acked);
    for (i : 0 .. N - 1) {
        n[x].got[i] = (n[x].got[i] > n[x].commit -> n[x].got[i] : 0)
    };
    forget()
}

/* What was not stored is gone. */
inline restart(x)
{
    printf("node %d restarts\n", x);
    step_down(x);
    n[x].commit = 0;
#ifdef MUT_VOTE_LOST
    n[x].vote = NONE;
#endif
    if
    :: q_state != IDLE && (q_node == x || (q_lead == x && q_state == NEW)) -> end_read()
    :: else
    fi;
    restarts++;
    forget()
}

/* A read comes to x; y leads in its eyes (perhaps itself, perhaps no longer). */
#ifdef MUT_FOLLOWER_ALONE
#define MAY_ASK(x, y) (x == y)
#else
#define MAY_ASK(x, y) (n[y].leads && (x == y || !n[x].leads))
#endif
inline ask(x, y)
{
    q_state = NEW;
    q_node = x;
    q_lead = y;
    q_need = acked;
    printf("a read comes to node %d, for which node %d leads; acknowledged: %d\n", x, y, acked);
    reads++;
#ifdef MUT_FOLLOWER_ALONE
    if
    :: !n[x].leads ->
        q_state = INDEXED;
        q_index = n[x].commit
    :: else
    fi;
#endif
#ifdef MUT_JOINS_ROUND
    if
    :: round && r_node == y -> q_state = IN_ROUND
    :: else
    fi;
#endif
    forget()
}

#ifdef MUT_NOT_READY
#define READY(x) 1
#else
#define READY(x) (n[x].commit >= n[x].first)
#endif
/* With the reads that wait, or for others that are not looked at here. */
inline begin_round(x)
{
    round = 1;
    r_node = x;
    r_term = n[x].term;
    r_index = n[x].commit;
    r_acks = 1 << x;
    printf("node %d of term %d begins a round at index %d\n", x, r_term, r_index);
#ifdef MUT_NO_ROUND
    r_acks = 7;
#endif
    if
    :: q_state == NEW && q_lead == x -> q_state = IN_ROUND
    :: else
    fi
}

/* A probe reaches y, whose yes may be heard of later. */
#ifdef MUT_NO_TERM_CHECK
#define SAYS_YES(y) 1
#else
#define SAYS_YES(y) (n[y].term == r_term)
#endif

inline end_round()
{
    printf("the round of node %d ends, index %d\n", r_node, r_index);
    if
    :: q_state == IN_ROUND ->
        q_state = INDEXED;
        q_index = r_index
    :: else
    fi;
    round = 0;
    r_node = 0;
    r_term = 0;
    r_index = 0;
    r_acks = 0
}

#ifdef MUT_NOT_APPLIED
#define APPLIED 1
#else
#define APPLIED (n[q_node].commit >= q_index)
#endif
inline serve()
{
    printf("node %d serves the read at %d\n", q_node, n[q_node].commit);
    /* A read never shows a state older than what was acknowledged before it was asked. */
    assert(n[q_node].commit >= q_need);
    agrees(q_node, n[q_node].commit, TERMS + 1);
    end_read();
    forget()
}

/* Until the last read is over. */
#define LIVE (q_state != IDLE || reads < READS)
#define NODE(x)                                                                                    \
    :: d_step { LIVE && !n[x].leads && n[x].term < TERMS && n[x].length < LENGTH -> stand(x) }     \
    :: d_step { LIVE && !n[x].leads && MAJORITY(n[x].votes) -> win(x) }                            \
    :: d_step { LIVE && n[x].leads && n[x].length < LENGTH ->                                      \
        n[x].log[n[x].length] = n[x].term; n[x].length++ }                                         \
    :: d_step { LIVE && restarts < RESTARTS &&                                                     \
                (n[x].leads || n[x].votes != 0 || n[x].commit > 0) -> restart(x) }                 \
    :: d_step { LIVE && !round && n[x].leads && READY(x) -> begin_round(x) }                       \
    :: d_step { LIVE && q_state == IDLE && reads < READS && MAY_ASK(x, x) -> ask(x, x) }

#define PAIR(x, y)                                                                                 \
    :: d_step { LIVE && MAY_VOTE(y, x) -> grant_vote(y, x) }                                       \
    :: d_step { LIVE && MAY_FOLLOW(y, x) && (n[y].term < n[x].term || n[y].length != n[x].length ||\
                                     n[y].commit < n[x].commit) -> follow(y, x) }                  \
    :: d_step { LIVE && MAY_COMMIT(x, y) -> take_commit(x, y) }                                    \
    :: d_step { LIVE && q_state == IDLE && reads < READS && MAY_ASK(y, x) -> ask(y, x) }           \
    :: d_step { LIVE && round && r_node == x && (r_acks & (1 << y)) == 0 && SAYS_YES(y) ->         \
        r_acks = r_acks | (1 << y) }

active proctype world()
{
    d_step { /* Node 0 was just elected. */
        for (i : 0 .. N - 1) {
            n[i].term = 1;
            n[i].vote = 0
        };
        n[0].leads = 1;
        n[0].length = 1;
        n[0].log[0] = 1;
        n[0].first = 1;
        forget()
    };
end:
    do
    NODE(0)
    NODE(1)
    NODE(2)
    PAIR(0, 1)
    PAIR(0, 2)
    PAIR(1, 0)
    PAIR(1, 2)
    PAIR(2, 0)
    PAIR(2, 1)
    :: d_step { round && MAJORITY(r_acks) && n[r_node].leads && n[r_node].term == r_term ->
        end_round() }
    :: d_step { q_state == INDEXED && APPLIED -> serve() }
    :: !LIVE -> break
    od
}
