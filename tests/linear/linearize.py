"""Is the history of a lock linearizable: did each operation take effect at one instant between its
call and its answer, in an order in which a lock with leases would have said just that?

The algorithm is just-in-time linearization (G. Lowe, Testing for linearizability, CCPE 29(4), 2017;
the search and its memory of configurations go back to J. Wing and C. Gong, JPDC 17, 1993, and to
porcupine's and Knossos's use of it).  Locks are judged one by one (linearizability is local:
Herlihy and Wing, TOPLAS 12(3), 1990).  Events are taken in the order of time.  A configuration is a
state of the lock and the pending operations that have taken effect already.  When an operation is
answered, each configuration in which it has not taken effect is replaced by all in which it now
has, reached by letting other pending operations, and the environment, act before it.  If none is
left, the history is not linearizable, and that answer is the one that nothing explains.

What the environment may do: end a lease, not earlier than its ttl after the call that granted or
renewed it (cluster time never runs ahead of real time; a mount gives up, and may then release, at
its own deadline, which is a little earlier); end a hold of a session, unless a later answer shows
that it stood; end a hold whose client was not told of it (then the client
library takes it back; the plain "native" client does not), or asked for its release and was not
answered, and a hold of a session whose client was killed.  An indeterminate operation stays pending for ever.

Five facts keep the search small, none changes its verdict (test_linear.py compares it with a naive
one that tries everything):
- what changes nothing (a read, a refusal) takes effect as soon as it is explained;
- nothing acts before somebody needs it: an operation without a bound to its time can wait until
  just before the first that depends on it;
- tokens order the grants that are known;
- a hold that a later answer shows (renewal, release, read) can't have ended before;
- an indeterminate release or renewal needs no place of its own: it only lets the hold end.
The search begins with few configurations at a time, which can prove a history right, and is
repeated with more, in the end with all, before anything is called wrong.
"""
from typing import NamedTuple

from history import FOREVER, MS

# How much a pass keeps: configurations; indeterminate acquires tried for one need; whether other
# pending operations may act first although nothing demands it.
PASSES = ((24, 4, False), (256, 12, True), (20000, 1 << 30, True))
WAITER_NS = 120 * 1000 * MS  # A waiter whose end nobody was told of may stand in the queue so long.
OWNERS = ("http", "native")  # The client names the owner, and acquires what it holds once more.
MOUNTS = ("oexcl", "mkdir", "link", "rename", "flock", "fcntl")


class Hold(NamedTuple):
    grant: int  # Id of the operation that made it.
    token: int  # 0: not known (yet).
    lock: str
    end: int    # From then on the environment may end it.


class Config(NamedTuple):
    holds: tuple   # Of Hold, in the order of their grants.
    highest: int   # Token.
    done: frozenset  # Ids of pending operations that have taken effect.


class Verdict(NamedTuple):
    good: bool
    certain: bool    # Nothing was left out before it was called wrong.
    op: object       # The answer that nothing explains.
    at: int          # Its time.
    states: list     # What the lock may have looked like just before it.


def lease_end(op, drift):
    """The earliest end of what this operation granted or renewed."""
    if op.ttl is None or op.outcome == "unknown" and op.by != "native":
        return op.inv
    ttl = op.ttl - int(op.ttl * drift)
    if op.by in MOUNTS:
        ttl -= op.ttl // 128 + 5 * MS
    return op.inv + max(ttl, 0)


def same_owner(a, b):
    """Over HTTP a client names the owner; what a mount locks has an owner of its own each time."""
    return a.client == b.client and a.by == b.by and a.by in OWNERS


