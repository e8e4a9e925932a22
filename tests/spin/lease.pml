/* Leases: acquire, wait, renew, release; two clients, one lock, leaders that come and go.
 *
 * What the code does, and where: the stamps of a leader and its ticks (raftstore/node/
 * replica_propose.c), expiry, queue, results kept for repetitions (raftstore/lock/expire.c,
 * settle.c, results.c), the client's deadlines (raftstore/client/deadline.c, command.c, lease.c).
 *
 * Time.  tick() is one unit of real time.  While the leader can still fail, cluster times are kept
 * as distances from the stamp of the last applied entry, later from now; an instant of a client's
 * clock as what has passed since or is left until then: so runs have no end, and yet there are
 * finitely many states.  Within a span of n ticks a client's clock may lose LOST(n) of them: the
 * drift.  The allowance is what can be lost (ttl/128 in the code) and 1 (the 5 ms): a holder relies
 * on its hold up to and with its deadline, since looking at a clock and acting are not one instant.
 *
 * README.md says what is abstracted; tests/spin/run says how it is run. */

#ifndef TTL
#define TTL 3
#endif
#ifndef SEQS0
#define SEQS0 2 /* Commands of client 0. */
#endif
#ifndef SEQS1
#define SEQS1 2 /* Of client 1. */
#endif
#define SEQS(x) (x == 0 -> SEQS0 : SEQS1)
#ifndef CRASHES
#define CRASHES 1 /* Leaders that fail. */
#endif
#ifndef LOGMAX
#define LOGMAX 2 /* Entries that are not committed. */
#endif
#ifndef DELAY
#define DELAY 0 /* Lock-delay. */
#endif
#ifndef WINDOW
#define WINDOW TTL
#endif
#ifndef AHEAD
#define AHEAD 2 /* MUT_CLOCK_AHEAD: by so many ticks. */
#endif
#ifndef OLD
#define OLD 1 /* Whose answered requests may arrive once more: clients below this one. */
#endif
#ifndef FASTER
#define FASTER 0 /* What clocks lose beyond the allowance. */
#endif

#define LOST(span) (((span) + WINDOW - 1) / WINDOW)
#ifdef MUT_NO_ALLOWANCE
#define ALLOW(span) 0
#else
#ifdef MUT_NO_DRIFT
#define ALLOW(span) 1 /* The fixed part only. */
#else
#ifdef MUT_NO_FIXED
#define ALLOW(span) LOST(span) /* The drift only. */
#else
#define ALLOW(span) (LOST(span) + 1)
#endif
#endif
#endif

#define CAP  (TTL + 1) /* Ticks between two entries at most, and from an entry to its commit. */
#define LATE 1         /* Ticks from a deadline to the commit of the tick that acts on it. */
#ifdef WILD
#define AMAX 0 /* Whatever passes, a clock may not have moved. */
#else
#ifdef PAIR
#define AMAX (TTL + 2) /* A client forgets an older pair; an older request gives nothing. */
#else
#define AMAX (TTL - ALLOW(TTL) + 1) /* An older request gives nothing to rely on. */
#endif
#endif
#if defined(PAIR) || defined(ACKED)
#define KMIN (-TTL - 1) /* Whatever is older has given nothing that is not over. */
#else
#define KMIN 0 /* Nobody looks at the stamp of an answer. */
#endif

#define NONE 7
/* Commands. */
#define TICK 0
#define ACQ  1
#define REN  2
#define REL  3
/* Results. */
#define OK      1
#define QUEUED  2
#define REFUSED 3

typedef entry {
    unsigned c : 3;
    unsigned op : 2;
    unsigned seq : 3;
    unsigned tok : 3;
    short stamp;
};

