/* Sessions: keepalives, loss by the own deadline, courtesy, resumption; two clients with a session
 * each, one lock that hangs on them, a queue, leaders that come and go.
 *
 * What the code does, and where: raftstore/lock/session.c (alive, lapsed, ended; eviction),
 * acquire.c, settle.c; raftstore/client/session.c (own deadline, loss, resumption); fs/loss.c with
 * lost=freeze, which relies on a hold again once its session was resumed (without it, what was lost
 * stays lost: fewer behaviours).  At most once is lease.pml's: here each command is executed once.
 *
 * Time, drift and allowance are as in lease.pml. */

#ifndef TTL
#define TTL 3
#endif
#ifndef KEEPALIVES
#define KEEPALIVES 2 /* A client; then it is silent. */
#endif
#ifndef OPS
#define OPS 2 /* Acquires and releases of a client. */
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef LOGMAX
#define LOGMAX 1
#endif
#ifndef WINDOW
#define WINDOW TTL
#endif
#ifndef FASTER
#define FASTER 0
#endif

#define LOST(span) (((span) + WINDOW - 1) / WINDOW)
#ifdef MUT_NO_ALLOWANCE
#define ALLOW(span) 0
#else
#define ALLOW(span) (LOST(span) + 1)
#endif

#define CAP  (TTL + 1)
#define LATE 1
#define AMAX (TTL - ALLOW(TTL) + 1)
#define NEVER (-CAP - 2)
#ifdef ACKED
#define ACK_AT_START TTL
#else
#define ACK_AT_START 0
#endif

#define NONE 3
/* Commands. */
#define TICK      0
#define KEEPALIVE 1
#define ACQ       2
#define REL       3
/* Results. */
#define OK      1
#define REFUSED 2 /* The session ended, or lapsed while it waited. */
/* Sessions. */
#define ALIVE  0
#define LAPSED 1
#define ENDED  2

typedef entry {
    unsigned c : 2;
    unsigned op : 2;
    short stamp;
};

typedef session {
    unsigned state : 2;
    short end; /* Deadline. */
};

typedef client {
    unsigned kas : 3; /* Keepalives that it sends yet. */
    bit ka;           /* One is under way ... */
    bit ka_in;        /* ... in the log or executed ... */
    unsigned kcode : 2; /* ... with this result; 0 = none yet. */
    byte kage;        /* Own clock, since it was sent. */
    short kspare;     /* What the clock may lose of its ttl yet. */
    short kend;       /* Cluster deadline that its answer tells (ACKED). */
    bit kold;         /* An earlier one may arrive yet. */
    short left;       /* Own clock, to the session's deadline; -1 = lost. */
    short bspare;
    bit over;         /* It was told that its session ended. */
    unsigned ops : 3; /* Commands that it gives yet. */
    unsigned op : 2;  /* Under way: ACQ, REL; 0 = none ... */
    bit op_in;        /* ... in the log or executed ... */
    bit again;        /* ... refused while the session was lapsed: sent again when it is kept ... */
    unsigned code : 2; /* ... with this result; 0 = none yet (in the queue, too). */
    bit has;          /* It was granted the lock, and did not release it. */
    short acked;      /* Ghost (ACKED): deadline of the session that it was told. */
};

client cl[2];
session se[2];
entry lg[LOGMAX];
byte nlog;
bit up = 1;
byte crashes = 0;
short now = 0;
byte holder = NONE;
byte q0 = NONE, q1 = NONE;

short d, k, a, st;
byte e_c, e_op;

inline forget()
{
    d = 0;
    k = 0;
    a = 0;
    st = 0;
    e_c = 0;
    e_op = 0
}

#ifdef MUT_WAITS_TO_BE_TOLD
#define BELIEVES(x) (cl[x].has && !cl[x].over)
#else
#define BELIEVES(x) (cl[x].has && cl[x].left >= 0)
#endif
#define CAN_FAIL (!up || crashes < CRASHES)

/* ---- The lock table; st is the stamp of the command that is applied ---- */

inline settle()
{
    if
    :: holder == NONE && q0 != NONE ->
        assert(se[q0].state == ALIVE); /* Nobody is granted what his session does not keep. */
        holder = q0;
        cl[q0].code = OK;
        q0 = q1;
        q1 = NONE
    :: else
    fi
}

inline refuse_waiter(x)
{
    if
#ifndef MUT_WAITER_STAYS
    :: q0 == x ->
        q0 = q1;
        q1 = NONE;
        cl[x].code = REFUSED
    :: q1 == x ->
        q1 = NONE;
        cl[x].code = REFUSED
#endif
    :: else
    fi
}