class Search:
    def __init__(self, ops, ends, drift, limits):
        self.ops = ops
        self.by_id = {op.id: op for op in ops}
        self.ends = ends
        self.drift = drift
        self.keep, self.tries, self.thorough = limits
        self.cut = False
        self.pending = {}    # Determinate ones.
        self.lost = []       # Indeterminate acquires and renames that were invoked.
        self.waiters = []    # Acquires that wait in the queue.
        self.now = 0
        self.uses = {}       # Token, or (client, n) of the grant: the answers that show the hold.
        self.loose = {}      # Client: what it asked for without an answer, that may end its hold,
                             # and from when on.
        self.given = {}      # Token: the acquire that was told it (over HTTP, where that may be
                             # the second of its client: the client).
        self.longest = {}    # Client: the longest ttl that it ever asked for.
        self.renames = any(op.to for op in ops)  # Several names: several holders.
        self.index()

    # ---- what is known beforehand ----

    def index(self):
        for op in self.ops:
            if op.kind == "acquire" and op.outcome == "ok" and op.token:
                self.given[op.token] = op.client if op.by in OWNERS else op
            if op.ttl:
                self.longest[op.client] = max(op.ttl, self.longest.get(op.client, 0))
            if op.outcome == "unknown" and op.kind in ("release", "rename"):
                self.loose.setdefault(op.client, []).append((op.inv, op))
            elif op.outcome == "unknown" and op.ttl and (op.kind == "renew" or op.by in OWNERS):
                end = op.inv + op.ttl - op.ttl // 128 - 5 * MS - int(op.ttl * self.drift)
                self.loose.setdefault(op.client, []).append((end, op))
            elif op.outcome == "ok" and op.kind in ("renew", "release", "check", "rename"):
                self.uses.setdefault(op.token or (op.client, op.of), []).append(op)
            if op.kind == "read" and op.outcome == "ok":
                for token, _ in op.tokens:
                    self.uses.setdefault(token, []).append(op)

    def can_end(self, c, h):
        """May the environment end this hold now?"""
        grant = self.by_id[h.grant]
        for key in (h.token, (grant.client, grant.n)):
            for op in self.uses.get(key, ()):
                if op.resp >= self.now and op.id not in c.done:
                    return False
        return (h.end <= self.now or
                grant.ttl is None and self.ends.get(grant.client, FOREVER) <= self.now or
                any(at <= self.now and self.means(h, op) and self.shortens(h, op)
                    for at, op in self.loose.get(grant.client, ())))

    def shortens(self, h, op):
        """May an operation without an answer have made the hold end by now?  Renewals come one
        after another, so one makes a lease shorter only by asking for less."""
        return op.kind in ("release", "rename") or \
            h.end - self.longest[op.client] + op.ttl <= self.now

    # ---- the lock ----

    def conflicts(self, h, op, lock=None):
        grant = self.by_id[h.grant]
        return (h.lock == (lock or op.lock) and not same_owner(grant, op) and
                (grant.exclusive or op.exclusive) and grant.lo < op.hi and op.lo < grant.hi)

    def means(self, h, op):
        """Is this the hold that a renewal, release, rename or check is about?"""
        grant = self.by_id[h.grant]
        if grant.client != op.client:
            return False
        if op.token and h.token:
            return op.token == h.token
        return op.of is None or op.of == grant.n

    def find(self, c, op):
        found = None
        for i, h in enumerate(c.holds):
            if self.means(h, op):
                found = i
        return found

    def explained(self, c, op):
        """Does an operation that changes nothing fit this state as it is?"""
        if op.kind == "read":
            held = [h for h in c.holds if h.lock == op.lock]
            if op.outcome == "refused":
                return True
            if op.keys.get("some"):
                return any(self.owner_fits(h, op) for h in held)
            return (len(held) == len(op.tokens) and
                    all(h.token for h in held) and {h.token for h in held} == {t for t, _ in op.tokens})
        if op.kind == "check" and op.outcome == "ok":
            i = self.find(c, op)
            return i is not None and (not op.token or c.holds[i].token == op.token)
        if op.why == "held":
            lock = op.to or op.lock
            if any(self.conflicts(h, op, lock) and self.owner_fits(h, op) for h in c.holds):
                return True
            return not op.owner and any(self.waits_before(c, w, op) for w in self.waiters)
        if op.why == "gone":
            return self.find(c, op) is None
        return True  # Lost: the mount's own judgement.  Never: nothing happened.

    def owner_fits(self, h, op):
        return not op.owner or op.owner == "?" or self.by_id[h.grant].client == op.owner

    def waits_before(self, c, w, op):
        return (not same_owner(w, op) and w.lock == op.lock and (w.exclusive or op.exclusive) and
                w.lo < op.hi and op.lo < w.hi and (w.id not in c.done or w.outcome != "ok") and
                (w.resp if w.outcome != "unknown" else w.ended + WAITER_NS) >= op.inv)

    @staticmethod
    def passive(op):
        return op.kind in ("read", "check") or op.outcome == "refused"

    def settle(self, c):
        """Let everything act that changes nothing and is explained."""
        more = [op.id for op in self.pending.values()
                if op.id not in c.done and self.passive(op) and self.explained(c, op)]
        return c._replace(done=c.done.union(more)) if more else c

    # ---- making an operation take effect ----

    def act(self, c, op, stack=()):
        """Configurations in which `op` has just taken effect, with what it needs before it."""
        if op.id in c.done:
            return [c]
        if op.id in stack:
            return []
        stack = stack + (op.id,)
        if self.passive(op):
            if self.explained(c, op):
                return [c._replace(done=c.done | {op.id})]
            return self.act_passive(c, op, stack)
        return getattr(self, "act_" + op.kind)(c, op, stack)

    def finish(self, c, op, holds, highest=None):
        highest = c.highest if highest is None else highest
        return self.settle(Config(tuple(holds), highest, c.done | {op.id}))

    def drop(self, c, h, stack):
        """Configurations without this hold."""
        out = []
        for op in self.pending.values():
            if op.kind in ("renew", "release", "rename") and op.outcome == "ok" and \
                    op.id not in c.done and self.means(h, op):
                for d in self.act(c, op, stack):
                    still = [x for x in d.holds if x.grant == h.grant and x.lock == h.lock]
                    out += self.drop(d, still[0], stack) if still else [d]
        if not out and self.can_end(c, h):
            out.append(self.settle(c._replace(holds=tuple(x for x in c.holds if x != h))))
        for op in self.lost:  # It may have gone to another name.
            if op.kind == "rename" and op.id not in c.done and self.means(h, op) and op.to != h.lock:
                out += self.act(c, op, stack)
        return out

    def clear(self, configs, unwanted, stack):
        """Configurations without the holds for which unwanted(hold) is true."""
        out = []
        work = list(configs)
        while work:
            c = work.pop()
            bad = [h for h in c.holds if unwanted(h)]
            if not bad:
                out.append(c)
            else:
                work += self.drop(c, bad[0], stack)
        return out

    def act_acquire(self, c, op, stack):
        own = self.find(c, op) if op.by in OWNERS else None
        out = []
        if own is not None:  # Asked for again by its owner: renewed.
            h = c.holds[own]
            if op.token and not h.token:
                known = self.bind(c, own, op.token)
            else:
                known = [c] if op.token in (0, h.token) else []
            for d in known:
                h = d.holds[own]
                if op.outcome != "unknown":
                    h = h._replace(end=lease_end(op, self.drift))
                out.append(self.finish(d, op, d.holds[:own] + (h,) + d.holds[own + 1:]))
        if op.token and op.token <= c.highest:
            return out
        if op.token:
            for other in self.pending.values():
                if other.kind == "acquire" and other.outcome == "ok" and other.id not in c.done and \
                        0 < other.token < op.token and other.token > c.highest:
                    for d in self.act(c, other, stack):
                        out += self.act(d, op, stack[:-1])
                    return out
        for d in self.clear([c], lambda h: self.conflicts(h, op) or self.replaced(h, op), stack):
            if op.id in d.done or op.token and op.token <= d.highest:
                continue
            h = Hold(op.id, op.token, op.lock, lease_end(op, self.drift))
            out.append(self.finish(d, op, d.holds + (h,), max(d.highest, op.token)))
        return out

    def replaced(self, h, op):
        """An owner has one hold on a lock (and range) at a time: an older one must have ended."""
        grant = self.by_id[h.grant]
        return (h.lock == op.lock and same_owner(grant, op) and grant.lo < op.hi and
                op.lo < grant.hi)

    def bound(self, c, op, stack):
        """Pairs (configuration, index) in which the hold that the operation means stands, with
        the operation's token."""
        i = self.find(c, op)
        if i is not None:
            h = c.holds[i]
            if op.token and not h.token:
                return [(b, i) for b in self.bind(c, i, op.token)]
            return [(c, i)]
        out = []
        for d in self.granted(c, op, stack):
            i = self.find(d, op)
            if i is not None:
                out += self.bound(d, op, stack)
        return out

    def bind(self, c, i, token):
        """The unknown token of a hold becomes known."""
        grant = self.by_id[c.holds[i].grant]
        # Where nothing can have been granted since, the token is the highest.
        alone = grant.exclusive and grant.lo == 0 and grant.hi == FOREVER and not self.renames
        if any(h.token == token for h in c.holds) or alone and token <= c.highest or \
                self.given.get(token, grant) not in (grant, grant.client):
            return []
        holds = c.holds[:i] + (c.holds[i]._replace(token=token),) + c.holds[i + 1:]
        return [self.settle(Config(holds, max(c.highest, token), c.done))]

    def candidates(self, c, fits):
        """Acquires (and lost renames) that may take effect now: the known first, then the lost
        ones, the youngest first."""
        for op in list(self.pending.values()):
            if op.kind in ("acquire", "rename") and op.outcome == "ok" and op.id not in c.done and \
                    fits(op):
                yield op
        n = 0
        for op in reversed(self.lost):
            if op.id not in c.done and fits(op):
                n += 1
                if n > self.tries:
                    self.cut = True
                    return
                yield op

    def granted(self, c, op, stack):
        """Configurations after an acquire that may have made the hold that `op` means."""
        def fits(a):
            return a.kind == "acquire" and (
                a.token == op.token != 0 or a.client == op.client and not a.token and
                (op.of is None or a.n == op.of or a.by in OWNERS))
        out = []
        for a in self.candidates(c, fits):
            out += self.act(c, a, stack)
        return out

    def act_renew(self, c, op, stack):
        out = []
        for d, i in self.bound(c, op, stack):
            h = d.holds[i]._replace(end=lease_end(op, self.drift))
            out.append(self.finish(d, op, d.holds[:i] + (h,) + d.holds[i + 1:]))
        return out

    def act_release(self, c, op, stack):
        out = []
        for d, i in self.bound(c, op, stack):
            work = [d]
            for other in list(self.pending.values()):  # What also shows the hold comes first.
                if other.kind == "renew" and other.outcome == "ok" and self.means(d.holds[i], other):
                    work = [e for w in work for e in self.act(w, other, stack)]
            for e in work:
                j = self.find(e, op)
                if j is not None and op.id not in e.done:
                    out.append(self.finish(e, op, e.holds[:j] + e.holds[j + 1:]))
        return out

    def act_rename(self, c, op, stack):
        out = []
        for d, i in self.bound(c, op, stack):
            if d.holds[i].lock != op.lock:
                continue
            mine = d.holds[i].grant
            for e in self.clear([d], lambda h: h.lock == op.to and h.grant != mine, stack):
                holds = [h._replace(lock=op.to) if h.grant == mine else h for h in e.holds]
                out.append(self.finish(e, op, holds))
        return out

    def act_passive(self, c, op, stack):
        if op.kind == "read":
            return self.act_read(c, op, stack)
        if op.kind == "check":  # Answered ok: a refusal needs nothing.
            found = [d for d, _ in self.bound(c, op, stack)]
        elif op.why == "held":
            lock = op.to or op.lock

            def fits(a):
                there = (a.to if a.kind == "rename" else a.lock) == lock
                return there and not same_owner(a, op) and (a.exclusive or op.exclusive) and \
                    a.lo < op.hi and op.lo < a.hi and (op.owner in (None, "?", a.client))
            found = [d for a in self.candidates(c, fits) for d in self.act(c, a, stack)]
        else:  # Gone.
            found = self.clear([c], lambda h: self.means(h, op), stack)
        return [d if op.id in d.done else d._replace(done=d.done | {op.id})
                for d in found if op.id in d.done or self.explained(d, op)]

    def act_read(self, c, op, stack):
        if op.keys.get("some"):
            found = [d for a in self.candidates(c, lambda a: op.lock in (a.lock, a.to) and
                                                op.owner in (None, "?", a.client))
                     for d in self.act(c, a, stack)]
        else:
            wanted = dict(op.tokens)
            found = self.clear([c], lambda h: h.lock == op.lock and h.token and
                               h.token not in wanted, stack)
            for token, client in op.tokens:
                found = [e for d in found for e in self.show(d, op, token, client, stack)]
            found = self.clear(found, lambda h: h.lock == op.lock and h.token not in wanted, stack)
        return [d if op.id in d.done else d._replace(done=d.done | {op.id})
                for d in found if op.id in d.done or self.explained(d, op)]

    def show(self, c, op, token, client, stack):
        """Configurations in which a hold with this token stands at the lock of a read."""
        if op.id in c.done:
            return [c]
        if any(h.token == token and h.lock == op.lock for h in c.holds):
            return [c]
        out = []
        for i, h in enumerate(c.holds):
            if h.lock == op.lock and not h.token and client in ("?", self.by_id[h.grant].client):
                out += self.bind(c, i, token)

        def fits(a):
            if a.kind == "rename":
                return a.to == op.lock and a.token in (0, token)
            return a.lock == op.lock and (a.token == token or not a.token and
                                          client in ("?", a.client))
        for a in self.candidates(c, fits):
            for d in self.act(c, a, stack):
                if op.id in d.done or any(h.token == token for h in d.holds):
                    out.append(d)
                    continue
                for i, h in enumerate(d.holds):
                    if h.lock == op.lock and h.grant == a.id and not h.token:
                        out += self.bind(d, i, token)
        return out

    # ---- the events ----

    def reach(self, configs, op):
        """The configurations after the answer of `op`."""
        out = set()
        work = list(configs)
        seen = set(configs)
        while work:
            c = work.pop()
            if op.id in c.done:
                out.add(c)
                continue
            found = self.act(c, op)
            out.update(d for d in found)
            if found and (not self.thorough or self.passive(op) and self.explained(c, op)):
                continue
            if not self.thorough:
                continue
            for other in list(self.pending.values()):
                if other is op or other.id in c.done:
                    continue
                for d in self.act(c, other):
                    if d not in seen:
                        seen.add(d)
                        work.append(d)
            if len(seen) > 4 * self.keep:
                self.cut = True
                break
        return out

    def prune(self, configs):
        if len(configs) <= self.keep:
            return configs
        self.cut = True
        return set(sorted(configs, key=lambda c: (len(c.done), [-i for i in sorted(c.done)]))[:self.keep])

    def run(self):
        events = []
        for op in self.ops:
            if op.outcome == "unknown" and not (op.kind in ("acquire", "rename")):
                continue
            events.append((op.inv, 0, op.id, op))
            if op.outcome != "unknown":
                events.append((op.resp, 1, op.id, op))
        events.sort(key=lambda e: e[:3])
        configs = {Config((), 0, frozenset())}
        for self.now, what, _, op in events:
            if what == 0:
                configs = self.invoked(configs, op)
                continue
            after = self.reach(configs, op)
            if not after:
                return Verdict(False, not self.cut, op, self.now, self.describe(configs))
            del self.pending[op.id]
            if op in self.waiters:
                self.waiters.remove(op)
            configs = self.prune({c._replace(done=c.done - {op.id}) for c in after})
        return Verdict(True, True, None, 0, [])

    def invoked(self, configs, op):
        if op.outcome == "unknown":
            self.lost.append(op)
        else:
            self.pending[op.id] = op
        if op.wait:
            self.waiters.append(op)
        if op.wait or op.outcome != "unknown" and self.passive(op):
            return {self.settle(c) for c in configs}
        return configs

    def describe(self, configs):
        out = []
        for c in sorted(configs, key=lambda c: len(c.done))[:5]:
            holds = ", ".join(
                f"{self.by_id[h.grant].client} with token {h.token or 'unknown'}"
                f"{' at ' + h.lock if h.lock != self.ops[0].lock else ''}" for h in c.holds)
            out.append(holds or "free")
        return list(dict.fromkeys(out))


def judge(ops, ends=None, drift=0.0):
    """The verdict on the operations of one lock (ids and times as history.read() makes them)."""
    verdict = None
    for limits in PASSES:
        search = Search(ops, ends or {}, drift, limits)
        verdict = search.run()
        if verdict.good or limits[2] and verdict.certain:
            return verdict
    return verdict