typedef client {
    /* The request under way. */
    bit busy;
    bit told; /* That it is in the queue. */
    unsigned op : 2;
    unsigned seq : 3;
    unsigned rtok : 3;
    byte age;        /* Own clock, since it was sent first. */
    short spare;     /* What the clock may still lose of its ttl. */
    bit answer;      /* Under way: what the session keeps for this number. */
    /* A copy of an earlier one that is still under way. */
    bit old;
    unsigned oop : 2;
    unsigned oseq : 3;
    unsigned otok : 3;
    /* What it believes. */
    unsigned tok : 3; /* Granted; 0 = none. */
    short left;       /* Own clock, to the deadline; -1 = not relied on. */
    short bspare;     /* What the clock may still lose until then. */
    /* The best pair of own clock and cluster time. */
    bit pair;
    byte page, plost; /* Since then; lost since then. */
    short pstamp;
    /* Kept by the session. */
    unsigned done : 3; /* Executed up to here; lower ones are acknowledged. */
    unsigned code : 2;
    unsigned ktok : 3;
    short kstamp;
    /* Ghosts: for the properties only. */
    unsigned answered : 3; /* Number that was answered last. */
#ifdef ACKED
    short acked; /* Cluster time up to which its hold `tok` was promised. */
#endif
#ifdef FENCE
    byte korder, order; /* Grants are counted. */
#endif
};

client cl[2];
entry lg[LOGMAX];
byte nlog;
bit up = 1;
byte crashes = 0;
short now = 0; /* The leader's cluster time. */
byte holder = NONE;
byte htok;
short hend;      /* Deadline. */
bit delayed;     /* The lock can't be granted until dend. */
short dend;
byte next = 1;
byte q0 = NONE, q1 = NONE;
byte top = 0; /* Ghost: highest token granted. */
#ifdef FENCE
byte grants, seen, last_order; /* The resource: highest token it saw; ghost: whose that was. */
#endif
#ifdef MUT_LATE_RENEWAL
byte last_holder = NONE, last_tok;
#endif

short d, k, a, b, st;
byte e_c, e_op, e_seq, e_tok;

/* What was acknowledged counts: no lease ends early by cluster time. */
#ifdef ACKED
#define NEVER (-CAP - 2)
#define ACKED_SHIFT(c)                                                                             \
    if                                                                                             \
    :: cl[c].tok != 0 && cl[c].acked - d > NEVER -> cl[c].acked = cl[c].acked - d                  \
    :: else -> cl[c].acked = NEVER                                                                 \
    fi
#define ACKED_OVER(c)  assert(cl[c].tok != htok || cl[c].acked <= st)
#define ACKED_GRANT(c) cl[c].acked = (cl[c].kstamp == KMIN -> NEVER : cl[c].kstamp + TTL)
#define ACKED_RENEWAL(c)                                                                           \
    cl[c].acked = (cl[c].kstamp > KMIN && cl[c].kstamp + TTL > cl[c].acked ->                      \
        cl[c].kstamp + TTL : cl[c].acked)
#else
#define ACKED_SHIFT(c)   skip
#define ACKED_OVER(c)    skip
#define ACKED_GRANT(c)   skip
#define ACKED_RENEWAL(c) skip
#endif

#define BELIEVES(c)   (cl[c].left >= 0)
#define KEEP_STAMP(x) cl[x].kstamp = (st < KMIN || KMIN == 0 -> KMIN : st)

/* ---- The lock table; st is the stamp of the command that is applied ---- */

inline end_hold()
{
    holder = NONE;
    htok = 0;
    hend = 0
}

inline grant(x)
{
    assert(next > top); /* Tokens strictly increase. */
    top = next;
    printf("granted: token %d to client %d\n", next, x);
    holder = x;
    htok = next;
    hend = st + TTL;
    next++;
    cl[x].code = OK;
    cl[x].ktok = htok;
    KEEP_STAMP(x);
#ifdef FENCE
    grants++;
    cl[x].korder = grants;
#endif
}

inline settle()
{
    if
    :: holder == NONE && !delayed && q0 != NONE ->
        k = q0;
        q0 = q1;
        q1 = NONE;
        grant(k);
        cl[k].answer = 1 /* The event. */
    :: else
    fi
}

/* raftstore/lock/expire.c: whatever is due at the stamp, before the command. */
inline expire()
{
#ifdef MUT_SKIP_EXPIRY
    if
    :: e_op == TICK ->
#else
    if
    :: 1 ->
#endif
        if
        :: holder != NONE && hend <= st ->
            ACKED_OVER(holder);
            printf("expired: token %d of client %d\n", htok, holder);
#ifndef MUT_NO_DELAY
            if
            :: DELAY > 0 ->
                delayed = 1;
                dend = hend + DELAY
            :: else
            fi;
#endif
#ifdef MUT_LATE_RENEWAL
            last_holder = holder;
            last_tok = htok;
#endif
            end_hold()
        :: else
        fi;
        if
        :: delayed && dend <= st ->
            delayed = 0;
            dend = 0
        :: else
        fi;
        settle()
    :: else
    fi
}