inline end_session(x)
{
#ifdef ACKED
    assert(cl[x].acked <= st); /* No session ends early by cluster time. */
#endif
    if
    :: holder == x -> holder = NONE
    :: else
    fi;
    printf("session of client %d ends\n", x);
    se[x].state = ENDED;
    se[x].end = 0
}

/* raftstore/lock/session.c, session_expire(). */
inline expire_session(x)
{
    if
    :: se[x].state == ALIVE && se[x].end <= st ->
        refuse_waiter(x);
        if
#ifdef MUT_LAPSES_WANTED
        :: holder == x ->
#else
        :: holder == x && q0 == NONE -> /* Courtesy: nobody wants what it holds. */
#endif
            printf("session of client %d lapses\n", x);
            se[x].state = LAPSED;
            se[x].end = 0
        :: else ->
            end_session(x)
        fi;
        settle()
    :: else
    fi
}

inline expire()
{
    if
    :: se[1].end < se[0].end ->
        expire_session(1);
        expire_session(0)
    :: else ->
        expire_session(0);
        expire_session(1)
    fi
}

inline acquire()
{
#ifndef MUT_NO_EVICTION
    if
    :: holder == 1 - e_c && se[1 - e_c].state == LAPSED -> /* Now somebody wants it. */
#ifdef MUT_GIVEN_AWAY
        holder = NONE; /* Its session stays as it was. */
#else
        end_session(1 - e_c);
#endif
        settle()
    :: else
    fi;
#endif
    if
    :: holder == NONE && q0 == NONE ->
        holder = e_c;
        cl[e_c].code = OK
    :: else ->
        if
        :: q0 == NONE -> q0 = e_c
        :: else -> q1 = e_c
        fi
    fi
}

inline keepalive()
{
    if
    :: se[e_c].state != ENDED ->
        /* A session that is there has all its holds. */
        assert(!cl[e_c].has || holder == e_c);
#ifdef MUT_OLD_DEADLINE
        se[e_c].end = (se[e_c].state == LAPSED -> st + 1 : st + TTL);
#else
        se[e_c].end = st + TTL;
#endif
        se[e_c].state = ALIVE;
        a = OK
    :: else ->
#ifdef MUT_END_UNTOLD
        a = OK
#else
        a = REFUSED
#endif
    fi;
    if
    :: cl[e_c].ka && cl[e_c].ka_in && cl[e_c].kcode == 0 ->
        cl[e_c].kcode = a;
#ifdef ACKED
        cl[e_c].kend = (a == OK -> st + TTL : NEVER)
#endif
    :: else
    fi
}

inline execute()
{
    if
    :: e_op == KEEPALIVE -> keepalive()
    :: e_op != KEEPALIVE && se[e_c].state == ENDED -> cl[e_c].code = REFUSED
    :: e_op != KEEPALIVE && se[e_c].state == LAPSED ->
        cl[e_c].again = 1;
        cl[e_c].op_in = 0
    :: e_op == ACQ && se[e_c].state == ALIVE -> acquire()
    :: e_op == REL && se[e_c].state == ALIVE ->
        if
        :: holder == e_c -> holder = NONE
        :: else
        fi;
        cl[e_c].code = OK;
        settle()
    fi
}

/* ---- The log and its leaders ---- */

inline shift_client(x)
{
#ifdef ACKED
    cl[x].kend = (cl[x].kcode == OK && cl[x].kend - d > NEVER -> cl[x].kend - d : NEVER);
    cl[x].acked = (cl[x].acked - d > NEVER -> cl[x].acked - d : NEVER);
#endif
    if
    :: se[x].state == ALIVE -> se[x].end = se[x].end - d
    :: else
    fi
}

inline shift()
{
    now = now - d;
    for (k : 0 .. LOGMAX - 1) {
        lg[k].stamp = (k < nlog -> lg[k].stamp - d : 0)
    };
    shift_client(0);
    shift_client(1)
}

inline clear_entry(i)
{
    lg[i].c = 0;
    lg[i].op = 0;
    lg[i].stamp = 0
}

inline apply()
{
    e_c = lg[0].c;
    e_op = lg[0].op;
    st = lg[0].stamp;
#if LOGMAX > 1
    lg[0].c = lg[1].c;
    lg[0].op = lg[1].op;
    lg[0].stamp = lg[1].stamp;
#endif
    clear_entry(LOGMAX - 1);
    nlog--;
    printf("applied: command %d (1 keepalive, 2 acquire, 3 release) of client %d, stamp %d\n", e_op,
           e_c, st);
    expire();
    if
    :: e_op != TICK -> execute()
    :: else
    fi;
    /* Who waits, waits for somebody who is there. */
    assert(q0 == NONE || (holder != NONE && se[holder].state == ALIVE));
    if
    :: CAN_FAIL ->
        d = st;
        shift()
    :: else
    fi;
    forget()
}