inline acquire()
{
    if
    :: holder == NONE && !delayed && q0 == NONE -> grant(e_c)
    :: else ->
        assert(holder == NONE || hend > st); /* Who is in the way holds it at this stamp. */
        cl[e_c].ktok = 0;
        KEEP_STAMP(e_c);
#ifdef PAIR
        cl[e_c].code = QUEUED;
        if
        :: q0 == NONE -> q0 = e_c
        :: else -> q1 = e_c
        fi
#else
        cl[e_c].code = REFUSED
#endif
    fi
}

inline renew()
{
    cl[e_c].ktok = e_tok;
    KEEP_STAMP(e_c);
    if
    :: holder == e_c && htok == e_tok ->
        assert(hend > st); /* What is over at the stamp is over for every command. */
        hend = st + TTL;
        cl[e_c].code = OK
#ifdef MUT_LATE_RENEWAL
    :: holder == NONE && last_holder == e_c && last_tok == e_tok ->
        holder = e_c;
        htok = e_tok;
        hend = st + TTL;
        cl[e_c].code = OK
#endif
    :: else -> cl[e_c].code = REFUSED
    fi;
    assert(holder == NONE || htok == top) /* What is held was granted last. */
}

inline release()
{
    cl[e_c].ktok = e_tok;
    KEEP_STAMP(e_c);
    if
#ifdef MUT_RELEASE_ANY
    :: holder != NONE ->
#else
    :: holder == e_c && htok == e_tok ->
#endif
        if
        :: holder != e_c -> ACKED_OVER(holder)
        :: else
        fi;
        end_hold();
        cl[e_c].code = OK;
        settle()
    :: else -> cl[e_c].code = REFUSED
    fi
}

inline forget_result(x)
{
    cl[x].code = 0;
    cl[x].ktok = 0;
    cl[x].kstamp = 0
}

/* raftstore/lock/step.c: at most once. */
inline run_once()
{
    if
#ifndef MUT_NO_DEDUP
    :: e_seq < cl[e_c].done -> skip  /* Stale. */
    :: e_seq == cl[e_c].done -> skip /* The kept result. */
#endif
    :: else ->
        /* It takes effect between being asked and being answered. */
        assert(e_seq > cl[e_c].answered);
        cl[e_c].done = e_seq;
        if
        :: e_op == ACQ -> acquire()
        :: e_op == REN -> renew()
        :: e_op == REL -> release()
        fi
    fi;
    if
    :: cl[e_c].busy && e_seq == cl[e_c].seq -> cl[e_c].answer = 1
    :: !cl[e_c].busy || cl[e_c].seq > cl[e_c].done -> forget_result(e_c) /* Nobody asks for it. */
    :: else
    fi
}

/* ---- The log and its leaders ---- */

inline forget_pair(x)
{
    cl[x].pair = 0;
    cl[x].page = 0;
    cl[x].plost = 0;
    cl[x].pstamp = 0
}

inline shift_client(x)
{
    if
    :: cl[x].code != 0 -> cl[x].kstamp = (cl[x].kstamp - d < KMIN -> KMIN : cl[x].kstamp - d)
    :: else
    fi;
    ACKED_SHIFT(x);
    if
    :: cl[x].pair -> cl[x].pstamp = cl[x].pstamp - d
    :: else
    fi
}

/* Cluster times count from d on. */
inline shift()
{
    now = now - d;
    if
    :: holder != NONE -> hend = hend - d
    :: else
    fi;
    if
    :: delayed -> dend = dend - d
    :: else
    fi;
    for (k : 0 .. LOGMAX - 1) {
        lg[k].stamp = (k < nlog -> lg[k].stamp - d : 0)
    };
    shift_client(0);
    shift_client(1)
}

#define CAN_FAIL (!up || crashes < CRASHES)

inline clear_entry(i)
{
    lg[i].c = 0;
    lg[i].op = 0;
    lg[i].seq = 0;
    lg[i].tok = 0;
    lg[i].stamp = 0
}

inline apply()
{
    e_c = lg[0].c;
    e_op = lg[0].op;
    e_seq = lg[0].seq;
    e_tok = lg[0].tok;
    st = lg[0].stamp;
#if LOGMAX > 1
    lg[0].c = lg[1].c;
    lg[0].op = lg[1].op;
    lg[0].seq = lg[1].seq;
    lg[0].tok = lg[1].tok;
    lg[0].stamp = lg[1].stamp;
#endif
    clear_entry(LOGMAX - 1);
    nlog--;
    printf("applied: command %d of client %d, stamp %d\n", e_op, e_c, st);
    expire();
    if
    :: e_op != TICK -> run_once()
    :: else
    fi;
    assert(q0 == NONE || holder != NONE || delayed); /* Who waits, waits for somebody. */
    if
    :: CAN_FAIL ->
        d = st;
        shift()
    :: else
    fi;
    forget()
}

/* Scratch is no state: zero between steps. */
inline forget()
{
    d = 0;
    k = 0;
    a = 0;
    b = 0;
    st = 0;
    e_c = 0;
    e_op = 0;
    e_seq = 0;
    e_tok = 0
}

inline append(ec, eop, eseq, etok)
{
    lg[nlog].c = ec;
    lg[nlog].op = eop;
    lg[nlog].seq = eseq;
    lg[nlog].tok = etok;
#ifdef MUT_ENTRY_STAMP
    lg[nlog].stamp = (nlog > 0 -> lg[0].stamp : now); /* It joins an entry that waits. */
#else
    lg[nlog].stamp = now;
#endif
    printf("leader: command %d of client %d, number %d, stamped %d\n", eop, ec, eseq,
           lg[nlog].stamp);
    nlog++
}

/* The new leader has so many of the entries that were not committed.  Its time goes on from the
 * newest stamp in its log. */