inline append(ec, eop)
{
    lg[nlog].c = ec;
    lg[nlog].op = eop;
    lg[nlog].stamp = now;
    printf("leader: command %d of client %d, stamped %d\n", eop, ec, now);
    nlog++
}

/* What was in a lost entry is on its way again. */
inline drop(i)
{
    if
    :: lg[i].op == KEEPALIVE && cl[lg[i].c].kcode == 0 -> cl[lg[i].c].ka_in = 0
    :: lg[i].op > KEEPALIVE && cl[lg[i].c].code == 0 -> cl[lg[i].c].op_in = 0
    :: else
    fi;
    clear_entry(i)
}

inline elect(survive)
{
    for (k : 0 .. LOGMAX - 1) {
        if
        :: k >= survive && k < nlog -> drop(k)
        :: else
        fi
    };
    nlog = survive;
    now = (nlog > 0 -> lg[nlog - 1].stamp : 0);
#ifdef MUT_CLOCK_AHEAD
    now = now + 2;
#endif
#ifdef MUT_WAITER_LOST
    q0 = NONE;
    q1 = NONE;
#endif
    up = 1;
    printf("a leader is elected, %d entries survive; its time is %d\n", nlog, now);
    if
    :: !CAN_FAIL ->
        d = now;
        shift()
    :: else
    fi;
    forget()
}

/* ---- Clients ---- */

inline send_keepalive(x)
{
    printf("client %d sends a keepalive\n", x);
    cl[x].kas--;
    if
    :: cl[x].ka && !cl[x].ka_in -> cl[x].kold = 1
    :: else
    fi;
    cl[x].ka = 1;
    cl[x].ka_in = 0;
    cl[x].kcode = 0;
    cl[x].kage = 0;
    cl[x].kspare = LOST(TTL) + FASTER
}

inline forget_keepalive(x)
{
    cl[x].ka = 0;
    cl[x].ka_in = 0;
    cl[x].kcode = 0;
    cl[x].kage = 0;
    cl[x].kspare = 0;
    cl[x].kend = 0
}

inline safety_sentence()
{
    assert(!BELIEVES(0) || !BELIEVES(1))
}

inline lose(x)
{
    printf("client %d has lost its session, by its own clock\n", x);
    cl[x].left = -1;
    cl[x].bspare = 0
}

/* raftstore/client/session.c: on_kept(), session_on_ended(). */
inline take_keepalive(x)
{
    printf("client %d: its keepalive is answered: %d (1 ok, 2 ended)\n", x, cl[x].kcode);
    if
    :: cl[x].kcode == OK ->
#ifdef MUT_FROM_REPLY
        a = TTL - ALLOW(TTL);
#else
        a = TTL - ALLOW(TTL) - cl[x].kage;
#endif
        if
        :: a >= 0 && a >= cl[x].left ->
            cl[x].left = a;
            cl[x].bspare = cl[x].kspare;
            cl[x].again = 0
        :: else
        fi;
#ifdef ACKED
        cl[x].acked = (cl[x].kend > cl[x].acked -> cl[x].kend : cl[x].acked)
#endif
    :: else ->
        cl[x].over = 1;
        cl[x].has = 0;
        lose(x)
    fi;
    forget_keepalive(x);
    safety_sentence();
    forget()
}

inline take_answer(x)
{
    printf("client %d: command %d is answered: %d (1 ok, 2 refused)\n", x, cl[x].op, cl[x].code);
    if
    :: cl[x].op == ACQ && cl[x].code == OK && !cl[x].over -> cl[x].has = 1
    :: else
    fi;
    cl[x].op = 0;
    cl[x].op_in = 0;
    cl[x].code = 0;
    safety_sentence()
}

#define WATCHES(x)  (cl[x].left >= 0 || (cl[x].ka && cl[x].kage < AMAX))
#define MAY_LOSE(x)                                                                                \
    (WATCHES(x) && (cl[x].left < 0 || cl[x].bspare > 0) && (!cl[x].ka || cl[x].kspare > 0))
#define MATTERS                                                                                    \
    (WATCHES(0) || WATCHES(1) || nlog > 0 || se[0].state == ALIVE || se[1].state == ALIVE)
#define IN_TIME(x) (se[x].state != ALIVE || now - se[x].end < LATE)
#define MAY_TICK                                                                                   \
    (MATTERS && (!up || (now < CAP && (nlog == 0 || now - lg[0].stamp < CAP) && IN_TIME(0) &&      \
                         IN_TIME(1))))

inline tick_client(x, slow)
{
    if
    :: cl[x].left >= 0 && slow -> cl[x].bspare--
    :: cl[x].left > 0 && !slow -> cl[x].left--
    :: cl[x].left == 0 && !slow -> lose(x)
    :: else
    fi;
    if
    :: cl[x].ka && slow -> cl[x].kspare--
    :: cl[x].ka && !slow && cl[x].kage < AMAX -> cl[x].kage++
    :: else
    fi;
    if
    :: cl[x].ka && cl[x].kage == AMAX -> cl[x].kspare = LOST(TTL) + FASTER
    :: else
    fi
}

inline tick(slow0, slow1)
{
    now = (up -> now + 1 : now);
    printf("tick; clocks that stand still: client 0 %d, client 1 %d\n", slow0, slow1);
    tick_client(0, slow0);
    tick_client(1, slow1);
    if
    :: !CAN_FAIL ->
        d = now;
        shift()
    :: else
    fi;
    forget()
}

#define CLIENT(c)                                                                                  \
    :: d_step { cl[c].kas > 0 && !cl[c].over &&                                                    \
                (!cl[c].ka || (cl[c].kage > 0 && cl[c].kcode == 0)) -> send_keepalive(c) }         \
    :: d_step { cl[c].ka && !cl[c].ka_in && up && nlog < LOGMAX ->                                 \
        append(c, KEEPALIVE); cl[c].ka_in = 1 }                                                    \
    :: d_step { cl[c].kold && up && nlog < LOGMAX -> append(c, KEEPALIVE); cl[c].kold = 0 }        \
    :: d_step { cl[c].kcode != 0 -> take_keepalive(c) }                                            \
    :: d_step { cl[c].op == 0 && cl[c].ops > 0 && !cl[c].has && cl[c].left >= 0 ->                 \
        cl[c].op = ACQ; cl[c].ops-- }                                                              \
    :: d_step { cl[c].op == 0 && cl[c].ops > 0 && cl[c].has ->                                     \
        cl[c].op = REL; cl[c].has = 0; cl[c].ops-- }                                               \
    :: d_step { cl[c].op != 0 && !cl[c].op_in && !cl[c].again && up && nlog < LOGMAX ->            \
        append(c, cl[c].op); cl[c].op_in = 1 }                                                     \
    :: d_step { cl[c].op != 0 && cl[c].code != 0 -> take_answer(c) }

#define DUE                                                                                        \
    ((se[0].state == ALIVE && se[0].end <= now) || (se[1].state == ALIVE && se[1].end <= now) ||   \
     (now == CAP && MATTERS))

inline start(x)
{
    cl[x].kas = KEEPALIVES;
    cl[x].ops = OPS;
    cl[x].left = TTL - ALLOW(TTL); /* Both sessions are opened now. */
    cl[x].bspare = LOST(TTL) + FASTER;
    cl[x].acked = ACK_AT_START;
    se[x].end = TTL
}

active proctype world()
{
    d_step {
        start(0);
        start(1)
    };
end:
    do
    CLIENT(0)
    CLIENT(1)
    :: d_step { up && nlog > 0 -> apply() }
    :: d_step { up && nlog == 0 && DUE -> append(0, TICK) }
    :: d_step { up && crashes < CRASHES && MATTERS ->
        up = 0; crashes++; printf("the leader fails\n") }
    :: d_step { !up -> elect(0) }
    :: d_step { !up && nlog > 0 -> elect(1) }
#if LOGMAX > 1
    :: d_step { !up && nlog > 1 -> elect(2) }
#endif
    :: d_step { MAY_TICK -> tick(0, 0) }
    :: d_step { MAY_TICK && MAY_LOSE(0) -> tick(1, 0) }
    :: d_step { MAY_TICK && MAY_LOSE(1) -> tick(0, 1) }
    :: d_step { MAY_TICK && MAY_LOSE(0) && MAY_LOSE(1) -> tick(1, 1) }
    :: timeout ->
        /* Nothing can happen any more: nobody waits, whoever is unanswered was silent too long,
         * and what is held is a silent one's that nobody wants. */
        assert(up && q0 == NONE);
        assert((cl[0].op == 0 || cl[0].again) && (cl[1].op == 0 || cl[1].again));
        assert(holder == NONE || se[holder].state == LAPSED);
        break
    od
}