inline elect(survive)
{
    for (k : 0 .. LOGMAX - 1) {
        if
        :: k >= survive && k < nlog -> clear_entry(k)
        :: else
        fi
    };
    nlog = survive;
    now = (nlog > 0 -> lg[nlog - 1].stamp : 0);
#ifdef MUT_CLOCK_AHEAD
    now = now + AHEAD;
#endif
#ifdef MUT_WAITER_LOST
    q0 = NONE;
    q1 = NONE;
#endif
#ifdef MUT_TOKEN_REUSED
    next = (holder != NONE -> htok + 1 : 1);
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

inline send(x, sop, stok)
{
    printf("client %d asks: command %d (1 acquire, 2 renew, 3 release) token %d\n", x, sop, stok);
    cl[x].busy = 1;
    cl[x].op = sop;
    cl[x].seq++;
    cl[x].rtok = stok;
    cl[x].age = 0;
    cl[x].spare = (sop == REL -> 0 : LOST(TTL) + FASTER)
}

/* It is over, answered or given up; a copy may still be under way. */
inline put_away(x, keep)
{
    if
    :: keep ->
        cl[x].old = 1;
        cl[x].oop = cl[x].op;
        cl[x].oseq = cl[x].seq;
        cl[x].otok = cl[x].rtok
    :: else
    fi;
    cl[x].busy = 0;
    cl[x].told = 0;
    cl[x].op = 0;
    cl[x].rtok = 0;
    cl[x].age = 0;
    cl[x].spare = 0;
    cl[x].answer = 0;
    forget_result(x);
    if
    :: cl[x].seq == SEQS(x) -> forget_pair(x) /* It is of no use any more. */
    :: else
    fi
}

inline clear_old(x)
{
    cl[x].old = 0;
    cl[x].oop = 0;
    cl[x].oseq = 0;
    cl[x].otok = 0
}

/* It relies on its hold no longer. */
inline lose(x)
{
    printf("client %d relies on its hold no longer\n", x);
    cl[x].left = -1;
    cl[x].bspare = 0;
#if !defined(FENCE) && !defined(ACKED)
    cl[x].tok = 0
#endif
}

/* raftstore/client/deadline.c, deadline_learn(). */
inline learn(x)
{
    if
    :: cl[x].kstamp > KMIN && cl[x].age < AMAX &&
       (!cl[x].pair || -cl[x].age - cl[x].kstamp > -cl[x].page - cl[x].pstamp) ->
        cl[x].pair = 1;
#ifdef MUT_PAIR_FROM_REPLY
        cl[x].page = 0;
#else
        cl[x].page = cl[x].age;
#endif
        cl[x].plost = LOST(TTL) + FASTER - cl[x].spare;
        cl[x].pstamp = cl[x].kstamp
    :: else
    fi
}

/* command.c, finish(): the better of the request's own instant and the best pair. */
inline rely(x)
{
#ifdef MUT_FROM_REPLY
    a = TTL - ALLOW(TTL);
#else
    a = TTL - ALLOW(TTL) - cl[x].age;
#endif
    cl[x].bspare = cl[x].spare;
    if
    :: cl[x].pair ->
        d = cl[x].kstamp + TTL - cl[x].pstamp;
#ifdef MUT_PAIR_FLAT
        b = d - ALLOW(TTL) - cl[x].page; /* Whatever the span. */
#else
        b = d - ALLOW(d) - cl[x].page;
#endif
        if
        :: b > a ->
            a = b;
            cl[x].bspare = LOST(d) + FASTER - cl[x].plost
        :: else
        fi
    :: else
    fi;
    if
    :: a < 0 -> lose(x)
    :: else ->
        printf("client %d relies on token %d, %d ticks of its clock are left\n", x, cl[x].tok, a);
        cl[x].left = a
    fi;
#ifndef OVERLAP
    assert(!BELIEVES(0) || !BELIEVES(1)) /* The safety sentence. */
#endif
}

inline take_answer(x, keep)
{
    printf("client %d is answered: %d (1 ok, 2 queued, 3 refused) token %d\n", x, cl[x].code,
           cl[x].ktok);
    cl[x].answer = 0;
#ifdef PAIR
    learn(x);
#endif
    if
    :: cl[x].code == QUEUED -> cl[x].told = 1
    :: else ->
        cl[x].answered = cl[x].seq;
        if
        :: cl[x].code == OK && cl[x].op == ACQ ->
            cl[x].tok = cl[x].ktok;
            ACKED_GRANT(x);
#ifdef FENCE
            cl[x].order = cl[x].korder;
#endif
            rely(x)
        :: cl[x].code == OK && cl[x].op == REN ->
            ACKED_RENEWAL(x);
            if
            :: BELIEVES(x) -> rely(x)
            :: else /* It was given up before this was known. */
            fi
        :: cl[x].code != OK && cl[x].op == REN -> lose(x)
        :: else
        fi;
        put_away(x, keep)
    fi;
    forget()
}

/* Does its clock matter? */
#define WATCHES(x)                                                                                 \
    (BELIEVES(x) || (cl[x].busy && cl[x].op != REL && cl[x].age < AMAX) || cl[x].pair)
#ifdef WILD
#define MAY_LOSE(x) WATCHES(x) /* A clock that may stand still for long. */
#define SPEND(x)    skip
#else
#define SPEND(x) x--
#define MAY_LOSE(x)                                                                                \
    (WATCHES(x) && (!BELIEVES(x) || cl[x].bspare > 0) && (!cl[x].busy || cl[x].spare > 0) &&       \
     (!cl[x].pair || cl[x].plost + 1 <= LOST(cl[x].page + cl[x].plost + 1) + FASTER))
#endif

inline tick_client(x, slow)
{
    if
    :: BELIEVES(x) && slow -> SPEND(cl[x].bspare)
    :: BELIEVES(x) && !slow && cl[x].left > 0 -> cl[x].left--
    :: BELIEVES(x) && !slow && cl[x].left == 0 -> lose(x)
    :: else
    fi;
    if
    :: cl[x].busy && cl[x].op != REL && slow -> SPEND(cl[x].spare)
    :: cl[x].busy && cl[x].op != REL && !slow && cl[x].age < AMAX -> cl[x].age++
    :: else
    fi;
    if
    :: cl[x].busy && cl[x].age == AMAX -> cl[x].spare = LOST(TTL) + FASTER
    :: else
    fi;
    if
    :: cl[x].pair && slow -> cl[x].plost++
    :: cl[x].pair && !slow && cl[x].page == AMAX -> forget_pair(x)
    :: cl[x].pair && !slow && cl[x].page < AMAX -> cl[x].page++
    :: else
    fi
}

#define MATTERS  (WATCHES(0) || WATCHES(1) || holder != NONE || delayed || nlog > 0)
#define MAY_TICK                                                                                   \
    (MATTERS && (!up || (now < CAP && (nlog == 0 || now - lg[0].stamp < CAP) &&                    \
                         (holder == NONE || now - hend < LATE) &&                                  \
                         (!delayed || now - dend < LATE))))

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

/* What a client may do, and the network with what it sent: a request arrives late, never, or again
 * while it is not answered, and (OLD) once more after that.  An answer that is lost and asked for
 * again is as one that is late, for the same result is kept. */
#define CLIENT(c)                                                                                  \
    :: d_step { cl[c].busy && cl[c].answer -> take_answer(c, 0) }                                  \
    :: d_step { cl[c].busy && cl[c].answer && c < OLD && cl[c].code != QUEUED ->                   \
        take_answer(c, 1) }                                                                        \
    :: d_step { cl[c].busy && !cl[c].told && up && nlog < LOGMAX && !IN_LOG(c) ->                  \
        append(c, cl[c].op, cl[c].seq, cl[c].rtok); RETRY(c); EARLY(c) }                           \
    :: d_step { cl[c].old && up && nlog < LOGMAX ->                                                \
        append(c, cl[c].oop, cl[c].oseq, cl[c].otok); clear_old(c) }                               \
    :: d_step { FREE(c) && !BELIEVES(c) -> send(c, ACQ, 0) }                                       \
    :: d_step { FREE(c) && BELIEVES(c) -> send(c, REN, cl[c].tok) }                                \
    :: d_step { FREE(c) && BELIEVES(c) -> send(c, REL, cl[c].tok); lose(c) }                       \
    :: d_step { cl[c].busy && cl[c].op == REN && cl[c].age > 0 -> /* Timed out. */                 \
        put_away(c, (c < OLD)) }                                                                   \
    WRITE(c)

#define FREE(x) (!cl[x].busy && cl[x].seq < SEQS(x))
#define IN_LOG(x)                                                                                  \
    ((nlog > 0 && lg[0].c == x && lg[0].seq == cl[x].seq) ||                                       \
     (nlog > 1 && lg[LOGMAX - 1].c == x && lg[LOGMAX - 1].seq == cl[x].seq))

#ifdef FENCE
/* A resource that checks tokens; what is sent to it may arrive whenever it likes. */
#ifdef MUT_UNCHECKED
#define ACCEPTS(c) 1
#else
#define ACCEPTS(c) (cl[c].tok >= seen)
#endif
#define WRITE(c)                                                                                   \
    :: d_step { cl[c].tok != 0 && ACCEPTS(c) && last_order != cl[c].order ->                       \
        seen = cl[c].tok; assert(cl[c].order > last_order); last_order = cl[c].order }
#else
#define WRITE(c)
#endif

#ifdef MUT_FROM_RETRY
#define RETRY(c) cl[c].age = 0; cl[c].spare = LOST(TTL)
#else
#define RETRY(c)
#endif

#ifdef MUT_ACK_EARLY
/* The leader answers a renewal when it has written it, not a majority. */
#define EARLY(c)                                                                                   \
    if                                                                                             \
    :: cl[c].op == REN && holder == c && htok == cl[c].rtok && hend > now && nlog == 1 ->          \
        cl[c].code = OK; cl[c].kstamp = (KMIN == 0 -> 0 : now); ACKED_RENEWAL(c);                  \
        rely(c); put_away(c, 0)                                                                    \
    :: else                                                                                        \
    fi;                                                                                            \
    forget()
#else
#define EARLY(c)
#endif

#define DUE                                                                                        \
    ((holder != NONE && hend <= now) || (delayed && dend <= now) || (now == CAP && MATTERS))

active proctype world()
{
    d_step {
        cl[0].left = -1;
        cl[1].left = -1
    };
end:
    do
    CLIENT(0)
    CLIENT(1)
    :: d_step { up && nlog > 0 -> apply() }
    :: d_step { up && nlog == 0 && DUE -> append(0, TICK, 0, 0) }
    :: d_step { up && crashes < CRASHES && (nlog > 0 || MATTERS) ->
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
        /* Nothing can happen any more: everybody was answered, nothing is held. */
        assert(up && !cl[0].busy && !cl[1].busy && holder == NONE && q0 == NONE);
        break
    od
}
